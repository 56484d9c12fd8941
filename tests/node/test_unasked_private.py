"""Anybody can let this node into a private repository, and claim any hash so: what others publish stays public."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from p2phub.core.access import ANYBODY, Caller
from p2phub.core.checkpoint import parse_head
from p2phub.core.ids import ManifestId
from p2phub.core.private import Repository
from p2phub.core.records import Attest
from p2phub.node import granting
from p2phub.node.allowed import peers_about
from p2phub.node.committing import publish_revision
from p2phub.node.events import ignore
from p2phub.node.identity import create_identity, own_identity, publish_record
from p2phub.node.node import Node
from p2phub.node.privatelogs import take_news
from p2phub.node.publish import publish
from p2phub.node.resolve import resolve
from p2phub.protocol.messages import IdentityChain
from p2phub.protocol.privatetalk import PrivateNews
from p2phub.store.layout import Layout
from p2phub.store.store import Store
from p2phub.testing.hostile import open_home, serving

pytestmark = pytest.mark.timeout(60)

TELLER = Caller(None)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with open_home(tmp_path / "home") as node:
        create_identity(node)
        yield node


@asynccontextmanager
async def publisher(tmp_path: Path, name: str) -> AsyncIterator[Node]:
    async with open_home(tmp_path / name) as home:
        create_identity(home)
        yield home


def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    made.mkdir(exist_ok=True)
    (made / "weights.txt").write_text("weights " * 300)
    return made


async def manifest_of(home: Node, tmp_path: Path, **how: str) -> tuple[ManifestId, bytes]:
    """Publish something; returns the manifest."""
    revision = ManifestId.parse((await publish(home, folder(tmp_path), "model", ignore, **how)).revision)  # type: ignore[arg-type]
    data = home.store.manifests.data(revision)
    assert data is not None
    return revision, data


def hear_publicly(node: Node, of: Node) -> None:
    """Let a node take over the public log of another."""
    (state,) = of.store.logs.states()
    entries = of.store.logs.entries(state.log, 0, size_max=10**6)
    node.store.logs.extend(own_identity(of), parse_head(state.head), entries, now=node.clock())


async def claim(node: Node, home: Node, data: bytes, name: str = "claimed") -> Repository:
    """Let a publisher name a manifest in a private repository, let a node in, and tell it."""
    manifest = home.store.manifests.add(data)
    await publish_revision(home, name, "main", manifest, ignore, version=None, visibility="private")
    return await let_in(node, home, name)


async def let_in(node: Node, home: Node, name: str) -> Repository:
    await granting.grant(home, name, f"node:{node.id}", 5)
    repository = Repository(own_identity(home).namespace, name)
    (log,) = home.store.private.logs([repository])
    entries = home.store.logs.entries(log.state.log, 0, size_max=10**6, private=True)
    take_news(
        node, TELLER, PrivateNews(log.told, 0, tuple(entries), IdentityChain(own_identity(home).chain)), may_begin=True
    )
    assert repository in node.store.private.repositories()
    return repository


def arrive(node: Node, tmp_path: Path, data: bytes) -> list[bytes]:
    """Let content come into the store of a node; returns all the ids."""
    revision = node.store.manifests.add(data)
    manifest = node.store.manifests.get(revision)
    assert manifest is not None
    for file in manifest.files:
        node.store.intake.ingest(folder(tmp_path) / file.path, file.profile, in_place=False)
    return [revision, *(file.root for file in manifest.files)]


def attest(node: Node, manifest: ManifestId) -> None:
    publish_record(
        node,
        partial(
            Attest, namespace=own_identity(node).namespace, model="x",
            claim="mirror-of", kind="model", manifest=manifest, hub="huggingface.co", owner="org",
            commit="a" * 40, names=("main",),
        ),
    )  # fmt: skip


def is_for_all(node: Node, ids: list[bytes]) -> bool:
    withheld = node.access.withheld(ANYBODY, ids)
    assert withheld in (set(), set(ids))
    listed = ids[0] in [each for each, _ in node.store.holdings.own(b"", 10)]
    assert listed == (not withheld)
    return not withheld


@pytest.mark.parametrize("first", ["record", "claim", "content"])
async def test_what_others_publish_is_not_withheld_by_a_claim_that_nobody_asked_for(tmp_path, node, first):
    async with publisher(tmp_path, "other") as other, publisher(tmp_path, "thief") as thief:
        _, data = await manifest_of(other, tmp_path)
        if first == "record":
            hear_publicly(node, other)
        if first == "content":
            arrive(node, tmp_path, data)
        await claim(node, thief, data)
        if first != "record":
            hear_publicly(node, other)

        assert is_for_all(node, arrive(node, tmp_path, data))


@pytest.mark.parametrize("first", ["attested", "claimed"])
async def test_what_this_node_mirrors_is_not_withheld_either(tmp_path, node, first):
    async with publisher(tmp_path, "other") as other, publisher(tmp_path, "thief") as thief:
        manifest, data = await manifest_of(other, tmp_path)
        ids = arrive(node, tmp_path, data)
        if first == "attested":
            attest(node, manifest)
        await claim(node, thief, data)
        if first == "claimed":
            attest(node, manifest)

        assert is_for_all(node, ids)


async def test_a_hash_that_only_such_a_claim_names_is_asked_of_all(tmp_path, node):
    async with publisher(tmp_path, "other") as other, serving(other) as address, publisher(tmp_path, "thief") as thief:
        manifest, data = await manifest_of(other, tmp_path)
        node.store.peers.add(address)
        await claim(node, thief, data)

        assert len(await peers_about(node, [manifest])) == 1


@pytest.mark.parametrize("how", ["named", "followed", "followed before"])
async def test_what_the_owner_asked_for_is_not_made_public_by_a_thief(tmp_path, node, how):
    async with publisher(tmp_path, "other") as other, publisher(tmp_path, "thief") as thief:
        manifest, data = await manifest_of(other, tmp_path, visibility="private")
        stolen = thief.store.manifests.add(data)
        await publish_revision(thief, "stolen", "main", stolen, ignore, version=None)
        hear_publicly(node, thief)
        if how == "followed before":
            node.following.change(lambda old: replace(old, followed=(str(own_identity(other).namespace),)))
        repository = await let_in(node, other, "model")
        if how == "named":
            await resolve(node, str(repository), ignore, refresh=False)
        if how == "followed":
            node.following.change(lambda old: replace(old, followed=(str(own_identity(other).namespace),)))
            await resolve(node, str(repository), ignore, refresh=False)
        ids = arrive(node, tmp_path, data)

        assert not is_for_all(node, ids)
        assert await peers_about(node, [manifest]) == []
        # Nor by one who lets this node in, so that he may read it.
        await claim(node, thief, data)
        mine = Caller(None, frozenset({own_identity(thief).namespace}))
        assert node.access.withheld(mine, ids) == set(ids)
        friend = Caller(None, frozenset({own_identity(other).namespace}))
        assert node.access.withheld(friend, ids) == set()


async def test_who_claims_what_others_keep_private_and_publishes_it_too_makes_nothing_public(tmp_path, node):
    async with publisher(tmp_path, "thief") as thief:
        _, data = await manifest_of(node, tmp_path, visibility="private")
        await claim(node, thief, data)
        await publish_revision(thief, "stolen", "main", thief.store.manifests.add(data), ignore, version=None)
        hear_publicly(node, thief)

        assert not is_for_all(node, arrive(node, tmp_path, data))


async def test_what_nobody_publishes_stays_private_though_nobody_asked_for_it(tmp_path, node):
    async with publisher(tmp_path, "other") as other:
        _, data = await manifest_of(other, tmp_path, visibility="private")
        await let_in(node, other, "model")

        assert not is_for_all(node, arrive(node, tmp_path, data))


@pytest.mark.parametrize("asked", [True, False])
async def test_a_lost_index_does_not_forget_what_was_asked_for(tmp_path, asked):
    async with publisher(tmp_path, "home") as node, publisher(tmp_path, "other") as other:
        await manifest_of(other, tmp_path, visibility="private")
        repository = await let_in(node, other, "model")
        if asked:
            node.store.private.ask_for(repository)
        store = node.settings.layout.store

    with Store(Layout(tmp_path / "second", store)) as again:
        assert again.private.repositories() == [repository]
        assert (repository in again.private.unasked()) == (not asked)
