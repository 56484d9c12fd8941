"""Who asks a real node: signed requests, sessions, tickets that carry their caller, and what attackers make of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio
from authoritykit import Watched, publisher_home, rotated, watched

from p2phub.core.access import ANYBODY, Caller
from p2phub.core.checkpoint import sign_head
from p2phub.core.delegation import open_delegation, sign_delegation
from p2phub.core.encoding import encode
from p2phub.core.errors import HubError, PeerBusy, PeerError, PeerUnreachable, StoreError
from p2phub.core.httpsig import NONCE_SIZE, Ask, sign_ask
from p2phub.core.identity import next_document, open_identity, sign_document
from p2phub.core.ids import NamespaceId, NodeId
from p2phub.core.private import PrivateHead
from p2phub.net.bulk import BulkConnection
from p2phub.net.door import Handler, Request, Response
from p2phub.net.http import Answer, HttpClient
from p2phub.net.peerclient import PeerClient
from p2phub.net.signer import Signer
from p2phub.net.tls import client_context
from p2phub.node import authority as module
from p2phub.node import introduce as introducing
from p2phub.node import neighbours
from p2phub.node.authority import NOTED_S, Authority, Unproven
from p2phub.node.calls import Calls
from p2phub.node.identity import own_identity, own_publisher
from p2phub.node.introduce import delegate, delegations_of, introduce
from p2phub.node.node import Node
from p2phub.protocol.messages import (
    SESSION_FIELD,
    SIGN_AFTER_FIELD,
    ByteRange,
    HaveQuery,
    IdentityChain,
    ReceiptsQuery,
    SessionQuery,
)
from p2phub.protocol.privatetalk import PrivateNews
from p2phub.protocol.tokens import Tokens
from p2phub.store.ahead import Ahead
from p2phub.testing import values
from p2phub.testing.hostile import open_home, serving

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def looking_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the keys behind a session at each request, not every 2 s."""
    monkeypatch.setattr(module, "CHECK_S", -1.0)


# ── who asks ────────────────────────────────────────────────────────────────


async def test_nobody_is_told_who_asks_for_what_is_public(tmp_path: Path) -> None:
    async with watched(tmp_path / "server") as server, publisher_home(tmp_path / "asker") as (asker, _):
        client = server.client(asker)

        assert await server.callers(client) == [ANYBODY]
        assert not any(name.startswith("signature") for request in server.seen for name in request.headers)


async def test_after_an_introduction_requests_are_those_of_the_node_and_its_publisher(tmp_path: Path) -> None:
    async with watched(tmp_path / "server") as server, publisher_home(tmp_path / "asker") as (asker, namespace):
        client = server.client(asker)

        assert await introduce(asker, client) == {namespace}
        assert await server.callers(client) == [Caller(asker.id, frozenset({namespace}))]
        # Another connection to the same peer needs no other introduction.
        assert await server.callers(server.client(asker)) == [Caller(asker.id, frozenset({namespace}))]


async def test_an_introduction_is_made_once(tmp_path: Path) -> None:
    async with watched(tmp_path / "server") as server, publisher_home(tmp_path / "asker") as (asker, _):
        client = server.client(asker)
        for _ in range(3):
            await introduce(asker, client)

        # Twice: the first time its identity was not known there.
        assert Counter(request.path for request in server.seen) == {"/v1/session": 2}


async def test_a_node_of_no_publisher_is_known_by_its_key(tmp_path: Path) -> None:
    async with watched(tmp_path / "server") as server, open_home(tmp_path / "asker") as asker:
        client = server.client(asker)

        assert await introduce(asker, client) == frozenset()
        assert await server.callers(client) == [Caller(asker.id)]


async def test_a_server_that_began_anew_is_told_again(tmp_path: Path) -> None:
    async with watched(tmp_path / "server") as server, publisher_home(tmp_path / "asker") as (asker, namespace):
        client = server.client(asker)
        await introduce(asker, client)
        server.node.authority._sessions = module.Sessions()

        assert (await server.callers(client))[-1] == Caller(asker.id, frozenset({namespace}))


async def test_the_identity_of_a_stranger_is_not_kept(tmp_path: Path) -> None:
    async with watched(tmp_path / "server") as server, publisher_home(tmp_path / "asker") as (asker, namespace):
        await introduce(asker, server.client(asker))

        assert server.node.store.logs.identity(namespace) is None


async def test_of_a_long_identity_a_session_keeps_the_keys_alone(tmp_path: Path) -> None:
    async with watched(tmp_path / "server") as server, publisher_home(tmp_path / "asker") as (asker, namespace):
        key = own_publisher(asker)[1]
        identity = own_identity(asker)
        for _ in range(60):
            document = sign_document(next_document(identity, created=int(asker.clock())), [key])
            identity = open_identity([*identity.chain, document])
        shown = SessionQuery(tuple(delegations_of(asker)), (IdentityChain(identity.chain),))
        assert (await server.client(asker).begin_session(shown)).namespaces == (namespace,)

        session = server.node.authority._sessions.find(asker.id, server.node.clock())
        assert session
        assert len(repr(session)) < 3 * session.size < len(encode(shown))


async def test_a_publisher_lets_another_machine_act_for_it(tmp_path: Path) -> None:
    async with (
        watched(tmp_path / "server") as server,
        publisher_home(tmp_path / "publisher") as (publisher, namespace),
        open_home(tmp_path / "other") as other,
    ):
        identity, data = delegate(publisher, other.id, 3600)
        other.store.logs.add_identity(identity)
        other.store.delegations.keep(open_delegation(data, now=other.clock()), data)
        client = server.client(other)

        assert await introduce(other, client) == {namespace}
        assert await server.callers(client) == [Caller(other.id, frozenset({namespace}))]


async def test_who_shows_many_signatures_pays_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "TALKS_OF_NETWORK", neighbours.Allowance(burst=20, rate=0.001))
    async with watched(tmp_path / "server") as server, publisher_home(tmp_path / "asker") as (asker, _):
        client = server.client(asker)
        chain = IdentityChain(own_identity(asker).chain)
        await client.begin_session(SessionQuery(tuple(delegations_of(asker)), (chain,)))
        await client.begin_session(SessionQuery((), (chain,) * 16))
        with pytest.raises(PeerBusy):
            await client.begin_session(SessionQuery())


@pytest.mark.parametrize(("door", "fitting"), [("receipts", 2), ("private/news", 3)])
async def test_signatures_are_paid_for_at_every_door_that_checks_them(tmp_path: Path, door: str, fitting: int) -> None:
    async with watched(tmp_path / "server") as server, publisher_home(tmp_path / "asker") as (asker, namespace):
        client = server.client(asker)
        await introduce(asker, client)
        chain = IdentityChain(own_identity(asker).chain)
        key = values.key("a private log")
        head = PrivateHead(namespace, 1, key.public_key, bytes(32), b"")
        told = msgspec.structs.replace(head, head=sign_head(head.log, 1, bytes(32), key).text)

        async def show() -> None:
            if door == "receipts":
                await client.show_receipts(ReceiptsQuery((b"none",), (chain,)))
            else:
                await client.private_news(PrivateNews(told, identity=chain))

        # Each message of these is one, and has one signature or two.
        server.node.neighbours.limits.networks = Tokens(neighbours.Allowance(burst=7, rate=0.001))
        for _ in range(fitting):
            await show()
        with pytest.raises(PeerBusy):
            await show()


async def test_a_key_that_cannot_sign_now_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be in an agent that is not there; the node goes on as itself."""

    def no_agent(node: Node) -> None:
        raise HubError("the agent does not answer")

    monkeypatch.setattr(introducing, "own_publisher", no_agent)
    async with watched(tmp_path / "server") as server, publisher_home(tmp_path / "asker") as (asker, _):
        client = server.client(asker)
        for _ in range(3):
            assert await introduce(asker, client) == frozenset()
        assert await server.callers(client) == [Caller(asker.id)]

    assert caplog.text.count("the agent does not answer") == 1


# ── what does not count ─────────────────────────────────────────────────────


async def believed(server: Watched, asker: Node, *delegations: bytes) -> frozenset[NamespaceId]:
    """Return for whom `asker` acts in the server's eyes if it shows `delegations`."""
    client = server.client(asker)
    answer = await client.begin_session(SessionQuery(delegations))
    assert (await server.callers(client))[-1].namespaces == set(answer.namespaces)
    return frozenset(answer.namespaces)


async def test_a_delegation_of_another_node_is_worth_nothing(tmp_path: Path) -> None:
    async with (
        watched(tmp_path / "server") as server,
        publisher_home(tmp_path / "publisher") as (publisher, namespace),
        open_home(tmp_path / "thief") as thief,
    ):
        server.node.store.logs.add_identity(own_identity(publisher))
        (stolen,) = delegations_of(publisher)

        assert await believed(server, thief, stolen) == frozenset()
        assert await believed(server, publisher, stolen) == {namespace}


async def test_a_delegation_by_a_key_of_another_namespace_is_worth_nothing(tmp_path: Path) -> None:
    async with (
        watched(tmp_path / "server") as server,
        publisher_home(tmp_path / "publisher") as (publisher, namespace),
        open_home(tmp_path / "thief") as thief,
    ):
        server.node.store.logs.add_identity(own_identity(publisher))
        now = int(thief.clock())
        forged = sign_delegation(namespace, thief.id, values.key("thief"), now=now, ttl_s=60)

        assert await believed(server, thief, forged) == frozenset()


async def test_what_an_unknown_publisher_says_counts_once_its_identity_is_shown(tmp_path: Path) -> None:
    async with watched(tmp_path / "server") as server, publisher_home(tmp_path / "asker") as (asker, namespace):
        client = server.client(asker)
        answer = await client.begin_session(SessionQuery(tuple(delegations_of(asker))))

        assert (answer.namespaces, answer.unknown, answer.id) == ((), (namespace,), None)


async def test_a_session_needs_a_signature(tmp_path: Path) -> None:
    async with watched(tmp_path / "server") as server, open_home(tmp_path / "asker") as asker:
        client = server.client(asker)
        with pytest.raises(PeerError, match="401: a session is begun by a signed request"):
            await client._ask("session", SessionQuery(), SessionQuery)


# ── replay, audience, time, impostors ───────────────────────────────────────


def raw(server: Watched) -> HttpClient:
    return HttpClient(server.address.host, server.address.port, client_context(server.node.id))


async def send(server: Watched, headers: dict[str, str], body: bytes, path: str = "/v1/have") -> Answer:
    client = raw(server)
    try:
        return await client.ask("POST", path, headers, body, size_max=100_000)
    finally:
        client.close()


QUERY = encode(HaveQuery((values.file_entry("x", b"x").root,)))


def signer_to(audience: NodeId, asker: Node, *, late_s: float = 0.0) -> Signer:
    return Signer(asker.key, audience, lambda: asker.clock() - late_s)


async def test_a_request_that_was_seen_before_is_refused(tmp_path: Path) -> None:
    async with watched(tmp_path / "server") as server, open_home(tmp_path / "asker") as asker:
        headers = signer_to(server.node.id, asker, late_s=-1).signature("POST", "/v1/have", QUERY)

        assert (await send(server, headers, QUERY)).status == 200
        again = await send(server, headers, QUERY)
        assert (again.status, again.body) == (401, b"the same signed request came before: each is good once")


async def test_a_request_that_was_seen_before_a_restart_is_refused(tmp_path: Path) -> None:
    """Nothing of what came is on disk, so what could have come before is not taken."""
    async with open_home(tmp_path / "asker") as asker:
        async with watched(tmp_path / "server") as server:
            headers = signer_to(server.node.id, asker, late_s=1).signature("POST", "/v1/have", QUERY)
            server.node.authority._began -= 2
            assert (await send(server, headers, QUERY)).status == 200
        async with watched(tmp_path / "server") as server:
            again = await send(server, headers, QUERY)

    assert (again.status, b"before this node was started" in again.body) == (401, True)


async def test_a_request_of_the_second_in_which_a_node_was_started_is_good_once(tmp_path: Path) -> None:
    """It may have come before, to the node that was stopped in the same second."""
    async with open_home(tmp_path / "server") as node, open_home(tmp_path / "asker") as asker:
        time = [node.clock() // 1 - 5]
        signer = Signer(asker.key, node.id, lambda: time[0])

        def signed() -> Request:
            headers = signer.signature("POST", "/v1/have", QUERY)
            return Request("POST", "/v1/have", {}, QUERY, "192.0.2.1", headers=headers)

        before = Authority(node.id, node.store, lambda: time[0], began=time[0])
        time[0] += 5.1
        seen = signed()
        await before.identify(seen)
        time[0] += 0.2
        after = Authority(node.id, node.store, lambda: time[0], began=time[0])
        with pytest.raises(Unproven, match="before this node was started") as caught:
            await after.identify(seen)
        assert signer.sign_after(caught.value.headers[SIGN_AFTER_FIELD].encode())

        assert (await after.identify(signed())).caller.node == asker.id


@asynccontextmanager
async def set_back(
    tmp_path: Path, seconds: float
) -> AsyncIterator[tuple[Authority, Request, Callable[[float], Request]]]:
    """Take a request, and start again with a clock that was set back; gives who answers then, the request, and others.

    Others are signed so many seconds after that start, and come when they were signed.
    """
    async with open_home(tmp_path / "server") as node, open_home(tmp_path / "asker") as asker:
        time = [int(node.clock()) + seconds]
        signer = Signer(asker.key, node.id, lambda: time[0])

        def signed() -> Request:
            return Request(
                "POST", "/v1/have", {}, QUERY, "192.0.2.1", headers=signer.signature("POST", "/v1/have", QUERY)
            )

        before = Authority(node.id, node.store, lambda: time[0], began=time[0])
        time[0] += 100
        seen = signed()
        await before.identify(seen)
        time[0] -= seconds
        began = time[0]
        after = Authority(node.id, node.store, lambda: time[0], began=began)

        def later(wait_s: float) -> Request:
            time[0] = began + wait_s
            return signed()

        yield after, seen, later


async def test_a_clock_that_is_set_back_over_a_restart_lets_nothing_come_twice(tmp_path: Path) -> None:
    async with set_back(tmp_path, 600) as (node, seen, later):
        for wait_s in (0, 590, 600):
            later(wait_s)  # It is that time now.
            with pytest.raises(Unproven):
                await node.identify(seen)
        with pytest.raises(Unproven, match=r"clock .* was set back: it takes no .* before 20\d\d-.* UTC"):
            await node.identify(later(580))
        assert (await node.identify(later(600 + NOTED_S + 1))).caller.node is not None


async def test_a_clock_that_was_far_ahead_keeps_nobody_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with set_back(tmp_path, 70 * 365 * 24 * 3600) as (node, _, later):
        assert (await node.identify(later(1))).caller.node is not None
        assert "signed requests of then may come again" in caplog.text
        caplog.clear()
        # And the next start knows of this one.
        again = Authority(node._own, node._store, node._clock, began=node._clock() - 5)
        with pytest.raises(Unproven, match="was set back"):
            await again.identify(later(3))
        assert not caplog.text


async def test_that_requests_are_taken_is_noted_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[int] = []
    note = Ahead.note
    monkeypatch.setattr(Ahead, "note", lambda *args: (notes.append(args[2]), note(*args)))
    async with set_back(tmp_path, 0) as (node, _, later):
        notes.clear()
        for wait_s in range(11, 61):
            await node.identify(later(wait_s))

    assert len(notes) <= 50 / NOTED_S + 1


async def test_who_asks_a_node_that_was_started_just_now_is_answered(tmp_path: Path) -> None:
    """Also if his clock is late: he signs once more, as late as the node says, and tells nobody of it."""
    async with watched(tmp_path / "server") as server, publisher_home(tmp_path / "asker") as (asker, namespace):
        asker.clock = lambda: server.node.authority._began - 20.0
        asker.calls = Calls(asker.key, asker.clock)
        client = server.client(asker)

        assert await introduce(asker, client) == {namespace}
        assert await server.callers(client) == [Caller(asker.id, frozenset({namespace}))]
        # Over HTTPS content is asked for by another connection, whose signer may be new, too.
        root = values.file_entry("x", b"x").root
        spans = BulkConnection(
            server.node.id,
            server.address.host,
            server.address.port,
            signer=Signer(asker.key, server.node.id, asker.clock),
        )
        spans._signer.told = SessionQuery()  # type: ignore[union-attr]
        with pytest.raises(PeerError, match="404"):
            await trio.to_thread.run_sync(
                lambda: spans.fetch([ByteRange(root, 0, 1)], [], lambda place, data: None, deadline_s=5)
            )


@pytest.mark.parametrize("said", [b"", b"soon", b"-5", b"9" * 40, b"100", b"99999"])
def test_nobody_makes_us_sign_for_another_time(said: bytes) -> None:
    signer = Signer(values.key("asker"), NodeId(values.key("server").public_key), lambda: 1000.5)

    assert not signer.sign_after(said)
    assert "created=1000;" in signer.signature("GET", "/v1/x", b"")["signature-input"]


def test_what_was_signed_a_moment_ago_is_signed_again_though_the_clock_went_on_since() -> None:
    time = [1000.9]
    signer = Signer(values.key("asker"), NodeId(values.key("server").public_key), lambda: time[0])
    assert "created=1000;" in signer.signature("GET", "/v1/x", b"")["signature-input"]
    time[0] += 0.2

    assert signer.sign_after(b"1000")
    assert "created=1001;" in signer.signature("GET", "/v1/x", b"")["signature-input"]


async def test_a_request_from_a_clock_ahead_is_good_once_also_over_a_restart(tmp_path: Path) -> None:
    def ask(name: str, created: float) -> Request:
        signed = sign_ask(
            Ask("POST", "/v1/have", "", QUERY),
            values.key(name),
            node.id,
            created=int(created),
            lifetime_s=30,
            nonce=values.key(f"{name} {created}").public_key[:NONCE_SIZE],
        )
        return Request("POST", "/v1/have", {}, QUERY, "192.0.2.1", headers=signed)

    async with open_home(tmp_path / "server") as node:
        began = node.clock()
        before = Authority(node.id, node.store, lambda: began, began=began)
        before._began -= 1  # it runs for a while
        for later in (20, 50, 40):
            await before.identify(ask("ahead", began + later))
        await before.identify(ask("right", began))

        after = Authority(node.id, node.store, lambda: began + 10, began=began + 10)
        for seen in (ask("ahead", began + 20), ask("ahead", began + 50), ask("ahead", began + 45), ask("right", began)):
            with pytest.raises(Unproven, match="before this node was started"):
                await after.identify(seen)
        for new in (ask("ahead", began + 51), ask("right", began + 11), ask("another", began + 20)):
            assert (await after.identify(new)).caller.node is not None


async def test_a_node_that_cannot_say_who_asks_says_so(tmp_path: Path, looking_always: None) -> None:
    """Its index is broken: the connection goes on, and nobody is taken for anybody."""
    async with watched(tmp_path / "server") as server, publisher_home(tmp_path / "asker") as (asker, _):
        client = server.client(asker)
        await introduce(asker, client)

        def broken(namespace: NamespaceId) -> None:
            raise StoreError("the disk is gone", path="index")

        server.node.store.logs.identity = broken  # type: ignore[method-assign,assignment]
        with pytest.raises(PeerError, match="500: this node has a problem of its own"):
            await client.have([values.file_entry("x", b"x").root])


async def test_a_request_to_another_node_is_refused(tmp_path: Path) -> None:
    async with watched(tmp_path / "server") as server, open_home(tmp_path / "asker") as asker:
        other = NodeId(values.key("other").public_key)
        headers = signer_to(other, asker).signature("POST", "/v1/have", QUERY)

        answer = await send(server, headers, QUERY)
        assert (answer.status, b"signed to another node" in answer.body) == (401, True)


@pytest.mark.parametrize("late_s", [-3600, 3600])
async def test_a_clock_that_is_wrong_is_named(tmp_path: Path, late_s: float) -> None:
    async with watched(tmp_path / "server") as server, open_home(tmp_path / "asker") as asker:
        headers = signer_to(server.node.id, asker, late_s=late_s).signature("POST", "/v1/have", QUERY)

        answer = await send(server, headers, QUERY)
        assert (answer.status, b"one of the two clocks is wrong" in answer.body) == (401, True)


async def test_a_body_that_was_changed_on_the_way_is_refused(tmp_path: Path) -> None:
    async with watched(tmp_path / "server") as server, open_home(tmp_path / "asker") as asker:
        headers = signer_to(server.node.id, asker).signature("POST", "/v1/have", QUERY)

        answer = await send(server, headers, QUERY[:-1] + b"\0")
        assert (answer.status, answer.body) == (401, b"the body is not what content-digest says")


async def test_a_refusal_says_nothing_of_what_is_here(tmp_path: Path, copy_of: Callable[[str], Path]) -> None:
    """The signature is looked at first: a wrong one gets the same answer for what is here and what is not."""
    async with watched(copy_of("server")) as server, open_home(tmp_path / "asker") as asker:
        (held,) = (item[0] for item in server.node.store.holdings.own(b"", 1))
        answers = []
        for manifest in (held.hex(), 64 * "0"):
            path = f"/v1/manifest/{manifest}"
            headers = signer_to(NodeId(values.key("other").public_key), asker).signature("GET", path, b"")
            client = raw(server)
            answers.append(await client.ask("GET", path, headers, b"", size_max=100_000))
            client.close()

    assert answers[0] == answers[1]
    assert answers[0].status == 401


async def test_an_impostor_is_told_nothing(tmp_path: Path) -> None:
    """Whoever answers with another certificate gets no request, so nothing that is signed either."""
    async with watched(tmp_path / "impostor") as impostor, publisher_home(tmp_path / "asker") as (asker, _):
        called = NodeId(values.key("called").public_key)
        client = PeerClient(called, impostor.address.host, impostor.address.port, signer=asker.calls.signer(called))

        with pytest.raises(PeerUnreachable, match="answered instead of"):
            await introduce(asker, client)
        assert impostor.seen == []


async def test_a_peer_that_says_again_and_again_that_a_session_is_over_ends_nothing_but_the_question(
    tmp_path: Path,
) -> None:
    asked: Counter[str] = Counter()

    def over(handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            asked[request.path] += 1
            if request.path == "/v1/session" and asked[request.path] <= 2:
                return await handler(request)
            return Response(401, b"over", "text/plain", {SESSION_FIELD: "over"})

        return answer

    async with (
        open_home(tmp_path / "server") as server,
        publisher_home(tmp_path / "asker") as (asker, _),
        serving(server, wrap=over) as address,
    ):
        server.authority._began -= 1  # what is asked twice because it is new is not counted
        client = PeerClient(server.id, address.host, address.port, signer=asker.calls.signer(server.id))
        with pytest.raises(PeerError, match="401"):
            await client.have([values.file_entry("x", b"x").root])
        await introduce(asker, client)
        with pytest.raises(PeerError, match="401"):
            await client.have([values.file_entry("x", b"x").root])
        client.close()

    assert asked == {"/v1/have": 2, "/v1/session": 3}


# ── keys that publish no more ───────────────────────────────────────────────


async def test_a_key_that_was_retired_ends_what_it_delegated(tmp_path: Path, looking_always: None) -> None:
    async with watched(tmp_path / "server") as server, publisher_home(tmp_path / "asker") as (asker, namespace):
        client = server.client(asker)
        await introduce(asker, client)
        assert (await server.callers(client))[-1].namespaces == {namespace}

        server.node.store.logs.add_identity(rotated(asker))
        assert (await server.callers(client))[-1] == Caller(asker.id)
        # And nothing that is shown of before makes it good again.
        assert await believed(server, asker, *delegations_of(asker)) == frozenset()


async def test_a_longer_chain_that_is_shown_counts_over_the_one_that_is_kept(tmp_path: Path) -> None:
    async with watched(tmp_path / "server") as server, publisher_home(tmp_path / "asker") as (asker, namespace):
        server.node.store.logs.add_identity(own_identity(asker))
        (old,) = delegations_of(asker)
        asker.store.logs.add_identity(rotated(asker))
        chain = asker.store.logs.identity_chain(namespace)
        assert chain is not None

        answer = await server.client(asker).begin_session(SessionQuery((old,), (chain,)))
        assert (answer.namespaces, answer.unknown) == ((), ())
        assert "does not publish" in answer.refused[0]
        kept = server.node.store.logs.identity(namespace)
        assert kept is not None
        assert kept.current.version == 2
