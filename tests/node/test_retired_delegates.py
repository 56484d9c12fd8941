"""A key that a publisher retired acts for him no more where he is let in, though this node keeps no identity of him."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from authoritykit import publisher_home, rotated
from test_private_repositories import publish_secret

from p2phub.core.access import Caller
from p2phub.core.delegation import open_delegation, sign_delegation
from p2phub.core.identity import Identity, open_identity
from p2phub.core.ids import NodeId
from p2phub.core.signing import SigningKey
from p2phub.node import authority as module
from p2phub.node import granting
from p2phub.node.calling import call_peer
from p2phub.node.identity import own_identity, own_publisher
from p2phub.node.node import Node
from p2phub.node.privatelogs import pull_private
from p2phub.protocol.messages import IdentityChain, SessionAnswer, SessionQuery
from p2phub.testing import values
from p2phub.testing.hostile import open_home, serving

pytestmark = pytest.mark.timeout(60)

GOOD, THIEF = (NodeId(values.key(name).public_key) for name in ("good node", "thief's node"))


@dataclass
class Friend:
    """Who is let in: his first identity document, the second, and the keys that publish by each."""

    before: Identity
    after: Identity
    stolen: SigningKey
    fresh: SigningKey

    async def shows(self, node: Node) -> SessionAnswer:
        return await begin(node, GOOD, self.after, self.fresh)

    async def is_robbed(self, node: Node) -> SessionAnswer:
        return await begin(node, THIEF, self.before, self.stolen)


async def begin(node: Node, asker: NodeId, identity: Identity, key: SigningKey) -> SessionAnswer:
    data = sign_delegation(identity.namespace, asker, key, now=int(node.clock()), ttl_s=9999)
    query = SessionQuery((data,), (IdentityChain(identity.chain),))
    return await node.authority.open_session(asker, query, "192.0.2.1")


@pytest.fixture
async def friend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Friend]:
    monkeypatch.setattr(module, "CHECK_S", -1.0)
    async with publisher_home(tmp_path / "friend") as (home, _):
        stolen = own_publisher(home)[1]
        assert isinstance(stolen, SigningKey)
        after = rotated(home)
        yield Friend(own_identity(home), open_identity(after.chain), stolen, values.key("new"))


async def test_what_a_friend_retired_acts_no_more_for_him_also_after_a_restart(tmp_path: Path, friend: Friend) -> None:
    async with publisher_home(tmp_path / "node") as (node, _):
        await publish_secret(node, tmp_path)
        await granting.grant(node, "secret", str(friend.after.namespace), None)
        assert (await friend.shows(node)).namespaces == (friend.after.namespace,)

        answer = await friend.is_robbed(node)
        assert answer.namespaces == ()
        assert "does not publish" in answer.refused[0]
        # And nobody is told that he is known here.
        assert node.store.logs.identity(friend.after.namespace) is None
    async with open_home(tmp_path / "node") as node:
        assert (await friend.is_robbed(node)).namespaces == ()


async def test_a_session_by_a_retired_key_ends_once_the_friend_shows_his_newer_identity(
    tmp_path: Path, friend: Friend
) -> None:
    async with publisher_home(tmp_path / "node") as (node, _):
        thief = Caller(THIEF, frozenset({friend.after.namespace}))
        await friend.is_robbed(node)
        assert await node.authority.still(thief) == thief

        await friend.shows(node)
        assert await node.authority.still(thief) == Caller(THIEF)


async def test_what_a_friend_had_shown_counts_when_he_is_let_in_later(tmp_path: Path, friend: Friend) -> None:
    async with publisher_home(tmp_path / "node") as (node, _):
        await publish_secret(node, tmp_path)
        await friend.shows(node)
        assert node.store.publishing.get(friend.after.namespace) is None

        await granting.grant(node, "secret", str(friend.after.namespace), None)
    async with open_home(tmp_path / "node") as node:
        assert (await friend.is_robbed(node)).namespaces == ()


@pytest.mark.parametrize("has_shown", [True, False])
async def test_whom_one_asks_proves_no_more_by_a_retired_key(tmp_path: Path, friend: Friend, has_shown: bool) -> None:
    """Who is called and says for whom he acts is told of what is private."""
    async with (
        publisher_home(tmp_path / "node") as (node, _),
        open_home(tmp_path / "thief") as thief,
        serving(thief) as address,
    ):
        await publish_secret(node, tmp_path)
        await granting.grant(node, "secret", str(friend.after.namespace), None)
        if has_shown:
            await friend.shows(node)
        data = sign_delegation(friend.before.namespace, thief.id, friend.stolen, now=int(node.clock()), ttl_s=9999)
        thief.store.logs.add_identity(friend.before)
        thief.store.delegations.keep(open_delegation(data, now=node.clock()), data)
        node.store.peers.add(address)

        async with call_peer(node, node.store.peers.all()[0]) as client:
            await pull_private(node, client)
        acts_for = node.acting.caller(thief.id, node.clock()).namespaces
        assert (friend.before.namespace in acts_for) is not has_shown
