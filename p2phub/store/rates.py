"""How fast each provider was lately, so that people can be told how long a download will take (spec/transfer.md §6)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .database import Database, portions

RATES_MAX = 10_000  # providers; the oldest go first


class Rates:
    """Rates of peers, by node id, and of origins, by host and port."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, rates: Mapping[str, float], now: float) -> None:
        """Remember the rates (bytes a second) that a download had; half of what was known before stays.

        now: seconds since 1970.
        """
        if not rates:
            return
        with self._database.write() as connection:
            connection.executemany(
                "INSERT INTO rates (provider, rate, noted) VALUES (?, ?, ?) ON CONFLICT (provider) DO UPDATE SET"
                " rate = (rate + excluded.rate) / 2, noted = excluded.noted",
                [(name, int(rate), int(now)) for name, rate in rates.items()],
            )
            connection.execute(
                "DELETE FROM rates WHERE provider IN"
                " (SELECT provider FROM rates ORDER BY noted DESC, provider LIMIT -1 OFFSET ?)",
                (RATES_MAX,),
            )

    def of(self, names: Collection[str]) -> dict[str, float]:
        """Return the rates of those of the providers `names` that gave something before, in bytes a second."""
        found: dict[str, float] = {}
        with self._database.read() as connection:
            for some in portions(names):
                marks = ", ".join("?" * len(some))
                rows = connection.execute(f"SELECT provider, rate FROM rates WHERE provider IN ({marks})", some)
                found.update((row["provider"], float(row["rate"])) for row in rows)
        return found
