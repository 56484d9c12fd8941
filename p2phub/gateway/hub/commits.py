"""Commits to repositories of one's own, and what clients ask before they make one (spec/hub-api.md §8)."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from p2phub.core import gitobjects
from p2phub.core.choices import Kind
from p2phub.core.errors import Conflict, NotFound
from p2phub.core.filetree import FILE_SIZE_MAX
from p2phub.core.manifest import FILES_MAX, FileEntry
from p2phub.core.records import MESSAGE_SIZE_MAX
from p2phub.node.committing import Change, Delete, Put
from p2phub.node.disk import on_disk
from p2phub.node.node import Node

from .commitbody import CommitHeader, Deleted, LargeFile, Path, RegularFile, commit_lines, content_of, decode_value
from .errors import Refusal, no_entry, not_served
from .lookup import TAG_PREFIX, Repository
from .owner import Owner
from .requests import is_true, query_fields, read_json
from .urls import commit_url

REGULAR_SIZE_MAX = 1024 * 1024  # bytes of a file that clients are told to send inside the commit
OPERATIONS_MAX = 2 * FILES_MAX  # in a commit

# Endings of files that are large by nature. Clients that make such a file count on sending it before the commit,
# and delete it then.
LARGE = (
    ".7z", ".arrow", ".bin", ".bz2", ".ckpt", ".ftz", ".gguf", ".gz", ".h5", ".joblib", ".mlmodel", ".model",
    ".msgpack", ".npy", ".npz", ".onnx", ".ot", ".parquet", ".pb", ".pickle", ".pkl", ".pt", ".pth", ".rar",
    ".safetensors", ".tar", ".tflite", ".tgz", ".wasm", ".xz", ".zip", ".zst",
)  # fmt: skip


class PreuploadFile(Struct, frozen=True):
    """A file that a client is about to send."""

    path: Path
    size: Annotated[int, Meta(ge=0, le=FILE_SIZE_MAX)]

    @property
    def is_large(self) -> bool:
        """Whether the file is to be sent by itself, before the commit."""
        return self.size > REGULAR_SIZE_MAX or (self.size > 0 and self.path.lower().endswith(LARGE))


class Preupload(Struct, frozen=True):
    """The files that a client is about to send."""

    files: Annotated[list[PreuploadFile], Meta(max_length=FILES_MAX)]


class CommitRequests:
    """Answers about commits, for the owner of the node."""

    def __init__(self, node: Node, owner: Owner) -> None:
        self._node = node
        self._owner = owner

    async def validate_card(self, request: Request) -> Response:
        """Say that a card may be published: what is odd in one is left out, and refused is none."""
        return JSONResponse({"errors": [], "warnings": []})

    async def preupload(self, request: Request, kind: Kind, name: str, revision: str) -> Response:
        """Say how each file is to be sent: small ones inside the commit, others by themselves."""
        self._owner.require(request)
        self._refuse_proposal(request)
        wanted: Preupload = await read_json(request, Preupload)
        current = await self._owner.commit(kind, name, revision)
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
        self._owner.require(request)
        self._refuse_proposal(request)
        current = await self._owner.commit(kind, name, revision)
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
                    changes.append(Put(file.path, await self._owner.keep(data), len(data)))
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
        async with self._owner.committing:
            try:
                made = await self._owner.publish(
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

    def _git_id(self, entry: FileEntry) -> str | None:
        """Return the id that git gives to the content of a small file, None if that is not here."""
        data = self._node.store.readables.read_small(entry.root, REGULAR_SIZE_MAX)
        return gitobjects.blob_id(data).hex() if data is not None else None

    async def _branch(self, repository: Repository, revision: str) -> str:
        branch = revision.removeprefix("refs/heads/")
        known = await on_disk(self._node.store.catalogue.branches, repository.namespace, repository.model)
        if branch not in known or branch.startswith(TAG_PREFIX):
            raise Refusal(400, f"{revision} is no branch; only to a branch can be committed")
        return branch

    def _refuse_proposal(self, request: Request) -> None:
        if is_true(query_fields(request), "create_pr"):
            raise not_served("changes cannot be proposed here yet; commit to a branch of your own")
