from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from p2phub.core.checkpoint import HEAD_SIZE_MAX, Head, open_head, parse_head, sign_head
from p2phub.core.errors import InvalidData, InvalidSignature
from p2phub.core.ids import LogId
from p2phub.core.signing import SigningKey, signed_message

KEY = SigningKey(b"k" * 32)
OTHER_KEY = SigningKey(b"o" * 32)
LOG = LogId(b"l" * 32)
ROOT = b"r" * 32
NOTE = sign_head(LOG, 7, ROOT, KEY).text
ORIGIN = f"p2phub/log/{LOG}"


def sign_text(text: str, *, name: str = ORIGIN, key: SigningKey = KEY) -> bytes:
    """Return `text` as a signed note, whatever it says."""
    key_hash = hashlib.sha256(name.encode() + b"\n\x01" + key.public_key).digest()[:4]
    blob = base64.b64encode(key_hash + key.sign_note(text.encode())).decode()
    return f"{text}\n— {name} {blob}\n".encode()


def witness_line(name: str, blob: bytes) -> bytes:
    return f"— {name} {base64.b64encode(blob).decode()}\n".encode()


def read_as_c2sp_says(note: bytes, public_key: bytes) -> tuple[str, int, bytes]:
    """Read a checkpoint by c2sp.org/signed-note and c2sp.org/tlog-checkpoint, with none of our code."""
    split = note.rindex(b"\n\n")
    text, lines = note[: split + 1], note[split + 2 :]
    assert text.endswith(b"\n")
    assert lines.endswith(b"\n")
    origin, size, root, *extensions = text.decode().removesuffix("\n").split("\n")
    assert extensions == []
    verified = 0
    for line in lines.decode().removesuffix("\n").split("\n"):
        dash, name, blob_text = line.split(" ")
        assert dash == "\N{EM DASH}"
        assert name
        assert "+" not in name
        blob = base64.b64decode(blob_text, validate=True)
        if name == origin and blob[:4] == hashlib.sha256(name.encode() + b"\n\x01" + public_key).digest()[:4]:
            Ed25519PublicKey.from_public_bytes(public_key).verify(blob[4:], text)
            verified += 1
    assert verified == 1
    return origin, int(size), base64.b64decode(root, validate=True)


@given(log=st.binary(min_size=32, max_size=32), size=st.integers(0, 2**53), root=st.binary(min_size=32, max_size=32))
def test_a_signed_head_opens_to_what_was_signed(log: bytes, size: int, root: bytes) -> None:
    head = sign_head(LogId(log), size, root, KEY)

    assert open_head(head.text, log=LogId(log), key=KEY.public_key) == head
    assert parse_head(head.text) == head
    assert head == Head(LogId(log), size, root, head.text)


@given(size=st.integers(0, 2**53), root=st.binary(min_size=32, max_size=32))
def test_a_reader_of_c2sp_checkpoints_reads_it(size: int, root: bytes) -> None:
    note = sign_head(LOG, size, root, KEY).text

    assert read_as_c2sp_says(note, bytes(KEY.public_key)) == (ORIGIN, size, root)


def test_its_bytes_are_those_of_the_spec() -> None:
    lines = NOTE.decode().split("\n")

    assert lines[:4] == [ORIGIN, "7", base64.b64encode(ROOT).decode(), ""]
    assert lines[4].startswith(f"— {ORIGIN} ")
    assert lines[5:] == [""]


def test_a_head_of_another_log_is_refused() -> None:
    with pytest.raises(InvalidData, match="is of log"):
        open_head(NOTE, log=LogId(b"m" * 32), key=KEY.public_key)


def test_a_head_signed_by_another_key_is_refused() -> None:
    with pytest.raises(InvalidSignature, match="not signed by the key"):
        open_head(NOTE, log=LOG, key=OTHER_KEY.public_key)


def test_another_key_under_our_key_hash_is_refused() -> None:
    text, _, line = NOTE.decode().partition("\n\n")
    blob = base64.b64decode(line.split(" ")[2])
    forged = blob[:4] + OTHER_KEY.sign_note(f"{text}\n".encode())

    with pytest.raises(InvalidSignature):
        open_head(f"{text}\n\n".encode() + witness_line(ORIGIN, forged), log=LOG, key=KEY.public_key)


@given(st.data())
def test_no_changed_byte_before_the_signature_passes(data: st.DataObject) -> None:
    note = bytearray(NOTE)
    at = data.draw(st.integers(0, NOTE.index(b"\n\n")))
    note[at] ^= data.draw(st.integers(1, 255))

    with pytest.raises(InvalidData):
        open_head(bytes(note), log=LOG, key=KEY.public_key)


@given(st.integers(0, len(NOTE) - 1))
def test_a_shortened_head_is_refused(size: int) -> None:
    with pytest.raises(InvalidData):
        open_head(NOTE[:size], log=LOG, key=KEY.public_key)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_as_invalid_data(note: bytes) -> None:
    with pytest.raises(InvalidData):
        parse_head(note)


B64_ROOT = base64.b64encode(ROOT).decode()

MALFORMED = {
    "a size with a leading zero": f"{ORIGIN}\n07\n{B64_ROOT}\n",
    "an empty size": f"{ORIGIN}\n\n{B64_ROOT}\n",
    "a negative size": f"{ORIGIN}\n-7\n{B64_ROOT}\n",
    "a size with a sign": f"{ORIGIN}\n+7\n{B64_ROOT}\n",
    "a size with an underscore": f"{ORIGIN}\n1_0\n{B64_ROOT}\n",
    "a size in other digits": f"{ORIGIN}\n\N{ARABIC-INDIC DIGIT SEVEN}\n{B64_ROOT}\n",
    "a size of 17 digits": f"{ORIGIN}\n{10**16}\n{B64_ROOT}\n",
    "an extension line": f"{ORIGIN}\n7\n{B64_ROOT}\nextension\n",
    "a blank line more": f"{ORIGIN}\n7\n{B64_ROOT}\n\n",
    "a root of 31 bytes": f"{ORIGIN}\n7\n{base64.b64encode(bytes(31)).decode()}\n",
    "a root of 33 bytes": f"{ORIGIN}\n7\n{base64.b64encode(bytes(33)).decode()}\n",
    "a root with spare bits": f"{ORIGIN}\n7\n{B64_ROOT[:-2]}J=\n",
    "a root in the URL alphabet": f"{ORIGIN}\n7\n{'-' * 43}=\n",
    "another origin": f"example.com/log\n7\n{B64_ROOT}\n",
    "an origin in upper case": f"p2phub/log/{str(LOG).upper()}\n7\n{B64_ROOT}\n",
    "a log id with spare bits": f"{ORIGIN[:-1]}b\n7\n{B64_ROOT}\n",
    "carriage returns": f"{ORIGIN}\r\n7\r\n{B64_ROOT}\r\n",
    "a space at the end of a line": f"{ORIGIN}\n7 \n{B64_ROOT}\n",
}


@pytest.mark.parametrize("what", MALFORMED)
def test_it_refuses(what: str) -> None:
    assert open_head(sign_text(f"{ORIGIN}\n7\n{B64_ROOT}\n"), log=LOG, key=KEY.public_key)

    with pytest.raises(InvalidData):
        open_head(sign_text(MALFORMED[what]), log=LOG, key=KEY.public_key)


@pytest.mark.parametrize(
    "junk",
    [b"\xff", *map(str.encode, ["\n", "junk", "junk\n", " ", "\0", "— a b", "— a +\u0085b\n", "— a Yg==\r\n"])],
)
def test_trailing_junk_is_refused(junk: bytes) -> None:
    with pytest.raises(InvalidData):
        open_head(NOTE + junk, log=LOG, key=KEY.public_key)


def test_cosignatures_of_witnesses_are_let_through() -> None:
    cosigned = NOTE + witness_line("witness.example/w1", b"w" * 76) + witness_line(ORIGIN, b"other" + bytes(63))

    head = open_head(cosigned, log=LOG, key=KEY.public_key)

    assert (head.size, head.root, head.text) == (7, ROOT, cosigned)


@pytest.mark.parametrize("odd", ["\u2028", "\u0085", "\x0b", "\x1c", "\u00a0", "\t", "+", "\x01", "\x1f", "\0"])
def test_a_witness_with_a_space_a_plus_or_a_control_character_in_its_name_is_refused(odd: str) -> None:
    with pytest.raises(InvalidData):
        open_head(NOTE + witness_line(f"a{odd}b", bytes(68)), log=LOG, key=KEY.public_key)


def test_every_signature_under_our_name_and_key_must_hold() -> None:
    key_hash = base64.b64decode(NOTE.split(b" ")[-1])[:4]

    for blob in (key_hash, key_hash + bytes(64), key_hash + bytes(65)):
        with pytest.raises(InvalidSignature):
            open_head(NOTE + witness_line(ORIGIN, blob), log=LOG, key=KEY.public_key)


def test_a_signature_that_is_no_base64_is_refused() -> None:
    with pytest.raises(InvalidData, match="base64"):
        open_head(NOTE + "— witness.example A\n".encode(), log=LOG, key=KEY.public_key)


def test_a_long_head_is_refused_before_it_is_read() -> None:
    long = NOTE + witness_line("w", bytes(HEAD_SIZE_MAX))

    with pytest.raises(InvalidData, match=f"the limit is {HEAD_SIZE_MAX}"):
        parse_head(long)


def test_a_head_can_be_no_message_signed_for_a_purpose() -> None:
    assert b"\0" not in NOTE
    assert signed_message("record", b"").startswith(b"p2phub/1\0")
