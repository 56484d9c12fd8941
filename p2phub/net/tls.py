"""TLS between nodes: the certificate is the node's key, and the key is what is checked (spec/transport.md §2).

A node id is a public key, so no authority is asked: a client knows which key must
answer, compares it after the handshake, and sends nothing to anybody else. The
handshake proves that the peer holds the secret key.
"""

from __future__ import annotations

import datetime
import os
import ssl
from typing import ClassVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from p2phub.core.ids import NodeId
from p2phub.core.signing import SigningKey

ALPN = "http/1.1"  # spec/transport.md §2
# Fixed, so that one key has one certificate; 9999-12-31 is "no end" (RFC 5280 §4.1.2.5).
_NOT_BEFORE = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_NOT_AFTER = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)


class WrongPeer(ssl.SSLError):
    """Somebody else answered than the node that was called."""

    def __str__(self) -> str:
        # Without it the text would be that of a tuple.
        return str(self.args[0])


def certificate(key: SigningKey) -> bytes:
    """Return the self-signed certificate (DER) of a node; the same key gives the same bytes."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, str(NodeId(key.public_key)))])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.private_key.public_key())
        .serial_number(int.from_bytes(key.public_key[:15], "big") + 1)
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .sign(key.private_key, algorithm=None)
        .public_bytes(Encoding.DER)
    )


def server_context(key: SigningKey) -> ssl.SSLContext:
    """Return the TLS settings of the peer door of the node that holds `key`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # Nobody resumes, so that each connection checks the key.
    context.num_tickets = 0
    context.set_alpn_protocols([ALPN])
    pem = key.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem += ssl.DER_cert_to_PEM_cert(certificate(key)).encode()
    # `load_cert_chain` reads only files; this one never reaches a disk.
    file = os.memfd_create("p2phub-key", os.MFD_CLOEXEC)
    try:
        os.write(file, pem)
        context.load_cert_chain(f"/proc/self/fd/{file}")
    finally:
        os.close(file)
    return context


def client_context(node: NodeId) -> ssl.SSLContext:
    """Return the TLS settings to call `node`: the handshake fails if another key answers."""

    class Socket(_PinnedSocket):
        expected = node

    class Object(_PinnedObject):
        expected = node

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    # No chain to an authority: `_check` compares the key itself.
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([ALPN])
    context.sslsocket_class = Socket
    context.sslobject_class = Object
    return context


class _PinnedSocket(ssl.SSLSocket):
    expected: ClassVar[NodeId]

    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        _check(self.getpeercert(binary_form=True), self.expected)


class _PinnedObject(ssl.SSLObject):
    expected: ClassVar[NodeId]

    def do_handshake(self) -> None:
        super().do_handshake()
        _check(self.getpeercert(binary_form=True), self.expected)


def _check(der: bytes | None, expected: NodeId) -> None:
    key = x509.load_der_x509_certificate(der).public_key() if der else None
    if not isinstance(key, Ed25519PublicKey):
        raise WrongPeer("the peer shows no node certificate")
    answered = key.public_bytes_raw()
    if answered != expected:
        raise WrongPeer(f"node {NodeId(answered)} answered instead of {expected}")
