"""What clients of other hubs publish, byte by byte on the wire."""

from __future__ import annotations

import base64
import json
import os
from hashlib import sha256

import httpx
import pytest
from doorkit import open_door

from p2phub.core.ids import ManifestId, NamespaceId
from p2phub.node.fetch import fetch
from p2phub.node.identity import create_identity
from p2phub.testing.hostile import open_home, serving, wait_for


def lines(*operations: tuple[str, dict[str, object]]) -> bytes:
    return b"".join(json.dumps({"key": key, "value": value}).encode() + b"\n" for key, value in operations)


def small(path: str, data: bytes) -> tuple[str, dict[str, object]]:
    return "file", {"path": path, "content": base64.b64encode(data).decode(), "encoding": "base64"}


async def send(door, name, *operations, branch="main", **header):
    body = lines(("header", {"summary": "change", "description": "", **header}), *operations)
    return await door.post(
        f"/api/models/{name}/commit/{branch}", content=body, headers={"content-type": "application/x-ndjson"}
    )


async def announce(door, name, data: bytes):
    """Return what the door says of a large file that is to come."""
    wanted = {"oid": sha256(data).hexdigest(), "size": len(data)}
    answer = await door.post(f"/{name}.git/info/lfs/objects/batch", json={"operation": "upload", "objects": [wanted]})
    return answer.json()["objects"][0]


async def paths(door, name, revision="main"):
    rows = (await door.get(f"/api/models/{name}/tree/{revision}?recursive=true")).json()
    return sorted(row["path"] for row in rows if row["type"] == "file")


async def test_a_repository_is_made_once(door, shelf):
    first = await door.post("/api/repos/create", json={"name": "new"})
    again = await door.post("/api/repos/create", json={"name": "new", "organization": shelf.namespace})

    assert first.status_code == 200
    assert first.json()["url"] == str(door.base_url.join(f"/{shelf.namespace}/new"))
    assert (again.status_code, again.json()["url"]) == (409, first.json()["url"])
    assert await paths(door, f"{shelf.namespace}/new") == [".gitattributes"]


async def test_a_commit_changes_what_it_names_and_keeps_the_rest(door, shelf):
    answer = await send(
        door,
        shelf.name,
        small("new/one.txt", b"one"),
        small("config.json", b"{}"),
        ("deletedFile", {"path": "empty"}),
        ("deletedFolder", {"path": "sub/"}),
        summary="tidy up",
        description="all of it",
    )
    commit = answer.json()["commitOid"]

    assert answer.status_code == 200
    assert answer.json()["commitUrl"].endswith(f"/{shelf.name}/commit/{commit}")
    assert await paths(door, shelf.name) == ["README.md", "config.json", "new/one.txt", "weights.onnx"]
    assert (await door.get(f"/{shelf.name}/resolve/main/new/one.txt")).content == b"one"
    assert (await door.get(f"/{shelf.name}/resolve/main/weights.onnx")).content == shelf.files["weights.onnx"]
    assert await paths(door, shelf.name, shelf.commit) == sorted(shelf.files)
    newest = (await door.get(f"/api/models/{shelf.name}/commits/main")).json()
    assert (newest[0]["id"], newest[0]["title"], newest[0]["message"]) == (commit, "tidy up", "all of it")
    assert len(newest) == 3


async def test_a_commit_for_another_tip_is_refused(door, shelf):
    first = shelf.first.removeprefix("b3:")[:40]
    late = await send(door, shelf.name, small("a", b"a"), parentCommit=first)
    fine = await send(door, shelf.name, small("a", b"a"), parentCommit=shelf.commit)

    assert (late.status_code, fine.status_code) == (412, 200)


async def test_a_commit_that_changes_nothing_is_none(door, shelf):
    answer = await send(door, shelf.name, small("config.json", shelf.files["config.json"]))

    assert answer.json()["commitOid"] == shelf.commit


async def test_a_large_file_comes_before_its_commit(door, shelf, tmp_path):
    data = os.urandom(5_000_000)
    oid = sha256(data).hexdigest()
    actions = (await announce(door, shelf.name, data))["actions"]
    early = await door.post(actions["verify"]["href"], json={"oid": oid, "size": len(data)})
    # Without the token, as clients do.
    put = await door.put(actions["upload"]["href"], content=data, headers={"authorization": ""})
    verified = await door.post(actions["verify"]["href"], json={"oid": oid, "size": len(data)})
    file = {"path": "big.bin", "algo": "sha256", "oid": oid, "size": len(data)}
    made = await send(door, shelf.name, ("lfsFile", file))

    assert [answer.status_code for answer in (early, put, verified, made)] == [404, 200, 200, 200]
    assert (await door.get(f"/{shelf.name}/resolve/main/big.bin")).content == data
    assert "actions" not in await announce(door, shelf.name, data)
    assert list((tmp_path / "here" / "store" / "uploads").glob("*")) == []


@pytest.mark.parametrize("is_large", [False, True])
async def test_keys_are_refused_and_do_not_stay(door, shelf, tmp_path, is_large):
    data = b"p2phub-key-1 " + b"1" * 64 + b"\n"
    before = await paths(door, shelf.name)
    if is_large:
        action = (await announce(door, shelf.name, data))["actions"]["upload"]
        assert (await door.put(action["href"], content=data, headers=action.get("header"))).status_code == 200
        operation = "lfsFile", {"path": "w.bin", "algo": "sha256", "oid": sha256(data).hexdigest(), "size": len(data)}
    else:
        operation = small("w.bin", data)
    answer = await send(door, shelf.name, operation)

    assert 400 <= answer.status_code < 500
    assert "w.bin holds secret keys" in answer.json()["error"]
    assert await paths(door, shelf.name) == before
    store = tmp_path / "here" / "store"
    assert [path for path in store.rglob("*") if path.is_file() and path.read_bytes() == data] == []


async def test_a_large_file_must_be_what_was_announced(door, shelf, tmp_path):
    data = os.urandom(100_000)
    oid = sha256(data).hexdigest()
    href = (await announce(door, shelf.name, data))["actions"]["upload"]["href"]
    wrong = await door.put(href, content=data[:-1] + bytes([data[-1] ^ 1]))
    short = await door.put(href, content=data[:-1])
    nowhere = await door.put(f"/upload/{'a' * 43}", content=data)

    async def too_much():
        for _ in range(10):
            yield data

    try:
        long_status = (await door.put(href, content=too_much())).status_code
    except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
        long_status = 413  # the connection ended while it was still sending: the answer is lost
    commit = await send(door, shelf.name, ("lfsFile", {"path": "big.bin", "algo": "sha256", "oid": oid}))

    assert [answer.status_code for answer in (wrong, short, nowhere)] == [400, 400, 403]
    assert long_status == 413
    assert (commit.status_code, commit.headers["x-error-code"]) == (404, "EntryNotFound")
    # What is refused is removed once its connection has ended.
    uploads = tmp_path / "here" / "store" / "uploads"
    await wait_for(lambda: list(uploads.glob("*")) == [], "the uploads to be gone")


async def test_small_files_go_inside_and_large_ones_before(door, shelf):
    files = [
        {"path": "a", "size": 10, "sample": ""},
        {"path": "b", "size": 10**9},
        {"path": "c.parquet", "size": 10},
        {"path": "d.parquet", "size": 0},
        {"path": "weights.onnx", "size": 9_000_000},
    ]
    rows = (await door.post(f"/api/models/{shelf.name}/preupload/main", json={"files": files})).json()["files"]

    assert [row["uploadMode"] for row in rows] == ["regular", "lfs", "lfs", "regular", "lfs"]
    assert not any(row["shouldIgnore"] for row in rows)
    assert rows[4]["oid"] == sha256(shelf.files["weights.onnx"]).hexdigest()


async def test_branches_come_and_go(door, shelf):
    url = f"/api/models/{shelf.name}/branch/dev%2Fone"
    made = await door.post(url, json={"startingPoint": "1.0.0"})
    again = await door.post(url, json={})
    await send(door, shelf.name, small("only/there", b"x"), branch="dev%2Fone")
    there = await paths(door, shelf.name, "dev%2Fone")
    gone = await door.delete(url)
    unknown = await door.delete(url)
    main = await door.delete(f"/api/models/{shelf.name}/branch/main")

    assert [answer.status_code for answer in (made, again, gone, unknown, main)] == [200, 409, 200, 404, 403]
    assert unknown.headers["x-error-code"] == "RevisionNotFound"
    assert "only/there" in there
    assert "only/there" not in await paths(door, shelf.name)


@pytest.mark.parametrize("tag", ["2.0.0", "stable"])
async def test_tags_stand_for_a_commit(door, shelf, tag):
    first = shelf.first.removeprefix("b3:")[:40]
    made = await door.post(f"/api/models/{shelf.name}/tag/{first}", json={"tag": tag})
    again = await door.post(f"/api/models/{shelf.name}/tag/main", json={"tag": tag})
    shown = (await door.get(f"/api/models/{shelf.name}/refs")).json()
    found = (await door.get(f"/api/models/{shelf.name}/revision/{tag}")).json()
    gone = await door.delete(f"/api/models/{shelf.name}/tag/{tag}")
    after = (await door.get(f"/api/models/{shelf.name}/refs")).json()
    unknown = await door.delete(f"/api/models/{shelf.name}/tag/{tag}")

    assert [answer.status_code for answer in (made, again, gone, unknown)] == [200, 409, 200, 404]
    assert {row["name"]: row["targetCommit"] for row in shown["tags"]} == {"1.0.0": first, tag: first}
    assert [row["name"] for row in shown["branches"]] == ["main"]
    assert found["sha"] == first
    assert [row["name"] for row in after["tags"]] == ["1.0.0"]
    assert (await door.get(f"/api/models/{shelf.name}")).json()["sha"] == shelf.commit  # main did not move


async def test_a_repository_moves_with_its_branches_and_versions(door, shelf):
    answer = await door.post(
        "/api/repos/move", json={"fromRepo": shelf.name, "toRepo": f"{shelf.namespace}/macaw", "type": "model"}
    )
    old = await door.get(f"/api/models/{shelf.name}")
    new = await door.get(f"/api/models/{shelf.namespace}/macaw")
    refs = (await door.get(f"/api/models/{shelf.namespace}/macaw/refs")).json()
    listed = (await door.get("/api/models")).json()

    assert (answer.status_code, old.status_code, new.json()["sha"]) == (200, 404, shelf.commit)
    assert [row["name"] for row in refs["branches"] + refs["tags"]] == ["main", "1.0.0"]
    assert [row["id"] for row in listed] == [f"{shelf.namespace}/macaw"]


async def test_a_gate_is_set_with_the_licence_of_the_repository(copy_of, shelf):
    async with open_home(copy_of("here")) as node, open_door(node) as door:
        await send(door, shelf.name, small("LICENSE.md", b"Be kind to parrots.\n"), small("sub/LICENSE", b"else"))
        settings = f"/api/models/{shelf.name}/settings"

        async def set_to(gating) -> tuple[object, object]:
            answer = await door.put(settings, json={"gated": gating})
            assert answer.status_code == 200, answer.text
            shown = (await door.get(f"/api/models/{shelf.name}")).json()["gated"]
            listed = [row["gated"] for row in (await door.get("/api/models")).json() if row["id"] == shelf.name]
            assert [answer.json()["gated"], *listed] == [shown, shown]
            return shown, node.store.gates.of_repository(NamespaceId.parse(shelf.namespace), "parrot")

        shown, gate = await set_to("manual")
        assert (shown, gate.name, gate.licence, gate.per) == ("manual", "MIT", "Be kind to parrots.\n", "person")
        shown, gate = await set_to("auto")
        assert (shown, gate.licence, gate.approval) == ("auto", "Be kind to parrots.\n", "automatic")
        assert await set_to("auto") == ("auto", gate)
        assert await set_to(False) == (False, None)
        assert await set_to("false") == (False, None)


async def test_settings_of_others_are_not_for_us(shelf, copy_of, tmp_path):
    async with open_home(tmp_path / "other") as node:
        create_identity(node)
        async with open_home(copy_of("seed")) as seed, serving(seed) as address:
            node.store.peers.add(address)
            async with open_door(node) as theirs:
                answers = [
                    await theirs.put(f"/api/models/{shelf.name}/settings", json=wanted)
                    for wanted in ({"gated": False}, {"private": False}, {})
                ]

    assert [answer.status_code for answer in answers] == [403, 403, 403]


async def test_a_deleted_repository_is_gone_and_can_be_made_again(door, shelf):
    gone = await door.request("DELETE", "/api/repos/delete", json={"name": "parrot", "organization": shelf.namespace})
    after = await door.get(f"/api/models/{shelf.name}")
    version = await door.get(f"/api/models/{shelf.name}/revision/1.0.0")
    made = await door.post("/api/repos/create", json={"name": "parrot"})

    assert [answer.status_code for answer in (gone, after, version, made)] == [200, 404, 404, 200]
    assert await paths(door, shelf.name) == [".gitattributes"]


async def test_a_private_repository_is_made_listed_and_kept_private(copy_of, shelf):
    async with open_home(copy_of("here")) as node, open_door(node) as door:
        made = await door.post("/api/repos/create", json={"name": "hushed", "private": True})
        name = f"{shelf.namespace}/hushed"
        sent = await send(door, name, small("secret.txt", b"hush"))
        info = (await door.get(f"/api/models/{name}")).json()
        listed = (await door.get(f"/api/models?author={shelf.namespace}")).json()
        found = (await door.get(f"/api/models?author={shelf.namespace}&search=HUSH&full=true")).json()
        others = (await door.get("/api/models?search=hushed")).json()
        settings = [
            (await door.put(f"/api/models/{name}/settings", json=wanted)).status_code
            for wanted in ({"private": True}, {"private": False}, {"visibility": "private"})
        ]
        moved = await door.post("/api/repos/move", json={"fromRepo": name, "toRepo": f"{shelf.namespace}/silent"})
        again = (await door.get(f"/api/models/{shelf.namespace}/silent")).json()
        del door.headers["authorization"]
        outside = await door.get(f"/api/models?author={shelf.namespace}")

        assert (made.status_code, sent.status_code, moved.status_code) == (200, 200, 200)
        assert (info["private"], again["private"]) == (True, True)
        assert {row["id"]: row["private"] for row in listed} == {name: True, shelf.name: False}
        assert [row["id"] for row in found] == [name]
        assert others == []
        assert settings == [200, 501, 200]
        assert all("silent" not in row["id"] and "hushed" not in row["id"] for row in outside.json())
        # Nothing of it is in a log that all can read.
        assert {private.repository.model for private in node.store.private.logs()} == {"hushed", "silent"}
        for state in node.store.logs.states():
            assert b"hushed" not in b"".join(node.store.logs.entries(state.log, 0, size_max=10**7))
            assert b"silent" not in b"".join(node.store.logs.entries(state.log, 0, size_max=10**7))


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/repos/create", {"name": "x", "organization": "someone"}, 403),
        ("POST", "/api/repos/create", {"name": "x", "visibility": "protected"}, 501),
        ("POST", "/api/repos/create", {"name": "x", "type": "space"}, 501),
        ("POST", "/api/repos/create", {"name": "../x"}, 400),
        ("POST", "/api/repos/create", {"name": 5}, 400),
        ("POST", "/api/repos/move", {"fromRepo": "{name}", "toRepo": "someone/else"}, 403),
        ("POST", "/api/repos/move", {"fromRepo": "{name}", "toRepo": "a/b/c"}, 404),
        ("POST", "/api/repos/move", {"fromRepo": "{name}", "toRepo": "{name}"}, 409),
        ("PUT", "/api/models/{name}/settings", {"private": True}, 501),
        ("PUT", "/api/models/{name}/settings", {"gated": "manual"}, 400),
        ("PUT", "/api/models/{name}/settings", {"gated": "perhaps"}, 400),
        ("PUT", "/api/models/{name}/settings", {"gated": False}, 200),
        ("PUT", "/api/models/{name}/settings", {"private": False}, 200),
        ("POST", "/api/models/{name}/branch/tags%2Fx", {}, 400),
        ("POST", "/api/models/{name}/branch/refs%2Fpr%2F1", {}, 400),
        ("POST", "/api/models/{name}/branch/a..b", {}, 400),
        ("POST", "/api/models/{name}/branch/x", {"startingPoint": "nope"}, 404),
        ("POST", "/api/models/{name}/tag/main", {"tag": "a b"}, 400),
        ("POST", "/api/models/{name}/tag/main", {"tag": "1.0.0"}, 409),
        ("POST", "/api/models/{name}/preupload/main?create_pr=1", {"files": []}, 501),
        ("POST", "/api/models/{name}/preupload/main", {"files": [{"path": "a", "size": -1}]}, 400),
        ("POST", "/{name}.git/info/lfs/objects/batch", {"objects": [{"oid": "..", "size": 1}]}, 400),
        ("POST", "/{name}.git/info/lfs/objects/batch", {"operation": "download", "objects": []}, 501),
        ("POST", "/api/validate-yaml", {"content": "x"}, 200),
    ],
)  # fmt: skip
async def test_what_makes_no_sense_here_is_said_to(door, shelf, method, path, body, status):
    filled = {key: value.format(name=shelf.name) if isinstance(value, str) else value for key, value in body.items()}
    answer = await door.request(method, path.format(name=shelf.name), json=filled)

    assert answer.status_code == status, answer.text
    if status != 200:
        assert answer.json()["error"]


@pytest.mark.parametrize(
    ("operation", "status"),
    [
        (("file", {"path": "../x", "content": ""}), 400),
        (("file", {"path": "/etc/passwd", "content": ""}), 400),
        (("file", {"path": "a", "content": "!!!"}), 400),
        (("file", {"path": "a", "content": "", "encoding": "rot13"}), 400),
        (("file", {"path": "config.json/inside", "content": ""}), 400),
        (("lfsFile", {"path": "a", "oid": "0" * 64, "algo": "sha256"}), 404),
        (("lfsFile", {"path": "a", "oid": "../../x", "algo": "sha256"}), 400),
        (("lfsFile", {"path": "a", "oid": "0" * 64, "algo": "md5"}), 400),
        (("deletedFile", {"path": "nope"}), 404),
        (("deletedFolder", {"path": "nope"}), 404),
        (("teleport", {}), 501),
    ],
)
async def test_a_commit_that_cannot_be_is_refused_and_changes_nothing(door, shelf, operation, status):
    answer = await send(door, shelf.name, operation)

    assert answer.status_code == status, answer.text
    assert (await door.get(f"/api/models/{shelf.name}")).json()["sha"] == shelf.commit


async def test_a_repository_may_not_become_empty(door, shelf):
    answer = await send(door, shelf.name, *[("deletedFile", {"path": path}) for path in shelf.files])

    assert answer.status_code == 400


@pytest.mark.parametrize("token", ["", "Bearer hf_other", "the-token-of-this-node-and-more"])
async def test_nothing_is_written_without_the_token(door, shelf, token):
    headers = {"authorization": token}
    for method, path in (
        ("POST", "/api/repos/create"),
        ("DELETE", "/api/repos/delete"),
        ("POST", "/api/repos/move"),
        ("PUT", f"/api/models/{shelf.name}/settings"),
        ("POST", f"/api/models/{shelf.name}/preupload/main"),
        ("POST", f"/api/models/{shelf.name}/commit/main"),
        ("POST", f"/api/models/{shelf.name}/tag/main"),
        ("DELETE", f"/api/models/{shelf.name}/tag/1.0.0"),
        ("POST", f"/api/models/{shelf.name}/branch/x"),
        ("DELETE", f"/api/models/{shelf.name}/branch/main"),
        ("POST", f"/{shelf.name}.git/info/lfs/objects/batch"),
        ("GET", f"/api/models/{shelf.name}/xet-write-token/main"),
        ("POST", "/xet/0123456789abcdef/v1/xorbs/default/" + "0" * 64),
        ("POST", "/xet/0123456789abcdef/v1/shards"),
    ):
        answer = await door.request(method, path, headers=headers, content=b"{}")
        assert answer.status_code == 401, path


async def test_what_a_client_publishes_is_seen_and_fetched_by_another_node(tmp_path):
    data = os.urandom(3_000_000)
    async with open_home(tmp_path / "one") as node, serving(node) as address, open_door(node) as door:
        namespace = create_identity(node).namespace
        await door.post("/api/repos/create", json={"name": "toucan"})
        made = await send(door, f"{namespace}/toucan", small("a.bin", data))
        async with open_home(tmp_path / "two") as other:
            other.store.peers.add(address)
            await fetch(other, f"{namespace}/toucan", lambda event: None, to=tmp_path / "out")
            manifest = other.store.catalogue.branch(namespace, "toucan", "main").manifest

    assert (tmp_path / "out" / "a.bin").read_bytes() == data
    assert isinstance(manifest, ManifestId)
    assert manifest.commit == made.json()["commitOid"]
