"""Entries verified in a process of its own: it finds what a thread would find, and nobody depends on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace
from storekit import TIME, Writer, finish, open_store, start

from p2phub.core.checkpoint import sign_head
from p2phub.core.errors import HashMismatch, InvalidData, InvalidSignature, TooEarly
from p2phub.core.records import Publish, read_entry
from p2phub.protocol.messages import IdentityChain
from p2phub.store import takeover
from p2phub.store.logs import LogPart
from p2phub.store.searchtokens import release_tokens
from p2phub.store.store import Store
from p2phub.store.verifier import Answer, Gone, Question, Verdict, Verified, Verifier, answer, verify
from p2phub.testing import values
from p2phub.testing.processes import is_running
from p2phub.testing.releases import make_logs

NOW = TIME + 100.0


@pytest.fixture
def verifier() -> Iterator[Verifier]:
    made = Verifier()
    yield made
    made.close()


def question(
    writer: Writer, start: int = 0, *, head: bytes | None = None, entries: list[bytes] | None = None
) -> Question:
    data = writer.data(start) if entries is None else entries
    return Question(bytes(writer.namespace), bytes(writer.log), bytes(writer.key.public_key), head, start, data)


def found(data: list[bytes]) -> list[Verified]:
    """Return what is to be said of good entries."""
    entries = [read_entry(each) for each in data]
    return [
        Verified(each.record, each.leaf, release_tokens(each.record.model, each.record.summary))
        for each in entries
        if isinstance(each.record, Publish)
    ]


def questions() -> dict[str, tuple[Question, Verdict]]:
    """Return questions with the verdicts that they must get, by what is asked."""
    writer = Writer().grow(6)
    late = Writer().grow(2)
    late.publish("late", time=TIME + 10_000)
    forged = sign_head(writer.log, 6, writer.head().root, values.key("thief")).text
    damaged = [*writer.data(0, 3), writer.data(3, 4)[0][:-1] + b"?", *writer.data(4)]
    return {
        "all is right": (question(writer, head=writer.head().text), Verdict(True, found(writer.data()))),
        "from the middle on": (question(writer, 4), Verdict(True, found(writer.data(4)))),
        "nothing": (question(writer, entries=[]), Verdict(True, [])),
        "a forged head": (question(writer, head=forged), Verdict(False, [])),
        "a head that is none": (question(writer, head=b"x"), Verdict(False, [])),
        "a flipped bit": (question(writer, entries=damaged), Verdict(True, found(writer.data(0, 3)))),
        "another place": (question(writer, 1, entries=writer.data()), Verdict(True, [])),
        "no entry": (question(writer, entries=[b"", b"\xa0"]), Verdict(True, [])),
        "ahead of the clock": (question(late), Verdict(True, found(late.data(0, 2)))),
    }


def ask(verifier: Verifier, *asked: Question) -> list[Verdict]:
    """Return what a process finds."""
    return [each.verdict() for each in verifier.ask(list(asked), NOW)]


@pytest.mark.parametrize("what", questions())
def test_it_says_how_far_all_is_right(what: str) -> None:
    asked, verdict = questions()[what]

    assert verify(asked, NOW) == verdict
    assert answer(asked, NOW).is_all_right == (verdict.is_head_right and len(verdict.good) == len(asked.entries))


def test_a_process_answers_what_it_is_asked(verifier: Verifier) -> None:
    cases = list(questions().values())
    for _ in range(3):
        assert ask(verifier, *(asked for asked, _ in cases)) == [verdict for _, verdict in cases]
    assert ask(verifier) == []


def test_a_process_says_which_chains_prove_an_identity(verifier: Verifier) -> None:
    good, other = values.identity("good").chain, values.identity("other").chain
    forged = (replace(good[0], signatures=other[0].signatures),)

    assert verifier.check_identities([good, forged, other]) == [True, False, True]
    assert verifier.check_identities([]) == []


def test_identities_are_opened_alike_with_and_without_a_process(store: Store, asks: list[int]) -> None:
    good, other = values.identity("good"), values.identity("other")
    forged = (replace(good.chain[0], signatures=other.chain[0].signatures),)
    chains = [IdentityChain(good.chain), IdentityChain(forged), IdentityChain(other.chain)]
    with_process = store.logs.open_identities(chains)
    takeover.BURST_ENTRIES = 10**9
    without = store.logs.open_identities(chains)

    assert any(made._process for made in store.logs._takeover._verifiers)
    for found in (with_process, without):
        assert [found[0], found[2]] == [good, other]
        assert isinstance(found[1], InvalidData)


def test_a_process_that_died_is_replaced(verifier: Verifier) -> None:
    asked, verdict = questions()["all is right"]
    assert ask(verifier, asked) == [verdict]
    assert verifier._process is not None
    verifier._process.kill()
    # Whether it is noticed before it is asked or while it should answer is chance.
    for _ in range(2):
        try:
            verifier.ask([asked], NOW)
        except Gone:
            continue

    assert ask(verifier, asked) == [verdict]


def ask_at_once(verifier: Verifier, cases: list[tuple[Question, Verdict]]) -> list[bool | None]:
    """Ask all in threads; returns whether each verdict was right, None if the process was gone."""

    def is_right(case: tuple[Question, Verdict]) -> bool | None:
        try:
            return ask(verifier, *[case[0]] * 20) == [case[1]] * 20
        except Gone:
            return None

    with ThreadPoolExecutor(len(cases)) as pool:
        return list(pool.map(is_right, cases))


def test_threads_that_ask_at_once_get_their_own_verdicts(verifier: Verifier) -> None:
    cases = list(questions().values()) * 10

    assert ask_at_once(verifier, cases) == [True] * len(cases)


def test_all_that_ask_a_process_which_dies_learn_it_or_get_a_verdict(verifier: Verifier) -> None:
    cases = list(questions().values()) * 30
    verifier.ask([], NOW)
    process = verifier._process
    assert process is not None
    killer = threading.Timer(0.02, process.kill)
    killer.start()
    answers = ask_at_once(verifier, cases)
    killer.join()

    assert False not in answers
    assert ask_at_once(verifier, cases[:9]) == [True] * 9
    assert verifier._process is not process


def test_a_process_that_cannot_be_started_is_gone(verifier: Verifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(Gone):
        verifier.ask([questions()["all is right"][0]], NOW)


# ── taking over with processes ──────────────────────────────────────────────


@pytest.fixture
def asks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let processes verify from the first entry on; returns how many questions each was asked at a time."""
    counts: list[int] = []
    ask = Verifier.ask

    def count(self: Verifier, questions: list[Question], now: float) -> list[Answer]:
        counts.append(len(questions))
        return ask(self, questions, now)

    monkeypatch.setattr(takeover, "BURST_ENTRIES", 0)
    monkeypatch.setattr(Verifier, "ask", count)
    return counts


def part(writer: Writer, head: object = None, entries: list[bytes] | None = None) -> LogPart:
    data = writer.data() if entries is None else entries
    return LogPart(writer.identity, writer.log, head or writer.head(), 0, tuple(data))  # type: ignore[arg-type]


def take(store: Store) -> list[object]:
    writers = [Writer(values.identity(name), values.key(name)).grow(200) for name in ("good", "bad", "forged", "root")]
    good, bad, forged, root = writers
    late = Writer().grow(3)
    late.publish("late", time=TIME + 10_000)
    damaged = [*bad.data(0, 150), bad.data(150, 151)[0][:-1] + b"?", *bad.data(151)]
    parts = [
        part(good),
        part(bad, entries=damaged),
        part(forged, sign_head(forged.log, 200, forged.head().root, values.key("thief"))),
        part(root, sign_head(root.log, 200, bytes(32), root.key)),
        part(late),
    ]
    outcomes = store.logs.extend_many(parts, now=TIME + 300)
    assert store.logs.entries(good.log, 0, size_max=10**9) == good.data()
    assert {state.log for state in store.logs.states()} == {good.log}
    return [outcome if isinstance(outcome, int) else type(outcome) for outcome in outcomes]


EXPECTED = [200, InvalidSignature, InvalidSignature, HashMismatch, TooEarly]


def test_a_process_changes_nothing_of_what_is_taken(store: Store, asks: list[int]) -> None:
    assert take(store) == EXPECTED
    assert asks


def terms(store: Store) -> set[tuple[str, int]]:
    """Return all by which search finds something, and how many it finds by that."""
    with store.database.write() as connection:
        connection.execute("CREATE VIRTUAL TABLE temp.terms USING fts5vocab (main, search, row)")
        rows = connection.execute("SELECT term, doc FROM temp.terms").fetchall()
        words = connection.execute("SELECT word FROM vocabulary").fetchall()
    return {(row["term"], row["doc"]) for row in rows} | {(row["word"], -1) for row in words}


def test_what_a_process_says_of_words_is_what_a_thread_finds(tmp_path: Path, asks: list[int]) -> None:
    logs = list(make_logs(60, seed=1))
    found = []
    for name in ("process", "thread"):
        with open_store(tmp_path / name) as store:
            parts = [LogPart(log.identity, log.head.log, log.head, 0, tuple(log.data)) for log in logs]
            takeover.BURST_ENTRIES = 0 if name == "process" else 10**9
            store.logs.extend_many(parts, now=time.time())
            found.append(terms(store))

    assert asks
    assert len(found[0]) > 100
    assert found[0] == found[1]


def test_without_the_process_threads_verify(store: Store, asks: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    assert take(store) == EXPECTED
    assert asks


def test_what_a_process_refuses_is_looked_at_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is wrong about what is right costs time only."""

    def refuse(self: Verifier, questions: list[Question], now: float) -> list[Answer]:
        return [pack(Verdict(False, []), is_all_right=False) for _ in questions]

    monkeypatch.setattr(takeover, "BURST_ENTRIES", 0)
    monkeypatch.setattr(Verifier, "ask", refuse)

    assert take(store) == EXPECTED


def pack(verdict: object, *, is_all_right: bool) -> Answer:
    return Answer(is_all_right, msgspec.Raw(msgspec.msgpack.encode(verdict, enc_hook=bytes)))


NONSENSE = {
    "no verdict": pack("yes", is_all_right=True),
    "a head that is wrong": pack(Verdict(False, []), is_all_right=True),
    "too few entries": pack(Verdict(True, []), is_all_right=True),
    "nothing": Answer(True, msgspec.Raw(b"")),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_an_answer_that_makes_no_sense_is_none(store: Store, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr(takeover, "BURST_ENTRIES", 0)
    monkeypatch.setattr(Verifier, "ask", lambda self, questions, now: [NONSENSE[what] for _ in questions])

    assert take(store) == EXPECTED


# ── its end ─────────────────────────────────────────────────────────────────


def wait_until_gone(pid: int) -> None:
    while is_running(pid):
        time.sleep(0.01)


def ask_and_say(_: str) -> None:
    made = Verifier()
    made.ask([questions()["all is right"][0]], NOW)
    assert made._process is not None
    print(made._process.pid, flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_process_ends_with_the_one_that_was_killed(tmp_path: Path) -> None:
    process = start(ask_and_say, tmp_path)
    assert process.stdout
    assert process.stdin
    pid = int(process.stdout.readline())
    assert is_running(pid)
    process.stdin.write("go\n")
    process.stdin.flush()
    process.wait()

    wait_until_gone(pid)
    process.communicate()


def test_the_process_ends_when_it_is_asked_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from p2phub.store import verifier; verifier.IDLE_S = 0.05; verifier._main()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.wait() == 0


def close_store(home: str) -> None:
    takeover.BURST_ENTRIES = 0
    with open_store(Path(home)) as store:
        take(store)
        pids = [made._process.pid for made in store.logs._takeover._verifiers if made._process]
        assert pids
    assert not any(is_running(pid) for pid in pids)


def test_the_process_ends_with_the_store(tmp_path: Path) -> None:
    finish(start(close_store, tmp_path))
