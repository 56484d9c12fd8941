from __future__ import annotations

import random
from collections import Counter

import pytest
import trio
import trio.testing

from p2phub.node.slots import UPLOAD_SLOTS, UPLOAD_SLOTS_EACH, UploadSlots


async def test_there_are_so_many_places_and_no_more():
    slots = UploadSlots()
    for number in range(UPLOAD_SLOTS):
        await slots.acquire(f"asker {number}")
    with trio.move_on_after(0.05) as waiting:
        await slots.acquire("late")
    assert waiting.cancelled_caught
    assert slots.taken == UPLOAD_SLOTS

    slots.release("asker 3")
    await slots.acquire("late")

    assert slots.taken == UPLOAD_SLOTS


async def test_nobody_holds_all_places():
    slots = UploadSlots()
    for _ in range(UPLOAD_SLOTS_EACH):
        await slots.acquire("greedy")
    with trio.move_on_after(0.05) as waiting:
        await slots.acquire("greedy")
    assert waiting.cancelled_caught

    with trio.fail_after(5):
        await slots.acquire("modest")


async def test_who_holds_the_fewest_goes_first_and_else_who_came_first():
    slots = UploadSlots()
    order: list[str] = []
    for asker in ["greedy"] * 5 + ["other"] * 3:
        await slots.acquire(asker)

    async def wait(asker: str) -> None:
        await slots.acquire(asker)
        order.append(asker)

    async with trio.open_nursery() as nursery:
        for asker in ("greedy", "other", "new", "newer", "new"):
            nursery.start_soon(wait, asker)
            await trio.testing.wait_all_tasks_blocked()
        for _ in range(5):
            slots.release("greedy")
            await trio.testing.wait_all_tasks_blocked()

    assert order == ["new", "newer", "new", "greedy", "other"]


async def test_who_stops_waiting_takes_nothing():
    slots = UploadSlots()
    for number in range(UPLOAD_SLOTS):
        await slots.acquire(f"asker {number}")
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slots.acquire, "gone")
            await trio.testing.wait_all_tasks_blocked()
            # Granted before it notices that it is cancelled.
            scope.cancel()
            slots.release("asker 0")

    assert slots.taken == UPLOAD_SLOTS - 1
    with trio.fail_after(5):
        await slots.acquire("next")


@pytest.mark.parametrize("seed", range(5))
async def test_however_they_come_and_go_all_are_served_and_the_limits_kept(seed):
    slots, held, served = UploadSlots(), Counter(), Counter()
    rng = random.Random(seed)

    async def ask(asker: str) -> None:
        await trio.sleep(rng.random() * 0.05)
        with trio.move_on_after(rng.choice([0.001, 1000])):
            await slots.acquire(asker)
            held[asker] += 1
            assert held.total() <= UPLOAD_SLOTS
            assert held[asker] <= UPLOAD_SLOTS_EACH
            try:
                await trio.sleep(rng.random() * 0.005)
            finally:
                held[asker] -= 1
                slots.release(asker)
            served[asker] += 1

    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(ask, f"asker {number % 3}")

    assert slots.taken == 0
    assert min(served.values()) > 10
