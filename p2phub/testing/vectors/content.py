"""Vectors of chunks, chunk lists, manifests and paths."""

from __future__ import annotations

import json
import struct

import msgspec
from blake3 import blake3

from p2phub.core import encoding
from p2phub.core import manifest as manifests
from p2phub.core.chunking import PROFILES, Profile, chunker, tensor_cuts
from p2phub.core.errors import InvalidData
from p2phub.core.filetree import CHUNK_SIZE_MAX, PAGE_CHUNKS, ChunkList, pack, page_count
from p2phub.core.ids import ManifestId
from p2phub.core.paths import check_path, check_paths
from p2phub.testing import values

from .plain import Json, passes

MIB = 1024 * 1024


def long_chunk_list(count: int) -> ChunkList:
    """Return a list of `count` chunks: chunk i has 262144 + i bytes, and the hash is BLAKE3 of i in 4 bytes."""
    return ChunkList(
        b"".join(pack(256 * 1024 + index, blake3(index.to_bytes(4, "big")).digest()) for index in range(count))
    )


def recipe(parts: list[Json]) -> bytes:
    """Return the bytes that a list of parts describes: hex, zeros, or the extended output of BLAKE3."""
    made = b""
    for part in parts:
        match part:
            case {"hex": text}:
                made += bytes.fromhex(text)
            case {"zeros": size}:
                made += bytes(size)
            case {"blake3": name, "size": size}:
                made += values.content(name, size)
    return made


def cut(profile: Profile, data: bytes) -> ChunkList:
    """Return the chunk list of `data`."""
    cutter = chunker(profile, len(data), lambda offset, size: data[offset : offset + size])
    packed, offset, view = b"", 0, memoryview(data)
    while offset < len(data):
        length = cutter.next_length(offset, view[offset : offset + CHUNK_SIZE_MAX])
        packed += pack(length, blake3(view[offset : offset + length]).digest())
        offset += length
    return ChunkList(packed)


_TENSOR_SIZES = (1_500_000, 100_000, 4_096, 262_144, 64, 3_000_000, 262_112)  # bytes; multiples of 32


def _safetensors_parts(note: str) -> list[Json]:
    header: Json = {"__metadata__": {"note": note}}
    begin = 0
    for index, size in enumerate(_TENSOR_SIZES):
        header[f"layer.{index}"] = {"dtype": "U8", "shape": [size], "data_offsets": [begin, begin + size]}
        begin += size
    text = json.dumps(header, separators=(",", ":")).encode()
    data: list[Json] = [{"blake3": f"tensor {index}", "size": size} for index, size in enumerate(_TENSOR_SIZES)]
    return [{"hex": (len(text).to_bytes(8, "little") + text).hex()}, *data]


def _gguf_parts() -> list[Json]:
    header = b"GGUF" + struct.pack("<IQQ", 3, len(_TENSOR_SIZES), 0)
    begin = 0
    for index, size in enumerate(_TENSOR_SIZES):
        name = f"blk.{index}".encode()
        header += struct.pack("<Q", len(name)) + name + struct.pack("<IQIQ", 1, size, 24, begin)
        begin += size
    header += bytes(-len(header) % 32)
    return [
        {"hex": header.hex()},
        *({"blake3": f"tensor {index}", "size": size} for index, size in enumerate(_TENSOR_SIZES)),
    ]


def content() -> Json:
    inputs: list[tuple[str, list[Json], tuple[Profile, ...]]] = [
        ("empty", [], ("fixed-1m", "cdc-1m")),
        ("one byte", [{"hex": "61"}], ("fixed-1m", "cdc-1m")),
        ("256 KiB", [{"blake3": "small", "size": 256 * 1024}], ("fixed-1m", "cdc-1m")),
        ("zeros", [{"zeros": 5 * MIB + 3}], ("fixed-1m", "cdc-1m")),
        ("noise", [{"blake3": "noise", "size": 6 * MIB + 5}], ("fixed-1m", "cdc-1m")),
        (
            "noise after 800 other bytes",
            [{"blake3": "other", "size": 800}, {"blake3": "noise", "size": 6 * MIB + 5}],
            ("cdc-1m",),
        ),
        ("safetensors", _safetensors_parts(""), PROFILES),
        ("safetensors with a longer header", _safetensors_parts("x" * 100), ("tensor-1m",)),
        ("gguf", _gguf_parts(), ("tensor-1m",)),
    ]
    files = []
    for name, parts, profiles in inputs:
        data = recipe(parts)
        for profile in profiles:
            chunks = cut(profile, data)
            files.append(
                {
                    "name": name,
                    "parts": parts,
                    "size": len(data),
                    "profile": profile,
                    "lengths": [chunks.length(index) for index in range(len(chunks))],
                    "chunk_list_blake3": blake3(chunks.packed).digest(),
                    "root": chunks.root(),
                }
            )
    small = ChunkList(b"".join(pack(1000 * (number + 1), blake3(bytes([number])).digest()) for number in range(3)))
    long = long_chunk_list(2 * PAGE_CHUNKS + 3)
    return {
        "parts": {
            "hex": "these bytes",
            "zeros": "so many zero bytes",
            "blake3, size": "the first `size` bytes of the extended output of BLAKE3 over the text",
        },
        "files": files,
        "tensor_cuts": _tensor_cuts(),
        "lists": [
            {
                "chunks": [{"length": small.length(index), "hash": small.hash(index)} for index in range(len(small))],
                "packed": small.packed,
                "root": small.root(),
                "page": encoding.encode(small.page(0)),
            },
            {
                "chunks": [],
                "packed": b"",
                "root": ChunkList(b"").root(),
                "page": encoding.encode(ChunkList(b"").page(0)),
            },
        ],
        "long_list": {
            "formula": "chunk i has 262144 + i bytes, and its hash is BLAKE3 over i in 4 bytes, big-endian",
            "count": len(long),
            "size": long.size,
            "root": long.root(),
            "pages": [
                {"index": index, "chunks_blake3": blake3(page.chunks).digest(), "proof": page.proof}
                for index in range(page_count(len(long)))
                for page in [long.page(index)]
            ],
        },
        "invalid_pages": _invalid_pages(small),
    }


def _tensor_cuts() -> list[Json]:
    cases: list[tuple[int, int, list[int]]] = [
        (100, 100, []),
        (3 * MIB, 0, [0]),
        (2 * MIB + 262143, 0, [0]),
        (2 * MIB + 262144, 0, [0]),
        (100 + 4 * MIB + 600, 100, [100, 100 + 2 * MIB, 300 + 2 * MIB, 600 + 2 * MIB]),
        (100 + 3 * 262144, 100, [100, 100 + 262143, 100 + 2 * 262143, 100 + 3 * 262143]),
        (100 + 3 * 262144, 100, [100, 100 + 262144, 100 + 262144, 100 + 2 * 262144]),
        (3 * MIB + 7, 2 * MIB, [2 * MIB, 2 * MIB, 2 * MIB + 7]),
    ]
    return [
        {"size": size, "data_begin": begin, "tensor_begins": begins, "cuts": tensor_cuts(size, begin, begins)}
        for size, begin, begins in cases
    ]


def _invalid_pages(chunks: ChunkList) -> list[Json]:
    page, root = chunks.page(0), chunks.root()
    swapped = page.chunks[36:72] + page.chunks[:36] + page.chunks[72:]
    zero = pack(0, page.chunks[4:36]) + page.chunks[36:]
    cases: dict[str, Json] = {
        "another size": {"size": page.size + 1},
        "another count": {"count": 4},
        "another index": {"index": 1},
        "chunks in another order": {"chunks": swapped},
        "a chunk missing": {"chunks": page.chunks[36:]},
        "an empty chunk": {"chunks": zero},
        "a proof that is too long": {"proof": (bytes(32),)},
        "more chunks than the size allows": {"count": 4097},
    }
    return [
        {"root": root, "page": encoding.encode(msgspec.structs.replace(page, **fields)), "why": why}
        for why, fields in cases.items()
    ]


def manifest() -> Json:
    valid = []
    for value in (values.manifest(), values.full_manifest()):
        data = manifests.encode(value)
        revision = manifests.manifest_id(data)
        valid.append({"value": value, "encoded": data, "id": str(revision), "commit": revision.commit})
    base = values.manifest()
    entry = base.files[0]
    changes: dict[str, Json] = {
        "schema 2": {"schema": 2},
        "no files": {"files": ()},
        "a path twice": {"files": (entry, entry)},
        "a path that leaves the folder": {"files": (msgspec.structs.replace(entry, path="../a"),)},
        "paths that differ in case only": {
            "files": (msgspec.structs.replace(entry, path="A"), msgspec.structs.replace(entry, path="a"))
        },
        "paths not sorted": {
            "files": (msgspec.structs.replace(entry, path="b"), msgspec.structs.replace(entry, path="a"))
        },
        "unknown role": {"files": (msgspec.structs.replace(entry, role="secret"),)},
        "depth 2 without parents": {"depth": 2},
        "parents at depth 1": {"parents": (ManifestId(bytes(32)),)},
        "a parent twice": {"depth": 2, "parents": (ManifestId(bytes(32)),) * 2},
        "a variant of a file that is not there": {"variants": (manifests.Variant("x", ("y",)),)},
    }
    return {
        "valid": valid,
        "invalid": [
            {"encoded": encoding.encode(msgspec.structs.replace(base, **fields)), "why": why}
            for why, fields in changes.items()
        ],
    }


def paths() -> Json:
    candidates = [
        "README.md", "a/b/c.txt", ".gitattributes", "a b/c", "...a", "données/modèle.bin", "\N{PARROT}.txt",
        "console.txt", "a" * 255, "", "/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", "a\0b", "a\nb", "a\x7fb",
        "a\\b", "C:a", "a*", "a?", 'a"', "<a", "a>", "a|b", "a ", "a.", "a /b", "a./b",
        "con", "NUL.txt", "a/Com1", "lpt\N{SUPERSCRIPT TWO}.bin",
        "e\N{COMBINING ACUTE ACCENT}", "\N{OHM SIGN}", ".git/config", "a/.GIT", "a" * 256, "a/" * 512 + "a",
    ]  # fmt: skip
    sorted_lists = [
        ["a", "a-b", "b/c", "b/d"],
        ["A", "a"],
        ["A/x", "a"],
        ["A/x", "a/y"],
        ["a", "a/b"],
        ["STRASSE", "stra\N{LATIN SMALL LETTER SHARP S}e"],
        ["\u0390", "\u03aa\u0301"],
    ]
    return {
        "paths": [{"path": path, "valid": passes(check_path, path, InvalidData)} for path in candidates],
        "lists": [
            {"paths": listed, "valid": passes(check_paths, listed, InvalidData)} for listed in sorted_lists
        ],
    }
