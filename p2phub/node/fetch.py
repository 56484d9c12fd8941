"""Fetch a repository or a file: resolve, download what is missing, check out (spec/transfer.md §1).

reference ──▶ manifest ──▶ files that are not here ──▶ chunk lists ──▶ swarm ──▶ folder
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from p2phub.core.choices import LINK_CLASSES, Kind, LinkClass, LinkMode
from p2phub.core.errors import InvalidName, NotFound
from p2phub.core.ids import ManifestId
from p2phub.core.manifest import FileEntry, Manifest
from p2phub.core.names import NameRef, parse_reference
from p2phub.core.rules import Consent, judge
from p2phub.store.disk import disk_errors

from .bring import bring_file, bring_files
from .checkout import Contents, StoredContents, check_out, place_file
from .disk import from_thread, on_disk
from .download import DownloadReport
from .events import Notice, Tell
from .node import Node
from .operations.content import FetchResult, FileResult, LeftOut, LinkShare, ProviderSummary, exact_pattern
from .origins import NONE_GIVEN, GivenOrigins, of_file, of_repository
from .recalled import recall_of
from .receipts import require_accepted
from .remotecode import named_programs
from .resolve import Target, load_manifest, resolve
from .rulefacts import facts_of_target
from .rules import Scanner, Selection, check, check_recalled, check_single, scan_stored

if TYPE_CHECKING:
    from .opened import Opened

NO_CONSENT = Consent()
ASKED_FOR = Consent(pickles=True, code=True)  # by its name: what is in it is looked at all the same


async def fetch(
    node: Node,
    reference: str,
    tell: Tell,
    *,
    to: Path | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    link: LinkMode = "auto",
    force: bool = False,
    dry_run: bool = False,
    kind: Kind | None = None,
    origins: GivenOrigins = NONE_GIVEN,
    check_out_files: bool = True,
    in_cache: bool = False,
    background: bool = False,
    keep_sealed: bool = False,
    consent: Consent = NO_CONSENT,
) -> FetchResult:
    """Bring what `reference` means into the store, verified, and place it in a folder.

    to: the folder (for a single file: its path); None takes one in the store's views.
    in_cache: `to` is the cache of another hub's client, in which the files are shown under the name that was asked for.
    include, exclude: glob patterns over paths, as the existing hub's clients have them.
    origins: HTTP servers that have the files, besides those that the manifest names.
    background: let all other traffic go first; spec/links.md §4.
    keep_sealed: keep what is sealed as it is, for others, and place it nowhere; else it is opened in the folder.
    consent: to what the policy asks about (spec/rules.md §3).
    Raises NotFound, Offline, Conflict, NoSpace, StoreError, InvalidName; AccessDenied for what is sealed for others,
    and for what the policy refuses.
    """
    origins.check()
    target = await _target(node, reference, tell, consent)
    if target.manifest is None:
        return await _fetch_file(
            node,
            target,
            tell,
            to=to,
            link=link,
            force=force,
            dry_run=dry_run,
            origins=origins.of_file(tell),
            background=background,
            consent=consent,
        )
    manifest = await load_manifest(node, target.manifest, tell)
    if kind is not None and manifest.kind != kind:
        raise NotFound(f"{reference} is a {manifest.kind}, not a {kind}")
    await _require_accepted(node, target, target.manifest, manifest, tell)
    given = origins.of_repository(tell)
    if manifest.sealed is not None and check_out_files and not keep_sealed:
        found = await _found_opened(node, target.manifest, manifest, tell, given)
    else:
        found = _found_as_kept(node, manifest, link)
    selection = await on_disk(_selection, node, target, found.manifest, consent)
    files = selection.by_name(select(found.manifest, include, exclude), as_a_whole=found.is_unreadable)
    kept = found.kept(files)
    sources = of_repository(kept, given, manifest.origin_urls)
    report, here_before = await bring_files(node, kept, tell, origins=sources, dry_run=dry_run, background=background)
    folder, linked = None, None
    if not dry_run:
        if not found.is_unreadable:
            files = await on_disk(_look_into, node, found, selection, files, from_thread(tell))
        if in_cache:
            folder, linked = await on_disk(_show_in_cache, node, target, manifest.kind, files, to, found.contents)
        elif check_out_files and not found.is_unreadable:
            folder, linked = await on_disk(_place, node, target, target.manifest, found, files, to, force=force)
    return _result(
        reference,
        report,
        revision=target.manifest,
        path=folder,
        files=len(files),
        size=sum(file.size for file in kept),
        here_before=here_before,
        linked=linked,
        dry_run=dry_run,
        left_out=selection.left_out,
    )


async def _target(node: Node, reference: str, tell: Tell, consent: Consent) -> Target:
    """Return what `reference` means now. Raises AccessDenied if it was recalled."""
    target = await resolve(node, reference, tell, refresh=True)
    # Before more is asked for: those who know of a recall do not give even the manifest.
    revision = target.manifest or ManifestId(target.file or bytes(32))
    check_recalled(revision, await on_disk(recall_of, node, target), consent)
    return target


class _Found(Struct, frozen=True):
    """A revision as it is shown: what its files are for whoever fetches it, and how they are read and placed."""

    manifest: Manifest  # of the files that are shown
    contents: Contents
    look: Scanner
    opened: Opened | None = None  # how it was opened; None: the files are shown as they are kept

    @property
    def is_unreadable(self) -> bool:
        """Say that it is sealed and stays so: its names say nothing, and nobody here looks into it."""
        return self.opened is None and self.manifest.sealed is not None

    @property
    def is_secret(self) -> bool:
        """Say that it is not for others on this machine."""
        return self.opened is not None and not self.opened.is_public

    def kept(self, files: Sequence[FileEntry]) -> list[FileEntry]:
        """Return what each of `files` is in the store and for peers."""
        return [each.sealed for each in self.opened.of(files)] if self.opened else list(files)


def _found_as_kept(node: Node, manifest: Manifest, link: LinkMode) -> _Found:
    return _Found(manifest, StoredContents(node.store, link), scan_stored(node.store))


async def _found_opened(
    node: Node, revision: ManifestId, manifest: Manifest, tell: Tell, given: Sequence[str]
) -> _Found:
    """Return a sealed revision opened. Raises AccessDenied if it is sealed for others."""
    from .opening import OpenedContents, require_opened, scan_opened  # loads what decrypts; few are sealed

    sources = of_repository(manifest.files, given, manifest.origin_urls)
    opened, _ = await require_opened(node, revision, manifest, tell, origins=sources, refresh=True)
    return _Found(opened.manifest, OpenedContents(node.store, opened), scan_opened(node.store, opened), opened)


def _selection(node: Node, target: Target, manifest: Manifest, consent: Consent) -> Selection:
    """Return what the policy file lets through. manifest: of the files that are shown."""
    rules = node.rules.current()
    return Selection(rules, facts_of_target(node, rules, target, manifest), consent)


def _look_into(
    node: Node, found: _Found, selection: Selection, files: Sequence[FileEntry], tell: Tell
) -> list[FileEntry]:
    """Return those of `files`, all of them here, that the policy lets through by what is in them."""
    passed = selection.by_content(files, found.look)
    if found.opened is None:
        for text in named_programs(node.store, passed):
            tell(Notice(text))
    return passed


def _place(
    node: Node,
    target: Target,
    revision: ManifestId,
    found: _Found,
    files: Sequence[FileEntry],
    to: Path | None,
    *,
    force: bool,
) -> tuple[Path, str]:
    """Check the files out; returns the folder, and how they were placed. to: None takes one in the store's views."""
    folder = to if to is not None else _view(node, target, revision, found.is_secret)
    return folder, check_out(node.store, folder, revision, files, found.contents, force=force)


async def _require_accepted(node: Node, target: Target, revision: ManifestId, manifest: Manifest, tell: Tell) -> None:
    """Raise NotAccepted if content that is not here yet is behind a gate that was not passed."""
    roots = {file.root for file in manifest.files}
    # What was fetched stays usable, whatever is asked for by now.
    if len(await on_disk(node.store.blobs.find_all, roots)) < len(roots):
        named = (target.namespace, target.model) if target.asked_by and target.namespace and target.model else None
        await require_accepted(node, revision, named, tell)


async def locate(
    node: Node, reference: str, path: str, tell: Tell, *, origins: GivenOrigins = NONE_GIVEN
) -> FileResult:
    """Bring one file of a repository, or a single file by its hash, here; the result says where it lies.

    It lies in the store, or, if it was sealed, opened in a folder. Raises as `fetch` does.
    """
    target = await resolve(node, reference, tell, refresh=True)
    root = target.file
    if target.manifest is not None:
        manifest = await load_manifest(node, target.manifest, tell)
        await on_disk(_check_named, node, target, manifest, path)
        name, only = str(target.manifest), (exact_pattern(path),)
        if manifest.sealed is not None:
            found = await fetch(node, name, tell, include=only, origins=origins, consent=ASKED_FOR)
            assert found.path
            return FileResult(str(Path(found.path) / path), found.size)
        entry = manifest.file(path)
        if entry is None:
            from .meant import no_file  # seldom needed

            raise no_file(reference, path, [file.path for file in manifest.files])
        root = entry.root
        await fetch(node, name, tell, include=only, origins=origins, check_out_files=False, consent=ASKED_FOR)
    held = await on_disk(node.store.blobs.find, root) if root else None
    if held is None:
        raise NotFound(f"{path} is not in the store")
    return FileResult(str(held.path), held.size)


def _check_named(node: Node, target: Target, manifest: Manifest, path: str) -> None:
    """Raise AccessDenied if the policy refuses a file by the name that it was asked for by."""
    rules = node.rules.current()
    findings = judge(rules, facts_of_target(node, rules, target, manifest), ASKED_FOR)
    check([finding for finding in findings if finding.path in (None, path)])


def _show_in_cache(
    node: Node, target: Target, kind: Kind, files: Sequence[FileEntry], cache: Path | None, contents: Contents
) -> tuple[Path, str]:
    from .hubcache import place_in_cache, references_of  # few ask for it

    if cache is None or target.namespace is None or target.model is None or target.manifest is None:
        raise InvalidName("in the cache of a client a repository has a name, and the cache a folder")
    reference = parse_reference(target.reference)
    typed = reference.namespace if isinstance(reference, NameRef) else None
    name = f"{typed or target.namespace}/{target.model}"
    # What the client will ask for: the names that stand for this now, and the one that was typed.
    names = {*references_of(node.store, target.namespace, target.model, target.manifest)}
    names |= {target.branch or target.version or ""} - {""}
    return place_in_cache(cache, name, target.manifest, kind, files, sorted(names), contents)


def select(manifest: Manifest, include: Sequence[str], exclude: Sequence[str]) -> list[FileEntry]:
    """Return the files that match a pattern of `include` (all, if there is none) and none of `exclude`.

    Raises NotFound if that leaves nothing.
    """

    def matches(path: str, patterns: Sequence[str]) -> bool:
        # A pattern that ends in a slash means the folder.
        whole = (pattern + "*" if pattern.endswith("/") else pattern for pattern in patterns)
        return any(fnmatch.fnmatchcase(path, pattern) for pattern in whole)

    files = [
        file
        for file in manifest.files
        if (not include or matches(file.path, include)) and not matches(file.path, exclude)
    ]
    if not files:
        raise NotFound("no file matches the patterns", hint="`p2phub ls` shows the files")
    return files


async def _fetch_file(
    node: Node,
    target: Target,
    tell: Tell,
    *,
    to: Path | None,
    link: LinkMode,
    force: bool,
    dry_run: bool,
    origins: Sequence[str],
    background: bool,
    consent: Consent,
) -> FetchResult:
    """Fetch a single file by its hash alone."""
    root = target.file
    assert root is not None
    held = await on_disk(node.store.blobs.find, root)
    sources = of_file(root, origins)
    if held is None:
        report, size = await bring_file(node, root, tell, origins=sources, dry_run=dry_run, background=background)
    else:
        report, size = DownloadReport(), held.size
    path, linked = None, None
    if not dry_run:
        await on_disk(check_single, await on_disk(node.rules.current), node.store, root, consent)
        found = await on_disk(node.store.blobs.find, root)
        path = to or (found.path if found else None)
        if to is not None:
            linked = await on_disk(place_file, node.store, root, to, link, force=force)
    return _result(
        target.reference,
        report,
        revision=None,
        path=path,
        files=1,
        size=size,
        here_before=size if held else report.here_before,
        linked=linked,
        dry_run=dry_run,
    )


def _result(
    reference: str,
    report: DownloadReport,
    *,
    revision: ManifestId | None,
    path: Path | None,
    files: int,
    size: int,
    here_before: int,
    linked: str | None,
    dry_run: bool,
    left_out: Sequence[LeftOut] = (),
) -> FetchResult:
    return FetchResult(
        reference=reference,
        revision=str(revision) if revision else None,
        path=str(path) if path else None,
        files=files,
        size=size,
        here_before=here_before,
        copied=report.copied,
        shared=report.shared,
        received=report.received,
        duplicates=report.duplicates,
        seconds=report.seconds,
        linked=linked,
        providers=_providers(report),
        dry_run=dry_run,
        links=_links(report),
        unoffered=report.forecast.unoffered if report.forecast else 0,
        expected_s=report.forecast.seconds if report.forecast else None,
        left_out=list(left_out),
    )


def _view(node: Node, target: Target, manifest: ManifestId, is_secret: bool) -> Path:
    """Return the folder in the store's views for a revision. is_secret: others on this machine may not look into it."""
    namespace = str(target.namespace) if target.namespace else "b3"
    folder = node.settings.layout.view(namespace, target.model or manifest.hex()[:12], manifest)
    if is_secret:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
    return folder


def _providers(report: DownloadReport) -> list[ProviderSummary]:
    return [
        ProviderSummary(
            None if provider.is_origin else provider.name,
            provider.received,
            provider.rate,
            provider.state,
            provider.reason,
            provider.name if provider.is_origin else None,
            provider.link,
        )
        for provider in report.providers
    ]


def _links(report: DownloadReport) -> list[LinkShare]:
    """Return what came over each class of links, or would come; the cheapest first."""
    sizes: Counter[LinkClass]
    counts: Counter[LinkClass]
    if report.forecast:
        sizes, counts = Counter(report.forecast.links), Counter(report.forecast.providers)
    else:
        givers = [provider for provider in report.providers if provider.link and provider.received]
        sizes, counts = Counter(), Counter()
        for provider in givers:
            assert provider.link
            sizes[provider.link] += provider.received
            counts[provider.link] += 1
    return [LinkShare(link, sizes[link], counts[link]) for link in LINK_CLASSES if sizes[link]]
