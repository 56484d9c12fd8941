"""The vectors of private repositories hold for the code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from p2phub.core.checkpoint import parse_head
from p2phub.core.encoding import decode, encode
from p2phub.core.errors import InvalidData
from p2phub.core.identity import Identity, SignedDocument, open_identity
from p2phub.core.ids import LogId, NamespaceId, NodeId, PublicKey
from p2phub.core.private import (
    Granted,
    Grantee,
    PrivateHead,
    granted_by,
    in_force,
    open_private_head,
    private_log_id,
)
from p2phub.core.records import NO_PREVIOUS, Grant, check_follows, open_signed_entry
from p2phub.protocol import privatetalk
from p2phub.protocol.messages import ANSWER_SIZE_MAX
from p2phub.testing.vectors.plain import plain

VECTORS: Any = json.loads((Path(__file__).parent.parent / "spec/vectors/private.json").read_text())


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


def publisher() -> Identity:
    return open_identity(
        [decode(unhex(data), SignedDocument, size_max=ANSWER_SIZE_MAX) for data in VECTORS["identity"]]
    )


def test_a_private_log() -> None:
    log = VECTORS["log"]
    namespace, key = NamespaceId.parse(log["namespace"]), PublicKey.parse(log["public_key"])
    log_id = private_log_id(namespace, key, unhex(log["secret"]))
    previous = NO_PREVIOUS
    for index, (data, value) in enumerate(zip(log["entries"], log["values"], strict=True)):
        entry = open_signed_entry(unhex(data), namespace=namespace, log=log_id, key=key, index=index)
        check_follows(entry, previous)
        previous = entry.leaf
        assert plain(entry.record) == value

    assert str(log_id) == log["log"]


def test_heads() -> None:
    for case in VECTORS["heads"]:
        head = decode(unhex(case["private_head"]), PrivateHead, size_max=ANSWER_SIZE_MAX)
        assert open_private_head(head, publisher()).size == case["size"]
        assert parse_head(head.head).log == head.log
    for case in VECTORS["refused_heads"]:
        head = decode(unhex(case["private_head"]), PrivateHead, size_max=ANSWER_SIZE_MAX)
        with pytest.raises(InvalidData):
            open_private_head(head, publisher())


def test_messages() -> None:
    for name, cases in VECTORS["messages"].items():
        for data in cases:
            value = decode(unhex(data), getattr(privatetalk, name), size_max=ANSWER_SIZE_MAX)
            assert encode(value).hex() == data


@pytest.mark.parametrize("case", VECTORS["readers"], ids=lambda case: case["why"].replace(" ", "-"))
def test_readers(case: Any) -> None:
    who = Grantee("node", bytes(32))
    last: dict[int, Granted] = {}
    for said in sorted(case["said"], key=lambda said: said["index"]):
        last[said["log"]] = _granted(said, who)
    in_the_end = in_force(last.values()).get(who)

    assert (in_the_end is not None and in_the_end.until > case["at"]) == case["may_read"]


def _granted(said: Any, who: Grantee) -> Granted:
    log = LogId(bytes([said["log"]]) * 32)
    if said["until"] is None:
        return Granted(who, 0, said["time"], said["index"], log)
    place = {"namespace": NamespaceId(bytes(32)), "log": log, "index": said["index"], "previous": bytes(32)}
    return granted_by(Grant(**place, time=said["time"], model="m", to=who.id, to_kind=who.kind, until=said["until"]))


def test_grantees_of_the_log() -> None:
    kinds = [(value["type"], value["to_kind"]) for value in VECTORS["log"]["values"][1:]]

    assert kinds == [("grant", "namespace"), ("grant", "node"), ("ungrant", "namespace")]
    assert NodeId(unhex(VECTORS["log"]["values"][2]["to"]))
