"""The limit: the simplest two programs that send a file, hash it and write it.

    limit.py serve FILE READY [KIND]           sends FILE to whoever connects; writes its port to READY
    limit.py fetch PORT FILE SIZE [KIND]       three connections, each a share of the file

KIND is `plain`, `tls`, or `frames`, the record layer of spec/bulk.md §2. Blocking sockets in
threads; `sendfile`, or large writes, out; `recv_into` one reused buffer, BLAKE3 and `pwrite`
in. No protocol but 16 bytes: offset and length.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from blake3 import blake3

CONNECTIONS = 3
CHUNK = 1024 * 1024  # bytes
REQUEST = struct.Struct(">QQ")
SECRET = bytes(31) + b"\1"  # of no value to anybody

Send = Callable[[int, int, int], None]  # file, offset, length
Receive = Callable[[memoryview], None]  # fills it


def main() -> None:
    # Else a connection that breaks would end its thread alone, and the rest would look fast.
    threading.excepthook = lambda failure: os._exit(1)
    match sys.argv[1:]:
        case ["serve", file, ready, *kind]:
            serve(file, Path(ready), *kind)
        case ["fetch", port, file, size, *kind]:
            fetch(int(port), file, int(size), *kind)
        case _:
            sys.exit(__doc__)


def serve(source: str, ready: Path, kind: str = "plain") -> None:
    sender = {"plain": send_plain, "tls": send_tls, "frames": send_frames}[kind]
    listener = socket.create_server(("127.0.0.1", 0))
    file = os.open(source, os.O_RDONLY)

    def answer(connection: socket.socket) -> None:
        with connection:
            connection, send = sender(connection)
            offset, length = REQUEST.unpack(connection.recv(REQUEST.size))
            send(file, offset, length)
            connection.close()

    temporary = ready.with_suffix(".new")
    temporary.write_text(str(listener.getsockname()[1]))
    temporary.rename(ready)
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=answer, args=[connection], daemon=True).start()


def fetch(port: int, target: str, size: int, kind: str = "plain") -> None:
    receiver = {"plain": receive_plain, "tls": receive_tls, "frames": receive_frames}[kind]
    file = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
    os.ftruncate(file, size)
    share = -(-size // CONNECTIONS // CHUNK) * CHUNK

    def take(begin: int, end: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection, receive = receiver(connection)
            connection.sendall(REQUEST.pack(begin, end - begin))
            buffer = memoryview(bytearray(CHUNK))
            while begin < end:
                view = buffer[: end - begin]
                receive(view)
                blake3(view).digest()
                os.pwrite(file, view, begin)
                begin += len(view)
            connection.close()

    threads = [threading.Thread(target=take, args=(begin, min(begin + share, size))) for begin in range(0, size, share)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.fdatasync(file)


def send_plain(connection: socket.socket) -> tuple[socket.socket, Send]:
    def send(file: int, offset: int, length: int) -> None:
        while length:
            count = os.sendfile(connection.fileno(), file, offset, length)
            offset, length = offset + count, length - count

    return connection, send


def receive_plain(connection: socket.socket) -> tuple[socket.socket, Receive]:
    def receive(view: memoryview) -> None:
        done = 0
        while done < len(view):
            count = connection.recv_into(view[done:])
            if not count:
                raise ConnectionError("the server closed the connection")
            done += count

    return connection, receive


def send_tls(connection: socket.socket) -> tuple[socket.socket, Send]:
    # Here, so that the plain programs do not load what they do not need.
    from p2phub.core.signing import SigningKey
    from p2phub.net.tls import server_context

    secured = server_context(SigningKey(SECRET)).wrap_socket(connection, server_side=True)
    return secured, _send_through(secured.sendall)


def receive_tls(connection: socket.socket) -> tuple[socket.socket, Receive]:
    from p2phub.core.ids import NodeId
    from p2phub.core.signing import SigningKey
    from p2phub.net.tls import client_context

    return receive_plain(client_context(NodeId(SigningKey(SECRET).public_key)).wrap_socket(connection))


def send_frames(connection: socket.socket) -> tuple[socket.socket, Send]:
    from p2phub.core.frames import OVERHEAD, Sealer

    sealer = Sealer(SECRET[:16])
    frame = memoryview(bytearray(CHUNK + OVERHEAD))

    def write(data: memoryview) -> None:
        connection.sendall(frame[: sealer.seal_into(data, frame)])

    return connection, _send_through(write)


def receive_frames(connection: socket.socket) -> tuple[socket.socket, Receive]:
    from p2phub.core.frames import HEADER_SIZE, OVERHEAD, Opener

    opener = Opener(SECRET[:16])
    frame = memoryview(bytearray(CHUNK + OVERHEAD))
    _, fill = receive_plain(connection)

    def receive(view: memoryview) -> None:
        body = frame[: len(view) + OVERHEAD]
        fill(body)
        opener.open_into(bytes(body[:HEADER_SIZE]), body[HEADER_SIZE:], view)

    return connection, receive


def _send_through(write: Callable[[memoryview], object]) -> Send:
    buffer = memoryview(bytearray(CHUNK))

    def send(file: int, offset: int, length: int) -> None:
        while length:
            count = os.preadv(file, [buffer[:length]], offset)
            write(buffer[:count])
            offset, length = offset + count, length - count

    return send


if __name__ == "__main__":
    main()
