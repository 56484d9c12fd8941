"""The requests that only read: repositories, trees, commits, files (spec/hub-api.md §3)."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from p2phub.core.access import ANYBODY
from p2phub.core.choices import DEFAULT_BRANCH, Kind
from p2phub.core.errors import NotAccepted
from p2phub.core.gates import Gate
from p2phub.core.ids import ManifestId, NamespaceId
from p2phub.core.manifest import FileEntry, Manifest
from p2phub.node.disk import on_disk
from p2phub.node.foreign import ForeignCommit
from p2phub.node.node import Node
from p2phub.node.opened import Opened
from p2phub.node.reading import Readings
from p2phub.node.receipts import check_accepted

from . import describe, history
from .archives import TarAnswer
from .errors import Refusal, no_entry, no_repository, not_allowed, not_served
from .files import FileAnswer
from .foreign import ForeignRepositories
from .inspector import Inspector
from .lookup import Commit, Lookup
from .requests import PAGE_DEFAULT, is_true, next_page, number, query_fields, read_form, value, values
from .trees import File, Tree, entry

PATHS_MAX = 10_000  # in one request; spec/hub-api.md §7
PATHS_SIZE_MAX = 4 * 1024 * 1024  # bytes of them: those of a manifest have less than one; spec/hub-api.md §7
TREE_PAGE_MAX = 10_000  # entries: a whole manifest; llama.cpp does not ask for a second page
EXPANDED_PAGE_MAX = 1000
COMMITS_PAGE_MAX = 100

AnyCommit = Commit | ForeignCommit


class ReadingRequests:
    """Answers for those who read."""

    def __init__(
        self, node: Node, lookup: Lookup, foreign: ForeignRepositories | None, readings: Readings, inspector: Inspector
    ) -> None:
        """foreign: None if those who read may not have what other hubs have."""
        self._inspector = inspector
        self._node = node
        self._lookup = lookup
        self._foreign = foreign
        self._readings = readings

    async def _commit(self, kind: Kind, name: str, revision: str | None) -> AnyCommit:
        """Return the commit that a request names: of a publisher of ours, or of another hub. Raises Refusal."""
        if await self._lookup.is_publisher(name):
            return await self._lookup.commit(kind, name, revision)
        with self._explained(name):
            return await self._of_others(name).commit(kind, name, revision)

    @contextlib.contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        """Let a refusal also say why a name is of no publisher of ours."""
        try:
            yield
        except Refusal as refusal:
            # A domain of which no other hub knows is more likely what was meant.
            if why := self._lookup.why_not(name):
                raise Refusal(refusal.status, f"{why}; {refusal.text}", code=refusal.code) from refusal
            raise

    def _of_others(self, name: str) -> ForeignRepositories:
        if self._foreign is None:
            raise no_repository(f"nothing is known of {name}")
        return self._foreign

    async def info(self, request: Request, kind: Kind, name: str, revision: str | None = None) -> Response:
        """Say what is known of a repository, at a revision."""
        commit = await self._commit(kind, name, revision)
        fields = query_fields(request)
        return JSONResponse(await self._info(commit, fields))

    async def _info(self, commit: AnyCommit, fields: list[tuple[str, str]]) -> dict[str, Any]:
        created: int | None = None
        gate: Gate | None = None
        if isinstance(commit, Commit):
            repository = commit.repository
            place = repository.namespace, repository.model
            created = await on_disk(self._node.store.listing.created, *place)
            gate = await on_disk(self._node.store.gates.of_repository, *place)
        whole = describe.repository_info(
            commit, created=created or commit.created, blobs=is_true(fields, "blobs"), gate=gate
        )
        return select(whole, values(fields, "expand"))

    async def tree(self, request: Request, kind: Kind, name: str, revision: str, path: str = "") -> Response:
        """List the files and folders of a folder."""
        commit = await self._commit(kind, name, revision)
        tree = Tree(commit.files)
        path = path.strip("/")
        if not tree.has_folder(path):
            raise no_entry(f"{name} has no folder {path} at {revision}", commit.id)
        fields = query_fields(request)
        nodes = tree.below(path, recursive=is_true(fields, "recursive"))
        expand = is_true(fields, "expand")
        largest = EXPANDED_PAGE_MAX if expand else TREE_PAGE_MAX
        limit = number(fields, "limit", default=largest, largest=largest)
        # Of an immutable commit the place in the list is a place for ever.
        after = value(fields, "cursor")
        start = next((i for i, node in enumerate(nodes) if node.path > after), len(nodes)) if after else 0
        page = nodes[start : start + limit]
        rows = [entry(node) for node in page]
        if expand:
            await self._add_last_commits(commit, rows)
        headers = {"x-repo-commit": commit.id}
        if start + limit < len(nodes):
            headers |= next_page(request, page[-1].path)
        return JSONResponse(rows, headers=headers)

    async def paths_info(self, request: Request, kind: Kind, name: str, revision: str) -> Response:
        """Say of each path what it is; paths that are not there are left out."""
        form = await read_form(request, size_max=PATHS_SIZE_MAX)
        paths = values(form, "paths")
        if len(paths) > PATHS_MAX:
            raise Refusal(400, f"{len(paths)} paths in one request, the limit is {PATHS_MAX}")
        commit = await self._commit(kind, name, revision)
        tree = Tree(commit.files)
        # Asked for one by one, a long list of a large folder would take minutes.
        known = {node.path: node for node in tree.below("", recursive=True)}
        rows = [entry(known[path]) for path in dict.fromkeys(path.strip("/") for path in paths) if path in known]
        if is_true(form, "expand"):
            await self._add_last_commits(commit, rows)
        return JSONResponse(rows)

    async def references(self, request: Request, kind: Kind, name: str) -> Response:
        """List branches and tags."""
        if not await self._lookup.is_publisher(name):
            with self._explained(name):
                return JSONResponse(await self._of_others(name).references(kind, name))
        repository = await self._lookup.repository(kind, name)
        return JSONResponse(await history.references(self._node, self._lookup, repository))

    async def commits(self, request: Request, kind: Kind, name: str, revision: str) -> Response:
        """List the history of a revision."""
        commit = await self._commit(kind, name, revision)
        fields = query_fields(request)
        limit = number(fields, "limit", default=min(50, PAGE_DEFAULT), largest=COMMITS_PAGE_MAX)
        start = number(fields, "cursor", default=0, largest=history.COMMITS_MAX)
        rows, more = await self._history(commit, start, limit)
        if is_true(fields, "formatted") or "formatted" in values(fields, "expand"):
            rows = [{**row, "formatted": {"title": row["title"], "message": row["message"]}} for row in rows]
        return JSONResponse(rows, headers=next_page(request, str(start + limit)) if more else None)

    async def may_read(self, request: Request, kind: Kind, name: str) -> Response:
        """Say that a repository may be read. Raises Refusal if something must be accepted first."""
        if await self._lookup.is_publisher(name):
            repository = await self._lookup.repository(kind, name)
            revision = await self._lookup.revision(repository, DEFAULT_BRANCH)
            place = repository.namespace, repository.model
            if self._lookup.is_for_owner:
                await on_disk(self._check_passed, revision, place)
            elif await on_disk(self._node.store.gates.of_repository, *place):
                raise not_allowed(f"{name} asks to accept a licence first; its owner's token lets in who did")
        else:
            with self._explained(name):
                await self._of_others(name).commit(kind, name, None)
        return JSONResponse({"ok": True})

    async def file(self, request: Request, kind: Kind, name: str, revision: str, path: str) -> Response:
        """Send a file."""
        commit = await self._commit(kind, name, revision)
        file = commit.file(path) or _by_hash(commit, path)
        if file is None:
            raise no_entry(f"{name} has no file {path} at {revision}", commit.id)
        if isinstance(file, FileEntry) and not await on_disk(self._may_have, commit, file):
            raise no_entry(f"{name} has no file {path} at {revision}", commit.id)
        if isinstance(commit, ForeignCommit):
            return await self._of_others(name).file(commit, file, request.method, request.headers)
        assert isinstance(file, FileEntry)
        if request.method == "GET":
            await self._inspector.check(commit, file, request.headers.get("user-agent", ""))
        return FileAnswer(
            self._readings, commit.content, file, commit=commit.id, method=request.method, headers=request.headers
        )

    def _may_have(self, commit: AnyCommit, file: FileEntry) -> bool:
        """Say whether those for whom this is may have a file. Raises Refusal if something must be accepted first."""
        if isinstance(commit, ForeignCommit):
            return self._lookup.lets_have([file.root])
        self._check_accepted(commit, [file])
        return self._lookup.lets_have(commit.kept([file]))

    async def archive(self, request: Request, kind: Kind, name: str, revision: str | None = None) -> Response:
        """Send a commit as a tar, for clients that ask for one."""
        wanted = value(query_fields(request), "tf-hub-format")
        if wanted is None:
            raise Refusal(404, "this hub has no pages; its files are below /resolve/")
        if wanted != "compressed":
            raise not_served("only tf-hub-format=compressed is served: uncompressed models lie in buckets of a cloud")
        commit = await self._commit(kind, name, revision)
        etag = commit.revision.hex() if isinstance(commit, Commit) else commit.id
        content = commit.content if isinstance(commit, Commit) else commit.manifest
        if content is None:
            raise Refusal(404, f"not all of {name} is here: `p2phub mirror add hf://{name}` fetches it")
        if isinstance(commit, Commit):
            await on_disk(self._check_accepted, commit, commit.files)
        kept = commit.manifest if isinstance(commit, Commit) else content
        if not isinstance(kept, Manifest) or not await self._lookup.may_have([file.root for file in kept.files]):
            raise no_repository(f"nothing is known of {name}")
        if request.method == "GET":
            for file in content.manifest.files if isinstance(content, Opened) else content.files:
                await self._inspector.check_file(file, content, request.headers.get("user-agent", ""))
        return TarAnswer(self._readings, content, commit=commit.id, etag=etag, method=request.method)

    def _check_accepted(self, commit: Commit, files: Sequence[FileEntry]) -> None:
        """Raise Refusal if files are behind a gate that was not passed by whom this is for.

        What is here the owner of this node may read, whatever is asked for by now.
        """
        roots = commit.kept(files)
        if not self._lookup.is_for_owner:
            behind = self._node.access.gates.withheld(ANYBODY, roots)
            if behind:
                raise not_allowed(f"{commit.name} asks to accept a licence first; its owner's token lets in who did")
        elif len(self._node.store.blobs.find_all(roots)) < len(roots):
            self._check_passed(commit.revision, (commit.repository.namespace, commit.repository.model))

    def _check_passed(self, revision: ManifestId, place: tuple[NamespaceId, str]) -> None:
        try:
            check_accepted(self._node, revision, place)
        except NotAccepted as exc:
            raise not_allowed(f"{exc} ({exc.hint})" if exc.hint else str(exc)) from exc

    async def nothing(self, request: Request, *parts: str) -> Response:
        """Say that there is no such repository: of what we have none of."""
        raise no_repository("this hub has models and datasets only")

    async def _history(self, commit: AnyCommit, start: int, limit: int) -> tuple[list[dict[str, Any]], bool]:
        """Return commits from place `start` on, newest first, and whether more follow."""
        if isinstance(commit, Commit):
            return await history.commits(self._node, self._lookup, commit, start, limit)
        # The history is the other hub's; what is known here is that this commit was made there.
        row = {
            "id": commit.id,
            "title": "Mirror",
            "message": "",
            "authors": [{"user": commit.repository.owner}],
            "date": describe.moment(commit.created),
        }
        return ([row] if start == 0 else []), False

    async def _add_last_commits(self, commit: AnyCommit, rows: list[dict[str, Any]]) -> None:
        """Tell of each entry the commit that is shown; who changed it last is not looked for."""
        newest, _ = await self._history(commit, 0, 1)
        last = {"id": commit.id, "title": newest[0]["title"], "date": newest[0]["date"]}
        for row in rows:
            row["lastCommit"] = last


def _by_hash(commit: AnyCommit, path: str) -> File | None:
    """Return `stem.ending` for `stem-<hex>.ending` if its SHA-256 begins so: PyTorch checks names of this kind."""
    match = re.fullmatch(r"(.+)-([0-9a-f]{8,64})(\.[^./]+)?", path)
    file = commit.file(match[1] + (match[3] or "")) if match else None
    return file if match and file and file.sha256 and file.sha256.hex().startswith(match[2]) else None


def select(whole: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Return the fields of `whole` that the client wants, all if it names none; what there is none of is left out."""
    if not names:
        return whole
    wanted = {"_id", "id", "modelId", *names}
    return {name: content for name, content in whole.items() if name in wanted}
