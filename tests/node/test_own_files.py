"""A node opens no files of its own home for its user, and gives nobody's keys away."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path

import pytest

from p2phub.core import oms
from p2phub.core.companion import CompanionKey
from p2phub.core.errors import InvalidData
from p2phub.core.keybundle import KeyBundle
from p2phub.core.manifest import FileEntry
from p2phub.core.rules import Consent
from p2phub.node import rulecheck, vouching
from p2phub.node.adopt import adopt
from p2phub.node.events import Notice, ignore
from p2phub.node.fetch import fetch
from p2phub.node.identity import create_identity
from p2phub.node.node import Node
from p2phub.node.publish import publish
from p2phub.store.keyring import write_bundle
from p2phub.store.keys import COMPANION, RECIPIENT, SIGNING, keep_secret
from p2phub.store.layout import Layout
from p2phub.store.ownfiles import OwnFiles
from p2phub.testing.hostile import open_home
from p2phub.testing.processes import tree

pytestmark = pytest.mark.timeout(120)

LOOK = (
    "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('select count(*) from sqlite_master'); c.close()"
)


def is_locked(node: Node) -> bool:
    """Say whether another process that opens and closes the index leaves the node its log."""
    index = node.store.layout.index
    assert Path(f"{index}-wal").exists()
    subprocess.run([sys.executable, "-c", LOOK, str(index)], check=True)
    return Path(f"{index}-wal").exists()


def paths_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


async def check_policy(node: Node, folder: Path) -> None:
    await rulecheck.check_reference(node, str(folder), Consent(), ignore)


async def check_signature(node: Node, folder: Path) -> None:
    """Compare a folder with a signature that names every file in it."""
    key = CompanionKey(b"\1" * 32)
    signature, pem = folder.parent / "model.sig", folder.parent / "key.pem"
    signature.write_bytes(
        oms.bundle(oms.statement("x", [(path, bytes(32)) for path in paths_in(folder)]), key.private_key)
    )
    pem.write_text(oms.key_text(key.private_key.public_key()))
    await vouching.check(node, folder, signature, ignore, key=pem)


async def adopt_all(node: Node, folder: Path) -> None:
    with pytest.raises(InvalidData, match="belongs to p2phub itself"):
        await adopt(node, folder, ignore)


async def publish_all(node: Node, folder: Path) -> None:
    for in_place in (False, True):
        with pytest.raises(InvalidData, match="belongs to p2phub itself"):
            await publish(node, folder, "mine", ignore, in_place=in_place)


Way = Callable[[Node, Path], Awaitable[None]]
WAYS = (check_policy, check_signature, adopt_all, publish_all)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("where", ["in it", "hard link", "link"])
async def test_a_folder_with_the_home_in_it_leaves_the_node_its_index(way: Way, where: str, tmp_path: Path) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    async with open_home((folder if where == "in it" else tmp_path) / "home") as node:
        create_identity(node)
        index = node.store.layout.index
        if where == "hard link":
            os.link(index, folder / "weights.bin")
        elif where == "link":
            (folder / "weights.bin").symlink_to(index)
        await way(node, folder)

        assert is_locked(node)


async def test_a_file_of_the_home_alone_is_refused(tmp_path: Path) -> None:
    async with open_home(tmp_path / "home") as node:
        index = node.store.layout.index
        with pytest.raises(InvalidData, match="belongs to p2phub itself"):
            await check_policy(node, index)
        with pytest.raises(InvalidData, match="belongs to p2phub itself"):
            await vouching.check(node, tmp_path, index, ignore, key=index)

        assert is_locked(node)


async def test_what_a_policy_check_leaves_out_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    async with open_home(tmp_path / "home") as node:
        await rulecheck.check_reference(
            node, str(tmp_path), Consent(), lambda event: said.append(event.text if isinstance(event, Notice) else "")
        )

    assert any("are left out" in text for text in said)


@pytest.mark.parametrize("shape", ["store in home", "home in store", "apart", "one", "through a link"])
def test_what_is_own_is_told_by_where_it_lies(shape: str, tmp_path: Path) -> None:
    home, store = {
        "store in home": (tmp_path / "home", tmp_path / "home" / "store"),
        "home in store": (tmp_path / "store" / "views" / "home", tmp_path / "store"),
        "apart": (tmp_path / "home", tmp_path / "store"),
        "one": (tmp_path / "home", tmp_path / "home"),
        "through a link": (tmp_path / "link" / "home", tmp_path / "link" / "store"),
    }[shape]
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    layout = Layout(home, store)
    layout.create()
    own = OwnFiles(layout)

    assert all(
        own.has(path) for path in (home, store, layout.keys / "publish.key", layout.index, store / "trees" / "x")
    )
    assert not any(own.has(path) for path in (store / "views" / "a" / "b", store / "objects" / "x", tmp_path))
    assert not own.has(f"{home}-other")
    if shape == "through a link":
        assert own.has(tmp_path / "real" / "home" / "index.sqlite")


async def test_what_was_placed_in_the_store_is_published_from_there(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(os.urandom(3000))
    async with open_home(tmp_path / "home") as node:
        create_identity(node)
        first = await publish(node, folder, "one", ignore)
        placed = await fetch(node, "one", ignore)
        again = await publish(node, Path(placed.path), "two", ignore)

    assert Path(placed.path).is_relative_to(tmp_path / "home" / "store" / "views")
    assert again.size == first.size
    assert tree(Path(placed.path)) == tree(folder)


# ── keys ────────────────────────────────────────────────────────────────────


HEADERS = {"signing": SIGNING, "companion": COMPANION, "recipient": RECIPIENT}


def write_keys(folder: Path, kind: str) -> None:
    """Write a file with keys of a kind, called `weights.bin`, beside another file."""
    path = folder / "sub" / "weights.bin"
    path.parent.mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    if kind in HEADERS:
        keep_secret(path, HEADERS[kind], b"\1" * 32)
    else:
        write_bundle(path, KeyBundle(1, (b"\1" * 32,)), "secret" if kind == "locked bundle" else None)
    if kind == "edited":
        path.chmod(0o600)
        path.write_bytes(b"\xef\xbb\xbf\r\n  " + path.read_bytes())


KINDS = (*HEADERS, "bundle", "locked bundle", "edited")


@pytest.mark.parametrize("kind", KINDS)
async def test_keys_are_not_published_or_taken_in(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    write_keys(folder, kind)
    digest = sha256((folder / "sub" / "weights.bin").read_bytes()).digest()
    async with open_home(tmp_path / "home") as node:
        create_identity(node)
        for options in ({}, {"in_place": True}, {"sealed": True}, {"visibility": "private"}):
            with pytest.raises(InvalidData, match=r"sub/weights\.bin holds secret keys"):
                await publish(node, folder, "mine", ignore, **options)
        with pytest.raises(InvalidData, match=r"/folder/sub/weights\.bin holds secret keys"):
            await adopt(node, folder, ignore)

        assert node.store.blobs.find_sha256(digest) is None
        assert list(node.store.manifests.all()) == []


async def test_the_home_of_another_is_refused_before_anything_of_it_is_taken_in(tmp_path: Path) -> None:
    async with open_home(tmp_path / "all" / "other") as other:
        create_identity(other)
    async with open_home(tmp_path / "home") as node:
        create_identity(node)
        for in_place in (False, True):
            with pytest.raises(InvalidData, match=r"other/keys/.*\.key holds secret keys"):
                await publish(node, tmp_path / "all", "mine", ignore, in_place=in_place)
        with pytest.raises(InvalidData, match=r"\.key holds secret keys"):
            await adopt(node, tmp_path / "all", ignore)

        assert [path for path in (tmp_path / "home" / "store" / "objects").rglob("*") if path.is_file()] == []
        assert node.store.blobs.in_place()[0] == 0


async def test_what_only_tells_of_keys_is_published(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "README.md").write_text("A key file begins with p2phub-key-1 and a seed.\n")
    (folder / "public.key").write_text("p2phub-identity-1:abc\n")
    async with open_home(tmp_path / "home") as node:
        create_identity(node)

        assert (await publish(node, folder, "mine", ignore)).files == 2


# ── what is fetched ─────────────────────────────────────────────────────────


async def entries_of(node: Node) -> tuple[FileEntry, ...]:
    (revision,) = node.store.manifests.all()
    manifest = node.store.manifests.get(revision)
    assert manifest
    return manifest.files


@pytest.mark.parametrize("to", ["home", "home/sub", "home/store/trees", "."])
async def test_a_fetch_writes_nothing_into_the_home(to: str, tmp_path: Path) -> None:
    """Neither a publisher who names the files of a home, nor a folder that was typed wrong, replaces them."""
    folder = tmp_path / "folder"
    async with open_home(tmp_path / "home") as node:
        create_identity(node)
        index = node.store.layout.index
        # As large as the index: then a file that stands there is compared.
        size = index.stat().st_size
        for path in ("index.sqlite", "home/index.sqlite", "home/policy.toml"):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(os.urandom(size))
        await publish(node, folder, "mine", ignore)
        (single,) = {entry.root for entry in await entries_of(node) if entry.path == "index.sqlite"}
        for force in (False, True):
            with pytest.raises(InvalidData, match="belongs to p2phub itself"):
                await fetch(node, "mine", ignore, to=tmp_path / to, force=force)
            with pytest.raises(InvalidData, match="belongs to p2phub itself"):
                await fetch(node, str(single), ignore, to=index, force=force)

        assert is_locked(node)
        assert not (tmp_path / "home" / "policy.toml").exists()
        assert not (tmp_path / "index.sqlite").exists()


async def test_a_fetch_beside_the_home_is_as_ever(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "weights.bin").write_bytes(b"x")
    async with open_home(tmp_path / "home") as node:
        create_identity(node)
        await publish(node, tmp_path / "folder", "mine", ignore)
        await fetch(node, "mine", ignore, to=tmp_path)

    assert (tmp_path / "weights.bin").read_bytes() == b"x"


def write_leaky(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "README.md").write_text("# A model\n")
    (folder / name).write_text(text)
    return folder


async def test_a_private_key_in_a_folder_is_refused_unless_it_is_meant(tmp_path: Path) -> None:
    pem = "-----BEGIN PRIVATE KEY-----\n" + "MC4CAQAwBQYDK2VwBCIEIJ" * 3 + "\n-----END PRIVATE KEY-----\n"
    folder = write_leaky(tmp_path / "model", "deploy.sh", f"cat <<END >key\n{pem}END\n")
    async with open_home(tmp_path / "home") as node:
        create_identity(node)
        with pytest.raises(InvalidData, match=r"deploy\.sh holds a private key") as refusal:
            await publish(node, folder, "model", ignore)
        assert "--allow-secrets" in (refusal.value.hint or "")
        assert paths_in(node.store.layout.store / "objects") == []
        assert (await publish(node, folder, "model", ignore, allow_secrets=True)).files == 2


async def test_keys_of_p2phub_are_refused_wherever_they_stand(tmp_path: Path) -> None:
    folder = write_leaky(tmp_path / "model", ".env", f"P2PHUB_KEY='p2phub-key-1 {'0f' * 32}'\n")
    async with open_home(tmp_path / "home") as node:
        create_identity(node)
        for allow in (False, True):
            with pytest.raises(InvalidData, match=r"\.env holds secret keys of p2phub"):
                await publish(node, folder, "model", ignore, allow_secrets=allow)
