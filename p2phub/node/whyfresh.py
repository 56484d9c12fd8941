"""Say whether something newer is withheld, and who vouches that all are shown one history (spec/names.md §10)."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from p2phub.core.ages import describe_age
from p2phub.core.fresh import WARN_S, missing
from p2phub.core.ids import LogId
from p2phub.core.private import Repository
from p2phub.store.store import Store

from .disk import on_disk
from .fresh import freshness_of, witnessed_by
from .node import Node
from .operations.trust import Reason
from .resolve import Target, own_namespace
from .verdicts import bad, good, off, unknown

if TYPE_CHECKING:
    from .why import Subject


async def explain_freshness(node: Node, subject: Subject) -> list[Reason]:
    """Say whether the publisher stated anything newer than is here, and how old his word is."""
    about = "newest"
    if subject.namespace is None or subject.namespace == await on_disk(own_namespace, node):
        return []
    if await on_disk(_is_private, node.store, subject.target):
        return [off(about, "it is private: no statement tells of it")]
    freshness = await on_disk(freshness_of, node.store, subject.namespace)
    found = [bad(about, text) for text in missing(freshness)]
    age = freshness.age_s(node.clock())
    if age is None and subject.target is not None and subject.target.branch is None:
        return [*found, off(about, "this name never moves, so that nothing newer can be withheld")]
    if age is None:
        return [*found, unknown(about, "no statement of the publisher is known that this is the newest")]
    text = f"the publisher said {describe_age(age)} ago that nothing newer is there"
    is_old = age > WARN_S or node.clock() > freshness.expires
    if is_old:
        found.append(unknown(about, text))
    elif not found:
        found.append(good(about, text))
    return found


async def explain_witnesses(node: Node, subject: Subject) -> list[Reason]:
    """Say which of the witnesses that are known here vouch for the record on which the revision rests."""
    about = "witness"
    witnesses = [each.key for each in await on_disk(node.store.witnesses.all)]
    if not witnesses:
        return [off(about, "you count on no witness: `p2phub witness add` names one")]
    if await on_disk(_is_private, node.store, subject.target):
        return [off(about, "it is private: no witness may know of it")]
    place = await on_disk(record_of, node.store, subject.target) if subject.target else None
    if place is None:
        return []
    vouched = await on_disk(witnessed_by, node.store, *place, witnesses)
    return [
        good(about, f"{each.name} vouched on {_day(vouched[each])} that its log only grew up to it")
        if each in vouched
        else unknown(about, f"{each.name} does not vouch for its record")
        for each in witnesses
    ]


def record_of(store: Store, target: Target) -> tuple[LogId, int] | None:
    """Return the log and index of the record on which a revision rests; None if none is known."""
    if target.namespace is None or target.model is None:
        return None
    if target.version is not None:
        claim = store.catalogue.version(target.namespace, target.model, target.version)
    elif target.branch is not None:
        claim = store.catalogue.branch(target.namespace, target.model, target.branch)
    else:
        releases = store.listing.releases(target.namespace, target.model)
        return next(((log, index) for manifest, log, index in releases if manifest == target.manifest), None)
    return (claim.log, claim.index) if claim else None


def _is_private(store: Store, target: Target | None) -> bool:
    if target is None or target.namespace is None or target.model is None:
        return False
    return store.private.is_private(Repository(target.namespace, target.model))


def _day(seconds: int) -> str:
    """Return a time in seconds since 1970, as a witness told it, as its date."""
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d")
    except (ValueError, OverflowError):
        return "an unknown day"
