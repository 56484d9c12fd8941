"""Vectors of what moves between machines of a publisher: requests, answers, proposals, keys in files."""

from __future__ import annotations

from msgspec.structs import replace

from p2phub.core import encoding
from p2phub.core.armor import armor
from p2phub.core.envelope import Envelope
from p2phub.core.identity import Role, new_document, next_document, open_identity, sign_document
from p2phub.core.joining import PURPOSE, Answer, KeyRequest, Secrets, make_request
from p2phub.core.keybundle import KeyBundle, encode_bundle
from p2phub.core.passphrase import Locked, lock
from p2phub.core.proposal import propose, sign_proposal
from p2phub.testing import hpke, values

from .plain import Json

COST = 10  # log2 of N, so that tests are quick


def between_machines() -> Json:
    return {"requests": _requests(), "answers": _answers(), "proposals": _proposals(), "files": _files()}


def _requests() -> Json:
    key, box = values.key("laptop"), values.recipient("request")
    request = KeyRequest(1, key.public_key, box.public_key, values.TIME)
    payload = encoding.encode(request)
    data = make_request(key, box, now=values.TIME)
    weak = encoding.encode(replace(request, box=bytes(32)))
    word = armor("request", data)
    signed_by_other = Envelope(payload, values.key("other").sign(PURPOSE, payload))
    return {
        "valid": [{"value": request, "encoded": data, "word": word}],
        "invalid": [
            {"word": text, "why": why}
            for why, text in {
                "signed by another key": armor("request", encoding.encode(signed_by_other)),
                "signed for another purpose": armor(
                    "request", encoding.encode(Envelope(payload, key.sign("record", payload)))
                ),
                "a box of small order": armor("request", encoding.encode(Envelope(weak, key.sign(PURPOSE, weak)))),
                "another kind": armor("answer", data),
                "another version": word.replace("request-1", "request-2"),
                "padding": word + "=",
                "the other alphabet": word.replace("_", "/").replace("-", "+", 99),
                "cut": word[:-1],
            }.items()
        ],
    }


def _answers() -> Json:
    key, box = values.key("laptop"), values.recipient("request")
    identity = values.whole_identity()
    secrets = Secrets(values.companion("publisher").secret, (values.recipient("publisher").secret,))
    info = b"p2phub 1 answer\0" + identity.namespace + key.public_key
    sealed = hpke.seal(encoding.encode(secrets), box.public_key, values.content("sender", 32), info=info)
    answer = Answer(1, identity.chain, sealed)
    wrong = Secrets(values.companion("other").secret)
    other = hpke.seal(encoding.encode(wrong), box.public_key, values.content("sender", 32), info=info)
    bare = hpke.seal(encoding.encode(secrets), box.public_key, values.content("sender", 32), info=info[:-1])
    return {
        "key": str(key.public_key),
        "box_secret": box.secret,
        "valid": [
            {
                "namespace": str(identity.namespace),
                "companion": secrets.companion,
                "recipients": list(secrets.recipients),
                "encoded": encoding.encode(answer),
            },
            {
                "namespace": str(identity.namespace),
                "companion": None,
                "recipients": [],
                "encoded": encoding.encode(replace(answer, secrets=None)),
            },
        ],
        "invalid": [
            {"encoded": encoding.encode(replace(answer, secrets=secrets_)), "why": why}
            for why, secrets_ in {
                "a companion key that the identity does not name": other,
                "encrypted for another purpose": bare,
                "a byte of the ciphertext changed": sealed[:-1] + bytes([sealed[-1] ^ 1]),
                "shorter than an encapsulated key": sealed[:31],
            }.items()
        ],
    }


def _proposals() -> Json:
    keys = sorted((values.key(f"root {number}") for number in range(3)), key=lambda key: key.public_key)
    role = Role(tuple(key.public_key for key in keys), 2)
    first = replace(new_document(values.key("publisher").public_key, created=values.TIME), root=role)
    before = open_identity([sign_document(first, keys[:2])])
    document = replace(next_document(before, created=values.TIME + 1000), domains=("lab.example",))
    none = propose(before, document)
    one, two = sign_proposal(none, keys[:1]), sign_proposal(none, [keys[0], keys[2]])
    signature = one.proposal.signatures[0]
    return {
        "valid": [
            {"encoded": encoding.encode(each.proposal), "missing": each.missing, "signers": len(each.signers)}
            for each in (none, one, two)
        ],
        "invalid": [
            {"encoded": encoding.encode(proposal), "why": why}
            for why, proposal in {
                "one key signs twice": replace(one.proposal, signatures=(signature, signature)),
                "signed by a key that is no root key": replace(
                    one.proposal, signatures=(replace(signature, key=values.key("other").public_key),)
                ),
                "a signature of another document": replace(
                    one.proposal, document=encoding.encode(replace(document, domains=()))
                ),
                "the version after the next": replace(
                    none.proposal, document=encoding.encode(replace(document, version=3))
                ),
                "another document before it": replace(
                    none.proposal, document=encoding.encode(replace(document, previous=bytes(32)))
                ),
            }.items()
        ],
    }


def _files() -> Json:
    identity, key = values.whole_identity(), values.key("publisher")
    secrets = Secrets(values.companion("publisher").secret, (values.recipient("publisher").secret,))
    lone, whole = KeyBundle(1, (key.seed,)), KeyBundle(1, (key.seed,), identity.chain, secrets)
    salt, passphrase = values.content("salt", 16), "correct horse battery"
    locked = lock(encode_bundle(lone), passphrase, salt=salt, cost=COST)
    header = encoding.decode(locked, Locked, size_max=2**20)
    return {
        "passphrase": passphrase,
        "keys": [
            {
                "word": armor("keys", encode_bundle(bundle)),
                "public_keys": [str(each.public_key) for each in bundle.signers],
                "namespace": str(bundle.identity.namespace) if bundle.identity else None,
            }
            for bundle in (lone, whole)
        ],
        "locked": [{"word": armor("locked", locked), "opened": encode_bundle(lone)}],
        "invalid_locked": [
            {"word": armor("locked", encoding.encode(changed)), "why": why}
            for why, changed in {
                "another salt": replace(header, salt=bytes(16)),
                "another cost": replace(header, cost=COST + 1),
                "a cost over the limit": replace(header, cost=21),
                "a byte of the box changed": replace(header, box=header.box[:-1] + bytes([header.box[-1] ^ 1])),
            }.items()
        ],
        "invalid_keys": [
            {"word": armor("keys", encoding.encode(bundle)), "why": why}
            for why, bundle in {
                "keys for other purposes without an identity": replace(whole, chain=()),
                "a recipient key that the identity does not name": replace(
                    whole, secrets=replace(secrets, recipients=(values.recipient("other").secret,))
                ),
            }.items()
        ],
    }
