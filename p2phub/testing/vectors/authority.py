"""Vectors of authority: signed requests, delegations, and the words in which people carry them."""

from __future__ import annotations

from p2phub.core.delegation import TTL_MAX_S, Delegation, sign_delegation
from p2phub.core.encoding import encode
from p2phub.core.envelope import seal
from p2phub.core.httpsig import LIFETIME_MAX_S, SKEW_MAX_S, Ask, sign_ask
from p2phub.core.ids import NodeId
from p2phub.protocol.letters import write_letter
from p2phub.protocol.messages import IdentityChain
from p2phub.testing import values

from .plain import Json

NOW = values.TIME


def authority() -> Json:
    return {"requests": _requests(), "delegations": _delegations()}


def _requests() -> Json:
    key, server = values.key("node"), NodeId(values.key("other node").public_key)
    nonce = values.content("nonce", 16)

    def signed(ask: Ask, created: int = NOW, lifetime_s: int = 30) -> dict[str, str]:
        return sign_ask(ask, key, server, created=created, lifetime_s=lifetime_s, nonce=nonce)

    def case(ask: Ask, fields: dict[str, str], **more: object) -> Json:
        asked = {"method": ask.method, "path": ask.path, "query": ask.query, "body": ask.body}
        return {**asked, "fields": fields, **more}

    post, get = Ask("POST", "/v1/have", "", b"body"), Ask("GET", "/v1/inventory", "after=00", b"")
    fields = signed(post)
    other_audience = {**fields, "p2phub-audience": str(NodeId(key.public_key))}
    small_order = str(NodeId(b"\x01" + bytes(31)))
    return {
        "audience": str(server),
        "now": NOW,
        "valid": [case(ask, signed(ask), node=str(key.public_key), nonce=nonce) for ask in (post, get)],
        "invalid": [
            case(Ask("GET", "/v1/have", "", b"body"), fields, why="another method"),
            case(Ask("POST", "/v1/trees", "", b"body"), fields, why="another path"),
            case(Ask("POST", "/v1/have", "x", b"body"), fields, why="another query"),
            case(Ask("POST", "/v1/have", "", b"Body"), fields, why="another body"),
            case(post, other_audience, why="another audience"),
            case(post, _changed(fields, "signature", "=:", "=:AA"), why="no signature of 64 bytes"),
            case(post, _changed(fields, "signature-input", 'tag="p2phub"', 'tag="other"'), why="another tag"),
            case(post, _changed(fields, "signature-input", ' "content-digest"', ""), why="the body is not covered"),
            case(
                post, _changed(fields, "signature-input", str(key.public_key), small_order), why="a key of small order"
            ),
            case(post, signed(post, NOW - 30 - SKEW_MAX_S - 1), why="too old"),
            case(post, signed(post, NOW + SKEW_MAX_S + 1), why="of the future"),
            case(post, signed(post, NOW, LIFETIME_MAX_S + 1), why="good for too long"),
        ],
    }


def _delegations() -> Json:
    identity, key = values.identity(), values.key("publisher")
    node, stranger = NodeId(values.key("node").public_key), values.key("other publisher")
    delegation = Delegation(1, identity.namespace, key.public_key, node, NOW, NOW + TTL_MAX_S)
    data = sign_delegation(identity.namespace, node, key, now=NOW, ttl_s=TTL_MAX_S)
    too_long = sign_delegation(identity.namespace, node, key, now=NOW, ttl_s=TTL_MAX_S + 1)
    return {
        "now": NOW,
        "identity": encode(IdentityChain(identity.chain)),
        "valid": {"value": delegation, "encoded": data, "word": write_letter(data, identity)},
        "invalid": [
            {"encoded": too_long, "why": "for more than 30 days"},
            {"encoded": encode(seal(delegation, key, "node")), "why": "signed for another purpose"},
            {"encoded": encode(seal(delegation, stranger, "delegate")), "why": "not signed by its key"},
            {
                "encoded": sign_delegation(identity.namespace, node, stranger, now=NOW, ttl_s=60),
                "why": "the key does not publish for the namespace",
            },
            {
                "encoded": sign_delegation(identity.namespace, node, key, now=NOW - 60, ttl_s=60),
                "why": "it is over",
            },
        ],
    }


def _changed(fields: dict[str, str], name: str, before: str, after: str) -> dict[str, str]:
    assert before in fields[name]
    return {**fields, name: fields[name].replace(before, after, 1)}
