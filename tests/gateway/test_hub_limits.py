"""Requests that nobody should send."""

from __future__ import annotations

import contextlib
import json
import resource
from collections.abc import AsyncIterator

import httpx
import pytest
import trio
from doorkit import TOKEN

from p2phub.gateway.hub import commitbody, commits, requests, uploads, xet
from p2phub.testing.hostile import wait_for

BODIES = [
    ("/api/repos/create", "application/json"),
    ("/api/models/{name}/paths-info/main", "application/x-www-form-urlencoded"),
    ("/api/models/{name}/paths-info/main", "application/json"),
    ("/api/models/{name}/preupload/main", "application/json"),
    ("/api/models/{name}/commit/main", "application/x-ndjson"),
    ("/{name}.git/info/lfs/objects/batch", "application/vnd.git-lfs+json"),
]


async def raw(door: httpx.AsyncClient, head: str, *, body: bytes = b"") -> bytes:
    """Send bytes as they are, and return all that comes back."""
    stream = await trio.open_tcp_stream(door.base_url.host, door.base_url.port)
    async with stream:
        await stream.send_all(head.encode().replace(b"\n", b"\r\n") + b"\r\n\r\n" + body)
        answer = b""
        with trio.move_on_after(30):
            async for data in stream:
                answer += data
                if b"\r\n\r\n" in answer:
                    break
        return answer


def head(door: httpx.AsyncClient, method: str, path: str, **headers: str) -> str:
    fields = {"host": door.base_url.netloc.decode(), "authorization": f"Bearer {TOKEN}", **headers}
    rows = [f"{name.replace('_', '-')}: {text}" for name, text in fields.items()]
    return "\n".join([f"{method} {path} HTTP/1.1", *rows])


async def is_well(door: httpx.AsyncClient, name: str) -> bool:
    return (await door.get(f"/api/models/{name}")).status_code == 200


@pytest.mark.parametrize(("path", "kind"), BODIES)
async def test_a_body_of_a_gigabyte_is_refused_before_it_comes(door, shelf, path, kind):
    answer = await raw(
        door, head(door, "POST", path.format(name=shelf.name), content_type=kind, content_length=str(2**30 + 1))
    )

    assert answer.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(("path", "kind"), BODIES)
async def test_a_gigabyte_that_just_comes_is_not_kept(door, shelf, path, kind):
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(2**30 // 65536):
            yield b'["' + b"a" * 65534

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status = 413
    # It may be refused while it is still being sent.
    with contextlib.suppress(httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
        answer = await door.post(path.format(name=shelf.name), content=endless(), headers={"content-type": kind})
        status = answer.status_code
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024

    assert status == 413
    assert grown < 150 * 2**20
    assert await is_well(door, shelf.name)


@pytest.mark.parametrize(("path", "kind"), BODIES)
async def test_a_body_that_stops_coming_ends_the_request(door, shelf, path, kind, monkeypatch):
    monkeypatch.setattr(requests, "BODY_GAP_S", 0.3)
    answer = await raw(
        door, head(door, "POST", path.format(name=shelf.name), content_type=kind, content_length="100"), body=b"{"
    )

    assert answer.startswith(b"HTTP/1.1 408")


async def test_ten_thousand_paths_are_looked_up_and_a_hundred_thousand_are_not(door, shelf):
    url = f"/api/models/{shelf.name}/paths-info/main"
    known = await door.post(url, json={"paths": ["config.json"] * 5000 + ["nope"] * 5000})
    form = await door.post(url, data={"paths": ["config.json"] * 100_000})
    body = await door.post(url, json={"paths": ["config.json"] * 100_000})

    assert [row["path"] for row in known.json()] == ["config.json"]
    assert (form.status_code, body.status_code) == (400, 400)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"5", b'{"paths": 5}', b'{"paths": {"a": "b"}}', b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000],
)
async def test_json_that_is_none_is_refused(door, shelf, body):
    name = f"/api/models/{shelf.name}"
    for path in ("/api/repos/create", f"{name}/preupload/main", f"{name}/paths-info/main"):
        answer = await door.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400, (path, answer.text)


@pytest.mark.parametrize(
    "body", [b"x\n", b"[]\n", b'{"key": 1, "value": 2}\n', b'{"key": "file"}\n', b"\xff\n", b"[" * 50_000]
)
async def test_a_line_that_is_none_is_refused(door, shelf, body):
    answer = await door.post(
        f"/api/models/{shelf.name}/commit/main", content=body, headers={"content-type": "application/x-ndjson"}
    )

    assert answer.status_code == 400


async def test_what_no_header_can_carry_is_refused_as_anything_else(door, shelf):
    for name in ("\0", "a\x1b[31m", "\x7f", "\u2028", "a\r\nx: y"):
        answer = await door.post("/api/repos/create", json={"name": name})
        assert (answer.status_code, "is no model name" in answer.headers["x-error-message"]) == (400, True), repr(name)


async def test_a_page_cannot_pass_text_for_json(door, shelf):
    for path in ("/api/repos/create", f"/api/models/{shelf.name}/commit/main"):
        answer = await door.post(path, content=b"{}", headers={"content-type": "text/plain"})
        assert answer.status_code == 415


async def test_a_line_of_a_commit_has_an_end(door, shelf, monkeypatch):
    monkeypatch.setattr(commitbody, "LINE_SIZE_MAX", 100_000)
    line = json.dumps({"key": "file", "value": {"path": "a", "content": "A" * 200_000}}).encode()
    answer = await door.post(
        f"/api/models/{shelf.name}/commit/main", content=line, headers={"content-type": "application/x-ndjson"}
    )

    assert answer.status_code == 413


async def test_a_commit_has_so_many_operations(door, shelf, monkeypatch):
    monkeypatch.setattr(commits, "OPERATIONS_MAX", 10)
    lines = b"".join(
        json.dumps({"key": "deletedFile", "value": {"path": str(number)}}).encode() + b"\n" for number in range(12)
    )
    answer = await door.post(
        f"/api/models/{shelf.name}/commit/main", content=lines, headers={"content-type": "application/x-ndjson"}
    )

    assert answer.status_code == 400
    assert "more than 10" in answer.text


async def test_so_many_uploads_are_begun_at_a_time(door, shelf, monkeypatch):
    monkeypatch.setattr(uploads, "PERMISSIONS_MAX", 5)
    wanted = [{"oid": f"{number:064x}", "size": 1} for number in range(6)]
    answer = await door.post(f"/{shelf.name}.git/info/lfs/objects/batch", json={"objects": wanted})

    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")


async def test_an_upload_address_grows_old(door, shelf, monkeypatch):
    monkeypatch.setattr(uploads, "PERMISSION_S", -1.0)
    wanted = [{"oid": "0" * 64, "size": 1}]
    batch = await door.post(f"/{shelf.name}.git/info/lfs/objects/batch", json={"objects": wanted})
    answer = await door.put(batch.json()["objects"][0]["actions"]["upload"]["href"], content=b"x")

    assert answer.status_code == 403


async def test_blocks_and_shards_have_limits(door, shelf, monkeypatch):
    monkeypatch.setattr(xet, "BLOCK_SIZE_MAX", 1000)
    monkeypatch.setattr(xet, "SHARD_SIZE_MAX", 1000)
    given = (await door.get(f"/api/models/{shelf.name}/xet-write-token/main")).json()
    headers = {"authorization": f"Bearer {given['accessToken']}"}
    for path in (f"/v1/xorbs/default/{'0' * 64}", "/v1/shards"):
        large = await door.post(given["casUrl"] + path, content=bytes(1001), headers=headers)
        wrong = await door.post(given["casUrl"] + path, content=b"\xff" * 60, headers=headers)
        assert (large.status_code, wrong.status_code) == (413, 400)


async def test_a_query_of_many_fields_is_refused(door, shelf):
    long = await raw(door, head(door, "GET", "/api/models?" + "&".join(["filter=a"] * 2000)))
    many = await door.get("/api/models", params={"filter": ["a"] * 17})
    wide = await door.get("/api/models", params={"search": "a" * 1001})

    assert long.startswith(b"HTTP/1.1 4")
    assert (many.status_code, wide.status_code) == (400, 400)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=-1", "limit=x", "limit=1e9", "cursor=!", "cursor=x", "sort=evil", "num_parameters=x"]
)
async def test_a_query_that_is_none_is_refused(door, query):
    answer = await door.get(f"/api/models?{query}")

    assert answer.status_code == 400


@pytest.mark.parametrize(
    "target",
    [
        "/%2e%2e/%2e%2e/resolve/main/etc/passwd",
        "/{name}/resolve/main/../../../../etc/passwd",
        "/{name}/resolve/main/%2e%2e/%2e%2e/etc/passwd",
        "/{name}/resolve/..%2f..%2fetc/passwd",
        "/{name}/resolve/main//etc/passwd",
        "/api/models/../../etc/passwd",
        "/api/models/{name}/tree/main/..%2f..",
        "//etc/passwd",
        "/control/../{name}/resolve/main/config.json",
    ],
)
async def test_no_path_leads_out(door, shelf, target):
    answer = await raw(door, head(door, "GET", target.format(name=shelf.name)))

    assert answer.split(b" ", 2)[1] == b"404"
    assert b"root:" not in answer


async def test_a_method_that_is_not_for_a_path_is_refused(door, shelf):
    for method, path in (("DELETE", f"/api/models/{shelf.name}"), ("POST", f"/{shelf.name}/resolve/main/config.json")):
        assert (await door.request(method, path)).status_code == 405


async def test_many_bodies_that_come_slowly_do_not_fill_the_memory(door, shelf, monkeypatch):
    monkeypatch.setattr(requests, "BODIES_SIZE_MAX", 2_500_000)
    url = f"/api/models/{shelf.name}/paths-info/main"
    body = b'{"paths": ["' + b"a" * 1_000_000 + b'"]}'
    async with contextlib.AsyncExitStack() as stack:
        slow = [
            await stack.enter_async_context(await trio.open_tcp_stream(door.base_url.host, door.base_url.port))
            for _ in range(2)
        ]
        kinds = {"content_type": "application/json", "content_length": str(len(body))}
        for stream in slow:
            begin = head(door, "POST", url, **kinds).encode().replace(b"\n", b"\r\n") + b"\r\n\r\n"
            await stream.send_all(begin + body[:-1])
        # What was sent is not yet what was read.
        await wait_for(lambda: requests.held_bytes() == 2 * len(body) - 2, "two bodies to be here")
        third = await door.post(url, content=body, headers={"content-type": "application/json"})
        answers = []
        for stream in slow:
            await stream.send_all(body[-1:])
            answers.append(await stream.receive_some())

    assert (third.status_code, third.headers["retry-after"]) == (429, "2")
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
    assert await is_well(door, shelf.name)
