"""Where web servers may lead: redirects, and addresses that are not public; and what they are told."""

from __future__ import annotations

import base64
import socket
from pathlib import Path

import pytest
from originsight import DATA, FILES, connect, failing, fetch, resolving, trust

from p2phub.core.errors import FileRefused, PeerError, PeerUnreachable
from p2phub.net import web
from p2phub.testing.webserver import WebServer, answering, make_certificate, only, redirecting, times, with_headers

pytestmark = pytest.mark.usefixtures("no_proxy", "forget_authorities")


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
