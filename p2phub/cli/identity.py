"""Commands about who publishes: id new, show, export, domain, reopen."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .running import json_option, print_json, run, settings
from .text import say, show_reasons

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


@identity.command("domain")
@click.argument("domain", metavar="DOMAIN")
@click.option("--to", "target", type=click.Path(path_type=Path), help="Write the file for the web server here.")
@click.option("--node", "nodes", multiple=True, metavar="ADDRESS", help="A node of yours; else the one that runs here.")
@click.option("--check", is_flag=True, help="Check what others find at the domain, and change nothing.")
@click.option("--drop", is_flag=True, help="Claim the domain no longer.")
@json_option
def domain(domain: str, target: Path | None, nodes: tuple[str, ...], check: bool, drop: bool, as_json: bool) -> None:
    """Let a domain of yours stand for your namespace, so that others can write DOMAIN/MODEL.

    Your identity claims the domain, and the file that this prints has to be put on the web server of the domain. Then
    `p2phub id domain DOMAIN --check` shows whether others find it.
    """
    if (check and (drop or nodes or target)) or (drop and (nodes or target)):
        raise click.UsageError("--check and --drop stand alone")
    if check:
        _check_domain(domain.lower(), as_json)
        return
    from p2phub.node.operations import ClaimDomain
    from p2phub.store.disk import write_file

    result = run(ClaimDomain(domain.lower(), nodes, drop))
    if target is not None:
        write_file(target.absolute(), result.text.encode(), mode=0o644)
    if as_json:
        print_json(result)
    elif drop:
        say(f"{result.namespace} claims {result.domain} no longer")
    elif target is not None:
        say(f"{target} is to be found at {result.url}")
    else:
        say(f"put this at {result.url}", err=True)
        say(result.text.rstrip())


def _check_domain(domain: str, as_json: bool) -> None:
    from p2phub.node.operations import CheckDomain

    found = run(CheckDomain(domain))
    if as_json:
        print_json(found)
    else:
        show_reasons(found)
    if any(reason.verdict == "bad" for reason in found):
        click.get_current_context().exit(1)


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
