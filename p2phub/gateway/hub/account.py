"""Who asks: the node's token makes its owner, everybody else on this machine may read (spec/hub-api.md §1)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from p2phub.gateway.guard import Guard
from p2phub.node.disk import on_disk
from p2phub.node.identity import own_namespace
from p2phub.node.node import Node

from .errors import Refusal


class Account:
    """The owner of the node, as clients know them."""

    def __init__(self, node: Node, guard: Guard) -> None:
        """guard: knows the token of the node."""
        self._node = node
        self._guard = guard

    def require(self, request: Request) -> None:
        """Raise Refusal unless the request carries the node's token.

        A client may send a token of another hub; it goes nowhere from here, nor into a log.
        """
        if not request.headers.get("authorization", ""):
            raise Refusal(401, "this needs the token of the node: `p2phub env` shows it")
        if not self._guard.is_owner(request.headers):
            raise Refusal(401, "Invalid user token. It is not the one of this node: `p2phub env` shows it")

    async def who_am_i(self, request: Request) -> Response:
        """Say whose token the request carries."""
        self.require(request)
        namespace = await on_disk(own_namespace, self._node)
        name = str(namespace or self._node.id)
        return JSONResponse(
            {
                "type": "user",
                "id": name,
                "name": name,
                "fullname": name,
                "email": None,
                "canPay": False,
                "isPro": False,
                "orgs": [],
                "auth": {"type": "access_token", "accessToken": {"displayName": "local", "role": "write"}},
            }
        )
