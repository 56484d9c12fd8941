from __future__ import annotations

import random

import msgspec
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from p2phub.core import encoding, filetree, merkle
from p2phub.core.errors import HashMismatch, InvalidData, InvalidEncoding
from p2phub.core.filetree import (
    CHUNK_SIZE_MAX,
    CHUNK_SIZE_MEAN_MIN,
    FILE_SIZE_MAX,
    PACKED_SIZE,
    PAGE_CHUNKS,
    ChunkList,
    TreePage,
    check_chunk,
    check_page,
    join_pages,
    pack,
    page_count,
    root_of,
)
from p2phub.core.ids import ContentId

MIB = 1024 * 1024
PAGE_SIZE_MAX = 512 * 1024


def chunk_list(count: int, *, seed: int = 0) -> ChunkList:
    """Return a list of `count` chunks of 256 KiB and more."""
    rng = random.Random(seed)
    return ChunkList(b"".join(pack(rng.randint(256 * 1024, CHUNK_SIZE_MAX), rng.randbytes(32)) for _ in range(count)))


def naive_root(packed: bytes) -> bytes:
    """Return the file root, by the words of spec/content.md §3."""
    entries = [packed[at : at + 36] for at in range(0, len(packed), 36)]

    def tree(nodes: list[bytes]) -> bytes:
        if len(nodes) == 1:
            return nodes[0]
        split = 1 << (len(nodes) - 1).bit_length() - 1
        return blake3(tree(nodes[:split]) + tree(nodes[split:]), derive_key_context="p2phub 1 file node").digest()

    leaves = [blake3(entry, derive_key_context="p2phub 1 file leaf").digest() for entry in entries]
    top = tree(leaves) if leaves else blake3(b"", derive_key_context="p2phub 1 file node").digest()
    size = sum(int.from_bytes(entry[:4], "big") for entry in entries)
    fields = size.to_bytes(8, "big") + len(entries).to_bytes(8, "big") + top
    return blake3(fields, derive_key_context="p2phub 1 file root").digest()


def change(page: TreePage, **fields: object) -> TreePage:
    return msgspec.structs.replace(page, **fields)


counts = st.integers(0, 300)
# At and around the end of a page.
PAGED_COUNTS = [0, 1, 2, 3, PAGE_CHUNKS - 1, PAGE_CHUNKS, PAGE_CHUNKS + 1, 2 * PAGE_CHUNKS, 3 * PAGE_CHUNKS + 7]


@given(st.lists(st.tuples(st.integers(1, CHUNK_SIZE_MAX), st.binary(min_size=32, max_size=32)), max_size=30))
def test_a_chunk_list_says_length_hash_and_place_of_each_chunk(entries: list[tuple[int, bytes]]) -> None:
    chunks = ChunkList(b"".join(pack(*entry) for entry in entries))

    assert len(chunks) == len(entries)
    assert [(chunks.length(index), chunks.hash(index)) for index in range(len(entries))] == entries
    assert chunks.size == chunks.offset(len(entries)) == sum(length for length, _ in entries)
    for index, (length, _) in enumerate(entries):
        assert chunks.offset(index) == sum(length for length, _ in entries[:index])
        assert chunks.index_at(chunks.offset(index)) == index
        assert chunks.index_at(chunks.offset(index) + length - 1) == index


def test_chunk_lists_are_equal_by_what_they_list() -> None:
    assert chunk_list(5) == ChunkList(chunk_list(5).packed)
    assert hash(chunk_list(5)) == hash(ChunkList(chunk_list(5).packed))
    assert chunk_list(5) != chunk_list(5, seed=1)
    assert chunk_list(5) != chunk_list(5).packed


@pytest.mark.parametrize("length", [0, CHUNK_SIZE_MAX + 1, 2**32 - 1])
@pytest.mark.parametrize("at", [0, 2])
def test_a_chunk_without_bytes_or_over_the_limit_is_refused(length: int, at: int) -> None:
    entries = [pack(1, bytes(32))] * 2
    entries.insert(at, pack(length, bytes(32)))

    with pytest.raises(InvalidData, match=f"1 to {CHUNK_SIZE_MAX} bytes"):
        ChunkList(b"".join(entries))


@pytest.mark.parametrize("size", [1, 35, 37, 71])
def test_a_list_that_is_cut_off_is_refused(size: int) -> None:
    with pytest.raises(InvalidData, match="36 bytes a chunk"):
        ChunkList(chunk_list(2).packed[:size] if size < 72 else b"")


@given(counts)
def test_the_root_is_that_of_the_spec(count: int) -> None:
    chunks = chunk_list(count)

    assert chunks.root() == naive_root(chunks.packed)


@pytest.mark.parametrize("count", PAGED_COUNTS)
def test_the_root_of_many_pages_is_that_of_the_spec(count: int) -> None:
    chunks = chunk_list(count)

    assert chunks.root() == naive_root(chunks.packed)


@given(counts.filter(bool), st.data())
def test_the_root_depends_on_every_byte_of_the_list(count: int, data: st.DataObject) -> None:
    chunks = chunk_list(count)
    at = data.draw(st.integers(0, count - 1)) * PACKED_SIZE + data.draw(st.integers(3, PACKED_SIZE - 1))
    changed = bytearray(chunks.packed)
    changed[at] ^= 1

    assert ChunkList(bytes(changed)).root() != chunks.root()


def test_the_root_commits_to_size_and_count() -> None:
    roots = {root_of(size, count, bytes(32)) for size in range(3) for count in range(3)}

    assert len(roots) == 9


@pytest.mark.parametrize("count", PAGED_COUNTS)
def test_pages_prove_themselves_and_make_up_the_list(count: int) -> None:
    chunks = chunk_list(count)
    root = chunks.root()

    pages = [chunks.page(index) for index in range(page_count(count))]

    for page in pages:
        check_page(page, root)
        data = encoding.encode(page)
        assert len(data) <= PAGE_SIZE_MAX
        assert encoding.decode(data, TreePage, size_max=PAGE_SIZE_MAX) == page
    assert join_pages(pages, root) == chunks
    assert len(pages) == max(1, -(-count // PAGE_CHUNKS))


@given(counts)
def test_pages_of_any_size_prove_themselves(count: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filetree, "PAGE_CHUNKS", 4)
        chunks = chunk_list(count)
        pages = [chunks.page(index) for index in range(page_count(count))]

        for page in pages:
            check_page(page, chunks.root())
        assert join_pages(pages, chunks.root()) == chunks
    assert chunks.root() == naive_root(chunks.packed)


@pytest.mark.parametrize("index", [-1, 2, 10**6])
def test_there_is_no_page_past_the_last(index: int) -> None:
    chunks = chunk_list(PAGE_CHUNKS + 1)

    with pytest.raises(InvalidData, match="no page"):
        chunks.page(index)
    with pytest.raises(InvalidData, match="no page" if index > 0 else None):
        check_page(change(chunks.page(0), index=index), chunks.root())


@given(st.data())
def test_a_page_of_which_any_field_was_changed_is_refused(data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filetree, "PAGE_CHUNKS", 4)
        count = data.draw(st.integers(1, 60))
        chunks = chunk_list(count)
        page = chunks.page(data.draw(st.integers(0, page_count(count) - 1)))
        at = data.draw(st.integers(0, len(page.chunks) - 1))
        changed_chunks = page.chunks[:at] + bytes([page.chunks[at] ^ 1]) + page.chunks[at + 1 :]
        changes: list[dict[str, object]] = [
            {"size": data.draw(st.integers(0, 2 * page.size).filter(lambda size: size != page.size))},
            {"count": data.draw(st.integers(0, 80).filter(lambda count: count != page.count))},
            {"index": data.draw(st.integers(0, 20).filter(lambda index: index != page.index))},
            {"chunks": changed_chunks},
            {"chunks": page.chunks[PACKED_SIZE:]},
            {"chunks": page.chunks + pack(MIB, bytes(32))},
            {"chunks": page.chunks[:-1]},
            {"chunks": b""},
            {"proof": (*page.proof, bytes(32))},
            {"proof": (bytes(32), *page.proof)},
        ]
        if page.proof:
            turned = data.draw(st.integers(0, len(page.proof) - 1))
            changes += [
                {"proof": page.proof[:-1]},
                {"proof": (*page.proof[:turned], bytes(32), *page.proof[turned + 1 :])},
            ]

        for fields in changes:
            with pytest.raises(InvalidData):
                check_page(change(page, **fields), chunks.root())
        with pytest.raises(InvalidData):
            check_page(page, ContentId(bytes(32)))
        check_page(page, chunks.root())


def test_a_subtree_does_not_pass_for_the_whole() -> None:
    chunks = chunk_list(2 * PAGE_CHUNKS)
    half = ChunkList(chunks.packed[: PAGE_CHUNKS * PACKED_SIZE])

    with pytest.raises(HashMismatch, match="not of the file"):
        check_page(half.page(0), chunks.root())


@pytest.mark.parametrize(
    ("size", "count"), [(0, 4), (CHUNK_SIZE_MEAN_MIN, 5), (10 * CHUNK_SIZE_MEAN_MIN - 1, 13), (FILE_SIZE_MAX, 2**40)]
)
def test_too_many_chunks_are_refused_before_anything_is_hashed(size: int, count: int) -> None:
    with pytest.raises(InvalidData, match="too few or too many"):
        check_page(TreePage(size, count, 0, b"", ()), ContentId(bytes(32)))


@pytest.mark.parametrize(("size", "count"), [(1, 0), (CHUNK_SIZE_MAX + 1, 1), (FILE_SIZE_MAX, 2**25 - 1)])
def test_too_few_chunks_are_refused_before_anything_is_hashed(size: int, count: int) -> None:
    with pytest.raises(InvalidData, match="too few or too many"):
        check_page(TreePage(size, count, 0, b"", ()), ContentId(bytes(32)))


def test_lengths_that_do_not_add_up_are_refused_although_the_root_commits_to_them() -> None:
    packed = pack(MIB, bytes(32)) * (PAGE_CHUNKS + 1)
    chunks = ChunkList(packed)
    top = merkle.root(merkle.FILE_TREE, chunks._page_roots)

    for size in (chunks.size - 1, chunks.size + 1):
        forged = root_of(size, len(chunks), top)
        pages = [change(chunks.page(index), size=size) for index in range(2)]
        for page in pages:
            check_page(page, forged)
        with pytest.raises(HashMismatch, match="do not add up"):
            join_pages(pages, forged)


def test_one_page_whose_lengths_do_not_add_up_is_refused_at_once() -> None:
    chunks = ChunkList(pack(MIB, bytes(32)) * 3)
    top = merkle.root(merkle.FILE_TREE, chunks._page_roots)

    for size in (chunks.size - 1, chunks.size + 1):
        with pytest.raises(InvalidData, match="do not fit the size"):
            check_page(change(chunks.page(0), size=size), root_of(size, 3, top))


def test_a_page_larger_than_its_file_is_refused() -> None:
    packed = pack(CHUNK_SIZE_MAX, bytes(32)) * PAGE_CHUNKS * 2
    page = ChunkList(packed).page(0)

    with pytest.raises(InvalidData, match="do not fit the size"):
        check_page(change(page, size=page.size // 2 - 1), ContentId(bytes(32)))


def test_pages_are_bounded_by_their_type() -> None:
    page = chunk_list(3).page(0)

    for fields in (
        {"size": FILE_SIZE_MAX + 1},
        {"size": -1},
        {"count": FILE_SIZE_MAX + 1},
        {"index": FILE_SIZE_MAX + 1},
        {"chunks": bytes(PAGE_CHUNKS * PACKED_SIZE + 1)},
        {"proof": (bytes(32),) * 33},
        {"proof": (bytes(31),)},
    ):
        with pytest.raises(InvalidEncoding):
            encoding.decode(encoding.encode(change(page, **fields)), TreePage, size_max=PAGE_SIZE_MAX)


def test_the_proof_of_the_largest_file_fits() -> None:
    pages = page_count(3 + FILE_SIZE_MAX // CHUNK_SIZE_MEAN_MIN)

    assert (pages - 1).bit_length() <= filetree.PROOF_HASHES_MAX


@given(st.binary(max_size=2000))
def test_a_chunk_is_checked_by_its_hash(data: bytes) -> None:
    check_chunk(data, blake3(data).digest())
    check_chunk(memoryview(bytearray(data)), blake3(data).digest())

    with pytest.raises(HashMismatch):
        check_chunk(data + b"\0", blake3(data).digest())
