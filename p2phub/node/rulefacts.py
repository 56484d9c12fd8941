"""What rules about statements and witnesses go by: looked up only where a policy asks for it (spec/rules.md §2).

A name that moves must not be old, and a record must be one that all are shown. What is asked for by its hash
alone is what it is, whoever published it when.
"""

from __future__ import annotations

from msgspec.structs import replace

from p2phub.core.ids import ManifestId, NamespaceId
from p2phub.core.manifest import Manifest
from p2phub.core.private import Repository
from p2phub.core.rules import Consent, Facts, Rules, judge
from p2phub.store.store import Store

from .identity import own_namespace
from .node import Node
from .recalled import recall_of
from .resolve import Target
from .rules import check, facts_of


def facts_of_target(node: Node, rules: Rules, target: Target, manifest: Manifest) -> Facts:
    """Return what rules go by of what a reference means. manifest: of the files that it shows."""
    assert target.manifest is not None
    own, moving = own_namespace(node), target.branch is not None
    facts = facts_of(node.store, manifest, target.manifest, target.asked_by, recall_of(node, target))
    return vouched(node.store, rules, facts, target.model, own=own, now=node.clock(), moving=moving)


def check_freshness(node: Node, rules: Rules, publisher: NamespaceId) -> None:
    """Raise AccessDenied if the policy does not take a publisher's word for what is newest."""
    if rules.fresh.max_age_days is None:
        return
    facts = Facts(ManifestId(bytes(32)), (), publisher=publisher)
    own, now = own_namespace(node), node.clock()
    facts = vouched(node.store, rules, facts, None, own=own, now=now, moving=True)
    check([finding for finding in judge(rules, facts, Consent()) if finding.rule == "fresh"])


def vouched(
    store: Store,
    rules: Rules,
    facts: Facts,
    model: str | None,
    *,
    own: NamespaceId | None,
    now: float,
    moving: bool,
) -> Facts:
    """Return `facts` with what the publisher stated and who witnessed it, as far as `rules` ask for that.

    model: under which it was asked for. own: the publisher of this home, whose word needs nobody's.
    """
    publisher = facts.publisher
    if publisher is None or publisher == own:
        return facts
    if model is not None and store.private.is_private(Repository(publisher, model)):
        # Its log is shown to some alone: no witness may know of it, and no statement does.
        return facts
    if rules.fresh.max_age_days is not None and moving:
        from p2phub.core.fresh import missing

        from .fresh import freshness_of

        freshness = freshness_of(store, publisher)
        facts = replace(facts, is_moving=True, stated_age_s=freshness.age_s(now), missing=tuple(missing(freshness)))
    if rules.witnesses.need and model is not None:
        from .fresh import witnessed_by

        wanted = rules.witnesses.quorum.witnesses
        places = [
            (log, index)
            for manifest, log, index in store.listing.releases(publisher, model)
            if manifest == facts.manifest
        ]
        found = [witness for place in places for witness in witnessed_by(store, *place, wanted)]
        facts = replace(facts, is_recorded=True, witnessed=tuple(dict.fromkeys(map(str, found))))
    return facts
