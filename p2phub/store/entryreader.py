"""Read the entries of logs where they lie: in a journal, or in the log's own file (spec/store.md §4)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from sqlite3 import Connection, Row

from p2phub.core.errors import StoreError
from p2phub.core.ids import LogId
from p2phub.core.merkle import LOG_TREE

from .atonce import Columns, as_list, fetch_at_once
from .disk import disk_errors
from .journals import Journals, Place
from .layout import Layout
from .logfiles import OWN_FILE


class EntryReader:
    """Gives entries by what the index says of them; what the disk gives back otherwise than it was given is none."""

    def __init__(self, layout: Layout, journals: Journals) -> None:
        self._layout = layout
        self._journals = journals

    def of_log(self, connection: Connection, row: Row, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the encoded entries of the log of `row` from index `start` on, before `end`.

        It ends early at one that is not on the disk as it was written. Raises StoreError.
        """
        places = connection.execute(
            "SELECT leaf, journal, offset, length FROM entry_rows WHERE log_number = ? AND idx >= ? AND idx < ?"
            " ORDER BY idx",
            (row["number"], start, end if end is not None else row["size"]),
        )
        with EntryFiles(self._layout, self._journals) as files:
            for place in places:
                data = files.right(row["log"], place)
                if data is None:
                    return
                yield data

    def at(self, connection: Connection, keys: Sequence[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        """Return entries by the number of their log and their index, those that are on the disk as they came."""
        places = fetch_at_once(
            connection,
            # What lies in a journal is found without its log, which would be two more pages to read for each.
            f"SELECT e.*, CASE e.journal WHEN {OWN_FILE} THEN (SELECT log FROM logs WHERE number = e.log_number) END"
            " AS log FROM json_each(?) AS k CROSS JOIN entry_rows AS e"
            " ON e.log_number = json_extract(k.value, '$[0]') AND e.idx = json_extract(k.value, '$[1]')",
            (as_list(keys),),
            ("log_number", "idx", "leaf", "journal", "offset", "length", "log"),
            blobs=("leaf", "log"),
        )
        found = {}
        with EntryFiles(self._layout, self._journals) as files:
            for place in places:
                with contextlib.suppress(StoreError):
                    data = files.right(place["log"], place)
                    if data is not None:
                        found[place["log_number"], place["idx"]] = data
        return found


class EntryFiles:
    """What entries are read from; keeps the own files of logs open until it is left."""

    def __init__(self, layout: Layout, journals: Journals) -> None:
        self._layout = layout
        self._journals = journals
        self._own: dict[bytes, int] = {}  # descriptors by log

    def __enter__(self) -> EntryFiles:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._own.values():
            os.close(file)

    def right(self, log: bytes, row: Row | Columns) -> bytes | None:
        """Return the entry of `log` that `row` gives the place and the leaf of. Raises StoreError.

        None: the disk gives back other bytes than it was given.
        """
        place = Place(row["journal"], row["offset"], row["length"])
        data = self.read(log, place)
        return data if LOG_TREE.leaf(data) == row["leaf"] else None

    def read(self, log: bytes, place: Place) -> bytes:
        """Return the bytes at a place of `log`; fewer if they are not there. Raises StoreError."""
        if place.journal != OWN_FILE:
            return self._journals.read(place)
        path = self._layout.log(LogId(log))
        with disk_errors(path):
            if log not in self._own:
                self._own[log] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            return os.pread(self._own[log], place.length, place.offset)
