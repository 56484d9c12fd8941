"""Vectors of chunks, chunk lists, manifests and paths."""

from __future__ import annotations

import json
import struct

import msgspec
from blake3 import blake3

from p2phub.core import encoding, gguf, merkle, safetensors
from p2phub.core import manifest as manifests
from p2phub.core.choices import PROFILES, Profile
from p2phub.core.chunking import chunker, tensor_cuts
from p2phub.core.errors import InvalidData
from p2phub.core.filetree import CHUNK_SIZE_MAX, PAGE_CHUNKS, ChunkList, TreePage, pack, page_count, root_of
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
        "invalid_pages": _invalid_pages(small) + _invalid_last_pages(long),
        "headers": _headers(),
    }


def _safetensors(header: object, data: bytes = b"", *, cut: int = 0) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text[: len(text) - cut] + data


def _gguf_name(name: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name


def _gguf_info(name: bytes, size: int, offset: int, *, type_: int = 24) -> bytes:
    return _gguf_name(name) + struct.pack("<IQIQ", 1, size, type_, offset)


def _gguf(
    infos: list[bytes], data: bytes = b"", *, pairs: tuple[bytes, ...] = (), version: int = 3, alignment: int = 32
) -> bytes:
    header = b"GGUF" + struct.pack("<IQQ", version, len(infos), len(pairs)) + b"".join(pairs) + b"".join(infos)
    return header + bytes(-len(header) % alignment) + data


def _headers() -> Json:
    """Return small safetensors and GGUF files: good ones with what the cuts need, and broken ones."""
    u8 = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}
    after = u8 | {"data_offsets": [4, 8]}
    key = _gguf_name(b"general.alignment")
    alignment_64 = key + struct.pack("<II", 4, 64)
    text = _gguf_name(b"general.name") + struct.pack("<I", 8) + _gguf_name(b"parrot")
    infos = [_gguf_info(b"a", 4, 0), _gguf_info(b"b", 4, 32)]
    good = {
        "safetensors, two tensors": _safetensors({"b": after, "a": u8}, bytes(8)),
        "safetensors, no tensors": _safetensors({"__metadata__": {"a": "b"}}),
        "safetensors, unknown type, field of its own": _safetensors({"a": u8 | {"dtype": "X1", "more": 1}}, bytes(4)),
        "safetensors, names that differ in case": _safetensors({"A": after, "a": u8}, bytes(8)),
        "gguf 3": _gguf(infos, bytes(36)),
        "gguf 2": _gguf(infos, bytes(36), version=2),
        "gguf, no tensors": _gguf([]),
        "gguf, alignment of 64": _gguf(
            [_gguf_info(b"a", 4, 0), _gguf_info(b"b", 4, 64)], bytes(68), pairs=(alignment_64, text), alignment=64
        ),
        "gguf, unknown type": _gguf([_gguf_info(b"a", 4, 0, type_=999), _gguf_info(b"b", 4, 32)], bytes(36)),
    }
    one = '"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}'
    broken = {
        "safetensors, 7 bytes": bytes(7),
        "safetensors, file ends in the header": _safetensors({"a": u8}, cut=1),
        "safetensors, header of more than 100000000 bytes": (10**8 + 1).to_bytes(8, "little") + b"{}",
        "safetensors, no object": _safetensors([]),
        "safetensors, no JSON": _safetensors(b"{" + one.encode()),
        "safetensors, NaN": _safetensors(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":NaN}}'),
        "safetensors, not UTF-8": _safetensors(b'{"\xff":' + one.encode()[4:] + b"}", bytes(4)),
        "safetensors, half of a surrogate pair": _safetensors(b'{"\\ud800":' + one.encode()[4:] + b"}", bytes(4)),
        "safetensors, a name twice": _safetensors(f"{{{one},{one}}}".encode(), bytes(4)),
        "safetensors, __metadata__ with a number": _safetensors({"__metadata__": {"a": 1}}),
        "safetensors, no dtype": _safetensors({"a": {"shape": [4], "data_offsets": [0, 4]}}, bytes(4)),
        "safetensors, a fraction in the shape": _safetensors({"a": u8 | {"shape": [4.0]}}, bytes(4)),
        "safetensors, a negative dimension": _safetensors({"a": u8 | {"shape": [-4]}}, bytes(4)),
        "safetensors, three offsets": _safetensors({"a": u8 | {"data_offsets": [0, 4, 4]}}, bytes(4)),
        "safetensors, ends before it begins": _safetensors({"a": u8 | {"data_offsets": [4, 0]}}, bytes(4)),
        "safetensors, too few bytes for the shape": _safetensors({"a": u8 | {"shape": [5]}}, bytes(4)),
        "safetensors, half a byte": _safetensors({"a": {"dtype": "F4", "shape": [1], "data_offsets": [0, 1]}}, b"a"),
        "safetensors, 2^64 elements": _safetensors({"a": u8 | {"dtype": "X1", "shape": [2**32, 2**32]}}, bytes(4)),
        "safetensors, overlap": _safetensors({"a": u8, "b": u8 | {"data_offsets": [2, 6]}}, bytes(6)),
        "safetensors, a hole": _safetensors({"a": u8, "b": u8 | {"data_offsets": [5, 9]}}, bytes(9)),
        "safetensors, bytes after the last tensor": _safetensors({"a": u8}, bytes(5)),
        "safetensors, leaves the file": _safetensors({"a": u8}, bytes(3)),
        "gguf, file ends in the header": _gguf(infos)[:60],
        "gguf, version 1": _gguf(infos, bytes(36), version=1),
        "gguf, version 4": _gguf(infos, bytes(36), version=4),
        "gguf, big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
        "gguf, a key twice": _gguf(infos, bytes(36), pairs=(text, text)),
        "gguf, a name twice": _gguf([_gguf_info(b"a", 4, 0), _gguf_info(b"a", 4, 32)], bytes(36)),
        "gguf, a name that is not UTF-8": _gguf([_gguf_info(b"\xff", 4, 0)], bytes(4)),
        "gguf, a value of unknown type": _gguf([], pairs=(_gguf_name(b"a") + struct.pack("<II", 13, 0),)),
        "gguf, a bool that is 2": _gguf([], pairs=(_gguf_name(b"a") + struct.pack("<IB", 7, 2),)),
        "gguf, alignment of 48": _gguf([], pairs=(key + struct.pack("<II", 4, 48),)),
        "gguf, alignment that is text": _gguf([], pairs=(key + struct.pack("<I", 8) + _gguf_name(b"32"),)),
        "gguf, offset that is not aligned": _gguf([_gguf_info(b"a", 4, 16)], bytes(36)),
        "gguf, row that is no multiple of the block": _gguf([_gguf_info(b"a", 4, 0, type_=2)], bytes(36)),
        "gguf, overlap": _gguf([_gguf_info(b"a", 40, 0), _gguf_info(b"b", 4, 32)], bytes(68)),
        "gguf, leaves the file": _gguf(infos, bytes(35)),
        "gguf, 9 dimensions": _gguf([_gguf_name(b"a") + struct.pack("<I9QIQ", 9, *[1] * 9, 24, 0)], bytes(1)),
    }
    return {
        "good": [{"name": name, "file": data, **_layout(data)} for name, data in good.items()],
        "broken": [{"why": why, "file": data} for why, data in broken.items()],
    }


def _layout(data: bytes) -> Json:
    """Return where the data and the tensors of a file begin."""

    def read(offset: int, size: int) -> bytes:
        return data[offset : offset + size]

    if data.startswith(gguf.MAGIC):
        header = gguf.parse_header(read, len(data))
        return {"data_begin": header.data_begin, "tensor_begins": [tensor.begin for tensor in header.tensors]}
    found = safetensors.parse_header(read, len(data))
    return {"data_begin": found.header_size, "tensor_begins": [tensor.begin for tensor in found.tensors]}


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
        "page index = number of pages": {"index": 1},
        "chunks in another order": {"chunks": swapped},
        "a chunk missing": {"chunks": page.chunks[36:]},
        "an empty chunk": {"chunks": zero},
        "a proof that is too long": {"proof": (bytes(32),)},
    }
    tree = merkle.root(merkle.FILE_TREE, [merkle.FILE_TREE.leaf(chunks.packed[at : at + 36]) for at in (0, 36, 72)])
    big = ChunkList(pack(CHUNK_SIZE_MAX, bytes(32)) * 2)
    tiny = ChunkList(b"".join(pack(1, bytes([number]) * 32) for number in range(4)))
    grown = pack(CHUNK_SIZE_MAX + 1, bytes(32)) + pack(CHUNK_SIZE_MAX - 1, bytes(32))
    return [
        *(
            {"root": root, "page": encoding.encode(msgspec.structs.replace(page, **fields)), "why": why}
            for why, fields in cases.items()
        ),
        {"root": values.content("root", 32), "page": encoding.encode(page), "why": "of another file"},
        {
            "root": root_of(page.size + 1, page.count, tree),
            "page": encoding.encode(page),
            "why": "the root is of another size",
        },
        {
            "root": root_of(page.size, page.count + 1, tree),
            "page": encoding.encode(page),
            "why": "the root is of another count",
        },
        _as_it_is(big.size, 2, grown, "a chunk of more than 2 MiB; all else is right"),
        _as_it_is(big.size + 1, 2, big.packed, "a count that is too small for the size"),
        _as_it_is(tiny.size, 4, tiny.packed, "more chunks than the size allows; all else is right"),
        _as_it_is(0, 1, pack(0, bytes(32)), "an empty chunk in an empty file; all else is right"),
    ]


def _as_it_is(size: int, count: int, packed: bytes, why: str) -> Json:
    """Return the one page of a list that breaks a rule, under the root that the list gives."""
    tree = merkle.root(
        merkle.FILE_TREE, [merkle.FILE_TREE.leaf(packed[at : at + 36]) for at in range(0, len(packed), 36)]
    )
    return {
        "root": root_of(size, count, tree),
        "page": encoding.encode(TreePage(size, count, 0, packed, ())),
        "why": why,
    }


def _invalid_last_pages(chunks: ChunkList) -> list[Json]:
    """Return broken forms of the last, short page of `long_list`."""
    page, root = chunks.page(page_count(len(chunks)) - 1), chunks.root()
    cases: dict[str, Json] = {
        "a proof that is too short": {"proof": page.proof[:-1]},
        "a proof of a page with another hash": {"proof": (bytes(32), *page.proof[1:])},
        "page index = number of pages, of several": {"index": page.index + 1},
        "the last page as one before it": {"index": page.index - 1},
    }
    return [
        {"root": root, "page": encoding.encode(msgspec.structs.replace(page, **fields)), "why": why}
        for why, fields in cases.items()
    ]


def manifest() -> Json:
    valid = []
    for value in (values.manifest(), values.full_manifest(), values.manifest_with_origins()):
        data = manifests.encode(value)
        revision = manifests.manifest_id(data)
        valid.append({"value": value, "encoded": data, "id": str(revision), "commit": revision.commit})
    base = values.manifest()
    entry = base.files[0]
    changes: dict[str, Json] = {
        "schema 2": {"schema": 2},
        "no files": {"files": ()},
        "a path twice, which is not sorted either": {"files": (entry, entry)},
        "paths sorted as in UTF-16": {
            "files": (
                msgspec.structs.replace(entry, path="\N{PARROT}"),
                msgspec.structs.replace(entry, path="\N{FULLWIDTH LATIN SMALL LETTER A}"),
            )
        },
        "a file beside a folder of the same name": {
            "files": (msgspec.structs.replace(entry, path="a"), msgspec.structs.replace(entry, path="a/b"))
        },
        "a size above 2^41": {"files": (msgspec.structs.replace(entry, size=2**41 + 1),)},
        "unknown profile": {"files": (msgspec.structs.replace(entry, profile="cdc-2m"),)},
        "depth 0": {"depth": 0},
        "a base model twice": {"base_models": (manifests.BaseModel(ManifestId(bytes(32)), "merge"),) * 2},
        "a base model with two relations": {
            "base_models": (
                manifests.BaseModel(ManifestId(bytes(32)), "merge"),
                manifests.BaseModel(ManifestId(bytes(32)), "adapter"),
            )
        },
        "unknown relation": {"base_models": (manifests.BaseModel(ManifestId(bytes(32)), "copy"),)},  # type: ignore[arg-type]
        "a dataset twice": {"datasets": (ManifestId(bytes(32)),) * 2},
        "17 parents": {"depth": 2, "parents": tuple(ManifestId(bytes([number]) * 32) for number in range(17))},
        "two variants of one name": {"variants": (manifests.Variant("x", ("README.md",)),) * 2},
        "a path twice in a variant": {"variants": (manifests.Variant("x", ("README.md",) * 2),)},
        "a variant without paths": {"variants": (manifests.Variant("x", ()),)},
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
        "9 URLs of origins": {"origin_urls": tuple(f"https://{number}.example" for number in range(9))},
        "an origin's URL twice": {"origin_urls": ("https://models.example",) * 2},
        "an origin's URL of 2049 characters": {"origin_urls": ("https://models.example/".ljust(2049, "a"),)},
        "an origin's URL with a password": {"origin_urls": ("https://me:secret@models.example/{path}",)},
        "an origin's URL with a query and no {path}": {"origin_urls": ("https://models.example/?file=",)},
        "an origin's URL that is not http(s)": {"origin_urls": ("ftp://models.example/",)},
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
        "con", "NUL.txt", "a/Com1", "lpt\N{SUPERSCRIPT TWO}.bin", "aux", "PRN.tar.gz", "conin$", "ConOut$.x", "com0",
        "con .txt", "con\N{IDEOGRAPHIC SPACE}.txt", "aux/b", "com", "com10", "lpt", "con1", "conin", " con", "xcon",
        "a\u0085b", "a\u200bb", "-a", "~", "~a", "a%b", "a" * 1025, "\N{PARROT}" * 63 + "abc",
        "\N{PARROT}" * 64, ".git", "a.git", ".gitignore", ".git ", "b/.Git/c",
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
        ["\N{FULLWIDTH LATIN SMALL LETTER A}", "\N{PARROT}"],
        ["\N{PARROT}", "\N{FULLWIDTH LATIN SMALL LETTER A}"],
        ["a", "a"],
        ["b", "a"],
        ["A", "a/b"],
        ["A/b/c", "a/B"],
        ["I", "\N{LATIN SMALL LETTER DOTLESS I}"],
        ["I", "i"],
        ["i", "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}"],
        ["K", "\N{LATIN SMALL LETTER K}"],
        ["\N{GREEK CAPITAL LETTER SIGMA}", "\N{GREEK SMALL LETTER FINAL SIGMA}"],
    ]
    return {
        "paths": [{"path": path, "valid": passes(check_path, path, InvalidData)} for path in candidates],
        "lists": [{"paths": listed, "valid": passes(check_paths, listed, InvalidData)} for listed in sorted_lists],
    }
