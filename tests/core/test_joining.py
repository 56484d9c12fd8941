from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from p2phub.core import encoding
from p2phub.core.armor import armor, kind_of, unarmor
from p2phub.core.envelope import Envelope
from p2phub.core.errors import InvalidData, InvalidEncoding, InvalidSignature
from p2phub.core.joining import (
    PURPOSE,
    REQUEST_SIZE_MAX,
    KeyRequest,
    Secrets,
    make_answer,
    make_request,
    open_answer,
    open_request,
)
from p2phub.core.keybundle import KeyBundle, decode_bundle, encode_bundle
from p2phub.testing import values

KEY, OTHER = values.key("laptop"), values.key("other")
BOX, OTHER_BOX = values.recipient("request"), values.recipient("other request")
IDENTITY = values.whole_identity()
SECRETS = Secrets(values.companion("publisher").secret, (values.recipient("publisher").secret,))


# ── requests and answers ────────────────────────────────────────────────────


def test_a_request_says_whose_key_asks() -> None:
    request = open_request(make_request(KEY, BOX, now=values.TIME))

    assert request == KeyRequest(1, KEY.public_key, BOX.public_key, values.TIME)
    assert len(make_request(KEY, BOX, now=values.TIME)) < REQUEST_SIZE_MAX


def test_a_request_of_another_key_is_refused() -> None:
    payload = encoding.encode(KeyRequest(1, KEY.public_key, BOX.public_key, values.TIME))
    for signature in (OTHER.sign(PURPOSE, payload), KEY.sign("record", payload), bytes(64)):
        with pytest.raises(InvalidSignature):
            open_request(encoding.encode(Envelope(payload, signature)))


def test_a_request_to_encrypt_to_everybody_is_refused() -> None:
    payload = encoding.encode(KeyRequest(1, KEY.public_key, bytes(32), values.TIME))
    with pytest.raises(InvalidSignature, match="small order"):
        open_request(encoding.encode(Envelope(payload, KEY.sign(PURPOSE, payload))))


def test_only_who_asked_reads_the_answer() -> None:
    request = open_request(make_request(KEY, BOX, now=values.TIME))
    answer = make_answer(IDENTITY, request, SECRETS)

    assert open_answer(answer, KEY.public_key, BOX) == (IDENTITY, SECRETS)
    assert SECRETS.recipients[0] not in answer
    for key, box in ((KEY, OTHER_BOX), (OTHER, BOX)):
        with pytest.raises(InvalidData, match="not for this machine"):
            open_answer(answer, key.public_key, box)


def test_secrets_that_the_identity_does_not_name_are_refused() -> None:
    request = open_request(make_request(KEY, BOX, now=values.TIME))
    for wrong in (
        replace(SECRETS, companion=values.companion("x").secret),
        replace(SECRETS, companion=bytes(32)),
        replace(SECRETS, recipients=(values.recipient("x").secret,)),
    ):
        with pytest.raises(InvalidData):
            open_answer(make_answer(IDENTITY, request, wrong), KEY.public_key, BOX)


@given(st.binary(max_size=300))
def test_noise_is_no_request_and_no_answer(noise: bytes) -> None:
    with pytest.raises(InvalidData):
        open_request(noise)
    with pytest.raises(InvalidData):
        open_answer(noise, KEY.public_key, BOX)


# ── bundles ─────────────────────────────────────────────────────────────────


def test_keys_travel_and_come_back() -> None:
    for bundle in (KeyBundle(1, (KEY.seed,)), KeyBundle(1, (KEY.seed, OTHER.seed), IDENTITY.chain, SECRETS)):
        again = decode_bundle(encode_bundle(bundle))

        assert again == bundle
        assert [key.public_key for key in again.signers] == [KEY.public_key, OTHER.public_key][: len(bundle.seeds)]


def test_keys_are_in_no_text() -> None:
    bundle = KeyBundle(1, (KEY.seed,), IDENTITY.chain, SECRETS)
    for text in (repr(bundle), str(bundle), repr(SECRETS), repr([bundle]), f"{SECRETS}"):
        for secret in (KEY.seed, SECRETS.recipients[0]):
            assert repr(secret)[2:-1] not in text
            assert secret.hex() not in text


def test_what_is_wrong_with_keys_is_said_without_them() -> None:
    data = encode_bundle(KeyBundle(1, (KEY.seed,), IDENTITY.chain, SECRETS))
    for wrong in (data[:-1], data + b"\0", data.replace(KEY.seed, KEY.seed[:-1] + b"\xff" * 2), b""):
        with pytest.raises(InvalidData) as caught:
            decode_bundle(wrong)
        assert caught.value.__cause__ is None
        assert repr(KEY.seed)[2:20] not in repr(caught.value)
    with pytest.raises(InvalidData, match="no identity that names them"):
        decode_bundle(encode_bundle(KeyBundle(1, (KEY.seed,), (), SECRETS)))


# ── words ───────────────────────────────────────────────────────────────────


@given(st.binary(max_size=200))
def test_a_word_comes_back_however_it_was_broken(data: bytes) -> None:
    word = armor("request", data)

    assert kind_of(word) == "request"
    assert unarmor("request", word, size_max=200) == data
    assert unarmor("request", f" {word[:20]}\r\n\t{word[20:]} \n", size_max=200) == data


@pytest.mark.parametrize("word", [
    "", "p2phub-answer-1:AAAA", "p2phub-request-2:AAAA", "AAAA", "p2phub-request-1:AAAAA", "p2phub-request-1:AAB",
    "p2phub-request-1:AAAA=", "p2phub-request-1:AA+/", "p2phub-request-1:AA\N{LATIN SMALL LETTER E WITH ACUTE}A",
    "p2phub-request-1:" + "A" * 400,
])  # fmt: skip
def test_what_is_no_word_is_refused_and_not_repeated(word: str) -> None:
    with pytest.raises(InvalidEncoding) as caught:
        unarmor("request", word, size_max=200)
    assert not word or word.partition(":")[2] not in str(caught.value) or not word.partition(":")[2]
