"""The hub door: what clients of other hubs ask, answered by this node (spec/hub-api.md).

    HF_ENDPOINT=http://127.0.0.1:8628

    request ──check origin──▶ route by the raw path ──▶ reading │ listing │ writing │ uploads ──▶ answer
                                                             └── Refusal, HubError ──▶ error with its code

Paths are split before they are decoded: a branch may have a slash, a file a `%`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable

import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from p2phub.core.choices import Kind
from p2phub.core.errors import HubError
from p2phub.node.foreign import Arrivals
from p2phub.node.node import Node
from p2phub.node.reading import Readings

from .account import Account
from .errors import Refusal, refusal_of
from .foreign import ForeignRepositories
from .listing import ListingRequests
from .lookup import Lookup
from .reading import ReadingRequests
from .requests import check_origin, decode_part
from .uploads import UploadRequests
from .writing import WritingRequests
from .xet import XetRequests

log = logging.getLogger(__name__)

Handler = Callable[..., Awaitable[Response]]

_KINDS: dict[str, Kind] = {"models": "model", "datasets": "dataset"}
# A name is two parts; a revision one, in which slashes are encoded; only these come as they are.
_NAME = r"([^/]+/[^/]+)"
_NO_NAMESPACE = "(?:api|datasets|spaces|kernels|upload|xet)/"
_REVISION = r"(refs/(?:pr|heads|tags)/[^/]+|[^/]+)"


class HubDoor:
    """The ASGI application that speaks the hub's protocol."""

    def __init__(self, node: Node, token: str, hosts: frozenset[str], nursery: trio.Nursery) -> None:
        """token: the node's; hosts: values of `Host` that are ours; nursery: where downloads for readers run."""
        self._hosts = hosts
        account = Account(node, token)
        lookup = Lookup(node)
        readings = Readings(node, nursery)
        foreign = ForeignRepositories(node, readings, Arrivals(node, nursery))
        reading = ReadingRequests(node, lookup, foreign, readings)
        listing = ListingRequests(node)
        writing = WritingRequests(node, lookup, account)
        uploads = UploadRequests(node, account)
        xet = XetRequests(node, lookup, account)
        of_kind, of_repository = r"/api/(models|datasets)", rf"/api/(models|datasets)/{_NAME}"
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = [
            (methods, re.compile(pattern), handler)
            for methods, pattern, handler in (
                ("GET", r"/api/whoami-v2", account.who_am_i),
                ("GET", of_kind, listing.page),
                ("GET", of_repository, reading.info),
                ("GET", rf"{of_repository}/revision/{_REVISION}", reading.info),
                ("GET", rf"{of_repository}/tree/{_REVISION}(?:/(.*))?", reading.tree),
                ("POST", rf"{of_repository}/paths-info/{_REVISION}", reading.paths_info),
                ("GET", rf"{of_repository}/refs", reading.references),
                ("GET", rf"{of_repository}/commits/{_REVISION}", reading.commits),
                ("GET", rf"{of_repository}/auth-check", reading.may_read),
                ("GET", r"/api/(?:spaces|kernels)(/.+)", reading.nothing),
                ("GET HEAD", rf"/()(?!datasets/|spaces/|kernels/){_NAME}/resolve/{_REVISION}/(.+)", reading.file),
                ("GET HEAD", rf"/(datasets)/{_NAME}/resolve/{_REVISION}/(.+)", reading.file),
                ("GET HEAD", r"/(?:spaces|kernels)(/.+)/resolve/.+", reading.nothing),
                ("GET HEAD", rf"/()(?!{_NO_NAMESPACE}){_NAME}(?:/{_REVISION})?", reading.archive),
                ("POST", r"/api/repos/create", writing.create),
                ("DELETE", r"/api/repos/delete", writing.delete),
                ("POST", r"/api/repos/move", writing.move),
                ("PUT", rf"{of_repository}/settings", writing.settings),
                ("POST", r"/api/validate-yaml", writing.validate_card),
                ("POST", rf"{of_repository}/preupload/{_REVISION}", writing.preupload),
                ("POST", rf"{of_repository}/commit/{_REVISION}", writing.commit),
                ("POST", rf"{of_repository}/tag/{_REVISION}", writing.create_tag),
                ("DELETE", rf"{of_repository}/tag/{_REVISION}", writing.delete_tag),
                ("POST", rf"{of_repository}/branch/{_REVISION}", writing.create_branch),
                ("DELETE", rf"{of_repository}/branch/{_REVISION}", writing.delete_branch),
                ("POST", rf"/()(?!datasets/){_NAME}\.git/info/lfs/objects/batch", uploads.batch),
                ("POST", rf"/(datasets)/{_NAME}\.git/info/lfs/objects/batch", uploads.batch),
                ("PUT", r"/()upload/([A-Za-z0-9_-]{43})", uploads.receive),
                ("POST", r"/()upload/([A-Za-z0-9_-]{43})/verify", uploads.verify),
                ("GET", rf"{of_repository}/xet-write-token/{_REVISION}", xet.write_token),
                ("POST", r"/()xet/[0-9a-f]{16}/v1/xorbs/default/([0-9a-f]{64})", xet.block),
                ("POST", r"/xet/[0-9a-f]{16}/v1/shards", xet.shard),
            )
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response = await self._answer(request)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        try:
            check_origin(request, self._hosts)
            return await self._route(request)
        except Refusal as refusal:
            return refusal.response()
        except HubError as exc:
            return refusal_of(exc).response()
        except Exception:
            log.exception("cannot answer %s", request.scope["path"])
            return Refusal(500, "the node met a bug of its own; its log says more").response()

    async def _route(self, request: Request) -> Response:
        path = request.scope["raw_path"].decode("ascii")
        known = False
        for methods, pattern, handler in self._routes:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            known = True
            if request.method in methods.split():
                first, *rest = match.groups() or ("",)
                parts = [decode_part(part) for part in rest if part is not None]
                if pattern.groups == 0:
                    return await handler(request)
                return await handler(request, _KINDS.get(first, "model"), *parts)
        if known:
            return JSONResponse({"error": "this method is not for this path"}, 405)
        return Refusal(404, "this hub has nothing at this path").response()
