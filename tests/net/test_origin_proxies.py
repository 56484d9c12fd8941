"""Web servers over TLS and behind proxies."""

from __future__ import annotations

import base64
import socket
import threading
from pathlib import Path

import pytest
from originsight import CHUNKS, DATA, FILES, PART, WHOLE, connect, fetch, resolving, trust

from p2phub.core.errors import PeerError, PeerUnreachable
from p2phub.testing.processes import Stranger
from p2phub.testing.webserver import WebServer, make_certificate

pytestmark = pytest.mark.usefixtures("no_proxy", "forget_authorities")


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
