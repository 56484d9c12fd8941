"""Vectors of what nodes say to each other: signed messages, and ones that must be refused (spec/gossip.md §4)."""

from __future__ import annotations

from msgspec.structs import replace

from p2phub.core import encoding, merkle
from p2phub.core.checkpoint import sign_head
from p2phub.core.envelope import seal
from p2phub.core.ids import LogId, NodeId
from p2phub.core.merkle import LOG_TREE
from p2phub.core.noderecord import sign_node_record
from p2phub.core.records import log_id
from p2phub.protocol import talk
from p2phub.protocol.messages import LogHead
from p2phub.testing import values

from .plain import Json


def talks() -> Json:
    key, stranger = values.key("node"), values.key("stranger")
    to = NodeId(values.key("server").public_key)
    record = values.node_record()
    own_record = sign_node_record(record, key).data
    identity, publisher = values.identity(), values.key("publisher")
    log, entries = log_id(identity.namespace, publisher.public_key), values.log()
    head = sign_head(log, len(entries), merkle.root(LOG_TREE, [entry.leaf for entry in entries]), publisher)
    whole = talk.Whole(LogHead(identity.namespace, 1, head.text), 4, (entries[4].data,))
    word = talk.Word(LogId(values.content("log", 32)), 7, 1)
    base = talk.Talk(schema=1, node=record.node, to=to, time=record.time, say=talk.Ask(), record=own_record)
    cases = [
        ("may I be a neighbour?", base),
        ("I have no other", replace(base, say=talk.Ask(urgent=True), record=None)),
        ("you are no neighbour any more", replace(base, say=talk.Leave(), record=None)),
        ("whom else do you know?", replace(base, say=talk.Exchange((own_record,)), record=None)),
        ("a log has grown, and another is there", replace(base, say=talk.Push((whole,), (word,)), record=None)),
    ]
    plain = replace(base, record=None)
    late = base.time + 601
    invalid = [
        ("said to another node", seal(replace(plain, to=NodeId(stranger.public_key)), key, talk.PURPOSE), base.time),
        ("signed by another node", seal(plain, stranger, talk.PURPOSE), base.time),
        ("signed for another purpose", seal(plain, key, "node"), base.time),
        ("said too long ago", seal(plain, key, talk.PURPOSE), late),
        ("said in the future", seal(plain, key, talk.PURPOSE), base.time - 601),
        (
            "with another's record",
            seal(replace(base, node=NodeId(stranger.public_key)), stranger, talk.PURPOSE),
            base.time,
        ),
    ]
    replies = [
        ("you are a neighbour", talk.Reply(True, (own_record,))),
        ("that was news, and the first of these I have not", talk.Reply(True, (), True, True, (talk.Wanted(0, 2),))),
        ("no", talk.Reply(False)),
    ]
    return {
        "to": str(to),
        "valid": [
            {"meaning": meaning, "value": said, "encoded": encoding.encode(seal(said, key, talk.PURPOSE)),
             "now": said.time}
            for meaning, said in cases
        ],
        "invalid": [{"why": why, "encoded": encoding.encode(sealed), "now": now} for why, sealed, now in invalid],
        "replies": [
            {"meaning": meaning, "value": reply, "encoded": encoding.encode(reply)} for meaning, reply in replies
        ],
    }  # fmt: skip
