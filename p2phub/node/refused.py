"""What this node gives to nobody: what publishers recalled, and what its owner blocks (spec/rules.md §6)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

from p2phub.core.access import Caller
from p2phub.core.errors import HubError
from p2phub.core.ids import ContentId, ManifestId, NamespaceId
from p2phub.core.private import Repository
from p2phub.core.rules import Block
from p2phub.store.store import Store

from .rules import Rulebook

log = logging.getLogger(__name__)


class Refused:
    """The part of who may have what that depends on who asks by the private repositories alone that he may read."""

    def __init__(
        self,
        store: Store,
        rulebook: Rulebook,
        pledged: Callable[[], Collection[bytes]],
        own: Callable[[], NamespaceId | None],
        readable: Callable[[Caller], Collection[Repository]],
    ) -> None:
        """pledged: says what this node promised to keep reachable by its hash, whatever publishers say of it later.

        own: as whom this home publishes. readable: says which private repositories a caller may read.
        """
        self._store = store
        self._pledged = pledged
        self._rulebook = rulebook
        self._own = own
        self._readable = readable
        self._trouble = ""  # with the policy file, that was told last

    def withheld(self, caller: Caller, identifiers: Collection[bytes]) -> set[bytes]:
        """Return those of the files and manifests that were taken back or are blocked.

        Files that something else lists stay, if the caller may know of that.
        """
        try:
            block = self._rulebook.current().block
        except HubError:
            # A policy that cannot be read may say no to anything.
            self._tell(self._rulebook.trouble())
            return set(identifiers)
        self._tell("")
        return self._store.recalls.withheld(
            identifiers,
            self._pledged,
            None if block == Block() else lambda some: self._blocked(some, block),
            hidden=lambda some: self._store.private.hidden(some, self._readable(caller)),
            readable=lambda: self._readable(caller),
            own=self._own,
        )

    def _tell(self, trouble: str) -> None:
        """Log what is wrong with the policy file: once, and not for each who asks."""
        if trouble and trouble != self._trouble:
            log.warning("nothing is given to anybody: %s", trouble)
        elif self._trouble and not trouble:
            log.warning("the policy file is understood again, and what it allows is given")
        self._trouble = trouble

    def _blocked(self, identifiers: Collection[bytes], block: Block) -> set[bytes]:
        found = {each for each in identifiers if str(ContentId(each)) in block.content}
        found |= {said.subject for said in self._store.assessments.blocked(identifiers, block.lists)}
        if block.publishers:
            for each in identifiers:
                names = [str(namespace) for namespace, _ in self._store.catalogue.publishers_of(ManifestId(each))]
                if names and set(names) <= set(block.publishers):
                    found.add(each)
        return found
