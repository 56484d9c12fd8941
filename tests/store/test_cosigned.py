"""What a witness must not forget: on the disk before it signs, whatever happens at once or in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from p2phub.core import merkle
from p2phub.core.errors import StoreError
from p2phub.core.merkle import LOG_TREE
from p2phub.core.witness import AddCheckpoint, Checkpoint
from p2phub.protocol.witnessing import Cosigned, Refusal, check_request
from p2phub.store.cosigned import CosignedHeads, open_witness

ORIGIN = "example.org/log"


def ask(heads: CosignedHeads, history: str, old: int, size: int) -> Refusal | None:
    """Ask for a cosignature of one of the histories of a log."""
    leaves = [LOG_TREE.leaf(f"{history} {number}".encode()) for number in range(size)]
    root = merkle.root(LOG_TREE, leaves)
    request = AddCheckpoint(old, merkle.consistency_proof(LOG_TREE, leaves, old), history.encode())
    new = Cosigned(size, root, request.note)
    return heads.advance(ORIGIN, new, lambda known: check_request(request, Checkpoint(ORIGIN, size, root), known))[0]


def test_of_two_histories_that_come_at_once_one_is_cosigned(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for turn in range(20):
            heads = [CosignedHeads(tmp_path / f"{turn}.sqlite") for _ in range(2)]
            asked = [(heads[number % 2], "ab"[number % 2], 0, 3 + number) for number in range(8)]
            answers = list(pool.map(lambda each: ask(*each), asked))

            assert answers.count(None) == 1
            for each in heads:
                each.close()


def test_a_head_is_known_to_whoever_opens_the_file_next(tmp_path: Path) -> None:
    path = tmp_path / "cosigned.sqlite"
    first = CosignedHeads(path)
    assert ask(first, "a", 0, 3) is None
    first.close()

    again = CosignedHeads(path)
    refusal = ask(again, "b", 0, 3)
    again.close()

    assert refusal is not None
    assert refusal.is_fork
    assert path.stat().st_mode & 0o077 == 0


# Cosigns one history after the other and dies where it is told to; what it printed was told to the asker.
_CHILD = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_cosigned import ask
from p2phub.store.cosigned import CosignedHeads
from p2phub.store import cosigned
heads = CosignedHeads(Path({path!r}))
history, size, die = sys.argv[1], int(sys.argv[2]), sys.argv[3]
known = heads.get("example.org/log")
if die == "before":
    inner = cosigned.CosignedHeads._transaction
    class Dying:
        def execute(self, *arguments):
            result = heads._connection.execute(*arguments)
            if arguments[0].startswith("INSERT"):
                os.kill(os.getpid(), signal.SIGKILL)
            return result
    import contextlib
    @contextlib.contextmanager
    def transaction(self):
        with inner(self):
            yield Dying()
    cosigned.CosignedHeads._transaction = transaction
refusal = ask(heads, history, known.size if known else 0, size)
if die == "after":
    os.kill(os.getpid(), signal.SIGKILL)
print("refused" if refusal else "cosigned")
"""


def cosign(path: Path, history: str, size: int, die: str = "never") -> str:
    """Let a process cosign; returns what it told, "killed" if it died before it could."""
    code = _CHILD.format(tests=str(Path(__file__).parent), path=str(path))
    result = subprocess.run(
        [sys.executable, "-c", code, history, str(size), die], capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback" not in result.stderr, result.stderr
    return "killed" if result.returncode == -signal.SIGKILL else result.stdout.strip()


def test_a_crash_never_leads_to_two_histories(tmp_path: Path) -> None:
    path = tmp_path / "cosigned.sqlite"

    # Nothing was kept, and nothing told: the other history may be the first.
    assert cosign(path, "a", 3, "before") == "killed"
    assert cosign(path, "b", 3) == "cosigned"
    # Kept, and not told: it may be cosigned again, and no other.
    assert cosign(path, "b", 5, "after") == "killed"
    assert cosign(path, "a", 5) == "refused"
    assert cosign(path, "a", 7) == "refused"
    assert cosign(path, "b", 5) == "cosigned"
    assert cosign(path, "b", 7) == "cosigned"


def test_a_witness_that_lost_its_memory_does_not_go_on(tmp_path: Path) -> None:
    _, heads = open_witness(tmp_path / "keys" / "witness.key", tmp_path / "cosigned.sqlite")
    heads.close()
    (tmp_path / "cosigned.sqlite").unlink()

    with pytest.raises(StoreError, match=r"but not what it signed") as caught:
        open_witness(tmp_path / "keys" / "witness.key", tmp_path / "cosigned.sqlite")
    assert caught.value.hint


def test_a_witness_does_not_take_up_the_memory_of_another(tmp_path: Path) -> None:
    for name in ("alice", "bob"):
        _, heads = open_witness(tmp_path / name / "keys" / "witness.key", tmp_path / f"{name}.sqlite")
        heads.close()
    os.replace(tmp_path / "bob.sqlite", tmp_path / "alice.sqlite")

    with pytest.raises(StoreError, match=r"another witness's key"):
        open_witness(tmp_path / "alice" / "keys" / "witness.key", tmp_path / "alice.sqlite")


def test_a_witness_that_died_before_it_had_a_key_begins_anew(tmp_path: Path) -> None:
    CosignedHeads(tmp_path / "cosigned.sqlite").close()

    first, heads = open_witness(tmp_path / "witness.key", tmp_path / "cosigned.sqlite")
    heads.close()
    again, heads = open_witness(tmp_path / "witness.key", tmp_path / "cosigned.sqlite")
    heads.close()

    assert first.public_key == again.public_key


def test_a_file_that_is_damaged_is_an_error_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "cosigned.sqlite").write_bytes(b"nothing of the kind" * 1000)

    with pytest.raises(StoreError, match=r"cosigned\.sqlite"):
        CosignedHeads(tmp_path / "cosigned.sqlite")
