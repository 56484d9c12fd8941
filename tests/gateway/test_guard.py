"""Whom the local door answers: programs of this machine, the owner alone where it matters, and no pages of browsers."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path

import httpx
import pytest
import trio
from doorkit import TOKEN, Shelf, open_door, open_local

from p2phub.core.access import ANYBODY, Caller
from p2phub.core.ids import ManifestId
from p2phub.gateway.guard import Guard
from p2phub.gateway.hub.account import Account
from p2phub.gateway.hub.app import writing_routes
from p2phub.gateway.hub.audience import Audience
from p2phub.node.node import Node
from p2phub.testing.hostile import open_home

NAME = "someone/thing"
# All that changes something, and what is for the owner alone.
OWNERS = [
    ("GET", "/api/whoami-v2"),
    ("POST", "/api/repos/create"),
    ("DELETE", "/api/repos/delete"),
    ("POST", "/api/repos/move"),
    ("PUT", f"/api/models/{NAME}/settings"),
    ("POST", f"/api/models/{NAME}/preupload/main"),
    ("POST", f"/api/models/{NAME}/commit/main"),
    ("POST", f"/api/models/{NAME}/tag/main"),
    ("DELETE", f"/api/models/{NAME}/tag/x"),
    ("POST", f"/api/models/{NAME}/branch/x"),
    ("DELETE", f"/api/models/{NAME}/branch/x"),
    ("POST", f"/{NAME}.git/info/lfs/objects/batch"),
    ("POST", f"/datasets/{NAME}.git/info/lfs/objects/batch"),
    ("POST", f"/upload/{43 * 'a'}/verify"),
    ("GET", f"/api/models/{NAME}/xet-write-token/main"),
    ("POST", f"/xet/{16 * '0'}/v1/xorbs/default/{64 * '0'}"),
    ("POST", f"/xet/{16 * '0'}/v1/shards"),
    ("POST", "/control/v1/run"),
]
# An address that was given out for one file is the permission to send it; the other says what it is told.
WITHOUT_TOKEN = [("PUT", f"/upload/{43 * 'a'}", 403), ("POST", "/api/validate-yaml", 200)]
READS = ["/healthz", "/api/models", f"/api/models/{NAME}", f"/{NAME}/resolve/main/x", "/no/such/path/here"]


def test_the_list_of_what_the_owner_alone_may_do_is_whole(tmp_path: Path) -> None:
    """A new way to change something must stand in it, or this says so."""

    async def work() -> None:
        async with open_home(tmp_path / "home") as node:
            routes = writing_routes(node, Account(node, Guard(TOKEN, ())))
            listed = [*OWNERS, *((method, path) for method, path, _ in WITHOUT_TOKEN)]
            missing = [
                (methods, pattern)
                for methods, pattern, _ in routes
                if not any(method in methods.split() and re.fullmatch(pattern, path) for method, path in listed)
            ]
            assert missing == []

    trio.run(work)


@pytest.fixture
async def local(copy_of: Callable[[str], Path]):  # type: ignore[no-untyped-def]
    """Give a client, without a token, of the whole local door of a node that holds the shelf."""
    async with open_home(copy_of("here")) as node, open_local(node) as client:
        yield client


@pytest.mark.parametrize(("method", "path"), OWNERS)
@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer hf_other"}, {"authorization": TOKEN[:-1]}])
async def test_only_who_has_the_token_changes_anything(
    local: httpx.AsyncClient, method: str, path: str, headers: dict[str, str]
) -> None:
    answer = await local.request(method, path, headers=headers, content=b"{}")

    assert answer.status_code == 401


@pytest.mark.parametrize(("method", "path", "status"), WITHOUT_TOKEN)
async def test_what_needs_no_token_changes_nothing(
    local: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    content = {"PUT": b"x", "POST": b'{"content": "", "repoType": "model"}'}[method]
    answer = await local.request(method, path, content=content, headers={"content-type": "application/json"})

    assert answer.status_code == status


# ── pages of browsers ───────────────────────────────────────────────────────

EVERYTHING = [("GET", path) for path in READS] + [
    *OWNERS,
    ("PUT", f"/upload/{43 * 'a'}"),
    ("POST", "/api/validate-yaml"),
]
PAGES = {
    "rebound": {"host": "evil.example"},
    "rebound to our port": {"host": "evil.example:8628"},
    "like ours": {"host": "localhost.evil.example"},
    "as a user": {"host": "localhost:80@evil.example"},
    "no host": {"host": ""},
    "another origin": {"origin": "https://evil.example"},
    "our own origin": {"origin": "http://127.0.0.1:8628"},
    "a sandboxed frame": {"origin": "null"},
    "a picture in another page": {"sec-fetch-site": "cross-site"},
    "a page of a neighbour": {"sec-fetch-site": "same-site"},
}


@pytest.mark.parametrize("headers", PAGES.values(), ids=PAGES.keys())
async def test_a_page_of_a_browser_gets_nothing_at_any_path_even_with_the_token(
    local: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    for method, path in EVERYTHING:
        given = {"authorization": f"Bearer {TOKEN}", **headers}
        answer = await local.request(method, path, headers=given, content=b"{}")

        assert answer.status_code == 403, (method, path)
        assert "this door" in answer.text


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:8628", "localhost:50000"])
async def test_a_program_may_come_by_any_name_of_this_machine(local: httpx.AsyncClient, host: str) -> None:
    """A port may have been forwarded."""
    assert (await local.get("/healthz", headers={"host": host})).status_code == 200


# ── secrets in URLs ─────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "target",
    [
        "/api/whoami-v2?token=x",
        f"/api/models?access_token={TOKEN}",
        "/api/models?Token=",
        f"/api/models?search={TOKEN}",
        f"/{TOKEN}/x/resolve/main/y",
        f"/api/models?x=%74{TOKEN[1:]}",
        "/control/v1/run?token=x",
    ],
)
async def test_a_token_in_a_url_is_refused(local: httpx.AsyncClient, target: str) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    method = "POST" if target.startswith("/control") else "GET"
    answer = await local.request(method, target, headers=headers)

    assert answer.status_code == 400
    assert "a token does not belong into a URL" in answer.text
    assert TOKEN not in answer.text


# ── who reads ───────────────────────────────────────────────────────────────


def withhold(node: Node, *hidden: bytes) -> None:
    """Let these files and manifests not be for everybody."""

    def withheld(caller: Caller, identifiers: Collection[bytes]) -> set[bytes]:
        return set(identifiers) & set(hidden) if caller == ANYBODY else set()

    node.access.withheld = withheld  # type: ignore[method-assign]


async def test_what_is_not_for_everybody_is_read_with_the_token_alone(
    copy_of: Callable[[str], Path], shelf: Shelf
) -> None:
    """A machine may be many people's, and all of them reach its loopback."""
    paths = [
        f"/api/models/{shelf.name}",
        f"/api/models/{shelf.name}/tree/main",
        f"/api/models/{shelf.name}/commits/main",
        f"/{shelf.name}/resolve/main/README.md",
        f"/{shelf.name}?tf-hub-format=compressed",
        f"/api/models/{shelf.name}/revision/{shelf.commit}",
    ]
    async with open_home(copy_of("here")) as node, open_door(node) as client:
        withhold(node, ManifestId.parse(shelf.tip))
        for path in paths:
            owner = await client.get(path)
            other = await client.get(path, headers={"authorization": ""})

            assert (owner.status_code, other.status_code) == (200, 404), path
            assert other.headers["x-error-code"] == "RepoNotFound"
        # What is for everybody stays so.
        first = await client.get(f"/api/models/{shelf.name}/revision/1.0.0", headers={"authorization": ""})
        assert first.status_code == 200


async def test_a_file_that_is_not_for_everybody_is_not_there_for_others(
    copy_of: Callable[[str], Path], shelf: Shelf
) -> None:
    async with open_home(copy_of("here")) as node, open_door(node) as client:
        manifest = node.store.manifests.get(ManifestId.parse(shelf.tip))
        assert manifest is not None
        weights = manifest.file("weights.onnx")
        assert weights is not None
        withhold(node, weights.root)
        path = f"/{shelf.name}/resolve/main/weights.onnx"
        answers = [await client.get(path, headers=headers) for headers in ({}, {"authorization": ""})]
        card = await client.get(f"/{shelf.name}/resolve/main/README.md", headers={"authorization": ""})
        tar = await client.get(f"/{shelf.name}?tf-hub-format=compressed", headers={"authorization": ""})

    assert [answer.status_code for answer in answers] == [200, 404]
    assert (card.status_code, tar.status_code) == (200, 404)


async def test_what_is_hidden_looks_as_what_is_not_there(copy_of: Callable[[str], Path], shelf: Shelf) -> None:
    async with open_home(copy_of("here")) as node, open_door(node) as client:
        withhold(node, ManifestId.parse(shelf.tip))
        hidden = await client.get(f"/api/models/{shelf.name}", headers={"authorization": ""})
        absent = await client.get(f"/api/models/{shelf.namespace}/absent", headers={"authorization": ""})

    assert hidden.status_code == absent.status_code
    assert hidden.headers["x-error-code"] == absent.headers["x-error-code"]
    assert hidden.text.replace("parrot", "absent") == absent.text


async def test_who_sends_an_old_token_is_told_so_whatever_he_asks_for(
    copy_of: Callable[[str], Path], shelf: Shelf
) -> None:
    """The node gets a new one at each start, and a shell keeps the old one."""
    async with open_home(copy_of("here")) as node, open_door(node) as client:
        withhold(node, ManifestId.parse(shelf.tip))
        headers = {"authorization": "Bearer that-of-yesterday"}
        paths = [f"/api/models/{shelf.namespace}/{model}" for model in ("parrot", "absent")]
        answers = [await client.get(path, headers=headers) for path in paths]
        none = await client.get(f"/api/models/{shelf.name}", headers={"authorization": ""})

    for answer in answers:
        assert (answer.status_code, answer.headers["x-error-code"]) == (404, "RepoNotFound")
        assert "is not that of this node, which `p2phub env` shows" in answer.text
    assert answers[0].text.replace("parrot", "absent") == answers[1].text
    assert none.status_code == 404
    assert "token" not in none.text


def test_there_are_three_audiences() -> None:
    """Whoever adds one must say what it may have: everything here asks whether it is the owner."""
    assert {audience.value for audience in Audience} == {"owner", "machine", "public"}
