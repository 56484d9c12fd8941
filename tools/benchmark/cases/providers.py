"""Three providers, each with a capped uplink, bring nearly three times what one brings."""

from __future__ import annotations

from p2phub.testing.netns import Link, network

from .. import fetching
from ..measuring import Row, Target
from ..workplace import Workplace

CASE = "providers"
SHORT, FULL = 2**28, 2**30  # bytes
RATE = 100e6  # bytes per second, of each provider
PROVIDERS = 3


def rows(place: Workplace) -> list[Row]:
    """Return a row for one provider and one for three; none where there can be no namespaces."""
    rate = place.options.rate or RATE
    with place.optional("everything"):
        machines = place.stack.enter_context(network(PROVIDERS + 1, Link(rate)))
        source = place.model(place.size(SHORT, FULL))
        publisher, revision = place.publisher(source)
        nodes = fetching.serve(place, place.stack, publisher, PROVIDERS, machines=machines[1:])
        one = f"1 provider at {rate / 1e6:g} MB/s"
        amount = (source / "model.safetensors").stat().st_size
        return [
            Row(CASE, one, fetching.fetch(place, revision, nodes[:1], machine=machines[0]), amount),
            Row(
                CASE,
                f"3 providers at {rate / 1e6:g} MB/s each",
                fetching.fetch(place, revision, nodes, machine=machines[0]),
                amount,
                targets=(Target("rate", "≥", 2.8, one),),
            ),
        ]
    return []
