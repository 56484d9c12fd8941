from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2phub.core.errors import InvalidName
from p2phub.core.ids import ContentId, Id, LogId, ManifestId, NamespaceId, NodeId, PublicKey, misspelling

HEX_KINDS = [ContentId, ManifestId]
BASE32_KINDS = [PublicKey, NodeId, NamespaceId, LogId]
KINDS = [*HEX_KINDS, *BASE32_KINDS]

values = st.binary(min_size=32, max_size=32)


@given(kind=st.sampled_from(KINDS), value=values)
def test_an_id_reads_back_from_its_text(kind: type[Id], value: bytes) -> None:
    id_ = kind(value)

    assert kind.parse(str(id_)) == id_ == value
    assert type(kind.parse(str(id_))) is kind


@given(values)
def test_content_is_written_in_hex_and_key_holders_in_base32(value: bytes) -> None:
    assert str(ContentId(value)) == "b3:" + value.hex()
    assert str(NamespaceId(value)) == base64.b32encode(value).decode()[:52].lower()


@given(kind=st.sampled_from(KINDS), value=st.binary(max_size=70).filter(lambda value: len(value) != 32))
def test_an_id_has_32_bytes(kind: type[Id], value: bytes) -> None:
    with pytest.raises(InvalidName, match=f"a {kind.KIND} has 32 bytes, not {len(value)}"):
        kind(value)


@given(kind=st.sampled_from(KINDS), text=st.text(max_size=80))
def test_other_text_is_refused(kind: type[Id], text: str) -> None:
    with pytest.raises(InvalidName, match=kind.KIND):
        kind.parse(text)


@pytest.mark.parametrize("kind", HEX_KINDS)
@pytest.mark.parametrize(
    "text",
    [
        "ab" * 32,
        "b3:" + "AB" * 32,
        "B3:" + "ab" * 32,
        "b3:" + "ab" * 31,
        "b3:" + "ab" * 33,
        "b3:b3:" + "ab" * 32,
        "b3:" + "ab" * 31 + "a\n",
        "b3:" + "ab" * 31 + " a",
        " b3:" + "ab" * 32,
    ],
)
def test_an_id_of_content_has_one_spelling(kind: type[Id], text: str) -> None:
    with pytest.raises(InvalidName):
        kind.parse(text)


@pytest.mark.parametrize("kind", BASE32_KINDS)
@pytest.mark.parametrize(
    "text",
    [
        "A" * 52,
        "a" * 51,
        "a" * 53,
        "a" * 51 + "b",  # spare bits that are not zero
        "a" * 51 + "1",
        "a" * 51 + "=",
        "a" * 52 + "====",
        "a" * 51 + "\n",
        "a" * 51 + "ſ",  # its upper case is S
        "b3:" + "00" * 32,
    ],
)
def test_an_id_of_a_key_holder_has_one_spelling(kind: type[Id], text: str) -> None:
    with pytest.raises(InvalidName):
        kind.parse(text)


def test_a_base32_id_fits_a_dns_label() -> None:
    assert len(str(NamespaceId(b"\xff" * 32))) == 52 <= 63


def test_a_commit_is_the_first_40_hex_digits_of_a_revision() -> None:
    assert ManifestId(bytes(range(32))).commit == "000102030405060708090a0b0c0d0e0f10111213"


def test_a_repr_says_which_kind_of_id_it_is() -> None:
    assert repr(ContentId(bytes(32))) == f"ContentId(b3:{'00' * 32})"
    assert repr(NodeId(bytes(32))) == f"NodeId({'a' * 52})"


RIGHT = str(NamespaceId(bytes(range(32))))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (RIGHT[:-1], "which has 52 characters: this has 51"),
        (RIGHT + "a", "which has 52 characters: this has 53"),
        (RIGHT[:40] + "8" + RIGHT[41:], "the digits 2 to 7: this has '8'"),
        ("01" + RIGHT[2:], "this has '0', '1'"),
        (RIGHT[:-1] + "b", "ends in 'a' or 'q': this ends in 'b'"),
        (RIGHT.upper(), "in lower case"),
        (RIGHT, None),
        ("bob", None),
        ("lab.example", None),
        ("the-best-petname-that-is-nearly-as-long-as-an-id-is", None),
        ("ä" * 52, None),
    ],
)
@pytest.mark.parametrize("kind", BASE32_KINDS)
def test_what_was_meant_for_an_id_is_told_what_is_wrong_with_it(kind: type[Id], text: str, said: str | None) -> None:
    hint = misspelling(text)

    assert hint is None if said is None else said in (hint or "")
    if text != RIGHT:
        with pytest.raises(InvalidName) as failure:
            kind.parse(text)
        assert failure.value.hint == hint
