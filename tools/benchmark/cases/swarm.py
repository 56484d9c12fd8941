"""One node has it, N others want it: near the ideal time, and hardly longer for more nodes.

`swarm` measures a few sizes at the rates of the targets, `growth` the same content for
more and more nodes at a rate that leaves the processors of one machine idle enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from p2phub.testing.netns import check_available

from .. import others
from ..measuring import Row, Target
from ..swarms import Swarm, with_p2phub, with_torrent, with_web_server
from ..workplace import Workplace

SHORT, FULL = 2**28, 2**30  # bytes
# By number of nodes: the rate of an uplink in bytes per second, and the share of the ideal time that is asked for.
ASKED = {4: (100e6, 0.85), 8: (50e6, 0.8)}
OTHER = 50e6, 0.8  # for another number of nodes
COPIES_MAX = 1.2  # that the first seed sends

GROWTH = (4, 8, 16)
GROWTH_SHORT, GROWTH_FULL = 2**26, 2**28  # bytes
GROWTH_RATE = 10e6  # bytes per second
GROWTH_MAX = 1.25  # times as long for the most nodes as for the fewest
WEB = "nginx"
WEB_NODES_MAX = 8


def rows(place: Workplace) -> list[Row]:
    """Return the rows of `swarm`; none where there can be no namespaces."""
    found: list[Row] = []
    with place.optional("everything"):
        check_available()
        make = Rows(place, place.size(SHORT, FULL))
        for nodes in place.options.nodes or ASKED:
            rate, bound = ASKED.get(nodes, OTHER)
            targets = Target("of_ideal", "≥", bound), Target("copies", "≤", COPIES_MAX)
            found += make.rows(nodes, place.options.rate or rate, targets)
    return found


def growth_rows(place: Workplace) -> list[Row]:
    """Return the rows of `growth`; none where there can be no namespaces."""
    found: list[Row] = []
    with place.optional("everything"):
        check_available()
        make = Rows(place, place.size(GROWTH_SHORT, GROWTH_FULL))
        numbers = sorted(place.options.nodes or GROWTH)
        rate = place.options.rate or GROWTH_RATE
        last = Target("seconds", "≤", GROWTH_MAX, make.name("p2phub", numbers[0], rate))
        for nodes in numbers:
            found += make.rows(nodes, rate, (last,) if nodes == numbers[-1] > numbers[0] else ())
        # The time from a web server grows with every node.
        found = [row for row in found if row.curve and not (row.curve[0] == WEB and row.curve[1] > WEB_NODES_MAX)]
    return found


class Rows:
    """Makes the rows of one content: p2phub, and the others that are installed."""

    def __init__(self, place: Workplace, size: int) -> None:
        self._place = place
        source = place.model(size)
        self._file = source / "model.safetensors"
        self._published = place.publisher(source)
        self._torrent = None
        self._web = False
        with place.optional("libtorrent"):
            self._torrent = others.make_torrent(place, self._file)
        with place.optional("nginx + curl"):
            others.need("nginx", "curl")
            self._web = True

    def rows(self, nodes: int, rate: float, targets: tuple[Target, ...]) -> Iterator[Row]:
        """Give the rows for a number of nodes; the targets are p2phub's."""
        swarm = Swarm(self._place, self._file, nodes, rate)
        runs = {"p2phub": partial(with_p2phub, swarm, *self._published)}
        if self._torrent:
            runs["libtorrent"] = partial(with_torrent, swarm, self._torrent)
        if self._web:
            runs[WEB] = partial(with_web_server, swarm)
        for who, run in runs.items():
            yield Row(
                self._place.case,
                self.name(who, nodes, rate),
                run,
                swarm.size,
                copies=nodes,
                targets=targets if who == "p2phub" else (),
                curve=(who, nodes),
                runs_max=1 if who == WEB else None,  # slow, and always the same
            )

    @staticmethod
    def name(who: str, nodes: int, rate: float) -> str:
        """Return the name of a row."""
        return f"{who} 1 → {nodes} at {rate / 1e6:g} MB/s"
