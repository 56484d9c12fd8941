"""Downloads from one HTTP origin at its best and worst, on real sockets, and what origins are used for."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
import trio
from originkit import base, by_origin, failing, given, host

from p2phub.core.errors import InvalidName, NotFound, Offline
from p2phub.core.origins import GIVEN_MAX
from p2phub.node.dispatch import run
from p2phub.node.events import Progress, ignore
from p2phub.node.fetch import fetch
from p2phub.node.operations.checking import Verify
from p2phub.node.operations.content import Fetch, FetchFile
from p2phub.node.verify import verify
from p2phub.testing.hostile import open_home
from p2phub.testing.processes import flip_byte, tree
from p2phub.testing.webserver import (
    Reply,
    WebServer,
    after,
    answering,
    chunked,
    compressing,
    cutting,
    lying_from,
    only,
    raw,
    redirecting,
    stalling,
    times,
    with_headers,
)

# No test here may hang: whatever the origins do, a download ends.
pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("no_proxy")]


# ── alone ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("template", ["/parrot/{path}", "/parrot", "/parrot/", "/x?file=parrot/{path}"])
async def test_an_origin_alone_gives_everything(template, files, bare_copy_of, published, tmp_path):
    by_query = {f"x?file={path}": data for path, data in files.items()}
    progress: list[Progress] = []
    with WebServer(files) as server:
        if "?" in template:
            server.behaviours.append(lambda asked, reply: answer_from(by_query, asked, reply))
        async with open_home(bare_copy_of("home")) as node:
            result = await fetch(
                node,
                f"{published.name}@1.0.0",
                lambda event: progress.append(event) if isinstance(event, Progress) else None,
                to=tmp_path / "out",
                origins=given(server.url + template),
            )

    assert tree(tmp_path / "out") == published.files
    assert result.received == published.size
    (origin,) = result.providers
    assert (origin.node, origin.origin, origin.state) == (None, host(server), "giving")
    assert origin.received == published.size
    assert origin.rate > 0
    assert any(rate.origin == host(server) and rate.node is None for event in progress for rate in event.providers)
    assert all("authorization" not in asked.headers for asked in server.asked)


def answer_from(by_target, asked, reply):
    data = by_target[asked.target.removeprefix("/")]
    if asked.byte_range is None:
        return Reply(200, data)
    first, last = asked.byte_range
    return Reply(206, data[first : last + 1], {"content-range": f"bytes {first}-{last}/{len(data)}"}, first)


async def test_what_was_fetched_before_is_not_fetched_again(files, bare_copy_of, published, tmp_path, impatient):
    async with open_home(bare_copy_of("home")) as node:
        with WebServer(files, after(6, answering(500))) as server:
            await failing(node, published.name, server, tmp_path / "out")
        with WebServer(files) as server:
            result = await fetch(node, published.name, ignore, to=tmp_path / "out", origins=given(base(server)))

    assert tree(tmp_path / "out") == published.files
    assert 0 < result.here_before < published.size
    assert result.received == published.size - result.here_before


async def test_an_origin_that_redirects_and_sends_in_chunks_gives_everything(files, bare_copy_of, published, tmp_path):
    with WebServer(files, chunked) as store, WebServer({}, redirecting(lambda asked: store.url + asked.target)) as hub:
        async with open_home(bare_copy_of("home")) as node:
            result = await fetch(node, published.name, ignore, to=tmp_path / "out", origins=given(base(hub)))

    assert tree(tmp_path / "out") == published.files
    # It is the hub that people named.
    assert list(by_origin(result)) == [host(hub)]


@pytest.mark.parametrize(
    ("match", "behaviours"),
    [
        (r"refuses access to .* \(403 forbidden\)", [answering(403)]),
        (r"does not have .* \(404 not found\)", [answering(404)]),
        ("ended its answer too early", [cutting(10)]),
        ("sends no HTTP answer", [raw(b"hello\n")]),
        ("answered 500", [answering(500)]),
        ("another part", [with_headers(content_range="bytes 0-1/*")]),
        ("sends .* compressed", [compressing]),
        ("sent other bytes than were published", [lying_from(0)]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_download_that_an_origin_alone_fails_says_why(
    match, behaviours, files, bare_copy_of, published, tmp_path, impatient
):
    with WebServer(files, *behaviours) as server:
        async with open_home(bare_copy_of("home")) as node:
            said = await failing(node, published.name, server, tmp_path / "out", "*.safetensors")
            assert not list(node.settings.layout.store.glob("objects/??/*"))

    assert re.search(match, said), said
    assert host(server) in said


async def test_an_origin_that_cannot_be_reached_is_said_to_be(bare_copy_of, published, tmp_path, impatient):
    with WebServer({}) as server:
        pass
    async with open_home(bare_copy_of("home")) as node:
        said = await failing(node, published.name, server, tmp_path / "out")

    assert f"cannot reach origin {host(server)}: Connection refused" in said


async def test_a_busy_origin_is_waited_for(files, bare_copy_of, published, tmp_path):
    waits: list[str | None] = []
    with WebServer(files, times(2, answering(429, retry_after="3"))) as server:
        async with open_home(bare_copy_of("home")) as node:
            await fetch(
                node,
                published.name,
                lambda event: waits.append(event.waiting_for) if isinstance(event, Progress) else None,
                to=tmp_path / "out",
                origins=given(base(server)),
            )

    assert tree(tmp_path / "out") == published.files


async def test_a_stall_costs_one_timeout(files, bare_copy_of, published, tmp_path, impatient_files):
    with WebServer(files, times(3, stalling(100_000))) as server:
        async with open_home(bare_copy_of("home")) as node:
            await fetch(node, published.name, ignore, to=tmp_path / "out", origins=given(base(server)))

    assert tree(tmp_path / "out") == published.files


async def test_a_cancelled_fetch_leaves_a_stalled_origin_at_once(files, bare_copy_of, published, tmp_path):
    with WebServer(files, stalling(100_000)) as server:
        async with open_home(bare_copy_of("home")) as node:
            start = trio.current_time()
            with trio.move_on_after(1.0) as scope:
                await fetch(node, published.name, ignore, to=tmp_path / "out", origins=given(base(server)))

    assert scope.cancelled_caught
    # The stall would take ten seconds.
    assert trio.current_time() - start < 8


# ── what it is used for, and not ────────────────────────────────────────────


async def test_damage_is_repaired_from_an_origin(files, copy_of, published, tmp_path):
    async with open_home(copy_of("home")) as node:
        held = sorted((tmp_path / "home" / "store" / "objects").glob("??/*"), key=lambda path: path.stat().st_size)[-1]
        flip_byte(held, 1_500_000)
        with WebServer(files) as server:
            result = await run(node, Verify(published.name, repair=True, origins=(base(server),)), ignore)

    assert result.good
    assert len(result.damaged) == 1
    assert 0 < result.received <= 2 * 2**20
    assert len(server.asked) == 1


async def test_a_damaged_folder_is_repaired_from_an_origin(files, copy_of, published, tmp_path):
    async with open_home(copy_of("home")) as node:
        await fetch(node, published.name, ignore, to=tmp_path / "out", link="hard")
        flip_byte(tmp_path / "out" / "model-00001-of-00002.safetensors", 1_500_000)
        with WebServer(files) as server:
            result = await verify(node, str(tmp_path / "out"), ignore, repair=True, origins=given(base(server)))

    assert result.good
    assert tree(tmp_path / "out") == published.files


async def test_one_file_of_a_repository_comes_from_an_origin(files, bare_copy_of, published):
    with WebServer(files) as server:
        async with open_home(bare_copy_of("home")) as node:
            found = await run(node, FetchFile(published.name, "README.md", (base(server),)), ignore)

    assert tree(published.folder)["README.md"] in tree(Path(found.location).parent).values()
    assert found.size == len(files["parrot/README.md"])
    assert [asked.path for asked in server.asked] == ["parrot/README.md"]


async def test_a_dry_run_asks_origins_for_nothing_but_sizes(files, listless_copy_of, bare_copy_of, published, tmp_path):
    with WebServer(files) as server:
        for home in (listless_copy_of("first"), bare_copy_of("second")):
            async with open_home(home) as node:
                result = await fetch(node, published.name, ignore, origins=given(base(server)), dry_run=True)
                assert result.size == published.size
                assert result.received == 0
        assert not server.asked
        async with open_home(tmp_path / "third") as node:
            url = f"{server.url}/parrot/README.md"
            result = await fetch(node, "b3:" + "12" * 32, ignore, origins=given(url), dry_run=True)

    assert result.size == len(files["parrot/README.md"])


async def test_without_a_network_no_origin_is_asked(files, bare_copy_of, published, tmp_path):
    with WebServer(files) as server:
        async with open_home(bare_copy_of("home"), offline=True) as node:
            with pytest.raises(Offline):
                await fetch(node, published.name, ignore, to=tmp_path / "out", origins=given(base(server)))
            with pytest.raises(Offline):
                await fetch(node, "b3:" + "12" * 32, ignore, to=tmp_path / "out", origins=given(f"{server.url}/x"))

    assert server.connections == 0


@pytest.mark.parametrize(
    ("urls", "match"),
    [
        (["models.example"], "form"),
        (["https://models.example/?f=1"], "where does the path go"),
        ([f"https://{number}.example" for number in range(GIVEN_MAX + 1)], f"the limit is {GIVEN_MAX}"),
    ],
)
async def test_a_url_that_is_none_is_refused_before_anything_is_fetched(urls, match, copy_of, published, tmp_path):
    async with open_home(copy_of("home")) as node:
        with pytest.raises(InvalidName, match=match):
            await fetch(node, published.name, ignore, to=tmp_path / "out", origins=given(*urls))

    assert not (tmp_path / "out").exists()


async def test_the_template_of_a_repository_is_none_for_a_single_file(tmp_path):
    async with open_home(tmp_path / "home") as node:
        with pytest.raises(InvalidName, match="has no path to put for"):
            await fetch(node, "b3:" + "12" * 32, ignore, origins=given("https://models.example/{path}"))


async def test_secrets_in_a_url_are_shown_nowhere(files, bare_copy_of, published, tmp_path, impatient, caplog):
    caplog.set_level(0)
    told: list[object] = []
    expected = "Basic " + base64.b64encode(b"me:hunter2").decode()
    with WebServer(files, only(lambda asked: "00002" in asked.path, answering(403))) as server:
        url = f"http://me:hunter2@{host(server)}/parrot/{{path}}?token=swordfish"
        async with open_home(bare_copy_of("home")) as node:
            with pytest.raises(NotFound) as failure:
                await run(node, Fetch(published.name, to=str(tmp_path / "out"), origins=(url,)), told.append)
            result = await run(
                node, Fetch(published.name, to=str(tmp_path / "out"), exclude=("*00002*",), origins=(url,)), told.append
            )

    assert {asked.headers.get("authorization") for asked in server.asked} == {expected}
    # The HTTP library's own words at its most talkative are not ours to choose; p2phub never turns them on.
    own = [record.getMessage() for record in caplog.records if not record.name.startswith("httpcore")]
    for text in (str(failure.value), str(failure.value.hint), repr(told), repr(result), repr(own)):
        assert "hunter2" not in text
        assert "swordfish" not in text
        assert "me:" not in text
