"""Gates from one end to the other, with real processes: set, read, accept, approve, refuse."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from p2phub.testing import values
from p2phub.testing.processes import Home, RunningNode, tree, wait_until

LICENCE = "Be kind to parrots.\nGive them names.\n"


@dataclass
class People:
    """A publisher whose node runs, and others who know it."""

    alice: Home
    bob: Home
    eve: Home
    door: RunningNode
    names: dict[str, str]
    folder: Path

    def model(self, name: str) -> str:
        return f"{self.names['alice']}/{name}"


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    """Alice published `parrot`, `finch` and `owl`, each behind a gate of another kind, and `open` behind none."""
    place = tmp_path_factory.mktemp("gates")
    homes = {name: Home(place / name) for name in ("alice", "bob", "eve")}
    names = {name: home.ask("id", "new")["namespace"] for name, home in homes.items()}
    (place / "licence.txt").write_text(LICENCE)
    folder = place / "model"
    folder.mkdir()
    alice = homes["alice"]
    with alice.node() as door:
        for name in ("parrot", "finch", "owl", "open"):
            (folder / "model.bin").write_bytes(values.content(name, 300_000))
            alice.call("publish", str(folder), f"{name}@1.0.0")
        gate = ("--licence", str(place / "licence.txt"), "--name", "Parrot-1.0")
        alice.call("gate", "set", "parrot", *gate)
        alice.call("gate", "set", "finch", *gate, "--approval", "manual")
        alice.call("gate", "set", "owl", *gate, "--per", "person")
        for home in (homes["bob"], homes["eve"]):
            home.call("peers", "add", door.address)
        yield People(alice, homes["bob"], homes["eve"], door, names, place)


def test_what_is_asked_for_can_be_read_before_it_is_accepted(people: People, tmp_path: Path) -> None:
    refused = people.eve.call("fetch", people.model("parrot"), "--to", str(tmp_path / "out"), code=7)

    assert "asks you to accept a licence first: Parrot-1.0" in refused.err
    assert f"p2phub gate accept {people.model('parrot')}" in refused.err
    assert tree(tmp_path) == {}
    assert LICENCE in people.eve.call("gate", "show", people.model("parrot")).out
    shown = people.eve.ask("gate", "show", people.model("parrot"))
    assert (shown["per"], shown["approval"], shown["state"]) == ("institution", "automatic", "asked")
    assert people.eve.ask("info", people.model("parrot"))["gate"] == "Parrot-1.0"
    why = people.eve.ask("trust", "why", people.model("parrot"))
    assert [each["verdict"] for each in why if each["about"] == "licence"] == ["bad"]
    assert people.eve.ask("ls", people.model("parrot"))[0]["path"] == "model.bin"
    people.eve.call("fetch", people.model("open"), "--to", str(tmp_path / "open"))


def test_who_accepts_gets_it_and_keeps_it(people: People, tmp_path: Path) -> None:
    # Nobody is there to say yes.
    said = people.bob.run("gate", "accept", people.model("parrot"), code=2)
    assert LICENCE in said.err
    assert "accept Parrot-1.0 of" in said.err
    assert "--yes" in said.err
    accepted = people.bob.ask("gate", "accept", people.model("parrot"), "--yes")

    assert (accepted["state"], accepted["told"]) == ("good", 1)
    people.bob.call("fetch", people.model("parrot"), "--to", str(tmp_path / "out"))
    assert (tmp_path / "out/model.bin").read_bytes() == values.content("parrot", 300_000)
    receipts = people.alice.ask("gate", "ls")
    assert [each["namespace"] for gate in receipts for each in gate["receipts"]] == [people.names["bob"]]
    people.bob.call("fetch", people.model("parrot"), "--to", str(tmp_path / "again"), "--offline")
    assert people.bob.ask("gate", "accepted")[0]["name"] == "Parrot-1.0"


def without_own_check() -> mock._patch[mock.AsyncMock]:
    """Let a client not ask itself whether something was accepted: only the node that serves is in its way."""
    return mock.patch("p2phub.node.fetch.require_accepted", mock.AsyncMock())


def test_a_node_gives_nothing_to_a_client_that_asks_without_having_accepted(people: People, tmp_path: Path) -> None:
    with without_own_check():
        refused = people.eve.call("fetch", people.model("parrot"), "--to", str(tmp_path / "out"), code=3)

    assert "no peer we know of offers" in refused.err
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("name", ["parrot", "owl"])
def test_a_receipt_that_was_borrowed_opens_nothing(people: People, name: str, tmp_path: Path) -> None:
    """Eve has a copy of Bob's receipt, and shows it as her own."""
    people.bob.call("gate", "accept", people.model(name), "--yes", "--to", str(tmp_path / "receipt"))
    thief = Home(tmp_path / "thief")
    shutil.copytree(people.eve.folder, thief.folder)

    from p2phub.core.gates import SignedReceipt, read_receipt
    from p2phub.store.layout import Layout
    from p2phub.store.store import Store

    with Store(Layout(people.bob.folder, people.bob.store)) as store:
        stolen = [each for each in store.gates.own_receipts() if (gate := store.gates.by_leaf(each.gate))
                  and gate.model == name]  # fmt: skip
    with Store(Layout(thief.folder, thief.store)) as store:
        for each in stolen:
            store.gates.keep(SignedReceipt(read_receipt(each.data), each.data), None)
    # It does not care that a receipt is of another machine.
    with without_own_check(), mock.patch("p2phub.node.receipts.own_receipt", return_value=stolen[-1]):
        refused = thief.call("fetch", people.model(name), "--to", str(tmp_path / "out"), code=3)

    assert "no peer we know of offers" in refused.err
    assert not (tmp_path / "out").exists()


def publish_as_own(home: Home, revision: str, name: str) -> None:
    """Let a home publish a revision that somebody else made, as if it were its own."""
    import trio

    from p2phub.core.ids import ManifestId
    from p2phub.node.committing import publish_revision
    from p2phub.node.events import ignore
    from p2phub.node.node import open_node
    from p2phub.node.settings import Settings

    async def work() -> None:
        settings = Settings.from_environment(home.environment())
        async with open_node(settings) as node:
            await publish_revision(node, name, "main", ManifestId.parse(revision), ignore, version=None)

    trio.run(work)


def test_a_publisher_opens_no_gate_by_publishing_what_is_behind_it(people: People, tmp_path: Path) -> None:
    """The manifest of what is gated is public: anybody can put his name to it, openly or behind a gate of his own."""
    shown = people.bob.ask("info", people.model("owl"))
    thief, friend = Home(tmp_path / "thief"), Home(tmp_path / "friend")
    for home in (thief, friend):
        home.call("id", "new")
        home.call("peers", "add", people.door.address)
        home.ask("info", people.model("owl"))
    publish_as_own(thief, shown["revision"], "free-owl")
    publish_as_own(friend, shown["revision"], "cheap-owl")
    (tmp_path / "terms").write_text("Anything goes.")
    friend.call("gate", "set", "cheap-owl", "--licence", str(tmp_path / "terms"), "--per", "person")
    with thief.node(peers=(people.door.address,)), friend.node(peers=(people.door.address,)):
        free = f"{thief.ask('id', 'show')['namespace']}/free-owl"
        cheap = f"{friend.ask('id', 'show')['namespace']}/cheap-owl"
        for name in (free, cheap):
            heard = lambda name=name: people.alice.call("info", name, code=None).code == 0  # noqa: E731
            wait_until(heard, "Alice to hear of it")
        reader = Home(tmp_path / "reader")
        reader.call("id", "new")
        reader.call("peers", "add", people.door.address)
        reader.call("gate", "accept", cheap, "--yes")

        for name in (free, cheap, shown["revision"]):
            refused = reader.call("fetch", name, "--to", str(tmp_path / "out"), code=3)
            assert "no peer we know of offers" in refused.err


def test_where_each_person_accepts_another_machine_of_the_same_publisher_accepts_too(
    people: People, tmp_path: Path
) -> None:
    people.bob.call("gate", "accept", people.model("owl"), "--yes")
    people.bob.call("fetch", people.model("owl"), "--to", str(tmp_path / "bob"))
    second = Home(tmp_path / "second")
    shutil.copytree(people.bob.folder / "keys", second.folder / "keys")
    shutil.copy(people.bob.folder / "identity.cbor", second.folder)
    (second.folder / "keys/node.key").unlink()
    second.call("peers", "add", people.door.address)

    second.call("fetch", people.model("owl"), "--to", str(tmp_path / "out"), code=7)
    # Once for all machines of an institution: its receipt is all that this one needs.
    second.call("gate", "accept", people.model("parrot"), "--yes")
    second.call("fetch", people.model("parrot"), "--to", str(tmp_path / "parrot"))
    second.call("gate", "accept", people.model("owl"), "--yes")
    second.call("fetch", people.model("owl"), "--to", str(tmp_path / "out"))


def test_the_publisher_approves_and_refuses(people: People, tmp_path: Path) -> None:
    model = people.model("finch")
    assert people.bob.ask("gate", "accept", model, "--yes")["state"] == "waiting"
    waiting = people.bob.call("fetch", model, "--to", str(tmp_path / "out"), code=7)
    assert "has not approved it yet" in waiting.err
    with without_own_check():
        people.bob.call("fetch", model, "--to", str(tmp_path / "out"), code=3)
    assert [each["state"] for each in people.alice.ask("gate", "ls")[0]["receipts"]] == ["waiting"]

    people.alice.call("gate", "approve", "finch", people.names["bob"])

    wait_until(lambda: people.bob.ask("gate", "show", model)["state"] == "good", "Bob to hear of it")
    people.bob.call("fetch", model, "--to", str(tmp_path / "out"))
    assert "refuse" not in people.alice.call("log", "finch").out
    people.alice.call("gate", "refuse", "finch", people.names["bob"])
    wait_until(lambda: people.bob.ask("gate", "show", model)["state"] == "refused", "Bob to hear of it")
    # What was fetched stays usable.
    people.bob.call("fetch", model, "--to", str(tmp_path / "again"))
    shutil.rmtree(people.bob.store / "objects")
    assert "refused" in people.bob.call("fetch", model, "--to", str(tmp_path / "new"), code=7).err
    with without_own_check():
        people.bob.call("fetch", model, "--to", str(tmp_path / "new"), code=3)


def test_a_receipt_can_be_handed_over_as_a_file(people: People, tmp_path: Path) -> None:
    eve, model = people.eve, people.model("finch")
    done = eve.ask("gate", "accept", model, "--yes", "--to", str(tmp_path / "receipt"))
    assert done["file"] == str(tmp_path / "receipt")

    people.alice.call("gate", "approve", "finch", str(tmp_path / "receipt"), "--days", "30")

    wait_until(lambda: eve.ask("gate", "show", model)["state"] == "good", "Eve to hear of it")
    (tmp_path / "broken").write_text("no receipt")
    assert "no receipt" in people.alice.call("gate", "approve", "finch", str(tmp_path / "broken"), code=1).err
    assert "there is no file" in people.alice.call("gate", "approve", "finch", str(tmp_path / "none"), code=2).err


def test_other_terms_are_accepted_anew_and_a_gate_can_go(people: People, tmp_path: Path) -> None:
    (tmp_path / "terms.txt").write_text("Other terms.")
    model = people.model("parrot")
    seen = people.bob.ask("gate", "show", model)["gate"]
    people.alice.call("gate", "set", "parrot", "--licence", str(tmp_path / "terms.txt"))

    wait_until(lambda: people.bob.ask("gate", "show", model)["gate"] != seen, "Bob to hear of it")
    assert people.bob.ask("gate", "show", model)["state"] == "asked"
    shown = people.eve.ask("gate", "show", model)
    assert (shown["name"], shown["licence"]) == ("terms.txt", "Other terms.")
    people.alice.call("gate", "off", "parrot")
    wait_until(lambda: people.eve.call("gate", "show", model, code=None).code == 3, "Eve to hear of it")
    people.eve.call("fetch", model, "--to", str(tmp_path / "out"))


def read(node: RunningNode, path: str, *, as_owner: bool = True) -> tuple[int, dict[str, str], bytes]:
    token = json.loads(node.home.daemon_file.read_text())["token"]
    headers = {"authorization": f"Bearer {token}"} if as_owner else {}
    try:
        with urlopen(Request(f"{node.local_url}/{path}", headers=headers), timeout=60) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except HTTPError as exc:
        return exc.code, dict(exc.headers), exc.read()


def test_the_hub_door_says_that_it_is_gated(people: People, tmp_path: Path) -> None:
    other = Home(tmp_path / "carol")
    other.call("id", "new")
    model, file = people.model("owl"), f"{people.model('owl')}/resolve/main/model.bin"
    with other.node(peers=(people.door.address,)) as node:
        status, headers, _ = read(node, file)
        assert (status, headers["x-error-code"]) == (403, "GatedRepo")
        assert "gate accept" in headers["x-error-message"]
        assert json.loads(read(node, f"api/models/{model}")[2])["gated"] == "auto"
        assert read(node, f"api/models/{model}/auth-check")[0] == 403
        lists = {word: json.loads(read(node, f"api/models?gated={word}")[2]) for word in ("true", "false")}
        assert [row["gated"] for row in lists["true"] if row["id"] == model] == ["auto"]
        assert model not in [row["id"] for row in lists["false"]]

        other.call("gate", "accept", model, "--yes")

        assert read(node, file)[2] == values.content("owl", 300_000)
        assert read(node, f"api/models/{model}/auth-check")[0] == 200
        # Who accepted is the owner of the node, and not whoever else uses the machine.
        status, headers, _ = read(node, file, as_owner=False)
        assert (status, headers["x-error-code"]) == (403, "GatedRepo")


def test_a_machine_that_acts_for_an_institution_takes_its_receipt(people: People, tmp_path: Path) -> None:
    """It has no key of the institution, and cannot accept anything by itself."""
    worker, model = Home(tmp_path / "worker"), people.model("finch")
    worker.call("peers", "add", people.door.address)
    assert worker.call("gate", "accept", model, "--yes", code=None).code in (3, 5)
    own = worker.ask("status")["node_id"]
    word = people.bob.ask("id", "delegate", own)["word"]
    worker.call("id", "delegate", "--take", word)
    people.bob.call("gate", "accept", model, "--yes", "--to", str(tmp_path / "receipt"))
    people.alice.call("gate", "approve", "finch", people.names["bob"])
    wait_until(lambda: worker.ask("gate", "show", model)["state"] == "asked", "the worker to hear of the gate")
    worker.call("fetch", model, "--to", str(tmp_path / "out"), code=7)

    taken = worker.ask("gate", "accept", model, "--receipt", str(tmp_path / "receipt"))

    assert taken["namespace"] == people.names["bob"]
    wait_until(lambda: worker.ask("gate", "show", model)["state"] == "good", "the worker to hear of the approval")
    worker.call("fetch", model, "--to", str(tmp_path / "out"))
    assert (tmp_path / "out/model.bin").read_bytes() == values.content("finch", 300_000)
    owl = people.model("owl")
    people.bob.call("gate", "accept", owl, "--yes", "--to", str(tmp_path / "person"))
    refused = worker.call("gate", "accept", owl, "--receipt", str(tmp_path / "person"), code=1)
    assert "another machine" in refused.err


def test_what_is_private_has_no_gate_that_would_tell_of_it(people: People, tmp_path: Path) -> None:
    home, folder = Home(tmp_path / "home"), tmp_path / "model"
    home.call("id", "new")
    folder.mkdir()
    (folder / "model.bin").write_bytes(b"secret")
    home.call("publish", str(folder), "secret-parrot", "--private")
    before = home.ask("status")["own_records"]

    refused = home.call("gate", "set", "secret-parrot", "--licence", str(people.folder / "licence.txt"), code=1)

    assert "is private" in refused.err
    assert home.ask("status")["own_records"] == before
