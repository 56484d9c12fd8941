"""Let witnesses cosign the own log, and state what they said (spec/witness.md §5).

    own head ──old size, proof──▶ each witness ──line──▶ head with lines ──▶ statement (fresh)
                    ▲─────409: its size──┘

A witness that has seen a larger head than is here is the one thing that must be shouted about: the
home was brought back from a copy, and whatever it signs next is a second history.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence

import trio
from msgspec import Struct

from p2phub.core.checkpoint import Head, open_head, parse_head, with_lines
from p2phub.core.errors import HubError, InvalidData, PeerError
from p2phub.core.fresh import RENEW_S
from p2phub.core.ids import LogId, NamespaceId, PublicKey
from p2phub.core.names import parse_address
from p2phub.core.notes import NoteKey, NoteLine, parse_lines
from p2phub.core.origins import parse_url
from p2phub.core.witness import AddCheckpoint, check_cosignature, format_request
from p2phub.net.connection import one_line
from p2phub.net.http import Answer
from p2phub.net.witnessclient import add_checkpoint
from p2phub.protocol.talk import sign_talk
from p2phub.protocol.witnessing import SIZE_TYPE
from p2phub.store.peers import Peer
from p2phub.store.witnesses import KnownWitness

from .calling import call_peer, converse
from .disk import on_disk
from .fresh import must_state, state_newest, vouched_sizes
from .identity import own_publisher
from .news import compose
from .node import Node

log = logging.getLogger(__name__)

TRIES = 4  # of one head with one witness: it may say that it knows another size
TURNS = 16  # witnesses that are asked at once
LOOK_S = 3600.0  # seconds between looks whether the own statement is old
RETRY_S = (5.0, 30.0, 120.0, 600.0)  # seconds until witnesses that did not cosign are asked again; then always the last
NEVER = (0, 0)  # records vouched for, and when
SETTLE_S = 0.5  # seconds after a record: several that come together are cosigned at once


class OwnHead(Struct, frozen=True):
    """The head of the own log, and what proofs are made of."""

    namespace: NamespaceId
    key: PublicKey
    head: Head
    vouched: dict[NoteKey, tuple[int, int]]  # records that each witness vouched for, and when


async def vouch(node: Node) -> None:
    """State what is newest of one's own, and let witnesses cosign it, whenever it is time; runs until cancelled."""
    failures, is_finished = 0, False
    while True:
        woken, wait_s = node.published, LOOK_S
        try:
            if not is_finished:
                await on_disk(_finish_own, node)
                is_finished = True
            if await on_disk(must_state, node):
                await on_disk(state_newest, node)
            is_done = await collect(node)
            failures = 0 if is_done else failures + 1
        except HubError as exc:
            log.warning("cannot state what is newest: %s", exc)
            failures += 1
        if failures:
            wait_s = RETRY_S[min(failures, len(RETRY_S)) - 1]
        with trio.move_on_after(wait_s):
            await woken.wait()
            await trio.sleep(SETTLE_S)


async def collect(node: Node, *, names: Sequence[str] = ()) -> bool:
    """Ask the witnesses that have not cosigned the own head, or long ago; returns whether all have now.

    names: ask only those, whatever they said before.
    """
    own = await on_disk(_own_head, node)
    if own is None or not own.head.size:
        return True
    since = node.clock() - RENEW_S
    known = await on_disk(node.store.witnesses.all)
    wanted = [
        witness
        for witness in known
        if witness.place is not None
        and (str(witness.key) in names if names else own.vouched.get(witness.key, NEVER) < (own.head.size, since))
    ]
    lines: list[NoteLine] = []
    turns = trio.CapacityLimiter(TURNS)

    async def ask(witness: KnownWitness) -> None:
        async with turns:
            line = await _ask_noted(node, witness, own)
        lines.extend([line] if line is not None else [])

    async with trio.open_nursery() as nursery:
        for witness in wanted:
            nursery.start_soon(ask, witness)
    if lines:
        await on_disk(_note_lines, node, own, lines)
        await on_disk(state_newest, node)
    return len(lines) == len(wanted)


def _finish_own(node: Node) -> None:
    """Let peers have what a crash kept from being said of the own logs, which may look published here."""
    try:
        identity, key = own_publisher(node)
    except HubError:
        return
    node.store.logs.finish_own(identity, key)


def _own_head(node: Node) -> OwnHead | None:
    try:
        identity, key = own_publisher(node)
    except HubError:
        return None
    state = node.store.logs.state(identity.log_of(key.public_key))
    if state is None or not state.head or node.store.forks.is_stopped(state.log):
        return None
    witnesses = [witness.key for witness in node.store.witnesses.all()]
    return OwnHead(
        identity.namespace,
        key.public_key,
        parse_head(state.head),
        vouched_sizes(node.store, state.log, witnesses),
    )


def _note_lines(node: Node, own: OwnHead, lines: Sequence[NoteLine]) -> None:
    """Add lines to those that the own head has."""
    stated = node.store.fresh.stated_head(own.head.log)
    before = own.head
    if stated is not None and (stated.head.size, stated.head.root) == (own.head.size, own.head.root):
        before = stated.head
    lines = sorted(lines, key=lambda line: line.name)
    try:
        head = with_lines(before, lines)
    except InvalidData:
        # It has lines of witnesses that are asked no longer; those that are have room.
        head = with_lines(own.head, lines)
    node.store.fresh.note_lines(own.namespace, head)


async def _ask_noted(node: Node, witness: KnownWitness, own: OwnHead) -> NoteLine | None:
    """Ask a witness, and note what came of it."""
    try:
        line = await _ask(node, witness, own)
    except HubError as exc:
        log.warning("the witness %s does not vouch: %s", witness.key.name, exc)
        await on_disk(node.store.witnesses.note_answer, witness.key, str(exc))
        return None
    await on_disk(node.store.witnesses.note_answer, witness.key, None)
    return line


async def _ask(node: Node, witness: KnownWitness, own: OwnHead) -> NoteLine:
    """Return the line of a witness for the own head. Raises HubError that says why there is none."""
    old = min(own.vouched.get(witness.key, NEVER)[0], own.head.size)
    is_introduced = False
    for _ in range(TRIES):
        proof = await on_disk(node.store.logs.consistency, own.head.log, old, own.head.size)
        assert proof is not None, "the head covers what is here"
        answer = await _send(node, witness, format_request(AddCheckpoint(old, proof, own.head.text)))
        if answer.status == 200:
            return _line(witness, own.head, answer)
        said = one_line(answer.body[:200].decode("utf-8", "replace"))
        if answer.status == 409 and (size := _size(answer)) is not None:
            if size > own.head.size:
                await _note_larger(node, witness, own)
                raise InvalidData(
                    f"it cosigned {size} records of the own log, and here are {own.head.size}: was this home brought"
                    " back from a copy? publish nothing before the rest has come from other nodes"
                )
            if size == old:
                raise InvalidData(f"it cosigned another head of {size} records of the own log")
            old = size
        elif answer.status == 404 and not is_introduced and _is_peer(witness):
            is_introduced = True
            await _introduce(node, witness, own.head.log)
        else:
            raise PeerError(f"it answered {answer.status}: {said}", peer=witness.key.name)
    raise PeerError("it says each time that it knows another size", peer=witness.key.name)


async def _note_larger(node: Node, witness: KnownWitness, own: OwnHead) -> None:
    """Keep the head of the own log that a witness has: nothing more is signed before the rest is here."""
    if not _is_peer(witness):
        return
    async with call_peer(node, await _peer(node, witness)) as client:
        announced = await client.head(own.head.log)
    with contextlib.suppress(InvalidData):
        if announced is not None:
            head = open_head(announced.head, log=own.head.log, key=own.key)
            await on_disk(node.store.fresh.note_lines, own.namespace, head)


def _line(witness: KnownWitness, head: Head, answer: Answer) -> NoteLine:
    """Return the line of the witness in its answer. Raises InvalidData."""
    for line in parse_lines(answer.body.decode("utf-8", "replace")):
        if (line.name, line.key_id) == (witness.key.name, witness.key.id):
            check_cosignature(head.signed, line, witness.key)
            return line
    raise InvalidData("its answer has no line of its key")


def _size(answer: Answer) -> int | None:
    """Return the size that an answer names, None if it names none."""
    text = answer.body.decode("ascii", "replace").removesuffix("\n")
    kind = answer.headers.get(b"content-type", b"").decode("ascii", "replace").partition(";")[0].strip()
    return int(text) if kind == SIZE_TYPE and text.isdecimal() and len(text) < 20 else None


def _is_peer(witness: KnownWitness) -> bool:
    return (witness.place or "").startswith("p2phub://")


async def _send(node: Node, witness: KnownWitness, body: bytes) -> Answer:
    assert witness.place is not None
    if not _is_peer(witness):
        return await add_checkpoint(parse_url(witness.place), body)
    async with call_peer(node, await _peer(node, witness)) as client:
        return await client.add_checkpoint(body)


async def _introduce(node: Node, witness: KnownWitness, log_id: LogId) -> None:
    """Tell a witness of this network of the own log, as of other news."""
    message = await on_disk(compose, node.store, {log_id: 0}, ())
    peer = await _peer(node, witness)
    await converse(node, peer, sign_talk(message.push, node.key, peer.node, now=node.clock()))


async def _peer(node: Node, witness: KnownWitness) -> Peer:
    address = parse_address(witness.place or "")
    peer = await on_disk(node.store.peers.get, address.node)
    if peer is None:
        await on_disk(node.store.peers.add, address)
        peer = await on_disk(node.store.peers.get, address.node)
    assert peer is not None
    return peer
