"""Who may have what of this node: the one place that every answer with content asks."""

from __future__ import annotations

from collections.abc import Collection

from p2phub.core.access import Caller
from p2phub.store.store import Store


class Access:
    """What the node lets others have."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def withheld(self, caller: Caller, identifiers: Collection[bytes]) -> set[bytes]:
        """Return those of the files and manifests that `caller` may not have."""
        return self._store.mirrors.withheld(identifiers)
