"""Private and sealed repositories at the doors of a machine: the owner reads them, to all others they are not there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from doorkit import open_door
from test_public_door import open_public

from p2phub.core.ids import NamespaceId
from p2phub.node import names
from p2phub.node.events import ignore
from p2phub.node.identity import create_identity
from p2phub.node.node import Node
from p2phub.node.publish import publish
from p2phub.testing.hostile import open_home

READS = [
    "/api/models/{name}",
    "/api/models/{name}?blobs=true",
    "/api/models/{name}/revision/main",
    "/api/models/{name}/revision/1.0.0",
    "/api/models/{name}/tree/main",
    "/api/models/{name}/refs",
    "/api/models/{name}/commits/main",
    "/api/models/{name}/auth-check",
    "/{name}/resolve/main/README.md",
    "/{name}?tf-hub-format=compressed",
]


@asynccontextmanager
async def home(folder: Path) -> AsyncIterator[tuple[Node, str]]:
    """Give a node of somebody who published `hidden` for himself, `locked` sealed, and `open` for all."""
    (folder / "model").mkdir()
    async with open_home(folder / "home") as node:
        namespace = create_identity(node).namespace
        for name, options in (("hidden", {"visibility": "private"}), ("locked", {"sealed": True}), ("open", {})):
            (folder / "model" / "README.md").write_text(f"# {name}\n")
            await publish(node, folder / "model", f"{name}@1.0.0", ignore, **options)  # type: ignore[arg-type]
        yield node, str(namespace)


async def statuses(client: httpx.AsyncClient, name: str) -> set[int]:
    paths = [path.format(name=name) for path in READS]
    asked = [await client.get(path) for path in paths]
    info = await client.post(f"/api/models/{name}/paths-info/main", data={"paths": "README.md"})
    return {answer.status_code for answer in [*asked, info]}


async def told(client: httpx.AsyncClient, name: str) -> list[tuple[int, str, str]]:
    """Return all that is told of a repository."""
    answers = [await client.get(path.format(name=name)) for path in READS]
    return [(each.status_code, each.headers.get("x-error-code", ""), each.text) for each in answers]


async def test_the_owner_reads_what_is_private_with_the_token(tmp_path: Path) -> None:
    async with home(tmp_path) as (node, namespace), open_door(node) as client:
        assert await statuses(client, f"{namespace}/hidden") == {200}
        assert await statuses(client, f"{namespace}/locked") == {200}


async def test_to_others_of_the_machine_and_at_the_public_door_it_is_not_there(tmp_path: Path) -> None:
    async with home(tmp_path) as (node, namespace), open_door(node) as client, open_public(node) as public:
        client.headers["authorization"] = ""
        for each in (client, public):
            hidden, absent = await told(each, f"{namespace}/hidden"), await told(each, f"{namespace}/absent")

            assert {status for status, _, _ in hidden} == {404}
            assert [(status, code, text.replace("hidden", "absent")) for status, code, text in hidden] == absent
            listed = await each.get("/api/models?full=true")
            assert "hidden" not in listed.text
            assert {row["id"] for row in listed.json()} == {f"{namespace}/open", f"{namespace}/locked"}
            assert await statuses(each, f"{namespace}/open") == {200}


async def test_what_is_sealed_is_opened_for_its_owner_alone(tmp_path: Path) -> None:
    async with home(tmp_path) as (node, namespace), open_door(node) as client, open_public(node) as public:
        client.headers["authorization"] = ""
        for each in (client, public):
            answer = await each.get(f"/{namespace}/locked/resolve/main/README.md")

            assert (answer.status_code, answer.headers["x-error-code"]) == (403, "GatedRepo")
            assert "# locked" not in answer.text


async def test_the_public_door_knows_no_petnames(tmp_path: Path) -> None:
    """How the owner calls others is his business."""
    async with home(tmp_path) as (node, namespace), open_door(node) as client, open_public(node) as public:
        node.store.bindings.pin("friend", NamespaceId.parse(namespace), "added", now=node.clock(), checked=False)
        answers = [(await each.get("/api/models/friend/open")).status_code for each in (client, public)]

    assert answers == [200, 404]


@pytest.mark.parametrize("name", ["unknown.example/model", "unknown.example/a"])
async def test_the_public_door_asks_no_domain(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask_domain(*_: object) -> None:
        raise AssertionError("a domain was asked on a stranger's account")

    monkeypatch.setattr(names, "ask_domain", ask_domain)
    async with home(tmp_path) as (node, _), open_public(node) as public:
        assert (await public.get(f"/api/models/{name}")).status_code == 404
        assert (await public.get(f"/api/models?author={name.partition('/')[0]}")).json() == []
