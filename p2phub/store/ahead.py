"""Up to which times signed requests came that are later than now (spec/authority.md §1).

After a restart such a request could come a second time: it was signed later than this node was started,
by its own word. Of all other requests the time tells. The clock may be set back over a restart, too: so this
node's own time stands here beside those of nodes whose clocks are ahead, under its own id.
"""

from __future__ import annotations

from p2phub.core.ids import NodeId

from .database import Database


class Ahead:
    """Up to which time each node has signed, as far as that is not over. Times are whole seconds since 1970."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, node: NodeId, created: int, now: int) -> None:
        """Note that `node` signed something at a time `created` after `now`."""
        with self._database.write() as connection:
            connection.execute("DELETE FROM signed_ahead WHERE created < ?", (now,))
            connection.execute(
                "INSERT INTO signed_ahead (node, created) VALUES (?, ?)"
                " ON CONFLICT DO UPDATE SET created = max(created, excluded.created)",
                (node, created),
            )

    def forget_after(self, latest: int) -> None:
        """Forget what was noted of times later than `latest`."""
        with self._database.write() as connection:
            connection.execute("DELETE FROM signed_ahead WHERE created > ?", (latest,))

    def after(self, now: int) -> dict[NodeId, int]:
        """Return until when nodes have signed, those that did for `now` or later."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT node, created FROM signed_ahead WHERE created >= ?", (now,))
            return {NodeId(row["node"]): row["created"] for row in rows}
