"""What this node knows of federations, and the invitations that it gave out (spec/federation.md §5).

Only what was checked is kept here: signatures, and whose the keys are. Nothing of it follows
from the logs, and nothing of it goes by itself: the newest charter is remembered so that no
older one is ever believed again.
"""

from __future__ import annotations

from msgspec import Struct

from p2phub.core.federation import Agreement, Charter, open_agreement, open_charter
from p2phub.core.ids import FederationId, NamespaceId

from .database import Database


class Known(Struct, frozen=True):
    """A federation as far as it is known."""

    charter: Charter
    charter_data: bytes  # signed
    agreements: dict[NamespaceId, Agreement]  # the last word of each, of those that left too
    agreements_data: dict[NamespaceId, bytes]  # signed
    contradicted: bool  # its coordinator signed two charters of one version


class Invited(Struct, frozen=True):
    """An invitation that this node gave out."""

    federation: FederationId
    namespace: NamespaceId | None  # who may use it; None: anybody
    expires: int  # seconds since 1970
    used_by: NamespaceId | None


class Federations:
    """The federations that this home is, or was, a member of."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Known]:
        """Return all that are known, sorted by name and id."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT * FROM federations").fetchall()
            words = connection.execute("SELECT federation, agreement FROM agreements").fetchall()
        found = []
        for row in rows:
            data = {
                opened.namespace: (opened, word["agreement"])
                for word in words
                if word["federation"] == row["federation"]
                for opened in (open_agreement(word["agreement"]),)
            }
            found.append(
                Known(
                    open_charter(row["charter"]),
                    row["charter"],
                    {namespace: opened for namespace, (opened, _) in data.items()},
                    {namespace: word for namespace, (_, word) in data.items()},
                    bool(row["contradicted"]),
                )
            )
        return sorted(found, key=lambda known: (known.charter.name, known.charter.id))

    def get(self, federation: FederationId) -> Known | None:
        """Return one, None if it is not known."""
        return next((known for known in self.all() if known.charter.id == federation), None)

    def put_charter(self, data: bytes) -> bool:
        """Keep a checked charter if it is newer than what is here; returns whether it is.

        Another one of the same version is noted as a contradiction, and the first stays.
        """
        charter = open_charter(data)
        with self._database.write() as connection:
            row = connection.execute(
                "SELECT version, charter FROM federations WHERE federation = ?", (charter.id,)
            ).fetchone()
            if row is not None and row["version"] == charter.version and open_charter(row["charter"]) != charter:
                connection.execute("UPDATE federations SET contradicted = 1 WHERE federation = ?", (charter.id,))
            if row is not None and row["version"] >= charter.version:
                return False
            connection.execute(
                "INSERT INTO federations (federation, version, charter, contradicted) VALUES (?, ?, ?, 0)"
                " ON CONFLICT (federation) DO UPDATE SET version = excluded.version, charter = excluded.charter",
                (charter.id, charter.version, data),
            )
        return True

    def put_agreement(self, data: bytes) -> bool:
        """Keep a checked word of a member if it is its last; returns whether it is."""
        agreement = open_agreement(data)
        with self._database.write() as connection:
            row = connection.execute(
                "SELECT serial FROM agreements WHERE federation = ? AND namespace = ?",
                (agreement.federation, agreement.namespace),
            ).fetchone()
            if row is not None and row["serial"] >= agreement.serial:
                return False
            connection.execute(
                "INSERT OR REPLACE INTO agreements (federation, namespace, serial, agreement) VALUES (?, ?, ?, ?)",
                (agreement.federation, agreement.namespace, agreement.serial, data),
            )
        return True

    # ── invitations ─────────────────────────────────────────────────────────

    def note_invitation(
        self, digest: bytes, federation: FederationId, namespace: NamespaceId | None, expires: int
    ) -> None:
        """Remember an invitation by the digest of its secret: the secret itself is kept nowhere."""
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO invitations (digest, federation, namespace, expires) VALUES (?, ?, ?, ?)",
                (digest, federation, namespace, expires),
            )

    def invitation(self, digest: bytes) -> Invited | None:
        """Return the invitation with this digest, None if none was given out here, or it was taken back."""
        with self._database.read() as connection:
            row = connection.execute("SELECT * FROM invitations WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            return None
        return Invited(
            FederationId(row["federation"]),
            NamespaceId(row["namespace"]) if row["namespace"] else None,
            row["expires"],
            NamespaceId(row["used_by"]) if row["used_by"] else None,
        )

    def use_invitation(self, digest: bytes, by: NamespaceId) -> NamespaceId | None:
        """Let `by` use an invitation unless somebody has; returns who has used it then, None if there is none.

        Of two at once one alone gets it.
        """
        with self._database.write() as connection:
            connection.execute("UPDATE invitations SET used_by = ? WHERE digest = ? AND used_by IS NULL", (by, digest))
            row = connection.execute("SELECT used_by FROM invitations WHERE digest = ?", (digest,)).fetchone()
        return NamespaceId(row["used_by"]) if row else None

    def open_invitations(self, federation: FederationId, now: float) -> list[Invited]:
        """Return those that nobody used yet, and that still can be."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT digest FROM invitations WHERE federation = ? AND used_by IS NULL AND expires > ?"
                " ORDER BY expires, digest",
                (federation, int(now)),
            ).fetchall()
        found = [self.invitation(row["digest"]) for row in rows]
        return [each for each in found if each is not None]

    def withdraw_invitations(self, federation: FederationId) -> int:
        """Take all back that nobody used yet; returns how many there were."""
        with self._database.write() as connection:
            return connection.execute(
                "DELETE FROM invitations WHERE federation = ? AND used_by IS NULL", (federation,)
            ).rowcount
