"""What is told of private logs: nobody learns by it what is here, and nobody fills a node with it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from p2phub.core import merkle
from p2phub.core.access import Caller
from p2phub.core.checkpoint import sign_head
from p2phub.core.encoding import encode
from p2phub.core.identity import Identity
from p2phub.core.ids import NamespaceId, NodeId
from p2phub.core.private import PrivateHead
from p2phub.core.records import Grant, Record, Ungrant, Yank, sign_record
from p2phub.core.signing import SigningKey
from p2phub.net.door import Request
from p2phub.node import privatelogs, unasked
from p2phub.node.identity import create_identity
from p2phub.node.node import Node
from p2phub.node.privatelogs import take_news
from p2phub.node.serve import PeerDoor
from p2phub.protocol.messages import IdentityChain, LogRange
from p2phub.protocol.privatetalk import PrivateHeads, PrivateHeadsQuery, PrivateNews, PrivateTaken
from p2phub.protocol.tokens import Allowance, Tokens
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


class Flooding:
    """A peer that has as many private logs as it likes."""

    def __init__(self, name: str, count: int, node: Node, *, publishers: int = 1, host: str = "192.0.2.9") -> None:
        self.node = NodeId(key(name).public_key)
        self.host = host
        self._publishers = {identity(each).namespace: identity(each) for each in _names(name, publishers)}
        made = [
            log_of(identity(each), key(each), node, f"m{number}")
            for number in range(count)
            for each in _names(name, publishers)
        ]
        self._news = dict(sorted((news.log.log, news) for news in made))

    async def private_heads(self, query: PrivateHeadsQuery) -> PrivateHeads:
        return PrivateHeads(tuple(news.log for log, news in self._news.items() if log > (query.after or b"")))

    async def private_records(self, ranges: Sequence[LogRange]) -> list[tuple[bytes, ...]]:
        return [self._news[ranges[0].log].entries]

    async def identities(self, namespaces: Sequence[NamespaceId]) -> list[IdentityChain]:
        return [IdentityChain(self._publishers[namespaces[0]].chain)]


def _names(name: str, publishers: int) -> list[str]:
    return [f"{name} {number}" for number in range(publishers)]


@pytest.fixture
def pulled(node: Node, monkeypatch: pytest.MonkeyPatch) -> Callable[[Flooding], Awaitable[int]]:
    async def introduce(node: Node, client: Flooding) -> None:
        pass

    monkeypatch.setattr(privatelogs, "introduce", introduce)

    async def pull(peer: Flooding) -> int:
        return len(await privatelogs.pull_private(node, peer))  # type: ignore[arg-type]

    return pull


@pytest.mark.parametrize("of", ["new_logs", "new_logs_of_network"])
async def test_a_peer_that_is_pulled_from_brings_no_more_new_logs_than_one_that_tells(node, pulled, of):
    limits = node.neighbours.limits
    setattr(limits, of, Tokens(Allowance(burst=7, rate=1e-6)))
    peer = Flooding("flood", 3, node, publishers=5)
    same = Flooding("same network", 3, node)
    other = Flooding("other network", 3, node, host="198.51.100.1")

    assert await pulled(peer) == 7
    assert await pulled(peer) == 0
    assert await pulled(same) == (3 if of == "new_logs" else 0)
    assert await pulled(other) == 3


async def test_a_publisher_who_was_not_asked_for_has_room_for_few_logs(node, pulled, monkeypatch):
    monkeypatch.setattr(unasked, "LOGS_OF_PUBLISHER_MAX", 5)
    monkeypatch.setattr(unasked, "LOGS_MAX", 8)
    first, second = Flooding("first", 7, node), Flooding("second", 7, node)

    assert [await pulled(first), await pulled(second)] == [5, 3]
    news = log_of(identity("third"), key("third"), node, "told")
    assert not take_news(node, STRANGER, news, may_begin=True).is_new
    # Whom the owner follows has room.
    node.following.change(lambda old: replace(old, followed=(str(identity("second 0").namespace),)))
    assert await pulled(second) == 4
    # What was here of him counts as asked for now, and no more as unasked.
    unasked.ask_for_wanted(node)
    assert sum(node.store.private.unasked().values()) == 5


@pytest.mark.parametrize("limit", ["RECORDS_MAX", "SIZE_MAX"])
async def test_a_log_that_was_not_asked_for_has_room_for_few_records(node, monkeypatch, limit):
    friend = identity("friend")
    whole = log_of(friend, key("friend"), node, "hush", yanks=9)
    lengths = [len(data) for data in whole.entries]
    monkeypatch.setattr(unasked, limit, 6 if limit == "RECORDS_MAX" else sum(lengths[:6]))

    def told(start: int, end: int) -> int:
        part = replace(whole, start=start, entries=whole.entries[start:end])
        return take_news(node, STRANGER, part, may_begin=True).count

    assert told(0, 7) == 0
    assert told(0, 4) == 4
    assert told(4, 7) == 0
    assert told(4, 6) == 2
    (repository,) = node.store.private.repositories()
    unasked.ask_for(node, repository)
    assert told(6, 10) == 4


async def test_who_tells_too_much_of_private_logs_is_told_to_wait(node, nursery):
    door = PeerDoor(node, nursery)

    async def as_it_is(request: Request) -> Request:
        return request

    door._node.authority.identify = as_it_is  # type: ignore[method-assign]
    body = encode(replace(log_of(identity("friend"), key("friend"), node, "hush"), entries=(b"x",) * 500))

    async def told(caller: Caller) -> int:
        request = Request("POST", "/v1/private/news", {}, body, "192.0.2.1", caller=caller)
        return (await door.handle(request)).status

    answers = [await told(STRANGER) for _ in range(14)]
    assert answers[:11] == [200] * 11
    assert answers[-1] == 429
    assert await told(Caller(NodeId(key("another node").public_key))) == 200
