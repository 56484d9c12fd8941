from __future__ import annotations

import datetime
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from netkit import HOST, KEY, NODE, OTHER, PATIENCE_S, Sink, Visit, Wanted, echo, hostile, in_thread, open_door

from p2phub.core.certificate import certificate
from p2phub.core.errors import PeerError, PeerUnreachable
from p2phub.core.ids import NodeId
from p2phub.net import bulk, http
from p2phub.net.bulk import BulkConnection
from p2phub.net.peerclient import open_peer
from p2phub.net.tls import WrongPeer, client_context, server_context
from p2phub.testing import values

WANTED = Wanted(values.content("file", 1000))


def connect(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    return context.wrap_socket(socket.create_connection((HOST, port), timeout=PATIENCE_S), server_hostname=HOST)


# ── certificates ────────────────────────────────────────────────────────────


def test_one_key_has_one_certificate() -> None:
    assert certificate(KEY) == certificate(KEY)
    assert certificate(KEY) != certificate(values.key("other"))


@pytest.mark.parametrize("name", [f"node {number}" for number in range(20)])
def test_a_certificate_is_as_the_spec_says(name: str) -> None:
    key = values.key(name)
    found = x509.load_der_x509_certificate(certificate(key))
    subject = [(attribute.oid, attribute.value) for attribute in found.subject]

    assert found.version is x509.Version.v3
    assert found.serial_number == int.from_bytes(key.public_key[:15], "big") + 1
    assert subject == [(NameOID.COMMON_NAME, str(NodeId(key.public_key)))]
    assert found.issuer == found.subject
    assert found.not_valid_before_utc.isoformat() == "2020-01-01T00:00:00+00:00"
    assert found.not_valid_after_utc.isoformat() == "9999-12-31T23:59:59+00:00"
    assert len(found.extensions) == 0
    found.verify_directly_issued_by(found)
    public_key = found.public_key()
    assert isinstance(public_key, ed25519.Ed25519PublicKey)
    assert public_key.public_bytes_raw() == key.public_key


def test_a_secret_key_reaches_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    server_context(KEY)

    assert list(tmp_path.iterdir()) == []


# ── who answers ─────────────────────────────────────────────────────────────


async def test_the_node_that_was_called_answers() -> None:
    async with open_door(echo) as port:
        with await in_thread(connect, port, client_context(NODE)) as connection:
            assert connection.version() == "TLSv1.3"
            assert connection.selected_alpn_protocol() == "http/1.1"
            assert not connection.session_reused


async def ask_by_peerclient(node: NodeId, port: int) -> None:
    async with open_peer(node, HOST, port) as client:
        await client.identities([values.identity().namespace])


async def ask_by_bulk(node: NodeId, port: int) -> None:
    connection = BulkConnection(node, HOST, port)
    try:
        await in_thread(connection.fetch, WANTED.spans, WANTED.wanted, Sink(), deadline_s=10.0)
    finally:
        connection.close()


CLIENTS = [ask_by_peerclient, ask_by_bulk]


@pytest.mark.parametrize("ask", CLIENTS)
async def test_another_node_gets_not_one_byte_of_the_request(ask: Callable[..., object]) -> None:
    with hostile(Visit.wait) as server:
        with pytest.raises(PeerUnreachable, match="answered instead") as caught:
            await ask(OTHER, server.port)

        assert f"node {NODE} answered instead of {OTHER}" in str(caught.value)
        assert "('" not in str(caught.value)
        assert caught.value.peer == str(OTHER)
    assert server.received == b""


def test_the_handshake_fails_if_another_node_answers() -> None:
    with hostile(Visit.wait) as server, pytest.raises(WrongPeer, match="answered instead"):
        connect(server.port, client_context(OTHER))


def foreign_context(folder: Path, kind: str) -> ssl.SSLContext:
    """Return the settings of a server whose certificate is none of a node, though it names one."""
    key = ec.generate_private_key(ec.SECP256R1()) if kind == "ecdsa" else ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, str(NODE))])
    made = certificate_of(key, name)
    path = folder / "server.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + made)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


def certificate_of(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, name: x509.Name) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256

    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC))
    )
    algorithm = SHA256() if isinstance(key, ec.EllipticCurvePrivateKey) else None
    return builder.sign(key, algorithm).public_bytes(Encoding.PEM)


@pytest.mark.parametrize("ask", CLIENTS)
@pytest.mark.parametrize("kind", ["ecdsa", "ed25519"])
async def test_a_certificate_that_only_names_the_node_is_not_enough(
    tmp_path: Path, ask: Callable[..., object], kind: str
) -> None:
    with (
        hostile(Visit.wait, tls=foreign_context(tmp_path, kind)) as server,
        pytest.raises(PeerUnreachable, match=r"answered instead|no node certificate"),
    ):
        await ask(NODE, server.port)

    assert server.received == b""


async def test_an_older_tls_is_refused_by_the_door() -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with open_door(echo) as port:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await in_thread(connect, port, old)
        # And the door goes on.
        (await in_thread(connect, port, client_context(NODE))).close()


@pytest.mark.parametrize("ask", CLIENTS)
async def test_an_older_tls_is_refused_by_clients(ask: Callable[..., object]) -> None:
    context = server_context(KEY)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    with hostile(Visit.wait, tls=context) as server, pytest.raises(PeerUnreachable):
        await ask(NODE, server.port)

    assert server.received == b""


# ── what is no node at all ──────────────────────────────────────────────────


def talk_first(visit: Visit) -> None:
    visit.send(b"220 mail.example ESMTP ready\r\n")
    visit.wait()


def be_a_web_server(visit: Visit) -> None:
    visit.read()
    visit.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 3\r\n\r\nbad")


def hang_up(visit: Visit) -> None:
    pass


def hang_up_later(visit: Visit) -> None:
    visit.read()


def send_noise(visit: Visit) -> None:
    visit.read()
    visit.send(values.content("noise", 5000))
    visit.wait()


def send_half_a_handshake(visit: Visit) -> None:
    visit.read()
    visit.send(b"\x16\x03\x03\x10\x00\x02\x00\x00\x50")
    visit.wait()


@pytest.mark.parametrize("ask", CLIENTS)
@pytest.mark.parametrize(
    "script", [talk_first, be_a_web_server, hang_up, hang_up_later, send_noise, send_half_a_handshake, Visit.wait]
)
async def test_what_is_no_node_cannot_be_reached_and_the_reason_can_be_read(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[..., object], script: Callable[[Visit], None]
) -> None:
    monkeypatch.setattr(http, "CONNECT_TIMEOUT_S", 0.3)
    monkeypatch.setattr(bulk, "CONNECT_TIMEOUT_S", 0.3)
    with hostile(script, key=None) as server:
        with pytest.raises(PeerUnreachable) as caught:
            await ask(NODE, server.port)

        text = str(caught.value)
        assert f"{HOST}:{server.port}" in text
        assert "\n" not in text
        assert len(text) < 200
        assert "object at" not in text
        assert not text.endswith(":")
        assert b"v1/" not in server.received


@pytest.mark.parametrize("plain", [True, False])
async def test_where_one_side_alone_does_without_tls_it_is_told(plain: bool) -> None:
    async with open_door(echo, plain=plain) as port, open_peer(NODE, HOST, port, plain=not plain) as client:
        with pytest.raises(PeerUnreachable, match=r"perhaps it speaks .*TLS, and P2PHUB_PLAIN=1 is for both sides"):
            await client.identities([values.identity().namespace])


@pytest.mark.parametrize("ask", CLIENTS)
async def test_where_nobody_listens_nobody_can_be_reached(ask: Callable[..., object]) -> None:
    with socket.create_server((HOST, 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(PeerUnreachable, match=f"{HOST}:{port}"):
        await ask(NODE, port)


@pytest.mark.parametrize("ask", CLIENTS)
async def test_a_host_that_has_no_address_cannot_be_reached(ask: Callable[..., object]) -> None:
    async with open_peer(NODE, "no-such-host.invalid", 1) as client:
        with pytest.raises(PeerUnreachable, match=r"no-such-host\.invalid"):
            await client.identities([values.identity().namespace])
    connection = BulkConnection(NODE, "no-such-host.invalid", 1)
    with pytest.raises(PeerUnreachable, match=r"no-such-host\.invalid"):
        await in_thread(connection.fetch, WANTED.spans, WANTED.wanted, Sink(), deadline_s=10.0)


async def test_a_client_that_is_no_node_costs_the_door_nothing() -> None:
    noises = [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", values.content("noise", 5000), b""]
    async with open_door(echo) as port:
        for noise in noises:
            connection = await in_thread(socket.create_connection, (HOST, port))
            with connection:
                await in_thread(connection.sendall, noise)
        with pytest.raises(PeerError, match="answered"):
            await ask_by_bulk_of_echo(port)


async def ask_by_bulk_of_echo(port: int) -> None:
    """Ask a door that is well but has not what is asked for."""
    connection = BulkConnection(NODE, HOST, port)
    try:
        await in_thread(connection.fetch, WANTED.spans, WANTED.wanted, Sink(), deadline_s=10.0)
    except PeerError as exc:
        raise PeerError(f"answered: {exc}", peer="") from exc
    finally:
        connection.close()


def test_a_context_is_for_one_node_only() -> None:
    """The expected key belongs to the context: two of them do not disturb each other."""
    ours, others = client_context(NODE), client_context(OTHER)
    with hostile(Visit.wait) as server:
        connect(server.port, ours).close()
        with pytest.raises(WrongPeer):
            connect(server.port, others)
        connect(server.port, ours).close()


async def test_a_node_can_be_called_from_trio_too() -> None:
    async with open_door(echo) as port:
        stream = await trio.open_tcp_stream(HOST, port)
        async with trio.SSLStream(stream, client_context(NODE), server_hostname=HOST) as secure:
            await secure.do_handshake()
        stream = await trio.open_tcp_stream(HOST, port)
        with pytest.raises(trio.BrokenResourceError):
            await trio.SSLStream(stream, client_context(OTHER), server_hostname=HOST).do_handshake()
        await stream.aclose()
