"""What a pickle would import and call if somebody loaded it (spec/rules.md §4).

A pickle is a program for a small stack machine: its opcodes name functions of Python and
call them. This module walks through the opcodes and runs none of them.

    file ──shape──▶ pickle │ members of a zip │ array after its header │ decompressed ──walk──▶ Scan

Rule: whatever cannot be followed to its end counts as bad. A loader runs what stands before
the place where a pickle breaks; so a broken one is harmless only if it named nothing until then.
"""

from __future__ import annotations

import ast
import bz2
import lzma
import pickletools
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from io import RawIOBase
from typing import IO, TYPE_CHECKING, Any

from .picklenames import NO_PICKLE, Scan

if TYPE_CHECKING:
    from .facts import ReadableFile

OPCODES_MAX = 2_000_000  # of one file; spec/rules.md §4
GLOBALS_MAX = 1000  # different ones of one file; spec/rules.md §4
MEMBERS_MAX = 100_000  # of a zip; spec/rules.md §4
UNPACKED_MAX = 256 * 1024 * 1024  # bytes that are decompressed of one file; spec/rules.md §4
LINE_MAX = 64 * 1024  # bytes of an argument that ends with its line
PROTOCOL_MAX = 15  # beyond it no loader goes on: today's know 5, and some room is for those to come; spec/rules.md §4
NAME_MAX = 1024  # bytes of text that may be the name of something
BLOCK = 64 * 1024  # bytes read at once
ARRAY_HEADER_MAX = 64 * 1024  # bytes

_ZIP, _ZIP_END = b"PK\x03\x04", b"PK\x05\x06"  # how a zip begins, and how its last header does
_ZIP_END_SIZE = 22  # bytes of that header, but for a comment
_ZIP_TAIL = _ZIP_END_SIZE + 65_535  # bytes in which it stands
_ZIP64_SIZE = 56 + 20  # bytes of the headers before it in a large zip
_PROGRAMS = (".py", ".pyc", ".so", ".dll", ".pyd", ".sh", ".exe")  # what no checkpoint needs
_ARRAY = b"\x93NUMPY"
_TORCH = 0x1950A86A20F9469CFC6C  # the first pickle of a checkpoint of PyTorch that is no zip
_TORCH_PICKLES = 5  # in one: magic number, version, system, the object, keys of its storages; then raw bytes


def scan(file: ReadableFile) -> Scan:
    """Return what loading `file` as a pickle would import, by whatever of today's tools. Never raises for its bytes.

    Errors of `file.read` pass through.
    """
    walk = _Walk()
    try:
        _scan(_Window(file), walk)
    except _Unclear as exc:
        return Scan(True, tuple(sorted(walk.names)), str(exc))
    return Scan(walk.found, tuple(sorted(walk.names))) if walk.found else NO_PICKLE


class _Unclear(Exception):
    """It cannot be known what a file does. The text is a sentence for a person."""


class _Broken(Exception):
    """A loader would stop here with an error."""


def _scan(source: _Window, walk: _Walk) -> None:
    head = source.peek(512)
    if _is_tar(head):
        raise _Unclear("it is a tar, as PyTorch wrote before 0.1.10, and its numbers cannot be told from pickles")
    if head.startswith(_ZIP):
        _scan_zip(source, walk)
    elif head.startswith(_ARRAY):
        _scan_array(source, walk)
    elif unpack := _unpacker(head):
        _scan_packed(source, unpack, walk)
    else:
        _check_no_zip(source)
        walk.stream(source)


# ── the shapes that pickles come in ─────────────────────────────────────────


def _is_tar(head: bytes) -> bool:
    """Say whether a file begins with the header of a tar, which in old ones has a checksum and no other mark."""
    try:
        tarfile.TarInfo.frombuf(head, "latin-1", "strict")
    except tarfile.HeaderError:
        return False
    return True


def _check_no_zip(source: _Window) -> None:
    """Raise _Unclear if a file ends like a zip, but does not begin like one: some tools would load it as one."""
    if _ZIP_END in source.read_at(max(0, source.size - _ZIP_TAIL), _ZIP_TAIL):
        raise _Unclear("it begins with something else, and ends as a zip")


def _scan_zip(source: _Window, walk: _Walk) -> None:
    _check_end(source)
    try:
        with zipfile.ZipFile(_Seekable(source)) as archive:
            members = archive.infolist()
            _check_members(members)
            tensors = _tensors_of([member.filename for member in members])
            for member in members:
                if not member.is_dir() and member.filename not in tensors:
                    with archive.open(member) as file:
                        _scan_member(_Member(file, member.file_size, walk), walk)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, struct.error) as exc:
        raise _Unclear(f"it is a zip that cannot be read: {exc}") from exc
    except zlib.error as exc:
        raise _Unclear(f"it is a zip that cannot be unpacked: {exc}") from exc


def _check_end(source: _Window) -> None:
    """Raise _Unclear unless all tools find the same list of files in a zip, right before its end."""
    tail = source.read_at(max(0, source.size - _ZIP_TAIL), _ZIP_TAIL)
    at = tail.rfind(_ZIP_END)
    place = source.size - len(tail) + at
    if at < 0 or len(tail) - at < _ZIP_END_SIZE:
        raise _Unclear("it is a zip that does not end as one")
    disks, list_disk, list_size, list_begin, comment = struct.unpack("<HH4xLLH", tail[at + 4 : at + _ZIP_END_SIZE])
    end = place
    wide = source.read_at(max(0, place - _ZIP64_SIZE), min(place, _ZIP64_SIZE))
    if wide[-20:].startswith(b"PK\x06\x07"):
        # Python looks right before it, and others where it says.
        end = int.from_bytes(wide[-12:-4], "little")
        if not wide.startswith(b"PK\x06\x06") or end != place - _ZIP64_SIZE:
            raise _Unclear("it is a zip of which tools see different files")
        list_size, list_begin = struct.unpack("<QQ", wide[40:56])
    # Python takes what stands right before the end, and PyTorch what stands where it is said to.
    if disks or list_disk or comment != len(tail) - at - _ZIP_END_SIZE or list_begin + list_size != end:
        raise _Unclear("it is a zip of which tools see different files")


def _check_members(members: Sequence[zipfile.ZipInfo]) -> None:
    if len(members) > MEMBERS_MAX:
        raise _Unclear(f"it is a zip of {len(members)} files, the limit is {MEMBERS_MAX}")
    # Python shifts all places by what stands before the zip, and PyTorch does not.
    if not members or min(member.header_offset for member in members) != 0:
        raise _Unclear("it is a zip with something before it")
    if any("/code/" in f"/{member.filename}" for member in members):
        raise _Unclear("it is a program in TorchScript")
    if any(member.filename.lower().endswith(_PROGRAMS) for member in members):
        raise _Unclear("it is an archive with programs")
    if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
        raise _Unclear("it is a zip with a compression that is not looked into")


def _tensors_of(names: Sequence[str]) -> set[str]:
    """Return the members of a checkpoint that hold the numbers of a tensor, which PyTorch does not unpickle."""
    # Of another zip they may be anything.
    folders = {name.removesuffix(".pkl") + "/" for name in names if name.endswith("/data.pkl")}
    split = ((name, *name.rpartition("/")) for name in names)
    return {
        name for name, folder, slash, last in split if folder + slash in folders and last.isascii() and last.isdecimal()
    }


def _scan_member(file: _Member, walk: _Walk) -> None:
    source = _Window(file)
    head = source.peek(512)
    if head.startswith(_ZIP) or _is_tar(head) or _unpacker(head):
        raise _Unclear("it is an archive in an archive")
    if head.startswith(_ARRAY):
        _scan_array(source, walk)
    else:
        walk.stream(source)


def _scan_array(source: _Window, walk: _Walk) -> None:
    """Look at an array of numpy: one of objects is a pickle after its header."""
    prefix = source.read(8)
    wide = len(prefix) == 8 and prefix[6] > 1
    length = int.from_bytes(source.read(4 if wide else 2), "little")
    header = source.read(min(length, ARRAY_HEADER_MAX))
    try:
        kinds = ast.literal_eval(header.decode("latin-1").strip())["descr"]
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as exc:
        raise _Unclear("it is an array of numpy with a header that cannot be read") from exc
    # Whatever has an `O` in its type, at any depth, is taken for objects.
    if len(header) == length and "O" in repr(kinds):
        walk.stream(source)


def _unpacker(head: bytes) -> Callable[[], Any] | None:
    """Return what decompresses a file that begins with `head`, None if it is not compressed."""
    if head.startswith(b"\x1f\x8b"):
        return lambda: zlib.decompressobj(wbits=31)
    if head[:1] == b"\x78" and len(head) > 1 and int.from_bytes(head[:2], "big") % 31 == 0:
        return zlib.decompressobj
    if head.startswith(b"BZh"):
        return bz2.BZ2Decompressor
    if head.startswith((b"\xfd7zXZ\x00", b"\x5d\x00\x00")):
        return lambda: lzma.LZMADecompressor(memlimit=UNPACKED_MAX)
    if head.startswith((b"\x04\x22\x4d\x18", b"\x28\xb5\x2f\xfd")):
        raise _Unclear("it is compressed with LZ4 or Zstandard, which is not looked into")
    return None


def _scan_packed(source: _Window, unpack: Callable[[], Any], walk: _Walk) -> None:
    machine, data = unpack(), bytearray()
    try:
        while not machine.eof and (block := source.read(BLOCK)):
            # A step at a time: a small block can become very much.
            data += machine.decompress(block, BLOCK)
            while not machine.eof and (more := _rest(machine)):
                data += more
                if len(data) > UNPACKED_MAX:
                    raise _Unclear(f"it unpacks to more than {UNPACKED_MAX // 1024 // 1024} MiB")
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as exc:
        if not data:
            return  # it only began like something compressed
        raise _Unclear(f"it is compressed, and cannot be unpacked: {exc}") from exc
    if not machine.eof or source.place < source.size or machine.unused_data:
        raise _Unclear("it is compressed, and does not end where it should")
    inner = _Window(_Bytes(bytes(data)))
    head = inner.peek(512)
    if head.startswith(_ZIP) or _is_tar(head) or _unpacker(head):
        raise _Unclear("it is an archive in an archive")
    walk.stream(inner)


def _rest(machine: Any) -> bytes:
    """Return some of what a decompressor has in store, none if it wants more bytes."""
    if hasattr(machine, "unconsumed_tail"):
        tail = machine.unconsumed_tail
        return bytes(machine.decompress(tail, BLOCK)) if tail else b""
    return b"" if machine.needs_input else bytes(machine.decompress(b"", BLOCK))


# ── the machine ─────────────────────────────────────────────────────────────

# What stands on the stack, as far as it matters: text that may become a name, what was imported, a
# mark, what is certainly no text, or what may be anything.
_MARK, _IMPORTED, _NO_TEXT, _ANYTHING = object(), object(), object(), object()

_OPCODES = {ord(opcode.code): opcode for opcode in pickletools.opcodes}
_LINES_OF = {"GLOBAL": 2, "INST": 2}
# Opcodes that read more than a few bytes, and how their size is written.
_SIZES = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_TEXT = frozenset(("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"))
_OLD_TEXT = frozenset(("UNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING"))
_PUT, _GET = frozenset(("PUT", "BINPUT", "LONG_BINPUT")), frozenset(("GET", "BINGET", "LONG_BINGET"))
_CHANGE = frozenset(("BUILD", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS"))
_EXTENSIONS = frozenset(("EXT1", "EXT2", "EXT4"))


class _Walk:
    """What the pickles of one file name, and how much work they were."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.found = False
        self.steps = 0
        self.unpacked = 0  # bytes

    def stream(self, source: _Window) -> None:
        """Walk through the pickles that stand one after the other. Raises _Unclear."""
        count, most = 0, None
        while source.place < source.size and count != most:
            named = len(self.names)
            machine = _Machine(source, self)
            try:
                machine.run()
            except _Broken as exc:
                if len(self.names) == named:
                    return  # other bytes: what comes after the last pickle, or no pickle at all
                raise _Unclear(f"it names {_shown(self.names)} and then breaks: {exc}") from exc
            # One that names nothing can do nothing, and a few bytes of anything may look like one.
            self.found = self.found or source.place == source.size
            if count == 0 and machine.number == _TORCH:
                most = _TORCH_PICKLES
            count += 1

    def name(self, module: str, name: str) -> None:
        self.found = True
        self.names.add(f"{module}.{name}")
        if len(self.names) > GLOBALS_MAX:
            raise _Unclear(f"it names more than {GLOBALS_MAX} things")

    def step(self) -> None:
        self.steps += 1
        if self.steps > OPCODES_MAX:
            raise _Unclear(f"it has more than {OPCODES_MAX} steps")


class _Machine:
    """One pickle: its stack and memo, as far as they can be known without running it."""

    def __init__(self, source: _Window, walk: _Walk) -> None:
        self._source = source
        self._walk = walk
        self._stack: list[object] = []
        self._memo: dict[int, object] = {}
        self._is_marked = False  # it began as pickles do since protocol 2
        self.number: int | None = None  # that it consists of

    def run(self) -> None:
        """Walk to the end. Raises _Broken, _Unclear."""
        while True:
            self._walk.step()
            code = self._source.read(1)
            opcode = _OPCODES.get(code[0]) if code else None
            if opcode is None:
                raise _Broken("it ends too early" if not code else f"0x{code.hex()} is no step of a pickle")
            if opcode.name == "STOP":
                self._pop(1)
                return
            self._do(opcode, self._argument(opcode))

    def _argument(self, opcode: Any) -> bytes:
        """Return the bytes of an argument; of a long one its beginning alone."""
        if opcode.arg is None:
            return b""
        n = opcode.arg.n
        if n >= 0:
            return self._exactly(n)
        if n == pickletools.UP_TO_NEWLINE:
            return b"\n".join(self._line() for _ in range(_LINES_OF.get(opcode.name, 1)))
        size = int.from_bytes(self._exactly(_SIZES[n]), "little")
        if self._source.place + size > self._source.size:
            raise _Broken("it ends too early")
        data = self._exactly(min(size, NAME_MAX + 1))
        self._source.seek(self._source.place + size - len(data))
        return data

    def _exactly(self, size: int) -> bytes:
        data = self._source.read(size)
        if len(data) < size:
            raise _Broken("it ends too early")
        return data

    def _line(self) -> bytes:
        line = self._source.line(LINE_MAX)
        if not line.endswith(b"\n"):
            raise _Broken("it ends too early") if len(line) < LINE_MAX else _Unclear("it has a line without an end")
        return line[:-1].rstrip(b"\r")

    def _do(self, opcode: Any, argument: bytes) -> None:
        name, stack = opcode.name, self._stack
        if name in _TEXT:
            stack.append(_text(argument))
        elif name in _OLD_TEXT:
            stack.append(_old_text(argument))
        elif name in ("GLOBAL", "INST"):
            if name == "INST":
                self._pop_mark()
            self._import(*(_text(part) for part in argument.split(b"\n", 1)))
            # What INST made is a thing, and what GLOBAL found is what makes things.
            stack.append(_IMPORTED if name == "GLOBAL" else _ANYTHING)
        elif name == "STACK_GLOBAL":
            module, attribute = self._pop(2)
            self._import(module, attribute)
            stack.append(_IMPORTED)
        elif name in _EXTENSIONS:
            # Nothing of today's tools has such numbers. What says that it is a pickle may be meant for one that has.
            if self._is_marked:
                raise _Unclear("it names things by numbers that only its maker knows")
            raise _Broken("it names things by numbers")
        elif name == "PROTO":
            if argument[0] > PROTOCOL_MAX:
                raise _Broken(f"its protocol is {argument[0]}")
            self._is_marked = True
        elif name in _PUT or name == "MEMOIZE":
            self._memo[self._slot(name, argument)] = self._top()
        elif name in _GET:
            # One that was never put would break: going on sees more than a loader does.
            stack.append(self._memo.get(self._slot(name, argument), _ANYTHING))
        elif name == "DUP":
            stack.append(self._top())
        elif name == "MARK":
            stack.append(_MARK)
        else:
            self._move(opcode, argument)

    def _move(self, opcode: Any, argument: bytes) -> None:
        """Take from the stack and put there what a step does that names nothing."""
        if opcode.name == "LONG1" and not self._stack:
            self.number = int.from_bytes(argument, "little")
        if any(item is pickletools.markobject for item in opcode.stack_before):
            self._pop_mark()
            below = opcode.stack_before[: opcode.stack_before.index(pickletools.markobject)]
            kept = self._pop(len(below))
        else:
            kept = self._pop(len(opcode.stack_before))
        if opcode.name in _CHANGE:
            if kept[0] is _IMPORTED:
                raise _Unclear("it changes what it imports")
            self._stack.append(kept[0])
        else:
            made = opcode.stack_after
            self._stack += [_ANYTHING if item is pickletools.anyobject else _NO_TEXT for item in made]

    def _import(self, module: object, name: object) -> None:
        if isinstance(module, str) and isinstance(name, str):
            self._walk.name(module, name)
        elif {module, name} & {_NO_TEXT, _MARK, _IMPORTED}:
            raise _Broken("it names what it imports by no text")
        else:
            raise _Unclear("it puts the name of what it imports together when it runs")

    def _slot(self, name: str, argument: bytes) -> int:
        if name == "MEMOIZE":
            return len(self._memo)
        if name in ("PUT", "GET"):
            try:
                return int(argument)
            except ValueError as exc:
                raise _Broken(f"{argument!r} is no number") from exc
        return int.from_bytes(argument, "little")

    def _top(self) -> object:
        if not self._stack or self._stack[-1] is _MARK:
            raise _Broken("it takes from an empty stack")
        return self._stack[-1]

    def _pop(self, count: int) -> list[object]:
        if len(self._stack) < count:
            raise _Broken("it takes from an empty stack")
        found = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return found

    def _pop_mark(self) -> None:
        while self._stack:
            if self._stack.pop() is _MARK:
                return
        raise _Broken("it takes from an empty stack")


def _text(data: bytes) -> object:
    """Return text that may be a name, or what stands for a text that may be any. Raises _Broken if it is none."""
    if len(data) > NAME_MAX:
        return _ANYTHING
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as exc:
        raise _Broken("its text is none in UTF-8") from exc


def _old_text(data: bytes) -> object:
    """Do the same for the text of Python 2, which is quoted in one of two ways and whose encoding nobody knows."""
    if len(data) > 1 and data[:1] in b"'\"" and data[-1:] == data[:1]:
        data = data[1:-1]
    plain = data.isascii() and b"\\" not in data and len(data) <= NAME_MAX
    return data.decode("ascii") if plain else _ANYTHING


def _shown(names: set[str]) -> str:
    first = sorted(names)[:3]
    return ", ".join(first) + (" and more" if len(names) > 3 else "")


# ── reading ─────────────────────────────────────────────────────────────────


class _Bytes:
    """Bytes in memory, as a file."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]


class _Member:
    """A file in a zip, which is read forwards only, and no more of it than may be unpacked."""

    def __init__(self, file: IO[bytes], size: int, walk: _Walk) -> None:
        self._file = file
        self._walk = walk
        self._place = 0
        self.size = size

    def read(self, offset: int, size: int) -> bytes:
        assert offset >= self._place
        while self._place < offset and self._take(min(BLOCK, offset - self._place)):
            pass
        return self._take(size)

    def _take(self, size: int) -> bytes:
        self._walk.unpacked += size
        if self._walk.unpacked > UNPACKED_MAX:
            raise _Unclear(f"more than {UNPACKED_MAX // 1024 // 1024} MiB of it would have to be unpacked")
        data = self._file.read(size)
        self._place += len(data)
        return data


class _Window:
    """A file that is read from a place on, a block at a time."""

    def __init__(self, file: ReadableFile) -> None:
        self._file = file
        self._block = b""
        self._begin = 0  # of the block
        self.size = file.size
        self.place = 0

    def seek(self, place: int) -> None:
        self.place = place

    def peek(self, size: int) -> bytes:
        return self.read_at(self.place, size)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return what stands at `offset`, less than `size` bytes at the end of the file."""
        end, known = min(self.size, offset + size), self._begin + len(self._block)
        if not self._begin <= offset <= known:
            self._begin, self._block, known = offset, b"", offset
        if end > known:
            # What is known already is not read again: some files can only be read forwards.
            rest = self._block[offset - self._begin :]
            more = self._pieces(known, min(self.size, max(end, offset + BLOCK)))
            self._begin, self._block = offset, b"".join((rest, *more))
        return self._block[offset - self._begin : end - self._begin]

    def _pieces(self, offset: int, end: int) -> Iterator[bytes]:
        while offset < end and (data := self._file.read(offset, end - offset)):
            yield data
            offset += len(data)

    def read(self, size: int) -> bytes:
        data = self.read_at(self.place, size)
        self.place += len(data)
        return data

    def line(self, size_max: int) -> bytes:
        """Return what comes up to the end of the line, or `size_max` bytes of it."""
        data = self.read_at(self.place, size_max)
        end = data.find(b"\n")
        line = data[: end + 1] if end >= 0 else data
        self.place += len(line)
        return line


class _Seekable(RawIOBase):
    """A file as zipfile reads it."""

    def __init__(self, source: _Window) -> None:
        self._source = source
        self._place = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = max(0, offset + (0, self._place, self._source.size)[whence])
        return self._place

    def read(self, size: int = -1) -> bytes:
        left = self._source.size - self._place
        wanted = left if size < 0 else min(size, left)
        if wanted > UNPACKED_MAX:
            raise _Unclear(f"its list of files has more than {UNPACKED_MAX // 1024 // 1024} MiB")
        data = self._source.read_at(self._place, wanted)
        self._place += len(data)
        return data
