"""Commands about what is believed: trust conflicts."""

from __future__ import annotations

import click

from .running import json_option, print_json, run
from .text import say


@click.group()
def trust() -> None:
    """What is believed of publishers, and what speaks against it."""


@trust.command("conflicts")
@click.argument("namespace", metavar="[NAMESPACE]", required=False)
@json_option
def conflicts(namespace: str | None, as_json: bool) -> None:
    """Show where the keys of a publisher do not agree: two histories of a log, two meanings of a version or branch.

    Nothing of it is chosen silently: what counts is the same on every node, and what does not is listed here.
    """
    from p2phub.node.operations import ListConflicts

    found = run(ListConflicts(namespace))
    if as_json:
        print_json(found)
        return
    for conflict in found:
        say(f"{conflict.kind:<8} {conflict.namespace}")
        if conflict.log:
            say(f"         log {conflict.log}")
        say(f"         {conflict.text}")
        if conflict.counts:
            say(f"         counts: {conflict.counts}")
        for other in conflict.others:
            say(f"         does not: {other}")
    if not found:
        say("no conflicts are known", err=True)
