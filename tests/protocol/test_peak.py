from __future__ import annotations

from p2phub.protocol.peak import MEMORY_S, Peak


def fill(peak: Peak, begin: float, seconds: float, rate: float) -> None:
    for step in range(int(seconds * 10)):
        peak.note(int(rate / 10), begin + step / 10)


def test_the_highest_rate_is_remembered_for_a_while() -> None:
    peak = Peak()
    fill(peak, 0.0, 10.0, 5_000)
    fill(peak, 10.0, 10.0, 1_000)
    soon = peak.rate(20.0)
    later = peak.rate(20.0 + MEMORY_S * 0.9)
    fill(peak, 400.0, 10.0, 1_000)
    fill(peak, 800.0, 10.0, 1_000)

    assert 4_000 < soon < 6_000
    assert later == soon
    assert 800 < peak.rate(820.0) < 1_200


def test_a_long_silence_forgets_it() -> None:
    peak = Peak()
    fill(peak, 0.0, 10.0, 5_000)

    assert peak.rate(3 * MEMORY_S) < 100


def test_one_burst_is_no_rate() -> None:
    peak = Peak()
    peak.note(1_000_000, 100.0)

    assert peak.rate(100.1) < 100_000
