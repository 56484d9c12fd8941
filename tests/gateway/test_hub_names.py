"""Publishers by their names at the hub door: what a client asks for is what it is answered about."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from doorkit import Shelf, open_door

from p2phub.gateway.hub import lookup
from p2phub.node import names
from p2phub.node.claiming import claim_domain
from p2phub.node.events import ignore
from p2phub.node.node import Node
from p2phub.node.trust import add_name
from p2phub.testing.domain import Domain
from p2phub.testing.hostile import open_home, serving
from p2phub.testing.webserver import answering, stalling


@dataclass(frozen=True)
class Named:
    """A node that knows nobody, and the domain of one that has published a shelf."""

    client: httpx.AsyncClient
    node: Node
    domain: Domain


@pytest.fixture
async def named(
    forget_authorities: None,
    copy_of: Callable[[str], Path],
    shelf: Shelf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Named]:
    async with AsyncExitStack() as stack:
        domain = stack.enter_context(Domain(tmp_path / "web"))
        monkeypatch.setenv("SSL_CERT_FILE", domain.environment["SSL_CERT_FILE"])
        seed = await stack.enter_async_context(open_home(copy_of("seed")))
        address = await stack.enter_async_context(serving(seed))
        await claim_domain(seed, "lab.example", [str(address)], ignore)
        domain.name_publisher(shelf.namespace, str(address))
        place = {"lab.example": ("127.0.0.1", domain.server.port)}
        node = await stack.enter_async_context(open_home(tmp_path / "cold", domains_at=place))
        yield Named(await stack.enter_async_context(open_door(node)), node, domain)


async def test_a_model_is_read_by_the_domain_of_its_publisher_at_once(named: Named, shelf: Shelf) -> None:
    info = (await named.client.get("/api/models/lab.example/parrot")).json()
    file = await named.client.get("/lab.example/parrot/resolve/main/config.json")
    tree = await named.client.get("/api/models/lab.example/parrot/tree/1.0.0")

    assert (info["id"], info["author"], info["sha"]) == ("lab.example/parrot", "lab.example", shelf.commit)
    assert file.content == shelf.files["config.json"]
    assert {row["path"] for row in tree.json()} >= {"README.md", "weights.onnx"}
    assert named.domain.asked == 1
    assert [binding.how for binding in named.node.store.bindings.all()] == ["first use"]


async def test_a_petname_is_a_name_too(named: Named, shelf: Shelf) -> None:
    await add_name(named.node, "lab.example", None, ignore)
    await add_name(named.node, "bob", shelf.namespace, ignore)
    await named.client.get(f"/api/models/{shelf.namespace}/parrot")
    info = (await named.client.get("/api/models/bob/parrot")).json()
    rows = (await named.client.get("/api/models", params={"author": "bob"})).json()
    by_domain = (await named.client.get("/api/datasets", params={"author": "lab.example"})).json()
    everybody = (await named.client.get("/api/models")).json()

    assert info["id"] == "bob/parrot"
    assert [(row["id"], row["author"]) for row in rows] == [("bob/parrot", "bob")]
    assert [row["id"] for row in by_domain] == ["lab.example/words"]
    assert [row["id"] for row in everybody] == [shelf.name]


async def test_a_domain_that_names_another_publisher_gives_nothing(
    named: Named, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    await named.client.get("/api/models/lab.example/parrot")
    monkeypatch.setattr(names, "CHECKED_S", 0.0)
    named.domain.name_publisher("b" * 51 + "a")
    refused = [
        await named.client.get("/api/models/lab.example/parrot"),
        await named.client.head("/lab.example/parrot/resolve/main/config.json"),
        await named.client.get("/api/models/lab.example/parrot/refs"),
    ]

    for answer in refused:
        assert answer.status_code == 404
        assert answer.headers["x-error-code"] == "RepoNotFound"
        assert "lab.example names another publisher than before" in answer.headers["x-error-message"]
        assert "p2phub trust accept lab.example" in answer.headers["x-error-message"]
    assert (await named.client.get(f"/api/models/{shelf.name}")).status_code == 200


async def test_a_domain_that_cannot_be_believed_is_said_to_be(named: Named) -> None:
    named.domain.server.behaviours.append(answering(500))
    answer = await named.client.get("/api/models/lab.example/parrot")
    again = await named.client.get("/api/models/lab.example/parrot")

    assert answer.status_code == 404
    assert "lab.example answered 500" in answer.json()["error"]
    assert json.loads(again.content) == json.loads(answer.content)
    assert named.domain.asked == 1  # not again at once, whatever clients do


async def test_a_slow_domain_is_not_waited_for(named: Named, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "NAME_TIMEOUT_S", 0.3)
    named.domain.server.behaviours.append(stalling(1))
    answer = await named.client.get("/api/models/lab.example/parrot")

    assert answer.status_code == 404
    assert "did not answer within" in answer.json()["error"]


async def test_ones_own_repositories_are_written_by_ones_own_name(copy_of: Callable[[str], Path], shelf: Shelf) -> None:
    async with open_home(copy_of("here")) as node, open_door(node) as client:
        await add_name(node, "me", shelf.namespace, ignore)
        made = await client.post("/api/repos/create", json={"name": "owl", "organization": "me"})
        foreign = await client.post("/api/repos/create", json={"name": "owl", "organization": "them"})

    assert made.status_code == 200
    assert foreign.status_code == 403
