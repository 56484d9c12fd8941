"""Foresee what comes from which class of link, and how long that takes (spec/transfer.md §6).

    sizes of what is missing, offers with rates, limits ──▶ bytes by class, seconds

A guess for people, by the habits of the picker: all providers are kept busy, so that they
finish together, and what is near is not asked for from afar. It does not know what others
will want of the same providers meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from p2phub.core.choices import LinkClass

from .lease import EXPENSIVE, is_near_enough

PIECES = 64  # in which what several providers offer is shared out


@dataclass(frozen=True)
class Offer:
    """What one provider has of what is missing."""

    link: LinkClass
    rate: float | None  # bytes a second, as measured or remembered; None: nothing is known
    has: bytes | None = None  # a byte a chunk, 1 if it has it; None: all


@dataclass(frozen=True)
class Forecast:
    """What is to be expected."""

    links: dict[LinkClass, int] = field(default_factory=dict)  # bytes, of classes over which something will come
    providers: dict[LinkClass, int] = field(default_factory=dict)  # who offer something
    unoffered: int = 0  # bytes that nobody has
    seconds: float | None = None  # until what is offered is here; None: not known


@dataclass
class _Load:
    """A provider, and what is expected of it."""

    link: LinkClass
    rate: float  # bytes a second
    is_known: bool  # the rate is
    size: float = 0.0  # bytes

    @property
    def seconds(self) -> float:
        return self.size / self.rate


def forecast(sizes: Sequence[int], offers: Sequence[Offer], limits: Mapping[LinkClass, float | None]) -> Forecast:
    """Return what to expect of a download of chunks of `sizes` (bytes).

    limits: down, in bytes a second, by class; None is none.
    """
    offers = [offer for offer in offers if offer.has is None or 1 in offer.has]
    groups = _groups(sizes, offers)
    loads = _loads(offers, limits)
    for members, size in sorted(groups.items(), key=lambda item: (len(item[0]), item[0])):
        able = _preferred([loads[number] for number in members])
        for _ in range(PIECES if able else 0):
            # To whom it adds least: so they finish together.
            piece = size / PIECES
            min(able, key=lambda load: (load.size + piece) / load.rate).size += piece
    used = [load for load in loads if load.size]
    links = Counter[LinkClass]()
    for load in used:
        links[load.link] += round(load.size)
    is_known = all(load.is_known for load in used)
    return Forecast(
        links=dict(links),
        providers=dict(Counter(offer.link for offer in offers)),
        unoffered=groups.get((), 0),
        seconds=max(load.seconds for load in used) if used and is_known else None,
    )


def _groups(sizes: Sequence[int], offers: Sequence[Offer]) -> dict[tuple[int, ...], int]:
    """Return the bytes that exactly the same providers offer, by their numbers."""
    whole = tuple(number for number, offer in enumerate(offers) if offer.has is None)
    partial = [(number, offer.has) for number, offer in enumerate(offers) if offer.has is not None]
    if not partial:
        return {whole: sum(sizes)} if sizes else {}
    by_flags = Counter[tuple[int, ...]]()
    for size, flags in zip(sizes, zip(*(has for _, has in partial), strict=True), strict=True):
        by_flags[flags] += size
    groups = Counter[tuple[int, ...]]()
    for flags, size in by_flags.items():
        members = [number for (number, _), has in zip(partial, flags, strict=True) if has]
        groups[tuple(sorted((*whole, *members)))] += size
    return dict(groups)


def _loads(offers: Sequence[Offer], limits: Mapping[LinkClass, float | None]) -> list[_Load]:
    """Return the providers with the rate that each will have, by limits and by what is known of others of its class."""
    known = [offer.rate for offer in offers if offer.rate]
    rates: dict[LinkClass, list[float]] = {}
    for offer in offers:
        if offer.rate:
            rates.setdefault(offer.link, []).append(offer.rate)
    loads = []
    for offer in offers:
        near = rates.get(offer.link)
        # Of a class of which nothing is known any rate will do to share out by.
        guess = sum(near) / len(near) if near else max(known, default=1.0)
        loads.append(_Load(offer.link, offer.rate or guess, bool(near)))
    for link in {offer.link for offer in offers}:
        members = [load for load in loads if load.link == link]
        limit, total = limits.get(link), sum(load.rate for load in members)
        # A limit says how long it takes at least, and most set one that is below what the link could.
        if limit and (total > limit or not rates.get(link)):
            for load in members:
                load.rate, load.is_known = load.rate * limit / total, True
    return loads


def _preferred(able: list[_Load]) -> list[_Load]:
    """Return those who will be asked: the near ones, if they are fast enough."""
    near = [load for load in able if load.link not in EXPENSIVE]
    far = [load for load in able if load.link in EXPENSIVE]
    if not near or not far:
        return able
    near_rate = sum(load.rate for load in near) if all(load.is_known for load in near) else None
    far_rate = sum(load.rate for load in far) if all(load.is_known for load in far) else None
    return near if is_near_enough(near_rate, far_rate) else able
