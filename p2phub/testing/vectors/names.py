"""Vectors of names, and of what peers say to each other."""

from __future__ import annotations

from msgspec import Struct

from p2phub.core import encoding, merkle, names
from p2phub.core.checkpoint import sign_head
from p2phub.core.filetree import ChunkList, pack
from p2phub.core.ids import ContentId, LogId, NodeId
from p2phub.core.merkle import LOG_TREE
from p2phub.core.noderecord import sign_node_record
from p2phub.core.records import log_id
from p2phub.protocol import messages
from p2phub.testing import values

from .plain import Json


def name_texts() -> Json:
    namespace = str(values.identity().namespace)
    node = NodeId(values.key("node").public_key)
    references = [
        "parrot", "parrot@1.0.0", "parrot:main", "lab.example/parrot-7b", "lab.example/parrot-7b@1.0.0-rc.1+build.5",
        "lab.example/parrot-7b:feature/x", "me/Parrot_7B.v2@refs/pr/1", f"{namespace}/parrot@0123456789ab",
        f"{namespace}/parrot@{'0123456789abcdef' * 4}", "b3:" + "00" * 32, "b3@main",
    ]  # fmt: skip
    invalid = [
        "", "@main", "parrot@", "parrot:", "-parrot", "parrot-", "par--rot", "par..rot", "parrot.git", "par rot",
        "a" * 97, "Lab.example/parrot", "lab..example/parrot", "192.0.2.1/parrot", "lab.example/parrot/x@main",
        "parrot@1", "parrot@1..0", "parrot@-x", "parrot@a..b", "parrot@a//b", "parrot@0123456789a", "b3:00",
        "b3:" + "AA" * 32, "https://lab.example/parrot", "hf://org/name", "parrot@main\n",
    ]  # fmt: skip
    revisions = [
        "1.0", "1.2.0", "2026.01.15", "1.0.0-rc.1", "1.0b2", "main", "v1", "feature/x", "deadbeef", "abcdefabcdef",
        "0" * 64, "a" * 65, "ABCDEFABCDEF",
    ]  # fmt: skip
    endpoints = ["lab.example:443", "192.0.2.1:7447", "[2001:db8::1]:7447", "localhost:0"]
    bad_endpoints = [
        "lab.example", "lab.example:", ":80", "lab.example:080", "lab.example:65536", "::1:80", "[1.2.3.4]:80"
    ]  # fmt: skip
    address = names.Address(node, "2001:db8::1", 7447)
    return {
        "references": [{"text": text, "value": names.parse_reference(text)} for text in references],
        "invalid_references": invalid,
        "revisions": [{"text": text, "kind": _kind(text)} for text in revisions],
        "endpoints": [{"text": text, "value": names.parse_endpoint(text)} for text in endpoints],
        "invalid_endpoints": bad_endpoints,
        "addresses": [{"text": str(address), "node": node, "host": address.host, "port": address.port}],
    }


def _kind(text: str) -> str | None:
    kinds = {"version": names.is_version, "branch": names.is_branch, "hash prefix": names.is_hash_prefix}
    return next((kind for kind, is_kind in kinds.items() if is_kind(text)), None)


def peer_messages() -> Json:
    root, log = ContentId(values.content("root", 32)), LogId(values.content("log", 32))
    identity = values.identity()
    key = values.key("publisher")
    record = sign_node_record(values.node_record(), values.key("node")).data
    own_log, leaves = log_id(identity.namespace, key.public_key), [entry.leaf for entry in values.log()]
    head = messages.LogHead(identity.namespace, 1, sign_head(own_log, 5, merkle.root(LOG_TREE, leaves), key).text)
    chunks = ChunkList(pack(1000, values.content("chunk", 32)))
    ticket = messages.Ticket(
        id=values.content("ticket id", 16),
        client_key=values.content("ticket client key", 16),
        server_key=values.content("ticket server key", 16),
        ttl=messages.TICKET_TTL_S,
    )
    cases: list[tuple[str, Struct]] = [
        ("a node introduces itself", messages.Hello(record)),
        ("the answer: the peer's own record first", messages.Nodes((record,))),
        ("which logs do you have?", messages.HeadsQuery()),
        ("which logs do you have after this one?", messages.HeadsQuery(log)),
        ("one log, and there are more", messages.Heads((head,), True)),
        ("no more logs", messages.Heads((), False)),
        ("a log has grown", messages.Announcement(record, (head,))),
        ("the identity of a namespace", messages.IdentityChain(identity.chain)),
        ("entries of a log from index 3 on", messages.LogPage(3, tuple(entry.data for entry in values.log()[3:]))),
        ("which chunks of these files do you have?", messages.HaveQuery((root, root, root))),
        ("all, none, and the chunks 0 and 9", messages.Have((True, False, b"\x01\x02"))),
        ("the first page of the chunk list of a file", messages.TreesQuery((messages.PageRef(root, 0),))),
        ("one page, and one that the peer does not know", messages.Trees((chunks.page(0), None))),
        ("two tickets for bulk connections", messages.TicketsQuery(2)),
        ("a ticket", messages.Tickets((ticket,))),
        ("65536 bytes follow", messages.BulkAnswer(200, 65536)),
        ("no upload slot is free, ask again in 3 s", messages.BulkAnswer(429, 0, 3, "all upload slots are taken")),
        ("bytes of a file", messages.SpansQuery((messages.ByteRange(root, 2**32, 65536),))),
    ]
    return {
        "messages": [
            {"type": type(value).__name__, "meaning": meaning, "value": value, "encoded": encoding.encode(value)}
            for meaning, value in cases
        ]
    }
