"""The protocol of an ssh-agent, with one that says what it should not."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from p2phub.core.errors import NotFound, StoreError
from p2phub.core.signing import check_note_signature, check_signature
from p2phub.store.agent import Agent, AgentKey, waiting_told
from p2phub.testing import values

KEY, OTHER = values.key("in the agent"), values.key("other")


def string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def blob(key: bytes, algorithm: bytes = b"ssh-ed25519") -> bytes:
    return string(algorithm) + string(key)


Answer = Callable[[bytes], bytes]


@contextmanager
def answering(path: Path, answer: Answer) -> Iterator[Agent]:
    """Give an agent whose messages are what `answer` makes of the questions."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    (length,) = struct.unpack(">I", connection.recv(4, socket.MSG_WAITALL))
                    connection.sendall(answer(connection.recv(length, socket.MSG_WAITALL)))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield Agent(str(path))
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def honest(question: bytes) -> bytes:
    if question == b"\x0b":
        listed = [(blob(KEY.public_key), b"mine"), (blob(b"x" * 51, b"ssh-rsa"), b"rsa"), (blob(bytes(32)), b"weak")]
        body = b"".join(string(each) + string(comment) for each, comment in listed)
        return string(b"\x0c" + struct.pack(">I", len(listed)) + body)
    wanted = b"\x0d" + string(blob(KEY.public_key))
    if not question.startswith(wanted):
        return string(b"\x05")
    data = question[len(wanted) + 4 : -4]
    return string(b"\x0e" + string(string(b"ssh-ed25519") + string(KEY.sign_note(data))))


def test_it_signs_as_the_key_itself_would(tmp_path: Path) -> None:
    with answering(tmp_path / "agent", honest) as agent:
        key = AgentKey(KEY.public_key, agent)

        assert agent.keys() == [(KEY.public_key, "mine")]
        check_signature(KEY.public_key, "record", b"payload", key.sign("record", b"payload"))
        check_note_signature(KEY.public_key, b"text", key.sign_note(b"text"))
        assert key.sign("record", b"payload") == KEY.sign("record", b"payload")
        with pytest.raises(NotFound, match="does not sign"):
            agent.sign(OTHER.public_key, b"data")


def strange() -> dict[str, Answer]:
    signature = string(b"ssh-ed25519") + string(bytes(64))
    return {
        "nothing": lambda _: b"",
        "half a length": lambda _: b"\0\0",
        "an empty message": lambda _: string(b""),
        "a message without end": lambda _: struct.pack(">I", 2**31) + b"\x0e",
        "less than it said": lambda _: struct.pack(">I", 100) + b"\x0e",
        "a signature of another kind": lambda _: string(b"\x0e" + string(signature.replace(b"ed25519", b"ed2551x"))),
        "a signature of something else": lambda _: string(b"\x0e" + string(signature)),
        "a signature that is too long": lambda _: string(b"\x0e" + string(signature + b"\0" * 4)[:-6]),
        "a signature that is cut": lambda _: string(b"\x0e" + string(string(b"ssh-ed25519") + string(bytes(63)))),
        "a string longer than the message": lambda _: string(b"\x0e" + struct.pack(">I", 2**32 - 1)),
        "the greeting of a web server": lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n",
    }


@pytest.mark.parametrize("what", strange())
def test_what_is_no_agent_is_told_so(what: str, tmp_path: Path) -> None:
    with answering(tmp_path / "agent", strange()[what]) as agent:
        with pytest.raises(StoreError) as caught:
            agent.sign(KEY.public_key, b"data")
        with pytest.raises(StoreError):
            agent.keys()

    assert caught.value.path == str(tmp_path / "agent")


def test_an_agent_that_is_not_there_is_missed(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="SSH_AUTH_SOCK"):
        Agent.from_environment({})
    with pytest.raises(NotFound, match="SSH_AUTH_SOCK"):
        Agent("").keys()
    with pytest.raises(StoreError, match="cannot be asked"):
        Agent(str(tmp_path / "nothing")).keys()


def test_who_waits_for_an_agent_is_told_so_and_others_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2phub.store.agent.PATIENCE_S", 0.05)
    told: list[str] = []
    may_answer = threading.Event()

    def late(question: bytes) -> bytes:
        may_answer.wait(30)
        return honest(question)

    def tell(text: str) -> None:
        told.append(text)
        may_answer.set()

    with answering(tmp_path / "late", late) as agent, waiting_told(tell):
        assert agent.keys() == [(KEY.public_key, "mine")]
    assert len(told) == 1
    assert "waiting for the ssh-agent" in told[0]

    monkeypatch.setattr("p2phub.store.agent.PATIENCE_S", 30)
    with answering(tmp_path / "soon", honest) as agent, waiting_told(tell):
        agent.keys()
    assert len(told) == 1
