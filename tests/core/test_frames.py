import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2phub.core.errors import InvalidData
from p2phub.core.frames import FRAME_SIZE_MAX, HEADER_SIZE, OVERHEAD, Opener, Sealer, plaintext_size

KEY = bytes(range(16))
messages = st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=6)


def opened(opener: Opener, frame: bytes) -> bytes:
    size = plaintext_size(frame[:HEADER_SIZE])
    plaintext = bytearray(size)
    opener.open_into(frame[:HEADER_SIZE], memoryview(frame[HEADER_SIZE:]), memoryview(plaintext))
    return bytes(plaintext)


def sealed(texts: list[bytes], key: bytes = KEY) -> list[bytes]:
    sealer = Sealer(key)
    return [sealer.seal(text) for text in texts]


@given(messages)
def test_frames_open_in_order(texts):
    opener = Opener(KEY)

    assert [opened(opener, frame) for frame in sealed(texts)] == texts


def test_the_largest_frame_opens():
    text = bytes(FRAME_SIZE_MAX)

    assert opened(Opener(KEY), sealed([text])[0]) == text


@given(messages, st.integers(0, 5))
def test_a_replayed_frame_does_not_open(texts, which):
    frames = sealed(texts)
    opener = Opener(KEY)
    for frame in frames:
        opened(opener, frame)

    with pytest.raises(InvalidData):
        opened(opener, frames[which % len(frames)])


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=2, max_size=6), st.data())
def test_a_frame_opens_only_at_its_own_place(texts, data):
    frames = sealed(texts)
    order = data.draw(st.permutations(range(len(frames))).filter(lambda order: order != sorted(order)))
    opener = Opener(KEY)
    wrong = next(turn for turn, place in enumerate(order) if place != turn)
    for place in order[:wrong]:
        opened(opener, frames[place])

    with pytest.raises(InvalidData):
        opened(opener, frames[order[wrong]])


@given(messages, st.data())
def test_any_changed_bit_is_noticed(texts, data):
    frame = bytearray(sealed(texts[:1])[0])
    bit = data.draw(st.integers(0, 8 * len(frame) - 1))
    frame[bit // 8] ^= 1 << bit % 8

    with pytest.raises((InvalidData, ValueError)):
        opened(Opener(KEY), bytes(frame))


@given(st.binary(min_size=2, max_size=200), st.data())
def test_a_shortened_frame_does_not_open(text, data):
    frame = sealed([text])[0]
    size = data.draw(st.integers(1, len(text) - 1))
    shorter = size.to_bytes(HEADER_SIZE, "big") + frame[HEADER_SIZE : size + OVERHEAD]

    with pytest.raises(InvalidData):
        opened(Opener(KEY), shorter)


@given(messages)
def test_a_frame_of_the_other_direction_does_not_open(texts):
    with pytest.raises(InvalidData):
        opened(Opener(bytes(16)), sealed(texts)[0])


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=2, max_size=6))
def test_a_frame_from_another_connection_cannot_be_spliced_in(texts):
    ours, theirs = sealed(texts), sealed(texts, key=bytes(16))
    opener = Opener(KEY)
    opened(opener, ours[0])

    with pytest.raises(InvalidData):
        opened(opener, theirs[1])


def test_equal_plaintexts_never_give_equal_frames():
    frames = sealed([b"the same"] * 100)

    assert len(set(frames)) == 100


@pytest.mark.parametrize("size", [0, FRAME_SIZE_MAX + 1, 2**32 - 1])
def test_a_frame_out_of_bounds_is_refused_by_its_header(size):
    with pytest.raises(InvalidData, match="the limit is"):
        plaintext_size(size.to_bytes(HEADER_SIZE, "big"))
