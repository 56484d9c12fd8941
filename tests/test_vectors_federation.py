"""The vectors of federations hold for the code, and whatever comes in is refused as invalid or read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2phub.core.errors import InvalidData, InvalidName
from p2phub.core.federation import (
    Agreement,
    Charter,
    format_invitation,
    in_force,
    open_agreement,
    open_charter,
    open_offer,
    parse_invitation,
    secret_digest,
    terms_digest,
)
from p2phub.core.terms import Terms
from p2phub.testing.values import TIME
from p2phub.testing.vectors.plain import plain

VECTORS: Any = json.loads((Path(__file__).parent.parent / "spec/vectors/federation.json").read_text())
OPENERS: tuple[tuple[str, Callable[[bytes], Any]], ...] = (
    ("charter", open_charter),
    ("dissolved", open_charter),
    ("agreement", open_agreement),
    ("leaving", open_agreement),
    ("offer", open_offer),
)


def charter() -> Charter:
    return open_charter(bytes.fromhex(VECTORS["charter"]["encoded"]))


def agreement() -> Agreement:
    return open_agreement(bytes.fromhex(VECTORS["agreement"]["encoded"]))


@pytest.mark.parametrize(("name", "open_"), OPENERS)
def test_what_is_right_is_read(name, open_):
    assert plain(open_(bytes.fromhex(VECTORS[name]["encoded"]))) == VECTORS[name]["value"]


def test_ids_and_digests():
    assert str(charter().id) == VECTORS["federation"]
    assert terms_digest(charter().terms).hex() == VECTORS["terms_digest"]
    assert agreement().terms == terms_digest(charter().terms)


def test_an_invitation_as_text():
    invitation = parse_invitation(VECTORS["invitation"]["text"])

    assert plain(invitation) == VECTORS["invitation"]["value"]
    assert format_invitation(invitation) == VECTORS["invitation"]["text"]
    assert secret_digest(invitation.secret).hex() == VECTORS["secret_digest"]
    # A mail program may have broken the line.
    broken = "\n".join(VECTORS["invitation"]["text"][at : at + 60] for at in range(0, 2000, 60))
    assert parse_invitation(broken) == invitation


@pytest.mark.parametrize("case", VECTORS["invalid_charters"], ids=lambda case: case["why"])
def test_a_charter_that_is_refused(case):
    with pytest.raises(InvalidData):
        open_charter(bytes.fromhex(case["encoded"]))


@pytest.mark.parametrize("case", VECTORS["invalid_agreements"], ids=lambda case: case["why"])
def test_a_word_that_is_refused(case):
    with pytest.raises(InvalidData):
        open_agreement(bytes.fromhex(case["encoded"]))


@given(st.sampled_from(OPENERS), st.data())
def test_whatever_was_changed_on_the_way_is_refused(opener, data):
    name, open_ = opener
    whole = bytearray.fromhex(VECTORS[name]["encoded"])
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))

    with pytest.raises(InvalidData):
        open_(bytes(whole))


@given(st.binary(max_size=300), st.text(max_size=100))
def test_any_bytes_and_any_text_are_refused(data, text):
    for _, open_ in OPENERS:
        with pytest.raises(InvalidData):
            open_(data)
    for tried in (text, "p2phub-invite:" + text):
        with pytest.raises(InvalidName):
            parse_invitation(tried)


@pytest.mark.parametrize(
    ("changed", "counts"),
    [
        ({}, True),
        ({"terms": None}, False),
        ({"terms": terms_digest(Terms())}, False),
        ({"expires": TIME + 100}, False),
        ({"federation": "other"}, False),
    ],
)
def test_who_counts(changed, counts):
    word = agreement()
    if "federation" in changed:
        changed = {"federation": msgspec.structs.replace(charter(), name="bees").id}
    word = msgspec.structs.replace(word, **changed)

    found = in_force(charter(), [word], TIME + 200)
    assert (word.namespace in found) == counts
    assert in_force(charter(), [word], charter().expires) == {}
    gone = msgspec.structs.replace(charter(), version=3, members=())
    assert in_force(gone, [word], TIME + 200) == {}
