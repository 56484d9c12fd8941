"""Who publishes at the same time, after a crash or with a clock that was set back loses nothing."""

from __future__ import annotations

import hashlib
import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
import trio
from publishkit import folder_with, fresh

from p2phub.core.checkpoint import parse_head
from p2phub.core.choices import Kind, Profile
from p2phub.core.errors import Conflict
from p2phub.core.fresh import read_fresh
from p2phub.core.ids import ManifestId
from p2phub.core.search import Query
from p2phub.node import inspect, sealing
from p2phub.node.committing import Put, commit
from p2phub.node.cosigning import vouch
from p2phub.node.events import Notice, ignore
from p2phub.node.identity import own_identity
from p2phub.node.node import Node
from p2phub.node.operations.content import PublishResult
from p2phub.node.publish import publish
from p2phub.store import ingest
from p2phub.store.ingest import Scan
from p2phub.testing.hostile import open_home, wait_for

pytestmark = pytest.mark.timeout(120)


def ticking(node: Node) -> None:
    """Let a second pass whenever the clock of `node` is looked at: no two manifests are of one time."""
    seconds = itertools.count(int(node.clock()))
    node.clock = lambda: float(next(seconds))


async def test_publications_at_once_in_one_node_follow_each_other(tmp_path):
    folders = [folder_with(tmp_path / str(number), {"a.txt": b"%d" % number}) for number in range(4)]
    async with open_home(tmp_path / "home") as node:
        await fresh(node)
        ticking(node)
        async with trio.open_nursery() as nursery:
            for number, folder in enumerate(folders):
                nursery.start_soon(publish, node, folder, f"small@{number}.0.0", ignore)
        versions = node.store.catalogue.versions(own_identity(node).namespace, "small")
        depths = [node.store.manifests.get(claim.manifest).depth for claim in versions.values()]
        pins = set(node.store.keeping.pins())

    assert sorted(depths) == [1, 2, 3, 4]
    assert pins == {claim.manifest for claim in versions.values()}


@pytest.mark.parametrize("options", [{}, {"sealed": True}, {"visibility": "private"}], ids=str)
async def test_equal_publications_at_once_say_the_same_once(options, tmp_path):
    folder = folder_with(tmp_path / "folder", {"a.txt": b"a"})
    outcomes = []
    async with open_home(tmp_path / "home") as node:
        await fresh(node)
        await publish(node, folder_with(tmp_path / "before", {"a.txt": b"before"}), "small", ignore, **options)
        ticking(node)

        async def one() -> None:
            outcomes.append(await publish(node, folder, "small@1.0.0", ignore, **options))

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(one)
        records = [line for line in await inspect.log_lines(node, "small") if line.type == "publish"]

    assert sorted(outcome.new for outcome in outcomes) == [False, False, False, True]
    assert len({outcome.revision for outcome in outcomes}) == 1
    assert len(records) == 2


async def test_sealed_publications_at_once_hash_each_file_once(tmp_path, monkeypatch):
    hashed = []

    def scan(file: int, path: Path, profile: Profile) -> Scan:
        hashed.append(path)
        return ingest.scan(file, path, profile)

    monkeypatch.setattr(sealing, "scan", scan)
    folders = [folder_with(tmp_path / str(number), {"a.txt": b"%d" % number * 100_000}) for number in range(4)]
    async with open_home(tmp_path / "home") as node:
        await fresh(node)
        ticking(node)
        written = []

        async def publish_sealed(folder: Path) -> None:
            written.append((await publish(node, folder, "small", ignore, sealed=True)).written)

        async with trio.open_nursery() as nursery:
            for folder in folders:
                nursery.start_soon(publish_sealed, folder)
        records = [line for line in await inspect.log_lines(node, "small") if line.type == "publish"]

    assert len(records) == 4
    assert sorted(hashed) == sorted(folder / "a.txt" for folder in folders)
    # What was sealed in the tries before is counted, too.
    assert min(written) > 100_000


async def test_changes_at_once_are_all_made(tmp_path):
    async with open_home(tmp_path / "home") as node:
        await fresh(node)
        ticking(node)
        await publish(node, folder_with(tmp_path / "folder", {"a.txt": b"a"}), "small", ignore)
        digest = hashlib.sha256(b"a").digest()
        async with trio.open_nursery() as nursery:
            for number in range(4):
                changes = [Put(f"more-{number}.txt", digest, 1)]
                nursery.start_soon(commit, node, "small", "model", "main", changes, ignore)
        info = await inspect.info(node, "small", ignore, refresh=False)

    assert sorted(file.path for file in info.files) == ["a.txt", *(f"more-{number}.txt" for number in range(4))]


async def test_a_name_that_becomes_two_kinds_at_once_has_one(tmp_path):
    folder = folder_with(tmp_path / "folder", {"a.txt": b"a"})
    said = []
    async with open_home(tmp_path / "home") as node:
        await fresh(node)

        async def one(kind: Kind) -> None:
            try:
                await publish(node, folder, "small", ignore, kind=kind)
            except Conflict as exc:
                said.append(str(exc))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, "model")
            nursery.start_soon(one, "dataset")

    assert len(said) == 1
    assert "a name has one kind for ever" in said[0]


async def publish_and_crash(tmp_path: Path, **options: Any) -> tuple[Path, Path, PublishResult]:
    """Publish twice, and leave the home as a crash does between the file of its log, written first, and the rest.

    Returns the folder that is published, the home, and what came of the second publication.
    """
    folder = folder_with(tmp_path / "folder", {"a.txt": b"one"})
    home, before = tmp_path / "home", tmp_path / "before"
    async with open_home(home) as node:
        await fresh(node)
        await publish(node, folder, "small", ignore, **options)
    shutil.copytree(home, before)
    (folder / "a.txt").write_bytes(b"two")
    async with open_home(home) as node:
        second = await publish(node, folder, "small", ignore)
    for path in [*home.glob("index.sqlite*"), *home.glob("kept*"), *home.glob("store/logs/??/*.head")]:
        path.unlink()
    for path in [*before.glob("index.sqlite*"), *before.glob("store/logs/??/*.head")]:
        shutil.copy(path, home / path.relative_to(before))
    return folder, home, second


async def test_what_a_crash_left_in_the_log_is_followed_by_the_next_publication(tmp_path):
    folder, home, second = await publish_and_crash(tmp_path)
    (folder / "a.txt").write_bytes(b"three")
    async with open_home(home) as node:
        third = await publish(node, folder, "small", ignore)
        manifest = node.store.manifests.get(ManifestId.parse(third.revision))
        log = await inspect.log_lines(node, "small")

    assert [str(parent) for parent in manifest.parents] == [second.revision]
    assert [line.index for line in log] == [2, 1, 0]


@pytest.mark.parametrize("visibility", ["public", "private"])
async def test_what_a_crash_left_in_the_log_and_is_published_again_is_signed_for(tmp_path, visibility):
    """Without a head that covers it no peer would take it, though its publisher was told that it is published."""
    folder, home, second = await publish_and_crash(tmp_path, visibility=visibility)
    async with open_home(home) as node:
        again = await publish(node, folder, "small", ignore)
        (state,) = node.store.logs.logs_of(own_identity(node).namespace, private=True)
        (file,) = home.glob("store/logs/??/*.head")

    assert (again.revision, again.new) == (second.revision, False)
    assert [state.size, parse_head(state.head).size, parse_head(file.read_bytes()).size] == [2, 2, 2]


async def test_a_daemon_signs_for_what_a_crash_left_in_the_log(tmp_path):
    _, home, _ = await publish_and_crash(tmp_path)
    async with open_home(home) as node, trio.open_nursery() as nursery:
        namespace = own_identity(node).namespace
        nursery.start_soon(vouch, node)

        async def signed() -> bool:
            (state,) = node.store.logs.logs_of(namespace)
            return [state.size, parse_head(state.head).size] == [2, 2]

        await wait_for(signed, "what the crash left to be signed for")
        nursery.cancel_scope.cancel()


async def test_what_is_signed_after_the_clock_was_set_back_counts_as_newer_and_both_times_are_told(tmp_path):
    folder = folder_with(tmp_path / "folder", {"a.txt": b"one"})
    told = []
    async with open_home(tmp_path / "home") as node:
        await fresh(node)
        node.clock = lambda: 2_000_000_000.0
        first = await publish(node, folder, "small", ignore)
        (folder / "a.txt").write_bytes(b"two, which is longer")
        node.clock = lambda: 2_000_000_000.0 - 7200
        second = await publish(node, folder, "small", told.append)
        log = await inspect.log_lines(node, "small")
        found = await inspect.search(node, Query())
        stated = read_fresh(node.store.fresh.get(own_identity(node).namespace))

    assert [line.revision for line in log] == [second.revision, first.revision]
    assert [model.revision for model in found.models] == [second.revision]
    assert parse_head(stated.heads[0]).size == 2
    (notice,) = [event.text for event in told if isinstance(event, Notice)]
    assert "says 2033-05-18 01:33:20 UTC" in notice
    assert "is of 2033-05-18 03:33:20 UTC" in notice
