"""The vectors of sealed repositories hold for the code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from p2phub.core import encoding, sealing
from p2phub.core import manifest as manifests
from p2phub.core.errors import InvalidData
from p2phub.core.ids import ContentId, NamespaceId
from p2phub.core.manifest import Manifest
from p2phub.core.records import WrappedKey
from p2phub.testing import hpke, values
from p2phub.testing.vectors.content import cut
from p2phub.testing.vectors.plain import plain
from p2phub.testing.vectors.seals import content_of, seal_all

VECTORS: Any = json.loads((Path(__file__).parent.parent / "spec/vectors/sealing.json").read_text())
KEY = sealing.RepositoryKey(bytes.fromhex(VECTORS["repository_key"]))


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


def sealed(path: str) -> bytes:
    case = next(case for case in VECTORS["files"] if case["path"] == path)
    return seal_all(KEY, unhex(case["file_id"]), content_of(case["content"]))


def test_files() -> None:
    assert KEY.identifier.hex() == VECTORS["key_id"]
    for case in VECTORS["files"]:
        data = content_of(case["content"])
        assert KEY.file_id(case["path"], ContentId(unhex(case["root"]))).hex() == case["file_id"]
        whole = sealed(case["path"])
        assert (len(whole), blake3(whole).hexdigest()) == (case["sealed_size"], case["sealed_blake3"])
        assert cut("fixed-1m", whole).root().hex() == case["sealed_root"]
        assert sealing.opened_size(len(whole)) == len(data)
    assert sealed("README.md").hex() == VECTORS["readme"]["sealed"]


def test_chunks_that_do_not_open() -> None:
    ids = {case["path"]: unhex(case["file_id"]) for case in VECTORS["files"]}
    two = sealed("model.bin")
    edge = sealing.CHUNK_SIZE + sealing.TAG_SIZE
    known = [two[:edge], two[edge:]]
    for case in VECTORS["invalid_chunks"]:
        part = next((chunk for chunk in known if blake3(chunk).hexdigest() == case["sealed_blake3"]), None)
        part = part or unhex(case["sealed"])
        assert (len(part), blake3(part).hexdigest()) == (case["sealed_size"], case["sealed_blake3"])
        with pytest.raises(InvalidData):
            KEY.file(ids[case["path"]], case["size"]).open(case["index"], part)


def test_manifest_and_index() -> None:
    case = VECTORS["manifest"]
    manifest = manifests.decode(unhex(case["encoded"]))
    assert plain(manifest) == case["value"]
    assert str(manifests.manifest_id(unhex(case["encoded"]))) == case["id"]
    index = content_of(next(file for file in VECTORS["files"] if file["path"] == "")["content"])
    opened, files = sealing.read_index(index, KEY, manifest)
    assert [file.file.path for file in files] == [file.path for file in opened.files]
    assert {file.sealed.path for file in files} | {sealing.INDEX_PATH} == {file.path for file in manifest.files}
    for wrong in VECTORS["invalid_indexes"]:
        outer: Manifest = encoding.read(unhex(wrong["manifest"]), Manifest)
        with pytest.raises(InvalidData):
            sealing.read_index(unhex(wrong["index"]), KEY, outer)


def test_wrapped_key() -> None:
    case = VECTORS["wrapped"]
    private = X25519PrivateKey.from_private_bytes(unhex(case["recipient_secret"]))
    wrapped: WrappedKey = msgspec.convert(
        {name: unhex(text) for name, text in case["value"].items()},
        WrappedKey,
        dec_hook=lambda type_, value: type_(value),
    )
    publisher = NamespaceId(unhex(case["publisher"]))
    assert sealing.unwrap(wrapped, private, KEY.identifier, publisher, case["model"]).secret == KEY.secret
    public = private.public_key().public_bytes_raw()
    assert wrapped.recipient == public
    assert hpke.seal(KEY.secret, public, unhex(case["sender_secret"]), info=unhex(case["info"])) == wrapped.box
    for refused in VECTORS["refused_recipients"]:
        with pytest.raises(InvalidData):
            sealing.wrap(KEY, publisher, "parrot-7b", values.identity().namespace, unhex(refused["recipient"]))
