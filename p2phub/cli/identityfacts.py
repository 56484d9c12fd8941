"""What an identity says, as JSON for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from p2phub.core.identity import Identity


def facts_of(found: Identity) -> dict[str, Any]:
    """Return what an identity says: text, numbers and lists."""
    from p2phub.core.rotation import ROLES, role_of

    document = found.current
    return {
        "namespace": found.namespace,
        "version": document.version,
        "root": list(document.root.keys),
        "publish": list(document.publish.keys),
        "fresh": list(document.fresh.keys),
        "thresholds": {name: role_of(document, name).threshold for name in ROLES},
        "retired": [{"key": each.key, "size": found.counted_of(each.key)} for each in document.retired],
        "logs": list(found.logs),
        "closed": list(found.closed),
        "domains": list(document.domains),
        "companion": document.companion.hex() if document.companion else None,
        "recipient": document.recipient.hex() if document.recipient else None,
    }
