"""What is told of private logs: nobody learns by it what is here, and nobody fills a node with it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from p2phub.core import merkle
from p2phub.core.access import Caller
from p2phub.core.checkpoint import sign_head
from p2phub.core.identity import Identity
from p2phub.core.ids import NodeId
from p2phub.core.private import PrivateHead
from p2phub.core.records import Grant, Record, Ungrant, Yank, sign_record
from p2phub.core.signing import SigningKey
from p2phub.node.identity import create_identity
from p2phub.node.node import Node
from p2phub.node.privatelogs import take_news
from p2phub.protocol.messages import IdentityChain
from p2phub.protocol.privatetalk import PrivateNews, PrivateTaken
from p2phub.testing.hostile import open_home
from p2phub.testing.values import identity, key

pytestmark = pytest.mark.timeout(60)

STRANGER = Caller(NodeId(key("stranger's node").public_key))


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with open_home(tmp_path / "home") as node:
        create_identity(node)
        yield node


def log_of(
    publisher: Identity, by: SigningKey, node: Node, model: str, *, yanks: int = 0, grant: bool = True, version: int = 1
) -> PrivateNews:
    """Return news of a new private log that `by` signed, which lets a node in."""
    empty = PrivateHead(publisher.namespace, version, by.public_key, os.urandom(32), b"")
    now = int(node.clock())
    made: list[Record] = []
    base = {"namespace": publisher.namespace, "log": empty.log, "previous": bytes(32), "time": now, "model": model}
    if grant:
        made.append(Grant(**base, index=0, to=bytes(node.id), to_kind="node", until=now + 1000))
    else:
        made.append(Ungrant(**base, index=0, to=bytes(32), to_kind="node"))
    entries = [sign_record(made[0], by)]
    for index in range(1, yanks + 1):
        record = Yank(**{**base, "previous": entries[-1].leaf}, index=index, version=f"1.0.{index}")
        entries.append(sign_record(record, by))
    root = merkle.root(merkle.LOG_TREE, [entry.leaf for entry in entries])
    head = sign_head(empty.log, len(entries), root, by)
    told = replace(empty, head=head.text)
    return PrivateNews(told, 0, tuple(entry.data for entry in entries), IdentityChain(publisher.chain))


def taken(node: Node, news: PrivateNews) -> PrivateTaken:
    return take_news(node, STRANGER, news, may_begin=True).answer


async def test_made_up_news_do_not_tell_what_a_node_was_let_into(node):
    friend, thief = identity("friend"), key("thief")
    take_news(node, STRANGER, log_of(friend, key("friend"), node, "hush"), may_begin=True)
    assert [each.model for each in node.store.private.repositories()] == ["hush"]

    def made_up(publisher: Identity, model: str, **how: object) -> list[PrivateTaken]:
        news = log_of(publisher, thief, node, model, grant=False, **how)  # type: ignore[arg-type]
        foreign, own = IdentityChain(identity("stranger").chain), IdentityChain(publisher.chain)
        entry = news.entries[0]
        bad = (entry[:-1] + bytes([entry[-1] ^ 1]),)
        shapes = [replace(news, identity=each) for each in (foreign, own, None)]
        return [taken(node, each) for each in [*shapes, replace(news, entries=bad), replace(news, entries=())]]

    expected = [PrivateTaken(0)] * 5
    for publisher in (friend, identity("stranger")):
        for model in ("hush", "other"):
            for version in (1, 1000):
                assert made_up(publisher, model, version=version) == expected
    assert len(node.store.private.logs()) == 1
