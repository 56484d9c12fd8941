"""Names of another hub at the door: from the upstream, from peers, from those who vouch, with the hub up or down."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
import trio
from doorkit import open_door

from p2phub.core.upstream import Foreign
from p2phub.gateway.hub import foreign as foreign_module
from p2phub.node import foreign as arrivals_module
from p2phub.node import mirroring, mirrortrust
from p2phub.node.events import ignore
from p2phub.node.identity import create_identity, own_identity
from p2phub.node.node import Node
from p2phub.node.publish import publish
from p2phub.node.syncing import sync_all
from p2phub.testing.fakehub import FakeHub, is_api, is_file, like_missing
from p2phub.testing.hostile import open_home, serving
from p2phub.testing.webserver import answering, lying_from, only, slowly, stalling

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("hasty_upstream")]

NAME = "Org/Parrot-1.5"
FILES = {
    "README.md": b"# Parrot\n",
    "config.json": b'{"model_type": "llama"}',
    "empty": b"",
    "sub/w#1.bin": os.urandom(3_000_000),
}
WEIGHTS = "sub/w#1.bin"
URL = f"/{NAME}/resolve/main/sub/w%231.bin"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub(like_missing) as server:
        yield server


@pytest.fixture
async def node(hub: FakeHub, tmp_path: Path) -> AsyncIterator[Node]:
    async with open_home(tmp_path / "home", upstream=hub.url) as node:
        yield node


@pytest.fixture
async def door(node: Node) -> AsyncIterator[httpx.AsyncClient]:
    async with open_door(node) as client:
        yield client


def down(hub: FakeHub, node: Node) -> None:
    """Let the hub answer nobody, as of now."""
    hub.behaviours[:] = [answering(500)]
    node.hub.answers.clear()


async def get(client: httpx.AsyncClient, path: str, **headers: str) -> httpx.Response:
    return await client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})


async def test_a_name_of_the_hub_is_shown_as_the_hub_shows_it(hub, door):
    commit = hub.publish(NAME, FILES, pipeline_tag="text-generation", library_name="transformers", tags=["fr"])
    info = (await door.get(f"/api/models/{NAME}")).json()
    tree = await door.get(f"/api/models/{NAME}/tree/main?recursive=true&expand=true")
    rows = {row["path"]: row for row in tree.json()}
    head = await door.head(URL)
    small = await door.head(f"/{NAME}/resolve/{commit}/config.json")
    refs = (await door.get(f"/api/models/{NAME}/refs")).json()
    log = (await door.get(f"/api/models/{NAME}/commits/main")).json()
    paths = (await door.post(f"/api/models/{NAME}/paths-info/main", data={"paths": ["config.json", "nope"]})).json()
    listed = {row["path"]: row for row in json.loads(hub.pages[f"api/models/{NAME}/tree/{commit}"])}

    assert (info["id"], info["sha"], info["pipeline_tag"], info["library_name"]) == (
        NAME, commit, "text-generation", "transformers",
    )  # fmt: skip
    assert "fr" in info["tags"]
    assert [row["rfilename"] for row in info["siblings"]] == sorted(FILES)
    assert {path: rows[path]["oid"] for path in ("README.md", "config.json", "empty")} == {
        path: listed[path]["oid"] for path in ("README.md", "config.json", "empty")
    }
    assert rows[WEIGHTS]["lfs"]["oid"] == sha256(FILES[WEIGHTS]).hexdigest()
    assert "lfs" not in rows["config.json"]
    assert rows["sub"]["type"] == "directory"
    assert (head.headers["etag"], head.headers["content-length"]) == (f'"{rows[WEIGHTS]["lfs"]["oid"]}"', "3000000")
    assert small.headers["etag"] == f'"{listed["config.json"]["oid"]}"'
    assert small.headers["x-repo-commit"] == commit
    assert refs["branches"] == [{"name": "main", "ref": "refs/heads/main", "targetCommit": commit}]
    assert [row["id"] for row in log] == [commit]
    assert [row["path"] for row in paths] == ["config.json"]
    # All of this follows from the list.
    assert not any(is_file(asked) for asked in hub.asked)


async def test_many_clients_at_once_ask_the_hub_once_what_there_is(hub, door):
    files = {f"{number}.json": os.urandom(100) for number in range(16)}
    hub.publish(NAME, files)
    hub.behaviours.append(only(is_api, slowly(2000)))
    got: dict[str, bytes] = {}

    async def one(path: str) -> None:
        got[path] = (await get(door, f"/{NAME}/resolve/main/{path}")).content

    async with trio.open_nursery() as nursery:
        for path in files:
            nursery.start_soon(one, path)

    assert got == files
    assert sum(is_api(asked) for asked in hub.asked) == 2  # what stands for main, and its files


async def test_files_come_when_they_are_asked_for_and_once(hub, node, door):
    commit = hub.publish(NAME, FILES)
    got: list[bytes] = []

    async def one() -> None:
        got.append((await get(door, URL)).content)

    async with trio.open_nursery() as nursery:
        for _ in range(16):
            nursery.start_soon(one)
    part = await get(door, URL, range="bytes=1000-1999")
    beyond = await get(door, URL, range="bytes=3000000-")
    unchanged = await get(door, URL, if_none_match=part.headers["etag"])
    missing = await get(door, f"/{NAME}/resolve/main/nope.json")

    assert got == [FILES[WEIGHTS]] * 16
    assert (part.status_code, part.content) == (206, FILES[WEIGHTS][1000:2000])
    assert (beyond.status_code, unchanged.status_code) == (416, 304)
    assert (missing.status_code, missing.headers["x-error-code"]) == (404, "EntryNotFound")
    assert missing.headers["x-repo-commit"] == commit
    assert [hub.fetched(path) for path in FILES] == [0, 0, 0, 1]
    # The client's token is the door's, not the hub's.
    assert not any("authorization" in asked.headers for asked in hub.asked)


async def test_what_is_whole_by_and_by_is_vouched_for(hub, node, door):
    create_identity(node)
    commit = hub.publish(NAME, FILES)
    for path in FILES:
        assert (await door.get(f"/{NAME}/resolve/main/{path.replace('#', '%23')}")).content == FILES[path]
    repository = Foreign(hub.name, "model", *NAME.split("/"))
    with trio.fail_after(20):
        while not node.store.mirrors.attestations(repository, {own_identity(node).namespace}):  # noqa: ASYNC110
            await trio.sleep(0.05)
    (said,) = node.store.mirrors.attestations(repository, {own_identity(node).namespace})

    assert (said.commit, said.names) == (commit, ("main",))


async def test_what_was_known_goes_on_while_the_hub_is_down(hub, node, door):
    commit = hub.publish(NAME, FILES)
    await mirroring.add(node, f"hf://{NAME}", None, ignore)
    down(hub, node)
    hub.asked.clear()

    for revision in ("main", commit):
        assert (await door.get(f"/api/models/{NAME}/revision/{revision}")).json()["sha"] == commit
        assert (await door.get(URL.replace("main", revision))).content == FILES[WEIGHTS]
    # Once, to find out, and then not while clients wait.
    assert len(hub.asked) == 1
    other = await door.get(f"/api/models/{NAME}/revision/dev")
    assert (other.status_code, "answered 500" in other.json()["error"]) == (504, True)


async def test_a_branch_that_moved_at_the_hub_moves_here(hub, node, door):
    hub.publish(NAME, FILES)
    await door.get(f"/api/models/{NAME}")
    commit = hub.publish(NAME, FILES | {"config.json": b"{}"})
    node.hub.answers.clear()  # as after half a minute

    assert (await door.get(f"/api/models/{NAME}")).json()["sha"] == commit
    assert (await door.get(f"/{NAME}/resolve/main/config.json")).content == b"{}"


async def test_those_who_are_trusted_stand_for_a_hub_that_is_gone(hub, node, tmp_path):
    create_identity(node)
    namespace = own_identity(node).namespace
    commit = hub.publish(NAME, FILES)
    await mirroring.add(node, f"hf://{NAME}", None, ignore)
    down(hub, node)
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(serving(node))
        for number, settings in enumerate(({"upstream": hub.url}, {"upstream_hub": hub.name})):
            other = await stack.enter_async_context(open_home(tmp_path / f"other{number}", **settings))
            other.store.peers.add(address)
            await sync_all(other, timeout_s=20)
            door = await stack.enter_async_context(open_door(other))
            stranger = await door.get(f"/api/models/{NAME}")
            await mirrortrust.trust(other, namespace, is_trusted=True)
            info = (await door.get(f"/api/models/{NAME}")).json()
            whole = (await door.get(URL)).content
            by_commit = (await door.get(f"/{NAME}/resolve/{commit}/config.json")).content
            await mirrortrust.trust(other, namespace, is_trusted=False)
            again = await door.get(f"/api/models/{NAME}")

            assert stranger.status_code == again.status_code == (504 if "upstream" in settings else 404)
            assert (info["id"], info["sha"]) == (NAME, commit)
            assert [row["rfilename"] for row in info["siblings"]] == sorted(FILES)
            assert (whole, by_commit) == (FILES[WEIGHTS], FILES["config.json"])


async def test_with_the_hub_up_peers_give_what_they_vouch_for(hub, node, tmp_path):
    create_identity(node)
    hub.publish(NAME, FILES)
    await mirroring.add(node, f"hf://{NAME}", None, ignore)
    before = sum(is_file(asked) for asked in hub.asked)
    async with serving(node) as address, open_home(tmp_path / "other", upstream=hub.url) as other:
        other.store.peers.add(address)
        await sync_all(other, timeout_s=20)
        await mirrortrust.trust(other, own_identity(node).namespace, is_trusted=True)
        async with open_door(other) as door:
            assert (await door.get(URL)).content == FILES[WEIGHTS]

    assert sum(is_file(asked) for asked in hub.asked) == before


async def test_who_vouches_and_has_nothing_is_passed_over(hub, node, door, monkeypatch):
    monkeypatch.setattr(foreign_module, "FIRST_BYTE_S", 1.0)
    hub.publish(NAME, FILES)
    async with open_home(node.settings.layout.home.parent / "gone", upstream=hub.url) as gone:
        create_identity(gone)
        await mirroring.add(gone, f"hf://{NAME}", None, ignore)
        async with serving(gone) as address:
            node.store.peers.add(address)
            await sync_all(node, timeout_s=20)
            await mirrortrust.trust(node, own_identity(gone).namespace, is_trusted=True)
            # The manifest comes, and then its peer goes.
            await door.get(f"/api/models/{NAME}")

    assert (await door.get(URL)).content == FILES[WEIGHTS]
    assert hub.fetched("w#1.bin") == 2


@pytest.mark.parametrize("path", ["config.json", WEIGHTS])
async def test_no_byte_of_a_wrong_file_leaves_the_door(path, hub, node, door):
    hub.publish(NAME, FILES)
    hub.behaviours.append(only(lambda asked: asked.path.endswith(path), lying_from(7)))
    answer = await door.get(f"/{NAME}/resolve/main/{path.replace('#', '%23')}")
    hub.behaviours.pop()
    right = await door.get(f"/{NAME}/resolve/main/{path.replace('#', '%23')}")

    assert answer.status_code == 504
    assert "sends other bytes for" in answer.json()["error"]
    assert right.content == FILES[path]


async def test_clients_that_come_again_are_told_when(hub, node, door, monkeypatch):
    monkeypatch.setattr(foreign_module, "FIRST_BYTE_S", 0.3)
    hub.publish(NAME, FILES)
    hub.behaviours.append(only(is_file, slowly(1_500_000)))
    first = await get(door, URL, user_agent="unknown/None; hf_hub/2.4.0")
    # It goes on coming meanwhile.
    await trio.sleep(float(first.headers["retry-after"]))
    with trio.fail_after(30):
        while (again := await get(door, URL, user_agent="hf_hub/2.4.0")).status_code == 429:
            pass

    assert first.status_code == 429
    assert 1 <= int(first.headers["retry-after"]) <= 10
    assert "is being fetched" in first.json()["error"]
    assert again.content == FILES[WEIGHTS]
    assert hub.fetched("w#1.bin") == 1


async def test_a_file_that_nobody_waits_for_is_given_up(hub, node, door, monkeypatch):
    monkeypatch.setattr(arrivals_module, "LINGER_S", 0.2)
    monkeypatch.setattr(arrivals_module, "RETRY_MIN_S", 0)
    monkeypatch.setattr(foreign_module, "FIRST_BYTE_S", 0.3)
    hub.publish(NAME, FILES)
    hub.behaviours.append(only(is_file, stalling(1_000_000)))
    await get(door, URL, user_agent="hf_hub/2.4.0")
    with trio.fail_after(20):
        while node.hub.arriving:  # noqa: ASYNC110
            await trio.sleep(0.05)
    hub.behaviours.pop()

    assert (await get(door, URL)).content == FILES[WEIGHTS]
    assert hub.asked[-1].byte_range == (1_000_000, 2_999_999)


@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [
        (answering(404, x_error_code="RepoNotFound"), 404, "RepoNotFound"),
        (answering(401, x_error_code="RepoNotFound"), 404, "RepoNotFound"),
        (answering(404, x_error_code="RevisionNotFound"), 404, "RevisionNotFound"),
        (answering(403, x_error_code="GatedRepo"), 403, "GatedRepo"),
        (answering(401), 403, None),
        (answering(500), 504, None),
        (answering(418), 504, None),
    ],
)
async def test_what_the_hub_refuses_is_said_so_that_clients_understand(behaviour, status, code, hub, door):
    hub.behaviours.append(only(is_api, behaviour))
    answer = await door.get(f"/api/models/{NAME}")
    head = await door.head(URL)

    assert (answer.status_code, answer.headers.get("x-error-code")) == (status, code)
    assert (head.status_code, head.headers.get("x-error-code")) == (status, code)


@pytest.mark.parametrize("name", ["Org/%2E%2E", "Org/a--b", "%2E%2E%2Fx/etc", "O%20rg/x", "Org/x.git"])
async def test_a_name_that_no_hub_has_is_not_asked_for(name, hub, door):
    answer = await door.get(f"/api/models/{name}")

    assert answer.status_code == 404
    assert hub.asked == []


async def test_nobody_writes_to_the_names_of_another_hub(hub, node, door):
    create_identity(node)
    hub.publish(NAME, FILES)
    await door.get(f"/api/models/{NAME}")
    created = await door.post("/api/repos/create", json={"name": "Parrot-1.5", "organization": "Org"})
    committed = await door.post(
        f"/api/models/{NAME}/commit/main", content=b'{"key": "header", "value": {"summary": "x"}}\n',
        headers={"content-type": "application/x-ndjson"},
    )  # fmt: skip

    assert created.status_code in (403, 404)
    assert committed.status_code in (403, 404)


async def test_a_node_can_be_the_upstream_of_another(hub, node, door, tmp_path):
    commit = hub.publish(NAME, FILES)
    async with open_home(tmp_path / "other", upstream=str(door.base_url)) as other, open_door(other) as client:
        info = (await client.get(f"/api/models/{NAME}")).json()

        assert info["sha"] == commit
        assert (await client.get(URL)).content == FILES[WEIGHTS]
        assert (await client.get(f"/{NAME}/resolve/main/empty")).content == b""
    assert hub.fetched("w#1.bin") == 1


@asynccontextmanager
async def two_doors(folder: Path, hub: FakeHub) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Give the doors of two nodes of a site that have the same upstream."""
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(open_home(folder / name, upstream=hub.url)) for name in "ab"]
        addresses = [await stack.enter_async_context(serving(node)) for node in nodes]
        nodes[0].store.peers.add(addresses[1])
        nodes[1].store.peers.add(addresses[0])
        yield [await stack.enter_async_context(open_door(node)) for node in nodes]


async def test_two_nodes_asked_at_once_fetch_it_once(hub, tmp_path):
    hub.publish(NAME, FILES)
    hub.behaviours.append(only(is_file, slowly(4e6)))
    got: list[bytes] = []
    async with two_doors(tmp_path, hub) as doors:

        async def one(door: httpx.AsyncClient) -> None:
            got.append((await door.get(URL)).content)

        async with trio.open_nursery() as nursery:
            for door in doors:
                nursery.start_soon(one, door)

    assert got == [FILES[WEIGHTS]] * 2
    assert hub.fetched("w#1.bin") == 1


# ── lists ───────────────────────────────────────────────────────────────────

CARD = b"---\nlicense: mit\nlibrary_name: transformers\npipeline_tag: text-generation\ntags: [fr]\n---\n# Grey\n"


async def listed(door: httpx.AsyncClient, kind: str = "models", **query: object) -> list[str]:
    """Return the names on all pages of a list, in order."""
    url, params, names = f"/api/{kind}", query, []
    while url:
        answer = await door.get(url, params=params)
        assert answer.status_code == 200, answer.text
        names += [row["id"] for row in answer.json()]
        url, params = answer.links.get("next", {}).get("url"), None
    return names


async def test_mirrors_are_listed_and_found_with_what_is_known_of_them(hub, node, door):
    await on_its_own_shelf(node)
    hub.publish("Org/parrot", {"README.md": CARD, "config.json": b'{"architectures": ["LlamaForCausalLM"]}'})
    hub.publish("Org/words", {"train.csv": b"a,b\n"}, kind="dataset")
    hub.publish("Other/finch", {"README.md": b"# Finch\n"}, lastModified="2020-01-02T03:04:05.000Z")
    hub.publish("Org/only-read", {"a": b"a", "b": b"b"})
    for name in ("Org/parrot", "datasets/Org/words", "Other/finch"):
        await mirroring.add(node, f"hf://{name}", None, ignore)
    await get(door, "/Org/only-read/resolve/main/a")
    row = next(row for row in (await door.get("/api/models?full=true")).json() if row["id"] == "Org/parrot")
    info = (await door.get("/api/models/Org/parrot")).json()

    assert {**info, "trendingScore": 0} == row
    assert await listed(door, author="Org") == ["Org/parrot"]
    assert await listed(door, kind="datasets", author="Org") == ["Org/words"]
    assert await listed(door, author="Nobody") == []
    assert sorted(await listed(door)) == sorted(
        ["Org/parrot", "Other/finch", *await listed(door, author=own_name(node))]
    )
    for query in (
        {"search": "parr"}, {"search": "org arrot"}, {"search": "grey"}, {"filter": "fr"}, {"filter": "license:mit"},
        {"pipeline_tag": "text-generation"}, {"filter": ["transformers", "LlamaForCausalLM"]}, {"gated": "false"},
    ):  # fmt: skip
        assert await listed(door, author="Org", **query) == ["Org/parrot"], query
    for query in (
        {"search": "finch"}, {"filter": "en"}, {"filter": "license:apache-2.0"}, {"num_parameters": "min:1B"},
        {"gated": "true"}, {"apps": "vllm"}, {"search": "parrot x"},
    ):  # fmt: skip
        assert await listed(door, author="Org", **query) == [], query


async def test_mirrors_stand_among_all_others_by_their_age_over_all_pages(hub, node, door):
    await on_its_own_shelf(node)
    for number, year in enumerate((2030, 2020, 2031, 2010, 2020)):
        hub.publish(f"Org/m-{number}", {"a": b"a"}, lastModified=f"{year}-01-02T03:04:05.000Z")
        await mirroring.add(node, f"hf://Org/m-{number}", None, ignore)
    own = await listed(door, author=own_name(node))
    assert len(own) == 5

    for limit in (1, 2, 3, 4, 7, 100):
        for sort in ("lastModified", "createdAt", "downloads"):
            assert await listed(door, limit=limit, sort=sort) == [
                "Org/m-2", "Org/m-0", *own, "Org/m-1", "Org/m-4", "Org/m-3"
            ]  # fmt: skip
    for cursor in ("x", "bm9uZQ", "W251bGwsZmFsc2UsWzEwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMCwiYSJdXQ"):
        assert (await door.get("/api/models", params={"cursor": cursor})).status_code == 400


async def test_a_list_shows_no_name_that_the_door_would_take_for_another(hub, node, door):
    hub.publish("Org/parrot", {"a": b"a"})
    hub.publish("lab/parrot", {"a": b"a"})
    for name in ("Org/parrot", "lab/parrot"):
        await mirroring.add(node, f"hf://{name}", None, ignore)
    assert await listed(door, author="lab") == ["lab/parrot"]
    create_identity(node)
    node.store.bindings.pin("lab", own_identity(node).namespace, "added", now=1, checked=False)

    assert await listed(door) == ["Org/parrot"]
    assert await listed(door, author="lab") == []


async def test_what_the_hub_gave_to_the_owner_alone_is_in_his_lists_alone(hub, node, door):
    hub.publish("Org/parrot", {"a": b"a"})
    hub.publish("Org/hidden", {"b": b"b"}, gated="manual")
    for name in ("Org/parrot", "Org/hidden"):
        await mirroring.add(node, f"hf://{name}", None, ignore)

    assert sorted(await listed(door)) == ["Org/hidden", "Org/parrot"]
    del door.headers["authorization"]
    assert await listed(door) == ["Org/parrot"]
    assert await listed(door, author="Org", full="true") == ["Org/parrot"]


async def test_what_a_trusted_publisher_mirrored_is_listed_before_anything_of_it_is_here(hub, tmp_path):
    commit = hub.publish("Org/parrot", {"README.md": CARD})
    async with AsyncExitStack() as stack:
        keeper = await stack.enter_async_context(open_home(tmp_path / "keeper", upstream=hub.url))
        create_identity(keeper)
        await mirroring.add(keeper, "hf://Org/parrot", None, ignore)
        address = await stack.enter_async_context(serving(keeper))
        other = await stack.enter_async_context(open_home(tmp_path / "other", upstream_hub=hub.name))
        other.store.peers.add(address)
        await sync_all(other, timeout_s=30)
        door = await stack.enter_async_context(open_door(other))
        assert await listed(door) == []
        await mirrortrust.trust(other, own_identity(keeper).namespace, is_trusted=True)
        (bare,) = (await door.get("/api/models?author=Org")).json()
        (whole,) = (await door.get("/api/models?author=Org&full=true")).json()
        (then,) = (await door.get("/api/models?author=Org")).json()

        assert (bare["id"], bare["sha"], bare["tags"]) == ("Org/parrot", commit, [])
        assert (whole["pipeline_tag"], [file["rfilename"] for file in whole["siblings"]]) == (
            "text-generation", ["README.md"]
        )  # fmt: skip
        assert (then["sha"], then["pipeline_tag"], "siblings" in then) == (commit, "text-generation", False)
        await mirrortrust.trust(other, own_identity(keeper).namespace, is_trusted=False)
        assert await listed(door) == []


async def on_its_own_shelf(node: Node) -> None:
    """Let a home have published five models."""
    create_identity(node)
    for number in range(5):
        folder = node.settings.layout.home.with_name(f"own-{number}")
        folder.mkdir()
        (folder / "a").write_bytes(b"a%d" % number)
        await publish(node, folder, f"own-{number}", ignore)


def own_name(node: Node) -> str:
    return str(own_identity(node).namespace)
