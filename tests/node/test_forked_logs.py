"""Logs of which two histories were signed: every node comes to the same end, whoever told it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from p2phub.core import merkle
from p2phub.core.checkpoint import Head, sign_head
from p2phub.core.encoding import decode, encode
from p2phub.core.errors import Conflict, ForkedLog, NotFound, PeerError, PeerViolation
from p2phub.core.forks import ForkedEntries, ForkedHeads
from p2phub.core.identity import Role, new_document, open_identity, sign_document
from p2phub.core.ids import ManifestId
from p2phub.core.merkle import LOG_TREE
from p2phub.core.records import Entry, Publish, Summary, log_id, sign_record
from p2phub.core.search import Query
from p2phub.net.door import Response
from p2phub.net.peerclient import open_peer
from p2phub.node import inspect
from p2phub.node.confirm import own_log
from p2phub.node.conflicts import list_conflicts, reopen_log
from p2phub.node.disk import on_disk
from p2phub.node.events import Event, Notice, ignore
from p2phub.node.identity import create_identity, own_identity
from p2phub.node.maps import refresh_maps
from p2phub.node.node import Node
from p2phub.node.publish import publish
from p2phub.node.pulling import pull
from p2phub.node.renewing import rotate
from p2phub.protocol.messages import ANSWER_SIZE_MAX, Consistency, Heads, Records, StoppedLog
from p2phub.testing import values
from p2phub.testing.hostile import Wrap, answering, on_answer, open_home, serving
from p2phub.testing.processes import copy_home

pytestmark = pytest.mark.timeout(120)

KEY = values.key("publisher")
IDENTITY = values.identity()
LOG = log_id(IDENTITY.namespace, KEY.public_key)


def history(size: int, *, start: Sequence[Entry] = (), word: str = "a") -> list[Entry]:
    """Return a log that goes on from `start` to `size` records, each of a model called by `word` and its index."""
    entries = list(start)
    while len(entries) < size:
        record = Publish(
            namespace=IDENTITY.namespace, log=LOG, index=len(entries),
            previous=entries[-1].leaf if entries else bytes(32), time=values.TIME, model=f"{word}-{len(entries)}",
            kind="model", manifest=ManifestId(bytes(32)), depth=1, branch="main", summary=Summary(files=1, size=1),
        )  # fmt: skip
        entries.append(sign_record(record, KEY))
    return entries


def head(entries: Sequence[Entry]) -> Head:
    return sign_head(LOG, len(entries), merkle.root(LOG_TREE, [entry.leaf for entry in entries]), KEY)


SHARED = history(4)
ONE = history(9, start=SHARED, word="one")
OTHER = history(7, start=SHARED, word="other")


def give(node: Node, entries: Sequence[Entry]) -> None:
    node.store.logs.add_identity(IDENTITY)
    node.store.logs.extend(IDENTITY, head(entries), [entry.data for entry in entries], now=node.clock(), start=0)


def models(node: Node) -> set[str]:
    """Return which of the records count."""
    return {found.model for found in node.store.search.find(Query())}


def names(entries: Sequence[Entry]) -> set[str]:
    return {entry.record.model for entry in entries}


async def pull_from(node: Node, other: Node, *, wrap: Wrap = lambda handler: handler) -> PeerError | None:
    """Let `node` pull from `other`; returns what it found fault with."""
    error: PeerError | None = None
    async with serving(other, wrap=wrap) as address, open_peer(other.id, address.host, address.port) as client:
        try:
            await pull(node, client)
        except PeerError as exc:
            error = exc
    await refresh_maps(node)
    return error


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[list[Node]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_home(tmp_path / str(number))) for number in range(4)]


async def test_a_fork_is_proven_and_freezes_the_log_where_the_histories_part(nodes: list[Node]) -> None:
    one, other, *_ = nodes
    give(one, ONE)
    give(other, OTHER)
    assert await pull_from(one, other) is None
    fork = one.store.forks.get(LOG)

    assert fork is not None
    assert isinstance(fork.proof, ForkedEntries)
    assert fork.common == 4
    assert not fork.is_settled
    assert models(one) == names(SHARED)
    assert one.store.forks.suspected() == []


@pytest.mark.parametrize("held", [ONE, OTHER, SHARED[:2], []], ids=["one", "the other", "a beginning", "nothing"])
async def test_who_hears_of_a_fork_freezes_at_the_same_record_whatever_it_had(
    nodes: list[Node], held: list[Entry]
) -> None:
    one, other, third, fourth = nodes
    give(one, ONE)
    give(other, OTHER)
    assert await pull_from(one, other) is None
    if held:
        give(third, held)
    assert await pull_from(third, one) is None
    # And on, from one that was told itself.
    assert await pull_from(fourth, third) is None

    for node in (third, fourth):
        assert models(node) == names(SHARED)
        assert node.store.forks.get(LOG) == one.store.forks.get(LOG)
        assert node.store.log_digests.root() == one.store.log_digests.root()


async def test_the_proof_with_the_fewest_common_records_counts(nodes: list[Node]) -> None:
    one, other, third, _ = nodes
    earlier = history(5, start=SHARED[:1], word="third")
    give(one, ONE)
    give(other, OTHER)
    give(third, earlier)
    assert await pull_from(one, other) is None
    first = one.store.forks.get(LOG)
    assert await pull_from(other, third) is None
    assert await pull_from(one, other) is None
    assert await pull_from(other, one) is None
    second = one.store.forks.get(LOG)

    assert first is not None
    assert second is not None
    assert (first.common, second.common) == (4, 1)
    assert models(one) == models(other) == names(SHARED[:1])
    assert one.store.log_digests.root() == other.store.log_digests.root()


@pytest.mark.parametrize("ours", [ONE, OTHER], ids=["the longer", "the shorter"])
async def test_two_heads_prove_a_fork_where_the_peer_does_not_show_its_records(
    nodes: list[Node], ours: list[Entry]
) -> None:
    one, other, third, _ = nodes
    give(one, ours)
    give(other, OTHER if ours is ONE else ONE)

    def show_nothing(body: bytes) -> bytes:
        answer = decode(body, Records, size_max=ANSWER_SIZE_MAX)
        return encode(Records(tuple(() for _ in answer.entries)))

    error = await pull_from(one, other, wrap=on_answer("/v1/records", show_nothing))
    fork = one.store.forks.get(LOG)
    assert await pull_from(third, one) is None

    assert type(error) in (type(None), PeerError)
    assert fork is not None
    assert isinstance(fork.proof, ForkedHeads)
    # Of the seven records of the smaller head at most six are the same.
    assert fork.common == 6
    assert models(one) == models(third) == names(ours[:6])
    assert third.store.log_digests.root() == one.store.log_digests.root()


async def test_a_frozen_log_takes_nothing_more(nodes: list[Node]) -> None:
    one, other, third, _ = nodes
    give(one, ONE)
    give(other, OTHER)
    assert await pull_from(one, other) is None
    give(third, history(12, start=ONE, word="one"))
    assert await pull_from(one, third) is None
    state = one.store.logs.state(LOG)

    assert state is not None
    assert state.size == 9
    assert models(one) == names(SHARED)


async def test_what_proves_nothing_freezes_nothing_and_gets_its_sender_banned(nodes: list[Node]) -> None:
    one, other, third, _ = nodes
    give(one, ONE)
    give(other, OTHER)
    assert await pull_from(one, other) is None
    give(third, ONE[:5])
    lie = ForkedEntries((min(ONE[3].data, ONE[4].data), max(ONE[3].data, ONE[4].data)))
    wrap = answering(f"/v1/fork/{LOG}", Response(200, encode(lie)))
    lied = await pull_from(third, one, wrap=wrap)
    missed = await pull_from(third, one, wrap=answering(f"/v1/fork/{LOG}", Response(404)))

    assert isinstance(lied, PeerViolation)
    assert type(missed) is PeerError
    assert third.store.forks.all() == []
    assert models(third) == names(ONE[:5])


async def test_a_peer_cannot_freeze_a_log_by_saying_so(nodes: list[Node]) -> None:
    one, _, third, _ = nodes
    give(one, ONE)
    give(third, ONE[:5])

    def say_so(body: bytes) -> bytes:
        heads = decode(body, Heads, size_max=ANSWER_SIZE_MAX)
        stopped = StoppedLog(IDENTITY.namespace, 1, LOG, 0, 0)
        return encode(Heads((), heads.complete, (stopped,)))

    assert await pull_from(third, one, wrap=on_answer("/v1/heads", say_so)) is not None
    assert models(third) == names(ONE[:5])
    assert await pull_from(third, one) is None
    assert models(third) == names(ONE)


# ── and how they go on ──────────────────────────────────────────────────────


async def twins(stack: AsyncExitStack, tmp_path: Path) -> tuple[Node, Node]:
    """Return two homes with one key, which published two models together and one more each."""
    async with open_home(tmp_path / "a") as a:
        create_identity(a)
        await release(a, tmp_path, "common-1")
        await release(a, tmp_path, "common-2")
    copy_home(tmp_path / "a", tmp_path / "b")
    a, b = [await stack.enter_async_context(open_home(tmp_path / name)) for name in "ab"]
    await release(a, tmp_path, "from-a")
    await release(b, tmp_path, "from-b")
    return a, b


async def release(node: Node, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(exist_ok=True)
    (folder / "README.md").write_text(f"# {name}\n")
    await publish(node, folder, name, ignore)


async def test_a_publisher_says_which_history_counts_and_goes_on(nodes: list[Node], tmp_path: Path) -> None:
    first, second, third, _ = nodes
    async with AsyncExitStack() as stack:
        a, b = await twins(stack, tmp_path)
        # One has the history that will count, one the other, one knows nothing.
        assert await pull_from(first, a) is None
        assert await pull_from(second, b) is None
        assert await pull_from(a, b) is None
        assert models(a) == {"common-1", "common-2"}
        with pytest.raises(ForkedLog) as caught:
            await release(a, tmp_path, "too-late")
        assert "reopen" in str(caught.value.hint)
        (log,) = own_identity(a).logs
        await on_disk(reopen_log, a)
        counted = {"common-1", "common-2", "from-a"}
        assert models(a) == counted
        await release(a, tmp_path, "goes-on")
        counted |= {"goes-on"}
        assert await pull_from(first, a) is None
        assert await pull_from(b, a) is None
        # Those who never met the publisher hear of it from others.
        for node, other in ((second, first), (second, first), (third, second)):
            assert await pull_from(node, other) is None

        for node in (a, first, second, third, b):
            await refresh_maps(node)
            assert models(node) == counted
            assert node.store.log_digests.root().fingerprint == a.store.log_digests.root().fingerprint
            assert node.store.log_digests.root().count == 2
            # What a quota goes by does not count what was dropped.
            for state in node.store.logs.states():
                entries = node.store.logs.entries(state.log, 0, size_max=10**9)
                assert node.store.policy_use.of_log(state.log) == sum(map(len, entries))
        conflicts = await list_conflicts(a, None)
        status = await inspect.status(a)
        assert [(conflict.kind, conflict.log) for conflict in conflicts] == [("fork", str(log))]
        assert "closed" in conflicts[0].text
        assert status.forked_logs == []
        await release(b, tmp_path, "from-b-again")
        assert models(b) == counted | {"from-b-again"}


async def test_only_what_the_publisher_chose_counts_after_a_rebuild(nodes: list[Node], tmp_path: Path) -> None:
    node, *_ = nodes
    async with AsyncExitStack() as stack:
        a, b = await twins(stack, tmp_path)
        assert await pull_from(a, b) is None
        await on_disk(reopen_log, a, 2)
        assert await pull_from(node, a) is None
        for each in (a, node):
            assert models(each) == {"common-1", "common-2"}
            await on_disk(each.store.rebuild, lambda _: None)
            assert models(each) == {"common-1", "common-2"}


async def test_a_log_that_did_not_fork_is_not_reopened(nodes: list[Node], tmp_path: Path) -> None:
    node, *_ = nodes
    with pytest.raises(NotFound):
        reopen_log(node)
    create_identity(node)
    await release(node, tmp_path, "one")
    with pytest.raises(Conflict):
        reopen_log(node)


async def test_what_does_not_count_says_why(nodes: list[Node]) -> None:
    one, other, *_ = nodes
    give(one, ONE)
    give(other, OTHER)
    assert await pull_from(one, other) is None
    lines = await inspect.log_lines(one, str(IDENTITY.namespace))
    conflicts = await list_conflicts(one, str(IDENTITY.namespace))
    status = await inspect.status(one)

    assert {line.index for line in lines if line.refused is None} == {0, 1, 2, 3}
    assert all("two histories" in line.refused for line in lines if line.index >= 4)
    assert [(conflict.kind, conflict.log, conflict.index) for conflict in conflicts] == [("fork", str(LOG), 4)]
    assert status.forked_logs == [str(LOG)]


async def test_versions_and_branches_that_two_keys_claim_are_shown(nodes: list[Node]) -> None:
    node, *_ = nodes
    keys = sorted((values.key(name) for name in ("one", "two")), key=lambda key: key.public_key)
    role = Role(tuple(key.public_key for key in keys), 1)
    first = new_document(keys[0].public_key, created=values.TIME)
    identity = open_identity([sign_document(msgspec.structs.replace(first, publish=role), [keys[0]])])
    node.store.logs.add_identity(identity)
    for number, key in enumerate(keys):
        log = log_id(identity.namespace, key.public_key)
        record = Publish(
            namespace=identity.namespace, log=log, index=0, previous=bytes(32), time=values.TIME + number,
            model="parrot", kind="model", manifest=ManifestId(bytes([number]) * 32), depth=1, branch="main",
            version="1.0", summary=Summary(files=1, size=1),
        )  # fmt: skip
        entry = sign_record(record, key)
        signed = sign_head(log, 1, merkle.root(LOG_TREE, [entry.leaf]), key)
        node.store.logs.extend(identity, signed, [entry.data], now=node.clock())
    conflicts = await list_conflicts(node, None)
    counts = {(c.kind, c.name): (c.counts, c.others) for c in conflicts}

    one, two = (str(ManifestId(bytes([number]) * 32)) for number in (0, 1))
    # The first word on a version counts, and the last on a branch.
    assert counts == {("version", "1.0"): (one, [two]), ("branch", "main"): (two, [one])}
    assert await list_conflicts(node, str(IDENTITY.namespace)) == []


async def test_a_log_shows_that_it_goes_on_from_what_it_was(nodes: list[Node]) -> None:
    node, *_ = nodes
    give(node, ONE)
    async with serving(node) as address, open_peer(node.id, address.host, address.port) as client:
        found = [await client.consistency(LOG, old, new) for old, new in ((4, 9), (9, 9), (4, 10), (10, 9))]

    assert found[0] is not None
    assert found[0].root == head(SHARED).root
    merkle.check_consistency(LOG_TREE, 4, head(SHARED).root, 9, head(ONE).root, found[0].proof)
    assert found[1] == Consistency(head(ONE).root, ())
    assert found[2:] == [None, None]


async def test_a_thief_who_signs_from_the_beginning_takes_nothing_away(nodes: list[Node], tmp_path: Path) -> None:
    first, second, *_ = nodes
    async with AsyncExitStack() as stack:
        async with open_home(tmp_path / "owner") as made:
            create_identity(made)
        copy_home(tmp_path / "owner", tmp_path / "thief")
        owner, thief = [await stack.enter_async_context(open_home(tmp_path / name)) for name in ("owner", "thief")]
        for name in ("one", "two"):
            await release(owner, tmp_path, name)
        await release(thief, tmp_path, "forged")
        assert await pull_from(first, owner) is None
        assert await pull_from(second, thief) is None
        # Whoever hears both histories lets neither count.
        assert await pull_from(second, owner) is None
        assert models(second) == set()
        await on_disk(rotate, owner)
        await release(owner, tmp_path, "three")
        counted = {"one", "two", "three"}
        for node in (first, second, second):
            assert await pull_from(node, owner) is None
        # And it comes too late with what it signs since.
        await release(thief, tmp_path, "forged-2")
        for node in (first, second):
            await pull_from(node, thief)
            await pull_from(node, owner)

        assert models(owner) == models(first) == models(second) == counted


# ── a clock that was far ahead ──────────────────────────────────────────────


@pytest.mark.parametrize("before", [0, 2])
async def test_what_a_clock_far_ahead_signed_is_given_up_and_others_follow(nodes: list[Node], tmp_path, before) -> None:
    publisher, other, *_ = nodes
    create_identity(publisher)
    now = publisher.clock
    right = [f"right-{number}" for number in range(before)]
    for name in right:
        await release(publisher, tmp_path, name)
    publisher.clock = lambda: now() + 30 * 86400
    await release(publisher, tmp_path, "ahead")
    publisher.clock = now
    told: list[Event] = []
    folder = tmp_path / "folder"
    await publish(publisher, folder, "behind@1.0.0", told.append)
    held_up = await pull_from(other, publisher)
    early = (await inspect.status(publisher)).early
    with pytest.raises(Conflict):
        await on_disk(reopen_log, publisher, before + 1)
    reopened = await on_disk(reopen_log, publisher)
    await publish(publisher, folder, "behind@1.0.0", ignore)
    taken = await pull_from(other, publisher)

    (said,) = [event.text for event in told if isinstance(event, Notice) and "id reopen" in event.text]
    assert "days ahead of the clock" in said
    assert isinstance(held_up, PeerError)
    assert early is not None
    assert (early.first, early.count) == (before, 2)
    assert early.ahead > 20 * 86400
    assert reopened.given_up == ["ahead", "behind@1.0.0"]
    assert taken is None
    assert models(other) == models(publisher) == {*right, "behind"}
    assert (await inspect.status(publisher)).early is None


async def test_what_others_took_in_is_not_given_up_because_the_clock_was_set_back(nodes: list[Node], tmp_path) -> None:
    publisher, other, *_ = nodes
    create_identity(publisher)
    await release(publisher, tmp_path, "one")
    assert await pull_from(other, publisher) is None
    log = own_log(publisher)
    assert log is not None
    publisher.store.confirmations.note(other.id, log, 1, publisher.clock())
    now = publisher.clock
    publisher.clock = lambda: now() - 30 * 86400
    with pytest.raises(Conflict) as refused:
        await on_disk(reopen_log, publisher)

    assert str(other.id) in str(refused.value)
    assert models(publisher) == {"one"}
    assert (await on_disk(reopen_log, publisher, 0)).given_up == ["one"]
