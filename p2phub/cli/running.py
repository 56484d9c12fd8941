"""Run an operation for a command: settings from the environment, progress on stderr, the result on stdout."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
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
    """Return the settings that the environment and the options give."""
    from p2phub.node.node import Settings
    from p2phub.store.layout import Layout

    return Settings(
        Layout.from_environment(),
        offline=offline or is_set("P2PHUB_OFFLINE"),
        plain=plain or is_set("P2PHUB_PLAIN"),
    )


def is_set(name: str) -> bool:
    """Say whether an environment variable switches something on. Raises InvalidName for another word."""
    from p2phub.core.errors import InvalidName

    value = os.environ.get(name, "").strip().lower()
    if value in ("", "0", "false", "no", "off"):
        return False
    if value in ("1", "true", "yes", "on"):
        return True
    raise InvalidName(f"{name}={value} is neither 1 nor 0")


def run(operation: Operation, *, offline: bool = False, peers: Sequence[str] = (), quiet: bool = False) -> Any:
    """Run `operation` and return its result. Raises HubError, KeyboardInterrupt."""
    import trio

    from p2phub.core.errors import HubError
    from p2phub.gateway.client import run_operation
    from p2phub.node.operations import AddPeers

    from .main import configure_logging
    from .progress import show_progress

    configure_logging()
    chosen = settings(offline=offline)

    async def work() -> Any:
        with show_progress(quiet=quiet) as tell:
            if peers:
                await run_operation(chosen, AddPeers(tuple(peers)), tell)
            return await run_operation(chosen, operation, tell)

    try:
        return trio.run(work, strict_exception_groups=True)
    except BaseExceptionGroup as group:
        # Ctrl-C inside a nursery comes wrapped.
        for kind in (KeyboardInterrupt, HubError):
            inner, _ = group.split(kind)
            if inner is not None:
                raise _first(inner) from None
        raise


def print_json(value: Any) -> None:
    """Print `value` as one JSON document."""
    from p2phub.core.jsonform import to_json

    sys.stdout.write(to_json(value).decode() + "\n")


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group
