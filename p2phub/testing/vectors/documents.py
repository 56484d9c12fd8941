"""Vectors of what is signed: records, heads, identities, node records."""

from __future__ import annotations

import base64

import cbor2
import msgspec
from blake3 import blake3

from p2phub.core import encoding, merkle
from p2phub.core.checkpoint import sign_head
from p2phub.core.envelope import ENVELOPE_SIZE_MAX, PAYLOAD_SIZE_MAX, Envelope, seal
from p2phub.core.identity import (
    Epoch,
    Identity,
    KeySignature,
    RetiredKey,
    Role,
    SignedDocument,
    new_document,
    open_identity,
    sign_document,
)
from p2phub.core.ids import LogId, NamespaceId, NodeId, PublicKey, SignerKey
from p2phub.core.merkle import LOG_TREE
from p2phub.core.noderecord import NodeRecord, sign_node_record
from p2phub.core.recipient import SMALL_ORDER_U
from p2phub.core.records import PURPOSE, Record, WrappedKey, log_id
from p2phub.core.signing import SigningKey
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
    assessment = change(entries[12].record, index=0, previous=bytes(32))
    blocked = change(assessment, claim="blocked", verdict="bad", score=None)
    invalid = {
        "signed by another key": sealed(first, by="other"),
        "signed for another purpose": sealed(first, purpose="node"),
        "the entry of index 1": entries[1].data,
        "another index": sealed(change(first, index=1)),
        "default of `schema` written out": _with_fields(first, {"schema": 1}),
        "default of `message` written out": _with_fields(first, {"message": ""}),
        "default of `version` written out": _with_fields(first, {"version": None}),
        "a time above 2^53": _with_fields(first, {"time": 2**53 + 1}),
        "depth 0": _with_fields(first, {"depth": 0}),
        "depth 2^31 + 1": _with_fields(first, {"depth": 2**31 + 1}),
        "a version without a dot": _with_fields(first, {"version": "1"}),
        "a version of 65 characters": _with_fields(first, {"version": "1." + "0" * 63}),
        "a branch of 129 characters": _with_fields(first, {"branch": "a" * 129}),
        "a model name of 97 characters": _with_fields(first, {"model": "a" * 97}),
        "a kind that is none": _with_fields(first, {"kind": "space"}),
        "default of `depth` of a branch record written out": _with_fields(
            change(entries[4].record, index=0, previous=bytes(32)), {"depth": 1}
        ),
        "an attestation of another claim": _with_fields(
            change(entries[5].record, index=0, previous=bytes(32)), {"claim": "reviewed"}
        ),
        "an attestation whose commit has 39 digits": sealed(
            change(entries[5].record, index=0, previous=bytes(32), commit="0" * 39)
        ),
        "an attestation whose hub is a URL": sealed(
            change(entries[5].record, index=0, previous=bytes(32), hub="https://hub.example")
        ),
        "a seal for nobody": _with_fields(change(entries[6].record, index=0, previous=bytes(32)), {"recipients": []}),
        "a seal with a box of 79 bytes": sealed(
            change(
                entries[6].record,
                index=0,
                previous=bytes(32),
                recipients=(WrappedKey(namespace, bytes(32), bytes(79)),),
            )
        ),
        "a gate without a text": _with_fields(change(entries[13].record, index=0, previous=bytes(32)), {"licence": ""}),
        "a gate for nobody": _with_fields(change(entries[13].record, index=0, previous=bytes(32)), {"per": "nobody"}),
        "default of `until` of an approval written out": _with_fields(
            change(entries[14].record, index=0, previous=bytes(32)), {"until": None}
        ),
        "a refusal of a receipt of 31 bytes": sealed(
            change(entries[15].record, index=0, previous=bytes(32), receipt=bytes(31))
        ),
        "an unsealed key of 31 bytes": sealed(change(entries[7].record, index=0, previous=bytes(32), key=bytes(31))),
        "a pledge about a manifest and a publisher": _with_fields(
            change(entries[8].record, index=0, previous=bytes(32)),
            {"subject": {"manifest": bytes(32), "publisher": bytes(32)}},
        ),
        "a pledge about nothing": _with_fields(change(entries[8].record, index=0, previous=bytes(32)), {"subject": {}}),
        "an assessment of nothing": _without_field(assessment, "manifest"),
        "an assessment of two things": _with_fields(assessment, {"file": bytes(32)}),
        "an assessment with a verdict that is none": _with_fields(assessment, {"verdict": "fine"}),
        "a review with a score": _with_fields(assessment, {"claim": "review"}),
        "what is blocked and good": _with_fields(blocked, {"verdict": "good"}),
        "of another namespace": sealed(change(first, namespace=NamespaceId(bytes(32)))),
        "of another log": sealed(change(first, log=LogId(bytes(32)))),
        "after another leaf": sealed(change(first, previous=leaves[0])),
        "branch spelled like a hash": sealed(change(first, branch="abcdefabcdef")),
        "model name with a line break": sealed(change(first, model="parrot\n")),
        "schema 2": sealed(change(first, schema=2)),
        "unknown type": _with_fields(first, {"type": "epoch"}),
    }
    too_long = encoding.encode(first).ljust(PAYLOAD_SIZE_MAX + 1, b"\0")
    return {
        "about": {
            "late": "the clock of the reader that refuses an entry for its time alone",
            "payload of 65537 bytes": "the payload of entry 0, filled up with zeros to 65537 bytes, in an envelope "
            "with the key's signature over it, whose BLAKE3 is given",
        },
        "late": {"entry": entries[0].data, "good_at": values.TIME - 600, "refused_at": values.TIME - 601},
        "long_payload": {
            "size": len(too_long),
            "envelope_blake3": blake3(_envelope(too_long)).digest(),
            "envelope_size": len(_envelope(too_long)),
        },
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


def _with_fields(record: Record, fields: Json) -> bytes:
    return _envelope(cbor2.dumps(cbor2.loads(encoding.encode(record)) | fields, canonical=True))


def _without_field(record: Record, name: str) -> bytes:
    fields = cbor2.loads(encoding.encode(record))
    return _envelope(cbor2.dumps({key: value for key, value in fields.items() if key != name}, canonical=True))


def _envelope(payload: bytes) -> bytes:
    """Return any payload in an envelope that the publisher signed."""
    return encoding.encode(Envelope(payload, values.key("publisher").sign(PURPOSE, payload)))


def checkpoints() -> Json:
    key, namespace = values.key("publisher"), values.identity().namespace
    log, leaves = log_id(namespace, key.public_key), [entry.leaf for entry in values.log()[:5]]
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
    own_prefix = f"\N{EM DASH} {origin} "
    own_line = own_prefix + note.rsplit(own_prefix, 1)[1]
    invalid = {
        "size with a leading zero": signed(f"{origin}\n05\n{root_text}\n"),
        "an extension line": signed(f"{origin}\n5\n{root_text}\nmore\n"),
        "root of 31 bytes": signed(f"{origin}\n5\n{base64.b64encode(bytes(31)).decode()}\n"),
        "the first line names no log": signed(f"example.com/log\n5\n{root_text}\n"),
        "the first line and the signature name another log": sign_head(
            LogId(bytes(32)), 5, heads[2]["root"], key
        ).text.decode(),
        "the first line alone names another log": signed(f"p2phub/log/{LogId(bytes(32))}\n5\n{root_text}\n"),
        "the own name with another key hint": note.replace(own_line, f"{own_prefix}{_other_hint(note)}\n"),
        "no last line feed": note[:-1],
        "CR LF": note.replace("\n", "\r\n"),
        "root whose spare bits are not 0": signed(f"{origin}\n5\n{root_text[:-2]}{_next(root_text[-2])}=\n"),
        "root without padding": signed(f"{origin}\n5\n{root_text[:-1]}\n"),
        "signature without padding": note.removesuffix("=\n") + "\n",
        "witness without padding": f"{note}\N{EM DASH} w.example/1 AAAAAA\n",
        "witness whose spare bits are not 0": f"{note}\N{EM DASH} w.example/1 AAAAAB==\n",
        "witness that is no base64": f"{note}\N{EM DASH} w.example/1 AA-_\n",
        "witness with a space in its name": f"{note}\N{EM DASH} w.example\N{NO-BREAK SPACE}1 {witness}\n",
        "witness with a control character in its name": f"{note}\N{EM DASH} w.example\x1f1 {witness}\n",
        "witness with a plus in its name": f"{note}\N{EM DASH} w.example+1 {witness}\n",
        "a size of 17 digits": signed(f"{origin}\n1{'0' * 16}\n{root_text}\n"),
        "4097 bytes": _filled(note, 4097),
        "signed by another key": other,
        "another size than signed": note.replace("\n5\n", "\n6\n"),
        "trailing junk": note + "junk",
        "no signature": note[: note.index("\n\n") + 2],
        "a bad signature beside a good one": note + f"\N{EM DASH} {origin} {_bad_signature(note)}\n",
    }
    return {
        "log": str(log),
        "public_key": str(key.public_key),
        "valid": [
            *heads,
            heads[2] | {"note": f"{note}\N{EM DASH} witness.example/w1 {witness}\n"},
            heads[2] | {"note": note.replace(own_line, f"\N{EM DASH} witness.example/w1 {witness}\n{own_line}")},
            heads[2] | {"note": note + f"{own_prefix}{_other_hint(note)}\n"},
            heads[2] | {"note": _filled(note, 4096)},
        ],
        "invalid": [{"note": text, "why": why} for why, text in invalid.items()],
    }


def _filled(note: str, size: int) -> str:
    """Return `note` with a line of a witness that makes it `size` bytes long."""
    rest = size - len(note.encode()) - len("\N{EM DASH}  AAAA\n".encode())
    return f"{note}\N{EM DASH} {'w' * rest} AAAA\n"


def _next(char: str) -> str:
    """Return a base64 digit that differs in its last bit."""
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return digits[digits.index(char) ^ 1]


def _other_hint(note: str) -> str:
    blob = base64.b64decode(note.split(" ")[-1])
    return base64.b64encode(bytes(4) + blob[4:]).decode()


def _bad_signature(note: str) -> str:
    blob = base64.b64decode(note.split(" ")[-1])
    return base64.b64encode(blob[:4] + bytes(64)).decode()


def _followed(identity: Identity, key: SigningKey, **fields: object) -> SignedDocument:
    """Return a next document of `identity`, which differs in `fields`."""
    document = msgspec.structs.replace(
        identity.current,
        version=identity.current.version + 1,
        previous=blake3(identity.chain[-1].document).digest(),
        **fields,
    )
    return sign_document(document, [key])


def identities() -> Json:
    one, rotated = values.identity(), values.rotated_identity()
    first, second, third = rotated.chain
    lone = values.key("publisher")
    companion = values.companion("publisher").public_key
    document = new_document(lone.public_key, created=values.TIME)
    pair = tuple(sorted((lone.public_key, values.key("other").public_key)))
    of_two = msgspec.structs.replace(document, root=Role(pair, 2))
    half = sign_document(of_two, [lone])

    def signed_with(**fields: object) -> SignedDocument:
        return sign_document(msgspec.structs.replace(document, **fields), [lone])

    other = values.key("other").public_key
    both = tuple(sorted((lone.public_key, other)))
    pair_first = signed_with(publish=Role(both, 1))
    retiring = _followed(
        open_identity([pair_first]), lone, publish=Role((lone.public_key,), 1), retired=(RetiredKey(other, 5),)
    )

    def taken_back(**fields: object) -> list[SignedDocument]:
        """Return a chain that retires a key, and goes on with `fields`; without the key if there are none."""
        before = [pair_first, retiring]
        return [*before, _followed(open_identity(before), lone, **({"retired": ()} | fields))]

    end = Epoch(lone.public_key, 1, 5, values.content("root", 32))
    reopened = open_identity([one.chain[0], _followed(one, lone, epochs=(end, msgspec.structs.replace(end, number=2)))])
    old = values.key("laptop 1")
    by_old = tuple(signature for signature in second.signatures if signature.key == old.public_key)
    by_new = tuple(signature for signature in second.signatures if signature.key != old.public_key)
    for_records = KeySignature(SignerKey(old.public_key), old.sign("record", first.document))
    invalid: dict[str, list[SignedDocument]] = {
        "version 2 is missing": [first, third],
        "version 1 is missing": [second],
        "a version twice": [first, first],
        "old root did not sign": [first, SignedDocument(second.document, by_new)],
        "new root did not sign": [first, SignedDocument(second.document, by_old)],
        "one of two signed": [half],
        "one of two signed twice": [SignedDocument(half.document, half.signatures * 2)],
        "signatures not sorted": [first, SignedDocument(second.document, second.signatures[::-1])],
        "a stranger signed too": [sign_document(document, [lone, values.key("other")])],
        "signed for another purpose": [SignedDocument(first.document, (for_records,))],
        "previous is of another document": [one.chain[0], second],
        "domain without a dot": [signed_with(domains=("localhost",))],
        "domains not sorted": [signed_with(domains=("b.example", "a.example"))],
        "a domain twice": [signed_with(domains=("a.example", "a.example"))],
        "domain whose last label begins with a digit": [signed_with(domains=("192.0.2.1",))],
        "threshold above the number of keys": [signed_with(fresh=Role(pair, 3))],
        "threshold 0": [signed_with(fresh=Role(pair, 0))],
        "threshold of publish is 2": [signed_with(publish=Role(pair, 2))],
        "keys not sorted": [signed_with(fresh=Role(pair[::-1], 1))],
        "a key twice": [signed_with(fresh=Role(pair[:1] * 2, 1))],
        "no keys": [signed_with(fresh=Role((), 1))],
        "a key of small order": [signed_with(fresh=Role((PublicKey(bytes(32)),), 1))],
        "previous in version 1": [signed_with(previous=bytes(32))],
        "version 0": [signed_with(version=0)],
        "a key retired and publishing": [signed_with(retired=(RetiredKey(lone.public_key, 1),))],
        "a retired key twice": [signed_with(retired=(RetiredKey(values.key("other").public_key, 1),) * 2)],
        "epochs that begin at 2": [signed_with(epochs=(msgspec.structs.replace(end, number=2),))],
        "an epoch twice": [signed_with(epochs=(end, end))],
        "an epoch of a key that does not publish": [
            signed_with(epochs=(msgspec.structs.replace(end, key=values.key("other").public_key),))
        ],
        "a retired key publishes again": taken_back(publish=Role(both, 1)),
        "a retired key with a larger size": taken_back(retired=(RetiredKey(other, 6),)),
        "a retired key that was left out comes back": [
            *taken_back(),
            _followed(open_identity(taken_back()), lone, retired=(RetiredKey(other, 0),)),
        ],
        "the end of a log is taken back": [*reopened.chain, _followed(reopened, lone, epochs=())],
        "companion of 32 bytes": [signed_with(companion=companion[1:])],
        "companion that is not compressed": [signed_with(companion=b"\4" + companion[1:])],
        "companion that is no point of the curve": [signed_with(companion=b"\2" + bytes(31) + b"\1")],
        "companion whose x is not below the prime": [signed_with(companion=b"\2" + b"\xff" * 32)],
        "recipient of 31 bytes": [signed_with(recipient=bytes(31))],
        "recipient that is not canonical": [signed_with(recipient=(2**255 - 10).to_bytes(32, "little"))],
        "recipient with the highest bit set": [signed_with(recipient=(2**255 + 9).to_bytes(32, "little"))],
        **{
            f"recipient of small order, {u:x}": [signed_with(recipient=u.to_bytes(32, "little"))]
            for u in sorted(SMALL_ORDER_U)
        },
        "null of `previous` written out": [_signed_fields(document, {"previous": None})],
        "empty list of `domains` written out": [_signed_fields(document, {"domains": []})],
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
            for identity in (one, rotated, reopened, values.whole_identity())
        ],
        "invalid": [
            {"chain": [encoding.encode(signed) for signed in chain], "why": why} for why, chain in invalid.items()
        ],
    }


def _signed_fields(document: msgspec.Struct, fields: Json) -> SignedDocument:
    key = values.key("publisher")
    data = cbor2.dumps(cbor2.loads(encoding.encode(document)) | fields, canonical=True)
    return SignedDocument(data, (KeySignature(SignerKey(key.public_key), key.sign("identity", data)),))


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
        "another IPv6 form": sign_node_record(change(record, addresses=("::1:80",)), key).data,
        "17 addresses": sign_node_record(change(record, addresses=("192.0.2.1:7447",) * 17), key).data,
        "certificate of 1025 bytes": sign_node_record(change(record, certificate=bytes(1025)), key).data,
        "ttl 0": sign_node_record(change(record, ttl=0), key).data,
        "a node whose key is of small order": sign_node_record(change(record, node=NodeId(bytes(32))), key).data,
        "empty label": sign_node_record(change(record, cluster=""), key).data,
        "label with a space": sign_node_record(change(record, site="lab example"), key).data,
    }
    return {
        "now": values.TIME,
        "valid": [{"value": value, "encoded": sign_node_record(value, key).data} for value in (record, bare)],
        "invalid": [{"encoded": data, "why": why} for why, data in invalid.items()],
    }
