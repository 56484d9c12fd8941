"""What neighbours say reads back as it was said, and fits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2phub.core import encoding
from p2phub.core.errors import InvalidData
from p2phub.core.ids import LogId, NodeId
from p2phub.protocol.gossip import WORD_MAX
from p2phub.protocol.messages import FRAME_SIZE_MAX
from p2phub.protocol.talk import Ask, Exchange, Leave, Push, Reply, Wanted, Word, open_talk, sign_talk
from p2phub.testing import values

KEY = values.key("node")
TO = NodeId(values.key("server").public_key)
RECORD = values.node_record()
NOW = float(RECORD.time)
WORD = Word(LogId(b"\xff" * 32), 2**53, 1000)


@pytest.mark.parametrize(
    "say", [Ask(), Ask(urgent=True), Leave(), Exchange(), Push((), (WORD, WORD))], ids=lambda say: repr(say)[:20]
)
def test_what_is_said_is_heard(say):
    heard = open_talk(sign_talk(say, KEY, TO, now=NOW), own=TO, now=NOW)

    assert (heard.node, heard.say, heard.record) == (KEY.public_key, say, None)


@given(st.data())
def test_a_changed_byte_is_not_heard(data):
    message = bytearray(sign_talk(Push((), (WORD,)), KEY, TO, now=NOW))
    message[data.draw(st.integers(0, len(message) - 1))] ^= data.draw(st.integers(1, 255))

    with pytest.raises(InvalidData):
        open_talk(bytes(message), own=TO, now=NOW)


def test_as_much_word_as_may_be_fits_a_message_and_its_answer():
    message = sign_talk(Push((), (WORD,) * WORD_MAX), KEY, TO, now=NOW)

    assert len(message) <= FRAME_SIZE_MAX
    wanted = tuple(Wanted(WORD_MAX - 1, 2**53) for _ in range(WORD_MAX))
    assert len(encoding.encode(Reply(True, (), True, True, wanted))) <= FRAME_SIZE_MAX


def test_what_does_not_fit_is_not_sent():
    with pytest.raises(InvalidData, match="the limit is 65536"):
        sign_talk(Exchange((bytes(60_000), bytes(10_000))), KEY, TO, now=NOW)
