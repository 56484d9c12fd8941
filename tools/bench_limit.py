"""The limit: the simplest two programs that send a file, hash it and write it.

    bench_limit.py serve FILE PORT_FILE [--tls]     sends FILE to whoever connects
    bench_limit.py fetch PORT FILE SIZE [--tls]     N connections, each a share of the file

Blocking sockets in threads, `sendfile` (or large TLS writes) out, `recv_into` one reused
buffer, BLAKE3 and `pwrite` in. No protocol but 16 bytes: offset and length.
"""

from __future__ import annotations

import argparse
import os
import socket
import struct
import threading
from pathlib import Path

from blake3 import blake3

from p2phub.core.ids import NodeId
from p2phub.core.signing import SigningKey
from p2phub.net.tls import client_context, server_context

CONNECTIONS = 3
CHUNK = 1024 * 1024  # bytes
REQUEST = struct.Struct(">QQ")
KEY = SigningKey(bytes(31) + b"\1")  # of no value to anybody


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["serve", "fetch"])
    parser.add_argument("what")
    parser.add_argument("file")
    parser.add_argument("size", nargs="?", type=int, default=0)
    parser.add_argument("--tls", action="store_true")
    arguments = parser.parse_args()
    if arguments.role == "serve":
        serve(arguments.what, Path(arguments.file), tls=arguments.tls)
    else:
        fetch(int(arguments.what), arguments.file, arguments.size, tls=arguments.tls)


def serve(source: str, port_file: Path, *, tls: bool) -> None:
    context = server_context(KEY) if tls else None
    listener = socket.create_server(("127.0.0.1", 0))
    temporary = port_file.with_suffix(".new")
    temporary.write_text(str(listener.getsockname()[1]))
    temporary.rename(port_file)
    file = os.open(source, os.O_RDONLY)

    def answer(connection: socket.socket) -> None:
        if context:
            connection = context.wrap_socket(connection, server_side=True)
        with connection:
            offset, length = REQUEST.unpack(connection.recv(REQUEST.size))
            if not tls:
                while length:
                    count = os.sendfile(connection.fileno(), file, offset, length)
                    offset, length = offset + count, length - count
                return
            buffer = memoryview(bytearray(CHUNK))
            while length:
                count = os.preadv(file, [buffer[:length]], offset)
                connection.sendall(buffer[:count])
                offset, length = offset + count, length - count

    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=answer, args=[connection], daemon=True).start()


def fetch(port: int, target: str, size: int, *, tls: bool) -> None:
    file = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
    os.ftruncate(file, size)
    share = -(-size // CONNECTIONS // CHUNK) * CHUNK

    def take(begin: int, end: int) -> None:
        connection = socket.create_connection(("127.0.0.1", port))
        if tls:
            connection = client_context(NodeId(KEY.public_key)).wrap_socket(connection)
        with connection:
            connection.sendall(REQUEST.pack(begin, end - begin))
            buffer = memoryview(bytearray(CHUNK))
            while begin < end:
                view = buffer[: end - begin]
                done = 0
                while done < len(view):
                    count = connection.recv_into(view[done:])
                    if not count:
                        raise SystemExit("the server closed the connection")
                    done += count
                blake3(view).digest()
                os.pwrite(file, view, begin)
                begin += len(view)

    threads = [
        threading.Thread(target=take, args=(begin, min(begin + share, size))) for begin in range(0, size, share)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.fdatasync(file)


if __name__ == "__main__":
    main()
