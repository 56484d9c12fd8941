"""The store shown as the cache of another hub's client, and such caches taken in."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path

import pytest

from p2phub.testing.processes import Home, tree


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_a_fetch_is_shown_in_the_cache_without_a_second_copy(seed, home, tmp_path):
    cache = tmp_path / "cache"
    fetched = home.ask("fetch", f"{seed.name}@1.0.0", "--view", "hf", "--to", str(cache), "--link", "hard", *seed.peer)
    folder = cache / f"models--{seed.namespace}--mood"
    commit = seed.revision.removeprefix("b3:")[:40]
    snapshot = folder / "snapshots" / commit
    weights = snapshot / "weights.bin"

    assert fetched["path"] == str(snapshot)
    assert tree(snapshot) == tree(seed.folder)
    assert {path.name for path in folder.iterdir()} == {"blobs", "snapshots", "refs"}
    assert {(folder / "refs" / name).read_text() for name in ("main", "1.0.0")} == {commit}
    assert weights.is_symlink()
    assert os.readlink(weights) == f"../../blobs/{sha256(weights.read_bytes()).hexdigest()}"
    assert os.readlink(snapshot / "sub" / "notes.txt").startswith("../../../blobs/")
    assert any(weights.samefile(path) for path in home.objects)


def test_the_cache_is_where_the_client_looks_for_it(seed, home, tmp_path):
    home.ask("fetch", seed.name, "--view", "hf", *seed.peer, env={"HF_HOME": str(tmp_path / "hf")})
    home.ask("store", "view", "hf", env={"HF_HUB_CACHE": str(tmp_path / "other")})

    assert (tmp_path / "hf" / "hub" / f"models--{seed.namespace}--mood").is_dir()
    assert (tmp_path / "other" / f"models--{seed.namespace}--mood").is_dir()


def test_what_is_whole_is_shown_and_what_is_not_is_not(seed, home, tmp_path):
    home.ask("fetch", seed.name, "--include", "config.json", *seed.peer)
    before = home.ask("store", "view", "hf", str(tmp_path / "cache"))
    home.ask("fetch", seed.name, *seed.peer)
    after = home.ask("store", "view", "hf", str(tmp_path / "cache"))

    assert before["repositories"] == []
    (shown,) = after["repositories"]
    assert (shown["name"], sorted(shown["references"])) == (seed.name, ["1.0.0", "main"])


def test_what_stands_there_already_stays_and_what_is_in_the_way_is_replaced(seed, home, tmp_path):
    cache = tmp_path / "cache"
    home.ask("fetch", seed.name, "--view", "hf", "--to", str(cache), *seed.peer)
    folder = cache / f"models--{seed.namespace}--mood"
    (snapshot,) = (folder / "snapshots").iterdir()
    placed = [*(folder / "blobs").iterdir(), *(path for path in snapshot.rglob("*") if path.is_symlink())]
    before = {path: path.lstat().st_mtime_ns for path in placed}
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").write_text("not this")
    home.ask("fetch", seed.name, "--view", "hf", "--to", str(cache), *seed.peer)
    after = {path: path.lstat().st_mtime_ns for path in before}

    assert tree(snapshot) == tree(seed.folder)
    assert {path.name for path in before if before[path] != after[path]} == {"config.json"}


def test_a_wrong_blob_of_the_right_size_is_replaced(seed, home, tmp_path):
    cache = tmp_path / "cache"
    data = (seed.folder / "weights.bin").read_bytes()
    blob = cache / f"models--{seed.namespace}--mood" / "blobs" / sha256(data).hexdigest()
    blob.parent.mkdir(parents=True)
    blob.write_bytes(bytes(len(data)))
    home.ask("fetch", seed.name, "--view", "hf", "--to", str(cache), *seed.peer)

    assert blob.read_bytes() == data


def test_a_hash_has_no_place_in_a_cache_of_names(seed, home, tmp_path):
    outcome = home.call(
        "fetch", "b3:" + "0" * 64, "--view", "hf", "--to", str(tmp_path / "cache"), *seed.peer, code=None
    )

    assert outcome.code in (2, 3)
    assert not (tmp_path / "cache").exists()


@pytest.fixture
def hub_cache(seed, tmp_path) -> Path:
    """Make the cache of another hub's client that has the files of the seed under another name."""
    folder = tmp_path / "cache" / "models--org--name"
    (folder / "blobs").mkdir(parents=True)
    snapshot = folder / "snapshots" / ("1" * 40)
    for path, digest in tree(seed.folder).items():
        (folder / "blobs" / digest).write_bytes((seed.folder / path).read_bytes())
        (snapshot / path).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / path).symlink_to(folder / "blobs" / digest)
    (folder / "blobs" / "half.incomplete").write_bytes(b"half")
    return tmp_path / "cache"


def test_a_hub_cache_is_taken_in_where_it_lies(seed, home, hub_cache):
    home.ask("fetch", seed.name, "--include", "README.md", *seed.peer)
    adopted = home.ask("store", "adopt", str(hub_cache))
    fetched = home.ask("fetch", seed.name, "--to", str(hub_cache.parent / "out"), *seed.peer)

    assert (adopted["shape"], adopted["files"]) == ("hub-cache", len(tree(seed.folder)))
    assert [(row["names"], row["here"] == row["size"]) for row in adopted["repositories"]] == [([seed.name], True)]
    assert fetched["received"] == 0
    assert tree(hub_cache.parent / "out") == tree(seed.folder)
    assert len(home.objects) == 1  # the card; the rest was not copied


def test_an_ollama_store_is_taken_in(home, tmp_path):
    store = tmp_path / "ollama" / "models"
    (store / "blobs").mkdir(parents=True)
    data = os.urandom(100_000)
    digest = sha256(data).hexdigest()
    (store / "blobs" / f"sha256-{digest}").write_bytes(data)
    (store / "blobs" / "sha256-unnamed").write_bytes(b"x")
    manifest = store / "manifests" / "registry" / "library" / "tiny" / "latest"
    manifest.parent.mkdir(parents=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}
    evil = {"mediaType": "x", "digest": "sha256:../../../../../etc/passwd"}
    manifest.write_text(json.dumps({"config": evil, "layers": [layer]}))
    (manifest.parent / "broken").write_text("{")
    adopted = home.ask("store", "adopt", str(tmp_path / "ollama"))

    assert (adopted["shape"], adopted["files"], adopted["size"]) == ("ollama", 1, 100_000)


def test_a_plain_folder_is_taken_in_and_given_to_peers(seed, home, tmp_path):
    """Peers that know only the manifest get the bytes from a node that never fetched it."""
    with home.node(peers=(seed.node.address,)) as node:
        adopted = home.ask("store", "adopt", str(seed.folder))
        other = Home(tmp_path / "other")
        fetched = other.ask("fetch", seed.name, "--to", str(tmp_path / "out"), "--peer", node.address, *seed.peer)

    assert (adopted["shape"], adopted["repositories"]) == ("folder", [])
    assert tree(tmp_path / "out") == tree(seed.folder)
    assert {row["node"] for row in fetched["providers"] if row["received"]} <= {node.node_id, seed.node.node_id}
    assert home.objects == []


def test_a_changed_file_is_not_what_it_was(seed, home, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "weights.bin").write_bytes((seed.folder / "weights.bin").read_bytes())
    home.ask("store", "adopt", str(folder))
    (folder / "weights.bin").write_bytes(os.urandom(3_000_000))
    home.ask("fetch", seed.name, "--to", str(tmp_path / "out"), *seed.peer)

    assert tree(tmp_path / "out") == tree(seed.folder)


@pytest.mark.parametrize("what", ["nothing", "file", "empty"])
def test_what_cannot_be_taken_in_is_said(home, tmp_path, what):
    path = tmp_path / "here"
    if what == "file":
        path.write_text("x")
    elif what == "empty":
        path.mkdir()

    assert "here" in home.call("store", "adopt", str(path), code=1).err
