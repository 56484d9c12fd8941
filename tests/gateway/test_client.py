"""Who lets a node do something waits as long as the node lives, and no longer."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

from p2phub.core.errors import HubError
from p2phub.gateway import client
from p2phub.gateway.client import Call, find_daemon
from p2phub.node.events import Event, Notice, Progress, Tell, ignore
from p2phub.node.operations.content import PublishFolder
from p2phub.store.layout import Layout
from p2phub.testing.processes import Home

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "README.md").write_text("# Lark\n")
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Give a home that has an identity."""
    home = Home(tmp_path / "home")
    home.call("id", "new")
    return home


def publish_and_wait(home: Home, folder: Path, tell: Tell) -> Call:
    """Return what publishes, and then waits without a word for another node to confirm it."""
    daemon = find_daemon(Layout(home.folder, home.store), {})
    assert daemon is not None
    return Call(daemon, PublishFolder(str(folder), "lark@1.0.0", wait=1), tell)


def is_waiting(event: Event) -> bool:
    return isinstance(event, Progress) and event.stage == "waiting"


def test_a_node_that_hangs_in_the_middle_of_an_operation_is_given_up(home, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "SIGN_S", 0.1)
    monkeypatch.setattr(client, "SIGNS_MISSED_MAX", 3)
    told = []
    with Home(tmp_path / "gone").node() as gone:
        pass
    with home.node(peers=(gone.address,)) as node:

        def tell(event: Event) -> None:
            told.append(event)
            if is_waiting(event):
                node.process.send_signal(signal.SIGSTOP)

        try:
            with pytest.raises(
                HubError, match=rf"{node.local_url} \(process {node.pid}\) has said nothing"
            ) as given_up:
                publish_and_wait(home, folder, tell).run()
        finally:
            node.process.send_signal(signal.SIGCONT)
        published = home.ask("log", "lark")

    assert "hangs or was stopped" in str(given_up.value.hint)
    (said,) = [event.text for event in told if isinstance(event, Notice) and "says nothing" in event.text]
    assert f"process {node.pid}" in said
    assert "at most" in said
    assert [line["version"] for line in published] == ["1.0.0"]


def test_a_node_that_lives_is_waited_for_however_long_it_says_nothing(home, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "SIGN_S", 0.1)
    monkeypatch.setattr(client, "SIGNS_MISSED_MAX", 300)
    is_alive = Call._is_alive
    answers = []
    with Home(tmp_path / "other").node() as other, home.node(peers=(other.address,)):

        def ask(call: Call, connection: socket.socket) -> bool:
            answers.append(is_alive(call, connection))
            if len(answers) == 20:
                other.process.send_signal(signal.SIGCONT)
            return answers[-1]

        monkeypatch.setattr(Call, "_is_alive", ask)
        other.process.send_signal(signal.SIGSTOP)
        try:
            published = publish_and_wait(home, folder, ignore).run()
        finally:
            other.process.send_signal(signal.SIGCONT)

    assert published.confirmed == [other.node_id]
    assert len(answers) >= 20
    assert all(answers)
