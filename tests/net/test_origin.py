from __future__ import annotations

import base64
import email.utils
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from blake3 import blake3
from netkit import PATIENCE_S, Sink

from p2phub.core.errors import FileRefused, OnlyWhole, PeerBusy, PeerError, PeerUnreachable, PeerViolation
from p2phub.core.ids import ContentId
from p2phub.core.origins import OriginFile, parse_url
from p2phub.net import web
from p2phub.net.connection import WantedChunk
from p2phub.net.origin import OriginConnection
from p2phub.protocol.messages import ByteRange
from p2phub.testing import values
from p2phub.testing.processes import Stranger
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
    make_certificate,
    only,
    raw,
    redirecting,
    slowly,
    stalling,
    times,
    with_headers,
    without_ranges,
)

DATA = values.content("file", 950_000)
CHUNK_SIZE = 100_000
CHUNKS = [DATA[at : at + CHUNK_SIZE] for at in range(0, len(DATA), CHUNK_SIZE)]
WANTED = [WantedChunk(len(chunk), blake3(chunk).digest()) for chunk in CHUNKS]
ROOT = ContentId(blake3(DATA).digest())
OTHER_DATA = values.content("other", 70_000)
OTHER = ContentId(blake3(OTHER_DATA).digest())
FILES = {"dir/a file.bin": DATA, "other": OTHER_DATA}
NAME = "models.example"

WHOLE = range(len(CHUNKS))
PART = range(3, 7)
pytestmark = pytest.mark.usefixtures("no_proxy", "forget_authorities")

EITHER = pytest.mark.parametrize("part", [WHOLE, PART], ids=["whole", "part"])


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let stalls end within a second or so."""
    monkeypatch.setattr(web.Web.left_s, "__defaults__", (1.0,))


def connect(url: str, *, is_given: bool = True, size: int | None = len(DATA)) -> OriginConnection:
    files = {
        ROOT: OriginFile(parse_url(f"{url}/dir/a%20file.bin"), size, "a file.bin"),
        OTHER: OriginFile(parse_url(f"{url}/other"), len(OTHER_DATA), "other"),
    }
    return OriginConnection(NAME, files, is_given=is_given)


def spans(part: range) -> list[ByteRange]:
    """Return a span for each chunk of `part`, as downloads ask for them."""
    return [ByteRange(ROOT, index * CHUNK_SIZE, len(CHUNKS[index])) for index in part]


def fetch(
    connection: OriginConnection, part: range = PART, sink: Sink | None = None, *, deadline_s: float = PATIENCE_S
) -> Sink:
    sink = sink or Sink()
    connection.fetch(spans(part), [WANTED[index] for index in part], sink, deadline_s=deadline_s)
    return sink


def failing(
    error: type[PeerError], match: str, *behaviours: Behaviour, part: range = PART, deadline_s: float = PATIENCE_S
) -> Sink:
    """Fetch from a server that behaves so, which must fail; returns what was given to the sink."""
    sink = Sink()
    with WebServer(FILES, *behaviours) as server:
        connection = connect(server.url)
        with pytest.raises(error, match=match) as caught:
            fetch(connection, part, sink, deadline_s=deadline_s)
        connection.close()
        assert str(server.port) not in str(caught.value)
    assert type(caught.value) is error
    assert caught.value.peer == NAME
    assert NAME in str(caught.value)
    assert str(caught.value).isprintable()
    # Only what is right, only in order.
    assert sink.data == b"".join(CHUNKS[index] for index in part)[: len(sink.data)]
    return sink


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


# ── time ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [0, 150_000])
def test_a_stall_ends_the_request_and_keeps_what_came(size: int, impatient: None) -> None:
    sink = failing(PeerUnreachable, "is too slow", stalling(size) if size else stalling_head)

    assert sink.data == (CHUNKS[3] if size else b"")


def stalling_head(asked: Asked, reply: Reply) -> Reply:
    """Begin an answer and never end its head; the client closes."""
    time.sleep(3.0)
    return Reply(200, raw=b"")


def test_a_trickle_ends_at_the_deadline(impatient: None) -> None:
    failing(PeerUnreachable, "is too slow", slowly(50_000), deadline_s=1.5)


def test_a_trickle_ends_long_before_what_the_size_would_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    # As slow as the floor allows for the first moments, but then it goes on and on.
    monkeypatch.setattr("p2phub.net.origin.DEADLINE_MIN_S", 0.5)
    monkeypatch.setattr("p2phub.net.origin.DEADLINE_PER_MIB_S", 1.0)
    failing(PeerUnreachable, "is too slow", slowly(100_000), deadline_s=1000.0, part=WHOLE)


def test_many_small_files_have_more_time_than_their_bytes_alone() -> None:
    runs = [ByteRange(OTHER, 0, len(OTHER_DATA))] * 4
    wanted = [WantedChunk(len(OTHER_DATA), blake3(OTHER_DATA).digest())] * 4

    def late(asked: Asked, reply: Reply) -> Reply:
        time.sleep(0.3)
        return reply

    with WebServer(FILES, late) as server:
        connection = connect(server.url)
        sink = Sink()
        connection.fetch(runs, wanted, sink, deadline_s=0.6)
        connection.close()

    assert sink.data == OTHER_DATA * 4


@pytest.mark.parametrize("where", ["connect", "head", "body", "tls"])
def test_abort_ends_a_blocked_request_at_once(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without `abort` this would wait for a minute.
    monkeypatch.setattr(web.Web.left_s, "__defaults__", (60.0,))
    monkeypatch.setattr(web, "CONNECT_TIMEOUT_S", 60.0)
    waiting = threading.Event()
    errors: list[BaseException] = []

    def reached(asked: Asked, reply: Reply) -> Reply:
        waiting.set()
        if where == "head":
            time.sleep(2.0)
        return replace(reply, stall_at=150_000)

    with WebServer(FILES, reached) as server, socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}" if where == "tls" else server.url
        connection = connect(url)
        if where == "connect":
            # The name resolves for ever.
            def look_up(*_: object, **__: object) -> list[object]:
                waiting.set()
                time.sleep(5.0)
                return []

            monkeypatch.setattr(socket, "getaddrinfo", look_up)

        def work() -> None:
            try:
                fetch(connection, deadline_s=60.0)
            except PeerError as exc:
                errors.append(exc)

        thread = threading.Thread(target=work)
        thread.start()
        if where == "tls":
            silent.settimeout(PATIENCE_S)
            taken, _ = silent.accept()
            taken.recv(10)
        else:
            assert waiting.wait(PATIENCE_S)
        time.sleep(0.1)
        connection.abort()
        start = time.monotonic()
        thread.join(PATIENCE_S)
        assert time.monotonic() - start < 1.9
        assert isinstance(errors[0], PeerUnreachable)
        with pytest.raises(PeerUnreachable, match="given up"):
            fetch(connection)
        connection.close()


# ── redirects ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_and_remembered(status: int) -> None:
    with WebServer(FILES) as store, WebServer({}, redirecting(lambda asked: store.url + asked.target, status)) as hub:
        connection = connect(hub.url)
        for _ in range(3):
            assert fetch(connection).data == DATA[300_000:700_000]
        connection.close()

    assert len(hub.asked) == 1
    assert [asked.byte_range for asked in store.asked] == [(300_000, 699_999)] * 3


def test_where_a_redirect_led_is_asked_for_anew_when_it_expired() -> None:
    key = ["1"]
    with (
        WebServer(FILES, only(lambda asked: not asked.target.endswith(f"?key={key[0]}"), answering(403))) as store,
        WebServer({}, redirecting(lambda asked: f"{store.url}{asked.target}?key={key[0]}")) as hub,
    ):
        connection = connect(hub.url)
        fetch(connection)
        key[0] = "2"
        assert fetch(connection).data == DATA[300_000:700_000]
        connection.close()

    assert len(hub.asked) == 2


@pytest.mark.parametrize("location", ["b", "/dir/b", "?file=b"])
def test_redirects_may_be_relative(location: str) -> None:
    with WebServer({"dir/b": DATA}, times(1, redirecting(lambda _: location))) as server:
        connection = connect(server.url)
        if location.startswith("?"):
            with pytest.raises(FileRefused, match="does not have"):
                fetch(connection)
        else:
            assert fetch(connection).data == DATA[300_000:700_000]
        connection.close()

    assert [asked.target for asked in server.asked][1] in ("/dir/b", "/dir/a%20file.bin?file=b")


@pytest.mark.parametrize(
    ("match", "location"),
    [
        ("redirects more than 5 times, asked for a file.bin", "again"),
        ("redirects to nowhere", ""),
        ("redirects to nowhere", "/" + "x" * 9000),
        ("redirects to what is no http", "ftp://127.0.0.1/x"),
        ("redirects to what is no http", "file:///etc/passwd"),
        ("redirects to what is no http", "http://[::1/x"),
        ("redirects to what is no http", "http://127.0.0.1:99999/x"),
    ],
)
def test_redirects_that_lead_nowhere_end(match: str, location: str) -> None:
    failing(FileRefused, match, redirecting(lambda _: location))


def test_bytes_in_a_redirect_that_no_url_has_are_encoded() -> None:
    with WebServer({"ü x": DATA}, times(1, redirecting(lambda _: "/ü x".encode().decode("latin-1")))) as server:
        connection = connect(server.url)
        assert fetch(connection).data == DATA[300_000:700_000]
        connection.close()

    assert server.asked[1].target == "/%C3%BC%20x"


def test_no_redirect_leads_from_https_to_http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, tls = make_certificate(tmp_path)
    trust(authority, monkeypatch)
    with WebServer(FILES) as plain, WebServer({}, redirecting(lambda _: plain.url), tls=tls) as server:
        connection = connect(server.url)
        with pytest.raises(FileRefused, match="redirects from https to http"):
            fetch(connection)
        connection.close()

    assert not plain.asked


# ── secrets ─────────────────────────────────────────────────────────────────


def test_a_user_in_the_url_is_told_to_that_server_alone_and_to_nobody_who_reads_errors() -> None:
    expected = "Basic " + base64.b64encode(b"me:pass word").decode()
    with WebServer(FILES) as store, WebServer({}) as hub:
        hub.behaviours += [redirecting(lambda asked: "/inner" if asked.target != "/inner" else f"{store.url}/other")]
        connection = connect(hub.url.replace("://", "://me:pass%20word@"))
        with pytest.raises(PeerError) as caught:
            fetch(connection)
        connection.close()

    assert [asked.headers.get("authorization") for asked in hub.asked] == [expected, expected]
    assert [asked.headers.get("authorization") for asked in store.asked] == [None]
    assert "pass" not in str(caught.value)


def test_cookies_are_not_kept() -> None:
    with WebServer(FILES, with_headers(set_cookie="who=you; Path=/")) as server:
        connection = connect(server.url)
        fetch(connection)
        fetch(connection)
        connection.close()

    assert all("cookie" not in asked.headers for asked in server.asked)


# ── where strangers may lead ────────────────────────────────────────────────


def resolving(monkeypatch: pytest.MonkeyPatch, names: dict[str, list[str]]) -> None:
    """Let names have these addresses."""
    real = socket.getaddrinfo

    def look_up(host: str, port: int, *args: object, **options: object) -> list[object]:
        if host not in names:
            return real(host, port, *args, **options)  # type: ignore[arg-type]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in names[host]]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "127.1", "0x7f.1", "inside.example", "both.example", "[::1]"]
)
def test_what_a_stranger_wrote_leads_to_no_private_address(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, {"inside.example": ["127.0.0.1"], "both.example": ["192.0.9.1", "127.0.0.1"]})
    with WebServer(FILES) as server:
        connection = connect(f"http://{host}:{server.port}", is_given=False)
        with pytest.raises(FileRefused, match="leads to an address that is not public"):
            fetch(connection)
        connection.close()

        # Not even a connection was made.
        assert server.connections == 0
        if not host.startswith("["):
            fetch(connect(f"http://{host.replace('both', 'inside')}:{server.port}", is_given=True))


def test_a_name_is_resolved_once_for_check_and_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    # The second answer would lead inside.
    answers = [["203.0.114.1"], ["127.0.0.1"], ["127.0.0.1"]]
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, port, **_: [(2, 1, 6, "", (address, port)) for address in answers.pop(0)],
    )
    tried: list[str] = []

    def refuse(address: tuple[str, int], *_: object, **__: object) -> None:
        tried.append(address[0])
        raise ConnectionRefusedError(111, "refused")

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(PeerUnreachable, match=r"cannot reach origin models\.example: refused"):
        fetch(connect("http://turn.example", is_given=False))

    assert tried == ["203.0.114.1"]


@pytest.fixture
def public_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let 127.0.0.2 pass for an address of the public internet."""
    real = web.is_public
    monkeypatch.setattr(web, "is_public", lambda address: address == "127.0.0.2" or real(address))
    resolving(monkeypatch, {"public.example": ["127.0.0.2"]})
    monkeypatch.setattr("p2phub.testing.webserver.HOST", "0.0.0.0")


@pytest.mark.parametrize("is_given", [True, False])
def test_no_redirect_leads_from_a_public_address_to_a_private_one(is_given: bool, public_loopback: None) -> None:
    with WebServer(FILES) as inside, WebServer(FILES) as outside:
        outside.behaviours.append(redirecting(lambda asked: f"http://127.0.0.1:{inside.port}{asked.target}"))
        connection = connect(f"http://public.example:{outside.port}", is_given=is_given)
        with pytest.raises(FileRefused, match="leads to an address that is not public"):
            fetch(connection)
        connection.close()

    assert len(outside.asked) == 1
    assert inside.connections == 0


def test_a_kept_connection_leads_around_no_check(public_loopback: None) -> None:
    with WebServer(FILES) as inside, WebServer(FILES) as outside:
        inside_url = f"http://127.0.0.1:{inside.port}"
        connection = connect(inside_url)
        fetch(connection)  # the owner may; its connection is kept
        inside.behaviours.append(
            only(lambda asked: asked.path != "other", redirecting(lambda _: f"http://public.example:{outside.port}/"))
        )
        outside.behaviours.append(redirecting(lambda _: f"{inside_url}/other"))
        with pytest.raises(FileRefused, match="leads to an address that is not public"):
            fetch(connection)
        connection.close()

    assert "other" not in [asked.path for asked in inside.asked]


def test_a_private_server_may_redirect_inside_and_outside(public_loopback: None) -> None:
    with WebServer(FILES) as store:
        for host in ("127.0.0.1", "public.example"):
            with WebServer({}) as hub:
                to = f"http://{host}:{store.port}"
                hub.behaviours.append(redirecting(lambda asked, to=to: to + asked.target))
                connection = connect(f"http://127.0.0.1:{hub.port}")
                assert fetch(connection).data == DATA[300_000:700_000]
                connection.close()


# ── TLS and proxies ─────────────────────────────────────────────────────────


def trust(authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    web._tls.cache_clear()


def test_the_authorities_of_the_system_decide_over_certificates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, tls = make_certificate(tmp_path)
    with WebServer(FILES, tls=tls) as server:
        connection = connect(server.url)
        with pytest.raises(PeerUnreachable, match=r"cannot reach .*: its certificate is not trusted"):
            fetch(connection)
        trust(authority, monkeypatch)
        good = connect(server.url)
        for part in (PART, WHOLE):
            assert fetch(good, part).data == b"".join(CHUNKS[index] for index in part)
        connection.close()
        good.close()

        assert [asked.path for asked in server.asked] == ["dir/a file.bin"] * 2


def test_a_server_that_speaks_no_tls_is_no_https_origin() -> None:
    with Stranger("banner") as port, pytest.raises(PeerUnreachable, match="no TLS connection comes about"):
        fetch(connect(f"https://127.0.0.1:{port}"))


class Proxy:
    """An HTTP proxy on loopback that notes where it was asked to go. A context manager."""

    def __init__(self, answer: bytes | None = None) -> None:
        self._answer = answer
        self.heads: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(connection,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += near.recv(4096)
        self.heads.append(head)
        if self._answer is not None:
            near.sendall(self._answer)
            near.close()
            return
        method, target, _ = head.split(b" ", 2)
        is_tunnel = method == b"CONNECT"
        endpoint = target if is_tunnel else target.split(b"/")[2]
        host, _, port = endpoint.decode().rpartition(":")
        far = socket.create_connection((host.replace("public.example", "127.0.0.1"), int(port)))
        if is_tunnel:
            near.sendall(b"HTTP/1.1 200 X\r\n\r\n")
        else:
            far.sendall(head.replace(target, b"/" + target.split(b"/", 3)[3], 1))
        for source, target_socket in ((near, far), (far, near)):
            threading.Thread(target=pump, args=(source, target_socket), daemon=True).start()


def pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with WebServer(FILES) as server, Proxy() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("://", "://me:secret@"))
        connection = connect(server.url)
        assert fetch(connection).data == DATA[300_000:700_000]
        connection.close()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        direct = connect(server.url)
        fetch(direct)
        direct.close()

    (head,) = proxy.heads
    assert head.startswith(f"GET {server.url}/dir/a%20file.bin HTTP/1.1\r\n".encode())
    assert b"Proxy-Authorization: Basic " + base64.b64encode(b"me:secret") in head
    assert all("proxy-authorization" not in asked.headers for asked in server.asked[1:])


def test_https_goes_through_a_proxy_as_a_tunnel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, tls = make_certificate(tmp_path)
    trust(authority, monkeypatch)
    with WebServer(FILES, tls=tls) as server, Proxy() as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        connection = connect(server.url)
        assert fetch(connection).data == DATA[300_000:700_000]
        connection.close()

    assert proxy.heads[0].startswith(f"CONNECT 127.0.0.1:{server.port} ".encode())


def test_a_proxy_that_refuses_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n") as proxy:
        monkeypatch.setenv("https_proxy", proxy.url.replace("://", "://me:secret@"))
        with pytest.raises(PeerUnreachable, match=r"through the proxy 127\.0\.0\.1, which says 407") as caught:
            fetch(connect("https://models.example"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://[::1/", "ftp://127.0.0.1"])
def test_a_proxy_that_is_none_of_http_is_said_to_be(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", proxy)
    with pytest.raises(PeerUnreachable, match="the proxy that the environment names is none of http"):
        fetch(connect("https://models.example"))


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("http://public.example", "over http through a proxy"),
        ("https://inside.example", "leads to an address that is not public"),
        ("https://10.0.0.1", "leads to an address that is not public"),
        ("https://unknown.invalid", "cannot reach"),
    ],
)
def test_what_a_stranger_wrote_goes_through_a_proxy_only_if_it_is_checked_here(
    url: str, match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving(monkeypatch, {"public.example": ["203.0.114.1"], "inside.example": ["10.0.0.1"], "unknown.invalid": []})
    with Proxy(b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n") as proxy:
        monkeypatch.setenv("all_proxy", proxy.url)
        with pytest.raises(PeerError, match=match):
            fetch(connect(url, is_given=False))

    assert not proxy.heads


# ── whole files, without chunk lists ────────────────────────────────────────


@pytest.mark.parametrize("begin", [0, 400_001])
def test_a_file_is_streamed_from_where_it_broke_off(begin: int) -> None:
    received = bytearray()
    with WebServer(FILES) as server:
        connection = connect(server.url)
        connection.stream(ROOT, begin, received.extend)
        connection.close()

    assert received == DATA[begin:]
    assert server.asked[0].byte_range == ((begin, len(DATA) - 1) if begin else None)


def test_a_stream_that_trickles_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2phub.net.origin.DEADLINE_MIN_S", 0.5)
    monkeypatch.setattr("p2phub.net.origin.DEADLINE_PER_MIB_S", 1.0)
    received = bytearray()
    with WebServer(FILES, slowly(100_000)) as server, pytest.raises(PeerUnreachable, match="is too slow"):
        connect(server.url).stream(ROOT, 0, received.extend)

    assert received == DATA[: len(received)]


@pytest.mark.parametrize(
    "behaviours", [[], [without_ranges(FILES)], [with_headers(accept_ranges="none")]], ids=["parts", "whole", "says so"]
)
def test_the_size_of_a_file_is_found_out_without_its_bytes(behaviours: list[Behaviour]) -> None:
    with WebServer(FILES, *behaviours) as server:
        connection = connect(server.url, size=None)
        assert connection.size(ROOT) == len(DATA)
        connection.close()


def test_the_size_of_an_empty_file_is_found_out() -> None:
    with WebServer({"dir/a file.bin": b""}) as server:
        connection = connect(server.url, size=None)
        assert connection.size(ROOT) == 0
        connection.close()


@pytest.mark.parametrize(
    ("error", "match", "behaviours"),
    [
        (FileRefused, "does not say how long a file.bin is", [without_ranges(FILES), chunked]),
        (FileRefused, "does not have a file.bin", [answering(404)]),
        (PeerBusy, "busy", [answering(429)]),
    ],
)
def test_a_size_that_cannot_be_found_out_is_said_to_be(
    error: type[PeerError], match: str, behaviours: list[Behaviour]
) -> None:
    with WebServer(FILES, *behaviours) as server:
        connection = connect(server.url, size=None)
        with pytest.raises(error, match=match):
            connection.size(ROOT)
        connection.close()


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
