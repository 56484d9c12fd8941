"""Commands about private repositories: grant, revoke, grants."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from .running import json_option, print_json, run
from .text import say

if TYPE_CHECKING:
    from p2phub.node.operations.grants import PrivateInfo

_WHO = (
    "WHO is a namespace, a name of one, a node as p2phub://NODEID@HOST:PORT or node:NODEID, or federation:NAME: all its"
    " members, as long as they are."
)


@click.command(epilog=_WHO)
@click.argument("name", metavar="MODEL")
@click.argument("who", metavar="WHO")
@click.option(
    "--days",
    type=click.IntRange(1, 30),
    metavar="N",
    help="For so many days; without it as long as your node runs at least once in 30 days.",
)
@json_option
def grant(name: str, who: str, days: int | None, as_json: bool) -> None:
    """Let somebody read a private repository of yours."""
    from p2phub.node.operations.grants import GrantAccess

    result = run(GrantAccess(name, who, days))
    if as_json:
        print_json(result)
    else:
        _say(result)
        _say_told(result)


@click.command(epilog=_WHO)
@click.argument("name", metavar="MODEL")
@click.argument("who", metavar="WHO")
@click.option("-m", "--message", default="", help="Why; all who may read the repository see it.")
@json_option
def revoke(name: str, who: str, message: str, as_json: bool) -> None:
    """Take back what you granted; what was fetched before stays where it is."""
    from p2phub.node.operations.grants import RevokeAccess

    result = run(RevokeAccess(name, who, message))
    if as_json:
        print_json(result)
    else:
        _say(result)
        say("  it ended at once on this node; others that give it learn so when they ask, within a minute")


@click.command()
@click.argument("name", metavar="[REF]", required=False)
@json_option
def grants(name: str | None, as_json: bool) -> None:
    """Show the private repositories that are here, and who may read each."""
    from p2phub.node.operations.grants import ListGrants

    found = run(ListGrants(name))
    if as_json:
        print_json(found)
        return
    for repository in found:
        _say(repository)
    if not found:
        say("no private repositories are here", err=True)


def _say(repository: PrivateInfo) -> None:
    say(f"{repository.namespace}/{repository.model}")
    say("  its publisher may read it" + (", and" if repository.grants else ", and nobody else"))
    for each in repository.grants:
        day = time.strftime("%Y-%m-%d", time.localtime(each.until))
        until = f"until {day}, then renewed" if each.renewed else f"until {day}"
        say(f"  {each.kind} {each.to} {until}")


def _say_told(result: PrivateInfo) -> None:
    nodes = "1 node that may read it was" if result.told == 1 else f"{result.told} nodes that may read it were"
    say(f"  {nodes} told; others learn of it when they ask, within a minute")
