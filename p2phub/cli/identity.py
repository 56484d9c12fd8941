"""Commands about who publishes: id, id new, show, domain, reopen; others are in idkeys, idmachines and delegate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .delegate import delegate
from .identityfacts import facts_of
from .idkeys import recover, recovery, renew, revoke_key, rotate, threshold, use_agent, yield_
from .idmachines import add_key, export, import_, join, request, sign
from .running import json_option, print_json, run
from .secrets import change, change_options, key_option, proposal_option, with_node
from .text import human_time, say, show_reasons

if TYPE_CHECKING:
    from p2phub.core.identity import Identity
    from p2phub.core.ids import PublicKey
    from p2phub.node.node import Node


@click.group("id", invoke_without_command=True)
@json_option
@click.pass_context
def identity(ctx: click.Context, as_json: bool) -> None:
    """Show or change who you are as a publisher, and which keys sign for you."""
    if ctx.invoked_subcommand is None:
        _show(as_json)


@identity.command("new")
@json_option
def new(as_json: bool) -> None:
    """Make a key and an identity to publish under."""
    from p2phub.node.identity import create_identity

    with_node(create_identity)
    _show(as_json)


@identity.command("show")
@json_option
def show(as_json: bool) -> None:
    """Show your namespace and keys; never a secret."""
    _show(as_json)


@identity.command("domain")
@click.argument("domain", metavar="DOMAIN")
@click.option("--to", "target", type=click.Path(path_type=Path), help="Write the file for the web server here.")
@click.option("--node", "nodes", multiple=True, metavar="ADDRESS", help="A node of yours; else the one that runs here.")
@click.option("--check", is_flag=True, help="Check what others find at the domain, and change nothing.")
@click.option("--drop", is_flag=True, help="Claim the domain no longer.")
@key_option
@proposal_option
@json_option
def domain(
    domain: str,
    target: Path | None,
    nodes: tuple[str, ...],
    check: bool,
    drop: bool,
    keys: tuple[Path, ...],
    proposal: Path | None,
    as_json: bool,
) -> None:
    """Let a domain of yours stand for your namespace, so that others can write DOMAIN/MODEL.

    Your identity claims the domain, and the file that this prints has to be put on the web server of the domain. Then
    `p2phub id domain DOMAIN --check` shows whether others find it.
    """
    if (check and (drop or nodes or target)) or (drop and (nodes or target)):
        raise click.UsageError("--check and --drop stand alone")
    if check:
        _check_domain(domain.lower(), as_json)
        return
    from p2phub.node.claiming import claim_locally
    from p2phub.node.operations.trust import ClaimDomain
    from p2phub.store.disk import write_file

    if keys or proposal:
        # First in this process, which gets the root keys; then by the node, which knows its addresses.
        done = change(
            lambda node, extra: claim_locally(node, domain.lower(), drop, extra), keys=keys, proposal=proposal
        )
        if drop:
            say(f"{done.namespace} claims {domain.lower()} no longer")
            return
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
    from p2phub.node.operations.trust import CheckDomain

    found = run(CheckDomain(domain))
    if as_json:
        print_json(found)
    else:
        show_reasons(found)
    if any(reason.verdict == "bad" for reason in found):
        click.get_current_context().exit(1)


@identity.command("reopen")
@click.option("--size", type=click.IntRange(0), help="Records of the history on this machine that count; default: all.")
@change_options
@proposal_option
@json_option
def reopen(size: int | None, keys: tuple[Path, ...], proposal: Path | None, as_json: bool) -> None:
    """Say how much of your log counts, if it was signed with two histories or by a clock far ahead; go on in a new log.

    Two histories come of a key that signs on two machines, as after a backup was restored. What this machine has
    counts from now on, everywhere, and what the other signed after the two parted does not.

    What was signed while the clock was far ahead is taken in by nobody before that time, nor is what follows it. It
    counts no more then; what it said is to be said again.
    """
    from p2phub.node.conflicts import reopen_log

    reopened = change(lambda node, extra: reopen_log(node, size, extra=extra), keys=keys, proposal=proposal)
    if reopened.given_up:
        say(f"p2phub: note: to be published again: {', '.join(reopened.given_up)}", err=True)
    _show(as_json)


for _command in (renew, rotate, revoke_key, threshold, recovery, recover, use_agent, yield_):
    identity.add_command(_command)
for _command in (request, add_key, join, sign, export, import_, delegate):
    identity.add_command(_command)


def _show(as_json: bool) -> None:
    from p2phub.node.identity import own_identity, own_keys
    from p2phub.node.renewing import records_of

    def look(node: Node) -> tuple[Identity, set[PublicKey], dict[PublicKey, int], bool]:
        found = own_identity(node)
        ours = own_keys(node)
        sizes = {key: records_of(node, found, key) for key in found.publishers}
        return found, set(ours), sizes, node.store.splits.of(found.namespace) is not None

    found, ours, sizes, is_split = with_node(look)
    if as_json:
        print_json({**facts_of(found), "here": sorted(ours & _named(found))})
        return
    document = found.current
    say(f"namespace  {found.namespace}")
    say(f"  version  {document.version}, {human_time(document.created)}")
    for key in document.publish.keys:
        say(f"  publish  {key}  {_where(key, ours)}, {_records(sizes[key])}")
    for each in document.retired:
        count = found.counted_of(each.key)
        say(f"           {each.key}  revoked: {_records(count)} of it count{'s' if count == 1 else ''}")
    for name, role in (("fresh", document.fresh), ("root", document.root)):
        for number, key in enumerate(role.keys):
            say(f"{'' if number else name:>9}  {key}  {_where(key, ours)}")
        if len(role.keys) > 1:
            say(f"           {role.threshold} of these {len(role.keys)} must sign")
    if document.domains:
        say(f"  domains  {', '.join(document.domains)}")
    if is_split:
        from p2phub.node.renewing import SPLIT_HINT

        say(f"another machine signed a document of one version, too: {SPLIT_HINT}", err=True)
    _advise(found, ours)


def _advise(found: Identity, ours: set[PublicKey]) -> None:
    """Say what is missing for this machine to publish, or for its keys to be safe."""
    document = found.current
    if not ours & set(document.publish.keys):
        say("this machine has no key that publishes: `p2phub id request` asks for one", err=True)
    if document.companion is None or document.recipient is None:
        say("`p2phub id renew` adds the keys that newer features need", err=True)
    if document.version == 1:
        say("keep a copy: `p2phub id export --to FILE`; against thieves: `p2phub id recovery new --to FILE`", err=True)


def _named(found: Identity) -> set[PublicKey]:
    from p2phub.core.rotation import ROLES, role_of

    return {key for name in ROLES for key in role_of(found.current, name).keys}


def _where(key: PublicKey, ours: set[PublicKey]) -> str:
    return "on this machine" if key in ours else "elsewhere"


def _records(count: int) -> str:
    return "1 record" if count == 1 else f"{count} records"
