"""Peers that are not who they should be, or not there: one sentence, the right exit code, no hang."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from functools import partial

import pytest
import trio

from p2phub.testing.hostile import flip_bits, open_home, serving
from p2phub.testing.processes import Home, Stranger, free_port

pytestmark = pytest.mark.timeout(180)

NOT_FOUND = 3


def said(outcome) -> str:
    """Return the notes and the error; AssertionError unless every line is ours."""
    for line in outcome.err.splitlines():
        assert line.startswith(("p2phub: error: ", "p2phub: hint: ", "p2phub: note: ")), str(outcome)
    assert len([line for line in outcome.err.splitlines() if line.startswith("p2phub: error: ")]) == 1
    assert outcome.out == ""
    return outcome.err


@pytest.fixture(scope="module")
def other_id(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the id of a node that runs nowhere."""
    return Home(tmp_path_factory.mktemp("other") / "home").json("status")["node_id"]


def test_another_node_than_the_address_names_is_not_believed(seed, home, other_id):
    port = seed.node.endpoint[1]
    address = f"p2phub://{other_id}@127.0.0.1:{port}"
    text = said(home.call("fetch", seed.name, "--peer", address, code=NOT_FOUND))
    added = home.call("peers", "add", address)
    by_hash = said(home.call("fetch", seed.revision, code=NOT_FOUND))

    for shown in (text, added.err, by_hash):
        assert f"{seed.node.node_id} answered instead of {other_id}" in shown
    assert "not answered" in added.out
    assert not list(home.store.glob("objects/??/*"))


@pytest.mark.parametrize("kind", ["banner", "http", "silent"])
def test_a_server_that_is_no_node_is_named_and_left(kind, home, other_id):
    with Stranger(kind) as port:
        added = home.call("peers", "add", f"p2phub://{other_id}@127.0.0.1:{port}")
        listed = home.ask("peers", "ls")
        text = "" if kind == "silent" else said(home.call("fetch", "b3:" + "0" * 64, code=NOT_FOUND))

    assert "has not answered yet" in added.out
    if kind == "silent":
        assert "in time" in added.err or "within" in added.err
    else:
        assert f"127.0.0.1:{port}" in text
        # People should not need to know what OpenSSL means by this.
        assert "what answers there is no p2phub node" in text
        assert "_ssl.c" not in text
    assert listed[0]["failures"] >= 1
    assert listed[0]["last_error"]


def test_a_port_where_nobody_listens_is_named_once(home, other_id):
    port = free_port()
    text = said(home.call("info", f"{'a' * 52}/x", "--peer", f"p2phub://{other_id}@127.0.0.1:{port}", code=NOT_FOUND))

    assert text.count(f"127.0.0.1:{port}") == 1
    assert "refused" in text
    assert "All connection attempts failed" not in text


def test_a_host_without_an_address_is_named(home, other_id):
    address = f"p2phub://{other_id}@no-such-host.invalid:8627"
    text = said(home.call("fetch", "b3:" + "0" * 64, "--peer", address, code=NOT_FOUND))

    assert "no-such-host.invalid:8627" in text


def test_a_good_peer_beside_a_dead_one_is_enough(seed, home, other_id, tmp_path):
    dead = f"p2phub://{other_id}@127.0.0.1:{free_port()}"
    outcome = home.call("fetch", seed.name, "--peer", dead, *seed.peer, "--to", str(tmp_path / "out"))

    assert "note: " in outcome.err


def test_without_peers_the_way_to_one_is_shown(home, seed):
    for arguments in (("fetch", seed.name), ("fetch", seed.revision), ("info", seed.name), ("cat", seed.name, "x")):
        text = said(home.call(*arguments, code=NOT_FOUND))

        assert "no peers are known" in text
        assert "peers add" in text


async def test_with_only_banned_peers_that_is_said_with_the_way_to_lift_it(seed, tmp_path):
    home = Home(tmp_path / "home")
    liar_home = Home(tmp_path / "liar")
    run = partial(partial, home.call)
    await trio.to_thread.run_sync(partial(liar_home.call, "id", "new"))
    published = await trio.to_thread.run_sync(partial(liar_home.ask, "publish", str(seed.folder), "lies@1.0.0"))
    revision, name = published["revision"], f"{published['namespace']}/lies"
    async with open_home(liar_home.folder) as liar, serving(liar, wrap=flip_bits(liar)) as address:
        first = await trio.to_thread.run_sync(run("fetch", revision, "--peer", str(address), "--json", code=NOT_FOUND))
        listed = await trio.to_thread.run_sync(run("peers", "ls"))
        again = await trio.to_thread.run_sync(run("fetch", revision, "--peer", str(address), code=NOT_FOUND))
        by_name = await trio.to_thread.run_sync(run("fetch", name, code=NOT_FOUND))
        unknown = await trio.to_thread.run_sync(run("fetch", f"{name}-2", code=NOT_FOUND))
        await trio.to_thread.run_sync(run("peers", "rm", str(liar.id)))
        lifted = await trio.to_thread.run_sync(partial(home.ask, "peers", "add", str(address)))

    assert "wrong bytes" in first.err
    assert re.search(r"banned until .*wrong bytes", listed.out)
    for outcome in (again, by_name, unknown):
        text = said(outcome)
        assert "banned" in text
        assert "peers rm" in text
        assert "no peers are known" not in text
    assert lifted[0]["banned_until"] is None


def test_a_peer_that_was_banned_is_asked_again_after_its_time(seed, home):
    home.call("peers", "add", seed.node.address)
    with sqlite3.connect(home.folder / "index.sqlite") as database:
        database.execute(
            "UPDATE peers SET bans = 1, banned_until = ?, ban_reason = 'it lied'", (int(time.time()) + 3600,)
        )
    banned = said(home.call("fetch", seed.name, "--dry-run", code=NOT_FOUND))
    with sqlite3.connect(home.folder / "index.sqlite") as database:
        database.execute("UPDATE peers SET banned_until = ?", (int(time.time()) - 1,))
    result = json.loads(home.call("fetch", seed.name, "--dry-run", "--json").out)

    assert "banned" in banned
    assert result["files"] == 4
