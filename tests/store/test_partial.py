from __future__ import annotations

import os
import random
import shutil
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from storekit import fill, finish, fixed_chunks, open_files, run_at_once, run_in_small_disk, start, wait_for_the_others

from p2phub.core.errors import NoSpace, StoreError
from p2phub.core.filetree import ChunkList
from p2phub.store.disk import boot_id
from p2phub.store.partial import Partial, pack_bits, saved_chunks, unpack_bits
from p2phub.testing import values

CHUNK = 64 * 1024  # bytes; whole blocks of any file system
COUNT = 37
MAGIC = b"p2phub partial 1"  # spec/store.md §3
DATA = values.content("partial", COUNT * CHUNK - 100)
CHUNKS = fixed_chunks(DATA, CHUNK)


def chunk(index: int, data: bytes = DATA, size: int = CHUNK) -> memoryview:
    return memoryview(data)[index * size : (index + 1) * size]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "partial" / "ab" / "file.data"


def map_of(path: Path) -> Path:
    return path.with_suffix(".map")


def begin(path: Path, *indices: int) -> Partial:
    """Open a partial and write some chunks."""
    partial = Partial(path, CHUNKS)
    for index in indices:
        partial.write(index, chunk(index))
    return partial


def here(path: Path, chunks: ChunkList = CHUNKS) -> set[int]:
    """Open the partial anew; returns the chunks that it says are here, each of which must be."""
    partial = Partial(path, chunks)
    found = {index for index in range(len(chunks)) if partial.have[index]}
    for index in found:
        data = partial.read(chunks.offset(index), chunks.length(index))
        assert blake3(data).digest() == chunks.hash(index), f"chunk {index} is claimed and is not here"
    assert partial.missing() == sorted(set(range(len(chunks))) - found)
    partial.close()
    return found


# ── bits ────────────────────────────────────────────────────────────────────


@given(st.lists(st.integers(0, 1)).map(bytes))
def test_packed_flags_are_the_flags(flags: bytes) -> None:
    packed = pack_bits(flags)

    assert len(packed) == -(-len(flags) // 8)
    assert unpack_bits(packed, len(flags)) == flags
    assert all(packed[index // 8] >> index % 8 & 1 == flag for index, flag in enumerate(flags))


@given(st.binary(max_size=50), st.integers(0, 400))
def test_bits_beyond_the_count_do_not_matter(bits: bytes, count: int) -> None:
    count = min(count, 8 * len(bits))

    assert unpack_bits(bits, count) == bytes(bits[index // 8] >> index % 8 & 1 for index in range(count))


def test_a_million_chunks_are_packed() -> None:
    flags = bytes([1, 0, 0]) * 400_000

    assert unpack_bits(pack_bits(flags), len(flags)) == flags


# ── writing and reading ─────────────────────────────────────────────────────


def test_a_new_partial_has_nothing(path: Path) -> None:
    partial = Partial(path, CHUNKS)

    assert not any(partial.have)
    assert path.stat().st_size == len(DATA)
    assert path.stat().st_blocks == 0
    partial.close()


def test_what_was_written_is_here_and_can_be_read(path: Path) -> None:
    partial = begin(path, 3, COUNT - 1)

    assert partial.missing() == sorted(set(range(COUNT)) - {3, COUNT - 1})
    assert partial.read(3 * CHUNK + 5, 10) == DATA[3 * CHUNK + 5 : 3 * CHUNK + 15]
    assert partial.read((COUNT - 1) * CHUNK, CHUNK) == chunk(COUNT - 1)
    partial.close()
    assert here(path) == {3, COUNT - 1}


@pytest.mark.parametrize("data", [b"", b"x", DATA], ids=["empty", "one byte", "many chunks"])
def test_a_complete_partial_becomes_a_read_only_file(path: Path, tmp_path: Path, data: bytes) -> None:
    chunks = fixed_chunks(data, CHUNK)
    partial = Partial(path, chunks)
    for index in random.Random(1).sample(range(len(chunks)), len(chunks)):
        partial.write(index, chunk(index, data))
    target = tmp_path / "objects" / "ab" / "file"
    status = partial.finish(target)
    partial.close()

    assert status is not None
    assert target.read_bytes() == data
    assert os.path.samestat(status, target.stat())
    assert stat.S_IMODE(status.st_mode) == 0o444
    assert os.listdir(path.parent) == []


def test_an_incomplete_partial_cannot_be_finished(path: Path, tmp_path: Path) -> None:
    partial = begin(path, *range(1, COUNT))
    with pytest.raises(AssertionError):
        partial.finish(tmp_path / "object")
    partial.close()

    assert not (tmp_path / "object").exists()


def test_threads_may_write_and_save_at_once(path: Path, tmp_path: Path) -> None:
    partial = Partial(path, CHUNKS)
    order = random.Random(1).sample(range(COUNT), COUNT)

    def write(indices: list[int]) -> None:
        for index in indices:
            partial.write(index, chunk(index))
            partial.save()

    threads = [threading.Thread(target=write, args=(order[number::4],)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert saved_chunks(path, CHUNKS) == bytes([1]) * COUNT
    partial.finish(tmp_path / "object")
    partial.close()

    assert (tmp_path / "object").read_bytes() == DATA


def test_all_that_was_opened_is_closed(path: Path, tmp_path: Path) -> None:
    before = sorted(open_files())
    begin(path, 1).close()
    here(path)
    partial = begin(path, *range(COUNT))
    partial.finish(tmp_path / "object")
    partial.close()
    map_of(path).mkdir()
    with pytest.raises(StoreError):
        Partial(path, CHUNKS)
    map_of(path).rmdir()
    path.unlink(missing_ok=True)
    path.mkdir()
    with pytest.raises(StoreError):
        Partial(path, CHUNKS)

    assert sorted(open_files()) == before


def write_on_a_full_disk(folder_name: str) -> None:
    folder = Path(folder_name)
    path = folder / "file.data"
    partial = begin(path, 0, 1)
    fill(folder / "filler")
    with pytest.raises(NoSpace) as caught:
        partial.write(2, chunk(2))
    assert caught.value.path == str(path)
    assert partial.missing() == list(range(2, COUNT))
    partial.close()
    (folder / "filler").unlink()
    assert here(path) == {0, 1}
    partial = begin(path, *range(2, COUNT))
    partial.finish(folder / "object")
    partial.close()
    assert (folder / "object").read_bytes() == DATA


def test_a_full_disk_costs_only_what_did_not_fit(tmp_path: Path) -> None:
    run_in_small_disk(write_on_a_full_disk, tmp_path, 4 * 1024 * 1024)


# ── what the bitmap claims ──────────────────────────────────────────────────


def test_the_bitmap_is_as_the_spec_says(path: Path) -> None:
    partial = begin(path, 0, 9, 36)
    partial.save()

    assert map_of(path).read_bytes() == MAGIC + bytes.fromhex(boot_id()) + bytes([1, 2, 0, 0, 16])
    assert saved_chunks(path, CHUNKS) == bytes(index in (0, 9, 36) for index in range(COUNT))
    partial.close()


def test_without_a_bitmap_nothing_is_claimed(path: Path) -> None:
    assert saved_chunks(path, CHUNKS) == bytes(COUNT)


def test_a_bitmap_of_this_boot_is_believed_without_hashing(path: Path) -> None:
    begin(path, 1, 2).close()
    path.write_bytes(path.read_bytes()[:CHUNK] + bytes(len(DATA) - CHUNK))

    partial = Partial(path, CHUNKS)
    assert bytes(partial.have[:4]) == bytes([0, 1, 1, 0])
    partial.close()


@pytest.mark.parametrize("boot", [bytes(15) + b"\1", values.content("boot", 16)])
def test_a_bitmap_of_another_boot_is_not_believed(path: Path, boot: bytes) -> None:
    begin(path, 1, 2, 5).close()
    with open(path, "r+b") as file:
        file.seek(2 * CHUNK)
        file.write(b"lost in the power cut")
    map_of(path).write_bytes(MAGIC + boot + b"\xff" * 5)

    assert saved_chunks(path, CHUNKS) == bytes(COUNT)
    assert here(path) == {1, 5}
    # What was found is noted for this boot.
    assert saved_chunks(path, CHUNKS) == bytes(index in (1, 5) for index in range(COUNT))


def test_a_bitmap_whose_data_were_synced_is_believed(path: Path) -> None:
    begin(path, 1, 2).close()
    map_of(path).write_bytes(MAGIC + bytes(16) + bytes([6, 0, 0, 0, 0]))

    assert saved_chunks(path, CHUNKS) == bytes(index in (1, 2) for index in range(COUNT))
    assert here(path) == {1, 2}


def damaged_maps() -> dict[str, bytes]:
    boot = bytes.fromhex(boot_id())
    return {
        "empty": b"",
        "cut in the magic": MAGIC[:5],
        "cut in the boot": MAGIC + boot[:5],
        "without bits": MAGIC + boot,
        "a byte short": MAGIC + boot + b"\xff" * 4,
        "a byte long": MAGIC + boot + b"\xff" * 6,
        "of another file": MAGIC + boot + b"\xff" * 1000,
        "of another program": b"p2phub partial 2" + boot + b"\xff" * 5,
        "noise": values.content("noise", 37),
        "huge": MAGIC + boot + b"\xff" * 1_000_000,
        "zeros": bytes(37),
    }


@pytest.mark.parametrize("damage", damaged_maps())
def test_a_damaged_bitmap_costs_a_hashing_and_nothing_else(path: Path, damage: str) -> None:
    begin(path, 1, 2, 36).close()
    map_of(path).write_bytes(damaged_maps()[damage])

    assert saved_chunks(path, CHUNKS) == bytes(COUNT)
    assert here(path) == {1, 2, 36}
    assert here(path) == {1, 2, 36}


def test_bytes_that_are_not_the_chunk_are_not_here(path: Path) -> None:
    begin(path, 1).close()
    with open(path, "r+b") as file:
        file.seek(4 * CHUNK)
        file.write(bytes(CHUNK) + b"noise" * CHUNK)
    map_of(path).unlink()

    assert here(path) == {1}


def test_a_bitmap_whose_file_is_gone_claims_nothing(path: Path) -> None:
    """As a crash leaves it between the removal of the one and of the other."""
    begin(path, 1, 2).close()
    path.unlink()

    partial = Partial(path, CHUNKS)
    assert not any(partial.have)
    assert saved_chunks(path, CHUNKS) == bytes(COUNT)
    partial.close()
    assert here(path) == set()


@pytest.mark.parametrize("size", [0, CHUNK, 2 * CHUNK - 1, 2 * CHUNK + 1, len(DATA) - 1, len(DATA) + 1])
def test_a_bitmap_whose_file_has_another_size_is_not_believed(path: Path, size: int) -> None:
    begin(path, *range(COUNT)).close()
    os.truncate(path, size)

    assert here(path) == {index for index in range(COUNT) if CHUNKS.offset(index) + CHUNKS.length(index) <= size}
    assert path.stat().st_size == len(DATA)


def test_a_bitmap_whose_file_was_replaced_by_a_new_one_is_not_believed(path: Path) -> None:
    begin(path, *range(COUNT)).close()
    with open(path.with_name("new"), "wb") as file:
        file.truncate(len(DATA))
        file.seek(3 * CHUNK)
        file.write(chunk(3))
    os.replace(path.with_name("new"), path)

    assert here(path) == {3}


def test_zeros_are_content_too(path: Path) -> None:
    data = bytes(3 * CHUNK)
    chunks = fixed_chunks(data, CHUNK)
    partial = Partial(path, chunks)
    for index in (0, 2):
        partial.write(index, chunk(index, data))
    partial.close()
    assert {0, 2} <= here(path, chunks)
    map_of(path).unlink()

    assert {0, 2} <= here(path, chunks)


# ── processes that are killed ───────────────────────────────────────────────


def write_and_save(path_name: str, seed: str) -> None:
    """Write the missing chunks in any order, tell of each when it is written, and save now and then."""
    rng = random.Random(int(seed))
    partial = Partial(Path(path_name), CHUNKS)
    missing = partial.missing()
    rng.shuffle(missing)
    for index in missing:
        input()
        partial.write(index, chunk(index))
        print(index, flush=True)
        if rng.random() < 0.3:
            partial.save()


def test_whenever_a_writer_is_killed_nothing_is_lost_and_nothing_claimed_too_early(path: Path) -> None:
    rng = random.Random(1)
    written: set[int] = set()
    for seed in range(4):
        process = start(write_and_save, path, seed)
        assert process.stdin
        assert process.stdout
        process.stdin.write("\n" * 8)
        process.stdin.flush()
        lines = [process.stdout.readline() for _ in range(rng.randint(1, 8))]
        process.kill()
        rest, _ = process.communicate()
        written |= {int(line) for line in [*lines, *rest.split("\n")] if line.strip().isdigit()}
        claimed = saved_chunks(path, CHUNKS)
        for index in range(COUNT):
            if claimed[index]:
                with open(path, "rb") as file:
                    assert os.pread(file.fileno(), CHUNK, index * CHUNK) == chunk(index)

        assert here(path) >= written


class Killing(RuleBasedStateMachine):
    """One partial, written, saved, killed, and tampered with; what was written must be here, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.partial: Partial | None = None

    @initialize(folder=st.uuids())
    def make(self, folder: object) -> None:
        self.folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"p2phub-killing-{folder}"
        self.path = self.folder / "file.data"
        self.written: set[int] = set()
        self.partial = Partial(self.path, CHUNKS)

    @precondition(lambda self: self.partial)
    @rule(index=st.integers(0, COUNT - 1))
    def write(self, index: int) -> None:
        self.partial.write(index, chunk(index))
        self.written.add(index)

    @precondition(lambda self: self.partial)
    @rule()
    def save(self) -> None:
        self.partial.save()
        assert saved_chunks(self.path, CHUNKS) == self.expected()

    @precondition(lambda self: self.partial)
    @rule()
    def close(self) -> None:
        self.partial.close()
        self.partial = None

    @precondition(lambda self: self.partial)
    @rule()
    def be_killed(self) -> None:
        last = map_of(self.path).read_bytes()
        self.close()
        map_of(self.path).write_bytes(last)

    @precondition(lambda self: not self.partial)
    @rule(boot=st.sampled_from([b"other boot 16 by", None]), bits=st.binary(min_size=5, max_size=5))
    def reboot(self, boot: bytes | None, bits: bytes) -> None:
        """Leave a bitmap of another boot, or none."""
        if boot is None:
            map_of(self.path).unlink(missing_ok=True)
        else:
            map_of(self.path).write_bytes(MAGIC + boot + bits)

    @precondition(lambda self: not self.partial)
    @rule(bitmap_first=st.booleans())
    def be_killed_while_removing(self, bitmap_first: bool) -> None:
        (map_of(self.path) if bitmap_first else self.path).unlink(missing_ok=True)
        if not bitmap_first:
            self.written = set()

    @precondition(lambda self: not self.partial)
    @rule(index=st.integers(0, COUNT - 1))
    def lose_the_end(self, index: int) -> None:
        if self.path.exists():
            os.truncate(self.path, CHUNKS.offset(index) + 10)
            self.written = {known for known in self.written if known < index}

    @precondition(lambda self: not self.partial)
    @rule()
    def open(self) -> None:
        self.partial = Partial(self.path, CHUNKS)

    @invariant()
    def what_was_written_is_here_and_nothing_else(self) -> None:
        if self.partial:
            assert self.partial.have == self.expected()
            for index in self.written:
                assert self.partial.read(index * CHUNK, CHUNK) == chunk(index)

    def expected(self) -> bytes:
        return bytes(index in self.written for index in range(COUNT))

    def teardown(self) -> None:
        if self.partial:
            self.partial.close()
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder, ignore_errors=True)


TestKilling = Killing.TestCase
TestKilling.settings = settings(max_examples=40, stateful_step_count=20)


# ── several at once ─────────────────────────────────────────────────────────


def write_all(folder: str, turns: str, seed: str) -> None:
    wait_for_the_others()
    for turn in range(int(turns)):
        partial = Partial(Path(folder) / f"{turn}.data", CHUNKS)
        for index in random.Random(f"{seed} {turn}").sample(range(COUNT), COUNT):
            partial.write(index, chunk(index))
            partial.save()
        partial.finish(Path(folder) / "objects" / f"{turn}")
        partial.close()
    print("finished")


def test_processes_that_write_one_partial_at_once_all_finish_it(tmp_path: Path) -> None:
    outs = run_at_once(write_all, *((tmp_path, 8, seed) for seed in range(3)))

    assert all("finished" in out for out in outs)
    for turn in range(8):
        assert (tmp_path / "objects" / str(turn)).read_bytes() == DATA
    # One that comes late begins anew, and finishes that as well. A bitmap may be left, which nobody believes.
    assert not list(tmp_path.glob("*.data"))


def test_processes_that_share_a_partial_learn_what_the_others_wrote(path: Path) -> None:
    one, other = Partial(path, CHUNKS), Partial(path, CHUNKS)
    one.write(1, chunk(1))
    one.save()
    other.write(2, chunk(2))
    other.save()
    one.save()

    assert [index for index in range(COUNT) if one.have[index]] == [1, 2]
    assert [index for index in range(COUNT) if other.have[index]] == [1, 2]
    one.close()
    other.close()


@pytest.fixture
def complete(path: Path) -> Iterator[Partial]:
    partial = begin(path, *range(COUNT))
    yield partial
    partial.close()


def test_a_partial_that_is_removed_under_our_feet_is_not_finished(
    path: Path, tmp_path: Path, complete: Partial
) -> None:
    path.unlink()
    map_of(path).unlink()
    complete.save()
    with pytest.raises(StoreError) as caught:
        complete.finish(tmp_path / "object")

    assert caught.value.path == str(path)
    assert not (tmp_path / "object").exists()


def test_a_partial_that_others_began_anew_is_left_to_them(path: Path, tmp_path: Path, complete: Partial) -> None:
    path.unlink()
    map_of(path).unlink()
    others = begin(path, 4)
    others.save()
    complete.save()
    with pytest.raises(StoreError):
        complete.finish(tmp_path / "object")

    assert not (tmp_path / "object").exists()
    assert saved_chunks(path, CHUNKS) == bytes(index == 4 for index in range(COUNT))
    others.close()
    assert here(path) == {4}


def test_a_data_file_that_others_began_anew_gets_none_of_our_claims(path: Path, complete: Partial) -> None:
    """Only the data were removed: the two writers must not take each other's word."""
    complete.save()
    path.unlink()
    others = begin(path, 4)
    complete.save()
    others.save()

    assert others.missing() == [index for index in range(COUNT) if index != 4]
    others.close()
    assert here(path) == {4}


def test_a_file_that_another_process_finished_first_is_as_good(path: Path, tmp_path: Path, complete: Partial) -> None:
    other = Partial(path, CHUNKS)
    complete.finish(tmp_path / "object")
    other.have[:] = complete.have
    status = other.finish(tmp_path / "object")
    other.close()

    assert status is not None
    assert os.path.samestat(status, (tmp_path / "object").stat())
    assert (tmp_path / "object").read_bytes() == DATA
    assert os.listdir(path.parent) == []


def test_a_file_that_another_process_put_there_is_not_called_ours(
    path: Path, tmp_path: Path, complete: Partial
) -> None:
    path.unlink()
    (tmp_path / "object").write_bytes(b"of another process")

    assert complete.finish(tmp_path / "object") is None
    assert (tmp_path / "object").read_bytes() == b"of another process"


def test_finishing_late_leaves_alone_what_was_begun_since(path: Path, tmp_path: Path, complete: Partial) -> None:
    other = Partial(path, CHUNKS)
    complete.finish(tmp_path / "object")
    third = begin(path, 4)
    third.save()
    other.have[:] = complete.have
    other.finish(tmp_path / "object")
    other.close()

    assert saved_chunks(path, CHUNKS) == bytes(index == 4 for index in range(COUNT))
    third.close()


def test_writing_on_after_another_process_finished_does_no_harm(path: Path, tmp_path: Path, complete: Partial) -> None:
    other = Partial(path, CHUNKS)
    complete.finish(tmp_path / "object")
    other.write(3, chunk(3))
    other.save()
    other.close()

    assert (tmp_path / "object").read_bytes() == DATA
    assert os.listdir(path.parent) == []


def finish_and_die(path_name: str, target: str) -> None:
    partial = Partial(Path(path_name), CHUNKS)
    partial.finish(Path(target))
    os._exit(0)


def test_a_process_that_dies_after_finishing_leaves_the_file(path: Path, tmp_path: Path) -> None:
    begin(path, *range(COUNT)).close()
    finish(start(finish_and_die, path, tmp_path / "object"))

    assert (tmp_path / "object").read_bytes() == DATA
