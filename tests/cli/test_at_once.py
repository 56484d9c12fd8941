"""Several commands at once in one home: each ends with a clear outcome, and nothing is lost."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from pathlib import Path

import pytest

from p2phub.testing.processes import Home, tree, wait_until

NODE = ("node", "--listen", "127.0.0.1:0", "--local", "127.0.0.1:0")


def start_node(home: Home, ready_file: Path) -> subprocess.Popen[str]:
    home.folder.mkdir(exist_ok=True)
    return home.start(*NODE, "--ready-file", str(ready_file), stdout=subprocess.DEVNULL)


def test_of_nodes_that_start_at_once_one_runs(home, tmp_path):
    ready = [tmp_path / f"ready-{number}" for number in range(4)]
    nodes = [start_node(home, path) for path in ready]
    wait_until(
        lambda: all(path.exists() or node.poll() is not None for path, node in zip(ready, nodes, strict=True)),
        "all nodes to be ready or to end",
    )
    running = [node for node in nodes if node.poll() is None]
    answering = json.loads(home.daemon_file.read_text())["pid"]
    still = home.ask("status")["serving"]
    for node in running:
        node.send_signal(signal.SIGTERM)
    said = [node.communicate()[1] for node in nodes]

    assert [node.pid for node in running] == [answering]
    assert still
    assert sorted(node.returncode for node in nodes) == [0, 1, 1, 1]
    assert sum("runs already" in text for text in said) == 3
    assert not home.daemon_file.exists()


def test_a_killed_node_is_followed_at_once_by_the_next(home):
    with home.node() as killed:
        killed.kill()
        left = json.loads(home.daemon_file.read_text())["pid"]
        with home.node() as node:
            said = json.loads(home.daemon_file.read_text())["pid"]

    assert (left, said) == (killed.pid, node.pid)
    assert not home.daemon_file.exists()
    assert [path for path in home.folder.iterdir() if path.name.startswith(".new")] == []


def test_a_node_that_does_not_answer_yet_keeps_others_out(home):
    with home.node() as node:
        # As of one that begins or ends, commands are not told of it.
        home.daemon_file.unlink()
        outcome = home.run(*NODE, code=1)

    assert f"runs already (process {node.pid})" in outcome.err
    assert "P2PHUB_HOME" in outcome.err


def test_a_node_that_hangs_keeps_others_out_by_its_number(home):
    with home.node() as node:
        node.process.send_signal(signal.SIGSTOP)
        try:
            outcome = home.run(*NODE, code=1)
        finally:
            node.process.send_signal(signal.SIGCONT)

    assert f"runs already (process {node.pid})" in outcome.err
    assert f"kill -9 {node.pid}" in outcome.err


def test_a_node_of_an_older_version_keeps_others_out(home):
    with home.node() as node:
        # It answers, and holds no lock.
        (home.folder / "daemon.lock").unlink()
        outcome = home.run(*NODE, code=1)

    assert f"runs already (process {node.pid})" in outcome.err


def test_fetches_into_one_folder_at_once_all_place_all_of_it(seed, home, tmp_path):
    home.run("peers", "add", seed.node.address)
    for turn in range(4):
        out = tmp_path / f"out-{turn}"
        started = [home.start("fetch", seed.name, "--to", str(out)) for _ in range(3)]
        said = [process.communicate()[1] for process in started]

        assert [process.returncode for process in started] == [0, 0, 0], "\n".join(said)
        assert tree(out) == tree(seed.folder)
        home.run("store", "rm", f"{seed.name}@1.0.0")


@pytest.mark.parametrize("through_node", [False, True], ids=["alone", "through a node"])
def test_publications_at_once_follow_each_other(through_node, home, tmp_path):
    home.call("id", "new")
    folders = [write_folder(tmp_path / f"folder-{number}", f"content {number}") for number in range(5)]
    with home.node() if through_node else contextlib.nullcontext():
        publishing = [home.start("publish", str(folder), "parrot", "--json") for folder in folders]
        said = [process.communicate() for process in publishing]
        revisions = {json.loads(out)["revision"] for out, _ in said}
        parents = {revision: home.ask("info", revision)["parents"] for revision in revisions}
        pinned = home.ask("store", "ls")
        tip = home.ask("info", "parrot")["revision"]
    line = [tip]
    while parents[line[-1]]:
        line += parents[line[-1]]

    assert len(line) == 5
    assert set(line) == revisions
    assert len(home.ask("log", "parrot")) == 5
    # Nothing is kept that was not published.
    assert {each["revision"] for each in pinned if each["pinned"]} == revisions


def test_of_equal_publications_at_once_one_is_signed(home, tmp_path):
    home.call("id", "new")
    folder = write_folder(tmp_path / "folder", "content")
    publishing = [home.start("publish", str(folder), "parrot@1.0.0", "--json") for _ in range(5)]
    told = [json.loads(process.communicate()[0]) for process in publishing]

    assert sorted(each["new"] for each in told) == [False] * 4 + [True]
    assert len({each["revision"] for each in told}) == 1
    assert len(home.ask("log", "parrot")) == 1


def test_of_a_version_that_is_published_at_once_with_other_content_one_is_it(home, tmp_path):
    home.call("id", "new")
    folders = [write_folder(tmp_path / f"folder-{number}", f"content {number}") for number in range(4)]
    publishing = [home.start("publish", str(folder), "parrot@1.0.0") for folder in folders]
    said = [process.communicate()[1] for process in publishing]

    assert sorted(process.returncode for process in publishing) == [0, 1, 1, 1]
    assert sum("was published before with other content" in text for text in said) == 3
    assert len(home.ask("log", "parrot")) == 1


def write_folder(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "a.txt").write_text(text)
    return folder
