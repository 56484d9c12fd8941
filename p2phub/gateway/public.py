"""The public door: what everybody may have of this node, for reading, as other hubs tell it (spec/local-api.md §4).

It is for an institution that stands its own web server before it. Nothing can be changed
by it, nobody is asked and nothing fetched on its account, and there is no control API.
"""

from __future__ import annotations

import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from p2phub.core.errors import InvalidName
from p2phub.node.node import Node
from p2phub.node.reading import Readings

from .guard import PublicGuard
from .hub.app import Routes, answer, reading_routes
from .hub.audience import Audience
from .hub.errors import Refusal

REQUEST_S = 30.0  # seconds for a request and what its answer begins with; spec/local-api.md §4
STALL_S = 60.0  # seconds after which a receiver that takes nothing is gone; spec/local-api.md §4


class PublicDoor:
    """The ASGI application of the public door."""

    def __init__(self, node: Node, readings: Readings, hosts: frozenset[str]) -> None:
        """readings: those that fetch nothing. hosts: names or addresses by which the door is called."""
        self._node = node
        self._guard = PublicGuard(hosts)
        self._routes = Routes(
            [("GET HEAD", r"/healthz", self._health), *reading_routes(node, Audience.PUBLIC, readings, foreign=None)]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        # The web server before this one speaks TLS, and what it says of that matters for links alone.
        if request.headers.get("x-forwarded-proto", "").lower() == "https":
            scope["scheme"] = "https"
        response: Response = Refusal(408, f"the request took longer than {REQUEST_S:.0f} s").response()
        with trio.move_on_after(REQUEST_S):
            response = await answer(request, self._guard.check, self._routes)
        await response(scope, receive, send)

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"node_id": str(self._node.id)})


def public_hosts(host: str, names: tuple[str, ...]) -> frozenset[str]:
    """Return by which names a door that is bound to `host` answers. Raises InvalidName if there are none."""
    if not names and host in ("0.0.0.0", "::"):
        raise InvalidName(
            f"a public door at {host} needs to know by which name it is called",
            hint="say it with --public-host NAME: what the Host of requests will be",
        )
    own = () if host in ("0.0.0.0", "::") else (f"[{host}]" if ":" in host else host,)
    return frozenset(name.lower() for name in (*names, *own))
