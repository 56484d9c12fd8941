"""The hub door: what clients of other hubs ask, answered by this node (spec/hub-api.md).

    HF_ENDPOINT=http://127.0.0.1:8628

    request ──guard──▶ route by the raw path ──▶ reading │ listing │ commits … │ uploads ──▶ answer
                                                             └── Refusal, HubError ──▶ error with its code

Paths are split before they are decoded: a branch may have a slash, a file a `%`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Sequence

import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from p2phub.core.choices import Kind
from p2phub.core.errors import HubError
from p2phub.gateway.guard import Barred, Guard
from p2phub.node.foreign import Arrivals
from p2phub.node.node import Node
from p2phub.node.reading import Readings

from .account import Account
from .audience import Audience
from .branching import BranchRequests
from .commits import CommitRequests
from .errors import Refusal, refusal_of
from .foreign import ForeignRepositories
from .inspector import Inspector
from .listing import ListingRequests
from .lookup import Lookup
from .owner import Owner
from .reading import ReadingRequests
from .repositories import RepositoryRequests
from .requests import decode_part
from .uploads import UploadRequests
from .xet import XetRequests

log = logging.getLogger(__name__)

Handler = Callable[..., Awaitable[Response]]
Route = tuple[str, str, Handler]  # methods, a pattern for the raw path, and who answers

_KINDS: dict[str, Kind] = {"models": "model", "datasets": "dataset"}
# A name is two parts; a revision one, in which slashes are encoded; only these come as they are.
_NAME = r"([^/]+/[^/]+)"
_NO_NAMESPACE = "(?:api|datasets|spaces|kernels|upload|xet)/"
_REVISION = r"(refs/(?:pr|heads|tags)/[^/]+|[^/]+)"
_OF_KIND, _OF_REPOSITORY = r"/api/(models|datasets)", rf"/api/(models|datasets)/{_NAME}"


# The token is another one after each start of the node, and shells keep the old one.
_OTHER_TOKEN = "; the token that was sent is not that of this node, which `p2phub env` shows"


class Routes:
    """What is answered at which path: the first pattern that fits decides."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = [(methods.split(), re.compile(pattern), handler) for methods, pattern, handler in routes]

    async def answer(self, request: Request) -> Response:
        """Answer a request. Raises Refusal, HubError."""
        path = request.scope["raw_path"].decode("ascii")
        known = False
        for methods, pattern, handler in self._routes:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            known = True
            if request.method in methods:
                first, *rest = match.groups() or ("",)
                parts = [decode_part(part) for part in rest if part is not None]
                if pattern.groups == 0:
                    return await handler(request)
                return await handler(request, _KINDS.get(first, "model"), *parts)
        if known:
            return JSONResponse({"error": "this method is not for this path"}, 405)
        return Refusal(404, "this hub has nothing at this path").response()


class HubDoor:
    """The ASGI application that speaks the hub's protocol to programs of this machine."""

    def __init__(self, node: Node, token: str, hosts: frozenset[str], nursery: trio.Nursery) -> None:
        """token: the node's; hosts: values of `Host` that are ours; nursery: where downloads for readers run."""
        self._guard = Guard(token, hosts)
        account = Account(node, self._guard)
        readings = Readings(node, nursery)
        arrivals = Arrivals(node, nursery)
        files = Inspector(node, readings)
        writing = writing_routes(node, account)

        def routes(audience: Audience) -> Routes:
            foreign = ForeignRepositories(node, readings, arrivals, files, audience)
            return Routes([*reading_routes(node, audience, readings, foreign), *writing])

        self._owner, self._others = routes(Audience.OWNER), routes(Audience.MACHINE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        is_owner = self._guard.is_owner(request.headers)
        advice = _OTHER_TOKEN if not is_owner and request.headers.get("authorization") else ""
        response = await answer(request, self._guard.check, self._owner if is_owner else self._others, advice=advice)
        await response(scope, receive, send)


def reading_routes(
    node: Node, audience: Audience, readings: Readings, foreign: ForeignRepositories | None
) -> list[Route]:
    """Return what is answered to who reads. foreign: None if repositories of other hubs are not for them."""
    reading = ReadingRequests(node, Lookup(node, audience), foreign, readings, Inspector(node, readings))
    listing = ListingRequests(node, audience)
    return [
        ("GET", _OF_KIND, listing.page),
        ("GET", _OF_REPOSITORY, reading.info),
        ("GET", rf"{_OF_REPOSITORY}/revision/{_REVISION}", reading.info),
        ("GET", rf"{_OF_REPOSITORY}/tree/{_REVISION}(?:/(.*))?", reading.tree),
        ("POST", rf"{_OF_REPOSITORY}/paths-info/{_REVISION}", reading.paths_info),
        ("GET", rf"{_OF_REPOSITORY}/refs", reading.references),
        ("GET", rf"{_OF_REPOSITORY}/commits/{_REVISION}", reading.commits),
        ("GET", rf"{_OF_REPOSITORY}/auth-check", reading.may_read),
        ("GET", r"/api/(?:spaces|kernels)(/.+)", reading.nothing),
        ("GET HEAD", rf"/()(?!datasets/|spaces/|kernels/){_NAME}/resolve/{_REVISION}/(.+)", reading.file),
        ("GET HEAD", rf"/(datasets)/{_NAME}/resolve/{_REVISION}/(.+)", reading.file),
        ("GET HEAD", r"/(?:spaces|kernels)(/.+)/resolve/.+", reading.nothing),
        ("GET HEAD", rf"/()(?!{_NO_NAMESPACE}){_NAME}(?:/{_REVISION})?", reading.archive),
    ]


def writing_routes(node: Node, account: Account) -> list[Route]:
    """Return what is answered to the owner, who changes something."""
    lookup = Lookup(node, Audience.OWNER)
    owner = Owner(node, lookup, account)
    repositories = RepositoryRequests(node, lookup, owner)
    commits = CommitRequests(node, owner)
    branching = BranchRequests(node, lookup, owner)
    uploads = UploadRequests(node, account)
    xet = XetRequests(node, lookup, account)
    return [
        ("GET", r"/api/whoami-v2", account.who_am_i),
        ("POST", r"/api/repos/create", repositories.create),
        ("DELETE", r"/api/repos/delete", repositories.delete),
        ("POST", r"/api/repos/move", repositories.move),
        ("PUT", rf"{_OF_REPOSITORY}/settings", repositories.settings),
        ("POST", r"/api/validate-yaml", commits.validate_card),
        ("POST", rf"{_OF_REPOSITORY}/preupload/{_REVISION}", commits.preupload),
        ("POST", rf"{_OF_REPOSITORY}/commit/{_REVISION}", commits.commit),
        ("POST", rf"{_OF_REPOSITORY}/tag/{_REVISION}", branching.create_tag),
        ("DELETE", rf"{_OF_REPOSITORY}/tag/{_REVISION}", branching.delete_tag),
        ("POST", rf"{_OF_REPOSITORY}/branch/{_REVISION}", branching.create_branch),
        ("DELETE", rf"{_OF_REPOSITORY}/branch/{_REVISION}", branching.delete_branch),
        ("POST", rf"/()(?!datasets/){_NAME}\.git/info/lfs/objects/batch", uploads.batch),
        ("POST", rf"/(datasets)/{_NAME}\.git/info/lfs/objects/batch", uploads.batch),
        ("PUT", r"/()upload/([A-Za-z0-9_-]{43})", uploads.receive),
        ("POST", r"/()upload/([A-Za-z0-9_-]{43})/verify", uploads.verify),
        ("GET", rf"{_OF_REPOSITORY}/xet-write-token/{_REVISION}", xet.write_token),
        ("POST", r"/()xet/[0-9a-f]{16}/v1/xorbs/default/([0-9a-f]{64})", xet.block),
        ("POST", r"/xet/[0-9a-f]{16}/v1/shards", xet.shard),
    ]


async def answer(request: Request, check: Callable[[Request], None], routes: Routes, *, advice: str = "") -> Response:
    """Answer a request that `check` lets through; what goes wrong is told so that clients understand it.

    advice: what to say, too, where a repository is not there.
    """
    try:
        check(request)
        return await routes.answer(request)
    except Barred as barred:
        return Refusal(barred.status, barred.text).response()
    except Refusal as refusal:
        if advice and refusal.status == 404:
            # In the same words for what is hidden and for what does not exist.
            refusal = Refusal(404, refusal.text + advice, code=refusal.code, headers=refusal.headers)
        return refusal.response()
    except HubError as exc:
        return refusal_of(exc).response()
    except Exception:
        log.exception("cannot answer %s", request.scope["path"])
        return Refusal(500, "the node met a bug of its own; its log says more").response()
