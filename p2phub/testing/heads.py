"""Fill a store with the heads of logs that nobody ever wrote, for what compares heads and fetches no records.

A million real logs take minutes to sign and to take over; of those that are the same on both
sides nothing but their heads is ever looked at.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator

from blake3 import blake3

from p2phub.core.ids import LogId
from p2phub.store.store import Store


def fill_with_heads(store: Store, count: int, *, name: str = "log") -> None:
    """Note `count` logs of one record each in the index; equal names give equal logs."""
    with store.database.write() as connection:
        connection.executemany(
            "INSERT INTO logs (log, namespace, key, size, bytes, peaks, head) VALUES (?, ?, ?, 1, 0, ?, ?)",
            _rows(name, count),
        )


def _rows(name: str, count: int) -> Iterator[tuple[bytes, bytes, bytes, bytes, bytes]]:
    for number in range(count):
        material = blake3(f"{name} {number}".encode()).digest(128)
        log, namespace, key, root = (material[at : at + 32] for at in range(0, 128, 32))
        signed = f"p2phub/log/{LogId(log)}\n1\n{base64.b64encode(root).decode()}\n"
        signature = base64.b64encode(material[:68]).decode()
        yield log, namespace, key, root, f"{signed}\n— p2phub/log/{LogId(log)} {signature}\n".encode()
