"""Walk through the steps of pickles and run none of them (spec/rules.md §4).

    steps ──▶ stack and memo, as far as they can be known ──▶ what they name

A pickle is a program for a small stack machine: its opcodes name functions of Python and call them. In which files
pickles stand is for `pickles` to know.
"""

from __future__ import annotations

import pickletools
from typing import Any

from .picklebytes import Unclear, Window

OPCODES_MAX = 2_000_000  # of one file; spec/rules.md §4
GLOBALS_MAX = 1000  # different ones of one file; spec/rules.md §4
LINE_MAX = 64 * 1024  # bytes of an argument that ends with its line
PROTOCOL_MAX = 15  # beyond it no loader goes on: today's know 5, and some room is for those to come; spec/rules.md §4
NAME_MAX = 1024  # bytes of text that may be the name of something

_TORCH = 0x1950A86A20F9469CFC6C  # the first pickle of a checkpoint of PyTorch that is no zip
_TORCH_PICKLES = 5  # in one: magic number, version, system, the object, keys of its storages; then raw bytes

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


class _Broken(Exception):
    """A loader would stop here with an error."""


class Walk:
    """What the pickles of one file name, and how much work they were."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.found = False
        self.steps = 0

    def stream(self, source: Window) -> None:
        """Walk through the pickles that stand one after the other. Raises Unclear."""
        count, most = 0, None
        while source.place < source.size and count != most:
            named = len(self.names)
            machine = _Machine(source, self)
            try:
                machine.run()
            except _Broken as exc:
                if len(self.names) == named:
                    return  # other bytes: what comes after the last pickle, or no pickle at all
                raise Unclear(f"it names {_shown(self.names)} and then breaks: {exc}") from exc
            # One that names nothing can do nothing, and a few bytes of anything may look like one.
            self.found = self.found or source.place == source.size
            if count == 0 and machine.number == _TORCH:
                most = _TORCH_PICKLES
            count += 1

    def name(self, module: str, name: str) -> None:
        self.found = True
        self.names.add(f"{module}.{name}")
        if len(self.names) > GLOBALS_MAX:
            raise Unclear(f"it names more than {GLOBALS_MAX} things")

    def step(self) -> None:
        self.steps += 1
        if self.steps > OPCODES_MAX:
            raise Unclear(f"it has more than {OPCODES_MAX} steps")


class _Machine:
    """One pickle: its stack and memo, as far as they can be known without running it."""

    def __init__(self, source: Window, walk: Walk) -> None:
        self._source = source
        self._walk = walk
        self._stack: list[object] = []
        self._memo: dict[int, object] = {}
        self._is_marked = False  # it began as pickles do since protocol 2
        self.number: int | None = None  # that it consists of

    def run(self) -> None:
        """Walk to the end. Raises _Broken, Unclear."""
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
            raise _Broken("it ends too early") if len(line) < LINE_MAX else Unclear("it has a line without an end")
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
                raise Unclear("it names things by numbers that only its maker knows")
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
                raise Unclear("it changes what it imports")
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
            raise Unclear("it puts the name of what it imports together when it runs")

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
