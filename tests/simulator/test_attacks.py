"""What hostile nodes must not achieve: each kind of them among honest ones, on the simulated network."""

from __future__ import annotations

from p2phub.testing.simulator import World, attacks, simulate
from p2phub.testing.simulator.measures import Measure


def run(scenario, count: int, **options: object) -> dict[str, Measure]:
    """Run one attack and return what was measured; all limits are met."""

    async def attacked(world: World) -> list[Measure]:
        return await scenario(world, count, **options)

    measures = {measure.name: measure for measure in simulate(attacked, seed=1)}

    assert [str(measure) for measure in measures.values() if not measure.is_met] == []
    return measures


def test_old_heads_bring_nobody_back_and_are_not_passed_on():
    measures = run(attacks.replayed, 6)

    assert measures["lies told"].value > 0


def test_a_node_all_of_whose_neighbours_are_hostile_hears_of_news_all_the_same():
    run(attacks.eclipsed, 12, releases=1)


def test_fingerprints_that_collide_hide_nothing():
    measures = run(attacks.collisions, 5, logs=(40, 1))

    assert measures["lies told"].value > 0


def test_what_most_nodes_withhold_is_found_all_the_same():
    measures = run(attacks.withheld, 8)

    assert measures["lies told"].value > 0


def test_two_histories_of_one_key_are_found_by_all_and_freeze_the_log():
    run(attacks.forked, 5)


def test_records_in_places_for_which_they_were_not_signed_are_not_believed():
    measures = run(attacks.moved, 8)

    assert measures["lies told"].value > 0


def test_what_is_signed_in_the_future_is_taken_when_it_is_not_any_more():
    run(attacks.fast_clock, 5)


def test_messages_that_are_too_large_harm_nobody():
    measures = run(attacks.oversize, 6)

    assert measures["lies told"].value > 0


def test_nobody_is_led_to_attack_a_bystander():
    measures = run(attacks.pretended, 5, seconds=120.0)

    assert measures["lies told"].value > 1000


def test_a_flood_of_fresh_keys_keeps_no_release_back():
    measures = run(attacks.flood, 5, publishers=100, rate=20.0)

    assert measures["lies told"].value == 100
