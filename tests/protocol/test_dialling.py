"""A node follows few addresses that others name, and none of them again and again."""

from __future__ import annotations

from itertools import pairwise

from p2phub.protocol.dialling import HOLD_S, UNPROVEN, UNPROVEN_NETWORK, Dialling


def test_an_address_that_proved_nothing_is_left_alone_longer_each_time():
    dialling = Dialling()
    called = []
    for minute in range(7 * 24 * 60):
        if dialling.may_call("9.9.9.9", 443, minute * 60.0):
            called.append(minute * 60.0)
            dialling.failed("9.9.9.9", 443, minute * 60.0)
    waits = [then - now for now, then in pairwise(called)]

    assert waits[:4] == list(HOLD_S)
    assert len(called) < 12


def test_another_port_of_a_public_host_is_no_other_victim():
    dialling = Dialling()
    dialling.failed("9.9.9.9", 443, 0.0)

    assert not dialling.may_call("9.9.9.9", 80, 1.0)
    # On one machine, or behind one router, a port is a node of its own.
    dialling.failed("127.0.0.1", 443, 0.0)
    assert dialling.may_call("127.0.0.1", 80, 1.0)
    assert not dialling.may_call("127.0.0.1", 443, 1.0)


def test_a_thousand_records_that_name_one_network_cost_it_a_handful_of_calls():
    dialling = Dialling()
    calls = sum(dialling.may_call(f"9.9.9.{number % 250}", number, float(number) / 100) for number in range(1000))

    assert calls <= UNPROVEN_NETWORK.burst + 1


def test_calls_to_unproven_addresses_are_few_altogether():
    dialling = Dialling()
    calls = sum(
        dialling.may_call(f"9.{number // 250}.{number % 250}.1", 443, float(number) / 100) for number in range(5000)
    )

    assert calls <= UNPROVEN.burst + 50 * UNPROVEN.rate + 1


def test_a_proven_address_is_called_whenever_it_is_wanted():
    dialling = Dialling()
    assert dialling.may_call("9.9.9.9", 443, 0.0)
    dialling.proved("9.9.9.9", 443, 0.0)
    for number in range(1000):
        dialling.may_call(f"8.8.{number % 250}.1", number, 0.0)
    dialling.failed("9.9.9.9", 443, 1.0)

    assert dialling.may_call("9.9.9.9", 443, 2.0)


def test_who_calls_from_an_address_may_be_called_there():
    dialling = Dialling()
    dialling.failed("9.9.9.9", 443, 0.0)
    dialling.called_from("9.9.9.9", 443)

    assert dialling.may_call("9.9.9.9", 443, 1.0)
