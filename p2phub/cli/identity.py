"""Commands about who publishes: id new, show, export, reopen."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .running import json_option, print_json, run, settings
from .text import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from p2phub.core.identity import Identity
    from p2phub.node.node import Node


@click.group("id")
def identity() -> None:
    """Your identity as a publisher."""


@identity.command("new")
@json_option
def new(as_json: bool) -> None:
    """Make a key and an identity to publish under."""
    from p2phub.node.identity import create_identity

    _show(_with_node(create_identity), as_json)


@identity.command("show")
@json_option
def show(as_json: bool) -> None:
    """Show your namespace and keys; never a secret."""
    from p2phub.node.identity import own_identity

    _show(_with_node(own_identity), as_json)


@identity.command("export")
@click.option("--to", "target", type=click.Path(path_type=Path), help="Write to this file instead of stdout.")
def export(target: Path | None) -> None:
    """Write your public identity documents, for others to check; no secret is in them."""
    from p2phub.core.encoding import encode
    from p2phub.node.identity import own_identity
    from p2phub.protocol.messages import IdentityChain
    from p2phub.store.disk import write_file

    data = encode(IdentityChain(_with_node(own_identity).chain))
    if target is None:
        sys.stdout.buffer.write(data)
    else:
        write_file(target.absolute(), data, mode=0o644)


@identity.command("reopen")
@click.option("--size", type=click.IntRange(0), help="Records of the history on this machine that count; default: all.")
@json_option
def reopen(size: int | None, as_json: bool) -> None:
    """Say which history of your log counts, if it was signed with two, and go on in a new log.

    That happens when a key signs on two machines, as after a backup was restored. What this machine has counts from
    now on, everywhere, and what the other signed after the two parted does not.
    """
    from p2phub.node.identity import own_identity
    from p2phub.node.operations import ReopenLog

    run(ReopenLog(size))
    _show(_with_node(own_identity), as_json)


def _with_node(work: Callable[[Node], Identity]) -> Identity:
    from p2phub.node.disk import on_disk
    from p2phub.node.node import open_node
    from p2phub.node.running import run_to_end

    async def run() -> Identity:
        async with open_node(settings()) as node:
            return await on_disk(work, node)

    return run_to_end(run)


def _show(found: Identity, as_json: bool) -> None:
    document = found.current
    facts = {
        "namespace": found.namespace,
        "version": document.version,
        "root": list(document.root.keys),
        "publish": list(document.publish.keys),
        "fresh": list(document.fresh.keys),
        "logs": list(found.logs),
        "closed": list(found.closed),
        "domains": list(document.domains),
    }
    if as_json:
        print_json(facts)
        return
    say(f"namespace  {found.namespace}")
    say(f"  version  {document.version}")
    for name, role in (("root", document.root), ("publish", document.publish), ("fresh", document.fresh)):
        say(f"{name:>9}  {role.threshold} of {', '.join(str(key) for key in role.keys)}")
    if document.domains:
        say(f"  domains  {', '.join(document.domains)}")
