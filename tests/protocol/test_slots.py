"""Who is sent content now, and who waits."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from p2phub.protocol.slots import BACKGROUND_SLOTS, RATE_EACH, SLOTS, SLOTS_EACH, Slots, Turn, slots_at


def ask(slots: Slots, *askers: str, link: str = "internet", background: bool = False) -> list[Turn]:
    return [slots.ask(link, asker, background=background) for asker in askers]  # type: ignore[arg-type]


def test_there_are_so_many_places_and_no_more() -> None:
    slots = Slots()
    turns = ask(slots, *(f"asker {number}" for number in range(SLOTS)), "late")

    assert slots.start() == turns[:SLOTS]
    slots.leave(turns[3])
    assert slots.start() == turns[SLOTS:]
    assert slots.count == SLOTS


def test_nobody_holds_all_places() -> None:
    slots = Slots()
    greedy = ask(slots, *["greedy"] * SLOTS)

    assert slots.start() == greedy[:SLOTS_EACH]
    modest = ask(slots, "modest")
    assert slots.start() == modest


def test_who_holds_the_fewest_goes_first_and_else_who_came_first() -> None:
    slots = Slots()
    first = ask(slots, *["greedy"] * 5, *["other"] * 3)
    slots.start()
    waiting = ask(slots, "greedy", "other", "new", "newer", "new")
    order = []
    for turn in first[:5]:
        slots.leave(turn)
        order += slots.start()

    assert [turn.asker for turn in order] == ["new", "newer", "new", "greedy", "other"]
    assert set(order) == set(waiting)


def test_who_stops_waiting_takes_nothing() -> None:
    slots = Slots()
    turns = ask(slots, *(f"asker {number}" for number in range(SLOTS)), "gone", "next")
    slots.start()
    slots.leave(turns[SLOTS])
    slots.leave(turns[0])

    assert slots.start() == turns[SLOTS + 1 :]


def test_a_low_limit_is_shared_by_few() -> None:
    assert slots_at(None) == SLOTS
    assert slots_at(1) == 1
    assert slots_at(3 * RATE_EACH) == 3
    slots = Slots()
    slots.set_limit("internet", 2)
    turns = ask(slots, "a", "b", "c")
    near = ask(slots, "d", link="lan")

    assert slots.start() == [turns[0], turns[1], *near]


def test_the_background_waits_for_the_foreground() -> None:
    slots = Slots()
    behind = ask(slots, *(f"asker {number}" for number in range(SLOTS)), background=True)

    assert slots.start() == behind[:BACKGROUND_SLOTS]
    front = ask(slots, *(f"front {number}" for number in range(SLOTS)))
    assert slots.start() == front[: SLOTS - BACKGROUND_SLOTS]
    slots.leave(behind[0])
    assert slots.start() == front[SLOTS - BACKGROUND_SLOTS : SLOTS - BACKGROUND_SLOTS + 1]


def test_a_limit_that_is_lifted_lets_in_who_waits() -> None:
    slots = Slots()
    slots.set_limit("internet", 1)
    turns = ask(slots, "a", "b")
    assert slots.start() == turns[:1]
    slots.set_limit("internet", SLOTS)

    assert slots.start() == turns[1:]


def test_beside_the_foreground_there_is_one_in_the_background() -> None:
    slots = Slots()
    front = ask(slots, "front")
    behind = ask(slots, "behind", "behind too", background=True)
    elsewhere = ask(slots, "elsewhere", link="lan", background=True)

    assert slots.start() == [*front, behind[0], *elsewhere]
    slots.leave(front[0])
    assert slots.start() == [behind[1]]


def test_the_background_takes_no_place_that_the_foreground_waits_for() -> None:
    slots = Slots()
    slots.set_limit("internet", 1)
    first, front = ask(slots, "first", "front")
    slots.start()
    (behind,) = ask(slots, "behind", background=True)
    assert slots.start() == []
    slots.leave(front)
    assert slots.start() == [behind]
    slots.leave(first)


def test_who_waits_because_he_holds_too_many_keeps_nobody_out() -> None:
    slots = Slots()
    greedy = ask(slots, *["greedy"] * (SLOTS_EACH + 1))
    assert slots.start() == greedy[:SLOTS_EACH]
    behind = ask(slots, "behind", background=True)

    assert slots.start() == behind


@pytest.mark.parametrize("seed", range(5))
def test_however_they_come_and_go_all_are_served_and_the_limits_kept(seed: int) -> None:
    rng = random.Random(seed)
    slots = Slots()
    waiting: list[Turn] = []
    running: list[Turn] = []
    served: Counter[str] = Counter()
    for _ in range(2000):
        if rng.random() < 0.5:
            waiting += ask(slots, f"asker {rng.randrange(3)}", background=rng.random() < 0.3)
        elif running and rng.random() < 0.9:
            slots.leave(running.pop(rng.randrange(len(running))))
        elif waiting:
            slots.leave(waiting.pop(rng.randrange(len(waiting))))
        for turn in slots.start():
            waiting.remove(turn)
            running.append(turn)
            served[turn.asker] += 1
        assert slots.count == len(running) <= SLOTS
        assert max(Counter(turn.asker for turn in running).values(), default=0) <= SLOTS_EACH

    assert min(served.values()) > 100
