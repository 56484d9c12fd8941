"""Hundreds of pickers together, whose finishing times are compared with the least that is possible."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from p2phub.testing.swarmsim import SEED, Line, Swarm, bound_s

MIB = 1024 * 1024

Lines = Callable[[random.Random, int], tuple[Line, list[Line]]]


def name(parameter: object) -> str:
    return str(getattr(parameter, "__name__", parameter))


def slow_seed(rng: random.Random, count: int) -> tuple[Line, list[Line]]:
    """The seed's uplink is what all wait for: F / u_seed."""
    return Line(4 * MIB, 8 * MIB), [Line(rng.uniform(4, 12) * MIB, rng.uniform(20, 60) * MIB) for _ in range(count)]


def slow_uplinks(rng: random.Random, count: int) -> tuple[Line, list[Line]]:
    """All uplinks together are: N F / Σ u."""
    ups = [rng.choice([1, 2, 4, 10]) * MIB for _ in range(count)]
    return Line(20 * MIB, 20 * MIB), [Line(up, rng.uniform(20, 60) * MIB) for up in ups]


def one_slow_downlink(rng: random.Random, count: int) -> tuple[Line, list[Line]]:
    """The slowest downlink is: F / d_min."""
    lines = [Line(rng.uniform(8, 16) * MIB, rng.uniform(20, 60) * MIB) for _ in range(count)]
    lines[0] = Line(lines[0].up, 1 * MIB)
    return Line(20 * MIB, 20 * MIB), lines


def home_lines(rng: random.Random, count: int) -> tuple[Line, list[Line]]:
    """Uplinks of which a chunk takes many seconds."""
    return Line(20 * MIB, 20 * MIB), [Line(rng.uniform(0.25, 0.5) * MIB, rng.uniform(1, 2) * MIB) for _ in range(count)]


def finish(lines: Lines, count: int, chunks: int, *, seed: int) -> tuple[Swarm, float]:
    """Run a swarm; returns it, and when the last finished in multiples of the bound."""
    seed_line, others = lines(random.Random(seed), count)
    sizes = [MIB] * chunks
    swarm = Swarm(seed_line, others, sizes, seed=seed)
    swarm.run()
    bound = bound_s(seed_line, others, sum(sizes))
    times = sorted(swarm.finished.values())
    print(
        f"{count} × {chunks} MiB, {lines.__name__}, seed {seed}: of {bound:.1f} s"
        f" the first took {times[0] / bound:.2f}, half {times[count // 2] / bound:.2f}, all {times[-1] / bound:.2f};"
        f" the seed sent {swarm.copies_sent:.2f} copies, {swarm.wasted:.1%} were wasted"
    )
    # A swarm that is faster than possible would be a wrong simulation.
    assert times[-1] >= bound
    assert len(times) == count
    assert swarm.late == 0
    return swarm, times[-1] / bound


# Measured over some seeds: up to 1.17 and 1.30. Most of it is the start, when nobody has anything to give yet.
@pytest.mark.parametrize(("lines", "factor"), [(slow_seed, 1.25), (slow_uplinks, 1.4)], ids=name)
def test_two_hundred_downloaders_finish_near_the_bound(lines: Lines, factor: float) -> None:
    swarm, last = finish(lines, 200, 80, seed=1)

    assert last < factor
    assert swarm.wasted < 0.05


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("lines", "factor"),
    [(slow_seed, 1.3), (slow_uplinks, 1.5), (one_slow_downlink, 1.1), (home_lines, 1.9)],
    ids=name,
)
def test_they_do_whatever_chance_says(lines: Lines, factor: float, seed: int) -> None:
    swarm, last = finish(lines, 24, 100, seed=seed)

    assert last < factor
    assert swarm.wasted < 0.05


def test_in_a_longer_download_the_start_and_the_end_count_for_less() -> None:
    swarm, last = finish(slow_seed, 30, 150, seed=5)

    assert last < 1.1
    assert swarm.copies_sent < 1.1


def test_a_seed_that_leaves_when_there_is_one_copy_is_not_needed_any_more() -> None:
    seed_line, lines = slow_seed(random.Random(3), 40)
    swarm = Swarm(seed_line, lines, [MIB] * 60, seed=3)
    left_at = None

    def leave_when_copied() -> None:
        nonlocal left_at
        if swarm.is_copied:
            left_at = swarm.now
            assert not swarm.finished
            swarm.leave(SEED)
        else:
            swarm.after(0.05, leave_when_copied)

    swarm.after(0, leave_when_copied)
    swarm.run()

    assert len(swarm.finished) == 40
    assert left_at is not None
    assert swarm.copies_sent < 1.2


def test_when_a_third_leaves_in_the_middle_the_others_hardly_notice() -> None:
    seed_line, lines = slow_uplinks(random.Random(4), 60)
    swarm = Swarm(seed_line, lines, [MIB] * 80, seed=4)
    leaving = random.Random(4).sample(range(1, 61), 20)

    def leave() -> None:
        for number in leaving:
            swarm.leave(number)

    swarm.after(bound_s(seed_line, lines, swarm.size) / 2, leave)
    swarm.run()

    staying = [line for number, line in enumerate(lines, 1) if number not in leaving]
    assert len(swarm.finished) == 40
    assert not set(swarm.finished) & set(leaving)
    # As if nobody had been there before, at worst.
    bound = bound_s(seed_line, staying, swarm.size)
    assert max(swarm.finished.values()) < 1.5 * bound + bound_s(seed_line, lines, swarm.size) / 2


def test_one_seed_of_chance_gives_one_run() -> None:
    runs = [finish(slow_uplinks, 20, 30, seed=seed)[0] for seed in (1, 1, 2)]

    assert runs[0].trace == runs[1].trace != runs[2].trace
    assert runs[0].finished == runs[1].finished


def test_no_line_carries_more_than_it_can() -> None:
    seed_line, lines = slow_uplinks(random.Random(0), 30)
    swarm = Swarm(seed_line, lines, [MIB] * 40, seed=0)
    swarm.run()

    for number, line in enumerate([seed_line, *lines]):
        assert swarm.hosts[number].sent <= line.up * swarm.now + MIB
        if number:
            assert swarm.finished[number] >= swarm.size / line.down
