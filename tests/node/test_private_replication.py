"""Private repositories travel between those who may read them, and nobody else hears a word of them."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from p2phub.core.errors import HubError, NotFound
from p2phub.core.ids import ManifestId, NamespaceId
from p2phub.core.names import Address
from p2phub.core.search import Query
from p2phub.net.door import Request, Response
from p2phub.node import granting, grants, inspect, replicate, tendprivate, whohas
from p2phub.node.branches import move_branch, yank
from p2phub.node.calling import call_peer
from p2phub.node.events import ignore
from p2phub.node.explain import swarm_info
from p2phub.node.fetch import fetch
from p2phub.node.identity import create_identity, own_identity
from p2phub.node.node import Node
from p2phub.node.publish import publish
from p2phub.node.syncing import sync_all
from p2phub.node.verify import verify
from p2phub.testing.hostile import open_home, serving, wait_for
from p2phub.testing.together import replicating

pytestmark = pytest.mark.timeout(120)

TEXT = "nobody else may know this, " * 4000


@dataclass
class Member:
    """A node of this process that serves, with all that it is asked."""

    node: Node
    address: Address
    asked: list[Request] = field(default_factory=list)
    told: list[Response] = field(default_factory=list)

    @property
    def namespace(self) -> NamespaceId:
        return own_identity(self.node).namespace

    def knows(self, *others: Member) -> None:
        for other in others:
            self.node.store.peers.add(other.address)


@asynccontextmanager
async def members(tmp_path: Path, *names: str) -> AsyncIterator[list[Member]]:
    """Give serving nodes, each of a publisher of its own."""
    async with AsyncExitStack() as stack:
        found = []
        for name in names:
            node = await stack.enter_async_context(open_home(tmp_path / name))
            create_identity(node)
            asked: list[Request] = []
            told: list[Response] = []

            def noting(handler, asked=asked, told=told):
                async def answer(request: Request) -> Response:
                    asked.append(request)
                    response = await handler(request)
                    told.append(response)
                    return response

                return answer

            address = await stack.enter_async_context(serving(node, wrap=noting))
            found.append(Member(node, address, asked, told))
        yield found


async def publish_secret(member: Member, tmp_path: Path, name: str = "secret-parrot@1.0.0", text: str = TEXT) -> str:
    folder = tmp_path / f"folder-{name}"
    folder.mkdir(exist_ok=True)
    (folder / "confidential.txt").write_text(text)
    (folder / "README.md").write_text(f"# {name} confidential card\n")
    return (await publish(member.node, folder, name, ignore, visibility="private")).revision


async def fetched(member: Member, name: str, tmp_path: Path) -> bool:
    """Say whether a node gets a repository."""
    try:
        await fetch(member.node, name, ignore, check_out_files=False)
    except HubError:
        return False
    return True


def secrets_of(node: Node) -> Iterator[tuple[str, bytes]]:
    """Give all that nobody else may see of the private repositories here, in every form it may be written in."""
    for private in node.store.private.logs():
        yield "name", private.repository.model.encode()
        yield "secret", private.secret
        ids = [("log", bytes(private.state.log))]
        with node.store.database.read() as connection:
            rows = connection.execute("SELECT id FROM private_ids").fetchall()
        ids += [("id", row["id"]) for row in rows]
        for what, each in ids:
            yield f"{what} as bytes", each
            yield f"{what} as hex", each.hex().encode()
            yield f"{what} as base32", base64.b32encode(each).rstrip(b"=").lower()
    yield "content", TEXT[:30].encode()
    yield "path", b"confidential"


def leaks(member: Member, secrets: list[tuple[str, bytes]]) -> list[str]:
    """Return what of private repositories a node was asked or told."""
    texts = [f"{request.path}?{request.query}".encode() + request.body for request in member.asked]
    texts += [repr(request.headers).encode() for request in member.asked]
    return [what for what, secret in secrets for text in texts if secret in text]


# ── to whom it comes ────────────────────────────────────────────────────────


async def test_who_was_let_in_finds_and_fetches_it_and_nobody_else_does(tmp_path):
    async with members(tmp_path, "publisher", "friend", "stranger") as (publisher, friend, stranger):
        revision = await publish_secret(publisher, tmp_path)
        await granting.grant(publisher.node, "secret-parrot", str(friend.namespace), None)
        name = f"{publisher.namespace}/secret-parrot"
        for each in (friend, stranger):
            each.knows(publisher)
            assert await sync_all(each.node, timeout_s=30) == []

        assert await fetched(friend, name, tmp_path)
        assert (await inspect.info(friend.node, name, ignore, refresh=False)).revision == revision
        assert not await fetched(stranger, name, tmp_path)
        assert not await fetched(stranger, revision, tmp_path)
        with pytest.raises(NotFound):
            await inspect.info(stranger.node, name, ignore, refresh=True)
        assert friend.node.store.private.repositories() == publisher.node.store.private.repositories()
        assert stranger.node.store.private.repositories() == []


async def test_who_was_let_in_gives_it_to_others_who_were(tmp_path):
    async with members(tmp_path, "friend", "other") as (friend, other):
        async with members(tmp_path, "publisher") as (publisher,):
            await publish_secret(publisher, tmp_path)
            for each in (friend, other):
                await granting.grant(publisher.node, "secret-parrot", str(each.namespace), None)
            name = f"{publisher.namespace}/secret-parrot"
            friend.knows(publisher)
            assert await fetched(friend, name, tmp_path)
        # The publisher is gone.
        other.knows(friend)

        assert await fetched(other, name, tmp_path)


async def test_one_node_alone_can_be_let_in(tmp_path):
    async with members(tmp_path, "publisher", "friend") as (publisher, friend):
        await publish_secret(publisher, tmp_path)
        name = f"{publisher.namespace}/secret-parrot"
        friend.knows(publisher)
        assert not await fetched(friend, name, tmp_path)
        await granting.grant(publisher.node, "secret-parrot", f"node:{friend.node.id}", 3)

        assert await fetched(friend, name, tmp_path)


async def test_a_second_machine_of_the_publisher_has_it_too(tmp_path):
    from p2phub.node.introduce import delegate

    async with members(tmp_path, "publisher", "laptop") as (publisher, laptop):
        await publish_secret(publisher, tmp_path)
        identity, data = delegate(publisher.node, laptop.node.id, 3600)
        laptop.node.store.logs.add_identity(identity)
        from p2phub.core.delegation import open_delegation

        laptop.node.store.delegations.keep(open_delegation(data, now=laptop.node.clock()), data)
        laptop.knows(publisher)

        assert await fetched(laptop, f"{publisher.namespace}/secret-parrot", tmp_path)


# ── at once ─────────────────────────────────────────────────────────────────


async def test_news_of_a_private_log_reach_those_let_in_at_once(tmp_path, monkeypatch):
    # Far longer than the test: only what is told is quick.
    monkeypatch.setattr(replicate, "PULL_INTERVAL_S", 600.0)
    monkeypatch.setattr(tendprivate, "TEND_S", 600.0)
    async with members(tmp_path, "publisher", "friend", "stranger") as (publisher, friend, stranger):
        await publish_secret(publisher, tmp_path)
        await granting.grant(publisher.node, "secret-parrot", str(friend.namespace), None)
        for each in (friend, stranger):
            each.knows(publisher)
            await sync_all(each.node, timeout_s=30)
        name = f"{publisher.namespace}/secret-parrot"
        second = await publish_secret(publisher, tmp_path, "secret-parrot@2.0.0", "more of it")
        await move_branch(publisher.node, "secret-parrot", "main", "1.0.0", "back", ignore)
        await yank(publisher.node, "secret-parrot@2.0.0", "bad", ignore)

        assert (await inspect.info(friend.node, f"{name}@2.0.0", ignore, refresh=False)).revision == second
        lines = await inspect.log_lines(friend.node, name)
        assert [line.type for line in lines[:3]] == ["yank", "branch", "publish"]
        assert not [request for request in stranger.asked if request.path.startswith("/v1/private")]


async def test_what_is_taken_back_is_taken_back_at_every_holder_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(replicate, "PULL_INTERVAL_S", 600.0)
    monkeypatch.setattr(tendprivate, "TEND_S", 600.0)
    async with members(tmp_path, "publisher", "friend", "former") as (publisher, friend, former):
        await publish_secret(publisher, tmp_path)
        name = f"{publisher.namespace}/secret-parrot"
        for each in (friend, former):
            await granting.grant(publisher.node, "secret-parrot", str(each.namespace), None)
        friend.knows(publisher)
        assert await fetched(friend, name, tmp_path)
        former.knows(friend)
        await sync_all(former.node, timeout_s=30)
        await granting.revoke(publisher.node, "secret-parrot", str(former.namespace), "")

        assert not await fetched(former, name, tmp_path)
        # It is not told either that it lost it, nor what comes after.
        assert [line.type for line in await inspect.log_lines(former.node, name)] == ["grant", "grant", "publish"]
        assert (await inspect.log_lines(friend.node, name))[0].type == "ungrant"


async def test_who_was_met_before_is_told_that_it_is_let_in(tmp_path):
    async with members(tmp_path, "publisher", "friend") as (publisher, friend):
        friend.knows(publisher)
        # Nothing is private yet.
        await sync_all(friend.node, timeout_s=30)
        await publish_secret(publisher, tmp_path)
        await granting.grant(publisher.node, "secret-parrot", str(friend.namespace), None)

        assert friend.node.store.private.repositories() == publisher.node.store.private.repositories()


async def test_who_is_told_tells_the_others_that_it_knows(tmp_path):
    async with members(tmp_path, "publisher", "friend", "far") as (publisher, friend, far):
        await publish_secret(publisher, tmp_path)
        for each in (friend, far):
            await granting.grant(publisher.node, "secret-parrot", str(each.namespace), None)
        friend.knows(publisher)
        await sync_all(friend.node, timeout_s=30)
        far.knows(friend)
        await sync_all(far.node, timeout_s=30)
        # The publisher knows one of them alone.
        publisher.node.store.peers.remove(far.node.id)
        await publish_secret(publisher, tmp_path, "secret-parrot@2.0.0", "more of it")

        async def arrived() -> bool:
            return far.node.store.logs.state(far.node.store.private.logs()[0].state.log, private=True).size == 4

        await wait_for(arrived, "the news to be told on")


async def test_a_node_that_serves_renews_what_it_granted(tmp_path):
    async with members(tmp_path, "publisher", "friend") as (publisher, friend):
        await publish_secret(publisher, tmp_path)
        await granting.grant(publisher.node, "secret-parrot", str(friend.namespace), None)
        begun = publisher.node.clock()
        publisher.node.clock = lambda: begun + 20 * grants.DAY_S
        async with replicating(publisher.node):

            async def renewed() -> bool:
                (shown,) = await granting.show(publisher.node, None)
                return shown.grants[0].until > begun + 45 * grants.DAY_S

            await wait_for(renewed, "the grant to be renewed")


# ── nobody else hears of it ─────────────────────────────────────────────────


async def test_outsiders_are_asked_and_told_nothing_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(replicate, "PULL_INTERVAL_S", 0.5)
    monkeypatch.setattr(tendprivate, "TEND_S", 0.5)
    async with members(tmp_path, "publisher", "friend", "outsider") as (publisher, friend, outsider):
        for each in (publisher, friend, outsider):
            each.knows(*(other for other in (publisher, friend, outsider) if other is not each))
        async with replicating(publisher.node, friend.node, outsider.node):
            revision = await publish_secret(publisher, tmp_path)
            await granting.grant(publisher.node, "secret-parrot", str(friend.namespace), None)
            name = f"{publisher.namespace}/secret-parrot"
            for each in (publisher, friend):
                await inspect.info(each.node, name, ignore, refresh=True)
                await fetch(each.node, name, ignore, dry_run=True)
                await swarm_info(each.node, name, ignore)
                await whohas.providers(each.node, name, ignore)
            await fetch(friend.node, name, ignore, to=tmp_path / "copy")
            damaged = next(path for path in (tmp_path / "friend" / "store").glob("objects/??/*")
                           if path.stat().st_size == len(TEXT))  # fmt: skip
            damaged.chmod(0o644)
            damaged.write_bytes(b"x" * len(TEXT))
            assert (await verify(friend.node, name, ignore, repair=True)).damaged
            await fetch(friend.node, revision, ignore, check_out_files=False)
            await publish_secret(publisher, tmp_path, "secret-parrot@2.0.0", "more of it")
            await granting.revoke(publisher.node, "secret-parrot", str(friend.namespace), "parted")
            with pytest.raises(HubError):
                await inspect.info(friend.node, f"{name}@2.0.0", ignore, refresh=True)
            await inspect.search(outsider.node, Query(limit=100))
            await trio.sleep(1.5)
        paths = {request.path for request in outsider.asked}
        secrets = list(secrets_of(publisher.node))

        assert {"/v1/talk", "/v1/reconcile", "/v1/private/heads"} <= paths
        assert len(secrets) > 20
        assert leaks(outsider, secrets) == []
        # It can fail: who may hear of it does.
        assert {"id as bytes", "secret", "name"} <= set(leaks(friend, secrets))
        _check_store(outsider.node, secrets)


def _check_store(node: Node, secrets: list[tuple[str, bytes]]) -> None:
    """Check that nothing of it lies in a home."""
    for path in node.settings.layout.home.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert [what for what, secret in secrets if secret in data] == [], path


async def test_a_stranger_cannot_fill_a_node_with_private_logs_that_are_not_for_it(tmp_path):
    async with members(tmp_path, "publisher", "other") as (publisher, other):
        await publish_secret(publisher, tmp_path)
        publisher.knows(other)
        (private,) = publisher.node.store.private.logs()
        from p2phub.node.introduce import introduce
        from p2phub.node.privatenews import _compose

        peer = publisher.node.store.peers.get(other.node.id)
        async with call_peer(publisher.node, peer) as client:
            await introduce(publisher.node, client)
            answer = await client.private_news(_compose(publisher.node, private, 0))

        assert answer.size == 0
        assert other.node.store.private.repositories() == []
        assert other.node.store.logs.identity(publisher.namespace) is None


async def test_whom_one_deals_with_privately_is_not_told(tmp_path):
    async with members(tmp_path, "publisher", "friend", "stranger") as (publisher, friend, stranger):
        await publish_secret(publisher, tmp_path)
        await granting.grant(publisher.node, "secret-parrot", str(friend.namespace), None)
        friend.knows(publisher)
        await sync_all(friend.node, timeout_s=30)
        friend.knows(stranger)
        assert await fetched(friend, f"{publisher.namespace}/secret-parrot", tmp_path)
        stranger.knows(friend)

        async def told(asker: Member) -> bool:
            peer = asker.node.store.peers.get(friend.node.id)
            assert peer is not None
            async with call_peer(asker.node, peer) as client:
                return (await client.identities([publisher.namespace]))[0] is not None

        assert not await told(stranger)
        assert not [request for request in stranger.asked if bytes(publisher.namespace) in request.body]
        # Of whom something public is known all may know.
        await publish(publisher.node, tmp_path / "folder-secret-parrot@1.0.0", "open", ignore)
        await sync_all(friend.node, timeout_s=30)
        assert await told(stranger)


async def test_a_manifest_of_a_private_repository_is_kept_from_those_who_ask_for_it_first(tmp_path):
    async with members(tmp_path, "publisher", "friend", "thief") as (publisher, friend, thief):
        revision = await publish_secret(publisher, tmp_path)
        await granting.grant(publisher.node, "secret-parrot", str(friend.namespace), None)
        friend.knows(publisher)
        assert await fetched(friend, f"{publisher.namespace}/secret-parrot", tmp_path)
        thief.knows(friend, publisher)
        known = friend.node.store.manifests.get(ManifestId.parse(revision))
        assert known is not None

        for reference in (revision, *(str(file.root) for file in known.files)):
            assert not await fetched(thief, reference, tmp_path)
