"""Whole files from web servers, without chunk lists."""

from __future__ import annotations

import pytest
from originsight import DATA, FILES, ROOT, connect

from p2phub.core.errors import FileRefused, PeerBusy, PeerError, PeerUnreachable
from p2phub.testing.webserver import Behaviour, WebServer, answering, chunked, slowly, with_headers, without_ranges

pytestmark = pytest.mark.usefixtures("no_proxy", "forget_authorities")


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
