"""What is told of private logs: nobody learns by it what is here, and nobody fills a node with it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from pathlib import Path

import cbor2
import pytest
from msgspec.structs import replace

from p2phub.core import merkle
from p2phub.core.access import Caller
from p2phub.core.checkpoint import sign_head
from p2phub.core.encoding import decode, encode
from p2phub.core.envelope import ENVELOPE_SIZE_MAX, Envelope
from p2phub.core.errors import PeerViolation
from p2phub.core.identity import Identity, Role, next_document, open_identity, sign_document
from p2phub.core.ids import NamespaceId, NodeId
from p2phub.core.merkle import LOG_TREE
from p2phub.core.private import PrivateHead
from p2phub.core.records import PURPOSE, Grant, Record, Ungrant, Yank, sign_record
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
    root = merkle.root(LOG_TREE, [entry.leaf for entry in entries])
    head = sign_head(empty.log, len(entries), root, by)
    told = replace(empty, head=head.text)
    return PrivateNews(told, 0, tuple(entry.data for entry in entries), IdentityChain(publisher.chain))


def next_identity(before: Identity, signer: str, **fields: object) -> Identity:
    document = replace(next_document(before, created=before.current.created), **fields)
    return open_identity([*before.chain, sign_document(document, [key(signer)])])


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


async def test_what_nobody_signed_behind_what_a_publisher_did_tells_nothing_of_what_a_node_was_let_into(node):
    friend = identity("friend")
    taken(node, log_of(friend, key("friend"), node, "hush"))
    # Whoever may read this log can show it to us, and write on.
    other = log_of(friend, key("friend"), node, "others", grant=False)
    made_up = log_of(friend, key("thief"), node, "hush", yanks=1).entries[1]
    news = replace(other, entries=(*other.entries, made_up))

    assert not take_news(node, STRANGER, news, may_begin=True).is_new
    assert [each.model for each in node.store.private.repositories()] == ["hush"]


class Telling:
    """A peer that has some private logs."""

    def __init__(
        self, name: str, news: Iterable[PrivateNews], publishers: Iterable[Identity], *, host: str = "192.0.2.9"
    ) -> None:
        self.node = NodeId(key(name).public_key)
        self.host = host
        self._chains = {each.namespace: IdentityChain(each.chain) for each in publishers}
        self._news = dict(sorted((each.log.log, each) for each in news))

    async def private_heads(self, query: PrivateHeadsQuery) -> PrivateHeads:
        return PrivateHeads(tuple(news.log for log, news in self._news.items() if log > (query.after or b"")))

    async def private_records(self, ranges: Sequence[LogRange]) -> list[tuple[bytes, ...]]:
        (asked,) = ranges
        return [self._news[asked.log].entries[asked.start : asked.start + asked.count]]

    async def identities(self, namespaces: Sequence[NamespaceId]) -> list[IdentityChain]:
        return [self._chains[namespaces[0]]]


def flooding(name: str, count: int, node: Node, *, publishers: int = 1, host: str = "192.0.2.9") -> Telling:
    """Return a peer that has as many private logs as it likes: `count` of each of its publishers."""
    names = [f"{name} {number}" for number in range(publishers)]
    news = [log_of(identity(each), key(each), node, f"m{number}") for number in range(count) for each in names]
    return Telling(name, news, map(identity, names), host=host)


@pytest.fixture
def pulled(node: Node, monkeypatch: pytest.MonkeyPatch) -> Callable[[Telling], Awaitable[int]]:
    async def introduce(node: Node, client: Telling) -> None:
        pass

    monkeypatch.setattr(privatelogs, "introduce", introduce)

    async def pull(peer: Telling) -> int:
        return len(await privatelogs.pull_private(node, peer))  # type: ignore[arg-type]

    return pull


@pytest.mark.parametrize("of", ["new_logs", "new_logs_of_network"])
async def test_a_peer_that_is_pulled_from_brings_no_more_new_logs_than_one_that_tells(node, pulled, of):
    limits = node.neighbours.limits
    setattr(limits, of, Tokens(Allowance(burst=7, rate=1e-6)))
    peer = flooding("flood", 3, node, publishers=5)
    same = flooding("same network", 3, node)
    other = flooding("other network", 3, node, host="198.51.100.1")

    assert await pulled(peer) == 7
    assert await pulled(peer) == 0
    assert await pulled(same) == (3 if of == "new_logs" else 0)
    assert await pulled(other) == 3


async def test_a_publisher_who_was_not_asked_for_has_room_for_few_logs(node, pulled, monkeypatch):
    monkeypatch.setattr(unasked, "LOGS_OF_PUBLISHER_MAX", 5)
    monkeypatch.setattr(unasked, "LOGS_MAX", 8)
    first, second = flooding("first", 7, node), flooding("second", 7, node)

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


async def test_of_a_publisher_whose_keys_signed_two_documents_no_more_is_taken_and_nobody_blamed(node, pulled):
    friend, other = identity("friend"), identity("other")
    ours, theirs = (
        next_identity(friend, "friend", publish=Role(tuple(sorted((key("friend").public_key, each.public_key))), 1))
        for each in (key("laptop"), key("thief"))
    )
    node.store.logs.add_identity(ours)
    # Newer than what is here, so that it is asked for.
    theirs = next_identity(theirs, "friend")
    news = [log_of(theirs, key("thief"), node, "hush", version=3), log_of(other, key("other"), node, "hush")]

    assert await pulled(Telling("teller", news, [theirs, other])) == 1
    assert [each.namespace for each in node.store.private.repositories()] == [other.namespace]
    assert len(node.store.splits.all()) == 1


async def test_an_identity_of_another_version_of_the_protocol_keeps_no_other_logs_and_is_nobodys_lie(node, pulled):
    friend, other = identity("friend"), identity("other")
    news = [log_of(friend, key("friend"), node, "hush"), log_of(other, key("other"), node, "hush")]
    document = cbor2.dumps({**cbor2.loads(friend.chain[0].document), "novelty": 1}, canonical=True)
    peer = Telling("teller", news, [other])
    peer._chains[friend.namespace] = IdentityChain((replace(friend.chain[0], document=document),))

    assert await pulled(peer) == 1
    assert [each.namespace for each in node.store.private.repositories()] == [other.namespace]


async def test_a_record_of_another_version_of_the_protocol_ends_its_log_and_is_nobodys_lie(node, pulled):
    friend, other = identity("friend"), identity("other")
    known = log_of(friend, key("friend"), node, "hush", yanks=2)
    last = decode(known.entries[2], Envelope, size_max=ENVELOPE_SIZE_MAX)
    payload = cbor2.dumps({**cbor2.loads(last.payload), "type": "novelty"}, canonical=True)
    entries = (*known.entries[:2], encode(Envelope(payload, key("friend").sign(PURPOSE, payload))))
    head = sign_head(known.log.log, 3, merkle.root(LOG_TREE, map(LOG_TREE.leaf, entries)), key("friend"))
    newer = replace(known, log=replace(known.log, head=head.text), entries=entries)
    peer = Telling("teller", [newer, log_of(other, key("other"), node, "hush")], [friend, other])

    # What comes before it is news to others.
    assert await pulled(peer) == 2
    state = node.store.logs.state(newer.log.log, private=True)
    assert state is not None
    assert state.size == 2
    assert await pulled(peer) == 0


@pytest.mark.parametrize("wrong", ["identity", "record"])
async def test_a_peer_that_tells_of_a_private_log_what_its_publisher_did_not_sign_lied(node, pulled, wrong):
    friend = identity("friend")
    news = log_of(friend, key("friend"), node, "hush")
    if wrong == "record":
        news = replace(news, entries=(news.entries[0][:-1] + bytes([news.entries[0][-1] ^ 1]),))
    peer = Telling("teller", [news], [friend])
    if wrong == "identity":
        peer._chains[friend.namespace] = IdentityChain(identity("other").chain)

    with pytest.raises(PeerViolation):
        await pulled(peer)
    assert node.store.private.repositories() == []


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
