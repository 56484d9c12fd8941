"""Keep to the policy file at the door: no pickle leaves before it was looked into (spec/rules.md §5).

    file ──code, blocked?──▶ may be a pickle? ──scan, fetching what it takes──▶ sent, or 403

The scan reads through the same reader that sends: of a checkpoint it takes the list of its
files and the small one that is a pickle, and not its numbers.
"""

from __future__ import annotations

import trio
from msgspec.structs import replace

from p2phub.core import private
from p2phub.core.errors import AccessDenied
from p2phub.core.formats import format_of, may_be_pickled
from p2phub.core.ids import ManifestId
from p2phub.core.manifest import FileEntry, Manifest
from p2phub.core.picklenames import Scan
from p2phub.core.rules import Consent, File, Rules, judge, judge_pickle
from p2phub.node.disk import on_disk
from p2phub.node.identity import own_namespace
from p2phub.node.node import Node
from p2phub.node.opened import Opened
from p2phub.node.reading import Reading, Readings
from p2phub.node.recalled import recall_of_repository
from p2phub.node.rulefacts import vouched
from p2phub.node.rules import check, facts_of

from .errors import Refusal
from .lookup import Commit

PATIENCE_S = 8.0  # seconds that clients which come again wait for a scan: they give up after ten
RETRY_S = 2  # after which they are told to do so
END_SIZE = 64 * 1024  # bytes at the end of a file, where a zip has its list; spec/hub-api.md §4
SCANS_MAX = 4  # that wait for content at once, each in a thread

_COMES_AGAIN = ("hf_hub/", "p2phub")  # in the User-Agent of clients that do so when they are told
_ASKED_FOR = Consent(pickles=True, code=True)  # who names a file wants it


class Inspector:
    """Says which files the door may send."""

    def __init__(self, node: Node, readings: Readings) -> None:
        self._node = node
        self._readings = readings
        self._scanners = trio.CapacityLimiter(SCANS_MAX)

    async def check(self, commit: Commit, file: FileEntry, agent: str) -> None:
        """Raise AccessDenied unless `file` of `commit` may be sent, Refusal if that is not known yet.

        agent: the client's `User-Agent`.
        """
        rules = await on_disk(self._judge, commit, file)
        await self._check_content(rules, file, commit.content, agent, commit.revision)

    def _judge(self, commit: Commit, file: FileEntry) -> Rules:
        """Return the rules. Raises AccessDenied if they refuse a revision, or one file of it, by what is said of it."""
        node, repository = self._node, commit.repository
        rules = node.rules.current()
        # Not all of its files: clients ask for one after the other.
        shown = replace(commit.shown, files=(file,))
        own, now = own_namespace(node), node.clock()
        named = private.Repository(repository.namespace, repository.model)
        recalled = recall_of_repository(node, named, commit.revision)
        facts = facts_of(node.store, shown, commit.revision, repository.namespace, recalled)
        facts = vouched(node.store, rules, facts, repository.model, own=own, now=now, moving=False)
        check([finding for finding in judge(rules, facts, _ASKED_FOR) if finding.path in (None, file.path)])
        self._check_file(rules, file)
        return rules

    async def check_file(self, file: FileEntry, content: Manifest | Opened, agent: str) -> None:
        """Do what `check` does for a file of whatever repository, `content` being one that lists it."""

        def work() -> Rules:
            rules = self._node.rules.current()
            self._check_file(rules, file)
            return rules

        await self._check_content(await on_disk(work), file, content, agent, None)

    def _check_file(self, rules: Rules, file: FileEntry) -> None:
        """Raise AccessDenied if the rules refuse a file wherever it is."""
        if format_of(file.path) == "code" and rules.code.door == "never":
            raise AccessDenied(f"{file.path} is a program, and the policy of this node sends none")
        listed = self._node.store.assessments.blocked([file.root], rules.block.lists)
        if listed or str(file.root) in rules.block.content:
            raise AccessDenied(f"the policy of this node blocks {file.path}")

    async def _check_content(
        self, rules: Rules, file: FileEntry, content: Manifest | Opened, agent: str, revision: ManifestId | None
    ) -> None:
        """Raise AccessDenied if a file holds what the rules refuse, Refusal if that is not known yet."""
        if file.size == 0 or not may_be_pickled(file.path):
            return
        scan = await self._scan(file, content, agent)
        if scan.is_pickle and rules.pickles.door == "never":
            raise AccessDenied(f"{file.path} is a pickle, and the policy of this node sends none")
        if scan.is_pickle and (finding := judge_pickle(rules, File(file.path, file.root), scan, revision)):
            check([finding])

    async def _scan(self, file: FileEntry, content: Manifest | Opened, agent: str) -> Scan:
        """Return what is in a file, fetching as much of it as that takes."""
        # What an index says of sealed files is no hash of them before all of one was opened.
        is_known_by_root = not isinstance(content, Opened)
        known = await on_disk(self._node.store.scans.get, file.root) if is_known_by_root else None
        if known is not None:
            return known
        from p2phub.core.pickles import scan  # loads what unpacks

        patience_s = PATIENCE_S if any(name in agent for name in _COMES_AGAIN) else float("inf")
        found: Scan | None = None
        with trio.move_on_after(patience_s):
            async with self._readings.open(file, content) as end, self._readings.open(file, content) as reading:
                # Both ends tell what it is. Asked for when the beginning is here, the other one would come behind all
                # that peers were asked for by then.
                end.note_place(max(0, file.size - END_SIZE))
                source = _Arriving(reading, file.size)
                found = await trio.to_thread.run_sync(scan, source, limiter=self._scanners)
        if found is None:
            text = f"{file.path} may be a pickle, and what tells is being fetched"
            raise Refusal(429, text, headers={"retry-after": str(RETRY_S)})
        if is_known_by_root:
            await on_disk(self._node.store.scans.keep, file.root, found)
        return found


class _Arriving:
    """A file that is read, by a thread, while it is fetched."""

    def __init__(self, reading: Reading, size: int) -> None:
        self._reading = reading
        self.size = size

    def read(self, offset: int, size: int) -> bytes:
        if size <= 0 or offset >= self.size:
            return b""
        return trio.from_thread.run(self._reading.read, offset, min(size, self.size - offset))
