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
    from p2phub.core.errors import NotFound
    from p2phub.gateway.client import find_daemon
    from p2phub.store.layout import Layout

    daemon = find_daemon(Layout.from_environment())
    if daemon is None:
        raise NotFound("no node runs for this home", hint="start one: p2phub node")
    variables = {"HF_ENDPOINT": daemon.local_url, "HF_TOKEN": daemon.token}
    if as_json:
        print_json(variables)
        return
    for name, value in variables.items():
        say(f"export {name}={shlex.quote(value)}")
