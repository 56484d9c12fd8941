"""Commands about own keys: id renew, rotate, revoke-key, threshold, recovery, recover, use-agent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .identityfacts import facts_of
from .running import json_option, peer_option, print_json
from .secrets import (
    change,
    change_options,
    despite_split_option,
    load_keys,
    new_file,
    new_passphrase,
    no_passphrase_option,
    proposal_option,
    say_changes,
    stop_at_split,
    tell_others,
    with_node,
)
from .text import say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from p2phub.core.identity import Identity
    from p2phub.core.signing import SigningKey
    from p2phub.node.node import Node

ROLE = click.Choice(["root", "publish", "fresh"])


@click.command("renew")
@change_options
@proposal_option
@json_option
def renew(keys: tuple[Path, ...], proposal: Path | None, as_json: bool) -> None:
    """Complete your identity with the keys that newer features need: to sign for other tools, to be encrypted to."""
    from p2phub.node.renewing import complete_identity

    _change(lambda node, extra: complete_identity(node, extra=extra), keys, proposal, as_json)


@click.command("rotate")
@click.option("--publish", is_flag=True, help="Only the key that publishes.")
@click.option("--root", is_flag=True, help="Only the key that changes this identity.")
@click.option("--fresh", is_flag=True, help="Only the key that says what is newest.")
@click.option("--all", "everything", is_flag=True, help="The keys for other tools and for what is encrypted, too.")
@change_options
@proposal_option
@json_option
def rotate(
    publish: bool,
    root: bool,
    fresh: bool,
    everything: bool,
    keys: tuple[Path, ...],
    proposal: Path | None,
    as_json: bool,
) -> None:
    """Put new keys in the place of those of this machine.

    What you published before stays yours. Do this when somebody may have seen the keys; if this machine was stolen, use
    `p2phub id recover` on another one.
    """
    from p2phub.core.rotation import ROLES
    from p2phub.node.renewing import rotate as work

    roles = [name for name, chosen in zip(ROLES, (root, publish, fresh), strict=True) if chosen]
    _change(lambda node, extra: work(node, roles, with_purposes=everything, extra=extra), keys, proposal, as_json)


@click.command("revoke-key")
@click.argument("key", metavar="KEY")
@click.option(
    "--from-index",
    type=click.IntRange(0),
    metavar="N",
    help="Records of its log from number N on do not count; default: all that are known now count.",
)
@change_options
@proposal_option
@json_option
def revoke_key(key: str, from_index: int | None, keys: tuple[Path, ...], proposal: Path | None, as_json: bool) -> None:
    """Let a key of yours sign no more: that of a lost machine, or of somebody who left.

    KEY is as `p2phub id` shows it, or how it begins. `p2phub log NAMESPACE` shows the numbers of records. It cannot be
    taken back: the key never signs for you again.
    """
    from p2phub.node.identity import own_identity
    from p2phub.node.renewing import find_key, records_of
    from p2phub.node.renewing import revoke_key as work

    def do(node: Node, extra: list[SigningKey]) -> Identity:
        identity = own_identity(node)
        known = records_of(node, identity, find_key(identity, key))
        after = work(node, key, from_index, extra=extra)
        if from_index is not None and from_index > known:
            text = f"{known} of these {from_index} records are here: whoever has the key can sign the rest yet"
            say(f"p2phub: note: {text}", err=True)
        return after

    _change(do, keys, proposal, as_json)


@click.command("threshold")
@click.argument("role", type=ROLE)
@click.argument("count", metavar="N", type=click.IntRange(1, 16))
@change_options
@proposal_option
@json_option
def threshold(role: str, count: int, keys: tuple[Path, ...], proposal: Path | None, as_json: bool) -> None:
    """Let N keys of a role have to sign: with 2 root keys, one of which was stolen, nobody can take your name."""
    from p2phub.node.renewing import set_threshold

    _change(lambda node, extra: set_threshold(node, role, count, extra=extra), keys, proposal, as_json)  # type: ignore[arg-type]


@click.group("recovery")
def recovery() -> None:
    """A key that is kept elsewhere, for the day on which a machine is lost or stolen."""


@recovery.command("new")
@click.option("--to", "target", required=True, metavar="FILE", type=click.Path(path_type=Path), help="The new file.")
@click.option("--shared", is_flag=True, help="Let the keys of now change this identity, too; a thief of them then can.")
@no_passphrase_option
@change_options
@json_option
def recovery_new(target: Path, shared: bool, no_passphrase: bool, keys: tuple[Path, ...], as_json: bool) -> None:
    """Make a recovery key in FILE, which alone can change your identity from now on.

    This machine goes on to publish, and whoever steals it can do no more than that. Keep two copies of FILE where this
    machine is not. To add a machine or to rotate keys, name it with --key.
    """
    from p2phub.node.renewing import new_recovery_key

    path = new_file(target)
    passphrase = new_passphrase(path, none=no_passphrase)
    _change(
        lambda node, extra: new_recovery_key(node, path, passphrase, shared=shared, extra=extra), keys, None, as_json
    )
    say(f"recovery key: {path}", err=True)
    say("keep two copies of it away from this machine, and delete it here", err=True)


@click.command("recover")
@click.option("--key", "keys", required=True, multiple=True, metavar="FILE", type=click.Path(path_type=Path),
              help="The recovery key.")  # fmt: skip
@click.option("--from-index", type=click.IntRange(0), metavar="N",
              help="Of what the other keys signed, records from number N on do not count.")  # fmt: skip
@peer_option
@despite_split_option
@proposal_option
@json_option
def recover(
    keys: tuple[Path, ...], from_index: int | None, peer: tuple[str, ...], proposal: Path | None, as_json: bool
) -> None:
    """Let this machine alone publish as you: the others were lost or stolen.

    All other keys that published are revoked. What they signed before counts, as far as this machine can learn it
    from peers, or up to --from-index. Name a node that knows you with --peer.
    """
    from p2phub.core.errors import InvalidData
    from p2phub.node.renewing import TooFewSignatures
    from p2phub.node.renewing import recover as work

    from .secrets import say_proposal, write_proposal

    bundles = [load_keys(path) for path in keys]
    known = next((bundle.identity for bundle in bundles if bundle.identity is not None), None)
    if known is None:
        raise InvalidData("no file of these says whose recovery key it is")
    extra = [signer for bundle in bundles for signer in bundle.signers]
    check = stop_at_split(known.namespace)

    def do(node: Node) -> tuple[Identity, Identity]:
        check(node)
        newest = node.store.logs.identity(known.namespace)
        before = newest if newest is not None and newest.continues(known) else known
        return before, work(node, before, extra, size=from_index)

    try:
        before, after = with_node(do, peers=peer, learn=str(known.namespace))
    except TooFewSignatures as exc:
        say_proposal(exc.opened, write_proposal(exc.opened, proposal))
        return
    tell_others(known.namespace)
    _show_change(before, after, as_json)


@click.command("use-agent")
@click.argument("key", metavar="[KEY]", required=False)
@change_options
@proposal_option
@json_option
def use_agent(key: str | None, keys: tuple[Path, ...], proposal: Path | None, as_json: bool) -> None:
    """Sign with an Ed25519 key of your ssh-agent, which never lies in a file here.

    KEY is the comment of the key, or how it begins; without it, the only one is meant. If you publish already, it takes
    the place of the key of this machine.
    """
    from p2phub.node.machines import use_agent as work

    _change(lambda node, extra: work(node, key, extra=extra), keys, proposal, as_json)


@click.command("yield")
@json_option
def yield_(as_json: bool) -> None:
    """Take the other of two documents of one version that your root keys signed, in the place of that here.

    That happens when two machines change the identity at the same time. What this machine changed is undone, and can
    be done again. Nodes that heard of it first go on with it: so let the machine yield that fewer nodes heard.
    """
    from p2phub.node.renewing import yield_to_other

    after = with_node(yield_to_other, learn="own")
    tell_others()
    _show_change(None, after, as_json)


def _change(
    work: Callable[[Node, list[SigningKey]], Identity], keys: Sequence[Path], proposal: Path | None, as_json: bool
) -> None:
    from p2phub.core.errors import NotFound
    from p2phub.node.identity import own_identity

    def do(node: Node, extra: list[SigningKey]) -> tuple[Identity | None, Identity]:
        try:
            before: Identity | None = own_identity(node)
        except NotFound:
            before = None
        return before, work(node, extra)

    before, after = change(do, keys=keys, proposal=proposal)
    _show_change(before, after, as_json)


def _show_change(before: Identity | None, after: Identity, as_json: bool) -> None:
    if as_json:
        print_json(facts_of(after))
    elif before is None:
        say(f"namespace  {after.namespace}")
    else:
        say_changes(before, after)
