"""Vectors of what logs hold: records, and heads over them."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import cbor2
import msgspec
from blake3 import blake3

from p2phub.core import encoding, merkle
from p2phub.core.checkpoint import sign_head
from p2phub.core.envelope import ENVELOPE_SIZE_MAX, PAYLOAD_SIZE_MAX, Envelope, seal
from p2phub.core.ids import LogId, NamespaceId
from p2phub.core.merkle import LOG_TREE
from p2phub.core.records import PURPOSE, Entry, Record, WrappedKey, log_id
from p2phub.testing import values

from .plain import Json


def records() -> Json:
    entries = values.log()
    key, namespace = values.key("publisher"), values.identity().namespace
    leaves = [entry.leaf for entry in entries]

    too_long = encoding.encode(entries[0].record).ljust(PAYLOAD_SIZE_MAX + 1, b"\0")
    return {
        "about": {
            "late": "the clock of the reader that refuses an entry for its time alone",
            "payload of 65537 bytes": "the payload of entry 0, filled up with zeros to 65537 bytes, in an envelope "
            "with the key's signature over it, whose BLAKE3 is given",
        },
        "late": {"entry": entries[0].data, "good_at": values.TIME - 600, "refused_at": values.TIME - 601},
        "long_payload": {
            "size": len(too_long),
            "envelope_blake3": blake3(_envelope(too_long)).digest(),
            "envelope_size": len(_envelope(too_long)),
        },
        "namespace": str(namespace),
        "public_key": str(key.public_key),
        "log": str(log_id(namespace, key.public_key)),
        "entries": [
            {
                "value": entry.record,
                "payload": encoding.decode(entry.data, Envelope, size_max=ENVELOPE_SIZE_MAX).payload,
                "entry": entry.data,
                "leaf": entry.leaf,
                "root": merkle.root(LOG_TREE, leaves[: index + 1]),
            }
            for index, entry in enumerate(entries)
        ],
        "invalid_at_index_0": [{"entry": data, "why": why} for why, data in _invalid_records(entries).items()],
    }


def _invalid_records(entries: Sequence[Entry]) -> dict[str, bytes]:
    """Return what is no entry at index 0 of the log of `entries`, by why."""
    change = msgspec.structs.replace
    first, namespace = entries[0].record, values.identity().namespace

    def sealed(record: Record, purpose: str = PURPOSE, by: str = "publisher") -> bytes:
        return encoding.encode(seal(record, values.key(by), purpose))

    def at_0(index: int, **fields: object) -> Record:
        """Return the record of `index` as the first of a log, with other `fields`."""
        return change(entries[index].record, index=0, previous=bytes(32), **fields)

    assessment = at_0(12)
    blocked = change(assessment, claim="blocked", verdict="bad", score=None)
    return {
        "signed by another key": sealed(first, by="other"),
        "signed for another purpose": sealed(first, purpose="node"),
        "the entry of index 1": entries[1].data,
        "another index": sealed(change(first, index=1)),
        "default of `schema` written out": _with_fields(first, {"schema": 1}),
        "default of `message` written out": _with_fields(first, {"message": ""}),
        "default of `version` written out": _with_fields(first, {"version": None}),
        "a time above 2^53": _with_fields(first, {"time": 2**53 + 1}),
        "depth 0": _with_fields(first, {"depth": 0}),
        "depth 2^31 + 1": _with_fields(first, {"depth": 2**31 + 1}),
        "a version without a dot": _with_fields(first, {"version": "1"}),
        "a version of 65 characters": _with_fields(first, {"version": "1." + "0" * 63}),
        "a branch of 129 characters": _with_fields(first, {"branch": "a" * 129}),
        "a model name of 97 characters": _with_fields(first, {"model": "a" * 97}),
        "a kind that is none": _with_fields(first, {"kind": "space"}),
        "default of `depth` of a branch record written out": _with_fields(at_0(4), {"depth": 1}),
        "an attestation of another claim": _with_fields(at_0(5), {"claim": "reviewed"}),
        "an attestation whose commit has 39 digits": sealed(at_0(5, commit="0" * 39)),
        "an attestation whose hub is a URL": sealed(at_0(5, hub="https://hub.example")),
        "a seal for nobody": _with_fields(at_0(6), {"recipients": []}),
        "a seal with a box of 79 bytes": sealed(at_0(6, recipients=(WrappedKey(namespace, bytes(32), bytes(79)),))),
        "a gate without a text": _with_fields(at_0(13), {"licence": ""}),
        "a gate for nobody": _with_fields(at_0(13), {"per": "nobody"}),
        "default of `until` of an approval written out": _with_fields(at_0(14), {"until": None}),
        "a refusal of a receipt of 31 bytes": sealed(at_0(15, receipt=bytes(31))),
        "an unsealed key of 31 bytes": sealed(at_0(7, key=bytes(31))),
        "a pledge about a manifest and a publisher": _with_fields(
            at_0(8), {"subject": {"manifest": bytes(32), "publisher": bytes(32)}}
        ),
        "a pledge about nothing": _with_fields(at_0(8), {"subject": {}}),
        "an assessment of nothing": _without_field(assessment, "manifest"),
        "an assessment of two things": _with_fields(assessment, {"file": bytes(32)}),
        "an assessment with a verdict that is none": _with_fields(assessment, {"verdict": "fine"}),
        "a review with a score": _with_fields(assessment, {"claim": "review"}),
        "what is blocked and good": _with_fields(blocked, {"verdict": "good"}),
        "of another namespace": sealed(change(first, namespace=NamespaceId(bytes(32)))),
        "of another log": sealed(change(first, log=LogId(bytes(32)))),
        "after another leaf": sealed(change(first, previous=entries[0].leaf)),
        "branch spelled like a hash": sealed(change(first, branch="abcdefabcdef")),
        "model name with a line break": sealed(change(first, model="parrot\n")),
        "schema 2": sealed(change(first, schema=2)),
        "unknown type": _with_fields(first, {"type": "epoch"}),
    }


def _with_fields(record: Record, fields: Json) -> bytes:
    return _envelope(cbor2.dumps(cbor2.loads(encoding.encode(record)) | fields, canonical=True))


def _without_field(record: Record, name: str) -> bytes:
    fields = cbor2.loads(encoding.encode(record))
    return _envelope(cbor2.dumps({key: value for key, value in fields.items() if key != name}, canonical=True))


def _envelope(payload: bytes) -> bytes:
    """Return any payload in an envelope that the publisher signed."""
    return encoding.encode(Envelope(payload, values.key("publisher").sign(PURPOSE, payload)))


def checkpoints() -> Json:
    key, namespace = values.key("publisher"), values.identity().namespace
    log, leaves = log_id(namespace, key.public_key), [entry.leaf for entry in values.log()[:5]]
    origin = f"p2phub/log/{log}"

    def signed(text: str) -> str:
        key_hash = base64.b64decode(heads[0]["note"].split(" ")[-1])[:4]
        return f"{text}\n\N{EM DASH} {origin} {base64.b64encode(key_hash + key.sign_note(text.encode())).decode()}\n"

    heads: list[Json] = []
    for size in (0, 1, len(leaves)):
        root = merkle.root(LOG_TREE, leaves[:size])
        heads.append({"size": size, "root": root, "note": sign_head(log, size, root, key).text.decode()})
    note = heads[2]["note"]
    root_text = base64.b64encode(heads[2]["root"]).decode()
    witness = base64.b64encode(b"wits" + bytes(72)).decode()
    other = sign_head(log, 5, heads[2]["root"], values.key("other")).text.decode()
    own_prefix = f"\N{EM DASH} {origin} "
    own_line = own_prefix + note.rsplit(own_prefix, 1)[1]
    invalid = {
        "size with a leading zero": signed(f"{origin}\n05\n{root_text}\n"),
        "an extension line": signed(f"{origin}\n5\n{root_text}\nmore\n"),
        "root of 31 bytes": signed(f"{origin}\n5\n{base64.b64encode(bytes(31)).decode()}\n"),
        "the first line names no log": signed(f"example.com/log\n5\n{root_text}\n"),
        "the first line and the signature name another log": sign_head(
            LogId(bytes(32)), 5, heads[2]["root"], key
        ).text.decode(),
        "the first line alone names another log": signed(f"p2phub/log/{LogId(bytes(32))}\n5\n{root_text}\n"),
        "the own name with another key hint": note.replace(own_line, f"{own_prefix}{_other_hint(note)}\n"),
        "no last line feed": note[:-1],
        "CR LF": note.replace("\n", "\r\n"),
        "root whose spare bits are not 0": signed(f"{origin}\n5\n{root_text[:-2]}{_next(root_text[-2])}=\n"),
        "root without padding": signed(f"{origin}\n5\n{root_text[:-1]}\n"),
        "signature without padding": note.removesuffix("=\n") + "\n",
        "witness without padding": f"{note}\N{EM DASH} w.example/1 AAAAAA\n",
        "witness whose spare bits are not 0": f"{note}\N{EM DASH} w.example/1 AAAAAB==\n",
        "witness that is no base64": f"{note}\N{EM DASH} w.example/1 AA-_\n",
        "witness with a space in its name": f"{note}\N{EM DASH} w.example\N{NO-BREAK SPACE}1 {witness}\n",
        "witness with a control character in its name": f"{note}\N{EM DASH} w.example\x1f1 {witness}\n",
        "witness with a plus in its name": f"{note}\N{EM DASH} w.example+1 {witness}\n",
        "a size of 17 digits": signed(f"{origin}\n1{'0' * 16}\n{root_text}\n"),
        "4097 bytes": _filled(note, 4097),
        "signed by another key": other,
        "another size than signed": note.replace("\n5\n", "\n6\n"),
        "trailing junk": note + "junk",
        "no signature": note[: note.index("\n\n") + 2],
        "a bad signature beside a good one": note + f"\N{EM DASH} {origin} {_bad_signature(note)}\n",
    }
    return {
        "log": str(log),
        "public_key": str(key.public_key),
        "valid": [
            *heads,
            heads[2] | {"note": f"{note}\N{EM DASH} witness.example/w1 {witness}\n"},
            heads[2] | {"note": note.replace(own_line, f"\N{EM DASH} witness.example/w1 {witness}\n{own_line}")},
            heads[2] | {"note": note + f"{own_prefix}{_other_hint(note)}\n"},
            heads[2] | {"note": _filled(note, 4096)},
        ],
        "invalid": [{"note": text, "why": why} for why, text in invalid.items()],
    }


def _filled(note: str, size: int) -> str:
    """Return `note` with a line of a witness that makes it `size` bytes long."""
    rest = size - len(note.encode()) - len("\N{EM DASH}  AAAA\n".encode())
    return f"{note}\N{EM DASH} {'w' * rest} AAAA\n"


def _next(char: str) -> str:
    """Return a base64 digit that differs in its last bit."""
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return digits[digits.index(char) ^ 1]


def _other_hint(note: str) -> str:
    blob = base64.b64decode(note.split(" ")[-1])
    return base64.b64encode(bytes(4) + blob[4:]).decode()


def _bad_signature(note: str) -> str:
    blob = base64.b64decode(note.split(" ")[-1])
    return base64.b64encode(blob[:4] + bytes(64)).decode()
