"""Vectors of what vouches for heads: statements of publishers, lines of witnesses (spec/fresh.md, spec/witness.md)."""

from __future__ import annotations

from msgspec.structs import replace

from p2phub.core import encoding, merkle
from p2phub.core.checkpoint import Head, sign_head, with_lines
from p2phub.core.fresh import TTL_S, Fresh, SignedFresh, sign_fresh
from p2phub.core.identity import KeySignature, Role, new_document, open_identity, sign_document
from p2phub.core.ids import SignerKey
from p2phub.core.merkle import LOG_TREE
from p2phub.core.notes import COSIGNATURE, NoteKey
from p2phub.core.records import log_id
from p2phub.core.signing import SigningKey
from p2phub.core.witness import AddCheckpoint, cosign, format_request, parse_checkpoint
from p2phub.protocol.witnessing import Cosigned, check_request
from p2phub.testing import values

from .plain import Json

WITNESS_NAME = "witness.example/w1"


def head(size: int = 5) -> Head:
    """Return the head of the log of the vectors at some of its sizes."""
    key = values.key("publisher")
    leaves = [entry.leaf for entry in values.log()[:size]]
    log = log_id(values.identity().namespace, key.public_key)
    return sign_head(log, size, merkle.root(LOG_TREE, leaves), key)


def statements() -> Json:
    identity, key, stranger = values.identity(), values.key("publisher"), values.key("stranger")
    witness = values.key("witness")
    cosigned = with_lines(head(), [cosign(head().signed, WITNESS_NAME, witness, time=values.TIME)])
    base = Fresh(
        schema=1, namespace=identity.namespace, version=1, time=values.TIME, expires=values.TIME + TTL_S,
        heads=(cosigned.text,),
    )  # fmt: skip
    bare = replace(base, heads=())
    signed = sign_fresh(bare, [key])
    pair = tuple(sorted((key.public_key, stranger.public_key)))
    of_two = open_identity(
        [sign_document(replace(new_document(key.public_key, created=values.TIME), fresh=Role(pair, 2)), [key])]
    )
    two = replace(base, namespace=of_two.namespace, heads=())
    by_both = sign_fresh(two, [key, stranger])
    for_records = KeySignature(SignerKey(key.public_key), key.sign("record", signed.statement))
    late = replace(base, time=values.TIME + 601, expires=values.TIME + 602)
    invalid = [
        ("another namespace", identity, sign_fresh(replace(bare, namespace=of_two.namespace), [key])),
        ("signed by a key that may not", identity, sign_fresh(bare, [stranger])),
        ("signed by one that may not, too", identity, sign_fresh(bare, [key, stranger])),
        ("signed for another purpose", identity, SignedFresh(signed.statement, (for_records,))),
        ("one of two signed", of_two, sign_fresh(two, [key])),
        ("one of two signed twice", of_two, SignedFresh(by_both.statement, by_both.signatures[:1] * 2)),
        ("signatures not sorted", of_two, SignedFresh(by_both.statement, by_both.signatures[::-1])),
        ("601 s ahead", identity, sign_fresh(late, [key])),
        ("expires when it is made", identity, sign_fresh(replace(bare, expires=base.time), [key])),
        ("valid for more than 30 days", identity, sign_fresh(replace(bare, expires=base.time + 2592001), [key])),
        ("a head twice", identity, sign_fresh(replace(base, heads=(head().text, head().text)), [key])),
        ("a log twice", identity, sign_fresh(replace(base, heads=(head(4).text, head().text)), [key])),
        ("a head of another's log", of_two, sign_fresh(replace(two, heads=(head().text,)), [key, stranger])),
        ("a head that its log did not sign", identity, sign_fresh(replace(base, heads=(_forged(stranger),)), [key])),
        ("a head that is none", identity, sign_fresh(replace(base, heads=(b"p2phub/log/\n",)), [key])),
        ("version 0", identity, sign_fresh(replace(bare, version=0), [key])),
    ]
    return {
        "now": values.TIME,
        "identities": {
            "one key": [encoding.encode(document) for document in identity.chain],
            "two keys, both must sign": [encoding.encode(document) for document in of_two.chain],
        },
        "valid": [
            {"identity": "one key", "value": base, "encoded": encoding.encode(sign_fresh(base, [key]))},
            {"identity": "two keys, both must sign", "value": two, "encoded": encoding.encode(by_both)},
        ],
        "invalid": [
            {
                "why": why,
                "identity": "one key" if whose is identity else "two keys, both must sign",
                "encoded": encoding.encode(statement),
            }
            for why, whose, statement in invalid
        ],
    }


def _forged(stranger: SigningKey) -> bytes:
    return sign_head(head().log, 5, head().root, stranger).text


def witnesses() -> Json:
    key = values.key("witness")
    name = NoteKey(WITNESS_NAME, COSIGNATURE, key.public_key)
    leaves = [entry.leaf for entry in values.log()]
    other = sign_head(head().log, 5, values.content("root", 32), values.key("publisher"))
    requests: list[tuple[int, AddCheckpoint]] = [
        (200, AddCheckpoint(0, (), head(3).text)),
        (409, AddCheckpoint(0, (), head().text)),
        (422, AddCheckpoint(3, (), head().text)),
        (200, AddCheckpoint(3, merkle.consistency_proof(LOG_TREE, leaves[:5], 3), head().text)),
        (409, AddCheckpoint(3, (), other.text)),
        (409, AddCheckpoint(5, (), other.text)),
        (400, AddCheckpoint(5, (), head(3).text)),
        (200, AddCheckpoint(5, (), head().text)),
    ]
    known: Cosigned | None = None
    asked: list[Json] = []
    for status, request in requests:
        checkpoint = parse_checkpoint(request.note.partition(b"\n\n")[0] + b"\n")
        refusal = check_request(request, checkpoint, known)
        assert (refusal.status if refusal else 200) == status
        known = known if refusal else Cosigned(checkpoint.size, checkpoint.root, request.note)
        answer: Json = {"request": format_request(request).decode(), "status": status}
        if refusal is not None and refusal.size is not None:
            answer["body"] = f"{refusal.size}\n"
        if refusal is None:
            text = request.note.partition(b"\n\n")[0] + b"\n"
            answer["body"] = cosign(text, WITNESS_NAME, key, time=values.TIME).text
        asked.append(answer)
    return {
        "seed": key.seed,
        "key": str(name),
        "time": values.TIME,
        "text": head().signed.decode(),
        "line": cosign(head().signed, WITNESS_NAME, key, time=values.TIME).text,
        "requests": asked,
    }
