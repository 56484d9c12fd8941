"""The requests that change something: each becomes a signed record of one's own (spec/hub-api.md §8)."""

from __future__ import annotations

from typing import Annotated, Any

import trio
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from p2phub.core import gitobjects
from p2phub.core.choices import DEFAULT_BRANCH, GateApproval, Kind, Visibility
from p2phub.core.errors import BindingChanged, Conflict, InvalidName, NotFound, Offline
from p2phub.core.filetree import FILE_SIZE_MAX
from p2phub.core.ids import ManifestId
from p2phub.core.manifest import FILES_MAX, FileEntry
from p2phub.core.names import check_model, is_branch, is_version
from p2phub.core.records import MESSAGE_SIZE_MAX
from p2phub.node import branches
from p2phub.node.committing import Change, Delete, Put, commit, publish_revision, uploads_of
from p2phub.node.disk import on_disk
from p2phub.node.events import ignore
from p2phub.node.identity import own_namespace
from p2phub.node.node import Node
from p2phub.node.resolve import find_namespace
from p2phub.node.visibility import visibility_of

from .account import Account
from .commitbody import (
    CommitHeader,
    Deleted,
    LargeFile,
    Path,
    RegularFile,
    Text,
    commit_lines,
    content_of,
    decode_value,
)
from .describe import gated
from .errors import Refusal, no_entry, no_revision, not_served
from .lookup import TAG_PREFIX, Commit, Lookup, Repository, parse_name
from .requests import is_true, query_fields, read_json
from .urls import commit_url, repository_url

REGULAR_SIZE_MAX = 1024 * 1024  # bytes of a file that clients are told to send inside the commit
OPERATIONS_MAX = 2 * FILES_MAX  # in a commit

# Endings of files that are large by nature. Clients that make such a file count on sending it before the commit,
# and delete it then.
_LARGE = (
    ".7z", ".arrow", ".bin", ".bz2", ".ckpt", ".ftz", ".gguf", ".gz", ".h5", ".joblib", ".mlmodel", ".model",
    ".msgpack", ".npy", ".npz", ".onnx", ".ot", ".parquet", ".pb", ".pickle", ".pkl", ".pt", ".pth", ".rar",
    ".safetensors", ".tar", ".tflite", ".tgz", ".wasm", ".xz", ".zip", ".zst",
)  # fmt: skip

# A repository cannot be empty, and this is what other hubs begin one with.
_FIRST_FILE = ".gitattributes"
_FIRST_CONTENT = "".join(f"*{ending} filter=lfs diff=lfs merge=lfs -text\n" for ending in _LARGE).encode()


class Create(Struct, frozen=True):
    """A repository to make."""

    name: Text
    organization: Text | None = None
    type: Text | None = None
    visibility: Text | None = None
    private: bool | None = None


class DeleteRepository(Struct, frozen=True):
    """A repository to delete."""

    name: Text
    organization: Text | None = None
    type: Text | None = None


class Move(Struct, frozen=True, rename="camel"):
    """A repository to rename."""

    from_repo: Text
    to_repo: Text
    type: Text | None = None


class Settings(Struct, frozen=True):
    """Settings of a repository; those that mean something here."""

    private: bool | None = None
    visibility: Text | None = None
    gated: bool | Text | None = None


class PreuploadFile(Struct, frozen=True):
    """A file that a client is about to send."""

    path: Path
    size: Annotated[int, Meta(ge=0, le=FILE_SIZE_MAX)]

    @property
    def is_large(self) -> bool:
        """Whether the file is to be sent by itself, before the commit."""
        return self.size > REGULAR_SIZE_MAX or (self.size > 0 and self.path.lower().endswith(_LARGE))


class Preupload(Struct, frozen=True):
    """The files that a client is about to send."""

    files: Annotated[list[PreuploadFile], Meta(max_length=FILES_MAX)]


class Tag(Struct, frozen=True):
    tag: Text
    message: Text | None = None


class NewBranch(Struct, frozen=True, rename="camel"):
    starting_point: Text | None = None


class WritingRequests:
    """Answers for the owner of the node."""

    def __init__(self, node: Node, lookup: Lookup, account: Account) -> None:
        self._node = node
        self._lookup = lookup
        self._account = account
        # Two commits at once would both be made from the same tip, and one be lost.
        self._committing = trio.Lock()

    # ── repositories ────────────────────────────────────────────────────────

    async def create(self, request: Request) -> Response:
        """Make a repository."""
        self._account.require(request)
        wanted: Create = await read_json(request, Create)
        kind = _kind(wanted.type)
        visibility = _visibility(wanted.private, wanted.visibility)
        name, model = await self._own(wanted.organization, wanted.name)
        url = repository_url(request, kind, name)
        async with self._committing:
            if await self._exists(kind, name):
                raise Refusal(409, f"you have {name} already", body={"url": url, "name": name})
            digest = await self._keep(_FIRST_CONTENT)
            change = Put(_FIRST_FILE, digest, len(_FIRST_CONTENT))
            await self._commit(model, kind, DEFAULT_BRANCH, [change], message="initial commit", visibility=visibility)
        return JSONResponse({"url": url, "name": name, "id": name})

    async def delete(self, request: Request) -> Response:
        """Delete all branches and yank all versions; whoever has copies keeps them."""
        self._account.require(request)
        wanted: DeleteRepository = await read_json(request, DeleteRepository)
        name, _ = await self._own(wanted.organization, wanted.name)
        repository = await self._lookup.known(_kind(wanted.type), name)
        async with self._committing:
            await self._remove(repository, f"{name} was deleted")
        return JSONResponse({"ok": True})

    async def move(self, request: Request) -> Response:
        """Publish all branches and versions under another name, and delete the old one."""
        self._account.require(request)
        wanted: Move = await read_json(request, Move)
        kind = _kind(wanted.type)
        for name in (wanted.from_repo, wanted.to_repo):
            parse_name(name)
        old_name, _ = await self._own(*wanted.from_repo.split("/"))
        new_name, new_model = await self._own(*wanted.to_repo.split("/"))
        repository = await self._lookup.known(kind, old_name)
        async with self._committing:
            if await self._exists(kind, new_name):
                raise Refusal(409, f"you have {new_name} already")
            catalogue = self._node.store.catalogue
            claims = await on_disk(catalogue.branches, repository.namespace, repository.model)
            versions = await on_disk(catalogue.versions, repository.namespace, repository.model)
            message = f"moved from {repository.model}"
            visibility = await on_disk(visibility_of, self._node, repository.namespace, repository.model)
            for version, claim in versions.items():
                if claim.manifest:
                    await self._publish_version(new_model, version, claim.manifest, message, visibility)
            for branch, claim in claims.items():
                if claim.manifest:
                    await publish_revision(
                        self._node,
                        new_model,
                        branch,
                        claim.manifest,
                        ignore,
                        version=None,
                        message=message,
                        visibility=visibility,
                    )
            await self._remove(repository, f"moved to {new_model}")
        return JSONResponse({"ok": True, "url": repository_url(request, kind, new_name)})

    async def settings(self, request: Request, kind: Kind, name: str) -> Response:
        """Set or take away a gate, and refuse what else would change something."""
        self._account.require(request)
        wanted: Settings = await read_json(request, Settings)
        repository = await self._own_repository(kind, name)
        visibility: Visibility = "private" if repository.is_private else "public"
        if _visibility(wanted.private, wanted.visibility) not in (None, visibility):
            raise not_served(f"{name} is {visibility}; the first publication decides that")
        if wanted.gated is not None:
            async with self._committing:
                await self._set_gate(repository, _approval(wanted.gated))
        gate = await on_disk(self._node.store.gates.of_repository, repository.namespace, repository.model)
        shown = gated(gate.approval if gate else None)
        return JSONResponse({"private": repository.is_private, "gated": shown, "visibility": visibility})

    async def _set_gate(self, repository: Repository, approval: GateApproval | None) -> None:
        """Let a repository have a gate, or none. Raises Refusal if it has no licence that could be accepted."""
        from p2phub.node import gates  # loads what signs

        model = repository.model
        if approval is not None:
            try:
                await gates.set_gate_by_file(self._node, model, approval)
            except NotFound as exc:
                raise Refusal(400, f"{exc} ({exc.hint})") from exc
        elif await on_disk(self._node.store.gates.of_repository, repository.namespace, model):
            await gates.open_gate(self._node, model, "")

    async def _exists(self, kind: Kind, name: str) -> bool:
        try:
            await self._lookup.known(kind, name)
        except Refusal:
            return False
        return True

    async def _remove(self, repository: Repository, message: str) -> None:
        catalogue = self._node.store.catalogue
        for branch in await on_disk(catalogue.branches, repository.namespace, repository.model):
            await branches.move_branch(self._node, repository.model, branch, None, message, ignore)
        for version in await on_disk(catalogue.versions, repository.namespace, repository.model):
            if await on_disk(catalogue.yanked, repository.namespace, repository.model, version) is None:
                await branches.yank(self._node, f"{repository.model}@{version}", message, ignore)

    # ── commits ─────────────────────────────────────────────────────────────

    async def validate_card(self, request: Request) -> Response:
        """Say that a card may be published: what is odd in one is left out, and refused is none."""
        return JSONResponse({"errors": [], "warnings": []})

    async def preupload(self, request: Request, kind: Kind, name: str, revision: str) -> Response:
        """Say how each file is to be sent: small ones inside the commit, others by themselves."""
        self._account.require(request)
        self._refuse_proposal(request)
        wanted: Preupload = await read_json(request, Preupload)
        current = await self._own_commit(kind, name, revision)
        known = {file.path: file for file in current.manifest.files}
        rows = []
        for file in wanted.files:
            mode = "lfs" if file.is_large else "regular"
            row: dict[str, Any] = {"path": file.path, "uploadMode": mode, "shouldIgnore": False}
            # With the id of what is there, a client does not send it again.
            if (entry := known.get(file.path)) and entry.size == file.size:
                oid = entry.sha256.hex() if mode == "lfs" else await on_disk(self._git_id, entry)
                if oid:
                    row["oid"] = oid
            rows.append(row)
        return JSONResponse({"files": rows, "commitOid": current.id})

    async def commit(self, request: Request, kind: Kind, name: str, revision: str) -> Response:
        """Make a commit of the operations in the body, a line each."""
        self._account.require(request)
        self._refuse_proposal(request)
        current = await self._own_commit(kind, name, revision)
        branch = await self._branch(current.repository, revision)
        header = CommitHeader()
        changes: list[Change] = []
        async for line in commit_lines(request):
            if len(changes) >= OPERATIONS_MAX:
                raise Refusal(400, f"more than {OPERATIONS_MAX} operations in one commit")
            match line.key:
                case "header":
                    header = decode_value(line.value, CommitHeader)
                case "file":
                    file = decode_value(line.value, RegularFile)
                    data = content_of(file)
                    changes.append(Put(file.path, await self._keep(data), len(data)))
                case "lfsFile":
                    large = decode_value(line.value, LargeFile)
                    if large.algo != "sha256":
                        raise Refusal(400, f"{large.path} is named by {large.algo}, not by SHA-256")
                    size = -1 if large.size is None else large.size
                    changes.append(Put(large.path, bytes.fromhex(large.oid), size))
                case "deletedFile":
                    changes.append(Delete(decode_value(line.value, Deleted).path))
                case "deletedFolder":
                    changes.append(Delete(decode_value(line.value, Deleted).path, is_folder=True))
                case _:
                    raise not_served(f"a commit cannot {line.key} here")
        message = f"{header.summary}\n\n{header.description}".strip()[:MESSAGE_SIZE_MAX]
        parent = header.parent_commit
        async with self._committing:
            try:
                made = await self._commit(
                    current.repository.model, kind, branch, changes, message=message, parent=parent
                )
            except NotFound as exc:
                raise no_entry(str(exc), current.id) from exc
            except Conflict as exc:
                raise Refusal(412, str(exc)) from exc
        return JSONResponse(
            {
                "success": True,
                "commitOid": made.commit,
                "commitUrl": commit_url(request, kind, name, made.commit),
                "hookOutput": "",
            }
        )

    async def _commit(
        self, model: str, kind: Kind, branch: str, changes: list[Change], *, message: str, parent: str | None = None,
        visibility: Visibility | None = None,
    ) -> ManifestId:  # fmt: skip
        def is_parent(tip: ManifestId | None) -> bool:
            return parent is None or (tip is not None and len(parent) >= 7 and tip.hex().startswith(parent))

        made = await commit(self._node, model, kind, branch, changes, ignore, message=message, is_parent=is_parent,
                            visibility=visibility)  # fmt: skip
        for path in await on_disk(uploads_of, self._node, changes):
            await on_disk(path.unlink, missing_ok=True)
        return made

    async def _keep(self, data: bytes) -> bytes:
        """Keep `data` as an uploaded file; returns its SHA-256."""

        def work() -> bytes:
            with self._node.store.uploads.begin(len(data)) as upload:
                upload.write(data)
                return bytes.fromhex(upload.finish(None, len(data)).name)

        return await on_disk(work)

    def _git_id(self, entry: FileEntry) -> str | None:
        """Return the id that git gives to the content of a small file, None if that is not here."""
        data = self._node.store.readables.read_small(entry.root, REGULAR_SIZE_MAX)
        return gitobjects.blob_id(data).hex() if data is not None else None

    # ── branches and tags ───────────────────────────────────────────────────

    async def create_tag(self, request: Request, kind: Kind, name: str, revision: str) -> Response:
        """Let a name stand for a commit for ever: a version if it is spelled like one, else a branch below `tags/`."""
        self._account.require(request)
        wanted: Tag = await read_json(request, Tag)
        current = await self._own_commit(kind, name, revision)
        repository, model = current.repository, current.repository.model
        if wanted.tag in await self._lookup.tags(repository):
            raise Refusal(409, f"{name} has a tag {wanted.tag} already")
        async with self._committing:
            if is_version(wanted.tag):
                await self._publish_version(model, wanted.tag, current.revision, wanted.message or "")
            else:
                branch = TAG_PREFIX + wanted.tag
                _check_branch(branch, wanted.tag)
                await branches.move_branch(
                    self._node, model, branch, current.revision.hex(), wanted.message or "", ignore
                )
        return JSONResponse({"ok": True})

    async def delete_tag(self, request: Request, kind: Kind, name: str, tag: str) -> Response:
        """Yank a version, or delete the branch that stands for a tag."""
        self._account.require(request)
        repository = await self._own_repository(kind, name)
        if tag not in await self._lookup.tags(repository):
            raise no_revision(f"{name} has no tag {tag}")
        async with self._committing:
            if is_version(tag):
                await branches.yank(self._node, f"{repository.model}@{tag}", "the tag was deleted", ignore)
            else:
                await branches.move_branch(
                    self._node, repository.model, TAG_PREFIX + tag, None, "the tag was deleted", ignore
                )
        return JSONResponse({"ok": True})

    async def create_branch(self, request: Request, kind: Kind, name: str, branch: str) -> Response:
        """Begin a branch at a commit."""
        self._account.require(request)
        wanted: NewBranch = await read_json(request, NewBranch)
        current = await self._own_commit(kind, name, wanted.starting_point or DEFAULT_BRANCH)
        repository = current.repository
        _check_branch(branch, branch)
        if branch.startswith((TAG_PREFIX, "refs/")):
            raise Refusal(400, f"'{branch}' is kept for tags and proposals")
        if branch in await on_disk(self._node.store.catalogue.branches, repository.namespace, repository.model):
            raise Refusal(409, f"{name} has a branch {branch} already")
        async with self._committing:
            await branches.move_branch(
                self._node, repository.model, branch, current.revision.hex(), f"branch {branch}", ignore
            )
        return JSONResponse({"ok": True})

    async def delete_branch(self, request: Request, kind: Kind, name: str, branch: str) -> Response:
        """Delete a branch."""
        self._account.require(request)
        repository = await self._own_repository(kind, name)
        if branch == DEFAULT_BRANCH:
            raise Refusal(403, f"{DEFAULT_BRANCH} cannot be deleted; the repository can")
        if branch not in await on_disk(self._node.store.catalogue.branches, repository.namespace, repository.model):
            raise no_revision(f"{name} has no branch {branch}")
        async with self._committing:
            await branches.move_branch(self._node, repository.model, branch, None, "the branch was deleted", ignore)
        return JSONResponse({"ok": True})

    async def _publish_version(
        self, model: str, version: str, revision: ManifestId, message: str, visibility: Visibility | None = None
    ) -> None:
        """Publish a version of a revision; the record also moves a branch, so it names one that is there already."""
        namespace = await on_disk(own_namespace, self._node)
        assert namespace is not None
        catalogue = self._node.store.catalogue
        known = await on_disk(catalogue.branches, namespace, model)
        there = next((branch for branch, claim in known.items() if claim.manifest == revision), None)
        branch = there or f"{TAG_PREFIX}{version}"
        await publish_revision(
            self._node, model, branch, revision, ignore, version=version, message=message, visibility=visibility
        )
        if there is None:
            await branches.move_branch(self._node, model, branch, None, message, ignore)

    # ── what is one's own ───────────────────────────────────────────────────

    async def _own(self, organization: str | None, name: str) -> tuple[str, str]:
        """Return the whole name and the model's for what is to be made or removed. Raises Refusal if it is not ours."""
        own = await on_disk(own_namespace, self._node)
        if own is None:
            raise Refusal(403, "this node has no identity to publish as: `p2phub id new` makes one")
        try:
            check_model(name)
        except InvalidName as exc:
            raise Refusal(400, str(exc)) from exc
        whole = f"{organization or own}/{name}"
        try:
            theirs = await find_namespace(self._node, parse_name(whole), ignore)
        except (NotFound, Offline, BindingChanged):
            theirs = None
        if theirs != own:
            raise Refusal(403, f"'{organization}' is not your namespace; yours is {own}")
        return whole, name

    async def _own_repository(self, kind: Kind, name: str) -> Repository:
        repository = await self._lookup.repository(kind, name)
        await self._own(name.partition("/")[0], repository.model)
        return repository

    async def _own_commit(self, kind: Kind, name: str, revision: str) -> Commit:
        repository = await self._own_repository(kind, name)
        identifier = await self._lookup.revision(repository, revision)
        return Commit(repository, identifier, await self._lookup.manifest(identifier))

    async def _branch(self, repository: Repository, revision: str) -> str:
        branch = revision.removeprefix("refs/heads/")
        known = await on_disk(self._node.store.catalogue.branches, repository.namespace, repository.model)
        if branch not in known or branch.startswith(TAG_PREFIX):
            raise Refusal(400, f"{revision} is no branch; only to a branch can be committed")
        return branch

    def _refuse_proposal(self, request: Request) -> None:
        if is_true(query_fields(request), "create_pr"):
            raise not_served("changes cannot be proposed here yet; commit to a branch of your own")


def _visibility(private: bool | None, visibility: str | None) -> Visibility | None:
    """Return for whom a repository is to be, None if nothing is said. Raises Refusal for what there is not."""
    if visibility not in (None, "public", "private"):
        raise not_served(f"a repository cannot be {visibility} here")
    if visibility is not None:
        return "private" if visibility == "private" else "public"
    return None if private is None else "private" if private else "public"


def _approval(gating: bool | str) -> GateApproval | None:
    """Return what a gate is to ask for besides that a licence is accepted, None for no gate. Raises Refusal."""
    known: dict[bool | str, GateApproval | None] = {
        False: None, "false": None, "auto": "automatic", "manual": "manual",
    }  # fmt: skip
    if gating not in known:
        raise Refusal(400, f"gated is auto, manual or false, not {str(gating).lower()}")
    return known[gating]


def _kind(text: str | None) -> Kind:
    if text in (None, "model"):
        return "model"
    if text == "dataset":
        return "dataset"
    raise not_served("this hub has models and datasets only")


def _check_branch(branch: str, shown: str) -> None:
    if not is_branch(branch):
        raise Refusal(400, f"'{shown}' is no name of a branch or tag")
