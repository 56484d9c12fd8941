"""Bundles of OpenSSF model signing: what is signed is what is read, and what is garbled is refused."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from p2phub.core import oms
from p2phub.core.errors import HubError, InvalidData, InvalidSignature
from p2phub.core.oms import Resource, bundle, check_certified, check_signed, covered, read_bundle, read_key, statement

KEY = ec.derive_private_key(7, ec.SECP256R1())
OTHER = ec.derive_private_key(8, ec.SECP256R1())
FILES = [("b/c", bytes(range(32))), ("b.txt", b"\1" * 32), ("a", b"\2" * 32)]
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def changed(change, key=KEY) -> bytes:
    """Return a bundle whose statement was changed before it was signed."""
    value = json.loads(statement("parrot", FILES))
    change(value)
    return bundle(json.dumps(value).encode(), key)


def test_what_was_signed_is_what_is_read():
    found = check_signed(read_bundle(bundle(statement("parrot", FILES), KEY)), KEY.public_key())

    assert (found.name, found.hash) == ("parrot", "sha256")
    # By the parts of paths: `b/c` is before `b.txt`, though "/" is after ".".
    assert found.resources == tuple(Resource(path, digest) for path, digest in (FILES[2], FILES[0], FILES[1]))


def test_the_signature_is_of_the_payload_with_its_type():
    signed = read_bundle(bundle(b"payload", KEY))

    kind = b"application/vnd.in-toto+json"
    KEY.public_key().verify(signed.signatures[0], b"DSSEv1 28 " + kind + b" 7 payload", ec.ECDSA(hashes.SHA256()))


def test_another_key_is_refused():
    with pytest.raises(InvalidSignature, match="another key"):
        check_signed(read_bundle(bundle(statement("parrot", FILES), KEY)), OTHER.public_key())


def test_a_signature_by_another_key_is_refused_whatever_key_the_bundle_names():
    value = json.loads(bundle(statement("parrot", FILES), KEY))
    value["verificationMaterial"]["publicKey"]["hint"] = json.loads(bundle(b"", OTHER))["verificationMaterial"][
        "publicKey"
    ]["hint"]

    with pytest.raises(InvalidSignature, match="no signature"):
        check_signed(read_bundle(json.dumps(value).encode()), OTHER.public_key())


@given(st.data())
def test_a_changed_payload_is_refused(data):
    value = json.loads(bundle(statement("parrot", FILES), KEY))
    payload = bytearray(base64.b64decode(value["dsseEnvelope"]["payload"]))
    at = data.draw(st.integers(0, len(payload) - 1))
    payload[at] ^= 1 << data.draw(st.integers(0, 7))
    value["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()

    with pytest.raises(InvalidSignature):
        check_signed(read_bundle(json.dumps(value).encode()), KEY.public_key())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda value: value["predicate"]["resources"].pop(), "hash of the whole"),
        (lambda value: value["predicate"]["resources"].reverse(), "hash of the whole"),
        (lambda value: value["predicate"]["resources"][0].update(digest="zz"), "not in hex"),
        (lambda value: value["predicate"]["resources"][0].update(name="../a"), "leads out"),
        (lambda value: value["predicate"]["resources"][0].update(name="/a"), "leads out"),
        (lambda value: value["predicate"]["resources"][0].update(name="b//c"), "leads out"),
        (lambda value: value["predicate"]["resources"][0].update(name="b/c"), "twice"),
        (lambda value: value["predicate"]["serialization"].update(method="shards"), "no part"),
        (lambda value: value["predicate"]["serialization"].update(hash_type="md5"), "unknown way"),
        (lambda value: value["predicate"]["serialization"].update(method="guess"), "unknown way"),
        (lambda value: value.update(predicateType="https://example.org/other"), "of the type"),
        (lambda value: value.update(_type="https://in-toto.io/Statement/v2"), "of the type"),
        (lambda value: value.update(subject=[]), "not a statement"),
        (lambda value: value.pop("predicate"), "not a statement"),
    ],
)
def test_a_signed_statement_that_breaks_a_rule_is_refused(change, why):
    with pytest.raises(InvalidData, match=why):
        check_signed(read_bundle(changed(change)), KEY.public_key())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda value: value.update(mediaType="application/vnd.dev.sigstore.bundle+json;version=0.1"), "of the type"),
        (lambda value: value["dsseEnvelope"].update(payloadType="text/plain"), "of the type"),
        (lambda value: value["dsseEnvelope"].update(payload="%"), "no base64"),
        (lambda value: value["dsseEnvelope"].update(signatures=[]), "not a bundle"),
        (lambda value: value["verificationMaterial"].update(certificate={"rawBytes": ""}), "online"),
        (lambda value: value.pop("dsseEnvelope"), "not a bundle"),
    ],
)
def test_a_bundle_of_another_kind_is_refused(change, why):
    value = json.loads(bundle(statement("parrot", FILES), KEY))
    change(value)

    with pytest.raises(InvalidData, match=why):
        read_bundle(json.dumps(value).encode())


@given(st.binary(max_size=200) | st.recursive(st.text() | st.integers(), st.lists, max_leaves=5).map(
    lambda value: json.dumps(value).encode()
))  # fmt: skip
def test_anything_else_is_refused_in_a_foreseen_way(data):
    with pytest.raises(HubError):
        read_bundle(data)


def test_deep_json_is_refused():
    with pytest.raises(InvalidData):
        read_bundle(b"[" * 1_000_000)


def test_a_bundle_that_is_too_large_is_refused(monkeypatch):
    data = bundle(statement("parrot", FILES), KEY)
    monkeypatch.setattr(oms, "BUNDLE_SIZE_MAX", len(data) - 1)

    with pytest.raises(InvalidData, match="the limit"):
        read_bundle(data)


@pytest.mark.parametrize(
    ("parts", "size", "is_all"),
    [
        ([(0, None)], 7, True),
        ([(0, 7)], 7, True),
        ([(4, 7), (0, 4)], 7, True),
        ([(0, 4), (5, 7)], 7, False),
        ([(0, 4), (4, 6)], 7, False),
        ([(0, 4), (3, 7)], 7, False),
        ([(0, 4), (4, None)], 7, False),
        ([], 7, False),
    ],
)
def test_parts_must_be_all_of_a_file(parts, size, is_all):
    assert covered([Resource("a", b"", begin, end) for begin, end in parts], size) == is_all


def test_a_key_of_another_kind_is_refused():
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
    with pytest.raises(InvalidData, match="no key of P-256"):
        read_key(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(InvalidData, match="no public key"):
        read_key(b"garbage")


# ── certificates ────────────────────────────────────────────────────────────


def certificate(key, issuer_key, issuer: str, subject: str, *, is_ca: bool, signs: bool = True, days: int = 365):
    """Return a certificate that begins at NOW less ten days."""
    begin = NOW - timedelta(days=10)
    usage = x509.KeyUsage(
        digital_signature=signs, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=is_ca, crl_sign=is_ca, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name.from_rfc4514_string(f"CN={subject}"))
        .issuer_name(x509.Name.from_rfc4514_string(f"CN={issuer}"))
        .public_key(key.public_key())
        .serial_number(int(hashlib.sha256(subject.encode()).hexdigest()[:16], 16))
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    return builder.sign(issuer_key, hashes.SHA256())


ROOT = certificate(OTHER, OTHER, "Lab", "Lab", is_ca=True).public_bytes(Encoding.PEM)


def certified(**options) -> bytes:
    """Return a bundle that names a certificate of the lab."""
    leaf = certificate(KEY, OTHER, "Lab", "Ada", is_ca=False, **options).public_bytes(Encoding.DER)
    value = json.loads(bundle(statement("parrot", FILES), KEY))
    chain = {"certificates": [{"rawBytes": base64.b64encode(leaf).decode()}]}
    value["verificationMaterial"] = {"x509CertificateChain": chain}
    return json.dumps(value).encode()


def test_a_certificate_that_is_vouched_for_is_taken():
    found, signer = check_certified(read_bundle(certified()), ROOT, now=NOW)

    assert (found.name, signer) == ("parrot", "CN=Ada")


@pytest.mark.parametrize(("options", "why"), [({"signs": False}, "not for signing"), ({"days": 5}, "vouches")])
def test_a_certificate_that_is_over_or_not_for_signing_is_refused(options, why):
    with pytest.raises(InvalidSignature, match=why):
        check_certified(read_bundle(certified(**options)), ROOT, now=NOW)


def test_a_certificate_of_somebody_else_is_refused():
    stranger = ec.derive_private_key(9, ec.SECP256R1())
    root = certificate(stranger, stranger, "Lab", "Lab", is_ca=True).public_bytes(Encoding.PEM)

    with pytest.raises(InvalidSignature, match="vouches"):
        check_certified(read_bundle(certified()), root, now=NOW)


def test_a_bundle_without_certificates_is_refused():
    with pytest.raises(InvalidData, match="names no certificate"):
        check_certified(read_bundle(bundle(statement("parrot", FILES), KEY)), ROOT, now=NOW)
