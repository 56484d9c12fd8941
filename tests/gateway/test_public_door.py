"""The public door: everybody may read what is public and here, and nobody may do anything else."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio
from doorkit import TOKEN, Shelf
from test_guard import OWNERS

from p2phub.core.access import ANYBODY, Caller
from p2phub.core.errors import InvalidName
from p2phub.core.ids import ManifestId
from p2phub.gateway import public as module
from p2phub.gateway.public import PublicDoor, public_hosts
from p2phub.net.localdoor import bind_local, serve_local
from p2phub.node import names
from p2phub.node.claiming import claim_domain
from p2phub.node.events import ignore
from p2phub.node.node import Node
from p2phub.node.reading import Readings
from p2phub.node.syncing import ask_for_news
from p2phub.node.trust import add_name
from p2phub.testing.domain import Domain
from p2phub.testing.hostile import counting, open_home, serving


@asynccontextmanager
async def open_public(node: Node, *names: str) -> AsyncIterator[httpx.AsyncClient]:
    listener, endpoint = bind_local("127.0.0.1", 0)
    try:
        async with trio.open_nursery() as nursery:
            door = PublicDoor(node, Readings(node, nursery, may_fetch=False), public_hosts("127.0.0.1", names))
            await nursery.start(serve_local, door, listener)
            async with httpx.AsyncClient(base_url=f"http://{endpoint}", timeout=60) as client:
                yield client
            nursery.cancel_scope.cancel()
    finally:
        listener.close()


@pytest.fixture
async def public(copy_of: Callable[[str], Path]) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client of the public door of a node that holds the shelf."""
    async with open_home(copy_of("here")) as node, open_public(node, "models.lab.example") as client:
        yield client


async def test_everybody_may_read_what_is_public_and_here(public: httpx.AsyncClient, shelf: Shelf) -> None:
    info = await public.get(f"/api/models/{shelf.name}")
    listed = await public.get("/api/models")
    files = {path: (await public.get(f"/{shelf.name}/resolve/main/{path}")).content for path in ("README.md", "empty")}
    part = await public.get(f"/{shelf.name}/resolve/main/weights.onnx", headers={"range": "bytes=5-9"})

    assert info.json()["sha"] == shelf.commit
    assert [row["id"] for row in listed.json()] == [shelf.name]
    assert files == {path: shelf.files[path] for path in files}
    assert part.content == shelf.files["weights.onnx"][5:10]


async def test_a_page_of_a_browser_may_read_too(public: httpx.AsyncClient, shelf: Shelf) -> None:
    """It learns what everybody may know."""
    headers = {"host": "models.lab.example", "sec-fetch-site": "cross-site"}

    assert (await public.get(f"/api/models/{shelf.name}", headers=headers)).status_code == 200


@pytest.mark.parametrize(("method", "path"), OWNERS)
@pytest.mark.parametrize("headers", [{}, {"authorization": f"Bearer {TOKEN}"}])
async def test_nothing_can_be_changed_or_run_by_it_with_or_without_a_token(
    public: httpx.AsyncClient, method: str, path: str, headers: dict[str, str]
) -> None:
    answer = await public.request(method, path, headers=headers, content=b"{}")

    assert answer.status_code in (404, 405)


async def test_it_answers_by_its_names_alone(public: httpx.AsyncClient) -> None:
    names = ["127.0.0.1", "127.0.0.1:99", "models.lab.example", "MODELS.lab.example:443"]
    others = ["evil.example", "localhost", "lab.example", "models.lab.example.evil.example", ""]

    assert {(await public.get("/api/models", headers={"host": name})).status_code for name in names} == {200}
    assert {(await public.get("/api/models", headers={"host": name})).status_code for name in others} == {403}


async def test_links_lead_back_through_the_web_server_before_it(public: httpx.AsyncClient) -> None:
    headers = {"host": "models.lab.example", "x-forwarded-proto": "https"}
    answer = await public.get("/api/models?limit=1&full=true", headers=headers)
    plain = await public.get("/api/models?limit=1")
    tree = await public.get(f"/api/models/{answer.json()[0]['id']}/tree/main?limit=1", headers=headers)

    assert tree.links["next"]["url"].startswith("https://models.lab.example/api/models/")
    assert plain.status_code == 200


async def test_what_is_not_for_everybody_is_not_there(copy_of: Callable[[str], Path], shelf: Shelf) -> None:
    async with open_home(copy_of("here")) as node, open_public(node) as client:
        tip = ManifestId.parse(shelf.tip)

        def withheld(caller: Caller, identifiers: Collection[bytes]) -> set[bytes]:
            return {tip} & set(identifiers) if caller == ANYBODY else set()

        node.access.withheld = withheld  # type: ignore[method-assign]
        paths = [f"/api/models/{shelf.name}", f"/{shelf.name}/resolve/main/README.md"]
        answers = [
            await client.get(path, headers=headers)
            for path in paths
            for headers in ({}, {"authorization": f"Bearer {TOKEN}"})
        ]

    assert {answer.status_code for answer in answers} == {404}


async def test_nobody_is_asked_and_nothing_is_fetched_on_its_account(
    copy_of: Callable[[str], Path], tmp_path: Path, shelf: Shelf
) -> None:
    asked: Counter[str] = Counter()
    async with (
        open_home(copy_of("seed")) as seed,
        serving(seed, wrap=counting(asked)) as address,
        open_home(tmp_path / "here") as node,
        open_public(node) as client,
    ):
        node.store.peers.add(address)
        await ask_for_news(node, ignore, timeout_s=30)
        asked.clear()
        statuses = {
            path: (await client.get(path)).status_code
            for path in (
                f"/api/models/{shelf.name}",
                f"/{shelf.name}/resolve/main/README.md",
                f"/api/models/{shelf.namespace}/other",
                "/api/models/gpt2-org/gpt2",
                "/api/models?full=true",
            )
        }
        listed = (await client.get("/api/models")).json()

    assert set(statuses.values()) == {404, 200}
    assert statuses["/api/models?full=true"] == 200
    assert listed == []
    assert asked == {}


async def test_a_stranger_cannot_have_domains_asked_and_sees_no_petnames(
    forget_authorities: None,
    copy_of: Callable[[str], Path],
    shelf: Shelf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Domain(tmp_path / "web") as domain:
        monkeypatch.setenv("SSL_CERT_FILE", domain.environment["SSL_CERT_FILE"])
        domain.name_publisher(shelf.namespace)
        place = {"lab.example": ("127.0.0.1", domain.server.port)}
        async with open_home(copy_of("here"), domains_at=place) as node, open_public(node) as client:

            async def statuses() -> list[int]:
                those = ("lab.example", "bob", "evil.example")
                return [(await client.get(f"/api/models/{name}/parrot")).status_code for name in those]

            async def listed(author: str) -> list[str]:
                return [row["id"] for row in (await client.get("/api/models", params={"author": author})).json()]

            await claim_domain(node, "lab.example", [], ignore)
            await add_name(node, "bob", shelf.namespace, ignore)
            unpinned = await statuses()
            asked, pinned = domain.asked, [binding.name for binding in node.store.bindings.all()]
            await add_name(node, "lab.example", None, ignore)
            monkeypatch.setattr(names, "CHECKED_S", 0.0)
            known = await statuses()

            assert unpinned == [404, 404, 404]
            assert (asked, pinned) == (0, ["bob"])
            assert known == [200, 404, 404]
            assert domain.asked == 1
            assert await listed("lab.example") == ["lab.example/parrot"]
            assert await listed("bob") == []


async def test_a_file_that_is_missing_here_is_not_fetched_for_a_stranger(
    copy_of: Callable[[str], Path], shelf: Shelf
) -> None:
    async with open_home(copy_of("here")) as node, open_public(node) as client:
        manifest = node.store.manifests.get(ManifestId.parse(shelf.tip))
        assert manifest is not None
        weights = manifest.file("weights.onnx")
        assert weights is not None
        node.store.clearing.remove(weights.root)
        answer = await client.get(f"/{shelf.name}/resolve/main/weights.onnx")

    assert answer.status_code == 504
    assert "weights.onnx is not here" in answer.json()["error"]


async def test_a_request_that_never_ends_keeps_no_place(
    public: httpx.AsyncClient, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REQUEST_S", 0.2)

    headers = {"content-type": "application/x-www-form-urlencoded", "content-length": "100"}
    with trio.fail_after(60):
        stream = await trio.open_tcp_stream(public.base_url.host, public.base_url.port or 0)
        head = f"POST /api/models/{shelf.name}/paths-info/main HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        await stream.send_all(f"{head}{fields}\r\npaths=x".encode())
        answer = await stream.receive_some(1000)
        await stream.aclose()

    assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_door_at_every_address_must_be_told_its_name(host: str) -> None:
    with pytest.raises(InvalidName, match="by which name it is called"):
        public_hosts(host, ())

    assert public_hosts(host, ("Models.Lab.Example",)) == {"models.lab.example"}
