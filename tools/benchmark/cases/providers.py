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
        source = place.model(place.size(SHORT, FULL))
        publisher, revision = place.publisher(source)
        amount = (source / "model.safetensors").stat().st_size
        one = f"1 provider at {rate / 1e6:g} MB/s"
        many = f"{PROVIDERS} providers at {rate / 1e6:g} MB/s each"

        def row(name: str, count: int, *targets: Target) -> Row:
            # A network each: nodes that reach each other tell the fetching one of all.
            machines = place.stack.enter_context(network(count + 1, Link(rate)))
            nodes = fetching.serve(place, place.stack, publisher, count, machines=machines[1:])
            return Row(CASE, name, fetching.fetch(place, revision, nodes, machine=machines[0]), amount, targets=targets)

        return [row(one, 1), row(many, PROVIDERS, Target("rate", "≥", 2.8, one))]
    return []
