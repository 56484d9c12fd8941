"""Commands about what is believed: trust add, accept, ls, rm, why, conflicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .running import json_option, offline_option, peer_option, print_json, run
from .text import human_time, say, show_reasons

if TYPE_CHECKING:
    from p2phub.node.operations.trust import BindingInfo


@click.group()
def trust() -> None:
    """What is believed of publishers, and what speaks against it."""


@trust.command("add")
@click.argument("name", metavar="DOMAIN|PETNAME=NAMESPACE")
@offline_option
@peer_option
@json_option
def add(name: str, offline: bool, peer: tuple[str, ...], as_json: bool) -> None:
    """Let a name stand for a publisher on this machine.

    DOMAIN is asked which publisher is its own, over TLS, and that publisher has to claim the domain back. From then on
    it means that one, whatever the domain says later. PETNAME=NAMESPACE is a name of your own;
    DOMAIN=NAMESPACE also checks that the domain names the publisher that you expect.
    """
    from p2phub.node.operations.trust import TrustAdd

    word, _, namespace = name.partition("=")
    if "=" in name and not namespace:
        raise click.UsageError("nothing stands after the '='")
    info = run(TrustAdd(word.lower(), namespace or None), offline=offline, peers=peer)
    _show(info, as_json)


@trust.command("accept")
@click.argument("domain", metavar="DOMAIN")
@peer_option
@json_option
def accept(domain: str, peer: tuple[str, ...], as_json: bool) -> None:
    """Accept that a domain names another publisher than before.

    Do that when its owner has told you so by another way than the web server, which may be in other hands.
    """
    from p2phub.node.operations.trust import TrustAccept

    _show(run(TrustAccept(domain.lower()), peers=peer), as_json)


@trust.command("ls")
@json_option
def ls(as_json: bool) -> None:
    """List the names that stand for publishers on this machine."""
    from p2phub.node.operations.trust import TrustList

    found: list[BindingInfo] = run(TrustList())
    if as_json:
        print_json(found)
        return
    for info in found:
        _show(info, as_json)
    if not found:
        say("no names are pinned: `p2phub trust add DOMAIN` adds one", err=True)


@trust.command("rm")
@click.argument("name", metavar="DOMAIN|PETNAME")
@json_option
def rm(name: str, as_json: bool) -> None:
    """Forget what a name stands for; a domain is asked anew when it is used again."""
    from p2phub.node.operations.trust import TrustRemove

    info = run(TrustRemove(name.lower()))
    if as_json:
        print_json(info)
    else:
        say(f"{info.name} means nothing here any more; it meant {info.namespace}")


@trust.command("why")
@click.argument("reference", metavar="REF|NAMESPACE")
@offline_option
@peer_option
@json_option
def why(reference: str, offline: bool, peer: tuple[str, ...], as_json: bool) -> None:
    """Show why a name means what it means here, and all that speaks for and against it.

    Each line says what was looked at: ok speaks for it, BAD against it, ? could not be found out, - was not asked for.
    """
    from p2phub.node.operations.trust import TrustWhy

    found = run(TrustWhy(reference), offline=offline, peers=peer)
    if as_json:
        print_json(found)
    else:
        show_reasons(found)


def _show(info: BindingInfo, as_json: bool) -> None:
    if as_json:
        print_json(info)
        return
    say(info.name)
    say(f"  means     {info.namespace}")
    say(f"  since     {human_time(info.since)} ({info.how})")
    if info.source == "domain":
        say(f"  checked   {human_time(info.checked)}")
    if info.problem:
        say(f"  problem   {info.problem}")
    if info.offered:
        say(f"  CHANGED   the domain names {info.offered} now; `p2phub trust accept {info.name}` accepts that")


@trust.command("conflicts")
@click.argument("namespace", metavar="[NAMESPACE]", required=False)
@json_option
def conflicts(namespace: str | None, as_json: bool) -> None:
    """Show where the keys of a publisher do not agree: two histories of a log, two meanings of a version or branch.

    Nothing of it is chosen silently: what counts is the same on every node, and what does not is listed here.
    """
    from p2phub.node.operations.catalogue import ListConflicts

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
