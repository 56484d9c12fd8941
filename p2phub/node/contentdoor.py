"""What the peer door answers about content: what is here of files, and parts of them (spec/peer-protocol.md §6, §7).

    spans ──slot of the link──▶ files, looked up and opened ──▶ parts, which the kernel or a thread sends

To each caller it says and gives what he may have; of all else it says what it says of what is not here.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Collection, Iterator, Sequence
from functools import partial

import trio
from msgspec.structs import replace

from p2phub.core.access import ANYBODY, Caller
from p2phub.core.encoding import decode, encode
from p2phub.core.errors import InvalidData
from p2phub.core.ids import ContentId, ManifestId
from p2phub.net.bulkdoor import TicketOffice
from p2phub.net.channels import FilePart
from p2phub.net.door import Request, Response, caller_of
from p2phub.net.receivers import RECEIVER_WINDOW_S
from p2phub.protocol.messages import (
    FRAME_SIZE_MAX,
    HAVE_ANSWER_SIZE,
    LARGE_QUERY_SIZE_MAX,
    SPAN_BYTES_MAX,
    TREE_ANSWER_SIZE,
    ByteRange,
    Have,
    HaveQuery,
    SpansQuery,
    Tickets,
    TicketsQuery,
    Trees,
    TreesQuery,
)
from p2phub.store.partial import pack_bits
from p2phub.store.readables import Readable

from .disk import on_disk
from .node import Node
from .shortanswers import text

SLOT_WAIT_S = 1.0  # a request for content waits so long for a slot before it is sent away
RETRY_AFTER_S = 2  # seconds that a request sent away should wait
LISTS_AT_ONCE = 64  # chunk lists of files in memory for one answer, of up to 64 KiB each
FILES_OPEN_MAX = 16  # that one answer keeps open; of more, each is opened when its turn comes


class ContentDoor:
    """Says what is here of files, and gives it."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._store = node.store
        self.tickets = TicketOffice()
        self._sent_away_at = -math.inf  # seconds, when a query last found no slot

    async def manifest(self, request: Request, digits: str) -> Response:
        """Give a manifest."""

        def look() -> bytes | None:
            (revision,) = self._node.access.shown(request.caller, [ManifestId(bytes.fromhex(digits))])
            return self._store.manifests.data(revision)

        data = await on_disk(look)
        return Response(200, data) if data is not None else text(404, "this manifest is not here")

    async def have(self, request: Request) -> Response:
        """Say which chunks of files are here, and which areas of them were given to others."""
        query = decode(request.body, HaveQuery, size_max=LARGE_QUERY_SIZE_MAX)

        def look() -> tuple[list[ContentId], list[bool | bytes]]:
            shown = self._node.access.shown(request.caller, query.roots)
            found: list[bool | bytes] = []
            size = 0
            for held in self._held_maps(shown):
                found.append(held if isinstance(held, bool) else pack_bits(held))
                size += len(held) // 8 if isinstance(held, bytes) else 1
                if size > HAVE_ANSWER_SIZE:
                    break
            return shown, found

        shown, held = await on_disk(look)
        arriving = [self._node.arriving[root] for root in shown if root in self._node.arriving]
        if query.fetching:
            for note_mate in {file.note_mate for file in arriving}:
                note_mate(query.fetching)
        areas = [self._node.giving.areas(root, trio.current_time()) for root in shown[: len(held)]]
        given = tuple(pack_bits(flags) if flags else False for flags in areas) if any(areas) else ()
        return Response(200, encode(Have(tuple(held), given, fetching=bool(arriving))))

    def _held_maps(self, roots: Sequence[ContentId]) -> Iterator[bool | bytes]:
        """Return what of each file is here: all, nothing, or a byte (0 or 1) for each chunk."""
        arriving: dict[ContentId, bytes] = {}
        for root in roots:
            running = self._node.arriving.get(root)
            if running is not None and 0 in (have := bytes(running.have)):
                arriving[root] = have
        # The saved bitmap of a running download is behind; in a swarm this is asked often, and costs nothing then.
        saved = self._store.readables.held_maps([root for root in roots if root not in arriving])
        for root in roots:
            if root in arriving:
                yield arriving[root] if 1 in arriving[root] else False
            else:
                yield saved[root]

    async def trees(self, request: Request) -> Response:
        """Give pages of chunk lists."""
        query = decode(request.body, TreesQuery, size_max=LARGE_QUERY_SIZE_MAX)

        def look() -> Trees:
            pages = []
            size = 0
            shown = self._node.access.shown(request.caller, [ref.root for ref in query.pages])
            for begin in range(0, len(query.pages), LISTS_AT_ONCE):
                roots = shown[begin : begin + LISTS_AT_ONCE]
                lists = self._store.chunk_lists.find_all(set(roots))
                for root, ref in zip(roots, query.pages[begin : begin + LISTS_AT_ONCE], strict=True):
                    page = None
                    if root in lists:
                        with contextlib.suppress(InvalidData):
                            page = lists[root].page(ref.index)
                    size += len(page.chunks) if page else 0
                    pages.append(page)
                    if size > TREE_ANSWER_SIZE:
                        return Trees(tuple(pages))
            return Trees(tuple(pages))

        return Response(200, encode(await on_disk(look)))

    async def issue_tickets(self, request: Request) -> Response:
        """Give tickets for bulk connections."""
        query = decode(request.body, TicketsQuery, size_max=FRAME_SIZE_MAX)
        holder = caller_of(request.host)
        tickets = (self.tickets.issue(holder, request.caller) for _ in range(query.count))
        return Response(200, encode(Tickets(tuple(tickets))))

    async def spans(self, request: Request) -> Response:
        """Give ranges of bytes of files, once there is a slot for the answer."""
        query = decode(request.body, SpansQuery, size_max=LARGE_QUERY_SIZE_MAX)
        total = sum(span.length for span in query.spans)
        if total > SPAN_BYTES_MAX:
            return text(400, f"{total} bytes in one request, the limit is {SPAN_BYTES_MAX}")
        links = self._node.links
        link = await links.class_of(request.host, caller=request.caller)
        turn = None
        with trio.move_on_after(SLOT_WAIT_S):
            turn = await links.take_turn(link, caller_of(request.host), background=query.background)
        if turn is None:
            self._sent_away_at = trio.current_time()
            return Response(429, b"all upload slots are taken", "text/plain", {"retry-after": str(RETRY_AFTER_S)})
        files = _Files()

        def release() -> None:
            files.close()
            links.end_turn(turn)

        try:
            missing, is_restricted = await on_disk(self._look_up, request.caller, query.spans, files)
        except BaseException:
            release()
            raise
        if missing is not None:
            release()
            return text(404, f"not all of {missing.root} that was asked for is here")
        now = trio.current_time()
        if query.first_copy and self._node.giving.is_given(query.spans, now):
            release()
            return text(409, "some of this was given to another meanwhile")
        self._node.giving.note(query.spans, {root: file.size for root, file in files.found.items()}, now)
        self._node.uploaded += total
        return Response(
            200,
            files.parts(query.spans),
            "application/octet-stream",
            sending=links.sending(turn),
            release=release,
            guard=partial(self._guard, request.caller, files.found, is_restricted),
            others_wait=self._do_others_wait,
        )

    def _look_up(self, caller: Caller, spans: tuple[ByteRange, ...], files: _Files) -> tuple[ByteRange | None, bool]:
        """Find the files of `spans`; returns the first span that is not here whole, and if some are not for all."""
        missing = self._find(caller, spans, files)
        # What everybody may have cannot be lost by one.
        may_be_lost = missing is None and caller != ANYBODY
        return missing, may_be_lost and bool(self._node.access.withheld(ANYBODY, files.found))

    def _find(self, caller: Caller, spans: tuple[ByteRange, ...], files: _Files) -> ByteRange | None:
        asked = list(dict.fromkeys(span.root for span in spans))
        shown = dict(zip(asked, self._node.access.shown(caller, asked), strict=True))
        held = self._store.blobs.find_all(shown.values())
        for span in spans:
            readable = files.found.get(span.root)
            if readable is None:
                root = shown[span.root]
                readable = self._store.readables.open_found(root, held.get(root))
                if readable is None:
                    return span
                files.add(span.root, readable)
            if not readable.has(span.offset, span.length) and not self._has_arrived(span, readable):
                return span
        return None

    def _has_arrived(self, span: ByteRange, readable: Readable) -> bool:
        """Say whether a span of a running download is on disk, though its saved bitmap does not know it yet."""
        arriving = self._node.arriving.get(span.root)
        return arriving is not None and replace(readable, have=bytes(arriving.have)).has(span.offset, span.length)

    def _guard(
        self, caller: Caller, roots: Collection[bytes], is_restricted: bool, scope: trio.CancelScope
    ) -> contextlib.AbstractContextManager[None]:
        return self._node.open_answers.sending(caller, roots, is_restricted=is_restricted, scope=scope)

    def _do_others_wait(self) -> bool:
        """Say whether somebody was sent away lately for want of a slot."""
        return trio.current_time() - self._sent_away_at < RECEIVER_WINDOW_S


class _Files:
    """The files that one answer gives parts of, the first ones kept open."""

    def __init__(self) -> None:
        self.found: dict[ContentId, Readable] = {}
        self._open: dict[ContentId, int] = {}

    def add(self, root: ContentId, readable: Readable) -> None:
        """Take over an open file, which was asked for as `root`."""
        self.found[root] = readable
        if len(self._open) < FILES_OPEN_MAX:
            self._open[root] = readable.file
        else:
            os.close(readable.file)

    def parts(self, spans: Sequence[ByteRange]) -> list[FilePart]:
        where = {root: self._open.get(root, readable.reopen) for root, readable in self.found.items()}
        return [FilePart(where[span.root], span.offset, span.length) for span in spans]

    def close(self) -> None:
        for file in self._open.values():
            os.close(file)
