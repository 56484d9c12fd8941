"""Pickles by their shapes: what would be imported is found, and what cannot be followed counts as bad."""

from __future__ import annotations

import bz2
import collections
import gzip
import io
import lzma
import os
import pickle
import pickletools
import random
import struct
import subprocess
import tarfile
import zipfile
import zlib

import numpy
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from p2phub.core import picklebytes, picklewalk
from p2phub.core.picklenames import NO_PICKLE, Scan, forbidden, looks_pickled
from p2phub.core.pickles import scan


class File:
    """Bytes as a file, which counts what is read of it."""

    def __init__(self, data: bytes, size: int | None = None) -> None:
        self._data = data
        self.size = len(data) if size is None else size
        self.read_bytes = 0

    def read(self, offset: int, size: int) -> bytes:
        found = self._data[offset : offset + size]
        if offset + size > len(self._data):  # a hole
            found += bytes(min(size, self.size - offset) - len(found))
        self.read_bytes += len(found)
        return found


def scanned(data: bytes) -> Scan:
    return scan(File(data))


class Call:
    """What pickles as a call of a function."""

    def __init__(self, function: object, *args: object) -> None:
        self._call = (function, args)

    def __reduce__(self) -> object:
        return self._call


EVIL = Call(os.system, "touch /tmp/owned")
EVIL_NAME = f"{os.system.__module__}.system"  # posix.system


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_a_pickle_calls_is_found_in_every_protocol(protocol: int) -> None:
    found = scanned(pickle.dumps({"weights": [1.0, 2.0], "x": EVIL}, protocol))

    assert found.is_pickle
    assert EVIL_NAME in found.names
    assert forbidden(found.names) == (EVIL_NAME,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_and_arrays_name_nothing_that_is_forbidden(protocol: int) -> None:
    value = collections.OrderedDict(a=numpy.arange(1000, dtype="float32"), b=[{"c": (1, 2.5, None, "x")}, {1, 2}])

    found = scanned(pickle.dumps(value, protocol))

    assert found.is_pickle
    assert found.problem is None
    assert forbidden(found.names) == ()


@given(st.recursive(st.none() | st.integers() | st.floats() | st.text() | st.binary(), st.lists),
       st.integers(0, pickle.HIGHEST_PROTOCOL))  # fmt: skip
def test_every_pickle_of_data_is_walked_to_its_end(value: object, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    assume(b"PK\x05\x06" not in data)
    found = scanned(data)

    assert found.is_pickle
    assert found.problem is None
    assert forbidden(found.names) == ()


@given(st.binary(max_size=200))
def test_no_bytes_upset_the_scan(data: bytes) -> None:
    scanned(data)


@given(st.binary(max_size=60), st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_what_runs_before_a_pickle_breaks_is_found(rest: bytes, protocol: int) -> None:
    # Without its last step: what comes instead decides how it breaks, and whether it does.
    found = scanned(pickle.dumps(EVIL, protocol)[:-1] + rest)

    assert EVIL_NAME in found.names or "ends as a zip" in (found.problem or "")


def test_a_broken_pickle_that_named_something_is_no_harmless_file() -> None:
    found = scanned(pickle.dumps(collections.OrderedDict(a=1))[:-1])

    assert found.problem is not None
    assert "breaks" in found.problem


@pytest.mark.parametrize(
    ("program", "why"),
    [
        # A part of the name comes from the program that loads it: PyTorch gives back what it is given.
        (b"\x80\x04\x8c\x06module\x8c\x05posix\x86Q\x8c\x06system\x93.", "puts the name"),
        (b"\x80\x04\x8c\x05posix" + b"X\x00\x08\x00\x00" + b"system.x" * 256 + b"\x93.", "puts the name"),
        (b"\x80\x02S'pos\\x69x'\nS'system'\n\x93.", "puts the name"),
        (b"\x80\x02\x82\x01.", "by numbers"),
        # setattr on a class: what others call afterwards is another thing.
        (b"\x80\x02ccollections\nOrderedDict\n}b.", "changes what it imports"),
        (b"\x80\x02ccollections\ndeque\nK\x01a.", "changes what it imports"),
    ],
)
def test_what_cannot_be_followed_counts_as_bad(program: bytes, why: str) -> None:
    found = scanned(program)

    assert found.is_pickle
    assert found.problem is not None
    assert why in found.problem


@pytest.mark.parametrize(
    "program",
    [
        b"cposix\nsystem\n.",  # protocol 0, which has no mark at its beginning
        b"(S'true'\niposix\nsystem\n.",  # INST
        b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94h\x00h\x01\x93.",  # the names come from the memo
        b"\x80\x04\x8c\x06system\x8c\x05posix\x8c\x05posix0\x8c\x06system\x93.",  # and from below a POP
        b"\x80\x04X\x05\x00\x00\x00posixX\x06\x00\x00\x00system\x93.",
        b"Vposix\nVsystem\n\x93.",
    ],
)
def test_names_are_found_wherever_they_come_from(program: bytes) -> None:
    assert "posix.system" in scanned(program).names


def test_the_pickles_behind_the_first_are_walked_too() -> None:
    assert EVIL_NAME in scanned(pickle.dumps(1) + pickle.dumps(EVIL)).names


def test_random_numbers_are_hardly_ever_taken_for_a_pickle() -> None:
    chance = random.Random(1)

    assert sum(scanned(chance.randbytes(2000)).is_pickle for _ in range(5000)) < 10


@pytest.mark.parametrize("data", [b"", b"hello", b"\x00" * 4096, bytes(range(64)), b"lmgg" + bytes(100), b"\x80\x63no"])
def test_other_bytes_are_no_pickle(data: bytes) -> None:
    assert scanned(data) == NO_PICKLE


def test_what_states_a_protocol_that_no_loader_knows_is_no_pickle() -> None:
    # Numbers that begin with a mark and name something by a number, as one file of some ten thousands does.
    program = b"\x80\x8a\x82\x01."

    assert scanned(program) == NO_PICKLE
    assert scanned(program.replace(b"\x8a", b"\x05")).is_pickle


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("name", ["archive/data.pkl", "archive/DATA.PKL", "x/y/other", "archive/data/0x"])
def test_every_member_of_a_zip_is_looked_into(name: str, compression: int) -> None:
    found = scanned(zipped({"archive/data/0": os.urandom(5000), name: pickle.dumps(EVIL)}, compression))

    assert EVIL_NAME in found.names


def test_the_numbers_of_a_checkpoint_are_not_read() -> None:
    file = File(zipped({"archive/data.pkl": pickle.dumps({"a": 1}), "archive/data/0": bytes(20_000_000)}))

    assert scan(file) == Scan(True)
    assert file.read_bytes < 2_000_000


def test_two_members_of_one_name_are_both_looked_into() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps(EVIL))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/data.pkl", pickle.dumps(1))

    assert EVIL_NAME in scanned(out.getvalue()).names


def test_a_zip_of_which_tools_see_different_files_is_refused() -> None:
    good, evil = zipped({"a/data.pkl": pickle.dumps(1)}), zipped({"a/data.pkl": pickle.dumps(EVIL)})

    assert scanned(evil + good).problem is not None
    assert scanned(pickle.dumps(1) + good).problem is not None


def end_of(data: bytes) -> int:
    return data.rindex(b"PK\x05\x06")


def test_a_zip_whose_list_is_said_to_be_elsewhere_is_refused() -> None:
    # As PyTorch reads it, the list of another zip, which stands in the comment.
    good, evil = zipped({"a/data.pkl": pickle.dumps(1)}), zipped({"a/data.pkl": pickle.dumps(EVIL)})
    at = end_of(good)
    size, begin = struct.unpack("<LL", good[at + 12 : at + 20])
    for comment, place in ((evil, at + 22 + evil.index(b"PK\x01\x02")), (b"", 0), (b"", begin - 1), (b"", begin + 1)):
        end = good[at : at + 12] + struct.pack("<LLH", size, place, len(comment)) + comment

        assert scanned(good[:at] + end).problem == "it is a zip of which tools see different files"
    assert scanned(good[:-2] + struct.pack("<H", 5)).problem is not None
    assert scanned(good) == Scan(True)


@pytest.mark.parametrize("is_right", [True, False])
def test_the_headers_of_a_large_zip_must_agree(is_right: bool) -> None:
    good = zipped({"a/data.pkl": pickle.dumps(1)})
    at = end_of(good)
    count, size, begin = struct.unpack("<HLL", good[at + 10 : at + 20])
    wide = struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, begin)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, at if is_right else 0, 1)

    found = scanned(good[:at] + wide + locator + good[at:])
    assert found == (Scan(True) if is_right else Scan(True, (), "it is a zip of which tools see different files"))


@pytest.mark.parametrize(("size", "begin"), [(0, 0), (0, 1), (1, 0)])
def test_the_small_header_of_a_large_zip_names_the_same_list_or_none(size: int, begin: int) -> None:
    good = zipped({"a/data.pkl": pickle.dumps(1)})
    at = end_of(good)
    count, true_size, true_begin = struct.unpack("<HLL", good[at + 10 : at + 20])
    wide = struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, true_size, true_begin)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, at, 1)

    def said(size: int, begin: int) -> Scan:
        return scanned(good[:at] + wide + locator + good[at : at + 12] + struct.pack("<LLH", size, begin, 0))

    # Some tools look at the large headers only where the small one says nothing.
    assert said(true_size + size, true_begin - begin).problem == (
        "it is a zip of which tools see different files" if size or begin else None
    )
    assert said(2**32 - 1, 2**32 - 1) == Scan(True)


@pytest.mark.parametrize("name", ["a/data/0", "data/0", "0"])
def test_numbers_are_numbers_beside_their_pickle_alone(name: str) -> None:
    assert EVIL_NAME in scanned(zipped({name: pickle.dumps(EVIL), "b/data.pkl": pickle.dumps(1)})).names


def test_an_archive_with_programs_is_refused() -> None:
    assert scanned(zipped({"handler.py": b"import os", "a/data.pkl": pickle.dumps(1)})).problem is not None


def test_a_damaged_zip_is_refused() -> None:
    data = bytearray(zipped({"a/data.pkl": pickle.dumps(1)}))
    data[-8] ^= 0xFF

    assert scanned(bytes(data)).problem is not None


def test_a_program_in_torchscript_is_refused() -> None:
    found = scanned(zipped({"m/data.pkl": pickle.dumps(1), "m/code/__torch__.py": b"def forward(self): pass"}))

    assert found.problem == "it is a program in TorchScript"


def test_arrays_of_objects_are_pickles_and_others_are_not() -> None:
    plain, objects = io.BytesIO(), io.BytesIO()
    numpy.save(plain, numpy.arange(10))
    numpy.save(objects, numpy.array([EVIL], dtype=object), allow_pickle=True)
    both = io.BytesIO()
    numpy.savez(both, a=numpy.arange(10), b=numpy.array([EVIL], dtype=object))

    assert scanned(plain.getvalue()) == NO_PICKLE
    assert EVIL_NAME in scanned(objects.getvalue()).names
    assert EVIL_NAME in scanned(both.getvalue()).names


def array_of(kind: object, *, size: int = 118) -> bytes:
    """Return a file of numpy with one thing that does something. size: of its header."""
    header = repr({"descr": kind, "fortran_order": False, "shape": (1,)}).encode().ljust(size - 1) + b"\n"
    return b"\x93NUMPY\x02\x00" + struct.pack("<L", size) + header + pickle.dumps(numpy.array([EVIL], dtype=object))


KINDS_OF_OBJECTS = ["|O", "O", "O8", "object", "object_", "T", "|T16", "f4,O", [("a", "object")], [("a", [("b", "T")])],
                    ("object", (1,)), [("a", "T", (1,))], {"aO": 1}, {"a": 0, "O": 0, 1: "<f4"}, ["aO"]]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS_OF_OBJECTS)
def test_objects_in_an_array_are_found_however_they_are_called(kind: object) -> None:
    assert EVIL_NAME in scanned(array_of(kind)).names


@pytest.mark.parametrize(
    "kind",
    [
        "<f4",
        "|b1",
        "?",
        "<U10",
        "|V2",
        "<M8[ns]",
        "<m8[25s]",
        ("<f4", (3,)),
        [("Or", "<i8", (2,)), (("T", "b"), "|S3")],
    ],
)
def test_numbers_in_an_array_are_not_taken_for_a_pickle(kind: object) -> None:
    assert scanned(array_of(kind)) == NO_PICKLE


def test_a_header_of_an_array_that_is_too_long_to_be_looked_at_is_refused() -> None:
    # As long as objects are allowed, numpy takes one of any length.
    assert EVIL_NAME in scanned(array_of("|O", size=60_000)).names
    assert scanned(array_of("|O", size=70_000)).problem is not None


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, bz2.compress, lzma.compress,
                                  lambda data: lzma.compress(data, lzma.FORMAT_ALONE)])  # fmt: skip
def test_compressed_pickles_are_unpacked_once(pack) -> None:
    assert EVIL_NAME in scanned(pack(pickle.dumps(EVIL))).names
    assert scanned(pack(pickle.dumps({"a": 1}))) == Scan(True)
    assert scanned(pack(pack(pickle.dumps(EVIL)))).problem is not None
    assert scanned(pack(pickle.dumps(EVIL))[:-3]).problem is not None


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_what_is_unpacked_before_the_damage_counts(pack) -> None:
    # Who reads it in pieces runs the first before the damage shows.
    packed = pack(pickle.dumps([EVIL, random.Random(1).randbytes(40_000)]))

    assert scanned(packed[:20_000] + b"\xff" * 1000 + packed[21_000:]).problem is not None


@pytest.mark.parametrize("end", [b"\x00\x00", b"9\x00"])
def test_a_pickle_that_begins_like_something_compressed_is_one(end: bytes) -> None:
    # `B` puts so many bytes on the stack, and `0` takes them off.
    size = int.from_bytes(b"Zh" + end, "little")
    assert EVIL_NAME in scanned(b"BZh" + end + bytes(size) + b"0" + pickle.dumps(EVIL, 0)).names


@pytest.mark.parametrize("begin", [array_of("<f4"), gzip.compress(b"numbers"), b"BZh9"])
def test_what_begins_as_something_else_and_ends_as_a_zip_is_refused(begin: bytes) -> None:
    assert (
        scanned(begin + zipped({"a/data.pkl": pickle.dumps(1)})).problem
        == "it begins with something else, and ends as a zip"
    )


def test_lzma_is_known_whatever_memory_it_asks_for() -> None:
    alone = lzma.compress(pickle.dumps(EVIL), lzma.FORMAT_ALONE)

    def with_memory(size: int) -> bytes:
        return alone[:1] + size.to_bytes(4, "little") + alone[5:]

    for size in (4096, 5120, 2**20 + 2**19, 2**23):
        assert EVIL_NAME in scanned(with_memory(size)).names
    assert "memory" in (scanned(with_memory(2**30)).problem or "")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_bomb_is_given_up(pack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picklebytes, "UNPACKED_MAX", 1024 * 1024)
    bomb = pack(bytes(4 * 1024 * 1024))

    def padded(size: int) -> bytes:
        """Return a pickle whose argument has `size` bytes."""
        return b"\x80\x04B" + struct.pack("<I", size) + bytes(size) + b"."

    in_zip = zipped({"a/b": padded(4 * 1024 * 1024)}, 8)
    in_two = zipped({name: padded(640 * 1024) for name in ("a", "b")}, 8)

    assert [scanned(each).problem for each in (bomb, in_zip, in_two)] == ["it unpacks to more than 1 MiB"] * 3
    assert scanned(pack(random.Random(1).randbytes(1024 * 1024 + 1))).problem == "it unpacks to more than 1 MiB"
    assert scanned(zipped({"a": padded(640 * 1024)}, 8)).problem is None


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_what_stands_behind_a_long_argument_in_a_zip_is_found(compression: int) -> None:
    size = 3 * picklebytes.BLOCK + 123
    program = b"\x80\x04B" + struct.pack("<I", size) + bytes(size) + b"0" + pickle.dumps(EVIL, 2)[2:]

    assert EVIL_NAME in scanned(zipped({"a/b": program}, compression)).names


def test_a_pickle_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picklewalk, "OPCODES_MAX", 1000)

    assert "1000 steps" in (scanned(b"N0" * 1000).problem or "")


def test_long_arguments_are_skipped_and_not_read() -> None:
    head = b"\x80\x04B" + struct.pack("<I", 2**31)
    file = File(head, len(head) + 2**31 + 1)

    assert not scan(file).is_pickle  # it ends in zeros and not in a STOP
    assert file.read_bytes < 1_000_000


def test_old_tars_are_refused_with_and_without_their_mark() -> None:
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form) as archive:
            info = tarfile.TarInfo("pickle")
            data = pickle.dumps(EVIL)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        assert "tar" in (scanned(out.getvalue()).problem or "")
    # As `tar --format=v7` writes: nothing but a checksum says what it is.
    v7 = bytearray(out.getvalue())
    v7[257:265] = bytes(8)
    v7[148:156] = b" " * 8
    v7[148:156] = b"%06o\0 " % sum(v7[:512])

    with tarfile.open(fileobj=io.BytesIO(bytes(v7))) as archive:
        assert archive.getnames() == ["pickle"]
    assert "tar" in (scanned(bytes(v7)).problem or "")


def test_a_checkpoint_of_the_old_kind_is_walked_as_far_as_it_is_pickles() -> None:
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, collections.OrderedDict(a=1), ["0"]]
    data = b"".join(pickle.dumps(part, 2) for part in parts)

    # What follows are numbers, whatever they look like.
    assert scanned(data + pickle.dumps(EVIL)).names == ("collections.OrderedDict",)
    parts[3] = EVIL
    assert EVIL_NAME in scanned(b"".join(pickle.dumps(part, 2) for part in parts)).names


CALLS = [
    Call(eval, "1"), Call(exec, "1"), Call(__import__, "os"), Call(getattr, "x", "y"), Call(compile, "1", "", "eval"),
    Call(open, "/etc/passwd"), Call(subprocess.Popen, "true"), Call(pickle.loads, b"N."), Call(print, "x"),
    Call(collections.defaultdict, list), Call(io.FileIO, "/etc/passwd"), Call(map, str, "a"), Call(breakpoint),
]  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_what_does_something_is_not_allowed(call: Call) -> None:
    assert forbidden(scanned(pickle.dumps(call)).names)


def test_the_owner_may_allow_more_by_its_whole_name() -> None:
    assert forbidden(["posix.system", "a.b"], ["a.b"]) == ("posix.system",)


def test_a_pickle_under_another_name_is_known_by_its_first_bytes() -> None:
    assert looks_pickled(pickle.dumps(EVIL))
    assert not looks_pickled(b'{"a": 1}')
    assert not looks_pickled(b"")


def test_the_walk_knows_every_opcode() -> None:
    # A new one would be taken for the end of a pickle: what comes after it would not be seen.
    known = {opcode.code for opcode in pickletools.opcodes}
    assert {getattr(pickle, name).decode("latin-1") for name in pickle.__all__
            if name.isupper() and isinstance(getattr(pickle, name), bytes) and len(getattr(pickle, name)) == 1
            } <= known  # fmt: skip
