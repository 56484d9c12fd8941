from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from p2phub.core.errors import InvalidData
from p2phub.core.ids import LogId, ManifestId, NamespaceId
from p2phub.core.locked import NAMES_MAX, Locked
from p2phub.core.lockfile import FILE_SIZE_MAX, decode_lock, encode_lock


@st.composite
def locked(draw: st.DrawFn) -> Locked:
    name = draw(st.from_regex(r"\A[a-z]{1,9}(\.example)?/[A-Za-z]{1,9}(@[0-9]\.[0-9])?\Z"))
    identifiers = [draw(st.binary(min_size=32, max_size=32)) for _ in range(3)]
    place = draw(st.none() | st.integers(0, 2**53))
    return Locked(
        name,
        draw(st.sampled_from(["model", "dataset"])),
        str(NamespaceId(identifiers[0])),
        str(ManifestId(identifiers[1])),
        None if place is None else str(LogId(identifiers[2])),
        place,
    )


@given(st.lists(locked(), max_size=5, unique_by=lambda each: each.name), st.randoms())
def test_a_lock_is_read_as_it_was_written_in_whatever_order(entries: list[Locked], rng) -> None:
    data = encode_lock(entries)
    found = decode_lock(data)
    rng.shuffle(entries)

    assert found == sorted(entries, key=lambda each: each.name)
    assert encode_lock(entries) == data


@given(st.binary(max_size=200))
@example(b"[" * FILE_SIZE_MAX)
@example(b'{"p2phub": 1, "locked": ' + b"{" * 9)
@example(b"<<<<<<< HEAD")
@example(b'{"p2phub": 1, "locked": {"../../etc/passwd": {}}}')
def test_nothing_else_is_a_lock(data: bytes) -> None:
    with pytest.raises(InvalidData):
        decode_lock(data)


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/../x", "a/.ssh", ".a/x", "a/b/c", "parrot", "b3:" + "0" * 64, "a/b:1.0"]
)
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    entry = {"kind": "model", "namespace": str(NamespaceId(bytes(32))), "revision": str(ManifestId(bytes(32)))}
    with pytest.raises(InvalidData):
        decode_lock(json.dumps({"p2phub": 1, "locked": {name: entry}}).encode())


def test_a_lock_has_a_limit() -> None:
    namespace, revision = str(NamespaceId(bytes(32))), str(ManifestId(bytes(32)))
    many = [Locked(f"a/b{number}", "model", namespace, revision) for number in range(NAMES_MAX + 1)]
    with pytest.raises(InvalidData, match="the limit is 1000"):
        encode_lock(many)

    assert len(decode_lock(encode_lock(many[1:]))) == NAMES_MAX
