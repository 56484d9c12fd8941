"""Mirrors of another hub: fetched, checked, kept, vouched for, whatever the hub does."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
import trio

from p2phub.core.errors import (
    AccessDenied,
    HashMismatch,
    InvalidData,
    InvalidName,
    NotFound,
    PeerError,
    PeerUnreachable,
)
from p2phub.core.gitobjects import blob_id
from p2phub.core.ids import ManifestId
from p2phub.core.manifest import Origin
from p2phub.core.private import Repository
from p2phub.core.upstream import Foreign, Gated, NoSuchRevision
from p2phub.node import inspect, mirroring
from p2phub.node import upstream as upstream_module
from p2phub.node.calling import call_peer
from p2phub.node.events import ignore
from p2phub.node.fetch import fetch
from p2phub.node.identity import create_identity, own_identity
from p2phub.node.node import Node
from p2phub.node.operations.mirrors import MirrorInfo
from p2phub.node.operations.status import UpstreamState
from p2phub.node.publish import publish
from p2phub.node.upstream import Arriving
from p2phub.protocol import rendezvous
from p2phub.store.blobs import Blobs
from p2phub.store.mirrors import Attestation, UpstreamContent
from p2phub.testing.fakehub import LARGE_SIZE, FakeHub, is_api, is_file, is_tree, like_missing, paged
from p2phub.testing.hostile import open_home, serving, wait_for
from p2phub.testing.values import file_entry, identity
from p2phub.testing.webserver import (
    Behaviour,
    Reply,
    WebServer,
    after,
    answering,
    cutting,
    lying_from,
    only,
    raw,
    redirecting,
    slowly,
    times,
    without_ranges,
)

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("hasty_upstream")]

FILES = {
    "README.md": b"---\nlicense: mit\n---\n# Parrot\n",
    "config.json": b'{"model_type": "llama"}',
    "empty": b"",
    "sub/weights.bin": os.urandom(3_000_000),
}


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub(like_missing) as server:
        yield server


def mirror_node(folder: Path, hub: FakeHub, **settings: object) -> AbstractAsyncContextManager[Node]:
    """Return a node whose upstream is `hub`."""
    return open_home(folder, **{"upstream": hub.url, **settings})


def content(node: Node, revision: str | None) -> dict[str, bytes]:
    """Return the files of a revision as they are in the store."""
    manifest = node.store.manifests.get(ManifestId.parse(revision or ""))
    assert manifest is not None
    found = {file.path: node.store.blobs.find(file.root) for file in manifest.files}
    return {path: held.path.read_bytes() for path, held in found.items() if held}


def parrot(hub: FakeHub) -> Foreign:
    return Foreign(hub.name, "model", "Org", "parrot")


def attested(node: Node, hub: FakeHub) -> list[Attestation]:
    """Return what this node vouches for."""
    return node.store.mirrors.attestations(parrot(hub), {own_identity(node).namespace})


# ── the way it should be ────────────────────────────────────────────────────


async def test_a_mirror_holds_what_the_hub_listed_and_is_vouched_for(hub, tmp_path):
    commit = hub.publish("Org/parrot", FILES)
    async with mirror_node(tmp_path, hub) as node:
        create_identity(node)
        info = await mirroring.add(node, "hf://Org/parrot", None, ignore)
        again = await mirroring.add(node, "hf://Org/parrot", None, ignore)
        said = attested(node, hub)
        manifest = node.store.manifests.get(ManifestId.parse(info.manifest or ""))

        assert (info.commit, info.revision, info.files, info.restricted) == (commit, "main", 4, False)
        assert replace_time(again) == replace_time(info)
        assert content(node, info.manifest) == FILES
        assert [(row.commit, str(row.manifest), row.names) for row in said] == [(commit, info.manifest, ("main",))]
        assert node.store.keeping.pins() == {said[0].manifest: "mirrored"}
        assert [hub.fetched(path) for path in FILES] == [1, 1, 0, 1]
        assert manifest is not None
        assert manifest.origin == Origin(hub.name, "Org/parrot", commit)
        assert manifest.card is not None
        assert manifest.card.license == "MIT"
        assert not list((tmp_path / "store" / "upstream").glob("*"))


async def test_what_a_node_mirrors_is_for_all_whoever_claimed_it_before(hub, tmp_path):
    hub.publish("Org/parrot", FILES)
    async with mirror_node(tmp_path, hub) as node:
        create_identity(node)
        root = file_entry("config.json", FILES["config.json"]).root
        node.store.private.mark(Repository(identity("claimant").namespace, "claimed"), [root])
        info = await mirroring.add(node, "hf://Org/parrot", None, ignore)
        manifest = ManifestId.parse(info.manifest or "")

        assert root in [file.root for file in node.store.manifests.get(manifest).files]
        assert node.store.private.hidden([manifest, root], ()) == set()


async def test_a_licence_that_the_policy_does_not_accept_is_not_mirrored(hub, tmp_path):
    hub.publish("Org/parrot", FILES, tags=["license:cc-by-nc-4.0", "fr"])
    async with mirror_node(tmp_path, hub) as node:
        (tmp_path / "policy.toml").write_text("[licences]\nallow = ['mit', 'cc-by-4.0']\n")
        with pytest.raises(AccessDenied, match=r"CC-BY-NC-4\.0"):
            await mirroring.add(node, "hf://Org/parrot", None, ignore)
        (tmp_path / "policy.toml").write_text("[licences]\nallow = ['cc-by-nc-4.0']\n")
        await mirroring.add(node, "hf://Org/parrot", None, ignore)

    assert hub.fetched("README.md") == 1


async def test_all_who_mirror_a_commit_make_the_same_manifest(hub, tmp_path):
    hub.publish("Org/parrot", FILES)
    made = []
    for name in ("one", "two"):
        async with mirror_node(tmp_path / name, hub) as node:
            made.append((await mirroring.add(node, "hf://Org/parrot", None, ignore)).manifest)

    assert made[0] == made[1]


async def test_a_dataset_and_a_list_in_pages(hub, tmp_path):
    hub.behaviours.append(paged(2, hub))
    hub.publish("Org/words", {f"data/{number}.csv": b"a,b\n" * number for number in range(7)}, kind="dataset")
    async with mirror_node(tmp_path, hub) as node:
        info = await mirroring.add(node, "hf://datasets/Org/words", None, ignore)

        assert (info.kind, info.files) == ("dataset", 7)
        assert sum(is_tree(asked) for asked in hub.asked) == 4


async def test_an_update_fetches_what_changed_alone(hub, tmp_path):
    hub.publish("Org/parrot", FILES)
    async with mirror_node(tmp_path, hub) as node:
        create_identity(node)
        first = await mirroring.add(node, "hf://Org/parrot", None, ignore)
        commit = hub.publish("Org/parrot", FILES | {"config.json": b"{}"})
        (second,) = await mirroring.update(node, None, None, ignore)
        said = attested(node, hub)

        assert second.commit == commit != first.commit
        assert content(node, second.manifest)["config.json"] == b"{}"
        assert (hub.fetched("config.json"), hub.fetched("weights.bin")) == (2, 1)
        assert [row.commit for row in said] == [second.commit, first.commit]
        assert [str(manifest) for manifest in node.store.keeping.pins()] == [second.manifest]


async def test_a_mirror_that_is_removed_is_kept_no_longer(hub, tmp_path):
    hub.publish("Org/parrot", FILES)
    async with mirror_node(tmp_path, hub) as node:
        await mirroring.add(node, "hf://Org/parrot", None, ignore)
        await mirroring.remove(node, "hf://Org/parrot", None)

        assert await mirroring.show(node) == []
        assert node.store.keeping.pins() == {}
        with pytest.raises(NotFound, match="is no mirror here"):
            await mirroring.remove(node, "hf://Org/parrot", None)
        with pytest.raises(NotFound, match="is no mirror here"):
            await mirroring.update(node, "hf://Org/parrot", None, ignore)


async def test_what_was_published_here_is_not_fetched(hub, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "w.bin").write_bytes(FILES["sub/weights.bin"])
    hub.publish("Org/parrot", FILES)
    async with mirror_node(tmp_path / "home", hub) as node:
        create_identity(node)
        await publish(node, tmp_path / "folder", "own", ignore)
        info = await mirroring.add(node, "hf://Org/parrot", None, ignore)

        assert hub.fetched("weights.bin") == 0
        assert content(node, info.manifest) == FILES


async def test_small_files_are_placed_together(hub, tmp_path, monkeypatch):
    files = {f"{number:03}.json": os.urandom(20 + number) for number in range(100)} | {"same.json": b"x", "again": b"x"}
    hub.publish("Org/parrot", files)
    placed: list[int] = []
    add_small = Blobs.add_small
    monkeypatch.setattr(Blobs, "add_small", lambda self, some: (placed.append(len(some)), add_small(self, some))[1])
    async with mirror_node(tmp_path, hub) as node:
        info = await mirroring.add(node, "hf://Org/parrot", None, ignore)

        assert content(node, info.manifest) == files
        # The content of two of them is one.
        assert sorted(placed) == [5, 32, 32, 32]
        assert sum(is_file(asked) for asked in hub.asked) == 101


async def test_small_files_that_came_before_one_that_does_not_are_kept(hub, tmp_path):
    files = {f"{number:03}.json": os.urandom(100) for number in range(30)}
    hub.publish("Org/parrot", files)
    missing = only(lambda asked: asked.path.endswith("020.json"), answering(404))
    hub.behaviours.append(missing)
    async with mirror_node(tmp_path, hub) as node:
        with pytest.raises(NotFound, match=r"020\.json"):
            await mirroring.add(node, "hf://Org/parrot", None, ignore)
        hub.behaviours.remove(missing)
        info = await mirroring.add(node, "hf://Org/parrot", None, ignore)

        assert content(node, info.manifest) == files
        assert [hub.fetched(path) for path in sorted(files)] == [1] * 20 + [2] + [1] * 9


# ── a hub that misbehaves ───────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["config.json", "sub/weights.bin"])
async def test_wrong_bytes_never_come_under_a_name_and_the_right_ones_are_kept(path, hub, tmp_path):
    hub.publish("Org/parrot", FILES)
    lying = only(lambda asked: asked.path.endswith(path), lying_from(5))
    hub.behaviours.append(lying)
    async with mirror_node(tmp_path, hub) as node:
        create_identity(node)
        with pytest.raises(HashMismatch, match=f"sends other bytes for {path} of hf://Org/parrot"):
            await mirroring.add(node, "hf://Org/parrot", None, ignore)

        assert attested(node, hub) == []
        assert (await mirroring.show(node))[0].commit is None
        hub.behaviours.remove(lying)
        others = {other: hub.fetched(other) for other in FILES if other != path}
        info = await mirroring.add(node, "hf://Org/parrot", None, ignore)
        assert content(node, info.manifest) == FILES
        assert {other: hub.fetched(other) for other in others} == others


async def test_a_file_that_changes_while_it_comes_is_fetched_anew(hub, tmp_path):
    hub.publish("Org/parrot", FILES)
    is_weights = lambda asked: asked.path.endswith("weights.bin")  # noqa: E731
    # The first half is of another file, and the rest comes by a range.
    hub.behaviours += [only(is_weights, times(1, lying_from(0))), only(is_weights, times(1, cutting(1_000_000)))]
    async with mirror_node(tmp_path, hub) as node:
        info = await mirroring.add(node, "hf://Org/parrot", None, ignore)

        assert content(node, info.manifest) == FILES
        assert hub.fetched("weights.bin") == 3


async def test_bodies_that_are_cut_go_on_where_they_were(hub, tmp_path):
    hub.publish("Org/parrot", FILES)
    hub.behaviours.append(only(is_file, cutting(700_000)))
    async with mirror_node(tmp_path, hub) as node:
        info = await mirroring.add(node, "hf://Org/parrot", None, ignore)
        begins = [(asked.byte_range or (0, 0))[0] for asked in hub.asked if asked.path.endswith("weights.bin")]

        assert content(node, info.manifest) == FILES
        assert begins == sorted(set(begins))
        assert len(begins) >= 4


async def test_a_hub_without_ranges_sends_a_file_from_its_beginning_again(hub, tmp_path):
    hub.publish("Org/parrot", FILES)
    hub.behaviours += [without_ranges(hub.pages), only(is_file, times(3, cutting(700_000)))]
    async with mirror_node(tmp_path, hub) as node:
        info = await mirroring.add(node, "hf://Org/parrot", None, ignore)

        assert content(node, info.manifest) == FILES


@pytest.mark.parametrize("where", [is_api, is_file])
@pytest.mark.parametrize("behaviour", [answering(500), answering(503), answering(429, retry_after="0"), raw(b"junk")])
async def test_what_fails_for_a_while_is_asked_again(where, behaviour, hub, tmp_path):
    hub.publish("Org/parrot", FILES)
    hub.behaviours.append(only(where, times(3, behaviour)))
    async with mirror_node(tmp_path, hub) as node:
        info = await mirroring.add(node, "hf://Org/parrot", None, ignore)

        assert content(node, info.manifest) == FILES


async def test_a_busy_hub_is_left_alone_as_long_as_it_says(hub, tmp_path):
    hub.publish("Org/parrot", FILES)
    hub.behaviours.append(only(is_file, times(1, answering(429, retry_after="1"))))
    told: list[object] = []
    async with mirror_node(tmp_path, hub) as node:
        start = trio.current_time()
        await mirroring.add(node, "hf://Org/parrot", None, told.append)

        assert trio.current_time() - start >= 1
    assert any("wants to be asked later (429 too many requests): waiting 1 s" in str(event) for event in told)


async def test_what_fails_for_ever_ends_with_the_reason_and_what_came_stays(hub, tmp_path):
    hub.publish("Org/parrot", FILES)
    is_weights = lambda asked: asked.path.endswith("weights.bin")  # noqa: E731
    failing = only(is_weights, after(1, answering(500)))
    hub.behaviours += [only(is_weights, times(1, cutting(1_000_000))), failing]
    async with mirror_node(tmp_path, hub) as node:
        with pytest.raises(PeerUnreachable, match=f"the hub {hub.name} answered 500 internal server error"):
            await mirroring.add(node, "hf://Org/parrot", None, ignore)
        hub.behaviours.remove(failing)
        await mirroring.add(node, "hf://Org/parrot", None, ignore)

        assert hub.asked[-1].byte_range == (1_000_000, 2_999_999)
        assert [hub.fetched(path) for path in ("README.md", "config.json")] == [1, 1]


async def test_the_token_goes_to_the_hub_and_nowhere_else(hub, tmp_path):
    hub.publish("Org/parrot", FILES)
    with WebServer(hub.pages) as elsewhere:
        hub.behaviours.append(only(is_file, redirecting(lambda asked: elsewhere.url + asked.target)))
        async with mirror_node(tmp_path, hub, upstream_token="hf_secret") as node:
            info = await mirroring.add(node, "hf://Org/parrot", None, ignore)
            shown = repr(node.settings)

            assert content(node, info.manifest) == FILES
        assert {asked.headers.get("authorization") for asked in hub.asked} == {"Bearer hf_secret"}
        assert len(elsewhere.asked) == 3
        assert not any("authorization" in asked.headers for asked in elsewhere.asked)
    assert "hf_secret" not in shown


async def test_what_a_hub_says_must_come_from_itself(hub, tmp_path):
    hub.publish("Org/parrot", FILES)
    with WebServer(hub.pages) as elsewhere:
        hub.behaviours.append(only(is_api, redirecting(lambda asked: elsewhere.url + asked.target)))
        async with mirror_node(tmp_path, hub) as node:
            with pytest.raises(PeerError, match="sends us elsewhere"):
                await mirroring.add(node, "hf://Org/parrot", None, ignore)


def tree_of(*rows: dict[str, object], **headers: str) -> Behaviour:
    """Let every list of files hold `rows`."""
    return only(is_tree, lambda asked, reply: Reply(200, json.dumps(rows).encode(), headers))


def row(path: str, **fields: object) -> dict[str, object]:
    return {"type": "file", "path": path, "size": 1, "oid": "0" * 40} | fields


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([row("../../etc/passwd")], "'.' or '..' part"),
        ([row("/etc/passwd")], "absolute"),
        ([row("a/.git/hooks/x")], "Git takes for its own"),
        ([row("a"), row("a/b")], "in the way|collide|folder"),
        ([row("A"), row("a")], "but for case|collide"),
        ([row("a"), row("a")], "twice"),
        ([row("a", size=-1)], "a size that no file has"),
        ([row("a", size=2**60)], "a size that no file has"),
        ([row("a", oid="../x")], "without a hash"),
        ([row("a", lfs={"oid": "0" * 40, "size": 1})], "without a hash"),
        ([], "has no files"),
    ],
)
async def test_a_list_that_cannot_be_kept_is_refused_whole(rows, why, hub, tmp_path):
    hub.publish("Org/parrot", FILES)
    hub.behaviours.append(tree_of(*rows))
    async with mirror_node(tmp_path / "home", hub) as node:
        with pytest.raises(InvalidData, match=why):
            await mirroring.add(node, "hf://Org/parrot", None, ignore)

    assert not any(is_file(asked) for asked in hub.asked)
    assert {path.name for path in tmp_path.iterdir()} == {"home"}


async def test_answers_that_are_too_large_or_have_no_end_are_refused(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(upstream_module, "PAGES_MAX", 20)
    hub.publish("Org/parrot", FILES)
    # The server gives nothing to a page that it does not know, so the path stays.
    link = f'<{hub.url}/api/models/Org/parrot/tree/x>; rel="next"'
    count = iter(range(10**9))
    thousand = lambda asked, reply: Reply(  # noqa: E731
        200, json.dumps([row(f"{next(count)}") for _ in range(1000)]).encode(), {"link": link}
    )
    cases = [
        (only(is_api, lambda asked, reply: Reply(200, b" " * 17_000_000)), "says more than 16777216 bytes"),
        (only(is_tree, lambda asked, reply: Reply(200, b"[" * 100_000)), "not what a hub says"),
        (tree_of(link=link), "without an end"),
        (only(is_tree, thousand), "more than 10000 files"),
        (tree_of(row("a"), link='<http://elsewhere.example/x>; rel="next"'), "lies elsewhere"),
    ]
    async with mirror_node(tmp_path, hub) as node:
        for behaviour, why in cases:
            hub.behaviours.append(behaviour)
            with pytest.raises(InvalidData, match=why):
                await mirroring.add(node, "hf://Org/parrot", None, ignore)
            hub.behaviours.remove(behaviour)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"{}", "names no commit"),
        (b'{"sha": "abc"}', "names no commit"),
        (b"null", "not what a hub says"),
        (b"\xff", "not what a hub says"),
    ],
)
async def test_an_answer_that_is_none_is_refused(said, why, hub, tmp_path):
    hub.behaviours.append(only(is_api, lambda asked, reply: Reply(200, said)))
    async with mirror_node(tmp_path, hub) as node:
        with pytest.raises(InvalidData, match=why):
            await mirroring.add(node, "hf://Org/parrot", None, ignore)


async def test_what_is_not_there_or_not_for_us_is_said_so(hub, tmp_path):
    hub.publish("Org/parrot", FILES)
    async with mirror_node(tmp_path, hub) as node:
        with pytest.raises(NotFound, match="has no hf://Org/nope@main"):
            await mirroring.add(node, "hf://Org/nope", None, ignore)
        hub.behaviours.append(answering(404, x_error_code="RevisionNotFound"))
        with pytest.raises(NoSuchRevision):
            await mirroring.add(node, "hf://Org/parrot@old", None, ignore)
        hub.behaviours[-1] = answering(403, x_error_code="GatedRepo")
        with pytest.raises(Gated, match="only to those whom its owner lets"):
            await mirroring.add(node, "hf://Org/parrot", None, ignore)
        hub.behaviours[-1] = answering(401)
        with pytest.raises(AccessDenied) as failure:
            await mirroring.add(node, "hf://Org/parrot", None, ignore)

        assert "HF_TOKEN" in (failure.value.hint or "")
        assert await mirroring.show(node) == []


@pytest.mark.parametrize(
    "text", ["Org/parrot", "hf://parrot", "hf://Org/par--rot", "hf://a/b/c", "hf://Org/p@", "hf://O/p@a..b"]
)
async def test_a_name_that_is_none_is_refused(text, hub, tmp_path):
    async with mirror_node(tmp_path, hub) as node:
        with pytest.raises(InvalidName):
            await mirroring.add(node, text, None, ignore)

    assert hub.asked == []


# ── what not everybody may have ─────────────────────────────────────────────


@pytest.mark.parametrize("said", [{"private": True}, {"gated": "manual"}])
async def test_what_not_everybody_may_have_stays_here(said, hub, tmp_path):
    hub.publish("Org/parrot", FILES, **said)
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(mirror_node(tmp_path / "a", hub))
        create_identity(node)
        address = await stack.enter_async_context(serving(node))
        other = await stack.enter_async_context(mirror_node(tmp_path / "b", hub, upstream=None))
        other.store.peers.add(address)
        info = await mirroring.add(node, "hf://Org/parrot", None, ignore)
        manifest = node.store.manifests.get(ManifestId.parse(info.manifest or ""))
        assert manifest is not None
        weights = manifest.file("sub/weights.bin")
        assert weights is not None

        assert info.restricted
        assert content(node, info.manifest) == FILES
        assert attested(node, hub) == []
        for reference in (info.manifest, str(weights.root)):
            with pytest.raises(NotFound):
                await fetch(other, reference or "", ignore, to=tmp_path / "out")
        async with call_peer(other, other.store.peers.all()[0]) as client:
            told = await client.upstream_files([weights.sha256], None)
        assert told.roots == (None,)
        # Whoever publishes it himself lets others have it.
        held = node.store.blobs.find(weights.root)
        assert held is not None
        (tmp_path / "own").mkdir()
        (tmp_path / "own" / "weights.bin").write_bytes(held.path.read_bytes())
        await publish(node, tmp_path / "own", "own", ignore)
        await fetch(other, str(weights.root), ignore, to=tmp_path / "out")


@pytest.mark.parametrize("said", [{"gated": "manual"}, {}])
async def test_that_what_not_everybody_may_have_is_being_fetched_is_told_to_nobody(said, hub, tmp_path):
    hub.publish("Org/parrot", FILES, **said)
    hub.behaviours.append(only(is_file, slowly(2e6)))
    weights = sha256(FILES["sub/weights.bin"]).digest()
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(mirror_node(tmp_path / "a", hub))
        address = await stack.enter_async_context(serving(node))
        other = await stack.enter_async_context(mirror_node(tmp_path / "b", hub, upstream=None))
        other.store.peers.add(address)
        nursery = await stack.enter_async_context(trio.open_nursery())
        nursery.start_soon(mirroring.add, node, "hf://Org/parrot", None, ignore)

        async def is_fetching() -> bool:
            return weights in node.hub.arriving and node.hub.arriving[weights].is_fetching

        await wait_for(is_fetching, "the node fetches the weights")
        async with call_peer(other, other.store.peers.all()[0]) as client:
            told = await client.upstream_files([weights], None)
        assert await is_fetching()
        assert told.states == bytes([rendezvous.NOTHING if said else rendezvous.FETCHING])


async def test_policy_lets_peers_have_it(hub, tmp_path):
    hub.publish("Org/parrot", FILES, gated="auto")
    async with mirror_node(tmp_path, hub, share_restricted=True) as node:
        create_identity(node)
        info = await mirroring.add(node, "hf://Org/parrot", None, ignore)

        assert info.restricted
        assert len(attested(node, hub)) == 1
        assert node.store.mirrors.withheld([ManifestId.parse(info.manifest or "")]) == set()


# ── several nodes ───────────────────────────────────────────────────────────


@asynccontextmanager
async def cluster(folder: Path, hub: FakeHub, count: int) -> AsyncIterator[list[Node]]:
    """Give nodes that know each other and have the same upstream."""
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(mirror_node(folder / str(number), hub)) for number in range(count)]
        addresses = [await stack.enter_async_context(serving(node)) for node in nodes]
        for node in nodes:
            for address in addresses:
                if address.node != node.id:
                    node.store.peers.add(address)
        yield nodes


async def test_nodes_that_begin_at_once_fetch_each_file_once(hub, tmp_path):
    files = {f"{number}.bin": os.urandom(200_000) for number in range(8)} | FILES
    hub.publish("Org/parrot", files)
    hub.behaviours.append(only(is_file, slowly(2e6)))
    async with cluster(tmp_path, hub, 3) as nodes:
        found: dict[str, dict[str, bytes]] = {}

        async def one(node: Node) -> None:
            info = await mirroring.add(node, "hf://Org/parrot", None, ignore)
            found[str(node.id)] = content(node, info.manifest)

        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(one, node)

        assert list(found.values()) == [files] * 3
        assert {path: hub.fetched(path) for path in files if files[path]} == dict.fromkeys(files.keys() - {"empty"}, 1)


async def test_what_one_node_has_the_others_have_from_it(hub, tmp_path):
    hub.publish("Org/parrot", FILES)
    async with cluster(tmp_path, hub, 2) as (first, second):
        await mirroring.add(first, "hf://Org/parrot", None, ignore)
        before = sum(is_file(asked) for asked in hub.asked)
        info = await mirroring.add(second, "hf://Org/parrot", None, ignore)

        assert content(second, info.manifest) == FILES
        assert sum(is_file(asked) for asked in hub.asked) == before


async def test_a_peer_that_names_other_content_costs_a_fetch_and_no_wrong_byte(hub, tmp_path):
    hub.publish("Org/parrot", FILES)
    async with cluster(tmp_path, hub, 2) as (liar, node):
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "w.bin").write_bytes(os.urandom(3_000_000))
        create_identity(liar)
        await publish(liar, tmp_path / "folder", "other", ignore)
        wrong = liar.store.blobs.find_sha256(sha256((tmp_path / "folder" / "w.bin").read_bytes()).digest())
        assert wrong is not None
        weights = sha256(FILES["sub/weights.bin"]).digest()
        liar.store.mirrors.note_content(weights, UpstreamContent(wrong.root, weights, "cdc-1m"))
        info = await mirroring.add(node, "hf://Org/parrot", None, ignore)

        assert content(node, info.manifest) == FILES
        assert hub.fetched("weights.bin") == 1


async def test_a_node_that_only_says_it_fetches_is_not_waited_for_for_ever(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(rendezvous, "PATIENCE_S", 1.0)
    hub.publish("Org/parrot", FILES)
    async with cluster(tmp_path, hub, 2) as (idle, node):
        for data in FILES.values():
            identifier = sha256(data).digest() if len(data) >= LARGE_SIZE else blob_id(data)
            idle.hub.arriving[identifier] = Arriving(is_shared=True, is_fetching=True)
        info = await mirroring.add(node, "hf://Org/parrot", None, ignore)

        assert content(node, info.manifest) == FILES


def replace_time(info: MirrorInfo) -> MirrorInfo:
    return msgspec.structs.replace(info, checked=None)


async def kept(node: Node, commit: str) -> bool:
    """Say whether the only mirror of the node stands at `commit`."""
    (mirror,) = await mirroring.show(node)
    return mirror.commit == commit


async def test_a_running_node_brings_its_mirrors_up_to_date_by_itself(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(mirroring, "EVERY_S", 0.05)
    hub.publish("Org/parrot", FILES)
    async with mirror_node(tmp_path, hub) as node, trio.open_nursery() as nursery:
        before = await mirroring.add(node, "hf://Org/parrot", None, ignore)
        commit = hub.publish("Org/parrot", {**FILES, "new.txt": b"new"})

        nursery.start_soon(mirroring.keep_up, node)
        await wait_for(lambda: kept(node, commit), "the mirror follows")
        (now,) = await mirroring.show(node)
        nursery.cancel_scope.cancel()

        assert now.manifest != before.manifest
        assert content(node, now.manifest)["new.txt"] == b"new"


async def test_a_hub_that_fails_does_not_end_the_looking(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(mirroring, "EVERY_S", 0.05)
    hub.publish("Org/parrot", FILES)
    async with mirror_node(tmp_path, hub) as node, trio.open_nursery() as nursery:
        await mirroring.add(node, "hf://Org/parrot", None, ignore)
        asked = len(hub.asked)
        hub.pages.clear()
        nursery.start_soon(mirroring.keep_up, node)
        await wait_for(lambda: len(hub.asked) > asked + 1, "the hub is asked in vain twice")

        commit = hub.publish("Org/parrot", {**FILES, "new.txt": b"new"})

        await wait_for(lambda: kept(node, commit), "the mirror follows")
        nursery.cancel_scope.cancel()


async def test_the_status_says_how_the_hub_is(hub, tmp_path):
    async with mirror_node(tmp_path, hub, upstream_token="secret") as node:
        ready = (await inspect.status(node)).upstream
        node.hub.down_until = trio.current_time() + 10
        down = (await inspect.status(node)).upstream
        node.hub.quiet_until = trio.current_time() + 10
        busy = (await inspect.status(node)).upstream

    assert ready == UpstreamState(hub.url, hub.name, token=True, state="ready")
    assert (down.state, busy.state) == ("down", "busy")


async def test_the_status_of_a_node_without_a_hub_names_none(tmp_path):
    async with open_home(tmp_path) as node:
        assert (await inspect.status(node)).upstream is None
