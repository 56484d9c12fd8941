"""Vectors of private repositories (spec/private.md)."""

from __future__ import annotations

from p2phub.core import merkle
from p2phub.core.checkpoint import sign_head
from p2phub.core.encoding import encode
from p2phub.core.ids import NodeId
from p2phub.core.merkle import LOG_TREE
from p2phub.core.private import SECRET_SIZE, PrivateHead, private_log_id
from p2phub.core.records import GRANT_MAX_S, NO_PREVIOUS, Entry, Grant, Publish, Record, Summary, Ungrant, sign_record
from p2phub.protocol.messages import IdentityChain
from p2phub.protocol.privatetalk import PrivateHeads, PrivateHeadsQuery, PrivateNews, PrivateTaken
from p2phub.testing import values
from p2phub.testing.values import TIME

from .plain import Json

PUBLISHER = "publisher"
FRIEND = values.identity("friend").namespace
NODE = NodeId(values.key("friend's node").public_key)


def secret(name: str) -> bytes:
    """Return the secret of the private log called `name`."""
    return values.content(f"secret of {name}", SECRET_SIZE)


def private_log(name: str = "private") -> list[Entry]:
    """Return a private log: a release, two grants, and one of them taken back."""
    signer, namespace = values.key(PUBLISHER), values.identity(PUBLISHER).namespace
    log = private_log_id(namespace, signer.public_key, secret(name))
    entries: list[Entry] = []

    def add(type_: type[Record], **fields: object) -> None:
        place = {
            "namespace": namespace,
            "log": log,
            "index": len(entries),
            "previous": entries[-1].leaf if entries else NO_PREVIOUS,
            "time": TIME + 60 * len(entries),
            "model": "hushed",
        }
        entries.append(sign_record(type_(**place, **fields), signer))  # type: ignore[arg-type]

    add(Publish, kind="model", manifest=values.log()[0].record.manifest, depth=1, branch="main",  # type: ignore[union-attr]
        summary=Summary(files=1, size=1))  # fmt: skip
    add(Grant, to=bytes(FRIEND), to_kind="namespace", until=TIME + GRANT_MAX_S, renewed=True)
    add(Grant, to=bytes(NODE), to_kind="node", until=TIME + 2 * GRANT_MAX_S)
    add(Ungrant, to=bytes(FRIEND), to_kind="namespace", message="we parted")
    return entries


def head_of(entries: list[Entry], name: str = "private") -> PrivateHead:
    """Return what those are told of a private log who may read it."""
    signer, namespace = values.key(PUBLISHER), values.identity(PUBLISHER).namespace
    log = private_log_id(namespace, signer.public_key, secret(name))
    root = merkle.root(LOG_TREE, [entry.leaf for entry in entries])
    return PrivateHead(namespace, 1, signer.public_key, secret(name), sign_head(log, len(entries), root, signer).text)


def private() -> Json:
    entries = private_log()
    told = head_of(entries)
    identity = values.identity(PUBLISHER)
    other = PrivateHead(told.namespace, told.version, told.key, secret("another"), told.head)
    stranger = PrivateHead(told.namespace, told.version, values.key("stranger").public_key, told.secret, told.head)
    return {
        "identity": [encode(signed) for signed in identity.chain],
        "log": {
            "namespace": str(told.namespace),
            "public_key": str(told.key),
            "secret": told.secret,
            "log": str(told.log),
            "entries": [entry.data for entry in entries],
            "values": [entry.record for entry in entries],
        },
        "heads": [{"private_head": encode(told), "size": len(entries)}],
        "refused_heads": [
            {"why": "the head is of the log of another secret", "private_head": encode(other)},
            {"why": "the key does not publish in the namespace", "private_head": encode(stranger)},
        ],
        "messages": {
            "PrivateHeadsQuery": [encode(PrivateHeadsQuery()), encode(PrivateHeadsQuery(bytes(told.log)))],
            "PrivateHeads": [encode(PrivateHeads()), encode(PrivateHeads((told,), more=True, acts=(b"a",)))],
            "PrivateNews": [
                encode(PrivateNews(told)),
                encode(PrivateNews(told, 2, (entries[2].data,), IdentityChain(identity.chain))),
            ],
            "PrivateTaken": [encode(PrivateTaken()), encode(PrivateTaken(4))],
        },
        "readers": _readers(),
    }


def _readers() -> list[Json]:
    """Return what several logs say of one grantee, and whether that lets it in."""
    day = 24 * 3600

    def said(log: int, index: int, time: int, until: int | None) -> Json:
        return {"log": log, "index": index, "time": TIME + time, "until": None if until is None else TIME + until}

    def case(why: str, at: int, may_read: bool, *statements: Json) -> Json:
        return {"why": why, "at": TIME + at, "may_read": may_read, "said": list(statements)}

    return [
        case("nothing was said", 0, False),
        case("a grant counts before its time is over", 9, True, said(0, 0, 0, 10)),
        case("and not from then on", 10, False, said(0, 0, 0, 10)),
        case("and at most 30 days", 30 * day, False, said(0, 0, 0, 90 * day)),
        case("it was taken back", 5, False, said(0, 0, 0, 10), said(0, 1, 1, None)),
        case("and granted again", 5, True, said(0, 0, 0, 10), said(0, 1, 1, None), said(0, 2, 2, 10)),
        case("in one log the later record counts, whatever its time", 5, True, said(0, 0, 4, None), said(0, 1, 1, 10)),
        case("among logs the later time", 5, False, said(0, 7, 1, 10), said(1, 0, 2, None)),
        case("whichever log it is", 5, True, said(0, 7, 1, None), said(1, 0, 2, 10)),
        case("of two of one second the one that takes back", 5, False, said(0, 7, 1, 10), said(1, 0, 1, None)),
        case("another log says less, but earlier", 5, True, said(0, 0, 2, 10), said(1, 3, 1, 4)),
    ]
