"""Fetching from web servers, as people and programs do it: whole processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import p2phub
from p2phub.testing.processes import Home, flip_byte, tree, wait_until
from p2phub.testing.webserver import WebServer, after, answering, lying_from, only, slowly, stalling, without_ranges

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no proxy of the machine stand between."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def files(seed) -> dict[str, bytes]:
    """The files of the model, as a web server has them below `mood/`."""
    return {f"mood/{path}": (seed.folder / path).read_bytes() for path in tree(seed.folder)}


@pytest.fixture
def listing_home(seed, home: Home) -> Home:
    """Return a home that knows manifest and chunk lists of the model, has nothing of it, and no peer."""
    home.run("fetch", seed.name, *seed.peer, "--dry-run")
    home.run("peers", "rm", seed.node.address)
    return home


@pytest.fixture
def manifest_home(seed, home: Home) -> Home:
    """Return a home that knows the manifest of the model alone, and no peer."""
    home.run("info", seed.name, *seed.peer)
    home.run("peers", "rm", seed.node.address)
    return home


def base(server: WebServer) -> str:
    return f"{server.url}/mood/{{path}}"


def host(server: WebServer) -> str:
    return f"127.0.0.1:{server.port}"


def test_with_the_publisher_gone_an_origin_gives_everything(seed, listing_home, files, tmp_path):
    with WebServer(files) as server:
        shown = listing_home.run("fetch", seed.name, "--from", base(server), "--to", str(tmp_path / "out"))

    assert tree(tmp_path / "out") == tree(seed.folder)
    assert shown.out == f"{tmp_path / 'out'}\n"
    assert f"  {host(server)}  3.0 MB over lan\n" in shown.err
    assert "verified" in shown.err


@pytest.mark.parametrize("has_ranges", [True, False])
def test_a_manifest_and_an_origin_suffice(has_ranges, seed, manifest_home, files, tmp_path):
    behaviours = [] if has_ranges else [without_ranges(files)]
    with WebServer(files, *behaviours) as server:
        result = manifest_home.json("fetch", seed.name, "--from", base(server), "--to", str(tmp_path / "out"))
    checked = manifest_home.json("verify", seed.name)

    assert tree(tmp_path / "out") == tree(seed.folder)
    assert result["received"] == result["size"]
    assert [provider for provider in result["providers"] if provider["received"]] == [
        {
            "node": None,
            "received": result["size"],
            "rate": result["providers"][0]["rate"],
            "state": "giving",
            "reason": None,
            "origin": host(server),
            "link": "lan",
        }
    ]
    assert checked["damaged"] == []


def test_an_origin_and_a_peer_give_at_once(seed, home, files, tmp_path):
    with WebServer(files, slowly(1e6)) as server:
        result = home.json("fetch", seed.name, *seed.peer, "--from", base(server), "--to", str(tmp_path / "out"))

    assert tree(tmp_path / "out") == tree(seed.folder)
    assert {(provider["node"], provider["origin"]) for provider in result["providers"]} >= {
        (seed.node.node_id, None),
        (None, host(server)),
    }


def test_an_origin_that_lies_from_the_middle_on_is_named_and_left(seed, home, files, tmp_path):
    with WebServer(files, lying_from(1_500_000)) as server:
        shown = home.run("fetch", seed.name, *seed.peer, "--from", base(server), "--to", str(tmp_path / "out"))
        peers = home.json("peers", "ls")

    assert tree(tmp_path / "out") == tree(seed.folder)
    # Unless the peer was so fast that the lie was never asked for.
    if "banned" in shown.err:
        assert f"note: not asked any more: origin {host(server)} sent other bytes than were published" in shown.err
    assert all(not peer["banned_until"] for peer in peers)


def test_a_liar_alone_ends_the_fetch_and_what_was_right_is_kept(seed, listing_home, files, tmp_path):
    with WebServer(files, lying_from(1_500_000)) as server:
        shown = listing_home.run("fetch", seed.name, "--from", base(server), "--to", str(tmp_path / "out"), code=3)
    assert not (tmp_path / "out").exists()
    with WebServer(files) as server:
        result = listing_home.json("fetch", seed.name, "--from", base(server), "--to", str(tmp_path / "out"))

    assert "no peer we know of gives the" in shown.err
    assert "its file has changed, or it lies" in shown.err
    assert tree(tmp_path / "out") == tree(seed.folder)
    assert result["here_before"] + result["received"] == result["size"]


def test_a_fetch_that_was_killed_goes_on_from_an_origin(seed, listing_home, files, tmp_path):
    # What does not begin with the first byte of a file does not come.
    with WebServer(files, only(lambda asked: (asked.byte_range or (0,))[0] > 0, stalling(0))) as server:
        process = listing_home.start("fetch", seed.name, "--from", base(server), "--to", str(tmp_path / "out"))
        wait_until(
            lambda: any(path.read_bytes()[32:].strip(b"\0") for path in listing_home.store.glob("partial/??/*.map")),
            "a chunk to come",
        )
        process.kill()
        process.communicate()
    with WebServer(files) as server:
        result = listing_home.json("fetch", seed.name, "--from", base(server), "--to", str(tmp_path / "out"))

    assert tree(tmp_path / "out") == tree(seed.folder)
    assert result["here_before"] > 0


def test_a_running_node_fetches_from_an_origin_for_a_command(seed, listing_home, files, tmp_path):
    with WebServer(files) as server, listing_home.node() as node:
        url = base(server).replace("://", "://me:hunter2@")
        result = listing_home.json("fetch", seed.name, "--from", url, "--to", str(tmp_path / "out"))
        errors = node.errors()

    assert tree(tmp_path / "out") == tree(seed.folder)
    # The seed told of other nodes, which have nothing.
    assert [provider["origin"] for provider in result["providers"] if provider["received"]] == [host(server)]
    assert all("authorization" in asked.headers for asked in server.asked)
    assert "hunter2" not in errors + json.dumps(result)


def test_the_environment_names_origins_where_no_other_user_of_the_machine_reads_them(
    seed, listing_home, files, tmp_path
):
    with WebServer(files) as server:
        url = base(server).replace("://", "://me:hunter2@")
        env = {"P2PHUB_FROM": f" {url}\n"}
        refused = [answering(403)]
        server.behaviours += refused
        failed = listing_home.run("fetch", seed.name, "--to", str(tmp_path / "out"), code=3, env=env)
        server.behaviours.clear()
        shown = listing_home.run("fetch", seed.name, "--to", str(tmp_path / "out"), env=env)

    assert tree(tmp_path / "out") == tree(seed.folder)
    assert "refuses access to" in failed.err
    assert "hunter2" not in failed.err + shown.err + shown.out
    assert len({asked.headers["authorization"] for asked in server.asked}) == 1


def test_one_file_and_a_repair_come_from_an_origin(seed, listing_home, files, tmp_path):
    with WebServer(files) as server:
        printed = listing_home.run("cat", seed.name, "config.json", "--from", base(server))
        listing_home.run("fetch", seed.name, "--from", base(server))
        held = max(listing_home.objects, key=lambda path: path.stat().st_size)
        flip_byte(held, 100)
        found = listing_home.run("verify", seed.name, code=4)
        repaired = listing_home.run("verify", seed.name, "--repair", "--from", base(server))

    assert printed.out.encode() == files["mood/config.json"]
    assert "weights.bin: damaged in bytes 0-" in found.out
    assert "repaired" in repaired.out


def test_a_single_file_comes_from_its_url(seed, home, files, tmp_path):
    listed = Home(seed.node.home.folder).json("ls", seed.name, "weights.bin")
    with WebServer(files) as server:
        home.run("fetch", listed[0]["root"], "--from", f"{server.url}/mood/weights.bin", "--to", str(tmp_path / "w"))

    assert (tmp_path / "w").read_bytes() == files["mood/weights.bin"]


def test_a_template_of_the_environment_that_fits_no_single_file_is_passed_over(seed, home, files, tmp_path):
    root = Home(seed.node.home.folder).json("ls", seed.name, "weights.bin")[0]["root"]
    out = tmp_path / "w"
    with WebServer(files) as server:
        env = {"P2PHUB_FROM": base(server).replace("://", "://me:hunter2@")}
        shown = home.run("fetch", root, *seed.peer, "--to", str(out), env=env)
        flip_byte(max(home.objects, key=lambda path: path.stat().st_size), 100, keep_time=True)
        with home.node():
            repaired = home.run("verify", root, "--repair", env=env)
        refused = home.run("fetch", root, "--force", "--from", base(server), "--to", str(out), code=2)

    assert out.read_bytes() == files["mood/weights.bin"]
    assert f"note: origin {host(server)} of P2PHUB_FROM is passed over: a file that is asked for" in shown.err
    assert "hunter2" not in shown.err + repaired.err
    assert "repaired" in repaired.out
    assert "has no path to put for {path}" in refused.err
    assert "hint: write the URL of the file itself" in refused.err
    assert server.asked == []


def test_a_url_of_the_environment_that_fits_no_repository_is_passed_over(seed, home, files, tmp_path):
    with WebServer(files) as server:
        of_one_file = f"{server.url}/mood/weights.bin?token=hunter2"
        env = {"P2PHUB_FROM": of_one_file}
        shown = home.run("fetch", seed.name, *seed.peer, "--to", str(tmp_path / "out"), env=env)
        refused = home.run("fetch", seed.name, "--from", of_one_file, "--to", str(tmp_path / "out"), code=2)
        none = home.run("fetch", seed.name, "--to", str(tmp_path / "out"), env={"P2PHUB_FROM": "models"}, code=2)
        many = home.run("fetch", seed.name, env={"P2PHUB_FROM": " ".join([of_one_file] * 17)}, code=2)

    assert tree(tmp_path / "out") == tree(seed.folder)
    assert f"note: origin {host(server)} of P2PHUB_FROM is passed over: the URL of a repository's" in shown.err
    assert "hunter2" not in shown.err + refused.err
    assert "where does the path go?" in refused.err
    assert "hint: it is one of those in P2PHUB_FROM" in none.err
    assert "P2PHUB_FROM holds 17 URLs, the limit is 16" in many.err


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("models.example/x", "a URL has the form http(s)://HOST[:PORT]/PATH"),
        ("file:///etc/passwd", "a URL has the form"),
        ("https://models.example/?token=hunter2", "has a query and no {path}"),
        ("https://me:hunter2@models example/", "percent-encoded"),
    ],
)
def test_a_url_that_is_none_is_wrong_usage_and_not_repeated(url, why, seed, listing_home, tmp_path):
    shown = listing_home.call("fetch", seed.name, "--from", url, "--to", str(tmp_path / "out"), code=2)

    assert why in shown.err
    assert "hunter2" not in shown.err
    assert not (tmp_path / "out").exists()


def test_a_publisher_names_origins_and_everybody_sees_them(tmp_path):
    home = Home(tmp_path / "home")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("a\n")
    home.call("id", "new")
    urls = ["https://models.example/x/{path}", "http://mirror.example"]
    options = [word for url in urls for word in ("--origin", url)]
    home.call("publish", str(tmp_path / "folder"), "small@1.0.0", *options)
    shown = home.call("info", "small")
    secret = "https://me:hunter2@a.example"
    refused = home.call("publish", str(tmp_path / "folder"), "small", "--origin", secret, code=2)

    assert home.ask("info", "small")["origin_urls"] == urls
    assert "origins  https://models.example/x/{path}, http://mirror.example" in shown.out
    assert "everybody can read it" in refused.err
    assert "hunter2" not in refused.err


def test_a_published_origin_in_a_private_network_is_not_asked(tmp_path):
    publisher, home = Home(tmp_path / "publisher"), Home(tmp_path / "home")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("a\n")
    publisher.call("id", "new")
    with WebServer({"a.txt": b"a\n"}) as server:
        revision = publisher.ask("publish", str(tmp_path / "folder"), "small", "--origin", server.url)["revision"]
        with publisher.node() as node:
            home.run("info", revision, "--peer", node.address)
            home.run("peers", "rm", node.address)
        shown = home.run("fetch", revision, "--to", str(tmp_path / "out"), code=3)
        assert server.connections == 0
        # Whoever says so himself may.
        home.run("fetch", revision, "--from", server.url, "--to", str(tmp_path / "out"))

    assert "leads to an address that is not public" in shown.err
    assert (tmp_path / "out" / "a.txt").read_text() == "a\n"


def test_python_fetches_from_origins_too(seed, listing_home, files, tmp_path, monkeypatch):
    for name, value in listing_home.environment().items():
        monkeypatch.setenv(name, value)
    events: list[object] = []
    with WebServer(files, after(1, slowly(2e6))) as server:
        result = p2phub.fetch(
            seed.name, to=tmp_path / "out", origins=[base(server)], home=listing_home.folder, on_event=events.append
        )
        (tmp_path / "out" / "weights.bin").unlink()
        for path in listing_home.objects:
            if path.stat().st_size == 3_000_000:
                path.unlink()
        checked = p2phub.verify(tmp_path / "out", repair=True, origins=[base(server)], home=listing_home.folder)

    assert tree(Path(result.path)) == tree(seed.folder)
    assert result.providers[0].origin == host(server)
    assert checked.good
    assert any(getattr(rate, "origin", None) == host(server) for e in events for rate in getattr(e, "providers", ()))
