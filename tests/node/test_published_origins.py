"""HTTP origins that a publisher names are asked at public addresses only."""

from __future__ import annotations

from pathlib import Path

import pytest
from originkit import base, by_origin, given, host

from p2phub.core import manifest as manifests
from p2phub.core.errors import InvalidName, NotFound
from p2phub.core.ids import ManifestId
from p2phub.net import web
from p2phub.node.events import ignore
from p2phub.node.fetch import fetch
from p2phub.node.identity import create_identity
from p2phub.node.inspect import info
from p2phub.node.publish import publish
from p2phub.testing.hostile import open_home
from p2phub.testing.processes import tree
from p2phub.testing.webserver import WebServer

# No test here may hang: whatever the origins do, a download ends.
pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("no_proxy")]


@pytest.fixture
async def with_origin(tmp_path, published):
    """Return a function that makes a home which has the model's manifest with this origin, and nothing else."""

    async def make(name: str, *urls: str) -> tuple[Path, str]:
        async with open_home(tmp_path / f"{name} publisher") as node:
            create_identity(node)
            result = await publish(node, published.folder, "parrot", ignore, origin_urls=urls)
            data = node.store.manifests.data(ManifestId.parse(result.revision))
        async with open_home(tmp_path / name) as node:
            node.store.manifests.add(data)
        return tmp_path / name, result.revision

    return make


async def test_a_published_origin_is_asked_if_its_address_is_public(
    files, with_origin, published, tmp_path, monkeypatch
):
    with WebServer(files) as server:
        home, revision = await with_origin("home", base(server))
        async with open_home(home) as node:
            with pytest.raises(NotFound) as failure:
                await fetch(node, revision, ignore, to=tmp_path / "out")
            assert server.connections == 0
            # As if the loopback were the internet.
            monkeypatch.setattr(web, "is_public", lambda address: True)
            result = await fetch(node, revision, ignore, to=tmp_path / "out")

    assert "leads to an address that is not public" in f"{failure.value.hint}"
    assert tree(tmp_path / "out") == published.files
    assert by_origin(result)[host(server)].received == published.size


async def test_who_names_a_published_origin_himself_may_lead_anywhere(files, with_origin, published, tmp_path):
    with WebServer(files) as server:
        home, revision = await with_origin("home", base(server))
        async with open_home(home) as node:
            result = await fetch(node, revision, ignore, to=tmp_path / "out", origins=given(base(server)))

    assert tree(tmp_path / "out") == published.files
    assert list(by_origin(result)) == [host(server)]


async def test_origins_are_published_and_shown(published, tmp_path):
    urls = ("https://models.example/{path}", "http://mirror.example/parrot")
    async with open_home(tmp_path / "home") as node:
        create_identity(node)
        first = await publish(node, published.folder, "parrot@1.0.0", ignore)
        second = await publish(node, published.folder, "parrot@1.0.1", ignore, origin_urls=urls)
        third = await publish(node, published.folder, "parrot", ignore)
        shown = await info(node, second.revision, ignore, refresh=False)
        manifest = node.store.manifests.get(ManifestId.parse(first.revision))

    assert manifest.origin_urls == ()
    assert b"origin_urls" not in manifests.encode(manifest)
    assert shown.origin_urls == list(urls)
    assert shown.parents == [first.revision]
    # Nothing new was said, so that what was said stays.
    assert third.revision == second.revision
    assert not third.new


@pytest.mark.parametrize(
    ("urls", "match"),
    [
        (["https://me:secret@models.example/{path}"], "everybody can read it"),
        (["models.example"], "form"),
        (["https://models.example/?file="], "query"),
        (["https://models.example"] * 2, "twice"),
        ([f"https://{number}.example" for number in range(9)], "the limit is 8"),
    ],
)
async def test_an_origin_that_no_manifest_may_hold_is_not_published(urls, match, published, tmp_path):
    async with open_home(tmp_path / "home") as node:
        create_identity(node)
        with pytest.raises(InvalidName, match=match) as failure:
            await publish(node, published.folder, "parrot", ignore, origin_urls=urls)
        assert not node.store.manifests.all()

    assert "secret" not in str(failure.value)
