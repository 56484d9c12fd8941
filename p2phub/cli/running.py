"""Run an operation for a command: settings from the environment, progress on stderr, the result on stdout."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    from p2phub.node.operations import Operation
    from p2phub.node.settings import Settings

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
offline_option = click.option("--offline", is_flag=True, help="Use no network (also: P2PHUB_OFFLINE=1).")
peer_option = click.option(
    "--peer", "peer", multiple=True, metavar="ADDRESS", help="Also ask this peer: p2phub://NODEID@HOST:PORT."
)

from_option = click.option(
    "--from",
    "origins",
    multiple=True,
    metavar="URL",
    help="Also fetch from this web server; {path} in the URL stands for the path of a file.",
)

link_option = click.option(
    "--link",
    type=click.Choice(["auto", "reflink", "hard", "sym", "copy"]),
    default="auto",
    show_default=True,
    help="How files share their bytes with the store.",
)


def settings(*, offline: bool = False, plain: bool = False, more: Mapping[str, str] | None = None) -> Settings:
    """Return the settings that the environment and the options give. Raises InvalidName.

    more: what options say of variables in the environment.
    """
    from msgspec.structs import replace

    from p2phub.node.settings import Settings

    chosen = Settings.from_environment({**os.environ, **(more or {})})
    return replace(chosen, offline=chosen.offline or offline, plain=chosen.plain or plain)


def set_up_logging(level: Literal["DEBUG", "WARNING", "ERROR"]) -> None:
    """Send log lines from `level` on to stderr, unless this was said before."""
    import logging  # takes a twelfth of a command whose work a daemon does

    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)


def run(
    operation: Operation,
    *,
    offline: bool = False,
    peers: Sequence[str] = (),
    news: bool = False,
    quiet: bool = False,
) -> Any:
    """Do `operation` and return its result: through the daemon of this home if one runs, else alone.

    peers: addresses to add before. news: ask these for news even if the operation does not.
    Raises InvalidName if a value is outside its limits, HubError, KeyboardInterrupt.
    """
    from p2phub.gateway.client import Call, find_daemon
    from p2phub.node.given import as_argument, check_given

    from .progress import show_progress

    chosen = settings(offline=offline)
    operations = [operation]
    if peers:
        from p2phub.node.operations.peers import AddPeers

        operations.insert(0, AddPeers(tuple(peers), news))
    for each in operations:
        check_given(each, as_argument)
    with show_progress(quiet=quiet) as tell:
        # The daemon may use the network; who wants none does without it.
        daemon = None if chosen.offline else find_daemon(chosen.layout, tell=tell)
        if daemon is not None:
            return [Call(daemon, each, tell).run() for each in operations][-1]

        # Not before: the network's code and the store's take longer to load than a daemon takes for small work.
        from p2phub.node.dispatch import run_alone
        from p2phub.node.running import run_to_end

        set_up_logging("ERROR")
        gc.freeze()  # what was loaded is no garbage: to look through it in the middle of the work takes 15 ms
        return run_to_end(lambda: run_alone(chosen, operations, tell))


def confirm(question: str, *, instead: str) -> bool:
    """Ask the person at the terminal. instead: what answers yes where nobody is. Raises UsageError there."""
    if not sys.stdin.isatty():
        raise click.UsageError(f"nobody is there to be asked: {question} {instead} says yes")
    return click.confirm(question, err=True)


def print_json(value: Any) -> None:
    """Print `value` as one JSON document."""
    from p2phub.core.jsonform import to_json

    sys.stdout.write(to_json(value).decode() + "\n")
