"""Change the own identity for a command: in this process alone, so that no secret leaves it.

A passphrase comes from the terminal, without echo, or from the file of P2PHUB_PASSPHRASE_FILE; never from an
argument, which other users of the machine could read.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .running import run, set_up_logging, settings
from .text import say

if TYPE_CHECKING:
    from p2phub.core.identity import Identity
    from p2phub.core.ids import NamespaceId
    from p2phub.core.keybundle import KeyBundle
    from p2phub.core.proposal import OpenProposal
    from p2phub.core.signing import SigningKey
    from p2phub.node.node import Node

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

LEARN_S = 5.0  # seconds that a command waits for peers that may know a newer document

DESPITE_SPLIT = "despite-split"  # in the context of a command

key_option = click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A root key that is kept elsewhere, such as a recovery key; can be repeated.",
)
despite_split_option = click.option(
    "--despite-split",
    is_flag=True,
    expose_value=False,
    callback=lambda context, _, value: context.meta.__setitem__(DESPITE_SPLIT, value),
    help="Go on with the document here, though root keys signed another of the same version.",
)


def change_options(command: F) -> F:
    """Let a command that calls `change` be given root keys, and go on after a split."""
    return key_option(despite_split_option(command))


def is_despite_split() -> bool:
    """Say whether the command is to go on after a split. In its own thread."""
    is_despite: bool = click.get_current_context().meta.get(DESPITE_SPLIT, False)
    return is_despite


def stop_at_split(namespace: NamespaceId | None = None) -> Callable[[Node], None]:
    """Return what ends this command with Conflict if an identity was split, unless it was told to go on despite it.

    namespace: None for the identity of this home.
    """
    # Asked here: what is returned is called in another thread, which knows of no command.
    if is_despite_split():
        return lambda node: None
    from p2phub.node.renewing import check_not_split

    return lambda node: check_not_split(node, namespace)


no_passphrase_option = click.option(
    "--no-passphrase", is_flag=True, help="Do not lock the file: who can read it has the key."
)
proposal_option = click.option(
    "--proposal",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Where to write what others have to sign, if they have to.",
)


def with_node(work: Callable[[Node], T], *, peers: Sequence[str] = (), learn: str | None = None) -> T:
    """Do `work` with a node of this home, in a thread.

    peers: addresses to add before. learn: a namespace of which peers are asked before; "own": that of this home.
    """
    from p2phub.core.names import parse_address
    from p2phub.node.disk import on_disk
    from p2phub.node.node import open_node
    from p2phub.node.running import run_to_end
    from p2phub.store.agent import waiting_told

    async def do() -> T:
        async with open_node(settings()) as node:
            for text in peers:
                await on_disk(node.store.peers.add, parse_address(text))
            if learn is not None:
                await _learn(node, learn)
            with waiting_told(lambda text: say(f"p2phub: note: {text}", err=True)):
                return await on_disk(work, node)

    set_up_logging("ERROR")
    return run_to_end(do)


def change(
    work: Callable[[Node, list[SigningKey]], T],
    *,
    keys: Sequence[Path] = (),
    proposal: Path | None = None,
) -> T:
    """Do `work`, which changes the own identity, with the root keys in files, and let others know of it.

    If others have to sign too, what they have to sign is written to a file, and the command ends.
    """
    from p2phub.node.renewing import TooFewSignatures

    extra = [key for path in keys for key in load_keys(path).signers]
    check = stop_at_split()

    def do(node: Node) -> T:
        check(node)
        return work(node, extra)

    try:
        result = with_node(do, learn="own")
    except TooFewSignatures as exc:
        say_proposal(exc.opened, write_proposal(exc.opened, proposal))
        click.get_current_context().exit(0)
    tell_others()
    if not is_despite_split():
        # Another machine may have signed at the same time: none of the two could know before.
        with_node(check, learn="own")
    return result


def tell_node() -> bool:
    """Let the node of this home tell others of what changed; returns whether one runs."""
    from p2phub.gateway.client import find_daemon
    from p2phub.node.operations.records import TellIdentity

    chosen = settings()
    if chosen.offline or find_daemon(chosen.layout) is None:
        return False
    run(TellIdentity())
    return True


def tell_others(namespace: NamespaceId | None = None) -> bool:
    """Let others know of a new identity document: by the node of this home, or from here if none runs.

    namespace: None for the identity of this home. Returns whether somebody may have heard of it.
    """
    from p2phub.node.announcing import announce_identity
    from p2phub.node.disk import on_disk
    from p2phub.node.identity import own_identity
    from p2phub.node.node import open_node
    from p2phub.node.running import run_to_end

    async def do() -> tuple[int, int]:
        async with open_node(settings()) as node:
            whose = namespace or (await on_disk(own_identity, node)).namespace
            return await announce_identity(node, whose)

    if tell_node():
        return True
    if settings().offline:
        return False
    heard, called = run_to_end(do)
    if called and not heard:
        text = "no other node could be told, so what changed holds here alone as yet: `p2phub node` tells them"
        say(f"p2phub: note: {text}", err=True)
    return heard > 0


# ── passphrases and keys ────────────────────────────────────────────────────


def load_keys(path: Path) -> KeyBundle:
    """Return the keys in a file, whose passphrase is asked for if it has one."""
    from p2phub.store.keyring import read_bundle
    from p2phub.store.layout import own_path

    return read_bundle(own_path(path), ask_passphrase)


def ask_passphrase(path: Path) -> str:
    """Return the passphrase for the file `path`."""
    from p2phub.node.passphrase import read_passphrase

    chosen = settings()
    if chosen.passphrase_file is not None or not sys.stdin.isatty():
        return read_passphrase(chosen, path)
    answer: str = click.prompt(f"passphrase of {path}", hide_input=True, err=True)
    return answer


def new_file(target: Path) -> Path:
    """Return the absolute path of a file that is to be written. Raises NotFound if its folder is not there."""
    from p2phub.core.errors import NotFound
    from p2phub.store.layout import own_path

    path = own_path(target)
    # A folder that was mistyped would hide the only copy of a key.
    if not path.parent.is_dir():
        raise NotFound(f"there is no folder {path.parent}")
    return path


def new_passphrase(path: Path, *, none: bool = False) -> str | None:
    """Return a passphrase for the new file `path`, asked for twice. none: the user wants none."""
    from p2phub.core.errors import AccessDenied
    from p2phub.core.passphrase import PASSPHRASE_MIN
    from p2phub.node.passphrase import read_passphrase

    if none:
        return None
    chosen = settings()
    if chosen.passphrase_file is not None or not sys.stdin.isatty():
        passphrase = read_passphrase(chosen, path, is_new=True)
    else:
        passphrase = click.prompt(
            f"new passphrase for {path}", hide_input=True, confirmation_prompt="the same again", err=True
        )
    if len(passphrase) < PASSPHRASE_MIN:
        raise AccessDenied(f"a passphrase has at least {PASSPHRASE_MIN} characters", hint="four words are easy to keep")
    return passphrase


# ── proposals ───────────────────────────────────────────────────────────────


def write_proposal(opened: OpenProposal, path: Path | None) -> Path:
    """Write a proposal to a file, called after what it is if no other is named; returns where it is."""
    from p2phub.node.renewing import format_proposal
    from p2phub.store.disk import write_file
    from p2phub.store.layout import own_path

    name = f"identity-{str(opened.before.namespace)[:12]}-{opened.after.version}.proposal"
    target = own_path(path or Path(name))
    write_file(target, f"{format_proposal(opened)}\n".encode(), mode=0o644)
    return target


def say_proposal(opened: OpenProposal, path: Path) -> None:
    """Say what has to happen with a proposal."""
    count = opened.missing
    say(f"nothing changed yet: {count} more root {'key' if count == 1 else 'keys'} must sign")
    say(f"  give {path}")
    say("  to who has one of these keys, for `p2phub id sign FILE`:")
    for key in sorted(opened.wanted):
        say(f"    {key}")


def say_changes(before: Identity, after: Identity) -> None:
    """Say what a new version of an identity changes."""
    from p2phub.core.rotation import describe

    say(f"version {after.current.version} of {after.namespace}")
    for line in describe(before.current, after.current):
        say(f"  {line}")


async def _learn(node: Node, namespace: str) -> None:
    from p2phub.core.errors import HubError
    from p2phub.core.ids import NamespaceId
    from p2phub.node.calling import usable_peers
    from p2phub.node.catchup import learn
    from p2phub.node.disk import on_disk
    from p2phub.node.events import ignore
    from p2phub.node.identity import own_identity

    try:
        wanted = (await on_disk(own_identity, node)).namespace if namespace == "own" else NamespaceId.parse(namespace)
    except HubError:
        return  # what comes next says it better
    answers = await learn(node, wanted, ignore, timeout_s=LEARN_S)
    peers = await on_disk(usable_peers, node)
    if peers and not answers:
        text = "no node could be asked whether another machine signs for you, too: two that do at once part for good"
        say(f"p2phub: note: {text}", err=True)
