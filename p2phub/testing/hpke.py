"""HPKE in base mode with a given key pair of the sender, written from RFC 9180: a second opinion, and for vectors.

The library draws the sender's key pair by chance, so that its output is another one each time.
"""

from __future__ import annotations

import hmac
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

_KEM = b"KEM" + (0x0020).to_bytes(2, "big")  # DHKEM(X25519, HKDF-SHA256); RFC 9180 §7.1
# Number, key size in bytes, and cipher of each AEAD; RFC 9180 §7.3.
AEADS: dict[str, tuple[int, int, type[AESGCM | ChaCha20Poly1305]]] = {
    "AES-128-GCM": (1, 16, AESGCM),
    "AES-256-GCM": (2, 32, AESGCM),
    "ChaCha20Poly1305": (3, 32, ChaCha20Poly1305),
}


def seal(
    plaintext: bytes, public: bytes, sender: bytes, *, info: bytes, aad: bytes = b"", aead: str = "AES-256-GCM"
) -> bytes:
    """Return `enc || ct` of `plaintext` for the X25519 key `public`. sender: the secret X25519 key of 32 bytes."""
    number, key_size, cipher = AEADS[aead]
    secret = X25519PrivateKey.from_private_bytes(sender)
    enc = secret.public_key().public_bytes_raw()
    shared = secret.exchange(X25519PublicKey.from_public_bytes(public))
    prk = _extract(_KEM, b"", b"eae_prk", shared)
    shared = _expand(_KEM, prk, b"shared_secret", enc + public, 32)
    suite = b"HPKE" + b"".join(part.to_bytes(2, "big") for part in (0x0020, 0x0001, number))
    context = b"\0" + _extract(suite, b"", b"psk_id_hash", b"") + _extract(suite, b"", b"info_hash", info)
    prk = _extract(suite, shared, b"secret", b"")
    key = _expand(suite, prk, b"key", context, key_size)
    nonce = _expand(suite, prk, b"base_nonce", context, 12)
    return enc + cipher(key).encrypt(nonce, plaintext, aad)


def _extract(suite: bytes, salt: bytes, label: bytes, material: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + material, sha256)


def _expand(suite: bytes, prk: bytes, label: bytes, info: bytes, size: int) -> bytes:
    # One round of HKDF-Expand gives 32 bytes, which is all that this suite needs.
    text = size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.digest(prk, text + b"\x01", sha256)[:size]
