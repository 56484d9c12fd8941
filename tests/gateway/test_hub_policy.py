"""Pickles and the policy file at the hub door: what is looked into before its first byte leaves."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from doorkit import open_door

from p2phub.gateway.hub import inspector
from p2phub.node import reading
from p2phub.node.branches import recall
from p2phub.node.events import ignore
from p2phub.node.identity import create_identity
from p2phub.node.publish import publish
from p2phub.testing.hostile import open_home, serving

pytestmark = pytest.mark.timeout(120)


class Evil:
    """Runs a program when it is loaded."""

    def __reduce__(self) -> object:
        return os.system, ("touch /tmp/owned",)


def checkpoint(value: object, size: int) -> bytes:
    """Return what PyTorch would write: a zip with a pickle, and numbers that are not compressed."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(value))
        archive.writestr("model/data/0", os.urandom(size))
    return out.getvalue()


FILES = {
    "good.bin": pickle.dumps({"a": 1}),
    "evil.bin": pickle.dumps(Evil()),
    "pytorch_model.bin": checkpoint({"a": 1}, 40_000_000),
    "evil.pt": checkpoint(Evil(), 40_000_000),
    "raw.bin": os.urandom(3_000_000),
    "modeling.py": b"print(1)\n",
    "README.md": b"---\nlicense: mit\n---\n",
}


@pytest.fixture(scope="module")
def shelved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pickles")
    for path, data in FILES.items():
        (folder / path).write_bytes(data)
    return folder


@pytest.fixture
async def door(tmp_path, shelved):
    async with open_home(tmp_path / "home") as node:
        create_identity(node)
        result = await publish(node, shelved, "mixed", ignore)
        async with open_door(node) as client:
            yield client, f"/{result.namespace}/mixed/resolve/main", tmp_path / "home" / "policy.toml"


async def test_pickles_of_data_are_sent_and_others_are_not(door):
    client, base, _ = door
    for path in ("good.bin", "pytorch_model.bin", "raw.bin", "modeling.py", "README.md"):
        assert (await client.get(f"{base}/{path}")).content == FILES[path]
    for path in ("evil.bin", "evil.pt"):
        answer = await client.get(f"{base}/{path}")

        assert answer.status_code == 403
        assert "posix.system" in answer.json()["error"]
        assert "posix.system" in answer.headers["x-error-message"]


async def test_no_part_of_a_bad_pickle_is_sent_either(door):
    client, base, _ = door
    answer = await client.get(f"{base}/evil.pt", headers={"range": "bytes=100-200"})

    assert answer.status_code == 403


async def test_the_policy_of_the_node_may_send_less(door):
    client, base, policy = door
    policy.write_text("[pickles]\ndoor = 'never'\n[code]\ndoor = 'never'\n")
    refused = [(await client.get(f"{base}/{path}")).status_code for path in ("good.bin", "modeling.py", "evil.bin")]
    sent = await client.get(f"{base}/raw.bin")
    policy.write_text("[licences]\ndeny = ['MIT']\n")
    unlicensed = await client.get(f"{base}/README.md")
    policy.write_text("[licences]\ndny = ['MIT']\n")
    broken = await client.get(f"{base}/README.md")

    assert refused == [403, 403, 403]
    assert sent.content == FILES["raw.bin"]
    assert unlicensed.status_code == 403
    assert (broken.status_code, "licences.dny" in broken.text) == (400, True)


async def test_what_is_elsewhere_is_looked_into_before_its_first_byte_is_sent(tmp_path, shelved):
    async with AsyncExitStack() as stack:
        seed = await stack.enter_async_context(open_home(tmp_path / "seed"))
        create_identity(seed)
        result = await publish(seed, shelved, "mixed", ignore)
        address = await stack.enter_async_context(serving(seed))
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        node.store.peers.add(address)
        client = await stack.enter_async_context(open_door(node))
        base = f"/{result.namespace}/mixed/resolve/main"

        bad = await client.get(f"{base}/evil.pt")
        good = await client.get(f"{base}/pytorch_model.bin")

    assert bad.status_code == 403
    assert good.content == FILES["pytorch_model.bin"]


async def test_both_ends_of_what_may_be_a_pickle_are_asked_for_at_once(tmp_path, monkeypatch):
    data = bytes(8) + os.urandom(3_000_000)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "large.bin").write_bytes(data)
    asked: list[list[int]] = []
    bring = reading.bring_files

    async def noted(node, files, *args, **kwargs):
        asked.append(list(node.readers[files[0].root].values()))
        return await bring(node, files, *args, **kwargs)

    async with AsyncExitStack() as stack:
        seed = await stack.enter_async_context(open_home(tmp_path / "seed"))
        create_identity(seed)
        result = await publish(seed, tmp_path / "model", "large", ignore)
        address = await stack.enter_async_context(serving(seed))
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        node.store.peers.add(address)
        client = await stack.enter_async_context(open_door(node))
        monkeypatch.setattr(reading, "bring_files", noted)
        came = await client.get(f"/{result.namespace}/large/resolve/main/large.bin")

    assert came.content == data
    assert asked == [[len(data) - 65_536, 0]]


async def test_who_comes_again_is_told_when_a_scan_takes_long(door, monkeypatch):
    client, base, _ = door
    monkeypatch.setattr(inspector, "PATIENCE_S", 0.0)
    again = await client.get(f"{base}/good.bin", headers={"user-agent": "unknown/None; hf_hub/1.0"})
    patient = await client.get(f"{base}/good.bin")

    assert (again.status_code, again.headers["retry-after"]) == (429, "2")
    assert patient.content == FILES["good.bin"]


async def test_a_tar_of_all_is_no_way_around(door):
    client, base, _ = door
    answer = await client.get(base.removesuffix("/resolve/main") + "?tf-hub-format=compressed")

    assert answer.status_code == 403
    assert "posix.system" in answer.text


async def test_the_door_refuses_branches_of_which_the_publishers_word_is_too_old(tmp_path):
    async with AsyncExitStack() as stack:
        (tmp_path / "files").mkdir()
        (tmp_path / "files" / "README.md").write_text("# Parrot\n")
        seed = await stack.enter_async_context(open_home(tmp_path / "seed"))
        create_identity(seed)
        result = await publish(seed, tmp_path / "files", "parrot@1.0.0", ignore)
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        node.store.peers.add(await stack.enter_async_context(serving(seed)))
        (tmp_path / "node" / "policy.toml").write_text("[fresh]\nmax_age_days = 7\n")
        client = await stack.enter_async_context(open_door(node))
        base = f"/{result.namespace}/parrot/resolve"

        fresh = await client.get(f"{base}/main/README.md")
        later = node.clock() + 8 * 86400
        node.clock = lambda: later
        old = await client.get(f"{base}/main/README.md")
        version = await client.get(f"{base}/1.0.0/README.md")
        commit = await client.get(f"{base}/{fresh.headers['x-repo-commit']}/README.md")

    assert (fresh.status_code, version.status_code, commit.status_code) == (200, 200, 200)
    assert old.status_code == 403
    assert "he gave it 8 days ago" in old.json()["error"]


async def test_what_was_recalled_is_shown_as_such_and_not_sent(tmp_path, shelved):
    async with open_home(tmp_path / "home") as node:
        create_identity(node)
        result = await publish(node, shelved, "mixed@1.0.0", ignore)
        name = f"{result.namespace}/mixed"
        async with open_door(node) as client:
            before = (await client.get(f"/api/models/{name}/refs")).json()["tags"]
            (shelved / "README.md").write_bytes(b"---\nlicense: mit\n---\nbetter\n")
            await publish(node, shelved, "mixed@2.0.0", ignore)
            (shelved / "README.md").write_bytes(FILES["README.md"])
            await recall(node, "mixed@1.0.0", "a back door", ignore)
            after = (await client.get(f"/api/models/{name}/refs")).json()["tags"]
            recalled = await client.get(f"/{name}/resolve/1.0.0/README.md")
            newer = await client.get(f"/{name}/resolve/2.0.0/README.md")

    assert [tag["name"] for tag in before] == ["1.0.0"]
    assert [tag["name"] for tag in after] == ["2.0.0"]
    assert (recalled.status_code, "a back door" in recalled.text) == (403, True)
    assert newer.status_code == 200


async def test_what_is_sealed_is_looked_into_before_it_is_sent_opened(tmp_path, shelved):
    async with open_home(tmp_path / "home") as node:
        create_identity(node)
        result = await publish(node, shelved, "shut", ignore, sealed=True)
        async with open_door(node) as client:
            base = f"/{result.namespace}/shut/resolve/main"
            for path in ("good.bin", "pytorch_model.bin", "modeling.py"):
                assert (await client.get(f"{base}/{path}")).content == FILES[path]
            answers = [await client.get(f"{base}/{path}") for path in ("evil.bin", "evil.pt")]

    assert [answer.status_code for answer in answers] == [403, 403]
    assert all("posix.system" in answer.text for answer in answers)
