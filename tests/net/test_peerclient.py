from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import cbor2
import pytest
import trio
from msgspec.structs import replace
from netkit import HOST, NODE, Hostile, Visit, answer, bomb, chunked, hostile, open_door, wait_until

from p2phub.core import manifest as manifests
from p2phub.core.encoding import decode, encode
from p2phub.core.errors import OtherVersion, PeerBusy, PeerError, PeerUnreachable, PeerViolation
from p2phub.core.filetree import TreePage
from p2phub.core.ids import ContentId, LogId
from p2phub.core.manifest import MANIFEST_SIZE_MAX, manifest_id
from p2phub.net import http, peerclient
from p2phub.net.door import Request, Response
from p2phub.net.peerclient import PeerClient, open_peer
from p2phub.protocol.messages import (
    ANSWER_SIZE_MAX,
    Bucket,
    BucketsQuery,
    Have,
    HaveQuery,
    Heads,
    Held,
    Hello,
    Identities,
    IdentitiesQuery,
    IdentityChain,
    Inventory,
    LogHead,
    LogRange,
    MapAnswer,
    MapQuery,
    NodeRecords,
    Nodes,
    PageRef,
    Reconciled,
    ReconcileQuery,
    Records,
    RecordsQuery,
    Ticket,
    Tickets,
    TicketsQuery,
    Trees,
    TreesQuery,
)
from p2phub.protocol.talk import Reply
from p2phub.testing import values

RECORD = values.content("record", 100)
LOG = LogId(values.content("log", 32))
NAMESPACE = values.identity().namespace
ROOTS = [ContentId(values.content(name, 32)) for name in "abc"]
MANIFEST = manifests.encode(values.manifest())
PAGE = TreePage(0, 0, 0, b"", ())
HEADS = Heads((LogHead(NAMESPACE, 1, b"head"),), complete=0)
BUCKETS = BucketsQuery(bytes(32), (Bucket("0a", b"have"),))
COMPARED = ReconcileQuery(bytes(32), logs=MapQuery(bytes(32), ("", "f")), nodes=MapQuery(bytes(32), ("",)))
RECONCILED = Reconciled(logs=MapAnswer(b"r" * 32, (bytes(64), b"")), nodes=MapAnswer(bytes(32), ()))
IDENTITY = IdentityChain(values.identity().chain)
BOMB = bomb(100_000_000)
TICKET = Ticket(bytes(16), bytes(range(16)), bytes(range(1, 17)), 600)

Ask = Callable[[PeerClient], Awaitable[Any]]

# What to ask, what the peer should see, what it answers, what comes out.
INVENTORY = Inventory((Held(manifest_id(MANIFEST), 7),), False)

ASKS: dict[str, tuple[Ask, tuple[str, str], bytes, bytes, Any]] = {
    "hello": (
        lambda client: client.hello(RECORD), ("POST", "/v1/hello"), encode(Hello(RECORD)),
        encode(Nodes((b"one", b"two"))), (b"one", b"two"),
    ),
    "heads": (
        lambda client: client.heads(BUCKETS), ("POST", "/v1/heads"), encode(BUCKETS), encode(HEADS), HEADS,
    ),
    "node records": (
        lambda client: client.node_records(BUCKETS), ("POST", "/v1/nodes"), encode(BUCKETS),
        encode(NodeRecords((RECORD,), 1)), NodeRecords((RECORD,), 1),
    ),
    "reconcile": (
        lambda client: client.reconcile(COMPARED), ("POST", "/v1/reconcile"), encode(COMPARED), encode(RECONCILED),
        RECONCILED,
    ),
    "talk": (
        lambda client: client.talk(b"message"), ("POST", "/v1/talk"), b"message", encode(Reply(True, (RECORD,))),
        Reply(True, (RECORD,)),
    ),
    "head": (
        lambda client: client.head(LOG), ("GET", f"/v1/head/{LOG}"), b"", encode(HEADS.heads[0]), HEADS.heads[0],
    ),
    "identities": (
        lambda client: client.identities([NAMESPACE]), ("POST", "/v1/identities"),
        encode(IdentitiesQuery((NAMESPACE,))), encode(Identities((IDENTITY,))), (IDENTITY,),
    ),
    "records": (
        lambda client: client.records([LogRange(LOG, 7, 100)]), ("POST", "/v1/records"),
        encode(RecordsQuery((LogRange(LOG, 7, 100),))), encode(Records(((b"entry",),))), ((b"entry",),),
    ),
    "inventory": (
        lambda client: client.inventory(None), ("GET", "/v1/inventory"), b"",
        encode(INVENTORY), INVENTORY,
    ),
    "manifest": (
        lambda client: client.manifest(manifest_id(MANIFEST)), ("GET", f"/v1/manifest/{manifest_id(MANIFEST).hex()}"),
        b"", MANIFEST, MANIFEST,
    ),
    "have": (
        lambda client: client.have(ROOTS), ("POST", "/v1/have"), encode(HaveQuery(tuple(ROOTS))),
        encode(Have((True, False, b"\x05"))), Have((True, False, b"\x05")),
    ),
    "trees": (
        lambda client: client.trees([PageRef(ROOTS[0], 0), PageRef(ROOTS[1], 3)]), ("POST", "/v1/trees"),
        encode(TreesQuery((PageRef(ROOTS[0], 0), PageRef(ROOTS[1], 3)))), encode(Trees((PAGE, None))),
        Trees((PAGE, None)),
    ),
    "tickets": (
        lambda client: client.tickets(1), ("POST", "/v1/tickets"), encode(TicketsQuery(1)), encode(Tickets((TICKET,))),
        (TICKET,),
    ),
}  # fmt: skip
# Those whose answer is a message.
DECODED = sorted(set(ASKS) - {"manifest"})


async def ask(server: Hostile, what: str) -> Any:
    async with open_peer(NODE, HOST, server.port) as client:
        return await ASKS[what][0](client)


def answering(*answers: bytes) -> Callable[[Visit], None]:
    """Return a script that answers requests with these bytes, one after the other, and then waits."""

    def script(visit: Visit) -> None:
        for data in answers:
            visit.read_request()
            visit.send(data)
        visit.wait()

    return script


# ── what is asked and answered ──────────────────────────────────────────────


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


# ── what is no answer ───────────────────────────────────────────────────────


@pytest.mark.parametrize("what", DECODED)
@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>", values.content("noise", 1000), b"\xff" * 10, b"\xa1" * 100_000, b"\x9f" * 100_000,
    ],
    ids=["empty", "html", "noise", "breaks", "deep", "deeper"],
)  # fmt: skip
async def test_what_is_no_answer_is_a_violation(what: str, body: bytes) -> None:
    with (
        hostile(answering(answer(body))) as server,
        pytest.raises(PeerViolation, match="breaks the protocol") as caught,
    ):
        await ask(server, what)

    assert caught.value.peer == str(NODE)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("what", DECODED)
@pytest.mark.parametrize(
    "body", [cbor2.dumps({"what": 1}), encode(Hello(RECORD))], ids=["strange fields", "another message"]
)
async def test_an_answer_of_another_form_may_be_of_another_version(what: str, body: bytes) -> None:
    with hostile(answering(answer(body))) as server, pytest.raises(OtherVersion) as caught:
        await ask(server, what)

    assert caught.value.peer == str(NODE)


@pytest.mark.parametrize("what", DECODED)
async def test_an_answer_with_one_field_more_may_be_of_another_version(what: str) -> None:
    plain = cbor2.loads(ASKS[what][3])
    body = cbor2.dumps({**plain, "zz": 1}, canonical=True)
    with hostile(answering(answer(body))) as server, pytest.raises(OtherVersion):
        await ask(server, what)


@pytest.mark.parametrize("what", DECODED)
async def test_an_answer_that_is_not_in_the_one_form_is_a_violation(what: str) -> None:
    good = ASKS[what][3]
    plain = cbor2.loads(good)
    variants = [good + b"\0", cbor2.dumps(plain, canonical=False)]
    reordered = cbor2.dumps(dict(reversed(plain.items())))
    for body in {*variants, reordered} - {good}:
        with hostile(answering(answer(body))) as server, pytest.raises(PeerViolation):
            await ask(server, what)


async def test_another_manifest_is_a_violation() -> None:
    other = manifests.encode(values.full_manifest())
    with hostile(answering(answer(other))) as server, pytest.raises(PeerViolation, match="another manifest"):
        await ask(server, "manifest")


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("have", encode(Have((True,) * 4))), ("have", encode(Have(()))),
        ("trees", encode(Trees(()))), ("trees", encode(Trees((None,) * 3))),
    ],
)  # fmt: skip
async def test_an_answer_for_another_number_of_things_is_a_violation(what: str, body: bytes) -> None:
    with hostile(answering(answer(body))) as server, pytest.raises(PeerViolation, match="instead of"):
        await ask(server, what)


async def test_a_peer_that_answers_for_the_first_files_is_asked_for_the_rest() -> None:
    answers = (answer(encode(Have((True,)))), answer(encode(Have((False, b"\x05")))))
    with hostile(answering(*answers)) as server:
        held = await ask(server, "have")

    assert held == Have((True, False, b"\x05"))


def send_without_end(visit: Visit, head: bytes, piece: bytes) -> None:
    visit.read_request()
    visit.send(head)
    while True:
        visit.send(piece)


@pytest.mark.parametrize("what", ["heads", "manifest", "talk"])
@pytest.mark.parametrize("framing", ["length", "chunks", "until the end"])
async def test_an_answer_that_is_too_large_is_cut_off(what: str, framing: str) -> None:
    head, piece = {
        "length": (b"HTTP/1.1 200 X\r\ncontent-length: 1000000000000\r\n\r\n", bytes(65536)),
        "chunks": (b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n", b"10000\r\n" + bytes(65536) + b"\r\n"),
        "until the end": (b"HTTP/1.1 200 X\r\nconnection: close\r\n\r\n", bytes(65536)),
    }[framing]
    limit = MANIFEST_SIZE_MAX if what == "manifest" else ANSWER_SIZE_MAX
    with (
        hostile(lambda visit: send_without_end(visit, head, piece)) as server,
        pytest.raises(PeerViolation, match=f"more than {limit} bytes"),
    ):
        await ask(server, what)


async def test_an_answer_of_the_largest_size_is_taken() -> None:
    entries = tuple(bytes(60_000) for _ in range(69))
    body = encode(Records((entries,)))
    assert ANSWER_SIZE_MAX - 60_000 < len(body) <= ANSWER_SIZE_MAX
    with hostile(answering(answer(body))) as server:
        assert await ask(server, "records") == (entries,)
    with hostile(answering(answer(chunked(body), content_length=None, transfer_encoding="chunked"))) as server:
        assert await ask(server, "records") == (entries,)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
async def test_a_compressed_answer_is_never_expanded(coding: str) -> None:
    """A few bytes could become any number."""
    with hostile(answering(answer(BOMB, content_encoding=coding))) as server, pytest.raises(PeerViolation):
        await ask(server, "heads")


@pytest.mark.parametrize("what", ["heads", "manifest", "talk", "tickets"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(what: str, status: int) -> None:
    with hostile(answering(answer(ASKS[what][3]))) as elsewhere:
        location = f"https://{HOST}:{elsewhere.port}/v1/heads"
        with hostile(answering(answer(b"over there", status, location=location))) as server:
            with pytest.raises(PeerError, match=f"answered {status}") as caught:
                await ask(server, what)
            assert not isinstance(caught.value, PeerUnreachable)

        assert elsewhere.visits == []


# ── refusals ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("what", sorted(set(ASKS) - {"manifest", "tickets", "head"}))
async def test_what_a_peer_does_not_have_is_an_error_of_its_own(what: str) -> None:
    with hostile(answering(answer(b"not here", 404))) as server, pytest.raises(PeerError) as caught:
        await ask(server, what)

    assert type(caught.value) is PeerError


@pytest.mark.parametrize("what", ["manifest", "tickets", "head"])
async def test_what_a_peer_may_well_not_have_is_none(what: str) -> None:
    with hostile(answering(answer(b"not here", 404))) as server:
        assert await ask(server, what) is None


@pytest.mark.parametrize(
    ("retry_after", "expected"),
    [(None, 1.0), ("0", 0.0), ("7", 7.0), ("60", 60.0), ("99999", 60.0), ("9" * 400, 60.0), ("-5", 1.0), ("soon", 1.0),
     ("1.5", 1.0), ("", 1.0), ("²", 1.0)],
)  # fmt: skip
async def test_a_busy_peer_says_when_to_come_back(retry_after: str | None, expected: float) -> None:
    headers = {} if retry_after is None else {"retry_after": retry_after}
    with hostile(answering(answer(b"busy", 429, **headers))) as server, pytest.raises(PeerBusy) as caught:
        await ask(server, "heads")

    assert caught.value.retry_after_s == expected


@pytest.mark.parametrize("status", [400, 403, 405, 413, 418, 500, 503, 599])
async def test_a_refusal_says_what_the_peer_said_and_is_no_violation(status: int) -> None:
    with (
        hostile(answering(answer(b"this node has a problem\n", status))) as server,
        pytest.raises(PeerError, match=f"answered {status}: this node has a problem") as caught,
    ):
        await ask(server, "heads")

    assert type(caught.value) is PeerError


@pytest.mark.parametrize("text", [b"\xff\xfe" * 500, b"x" * 100_000, b"", b"\x1b[2Jowned\r\n" * 30])
async def test_what_a_peer_says_is_short_and_plain(text: bytes) -> None:
    with hostile(answering(answer(text, 500))) as server, pytest.raises(PeerError) as caught:
        await ask(server, "heads")

    said = str(caught.value)
    assert len(said) < 400
    assert said.isprintable()


# ── connections that fail ───────────────────────────────────────────────────


def close_at_once(visit: Visit) -> None:
    visit.read_request()


def close_in_the_head(visit: Visit) -> None:
    visit.read_request()
    visit.send(b"HTTP/1.1 200 X\r\ncontent-le")


def close_in_the_body(visit: Visit) -> None:
    visit.read_request()
    visit.send(b"HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\nabc")


def close_in_a_chunk(visit: Visit) -> None:
    visit.read_request()
    visit.send(b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n64\r\nabc")


def speak_no_http(visit: Visit) -> None:
    visit.read_request()
    visit.send(b"220 mail.example ESMTP\r\n\r\n")


def send_endless_headers(visit: Visit) -> None:
    visit.read_request()
    visit.send(b"HTTP/1.1 200 X\r\n")
    while True:
        visit.send(b"x: " + b"y" * 10_000 + b"\r\n")


def send_two_lengths(visit: Visit) -> None:
    visit.read_request()
    visit.send(b"HTTP/1.1 200 X\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab")


BROKEN = [
    close_at_once, close_in_the_head, close_in_the_body, close_in_a_chunk, speak_no_http, send_endless_headers,
    send_two_lengths,
]  # fmt: skip


@pytest.mark.parametrize("script", BROKEN)
async def test_a_connection_that_breaks_is_a_peer_that_cannot_be_reached(script: Callable[[Visit], None]) -> None:
    with hostile(script) as server, pytest.raises(PeerUnreachable) as caught:
        await ask(server, "heads")

    assert "\n" not in str(caught.value)
    assert caught.value.peer == str(NODE)


async def test_a_peer_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "READ_TIMEOUT_S", 0.3)
    with hostile(Visit.wait) as server, pytest.raises(PeerUnreachable, match="no answer in time"):
        await ask(server, "heads")


def trickle_body(visit: Visit) -> None:
    visit.read_request()
    visit.send(b"HTTP/1.1 200 X\r\ncontent-length: 4000000\r\n\r\n")
    while True:
        visit.send(b"x")
        visit.socket.settimeout(0.02)
        try:
            visit.read()
        except TimeoutError:
            continue


def promise_for_ever(visit: Visit) -> None:
    visit.read_request()
    while True:
        visit.send(b"HTTP/1.1 103 Early Hints\r\nx: y\r\n\r\n")


@pytest.mark.parametrize("script", [trickle_body, promise_for_ever])
async def test_an_answer_that_never_ends_is_given_up(
    script: Callable[[Visit], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peerclient, "ANSWER_TIMEOUT_S", 0.5)
    with hostile(script) as server, trio.fail_after(20), pytest.raises(PeerUnreachable, match="too slow"):
        await ask(server, "heads")


async def test_a_question_can_be_given_up_at_any_time() -> None:
    with hostile(Visit.wait) as server:
        async with open_peer(NODE, HOST, server.port) as client:
            with trio.move_on_after(0.2) as scope:
                await client.heads(BUCKETS)
            assert scope.cancelled_caught


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
