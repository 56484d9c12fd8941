"""Ask the upstream hub: which commit stands for a name, and what is in it (spec/mirrors.md §2).

    name ──hub, or what is remembered──▶ commit ──▶ listing, kept for ever

One node asks its hub no more than it must: a hub that is busy is left alone as long as it says, by all
that this node does, and one that does not answer for a while.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import trio
from msgspec import Struct, field

from p2phub.core.errors import HubError, InvalidData, NotFound, Offline, PeerBusy, PeerError, PeerUnreachable
from p2phub.core.ids import ContentId, ManifestId, NodeId
from p2phub.core.manifest import FILES_MAX, Manifest
from p2phub.core.upstream import (
    DEFAULT_HUB_URL,
    Foreign,
    Info,
    Listing,
    UpstreamFile,
    is_commit,
    listing,
    parse_upstream,
    read_files,
    read_info,
)
from p2phub.net.threads import run_abortable

from .disk import on_disk
from .events import Notice, Tell
from .operations.status import UpstreamState
from .settings import Settings

if TYPE_CHECKING:
    from p2phub.net.upstream import Page, UpstreamConnection

    from .node import Node

log = logging.getLogger(__name__)

FRESH_S = 30.0  # seconds that the hub's word on a branch is good for; spec/mirrors.md §2
DOWN_S = 20.0  # seconds that a hub which did not answer is not asked while clients wait; spec/mirrors.md §2
HURRY_S = 5.0  # seconds for its answer while clients wait
RETRY_S = (0.5, 1.0, 2.0, 5.0)  # seconds before what failed is asked again; then it is given up
PATIENCE_BUSY_S = 900.0  # seconds that a hub may say it is busy
PAGES_MAX = 1000  # of one list of files; spec/mirrors.md §2
FILES_AT_ONCE = 8  # from the hub; spec/mirrors.md §3
SMALL_AT_ONCE = 16  # groups of small ones, which wait more than they move; spec/mirrors.md §3
CONNECTIONS_MAX = SMALL_AT_ONCE  # kept

T = TypeVar("T")


class Arriving(Struct, eq=False):
    """A file that this node fetches from the hub now, or from others."""

    done: trio.Event = field(default_factory=trio.Event)
    is_shared: bool = False  # others may have it, and so hear of it
    is_fetching: bool = False  # from the hub
    size: int = 0  # bytes that have come
    began: float = field(default_factory=trio.current_time)  # seconds
    began_at: int = 0  # bytes that were here then
    failure: HubError | None = None


class Seen(Struct):
    """What another node of the site does with a file."""

    root: ContentId | None  # under which it has it, by its word
    state: int  # as in protocol/rendezvous


class Asking(Struct, eq=False):
    """A question that the hub is being asked, for all who want to know the same."""

    done: trio.Event = field(default_factory=trio.Event)
    answer: Any = None  # None: it was given up
    failure: HubError | None = None


class Hub:
    """The upstream of one node: how to reach it, and what this node does with it now. Used from trio's thread."""

    def __init__(self, settings: Settings) -> None:
        """Raises InvalidName if the settings name no URL of a hub."""
        self.is_given = settings.upstream is not None  # then it is asked for what clients want
        self.url = parse_upstream(settings.upstream or DEFAULT_HUB_URL)
        # HOST[:PORT] of the hub whose names these are: a cache of it may have another address.
        self.name = settings.upstream_hub or self.url.endpoint
        self.token = settings.upstream_token
        self.quiet_until = 0.0  # seconds: it said that it is busy
        self.down_until = 0.0  # seconds: it did not answer lately
        self.answers: dict[tuple[Foreign, str], tuple[Info, float]] = {}  # and when they came
        self.listings: dict[tuple[Foreign, str], Listing] = {}  # of late, by commit
        self.manifests: dict[ManifestId, Manifest] = {}  # that stand for such commits
        self.arriving: dict[bytes, Arriving] = {}  # by the hash that the hub lists
        self.wanted: Counter[bytes] = Counter()  # by how many who wait
        self.wanted_since: dict[bytes, float] = {}  # seconds
        self.seen: dict[NodeId, dict[bytes, Seen]] = {}  # of the nodes of this site
        # The wishes of those who asked this node, and when they did.
        self.told: dict[NodeId, tuple[float, frozenset[bytes]]] = {}
        self.looked = -1e9  # seconds: when they were last asked
        self.rest_until: dict[NodeId, float] = {}  # seconds: until then it is not asked again
        self.looking = trio.Lock()
        self.asking: dict[tuple[Foreign, str, str], Asking] = {}  # about revisions, for whoever wants to know
        self.slots = trio.CapacityLimiter(FILES_AT_ONCE)
        self.small_slots = trio.CapacityLimiter(SMALL_AT_ONCE)
        self._idle: list[UpstreamConnection] = []

    def state(self, now: float) -> UpstreamState | None:
        """Return how the hub is at `now`, a time of trio's clock; None if it is not asked by itself."""
        if not self.is_given:
            return None
        state: Literal["ready", "busy", "down"] = "ready"
        if self.quiet_until > now:
            state = "busy"
        elif self.down_until > now:
            state = "down"
        url = f"{self.url.scheme}://{self.url.endpoint}{self.url.target.rstrip('/')}"
        return UpstreamState(url, self.name, self.token is not None, state)

    @asynccontextmanager
    async def connection(self, node: Node) -> AsyncIterator[UpstreamConnection]:
        """Give a connection that nobody else uses, and keep it if all went well."""
        # Loaded when it is first needed: the command line must start fast.
        from p2phub.net.upstream import UpstreamConnection

        link = await node.links.class_of(self.url.host)
        known = self._idle.pop() if self._idle else None
        connection = known or UpstreamConnection(self.url, self.token, node.links.downloading(link))
        try:
            yield connection
        except HubError:
            self._keep(connection)
            raise
        except BaseException:
            connection.close()  # it was aborted, and is good for nothing any more
            raise
        self._keep(connection)

    def close(self) -> None:
        """Close all that is kept."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def _keep(self, connection: UpstreamConnection) -> None:
        if len(self._idle) < CONNECTIONS_MAX:
            self._idle.append(connection)
        else:
            connection.close()


async def ask(
    node: Node,
    work: Callable[[UpstreamConnection], T],
    tell: Tell,
    *,
    in_hurry: bool = False,
    has_moved: Callable[[], bool] = lambda: False,
) -> T:
    """Return what `work` returns, done with a connection to the hub in a thread, again and again if it must be.

    in_hurry: ask once, and not at all a hub that is busy or did not answer lately. has_moved: says
    whether anything came since it was last asked, after which failures are counted anew.
    Raises what `work` raises, Offline.
    """
    hub = node.hub
    if node.settings.offline:
        raise Offline(f"the hub {hub.name} cannot be asked: the network is switched off")
    if in_hurry and max(hub.down_until, hub.quiet_until) > trio.current_time():
        raise PeerUnreachable(f"the hub {hub.name} did not answer lately", peer=hub.name)
    busy_until = trio.current_time() + PATIENCE_BUSY_S
    failures = 0
    while True:
        await trio.sleep_until(max(hub.quiet_until, trio.current_time()))
        try:
            async with hub.connection(node) as connection:
                return await _in_thread(work, connection)
        except PeerBusy as exc:
            hub.quiet_until = max(hub.quiet_until, trio.current_time() + exc.retry_after_s)
            if in_hurry or hub.quiet_until > busy_until:
                raise
            tell(Notice(f"{exc}: waiting {exc.retry_after_s:.0f} s"))
        except PeerUnreachable as exc:
            if has_moved():
                failures = 0
            if in_hurry or failures == len(RETRY_S):
                hub.down_until = trio.current_time() + DOWN_S
                raise
            log.info("trying again: %s", exc)
            await trio.sleep(RETRY_S[failures])
            failures += 1


async def _in_thread(work: Callable[[UpstreamConnection], T], connection: UpstreamConnection) -> T:
    found: list[T] = []
    await run_abortable(lambda: found.append(work(connection)), connection.abort, trio.CapacityLimiter(1))
    return found[0]


async def look_up(node: Node, repository: Foreign, revision: str, tell: Tell, *, in_hurry: bool = False) -> Info:
    """Return what the hub says of a repository at a revision; a branch is asked for anew after a while.

    Raises NotFound, NoSuchRevision, Gated, AccessDenied, PeerError, InvalidData, Offline.
    """
    known = node.hub.answers.get((repository, revision))
    if known and (is_commit(revision) or trio.current_time() - known[1] < FRESH_S):
        return known[0]
    # Who is in a hurry does not wait for who is not.
    what = repository, revision, "in a hurry" if in_hurry else "at leisure"
    return await _once(node.hub, what, lambda: _look_up(node, repository, revision, tell, in_hurry=in_hurry))


async def _look_up(node: Node, repository: Foreign, revision: str, tell: Tell, *, in_hurry: bool) -> Info:
    hub = node.hub
    from p2phub.net.upstream import PAGE_TIMEOUT_S

    timeout_s = HURRY_S if in_hurry else PAGE_TIMEOUT_S
    page = await ask(node, lambda c: c.info(repository, revision, timeout_s=timeout_s), tell, in_hurry=in_hurry)
    info = _read(hub, page, read_info)
    if is_commit(revision) and info.commit != revision:
        raise InvalidData(f"the hub {hub.name} answered for another commit of {repository}")
    if len(hub.answers) > 10_000:
        hub.answers.clear()
    hub.answers[repository, revision] = info, trio.current_time()
    if not is_commit(revision):
        await on_disk(node.store.mirrors.note_name, repository, revision, info.commit)
    return info


async def list_commit(node: Node, repository: Foreign, info: Info, tell: Tell) -> Listing:
    """Return the files of a commit, asked of the hub once. Raises as `look_up` does."""
    known = await on_disk(node.store.mirrors.listing, repository, info.commit)
    if known is not None and known.info.is_restricted == info.is_restricted:
        return known
    return await _once(node.hub, (repository, info.commit, "files"), lambda: _list_commit(node, repository, info, tell))


async def _list_commit(node: Node, repository: Foreign, info: Info, tell: Tell) -> Listing:
    hub, pages, at = node.hub, 0, None
    files: dict[str, UpstreamFile] = {}
    while True:
        page = await ask(node, lambda c, at=at: c.tree(repository, info.commit, at), tell)  # type: ignore[misc]
        found = _read(hub, page, read_files)
        before = len(files)
        files.update((file.path, file) for file in found)
        pages += 1
        if len(files) != before + len(found):
            raise InvalidData(f"the hub {hub.name} lists a file of {repository} twice")
        if len(files) > FILES_MAX or page.next is None:
            break
        at = page.next
        if pages == PAGES_MAX:
            raise InvalidData(f"the hub {hub.name} lists the files of {repository} without an end")
    try:
        made = listing(info, files.values())
    except InvalidData as exc:
        raise InvalidData(f"{repository}@{info.commit[:12]} cannot be kept here: {exc}") from exc
    await on_disk(node.store.mirrors.keep_listing, repository, made)
    return made


async def _once(hub: Hub, what: tuple[Foreign, str, str], ask_it: Callable[[], Awaitable[T]]) -> T:
    """Return what `ask_it` returns; who wants to know the same meanwhile gets the same answer. Raises as it does."""
    while (other := hub.asking.get(what)) is not None:
        await other.done.wait()
        if other.failure is not None:
            raise other.failure
        if other.answer is not None:
            known: T = other.answer
            return known
    mine = hub.asking[what] = Asking()
    try:
        answer = mine.answer = await ask_it()
    except HubError as exc:
        mine.failure = exc
        raise
    else:
        return answer
    finally:
        del hub.asking[what]
        mine.done.set()


def is_asked(node: Node) -> bool:
    """Say whether the hub is asked for what clients want and nobody here has."""
    return node.hub.is_given and not node.settings.offline


# What says that a repository is not to be had there, now or ever.
REFUSALS = (NotFound, PeerError, InvalidData, Offline)


def _read(hub: Hub, page: Page, read: Callable[[bytes], T]) -> T:
    try:
        return read(page.data)
    except InvalidData as exc:
        raise InvalidData(f"the hub {hub.name}: {exc}") from exc
