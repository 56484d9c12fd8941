"""Commands for the clients of other hubs."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

import click

from .running import json_option, print_json
from .text import say


def hub_cache(environment: Mapping[str, str] = os.environ) -> Path:
    """Return where huggingface_hub keeps what it downloaded, by its own rules."""
    if folder := environment.get("HF_HUB_CACHE"):
        return Path(folder)
    home = environment.get("HF_HOME") or os.path.join(environment.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    return Path(home) / "hub"


@click.command()
@json_option
def env(as_json: bool) -> None:
    """Print the variables that let tools for other hubs work through the running node.

    Use it as: eval "$(p2phub env)"
    """
    from p2phub.integrations import hub_variables

    variables = hub_variables()
    if as_json:
        print_json(variables)
        return
    for name, value in variables.items():
        say(f"export {name}={shlex.quote(value)}")
