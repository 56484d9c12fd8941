"""Vectors of maps, their fingerprints, and what is told of them."""

from __future__ import annotations

from p2phub.core import fingerprints
from p2phub.core.fingerprints import Item, branch_of, children_of, short, short_item
from p2phub.core.noderecord import sign_node_record
from p2phub.testing import values

from .plain import Json


def items(count: int) -> list[Item]:
    """Return the items of the map of `count` items, sorted by key."""
    return sorted(
        (values.content(f"key {number}", 32), values.content(f"digest {number}", 32)) for number in range(count)
    )


def maps() -> Json:
    salt = values.content("salt", 32)
    record = sign_node_record(values.node_record(), values.key("node")).data
    root = values.content("root", 32)
    return {
        "about": "the item number i has the key BLAKE3('key i') and the digest BLAKE3('digest i'), i from 0 in decimal",
        "salt": salt,
        "maps": [
            {
                "count": count,
                "root": branch_of(items(count), 0).fingerprint,
                "children": [child.fingerprint for child in children_of(items(count), 0)] if count > 16 else None,
                "short": [short(child.fingerprint, salt) for child in children_of(items(count), 0)]
                if count > 16
                else None,
            }
            for count in (0, 1, 16, 17, 1000)
        ],
        "short_items": [short_item(item, salt) for item in items(3)],
        "log_states": [
            {
                "version": version,
                "size": size,
                "root": root,
                "digest": fingerprints.log_digest(version, size, root),
            }
            for version, size in ((1, 0), (1, 5), (2, 5), (1000, 2**53))
        ],
        "forked_logs": [
            {"version": 1, "common": 4, "held": held, "digest": fingerprints.forked_digest(1, 4, held)}
            for held in (2, 4)
        ],
        "node_state": {"record": record, "digest": fingerprints.node_digest(record)},
    }
