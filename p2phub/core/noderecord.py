"""A node's signed record: who it is and where it can be reached (spec/node-record.md)."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from .ages import describe_age
from .encoding import decode, encode
from .envelope import ENVELOPE_SIZE_MAX, Envelope, seal
from .errors import InvalidData, InvalidName
from .ids import NodeId
from .labels import Label, Labels
from .manifest import Time
from .names import parse_endpoint
from .records import SKEW_MAX_S
from .signing import SigningKey

PURPOSE = "node"  # spec/signing.md §2
RECORD_SIZE_MAX = 8 * 1024  # bytes; spec/node-record.md §1
TTL_MAX_S = 24 * 3600  # seconds; spec/node-record.md §2


class NodeRecord(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a node says of itself."""

    schema: Literal[1]
    node: NodeId
    addresses: Annotated[tuple[Annotated[str, Meta(max_length=270)], ...], Meta(max_length=16)]  # HOST:PORT
    certificate: Annotated[bytes, Meta(max_length=1024)]  # DER; spec/transport.md §2
    time: Time
    ttl: Annotated[int, Meta(ge=1, le=TTL_MAX_S)]  # seconds
    cluster: Label | None = None
    site: Label | None = None


class SignedNodeRecord(Struct, frozen=True):
    """A checked node record with the bytes that prove it."""

    record: NodeRecord
    data: bytes  # the encoded envelope


def sign_node_record(record: NodeRecord, key: SigningKey) -> SignedNodeRecord:
    """Return `record` signed by the node's key."""
    return SignedNodeRecord(record, encode(seal(record, key, PURPOSE)))


def open_node_record(data: bytes, *, now: float) -> SignedNodeRecord:
    """Return the node record that `data` encodes, checked at the time `now` (seconds since 1970).

    Raises InvalidData: no record, not signed by the node it names, expired, ahead of
    the clock by more than the limit, or with an address that is none.
    """
    envelope = decode(data, Envelope, size_max=ENVELOPE_SIZE_MAX)
    record = decode(envelope.payload, NodeRecord, size_max=RECORD_SIZE_MAX)
    envelope.check(record.node, PURPOSE)
    if record.time > now + SKEW_MAX_S:
        raise InvalidData(f"the node record is of {describe_age(record.time - now)} from now")
    if record.time + record.ttl < now:
        raise InvalidData(f"the node record has expired: it is of {describe_age(now - record.time)} ago")
    for address in record.addresses:
        try:
            _, port = parse_endpoint(address)
        except InvalidName as exc:
            raise InvalidData(str(exc)) from exc
        if port == 0:
            raise InvalidData(f"nobody can be reached at '{address}'")
    return SignedNodeRecord(record, data)


def labels_of(data: bytes) -> Labels:
    """Return the labels in a signed record that was checked when it came. Raises InvalidData."""
    record = _read(data)
    return Labels(record.cluster, record.site)


def expiry_of(data: bytes) -> int:
    """Return when a signed record, that was checked when it came, expires. Raises InvalidData."""
    record = _read(data)
    return record.time + record.ttl


def _read(data: bytes) -> NodeRecord:
    envelope = decode(data, Envelope, size_max=ENVELOPE_SIZE_MAX)
    return decode(envelope.payload, NodeRecord, size_max=RECORD_SIZE_MAX)
