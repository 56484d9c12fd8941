"""What must be accepted before content is handed out, and who accepted it (spec/gates.md).

    publishers' logs ──gate, ungate──▶ gate_rows
                     ──approve, refuse──▶ gate_decisions
    receipts, own and shown ──▶ receipts

The receipts alone do not follow from the logs.
"""

from __future__ import annotations

from collections.abc import Collection
from sqlite3 import Connection, Row

from msgspec import Struct
from msgspec.structs import replace

from p2phub.core.access import Caller
from p2phub.core.gates import Gate, SignedReceipt
from p2phub.core.ids import ManifestId, NamespaceId, NodeId
from p2phub.core.records import Approve, OpenGate, Refuse, SetGate

from .database import Database, portions
from .released import is_of

GATE_TABLES = ("gate_rows", "gate_decisions")  # that follow from the logs
RECEIPTS_MAX = 100_000  # of others, all together
FORGOTTEN_AT_ONCE = 1000  # receipts, when there are too many
RECEIPTS_OF_NODE_MAX = 64  # that one node has shown; spec/gates.md §3

_PLACES = " JOIN repositories ON repositories.number = r.repository JOIN identities ON identities.number = publisher"
# Of several words of a publisher on one thing, in one log or in several, the latest counts.
_LATEST = " ORDER BY r.time DESC, r.idx DESC, r.leaf DESC LIMIT 1"

# The approval that the gate of a repository (a column) asks for now; NULL: it has none.
APPROVAL = f"(SELECT r.approval FROM gate_rows AS r WHERE r.repository = {{}}{_LATEST})"


class Place(Struct, frozen=True):
    """A repository that has some content."""

    publisher: NamespaceId
    model: str
    gate: Gate | None  # that stands before it
    is_private: bool = False  # only private logs say that it has it


class KeptReceipt(Struct, frozen=True):
    """A receipt that is here."""

    hash: bytes
    gate: bytes  # leaf of its record
    namespace: NamespaceId
    node: NodeId | None
    data: bytes
    shown_by: NodeId | None  # None: an own one
    time: int  # seconds since 1970


class Decision(Struct, frozen=True):
    """What the publisher said to a receipt."""

    is_approved: bool
    until: int | None  # seconds since 1970


class Gates:
    """The gates of all repositories that are known here, and the receipts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # ── gates ───────────────────────────────────────────────────────────────

    def has_any(self) -> bool:
        """Say whether any gate is known: mostly none is, and this is asked for every span that is sent."""
        with self._database.read() as connection:
            return connection.execute("SELECT 1 FROM gate_rows LIMIT 1").fetchone() is not None

    def of_repository(self, publisher: NamespaceId, model: str) -> Gate | None:
        """Return the gate that stands before a repository, None if it is open."""
        with self._database.read() as connection:
            row = connection.execute(
                f"SELECT namespace, model, r.* FROM gate_rows AS r {_PLACES}"
                f" WHERE namespace = ? AND model = ?{_LATEST}",
                (publisher, model),
            ).fetchone()
        return _gate(row)

    def of_publisher(self, publisher: NamespaceId) -> list[Gate]:
        """Return the gates of one publisher, by model."""
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT DISTINCT model FROM gate_rows AS r {_PLACES} WHERE namespace = ? ORDER BY model", (publisher,)
            ).fetchall()
        found = (self.of_repository(publisher, row["model"]) for row in rows)
        return [gate for gate in found if gate]

    def of_manifest(self, manifest: ManifestId) -> list[Place]:
        """Return the repositories that have a revision, with their gates."""
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT DISTINCT repository FROM release_rows AS r WHERE {is_of('?1')}", (manifest,)
            ).fetchall()
            return [_place_of(connection, row["repository"]) for row in rows]

    def of_content(self, roots: Collection[bytes]) -> dict[bytes, list[Place]]:
        """Return the repositories that have each of the files `roots`, with their gates; what none has is left out."""
        numbers: dict[bytes, dict[int, bool]] = {}  # by repository: whether it is so by private logs only
        with self._database.read() as connection:
            for some in portions(roots):
                marks = ", ".join("?" * len(some))
                for row in connection.execute(
                    "SELECT f.root, r.repository, min(p.log IS NOT NULL) AS private"
                    f" FROM manifest_files AS f JOIN release_rows AS r ON {is_of('f.manifest')}"
                    " JOIN logs AS l ON l.number = r.log_number LEFT JOIN private_logs AS p ON p.log = l.log"
                    f" WHERE f.root IN ({marks}) GROUP BY f.root, r.repository",
                    some,
                ):
                    numbers.setdefault(row["root"], {})[row["repository"]] = bool(row["private"])
            places = {each: _place_of(connection, each) for each in {n for some in numbers.values() for n in some}}
        return {
            root: [replace(places[number], is_private=each[number]) for number in sorted(each)]
            for root, each in numbers.items()
        }

    def mirrored(self, roots: Collection[bytes]) -> set[bytes]:
        """Return those of the files `roots` of which somebody attests that another hub gives them to all."""
        found: set[bytes] = set()
        with self._database.read() as connection:
            for some in portions(roots):
                marks = ", ".join("?" * len(some))
                rows = connection.execute(
                    "SELECT DISTINCT f.root FROM manifest_files AS f JOIN attestations AS a USING (manifest)"
                    f" WHERE f.root IN ({marks})",
                    some,
                )
                found |= {row["root"] for row in rows}
        return found

    def accepted(self) -> set[tuple[NamespaceId, str]]:
        """Return the repositories of which a gate was accepted here, be it the one that stands now or one before."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT DISTINCT identities.namespace, model"
                f" FROM receipts JOIN gate_rows AS r ON r.leaf = receipts.gate {_PLACES} WHERE shown_by IS NULL"
            )
            return {(NamespaceId(row["namespace"]), row["model"]) for row in rows}

    def by_leaf(self, leaf: bytes) -> Gate | None:
        """Return the gate whose record has this leaf hash, if it still stands."""
        with self._database.read() as connection:
            row = connection.execute("SELECT repository FROM gate_rows WHERE leaf = ?", (leaf,)).fetchone()
            gate = _gate_of(connection, row["repository"]) if row else None
        return gate if gate and gate.leaf == leaf else None

    def decision(self, gate: Gate, receipt: bytes) -> Decision | None:
        """Return what the publisher of `gate` said last to the receipt with this hash, None if nothing."""
        with self._database.read() as connection:
            row = connection.execute(
                f"SELECT r.* FROM gate_decisions AS r {_PLACES}"
                f" WHERE receipt = ? AND namespace = ? AND model = ?{_LATEST}",
                (receipt, gate.publisher, gate.model),
            ).fetchone()
        return Decision(bool(row["approved"]), row["until"]) if row else None

    # ── receipts ────────────────────────────────────────────────────────────

    def keep(self, signed: SignedReceipt, shown_by: NodeId | None) -> None:
        """Keep a checked receipt. shown_by: None for an own one."""
        receipt = signed.receipt
        with self._database.write() as connection:
            if shown_by is not None:
                self._make_room(connection, shown_by)
            connection.execute(
                "INSERT INTO receipts (hash, gate, namespace, node, data, shown_by, time) VALUES (?, ?, ?, ?, ?, ?, ?)"
                # What was shown may turn out to be an own one.
                " ON CONFLICT DO UPDATE SET shown_by = NULL WHERE excluded.shown_by IS NULL",
                (signed.hash, receipt.gate, receipt.namespace, receipt.node, signed.data, shown_by, receipt.time),
            )

    def _make_room(self, connection: Connection, node: NodeId) -> None:
        (count,) = connection.execute("SELECT count(*) FROM receipts WHERE shown_by = ?", (node,)).fetchone()
        if count >= RECEIPTS_OF_NODE_MAX:
            # It can show them again; others are not to pay for one that shows many.
            connection.execute(
                "DELETE FROM receipts WHERE hash IN"
                " (SELECT hash FROM receipts WHERE shown_by = ? ORDER BY time, hash LIMIT 1)",
                (node,),
            )
        (count,) = connection.execute("SELECT count(*) FROM receipts WHERE shown_by IS NOT NULL").fetchone()
        if count >= RECEIPTS_MAX:
            # By chance, so that nobody can choose whose go, and not those that a publisher has had a look at. Whoever
            # uses his shows it again.
            connection.execute(
                "DELETE FROM receipts WHERE hash IN (SELECT hash FROM receipts WHERE shown_by IS NOT NULL"
                " AND hash NOT IN (SELECT receipt FROM gate_decisions) ORDER BY random() LIMIT ?)",
                (FORGOTTEN_AT_ONCE,),
            )

    def receipts(self, gate: Gate) -> list[KeptReceipt]:
        """Return the receipts for `gate` that are here, the oldest first."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT * FROM receipts WHERE gate = ? ORDER BY time, hash", (gate.leaf,))
            return [_receipt(row) for row in rows]

    def receipt(self, hash_: bytes) -> KeptReceipt | None:
        """Return the receipt with this hash, None if it is not here."""
        with self._database.read() as connection:
            row = connection.execute("SELECT * FROM receipts WHERE hash = ?", (hash_,)).fetchone()
        return _receipt(row) if row else None

    def own_receipts(self, gate: Gate | None = None) -> list[KeptReceipt]:
        """Return what was accepted here, for one gate or for all, the oldest first."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT * FROM receipts WHERE shown_by IS NULL ORDER BY time, hash").fetchall()
        return [_receipt(row) for row in rows if gate is None or row["gate"] == gate.leaf]

    def receipts_of(self, gate: Gate, caller: Caller) -> list[KeptReceipt]:
        """Return the receipts for `gate` that are of `caller`: of his node, or of those he acts for."""
        if gate.per == "person":
            query, values = "node = ?", [caller.node]
        else:
            marks = ", ".join("?" * len(caller.namespaces))
            query, values = f"node IS NULL AND namespace IN ({marks})", sorted(caller.namespaces)  # type: ignore[assignment]
        with self._database.read() as connection:
            rows = connection.execute(f"SELECT * FROM receipts WHERE gate = ? AND {query}", (gate.leaf, *values))
            return [_receipt(row) for row in rows]


def apply_gate(
    connection: Connection, record: SetGate | OpenGate, leaf: bytes, repository: int, log_number: int
) -> None:
    """Take in what a publisher asks for."""
    asked = (record.name, record.licence, record.per, record.approval) if isinstance(record, SetGate) else (None,) * 4
    connection.execute(
        "INSERT OR REPLACE INTO gate_rows (repository, log_number, idx, leaf, name, licence, per, approval, time)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (repository, log_number, record.index, leaf, *asked, record.time),
    )


def apply_decision(
    connection: Connection, record: Approve | Refuse, leaf: bytes, repository: int, log_number: int
) -> None:
    """Take in what a publisher says to a receipt."""
    is_approved = isinstance(record, Approve)
    until = record.until if isinstance(record, Approve) else None
    connection.execute(
        "INSERT OR REPLACE INTO gate_decisions (repository, log_number, idx, receipt, approved, until, leaf, time)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (repository, log_number, record.index, record.receipt, is_approved, until, leaf, record.time),
    )


def _gate_of(connection: Connection, repository: int) -> Gate | None:
    row = connection.execute(
        f"SELECT namespace, model, r.* FROM gate_rows AS r {_PLACES} WHERE r.repository = ?{_LATEST}", (repository,)
    ).fetchone()
    return _gate(row)


def _place_of(connection: Connection, repository: int) -> Place:
    row = connection.execute(
        "SELECT namespace, model FROM repositories JOIN identities ON identities.number = publisher"
        " WHERE repositories.number = ?",
        (repository,),
    ).fetchone()
    return Place(NamespaceId(row["namespace"]), row["model"], _gate_of(connection, repository))


def _gate(row: Row | None) -> Gate | None:
    if row is None or row["name"] is None:
        return None
    publisher = NamespaceId(row["namespace"])
    return Gate(
        publisher, row["model"], row["leaf"], row["name"], row["licence"], row["per"], row["approval"], row["time"]
    )


def _receipt(row: Row) -> KeptReceipt:
    return KeptReceipt(
        row["hash"],
        row["gate"],
        NamespaceId(row["namespace"]),
        NodeId(row["node"]) if row["node"] else None,
        row["data"],
        NodeId(row["shown_by"]) if row["shown_by"] else None,
        row["time"],
    )
