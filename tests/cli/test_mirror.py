"""Mirrors as people make them: whole processes, killed in the middle, with the hub up or down."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from p2phub.testing.fakehub import FakeHub, is_file, like_missing
from p2phub.testing.processes import Home, tree, wait_until
from p2phub.testing.webserver import answering, only, slowly, stalling

pytestmark = pytest.mark.timeout(180)

FILES = {"config.json": b"{}", "sub/weights.bin": os.urandom(5_000_000)}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no proxy of the machine stand between, and no token of its user be used."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


def home_for(folder: Path, upstream: str, **extra: str) -> Home:
    return Home(folder, {"P2PHUB_UPSTREAM": upstream, **extra})


def parts(home: Home) -> list[Path]:
    return list(home.store.glob("upstream/*"))


def test_another_node_is_a_hub_to_mirror_from(seed, tmp_path):
    home = home_for(tmp_path / "home", seed.node.local_url)
    home.call("id", "new")
    reference = f"hf://{seed.name}@1.0.0"
    made = home.json("mirror", "add", reference)
    shown = home.call("mirror", "ls")
    home.call("fetch", reference, "--to", str(tmp_path / "out"))
    log = home.ask("log", home.ask("status")["namespace"])
    updated = home.ask("mirror", "update")
    home.call("mirror", "rm", reference)

    assert made["commit"] == seed.revision.removeprefix("b3:")[:40]
    assert tree(tmp_path / "out") == tree(seed.folder)
    assert f"{reference}\n  of 127.0.0.1:" in shown.out
    assert [(line["type"], line["revision"]) for line in log] == [("attest", made["manifest"])]
    assert f"mirror of {reference.partition('@')[0]}@{made['commit']}" in log[0]["message"]
    assert [info["commit"] for info in updated] == [made["commit"]]
    assert home.ask("mirror", "ls") == []


def test_a_mirror_that_was_killed_goes_on_where_it_was(tmp_path):
    with FakeHub(like_missing) as hub:
        hub.publish("Org/parrot", FILES)
        hub.behaviours.append(only(is_file, stalling(2_000_000)))
        home = home_for(tmp_path / "home", hub.url)
        process = home.start("mirror", "add", "hf://Org/parrot")
        wait_until(lambda: any(path.stat().st_size == 2_000_000 for path in parts(home)), "half a file to come")
        process.kill()
        process.communicate()
        hub.behaviours.pop()
        home.run("mirror", "add", "hf://Org/parrot")
        home.call("fetch", "hf://Org/parrot", "--to", str(tmp_path / "out"))

        assert {path: (tmp_path / "out" / path).read_bytes() for path in FILES} == FILES
        asked = [asked.byte_range for asked in hub.asked if asked.path.endswith("weights.bin")]
        assert asked == [None, (2_000_000, 4_999_999)]
    assert parts(home) == []


def test_two_processes_of_one_home_do_not_write_to_one_part(tmp_path):
    with FakeHub(like_missing) as hub:
        hub.publish("Org/parrot", FILES)
        hub.behaviours.append(only(is_file, slowly(4e6)))
        home = home_for(tmp_path / "home", hub.url)
        running = [home.start("mirror", "add", "hf://Org/parrot", "--json") for _ in range(2)]
        made = [json.loads(process.communicate(timeout=60)[0]) for process in running]
        home.call("fetch", "hf://Org/parrot", "--to", str(tmp_path / "out"))
        checked = home.ask("verify", "hf://Org/parrot")

        assert made[0]["manifest"] == made[1]["manifest"]
        assert {path: (tmp_path / "out" / path).read_bytes() for path in FILES} == FILES
        assert checked["damaged"] == []


def test_the_token_is_sent_to_its_hub_and_shown_nowhere(tmp_path):
    secret = "hf_hunter2hunter2"
    (tmp_path / "token").write_text(f"{secret}\n")
    with FakeHub(like_missing) as hub:
        hub.publish("Org/parrot", FILES)
        by_variable = home_for(tmp_path / "a", hub.url, HF_TOKEN=secret)
        for_the_door = home_for(tmp_path / "b", hub.url, HF_TOKEN=secret, HF_ENDPOINT="http://127.0.0.1:8628")
        said = [
            by_variable.run("-v", "mirror", "add", "hf://Org/parrot"),
            for_the_door.run("mirror", "add", "hf://Org/parrot"),
        ]
        sent = [asked.headers.get("authorization") for asked in hub.asked]
        hub.asked.clear()
        by_file = Home(tmp_path / "c")
        options = ("--upstream", hub.url, "--upstream-token-file", str(tmp_path / "token"))
        with by_file.node(*options, env={"P2PHUB_LAN": "off"}) as node:
            by_file.run("mirror", "add", "hf://Org/parrot")
            sent_by_node = {asked.headers.get("authorization") for asked in hub.asked}
            status = by_file.run("status", "--json").out
            errors = node.errors()

    assert set(sent[: len(sent) // 2]) == {f"Bearer {secret}"}
    assert set(sent[len(sent) // 2 :]) == {None}
    assert sent_by_node == {f"Bearer {secret}"}
    assert secret not in "".join(one.out + one.err for one in said) + status + errors


@pytest.mark.parametrize(
    ("env", "why"),
    [
        ({"P2PHUB_UPSTREAM": "huggingface.co"}, "a URL has the form"),
        ({"P2PHUB_UPSTREAM": "https://me:hunter2@hub.example"}, "has a user"),
        ({"P2PHUB_UPSTREAM_TOKEN_FILE": "/nowhere/token"}, "cannot read a token from /nowhere/token"),
        ({"P2PHUB_UPSTREAM_TOKEN": "hunter2\nhunter2"}, "holds no token"),
    ],
)
def test_an_upstream_that_is_none_is_wrong_usage(env, why, tmp_path):
    shown = Home(tmp_path / "home").call("mirror", "ls", env=env, code=2)

    assert why in shown.err
    assert "hunter2" not in shown.err


def test_what_fails_is_said_with_what_to_do(tmp_path):
    with FakeHub(like_missing) as hub:
        home = home_for(tmp_path / "home", hub.url)
        missing = home.call("mirror", "add", "hf://Org/nope", code=3)
        hub.behaviours.append(answering(403, x_error_code="GatedRepo"))
        gated = home.call("mirror", "add", "hf://Org/parrot", code=5)
        unknown = home.call("fetch", "hf://Org/parrot", code=3)
        nobody = home.call("mirror", "trust", "lab", code=3)

    assert f"the hub {hub.name} has no hf://Org/nope@main (404 not found)" in missing.err
    assert "ask for access there" in gated.err
    assert "p2phub mirror add hf://Org/parrot" in unknown.err
    assert "no publisher is known here by the name 'lab'" in nobody.err


def test_whom_one_trusts_is_kept_and_shown(tmp_path):
    home = Home(tmp_path / "home")
    namespace = home.ask("id", "new")["namespace"]
    empty = home.call("mirror", "trust")
    home.call("mirror", "trust", namespace)
    shown = home.call("mirror", "trust")
    home.call("mirror", "trust", namespace, "--remove")

    assert "nobody is trusted about mirrors but yourself" in empty.err
    assert shown.out == f"{namespace}\n"
    assert home.ask("mirror", "trust") == {"namespaces": []}
