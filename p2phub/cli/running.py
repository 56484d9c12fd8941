"""Run an operation for a command: settings from the environment, progress on stderr, the result on stdout."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from p2phub.node.node import Settings
    from p2phub.node.operations import Operation

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
offline_option = click.option("--offline", is_flag=True, help="Use no network (also: P2PHUB_OFFLINE=1).")
peer_option = click.option(
    "--peer", "peer", multiple=True, metavar="ADDRESS", help="Also ask this peer: p2phub://NODEID@HOST:PORT."
)


def settings(*, offline: bool = False, plain: bool = False) -> Settings:
    """Return the settings that the environment and the options give. Raises InvalidName."""
    from p2phub.node.node import Settings

    chosen = Settings.from_environment()
    return replace(chosen, offline=chosen.offline or offline, plain=chosen.plain or plain)


def run(operation: Operation, *, offline: bool = False, peers: Sequence[str] = (), quiet: bool = False) -> Any:
    """Run `operation` and return its result. Raises HubError, KeyboardInterrupt."""
    from p2phub.gateway.client import run_operation
    from p2phub.node.operations import AddPeers
    from p2phub.node.running import run_to_end

    from .progress import show_progress

    chosen = settings(offline=offline)

    async def work() -> Any:
        with show_progress(quiet=quiet) as tell:
            if peers:
                await run_operation(chosen, AddPeers(tuple(peers)), tell)
            return await run_operation(chosen, operation, tell)

    return run_to_end(work)


def print_json(value: Any) -> None:
    """Print `value` as one JSON document."""
    from p2phub.core.jsonform import to_json

    sys.stdout.write(to_json(value).decode() + "\n")
