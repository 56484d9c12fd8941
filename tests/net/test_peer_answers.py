"""What a peer sends in the place of an answer is refused, whatever it is."""

from __future__ import annotations

import cbor2
import pytest
from netkit import HOST, NODE, Visit, answer, answering, chunked, hostile
from peerkit import ASKS, BOMB, DECODED, RECORD, ask

from p2phub.core import manifest as manifests
from p2phub.core.encoding import encode
from p2phub.core.errors import OtherVersion, PeerError, PeerUnreachable, PeerViolation
from p2phub.core.manifest import MANIFEST_SIZE_MAX
from p2phub.protocol.messages import ANSWER_SIZE_MAX, Have, Hello, Records, Trees
from p2phub.testing import values


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
