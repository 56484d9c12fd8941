"""A repository as one tar, and files under names that say their hash."""

from __future__ import annotations

import io
import tarfile
from hashlib import sha256

import pytest
from doorkit import ODD_PATH, open_door

from p2phub.core.ids import ManifestId
from p2phub.testing.hostile import open_home
from p2phub.testing.processes import flip_byte


def extract_as_a_stream(data: bytes) -> dict[str, bytes]:
    """Read a tar as the client does: in one pass, only folders and files, and no folder that was not named before."""
    folders, files = {""}, {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r|*") as tar:
        for entry in tar:
            parent = entry.name.rpartition("/")[0]
            assert parent in folders, f"{entry.name} comes before its folder"
            if entry.isdir():
                folders.add(entry.name)
            else:
                assert entry.isfile()
                files[entry.name] = tar.extractfile(entry).read()
    return files


@pytest.mark.parametrize("revision", ["", "/main", "/1.0.0"])
async def test_all_files_come_in_one_tar(cold, shelf, revision):
    answer = await cold.get(f"/{shelf.name}{revision}?tf-hub-format=compressed")
    files = extract_as_a_stream(answer.content)

    assert answer.status_code == 200
    assert answer.headers["content-length"] == str(len(answer.content))
    assert {path: data for path, data in files.items() if path != "config.json"} == {
        path: data for path, data in shelf.files.items() if path != "config.json"
    }
    assert files["config.json"] == (b"{}" if revision == "/1.0.0" else shelf.files["config.json"])
    assert ODD_PATH in files


async def test_the_same_revision_gives_the_same_bytes(door, shelf, tmp_path):
    url = f"/{shelf.name}/1.0.0?tf-hub-format=compressed"
    first, second = await door.get(url), await door.get(url)
    head = await door.head(url)

    assert first.content == second.content
    assert head.headers["content-length"] == str(len(first.content))
    assert not list((tmp_path / "here" / "store").rglob("*.tar"))


async def test_what_cannot_be_sent_as_a_tar_is_said(door, shelf):
    bucket = await door.get(f"/{shelf.name}/1.0.0?tf-hub-format=uncompressed")
    page = await door.get(f"/{shelf.name}")
    nobody = await door.get("/someone/else?tf-hub-format=compressed")

    assert (bucket.status_code, "buckets" in bucket.json()["error"]) == (501, True)
    assert (page.status_code, nobody.status_code) == (404, 404)


async def test_a_tar_of_bytes_that_went_bad_is_not_sent(copy_of, shelf):
    async with open_home(copy_of("here")) as node, open_door(node) as client:
        manifest = node.store.manifests.get(ManifestId.parse(shelf.tip))
        flip_byte(node.store.blobs.find(manifest.files[0].root).path, 3, keep_time=True)
        answer = await client.get(f"/{shelf.name}?tf-hub-format=compressed")

    assert answer.status_code == 504


async def test_a_name_that_says_the_hash_is_the_file(door, shelf):
    digest = sha256(shelf.files["weights.onnx"]).hexdigest()
    for prefix in (digest[:8], digest):
        answer = await door.get(f"/{shelf.name}/resolve/main/weights-{prefix}.onnx")
        assert answer.content == shelf.files["weights.onnx"]
    other = await door.get(f"/{shelf.name}/resolve/main/weights-{'0' * 8}.onnx")
    short = await door.get(f"/{shelf.name}/resolve/main/weights-{digest[:7]}.onnx")

    assert (other.status_code, short.status_code) == (404, 404)
