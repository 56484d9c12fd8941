"""What a node answers to those who show receipts, and what becomes of one whose receipt counts no more."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio
from authoritykit import Watched, publisher_home, rotated, watched

from p2phub.core.encoding import encode
from p2phub.core.envelope import seal
from p2phub.core.errors import PeerError, PeerUnreachable
from p2phub.core.gates import PURPOSE, Gate, SignedReceipt, sign_receipt
from p2phub.core.ids import ContentId, NamespaceId
from p2phub.net.bulk import BulkConnection
from p2phub.net.connection import WantedChunk
from p2phub.net.peerclient import PeerClient
from p2phub.node import gates
from p2phub.node.events import ignore
from p2phub.node.identity import own_identity, own_publisher
from p2phub.node.introduce import introduce
from p2phub.node.node import Node
from p2phub.protocol.messages import ByteRange, IdentityChain, PageRef, ReceiptsQuery
from p2phub.store.gates import RECEIPTS_OF_NODE_MAX
from p2phub.testing import values
from p2phub.testing.hostile import wait_for

pytestmark = pytest.mark.timeout(120)


@dataclass
class Scene:
    """A node that has published a model behind a gate, and somebody who asks it."""

    server: Watched
    asker: Node
    client: PeerClient
    namespace: NamespaceId
    gate: Gate
    root: ContentId  # of the largest file

    def receipt(self, by: Node | None = None, gate: Gate | None = None) -> SignedReceipt:
        identity, key = own_publisher(by or self.asker)
        return sign_receipt(
            gate or self.gate, identity.namespace, (by or self.asker).id, key, now=int(self.asker.clock())
        )

    async def show(self, *receipts: bytes, chain: bool = True) -> tuple[str, ...]:
        chains = (IdentityChain(own_identity(self.asker).chain),) if chain else ()
        answer = await self.client.show_receipts(ReceiptsQuery(receipts, chains))
        assert answer
        return answer.states

    async def is_given(self) -> bool:
        (held,) = (await self.client.have([self.root])).held
        (page,) = (await self.client.trees([PageRef(self.root, 0)])).pages
        assert bool(held) == (page is not None)
        return bool(held)


@asynccontextmanager
async def scene(server_home: Path, asker_home: Path, approval: str = "automatic") -> AsyncIterator[Scene]:
    async with watched(server_home) as server, publisher_home(asker_home) as (asker, namespace):
        await gates.set_gate(server.node, "parrot", "Parrot-1.0", "Be kind.", "institution", approval)  # type: ignore[arg-type]
        owner = own_identity(server.node).namespace
        gate = server.node.store.gates.of_repository(owner, "parrot")
        assert gate
        manifest = server.node.store.manifests.get(server.node.store.manifests.all()[0])
        assert manifest
        root = max(manifest.files, key=lambda entry: entry.size).root
        yield Scene(server, asker, server.client(asker), namespace, gate, root)


async def test_a_receipt_opens_the_gate_for_whoever_it_is_of(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    async with scene(copy_of("server"), tmp_path / "asker") as here:
        await introduce(here.asker, here.client)
        assert not await here.is_given()

        assert await here.show(here.receipt().data) == ("good",)

        assert await here.is_given()
        async with publisher_home(tmp_path / "other") as (other, _):
            client = here.server.client(other)
            await introduce(other, client)
            assert (await client.have([here.root])).held == (False,)


async def test_receipts_are_shown_by_who_says_who_he_is(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    async with scene(copy_of("server"), tmp_path / "asker") as here:
        with pytest.raises(PeerError, match="401"):
            await here.show(here.receipt().data)
        assert here.server.node.store.gates.receipts(here.gate) == []


async def test_what_is_wrong_with_a_receipt_is_said_and_nothing_is_kept(
    copy_of: Callable[[str], Path], tmp_path: Path
) -> None:
    async with (
        scene(copy_of("server"), tmp_path / "asker") as here,
        publisher_home(tmp_path / "friend") as (friend, _),
    ):
        await introduce(here.asker, here.client)
        good = here.receipt()
        by_another = encode(seal(good.receipt, values.key("eve"), PURPOSE))
        change = msgspec.structs.replace
        cases = {
            "is of somebody else": here.receipt(by=friend).data,
            "is not signed by a key": by_another,
            "no gate that is known here": here.receipt(gate=change(here.gate, leaf=bytes(32))).data,
            "accepts something else": here.receipt(gate=change(here.gate, licence="Be unkind.")).data,
            "in canonical form": good.data + b"\0",
            "not of type": b"no receipt",
            "is of somebody else ": here.receipt(gate=change(here.gate, per="person"), by=friend).data,
            "is of one person": here.receipt(gate=change(here.gate, per="person")).data,
        }

        states = dict(zip(cases, await here.show(*cases.values()), strict=True))

        assert [text for text, state in states.items() if text.strip() not in state] == []
        assert here.server.node.store.gates.receipts(here.gate) == []
        assert not await here.is_given()
        assert await here.show(good.data, chain=False) == ("who signed the receipt is not known here",)


async def test_a_receipt_by_a_key_that_was_retired_is_refused_though_the_older_identity_is_shown(
    copy_of: Callable[[str], Path], tmp_path: Path
) -> None:
    async with scene(copy_of("server"), tmp_path / "asker") as here:
        await gates.set_gate(here.server.node, "parrot", "Parrot-1.0", "Be kind.", "person", "automatic")
        gate = here.server.node.store.gates.of_repository(own_identity(here.server.node).namespace, "parrot")
        receipt = here.receipt(gate=gate).data
        await introduce(here.asker, here.client)
        assert await here.show(receipt) == ("good",)

        newer = IdentityChain(rotated(here.asker).chain)
        for chains in ((newer,), (IdentityChain(own_identity(here.asker).chain),)):
            answer = await here.client.show_receipts(ReceiptsQuery((receipt,), chains))
            assert answer
            assert "is not signed by a key of" in answer.states[0]


async def test_one_node_fills_no_store_with_receipts(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    async with scene(copy_of("server"), tmp_path / "asker") as here:
        await introduce(here.asker, here.client)
        identity, key = own_publisher(here.asker)
        now = int(here.asker.clock())
        made = [
            sign_receipt(here.gate, identity.namespace, here.asker.id, key, now=now - number).data
            for number in range(RECEIPTS_OF_NODE_MAX + 5)
        ]
        for begin in range(0, len(made), 16):
            assert set(await here.show(*made[begin : begin + 16])) == {"good"}

        assert len(here.server.node.store.gates.receipts(here.gate)) == RECEIPTS_OF_NODE_MAX


async def test_who_is_refused_gets_no_more_of_what_is_being_sent(
    copy_of: Callable[[str], Path], tmp_path: Path
) -> None:
    async with scene(copy_of("server"), tmp_path / "asker", "manual") as here:
        await introduce(here.asker, here.client)
        assert await here.show(here.receipt().data) == ("waiting",)
        assert not await here.is_given()
        who = str(here.namespace)
        decide = partial(gates.decide, here.server.node, "parrot", who, ignore, days=None, message="")
        await decide(is_approved=True)
        assert await here.is_given()
        chunks = here.server.node.store.chunk_lists.find(here.root)
        assert chunks
        places = [*range(len(chunks))] * 4
        spans = [ByteRange(here.root, chunks.offset(index), chunks.length(index)) for index in places]
        wanted = [WantedChunk(chunks.length(index), chunks.hash(index)) for index in places]
        begun, go_on = threading.Event(), threading.Event()
        received = 0

        def sink(place: int, data: memoryview) -> None:
            nonlocal received
            received += len(data)
            begun.set()
            go_on.wait()

        async def fetch() -> None:
            connection = BulkConnection(here.client.node, here.client.host, here.client.port, signer=here.client.signer)
            with pytest.raises(PeerUnreachable):
                await trio.to_thread.run_sync(partial(connection.fetch, spans, wanted, sink, deadline_s=60))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch)
            await trio.to_thread.run_sync(begun.wait)
            assert here.server.node.open_answers.count == 1
            await decide(is_approved=False)
            await wait_for(lambda: here.server.node.open_answers.count == 0, "the answer to end")
            go_on.set()

        assert received < sum(chunk.length for chunk in wanted)
        assert not await here.is_given()
