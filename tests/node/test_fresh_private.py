"""Statements and witnesses leave private repositories alone: nobody is asked about them, and no policy wants it."""

from __future__ import annotations

import pytest
from test_private_replication import fetched, members, publish_secret

from p2phub.node import granting, inspect
from p2phub.node.calling import call_peer
from p2phub.node.events import Notice, ignore
from p2phub.node.fresh import learn_of_interest
from p2phub.node.publish import publish
from p2phub.node.syncing import sync_all
from p2phub.node.why import why
from p2phub.testing.c2sp import LIVE_WITNESS_KEY

pytestmark = pytest.mark.timeout(120)


async def test_strangers_are_asked_nothing_about_the_publisher_of_a_private_repository(tmp_path):
    async with members(tmp_path, "publisher", "friend", "stranger") as (publisher, friend, stranger):
        await publish_secret(publisher, tmp_path)
        await granting.grant(publisher.node, "secret-parrot", str(friend.namespace), None)
        name = f"{publisher.namespace}/secret-parrot"
        friend.knows(publisher)
        await sync_all(friend.node, timeout_s=30)
        assert await fetched(friend, name, tmp_path)
        friend.knows(stranger)
        stranger.asked.clear()

        async def look(what: str) -> bool:
            """Say whether the stranger is asked what the publisher stated, when the friend looks at `what`."""
            await inspect.info(friend.node, what, ignore, refresh=True)
            async with call_peer(friend.node, friend.node.store.peers.get(stranger.node.id)) as client:
                await learn_of_interest(friend.node, client)
            return any(request.path == "/v1/fresh" for request in stranger.asked)

        assert not await look(name)
        (tmp_path / "public").mkdir()
        (tmp_path / "public" / "README.md").write_text("# Public\n")
        await publish(publisher.node, tmp_path / "public", "public", ignore)
        await sync_all(friend.node, timeout_s=30)
        assert await look(f"{publisher.namespace}/public")


async def test_no_policy_wants_witnesses_or_statements_of_what_is_private(tmp_path):
    async with members(tmp_path, "publisher", "friend") as (publisher, friend):
        await publish_secret(publisher, tmp_path)
        await granting.grant(publisher.node, "secret-parrot", str(friend.namespace), None)
        name = f"{publisher.namespace}/secret-parrot"
        friend.knows(publisher)
        await sync_all(friend.node, timeout_s=30)
        policy = f"[fresh]\nmax_age_days = 1\n[witnesses]\nneed = 1\nkeys = ['{LIVE_WITNESS_KEY}']\n"
        (tmp_path / "friend" / "policy.toml").write_text(policy)

        said = []
        await inspect.info(friend.node, name, said.append, refresh=True)
        assert [event.text for event in said if isinstance(event, Notice)] == []
        assert await fetched(friend, name, tmp_path)
        verdicts = {reason.about: reason.verdict for reason in await why(friend.node, name, ignore)}
        assert (verdicts["newest"], verdicts["witness"]) == ("off", "off")
