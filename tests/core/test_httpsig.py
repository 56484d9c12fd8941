from __future__ import annotations

import base64
from dataclasses import dataclass
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from p2phub.core.errors import InvalidData, InvalidSignature
from p2phub.core.httpsig import LIFETIME_MAX_S, SKEW_MAX_S, Ask, open_ask, sign_ask, signature_base
from p2phub.core.ids import NodeId, PublicKey
from p2phub.core.signing import SigningKey, check_text_signature
from p2phub.testing import values

KEY = values.key("caller")
CALLER = NodeId(KEY.public_key)
SERVER = NodeId(values.key("server").public_key)
NOW = values.TIME
ASK = Ask("POST", "/v1/spans", "after=1", b"body")


def digest_of(body: bytes) -> str:
    return base64.b64encode(sha256(body).digest()).decode()


def signed(ask: Ask = ASK, *, created: int = NOW, lifetime_s: int = 30, audience: NodeId = SERVER) -> dict[str, str]:
    return sign_ask(ask, KEY, audience, created=created, lifetime_s=lifetime_s, nonce=bytes(range(16)))


# ── the published vector ────────────────────────────────────────────────────

RFC_KEY = """-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF
-----END PRIVATE KEY-----
"""
RFC_PUBLIC = "JrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs="
RFC_PARAMETERS = (
    '("date" "@method" "@path" "@authority" "content-type" "content-length")'
    ';created=1618884473;keyid="test-key-ed25519"'
)
RFC_VALUES = [
    ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
    ("@method", "POST"),
    ("@path", "/foo"),
    ("@authority", "example.com"),
    ("content-type", "application/json"),
    ("content-length", "18"),
]
RFC_SIGNATURE = "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="


def test_lines_are_signed_as_in_appendix_b_2_6_of_rfc_9421() -> None:
    private = load_pem_private_key(RFC_KEY.encode(), password=None)
    key = SigningKey(private.private_bytes_raw())  # type: ignore[union-attr]
    base = signature_base(RFC_VALUES, RFC_PARAMETERS)

    assert base64.b64encode(key.public_key).decode() == RFC_PUBLIC
    assert base64.b64encode(key.sign_text(base)).decode() == RFC_SIGNATURE
    check_text_signature(PublicKey(base64.b64decode(RFC_PUBLIC)), base, base64.b64decode(RFC_SIGNATURE), "request")


# ── what is signed ──────────────────────────────────────────────────────────


@given(
    st.builds(
        Ask,
        method=st.sampled_from(["GET", "POST"]),
        path=st.sampled_from(["/v1/have", "/v1/manifest/" + 64 * "a"]),
        query=st.sampled_from(["", "after=", "after=ab&x"]),
        body=st.binary(max_size=100),
    )
)
def test_a_signed_request_says_who_asked(ask: Ask) -> None:
    found = open_ask(ask, signed(ask), SERVER, now=NOW)

    assert found is not None
    assert (found.node, found.created, found.expires, found.nonce) == (CALLER, NOW, NOW + 30, bytes(range(16)))


def test_the_lines_that_are_signed_are_those_of_the_spec() -> None:
    fields = signed()
    expected = (
        f'"@method": POST\n"@path": /v1/spans\n"@query": ?after=1\n"p2phub-audience": {SERVER}\n'
        f'"content-digest": sha-256=:{digest_of(b"body")}:\n'
        '"@signature-params": ("@method" "@path" "@query" "p2phub-audience" "content-digest")'
        f';created={NOW};expires={NOW + 30};nonce="AAECAwQFBgcICQoLDA0ODw==";keyid="{CALLER}";alg="ed25519"'
        ';tag="p2phub"'
    )

    signature = base64.b64decode(fields["signature"].removeprefix("p2phub=:").removesuffix(":"))
    check_text_signature(CALLER, expected.encode(), signature, "request")


def test_an_unsigned_request_is_nobodys() -> None:
    assert open_ask(ASK, {"host": "x"}, SERVER, now=NOW) is None


CHANGED = {
    "another method": replace(ASK, method="GET"),
    "another path": replace(ASK, path="/v1/have"),
    "another query": replace(ASK, query="after=2"),
    "another body": replace(ASK, body=b"Body"),
}


@pytest.mark.parametrize("ask", CHANGED.values(), ids=CHANGED.keys())
def test_a_signature_is_of_one_request(ask: Ask) -> None:
    with pytest.raises(InvalidData):
        open_ask(ask, signed(), SERVER, now=NOW)


def test_a_body_cannot_be_swapped_with_its_digest() -> None:
    other = signed(replace(ASK, body=b"other"))
    fields = {**signed(), "content-digest": other["content-digest"]}

    with pytest.raises(InvalidSignature):
        open_ask(replace(ASK, body=b"other"), fields, SERVER, now=NOW)


def test_a_request_to_one_node_says_nothing_to_another() -> None:
    other = NodeId(values.key("other").public_key)

    with pytest.raises(InvalidData, match="to another node"):
        open_ask(ASK, signed(), other, now=NOW)
    # Nor if whoever passes it on writes the other's name on it.
    with pytest.raises(InvalidSignature):
        open_ask(ASK, {**signed(), "p2phub-audience": str(other)}, other, now=NOW)


# ── time ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("now", [NOW - SKEW_MAX_S, NOW, NOW + 30 + SKEW_MAX_S])
def test_clocks_may_differ_by_a_minute(now: int) -> None:
    assert open_ask(ASK, signed(), SERVER, now=now)


@pytest.mark.parametrize("now", [NOW - SKEW_MAX_S - 1, NOW + 30 + SKEW_MAX_S + 1])
def test_a_request_of_another_time_is_refused_and_the_clocks_are_named(now: int) -> None:
    with pytest.raises(InvalidData, match=r"signed \d+ s (ago|from now) .* one of the two clocks is wrong"):
        open_ask(ASK, signed(), SERVER, now=now)


@pytest.mark.parametrize("lifetime_s", [0, -1, LIFETIME_MAX_S + 1])
def test_no_signature_is_good_for_long(lifetime_s: int) -> None:
    with pytest.raises(InvalidData, match="good for 1 to 60 s"):
        open_ask(ASK, signed(lifetime_s=lifetime_s), SERVER, now=NOW)


# ── forms ───────────────────────────────────────────────────────────────────


@dataclass
class Spoilt:
    why: str
    before: str
    after: str
    name: str = "signature-input"


SPOILT = [
    Spoilt("no label of ours", "p2phub=", "sig1="),
    Spoilt("one component less", ' "content-digest"', ""),
    Spoilt("one component more", '"@method"', '"@method" "date"'),
    Spoilt("one component twice", '"@method"', '"@method" "@method"'),
    Spoilt("a component with a parameter", '"@query"', '"@query";req'),
    Spoilt("another algorithm", 'alg="ed25519"', 'alg="hmac-sha256"'),
    Spoilt("another tag", 'tag="p2phub"', 'tag="other"'),
    Spoilt("no tag", ';tag="p2phub"', ""),
    Spoilt("a parameter twice", ';tag="p2phub"', ';tag="p2phub";tag="p2phub"'),
    Spoilt("a time that is text", f"created={NOW}", f'created="x{NOW}"'),
    Spoilt("a time far away", f"created={NOW}", f"created={10**14}"),
    Spoilt("a number of thousands of digits", f"created={NOW}", "created=" + 5000 * "1"),
    Spoilt("a short nonce", 'nonce="AAECAwQFBgcICQoLDA0ODw=="', 'nonce="AAEC"'),
    Spoilt("a nonce spelt otherwise", 'nonce="AAECAwQFBgcICQoLDA0ODw=="', 'nonce="AAECAwQFBgcICQoLDA0ODx=="'),
    Spoilt("no base64", 'nonce="AAECAwQFBgcICQoLDA0ODw=="', 'nonce="!!!!AwQFBgcICQoLDA0ODw=="'),
    Spoilt("no node id", f'keyid="{CALLER}"', 'keyid="me"'),
    Spoilt("two signatures", 'tag="p2phub"', 'tag="p2phub", other=("@method")'),
    Spoilt("nothing", "p2phub=", "", name="signature"),
    Spoilt("a short signature", "p2phub=:", "p2phub=::", name="signature"),
]


@pytest.mark.parametrize("spoilt", SPOILT, ids=lambda spoilt: spoilt.why)
def test_what_is_not_in_form_is_refused(spoilt: Spoilt) -> None:
    fields = signed()
    assert spoilt.before in fields[spoilt.name]
    fields[spoilt.name] = fields[spoilt.name].replace(spoilt.before, spoilt.after, 1)

    with pytest.raises(InvalidData):
        open_ask(ASK, fields, SERVER, now=NOW)


@pytest.mark.parametrize("name", ["signature", "signature-input", "content-digest", "p2phub-audience"])
def test_no_part_of_a_signature_may_be_missing(name: str) -> None:
    fields = signed()
    del fields[name]

    with pytest.raises(InvalidData):
        open_ask(ASK, fields, SERVER, now=NOW)


def test_a_key_of_small_order_signs_for_nobody() -> None:
    identity_point = NodeId(bytes([1]) + bytes(31))
    fields = signed()
    fields["signature-input"] = fields["signature-input"].replace(str(CALLER), str(identity_point))
    # A signature that such a key verifies over anything: R is the identity point, S is 0.
    forged = base64.b64encode(bytes([1]) + bytes(63)).decode()
    fields["signature"] = f"p2phub=:{forged}:"

    with pytest.raises(InvalidSignature, match="small order"):
        open_ask(ASK, fields, SERVER, now=NOW)


def test_components_and_parameters_may_stand_in_another_order() -> None:
    """Other libraries for RFC 9421 write them in theirs."""
    digest = f"sha-256=:{digest_of(b'body')}:"
    parameters = (
        f'("p2phub-audience" "content-digest" "@query" "@path" "@method");keyid="{CALLER}";tag="p2phub"'
        f';nonce="AAECAwQFBgcICQoLDA0ODw==";alg="ed25519";expires={NOW + 5};created={NOW}'
    )
    lines = [
        ("p2phub-audience", str(SERVER)),
        ("content-digest", digest),
        ("@query", "?after=1"),
        ("@path", "/v1/spans"),
        ("@method", "POST"),
    ]
    signature = base64.b64encode(KEY.sign_text(signature_base(lines, parameters))).decode()
    fields = {
        "p2phub-audience": str(SERVER),
        "content-digest": digest,
        "signature-input": f"p2phub={parameters}",
        "signature": f"p2phub=:{signature}:",
    }

    found = open_ask(ASK, fields, SERVER, now=NOW)
    assert found is not None
    assert found.node == CALLER
