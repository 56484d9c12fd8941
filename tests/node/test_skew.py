"""Who speaks another version is left alone for a while, and banned for nothing."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from pathlib import Path

import cbor2
import pytest
from msgspec.structs import replace

from p2phub.core.encoding import decode, encode
from p2phub.core.envelope import ENVELOPE_SIZE_MAX, Envelope
from p2phub.core.errors import NotFound, OtherVersion, PeerViolation
from p2phub.core.records import PURPOSE, SKEW_MAX_S
from p2phub.core.search import Query
from p2phub.net.peerclient import open_peer
from p2phub.node.calls import Calls
from p2phub.node.events import ignore
from p2phub.node.fetch import fetch
from p2phub.node.identity import create_identity
from p2phub.node.inspect import search, status
from p2phub.node.maps import refresh_maps
from p2phub.node.node import Node
from p2phub.node.peerlist import list_peers
from p2phub.node.publish import publish
from p2phub.node.publishers import learn_identities
from p2phub.node.pulling import pull, take_followed
from p2phub.node.syncing import sync_all
from p2phub.protocol.messages import ANSWER_SIZE_MAX, Identities, IdentityChain, Records
from p2phub.store.keys import load_key
from p2phub.store.peers import RETRY_S
from p2phub.testing.hostile import on_answer, open_home, serving, slowly
from p2phub.testing.processes import tree
from p2phub.testing.values import identity

pytestmark = pytest.mark.timeout(120)


def with_news(body: bytes) -> bytes:
    """Return a message with a field that no version has yet."""
    return cbor2.dumps({**cbor2.loads(body), "novelty": [1, "two"]}, canonical=True)


def folder_with(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "README.md").write_text(text)
    return folder


async def peer_of(node, other):
    return {peer.node: peer for peer in await list_peers(node)}[str(other.id)]


@pytest.mark.parametrize("path", ["/v1/have", "/v1/trees", "/v1/tickets"])
async def test_a_download_goes_on_with_others(path, published, copy_of, tmp_path, impatient):
    async with AsyncExitStack() as stack:
        newer = await stack.enter_async_context(open_home(copy_of("newer")))
        good = await stack.enter_async_context(open_home(copy_of("good")))
        fetcher = await stack.enter_async_context(open_home(tmp_path / "fetcher"))
        wrap = on_answer(path, with_news)
        fetcher.store.peers.add(await stack.enter_async_context(serving(newer, wrap=wrap)))
        fetcher.store.peers.add(await stack.enter_async_context(serving(good, wrap=slowly(20e6))))
        result = await fetch(fetcher, published.name, ignore, to=tmp_path / "out")
        known = await peer_of(fetcher, newer)
        retried = fetcher.store.peers.get(newer.id)

    assert tree(tmp_path / "out") == published.files
    assert known.banned_until is None
    if path == "/v1/have":
        assert known.skew is not None
        assert "this version does not know" in known.skew
        assert retried is not None
        assert retried.next_try > (known.last_seen or 0) + RETRY_S / 2
        assert {provider.node: provider.received for provider in result.providers} == {
            str(newer.id): 0,
            str(good.id): published.size,
        }


async def test_who_is_not_understood_is_called_less_and_less_and_forgiven_at_once_when_it_is(tmp_path):
    async with AsyncExitStack() as stack:
        newer = await stack.enter_async_context(open_home(tmp_path / "newer"))
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        create_identity(newer)
        await publish(newer, folder_with(tmp_path / "folder", "# One\n"), "one", ignore)
        async with serving(newer, wrap=on_answer("/v1/reconcile", with_news)) as address:
            node.store.peers.add(address)
            waits = []
            for _ in range(2):
                failures = await sync_all(node, timeout_s=30)
                peer = node.store.peers.get(newer.id)
                waits.append(peer.next_try - peer.last_seen)
            known = await peer_of(node, newer)
        node.calls.close()
        async with serving(newer) as address:
            node.store.peers.add(address)
            understood = await sync_all(node, timeout_s=30)
            models = (await search(node, Query())).models
            after = await peer_of(node, newer)

    assert len(failures) == 1
    assert known.banned_until is None
    assert known.skew is not None
    assert RETRY_S - 2 <= waits[0] <= RETRY_S + 2
    assert 2 * RETRY_S - 2 <= waits[1] <= 2 * RETRY_S + 2
    assert understood == []
    assert [model.model for model in models] == ["one"]
    assert after.skew is None


@pytest.mark.parametrize("signed_by", ["its publisher", "nobody"])
async def test_a_record_of_an_unknown_type_is_nobody_s_lie_if_its_publisher_signed_it(signed_by, tmp_path):
    async with AsyncExitStack() as stack:
        newer = await stack.enter_async_context(open_home(tmp_path / "newer"))
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        create_identity(newer)
        await publish(newer, folder_with(tmp_path / "folder", "# One\n"), "one", ignore)
        key = load_key(newer.settings.layout.keys / "publish.key")

        def change(body: bytes) -> bytes:
            (entries,) = decode(body, Records, size_max=ANSWER_SIZE_MAX).entries
            old = decode(entries[0], Envelope, size_max=ENVELOPE_SIZE_MAX)
            payload = cbor2.dumps({**cbor2.loads(old.payload), "type": "novelty"}, canonical=True)
            signature = key.sign(PURPOSE, payload) if signed_by == "its publisher" else old.signature
            return encode(Records(((encode(Envelope(payload, signature)), *entries[1:]),)))

        node.store.peers.add(await stack.enter_async_context(serving(newer, wrap=on_answer("/v1/records", change))))
        failures = await sync_all(node, timeout_s=30)
        models = (await search(node, Query())).models
        known = await peer_of(node, newer)

    assert len(failures) == 1
    assert models == []
    assert (known.banned_until is None) == (signed_by == "its publisher")
    assert (known.skew is not None) == (signed_by == "its publisher")


def unknown_identities(body: bytes) -> bytes:
    """Return the answer with each first document as another version may have it."""

    def change(chain: IdentityChain | None) -> IdentityChain | None:
        if chain is None:
            return None
        first, *rest = chain.documents
        return IdentityChain((replace(first, document=with_news(first.document)), *rest))

    answer = decode(body, Identities, size_max=ANSWER_SIZE_MAX)
    return encode(Identities(tuple(map(change, answer.chains))))


@pytest.mark.parametrize(
    "ask",
    [
        lambda node, client, publisher: pull(node, client),
        lambda node, client, publisher: take_followed(node, client, [publisher]),
        lambda node, client, publisher: learn_identities(node, client, [publisher]),
    ],
    ids=["all", "some", "identities"],
)
async def test_an_identity_of_an_unknown_form_is_nobody_s_lie(ask, tmp_path):
    async with AsyncExitStack() as stack:
        newer = await stack.enter_async_context(open_home(tmp_path / "newer"))
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        theirs = create_identity(newer).namespace
        await publish(newer, folder_with(tmp_path / "folder", "# One\n"), "one", ignore)
        await refresh_maps(newer)
        wrap = on_answer("/v1/identities", unknown_identities)
        address = await stack.enter_async_context(serving(newer, wrap=wrap))
        client = await stack.enter_async_context(open_peer(newer.id, address.host, address.port))
        with pytest.raises(OtherVersion, match="an identity that this version does not know"):
            await ask(node, client, theirs)

        assert node.store.logs.identity(theirs) is None


async def test_who_tells_nobody_s_documents_for_a_publisher_lies(tmp_path):
    async with AsyncExitStack() as stack:
        liar = await stack.enter_async_context(open_home(tmp_path / "liar"))
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        theirs = create_identity(liar).namespace
        other = encode(Identities((IdentityChain(identity("other").chain),)))
        address = await stack.enter_async_context(serving(liar, wrap=on_answer("/v1/identities", lambda body: other)))
        client = await stack.enter_async_context(open_peer(liar.id, address.host, address.port))
        with pytest.raises(PeerViolation):
            await learn_identities(node, client, [theirs])

        assert node.store.logs.identity(theirs) is None


async def test_what_is_no_message_at_all_is_a_lie(published, copy_of, tmp_path, impatient):
    for number, change in enumerate(
        (lambda body: b"\xff", lambda body: body + b"\0", lambda body: b"\x01", lambda body: b"")
    ):
        async with AsyncExitStack() as stack:
            liar = await stack.enter_async_context(open_home(copy_of(f"liar {number}")))
            fetcher = await stack.enter_async_context(open_home(tmp_path / f"fetcher {number}"))
            fetcher.store.peers.add(
                await stack.enter_async_context(serving(liar, wrap=on_answer("/v1/reconcile", change)))
            )
            await sync_all(fetcher, timeout_s=30)
            known = await peer_of(fetcher, liar)

        assert known.banned_until is not None
        assert known.skew is None


def with_clock(node: Node, ahead_s: float) -> None:
    node.clock = lambda: time.time() + ahead_s
    node.calls = Calls(node.key, node.clock)


@pytest.mark.parametrize(
    ("ahead_s", "how"), [(86_400, "1 day behind"), (-86_400 - 90, "1 day ahead of"), (120, "2 minutes behind")]
)
async def test_by_how_much_clocks_differ_is_said_by_commands_the_log_and_status(
    published, copy_of, tmp_path, ahead_s, how, caplog
):
    async with AsyncExitStack() as stack:
        seed = await stack.enter_async_context(open_home(copy_of("seed")))
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        node.store.peers.add(await stack.enter_async_context(serving(seed)))
        with_clock(node, ahead_s + 1)
        failures = await sync_all(node, timeout_s=60)
        state = (await status(node)).clock
        with_clock(node, 0)
        await sync_all(node, timeout_s=60)

        # Nothing is lost by it.
        await fetch(node, published.name, ignore, to=tmp_path / "out")
        assert (await status(node)).clock is None

    said = f"the clock of node {str(seed.id)[:12]}… is {how} this machine's"
    # 10 minutes are allowed in what needs no session.
    assert any(said in failure for failure in failures) or abs(ahead_s) < SKEW_MAX_S
    assert said in caplog.text
    assert state is not None
    assert (state.peers, state.apart) == (1, 1)
    assert abs(state.ahead + ahead_s) <= 3
    assert tree(tmp_path / "out") == published.files


async def test_records_that_come_too_early_are_left_for_later_and_their_peer_is_not_blamed(
    published, copy_of, tmp_path
):
    async with AsyncExitStack() as stack:
        seed = await stack.enter_async_context(open_home(copy_of("seed")))
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        node.store.peers.add(await stack.enter_async_context(serving(seed)))
        # So late that records are refused, and not so late that the node is.
        with_clock(node, -3 * SKEW_MAX_S)
        [failure] = await sync_all(node, timeout_s=60)
        with_clock(node, 0)
        assert await sync_all(node, timeout_s=60) == []

        assert (await search(node, Query())).models
    assert "is left for later: record 0 is" in failure
    assert "ahead of this machine's clock" in failure
    assert "does not have" not in failure


async def test_what_is_public_is_fetched_though_the_clocks_are_apart(published, copy_of, tmp_path):
    """What is signed is refused then; what is for everybody is asked for without a name."""
    async with AsyncExitStack() as stack:
        seed = await stack.enter_async_context(open_home(copy_of("seed")))
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        node.store.peers.add(await stack.enter_async_context(serving(seed)))
        with_clock(node, -300)

        await fetch(node, published.name, ignore, to=tmp_path / "out")
    assert tree(tmp_path / "out") == published.files


@pytest.mark.parametrize(("ahead_s", "how"), [(300, "5 minutes behind"), (-2 * SKEW_MAX_S, "20 minutes ahead of")])
async def test_who_does_not_find_something_reads_that_the_clocks_are_apart(published, copy_of, tmp_path, ahead_s, how):
    async with AsyncExitStack() as stack:
        seed = await stack.enter_async_context(open_home(copy_of("seed")))
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        node.store.peers.add(await stack.enter_async_context(serving(seed)))
        with_clock(node, ahead_s)
        failures = []
        for name in (f"{published.name}-secret", f"{published.name}@9.9.9", f"b3:{'ab' * 32}"):
            with pytest.raises(NotFound) as caught:
                await fetch(node, name, ignore, to=tmp_path / "out")
            failures.append(caught.value)

    said = f"the clock of node {str(seed.id)[:12]}… is {how} this machine's"
    assert [said in (failure.hint or "") for failure in failures] == [True] * 3
