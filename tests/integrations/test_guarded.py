"""The stock client of another hub meets a gate, and what is sealed, and gets both when it may."""

from __future__ import annotations

from pathlib import Path

from clientkit import run_client

from p2phub.testing import values
from p2phub.testing.processes import Home, wait_until

_ASK = """
    import sys
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError
    name = sys.argv[1]
    print("gated", HfApi().model_info(name).gated if len(sys.argv) == 2 else "-")
    for call in (lambda: hf_hub_download(name, "model.bin"), lambda: snapshot_download(name)):
        try:
            call()
            print("came")
        except GatedRepoError as exc:
            print("refused", "gate accept" in str(exc), "sealed" in str(exc))
"""


def write_model(folder: Path) -> None:
    folder.mkdir()
    (folder / "model.bin").write_bytes(values.content("weights", 300_000))
    (folder / "config.json").write_text("{}")


def ask(home: Home, folder: Path, *arguments: str) -> list[str]:
    return run_client(_ASK, folder, *arguments, **home.ask("env")).split("\n")


def test_a_gate_is_a_gated_repository_until_it_is_passed(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    (tmp_path / "licence").write_text("Be kind to parrots.")
    alice, bob = Home(tmp_path / "alice"), Home(tmp_path / "bob")
    namespace = alice.ask("id", "new")["namespace"]
    bob.call("id", "new")
    alice.call("publish", str(tmp_path / "model"), "parrot")
    alice.call("gate", "set", "parrot", "--licence", str(tmp_path / "licence"), "--approval", "manual")
    with alice.node() as door, bob.node(peers=(door.address,)):
        name = f"{namespace}/parrot"
        asked = ask(bob, tmp_path / "first", name)
        assert asked[:3] == ["gated manual", "refused True False", "refused True False"]
        bob.call("gate", "accept", name, "--yes")
        assert ask(bob, tmp_path / "second", name)[1:3] == ["refused False False"] * 2
        alice.call("gate", "approve", "parrot", bob.ask("id", "show")["namespace"])
        wait_until(lambda: bob.ask("gate", "show", name)["state"] == "good", "Bob to hear of it")

        assert ask(bob, tmp_path / "third", name)[1:3] == ["came", "came"]


def test_what_is_sealed_comes_opened_for_its_recipient_alone(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    homes = [Home(tmp_path / name) for name in ("alice", "bob", "eve")]
    alice, bob, eve = homes
    names = [home.ask("id", "new")["namespace"] for home in homes]
    with alice.node() as door, bob.node(peers=(door.address,)), eve.node(peers=(door.address,)):
        wait_until(lambda: len(alice.ask("peers", "ls")) == 2, "Alice to hear of the others")
        alice.call("publish", str(tmp_path / "model"), "parrot", "--sealed-for", names[1])
        name = f"{names[0]}/parrot"

        assert ask(bob, tmp_path / "mine", name)[:3] == ["gated False", "came", "came"]
        assert ask(eve, tmp_path / "not mine", name, "-")[1:3] == ["refused False True"] * 2
    came = next((tmp_path / "mine").rglob("snapshots/*/model.bin"))
    assert came.read_bytes() == values.content("weights", 300_000)
