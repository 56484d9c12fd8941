"""Two federations of three institutions each, and one outside: real processes, in networks of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from p2phub.testing.institutions import Institution, institutions, wait_acquainted


@dataclass
class World:
    """Who there is."""

    north: list[Institution]  # alma, bonn, cern
    south: list[Institution]  # dijon, evora, faro
    outsider: Institution

    @property
    def all(self) -> list[Institution]:
        return [*self.north, *self.south, self.outsider]


@pytest.fixture(scope="session")
def world(namespaces: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Run seven nodes that know where the others are; nobody has agreed to anything yet."""
    names = ("alma", "bonn", "cern", "dijon", "evora", "faro", "outsider")
    with institutions(tmp_path_factory.mktemp("world"), *names) as found:
        wait_acquainted(found)
        yield World(found[:3], found[3:6], found[6])
