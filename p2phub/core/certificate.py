"""The TLS certificate of a node, whose bytes follow from its key (spec/transport.md §2).

One form with four holes: the serial number, the node's id twice as a name, and its key.
So it is put together and recognized here, and no X.509 library has to be loaded to call
a node.
"""

from __future__ import annotations

from .ids import NodeId
from .signing import SIGNATURE_SIZE, SigningKey

_INTEGER, _BIT_STRING, _UTF8, _SEQUENCE, _SET = 0x02, 0x03, 0x0C, 0x30, 0x31  # tags; X.690
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18

_KEY_SIZE = 32  # bytes
_ED25519 = bytes.fromhex("300506032b6570")  # AlgorithmIdentifier without parameters; RFC 8410 §3
_COMMON_NAME = bytes.fromhex("0603550403")  # object identifier 2.5.4.3
_VERSION_3 = bytes.fromhex("a003020102")  # RFC 5280 §4.1.2.1


def certificate(key: SigningKey) -> bytes:
    """Return the self-signed certificate (DER) of a node; the same key gives the same bytes."""
    signed = _to_be_signed(NodeId(key.public_key))
    return _certificate(signed, key.private_key.sign(signed))


def certified_node(der: bytes) -> NodeId | None:
    """Return the node whose certificate `der` is, None if it has not the form of one.

    The signature in it is not checked: who answers with it proves in the handshake to have the key.
    """
    tail = _KEY_SIZE + len(_ED25519) + 3 + SIGNATURE_SIZE
    node = NodeId(der[-tail:][:_KEY_SIZE].ljust(_KEY_SIZE, b"\0"))
    return node if der == _certificate(_to_be_signed(node), der[-SIGNATURE_SIZE:]) else None


def _certificate(signed: bytes, signature: bytes) -> bytes:
    return _value(_SEQUENCE, signed + _ED25519 + _bits(signature))


def _to_be_signed(node: NodeId) -> bytes:
    serial = int.from_bytes(node[:15], "big") + 1
    name = _value(_SEQUENCE, _value(_SET, _value(_SEQUENCE, _COMMON_NAME + _value(_UTF8, str(node).encode()))))
    # "No end" is 9999-12-31; RFC 5280 §4.1.2.5.
    validity = _value(_UTC_TIME, b"200101000000Z") + _value(_GENERALIZED_TIME, b"99991231235959Z")
    return _value(
        _SEQUENCE,
        _VERSION_3
        # Shortest form, with a zero byte before a first bit of 1.
        + _value(_INTEGER, serial.to_bytes(serial.bit_length() // 8 + 1, "big"))
        + _ED25519
        + name
        + _value(_SEQUENCE, validity)
        + name
        + _value(_SEQUENCE, _ED25519 + _bits(node)),
    )


def _bits(data: bytes) -> bytes:
    return _value(_BIT_STRING, b"\0" + data)


def _value(tag: int, content: bytes) -> bytes:
    """Return `content` behind its tag and length, in DER."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    digits = size.to_bytes(-(-size.bit_length() // 8), "big")
    return bytes([tag, 0x80 | len(digits)]) + digits + content
