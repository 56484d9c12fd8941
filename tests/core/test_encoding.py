from __future__ import annotations

import datetime
import decimal
import fractions
import inspect
import ipaddress
import pkgutil
import re
import subprocess
import sys
import uuid
from importlib import import_module
from typing import Annotated, Literal, get_args, get_type_hints

import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

import p2phub.core
import p2phub.protocol
from p2phub.core import encoding
from p2phub.core.encoding import DEPTH_MAX
from p2phub.core.errors import InvalidData, InvalidEncoding
from p2phub.core.ids import ContentId, LogId, NodeId, PublicKey

SIZE_MAX = 4096


class Inner(Struct, frozen=True, forbid_unknown_fields=True):
    root: ContentId
    flag: bool


class Sample(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    number: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
    text: Annotated[str, Meta(max_length=100)] = ""
    data: Annotated[bytes, Meta(max_length=300)] = b""
    inner: Inner | None = None
    held: tuple[bool | bytes, ...] = ()
    log: LogId | None = None


class Keyed(Struct, frozen=True, forbid_unknown_fields=True):
    key: PublicKey


class Nested(Struct, frozen=True, forbid_unknown_fields=True):
    a: list  # type: ignore[type-arg]


class Cat(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="cat"):
    lives: int


class Dog(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="dog"):
    name: str


hashes = st.binary(min_size=32, max_size=32)
samples = st.builds(
    Sample,
    number=st.integers(-(2**63), 2**63 - 1),
    text=st.text(max_size=100),
    data=st.binary(max_size=300),
    inner=st.none() | st.builds(Inner, root=hashes.map(ContentId), flag=st.booleans()),
    held=st.lists(st.booleans() | st.binary(max_size=40), max_size=5).map(tuple),
    log=st.none() | hashes.map(LogId),
)


def decode(data: bytes) -> Sample:
    return encoding.decode(data, Sample, size_max=SIZE_MAX)


@given(samples)
def test_what_is_encoded_decodes_to_the_same_value(sample: Sample) -> None:
    assert decode(encoding.encode(sample)) == sample


@given(samples)
def test_ids_keep_their_class(sample: Sample) -> None:
    back = decode(encoding.encode(sample))

    assert back.log is None or type(back.log) is LogId
    assert back.inner is None or type(back.inner.root) is ContentId


def _reference(value: object) -> bytes:
    """Return the encoding of `value` by RFC 8949 §4.2.1, written without cbor2."""

    def head(major: int, number: int) -> bytes:
        if number < 24:
            return bytes([major << 5 | number])
        size = next(size for size in (1, 2, 4, 8) if number < 1 << 8 * size)
        return bytes([major << 5 | 24 + size.bit_length() - 1]) + number.to_bytes(size, "big")

    match value:
        case None:
            return b"\xf6"
        case bool():
            return b"\xf5" if value else b"\xf4"
        case int():
            return head(0, value) if value >= 0 else head(1, -1 - value)
        case bytes():
            return head(2, len(value)) + value
        case str():
            return head(3, len(value.encode())) + value.encode()
        case tuple():
            return head(4, len(value)) + b"".join(_reference(item) for item in value)
        case Struct():
            items = {
                _reference(name): _reference(getattr(value, name))
                for name, field in zip(value.__struct_fields__, msgspec.structs.fields(value), strict=True)
                if not (value.__struct_config__.omit_defaults and getattr(value, name) == field.default)
            }
            return head(5, len(items)) + b"".join(key + items[key] for key in sorted(items))
    raise AssertionError(value)


@given(samples)
def test_the_encoding_is_that_of_rfc_8949_written_anew(sample: Sample) -> None:
    assert encoding.encode(sample) == _reference(sample)


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_refused_as_invalid_encoding(data: bytes) -> None:
    try:
        sample = decode(data)
    except InvalidEncoding:
        return
    assert encoding.encode(sample) == data


@given(samples, st.data())
def test_a_changed_byte_gives_another_value_or_none(sample: Sample, data: st.DataObject) -> None:
    encoded = bytearray(encoding.encode(sample))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))

    try:
        changed = decode(bytes(encoded))
    except InvalidEncoding:
        return
    assert changed != sample


@given(samples, st.binary(min_size=1, max_size=5))
def test_trailing_bytes_are_refused(sample: Sample, junk: bytes) -> None:
    with pytest.raises(InvalidEncoding):
        decode(encoding.encode(sample) + junk)


@given(samples)
def test_a_shortened_value_is_refused(sample: Sample) -> None:
    encoded = encoding.encode(sample)

    for size in range(len(encoded)):
        with pytest.raises(InvalidEncoding):
            decode(encoded[:size])


def test_the_size_is_checked_before_anything_is_read() -> None:
    data = encoding.encode(Sample(7))

    assert encoding.decode(data, Sample, size_max=len(data)) == Sample(7)
    with pytest.raises(InvalidEncoding, match=f"{len(data)} bytes, the limit is {len(data) - 1}"):
        encoding.decode(data, Sample, size_max=len(data) - 1)


# `number` is 0x66 6e 75 6d 62 65 72, `text` is 0x64 74 65 78 74.
NUMBER, TEXT, DATA = b"\x66number", b"\x64text", b"\x64data"

REFUSED = {
    "a key that stands twice": b"\xa2" + NUMBER + b"\x05" + NUMBER + b"\x05",
    "keys that are not sorted": b"\xa2" + NUMBER + b"\x05" + TEXT + b"\x61a",
    "a map of indefinite length": b"\xbf" + NUMBER + b"\x05\xff",
    "text of indefinite length": b"\xa2" + TEXT + b"\x7f\x61a\xff" + NUMBER + b"\x05",
    "bytes of indefinite length": b"\xa2" + DATA + b"\x5f\x41a\xff" + NUMBER + b"\x05",
    "a list of indefinite length": b"\xa2\x64held\x9f\xf5\xff" + NUMBER + b"\x05",
    "an integer in 2 bytes that fits in 1": b"\xa1" + NUMBER + b"\x18\x05",
    "an integer in 3 bytes that fits in 2": b"\xa1" + NUMBER + b"\x19\x00\x80",
    "an integer in 9 bytes that fits in 5": b"\xa1" + NUMBER + b"\x1b\x00\x00\x00\x00\xff\xff\xff\xff",
    "a length in 2 bytes that fits in 1": b"\xa2" + TEXT + b"\x78\x01a" + NUMBER + b"\x05",
    "a map's length in 2 bytes that fits in 1": b"\xb8\x01" + NUMBER + b"\x05",
    "a whole number as float": b"\xa1" + NUMBER + cbor2.dumps(5.0),
    "a half-precision float": b"\xa1" + NUMBER + b"\xf9\x45\x00",
    "a float that is no number": b"\xa1" + NUMBER + cbor2.dumps(float("nan")),
    "undefined": b"\xa1" + NUMBER + b"\xf7",
    "another simple value": b"\xa1" + NUMBER + b"\xf8\x64",
    "true as an integer": b"\xa1" + NUMBER + b"\xf5",
    "text as an integer": b"\xa1" + NUMBER + b"\x615",
    "null as an integer": b"\xa1" + NUMBER + b"\xf6",
    "an integer over the limit": b"\xa1" + NUMBER + b"\x1b\x80" + bytes(7),
    "an integer below the limit": b"\xa1" + NUMBER + b"\x3b\x80" + bytes(7),
    "base64 text as bytes": b"\xa2" + DATA + b"\x64YQ==" + NUMBER + b"\x05",
    "bytes as text": b"\xa2" + TEXT + b"\x41a" + NUMBER + b"\x05",
    "text that is not UTF-8": b"\xa2" + TEXT + b"\x61\xff" + NUMBER + b"\x05",
    "text with half a surrogate pair": b"\xa2" + TEXT + b"\x63\xed\xa0\x80" + NUMBER + b"\x05",
    "an unknown field": b"\xa2" + NUMBER + b"\x05\x67unknown\x05",
    "a missing field": b"\xa1" + TEXT + b"\x61a",
    "a default that is written out": b"\xa2" + TEXT + b"\x60" + NUMBER + b"\x05",
    "a default of None that is written out": b"\xa2\x65inner\xf6" + NUMBER + b"\x05",
    "a list instead of a map": b"\x81\x05",
    "an integer as key": b"\xa1\x01\x05",
    "bytes as key": b"\xa1\x46number\x05",
    "a list as key": b"\xa1\x80\x05",
    "an id of 31 bytes": b"\xa2\x63log\x58\x1f" + bytes(31) + NUMBER + b"\x05",
    "an id as text": b"\xa2\x63log\x78\x34" + b"a" * 52 + NUMBER + b"\x05",
    "a huge length": b"\x5b" + b"\xff" * 8,
    "a huge list": b"\x9b" + b"\xff" * 8,
    "a huge map": b"\xbb" + b"\xff" * 8,
    "a reserved head": b"\x1c",
    "a lone break": b"\xff",
    "nothing": b"",
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_refuses(what: str) -> None:
    with pytest.raises(InvalidEncoding):
        decode(REFUSED[what])


def test_the_refused_differ_from_an_accepted_one_in_what_they_name_alone() -> None:
    assert decode(b"\xa1" + NUMBER + b"\x05") == Sample(5)
    assert decode(b"\xa2" + TEXT + b"\x61a" + NUMBER + b"\x05") == Sample(5, "a")
    assert decode(b"\xa2" + DATA + b"\x41a" + NUMBER + b"\x05") == Sample(5, "", b"a")
    assert decode(b"\xa2\x64held\x81\xf5" + NUMBER + b"\x05") == Sample(5, held=(True,))
    assert decode(b"\xa2\x63log\x58\x20" + bytes(32) + NUMBER + b"\x05") == Sample(5, log=LogId(bytes(32)))


TAGGED = [
    datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    datetime.date(2026, 1, 1),
    2**70,
    -(2**70),
    decimal.Decimal("1.5"),
    fractions.Fraction(1, 3),
    re.compile("(a+)+b"),
    uuid.UUID(int=1),
    ipaddress.ip_address("::1"),
    ipaddress.ip_network("10.0.0.0/8"),
    {1, 2},
    complex(1, 2),
]


@pytest.mark.parametrize("value", TAGGED, ids=repr)
def test_what_cbor2_would_build_from_a_tag_is_refused(value: object) -> None:
    for tagged in (cbor2.dumps(value), b"\xa1" + NUMBER + cbor2.dumps(value)):
        with pytest.raises(InvalidEncoding):
            decode(tagged)


def test_values_shared_by_reference_are_refused() -> None:
    cyclic: list[object] = []
    cyclic.append(cyclic)

    for data in (cbor2.dumps(cyclic, value_sharing=True), cbor2.dumps({"a": cyclic}, value_sharing=True)):
        for type_ in (Sample, Nested):
            with pytest.raises(InvalidEncoding, match="tags are not allowed"):
                encoding.decode(data, type_, size_max=SIZE_MAX)


def test_strings_by_reference_are_refused() -> None:
    data = cbor2.dumps({"a": ["long enough"] * 3}, string_referencing=True)

    with pytest.raises(InvalidEncoding, match="tags are not allowed"):
        encoding.decode(data, Nested, size_max=SIZE_MAX)


@given(
    tag=st.integers(0, 300) | st.integers(0, 2**64 - 1) | st.sampled_from([1004, 43000, 55799]),
    value=st.sampled_from([0, "", b"", None, True, [], [1, 2], [4, "a"], {}, "2026-01-01", b"\x7f\0\0\1"]),
)
def test_no_tag_is_accepted_on_anything(tag: int, value: object) -> None:
    tagged = b"\xa1\x61a\x81" + cbor2.dumps(cbor2.CBORTag(tag, value))

    with pytest.raises(InvalidEncoding):
        encoding.decode(tagged, Nested, size_max=SIZE_MAX)


@pytest.mark.parametrize("head", [b"\x81", b"\xa1\x61a", b"\xc1", b"\xd8\x1c", b"\xd9\x01\x00", b"\xd9\xd9\xf7"])
def test_a_million_nested_things_are_refused(head: bytes) -> None:
    with pytest.raises(InvalidEncoding):
        encoding.decode(head * 1_000_000, Nested, size_max=10**7)


def test_containers_nest_as_deep_as_the_limit() -> None:
    # The map itself is the first.
    def nested(depth: int) -> bytes:
        return b"\xa1\x61a" + b"\x81" * (depth - 1) + b"\x05"

    encoding.decode(nested(DEPTH_MAX), Nested, size_max=SIZE_MAX)
    with pytest.raises(InvalidEncoding, match="depth"):
        encoding.decode(nested(DEPTH_MAX + 1), Nested, size_max=SIZE_MAX)


def test_a_union_is_told_apart_by_its_type() -> None:
    for value in (Cat(9), Dog("Rex")):
        data = encoding.encode(value)

        assert encoding.decode(data, Cat | Dog, size_max=SIZE_MAX) == value  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value", [{"lives": 9}, {"type": "cow"}, {"type": 1}, {"type": "dog", "lives": 9}, {"type": None, "lives": 9}]
)
def test_a_member_that_is_not_of_the_union_is_refused(value: object) -> None:
    with pytest.raises(InvalidEncoding, match="Cat or Dog"):
        encoding.decode(cbor2.dumps(value, canonical=True), Cat | Dog, size_max=SIZE_MAX)  # type: ignore[arg-type]


def test_an_error_names_the_type_and_the_place() -> None:
    with pytest.raises(InvalidEncoding, match=r"not of type Sample: .*number"):
        decode(REFUSED["text as an integer"])


@pytest.mark.parametrize(
    "key",
    [
        bytes(32),  # y = 0, order 4
        b"\x01" + bytes(31),  # the identity
        b"\x01" + bytes(30) + b"\x80",  # the identity, with a sign
        (2**255 - 20).to_bytes(32, "little"),  # y = -1, order 2
        (2**255 - 19).to_bytes(32, "little"),  # y = 0, not reduced
        b"\xff" * 32,
        b"\x02" + bytes(31),  # not on the curve
    ],
    ids=bytes.hex,
)
def test_a_public_key_that_must_not_be_used_is_refused(key: bytes) -> None:
    with pytest.raises(InvalidEncoding, match="public key"):
        encoding.decode(cbor2.dumps({"key": key}), Keyed, size_max=SIZE_MAX)


def test_a_sound_public_key_is_accepted() -> None:
    key = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")  # RFC 8032 §7.1

    assert encoding.decode(cbor2.dumps({"key": key}), Keyed, size_max=SIZE_MAX) == Keyed(PublicKey(key))


def _wire_structs() -> list[type[Struct]]:
    structs = {}
    for package in (p2phub.core, p2phub.protocol):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            for member in vars(import_module(module.name)).values():
                if inspect.isclass(member) and issubclass(member, Struct) and member is not Struct:
                    structs[member] = member
    return [struct for struct in structs if struct.__struct_config__.forbid_unknown_fields]


@pytest.mark.parametrize("struct", _wire_structs(), ids=lambda struct: struct.__name__)
def test_every_default_that_is_left_out_is_a_singleton(struct: type[Struct]) -> None:
    # msgspec leaves out what *is* the default, not what equals it. So a default of which
    # two copies can exist would give one value two encodings.
    singletons = (None, True, False, "", b"", (), *range(-5, 257))

    for field in msgspec.structs.fields(struct):
        if struct.__struct_config__.omit_defaults and field.default is not msgspec.NODEFAULT:
            assert any(field.default is singleton for singleton in singletons), field.name


@pytest.mark.parametrize("struct", _wire_structs(), ids=lambda struct: struct.__name__)
def test_every_pattern_ends_at_the_end_of_the_text(struct: type[Struct]) -> None:
    # `$` also matches before a last newline.
    for name, hint in get_type_hints(struct, include_extras=True).items():
        for meta in _metas(hint):
            if meta.pattern is not None:
                assert meta.pattern.startswith(r"\A"), name
                assert meta.pattern.endswith(r"\Z"), name


def _metas(hint: object) -> list[Meta]:
    return [meta for part in get_args(hint) for meta in ([part] if isinstance(part, Meta) else _metas(part))]


def test_floats_are_no_field_of_anything() -> None:
    for struct in _wire_structs():
        # What a file tells and what is asked of the own node is signed by nobody.
        if struct.__module__.startswith("p2phub.core") and struct.__name__ not in ("GgufHeader", "MetricBound"):
            for hint in get_type_hints(struct).values():
                assert float not in _leaves(hint), struct


def _leaves(hint: object) -> set[object]:
    if hint is Literal:
        return set()
    args = get_args(hint)
    return set().union(*(_leaves(arg) for arg in args)) if args else {hint}


def test_node_ids_are_checked_like_the_keys_they_are() -> None:
    class Node(Struct, frozen=True):
        node: NodeId

    with pytest.raises(InvalidEncoding):
        encoding.decode(cbor2.dumps({"node": bytes(32)}), Node, size_max=SIZE_MAX)


def test_invalid_encoding_is_invalid_data() -> None:
    assert issubclass(InvalidEncoding, InvalidData)


_RACE = """
import sys, threading
from collections.abc import Callable
import msgspec
from msgspec import Struct
from p2phub.core.encoding import prepare_types

class InMemory(Struct):
    x: "OnlyForTheTypeChecker"

class WithFunction(Struct):
    x: int | Callable[[], int]

def work():
    go.wait()
    for Outer in outers:
        msgspec.convert({"a": [{"x": 1}], "b": {"x": 2}}, Outer)

outers = []
for number in range(300):
    Inner = type("Inner", (Struct,), {"__annotations__": {"x": int, "y": "int | None"}, "y": None})
    outers.append(type("Outer", (Struct,), {"__annotations__": {"a": list[Inner], "b": Inner}}))
prepare_types()
sys.setswitchinterval(1e-6)
go = threading.Barrier(4)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_threads_may_use_types_for_the_first_time_at_once() -> None:
    # In a process of its own, which a segmentation fault would end.
    assert subprocess.run([sys.executable, "-c", _RACE], check=False).returncode == 0
