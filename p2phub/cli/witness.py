"""Commands about witnesses: who vouches that a log only grows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .running import json_option, offline_option, print_json, run
from .text import human_time, say

if TYPE_CHECKING:
    from p2phub.node.operations.witnesses import WitnessInfo


@click.group()
def witness() -> None:
    """Witnesses: others who vouch that nobody is shown another history of your log."""


@witness.command("add")
@click.argument("key", metavar="KEY")
@click.argument("place", metavar="[ADDRESS|URL]", required=False)
@offline_option
@json_option
def add(key: str, place: str | None, offline: bool, as_json: bool) -> None:
    """Count on a witness by its KEY, NAME+ID+KEY; with an address, let it cosign what you publish.

    `p2phub node --witness` says both of itself. A URL is that of any witness that speaks c2sp.org/tlog-witness.
    """
    from p2phub.node.operations.witnesses import AddWitness

    result = run(AddWitness(key, place), offline=offline)
    if as_json:
        print_json(result)
        return
    say(f"added the witness {result.name}")
    _say_state(result)


@witness.command("ls")
@json_option
def ls(as_json: bool) -> None:
    """List the witnesses: how much of your log each vouched for, and when."""
    from p2phub.node.operations.witnesses import ListWitnesses

    result = run(ListWitnesses())
    if as_json:
        print_json(result)
        return
    for each in result.witnesses:
        say(each.key)
        _say_state(each, of=result.own_records)
    if result.key is not None:
        logs = "1 log" if result.cosigned == 1 else f"{result.cosigned} logs"
        say(f"this node is a witness of {logs}, with the key")
        say(f"  {result.key}")
    if result.stated is not None:
        say(f"you last stated {human_time(result.stated)} that nothing newer is there", err=True)
    if not result.witnesses:
        say("no witnesses are known: p2phub witness add KEY ADDRESS", err=True)


@witness.command("rm")
@click.argument("name", metavar="NAME|KEY")
@json_option
def rm(name: str, as_json: bool) -> None:
    """Count on a witness no longer."""
    from p2phub.node.operations.witnesses import RemoveWitness

    result = run(RemoveWitness(name))
    if as_json:
        print_json(result)
    else:
        say(f"forgot the witness {result.name}")


def _say_state(each: WitnessInfo, *, of: int | None = None) -> None:
    if each.place is None:
        say("  it is counted and not asked")
        return
    if each.answered is not None:
        records = "1 record" if each.size == 1 else f"{each.size} records"
        whole = f" of {of}" if of is not None else ""
        say(f"  vouches for {records}{whole}, last {human_time(each.answered)}")
    elif each.problem is None:
        is_empty = of == 0 if of is not None else True
        say("  not asked yet: " + ("nothing is published" if is_empty else "p2phub node asks it"))
    if each.problem is not None:
        say(f"  does not vouch now: {each.problem}")
