"""Commands about promises to keep what others publish: pledge, pledge ls, pledge rm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .running import json_option, offline_option, peer_option, print_json, run
from .text import human_bytes, human_date, say

if TYPE_CHECKING:
    from p2phub.node.operations.pledges import PledgeInfo


class _Pledge(click.Group):
    """A group in which what is no command is what to pledge."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["add", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Pledge)
def pledge() -> None:
    """Promise that this node keeps what others publish, and see how such promises are kept.

    `p2phub pledge REF|NAMESPACE` is short for `p2phub pledge add REF|NAMESPACE`.
    """


@pledge.command("add")
@click.argument("reference", metavar="REF|NAMESPACE")
@click.option(
    "--replicas", type=click.IntRange(1, 100), metavar="N", help="Help others to keep N copies; else keep one anyway."
)
@click.option("--days", type=click.IntRange(1, 3660), default=365, show_default=True, help="How long.")
@offline_option
@peer_option
@json_option
def add(reference: str, replicas: int | None, days: int, offline: bool, peer: tuple[str, ...], as_json: bool) -> None:
    """Promise to keep a repository with all its revisions, one revision (REF@1.0.0), or all of a publisher.

    The promise is public, and signed with your key. A running node (p2phub node) fetches what is missing here, in the
    background, and goes on when there is more. With --replicas, it does so where fewer than N of those who promised
    the same, and whom you follow or share a federation with, have it.
    """
    from p2phub.node.operations.pledges import PledgeAdd

    info = run(PledgeAdd(reference, replicas, days), offline=offline, peers=peer)
    if as_json:
        print_json(info)
        return
    say(f"pledged {info.subject} until {human_date(info.until)}")
    _show_state(info)


@pledge.command("ls")
@click.argument("reference", required=False, metavar="[REF|NAMESPACE]")
@offline_option
@json_option
def ls(reference: str | None, offline: bool, as_json: bool) -> None:
    """List what this node pledged: how much is here, and how many have it; with a name, who else pledged that."""
    from p2phub.node.operations.pledges import PledgeList

    found = run(PledgeList(reference), offline=offline)
    if as_json:
        print_json(found)
        return
    for info in found:
        say(info.subject)
        if reference is not None:
            whose = "this node" if info.own else f"node {info.node[:12]}… of {info.namespace}"
            say(f"  by {whose}")
        say(f"  until {human_date(info.until)}" + (f", {info.replicas} copies together" if info.replicas else ""))
        if info.own:
            _show_state(info)
    if not found:
        whose = "nothing is pledged here" if reference is None else f"nobody is known to have pledged {reference}"
        say(f"{whose}: p2phub pledge REF", err=True)


@pledge.command("rm")
@click.argument("reference", metavar="REF|NAMESPACE")
@offline_option
@json_option
def rm(reference: str, offline: bool, as_json: bool) -> None:
    """Take a pledge back; `p2phub store gc --unpinned` frees its files then."""
    from p2phub.node.operations.pledges import PledgeRemove

    info = run(PledgeRemove(reference), offline=offline)
    if as_json:
        print_json(info)
    else:
        say(f"{info.subject} is pledged no longer")


def _show_state(info: PledgeInfo) -> None:
    revisions = "1 revision" if info.revisions == 1 else f"{info.revisions} revisions"
    size = f", {human_bytes(info.size)}" if info.size else ""
    say(f"  {revisions}{size}, {info.here} whole here")
    if info.have is not None:
        others = f", and {info.others} more nodes have it" if info.others else ""
        short = f"; of {info.short} there are too few" if info.short else ""
        say(f"  {info.have} of {info.needed} copies that were promised{short}{others}")
    for pledger in info.pledgers:
        if pledger.node == info.node:
            continue
        state = "is gone" if pledger.gone else f"has {pledger.holds}"
        say(f"    {pledger.node[:12]}… {state}" + (", and said to have more than it gives" if pledger.lied else ""))
    if info.problem:
        say(f"  {info.problem}")
