"""Setting a process up for tools of other hubs, and running a repository's code only with explicit trust."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

import p2phub
import p2phub.torch
from p2phub import integrations
from p2phub.testing.processes import Home


def test_a_process_is_set_up_in_one_line(tmp_path, monkeypatch):
    home = Home(tmp_path / "home")
    monkeypatch.setenv("P2PHUB_HOME", str(home.folder))
    with home.node() as node:
        variables: dict[str, str] = {}
        url = integrations.connect(variables)
        shown = home.ask("env")
        lines = home.call("env").out.splitlines()

    assert (url, variables) == (node.local_url, shown)
    assert set(shown) == {"HF_ENDPOINT", "HF_TOKEN"}
    assert lines == [f"export {name}={text}" for name, text in shown.items()]


def test_without_a_node_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("P2PHUB_HOME", str(tmp_path / "home"))
    with pytest.raises(p2phub.NotFound, match="no node runs"):
        integrations.connect({})

    assert "no node runs" in Home(tmp_path / "home").call("env", code=3).err


def test_after_the_client_was_imported_it_is_too_late(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace())
    with pytest.raises(p2phub.HubError, match="imported before"):
        integrations.connect({})


@pytest.fixture
def parrot(tmp_path, monkeypatch):
    """Publish a repository with code that leaves a trace when it runs; gives its name, revision and the trace."""
    folder, trace = tmp_path / "parrot", tmp_path / "trace"
    folder.mkdir()
    (folder / "hubconf.py").write_text(
        f"open({str(trace)!r}, 'w').write('ran')\ndef speak(word, times=1):\n    return word * times\n"
    )
    home = Home(tmp_path / "home")
    namespace = home.ask("id", "new")["namespace"]
    revision = home.ask("publish", str(folder), "parrot@1.0.0")["revision"]
    monkeypatch.setenv("P2PHUB_HOME", str(home.folder))

    def load(path, entry, *args, source, **kwargs):
        assert source == "local"
        call = f"hubconf.{entry}(*{args!r}, **{kwargs!r})"
        code = f"import sys; sys.path.insert(0, {path!r}); import hubconf; print({call})"
        return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(hub=SimpleNamespace(load=load)))
    return f"{namespace}/parrot", revision, trace


def test_trusted_code_runs(parrot):
    name, revision, trace = parrot
    for trust in (revision, revision.removeprefix("b3:")[:12]):
        assert p2phub.torch.load(f"{name}@1.0.0", "speak", "hi", times=2, trust=trust) == "hihi"

    assert trace.exists()


@pytest.mark.parametrize("trust", [None, "b3:" + "0" * 64, "0" * 12])
def test_code_that_is_not_trusted_does_not_run(parrot, trust):
    name, revision, trace = parrot
    with pytest.raises(p2phub.AccessDenied, match=revision):
        p2phub.torch.load(name, "speak", "hi", trust=trust)

    assert not trace.exists()


@pytest.mark.parametrize("trust", ["", "b3:", "yes", "abc", "B3:" + "0" * 64])
def test_trust_is_given_to_a_hash(parrot, trust):
    name, _, trace = parrot
    with pytest.raises(p2phub.InvalidName):
        p2phub.torch.load(name, "speak", "hi", trust=trust)

    assert not trace.exists()


def test_code_that_was_changed_on_disk_does_not_run(parrot):
    name, revision, trace = parrot
    folder = p2phub.fetch(revision, with_code=True).path
    path = f"{folder}/hubconf.py"
    os.chmod(path, 0o644)
    with open(path, "a") as file:
        file.write("# changed\n")
    with pytest.raises(p2phub.HubError):
        p2phub.torch.load(name, "speak", "hi", trust=revision)

    assert not trace.exists()
