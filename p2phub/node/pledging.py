"""Promise to keep what others published, and say how promises are kept (spec/pledges.md).

    own log ──pledge──▶ store.pledges ──duties──▶ keeping (fetches, repairs) │ status, `pledge ls`

Anybody can promise anything, so only those count whom the owner of this node chose: itself,
those whom it follows, and members of its federations. What others promise is shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

from msgspec.structs import replace

from p2phub.core.access import ANYBODY
from p2phub.core.choices import PLEDGE_DAYS_MAX, PLEDGE_REPLICAS_MAX
from p2phub.core.errors import AccessDenied, InvalidName, NotFound
from p2phub.core.ids import ManifestId, NamespaceId, NodeId
from p2phub.core.names import NameRef, parse_reference
from p2phub.core.pledges import Subject
from p2phub.core.records import Pledge, Unpledge
from p2phub.protocol.pledges import Shares, share_out
from p2phub.store.holdings import WHOLE
from p2phub.store.pledges import Promise, Release

from .disk import on_disk
from .events import Tell
from .federations import Membership, covered, memberships
from .identity import own_identity, own_namespace, publish_record
from .names import find_alone
from .node import Node
from .operations.pledges import PledgeInfo, Pledger, PledgeState
from .resolve import find_namespace, resolve
from .syncing import ask_for_news

DAY_S = 24 * 3600
GONE_S = 6 * 3600.0  # seconds unseen after which a node is not counted on; spec/pledges.md §3
NEWS_TIMEOUT_S = 10.0  # to ask peers for news of what is not known here


@dataclass
class Duty:
    """One revision that this node, with others, promised to keep."""

    release: Release
    promises: dict[NodeId, int | None] = field(default_factory=dict)  # of those that count; spec/pledges.md §3


@dataclass(frozen=True)
class Standing:
    """How a duty is fulfilled, as far as is known here."""

    shares: Shares
    holders: frozenset[NodeId]  # of those that promised, who has all of it and is counted on
    others: int  # nodes that said to have all of it and promised nothing that counts
    liars: frozenset[NodeId]  # that said to have it, and did not give it

    @property
    def is_short(self) -> bool:
        return len(self.holders) < self.shares.needed


# ── what people say ─────────────────────────────────────────────────────────


async def pledge(node: Node, text: str, *, replicas: int | None, days: int, tell: Tell) -> PledgeInfo:
    """Promise in the own log that this node keeps what `text` names: a reference, or a namespace.

    replicas: copies that all who pledge so keep together; None: this node keeps one whatever others do.
    Raises NotFound, InvalidName, and AccessDenied for what not everybody may know of.
    """
    if not 1 <= days <= PLEDGE_DAYS_MAX or (replicas is not None and not 1 <= replicas <= PLEDGE_REPLICAS_MAX):
        raise InvalidName(f"a pledge lasts 1 to {PLEDGE_DAYS_MAX} days, and is of 1 to {PLEDGE_REPLICAS_MAX} copies")
    identity = await on_disk(own_identity, node)
    subject = await _subject(node, text, tell)
    await on_disk(_check_public, node, subject, text)
    now = int(node.clock())

    make = partial(
        Pledge, namespace=identity.namespace, node=node.id, subject=subject, replicas=replicas, until=now + days * DAY_S
    )

    entry = await on_disk(publish_record, node, make)
    node.note_news(entry.record.log, entry.record.index)
    node.promises.wake()
    return next(each for each in await show(node, None, tell) if each.subject == str(subject))


async def unpledge(node: Node, text: str, tell: Tell) -> PledgeInfo:
    """Take a promise of this node back; what it was about goes with the garbage. Raises NotFound."""
    identity = await on_disk(own_identity, node)
    found = await show(node, None, tell)
    try:
        named = str(await _subject(node, text, tell))
    except NotFound:
        named = text  # what is known no more can still be let go
    info = next((each for each in found if named == each.subject), None)
    if info is None:
        raise NotFound(f"this node did not pledge {text}", hint="`p2phub pledge ls` shows what it did")
    subject = next(
        each.subject
        for each in await on_disk(node.store.pledges.of, identity.namespace, node.id, node.clock())
        if str(each.subject) == info.subject
    )

    make = partial(Unpledge, namespace=identity.namespace, node=node.id, subject=subject)

    entry = await on_disk(publish_record, node, make)
    node.note_news(entry.record.log, entry.record.index)
    node.promises.wake()
    return info


async def show(node: Node, text: str | None, tell: Tell) -> list[PledgeInfo]:
    """Return what this node pledged; with `text`, who else pledged that, too. Raises NotFound."""
    if text is None:
        return await on_disk(_own_pledges, node)
    target = await _subject(node, text, tell)
    return await on_disk(_pledges_about, node, target)


def state(node: Node) -> PledgeState:
    """Return how the promises of this node are kept, all together."""
    pledges = _own_pledges(node)
    duties = all_duties(node)
    short = sum(standing(node, duty).is_short for duty in duties.values())
    here = node.store.holdings.whole(list(duties))
    return PledgeState(len(pledges), len(duties), len(here), short, _problem(node, duties.keys() - here))


# ── what follows of it ──────────────────────────────────────────────────────


def own_promises(node: Node) -> list[Promise]:
    """Return what this node promised by the word of its own publisher, and holds now."""
    own = own_namespace(node)
    return node.store.pledges.of(own, node.id, node.clock()) if own else []


def pledged_manifests(node: Node) -> set[ManifestId]:
    """Return all revisions that this node promised to keep: none of them goes, also if others have it."""
    releases = node.store.pledges.releases
    pledged = {release.manifest for promise in own_promises(node) for release in releases(promise.subject)}
    return pledged | {release.manifest for _, release in _mirrored(node)}


def _mirrored(node: Node) -> list[tuple[Membership, Release]]:
    """Return what members of federations keep together, this node among them."""
    store = node.store
    found = []
    for each in memberships(store, own_namespace(node), node.clock()):
        if each.terms.replicas and node.id in each.nodes:
            for publisher in each.terms.publishers or sorted(each.members):
                releases = store.pledges.releases(Subject(publisher=publisher))
                found += [(each, release) for release in releases if covered(store, each, release)]
    return found


def all_duties(node: Node) -> dict[ManifestId, Duty]:
    """Return what this node promised, with all who promised the same and count."""
    now, counted = node.clock(), counted_publishers(node)
    duties: dict[ManifestId, Duty] = {}
    by_subject: dict[Subject, list[Promise]] = {}

    def promises_about(subject: Subject) -> list[Promise]:
        if subject not in by_subject:
            found = node.store.pledges.about(subject, now)
            by_subject[subject] = [each for each in found if each.namespace in counted]
        return by_subject[subject]

    for own in own_promises(node):
        for release in node.store.pledges.releases(own.subject):
            duty = duties.setdefault(release.manifest, Duty(release))
            if release.namespace is None:
                about = [
                    each for each in node.store.pledges.covering(release.manifest, now) if each.namespace in counted
                ]
            else:
                whole = Subject(publisher=release.namespace)
                subjects = (Subject(manifest=release.manifest), replace(whole, model=release.model), whole)
                about = [promise for subject in subjects for promise in promises_about(subject)]
            for promise in about:
                _add(duty, promise.node, promise.replicas)
    for membership, release in _mirrored(node):
        duty = duties.setdefault(release.manifest, Duty(release))
        for member in membership.nodes:
            _add(duty, member, membership.terms.replicas)
    # What not everybody may have is not spoken of with others.
    for withheld in node.access.withheld(ANYBODY, list(duties)):
        del duties[ManifestId(withheld)]
    return duties


def _add(duty: Duty, node: NodeId, replicas: int | None) -> None:
    """Count a promise: of several of one node the one that keeps the most."""
    known = duty.promises.get(node, 0)
    duty.promises[node] = None if replicas is None or known is None else max(known, replicas)


def counted_publishers(node: Node) -> set[NamespaceId]:
    """Return whose promises count: one's own, and those of whom the owner of this node chose."""
    own = own_namespace(node)
    followed = {NamespaceId.parse(name) for name in node.following.refresh().followed}
    members = {member for each in memberships(node.store, own, node.clock()) for member in each.members}
    return followed | members | ({own} if own else set())


def standing(node: Node, duty: Duty) -> Standing:
    """Return how a duty is fulfilled, by what is known here."""
    manifest = duty.release.manifest
    said = {each.node for each in node.store.holdings.of(manifest) if each.share == WHOLE}
    if node.store.holdings.whole([manifest]):
        said.add(node.id)
    checks = node.store.pledges.checks(manifest)
    liars = frozenset(each for each in said if each in checks and not checks[each].is_good and each != node.id)
    gone = {each for each in duty.promises if _is_gone(node, each)} | liars
    holders = frozenset((said & duty.promises.keys()) - gone)
    shares = share_out(manifest, duty.promises, holders=holders, gone=gone)
    return Standing(shares, holders, len(said - duty.promises.keys() - liars), liars)


def _is_gone(node: Node, other: NodeId) -> bool:
    """Say whether a node was not seen for so long, or lied so, that nobody should count on it."""
    if other == node.id:
        return False
    peer, now = node.store.peers.get(other), node.clock()
    return peer is None or peer.last_seen is None or peer.last_seen < now - GONE_S or peer.banned_until > now


# ── helpers ─────────────────────────────────────────────────────────────────


async def _subject(node: Node, text: str, tell: Tell) -> Subject:
    """Return what `text` names: a namespace, a repository, or one revision. Raises NotFound, InvalidName."""
    if (alone := await find_alone(node, text, tell)) is not None:
        return Subject(publisher=alone)
    reference = parse_reference(text) if not text.startswith("hf://") else None
    if not isinstance(reference, NameRef) or reference.revision is not None:
        target = await resolve(node, text, tell, refresh=True)
        if target.manifest is None:
            raise NotFound(f"{text} is no manifest that is known here")
        return Subject(manifest=target.manifest)
    publisher = await find_namespace(node, reference, tell)
    if await on_disk(node.store.catalogue.kind, publisher, reference.model) is None:
        await ask_for_news(node, tell, timeout_s=NEWS_TIMEOUT_S)
    if await on_disk(node.store.catalogue.kind, publisher, reference.model) is None:
        raise NotFound(f"nothing is known of {reference}", hint="`p2phub search` shows what is")
    return Subject(publisher=publisher, model=reference.model)


def _check_public(node: Node, subject: Subject, text: str) -> None:
    """Raise AccessDenied if the pledge would tell all of what not all may know of."""
    if subject.manifest is None and subject.model is None:
        return  # it names nothing but the publisher
    manifests = [release.manifest for release in node.store.pledges.releases(subject)]
    if node.access.withheld(ANYBODY, manifests):
        raise AccessDenied(
            f"not everybody may have {text}, and a pledge is public: it would tell of it",
            hint="`p2phub store pin` keeps it without a word",
        )


def _own_pledges(node: Node) -> list[PledgeInfo]:
    duties = all_duties(node)
    return [_info(node, promise, duties) for promise in own_promises(node)]


def _pledges_about(node: Node, subject: Subject) -> list[PledgeInfo]:
    """Return all pledges of a subject, those of this node first, with what is known of how they are kept."""
    store, now = node.store.pledges, node.clock()
    if subject.manifest is not None:
        found = store.covering(subject.manifest, now)
    else:
        wider = [Subject(publisher=subject.publisher)] if subject.model else []
        found = [promise for each in (subject, *wider) for promise in store.about(each, now)]
    duties = all_duties(node)
    found.sort(key=lambda promise: promise.node != node.id)
    return [_info(node, promise, duties) for promise in found]


def _info(node: Node, promise: Promise, duties: dict[ManifestId, Duty]) -> PledgeInfo:
    releases = node.store.pledges.releases(promise.subject)
    here = node.store.holdings.whole([release.manifest for release in releases])
    standings = [standing(node, duties[each.manifest]) for each in releases if each.manifest in duties]
    worst = min(standings, key=lambda each: len(each.holders) - each.shares.needed, default=None)
    return PledgeInfo(
        subject=str(promise.subject),
        namespace=str(promise.namespace),
        node=str(promise.node),
        own=promise.node == node.id,
        replicas=promise.replicas,
        until=promise.until,
        revisions=len(releases),
        here=len(here),
        size=sum(release.size or 0 for release in releases),
        have=len(worst.holders) if worst else None,
        needed=worst.shares.needed if worst else None,
        short=sum(each.is_short for each in standings),
        others=min((each.others for each in standings), default=0),
        pledgers=_pledgers(node, [duties[each.manifest] for each in releases if each.manifest in duties], standings),
        problem=_problem(node, {each.manifest for each in releases} - here),
    )


def _problem(node: Node, missing: set[ManifestId]) -> str | None:
    """Return why one of the revisions that are not here does not come, None if nothing is known to be in the way."""
    problems = node.promises.problems
    return next((problems[each].reason for each in sorted(missing) if each in problems), None)


def _pledgers(node: Node, duties: Iterable[Duty], standings: list[Standing]) -> list[Pledger]:
    """Return who promised the same and counts, and how much of it each has."""
    nodes = sorted({each for duty in duties for each in duty.promises})
    return [
        Pledger(
            node=str(each),
            holds=sum(each in standing.holders for standing in standings),
            gone=_is_gone(node, each),
            lied=any(each in standing.liars for standing in standings),
        )
        for each in nodes
    ]
