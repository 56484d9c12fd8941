"""A domain that stands for a publisher: from its web server to what people type, and all that can go wrong."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpcore
import pytest

from p2phub.net import web, wellknown
from p2phub.node import names
from p2phub.testing.domain import Domain
from p2phub.testing.processes import Home, RunningNode, wait_until
from p2phub.testing.webserver import Asked, Behaviour, Reply, answering, raw, redirecting, slowly, stalling

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("forget_authorities")]


@dataclass(frozen=True)
class Lab:
    """A publisher with a domain and a node."""

    home: Home
    node: RunningNode
    namespace: str
    domain: Domain


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Run a node whose publisher has published `parrot` and claims lab.example."""
    base = tmp_path_factory.mktemp("lab")
    home = Home(base / "home", {"P2PHUB_LAN": "off"})
    namespace = home.ask("id", "new")["namespace"]
    (base / "parrot").mkdir()
    (base / "parrot" / "weights.bin").write_bytes(os.urandom(100_000))
    home.call("publish", str(base / "parrot"), "parrot@1.0.0")
    with home.node() as node, Domain(base / "web") as domain:
        home.call("id", "domain", "lab.example", "--to", str(base / "p2phub.json"))
        domain.say((base / "p2phub.json").read_bytes())
        home.extra |= domain.environment
        yield Lab(home, node, namespace, domain)


@pytest.fixture
def always_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every name that is resolved be one that was not asked for an hour."""
    monkeypatch.setattr(names, "CHECKED_S", 0.0)


@pytest.fixture
def newcomer(lab: Lab, tmp_path: Path) -> Home:
    """Return a home that knows nobody."""
    return Home(tmp_path / "newcomer", dict(lab.domain.environment))


def test_one_command_accepts_a_domain_and_its_names_work_from_then_on(lab: Lab, newcomer: Home, tmp_path: Path) -> None:
    added = newcomer.ask("trust", "add", "lab.example")
    fetched = newcomer.ask("fetch", "lab.example/parrot@1.0.0", "--to", str(tmp_path / "parrot"))
    asked = lab.domain.asked
    info = newcomer.ask("info", "lab.example/parrot")

    assert (added["namespace"], added["source"], added["how"]) == (lab.namespace, "domain", "added")
    assert fetched["files"] == 1
    assert (tmp_path / "parrot" / "weights.bin").stat().st_size == 100_000
    assert info["namespace"] == lab.namespace
    assert lab.domain.asked == asked  # its word is good for an hour


def test_two_commands_publish_and_one_accepts_a_domain(lab: Lab, newcomer: Home, tmp_path: Path) -> None:
    (tmp_path / "owl").mkdir()
    (tmp_path / "owl" / "owl.bin").write_bytes(b"owl")
    own = newcomer.run("id", "new").out.split()[1]
    published = newcomer.run("publish", str(tmp_path / "owl"), "owl").out
    accepted = newcomer.run("trust", "add", "lab.example").out
    fetched = newcomer.run("fetch", "lab.example/parrot").err

    assert published.startswith(f"published {own}/owl\n")
    assert lab.namespace in accepted
    assert "verified" in fetched


def test_a_domain_that_is_used_for_the_first_time_is_pinned_then(lab: Lab, newcomer: Home) -> None:
    told = newcomer.call("info", "lab.example/parrot")
    pinned = newcomer.ask("trust", "ls")

    assert f"lab.example means {lab.namespace} from now on" in told.err
    assert [(each["name"], each["namespace"], each["how"]) for each in pinned] == [
        ("lab.example", lab.namespace, "first use")
    ]
    newcomer.call("info", "--offline", "lab.example/parrot")  # needs nobody any more


def test_a_domain_alone_is_a_publisher_where_no_model_of_ones_own_is_called_so(
    lab: Lab, newcomer: Home, tmp_path: Path
) -> None:
    newcomer.call("id", "new")
    by_domain = newcomer.call("trust", "why", "lab.example").out
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "own.bin").write_bytes(b"own")
    newcomer.call("publish", str(tmp_path / "v1"), "bert.v1")
    own = newcomer.ask("log", "bert.v1")

    assert "it claims lab.example" in by_domain
    assert [line["model"] for line in own] == ["bert.v1"]


def test_a_pin_that_was_removed_means_nothing(lab: Lab, newcomer: Home) -> None:
    newcomer.call("trust", "add", "lab.example")
    newcomer.call("trust", "rm", "lab.example")

    assert newcomer.ask("trust", "ls") == []
    assert "means nothing here" in newcomer.call("trust", "rm", "lab.example", code=3).err
    assert "network is switched off" in newcomer.call("info", "--offline", "lab.example/parrot", code=6).err


def test_why_is_one_answer(lab: Lab, newcomer: Home) -> None:
    newcomer.call("trust", "add", "lab.example")
    newcomer.call("trust", "add", f"bob={lab.namespace}")
    found = newcomer.ask("trust", "why", "lab.example/parrot@1.0.0")
    whole = newcomer.call("trust", "why", "bob").out
    by_id = newcomer.ask("trust", "why", f"{lab.namespace}/parrot")
    nothing = newcomer.call("trust", "why", "lab.example/owl", code=3).err

    assert {reason["verdict"] for reason in found} == {"good", "off"}
    texts = [f"{reason['about']}: {reason['text']}" for reason in found]
    for start in (
        f"name: lab.example means {lab.namespace} here since ",
        f"publisher: {lab.namespace} is proved by 2 identity documents",
        "publisher: it claims lab.example",
        "log: one record in one log, all signed",
        "revision: version 1.0.0, which never changes its meaning, is b3:",
        "content: every byte is checked",
    ):
        assert any(text.startswith(start) for text in texts), texts
    assert "bob means" in whole
    assert "revision" not in whole
    assert "branch main, which its publisher may move" in json.dumps(by_id)
    assert "nothing is known of" in nothing


def test_why_says_what_speaks_against_it(lab: Lab, newcomer: Home, always_due: None, tmp_path: Path) -> None:
    newcomer.call("trust", "add", "lab.example")
    newcomer.call("info", "lab.example/parrot")
    newcomer.call("follow", "--block", "lab.example")
    web._tls.cache_clear()
    with Domain(tmp_path / "web") as domain:
        newcomer.extra |= domain.environment
        domain.name_publisher(OTHER)
        against = newcomer.ask("trust", "why", "lab.example/parrot")

    bad = [reason["text"] for reason in against if reason["verdict"] == "bad"]
    assert any(f"lab.example names another publisher now, {OTHER}" in text for text in bad)
    assert "you blocked this publisher" in bad


def test_a_name_like_one_that_means_another_publisher_is_warned_of(lab: Lab, newcomer: Home) -> None:
    newcomer.call("trust", "add", "lab.example")
    told = newcomer.call("trust", "add", "--offline", f"1ab.example={OTHER}").err
    why = newcomer.ask("trust", "why", "lab.example")

    assert "take care: 1ab.example looks like lab.example, which means another publisher here" in told
    assert [reason["text"] for reason in why if reason["about"] == "look-alike"] == [
        "lab.example looks like 1ab.example, which means another publisher here"
    ]


def test_people_see_the_names_that_they_pinned(lab: Lab, newcomer: Home) -> None:
    newcomer.call("trust", "add", "lab.example")
    newcomer.call("trust", "add", f"bob={lab.namespace}")
    info = newcomer.call("info", "bob/parrot").out
    found = newcomer.call("search", "parrot").out
    by_name = newcomer.ask("search", "lab.example/parrot")
    by_word = newcomer.ask("search", "bob/parrot")
    nobody = newcomer.ask("search", "rob/parrot")
    log = newcomer.ask("log", "bob")
    followed = newcomer.call("follow", "bob").out

    assert "name  lab.example/parrot" in info
    assert f"publisher  {lab.namespace}" in info
    assert found.startswith("lab.example/parrot@1.0.0\n")
    # Programs see what means the same to everybody.
    assert [model["namespace"] for model in by_name["models"]] == [lab.namespace]
    assert by_word["models"] == by_name["models"]
    assert nobody["models"] == []
    assert [line["model"] for line in log] == ["parrot"]
    assert f"{lab.namespace}  lab.example" in followed


def test_the_owner_of_a_domain_sees_what_others_find(lab: Lab, tmp_path: Path) -> None:
    def check(code: int | None) -> str:
        return home.call("id", "domain", "lab.example", "--check", code=code).out

    home = Home(tmp_path / "owner", {"P2PHUB_LAN": "off"})
    namespace = home.ask("id", "new")["namespace"]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "owl.bin").write_bytes(b"owl")
    home.call("publish", str(tmp_path / "folder"), "owl")
    with Domain(tmp_path / "web") as domain:
        home.extra |= domain.environment
        unclaimed = check(1)
        text = home.ask("id", "domain", "lab.example", "--node", lab.node.address)["text"]
        missing = check(1)
        domain.say(text)
        unknown = check(1)
        domain.name_publisher(lab.namespace)
        foreign = check(1)
        with home.node(peers=(lab.node.address,)) as node:
            domain.say(home.ask("id", "domain", "lab.example")["text"])
            alone = check(0)
            domain.name_publisher(namespace, lab.node.address, node.address)
            wait_until(lambda: "answers, and knows you" in check(None), "the lab to hear")
            well = check(0)

    assert "BAD   claim         your identity does not claim lab.example" in unclaimed
    assert "BAD   web server    lab.example has no /.well-known/p2phub.json" in missing
    assert f"BAD   node          {lab.node.address} does not know you" in unknown
    assert f"BAD   namespace     it names {lab.namespace}, and you are {namespace}" in foreign
    assert "is this node: whether others reach it there is not seen from here" in alone
    assert f"ok    node          {lab.node.address} answers, and knows you" in well
    assert "BAD" not in well


def test_a_claim_that_was_dropped_is_told_of(lab: Lab, tmp_path: Path, always_due: None) -> None:
    owner = Home(tmp_path / "owner", {"P2PHUB_LAN": "off"})
    namespace = owner.ask("id", "new")["namespace"]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "owl.bin").write_bytes(b"owl")
    owner.call("publish", str(tmp_path / "folder"), "owl")
    with owner.node() as node, Domain(tmp_path / "web") as domain:
        domain.say(owner.ask("id", "domain", "lab.example")["text"])
        home = Home(tmp_path / "home", domain.environment)
        home.call("trust", "add", "lab.example")
        owner.call("id", "domain", "lab.example", "--drop")
        home.call("search", "--peer", node.address)
        told = home.call("info", "lab.example/owl").err
        against = home.ask("trust", "why", "lab.example/owl")
        again = Home(tmp_path / "again", domain.environment).call("trust", "add", "lab.example", code=3).err

    assert f"{namespace} does not claim lab.example any more; lab.example still means {namespace}" in told
    assert "it does not claim lab.example any more" in [each["text"] for each in against if each["verdict"] == "bad"]
    assert "which does not claim lab.example" in again


# ── failures of the domain ──────────────────────────────────────────────────


def endless(asked: Asked, reply: Reply) -> Reply:
    return Reply(200, b" " * 100_000, is_chunked=True)


def ten_gigabytes(asked: Asked, reply: Reply) -> Reply:
    return Reply(200, b"{", {"content-length": str(10 * 10**9)})


OTHER = "b" * 51 + "a"

FAILURES: list[tuple[str, str, Behaviour | None]] = [
    ("has no /.well-known/p2phub.json", "`p2phub id domain lab.example`", answering(404)),
    ("answered 500 internal server error", "", answering(500)),
    ("redirects from /.well-known/p2phub.json to elsewhere", "by itself", redirecting(lambda _: "https://lab.example/x")),
    ("redirects from", "", redirecting(lambda _: "http://127.0.0.1/", 308)),
    ("sends more than 65536 bytes", "", ten_gigabytes),
    ("sends more than 65536 bytes", "", endless),
    ("is too slow", "", stalling(10)),
    ("is too slow", "", slowly(5.0)),
    ("sends no HTTP answer", "", raw(b"SSH-2.0-OpenSSH_9.2\r\n")),
    ("sends no HTTP answer", "", raw(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200_000)),
    ("ended its answer too early", "", raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")),
    ("sends /.well-known/p2phub.json compressed", "", answering(200, content_encoding="gzip")),
    ("p2phub.json is no JSON", "", answering(200)),
]  # fmt: skip


@pytest.mark.parametrize(("text", "hint", "behaviour"), FAILURES)
def test_each_failure_of_the_web_server_says_what_it_is(
    text: str, hint: str, behaviour: Behaviour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wellknown, "TIMEOUT_S", 1.0)
    with Domain(tmp_path / "web", "lab.example", behaviour) as domain:
        domain.name_publisher(OTHER)
        home = Home(tmp_path / "home", domain.environment)
        told = home.call("trust", "add", "lab.example", code=3)

    assert f"lab.example {text}" in told.err.replace("cannot be believed: its /.well-known/", "")
    assert hint in told.err
    assert home.ask("trust", "ls") == []


def test_a_file_that_is_not_as_it_should_be_is_not_believed(lab: Lab, tmp_path: Path) -> None:
    files = {
        "unknown field `nodez`": f'{{"p2phub": 1, "namespace": "{OTHER}", "nodez": []}}',
        "p2phub": f'{{"p2phub": 2, "namespace": "{OTHER}"}}',
        "required field `namespace`": '{"p2phub": 1}',
        "'parrot'": '{"p2phub": 1, "namespace": "parrot"}',
        "no node address": f'{{"p2phub": 1, "namespace": "{OTHER}", "nodes": ["https://lab.example"]}}',
        "length <= 16": json.dumps({"p2phub": 1, "namespace": OTHER, "nodes": [lab.node.address] * 17}),
        "Expected `object`": "[" * 60_000,
        "is no JSON": "<html>not found</html>",
    }
    with Domain(tmp_path / "web") as domain:
        home = Home(tmp_path / "other", domain.environment)
        told = {}
        for text, file in files.items():
            domain.say(file)
            told[text] = home.call("trust", "add", "lab.example", code=3).err

    for text, error in told.items():
        assert "lab.example cannot be believed: its /.well-known/p2phub.json" in error
        assert text in error


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("certificate has expired", {"days": -1}),
        ("certificate is not valid for 'lab.example'", {"certificate_of": "evil.example"}),
    ],
)
def test_only_who_has_a_certificate_of_the_domain_speaks_for_it(text: str, options: dict, tmp_path: Path) -> None:
    with Domain(tmp_path / "web", **options) as domain:
        domain.name_publisher(OTHER)
        told = Home(tmp_path / "home", domain.environment).call("trust", "add", "lab.example", code=3).err

        assert "cannot reach lab.example: its certificate is not trusted" in told
        assert text in told
        assert domain.asked == 0


def test_an_authority_that_the_system_does_not_know_is_not_believed(tmp_path: Path) -> None:
    with Domain(tmp_path / "web") as domain:
        domain.name_publisher(OTHER)
        environment = {key: value for key, value in domain.environment.items() if key != "SSL_CERT_FILE"}
        told = Home(tmp_path / "home", environment).call("trust", "add", "lab.example", code=3).err

    assert "its certificate is not trusted (self-signed certificate)" in told


def test_a_server_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    with Domain(tmp_path / "web") as domain:
        pass
    told = Home(tmp_path / "home", domain.environment).call("trust", "add", "lab.example", code=3).err

    assert "cannot reach lab.example: Connection refused" in told


def test_a_domain_cannot_claim_a_publisher_who_does_not_claim_it(lab: Lab, tmp_path: Path) -> None:
    with Domain(tmp_path / "web", "evil.example") as domain:
        domain.name_publisher(lab.namespace, lab.node.address)
        home = Home(tmp_path / "home", domain.environment)
        told = home.call("trust", "add", "evil.example", code=3).err

        assert f"names the publisher {lab.namespace}, which does not claim evil.example" in told
        assert home.ask("trust", "ls") == []


def test_a_publisher_of_whom_nobody_knows_is_not_believed(lab: Lab, tmp_path: Path) -> None:
    with Domain(tmp_path / "web") as domain:
        home = Home(tmp_path / "home", domain.environment)
        domain.name_publisher(OTHER)
        alone = home.call("trust", "add", "lab.example", code=3).err
        domain.name_publisher(OTHER, lab.node.address)
        asked = home.call("trust", "add", "lab.example", code=3).err

    for told in (alone, asked):
        assert f"names the publisher {OTHER}, and nobody who could be asked knows it" in told


# ── bindings that change ────────────────────────────────────────────────────


def test_another_publisher_is_a_hard_error_until_somebody_accepts_him(
    lab: Lab, tmp_path: Path, always_due: None
) -> None:
    other = Home(tmp_path / "other", {"P2PHUB_LAN": "off"})
    second = other.ask("id", "new")["namespace"]
    other.call("id", "domain", "lab.example", "--node", lab.node.address)
    (tmp_path / "owl").mkdir()
    (tmp_path / "owl" / "weights.bin").write_bytes(b"owl")
    other.call("publish", str(tmp_path / "owl"), "parrot")
    with other.node() as node, Domain(tmp_path / "web") as domain:
        home = Home(tmp_path / "home", domain.environment)
        domain.name_publisher(lab.namespace, lab.node.address)
        home.call("trust", "add", "lab.example")
        domain.name_publisher(second, node.address)
        refused = home.call("info", "lab.example/parrot", code=5).err
        offline = home.call("info", "--offline", "lab.example/parrot@1.0.0", code=5).err
        shown = home.call("trust", "ls").out
        by_id = home.ask("info", f"{lab.namespace}/parrot@1.0.0")["namespace"]
        accepted = home.ask("trust", "accept", "lab.example", "--peer", node.address)
        moved = home.ask("info", "lab.example/parrot")["namespace"]
        again = home.call("trust", "accept", "lab.example").err

    for told in (refused, offline):
        assert f"lab.example names another publisher than before: {second}, and not {lab.namespace}" in told
        assert "`p2phub trust accept lab.example` accepts it" in told
    assert f"CHANGED   the domain names {second} now" in shown
    assert by_id == lab.namespace
    assert (accepted["namespace"], accepted["how"]) == (second, "accepted")
    assert moved == second
    assert "nothing to accept" in again


def test_a_change_that_was_taken_back_is_forgotten(lab: Lab, tmp_path: Path, always_due: None) -> None:
    with Domain(tmp_path / "web") as domain:
        home = Home(tmp_path / "home", domain.environment)
        domain.name_publisher(lab.namespace, lab.node.address)
        home.call("trust", "add", "lab.example")
        domain.name_publisher(OTHER)
        home.call("trust", "add", "lab.example", code=5)
        domain.name_publisher(lab.namespace)

        assert home.ask("trust", "add", "lab.example")["offered"] is None


@pytest.mark.parametrize("behaviour", [answering(404), answering(503), redirecting(lambda _: "https://x.example/")])
def test_a_pinned_domain_that_says_nothing_is_a_warning(
    lab: Lab, tmp_path: Path, always_due: None, behaviour: Behaviour
) -> None:
    with Domain(tmp_path / "web") as domain:
        home = Home(tmp_path / "home", domain.environment)
        domain.name_publisher(lab.namespace, lab.node.address)
        home.call("trust", "add", "lab.example")
        domain.server.behaviours.append(behaviour)
        told = home.call("info", "lab.example/parrot@1.0.0")
        shown = home.ask("trust", "ls")[0]

    assert f"lab.example still means {lab.namespace}, to which it was pinned" in told.err
    assert shown["problem"] is not None
    assert shown["offered"] is None


def test_what_a_domain_must_name_can_be_said_before(lab: Lab, newcomer: Home) -> None:
    wrong = newcomer.call("trust", "add", f"lab.example={OTHER}", code=1).err
    assert f"lab.example names the publisher {lab.namespace}, and not {OTHER}" in wrong
    assert newcomer.ask("trust", "ls") == []

    assert newcomer.ask("trust", "add", f"lab.example={lab.namespace}")["checked"] is not None
    assert "means" in newcomer.call("trust", "add", f"lab.example={OTHER}", code=1).err


def test_without_a_network_a_domain_is_taken_at_the_owners_word(lab: Lab, newcomer: Home) -> None:
    alone = newcomer.call("trust", "add", "--offline", "lab.example", code=6).err
    given = newcomer.ask("trust", "add", "--offline", f"lab.example={lab.namespace}")

    assert "`p2phub trust add lab.example=NAMESPACE`" in alone
    assert (given["namespace"], given["checked"]) == (lab.namespace, None)


# ── where domains may lead ──────────────────────────────────────────────────

PRIVATE = ["127.0.0.1", "10.0.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "::1", "fe80::1", "fd00::1",
           "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "0.0.0.0", "224.0.0.1"]  # fmt: skip


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the addresses that are connected to from now on; nobody answers there."""
    seen: list[str] = []

    def refuse(self: object, host: str, port: int, *_: object, **__: object) -> object:
        seen.append(host)
        raise httpcore.ConnectError("refused by the test")

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", refuse)
    return seen


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Let every name resolve to the first of `answers`, then to the next; returns which were asked for."""
    asked: list[str] = []

    def look_up(host: str, port: int, *_: object, **__: object) -> list[object]:
        asked.append(host)
        addresses = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET6 if ":" in each else socket.AF_INET, 1, 6, "", (each, port)) for each in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


@pytest.mark.parametrize("address", PRIVATE)
@pytest.mark.parametrize("among", [(), ("93.184.215.14",)])
def test_a_domain_leads_to_no_address_that_is_not_public(
    address: str, among: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connections: list[str]
) -> None:
    resolving(monkeypatch, [*among, address])
    told = Home(tmp_path / "home", {"P2PHUB_LAN": "off"}).call("trust", "add", "evil.example", code=3).err

    assert "evil.example leads to an address that is not public, and is not asked there" in told
    assert "P2PHUB_DOMAINS_AT" in told
    assert connections == []


def test_a_name_that_resolves_anew_leads_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connections: list[str]
) -> None:
    asked = resolving(monkeypatch, ["93.184.215.14"], ["127.0.0.1"])
    Home(tmp_path / "home", {"P2PHUB_LAN": "off"}).call("trust", "add", "evil.example", code=3)

    assert connections == ["93.184.215.14"]
    assert asked == ["evil.example"]
