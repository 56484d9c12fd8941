"""Verify entries in a process of its own, while this one writes (spec/store.md §4).

    slices ──msgpack, over a pipe──▶ python -m p2phub.store.verifier ──▶ is the head right, and the entries that are

Threads share Python's lock: each time SQLite gives it back, it waits for one that decodes. So
once much comes, a process decodes and verifies, and says by what search finds it. What it finds
wrong is checked again here, to say what is wrong with it. It ends by itself when it is asked
nothing for a while, or when the one that asked has ended.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec
from msgspec import Struct

from p2phub.core.checkpoint import open_head
from p2phub.core.encoding import to_id, to_known_id
from p2phub.core.errors import InvalidData
from p2phub.core.identity import SignedDocument, open_identity
from p2phub.core.ids import LogId, NamespaceId, PublicKey
from p2phub.core.records import SKEW_MAX_S, Publish, Record, open_signed_entry
from p2phub.core.signing import quicken_checks

from .searchtokens import release_tokens

IDLE_S = 30.0  # seconds without a question until the process ends
_LENGTH = struct.Struct(">I")


class Question(Struct, frozen=True, array_like=True):
    """Entries of one log from an index on, and its head if that is to be checked too."""

    namespace: bytes
    log: bytes
    key: bytes
    head: bytes | None
    start: int
    entries: Sequence[bytes]


class Questions(Struct, frozen=True, array_like=True):
    """What is asked at once."""

    questions: list[Question]
    chains: list[tuple[SignedDocument, ...]]  # each says that it proves an identity
    now: float  # seconds since 1970


class Verified(Struct, frozen=True, array_like=True):
    """What a good entry says."""

    record: Record
    leaf: bytes  # 32 bytes
    tokens: str | None  # by which a release is found but for its facets


class Verdict(Struct, frozen=True, array_like=True):
    """What was found of one question."""

    is_head_right: bool  # true, too, if there was none
    good: list[Verified]  # entries, up to the first that is wrong


class Answer(Struct, frozen=True, array_like=True):
    """What was found of one question, unpacked only where it is used: what another thread makes is slow to read."""

    is_all_right: bool  # the head, and all entries
    packed: msgspec.Raw  # the verdict

    def verdict(self) -> Verdict:
        """Unpack it. Raises Gone if it is none."""
        try:
            return _VERDICT.decode(self.packed)
        except msgspec.DecodeError as exc:
            raise Gone(str(exc)) from exc


class Answers(Struct, frozen=True, array_like=True):
    """What was found of all that was asked, in its order."""

    answers: list[Answer]
    are_identities: list[bool]


_QUESTIONS = msgspec.msgpack.Decoder(Questions, dec_hook=to_id)
_VERDICT = msgspec.msgpack.Decoder(Verdict, dec_hook=to_known_id)  # its keys were looked at there
_ANSWERS = msgspec.msgpack.Decoder(Answers)
_ENCODER = msgspec.msgpack.Encoder(enc_hook=bytes)


class Gone(Exception):
    """The process does not answer."""


class Verifier:
    """A process that verifies; it is started when it is first asked.

    Two threads may ask at once: the second question waits in the pipe while the first is answered.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._sending = threading.Lock()
        # Taken in the order of the questions: before one stops sending.
        self._receiving = threading.Lock()

    def ask(self, questions: list[Question], now: float) -> list[Answer]:
        """Return what the process finds of each question. Raises Gone; the next question starts a new one."""
        return self._ask(Questions(questions, [], now)).answers

    def check_identities(self, chains: list[tuple[SignedDocument, ...]]) -> list[bool]:
        """Return which chains prove an identity. Raises Gone."""
        return self._ask(Questions([], chains, 0.0)).are_identities

    def _ask(self, questions: Questions) -> Answers:
        try:
            answers = _ANSWERS.decode(self._exchange(_ENCODER.encode(questions)))
        except msgspec.DecodeError as exc:
            raise Gone(str(exc)) from exc
        if (len(answers.answers), len(answers.are_identities)) != (len(questions.questions), len(questions.chains)):
            raise Gone("it answered another question")
        return answers

    def _exchange(self, question: bytes) -> bytes:
        try:
            with self._sending:
                process = self._running()
                with _killed_on_error(process):
                    assert process.stdin is not None
                    process.stdin.write(_LENGTH.pack(len(question)) + question)
                    process.stdin.flush()
                    self._receiving.acquire()
            with _killed_on_error(process):
                try:
                    assert process.stdout is not None
                    return _receive(process.stdout)
                finally:
                    self._receiving.release()
        except (OSError, EOFError) as exc:
            raise Gone(str(exc)) from exc

    def close(self) -> None:
        """End the process, if it runs."""
        with self._sending:
            self._end()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            # What this process can import that one can, too.
            path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)])
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": path},
            )
        return self._process

    def _end(self) -> None:
        # Nobody reads from it any more.
        with self._receiving:
            process, self._process = self._process, None
            if process is None:
                return
            for pipe in (process.stdin, process.stdout):
                try:
                    if pipe is not None:
                        pipe.close()
                except OSError:
                    pass  # it has ended before
            process.kill()
            process.wait()


@contextmanager
def _killed_on_error(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Let nobody ask a process again of which an answer may be left in the pipe."""
    try:
        yield
    except BaseException:
        process.kill()
        process.wait()
        raise


def verify(question: Question, now: float) -> Verdict:
    """Check a question, in the process that is asked."""
    namespace, log_id, key = NamespaceId(question.namespace), LogId(question.log), PublicKey(question.key)
    if question.head is not None:
        try:
            open_head(question.head, log=log_id, key=key)
        except InvalidData:
            return Verdict(False, [])
    good: list[Verified] = []
    for index, data in enumerate(question.entries, question.start):
        try:
            entry = open_signed_entry(data, namespace=namespace, log=log_id, key=key, index=index)
        except InvalidData:
            break
        record = entry.record
        if record.time > now + SKEW_MAX_S:
            break
        tokens = release_tokens(record.model, record.summary) if isinstance(record, Publish) else None
        good.append(Verified(record, entry.leaf, tokens))
    return Verdict(True, good)


def answer(question: Question, now: float) -> Answer:
    """Check a question, in the process that is asked, and pack what was found."""
    verdict = verify(question, now)
    is_all_right = verdict.is_head_right and len(verdict.good) == len(question.entries)
    return Answer(is_all_right, msgspec.Raw(_ENCODER.encode(verdict)))


def _is_identity(chain: tuple[SignedDocument, ...]) -> bool:
    try:
        open_identity(chain)
    except InvalidData:
        return False
    return True


def _receive(pipe: IO[bytes]) -> bytes:
    (length,) = _LENGTH.unpack(_read_whole(pipe, _LENGTH.size))
    return _read_whole(pipe, length)


def _read_whole(pipe: IO[bytes], size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = pipe.read(size - len(data))
        if not more:
            raise EOFError("the pipe was closed")
        data += more
    return data


def _main() -> None:
    # Whoever stops the one that asks stops this one by closing the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    quicken_checks()
    gc.disable()  # what it makes has no cycles, and looking for some takes a tenth of its time
    # Unbuffered, so that `select` sees all that waits.
    asked: IO[bytes] = os.fdopen(0, "rb", buffering=0)
    answers = os.fdopen(1, "wb")
    while select.select([asked], [], [], IDLE_S)[0]:
        try:
            questions = _QUESTIONS.decode(_receive(asked))
        except EOFError:
            return
        found = [answer(question, questions.now) for question in questions.questions]
        data = _ENCODER.encode(Answers(found, [_is_identity(chain) for chain in questions.chains]))
        answers.write(_LENGTH.pack(len(data)) + data)
        answers.flush()


if __name__ == "__main__":
    _main()
