"""What a person types. Here is only what is needed before anything else is loaded."""

from __future__ import annotations

import sys

EXIT_INTERRUPTED = 130


def interrupted() -> int:
    """Say that a command was stopped by its user; returns its exit code."""
    sys.stderr.write("p2phub: interrupted\n")
    return EXIT_INTERRUPTED
