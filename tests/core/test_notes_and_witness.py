"""Signed notes and cosignatures, byte for byte as others published them."""

from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2phub.core.checkpoint import Head, open_head, sign_head, with_lines
from p2phub.core.errors import InvalidData, InvalidName, InvalidSignature
from p2phub.core.ids import LogId, PublicKey
from p2phub.core.notes import COSIGNATURE, ED25519, NoteKey, NoteLine, key_id, parse_lines, parse_note_key, split_note
from p2phub.core.signing import SigningKey, check_note_signature
from p2phub.core.witness import (
    AddCheckpoint,
    Quorum,
    check_cosignature,
    cosign,
    cosigned_by,
    format_request,
    parse_checkpoint,
    parse_request,
)
from p2phub.testing import c2sp

LOG_KEY = SigningKey(b"k" * 32)
ALICE, BOB, CAROL = (SigningKey(letter * 32) for letter in (b"a", b"b", b"c"))
HEAD = sign_head(LogId(b"l" * 32), 7, b"r" * 32, LOG_KEY)


def witness(name: str, key: SigningKey) -> NoteKey:
    return NoteKey(name, COSIGNATURE, key.public_key)


def check_by_log(note: str, key_text: str) -> None:
    text, lines = split_note(note.encode())
    key = parse_note_key(key_text, type_=ED25519)
    ours = [line for line in lines if (line.name, line.key_id) == (key.name, key.id)]
    assert ours
    for line in ours:
        check_note_signature(key.key, text, line.signature)


@pytest.mark.parametrize(
    ("note", "key"),
    [(c2sp.EXAMPLE, c2sp.EXAMPLE_KEY), (c2sp.SUM_DB, c2sp.SUM_DB_KEY), (c2sp.LIVE, c2sp.LIVE_LOG_KEY)],
)
def test_notes_that_others_signed_verify(note: str, key: str) -> None:
    check_by_log(note, key)

    with pytest.raises(InvalidSignature):
        check_by_log(note.replace("s", "z", 1), key)


@pytest.mark.parametrize("text", [c2sp.EXAMPLE_KEY, c2sp.SUM_DB_KEY, c2sp.LIVE_LOG_KEY])
def test_keys_of_logs_are_written_as_others_write_them(text: str) -> None:
    assert str(parse_note_key(text, type_=ED25519)) == text


def test_keys_of_witnesses_are_written_as_others_write_them() -> None:
    assert str(parse_note_key(c2sp.LIVE_WITNESS_KEY, type_=COSIGNATURE)) == c2sp.LIVE_WITNESS_KEY


def test_a_line_of_a_public_witness_verifies() -> None:
    remora = parse_note_key(c2sp.LIVE_WITNESS_KEY, type_=COSIGNATURE)

    assert cosigned_by(c2sp.LIVE.encode(), [remora]) == {remora: c2sp.LIVE_TIME}
    assert cosigned_by(c2sp.LIVE.replace("1432088532", "1432088533").encode(), [remora]) == {}


def test_a_cosignature_is_byte_for_byte_what_others_make() -> None:
    key = SigningKey(bytes([17]) + bytes(31))
    text = c2sp.SIGSUM_TEXT.encode()

    line = cosign(text, c2sp.SIGSUM_WITNESS, key, time=1234)

    assert line.text == c2sp.SIGSUM_LINE
    assert check_cosignature(text, line, witness(c2sp.SIGSUM_WITNESS, key)) == 1234
    assert split_note(c2sp.SIGSUM_NOTE.encode())[1] == [
        NoteLine(c2sp.SIGSUM_LOG, key_id(c2sp.SIGSUM_LOG, ED25519, key.public_key),
                 key.sign_note(c2sp.SIGSUM_NOTE.partition("\n\n")[0].encode() + b"\n"))
    ]  # fmt: skip


@pytest.mark.parametrize("line", c2sp.SIGSUM_OTHERS)
def test_a_line_with_another_id_name_or_length_does_not_count(line: str) -> None:
    key = witness(c2sp.SIGSUM_WITNESS, SigningKey(bytes([17]) + bytes(31)))
    note = f"{c2sp.SIGSUM_TEXT}\n{line}".encode()

    assert cosigned_by(note, [key]) == {}
    assert cosigned_by(note + c2sp.SIGSUM_LINE.encode(), [key]) == {key: 1234}


def test_the_line_in_the_specification_is_read_as_it_says() -> None:
    (line,) = parse_lines(c2sp.SPEC_LINE)

    assert line.text == c2sp.SPEC_LINE
    assert line.name == "witness.example.com/w1"
    assert int.from_bytes(line.signature[:8], "big") == c2sp.SPEC_LINE_TIME
    assert len(line.signature) == 72


def test_the_request_in_the_specification_is_read_and_written_as_it_says() -> None:
    request = parse_request(c2sp.SPEC_REQUEST.encode())

    assert (request.old, len(request.proof)) == (20852014, 4)
    assert parse_checkpoint(split_note(request.note)[0]).origin == "example.com/behind-the-sofa"
    assert format_request(request) == c2sp.SPEC_REQUEST.encode()


@given(old=st.integers(0, 2**53), proof=st.lists(st.binary(min_size=32, max_size=32), max_size=63))
def test_every_request_is_read_as_it_was_written(old: int, proof: list[bytes]) -> None:
    request = AddCheckpoint(old, tuple(proof), HEAD.text)

    assert parse_request(format_request(request)) == request


HASH_LINE = base64.b64encode(b"p" * 32) + b"\n"


@pytest.mark.parametrize(
    "begin",
    [
        b"",
        b"7\n",
        b"old 07\n",
        b"old -7\n",
        b"Old 7\n",
        b"old 7\r\n",
        b"old 7\nnot base64\n",
        b"old 7\n" + HASH_LINE.replace(b"A=", b"B="),
        b"old 7\n" + 64 * HASH_LINE,
    ],
)
def test_a_request_that_breaks_the_form_is_refused(begin: bytes) -> None:
    parse_request(b"old 7\n" + 63 * HASH_LINE + b"\n" + HEAD.text)

    with pytest.raises(InvalidData):
        parse_request(begin + b"\n" + HEAD.text)


@pytest.mark.parametrize(
    "text",
    [
        "bananas.sigstore.dev+12344556",
        "rekor.sigstore.dev+12345678+THIS_IS_NOT_BASE64!",
        "rekor.sigstore.dev+12345678+AwEB",
        "remora.n621.de+00000000+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
        "remora n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
        str(NoteKey("w", COSIGNATURE, PublicKey(b"\1" + bytes(31)))),  # the identity point verifies anything
        str(NoteKey("w", 6, BOB.public_key)),
        c2sp.EXAMPLE_KEY,
    ],
)
def test_what_is_no_key_of_a_witness_is_refused_with_a_text(text: str) -> None:
    with pytest.raises(InvalidName):
        parse_note_key(text, type_=COSIGNATURE)


def test_the_key_of_a_log_is_not_taken_for_that_of_a_witness() -> None:
    with pytest.raises(InvalidName, match=r"of a log, not of a witness"):
        parse_note_key(c2sp.SUM_DB_KEY, type_=COSIGNATURE)


def test_lines_are_added_to_a_head_and_renewed() -> None:
    first = cosign(HEAD.signed, "w1", ALICE, time=1000)
    second = cosign(HEAD.signed, "w2", BOB, time=1001)
    again = cosign(HEAD.signed, "w1", ALICE, time=2000)

    head = with_lines(with_lines(HEAD, [first, second]), [again])

    assert open_head(head.text, log=HEAD.log, key=LOG_KEY.public_key) == head
    assert cosigned_by(head.text, [witness("w1", ALICE), witness("w2", BOB), witness("w3", CAROL)]) == {
        witness("w1", ALICE): 2000,
        witness("w2", BOB): 1001,
    }
    assert len(head.lines) == 3


def test_a_head_has_room_for_a_bounded_number_of_lines() -> None:
    with pytest.raises(InvalidData):
        with_lines(HEAD, [cosign(HEAD.signed, f"w{number}", ALICE, time=1) for number in range(64)])


@given(st.binary(min_size=76, max_size=76))
def test_no_made_up_line_vouches_for_a_head(blob: bytes) -> None:
    known = witness("w1", ALICE)
    line = NoteLine("w1", known.id, blob[4:])

    assert cosigned_by(with_lines(HEAD, [line]).text, [known]) == {}


def test_a_cosignature_vouches_for_no_other_head_and_no_other_name() -> None:
    other = sign_head(HEAD.log, 8, b"s" * 32, LOG_KEY)
    moved = with_lines(other, [cosign(HEAD.signed, "w1", ALICE, time=1)])
    line = cosign(HEAD.signed, "w1", ALICE, time=1)
    renamed = with_lines(HEAD, [NoteLine("w2", key_id("w2", COSIGNATURE, ALICE.public_key), line.signature)])

    assert cosigned_by(moved.text, [witness("w1", ALICE)]) == {}
    assert cosigned_by(renamed.text, [witness("w1", ALICE)]) == {}


def test_a_signature_of_the_log_is_no_cosignature() -> None:
    plain = NoteLine("w1", witness("w1", ALICE).id, (1).to_bytes(8, "big") + ALICE.sign_note(HEAD.signed))

    assert cosigned_by(with_lines(HEAD, [plain]).text, [witness("w1", ALICE)]) == {}


def quorum(need: int, *names: tuple[str, SigningKey]) -> Quorum:
    return Quorum.parse(need, [str(witness(name, key)) for name, key in names])


def signed_by(*names: tuple[str, SigningKey]) -> Head:
    return with_lines(HEAD, [cosign(HEAD.signed, name, key, time=1) for name, key in names])


def test_two_of_three_witnesses_are_enough_where_two_must_vouch() -> None:
    three = ("w1", ALICE), ("w2", BOB), ("w3", CAROL)
    needed = quorum(2, *three)

    assert needed.is_met_by(cosigned_by(signed_by(*three[:2]).text, needed.witnesses))
    assert needed.is_met_by(cosigned_by(signed_by(*three).text, needed.witnesses))
    assert not needed.is_met_by(cosigned_by(signed_by(three[1]).text, needed.witnesses))
    assert not needed.is_met_by(cosigned_by(HEAD.text, needed.witnesses))


def test_one_key_under_two_names_does_not_count_twice() -> None:
    with pytest.raises(InvalidName, match=r"count twice"):
        quorum(2, ("w1", ALICE), ("w2", ALICE))

    found = [witness("w1", ALICE), witness("w2", ALICE)]
    assert not quorum(2, ("w1", ALICE), ("w3", BOB)).is_met_by(found)


def test_a_quorum_of_more_than_there_are_is_refused() -> None:
    with pytest.raises(InvalidName):
        quorum(2, ("w1", ALICE))


@given(st.binary(max_size=400))
def test_whatever_comes_is_a_note_or_refused(data: bytes) -> None:
    for parse in (split_note, parse_request):
        with contextlib.suppress(InvalidData):
            parse(data)


@given(at=st.integers(0, 10_000), byte=st.integers(0, 255), request=st.booleans())
def test_a_note_with_another_byte_is_another_note_or_refused(at: int, byte: int, request: bool) -> None:
    good = (c2sp.SPEC_REQUEST if request else c2sp.LIVE).encode()
    changed = bytearray(good)
    changed[at % len(good)] = byte

    with contextlib.suppress(InvalidData):
        if request:
            assert format_request(parse_request(bytes(changed))) == bytes(changed)
        else:
            text, lines = split_note(bytes(changed))
            assert text + b"\n" + "".join(line.text for line in lines).encode() == bytes(changed)
            parse_checkpoint(text)


@given(st.text(max_size=100))
def test_whatever_is_typed_is_a_key_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidName):
        parse_note_key(text, type_=COSIGNATURE)
