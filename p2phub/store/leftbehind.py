"""What a crash left in a journal behind the end that the index knows (spec/store.md §4).

The next batch takes it in, as if a peer had sent it now: so it is checked like that.
"""

from __future__ import annotations

from collections.abc import Iterable
from sqlite3 import Connection

from p2phub.core.checkpoint import Head, open_head, parse_head
from p2phub.core.errors import InvalidData
from p2phub.core.identity import Identity
from p2phub.core.ids import LogId, NamespaceId, PublicKey
from p2phub.core.records import Entry, read_entry

from .arrivals import Arrival, check_entries
from .chains import check_identity, unpack_identity
from .journals import HEAD, IDENTITY, Frame


def left_behind(connection: Connection, frames: Iterable[Frame]) -> tuple[list[Identity], list[Arrival]]:
    """Return what frames hold that a crash kept out of the index, checked."""
    identities: dict[NamespaceId, Identity] = {}
    heads: dict[LogId, bytes] = {}
    found: dict[LogId, list[Entry]] = {}
    for frame in frames:
        try:
            if frame.kind == IDENTITY:
                identity = check_identity(frame.data)
                identities[identity.namespace] = identity
            elif frame.kind == HEAD:
                heads[parse_head(frame.data).log] = frame.data
            else:
                entry = read_entry(frame.data)
                found.setdefault(entry.record.log, []).append(entry)
        except InvalidData:
            continue
    arrivals: list[Arrival] = []
    for log, entries in found.items():
        namespace, start = entries[0].record.namespace, entries[0].record.index
        proven = identities.get(namespace) or _known_identity(connection, namespace)
        if proven is None or log not in proven.logs:
            continue
        key = proven.logs[log]
        # The clock was looked at when they came.
        checked = check_entries([entry.data for entry in entries], namespace, log, key, start, now=float("inf"))
        head = head_if_right(heads.get(log, b""), log, key)
        if head is not None and head.size < start + len(checked.entries):
            head = None
        arrivals.append(Arrival(proven, log, key, head, start, checked))
    return list(identities.values()), arrivals


def head_if_right(text: bytes, log: LogId, key: PublicKey) -> Head | None:
    """Return the head of `log` that `text` holds, None if it is none that `key` signed."""
    try:
        return open_head(text, log=log, key=key)
    except InvalidData:
        return None


def _known_identity(connection: Connection, namespace: NamespaceId) -> Identity | None:
    row = connection.execute("SELECT chain FROM identities WHERE namespace = ?", (namespace,)).fetchone()
    return unpack_identity(row["chain"]) if row else None
