"""Fetch chunks from an HTTP origin, a server of files that knows nothing of us (spec/origins.md §2).

    run of bytes ──GET, Range──▶ 206, or 200 for a whole file ──▶ reused buffer ──BLAKE3──▶ sink

The same interface as the connections to peers have. What an origin says beside the
bytes decides only whether it is asked on: the hashes of the chunks decide what is kept.
"""

from __future__ import annotations

import contextlib
import email.utils
import math
import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus

import httpcore

from p2phub.core.errors import FileRefused, OnlyWhole, PeerBusy, PeerError, PeerUnreachable
from p2phub.core.ids import ContentId
from p2phub.core.origins import OriginFile
from p2phub.protocol.messages import ByteRange
from p2phub.protocol.rates import DEADLINE_MIN_S, DEADLINE_PER_MIB_S

from .connection import ContentConnection, Refused, Sink, WantedChunk, one_line
from .pacing import Pacer
from .web import Hop, LedAstray, Web, header

RETRY_AFTER_MAX_S = 60.0  # spec/origins.md §2
FILE_S = 1.0  # seconds that each further GET adds to the deadline of a request; spec/origins.md §2


class OriginConnection(ContentConnection):
    """Connections to one origin and to where it redirects, for one request at a time. It connects again by itself."""

    wrong_bytes = "sent other bytes than were published: its file has changed, or it lies"

    def __init__(
        self, name: str, files: Mapping[ContentId, OriginFile], *, is_given: bool, pacer: Pacer | None = None
    ) -> None:
        """name: what people see of it. is_given: the owner of this node wrote its URLs, not a stranger."""
        super().__init__(name, pacer)
        self._files = files
        self._is_given = is_given
        self._web = Web()
        self._moved: dict[ContentId, Hop] = {}  # where redirects led lately
        self._pieces: Iterator[bytes] = iter(())
        self._rest = memoryview(b"")
        self._is_answered = False  # the last request

    def fetch(
        self,
        spans: Sequence[ByteRange],
        chunks: Sequence[WantedChunk],
        sink: Sink,
        *,
        deadline_s: float,
        first_copy: bool = False,
        background: bool = False,
    ) -> None:
        """Ask for `spans`, whose bytes are `chunks` one after the other, and give each to `sink`.

        Each run of bytes is a GET, one after the other. first_copy, background: no origin knows of these.
        Raises FileRefused for what concerns one file alone, PeerBusy, PeerUnreachable if it may work
        later, PeerViolation at bytes that are not those of the file.
        """
        runs = list(_join(spans))
        end = self._now() + deadline_s + FILE_S * (len(runs) - 1)
        with self._blame(), contextlib.closing(self._bodies(runs, end)) as self._pieces:
            self._rest = memoryview(b"")
            self._take_chunks(chunks, sink, end)
            # The end of the last answer, or its connection could not be used again.
            next(self._pieces, None)

    def stream(self, root: ContentId, begin: int, sink: Callable[[bytes], None]) -> None:
        """Give the bytes of a file from `begin` to its end to `sink`, in order and unverified. Raises as `fetch`."""
        size = self._files[root].size
        assert size is not None
        rest = ByteRange(root, begin, size - begin)
        with self._blame(), contextlib.closing(self._bodies([rest], math.inf)) as pieces:
            for piece in pieces:
                sink(piece)

    def size(self, root: ContentId) -> int:
        """Return how many bytes a file has there. Raises as `fetch`."""
        self._web.deadline = time.monotonic() + DEADLINE_MIN_S
        # Not HEAD: what is signed for GET alone refuses it.
        with self._blame(), self._answer(root, (0, 0)) as response:
            if response.status == 206 and (part := content_range(response)) and part[2] is not None:
                return part[2]
            if response.status == 416 and header(response, "content-range") == "bytes */0":
                return 0
            length = header(response, "content-length")
            if response.status == 200 and length.isdigit():
                return int(length)
            self._check_status(root, response)
            raise self._not_there(root, "does not say how long {} is")

    def abort(self) -> None:
        """Make a running request end now, and every later one."""
        self._web.abort()
        self._pacer.stop()

    def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        self._web.close()

    def __str__(self) -> str:
        return f"origin {self.peer}"

    def _fill(self, view: memoryview, deadline: float) -> None:
        done = 0
        while done < len(view):
            if not self._rest:
                self._rest = memoryview(next(self._pieces))
            count = min(len(self._rest), len(view) - done)
            view[done : done + count] = self._rest[:count]
            self._rest = self._rest[count:]
            done += count

    def _bodies(self, runs: Iterable[ByteRange], end: float) -> Generator[bytes, None, None]:
        """Give the bytes of `runs`, which must come before `end` and all the time at the slowest rate allowed."""
        for run in runs:
            self._set_deadline(time.monotonic() + DEADLINE_MIN_S + DEADLINE_PER_MIB_S, end)
            for piece in self._body(run):
                paused_s = self._pacer.wait(len(piece))
                self._paused_s += paused_s
                yield piece
                # What comes to a trickle would else live on what its size allows.
                allowed_s = DEADLINE_PER_MIB_S * len(piece) / 2**20
                self._set_deadline(self._web.deadline + paused_s + allowed_s, end)

    def _set_deadline(self, deadline: float, end: float) -> None:
        """Let the next bytes come until `deadline` (of the clock), or until `end`, which our own limits put off."""
        self._web.deadline = min(deadline, end + self._paused_s)

    def _body(self, run: ByteRange) -> Generator[bytes, None, None]:
        is_whole = run.offset == 0 and run.length == self._files[run.root].size
        left = run.length
        with self._answer(run.root, None if is_whole else (run.offset, run.offset + run.length - 1)) as response:
            self._check_status(run.root, response)
            if is_whole:
                self._check_whole(run, response)
            else:
                self._check_part(run, response)
            for piece in response.iter_stream():
                if len(piece) > left:
                    raise PeerError(f"{self} sends more than was asked", peer=self.peer)
                left -= len(piece)
                yield piece
        if left:
            raise PeerUnreachable(f"{self} ended its answer too early", peer=self.peer)

    @contextlib.contextmanager
    def _answer(self, root: ContentId, byte_range: tuple[int, int] | None) -> Iterator[httpcore.Response]:
        """Give the answer to a GET for a file, or for a range of bytes (first and last)."""
        self._is_answered = False
        try:
            response = self._ask(root, byte_range)
        except LedAstray as exc:
            raise self._not_there(root, f"{exc}, asked for {{}}") from exc
        self._is_answered = True
        try:
            yield response
        finally:
            self._web.end(response)

    def _ask(self, root: ContentId, byte_range: tuple[int, int] | None) -> httpcore.Response:
        # Taken out, so that what fails there is asked from the start the next time.
        moved = self._moved.pop(root, None)
        if moved is not None:
            response, hop = self._web.get(moved, byte_range)
            if response.status in (200, 206):
                self._moved[root] = hop
                return response
            self._web.end(response)  # it leads elsewhere now, as when a presigned URL expired
        first = Hop.begin(self._files[root].url, is_given=self._is_given)
        response, hop = self._web.get(first, byte_range)
        if hop != first and response.status in (200, 206):
            self._moved[root] = hop
        return response

    def _check_status(self, root: ContentId, response: httpcore.Response) -> None:
        """Raise what an answer without content means."""
        status = response.status
        retry_after = header(response, "retry-after")
        match status:
            case 200 | 206:
                return
            case 429 | 503 if status == 429 or retry_after:
                wait_s = wait_s_of(retry_after)
                raise Refused(PeerBusy(f"{self} is busy ({phrase(status)})", peer=self.peer, retry_after_s=wait_s))
            case 401 | 403 | 451:
                raise self._not_there(root, f"refuses access to {{}} ({phrase(status)})")
            case 404 | 410:
                raise self._not_there(root, f"does not have {{}} ({phrase(status)})")
            case 416:
                raise self._not_there(root, f"has a shorter file for {{}} ({phrase(status)})")
            case _ if status >= 500 or status in (408, 425):
                raise Refused(PeerUnreachable(f"{self} answered {phrase(status)}", peer=self.peer))
            case _:
                raise self._not_there(root, f"answered {phrase(status)} for {{}}")

    def _check_whole(self, run: ByteRange, response: httpcore.Response) -> None:
        """Check that the whole file follows."""
        if response.status != 200:
            raise self._not_there(run.root, f"answered {phrase(response.status)} for {{}}, which was asked for whole")
        length = header(response, "content-length")
        if length and length != str(run.length):
            raise self._not_there(run.root, f"has {one_line(length)[:20]} bytes for {{}}, which has {run.length}")
        self._check_coding(run.root, response, is_sized=length != "")

    def _check_part(self, run: ByteRange, response: httpcore.Response) -> None:
        """Check that the part follows that was asked for."""
        if response.status == 200:
            raise Refused(OnlyWhole(f"{self} gives no parts of files", peer=self.peer, root=run.root))
        part = content_range(response)
        if part is None:
            raise self._not_there(run.root, "answered with a part of {} and does not say which")
        size = self._files[run.root].size
        if part[2] is not None and part[2] != size:
            raise self._not_there(run.root, f"has {part[2]} bytes for {{}}, which has {size}")
        length = header(response, "content-length") or str(run.length)
        if part[:2] != (run.offset, run.offset + run.length - 1) or length != str(run.length):
            raise self._not_there(run.root, "answered with another part of {} than was asked")
        self._check_coding(run.root, response, is_sized=part[2] is not None)

    def _check_coding(self, root: ContentId, response: httpcore.Response, *, is_sized: bool) -> None:
        """Refuse what is compressed on its way.

        A file that is compressed in itself, such as x.tar.gz, some servers call coded too: then
        the bytes are as many as the file has, and the hash decides.
        """
        coding = header(response, "content-encoding")
        if coding.lower() not in ("", "identity") and not is_sized:
            raise self._not_there(root, f"sends {{}} compressed ({one_line(coding)[:20]}), though it was asked not to")

    def _not_there(self, root: ContentId, what: str) -> Refused:
        """Return the refusal of one file; `{}` in `what` is its name."""
        return Refused(FileRefused(f"{self} {what.replace('{}', self._files[root].label)}", peer=self.peer, root=root))

    def _reason(self, exc: BaseException) -> str | None:
        return self._web.reason(exc, str(self), is_answered=self._is_answered)


def content_range(response: httpcore.Response) -> tuple[int, int, int | None] | None:
    """Return first and last byte of an answer and the size of the file, if it says so; None if it says nothing."""
    match = re.fullmatch(r"bytes ([0-9]{1,18})-([0-9]{1,18})/(?:([0-9]{1,18})|\*)", header(response, "content-range"))
    if not match:
        return None
    return int(match[1]), int(match[2]), int(match[3]) if match[3] else None


def wait_s_of(retry_after: str, most_s: float = RETRY_AFTER_MAX_S) -> float:
    """Return the seconds that `Retry-After`, a number or a date, asks for."""
    if retry_after.isascii() and retry_after.isdigit():
        return min(float(retry_after), most_s)
    try:
        wait_s = email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 1.0
    return min(max(wait_s, 1.0), most_s)


def phrase(status: int) -> str:
    """Return a status as people read it."""
    try:
        return f"{status} {HTTPStatus(status).phrase.lower()}"
    except ValueError:
        return str(status)


def _join(spans: Iterable[ByteRange]) -> Iterator[ByteRange]:
    """Join spans that follow each other in one file."""
    run: ByteRange | None = None
    for span in spans:
        if run is not None and span.root == run.root and span.offset == run.offset + run.length:
            run = ByteRange(run.root, run.offset, run.length + span.length)
            continue
        if run is not None:
            yield run
        run = span
    if run is not None:
        yield run
