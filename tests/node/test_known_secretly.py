"""Whose private repositories alone a node has, nobody learns who may not read them, by whatever door he asks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from authoritykit import publisher_home, rotated
from msgspec.structs import replace
from test_private_repositories import STRANGER, Asker, folder_with

from p2phub.core.checkpoint import sign_head
from p2phub.core.delegation import sign_delegation
from p2phub.core.encoding import encode
from p2phub.core.envelope import seal
from p2phub.core.gates import PURPOSE, Gate, Receipt
from p2phub.core.identity import Identity, KeySignature, SignedDocument
from p2phub.core.ids import PublicKey
from p2phub.core.private import PrivateHead
from p2phub.core.records import Grant, sign_record
from p2phub.node import gates, granting
from p2phub.node.events import ignore
from p2phub.node.identity import own_identity
from p2phub.node.node import Node
from p2phub.node.publish import publish
from p2phub.node.serve import PeerDoor
from p2phub.protocol.messages import IdentityChain, ReceiptsQuery, SessionQuery
from p2phub.protocol.privatetalk import PrivateNews
from p2phub.testing import values
from p2phub.testing.hostile import open_home

pytestmark = pytest.mark.timeout(60)

EVE = values.key("stranger's node")


@dataclass
class Scene:
    """A node that has a gate of its own, and what `secret` let it read; of `nobody` it never heard."""

    node: Node
    asker: Asker
    gate: Gate
    secret: Identity  # document 1 of two, the second of which is here
    nobody: Identity
    current_key: PublicKey  # with which `secret` publishes by document 2


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        node, namespace = await stack.enter_async_context(publisher_home(tmp_path / "node"))
        await publish(node, folder_with(tmp_path / "open", weights="w"), "parrot", ignore)
        await gates.set_gate(node, "parrot", "Parrot-1.0", "Be kind.", "person", "automatic")
        gate = node.store.gates.of_repository(namespace, "parrot")
        assert gate
        friend, _ = await stack.enter_async_context(publisher_home(tmp_path / "friend"))
        await publish(friend, folder_with(tmp_path / "hidden", weights="x"), "hush", ignore, visibility="private")
        await granting.grant(friend, "hush", f"node:{node.id}", 5)
        (private,) = friend.store.private.logs()
        secret, newer = own_identity(friend), rotated(friend)
        entries = friend.store.logs.entries(private.state.log, 0, size_max=10**6, private=True)
        node.store.logs.add_identity(secret, own=True)
        node.store.private.take(secret, private.told, 0, entries, now=node.clock())
        node.store.logs.add_identity(newer)
        other = await stack.enter_async_context(open_home(tmp_path / "other"))
        nobody = values.identity("nobody")
        assert other.store.logs.identity(nobody.namespace) is None
        nursery = await stack.enter_async_context(trio.open_nursery())
        yield Scene(node, Asker(PeerDoor(node, nursery)), gate, secret, nobody, newer.current.publish.keys[0])
        nursery.cancel_scope.cancel()


def receipt(scene: Scene, who: Identity) -> bytes:
    made = Receipt(1, scene.gate.leaf, scene.gate.licence_hash, who.namespace, int(scene.node.clock()), STRANGER.node)
    return encode(ReceiptsQuery((encode(seal(made, EVE, PURPOSE)),)))


def session(scene: Scene, who: Identity) -> bytes:
    assert STRANGER.node
    data = sign_delegation(who.namespace, STRANGER.node, EVE, now=int(scene.node.clock()), ttl_s=1000)
    # The first document is known to all; the signature is none.
    shown = SignedDocument(who.chain[0].document, (KeySignature(EVE.public_key, bytes(64)),))
    return encode(SessionQuery((data,), (IdentityChain((shown,)),)))


def news(scene: Scene, who: Identity, chain: IdentityChain | None, key: PublicKey) -> bytes:
    """Return news of a log that lets the node in, as somebody makes them up who knows public keys alone."""
    told = PrivateHead(who.namespace, 1, key, bytes(32), b"")
    now = int(scene.node.clock())
    grant = Grant(
        namespace=who.namespace,
        log=told.log,
        index=0,
        previous=bytes(32),
        time=now,
        model="m",
        to=scene.node.id,
        to_kind="node",
        until=now + 1000,
    )
    entry = sign_record(grant, EVE).data
    told = replace(told, head=sign_head(told.log, 1, bytes(32), EVE).text)
    return encode(PrivateNews(told, 0, (entry,), chain))


DOORS: dict[str, tuple[str, Callable[[Scene, Identity], bytes]]] = {
    "a receipt": ("receipts", receipt),
    "a session": ("session", session),
    "news by a retired key": (
        "private/news",
        lambda here, who: news(here, who, IdentityChain(who.chain), who.current.publish.keys[0]),
    ),
    "news without an identity": (
        "private/news",
        lambda here, who: news(here, who, None, here.current_key),
    ),
    "news with another's identity": (
        "private/news",
        lambda here, who: news(here, who, IdentityChain(values.identity("stranger").chain), EVE.public_key),
    ),
}


@pytest.mark.parametrize("door", DOORS)
async def test_that_a_publisher_is_known_secretly_shows_in_no_answer(here: Scene, door: str) -> None:
    path, made_of = DOORS[door]
    answers = []
    for who in (here.secret, here.nobody):
        answer = await here.asker.ask(STRANGER, path, made_of(here, who))
        body = answer.body.replace(bytes(who.namespace), b"WHO").replace(str(who.namespace).encode(), b"WHO")
        answers.append((answer.status, body))

    assert answers[0] == answers[1]
