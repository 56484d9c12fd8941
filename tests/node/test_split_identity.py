"""A publisher whose root keys signed two documents of one version sets no honest node against another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from msgspec.structs import replace

from p2phub.core import merkle
from p2phub.core.checkpoint import sign_head
from p2phub.core.errors import PeerError, SplitIdentity
from p2phub.core.identity import Identity, RetiredKey, Role, next_document, open_identity, sign_document
from p2phub.core.ids import ManifestId
from p2phub.core.merkle import LOG_TREE
from p2phub.core.records import Publish, Summary, sign_record
from p2phub.core.search import Query
from p2phub.core.signing import SigningKey
from p2phub.net.peerclient import open_peer
from p2phub.node.conflicts import list_conflicts
from p2phub.node.events import ignore
from p2phub.node.identity import create_identity
from p2phub.node.maps import refresh_maps
from p2phub.node.news import compose, take
from p2phub.node.node import Node
from p2phub.node.publish import publish
from p2phub.node.pulling import pull
from p2phub.node.why import why
from p2phub.testing import values
from p2phub.testing.hostile import open_home, serving

pytestmark = pytest.mark.timeout(120)

KEY, LAPTOP, THIEF = (values.key(name) for name in ("publisher", "laptop", "thief"))
FIRST = values.whole_identity()


def renewed(identity: Identity, **fields: object) -> Identity:
    document = replace(next_document(identity, created=values.TIME), **fields)
    return open_identity([*identity.chain, sign_document(document, [KEY])])


def with_key(key: SigningKey) -> Identity:
    return renewed(FIRST, publish=Role(tuple(sorted((KEY.public_key, key.public_key))), 1))


OURS, THEIRS = with_key(LAPTOP), with_key(THIEF)


def give(node: Node, identity: Identity, key: SigningKey, model: str) -> None:
    """Let `node` have a log of one record that `key` signed."""
    log = identity.log_of(key.public_key)
    record = Publish(
        namespace=identity.namespace, log=log, index=0, previous=bytes(32), time=values.TIME, model=model,
        kind="model", manifest=ManifestId(bytes(32)), depth=1, branch="main", summary=Summary(files=1, size=1),
    )  # fmt: skip
    entry = sign_record(record, key)
    head = sign_head(log, 1, merkle.root(LOG_TREE, [entry.leaf]), key)
    node.store.logs.extend(identity, head, [entry.data], now=node.clock())


def models(node: Node) -> set[str]:
    return {found.model for found in node.store.search.find(Query())}


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[tuple[Node, Node]]:
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(open_home(tmp_path / str(number))) for number in range(2)]
        give(one, OURS, KEY, "common")
        give(one, OURS, LAPTOP, "ours")
        give(other, THEIRS, KEY, "common")
        give(other, THEIRS, THIEF, "theirs")
        yield one, other


async def pull_from(node: Node, other: Node) -> PeerError | None:
    """Let `node` pull from `other`; returns what it found fault with."""
    error: PeerError | None = None
    await refresh_maps(other)
    async with serving(other) as address, open_peer(other.id, address.host, address.port) as client:
        try:
            await pull(node, client)
        except PeerError as exc:
            error = exc
    return error


async def test_who_heard_the_other_document_first_is_not_to_blame(nodes: tuple[Node, Node]) -> None:
    one, other = nodes
    assert await pull_from(one, other) is None
    assert await pull_from(other, one) is None

    # Each goes on with what it heard first, and shows that there is another.
    assert models(one) == {"common", "ours"}
    assert models(other) == {"common", "theirs"}
    for node in nodes:
        (conflict,) = await list_conflicts(node, None)
        assert (conflict.kind, conflict.namespace) == ("identity", str(FIRST.namespace))
        assert "version 2" in conflict.text
        reasons = await why(node, str(FIRST.namespace), ignore)
        assert any(each.verdict == "bad" and "two documents of version 2" in each.text for each in reasons)


async def test_news_of_the_other_history_is_not_taken_and_not_punished(nodes: tuple[Node, Node]) -> None:
    one, other = nodes
    log = THEIRS.log_of(THIEF.public_key)
    message = compose(other.store, {log: 0}, ())
    taken = take(one.store, one.following, message.push, now=one.clock())

    assert not taken.holds
    assert models(one) == {"common", "ours"}
    assert len(one.store.splits.all()) == 1


async def test_the_document_that_came_first_stays_in_every_way_that_another_comes(nodes: tuple[Node, Node]) -> None:
    one, _ = nodes
    longer = renewed(THEIRS, retired=(RetiredKey(LAPTOP.public_key, 0),))
    for own in (False, True):
        with pytest.raises(SplitIdentity):
            one.store.logs.add_identity(longer, own=own)

    known = one.store.logs.identity(FIRST.namespace)
    assert known is not None
    assert known.chain == OURS.chain
    (split,) = one.store.splits.all()
    assert split.version == 2
    one.store.rebuild(lambda text: None)
    assert len(one.store.splits.all()) == 1


async def test_a_peer_that_has_not_heard_that_a_key_was_dropped_is_not_to_blame(tmp_path: Path) -> None:
    async with open_home(tmp_path / "a") as one, open_home(tmp_path / "b") as late:
        give(late, OURS, LAPTOP, "dropped")
        dropped = renewed(OURS, publish=FIRST.current.publish)
        give(one, dropped, KEY, "kept")
        message = compose(late.store, {OURS.log_of(LAPTOP.public_key): 0}, ())
        taken = take(one.store, one.following, message.push, now=one.clock())
        assert not taken.holds
        assert await pull_from(one, late) is None

        assert models(one) == {"kept"}


async def test_who_is_asked_for_whom_to_seal_and_heard_the_other_document_first_is_not_to_blame(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    one, other = nodes
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "README.md").write_text("# For few\n")
    create_identity(one)
    async with serving(other) as address:
        one.store.peers.add(address)
        await publish(one, folder, "sealed", ignore, sealed=True, sealed_for=[str(FIRST.namespace)])

    assert len(one.store.splits.all()) == 1
    asked = one.store.peers.get(other.id)
    assert asked is not None
    assert asked.bans == 0
