"""Every question that a node can ask another, with what is seen of it and what is answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from netkit import HOST, NODE, Hostile, bomb

from p2phub.core import manifest as manifests
from p2phub.core.encoding import encode
from p2phub.core.filetree import TreePage
from p2phub.core.ids import ContentId, LogId
from p2phub.core.manifest import manifest_id
from p2phub.net.peerclient import PeerClient, open_peer
from p2phub.protocol.messages import (
    Bucket,
    BucketsQuery,
    Have,
    HaveQuery,
    Heads,
    Held,
    Hello,
    Identities,
    IdentitiesQuery,
    IdentityChain,
    Inventory,
    LogHead,
    LogRange,
    MapAnswer,
    MapQuery,
    NodeRecords,
    Nodes,
    PageRef,
    Reconciled,
    ReconcileQuery,
    Records,
    RecordsQuery,
    Ticket,
    Tickets,
    TicketsQuery,
    Trees,
    TreesQuery,
)
from p2phub.protocol.talk import Reply
from p2phub.testing import values

RECORD = values.content("record", 100)
LOG = LogId(values.content("log", 32))
NAMESPACE = values.identity().namespace
ROOTS = [ContentId(values.content(name, 32)) for name in "abc"]
MANIFEST = manifests.encode(values.manifest())
PAGE = TreePage(0, 0, 0, b"", ())
HEADS = Heads((LogHead(NAMESPACE, 1, b"head"),), complete=0)
BUCKETS = BucketsQuery(bytes(32), (Bucket("0a", b"have"),))
COMPARED = ReconcileQuery(bytes(32), logs=MapQuery(bytes(32), ("", "f")), nodes=MapQuery(bytes(32), ("",)))
RECONCILED = Reconciled(logs=MapAnswer(b"r" * 32, (bytes(64), b"")), nodes=MapAnswer(bytes(32), ()))
IDENTITY = IdentityChain(values.identity().chain)
BOMB = bomb(100_000_000)
TICKET = Ticket(bytes(16), bytes(range(16)), bytes(range(1, 17)), 600)

Ask = Callable[[PeerClient], Awaitable[Any]]

# What to ask, what the peer should see, what it answers, what comes out.
INVENTORY = Inventory((Held(manifest_id(MANIFEST), 7),), False)

ASKS: dict[str, tuple[Ask, tuple[str, str], bytes, bytes, Any]] = {
    "hello": (
        lambda client: client.hello(RECORD), ("POST", "/v1/hello"), encode(Hello(RECORD)),
        encode(Nodes((b"one", b"two"))), (b"one", b"two"),
    ),
    "heads": (
        lambda client: client.heads(BUCKETS), ("POST", "/v1/heads"), encode(BUCKETS), encode(HEADS), HEADS,
    ),
    "node records": (
        lambda client: client.node_records(BUCKETS), ("POST", "/v1/nodes"), encode(BUCKETS),
        encode(NodeRecords((RECORD,), 1)), NodeRecords((RECORD,), 1),
    ),
    "reconcile": (
        lambda client: client.reconcile(COMPARED), ("POST", "/v1/reconcile"), encode(COMPARED), encode(RECONCILED),
        RECONCILED,
    ),
    "talk": (
        lambda client: client.talk(b"message"), ("POST", "/v1/talk"), b"message", encode(Reply(True, (RECORD,))),
        Reply(True, (RECORD,)),
    ),
    "head": (
        lambda client: client.head(LOG), ("GET", f"/v1/head/{LOG}"), b"", encode(HEADS.heads[0]), HEADS.heads[0],
    ),
    "identities": (
        lambda client: client.identities([NAMESPACE]), ("POST", "/v1/identities"),
        encode(IdentitiesQuery((NAMESPACE,))), encode(Identities((IDENTITY,))), (IDENTITY,),
    ),
    "records": (
        lambda client: client.records([LogRange(LOG, 7, 100)]), ("POST", "/v1/records"),
        encode(RecordsQuery((LogRange(LOG, 7, 100),))), encode(Records(((b"entry",),))), ((b"entry",),),
    ),
    "inventory": (
        lambda client: client.inventory(None), ("GET", "/v1/inventory"), b"",
        encode(INVENTORY), INVENTORY,
    ),
    "manifest": (
        lambda client: client.manifest(manifest_id(MANIFEST)), ("GET", f"/v1/manifest/{manifest_id(MANIFEST).hex()}"),
        b"", MANIFEST, MANIFEST,
    ),
    "have": (
        lambda client: client.have(ROOTS), ("POST", "/v1/have"), encode(HaveQuery(tuple(ROOTS))),
        encode(Have((True, False, b"\x05"))), Have((True, False, b"\x05")),
    ),
    "trees": (
        lambda client: client.trees([PageRef(ROOTS[0], 0), PageRef(ROOTS[1], 3)]), ("POST", "/v1/trees"),
        encode(TreesQuery((PageRef(ROOTS[0], 0), PageRef(ROOTS[1], 3)))), encode(Trees((PAGE, None))),
        Trees((PAGE, None)),
    ),
    "tickets": (
        lambda client: client.tickets(1), ("POST", "/v1/tickets"), encode(TicketsQuery(1)), encode(Tickets((TICKET,))),
        (TICKET,),
    ),
}  # fmt: skip
# Those whose answer is a message.
DECODED = sorted(set(ASKS) - {"manifest"})


async def ask(server: Hostile, what: str) -> Any:
    async with open_peer(NODE, HOST, server.port) as client:
        return await ASKS[what][0](client)
