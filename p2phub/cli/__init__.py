"""What a person types. Here is only what is needed before anything else is loaded."""

from __future__ import annotations

import contextlib
import sys

EXIT_INTERRUPTED = 130


def complain(text: str) -> None:
    """Write a line to stderr; where nothing can be written, the exit code alone tells."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"p2phub: {text}\n")
        sys.stderr.flush()


def interrupted() -> int:
    """Say that a command was stopped by its user; returns its exit code."""
    complain("interrupted")
    return EXIT_INTERRUPTED
