"""Right and wrong answers of web servers that have content."""

from __future__ import annotations

import email.utils
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from blake3 import blake3
from netkit import PATIENCE_S, Sink
from originsight import (
    CHUNKS,
    DATA,
    EITHER,
    FILES,
    NAME,
    OTHER,
    OTHER_DATA,
    PART,
    ROOT,
    WANTED,
    WHOLE,
    connect,
    failing,
    fetch,
    spans,
)

from p2phub.core.errors import FileRefused, OnlyWhole, PeerBusy, PeerError, PeerUnreachable, PeerViolation
from p2phub.net.connection import WantedChunk
from p2phub.protocol.messages import ByteRange
from p2phub.testing.webserver import (
    Asked,
    Behaviour,
    Reply,
    WebServer,
    answering,
    chunked,
    compressing,
    cutting,
    lying_from,
    only,
    raw,
    times,
    with_headers,
    without_ranges,
)

pytestmark = pytest.mark.usefixtures("no_proxy", "forget_authorities")


# ── right answers ───────────────────────────────────────────────────────────


@EITHER
@pytest.mark.parametrize("behaviours", [[], [chunked]], ids=["sized", "chunked"])
def test_every_chunk_reaches_the_sink_in_order_on_one_connection(part: range, behaviours: list[Behaviour]) -> None:
    with WebServer(FILES, *behaviours) as server:
        connection = connect(server.url)
        for _ in range(3):
            sink = fetch(connection, part)
            assert [sink.chunks[place] for place in sink.chunks] == [CHUNKS[index] for index in part]
        connection.close()

    assert server.connections == 1
    assert len(server.asked) == 3


def test_a_request_asks_for_what_is_wanted_and_tells_nothing_of_us() -> None:
    with WebServer(FILES) as server:
        connection = connect(server.url)
        fetch(connection, PART)
        fetch(connection, WHOLE)
        connection.close()

    part, whole = server.asked
    host = f"127.0.0.1:{server.port}"
    common = {"host": host, "user-agent": "p2phub", "accept": "*/*", "accept-encoding": "identity"}
    assert (part.method, part.target) == ("GET", "/dir/a%20file.bin")
    assert part.headers == common | {"range": f"bytes=300000-{700_000 - 1}"}
    # Servers without ranges, and caches, know this best.
    assert whole.headers == common


def test_runs_that_do_not_touch_are_requests_of_their_own() -> None:
    wanted = [*spans(range(1, 3)), *spans(range(5, 6)), ByteRange(OTHER, 0, len(OTHER_DATA)), *spans(range(6, 8))]
    chunks = [*WANTED[1:3], WANTED[5], WantedChunk(len(OTHER_DATA), blake3(OTHER_DATA).digest()), *WANTED[6:8]]
    sink = Sink()
    with WebServer(FILES) as server:
        connection = connect(server.url)
        connection.fetch(wanted, chunks, sink, deadline_s=PATIENCE_S)
        connection.close()

    assert [asked.byte_range for asked in server.asked] == [(100_000, 299_999), (500_000, 599_999), None,
                                                            (600_000, 799_999)]  # fmt: skip
    assert sink.data == DATA[100_000:300_000] + DATA[500_000:600_000] + OTHER_DATA + DATA[600_000:800_000]


def test_the_whole_file_may_come_without_its_length() -> None:
    with WebServer(FILES, with_headers(content_length="")) as server:
        # The end of the connection is the end of the file.
        assert fetch(connect(server.url), WHOLE).data == DATA


@EITHER
def test_a_compressed_file_that_is_called_coded_is_taken_as_it_is(part: range) -> None:
    # As some servers do with x.tar.gz; its bytes are right and as many as the file has.
    with WebServer(FILES, with_headers(content_encoding="x-gzip")) as server:
        connection = connect(server.url)
        assert fetch(connection, part).data == b"".join(CHUNKS[index] for index in part)
        connection.close()


@pytest.mark.parametrize("behaviour", [raw(b""), with_headers(connection="close")], ids=["vanished", "said so"])
def test_a_connection_that_ended_between_two_requests_is_made_anew(behaviour: Behaviour) -> None:
    with WebServer(FILES) as server:
        connection = connect(server.url)
        fetch(connection)
        server.behaviours.append(times(1, behaviour))
        if behaviour(Asked("GET", "/", {}), Reply(200)).raw is not None:
            with pytest.raises(PeerUnreachable):
                fetch(connection)
        else:
            fetch(connection)
        fetch(connection)
        connection.close()


# ── wrong answers ───────────────────────────────────────────────────────────


def test_wrong_bytes_are_a_violation_and_never_reach_the_sink() -> None:
    sink = failing(PeerViolation, "sent other bytes than were published", lying_from(450_000))

    assert sink.data == CHUNKS[3]


@pytest.mark.parametrize(
    ("error", "match", "behaviours"),
    [
        (FileRefused, r"refuses access to a file.bin \(401 unauthorized\)", [answering(401, www_authenticate="Basic")]),
        (FileRefused, r"refuses access to a file.bin \(403 forbidden\)", [answering(403)]),
        (FileRefused, r"does not have a file.bin \(404 not found\)", [answering(404)]),
        (FileRefused, r"does not have a file.bin \(410 gone\)", [answering(410)]),
        (FileRefused, "has a shorter file for a file.bin", [answering(416)]),
        (FileRefused, "answered 400 bad request for a file.bin", [answering(400)]),
        (FileRefused, "answered 204 no content for a file.bin", [raw(b"HTTP/1.1 204 X\r\n\r\n")]),
        (FileRefused, "answered 299 for a file.bin", [answering(299)]),
        (PeerUnreachable, "answered 500 internal server error", [answering(500)]),
        (PeerUnreachable, "answered 502 bad gateway", [answering(502)]),
        (PeerUnreachable, "answered 503 service unavailable", [answering(503)]),
        (PeerUnreachable, "answered 408 request timeout", [answering(408)]),
        (PeerUnreachable, "sends no HTTP answer", [raw(b"SSH-2.0-OpenSSH_9.2\r\n")]),
        (PeerUnreachable, "sends no HTTP answer", [raw(b"")]),
        (PeerUnreachable, "sends no HTTP answer", [raw(b"HTTP/1.1 200 X\r\n" + b"x: y\r\n" * 50_000)]),
        (PeerUnreachable, "ended its answer too early", [cutting(150_000)]),
        (PeerUnreachable, "ended its answer too early", [chunked, cutting(150_000)]),
        # Nothing but the end of the connection says that this is all.
        (PeerUnreachable, "ended its answer too early", [with_headers(content_length=""), cutting(150_000)]),
        (FileRefused, "sends a file.bin compressed", [compressing]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@EITHER
def test_each_failure_says_what_it_was(
    part: range, error: type[PeerError], match: str, behaviours: list[Behaviour]
) -> None:
    failing(error, match, *behaviours, part=part)


def test_a_server_without_ranges_is_known_by_its_answer_to_a_part() -> None:
    with WebServer(FILES, without_ranges(FILES)) as server:
        connection = connect(server.url)
        with pytest.raises(OnlyWhole, match=f"origin {NAME} gives no parts of files") as caught:
            fetch(connection, PART)
        assert caught.value.root == ROOT
        assert fetch(connection, WHOLE).data == DATA
        connection.close()


@pytest.mark.parametrize(
    ("match", "headers"),
    [
        ("does not say which", {"content_range": ""}),
        ("does not say which", {"content_range": "bytes */950000"}),
        ("does not say which", {"content_range": "items 300000-699999/950000"}),
        ("does not say which", {"content_type": "multipart/byteranges; boundary=x", "content_range": ""}),
        ("another part of a file.bin", {"content_range": "bytes 300001-700000/950000"}),
        ("another part of a file.bin", {"content_range": "bytes 300000-699998/950000"}),
        ("another part of a file.bin", {"content_length": "399999"}),
        ("has 950001 bytes for a file.bin, which has 950000", {"content_range": "bytes 300000-699999/950001"}),
    ],
    ids=lambda value: " ".join(value.values()) if isinstance(value, dict) else "",
)
def test_a_part_that_is_not_the_one_asked_for_is_refused(match: str, headers: dict[str, str]) -> None:
    sink = failing(FileRefused, match, with_headers(**headers))

    assert not sink.chunks


def test_the_size_of_the_file_need_not_be_told_with_a_part() -> None:
    with WebServer(FILES, with_headers(content_range="bytes 300000-699999/*")) as server:
        connection = connect(server.url)
        assert fetch(connection).data == DATA[300_000:700_000]
        connection.close()


def test_a_whole_file_of_another_length_is_refused() -> None:
    sink = failing(FileRefused, "has 949999 bytes for a file.bin, which has 950000",
                   lambda asked, reply: replace(reply, body=reply.body[:-1]), part=WHOLE)  # fmt: skip

    assert not sink.chunks


@EITHER
def test_more_than_was_asked_is_noticed(part: range) -> None:
    def longer(asked: Asked, reply: Reply) -> Reply:
        return replace(reply, body=reply.body + b"more", is_chunked=True)

    failing(PeerError, "sends more than was asked", longer, part=part)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("retry_after", "least_s", "most_s"),
    [
        ("7", 7, 7),
        ("0", 0, 0),
        ("86400", 60, 60),
        ("soon", 1, 1),
        ("-5", 1, 1),
        pytest.param(email.utils.formatdate(time.time() + 30, usegmt=True), 1, 31, id="in half a minute"),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 1, 1),
        ("Thu, 01 Jan 99999 00:00:00 GMT", 1, 60),
    ],
)
def test_a_busy_origin_says_how_long_to_wait(status: int, retry_after: str, least_s: float, most_s: float) -> None:
    with WebServer(FILES, answering(status, retry_after=retry_after)) as server:
        connection = connect(server.url)
        with pytest.raises(PeerBusy, match=f"{NAME} is busy") as caught:
            fetch(connection)
        connection.close()

    assert least_s <= caught.value.retry_after_s <= most_s


def test_a_connection_goes_on_after_a_refusal() -> None:
    with WebServer(FILES, only(lambda asked: "file" in asked.path, answering(404))) as server:
        connection = connect(server.url)
        for _ in range(2):
            with pytest.raises(FileRefused):
                fetch(connection)
            connection.fetch(
                [ByteRange(OTHER, 0, len(OTHER_DATA))],
                [WantedChunk(len(OTHER_DATA), blake3(OTHER_DATA).digest())],
                Sink(),
                deadline_s=PATIENCE_S,
            )
        connection.close()

    assert server.connections == 1


# ── memory ──────────────────────────────────────────────────────────────────


def test_memory_stays_flat(tmp_path: Path) -> None:
    """A file of 200 MB passes through a process that may grow by a tenth of it."""
    script = tmp_path / "big.py"
    script.write_text(
        """
import resource, sys
from p2phub.core.ids import ContentId
from p2phub.core.origins import OriginFile, parse_url
from p2phub.net.connection import WantedChunk
from p2phub.net.origin import OriginConnection, OriginFile
from p2phub.protocol.messages import ByteRange
from blake3 import blake3

size, root = 200_000_000, ContentId(bytes(32))
chunk = bytes(2_000_000)
wanted = [WantedChunk(len(chunk), blake3(chunk).digest())] * (size // len(chunk))
file = OriginFile(parse_url(sys.argv[1]), size, "big")
connection = OriginConnection("x", {root: file}, is_given=True)
connection.fetch([ByteRange(root, 0, 2_000_000)], wanted[:1], lambda *_: None, deadline_s=60)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
connection.fetch([ByteRange(root, 0, size)], wanted, lambda *_: None, deadline_s=60)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    )
    with WebServer({"big": bytes(200_000_000)}) as server:
        out = subprocess.run(
            [sys.executable, script, f"{server.url}/big"], capture_output=True, text=True, check=True, timeout=120
        )

    assert int(out.stdout) < 20_000  # KiB
