"""Each question gets its own answer, and nothing else is asked or told."""

from __future__ import annotations

import pytest
import trio
from msgspec.structs import replace
from netkit import HOST, NODE, Visit, answer, answering, hostile, open_door, wait_until
from peerkit import ASKS, BUCKETS, HEADS, IDENTITY, NAMESPACE, RECONCILED, ask

from p2phub.core.encoding import decode, encode
from p2phub.core.errors import PeerViolation
from p2phub.net import http
from p2phub.net.door import Request, Response
from p2phub.net.peerclient import PeerClient, open_peer
from p2phub.protocol.messages import (
    Bucket,
    BucketsQuery,
    Heads,
    Identities,
    IdentityChain,
    LogHead,
    MapAnswer,
    Reconciled,
    Records,
)


@pytest.mark.parametrize("plain", [False, True], ids=["tls", "plain"])
async def test_each_question_gets_its_answer(plain: bool) -> None:
    seen: list[Request] = []

    async def handler(request: Request) -> Response:
        seen.append(request)
        _, (method, path), body, answer, _ = list(ASKS.values())[len(seen) - 1]
        assert (request.method, request.path, request.body) == (method, path, body)
        return Response(200 if answer else 204, answer)

    async with open_door(handler, plain=plain) as port, open_peer(NODE, HOST, port, plain=plain) as client:
        for question, _, _, _, expected in ASKS.values():
            assert await question(client) == expected
    assert len(seen) == len(ASKS)


async def test_questions_share_a_connection() -> None:
    with hostile(answering(*[answer(encode(HEADS))] * 5)) as server:
        async with open_peer(NODE, HOST, server.port) as client:
            for _ in range(5):
                await client.heads(BUCKETS)

        assert len(server.visits) == 1


async def test_a_kept_connection_that_the_peer_closed_is_replaced() -> None:
    def script(visit: Visit) -> None:
        visit.read_request()
        visit.answer(encode(HEADS))

    with hostile(script) as server:
        async with open_peer(NODE, HOST, server.port) as client:
            for number in range(3):
                assert await client.heads(BUCKETS) == HEADS
                await wait_until(lambda done=number + 1: server.ended == done, "the peer to close")

        assert len(server.visits) == 3


@pytest.mark.parametrize(
    "answered",
    [
        Reconciled(logs=RECONCILED.logs),
        replace(RECONCILED, logs=MapAnswer(b"r" * 32, (bytes(64),))),
        replace(RECONCILED, logs=MapAnswer(bytes(32), (bytes(64), b""))),
        replace(RECONCILED, nodes=MapAnswer(b"r" * 32, ())),
    ],
    ids=["a map too few", "a prefix too few", "prefixes of the same map", "none of another map"],
)
async def test_an_answer_about_other_prefixes_is_a_violation(answered: Reconciled) -> None:
    with hostile(answering(answer(encode(answered)))) as server, pytest.raises(PeerViolation):
        await ask(server, "reconcile")


@pytest.mark.parametrize(
    "answered",
    [Records(()), Records(((b"one",), (b"two",))), Records(((b"entry",) * 101,))],
    ids=["of no log", "of two logs", "too many"],
)
async def test_records_that_were_not_asked_for_are_a_violation(answered: Records) -> None:
    with hostile(answering(answer(encode(answered)))) as server, pytest.raises(PeerViolation):
        await ask(server, "records")


@pytest.mark.parametrize("chains", [(), (IDENTITY, None)], ids=["none", "two"])
async def test_identities_that_were_not_asked_for_are_a_violation(chains: tuple[IdentityChain | None, ...]) -> None:
    with hostile(answering(answer(encode(Identities(chains))))) as server, pytest.raises(PeerViolation):
        await ask(server, "identities")


async def test_questions_asked_at_once_get_each_its_own_answer() -> None:
    rounds = [trio.Event() for _ in range(5)]
    came = got = 0

    def heads(number: int) -> Heads:
        return Heads((LogHead(NAMESPACE, 1, b"%d" % number),), complete=0)

    async def handler(request: Request) -> Response:
        nonlocal came
        turn, place = divmod(came, http.CONNECTIONS_MAX)
        came += 1
        # None is answered before as many are asked as can be at once, and what was asked last comes first.
        if place == http.CONNECTIONS_MAX - 1:
            rounds[turn].set()
        await rounds[turn].wait()
        await trio.sleep(0.003 * (http.CONNECTIONS_MAX - place))
        return Response(200, encode(heads(int(decode(request.body, BucketsQuery, size_max=1000).buckets[0].have))))

    async def ask_for(number: int, client: PeerClient) -> None:
        nonlocal got
        assert await client.heads(BucketsQuery(bytes(32), (Bucket("0a", b"%08d" % number),))) == heads(number)
        got += 1

    async with open_door(handler) as port, open_peer(NODE, HOST, port) as client, trio.open_nursery() as nursery:
        for number in range(len(rounds) * http.CONNECTIONS_MAX):
            nursery.start_soon(ask_for, number, client)

    assert got == came == len(rounds) * http.CONNECTIONS_MAX


async def test_no_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with hostile(answering(answer(encode(HEADS)))) as server:
        assert await ask(server, "heads") == HEADS


async def test_cookies_are_not_sent_back() -> None:
    script = answering(*[answer(encode(HEADS), set_cookie="track=me")] * 2)
    with hostile(script) as server:
        async with open_peer(NODE, HOST, server.port) as client:
            await client.heads(BUCKETS)
            await client.heads(BUCKETS)

        assert b"track" not in server.received


async def test_no_compression_is_asked_for() -> None:
    with hostile(answering(answer(encode(HEADS)))) as server:
        await ask(server, "heads")

        assert b"gzip" not in server.received
        assert b"accept-encoding: identity\r\n" in server.received.lower()
