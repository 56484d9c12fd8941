"""Vectors of ids, encoding, signatures and trees."""

from __future__ import annotations

import cbor2
from blake3 import blake3

from p2phub.core import encoding, merkle
from p2phub.core.envelope import seal
from p2phub.core.filetree import FILE_SIZE_MAX, pack
from p2phub.core.ids import ContentId, LogId, ManifestId, NamespaceId, NodeId, PublicKey
from p2phub.core.merkle import FILE_TREE, LOG_TREE, TreeHash
from p2phub.core.records import Score, Summary
from p2phub.core.signing import signed_message
from p2phub.protocol import messages
from p2phub.testing import values

from .plain import Json


def ids() -> Json:
    kinds = {
        "content": ContentId,
        "manifest": ManifestId,
        "public key": PublicKey,
        "node": NodeId,
        "namespace": NamespaceId,
        "log": LogId,
    }
    samples = [bytes(32), bytes(range(32)), b"\xff" * 32, values.content("id", 32)]
    valid = [
        {"kind": kind, "bytes": value, "text": str(type_(value))} for kind, type_ in kinds.items() for value in samples
    ]
    manifest = ManifestId(values.content("id", 32))
    return {
        "valid": valid,
        "commits": [{"manifest": str(manifest), "commit": manifest.commit}],
        "invalid": [
            {"kind": "content", "text": "ab" * 32, "why": "no b3:"},
            {"kind": "content", "text": "b3:" + "AB" * 32, "why": "upper case"},
            {"kind": "content", "text": "b3:" + "ab" * 31, "why": "31 bytes"},
            {"kind": "content", "text": "b3:" + "ab" * 33, "why": "33 bytes"},
            {"kind": "namespace", "text": "A" * 52, "why": "upper case"},
            {"kind": "namespace", "text": "a" * 51, "why": "51 characters"},
            {"kind": "namespace", "text": "a" * 51 + "b", "why": "spare bits that are not 0"},
            {"kind": "namespace", "text": "a" * 51 + "1", "why": "1 is not in the alphabet"},
            {"kind": "namespace", "text": "a" * 52 + "====", "why": "padding"},
        ],
    }


def encodings() -> Json:
    root = values.content("root", 32)
    page_ref = messages.PageRef(ContentId(root), 7)
    summary = Summary(
        files=2**32,
        size=2**63 - 1,
        title="Ara ararauna \N{PARROT}",
        tags=("a", "b"),
        scores=(Score("t", "d", "m", "-0.5"),),
    )
    key_root, key_index, value_root = b"\x64root", b"\x65index", b"\x58\x20" + root
    head = b"\xa2" + key_root + value_root + key_index
    invalid = {
        "empty": b"",
        "trailing byte": head + b"\x07\x00",
        "cut off": head,
        "keys not sorted": b"\xa2" + key_index + b"\x07" + key_root + value_root,
        "a key twice": b"\xa3" + key_root + value_root + key_root + value_root + key_index + b"\x07",
        "a key twice with other values": b"\xa3" + key_root + value_root + key_index + b"\x07" + key_index + b"\x08",
        "unknown field": b"\xa3" + key_root + value_root + key_index + b"\x07\x65other\x00",
        "missing field": b"\xa1" + key_root + value_root,
        "map of indefinite length": b"\xbf" + head[1:] + b"\x07\xff",
        "byte string of indefinite length": b"\xa2" + key_root + b"\x5f" + value_root + b"\xff" + key_index + b"\x07",
        "key of indefinite length": b"\xa2\x7f" + key_root + b"\xff" + value_root + key_index + b"\x07",
        "integer not in the shortest form": head + b"\x18\x07",
        "length not in the shortest form": b"\xa2" + key_root + b"\x59\x00\x20" + root + key_index + b"\x07",
        "count not in the shortest form": b"\xb8\x02" + head[1:] + b"\x07",
        "float": head + cbor2.dumps(7.0),
        "half float": head + b"\xf9\x47\x00",
        "negative": head + b"\x26",
        "over the limit": head + b"\x1b" + (FILE_SIZE_MAX + 1).to_bytes(8, "big"),
        "text for integer": head + b"\x617",
        "true for integer": head + b"\xf5",
        "null for integer": head + b"\xf6",
        "undefined": head + b"\xf7",
        "simple value": head + b"\xf8\xff",
        "text for byte string": b"\xa2" + key_root + b"\x78\x20" + b"a" * 32 + key_index + b"\x07",
        "31 bytes for an id": b"\xa2" + key_root + b"\x58\x1f" + root[:31] + key_index + b"\x07",
        "list for map": b"\x82" + value_root + b"\x07",
        "integer key": b"\xa2\x01" + value_root + b"\x02\x07",
        "byte string key": b"\xa2\x44root" + value_root + b"\x45index\x07",
        "tag 2, big number": head + b"\xc2\x41\x07",
        "tag 0, date": head + b"\xc0\x742026-01-01T00:00:00Z",
        "tag 25, string reference": head + b"\xd8\x19\x07",
        "tag 28, shared value": head + b"\xd8\x1c\x07",
        "tag 29, reference to a shared value": head + b"\xd8\x1d\x00",
        "tag 35, regular expression": head + b"\xd8\x23\x62a+",
        "tag 256, string reference namespace": b"\xd9\x01\x00" + head + b"\x07",
        "tag 55799, self-described CBOR": b"\xd9\xd9\xf7" + head + b"\x07",
        "tag 12345, unknown": head + b"\xd9\x30\x39\x07",
    }
    text_invalid = {
        "default written out": cbor2.dumps({"size": 0, "files": 0, "title": ""}, canonical=True),
        "default of null written out": cbor2.dumps({"size": 0, "task": None, "files": 0}, canonical=True),
        "default of an empty list written out": cbor2.dumps({"size": 0, "tags": [], "files": 0}, canonical=True),
        "text not in UTF-8": b"\xa3\x64size\x00\x64task\x61\xff\x65files\x00",
        "half of a surrogate pair": b"\xa3\x64size\x00\x64task\x63\xed\xa0\x80\x65files\x00",
        "list too long": cbor2.dumps({"size": 0, "tags": ["a"] * 65, "files": 0}, canonical=True),
        "text too long": cbor2.dumps({"size": 0, "task": "a" * 129, "files": 0}, canonical=True),
        "text too short": cbor2.dumps({"size": 0, "task": "", "files": 0}, canonical=True),
        "a number above 2^63 - 1": cbor2.dumps({"size": 2**63, "files": 0}, canonical=True),
        "an item that is not written": cbor2.dumps({"size": 0, "tags": ["a", None], "files": 0}, canonical=True),
    }
    return {
        "valid": [
            {"type": type(value).__name__, "value": value, "encoded": encoding.encode(value)}
            for value in (page_ref, Summary(files=0, size=0), summary)
        ],
        "invalid": [
            *({"type": "PageRef", "encoded": data, "why": why} for why, data in invalid.items()),
            *({"type": "Summary", "encoded": data, "why": why} for why, data in text_invalid.items()),
        ],
    }


_REFUSED_KEYS = {
    "identity, order 1": b"\x01" + bytes(31),
    "order 2": (2**255 - 20).to_bytes(32, "little"),
    "order 4": bytes(32),
    "order 4, other sign": bytes(31) + b"\x80",
    "order 8": bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    "order 8, other sign": bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"),
    "order 8, other point": bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    "order 8, other point, other sign": bytes.fromhex(
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"
    ),
    "identity with a sign": b"\x01" + bytes(30) + b"\x80",
    "y not reduced": (2**255 - 19 + 3).to_bytes(32, "little"),
    "all ones": b"\xff" * 32,
    "not on the curve": b"\x02" + bytes(31),
}


def signing() -> Json:
    signed: list[Json] = []
    for purpose, payload in (("record", b""), ("record", b"payload"), ("identity", b"payload"), ("node", b"\0" * 300)):
        key = values.key("publisher")
        signed.append(
            {
                "seed": key.seed,
                "public_key": key.public_key,
                "purpose": purpose,
                "payload": payload,
                "message": signed_message(purpose, payload),
                "signature": key.sign(purpose, payload),
            }
        )
    good = signed[1]
    scalar = int.from_bytes(good["signature"][32:], "little") + 2**252 + 27742317777372353535851937790883648493
    envelope = seal(Summary(files=1, size=2), values.key("publisher"), "record")
    return {
        "seeds": "the seed of the key called NAME is BLAKE3(NAME)",
        "signed": signed,
        "invalid": [
            good | {"purpose": "node", "why": "another purpose"},
            good | {"payload": b"payloae", "why": "another payload"},
            good | {"public_key": values.key("other").public_key, "why": "another key"},
            good | {"signature": good["signature"][:32] + scalar.to_bytes(32, "little"), "why": "S is not reduced"},
            good | {"signature": bytes(64), "why": "zeros"},
        ],
        "refused_keys": [{"public_key": key, "why": why} for why, key in _REFUSED_KEYS.items()],
        "envelope": {
            "public_key": values.key("publisher").public_key,
            "purpose": "record",
            "payload": envelope.payload,
            "signature": envelope.signature,
            "encoded": encoding.encode(envelope),
        },
    }


def trees() -> Json:
    sizes = range(9)

    def tree(kind: TreeHash, data: list[bytes]) -> Json:
        leaves = [kind.leaf(item) for item in data]
        return {
            "leaves": [{"data": item, "hash": leaf} for item, leaf in zip(data, leaves, strict=True)],
            "roots": [merkle.root(kind, leaves[:size]) for size in sizes],
            "inclusion": [
                {"size": size, "index": index, "proof": merkle.inclusion_proof(kind, leaves[:size], index)}
                for size in sizes
                for index in range(size)
            ],
        }

    log_data = [bytes(range(number)) for number in range(8)]
    leaves = [LOG_TREE.leaf(item) for item in log_data]
    consistency = [
        {"old": old, "new": new, "proof": merkle.consistency_proof(LOG_TREE, leaves[:new], old)}
        for new in sizes
        for old in range(new + 1)
    ]
    files = [pack(1000 + number, blake3(bytes([number])).digest()) for number in range(8)]
    return {"log": tree(LOG_TREE, log_data) | {"consistency": consistency}, "file": tree(FILE_TREE, files)}
