from __future__ import annotations

from typing import get_args

import cbor2
import msgspec
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from p2phub.core import encoding, merkle
from p2phub.core.envelope import ENVELOPE_SIZE_MAX, PAYLOAD_SIZE_MAX, Envelope, seal
from p2phub.core.errors import InvalidData, InvalidEncoding, InvalidSignature
from p2phub.core.ids import LogId, ManifestId, NamespaceId
from p2phub.core.merkle import LOG_TREE
from p2phub.core.records import (
    NO_PREVIOUS,
    PURPOSE,
    Entry,
    Grant,
    Publish,
    Record,
    Score,
    Summary,
    Ungrant,
    log_id,
    open_entry,
    read_entry,
    sign_record,
)
from p2phub.testing import values

KEY = values.key("publisher")
OTHER_KEY = values.key("other")
NAMESPACE = values.identity().namespace
LOG = values.log()
# Those of private logs have tests of their own.
ALL = set(get_args(Record)) - {Grant, Ungrant}


def open_at(data: bytes, index: int, **changes: object) -> Entry:
    place: dict[str, object] = {
        "namespace": NAMESPACE,
        "key": KEY.public_key,
        "index": index,
        "previous": LOG[index - 1].leaf if 0 < index <= len(LOG) else NO_PREVIOUS,
    }
    return open_entry(data, **(place | changes))  # type: ignore[arg-type]


def change(record: Record, **fields: object) -> Record:
    return msgspec.structs.replace(record, **fields)


def seal_anything(record: Record) -> bytes:
    """Return `record` signed by its key, whether or not it is allowed."""
    return encoding.encode(seal(record, KEY, PURPOSE))


def read_payload(entry: Entry) -> bytes:
    return encoding.decode(entry.data, Envelope, size_max=ENVELOPE_SIZE_MAX).payload


def test_every_entry_of_a_log_opens_at_its_place() -> None:
    for index, entry in enumerate(LOG):
        assert open_at(entry.data, index) == entry == read_entry(entry.data)
        assert entry.leaf == LOG_TREE.leaf(entry.data)
        assert entry.record.index == index

    assert {type(entry.record) for entry in LOG} == ALL


@given(
    time=st.integers(0, 2**53),
    message=st.text(max_size=4096),
    depth=st.integers(1, 2**31),
    manifest=st.binary(min_size=32, max_size=32),
    index=st.integers(0, 2**63 - 1),
    title=st.text(max_size=256),
    tags=st.lists(st.text(min_size=1, max_size=128), max_size=64).map(tuple),
)
def test_a_signed_record_opens_to_itself(
    time: int, message: str, depth: int, manifest: bytes, index: int, title: str, tags: tuple[str, ...]
) -> None:
    record = Publish(
        namespace=NAMESPACE,
        log=log_id(NAMESPACE, KEY.public_key),
        index=index,
        previous=bytes(32),
        time=time,
        model="parrot",
        kind="model",
        manifest=ManifestId(manifest),
        depth=depth,
        branch="main",
        version="1.0",
        message=message,
        summary=Summary(files=1, size=2, title=title, tags=tags),
    )

    entry = sign_record(record, KEY)

    assert open_entry(entry.data, namespace=NAMESPACE, key=KEY.public_key, index=index, previous=bytes(32)) == entry
    assert entry.record == record


def test_a_record_replayed_at_another_index_is_refused() -> None:
    for index, entry in enumerate(LOG):
        for other in range(len(LOG)):
            if other != index:
                with pytest.raises(InvalidData, match="another place"):
                    open_at(entry.data, other)
                with pytest.raises(InvalidData, match="another place"):
                    open_at(entry.data, other, previous=entry.record.previous)


def test_a_record_replayed_after_another_leaf_is_refused() -> None:
    with pytest.raises(InvalidData, match="another place"):
        open_at(LOG[1].data, 1, previous=bytes(32))
    with pytest.raises(InvalidData, match="another place"):
        open_at(LOG[0].data, 0, previous=LOG[1].leaf)


def test_a_record_replayed_in_another_namespace_is_refused() -> None:
    # The same key may publish in two namespaces: what it says in one does not hold in the other.
    other = NamespaceId(bytes(32))

    with pytest.raises(InvalidData, match="another place"):
        open_at(LOG[0].data, 0, namespace=other)


def test_a_record_replayed_in_another_log_is_refused() -> None:
    forged = sign_record(change(LOG[0].record, log=log_id(NAMESPACE, OTHER_KEY.public_key)), KEY)

    with pytest.raises(InvalidData, match="another place"):
        open_at(forged.data, 0)


def test_a_record_of_another_key_is_refused() -> None:
    with pytest.raises(InvalidSignature):
        open_at(LOG[0].data, 0, key=OTHER_KEY.public_key)
    with pytest.raises(InvalidSignature):
        open_at(sign_record(LOG[0].record, OTHER_KEY).data, 0)


def test_a_record_signed_for_another_purpose_is_refused() -> None:
    with pytest.raises(InvalidSignature):
        open_at(encoding.encode(seal(LOG[0].record, KEY, "node")), 0)


def test_the_signature_is_checked_before_the_payload_is_read() -> None:
    junk = encoding.encode(Envelope(b"\xff" * 100, bytes(64)))

    with pytest.raises(InvalidSignature):
        open_at(junk, 0)


@given(st.data())
def test_no_changed_byte_passes(data: st.DataObject) -> None:
    encoded = bytearray(LOG[1].data)
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))

    with pytest.raises(InvalidData):
        open_at(bytes(encoded), 1)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_as_invalid_data(data: bytes) -> None:
    with pytest.raises(InvalidData):
        open_at(data, 0)
    with pytest.raises(InvalidData):
        read_entry(data)


PUBLISH, BRANCH, YANK, PLEDGE = LOG[1].record, LOG[2].record, LOG[3].record, LOG[9].record
assert isinstance(PUBLISH, Publish)


def summary(**fields: object) -> Record:
    return change(PUBLISH, summary=msgspec.structs.replace(PUBLISH.summary, **fields))  # type: ignore[union-attr]


def score(value: str) -> Record:
    return summary(scores=(Score("task", "dataset", "metric", value),))


REFUSED = {
    "another schema": change(PUBLISH, schema=2),
    "an index below 0": change(PUBLISH, index=-1),
    "an index over 63 bits": change(PUBLISH, index=2**63),
    "a previous leaf of 31 bytes": change(PUBLISH, previous=bytes(31)),
    "a time before 1970": change(PUBLISH, time=-1),
    "a time over 53 bits": change(PUBLISH, time=2**53 + 1),
    "a model that cannot be named": change(PUBLISH, model="a/b"),
    "a model with two dashes": change(BRANCH, model="a--b"),
    "a model with a line break": change(YANK, model="a\n"),
    "a branch that cannot be named": change(PUBLISH, branch="-a"),
    "a branch spelled like a hash": change(BRANCH, branch="abcdefabcdef"),
    "a branch with two dots": change(BRANCH, branch="a..b"),
    "a branch with a line break": change(BRANCH, branch="main\n"),
    "a version spelled like a branch": change(PUBLISH, version="main"),
    "a version with a line break": change(YANK, version="1.0\n"),
    "a depth of 0": change(PUBLISH, depth=0),
    "an unknown kind": change(PUBLISH, kind="space"),
    "a message that is too long": change(PUBLISH, message="x" * 4097),
    "a title that is too long": summary(title="x" * 257),
    "an excerpt that is too long": summary(excerpt="x" * 501),
    "a task without letters": summary(task=""),
    "a tag that is too long": summary(tags=("x" * 129,)),
    "too many tags": summary(tags=("x",) * 65),
    "too many scores": summary(scores=(Score("t", "d", "m", "1"),) * 33),
    "a count below 0": summary(files=-1),
    "a score that is no number": score("high"),
    "a score with a line break": score("1\n"),
    "a score without digits": score("-"),
    "an infinite score": score("inf"),
    "a score in other digits": score("٣"),
    "a pledge of no copies": change(PLEDGE, replicas=0),
    "a pledge of too many copies": change(PLEDGE, replicas=101),
    "a pledge until before 1970": change(PLEDGE, until=-1),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_refuses(what: str) -> None:
    with pytest.raises(InvalidEncoding):
        open_at(seal_anything(REFUSED[what]), REFUSED[what].index, previous=REFUSED[what].previous)
    with pytest.raises(InvalidEncoding):
        sign_record(REFUSED[what], KEY)


@pytest.mark.parametrize("value", ["0", "-1", "0.875", "1e-9", "12.5E+3"])
def test_a_score_is_decimal_text(value: str) -> None:
    assert read_entry(sign_record(score(value), KEY).data).record == score(value)


@pytest.mark.parametrize(
    "subject",
    [
        {},
        {"model": "parrot"},
        {"manifest": bytes(32), "publisher": bytes(32)},
        {"manifest": bytes(32), "model": "parrot"},
        {"publisher": bytes(32), "model": "a/b"},
        {"publisher": bytes(31)},
        {"publisher": bytes(32), "version": "1.0.0"},
    ],
)
def test_a_pledge_is_about_one_thing(subject: dict[str, object]) -> None:
    fields = cbor2.loads(read_payload(LOG[PLEDGE.index]))
    payload = cbor2.dumps(fields | {"subject": subject}, canonical=True)
    data = encoding.encode(Envelope(payload, KEY.sign(PURPOSE, payload)))

    with pytest.raises(InvalidEncoding):
        open_at(data, PLEDGE.index)


def test_an_unknown_type_is_refused() -> None:
    fields = cbor2.loads(read_payload(LOG[3]))
    for type_ in ("epoch", "Publish", "", None, 1):
        payload = cbor2.dumps(fields | {"type": type_}, canonical=True)
        data = encoding.encode(Envelope(payload, KEY.sign(PURPOSE, payload)))

        with pytest.raises(InvalidEncoding, match="Publish or Branch or Yank or Attest"):
            open_at(data, 3)


def test_every_record_signs_where_it_stands() -> None:
    for entry in LOG:
        fields = cbor2.loads(read_payload(entry))

        # A pledge is about something of anybody's, which may be more than a model.
        about = "subject" if fields["type"] in ("pledge", "unpledge") else "model"
        assert {"type", "namespace", "log", "index", "previous", "time", about} <= set(fields)
        # Schema 1 is the default, and defaults are left out.
        assert "schema" not in fields


def test_the_largest_record_fits_its_envelope() -> None:
    words = tuple(chr(0x10000 + number) * 128 for number in range(64))
    largest = change(
        PUBLISH,
        message="🦜" * 4096,
        summary=Summary(files=2**63 - 1, size=2**63 - 1, title="🦜" * 256, excerpt="🦜" * 500, tags=words[:32]),
    )

    assert len(sign_record(largest, KEY).data) <= ENVELOPE_SIZE_MAX


def test_a_record_too_large_for_its_envelope_is_not_signed() -> None:
    words = tuple(chr(0x10000 + number) * 128 for number in range(64))

    with pytest.raises(InvalidEncoding, match=f"the limit is {PAYLOAD_SIZE_MAX}"):
        sign_record(summary(tags=words, languages=words, datasets=words), KEY)


def test_a_log_id_is_that_of_the_spec() -> None:
    expected = blake3(NAMESPACE + KEY.public_key, derive_key_context="p2phub 1 log").digest()

    assert log_id(NAMESPACE, KEY.public_key) == LogId(expected)
    assert log_id(NAMESPACE, OTHER_KEY.public_key) != expected


def test_an_entry_is_proved_by_the_head_of_its_log() -> None:
    leaves = [entry.leaf for entry in LOG]

    for index, entry in enumerate(LOG):
        proof = merkle.inclusion_proof(LOG_TREE, leaves, index)
        leaf = LOG_TREE.leaf(entry.data)
        assert merkle.root_from_inclusion(LOG_TREE, leaf, index, len(LOG), proof) == merkle.root(LOG_TREE, leaves)
