from __future__ import annotations

import cbor2
import msgspec
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from p2phub.core import encoding
from p2phub.core.errors import InvalidData, InvalidEncoding
from p2phub.core.ids import ContentId, ManifestId
from p2phub.core.manifest import (
    FILES_MAX,
    MANIFEST_SIZE_MAX,
    PARENTS_MAX,
    BaseModel,
    FileEntry,
    Manifest,
    Sealed,
    Variant,
    decode,
    encode,
    manifest_id,
)
from p2phub.core.origins import ORIGIN_URLS_MAX, URL_SIZE_MAX
from p2phub.testing import values

FULL = values.full_manifest()
HASHES = [ManifestId(bytes([number]) * 32) for number in range(20)]


def entry(path: str) -> FileEntry:
    return FileEntry(path, 5, ContentId(bytes(32)), bytes(32), "other", "cdc-1m")


def change(**fields: object) -> Manifest:
    return msgspec.structs.replace(FULL, **fields)


paths = st.lists(st.from_regex(r"\A[b-y]{1,8}(/[b-y0-9]{1,8}){0,2}\.txt\Z"), min_size=1, max_size=8, unique=True)
hashes = st.lists(st.sampled_from(HASHES), max_size=4, unique=True).map(tuple)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    parents = draw(hashes)
    return Manifest(
        schema=1,
        kind=draw(st.sampled_from(["model", "dataset"])),
        created=draw(st.integers(0, 2**53)),
        files=tuple(
            FileEntry(
                path,
                draw(st.integers(0, 2**41)),
                ContentId(draw(st.binary(min_size=32, max_size=32))),
                draw(st.binary(min_size=32, max_size=32)),
                draw(st.sampled_from(["weights", "config", "tokenizer", "card", "code", "data", "other"])),
                draw(st.sampled_from(["fixed-1m", "cdc-1m", "tensor-1m"])),
            )
            for path in sorted(draw(paths))
        ),
        depth=draw(st.integers(2, 2**31)) if parents else 1,
        parents=parents,
        datasets=draw(hashes),
    )


@given(manifests())
def test_a_manifest_reads_back_from_its_bytes(manifest: Manifest) -> None:
    data = encode(manifest)

    assert decode(data) == manifest
    assert manifest_id(data) == blake3(data).digest()


def test_a_manifest_with_every_field_reads_back() -> None:
    full = msgspec.structs.replace(values.manifest_with_origins(), sealed=Sealed(bytes(32), bytes([1]) * 32))

    assert decode(encode(full)) == full
    assert all(getattr(full, field.name) != field.default for field in msgspec.structs.fields(Manifest))


def test_what_is_left_out_is_not_in_the_bytes() -> None:
    fields = cbor2.loads(encode(values.manifest()))

    assert set(fields) == {"schema", "kind", "created", "files"}


def test_the_size_of_a_manifest_is_that_of_its_files() -> None:
    assert FULL.size == sum(file.size for file in FULL.files)


def test_a_file_is_found_by_its_path() -> None:
    found = FULL.file("config.json")

    assert found is not None
    assert found.path == "config.json"
    assert FULL.file("Config.json") is None


REFUSED = {
    "no files": change(files=(), variants=()),
    "files that are not sorted": change(files=FULL.files[::-1]),
    "a file that stands twice": change(files=(FULL.files[0], *FULL.files)),
    "paths that collide by case": change(files=(entry("A"), entry("a")), variants=()),
    "a path that leaves the folder": change(files=(entry("../a"),), variants=()),
    "an empty path": change(files=(entry(""),), variants=()),
    "a size below 0": change(files=(msgspec.structs.replace(entry("a"), size=-1),), variants=()),
    "a size over the limit": change(files=(msgspec.structs.replace(entry("a"), size=2**41 + 1),), variants=()),
    "a short sha256": change(files=(msgspec.structs.replace(entry("a"), sha256=bytes(31)),), variants=()),
    "an unknown role": change(files=(msgspec.structs.replace(entry("a"), role="secret"),), variants=()),
    "an unknown profile": change(files=(msgspec.structs.replace(entry("a"), profile="cdc-2m"),), variants=()),
    "an unknown kind": change(kind="space"),
    "another schema": change(schema=2),
    "a parent twice": change(parents=(HASHES[0], HASHES[0])),
    "too many parents": change(parents=tuple(HASHES[: PARENTS_MAX + 1])),
    "depth 1 with a parent": change(depth=1),
    "depth 2 without parents": change(parents=()),
    "depth 0": change(depth=0, parents=()),
    "a base model twice": change(base_models=(BaseModel(HASHES[0], "merge"), BaseModel(HASHES[0], "adapter"))),
    "an unknown relation": change(base_models=(BaseModel(HASHES[0], "copy"),)),  # type: ignore[arg-type]
    "a dataset twice": change(datasets=(HASHES[0], HASHES[0])),
    "a variant twice": change(variants=(Variant("x", ("config.json",)), Variant("x", ("README.md",)))),
    "a variant of a file that is not there": change(variants=(Variant("x", ("nothing",)),)),
    "a variant with a file twice": change(variants=(Variant("x", ("config.json", "config.json")),)),
    "a variant without files": change(variants=(Variant("x", ()),)),
    "a variant without a name": change(variants=(Variant("", ("config.json",)),)),
    "a time before 1970": change(created=-1),
    "an origin's URL twice": change(origin_urls=("https://a.example",) * 2),
    "too many URLs of origins": change(origin_urls=tuple(f"https://a{i}.example" for i in range(ORIGIN_URLS_MAX + 1))),
    "an origin's URL that is none": change(origin_urls=("models.example",)),
    "an origin's URL with a password": change(origin_urls=("https://me:secret@a.example/{path}",)),
    "an origin's URL that is too long": change(origin_urls=("https://a.example/" + "a" * URL_SIZE_MAX,)),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_refuses(what: str) -> None:
    # Bytes from outside first, then our own: neither is let through.
    with pytest.raises(InvalidData):
        decode(encoding.encode(REFUSED[what]))
    with pytest.raises(InvalidData):
        encode(REFUSED[what])


def test_a_manifest_over_the_size_limit_is_refused() -> None:
    files = tuple(entry(f"{'x' * 200}/{number:05}") for number in range(MANIFEST_SIZE_MAX // 300))

    with pytest.raises(InvalidEncoding, match=f"the limit is {MANIFEST_SIZE_MAX}"):
        encode(change(files=files, variants=()))


def test_more_files_than_the_limit_are_refused() -> None:
    files = tuple(entry(f"{number:05}") for number in range(FILES_MAX + 1))

    with pytest.raises(InvalidEncoding):
        encode(change(files=files, variants=()))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_manifest_or_refused_as_invalid_data(data: bytes) -> None:
    with pytest.raises(InvalidData):
        decode(data)


@given(st.data())
def test_a_changed_byte_is_refused_or_another_revision(data: st.DataObject) -> None:
    encoded = bytearray(encode(FULL))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))

    try:
        changed = decode(bytes(encoded))
    except InvalidData:
        return
    assert changed != FULL
    assert manifest_id(bytes(encoded)) != manifest_id(encode(FULL))
