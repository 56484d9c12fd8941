"""Which repositories this node has, and which others said that they have (spec/gossip.md §9)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from msgspec import Struct

from p2phub.core.ids import ManifestId, NodeId

from .database import Database, portions
from .released import is_of
from .searchindex import count_replicas

WHOLE = 1000  # the share of all of it
HOLDINGS_MAX = 20_000  # manifests of one other node that are remembered
FORGET_S = 7 * 24 * 3600  # seconds until what a node said is forgotten


_RELEASES = (
    "SELECT 1 FROM release_rows AS r"
    f" WHERE {is_of('m.manifest')}"
    " AND r.log_number NOT IN (SELECT l.number FROM logs AS l JOIN private_logs USING (log))"
)


class Holding(Struct, frozen=True):
    """What one node said to have of one manifest."""

    node: NodeId
    share: int  # thousandths of its bytes, 1 to WHOLE
    time: int  # when it said so, seconds since 1970


class Holdings:
    """What is held, here and elsewhere. Times are seconds since 1970, given by the caller."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def own(self, after: bytes, limit: int) -> list[tuple[ManifestId, int]]:
        """Return manifests after `after`, sorted, and how much of each is here: at least one whole file.

        What not everybody may have is left out, and what its publisher does not want to be found.
        """
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT m.manifest AS manifest, m.size AS size, sum(f.size) AS here, count(*) AS files,"
                " (SELECT count(*) FROM manifest_files WHERE manifest = m.manifest) AS all_files"
                " FROM manifests m JOIN manifest_files f ON f.manifest = m.manifest"
                " JOIN content c ON c.root = f.root"
                " WHERE m.manifest > ? AND m.manifest NOT IN (SELECT id FROM withheld)"
                " AND m.manifest NOT IN (SELECT id FROM private_ids WHERE NOT yields"
                " EXCEPT SELECT id FROM private_shared)"
                f" AND (EXISTS ({_RELEASES} AND r.listed) OR NOT EXISTS ({_RELEASES}))"
                " GROUP BY m.manifest ORDER BY m.manifest LIMIT ?",
                (after, limit),
            ).fetchall()
        return [(ManifestId(row["manifest"]), _share(row["here"], row["size"], row["files"] == row["all_files"]))
                for row in rows]  # fmt: skip

    def whole(self, manifests: Collection[ManifestId]) -> set[ManifestId]:
        """Return those of `manifests` of which all files are here."""
        found: set[ManifestId] = set()
        with self._database.read() as connection:
            for some in portions(manifests):
                rows = connection.execute(
                    f"SELECT manifest FROM manifests WHERE manifest IN ({', '.join('?' * len(some))})"
                    " AND NOT EXISTS (SELECT 1 FROM manifest_files AS f WHERE f.manifest = manifests.manifest"
                    " AND NOT EXISTS (SELECT 1 FROM content WHERE content.root = f.root))",
                    some,
                )
                found |= {ManifestId(row["manifest"]) for row in rows}
        return found

    def note(self, node: NodeId, held: Sequence[tuple[ManifestId, int]], now: float) -> None:
        """Keep what `node` has now, instead of what it had."""
        whole = {manifest for manifest, share in held[:HOLDINGS_MAX] if share == WHOLE}
        with self._database.write() as connection:
            old = (node, int(now) - FORGET_S)
            gone = connection.execute("SELECT manifest FROM holders WHERE node = ? OR time < ?", old).fetchall()
            connection.execute("DELETE FROM holdings WHERE node = ? OR time < ?", old)
            connection.executemany(
                "INSERT OR REPLACE INTO holdings (manifest, node, share, time) VALUES (?, ?, ?, ?)",
                [(manifest, node, share, int(now)) for manifest, share in held[:HOLDINGS_MAX]],
            )
            # What search counts (spec/search.md §6): whoever has all of it.
            count_replicas(connection, whole | {row["manifest"] for row in gone})

    def of(self, manifest: ManifestId) -> list[Holding]:
        """Return who said to have some of `manifest`, the most and the latest first."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT node, share, time FROM holdings WHERE manifest = ? ORDER BY share DESC, time DESC, node",
                (manifest,),
            ).fetchall()
        return [Holding(NodeId(row["node"]), row["share"], row["time"]) for row in rows]


def _share(here: int, size: int, is_whole: bool) -> int:
    """Return thousandths: WHOLE for all of it alone, and never 0."""
    if is_whole:
        return WHOLE
    return min(WHOLE - 1, max(1, here * WHOLE // max(size, 1)))
