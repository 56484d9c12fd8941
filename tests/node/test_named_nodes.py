"""What a domain may make a node do: call the nodes that it names, and nothing of the network behind this one."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import pytest
import trio

from p2phub.core.errors import DomainError
from p2phub.core.names import Address
from p2phub.core.wellknown import WellKnown
from p2phub.node import names
from p2phub.node.claiming import claim_domain, drop_domain
from p2phub.node.events import ignore
from p2phub.node.identity import create_identity
from p2phub.node.node import Node
from p2phub.testing.domain import Domain
from p2phub.testing.hostile import open_home, serving, wait_for
from p2phub.testing.webserver import WebServer

DOMAIN = "lab.example"


def saying(monkeypatch: pytest.MonkeyPatch, file: WellKnown) -> None:
    """Let every domain say `file`, as a public web server would."""

    async def ask(node: Node, domain: str) -> WellKnown:
        return file

    monkeypatch.setattr(names, "ask_domain", ask)


def resolving(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    real = socket.getaddrinfo

    def look_up(host: str, port: int, *more: object, **named: object) -> list[object]:
        return real(address if host == "inside.evil.example" else host, port, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.mark.parametrize("host", ["127.0.0.1", "inside.evil.example"])
async def test_a_public_domain_leads_to_no_node_inside(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving(monkeypatch, "127.0.0.1")
    async with open_home(tmp_path / "lab") as lab, open_home(tmp_path / "me") as me:
        namespace = create_identity(lab).namespace
        with WebServer({}) as inside:
            saying(monkeypatch, WellKnown(namespace, (Address(lab.id, host, inside.port),)))
            with pytest.raises(DomainError, match="nobody who could be asked knows it"):
                await names.prove(me, DOMAIN, ignore)

            assert inside.connections == 0
            # Where its owner says that the domain is of his own network, it is asked there.
            own = {DOMAIN: ("127.0.0.1", inside.port)}
            async with open_home(tmp_path / "insider", domains_at=own) as insider:
                with pytest.raises(DomainError):
                    await names.prove(insider, DOMAIN, ignore)
            assert inside.connections > 0


async def test_a_node_that_says_something_else_is_not_believed_and_banned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_home(tmp_path / "lab") as lab, open_home(tmp_path / "other") as other:
        namespace = create_identity(lab).namespace
        await claim_domain(lab, DOMAIN, [], ignore)
        wrong = create_identity(other).namespace
        # It answers with the documents of another publisher.
        monkeypatch.setattr(lab.store.logs, "identity_chain", lambda _: other.store.logs.identity_chain(wrong))
        async with serving(lab) as address, open_home(tmp_path / "me", domains_at={DOMAIN: ("127.0.0.1", 1)}) as me:
            saying(monkeypatch, WellKnown(namespace, (address,)))
            with pytest.raises(DomainError, match="nobody who could be asked knows it"):
                await names.prove(me, DOMAIN, ignore)
            banned = me.store.peers.get(lab.id)

    assert banned is not None
    assert banned.banned_until > 0


async def test_an_older_document_does_not_bring_back_a_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        open_home(tmp_path / "lab") as lab,
        open_home(tmp_path / "old") as old,
        open_home(tmp_path / "me", domains_at={DOMAIN: ("127.0.0.1", 1)}) as me,
    ):
        namespace = create_identity(lab).namespace
        await claim_domain(lab, DOMAIN, [], ignore)
        old.store.logs.add_identity(lab.store.logs.identity(namespace))
        await drop_domain(lab, DOMAIN)
        me.store.logs.add_identity(lab.store.logs.identity(namespace))
        async with serving(old) as address:
            saying(monkeypatch, WellKnown(namespace, (address,)))
            with pytest.raises(DomainError, match="does not claim"):
                await names.prove(me, DOMAIN, ignore)

        # Who does not know better believes it, until it hears of the newer one.
        async with open_home(tmp_path / "new", domains_at={DOMAIN: ("127.0.0.1", 1)}) as new, serving(old) as address:
            saying(monkeypatch, WellKnown(namespace, (address,)))
            assert (await names.prove(new, DOMAIN, ignore)).namespace == namespace


async def test_a_node_that_lags_behind_does_not_have_the_last_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        open_home(tmp_path / "lab") as lab,
        open_home(tmp_path / "old") as old,
        open_home(tmp_path / "me", domains_at={DOMAIN: ("127.0.0.1", 1)}) as me,
    ):
        namespace = create_identity(lab).namespace
        old.store.logs.add_identity(lab.store.logs.identity(namespace))
        await claim_domain(lab, DOMAIN, [], ignore)
        async with serving(old) as behind, serving(lab) as newest:
            saying(monkeypatch, WellKnown(namespace, (behind, newest)))

            assert (await names.prove(me, DOMAIN, ignore)).namespace == namespace


async def test_a_running_node_asks_its_domains_again(
    forget_authorities: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(names, "RECHECK_S", 0.0)
    monkeypatch.setattr(names, "RECHECK_TICK_S", 0.05)
    with Domain(tmp_path / "web") as domain:
        monkeypatch.setenv("SSL_CERT_FILE", domain.environment["SSL_CERT_FILE"])
        place = {DOMAIN: ("127.0.0.1", domain.server.port)}
        async with open_home(tmp_path / "lab") as lab, open_home(tmp_path / "me", domains_at=place) as me:
            namespace = create_identity(lab).namespace
            me.store.bindings.pin(DOMAIN, namespace, "added", now=me.clock(), checked=False)
            me.store.bindings.pin("bob", namespace, "added", now=me.clock(), checked=False)
            domain.name_publisher(str(namespace))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(names.recheck, me)

                def binding():
                    return me.store.bindings.get(DOMAIN)

                await wait_for(lambda: binding().checked is not None, "the domain to be asked")
                domain.say("nothing")
                await wait_for(lambda: binding().problem is not None, "it to be found silent")
                silent = binding()
                with caplog.at_level(logging.WARNING):
                    domain.name_publisher("b" * 51 + "a")
                    await wait_for(lambda: binding().offered is not None, "the change to be found")
                nursery.cancel_scope.cancel()

            assert silent.namespace == namespace
            assert silent.checked is not None
            assert binding().namespace == namespace
            assert f"{DOMAIN} names another publisher than before" in caplog.text
            assert me.store.bindings.get("bob").tried is None
