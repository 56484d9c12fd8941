"""Ask another hub for what it lists and for its files (spec/mirrors.md §2).

    api/models/ORG/NAME/…  ──▶ JSON, page by page
    ORG/NAME/resolve/…     ──▶ the bytes of a file, from any place on, unchecked

The token of the node's owner goes to the hub alone, never on to where it redirects. What
the hub says of a repository must come from itself; files may come from elsewhere.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from urllib.parse import quote

import httpcore
from msgspec import Struct

from p2phub.core.errors import AccessDenied, InvalidData, InvalidName, NotFound, PeerBusy, PeerError, PeerUnreachable
from p2phub.core.origins import Url, parse_url
from p2phub.core.upstream import Foreign, Gated, NoSuchRevision
from p2phub.protocol.rates import DEADLINE_PER_MIB_S

from .connection import one_line
from .origin import content_range, phrase, wait_s_of
from .pacing import Pacer
from .web import LOCATION_SIZE_MAX, Hop, LedAstray, Web, header

PAGE_SIZE_MAX = 16 * 1024 * 1024  # bytes of one answer that is JSON; spec/mirrors.md §2
PAGE_TIMEOUT_S = 30.0  # for all of it
FIRST_BYTE_S = 30.0  # until a file begins to come: the hub may have to look for it itself
RETRY_AFTER_MAX_S = 300.0  # spec/mirrors.md §2
RETRY_AFTER_S = 5.0  # if a busy hub does not say when


class Page(Struct, frozen=True):
    """One answer of the hub."""

    data: bytes
    next: Url | None  # where it goes on


class UpstreamConnection:
    """Connections to a hub, for one request at a time. One thread at a time; `abort` may be called from any."""

    def __init__(self, base: Url, token: str | None, pacer: Pacer | None = None) -> None:
        self._base = base
        self._token = token
        self._web = Web()
        self._pacer = pacer or Pacer()
        self._is_answered = False  # the last request

    def info(self, repository: Foreign, revision: str, *, timeout_s: float = PAGE_TIMEOUT_S) -> Page:
        """Return what the hub says of a repository.

        Raises NotFound, NoSuchRevision, Gated, AccessDenied, PeerBusy, PeerUnreachable if it may
        work later, InvalidData if the answer is none.
        """
        path = f"{_api(repository)}/revision/{quote(revision, safe='')}"
        return self._page(self._url(path), f"{repository}@{revision}", timeout_s)

    def tree(self, repository: Foreign, commit: str, at: Url | None) -> Page:
        """Return a page of the list of a commit's files: the first, or the one `at`. Raises as `info`."""
        path = f"{_api(repository)}/tree/{commit}?recursive=true"
        return self._page(at or self._url(path), f"the files of {repository}", PAGE_TIMEOUT_S)

    def stream(
        self,
        repository: Foreign,
        commit: str,
        path: str,
        *,
        begin: int,
        size: int,
        sink: Callable[[bytes], None],
        start_over: Callable[[], None],
    ) -> None:
        """Give the bytes of a file from `begin` to its end at `size` to `sink`, in order and unchecked.

        start_over: called before the first byte, if the file comes from its beginning instead.
        Raises as `info` does.
        """
        prefix = "datasets/" if repository.kind == "dataset" else ""
        url = self._url(f"{prefix}{repository.name}/resolve/{commit}/{quote(path, safe='/')}")
        self._web.deadline = time.monotonic() + FIRST_BYTE_S
        byte_range = (begin, size - 1) if begin else None
        with self._blame(), self._answer(url, byte_range) as (response, _):
            self._check_status(response, path)
            self._check_body(response, path, byte_range, size)
            left = size - begin
            if byte_range and response.status == 200:
                start_over()
                left = size
            for piece in response.iter_stream():
                if len(piece) > left:
                    raise PeerError(f"{self} sends more of {path} than it listed", peer=str(self))
                left -= len(piece)
                sink(piece)
                # What comes to a trickle would else live on what the size allows.
                allowed_s = DEADLINE_PER_MIB_S * len(piece) / 2**20 + self._pacer.wait(len(piece))
                self._web.deadline += allowed_s
        if left:
            raise PeerUnreachable(f"{self} ended {path} too early", peer=str(self))

    def abort(self) -> None:
        """Make a running request end now, and every later one."""
        self._web.abort()
        self._pacer.stop()

    def close(self) -> None:
        """Close the connections."""
        self._web.close()

    def __str__(self) -> str:
        return f"the hub {self._base.endpoint}"

    # ── answers ─────────────────────────────────────────────────────────────

    def _url(self, path: str) -> Url:
        return replace_target(self._base, f"{self._base.target.partition('?')[0].rstrip('/')}/{path}")

    def _page(self, url: Url, what: str, timeout_s: float) -> Page:
        self._web.deadline = time.monotonic() + timeout_s
        with self._blame(), self._answer(url, None) as (response, hop):
            self._check_status(response, what)
            if not hop.url.is_same_server(self._base):
                raise PeerError(f"{self} sends us elsewhere for what it says of {what}", peer=str(self))
            data = bytearray()
            for piece in response.iter_stream():
                data += piece
                if len(data) > PAGE_SIZE_MAX:
                    raise InvalidData(f"{self} says more than {PAGE_SIZE_MAX} bytes about {what}")
            return Page(bytes(data), self._next(response))

    @contextlib.contextmanager
    def _answer(self, url: Url, byte_range: tuple[int, int] | None) -> Iterator[tuple[httpcore.Response, Hop]]:
        self._is_answered = False
        hop = Hop.begin(url, is_given=True, token=self._token)
        try:
            response, last = self._web.get(hop, byte_range)
        except LedAstray as exc:
            raise PeerError(f"{self} {exc}", peer=str(self)) from exc
        self._is_answered = True
        try:
            yield response, last
        finally:
            self._web.end(response)

    def _next(self, response: httpcore.Response) -> Url | None:
        """Return where the header `Link` says that it goes on."""
        text = header(response, "link")
        match = re.search(r'<([^<>]*)>\s*;\s*rel="?next"?', text[:LOCATION_SIZE_MAX])
        if not match:
            return None
        try:
            url = parse_url(match[1])
        except InvalidName as exc:
            raise InvalidData(f"{self} names a next page that is none") from exc
        if not url.is_same_server(self._base):
            raise InvalidData(f"{self} names a next page that lies elsewhere")
        return url

    def _check_status(self, response: httpcore.Response, what: str) -> None:
        """Raise what an answer without content means."""
        status, code = response.status, header(response, "x-error-code")
        retry_after = header(response, "retry-after")
        said = f"{self} has no {what} ({phrase(status)})"
        match status:
            case 200 | 206:
                return
            case 429 | 503 if status == 429 or retry_after:
                wait_s = wait_s_of(retry_after, RETRY_AFTER_MAX_S) if retry_after else RETRY_AFTER_S
                raise PeerBusy(
                    f"{self} wants to be asked later ({phrase(status)})", peer=str(self), retry_after_s=wait_s
                )
            case _ if code == "GatedRepo":
                raise Gated(
                    f"{self} gives {what} only to those whom its owner lets",
                    hint="ask for access there, and start the node with the token of your account",
                )
            # The big hub says 401 of what is not there, so that nobody learns what is private.
            case 401 | 404 | 410 if code == "RevisionNotFound":
                raise NoSuchRevision(said)
            case 401 | 404 | 410 if code in ("RepoNotFound", "EntryNotFound") or status != 401:
                raise NotFound(said)
            case 401 | 403 | 451:
                hint = "does the node have the right token?" if self._token else "it may need a token: HF_TOKEN"
                raise AccessDenied(f"{self} refuses access to {what} ({phrase(status)})", hint=hint)
            case _ if status >= 500 or status in (408, 425):
                raise PeerUnreachable(f"{self} answered {phrase(status)}", peer=str(self))
            case _:
                raise PeerError(f"{self} answered {phrase(status)} for {what}", peer=str(self))

    def _check_body(
        self, response: httpcore.Response, path: str, byte_range: tuple[int, int] | None, size: int
    ) -> None:
        """Raise PeerError unless the bytes follow that were asked for, or the whole file."""
        length = header(response, "content-length")
        begin = 0
        if response.status == 206:
            part = content_range(response)
            if byte_range is None or part is None or part[:2] != byte_range or part[2] not in (None, size):
                raise PeerError(f"{self} sends another part of {path} than was asked", peer=str(self))
            begin = byte_range[0]
        if length and length != str(size - begin):
            said = one_line(length)[:20]
            raise PeerError(f"{self} has {said} bytes of {path}, and listed {size - begin}", peer=str(self))
        coding = header(response, "content-encoding").lower()
        if coding not in ("", "identity") and not length:
            raise PeerError(f"{self} sends {path} compressed, though it was asked not to", peer=str(self))

    @contextlib.contextmanager
    def _blame(self) -> Iterator[None]:
        try:
            yield
        except BaseException as exc:
            # The connection may stand in the middle of an answer.
            self.close()
            text = self._web.reason(exc, str(self), is_answered=self._is_answered)
            if text is not None:
                raise PeerUnreachable(text, peer=str(self)) from exc
            raise


def replace_target(url: Url, target: str) -> Url:
    """Return the URL of another path of the same server."""
    return Url(url.scheme, url.host, url.port, url.user, target)


def _api(repository: Foreign) -> str:
    return f"api/{repository.kind}s/{repository.name}"
