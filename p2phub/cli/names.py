"""How publishers are shown to people: by the names that are pinned on this machine, else by their ids."""

from __future__ import annotations

from .running import run


def pinned_names() -> dict[str, str]:
    """Return a name for each publisher that has one here, by namespace id: a domain rather than a petname."""
    from p2phub.node.operations.trust import TrustList

    found = [info for info in run(TrustList(), quiet=True) if info.offered is None]
    return {info.namespace: info.name for info in sorted(found, key=lambda info: (info.source == "domain", info.name))}
