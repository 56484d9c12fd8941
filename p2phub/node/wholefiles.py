"""Files of which nobody has a chunk list: read whole from an HTTP origin, then hashed (spec/origins.md §4).

    origin ──bytes──▶ a file that nobody finds ──cut, hash──▶ the root that was asked for? ──▶ object

What breaks off goes on where it was, as long as this command lasts: a part of a file
cannot be verified, so none is kept for later ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import trio
from msgspec.structs import replace

from p2phub.core.errors import FileRefused, NotFound, OnlyWhole, PeerBusy, PeerError, PeerViolation, StoreError
from p2phub.core.ids import ContentId
from p2phub.net.threads import run_abortable
from p2phub.store.unverified import Unverified

from .disk import on_disk
from .download import DownloadReport, ProviderReport, link_rates
from .events import Notice, Progress, ProviderRate, Tell
from .node import Node
from .origins import REFUSALS_MAX, Origin, Origins

FILES_AT_ONCE = 3
RETRY_S = (0.5, 1.0, 2.0, 5.0)  # seconds before a file that broke off goes on; then it is given up
PROGRESS_SIZE = 1024 * 1024  # bytes further than ever before, after which failures are counted anew
PATIENCE_BUSY_S = 600.0  # seconds that an origin may say it is busy
HELD_S = 0.25  # seconds until a file looks again whether downloads in the foreground are over
TICK_S = 0.1  # seconds between reports of how far it is


async def find_sizes(root: ContentId, origins: Origins) -> Origins:
    """Return the origins that say how long the single file `root` is, with what they say.

    Raises NotFound if none does.
    """
    limiter = trio.CapacityLimiter(1)
    found, reasons = [], []
    for origin in origins.having(root):
        connection = origin.connect()
        sizes: list[int] = []
        try:
            await run_abortable(lambda c=connection, s=sizes: s.append(c.size(root)), connection.abort, limiter)  # type: ignore[misc]
        except PeerError as exc:
            reasons.append(str(exc))
            continue
        finally:
            connection.close()
        found.append(replace(origin, files={root: replace(origin.files[root], size=sizes[0])}))
    if not found:
        raise NotFound(f"no origin gives {root}", hint="; ".join(reasons))
    return replace(origins, origins=tuple(found))


async def fetch_whole(node: Node, roots: Sequence[ContentId], origins: Origins, tell: Tell) -> DownloadReport:
    """Bring the files `roots` into the store, each from an origin that has it.

    Raises NotFound if no origin gives one of them, StoreError if the disk fails.
    """
    fetch = _WholeFetch(node, roots, origins, tell)
    start = trio.current_time()
    try:
        await fetch.run()
    finally:
        with trio.CancelScope(shield=True):
            await on_disk(node.store.blobs.sync)
    return DownloadReport(
        received=fetch.received, seconds=trio.current_time() - start, providers=list(fetch.reports.values())
    )


class _WholeFetch:
    """The files that one command reads whole."""

    def __init__(self, node: Node, roots: Sequence[ContentId], origins: Origins, tell: Tell) -> None:
        self._node = node
        self._roots = roots
        self._origins = origins
        self._tell = tell
        self._threads = trio.CapacityLimiter(FILES_AT_ONCE)
        self._open: set[Unverified] = set()
        self._failures: dict[ContentId, list[str]] = {}  # files that nobody gave, and why
        self._error: StoreError | None = None
        self.received = 0  # bytes, verified
        self.reports: dict[str, ProviderReport] = {}
        self._refusals: Counter[str] = Counter()  # files, by origin

    async def run(self) -> None:
        files = trio.CapacityLimiter(FILES_AT_ONCE)

        async def one(root: ContentId) -> None:
            async with files:
                running = self._node.downloads.get(root)
                while running is not None and self._node.is_held(running):  # noqa: ASYNC110  nobody tells
                    await trio.sleep(HELD_S)
                if self._error is None:
                    await self._bring(root)

        async with trio.open_nursery() as outer:
            outer.start_soon(self._report)
            async with trio.open_nursery() as nursery:
                for root in self._roots:
                    nursery.start_soon(one, root)
            outer.cancel_scope.cancel()
        if self._error is not None:
            raise self._error
        if self._failures:
            root, reasons = next(iter(self._failures.items()))
            others = f" and {len(self._failures) - 1} more files" if self._failures.keys() - {root} else ""
            raise NotFound(f"no peer we know of and no origin gives {root}{others}", hint="; ".join(reasons))

    async def _report(self) -> None:
        """Tell how far it is."""
        total = sum(self._origins.size(root) for root in self._roots)
        start = trio.current_time()
        while True:
            done = self.received + sum(file.size for file in self._open)
            rate = done / max(trio.current_time() - start, 1e-6)
            giving = [report for report in self.reports.values() if report.state == "giving"]
            rates = tuple(ProviderRate(None, rate / len(giving), report.received, report.name) for report in giving)
            left_s = max(total - done, 0) / rate if rate and total else None
            links = link_rates(self.reports.values())
            self._tell(Progress("fetching", min(done, total), total, rate, rates, links=links, left_s=left_s))
            await trio.sleep(TICK_S)

    async def _bring(self, root: ContentId) -> None:
        """Bring one file from the first origin that gives it."""
        reasons = []
        for origin in self._origins.having(root):
            report = self.reports.setdefault(origin.name, ProviderReport(origin.name, is_origin=True))
            if report.state == "banned" or (self._refusals[origin.name] >= REFUSALS_MAX and not report.received):
                reasons.append(report.reason or "")
                continue
            report.state = "giving"
            report.link = await self._node.links.class_of(origin.host)
            before = trio.current_time()
            try:
                size = await self._take(origin, root, report)
            except PeerViolation as exc:
                report.state, report.reason = "banned", str(exc)
                self._tell(Notice(f"not asked any more: {exc}"))
                reasons.append(str(exc))
            except PeerError as exc:
                report.state, report.reason = "gone", str(exc)
                reasons.append(str(exc))
                self._refusals[origin.name] += isinstance(exc, FileRefused)
            except StoreError as exc:
                self._error = exc
                return
            else:
                report.received += size
                report.rate = size / max(trio.current_time() - before, 1e-6)
                self.received += size
                return
        self._failures[root] = reasons

    async def _take(self, origin: Origin, root: ContentId, report: ProviderReport) -> int:
        """Read the file `root` from `origin` and adopt it; returns its size in bytes."""
        intake = self._node.store.intake
        file = await on_disk(intake.begin_unverified)
        self._open.add(file)
        try:
            await self._read(origin, root, file, report)
            if not await on_disk(intake.adopt, file, root, self._origins.profiles[root]):
                label = origin.files[root].label
                raise PeerViolation(
                    f"origin {origin.name} sent another file than was published for {label}", peer=origin.name
                )
            return file.size
        finally:
            self._open.discard(file)
            with trio.CancelScope(shield=True):
                await on_disk(file.close)

    async def _read(self, origin: Origin, root: ContentId, file: Unverified, report: ProviderReport) -> None:
        """Read the file `root`, in as many turns as it takes. Raises PeerError when it fails too often."""
        links = self._node.links
        connection = origin.connect(links.downloading(await links.class_of(origin.host)))
        busy_until = trio.current_time() + PATIENCE_BUSY_S
        failures = furthest = 0
        try:
            while True:
                before = file.size
                try:
                    await run_abortable(
                        lambda begin=before: connection.stream(root, begin, file.write),  # type: ignore[misc]
                        connection.abort,
                        self._threads,
                    )
                    return
                except OnlyWhole:
                    await on_disk(file.start_over)
                    continue
                except FileRefused:
                    raise
                except PeerBusy as exc:
                    if trio.current_time() > busy_until:
                        raise
                    report.reason = str(exc)
                    wait_s = exc.retry_after_s
                except PeerError as exc:
                    if file.size >= furthest + PROGRESS_SIZE:
                        furthest, failures = file.size, 0
                    if failures == len(RETRY_S):
                        raise
                    report.reason = str(exc)
                    wait_s = RETRY_S[failures]
                    failures += 1
                await trio.sleep(wait_s)
        finally:
            connection.close()
