"""Say what the policy file means for a repository, a folder or a file, before anything of it is fetched or loaded."""

from __future__ import annotations

import os
from pathlib import Path

from msgspec.structs import replace

from p2phub.core.errors import InvalidName, NotFound
from p2phub.core.findings import Finding
from p2phub.core.formats import may_be_pickled
from p2phub.core.ids import ContentId
from p2phub.core.jsonform import to_plain
from p2phub.core.picklenames import Scan, looks_pickled
from p2phub.core.rules import Consent, File, Rules, judge, judge_content, judge_name, judge_pickle
from p2phub.store.disk import disk_errors
from p2phub.store.ownfiles import OwnFiles

from .disk import from_thread, on_disk
from .events import Notice, Tell
from .node import Node
from .opening import open_sealed
from .operations.rules import PolicyCheck, ShownRules
from .resolve import load_manifest, resolve
from .rulefacts import facts_of_target
from .rules import HEAD_SIZE, LocalFile, scan_file

FILES_MAX = 10_000  # of a folder


async def show(node: Node) -> ShownRules:
    """Return the rules that are in force, and where they come from. Raises InvalidName, StoreError."""

    def work() -> ShownRules:
        rules = node.rules.current()
        return ShownRules(str(node.rules.path), node.rules.path.exists(), to_plain(rules))

    return await on_disk(work)


async def check_reference(node: Node, reference: str, consent: Consent, tell: Tell) -> PolicyCheck:
    """Return what the policy says of a repository, of a single file in the store, or (an absolute path) of a disk's."""
    rules = await on_disk(node.rules.current)
    if reference.startswith("/"):
        own = await on_disk(OwnFiles, node.store.layout)
        found = await on_disk(_of_path, rules, Path(reference), consent, own, from_thread(tell))
        return PolicyCheck(reference, None, found)
    target = await resolve(node, reference, tell, refresh=True)
    if target.manifest is None:
        assert target.file is not None
        return PolicyCheck(reference, None, await on_disk(_of_single, node, rules, target.file, consent))
    manifest = await load_manifest(node, target.manifest, tell)
    if manifest.sealed is not None:
        # Of what is sealed for others nothing can be said but what everybody sees.
        opened, _ = await open_sealed(node, target.manifest, manifest, tell, refresh=True)
        manifest = opened.manifest if opened else manifest
    facts = await on_disk(facts_of_target, node, rules, target, manifest)

    def work() -> list[Finding]:
        return [*judge(rules, facts, consent), *_of_held(node, rules, facts.files, consent)]

    return PolicyCheck(reference, str(target.manifest), await on_disk(work))


def _of_held(node: Node, rules: Rules, files: tuple[File, ...], consent: Consent) -> list[Finding]:
    """Return what the content of those files says that are here."""
    here = node.store.blobs.find_all({file.root for file in files})
    found = []
    for file in files:
        if file.root in here:
            scan = scan_file(node.store, file.path, file.root)
            # That it is a pickle may be known by its name already; what is in it is not.
            finding = judge_content(rules, file, scan, Consent(pickles=True, code=True)) or (
                judge_content(rules, file, scan, consent) if judge_name(rules, file.path, consent) is None else None
            )
            found += [finding] if finding else []
            if scan.is_pickle and finding is None:
                text = f"{file.path} is a pickle of plain data, as far as a scan can tell"
                found.append(Finding("pickles", "fine", text, file.path))
    return found


def _of_single(node: Node, rules: Rules, root: ContentId, consent: Consent) -> list[Finding]:
    if node.store.blobs.find(root) is None:
        raise NotFound(f"{root} is not here, so nothing is known of what is in it", hint="`p2phub fetch` fetches it")
    return _of_held(node, rules, (File(str(root), root),), consent)


def _of_path(rules: Rules, path: Path, consent: Consent, own: OwnFiles, tell: Tell) -> list[Finding]:
    """Return what the policy says of files on disk, that may have come from anywhere; `own` ones are left out."""
    from p2phub.core.pickles import scan

    found: list[Finding] = []
    for name, each in _files_below(path, own, tell) if path.is_dir() else [(path.name, _single(path, own))]:
        by_name = judge_name(rules, name, consent)
        reader = LocalFile(each)
        try:
            is_one = may_be_pickled(name) or looks_pickled(reader.read(0, HEAD_SIZE))
            seen = scan(reader) if is_one else Scan(False)
        finally:
            reader.close()
        in_it = judge_pickle(rules, File(name, ContentId(bytes(32))), seen) if seen.is_pickle else None
        # It is of no repository that could be fetched without it.
        found += [replace(finding, hint=None) for finding in (by_name, in_it) if finding]
        if seen.is_pickle and in_it is None:
            found.append(
                Finding("pickles", "fine", f"{name} is a pickle of plain data, as far as a scan can tell", name)
            )
    return found


def _single(path: Path, own: OwnFiles) -> Path:
    """Return the file `path`. Raises InvalidName if it is something else, NotFound, InvalidData if it is an own one."""
    if not os.path.lexists(path):
        raise NotFound(f"there is no {path}")
    own.refuse(path)
    if not path.exists():
        raise InvalidName(f"{path} is a link to nothing", hint="name the file or folder that it should lead to")
    if not path.is_file():
        # What it will give is not known before it is read, and reading may never end.
        raise InvalidName(
            f"{path} is neither a file nor a folder, so there is nothing to look into",
            hint="name a file or a folder; what comes out of a pipe can be looked into once it is in a file",
        )
    return path


def _files_below(folder: Path, own: OwnFiles, tell: Tell) -> list[tuple[str, Path]]:
    """Return the files of `folder` with their names in it, sorted; says what else there is and is not looked into.

    Raises StoreError if part of it cannot be read, InvalidName if it has too many files: nothing is said to be fine
    that was not looked at.
    """
    files: list[tuple[str, Path]] = []
    others, own_ones = 0, 0

    def refuse(exc: OSError) -> None:
        raise exc

    with disk_errors(folder):
        for parent, folders, names in os.walk(folder, onerror=refuse):
            others += sum(os.path.islink(os.path.join(parent, name)) for name in folders)
            for name in names:
                each = Path(parent, name)
                if own.has(each):
                    own_ones += 1
                elif each.is_file():
                    files.append((str(each.relative_to(folder)), each))
                else:
                    others += 1
                if len(files) > FILES_MAX:
                    raise InvalidName(
                        f"there are more than {FILES_MAX} files in {folder}",
                        hint="look into its folders one by one: `p2phub policy check FOLDER`",
                    )
    if own_ones:
        tell(Notice(f"{own_ones} files of p2phub itself in {folder} are left out"))
    if others:
        tell(Notice(f"not looked into: {others} in {folder} that are links to folders or nothing, pipes or devices"))
    return sorted(files)
