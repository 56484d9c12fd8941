"""Signatures of OpenSSF model signing: what other tools verify without knowing p2phub (spec/model-signing.md).

files and their hashes ──▶ in-toto statement ──P-256──▶ DSSE envelope in a Sigstore bundle, JSON
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature as _Wrong
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from msgspec import Meta, Struct

from .errors import InvalidData, InvalidSignature

BUNDLE_SIZE_MAX = 16 * 1024 * 1024  # bytes; spec/model-signing.md §3
RESOURCES_MAX = 100_000  # files, or parts of them; spec/model-signing.md §3

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"

# Of a file or a part of one, by the name that a statement gives the kind of hash.
HASHES = {"sha256": "sha256", "blake2": "blake2b", "blake3": "blake3"}
# What ECDSA hashes with, by the bits of the curve.
_CURVES = {256: ec.ECDSA(hashes.SHA256()), 384: ec.ECDSA(hashes.SHA384()), 521: ec.ECDSA(hashes.SHA512())}

_B64 = Annotated[str, Meta(max_length=BUNDLE_SIZE_MAX)]


class Resource(Struct, frozen=True):
    """A file, or a part of one, and its hash."""

    path: str
    digest: bytes
    begin: int = 0  # byte
    end: int | None = None  # byte after the last; None: the whole file


class Statement(Struct, frozen=True):
    """What is signed: that a model consists of these files, and no others."""

    name: str  # of the model, as the signer calls it
    hash: str  # sha256, blake2b or blake3
    resources: tuple[Resource, ...]
    ignored: tuple[str, ...] = ()  # paths that do not count


class Signed(Struct, frozen=True):
    """A bundle, taken apart and not checked."""

    payload: bytes
    signatures: tuple[bytes, ...]
    key_hash: str | None  # SHA-256 of the signer's key as PEM, if it names one
    certificates: tuple[bytes, ...]  # DER: the signer's, then those of who vouches for it


# ── making ──────────────────────────────────────────────────────────────────


def statement(name: str, files: Iterable[tuple[str, bytes]]) -> bytes:
    """Return the statement that a model consists of `files`: path and SHA-256 of each."""
    ordered = sorted(files, key=lambda file: file[0].split("/"))
    whole = hashlib.sha256(b"".join(digest for _, digest in ordered)).hexdigest()
    value = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": whole}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": []},
            "resources": [{"name": path, "algorithm": "sha256", "digest": digest.hex()} for path, digest in ordered],
        },
    }
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def bundle(payload: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return `payload`, a statement, signed by `key`, as a bundle."""
    signature = key.sign(_authenticated(payload), _CURVES[key.curve.key_size])
    value = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": _key_hash(key.public_key())}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    return json.dumps(value, indent=2).encode() + b"\n"


def key_text(key: ec.EllipticCurvePublicKey) -> str:
    """Return a public key as PEM."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


# ── reading ─────────────────────────────────────────────────────────────────


class _PublicKey(Struct):
    hint: str | None = None


class _Certificate(Struct, rename="camel"):
    raw_bytes: _B64


class _Chain(Struct):
    certificates: Annotated[list[_Certificate], Meta(min_length=1, max_length=16)]


class _Material(Struct, rename="camel"):
    public_key: _PublicKey | None = None
    x509_certificate_chain: _Chain | None = None
    certificate: _Certificate | None = None  # of Sigstore's own authority


class _Signature(Struct):
    sig: _B64


class _Envelope(Struct, rename="camel"):
    payload: _B64
    payload_type: str
    signatures: Annotated[list[_Signature], Meta(min_length=1, max_length=16)]


class _Bundle(Struct, rename="camel"):
    media_type: str
    verification_material: _Material
    dsse_envelope: _Envelope


class _Subject(Struct):
    name: str
    digest: dict[str, str]


class _Resource(Struct):
    name: Annotated[str, Meta(min_length=1, max_length=8192)]
    digest: str


class _Serialization(Struct):
    method: str
    hash_type: str
    ignore_paths: Annotated[list[str], Meta(max_length=RESOURCES_MAX)] = []


class _Predicate(Struct):
    serialization: _Serialization
    resources: Annotated[list[_Resource], Meta(max_length=RESOURCES_MAX)]


class _Statement(Struct, rename={"type": "_type", "predicate_type": "predicateType"}):
    type: str
    subject: Annotated[list[_Subject], Meta(min_length=1, max_length=1)]
    predicate_type: str
    predicate: _Predicate


def read_bundle(data: bytes) -> Signed:
    """Return what a bundle holds. Raises InvalidData if it is none, or of a kind that is verified only online."""
    if len(data) > BUNDLE_SIZE_MAX:
        raise InvalidData(f"a bundle of {len(data)} bytes, the limit is {BUNDLE_SIZE_MAX}")
    found: _Bundle = _json(data, _Bundle, "a bundle of signatures")
    if found.media_type != MEDIA_TYPE:
        raise InvalidData(f"the bundle is of the type {found.media_type!r}, expected {MEDIA_TYPE!r}")
    material, envelope = found.verification_material, found.dsse_envelope
    if material.certificate is not None:
        raise InvalidData(
            "the bundle was signed with a short-lived certificate of Sigstore, which only its online services verify",
            hint="`model_signing verify sigstore` checks it",
        )
    if envelope.payload_type != PAYLOAD_TYPE:
        raise InvalidData(f"what is signed is of the type {envelope.payload_type!r}, expected {PAYLOAD_TYPE!r}")
    chain = material.x509_certificate_chain.certificates if material.x509_certificate_chain else []
    return Signed(
        payload=_base64(envelope.payload),
        signatures=tuple(_base64(signature.sig) for signature in envelope.signatures),
        key_hash=material.public_key.hint if material.public_key else None,
        certificates=tuple(_base64(certificate.raw_bytes) for certificate in chain),
    )


def read_key(text: bytes) -> ec.EllipticCurvePublicKey:
    """Return the public key in `text`, PEM. Raises InvalidData if it is none of P-256, P-384 or P-521."""
    try:
        key = load_pem_public_key(text)
    except ValueError as exc:
        raise InvalidData("this is no public key in PEM") from exc
    return _checked(key)


def check_signed(signed: Signed, key: ec.EllipticCurvePublicKey) -> Statement:
    """Return what `key` signed. Raises InvalidSignature if it did not, InvalidData if it is no statement."""
    if signed.key_hash and signed.key_hash != _key_hash(key):
        raise InvalidSignature("the bundle was signed with another key")
    message = _authenticated(signed.payload)
    for signature in signed.signatures:
        try:
            key.verify(signature, message, _CURVES[key.curve.key_size])
        except _Wrong:
            continue
        return _read_statement(signed.payload)
    raise InvalidSignature("no signature of the bundle is by this key")


def check_certified(signed: Signed, roots: bytes, *, now: datetime) -> tuple[Statement, str]:
    """Return what was signed with a certificate that one of `roots` (PEM) vouches for, and the subject of that.

    Raises InvalidSignature if none does, or it was not made for signing; InvalidData.
    """
    from cryptography.x509.verification import ExtensionPolicy, PolicyBuilder, Store, VerificationError

    if not signed.certificates:
        raise InvalidData("the bundle names no certificate", hint="give the key that signed it")
    try:
        anchors = x509.load_pem_x509_certificates(roots)
        leaf, *others = [x509.load_der_x509_certificate(data) for data in signed.certificates]
    except ValueError as exc:
        raise InvalidData("a certificate does not decode") from exc
    policy = (
        PolicyBuilder()
        .store(Store(anchors))
        .time(now)
        .extension_policies(ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=ExtensionPolicy.permit_all())
    )
    try:
        policy.build_client_verifier().verify(leaf, others)
    except VerificationError as exc:
        raise InvalidSignature(f"nobody who is trusted vouches for the certificate: {exc}") from exc
    if not _may_sign(leaf):
        raise InvalidSignature("the certificate is not for signing")
    return check_signed(signed, _checked(leaf.public_key())), leaf.subject.rfc4514_string()


def _may_sign(certificate: x509.Certificate) -> bool:
    for kind, allows in ((x509.KeyUsage, _signs), (x509.ExtendedKeyUsage, _signs_code)):
        try:
            if allows(certificate.extensions.get_extension_for_class(kind).value):
                return True
        except (x509.ExtensionNotFound, ValueError):
            continue
    return False


def _signs(usage: Any) -> bool:
    return bool(usage.digital_signature)


def _signs_code(usage: Any) -> bool:
    return x509.oid.ExtendedKeyUsageOID.CODE_SIGNING in usage


def _read_statement(payload: bytes) -> Statement:
    found: _Statement = _json(payload, _Statement, "a statement about a model")
    if found.type != STATEMENT_TYPE or found.predicate_type != PREDICATE_TYPE:
        raise InvalidData(f"what is signed is of the type {found.predicate_type!r}, expected {PREDICATE_TYPE!r}")
    (subject,), form = found.subject, found.predicate.serialization
    if form.method not in ("files", "shards") or form.hash_type not in HASHES:
        raise InvalidData(f"files are listed in an unknown way: {form.method!r} with hash {form.hash_type!r}")
    resources = tuple(_resource(item, is_part=form.method == "shards") for item in found.predicate.resources)
    whole = hashlib.sha256(b"".join(resource.digest for resource in resources)).hexdigest()
    if subject.digest.get("sha256") != whole:
        raise InvalidData("the hash of the whole model is not that of its files")
    if len({(resource.path, resource.begin) for resource in resources}) != len(resources):
        raise InvalidData("the statement names a file twice")
    return Statement(subject.name, HASHES[form.hash_type], resources, tuple(form.ignore_paths))


def _resource(item: _Resource, *, is_part: bool) -> Resource:
    try:
        digest = bytes.fromhex(item.digest)
    except ValueError as exc:
        raise InvalidData("a hash in the statement is not in hex") from exc
    if not is_part:
        return Resource(_inside(item.name), digest)
    path, begin, end = ([*item.name.rsplit(":", 2), "", ""])[:3]
    if not (begin.isdecimal() and end.isdecimal() and int(begin) <= int(end)):
        raise InvalidData(f"{item.name!r} is no part of a file")
    return Resource(_inside(path), digest, int(begin), int(end))


def _inside(path: str) -> str:
    """Return `path`, of a file in the folder of the model. Raises InvalidData if it leads out of it."""
    if path.startswith("/") or "\0" in path or {"", ".", ".."} & set(path.split("/")):
        raise InvalidData(f"{path!r} leads out of the folder")
    return path


def _checked(key: object) -> ec.EllipticCurvePublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey) or not key.curve.name.startswith("secp"):
        raise InvalidData("this is no key of P-256, P-384 or P-521")
    if key.curve.key_size not in _CURVES:
        raise InvalidData("this is no key of P-256, P-384 or P-521")
    return key


def _authenticated(payload: bytes) -> bytes:
    """Return what is signed of a payload: with its type, so that it cannot be taken for something else."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _key_hash(key: ec.EllipticCurvePublicKey) -> str:
    return hashlib.sha256(key_text(key).encode()).hexdigest()


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidData("a value in the bundle is no base64") from exc


def _json(data: bytes, form: Any, what: str) -> Any:
    try:
        return msgspec.json.decode(data, type=form)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidData(f"this is not {what}: {exc}") from exc


def covered(parts: Sequence[Resource], size: int) -> bool:
    """Say whether the parts of one file, in any order, are all of its `size` bytes."""
    at = 0
    for part in sorted(parts, key=lambda part: part.begin):
        if part.begin != at or part.end is None:
            return len(parts) == 1 and part.end is None
        at = part.end
    return at == size
