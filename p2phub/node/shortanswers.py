"""The short answers of the peer door, for whoever is given nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from p2phub.net.door import Response


def text(status: int, words: str) -> Response:
    """Say in words what is wrong."""
    return Response(status, words.encode(), "text/plain")


def busy(wait_s: float) -> Response:
    """Send away somebody who is to come again in so many seconds."""
    return Response(429, b"that is too much at once", "text/plain", {"retry-after": str(math.ceil(wait_s))})


def unproven(words: str, headers: Mapping[str, str] = MappingProxyType({})) -> Response:
    """Say that who asks has to prove who he is."""
    return Response(401, words.encode(), "text/plain", {"www-authenticate": "p2phub", **headers})
