"""The peers we know, what they did, and who is banned for how long (spec/transfer.md §5)."""

from __future__ import annotations

from sqlite3 import Connection, Row

from msgspec import Struct

from p2phub.core.ids import NodeId
from p2phub.core.names import Address, format_endpoint, parse_endpoint
from p2phub.core.noderecord import SignedNodeRecord

from .database import Database

BAN_S = (3600, 24 * 3600)  # seconds: the first ban, and each one after it; spec/transfer.md §5
FORGET_S = 30 * 24 * 3600  # seconds unseen after which a peer that nobody added is forgotten
PEERS_MAX = 10_000  # peers that nobody added
# Seconds until a peer that did not answer is called again: the first time, and at most, by how long ago it was last
# seen; spec/gossip.md §2.
RETRY_S, RETRY_LATELY_MAX_S, RETRY_SEEN_MAX_S, RETRY_UNSEEN_MAX_S = 30, 120, 3600, 24 * 3600
LATELY_S = 24 * 3600
SKEW_MAX_S = 3600  # until a peer that speaks another version is called again, at most; spec/transfer.md §5


class Peer(Struct, frozen=True):
    """What is known of one node."""

    node: NodeId
    endpoints: tuple[tuple[str, int], ...]  # host and port, best first
    record: bytes | None  # its newest signed node record
    added: bool  # by the user
    last_seen: int | None  # seconds since 1970
    last_error: str | None
    failures: int  # since it was last seen
    next_try: int  # seconds since 1970, not to be called before; 0: at any time
    received: int  # bytes of content
    bans: int
    banned_until: int  # seconds since 1970; 0: not banned
    ban_reason: str | None
    skews: int  # answers of another version, since it was last understood
    skew: str | None  # the newest of them

    @property
    def addresses(self) -> list[str]:
        return [str(Address(self.node, host, port)) for host, port in self.endpoints]


class Peers:
    """The peers of one home. Times are seconds since 1970, given by the caller."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, address: Address) -> None:
        """Remember an address that the user gave."""
        with self._database.write() as connection:
            row = connection.execute("SELECT typed, addresses FROM peers WHERE node = ?", (address.node,)).fetchone()
            typed = [(address.host, address.port)]
            others: list[tuple[str, int]] = []
            if row:
                typed = _merge(typed, _split(row["typed"]))
                others = _split(row["addresses"])
            connection.execute(
                "INSERT INTO peers (node, typed, addresses, record_time, added, failures, received, bans, banned_until)"
                " VALUES (?, ?, ?, 0, 1, 0, 0, 0, 0) ON CONFLICT (node) DO UPDATE SET"
                " typed = excluded.typed, addresses = excluded.addresses, added = 1, next_try = 0",
                (address.node, _join(typed), _join(_merge(typed, others))),
            )

    def note_found(self, address: Address) -> None:
        """Remember where a peer was found; it has yet to prove that it is there."""
        with self._database.write() as connection:
            row = connection.execute("SELECT addresses FROM peers WHERE node = ?", (address.node,)).fetchone()
            if row is None and not self._has_room(connection, address.node):
                return
            # First: it is near.
            endpoints = _join(_merge([(address.host, address.port)], _split(row["addresses"]) if row else []))
            connection.execute(
                "INSERT INTO peers (node, typed, addresses, record_time, added, failures, received, bans, banned_until)"
                " VALUES (?, '', ?, 0, 0, 0, 0, 0, 0) ON CONFLICT (node) DO UPDATE SET addresses = excluded.addresses",
                (address.node, endpoints),
            )

    def note_record(self, signed: SignedNodeRecord) -> bool:
        """Keep a verified node record; returns whether it is newer than what was here."""
        record = signed.record
        with self._database.write() as connection:
            row = connection.execute("SELECT * FROM peers WHERE node = ?", (record.node,)).fetchone()
            if row and row["record_time"] >= record.time:
                return False
            if row is None and not self._has_room(connection, record.node):
                return False
            endpoints = [parse_endpoint(address) for address in record.addresses]
            if row:
                # What the user typed stays: the record may name addresses that we cannot reach.
                endpoints = _merge(_split(row["typed"]), endpoints)
            # No upsert: SQLite would let its way with conflicts be that of the triggers which it fires.
            if row:
                connection.execute(
                    "UPDATE peers SET addresses = ?, record = ?, record_time = ? WHERE node = ?",
                    (_join(endpoints), signed.data, record.time, record.node),
                )
            else:
                connection.execute(
                    "INSERT INTO peers (node, typed, addresses, record, record_time, added, failures, received, bans,"
                    " banned_until) VALUES (?, '', ?, ?, ?, 0, 0, 0, 0, 0)",
                    (record.node, _join(endpoints), signed.data, record.time),
                )
        return True

    def note_seen(self, node: NodeId, now: float) -> None:
        """Note that a peer answered."""
        with self._database.write() as connection:
            connection.execute(
                "UPDATE peers SET last_seen = ?, failures = 0, last_error = NULL,"
                # That it answers does not mean that it is understood.
                " next_try = CASE WHEN skews = 0 THEN 0 ELSE next_try END WHERE node = ?",
                (int(now), node),
            )

    def note_failure(self, node: NodeId, error: str, now: float) -> int:
        """Note that a peer did not answer, and why; returns the seconds that it should not be called again."""
        with self._database.write() as connection:
            row = connection.execute("SELECT failures, last_seen FROM peers WHERE node = ?", (node,)).fetchone()
            if row is None:
                return RETRY_UNSEEN_MAX_S
            if row["last_seen"] is None:
                most = RETRY_UNSEEN_MAX_S
            else:
                most = RETRY_LATELY_MAX_S if row["last_seen"] > now - LATELY_S else RETRY_SEEN_MAX_S
            wait_s: int = min(RETRY_S * 2 ** min(row["failures"], 20), most)
            connection.execute(
                "UPDATE peers SET failures = failures + 1, next_try = ?, last_error = ? WHERE node = ?",
                (int(now) + wait_s, error, node),
            )
        return wait_s

    def note_skew(self, node: NodeId, what: str, now: float) -> int:
        """Note that a peer said what another version may say; returns the seconds until it should be called again."""
        with self._database.write() as connection:
            row = connection.execute("SELECT skews FROM peers WHERE node = ?", (node,)).fetchone()
            if row is None:
                return SKEW_MAX_S
            wait_s: int = min(RETRY_S * 2 ** min(row["skews"], 20), SKEW_MAX_S)
            connection.execute(
                "UPDATE peers SET skews = skews + 1, skew = ?, next_try = max(next_try, ?) WHERE node = ?",
                (what, int(now) + wait_s, node),
            )
        return wait_s

    def note_understood(self, node: NodeId) -> None:
        """Note that a peer is understood again."""
        with self._database.write() as connection:
            connection.execute(
                "UPDATE peers SET skews = 0, skew = NULL, next_try = 0 WHERE node = ? AND skews > 0", (node,)
            )

    def note_received(self, node: NodeId, size: int) -> None:
        """Note `size` more bytes of content that a peer gave."""
        with self._database.write() as connection:
            connection.execute("UPDATE peers SET received = received + ? WHERE node = ?", (size, node))

    def ban(self, node: NodeId, reason: str, now: float) -> int:
        """Ban a peer that lied; returns until when. A second time it is for longer."""
        with self._database.write() as connection:
            row = connection.execute("SELECT bans FROM peers WHERE node = ?", (node,)).fetchone()
            bans = row["bans"] if row else 0
            until = int(now) + BAN_S[min(bans, len(BAN_S) - 1)]
            # A peer that nobody told us of is banned as well.
            connection.execute(
                "INSERT INTO peers (node, typed, addresses, record_time, added, failures, received, bans, banned_until,"
                " ban_reason) VALUES (?, '', '', 0, 0, 0, 0, 1, ?, ?) ON CONFLICT (node) DO UPDATE SET"
                " bans = bans + 1, banned_until = excluded.banned_until, ban_reason = excluded.ban_reason",
                (node, until, reason),
            )
        return until

    def remove(self, node: NodeId) -> bool:
        """Forget a peer, its bans too; returns whether it was known."""
        with self._database.write() as connection:
            return connection.execute("DELETE FROM peers WHERE node = ?", (node,)).rowcount > 0

    def _has_room(self, connection: Connection, node: NodeId) -> bool:
        """Say whether `node`, which nobody added, may be kept; in its stead one that never answered is forgotten."""
        (count,) = connection.execute("SELECT count(*) FROM peers WHERE added = 0").fetchone()
        if count < PEERS_MAX:
            return True
        # The next by id: so it is no matter who came first, nor what a record says of itself.
        row = connection.execute(
            "SELECT node FROM peers WHERE added = 0 AND last_seen IS NULL AND bans = 0 ORDER BY node < ?, node LIMIT 1",
            (node,),
        ).fetchone()
        if row is None:
            return False
        connection.execute("DELETE FROM peers WHERE node = ?", (row["node"],))
        return True

    def forget_old(self, now: float) -> None:
        """Forget the peers that nobody added and that were not seen for long.

        What was put off further than it can be was so by a clock that was ahead, and has been set back since.
        """
        with self._database.write() as connection:
            for column, most in (("next_try", RETRY_UNSEEN_MAX_S), ("banned_until", BAN_S[-1])):
                until = int(now) + most
                connection.execute(f"UPDATE peers SET {column} = ? WHERE {column} > ?", (until, until))
            connection.execute(
                "DELETE FROM peers WHERE added = 0 AND banned_until < ?"
                " AND max(coalesce(last_seen, 0), record_time) < ?",
                (int(now), int(now) - FORGET_S),
            )

    def get(self, node: NodeId) -> Peer | None:
        """Return a peer, None if it is not known."""
        with self._database.read() as connection:
            row = connection.execute("SELECT * FROM peers WHERE node = ?", (node,)).fetchone()
        return _peer(row) if row else None

    def callable(self, now: float, *, added: bool) -> list[NodeId]:
        """Return the peers that may be called now, sorted: those that the user added, or others that ever answered."""
        which = "added = 1" if added else "added = 0 AND last_seen IS NOT NULL"
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT node FROM peers WHERE {which} AND next_try <= ? AND banned_until <= ? AND addresses != ''"
                " ORDER BY node",
                (int(now), int(now)),
            ).fetchall()
        return [NodeId(row["node"]) for row in rows]

    def reached(self, since: float) -> list[NodeId]:
        """Return the peers with a record that answered since then, sorted."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT node FROM peers WHERE last_seen > ? AND record IS NOT NULL ORDER BY node", (int(since),)
            ).fetchall()
        return [NodeId(row["node"]) for row in rows]

    def all(self) -> list[Peer]:
        """Return all peers: those that the user added first, then those seen last."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT * FROM peers ORDER BY added DESC, coalesce(last_seen, 0) DESC, node"
            ).fetchall()
        return [_peer(row) for row in rows]


def _peer(row: Row) -> Peer:
    return Peer(
        node=NodeId(row["node"]),
        endpoints=tuple(_split(row["addresses"])),
        record=row["record"],
        added=bool(row["added"]),
        last_seen=row["last_seen"],
        last_error=row["last_error"],
        failures=row["failures"],
        next_try=row["next_try"],
        received=row["received"],
        bans=row["bans"],
        banned_until=row["banned_until"],
        ban_reason=row["ban_reason"],
        skews=row["skews"],
        skew=row["skew"],
    )


def _merge(first: list[tuple[str, int]], then: list[tuple[str, int]]) -> list[tuple[str, int]]:
    return first + [endpoint for endpoint in then if endpoint not in first]


def _split(text: str) -> list[tuple[str, int]]:
    return [parse_endpoint(part) for part in text.split()]


def _join(endpoints: list[tuple[str, int]]) -> str:
    return " ".join(format_endpoint(host, port) for host, port in endpoints[:16])
