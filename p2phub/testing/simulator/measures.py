"""What a scenario finds, and the limits that come from the promises of p2phub."""

from __future__ import annotations

from dataclasses import dataclass

SETTLE_S = 30.0  # virtual seconds in which nodes that just started find each other
SPREAD_MAX_S = 10.0  # until a release is known to nearly all
SPREAD_SHARE = 0.99  # of all nodes
COPIES_MAX = 3.0  # of one push that a node receives, on average
HEAL_MAX_S = 180.0  # until all nodes are equal after a partition


@dataclass(frozen=True)
class Measure:
    """One number that a scenario found."""

    name: str
    value: float
    unit: str = ""
    most: float | None = None  # its limit

    @property
    def is_met(self) -> bool:
        return self.most is None or self.value <= self.most

    def __str__(self) -> str:
        limit = "" if self.most is None else f" (at most {self.most:g})"
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.name} {self.value:.4g}{unit}{limit}{'' if self.is_met else ' MISSED'}"
