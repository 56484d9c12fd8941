"""The command that says whose records this node takes in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from .names import pinned_names
from .running import json_option, print_json, run
from .text import human_bytes, parse_bytes, say

if TYPE_CHECKING:
    from p2phub.core.policy import Policy

SHOWN_MAX = 20  # publishers of one list
# What other tools call it -> what does it here.
VERBS = {
    **dict.fromkeys(("add", "new"), "NAMESPACE"),
    **dict.fromkeys(("ls", "list", "show"), ""),
    **dict.fromkeys(("rm", "remove", "delete", "del", "unfollow"), "--remove NAMESPACE"),
    "block": "--block NAMESPACE",
    "unblock": "--unblock NAMESPACE",
    **dict.fromkeys(("all", "everybody", "everyone"), "open"),
}


@click.command()
@click.argument("publishers", nargs=-1, metavar="[open|NAMESPACE...]")
@click.option("--remove", multiple=True, metavar="NAMESPACE", help="Follow this publisher no longer.")
@click.option("--block", multiple=True, metavar="NAMESPACE", help="Take nothing more of this publisher.")
@click.option("--unblock", multiple=True, metavar="NAMESPACE", help="Take what this publisher publishes again.")
@click.option("--records-max", metavar="N|none", help="Records that are taken of one publisher, at most.")
@click.option("--bytes-max", metavar="SIZE|none", help="Bytes of records that are taken of one publisher, about.")
@json_option
def follow(
    publishers: tuple[str, ...],
    remove: tuple[str, ...],
    block: tuple[str, ...],
    unblock: tuple[str, ...],
    records_max: str | None,
    bytes_max: str | None,
    as_json: bool,
) -> None:
    """Say whose records this node takes in: everybody's (open), or those of some publishers. Without more, show it."""
    from p2phub.node.operations.policy import ChangePolicy, ShowPolicy

    if publishers and publishers[0].lower() in VERBS and publishers[0] not in pinned_names().values():
        instead = f"p2phub follow {VERBS[publishers[0].lower()]}".strip()
        raise click.UsageError(f"'{publishers[0]}' is not the name of a publisher here: `{instead}` does that")
    is_open = publishers == ("open",)
    if "open" in publishers and not is_open:
        raise click.UsageError("'open' stands alone: it means everybody")
    if publishers or remove or block or unblock or records_max or bytes_max:
        policy = run(
            ChangePolicy(
                mode="open" if is_open else "listed" if publishers else None,
                follow=() if is_open else publishers,
                unfollow=remove,
                block=block,
                unblock=unblock,
                records_max=_limit(records_max, "--records-max", int),
                bytes_max=_limit(bytes_max, "--bytes-max", parse_bytes),
            )
        )
    else:
        policy = run(ShowPolicy())
    if as_json:
        print_json(policy)
    else:
        _show(policy)


def _limit(text: str | None, option: str, parse: Callable[[str], int]) -> int | None:
    """Return what an option says: None if it was not given, 0 for none."""
    if text is None:
        return None
    if text.strip().lower() == "none":
        return 0
    try:
        value = parse(text)
    except ValueError as exc:
        raise click.BadParameter(f"'{text}' is no number, nor none", param_hint=option) from exc
    if not 1 <= value <= 2**53:
        raise click.BadParameter(f"'{text}' is out of range", param_hint=option)
    return value


def _show(policy: Policy) -> None:
    if policy.mode == "open":
        say("records of all publishers are taken in")
    else:
        from p2phub.node.operations.federations import FederationList

        count = len(policy.followed)
        whom = [f"of {count} publishers" if count > 1 else "of one publisher"] if count else []
        if names := [each.name for each in run(FederationList()) if each.member]:
            whom.append(f"of the members of {', '.join(names)}")
        say(f"records {' and '.join(whom) or 'of no publisher'} are taken in, and your own")
        _list(policy.followed)
    if policy.blocked:
        say(f"blocked: {len(policy.blocked)}")
        _list(policy.blocked)
    if policy.records_max:
        say(f"of each at most {policy.records_max} records")
    if policy.bytes_max:
        say(f"of each about {human_bytes(policy.bytes_max)} of records")


def _list(names: tuple[str, ...]) -> None:
    known = pinned_names() if names else {}
    for name in names[:SHOWN_MAX]:
        say(f"  {name}" + (f"  {known[name]}" if name in known else ""))
    if len(names) > SHOWN_MAX:
        say(f"  and {len(names) - SHOWN_MAX} more")
