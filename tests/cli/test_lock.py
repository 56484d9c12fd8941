"""A project writes down what names mean, and has the same everywhere."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from p2phub.node import names
from p2phub.testing.domain import Domain
from p2phub.testing.processes import Home, RunningNode, tree

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("forget_authorities")]


@dataclass(frozen=True)
class Lab:
    home: Home
    node: RunningNode
    namespace: str
    domain: Domain
    folder: Path

    def publish(self, name: str, *, kind: str = "model") -> str:
        (self.folder / "weights.bin").write_bytes(os.urandom(1000))
        return self.home.ask("publish", str(self.folder), name, "--kind", kind)["revision"]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    home = Home(tmp_path / "lab", {"P2PHUB_LAN": "off"})
    namespace = home.ask("id", "new")["namespace"]
    (tmp_path / "folder").mkdir()
    with home.node() as node, Domain(tmp_path / "web") as domain:
        domain.say(home.ask("id", "domain", "lab.example")["text"])
        yield Lab(home, node, namespace, domain, tmp_path / "folder")


@pytest.fixture
def project(lab: Lab, tmp_path: Path) -> Home:
    return Home(tmp_path / "home", dict(lab.domain.environment))


def test_what_is_locked_comes_on_every_machine_whatever_names_mean_then(
    lab: Lab, project: Home, tmp_path: Path
) -> None:
    first, data = lab.publish("parrot"), lab.publish("words@1.0", kind="dataset")
    files = tree(lab.folder)
    file = tmp_path / "p2phub.lock"
    locked = project.ask("lock", "lab.example/words@1.0", "lab.example/parrot", "--file", str(file))
    written = file.read_bytes()
    second = lab.publish("parrot")
    other = Home(tmp_path / "other", dict(lab.domain.environment))
    told = other.call("sync", "--file", str(file), "--to", str(tmp_path / "out"))
    frozen = Home(tmp_path / "ci", {"P2PHUB_LAN": "off"}).ask(
        "sync", "--frozen", "--file", str(file), "--to", str(tmp_path / "ci-out"), "--peer", lab.node.address
    )
    updated = project.ask("lock", "--update", "--file", str(file))

    assert [(each["name"], each["revision"], each["kind"]) for each in locked] == [
        ("lab.example/parrot", first, "model"),
        ("lab.example/words@1.0", data, "dataset"),
    ]
    assert all(each["namespace"] == lab.namespace and each["log"] for each in locked)
    assert [each["index"] for each in locked] == [0, 1]
    assert "lab.example/parrot was locked at another revision than main is now" in told.err
    assert tree(tmp_path / "out" / "lab.example" / "words") == files
    assert tree(tmp_path / "ci-out") == tree(tmp_path / "out")
    assert [each["revision"] for each in frozen] == [first, data]
    assert [each["revision"] for each in updated] == [second, data]
    assert written != file.read_bytes()


def test_the_same_names_give_the_same_bytes(lab: Lab, project: Home, tmp_path: Path) -> None:
    lab.publish("parrot@1.0")
    lab.publish("owl@1.0")
    names = ["lab.example/parrot@1.0", "lab.example/owl@1.0"]
    project.call("lock", *names, "--file", str(tmp_path / "one"))
    project.call("lock", names[1], "--file", str(tmp_path / "two"))
    project.call("lock", names[0], "--file", str(tmp_path / "two"))
    project.call("lock", "--rm", names[0], "--file", str(tmp_path / "two"))
    project.call("lock", names[0], "--file", str(tmp_path / "two"))

    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert list(json.loads((tmp_path / "one").read_bytes())["locked"]) == sorted(names)


def test_a_name_that_is_locked_stays_until_it_is_updated(lab: Lab, project: Home, tmp_path: Path) -> None:
    file = str(tmp_path / "p2phub.lock")
    first = lab.publish("parrot")
    project.call("lock", "lab.example/parrot", "--file", file)
    lab.publish("parrot")

    assert project.ask("lock", "lab.example/parrot", "--file", file)[0]["revision"] == first


def test_a_name_of_another_publisher_ends_a_sync_and_not_a_frozen_one(
    lab: Lab, project: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(tmp_path / "p2phub.lock")
    lab.publish("parrot")
    project.call("lock", "lab.example/parrot", "--file", file)
    other = "b" * 51 + "a"
    stranger = Home(tmp_path / "stranger", {"P2PHUB_LAN": "off"})
    stranger.call("trust", "add", "--offline", f"lab.example={other}")
    mixed = stranger.call("sync", "--offline", "--file", file, code=1).err
    lab.domain.name_publisher(other)
    monkeypatch.setattr(names, "CHECKED_S", 0.0)
    changed = project.call("sync", "--file", file, code=5).err
    project.call("sync", "--frozen", "--file", file)

    assert f"lab.example/parrot is locked to the publisher {lab.namespace}, and lab.example means {other}" in mixed
    assert "names another publisher than before" in changed


def test_what_is_no_lock_file_is_said_to_be_none(project: Home, tmp_path: Path) -> None:
    file = tmp_path / "p2phub.lock"
    entry = {"kind": "model", "namespace": "b" * 51 + "a", "revision": "b3:" + "0" * 64}
    for text, content in {
        "is not as it should be": "<<<<<<< HEAD",
        "unknown field `locks`": json.dumps({"p2phub": 1, "locked": {}, "locks": {}}),
        "Invalid enum value 2": json.dumps({"p2phub": 2, "locked": {}}),
        "is no NAMESPACE/MODEL": json.dumps({"p2phub": 1, "locked": {"parrot": entry}}),
        "one of log and index": json.dumps({"p2phub": 1, "locked": {"a.example/b": {**entry, "index": 1}}}),
        "'../x' is a path, not the name of a model": json.dumps({"p2phub": 1, "locked": {"../x": entry}}),
        "has more than": " " * 2**21,
        "is empty": "\n",
    }.items():
        file.write_text(content)
        told = project.call("sync", "--frozen", "--file", str(file), code=1).err
        assert "the lock file" in told
        assert text in told
    file.unlink()

    assert "`p2phub lock NAME...` makes one" in project.call("sync", "--file", str(file), code=3).err
    assert "needs no lock" in project.call("lock", "b3:" + "0" * 64, "--file", str(file), code=2).err
    assert not file.exists()
