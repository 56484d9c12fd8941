"""The files and folders of a commit as clients list them (spec/hub-api.md §3)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from p2phub.core import gitobjects
from p2phub.core.manifest import FileEntry
from p2phub.core.upstream import UpstreamFile

File = FileEntry | UpstreamFile  # one of this hub, or as another one lists it


@dataclass(frozen=True)
class Folder:
    """A folder of a commit: it has no entry in the manifest, it follows from the files."""

    path: str
    oid: bytes  # 20 bytes


Node = File | Folder


class Tree:
    """The files of a commit with the folders that they lie in."""

    def __init__(self, files: Iterable[File]) -> None:
        self._children: dict[str, list[Node]] = defaultdict(list)
        self._folders: dict[str, Folder] = {}
        for file in files:
            self._children[_parent(file.path)].append(file)
        paths = set(self._children) | {""}
        for path in list(paths):
            while path:
                path = _parent(path)
                paths.add(path)
        # The deepest first: the id of a folder follows from what is in it.
        for path in sorted(paths, key=lambda path: (-path.count("/") if path else 1, path)):
            oid = gitobjects.tree_id(
                (_name(node.path), _oid(node), isinstance(node, Folder)) for node in self._children[path]
            )
            if path:
                folder = self._folders[path] = Folder(path, oid)
                self._children[_parent(path)].append(folder)

    def has_folder(self, path: str) -> bool:
        """Say whether there is a folder `path`; the root is one."""
        return not path or path in self._folders

    def find(self, path: str) -> Node | None:
        """Return the file or folder at `path`."""
        if path in self._folders:
            return self._folders[path]
        return next((node for node in self._children.get(_parent(path), ()) if node.path == path), None)

    def below(self, path: str, *, recursive: bool) -> list[Node]:
        """Return what is in the folder `path`, sorted by path; `recursive`: also what is in its folders."""
        found = list(self._children.get(path, ()))
        if recursive:
            for folder in [node for node in found if isinstance(node, Folder)]:
                found += self.below(folder.path, recursive=True)
        return sorted(found, key=lambda node: node.path)


def entry(node: Node) -> dict[str, Any]:
    """Return how a file or folder is shown in a listing."""
    if isinstance(node, Folder):
        return {"type": "directory", "oid": node.oid.hex(), "size": 0, "path": node.path}
    fields: dict[str, Any] = {"type": "file", "oid": _oid(node).hex(), "size": node.size, "path": node.path}
    if is_large(node):
        fields["lfs"] = lfs_fields(node, "oid")
    return fields


def sibling(file: File, *, blobs: bool) -> dict[str, Any]:
    """Return how a file is shown in what is said of its repository."""
    fields: dict[str, Any] = {"rfilename": file.path}
    if blobs:
        fields |= {"size": file.size, "blobId": _oid(file).hex()}
        if is_large(file):
            fields["lfs"] = lfs_fields(file, "sha256")
    return fields


def is_large(file: File) -> bool:
    """Say whether a file is shown as one in large-file storage: of our own all that are not empty."""
    return file.size > 0 and file.sha256 is not None


def etag_of(file: File) -> str:
    """Return what a file's bytes are known by to clients: its SHA-256, or what git calls it."""
    return (file.sha256 or file.git_id if isinstance(file, UpstreamFile) else file.sha256).hex()


def lfs_fields(file: File, name: str) -> dict[str, Any]:
    """Return what is said of a file in large-file storage; its SHA-256 under `name`."""
    assert file.sha256 is not None
    return {
        name: file.sha256.hex(),
        "size": file.size,
        "pointerSize": len(gitobjects.pointer(file.sha256, file.size)),
    }


def _oid(node: Node) -> bytes:
    match node:
        case Folder():
            return node.oid
        case UpstreamFile():
            return node.git_id
        case _:
            return gitobjects.blob_id(gitobjects.pointer(node.sha256, node.size))


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _name(path: str) -> str:
    return path.rpartition("/")[2]
