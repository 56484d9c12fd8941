"""What tests of the picker share: pickers of chunks of 1 MiB, and providers that answer."""

from __future__ import annotations

import random
from collections.abc import Iterable

from p2phub.protocol.picker import RANDOM_FIRST, Picker, Request

MIB = 1024 * 1024


def make(count: int, *, size: int = MIB, missing: Iterable[int] | None = None, seed: int = 0) -> Picker[str]:
    wanted = range(count) if missing is None else missing
    return Picker([size] * count, wanted, rng=random.Random(seed))


def offers(count: int, offered: Iterable[int]) -> bytes:
    held = bytearray(count)
    for chunk in offered:
        held[chunk] = 1
    return bytes(held)


def ask(picker: Picker[str], provider: str, now: float = 0.0) -> Request[str]:
    request = picker.next_request(provider, now)
    assert request is not None
    return request


def answer(picker: Picker[str], request: Request[str], now: float, *, chunks: Iterable[int] | None = None) -> None:
    """Let `chunks` (all, if not given) arrive at `now`, and end the request if those are all."""
    for chunk in request.chunks if chunks is None else chunks:
        picker.chunk_arrived(request, chunk, now)
    if chunks is None:
        picker.request_ended(request)


def finish_alone(picker: Picker[str], provider: str, now: float = 0.0) -> list[Request[str]]:
    """Let `provider` answer all it is asked, and return what that was."""
    requests = []
    while request := picker.next_request(provider, now):
        now += 0.1
        answer(picker, request, now)
        requests.append(request)
    return requests


def past_the_random_first(picker: Picker[str], chunks: Iterable[int]) -> None:
    """Let so many requests be made, and one chunk of `chunks` found for each, that the rarest go first."""
    taken = list(chunks)
    picker.set_offer("first", offers(len(picker._sizes), taken))
    for _ in range(RANDOM_FIRST):
        answer(picker, ask(picker, "first"), 0.0)
    picker.remove_provider("first")


def set_rate(picker: Picker[str], provider: str, rate: float) -> None:
    picker._providers[provider].rate.value = rate


def slow_and_fast(count: int = 4) -> tuple[Picker[str], Request[str]]:
    """Return a picker whose last chunks were asked of `slow` at 0 s, with `fast` known to be fast."""
    picker = make(count + 1, missing=range(count))
    picker.set_offer("slow", None)
    set_rate(picker, "slow", MIB)
    request = ask(picker, "slow")
    while picker.next_request("slow", 0.0):
        pass
    picker.set_offer("fast", None)
    set_rate(picker, "fast", 100 * MIB)
    return picker, request
