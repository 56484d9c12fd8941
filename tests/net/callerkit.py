"""Callers of the peer door, over TLS and plain."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from netkit import Caller

from p2phub.testing import values

MIB = 1024 * 1024
WAYS = pytest.mark.parametrize("plain", [False, True], ids=["tls", "plain"])


def on_connection(port: int, plain: bool, talk: Callable[[Caller], object], **options: object) -> object:
    with Caller(port, plain=plain, **options) as caller:  # type: ignore[arg-type]
        return talk(caller)


def ends(caller: Caller) -> bytes:
    """Return what comes until the door closes the connection."""
    return caller.rest()


CONTENTS = {"large": values.content("large", 5 * MIB + 123), "small": b"small", "other": values.content("o", 2 * MIB)}
PARTS = [
    ("large", 0, 5 * MIB + 123), ("small", 1, 3), ("other", MIB, MIB), ("large", 1000, 1), ("large", MIB - 1, MIB + 2),
    ("small", 0, 5), ("small", 0, 5),
]  # fmt: skip
