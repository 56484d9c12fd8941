"""Gates: a licence that must be accepted before content is handed out (spec/gates.md).

    publisher ──gate──▶ log            what is to be accepted, by whom, and whether that is enough
    who wants it ──Receipt──▶ each node that serves it
    publisher ──approve, refuse──▶ log        where his word is needed, too

A receipt is a signed statement of its own and stands in no log: who accepted what is known
to those it was shown to. An approval names the receipt by its hash, which tells nothing.
"""

from __future__ import annotations

from typing import Annotated, Literal

from blake3 import blake3
from msgspec import Meta, Struct

from .access import Caller
from .choices import GateApproval, GatePer
from .encoding import decode, encode
from .envelope import Envelope, seal
from .errors import InvalidData, InvalidSignature, TooEarly
from .identity import PublishKeys
from .ids import NamespaceId, NodeId
from .manifest import Time
from .records import SKEW_MAX_S
from .signing import Signer

PURPOSE = "receipt"  # spec/signing.md §2
RECEIPT_SIZE_MAX = 1024  # bytes, with its envelope; spec/gates.md §2

Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]


class Receipt(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """That `namespace` accepted what a gate asks for."""

    schema: Literal[1]
    gate: Hash  # leaf hash of the record
    licence: Hash  # BLAKE3 of its text
    namespace: NamespaceId
    time: Time
    node: NodeId | None = None  # the machine of the person, where each person must accept; None: an institution


class SignedReceipt(Struct, frozen=True):
    """A receipt whose signature was checked, and its bytes."""

    receipt: Receipt
    data: bytes

    @property
    def hash(self) -> bytes:
        """What approvals call it by."""
        return receipt_hash(self.data)


class Gate(Struct, frozen=True):
    """What must be accepted for a repository, as its publisher says now."""

    publisher: NamespaceId
    model: str
    leaf: bytes  # of the record, 32 bytes
    name: str  # of the licence
    licence: str
    per: GatePer
    approval: GateApproval
    time: int  # seconds since 1970

    @property
    def licence_hash(self) -> bytes:
        return licence_hash(self.licence)


def licence_hash(licence: str) -> bytes:
    """Return what receipts call a licence by."""
    return blake3(licence.encode()).digest()


def receipt_hash(data: bytes) -> bytes:
    """Return what approvals call an encoded receipt by."""
    return blake3(data).digest()


def sign_receipt(gate: Gate, namespace: NamespaceId, node: NodeId, key: Signer, *, now: int) -> SignedReceipt:
    """Return that `namespace` accepts what `gate` asks for. node: the machine it is accepted on."""
    person = node if gate.per == "person" else None
    receipt = Receipt(1, gate.leaf, gate.licence_hash, namespace, now, person)
    return SignedReceipt(receipt, encode(seal(receipt, key, PURPOSE)))


def read_receipt(data: bytes) -> Receipt:
    """Return what `data` says; its signature is not checked. Raises InvalidData."""
    envelope = decode(data, Envelope, size_max=RECEIPT_SIZE_MAX)
    return decode(envelope.payload, Receipt, size_max=RECEIPT_SIZE_MAX)


def open_receipt(data: bytes, keys: PublishKeys, *, now: float) -> SignedReceipt:
    """Return the receipt that `data` encodes, checked to be signed by one of `keys`, of the publisher whose it is.

    Raises InvalidData, InvalidSignature; TooEarly if it was signed in the future.
    """
    envelope = decode(data, Envelope, size_max=RECEIPT_SIZE_MAX)
    receipt = decode(envelope.payload, Receipt, size_max=RECEIPT_SIZE_MAX)
    if receipt.namespace != keys.namespace:
        raise InvalidData("the receipt is of another publisher")
    for key in keys.keys:
        try:
            envelope.check(key, PURPOSE)
        except InvalidSignature:
            continue
        if receipt.time > now + SKEW_MAX_S:
            raise TooEarly("the receipt was signed in the future")
        return SignedReceipt(receipt, data)
    raise InvalidSignature(f"the receipt is not signed by a key of {keys.namespace}")


def check_fits(receipt: Receipt, gate: Gate) -> None:
    """Raise InvalidData unless `receipt` accepts what `gate` asks for."""
    if (receipt.gate, receipt.licence) != (gate.leaf, gate.licence_hash):
        raise InvalidData("the receipt accepts something else")
    if (receipt.node is None) != (gate.per == "institution"):
        raise InvalidData("the receipt is not of a person" if gate.per == "person" else "the receipt is of one person")


def is_of(receipt: Receipt, caller: Caller) -> bool:
    """Say whether `caller` has proved to be whom `receipt` is of: whoever shows another's gains nothing by it."""
    if receipt.node is not None:
        return receipt.node == caller.node
    return receipt.namespace in caller.namespaces
