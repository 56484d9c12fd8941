from __future__ import annotations

from contextlib import ExitStack

from p2phub.net.buffers import KEPT_MAX, Buffers


def test_two_at_once_have_a_buffer_each_and_one_after_the_other_the_same() -> None:
    buffers = Buffers(1000)
    with buffers.lend() as first, buffers.lend() as second:
        first[:] = b"1" * 1000
        second[:] = b"2" * 1000

        assert bytes(first) == b"1" * 1000
    with buffers.lend() as third:
        assert third is first or third is second


def test_what_was_lent_in_a_rush_is_not_kept_for_ever() -> None:
    buffers = Buffers(1000)
    with ExitStack() as stack:
        for _ in range(3 * KEPT_MAX):
            stack.enter_context(buffers.lend())

    assert len(buffers._free) == KEPT_MAX
