from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2phub.protocol.bucket import BACKGROUND_RATE, BACKGROUND_SHARE, BURST_MIN, BURST_S, Bucket

RATE = 1_000_000  # bytes a second
PIECE = 10_000  # bytes


class Sender:
    """Takes a piece, waits for it, and takes the next, as long as it is asked to."""

    def __init__(self, bucket: Bucket, *, background: bool = False) -> None:
        self.bucket = bucket
        self.background = background
        self.sent = 0  # bytes
        self.mark: float | None = None

    def run(self, now: float) -> None:
        """Send all that may be sent at the time `now`."""
        while True:
            if self.mark is None:
                self.mark = self.bucket.take(PIECE, now, background=self.background)
            if self.bucket.wait_s(self.mark, now, background=self.background) > 0:
                return
            self.sent += PIECE
            self.mark = None


def run(senders: list[Sender], begin: float, end: float) -> list[int]:
    """Run `senders` from `begin` to `end` (seconds); returns the bytes that each sent in that time."""
    before = [sender.sent for sender in senders]
    for step in range(int(begin * 1000), int(end * 1000)):
        for sender in senders:
            sender.run(step / 1000)
    return [sender.sent - sent for sender, sent in zip(senders, before, strict=True)]


@pytest.mark.parametrize("background", [False, True])
def test_one_sender_gets_the_rate_and_no_more(background: bool) -> None:
    bucket = Bucket(RATE, 0.0)
    (sent,) = run([Sender(bucket, background=background)], 0.0, 10.0)

    assert sent == pytest.approx(10 * RATE, rel=0.03)


def test_senders_share_alike() -> None:
    bucket = Bucket(RATE, 0.0)
    senders = [Sender(bucket) for _ in range(4)]
    run(senders, 0.0, 1.0)  # what passes at once at first is whose who comes first
    sent = run(senders, 1.0, 11.0)

    assert sum(sent) == pytest.approx(10 * RATE, rel=0.03)
    assert max(sent) - min(sent) <= 2 * PIECE


def test_the_background_alone_has_all_of_the_rate_from_the_beginning_and_while_it_grows() -> None:
    bucket = Bucket(RATE, 0.0)
    sender = Sender(bucket, background=True)
    (first,) = run([sender], 0.0, 0.1)
    sent, wanted, rate = 0, 0.0, float(RATE)
    for tenth in range(1, 11):
        rate *= 1.5
        bucket.set_rate(int(rate), tenth / 10)
        wanted += rate / 10
        sent += run([sender], tenth / 10, (tenth + 1) / 10)[0]

    assert first >= 0.8 * RATE / 10
    assert sent == pytest.approx(wanted, rel=0.05)


def test_the_background_gets_a_small_share_beside_the_foreground_and_all_without() -> None:
    bucket = Bucket(RATE, 0.0)
    foreground, background = Sender(bucket), Sender(bucket, background=True)
    alone = run([background], 0.0, 5.0)[0]
    before, behind = run([foreground, background], 5.0, 15.0)
    again = run([background], 16.0, 20.0)[0]

    assert alone == pytest.approx(5 * RATE, rel=0.05)
    assert behind == pytest.approx(10 * RATE * BACKGROUND_SHARE, rel=0.1)
    assert before == pytest.approx(10 * RATE * (1 - BACKGROUND_SHARE), rel=0.05)
    assert again == pytest.approx(4 * RATE, rel=0.1)


def test_the_background_gets_enough_of_a_low_limit_to_arrive_in_time() -> None:
    bucket = Bucket(100_000, 0.0)
    before, behind = run([Sender(bucket), Sender(bucket, background=True)], 0.0, 60.0)

    assert behind / 60 == pytest.approx(BACKGROUND_RATE, rel=0.1)
    assert before / 60 == pytest.approx(100_000 - BACKGROUND_RATE, rel=0.1)


def test_after_a_pause_no_more_than_a_burst_passes_at_once() -> None:
    bucket = Bucket(RATE, 0.0)
    sender = Sender(bucket)
    run([sender], 0.0, 1.0)
    before = sender.sent
    sender.run(3600.0)

    assert sender.sent - before <= max(RATE * BURST_S, BURST_MIN) + 2 * PIECE


def test_a_new_rate_holds_for_what_waits() -> None:
    bucket = Bucket(1000, 0.0)
    bucket.take(BURST_MIN, 0.0)
    mark = bucket.take(10_000, 0.0)
    wait_s = bucket.wait_s(mark, 0.0)
    bucket.set_rate(100_000, 0.0)

    assert bucket.wait_s(mark, 0.0) < wait_s / 50


def test_what_is_given_back_is_there_for_others() -> None:
    bucket = Bucket(1000, 0.0)
    bucket.take(1_000_000, 0.0)
    mark = bucket.take(1000, 0.0)
    waiting = bucket.wait_s(mark, 0.0)
    bucket.give_back(1_000_000)

    assert waiting > 900
    assert bucket.wait_s(mark, 0.0) <= 1


@given(
    st.lists(st.tuples(st.integers(1, 100_000), st.floats(0, 2), st.booleans()), min_size=1, max_size=40),
    st.integers(1000, 10**7),
)
def test_never_more_passes_than_the_rate_and_a_burst_of_each_kind_allow(takes, rate) -> None:
    bucket = Bucket(rate, 0.0)
    now, passed = 0.0, 0
    for size, pause_s, background in takes:
        now += pause_s
        mark = bucket.take(size, now, background=background)
        for _ in range(10_000):
            wait_s = bucket.wait_s(mark, now, background=background)
            if wait_s == 0:
                break
            now += max(wait_s, 1e-3)
        else:
            raise AssertionError("it waits for ever")
        passed += size

    assert passed <= rate * now + 2 * max(rate * BURST_S, BURST_MIN) + 1
