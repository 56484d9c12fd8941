"""Whose records this node takes in: what its owner has set, and what that refuses (spec/policy.md).

head ──refuses?──▶ dropped, before anything is asked for
  └──▶ identity, records, as ever
"""

from __future__ import annotations

from collections.abc import Callable

from p2phub.core.errors import NotFound
from p2phub.core.ids import LogId, NamespaceId
from p2phub.core.policy import Policy
from p2phub.store.store import Store

SETTING = "policy"  # name in the index
REFUSED_MAX = 10_000  # heads that are remembered as refused


class Following:
    """The policy of one node. What a thread asks, it asks of a policy that does not change."""

    def __init__(
        self,
        store: Store,
        own: Callable[[], NamespaceId],
        agreed: Callable[[NamespaceId | None], frozenset[NamespaceId]] = lambda own: frozenset(),
    ) -> None:
        """own: returns the namespace that this home publishes as, or raises NotFound.

        agreed: returns whose records are wanted because of what this namespace agreed to.
        """
        self._store = store
        self._own = own
        self._agreed = agreed
        self.members: frozenset[NamespaceId] = frozenset()  # whose records are wanted because of an agreement
        self.own: NamespaceId | None = None
        self.policy = Policy()
        # What was refused, and how it is called when maps are compared, so that it is not sent again; the oldest first.
        self.refused: dict[LogId, bytes] = {}

    def refresh(self) -> Policy:
        """Take over what was set meanwhile, by any process of this home; returns it."""
        self._use(self._store.settings.get(SETTING, Policy) or Policy())
        try:
            self.own = self._own()
        except NotFound:
            self.own = None
        members = self._agreed(self.own)
        if members != self.members:
            self.refused.clear()
        self.members = members
        return self.policy

    def listed(self) -> list[NamespaceId]:
        """Return all whose records are wanted where only those of some are."""
        names = {NamespaceId.parse(text) for text in self.policy.followed} | self.members
        return sorted(name for name in names if str(name) not in self.policy.blocked)

    def change(self, change: Callable[[Policy], Policy]) -> Policy:
        """Put what `change` makes of the policy in force, and keep it; returns it."""
        self._use(self._store.settings.change(SETTING, Policy, lambda old: change(old or Policy())))
        return self.policy

    def refuses(self, namespace: NamespaceId, log: LogId, size: int) -> bool:
        """Say whether a log of a publisher is not wanted at `size` records. What is here already is not taken away."""
        policy = self.policy
        if namespace == self.own:
            return False
        is_agreed = namespace in self.members and str(namespace) not in policy.blocked
        if not is_agreed and not policy.names(namespace):
            return True
        use = self._store.policy_use
        if policy.records_max is not None and use.records(namespace, without=log) + size > policy.records_max:
            return True
        return policy.bytes_max is not None and use.size(namespace) >= policy.bytes_max

    def note_refused(self, log: LogId, digest: bytes) -> None:
        """Remember what was refused, as it is called when maps are compared."""
        self.refused.pop(log, None)
        self.refused[log] = digest
        if len(self.refused) > REFUSED_MAX:
            del self.refused[next(iter(self.refused))]

    def _use(self, policy: Policy) -> None:
        if policy != self.policy:
            # It may be wanted now.
            self.refused.clear()
        self.policy = policy
