"""Peers that refuse, break off or never answer, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from netkit import HOST, NODE, Visit, answer, answering, hostile
from peerkit import ASKS, BUCKETS, ask

from p2phub.core.errors import PeerBusy, PeerError, PeerUnreachable
from p2phub.net import http, peerclient
from p2phub.net.peerclient import open_peer

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
