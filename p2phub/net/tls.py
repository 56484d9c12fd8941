"""TLS between nodes: the certificate is the node's key, and the key is what is checked (spec/transport.md §2).

A node id is a public key, so no authority is asked: a client knows which key must
answer, compares it after the handshake, and sends nothing to anybody else. The
handshake proves that the peer holds the secret key.
"""

from __future__ import annotations

import os
import ssl
from typing import ClassVar

from p2phub.core.certificate import certificate, certified_node
from p2phub.core.ids import NodeId
from p2phub.core.signing import SigningKey

ALPN = "http/1.1"  # spec/transport.md §2


class WrongPeer(ssl.SSLError):
    """Somebody else answered than the node that was called."""

    def __str__(self) -> str:
        # Without it the text would be that of a tuple.
        return str(self.args[0])


def server_context(key: SigningKey) -> ssl.SSLContext:
    """Return the TLS settings of the peer door of the node that holds `key`."""
    # Slow to load, and only a node that serves needs it.
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

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
    answered = (certified_node(der) or _other_form(der)) if der else None
    if answered is None:
        raise WrongPeer("the peer shows no node certificate")
    if answered != expected:
        raise WrongPeer(f"node {answered} answered instead of {expected}")


def _other_form(der: bytes) -> NodeId | None:
    """Return the node whose key is in a certificate of whatever form, None if there is no such key."""
    # Slow to load, and no node has such a certificate; yet only the key counts.
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.x509 import load_der_x509_certificate

    try:
        key = load_der_x509_certificate(der).public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None
    return NodeId(key.public_bytes_raw()) if isinstance(key, Ed25519PublicKey) else None
