"""The command about machines that act for publishers: id delegate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .idmachines import word_of
from .running import json_option, print_json
from .secrets import with_node
from .text import human_time, say

if TYPE_CHECKING:
    from p2phub.node.delegating import ActsFor

DAYS_MAX = 30  # spec/authority.md §2


@click.command("delegate")
@click.argument("node_id", metavar="[NODE]", required=False)
@click.option("--days", type=click.IntRange(1, DAYS_MAX), default=DAYS_MAX, show_default=True, help="How long.")
@click.option("--take", "word", metavar="WORD", help="There: act for who wrote this, or a file with it.")
@click.option("--drop", metavar="NAMESPACE", help="There: act for this publisher no more.")
@json_option
def delegate(node_id: str | None, days: int, word: str | None, drop: str | None, as_json: bool) -> None:
    """Let another machine read what is for you, without a key of yours: NODE is its node id or address.

    It prints a word, and `p2phub id delegate --take WORD` on that machine takes it. It may not publish for you; the key
    that `p2phub id request` asks for can. Nothing takes a word back but its time, or `p2phub id rotate`.
    Without anything: for whom this machine acts.
    """
    if sum(given is not None for given in (node_id, word, drop)) > 1:
        raise click.UsageError("NODE, --take and --drop stand alone")
    if node_id is not None:
        _let_act(node_id, days, as_json)
    elif word is not None:
        _take(word, as_json)
    elif drop is not None:
        _stop(drop)
    else:
        _show(as_json)


def _let_act(node_id: str, days: int, as_json: bool) -> None:
    from p2phub.node.delegating import let_act

    told, word = with_node(lambda node: let_act(node, node_id, days * 86400))
    if as_json:
        print_json({"namespace": told.namespace, "node": told.node, "expires": told.expires, "word": word})
        return
    until = human_time(told.expires)
    say(f"node {told.node} may act for you until {until}; there: p2phub id delegate --take WORD", err=True)
    say(word)


def _take(word: str, as_json: bool) -> None:
    from p2phub.node.delegating import take

    told = with_node(lambda node: take(node, word_of(word)))
    if as_json:
        print_json(told)
    else:
        _say(told)


def _stop(namespace: str) -> None:
    from p2phub.core.ids import NamespaceId
    from p2phub.node.delegating import stop

    with_node(lambda node: stop(node, NamespaceId.parse(namespace)))
    say(f"this node does not act for {namespace} any more")


def _show(as_json: bool) -> None:
    from p2phub.node.delegating import acts_for

    found = with_node(acts_for)
    if as_json:
        print_json(found)
        return
    if not found:
        say("this node acts for nobody", err=True)
    for told in found:
        _say(told)


def _say(told: ActsFor) -> None:
    say(f"this node acts for {told.namespace} until {human_time(told.expires)}")
