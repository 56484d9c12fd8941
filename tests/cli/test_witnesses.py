"""A witness as a process: added in one command, killed, started again; it never vouches for a second history."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from p2phub.testing.processes import Home, RunningNode, wait_until


def key_of(node: RunningNode) -> str:
    """Return what the node says that publishers type, without the address."""
    found = wait_until(lambda: re.findall(r"p2phub witness add (\S+) ", node.errors()), "the node to say its key")
    return str(found[-1])


def publish(home: Home, folder: Path, version: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "version.txt").write_text(version)
    home.run("publish", str(folder), f"parrot@{version}")


def vouched(home: Home) -> int:
    """Return of how many records the one witness of a home vouches."""
    (witness,) = home.ask("witness", "ls")["witnesses"]
    return int(witness["size"])


def test_a_witness_that_is_killed_goes_on_and_sees_the_fork(tmp_path: Path) -> None:
    lan_off = {"P2PHUB_LAN": "off"}
    witness, alice, reader = (Home(tmp_path / name, dict(lan_off)) for name in ("witness", "alice", "reader"))
    namespace = alice.ask("id", "new")["namespace"]
    running = witness.start_node("--witness")
    key, port = key_of(running), str(running.endpoint[1])

    assert alice.ask("witness", "add", key, running.address)["problem"] is None
    publish(alice, tmp_path / "model", "1.0.0")
    shutil.copytree(alice.folder, tmp_path / "stolen")
    with alice.node() as node:
        wait_until(lambda: vouched(alice) == 1, "the witness to vouch")
        publish(alice, tmp_path / "model", "1.0.1")
        wait_until(lambda: vouched(alice) == 2, "the witness to vouch again")
        running.kill()
        publish(alice, tmp_path / "model", "1.0.2")

        # The same place, the same key, the same memory.
        with witness.node("--witness", listen=f"127.0.0.1:{port}") as again:
            assert key_of(again) == key
            wait_until(lambda: vouched(alice) == 3, "the witness to vouch after it came back")

            reader.call("peers", "add", node.address)
            reader.call("witness", "add", key)
            found = reader.ask("trust", "why", f"{namespace}/parrot")
            verdicts = {reason["about"]: reason["verdict"] for reason in found}
            assert (verdicts["newest"], verdicts["witness"]) == ("good", "good")

            # Who has the keys, and goes on from an old copy, gets no line for what he signs.
            thief = Home(tmp_path / "stolen", dict(lan_off))
            publish(thief, tmp_path / "model", "6.6.6")
            (refused,) = [thief.ask("witness", "add", key, again.address)]
            assert refused["size"] == 0
            assert "the log has another history here" in refused["problem"]
            assert [each["kind"] for each in witness.ask("trust", "conflicts")] == ["fork"]


def test_a_witness_without_its_memory_does_not_start(tmp_path: Path) -> None:
    home = Home(tmp_path / "witness", {"P2PHUB_LAN": "off"})
    with home.node("--witness"):
        pass
    (home.folder / "cosigned.sqlite").unlink()

    outcome = home.run("node", "--witness", "--listen", "127.0.0.1:0", "--local", "127.0.0.1:0", code=1)

    assert "but not what it signed" in outcome.err
    assert "move both away" in outcome.err


def test_a_key_that_was_not_copied_whole_is_refused(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", {"P2PHUB_LAN": "off"})

    for key in ("w.example", "w.example/w1+00000000+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"):
        outcome = home.call("witness", "add", key, code=2)
        assert "p2phub: error: " in outcome.err
