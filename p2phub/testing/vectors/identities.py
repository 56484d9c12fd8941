"""Vectors of identities and node records."""

from __future__ import annotations

import cbor2
import msgspec
from blake3 import blake3

from p2phub.core import encoding
from p2phub.core.envelope import seal
from p2phub.core.identity import (
    Epoch,
    Identity,
    IdentityDocument,
    KeySignature,
    RetiredKey,
    Role,
    SignedDocument,
    new_document,
    open_identity,
    sign_document,
)
from p2phub.core.ids import NodeId, PublicKey, SignerKey
from p2phub.core.noderecord import NodeRecord, sign_node_record
from p2phub.core.recipient import SMALL_ORDER_U
from p2phub.core.signing import SigningKey
from p2phub.testing import values

from .plain import Json


def identities() -> Json:
    return {
        "valid": [
            {
                "namespace": str(identity.namespace),
                "chain": [
                    {
                        "value": encoding.decode(signed.document, IdentityDocument, size_max=2**20),
                        "encoded": encoding.encode(signed),
                    }
                    for signed in identity.chain
                ],
                "logs": [
                    {"log": str(log), "public_key": str(key), "size_max": identity.size_max(log)}
                    for log, key in identity.logs.items()
                ],
            }
            for identity in (values.identity(), values.rotated_identity(), _reopened(), values.whole_identity())
        ],
        "invalid": [
            {"chain": [encoding.encode(signed) for signed in chain], "why": why}
            for why, chain in _invalid_identities().items()
        ],
    }


def _reopened() -> Identity:
    """Return the identity of one person whose log was closed twice."""
    one, key = values.identity(), values.key("publisher")
    end = Epoch(key.public_key, 1, 5, values.content("root", 32))
    return open_identity([*one.chain, _followed(one, key, epochs=(end, msgspec.structs.replace(end, number=2)))])


def _invalid_identities() -> dict[str, list[SignedDocument]]:
    """Return chains that prove nothing, by why."""
    first, second, third = values.rotated_identity().chain
    lone = values.key("publisher")
    companion = values.companion("publisher").public_key
    document = new_document(lone.public_key, created=values.TIME)
    other = values.key("other").public_key
    pair = tuple(sorted((lone.public_key, other)))
    of_two = msgspec.structs.replace(document, root=Role(pair, 2))
    half = sign_document(of_two, [lone])

    def signed_with(**fields: object) -> SignedDocument:
        return sign_document(msgspec.structs.replace(document, **fields), [lone])

    pair_first = signed_with(publish=Role(pair, 1))
    retiring = _followed(
        open_identity([pair_first]), lone, publish=Role((lone.public_key,), 1), retired=(RetiredKey(other, 5),)
    )

    def taken_back(**fields: object) -> list[SignedDocument]:
        """Return a chain that retires a key, and goes on with `fields`; without the key if there are none."""
        before = [pair_first, retiring]
        return [*before, _followed(open_identity(before), lone, **({"retired": ()} | fields))]

    reopened = _reopened()
    end = reopened.current.epochs[0]
    old = values.key("laptop 1")
    by_old = tuple(signature for signature in second.signatures if signature.key == old.public_key)
    by_new = tuple(signature for signature in second.signatures if signature.key != old.public_key)
    for_records = KeySignature(SignerKey(old.public_key), old.sign("record", first.document))
    return {
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
        "previous is of another document": [values.identity().chain[0], second],
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
        "a retired key twice": [signed_with(retired=(RetiredKey(other, 1),) * 2)],
        "epochs that begin at 2": [signed_with(epochs=(msgspec.structs.replace(end, number=2),))],
        "an epoch twice": [signed_with(epochs=(end, end))],
        "an epoch of a key that does not publish": [signed_with(epochs=(msgspec.structs.replace(end, key=other),))],
        "a retired key publishes again": taken_back(publish=Role(pair, 1)),
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


def _followed(identity: Identity, key: SigningKey, **fields: object) -> SignedDocument:
    """Return a next document of `identity`, which differs in `fields`."""
    document = msgspec.structs.replace(
        identity.current,
        version=identity.current.version + 1,
        previous=blake3(identity.chain[-1].document).digest(),
        **fields,
    )
    return sign_document(document, [key])


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
