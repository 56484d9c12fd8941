"""Say with a request who asks: HTTP Message Signatures (RFC 9421) by the key of a node (spec/authority.md §1).

    method, path, query, body ──▶ lines ──Ed25519──▶ four header fields ──▶ who asked, checked

Of the RFC's many ways one is left: what is signed, and of what age, is fixed. The audience
is the node that is asked, not its host name: behind translated addresses hosts mean little.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256

from msgspec import Struct

from .errors import HubError, InvalidData, InvalidSignature
from .ids import NodeId
from .signing import SIGNATURE_SIZE, SigningKey, check_public_key, check_text_signature

AUDIENCE_FIELD = "p2phub-audience"
# What is signed of a request; spec/authority.md §1.
COMPONENTS = ("@method", "@path", "@query", AUDIENCE_FIELD, "content-digest")
TAG = "p2phub"
LIFETIME_MAX_S = 60  # seconds from `created` to `expires`; spec/authority.md §1
SKEW_MAX_S = 60  # seconds that two clocks may differ; spec/authority.md §1
NONCE_SIZE = 16  # bytes; spec/authority.md §1

_LABEL = "p2phub"
_INPUT = re.compile(rf'{_LABEL}=(\(("[a-z0-9@-]+"(?: "[a-z0-9@-]+")*)\)((?:;[a-z]+=(?:[0-9]{{1,15}}|"[^"\\]*"))*))')
_PARAMETER = re.compile(r';([a-z]+)=(?:([0-9]+)|"([^"\\]*)")')
_BYTES = re.compile(r"[A-Za-z0-9+/]*={0,2}")


class Ask(Struct, frozen=True):
    """What is asked, as far as it is signed."""

    method: str
    path: str
    query: str  # without the question mark
    body: bytes


class Signed(Struct, frozen=True):
    """Who asked, and what keeps the request from being used again."""

    node: NodeId
    created: int  # seconds since 1970
    expires: int
    nonce: bytes


def sign_ask(
    ask: Ask, key: SigningKey, audience: NodeId, *, created: int, lifetime_s: int, nonce: bytes
) -> dict[str, str]:
    """Return the header fields by which the node that holds `key` signs `ask` to the node `audience`.

    nonce: NONCE_SIZE random bytes, never used before.
    """
    digest = f"sha-256=:{_to_text(sha256(ask.body).digest())}:"
    components = " ".join(f'"{name}"' for name in COMPONENTS)
    parameters = (
        f'({components});created={created};expires={created + lifetime_s};nonce="{_to_text(nonce)}"'
        f';keyid="{NodeId(key.public_key)}";alg="ed25519";tag="{TAG}"'
    )
    base = signature_base(_values(ask, COMPONENTS, str(audience), digest), parameters)
    return {
        AUDIENCE_FIELD: str(audience),
        "content-digest": digest,
        "signature-input": f"{_LABEL}={parameters}",
        "signature": f"{_LABEL}=:{_to_text(key.sign_text(base))}:",
    }


def open_ask(ask: Ask, fields: Mapping[str, str], audience: NodeId, *, now: float) -> Signed | None:
    """Return who signed `ask`, None if nobody did.

    fields: the request's header fields, names in lower case. audience: the node that was asked.
    Raises InvalidData if it is signed in another way, to another node, or too long ago by the
    clock `now` (seconds since 1970); InvalidSignature if the signature is not of this request.
    """
    if "signature-input" not in fields and "signature" not in fields:
        return None
    components, parameters, text = _read_input(fields.get("signature-input", ""))
    signed = _read_parameters(parameters)
    _check_time(signed, now)
    if fields.get(AUDIENCE_FIELD) != str(audience):
        raise InvalidData(f"the request was signed to another node than {audience}")
    digest = fields.get("content-digest", "")
    if digest != f"sha-256=:{_to_text(sha256(ask.body).digest())}:":
        raise InvalidData("the body is not what content-digest says")
    signature = _read_bytes(fields.get("signature", "").removeprefix(f"{_LABEL}=:").removesuffix(":"), SIGNATURE_SIZE)
    base = signature_base(_values(ask, components, str(audience), digest), text)
    check_text_signature(signed.node, base, signature, "request")
    return signed


def signature_base(values: Sequence[tuple[str, str]], parameters: str) -> bytes:
    """Return the bytes that are signed: a line for each component and its value, then the parameters.

    Source: RFC 9421 §2.5.
    """
    lines = [f'"{name}": {value}' for name, value in values]
    return "\n".join([*lines, f'"@signature-params": {parameters}']).encode("ascii")


def _values(ask: Ask, components: Sequence[str], audience: str, digest: str) -> list[tuple[str, str]]:
    known = {
        "@method": ask.method,
        "@path": ask.path,
        "@query": f"?{ask.query}",
        AUDIENCE_FIELD: audience,
        "content-digest": digest,
    }
    return [(name, known[name]) for name in components]


def _read_input(text: str) -> tuple[list[str], dict[str, str], str]:
    """Return what a signature says it covers, its parameters, and both as they are signed."""
    match = _INPUT.fullmatch(text)
    if match is None:
        raise InvalidData("the request is signed in a form that is not known here")
    components = [name.strip('"') for name in match[2].split(" ")]
    if sorted(components) != sorted(COMPONENTS):
        raise InvalidData(f"a signature covers {', '.join(COMPONENTS)}, each once, and nothing else")
    found = [(name, number or word) for name, number, word in _PARAMETER.findall(match[3])]
    parameters = dict(found)
    if len(parameters) != len(found):
        raise InvalidData("a parameter of the signature stands twice")
    return components, parameters, match[1]


def _read_parameters(parameters: Mapping[str, str]) -> Signed:
    if parameters.keys() != {"created", "expires", "nonce", "keyid", "alg", "tag"}:
        raise InvalidData("a signature has created, expires, nonce, keyid, alg and tag, and nothing else")
    if (parameters["alg"], parameters["tag"]) != ("ed25519", TAG):
        raise InvalidData(f'a request is signed with alg="ed25519" and tag="{TAG}"')
    if not parameters["created"].isdigit() or not parameters["expires"].isdigit():
        raise InvalidData("created and expires are whole seconds")
    try:
        node = NodeId.parse(parameters["keyid"])
        check_public_key(node)
    except HubError as exc:
        raise InvalidSignature(f"keyid is no node id: {exc}") from exc
    nonce = _read_bytes(parameters["nonce"], NONCE_SIZE)
    return Signed(node, int(parameters["created"]), int(parameters["expires"]), nonce)


def _check_time(signed: Signed, now: float) -> None:
    if not 0 < signed.expires - signed.created <= LIFETIME_MAX_S:
        raise InvalidData(f"a signature is good for 1 to {LIFETIME_MAX_S} s")
    ahead, behind = signed.created - now, now - signed.expires
    if ahead > SKEW_MAX_S or behind > SKEW_MAX_S:
        by = f"{ahead:.0f} s from now" if ahead > 0 else f"{now - signed.created:.0f} s ago"
        raise InvalidData(f"the request was signed {by} by the clock of the node asked: one of the two clocks is wrong")


def _to_text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _read_bytes(text: str, size: int) -> bytes:
    try:
        data = base64.b64decode(text, validate=True) if _BYTES.fullmatch(text) else b""
    except binascii.Error:
        data = b""
    # Only one spelling of the same bytes, or a request that was sent twice could look like two.
    if len(data) != size or _to_text(data) != text:
        raise InvalidData(f"expected {size} bytes in base64")
    return data
