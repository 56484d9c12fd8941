"""Sign with an Ed25519 key that an ssh-agent keeps, over its socket (spec/store.md §6).

The agent signs bytes as they are with Ed25519, so its signatures are ours. It is asked each time: nothing of the
key is ever in this process. Source: draft-ietf-sshm-ssh-agent §3 to §5; RFC 8709 for keys and signatures.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar

from p2phub.core.errors import InvalidSignature, NotFound, StoreError
from p2phub.core.ids import PublicKey
from p2phub.core.signing import SIGNATURE_SIZE, check_note_signature, check_public_key, signed_message

TIMEOUT_S = 60.0  # seconds that an answer may take: the agent may ask its user first
PATIENCE_S = 2.0  # seconds after which who waits is told for what
MESSAGE_SIZE_MAX = 256 * 1024  # bytes of one message; what OpenSSH's agent takes
KEYS_MAX = 1000  # that are looked at

_REQUEST_IDENTITIES, _IDENTITIES_ANSWER = 11, 12
_SIGN_REQUEST, _SIGN_RESPONSE = 13, 14
_ALGORITHM = b"ssh-ed25519"

# Who signs knows nothing of who watches: threads for the disk are given it with the rest of their context.
_watcher: ContextVar[Callable[[str], None] | None] = ContextVar("agent_watcher", default=None)


@contextlib.contextmanager
def waiting_told(watcher: Callable[[str], None]) -> Iterator[None]:
    """Let `watcher` be told, in the thread that waits, a sentence if an agent keeps what is done in here waiting."""
    before = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(before)


class AgentKey:
    """A key that an ssh-agent keeps. Signs as `SigningKey` does."""

    def __init__(self, public_key: PublicKey, agent: Agent) -> None:
        self.public_key = public_key
        self._agent = agent

    def sign(self, purpose: str, payload: bytes) -> bytes:
        """Return the 64-byte signature over `payload` for `purpose`. Raises as `Agent.sign` does."""
        return self._agent.sign(self.public_key, signed_message(purpose, payload))

    def sign_note(self, text: bytes) -> bytes:
        """Return the signature over a C2SP signed note's text. Raises as `Agent.sign` does."""
        return self._agent.sign(self.public_key, text)


class Agent:
    """The ssh-agent at a socket; connects for each question."""

    def __init__(self, path: str) -> None:
        self._path = path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Agent:
        """Return the agent that SSH_AUTH_SOCK names. Raises NotFound if it names none."""
        if path := environment.get("SSH_AUTH_SOCK"):
            return cls(path)
        raise _no_agent()

    def keys(self) -> list[tuple[PublicKey, str]]:
        """Return the Ed25519 keys that the agent has now, each with its comment. Raises StoreError."""
        try:
            reader = _Reader(self._ask(bytes([_REQUEST_IDENTITIES]), _IDENTITIES_ANSWER), self._path)
        except _Refused:
            raise self._strange() from None
        found = []
        for _ in range(min(reader.number(), KEYS_MAX)):
            blob, comment = reader.string(), reader.string()
            if (key := _parse_key(blob)) is not None:
                found.append((key, comment.decode(errors="replace")))
        return found

    def sign(self, key: PublicKey, data: bytes) -> bytes:
        """Return the signature of `key` over `data` as it is, 64 bytes.

        Raises NotFound if the agent does not sign with this key, StoreError if it cannot be asked.
        """
        blob = _string(_ALGORITHM) + _string(bytes(key))
        try:
            answer = self._ask(
                bytes([_SIGN_REQUEST]) + _string(blob) + _string(data) + struct.pack(">I", 0), _SIGN_RESPONSE
            )
        except _Refused as exc:
            raise NotFound(
                f"the ssh-agent does not sign with key {key}",
                hint="`ssh-add -l` shows its keys, `ssh-add FILE` adds one",
            ) from exc
        signed = _Reader(_Reader(answer, self._path).string(), self._path)
        algorithm, signature = signed.string(), signed.string()
        if algorithm != _ALGORITHM or len(signature) != SIGNATURE_SIZE:
            raise self._strange()
        try:
            # A record with a wrong one would stand in the own log for ever.
            check_note_signature(key, data, signature)
        except InvalidSignature as exc:
            raise self._strange() from exc
        return signature

    def _ask(self, message: bytes, expected: int) -> bytes:
        """Return what stands behind the type in the answer. Raises _Refused if the agent says no, StoreError."""
        if not self._path:
            raise _no_agent()
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(TIMEOUT_S)
                connection.connect(self._path)
                connection.sendall(_string(message))
                self._await_answer(connection)
                (length,) = struct.unpack(">I", _receive(connection, 4))
                if not 1 <= length <= MESSAGE_SIZE_MAX:
                    raise self._strange()
                answer = _receive(connection, length)
        except TimeoutError as exc:
            raise StoreError(f"the ssh-agent at {self._path} does not answer", path=self._path) from exc
        except OSError as exc:
            text = f"the ssh-agent at {self._path} cannot be asked: {exc.strerror or exc}"
            raise StoreError(text, path=self._path, hint="does it still run? SSH_AUTH_SOCK names its socket") from exc
        if answer[0] != expected:
            raise _Refused
        return answer[1:]

    def _await_answer(self, connection: socket.socket) -> None:
        """Return once an answer begins, or once whoever watches was told that it takes long."""
        watcher = _watcher.get()
        if watcher is None or select.select([connection], [], [], PATIENCE_S)[0]:
            return
        watcher(f"waiting for the ssh-agent at {self._path}, which may be asking for a passphrase or a touch")

    def _strange(self) -> StoreError:
        return _strange(self._path)


class _Refused(Exception):
    """The agent says that it will not."""


class _Reader:
    """Takes numbers and strings off an answer."""

    def __init__(self, data: bytes, path: str) -> None:
        self._data, self._path = data, path

    def number(self) -> int:
        if len(self._data) < 4:
            raise _strange(self._path)
        (number,) = struct.unpack_from(">I", self._data)
        self._data = self._data[4:]
        return int(number)

    def string(self) -> bytes:
        length = self.number()
        if length > len(self._data):
            raise _strange(self._path)
        taken, self._data = self._data[:length], self._data[length:]
        return taken


def _no_agent() -> NotFound:
    return NotFound("no ssh-agent is known here: SSH_AUTH_SOCK is not set", hint='`eval "$(ssh-agent)"` starts one')


def _strange(path: str) -> StoreError:
    return StoreError(f"what answers at {path} is no ssh-agent", path=path)


def _parse_key(blob: bytes) -> PublicKey | None:
    """Return the Ed25519 key that an agent lists; None if it is of another kind, or one that must not be used."""
    prefix = _string(_ALGORITHM) + struct.pack(">I", 32)
    if not blob.startswith(prefix) or len(blob) != len(prefix) + 32:
        return None
    key = blob[len(prefix) :]
    try:
        check_public_key(key)
    except InvalidSignature:
        return None
    return PublicKey(key)


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise ConnectionError("it closed the connection")
        data += piece
    return data
