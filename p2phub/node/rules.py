"""Keep to the policy file: what a fetch leaves out or refuses, and why (spec/rules.md).

policy.toml ─▶ Rulebook ─▶ judge by names ─▶ (files come) ─▶ scan ─▶ judge by content ─▶ check out
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from p2phub.core.errors import AccessDenied, HubError, InvalidName, StoreError
from p2phub.core.findings import Finding
from p2phub.core.formats import may_be_pickled
from p2phub.core.ids import ContentId, ManifestId, NamespaceId
from p2phub.core.manifest import FileEntry, Manifest
from p2phub.core.names import is_domain
from p2phub.core.picklenames import NO_PICKLE, Scan, looks_pickled
from p2phub.core.rules import (
    POLICY_SIZE_MAX,
    Consent,
    Facts,
    File,
    Found,
    Rules,
    judge,
    judge_content,
    named,
    parse,
    refusal,
    with_ids,
)
from p2phub.store.disk import disk_errors
from p2phub.store.store import Store

from .operations.content import LeftOut

if TYPE_CHECKING:
    from p2phub.core.facts import ReadableFile

Scanner = Callable[[Sequence[FileEntry]], list[Scan]]  # says what is in each file

# Shows what a file may say, also while this home's own cannot be understood.
_DEFAULTS = "`P2PHUB_POLICY=/dev/null p2phub policy show` prints all rules, as they are without a file"
HEAD_SIZE = 16  # bytes that tell a pickle of a protocol since 2


class Rulebook:
    """The policy file of one home, read again when it changed."""

    def __init__(self, path: Path, pinned: Callable[[str], NamespaceId | None], *, required: bool) -> None:
        """pinned: says which publisher a name means here. required: somebody named the file, so it must be there."""
        self.path = path
        self._pinned = pinned
        self._required = required
        self._stamp: tuple[int, int, int] | None = None
        self._rules = Rules()

    def current(self) -> Rules:
        """Return what the file says now. Raises InvalidName if it cannot be understood, StoreError."""
        # A file that cannot be read is no reason to go by less than it may say.
        try:
            with disk_errors(self.path):
                status = os.stat(self.path)
        except StoreError as exc:
            if isinstance(exc.__cause__, FileNotFoundError) and not self._required:
                self._stamp, self._rules = None, Rules()
                return self._rules
            exc.hint = "P2PHUB_POLICY names it: nothing is fetched or given without it" if self._required else _DEFAULTS
            raise
        if not (stat.S_ISREG(status.st_mode) or os.path.samestat(status, os.stat(os.devnull))):
            # What a pipe gives is gone when it is read again, and one may give nothing for ever.
            raise InvalidName(f"the policy file {self.path} is no file", hint=f"put a file there; {_DEFAULTS}")
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if stamp != self._stamp:
            self._rules = self._read()
            self._stamp = stamp
        # Each time: what a name means may change, and only if its owner says so.
        names = named(self._rules)
        return with_ids(self._rules, {name: self._meaning(name) for name in names}) if names else self._rules

    def trouble(self) -> str:
        """Return why the file cannot be understood now, and what to do; empty if it can."""
        try:
            self.current()
        except HubError as exc:
            return f"{exc}; {exc.hint}" if exc.hint else str(exc)
        return ""

    def _meaning(self, name: str) -> NamespaceId:
        namespace = self._pinned(name)
        if namespace is None:
            hint = f"`p2phub trust add {name}{'' if is_domain(name) else '=NAMESPACE'}` pins it"
            raise InvalidName(f"the policy file {self.path} names {name}, and no publisher is known by that", hint=hint)
        return namespace

    def _read(self) -> Rules:
        with disk_errors(self.path), open(self.path, "rb") as file:
            data = file.read(POLICY_SIZE_MAX + 1)
        if len(data) > POLICY_SIZE_MAX:
            text = f"the policy file {self.path} has more than {POLICY_SIZE_MAX} bytes"
            raise InvalidName(text, hint="what others block can be taken over by naming them in block.lists")
        try:
            return parse(data.decode("utf-8-sig"))  # as some editors save it
        except UnicodeDecodeError as exc:
            hint = f"save it as UTF-8; {_DEFAULTS}"
            raise InvalidName(f"the policy file {self.path} is no text in UTF-8", hint=hint) from exc
        except InvalidName as exc:
            raise InvalidName(f"the policy file {self.path}: {exc}", hint=exc.hint or _DEFAULTS) from exc


def facts_of(
    store: Store,
    manifest: Manifest,
    revision: ManifestId,
    publisher: NamespaceId | None,
    recalled: str | None,
) -> Facts:
    """Return what rules go by of a revision.

    publisher: by whose name it was asked for; None: by its hash, or as a mirror. recalled: why it was taken back,
    as far as it counts for who asked.
    """
    files = tuple(File(file.path, file.root) for file in manifest.files)
    paths = {bytes(file.root): file.path for file in files}
    found = tuple(
        Found(said.namespace, said.claim, said.verdict == "good", paths.get(said.subject), said.message)
        for said in store.assessments.about([revision, *paths])
    )
    return Facts(
        revision,
        files,
        licence=manifest.card.license if manifest.card else None,
        publisher=publisher,
        recalled=recalled,
        found=found,
    )


class Selection:
    """What of a revision may be taken, as far as its names tell and then by its content."""

    def __init__(self, rules: Rules, facts: Facts, consent: Consent) -> None:
        self._rules = rules
        self._facts = facts
        self._consent = consent
        self.left_out: list[LeftOut] = []

    def by_name(self, files: Sequence[FileEntry], *, as_a_whole: bool = False) -> list[FileEntry]:
        """Return those of `files` that may be fetched. Raises AccessDenied if nothing of it may.

        as_a_whole: go by what is said of all of it, and not by the names of files.
        """
        findings = judge(self._rules, self._facts, self._consent)
        check(findings)
        return list(files) if as_a_whole else self._without(files, findings)

    def by_content(self, files: Sequence[FileEntry], look: Scanner) -> list[FileEntry]:
        """Return those of `files`, all of them here, that may be checked out.

        look: says what is in them. Raises AccessDenied if one must not be loaded, or if nothing is left.
        """
        findings = []
        for file, found in zip(files, look(files), strict=True):
            target = File(file.path, file.root)
            finding = judge_content(self._rules, target, found, self._consent, self._facts.manifest)
            findings += [finding] if finding else []
        check(findings)
        return self._without(files, findings)

    def _without(self, files: Sequence[FileEntry], findings: Sequence[Finding]) -> list[FileEntry]:
        out = {finding.path: finding for finding in findings if finding.outcome == "left out"}
        kept = [file for file in files if file.path not in out]
        reasons = [out[file.path] for file in files if file.path in out]
        self.left_out += [LeftOut(each.path or "", each.text, each.hint) for each in reasons]
        if not kept and reasons:
            first, more = reasons[0], len(reasons) - 1
            others = f", and so on for {more} more" if more else ""
            raise AccessDenied(f"nothing of it may be taken: {first.text}{others}", hint=first.hint)
        return kept


def check(findings: Sequence[Finding]) -> None:
    """Raise AccessDenied if a finding refuses all of a revision."""
    bad = refusal(findings)
    if bad is not None:
        raise AccessDenied(bad.text, hint=bad.hint)


def check_recalled(manifest: ManifestId, recalled: str | None, consent: Consent) -> None:
    """Raise AccessDenied if a revision was taken back. recalled: as for `facts_of`."""
    facts = Facts(manifest, (), recalled=recalled)
    check([finding for finding in judge(Rules(), facts, consent) if finding.rule == "recall"])


def check_single(rules: Rules, store: Store, root: ContentId, consent: Consent) -> None:
    """Raise AccessDenied unless the file `root`, which is here and has no name, may be given to who asked for it."""
    file = File(str(root), root)
    if str(root) in rules.block.content or store.assessments.blocked([root], rules.block.lists):
        raise AccessDenied(f"the policy blocks {root}")
    finding = judge_content(rules, file, scan_file(store, "", root), consent)
    if finding is not None:
        raise AccessDenied(finding.text, hint=finding.hint)


def scan_stored(store: Store) -> Scanner:
    """Return what looks into files of the store."""
    return lambda files: scan_files(store, [File(file.path, file.root) for file in files])


def scan_file(store: Store, path: str, root: ContentId) -> Scan:
    """Return what is in a file of the store: looked into if it may be anything by its name, else at a glance."""
    return scan_files(store, [File(path, root)])[0]


def scan_files(store: Store, files: Sequence[File]) -> list[Scan]:
    """Return what is in each of many files of the store, as `scan_file` does; none is looked into twice."""
    roots = [file.root for file in files]
    held, known = store.blobs.find_all(roots), store.scans.get_all(roots)
    fresh: dict[ContentId, Scan] = {}

    def scan_one(file: File) -> Scan:
        found = held.get(file.root)
        readable = store.readables.open_found(file.root, found) if found else None
        if readable is None:
            raise StoreError(f"{file.path} is not in the store", path=file.path)
        reader = LocalFile(readable.name, readable.file)

        def once(look: Callable[[], Scan]) -> Scan:
            if file.root not in known:
                known[file.root] = fresh[file.root] = look()
            return known[file.root]

        try:
            return scan_named(file.path, reader, once)
        finally:
            reader.close()

    try:
        return [scan_one(file) for file in files]
    finally:
        # What was found before an error need not be found again.
        store.scans.keep_all(fresh)


def scan_named(path: str, file: ReadableFile, remember: Callable[[Callable[[], Scan]], Scan]) -> Scan:
    """Return what is in `file`: looked into if it may be anything by its name, else at a glance.

    remember: returns what it is given, or what is known already.
    """
    if not may_be_pickled(path) and not looks_pickled(file.read(0, HEAD_SIZE)):
        return NO_PICKLE
    from p2phub.core.pickles import scan  # loads what unpacks; most fetches meet no pickle

    return remember(lambda: scan(file))


class LocalFile:
    """A file on disk, read at any place."""

    def __init__(self, path: Path | str, file: int | None = None) -> None:
        """file: its descriptor, which `close` closes; None opens it."""
        self._path = path
        with disk_errors(path):
            self._file = file if file is not None else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self.size = os.fstat(self._file).st_size

    def read(self, offset: int, size: int) -> bytes:
        with disk_errors(self._path):
            return os.pread(self._file, size, offset)

    def close(self) -> None:
        os.close(self._file)
