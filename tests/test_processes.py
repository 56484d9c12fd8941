"""The whole, as people run it: separate processes on loopback, killed where it hurts."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trio

from p2phub.gateway.alone import LOCK
from p2phub.node.events import ignore
from p2phub.node.identity import create_identity
from p2phub.node.publish import publish
from p2phub.testing.hostile import Link, open_home, open_link, open_linked, wait_for
from p2phub.testing.processes import Home, RunningNode, copy_home, free_port, tree, wait_until
from p2phub.testing.samples import write_sample_model

CONNECTIONS = 3  # to a provider that is the only one; spec/transfer.md §2
SPAN = 16 * 1024 * 1024  # bytes, the largest request; spec/transfer.md §3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a model of 60 MB."""
    folder = tmp_path_factory.mktemp("model") / "parrot"
    write_sample_model(folder, size=60_000_000)
    return folder


@dataclass
class Cluster:
    """Three nodes: alice publishes; bob knows alice; carol knows bob alone."""

    alice: RunningNode
    bob: RunningNode
    carol: RunningNode
    namespace: str
    model: Path

    @property
    def nodes(self) -> tuple[RunningNode, ...]:
        return self.alice, self.bob, self.carol


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Cluster]:
    base = tmp_path_factory.mktemp("cluster")
    homes = [Home(base / name) for name in ("alice", "bob", "carol")]
    namespace = homes[0].json("id", "new")["namespace"]
    with ExitStack() as stack:
        alice = stack.enter_context(homes[0].node())
        bob = stack.enter_context(homes[1].node(peers=(alice.address,)))
        carol = stack.enter_context(homes[2].node(peers=(bob.address,)))
        yield Cluster(alice, bob, carol, namespace, model)


def revision_at(node: RunningNode, reference: str) -> str | None:
    """Return what `reference` means by the records that a node has, None if it has no word of it.

    The log is answered from what was replicated, so that nothing is asked of anybody for it.
    """
    name, _, revision = reference.partition("@")
    outcome = node.home.call("log", name, "--json", code=None)
    lines = sorted(outcome.json, key=lambda line: line["index"]) if outcome.code == 0 else []
    if revision[:1].isdigit():
        return next((line["revision"] for line in lines if line["version"] == revision), None)
    return next((line["revision"] for line in reversed(lines) if line["branch"] == (revision or "main")), None)


# ── the main job ────────────────────────────────────────────────────────────


def test_a_release_reaches_a_node_two_hops_away_and_comes_from_both_who_have_it(cluster, tmp_path):
    alice, bob, carol = (node.home for node in cluster.nodes)
    name = f"{cluster.namespace}/parrot"
    release = alice.json("publish", str(cluster.model), "parrot@1.0.0", "-m", "first")
    found = wait_until(lambda: carol.json("search", "parrot")["models"], "the release to reach carol")
    bob.run("fetch", f"{name}@1.0.0", "--to", str(tmp_path / "bob"))
    result = carol.json("fetch", name, "--to", str(tmp_path / "carol"))

    assert [(model["namespace"], model["model"], model["version"]) for model in found] == [
        (cluster.namespace, "parrot", "1.0.0")
    ]
    assert found[0]["revision"] == result["revision"] == release["revision"]
    assert tree(tmp_path / "carol") == tree(tmp_path / "bob") == tree(cluster.model)
    # Carol was never told of alice by anybody but bob.
    providers = {provider["node"]: provider for provider in result["providers"]}
    assert set(providers) == {cluster.alice.node_id, cluster.bob.node_id}
    assert {provider["state"] for provider in providers.values()} == {"giving"}
    assert sum(provider["received"] for provider in providers.values()) == result["received"] + result["duplicates"]
    assert result["received"] == result["size"]
    carol.run("verify", name)
    carol.run("verify", str(tmp_path / "carol"))


def test_a_moved_branch_is_seen_by_others_and_a_version_stays(cluster, tmp_path):
    alice, carol = cluster.alice.home, cluster.carol.home
    folder = tmp_path / "folder"
    folder.mkdir()
    revisions = []
    for number in (1, 2):
        (folder / "README.md").write_text(f"# Small {number}\n")
        revisions.append(alice.json("publish", str(folder), f"small@{number}.0.0")["revision"])
    name = f"{cluster.namespace}/small"
    wait_until(lambda: revision_at(cluster.carol, name) == revisions[1], "main to be 2.0.0 for carol")
    alice.run("branch", "small", "main", "1.0.0", "-m", "2.0.0 has a fault")
    wait_until(lambda: revision_at(cluster.carol, name) == revisions[0], "the rollback to reach carol")
    alice.run("branch", "small", "production", "2.0.0")
    wait_until(lambda: revision_at(cluster.carol, f"{name}@production") == revisions[1], "a new branch")
    results = {
        reference: carol.json("fetch", reference, "--to", str(tmp_path / (reference.partition("@")[2] or "main")))
        for reference in (f"{name}@1.0.0", f"{name}@2.0.0", f"{name}@production", name)
    }
    alice.run("branch", "small", "production", "--delete")
    wait_until(lambda: revision_at(cluster.carol, f"{name}@production") is None, "the branch to go")
    history = carol.json("log", name)

    assert {reference: result["revision"] for reference, result in results.items()} == {
        f"{name}@1.0.0": revisions[0],
        f"{name}@2.0.0": revisions[1],
        f"{name}@production": revisions[1],
        name: revisions[0],
    }
    assert (tmp_path / "1.0.0" / "README.md").read_text() == "# Small 1\n"
    assert (tmp_path / "2.0.0" / "README.md").read_text() == "# Small 2\n"
    assert [line["type"] for line in history] == ["branch", "branch", "branch", "publish", "publish"]
    assert history[2]["message"] == "2.0.0 has a fault"


def test_a_version_that_exists_cannot_get_other_content_anywhere(cluster, tmp_path):
    alice = cluster.alice.home
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "README.md").write_text("# Once\n")
    first = alice.json("publish", str(folder), "once@1.0.0")["revision"]
    reference = f"{cluster.namespace}/once@1.0.0"
    wait_until(lambda: revision_at(cluster.carol, reference), "the release to reach carol")
    before = alice.json("log", "once"), alice.json("store", "ls"), alice.json("search", "once")
    (folder / "README.md").write_text("# Twice\n")
    outcome = alice.run("publish", str(folder), "once@1.0.0", code=1)
    after = alice.json("log", "once"), alice.json("store", "ls"), alice.json("search", "once")

    assert "once@1.0.0 was published before with other content" in outcome.err
    assert "hint" in outcome.err
    assert outcome.out == ""
    assert after == before
    assert revision_at(cluster.alice, reference) == revision_at(cluster.carol, reference) == first


def test_content_is_fetched_by_hash_where_no_name_is_known(cluster, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "data.bin").write_bytes(os.urandom(3_000_000))
    (folder / "README.md").write_text("# Hash\n")
    revision = cluster.alice.home.json("publish", str(folder), "hash")["revision"]
    root = next(file["root"] for file in cluster.alice.home.json("ls", "hash") if file["path"] == "data.bin")
    peer = ("--peer", cluster.alice.address)
    # No daemon, no identity, and nothing replicated: the hash says all.
    stranger = Home(tmp_path / "stranger")
    whole = stranger.json("fetch", revision, "--to", str(tmp_path / "whole"), *peer)
    single = Home(tmp_path / "other").json("fetch", root, "--to", str(tmp_path / "data.bin"), *peer)
    nothing = stranger.run("fetch", "b3:" + "12" * 32, code=3)

    assert tree(tmp_path / "whole") == tree(folder)
    assert (tmp_path / "data.bin").read_bytes() == (folder / "data.bin").read_bytes()
    assert whole["revision"] == revision
    assert single["revision"] is None
    assert single["size"] == 3_000_000
    assert "12" * 32 in nothing.err


def test_the_command_line_does_the_whole_job_without_a_daemon(cluster, model, tmp_path):
    # One node only answers; whoever publishes and fetches runs no node.
    home = Home(tmp_path / "publisher")
    home.run("id", "new")
    folder = tmp_path / "folder"
    shutil.copytree(model, folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Alone\n")
    published = home.json("publish", str(folder), "alone@0.1.0")
    with home.node() as node:
        reader = Home(tmp_path / "reader")
        peer = ("--peer", node.address)
        found = reader.json("search", "alone", *peer)["models"]
        result = reader.json("fetch", f"{published['namespace']}/alone", "--to", str(tmp_path / "out"), *peer)
    # The node is gone; what was fetched is here.
    reader.run("verify", str(tmp_path / "out"))
    reader.run("verify", f"{published['namespace']}/alone@0.1.0")
    card = reader.run("cat", f"{published['namespace']}/alone", "README.md", "--offline")

    assert [model["model"] for model in found] == ["alone"]
    assert found[0]["license"] == "MIT"
    assert result["revision"] == published["revision"]
    assert tree(tmp_path / "out") == tree(folder)
    assert card.out == (folder / "README.md").read_text()


def test_no_node_had_anything_to_complain_of(cluster):
    for node in cluster.nodes:
        assert "Traceback" not in node.errors()
        assert "ERROR" not in node.errors()


# ── killed processes ────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str, int]:
    """Publish 120 MB in a home; returns the home, the folder, the revision and the bytes."""
    base = tmp_path_factory.mktemp("big")
    size = write_sample_model(base / "model", size=120_000_000)

    async def work() -> str:
        async with open_home(base / "home") as node:
            create_identity(node)
            return (await publish(node, base / "model", "big", ignore)).revision

    return base / "home", base / "model", trio.run(work), size


def no_lock_files(home: Path) -> bool:
    # SQLite keeps its own -shm and -wal files; the file that a node locks stays, and by itself keeps nobody out.
    return not [path for path in home.rglob("*") if "lock" in path.name.lower() and path != home / LOCK]


async def wait_carried(link: Link, process: subprocess.Popen[str], carried: int) -> None:
    """Wait until the link has carried so much; AssertionError if the process ended before."""
    await wait_for(lambda: link.carried >= carried or process.poll() is not None, "the fetch to come so far")
    assert process.poll() is None, process.communicate()


async def kill_at(link: Link, process: subprocess.Popen[str], carried: int) -> None:
    """Kill a process once the link has carried so much; AssertionError if it ended before."""
    try:
        await wait_carried(link, process, carried)
    finally:
        process.kill()
        await trio.to_thread.run_sync(process.communicate)


async def test_a_fetch_killed_ten_times_ends_right_and_loses_at_most_a_span_a_connection(big, tmp_path, caplog):
    seed_home, folder, revision, size = big
    shutil.copytree(seed_home, tmp_path / "seed")
    rng = random.Random()
    home = Home(tmp_path / "fetcher")
    arguments = ("fetch", revision, "--to", str(tmp_path / "out"))
    async with open_home(tmp_path / "seed") as seed, open_linked(seed, rate=40e6) as link:
        peer = ("--peer", str(link.address(seed)))
        kills = 10
        for _ in range(kills):
            mark = link.carried + rng.randrange(1_000_000, size // 14)
            process = home.start(*arguments, *peer)
            await kill_at(link, process, mark)
            assert no_lock_files(home.folder)
        carried = link.carried
        link.rate = None
        outcome = await trio.to_thread.run_sync(partial(home.run, *arguments, *peer, "--json"))

    result = outcome.json
    assert tree(tmp_path / "out") == tree(folder)
    assert result["here_before"] + result["received"] == size
    assert result["received"] < size
    # Of what crossed the network before the last run, all but this was kept.
    lost = carried - result["here_before"]
    assert lost <= kills * CONNECTIONS * SPAN
    # In truth it is about the chunk that each connection was in the middle of, and what TLS and questions take.
    assert lost <= kills * (CONNECTIONS * 2 * 1024 * 1024 + 500_000)
    assert no_lock_files(home.folder)
    assert not list(home.store.glob("partial/??/*"))
    # A peer that was killed is no fault of the node that served it.
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_fetch_through_a_daemon_that_is_killed_fails_clearly_and_goes_on_with_the_next(big, tmp_path):
    seed_home, folder, revision, size = big
    shutil.copytree(seed_home, tmp_path / "seed")
    rng = random.Random()
    home = Home(tmp_path / "fetcher")
    arguments = ("fetch", revision, "--to", str(tmp_path / "out"), "--json")
    async with open_home(tmp_path / "seed") as seed, open_linked(seed, rate=40e6) as link:
        kills = 4
        for _ in range(kills):
            mark = link.carried + rng.randrange(3_000_000, size // 6)
            node = await trio.to_thread.run_sync(partial(home.start_node, peers=(str(link.address(seed)),)))
            process = home.start(*arguments)
            await wait_carried(link, process, mark)
            node.kill()
            out, err = await trio.to_thread.run_sync(process.communicate)

            assert process.returncode == 1, err
            assert out == ""
            assert "went away" in err
            assert "Traceback" not in err
            # What the killed node left behind misleads nobody.
            assert home.daemon_file.exists()
        carried = link.carried
        link.rate = None
        result = (await trio.to_thread.run_sync(partial(home.run, *arguments))).json

    assert tree(tmp_path / "out") == tree(folder)
    assert result["here_before"] + result["received"] == size
    assert carried - result["here_before"] <= kills * (CONNECTIONS * 2 * 1024 * 1024 + 500_000)
    assert no_lock_files(home.folder)


async def test_a_killed_publish_leaves_a_store_that_the_next_one_finishes(big, tmp_path):
    _, folder, _, size = big
    home = Home(tmp_path / "home")
    home.run("id", "new")
    rng = random.Random()
    for _ in range(4):
        process = home.start("publish", str(folder), "big@1.0.0")
        await trio.sleep(0.3 + rng.random() * 0.8)
        process.kill()
        await trio.to_thread.run_sync(process.communicate)
    await trio.to_thread.run_sync(partial(home.run, "publish", str(folder), "big@1.0.0"))
    log = home.json("log", "big")
    home.run("verify", "big@1.0.0")

    assert len(log) == 1
    assert sum(path.stat().st_size for path in home.objects if not path.name.startswith(".")) == size
    assert no_lock_files(home.folder)


async def test_a_provider_that_is_killed_is_replaced_while_a_fetch_runs(big, tmp_path):
    seed_home, folder, revision, _ = big
    homes = []
    for name in ("a", "b"):
        homes.append(Home(copy_home(seed_home, tmp_path / name)))
    fetcher = Home(tmp_path / "fetcher")
    async with open_link("127.0.0.1", 1, rate=30e6) as link_a, open_link("127.0.0.1", 1, rate=30e6) as link_b:
        nodes = []
        for home, link in zip(homes, (link_a, link_b), strict=True):
            link.target = ("127.0.0.1", free_port())
            start = partial(home.start_node, "--advertise", "{}:{}".format(*link.endpoint))
            nodes.append(await trio.to_thread.run_sync(partial(start, listen="{}:{}".format(*link.target))))
        peers = [word for node in nodes for word in ("--peer", node.address)]
        process = fetcher.start("fetch", revision, "--to", str(tmp_path / "out"), "--json", *peers)
        await wait_for(lambda: link_a.carried > 5_000_000 and link_b.carried > 5_000_000, "both to give")
        nodes[0].kill()
        out, err = await trio.to_thread.run_sync(process.communicate)
        nodes[1].stop()

    assert process.returncode == 0, err
    result = json.loads(out)
    assert tree(tmp_path / "out") == tree(folder)
    received = {provider["node"]: provider["received"] for provider in result["providers"]}
    assert received[nodes[0].node_id] > 0
    assert received[nodes[1].node_id] > 0


async def test_several_fetches_of_one_home_at_once_all_end_right(big, tmp_path):
    seed_home, folder, revision, _ = big
    shutil.copytree(seed_home, tmp_path / "seed")
    home = Home(tmp_path / "fetcher")
    async with open_home(tmp_path / "seed") as seed, open_linked(seed, rate=150e6) as link:
        peer = ("--peer", str(link.address(seed)))
        processes = [
            home.start("fetch", revision, "--to", str(tmp_path / f"out-{number}"), *peer) for number in range(3)
        ]
        for process in processes:
            _, err = await trio.to_thread.run_sync(partial(process.communicate, timeout=120))
            assert process.returncode == 0, err

    for number in range(3):
        assert tree(tmp_path / f"out-{number}") == tree(folder)
    assert not list(home.store.glob("partial/??/*"))
    home.run("verify", revision)


async def test_a_fetch_and_a_gc_at_once_harm_neither(big, tmp_path):
    seed_home, folder, revision, _ = big
    shutil.copytree(seed_home, tmp_path / "seed")
    home = Home(tmp_path / "fetcher")
    async with open_home(tmp_path / "seed") as seed, open_linked(seed, rate=40e6) as link:
        peer = ("--peer", str(link.address(seed)))
        process = home.start("fetch", revision, "--to", str(tmp_path / "out"), *peer)
        await wait_carried(link, process, 10_000_000)
        for options in ((), ("--unpinned",)):
            swept = await trio.to_thread.run_sync(partial(home.run, "store", "gc", *options))
        _, err = await trio.to_thread.run_sync(partial(process.communicate, timeout=120))

    assert process.returncode == 0, err
    assert "is being fetched" in swept.err
    assert tree(tmp_path / "out") == tree(folder)
    home.run("verify", revision)
    # It is over now, and nobody asked to keep it.
    home.run("store", "gc", "--unpinned")
    assert not home.objects
    assert tree(tmp_path / "out") == tree(folder)
