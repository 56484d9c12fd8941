"""What a pickle would import and call if somebody loaded it (spec/rules.md §4).

Pickles come in several shapes, and each is looked into as today's tools load it:

    file ──shape──▶ pickle │ members of a zip │ array after its header │ decompressed ──Walk──▶ Scan

Rule: whatever cannot be followed to its end counts as bad. A loader runs what stands before
the place where a pickle breaks; so a broken one is harmless only if it named nothing until then.
"""

from __future__ import annotations

import ast
import bz2
import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .picklebytes import BLOCK, UNPACKED_MAX, Bytes, Member, Seekable, Unclear, Unpacked, Window
from .picklenames import NO_PICKLE, Scan
from .picklewalk import Walk

if TYPE_CHECKING:
    from .facts import ReadableFile

MEMBERS_MAX = 100_000  # of a zip; spec/rules.md §4
ARRAY_HEADER_MAX = 64 * 1024  # bytes

_ZIP, _ZIP_END = b"PK\x03\x04", b"PK\x05\x06"  # how a zip begins, and how its last header does
_ZIP_END_SIZE = 22  # bytes of that header, but for a comment
_ZIP_TAIL = _ZIP_END_SIZE + 65_535  # bytes in which it stands
_ZIP64_SIZE = 56 + 20  # bytes of the headers before it in a large zip
_PROGRAMS = (".py", ".pyc", ".so", ".dll", ".pyd", ".sh", ".exe")  # what no checkpoint needs
_ARRAY = b"\x93NUMPY"
_NUMBERS = re.compile(r"[<>=|]?[?biufcSUVmM]\d*(\[\w+\])?")  # types of numpy that hold no objects, as it writes them


def scan(file: ReadableFile) -> Scan:
    """Return what loading `file` as a pickle would import, by whatever of today's tools. Never raises for its bytes.

    Errors of `file.read` pass through.
    """
    walk = Walk()
    try:
        _scan(Window(file), walk)
    except Unclear as exc:
        return Scan(True, tuple(sorted(walk.names)), str(exc))
    return Scan(walk.found, tuple(sorted(walk.names))) if walk.found else NO_PICKLE


def _scan(source: Window, walk: Walk) -> None:
    head = source.peek(512)
    if _is_tar(head):
        raise Unclear("it is a tar, as PyTorch wrote before 0.1.10, and its numbers cannot be told from pickles")
    if head.startswith(_ZIP):
        _scan_zip(source, walk)
        return
    _check_no_zip(source)
    if head.startswith(_ARRAY):
        _scan_array(source, walk)
    elif unpack := _unpacker(head):
        _scan_packed(source, unpack, walk)
    else:
        walk.stream(source)


# ── the shapes that pickles come in ─────────────────────────────────────────


def _is_tar(head: bytes) -> bool:
    """Say whether a file begins with the header of a tar, which in old ones has a checksum and no other mark."""
    try:
        tarfile.TarInfo.frombuf(head, "latin-1", "strict")
    except tarfile.HeaderError:
        return False
    return True


def _check_no_zip(source: Window) -> None:
    """Raise Unclear if a file ends like a zip, but does not begin like one: some tools would load it as one."""
    if _ZIP_END in source.read_at(max(0, source.size - _ZIP_TAIL), _ZIP_TAIL):
        raise Unclear("it begins with something else, and ends as a zip")


def _scan_zip(source: Window, walk: Walk) -> None:
    _check_end(source)
    try:
        with zipfile.ZipFile(Seekable(source)) as archive:
            members = archive.infolist()
            _check_members(members)
            tensors = _tensors_of([member.filename for member in members])
            unpacked = Unpacked()
            for member in members:
                if not member.is_dir() and member.filename not in tensors:
                    with archive.open(member) as file:
                        _scan_member(Member(file, member.file_size, unpacked), walk)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, struct.error) as exc:
        raise Unclear(f"it is a zip that cannot be read: {exc}") from exc
    except zlib.error as exc:
        raise Unclear(f"it is a zip that cannot be unpacked: {exc}") from exc


def _check_end(source: Window) -> None:
    """Raise Unclear unless all tools find the same list of files in a zip, right before its end."""
    tail = source.read_at(max(0, source.size - _ZIP_TAIL), _ZIP_TAIL)
    at = tail.rfind(_ZIP_END)
    place = source.size - len(tail) + at
    if at < 0 or len(tail) - at < _ZIP_END_SIZE:
        raise Unclear("it is a zip that does not end as one")
    disks, list_disk, list_size, list_begin, comment = struct.unpack("<HH4xLLH", tail[at + 4 : at + _ZIP_END_SIZE])
    end = place
    small = list_size, list_begin
    wide = source.read_at(max(0, place - _ZIP64_SIZE), min(place, _ZIP64_SIZE))
    if wide[-20:].startswith(b"PK\x06\x07"):
        # Python looks right before it, and others where it says.
        end = int.from_bytes(wide[-12:-4], "little")
        if not wide.startswith(b"PK\x06\x06") or end != place - _ZIP64_SIZE:
            raise Unclear("it is a zip of which tools see different files")
        list_size, list_begin = struct.unpack("<QQ", wide[40:56])
        # Some look there only for what the small header does not say.
        if any(said not in (meant, 0xFFFFFFFF) for said, meant in zip(small, (list_size, list_begin), strict=True)):
            raise Unclear("it is a zip of which tools see different files")
    # Python takes what stands right before the end, and PyTorch what stands where it is said to.
    if disks or list_disk or comment != len(tail) - at - _ZIP_END_SIZE or list_begin + list_size != end:
        raise Unclear("it is a zip of which tools see different files")


def _check_members(members: Sequence[zipfile.ZipInfo]) -> None:
    if len(members) > MEMBERS_MAX:
        raise Unclear(f"it is a zip of {len(members)} files, the limit is {MEMBERS_MAX}")
    # Python shifts all places by what stands before the zip, and PyTorch does not.
    if not members or min(member.header_offset for member in members) != 0:
        raise Unclear("it is a zip with something before it")
    if any("/code/" in f"/{member.filename}" for member in members):
        raise Unclear("it is a program in TorchScript")
    if any(member.filename.lower().endswith(_PROGRAMS) for member in members):
        raise Unclear("it is an archive with programs")
    if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
        raise Unclear("it is a zip with a compression that is not looked into")


def _tensors_of(names: Sequence[str]) -> set[str]:
    """Return the members of a checkpoint that hold the numbers of a tensor, which PyTorch does not unpickle."""
    # Of another zip they may be anything.
    folders = {name.removesuffix(".pkl") + "/" for name in names if name.endswith("/data.pkl")}
    split = ((name, *name.rpartition("/")) for name in names)
    return {
        name for name, folder, slash, last in split if folder + slash in folders and last.isascii() and last.isdecimal()
    }


def _scan_member(file: Member, walk: Walk) -> None:
    source = Window(file)
    head = source.peek(512)
    if head.startswith(_ZIP) or _is_tar(head) or _unpacker(head):
        raise Unclear("it is an archive in an archive")
    if head.startswith(_ARRAY):
        _scan_array(source, walk)
    else:
        walk.stream(source)


def _scan_array(source: Window, walk: Walk) -> None:
    """Look at an array of numpy: one of objects is a pickle after its header."""
    prefix = source.read(8)
    wide = len(prefix) == 8 and prefix[6] > 1
    length = int.from_bytes(source.read(4 if wide else 2), "little")
    if length > ARRAY_HEADER_MAX:
        raise Unclear(f"it is an array of numpy with a header of {length} bytes")
    header = source.read(length)
    try:
        kinds = ast.literal_eval(header.decode("latin-1").strip())["descr"]
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as exc:
        raise Unclear("it is an array of numpy with a header that cannot be read") from exc
    # Objects have more names than one, and numpy gets new types that come as pickles, too.
    if not _is_numbers(kinds):
        walk.stream(source)


def _is_numbers(kind: object) -> bool:
    """Say whether a type of numpy, as a header has it, certainly holds no objects."""
    match kind:
        case str():
            return _NUMBERS.fullmatch(kind) is not None
        case (inner, _) if isinstance(kind, tuple):
            return _is_numbers(inner)
        case list():
            return all(isinstance(field, tuple) and len(field) in (2, 3) and _is_numbers(field[1]) for field in kind)
        case _:
            return False


def _unpacker(head: bytes) -> Callable[[], Any] | None:
    """Return what decompresses a file that begins with `head`, None if it is not compressed."""
    if head.startswith(b"\x1f\x8b"):
        return lambda: zlib.decompressobj(wbits=31)
    if head[:1] == b"\x78" and len(head) > 1 and int.from_bytes(head[:2], "big") % 31 == 0:
        return zlib.decompressobj
    if head.startswith(b"BZh"):
        return bz2.BZ2Decompressor
    if head.startswith(b"\xfd7zXZ\x00"):
        return lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=UNPACKED_MAX)
    if head.startswith(b"\x5d\x00"):
        # Not as whatever it is: by that, a dictionary of an unusual size is none.
        return lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=UNPACKED_MAX)
    if head.startswith((b"\x04\x22\x4d\x18", b"\x28\xb5\x2f\xfd")):
        raise Unclear("it is compressed with LZ4 or Zstandard, which is not looked into")
    return None


def _scan_packed(source: Window, unpack: Callable[[], Any], walk: Walk) -> None:
    machine, data, unpacked = unpack(), bytearray(), Unpacked()
    try:
        while not machine.eof and (block := source.read(BLOCK)):
            # A step at a time: a small block can become very much. And a step that fails gives nothing of what it
            # unpacked before: so the first is a byte, which tells whether there is anything.
            piece = machine.decompress(block, BLOCK if data else 1)
            while piece:
                unpacked.count(len(piece))
                data += piece
                piece = b"" if machine.eof else _rest(machine)
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as exc:
        if not data and "limit" not in str(exc):
            # It only began like something compressed, as a pickle may: `B` is one of its steps.
            source.seek(0)
            walk.stream(source)
            return
        raise Unclear(f"it is compressed, and cannot be unpacked: {str(exc).lower()}") from exc
    if not machine.eof or source.place < source.size or machine.unused_data:
        raise Unclear("it is compressed, and does not end where it should")
    inner = Window(Bytes(bytes(data)))
    head = inner.peek(512)
    if head.startswith(_ZIP) or _is_tar(head) or _unpacker(head):
        raise Unclear("it is an archive in an archive")
    walk.stream(inner)


def _rest(machine: Any) -> bytes:
    """Return some of what a decompressor has in store, none if it wants more bytes."""
    if hasattr(machine, "unconsumed_tail"):
        tail = machine.unconsumed_tail
        return bytes(machine.decompress(tail, BLOCK)) if tail else b""
    return b"" if machine.needs_input else bytes(machine.decompress(b"", BLOCK))
