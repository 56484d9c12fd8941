"""Vectors of what is signed: records, heads, identities, node records."""

from __future__ import annotations

import base64

import cbor2
import msgspec

from p2phub.core import encoding, merkle
from p2phub.core.checkpoint import sign_head
from p2phub.core.envelope import ENVELOPE_SIZE_MAX, Envelope, seal
from p2phub.core.identity import KeySignature, Role, SignedDocument, new_document, sign_document
from p2phub.core.ids import LogId, NamespaceId
from p2phub.core.merkle import LOG_TREE
from p2phub.core.noderecord import NodeRecord, sign_node_record
from p2phub.core.records import PURPOSE, Record, log_id
from p2phub.testing import values

from .plain import Json


def records() -> Json:
    entries = values.log()
    key, namespace = values.key("publisher"), values.identity().namespace
    leaves = [entry.leaf for entry in entries]

    def sealed(record: Record, purpose: str = PURPOSE, by: str = "publisher") -> bytes:
        return encoding.encode(seal(record, values.key(by), purpose))

    first = entries[0].record
    change = msgspec.structs.replace
    invalid = {
        "signed by another key": sealed(first, by="other"),
        "signed for another purpose": sealed(first, purpose="node"),
        "of another index": entries[1].data,
        "of another namespace": sealed(change(first, namespace=NamespaceId(bytes(32)))),
        "of another log": sealed(change(first, log=LogId(bytes(32)))),
        "after another leaf": sealed(change(first, previous=leaves[0])),
        "branch spelled like a hash": sealed(change(first, branch="abcdefabcdef")),
        "model name with a line break": sealed(change(first, model="parrot\n")),
        "schema 2": sealed(change(first, schema=2)),
        "unknown type": _retyped(first, "epoch"),
    }
    return {
        "namespace": str(namespace),
        "public_key": str(key.public_key),
        "log": str(log_id(namespace, key.public_key)),
        "entries": [
            {
                "value": entry.record,
                "payload": encoding.decode(entry.data, Envelope, size_max=ENVELOPE_SIZE_MAX).payload,
                "entry": entry.data,
                "leaf": entry.leaf,
                "root": merkle.root(LOG_TREE, leaves[: index + 1]),
            }
            for index, entry in enumerate(entries)
        ],
        "invalid_at_index_0": [{"entry": data, "why": why} for why, data in invalid.items()],
    }


def _retyped(record: Record, type_: str) -> bytes:
    fields = cbor2.loads(encoding.encode(record)) | {"type": type_}
    payload = cbor2.dumps(fields, canonical=True)
    return encoding.encode(Envelope(payload, values.key("publisher").sign(PURPOSE, payload)))


def checkpoints() -> Json:
    key, namespace = values.key("publisher"), values.identity().namespace
    log, leaves = log_id(namespace, key.public_key), [entry.leaf for entry in values.log()]
    origin = f"p2phub/log/{log}"

    def signed(text: str) -> str:
        key_hash = base64.b64decode(heads[0]["note"].split(" ")[-1])[:4]
        return f"{text}\n\N{EM DASH} {origin} {base64.b64encode(key_hash + key.sign_note(text.encode())).decode()}\n"

    heads: list[Json] = []
    for size in (0, 1, len(leaves)):
        root = merkle.root(LOG_TREE, leaves[:size])
        heads.append({"size": size, "root": root, "note": sign_head(log, size, root, key).text.decode()})
    note = heads[2]["note"]
    root_text = base64.b64encode(heads[2]["root"]).decode()
    witness = base64.b64encode(b"wits" + bytes(72)).decode()
    other = sign_head(log, 5, heads[2]["root"], values.key("other")).text.decode()
    invalid = {
        "size with a leading zero": signed(f"{origin}\n05\n{root_text}\n"),
        "an extension line": signed(f"{origin}\n5\n{root_text}\nmore\n"),
        "root of 31 bytes": signed(f"{origin}\n5\n{base64.b64encode(bytes(31)).decode()}\n"),
        "another origin": signed(f"example.com/log\n5\n{root_text}\n"),
        "signed by another key": other,
        "another size than signed": note.replace("\n5\n", "\n6\n"),
        "trailing junk": note + "junk",
        "no signature": note[: note.index("\n\n") + 2],
        "a bad signature beside a good one": note + f"\N{EM DASH} {origin} {_bad_signature(note)}\n",
    }
    return {
        "log": str(log),
        "public_key": str(key.public_key),
        "valid": [*heads, heads[2] | {"note": f"{note}\N{EM DASH} witness.example/w1 {witness}\n"}],
        "invalid": [{"note": text, "why": why} for why, text in invalid.items()],
    }


def _bad_signature(note: str) -> str:
    blob = base64.b64decode(note.split(" ")[-1])
    return base64.b64encode(blob[:4] + bytes(64)).decode()


def identities() -> Json:
    one, rotated = values.identity(), values.rotated_identity()
    first, second, third = rotated.chain
    lone = values.key("publisher")
    document = new_document(lone.public_key, created=values.TIME)
    pair = tuple(sorted((lone.public_key, values.key("other").public_key)))
    of_two = msgspec.structs.replace(document, root=Role(pair, 2))
    half = sign_document(of_two, [lone])
    old = values.key("laptop 1")
    by_old = tuple(signature for signature in second.signatures if signature.key == old.public_key)
    by_new = tuple(signature for signature in second.signatures if signature.key != old.public_key)
    for_records = KeySignature(old.public_key, old.sign("record", first.document))
    invalid: dict[str, list[SignedDocument]] = {
        "version 2 is missing": [first, third],
        "version 1 is missing": [second],
        "a version twice": [first, first],
        "old root did not sign": [first, SignedDocument(second.document, by_new)],
        "new root did not sign": [first, SignedDocument(second.document, by_old)],
        "one of two signed": [half],
        "one of two signed twice": [SignedDocument(half.document, half.signatures * 2)],
        "signatures not sorted": [SignedDocument(second.document, second.signatures[::-1])],
        "a stranger signed too": [sign_document(document, [lone, values.key("other")])],
        "signed for another purpose": [SignedDocument(first.document, (for_records,))],
        "previous is of another document": [one.chain[0], second],
        "domain without a dot": [sign_document(msgspec.structs.replace(document, domains=("localhost",)), [lone])],
    }
    return {
        "valid": [
            {
                "namespace": str(identity.namespace),
                "chain": [
                    {
                        "value": encoding.decode(signed.document, type(document), size_max=2**20),
                        "encoded": encoding.encode(signed),
                    }
                    for signed in identity.chain
                ],
                "logs": [
                    {"log": str(log), "public_key": str(key), "size_max": identity.size_max(log)}
                    for log, key in identity.logs.items()
                ],
            }
            for identity in (one, rotated)
        ],
        "invalid": [
            {"chain": [encoding.encode(signed) for signed in chain], "why": why} for why, chain in invalid.items()
        ],
    }


def node_records() -> Json:
    key, record = values.key("node"), values.node_record()
    bare = NodeRecord(
        schema=1, node=record.node, addresses=(), certificate=record.certificate, time=values.TIME, ttl=86400
    )
    change = msgspec.structs.replace
    invalid = {
        "signed by another key": sign_node_record(record, values.key("other")).data,
        "signed for another purpose": encoding.encode(seal(record, key, "record")),
        "expired": sign_node_record(change(record, time=values.TIME - 3601), key).data,
        "ahead of the clock": sign_node_record(change(record, time=values.TIME + 601), key).data,
        "ttl over a day": sign_node_record(change(record, ttl=86401), key).data,
        "address without a port": sign_node_record(change(record, addresses=("192.0.2.1",)), key).data,
        "address with port 0": sign_node_record(change(record, addresses=("192.0.2.1:0",)), key).data,
        "label with a space": sign_node_record(change(record, site="lab example"), key).data,
    }
    return {
        "now": values.TIME,
        "valid": [{"value": value, "encoded": sign_node_record(value, key).data} for value in (record, bare)],
        "invalid": [{"encoded": data, "why": why} for why, data in invalid.items()],
    }
