"""Take what other tools have downloaded into the store, where it lies (spec/store.md §9).

    hub cache     snapshots/<commit>/PATH ─▶ blobs/…       the path says how a file is cut
    Ollama        manifests/… ─▶ blobs/sha256-<hex>        a model is a GGUF file
    any folder    its files

Content is found by its hash: what a manifest lists need not be fetched if any of these
files has it, and peers that want it can have it from here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from p2phub.core.errors import StoreError
from p2phub.core.ids import ContentId
from p2phub.store.disk import disk_errors
from p2phub.store.ownfiles import OwnFiles

from .disk import on_disk
from .events import Tell
from .ingesting import ingest_sources
from .node import Node
from .operations.storage import Adopted, WantedRepository
from .sources import KEY_SUFFIX, SourceFile, refuse_keys

OLLAMA_MANIFEST_MAX = 1024 * 1024  # bytes


async def adopt(node: Node, folder: Path, tell: Tell) -> Adopted:
    """Register the files in `folder` in place; returns what repositories that are known here they belong to.

    Raises StoreError if there is no folder, or a file cannot be read or changes meanwhile; InvalidData if a file is one
    of this home or its store, or holds keys.
    """
    own = await on_disk(OwnFiles, node.store.layout)
    shape, sources = await on_disk(_find, folder, own)
    entries, _ = await ingest_sources(node, sources, tell, in_place=True, profile=None, kind="model")
    await on_disk(node.store.blobs.sync)
    roots = {entry.root for entry in entries}
    wanted = await on_disk(_wanted, node, roots)
    return Adopted(str(folder), shape, len(entries), sum(entry.size for entry in entries), wanted)


def _find(folder: Path, own: OwnFiles) -> tuple[str, list[SourceFile]]:
    """Return what kind of folder it is, and its files; each file once, under a name that tells how it is cut."""
    with disk_errors(folder):
        if not folder.is_dir():
            raise StoreError(f"{folder} is no folder", path=str(folder))
        repositories = [path for path in _repositories(folder) if (path / "snapshots").is_dir()]
        if repositories:
            shape, found = "hub-cache", [pair for path in repositories for pair in _walk(path / "snapshots", own)]
        elif (ollama := _ollama_root(folder)) is not None:
            shape, found = "ollama", list(_ollama_files(ollama, own))
        else:
            shape, found = "folder", list(_walk(folder, own))
    sources: dict[Path, SourceFile] = {}
    for name, location in found:
        with disk_errors(location):
            real = Path(os.path.realpath(location))
            own.refuse(location)
            if real.is_file() and real not in sources:
                sources[real] = SourceFile(f"{len(sources)}/{name}", real, real.stat().st_size)
                if name.endswith(KEY_SUFFIX):
                    refuse_keys(sources[real])
    if not sources:
        raise StoreError(f"there are no files in {folder}", path=str(folder))
    return shape, list(sources.values())


def _repositories(folder: Path) -> list[Path]:
    """Return the folders that may be repositories of a hub cache: `folder` itself, or those in it or its `hub`."""
    inside = [folder, folder / "hub"]
    return [folder, *(path for parent in inside if parent.is_dir() for path in sorted(parent.glob("*--*--*")))]


def _walk(folder: Path, own: OwnFiles) -> Iterator[tuple[str, Path]]:
    for parent, folders, names in os.walk(folder):
        own.refuse(parent)
        folders[:] = sorted(name for name in folders if name not in (".git", ".cache", "__pycache__"))
        for name in sorted(names):
            # Files that are still being downloaded, and what locks them.
            if not name.endswith((".incomplete", ".lock")):
                yield name, Path(parent) / name


def _ollama_root(folder: Path) -> Path | None:
    for path in (folder, folder / "models"):
        if (path / "blobs").is_dir() and (path / "manifests").is_dir():
            return path
    return None


def _ollama_files(root: Path, own: OwnFiles) -> Iterator[tuple[str, Path]]:
    """Give the files that an Ollama store's manifests name."""
    for path in sorted((root / "manifests").rglob("*")):
        if not path.is_file() or path.stat().st_size > OLLAMA_MANIFEST_MAX:
            continue
        own.refuse(path)
        try:
            manifest = json.loads(path.read_bytes())
            layers = [manifest["config"], *manifest["layers"]]
            named = [(str(layer["mediaType"]), str(layer["digest"])) for layer in layers]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        for media_type, digest in named:
            location = root / "blobs" / digest.replace(":", "-")
            # A digest from a file is no path until it looks like one.
            if location.name.removeprefix("sha256-").isalnum() and location.exists():
                yield ("model.gguf" if media_type.endswith(".model") else "layer.json"), location


def _wanted(node: Node, roots: set[ContentId]) -> list[WantedRepository]:
    """Return the repositories whose manifests are here and list some of this content."""
    found = []
    for revision in node.store.manifests.all():
        manifest = node.store.manifests.get(revision)
        files = [file for file in manifest.files if file.root in roots] if manifest else []
        if manifest is None or not files:
            continue
        names = [f"{namespace}/{model}" for namespace, model in node.store.catalogue.publishers_of(revision)]
        here = sum(file.size for file in manifest.files if node.store.blobs.find(file.root))
        found.append(WantedRepository(str(revision), names, len(files), here, manifest.size))
    return found
