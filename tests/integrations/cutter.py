"""A line between a client and a door that breaks: cleanly, in the middle of a body."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType


class Cutter:
    """Passes on what comes at `url`, and closes each connection that has carried `cut_at` bytes of answers.

    `ranges` are the ranges that were asked for.
    """

    def __init__(self, url: str, cut_at: int) -> None:
        self._target = url.removeprefix("http://").rsplit(":", 1)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._cut_at = cut_at
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.ranges: list[str] = []
        self.cuts = 0

    def __enter__(self) -> Cutter:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection((self._target[0], int(self._target[1])))
                threading.Thread(target=self._ask, args=(client, server), daemon=True).start()
                threading.Thread(target=self._answer, args=(server, client), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                for line in data.lower().split(b"\r\n"):
                    if line.startswith(b"range: "):
                        self.ranges.append(line.removeprefix(b"range: ").decode())
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        carried = 0
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data)
                carried += len(data)
                if carried >= self._cut_at:
                    self.cuts += 1
                    break
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_WR)
            server.shutdown(socket.SHUT_RDWR)
