"""The daemon: it starts once, says where it is, stops cleanly, and answers nobody it should not."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import signal
import socket
import subprocess
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio

from p2phub.gateway import client
from p2phub.testing.hostile import open_home, open_linked, wait_for, wait_quiet
from p2phub.testing.processes import Home, RunningNode, Stranger, free_port, tree, wait_until

pytestmark = pytest.mark.timeout(180)


def ask(
    node: RunningNode,
    body: bytes = b'{"operation":"status"}',
    *,
    method: str = "POST",
    path: str = "/control/v1/run",
    token: str | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, bytes]:
    """Send one request to the local door; returns status and body of the answer."""
    host, _, port = node.local_url.removeprefix("http://").rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    if token is None:
        token = json.loads(node.home.daemon_file.read_text())["token"]
    sent = {"authorization": f"Bearer {token}", "content-type": "application/json", **(headers or {})}
    try:
        connection.request(method, path, body, {name: value for name, value in sent.items() if value is not None})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


# ── starting and stopping ───────────────────────────────────────────────────


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_ends_a_node_cleanly(number, home):
    node = home.start_node()
    facts = json.loads(node.ready_file.read_text())
    private = json.loads(home.daemon_file.read_text())
    mode = home.daemon_file.stat().st_mode & 0o777
    # A client that keeps its connection open must not hold the node.
    idle = socket.create_connection(node.endpoint)
    host, _, port = node.local_url.removeprefix("http://").rpartition(":")
    kept = http.client.HTTPConnection(host, int(port), timeout=60)
    kept.request("GET", "/healthz")
    health = json.loads(kept.getresponse().read())
    code = node.stop(number)
    idle.close()
    kept.close()

    assert code == 0, node.errors()
    assert set(facts) == {"node_id", "address", "local_url", "pid"}
    assert facts["pid"] == node.process.pid
    assert facts["address"] == f"p2phub://{facts['node_id']}@127.0.0.1:{node.endpoint[1]}"
    assert facts["local_url"].startswith("http://127.0.0.1:")
    assert health["node_id"] == facts["node_id"]
    assert "token" not in facts
    assert private["token"]
    assert mode == 0o600
    assert not home.daemon_file.exists()
    assert not node.ready_file.exists()
    assert "Traceback" not in node.errors()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(node.endpoint, timeout=5)


def test_a_signal_during_an_operation_ends_both_and_keeps_what_came(home, tmp_path, seed):
    # A node with work of every kind: it serves, it answers, and peers are connected.
    with home.node(peers=(seed.node.address,)) as node:

        def work() -> None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                ask(node)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        code = node.stop(signal.SIGTERM)
        for thread in threads:
            thread.join()

    assert code == 0, node.errors()


def test_a_node_has_as_many_descriptors_as_it_may(home):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
    try:
        with home.node() as node:
            given = resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert given == (hard, hard)


def test_a_node_leaves_no_process_behind(home):
    node = home.start_node()
    children = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()
    node.stop()

    assert children == []


def test_a_second_node_of_the_same_home_is_refused(home):
    with home.node() as node:
        outcome = home.run("node", "--listen", "127.0.0.1:0", "--local", "127.0.0.1:0", code=1)
        still = home.ask("status")

    assert str(node.pid) in outcome.err
    assert "runs already" in outcome.err
    assert "P2PHUB_HOME" in outcome.err
    assert still["node_id"] == node.node_id
    assert still["serving"]


def test_what_a_killed_node_left_behind_does_no_harm(home):
    node = home.start_node()
    node.kill()
    left = home.daemon_file.exists()
    alone = home.ask("status")
    with home.node() as again:
        through = home.ask("status")

    assert left
    assert not alone["serving"]
    assert through["serving"]
    assert again.node_id == node.node_id


@pytest.mark.parametrize("kind", ["silent", "http"])
def test_a_stranger_on_the_port_of_a_killed_node_does_no_harm(kind, home):
    node = home.start_node()
    node.kill()
    port = int(node.local_url.rpartition(":")[2])
    with Stranger(kind, port):
        status = home.ask("status")

    assert not status["serving"]


def test_who_waits_for_a_node_that_does_not_answer_is_told_so(home, monkeypatch):
    monkeypatch.setattr(client, "QUIET_S", 0.1)
    monkeypatch.setattr(client, "ANSWER_TIMEOUT_S", 0.3)
    with home.node() as node:
        node.process.send_signal(signal.SIGSTOP)
        try:
            alone = home.call("status")
            named = home.call("status", code=1, env={"P2PHUB_NODE": node.local_url})
        finally:
            node.process.send_signal(signal.SIGCONT)
        through = home.call("status")

    for outcome in (alone, named):
        assert f"p2phub: note: the node at {node.local_url} does not answer" in outcome.err
    assert "running  no" in alone.out
    assert "no node answers at" in named.err
    assert "running  since" in through.out
    assert "does not answer" not in through.err


@pytest.mark.parametrize("kind", ["silent", "banner", "http"])
def test_a_stranger_where_p2phub_node_points_is_recognized(kind, home):
    with Stranger(kind, 0) as port:
        outcome = home.call("status", code=1, env={"P2PHUB_NODE": f"http://127.0.0.1:{port}"})

    assert f"127.0.0.1:{port}" in outcome.err
    assert len([line for line in outcome.err.splitlines() if "error" in line]) == 1


def test_another_node_on_the_port_of_a_killed_one_is_not_taken_for_it(home, tmp_path):
    node = home.start_node()
    node.kill()
    other = Home(tmp_path / "other")
    with other.node() as running:
        facts = json.loads(home.daemon_file.read_text())
        home.daemon_file.write_text(json.dumps({**facts, "local_url": running.local_url}))
        status = home.ask("status")

    assert status["node_id"] == node.node_id
    assert not status["serving"]


@pytest.mark.parametrize("door", ["--listen", "--local"])
def test_a_port_in_use_is_named(door, home):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        endpoint = f"127.0.0.1:{taken.getsockname()[1]}"
        doors = {"--listen": "127.0.0.1:0", "--local": "127.0.0.1:0", door: endpoint}
        outcome = home.run("node", *(word for pair in doors.items() for word in pair), code=1)

    assert endpoint in outcome.err
    assert "in use" in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert not home.daemon_file.exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "[::]", "models.example"])
def test_a_local_door_is_for_this_machine(host, home):
    outcome = home.run("node", "--listen", "127.0.0.1:0", "--local", f"{host}:0", code=1)

    assert "the local door answers this machine only" in outcome.err
    assert "--public" in outcome.err
    assert not home.daemon_file.exists()


def test_everybody_reads_at_the_public_door_and_the_owner_alone_at_the_local_one(home):
    port = free_port()
    with home.node("--public", f"127.0.0.1:{port}", "--public-host", "models.example") as running:
        public = replace(running, local_url=f"http://127.0.0.1:{port}")
        listed = ask(public, b"", method="GET", path="/api/models", headers={"host": "models.example"})
        elsewhere = ask(public, b"", method="GET", path="/api/models", headers={"host": "localhost"})
        operation = ask(public, headers={"host": "models.example"})
        owner = ask(running)
        said = running.errors()

    assert (listed, elsewhere[0], operation[0], owner[0]) == ((200, b"[]"), 403, 405, 200)
    assert f"everybody may read what is public here at http://127.0.0.1:{port}" in said


def test_a_public_door_at_every_address_must_be_told_its_name(home):
    outcome = home.run("node", "--listen", "127.0.0.1:0", "--local", "127.0.0.1:0", "--public", "0.0.0.0:0", code=2)

    assert "--public-host NAME" in outcome.err


def test_an_address_of_another_machine_is_named(home):
    outcome = home.run("node", "--listen", "192.0.2.1:8627", "--local", "127.0.0.1:0", code=1)

    assert "192.0.2.1:8627" in outcome.err


def test_a_ready_file_that_cannot_be_written_is_named(home, tmp_path):
    (tmp_path / "file").write_text("x")
    outcome = home.run(
        "node", "--listen", "127.0.0.1:0", "--local", "127.0.0.1:0", "--ready-file", str(tmp_path / "file" / "ready"),
        code=1,
    )  # fmt: skip

    assert str(tmp_path / "file") in outcome.err


def test_without_a_network_there_is_no_node(home):
    outcome = home.run("node", "--listen", "127.0.0.1:0", "--local", "127.0.0.1:0", code=6, env={"P2PHUB_OFFLINE": "1"})

    assert "switched off" in outcome.err
    assert "P2PHUB_OFFLINE" in outcome.err
    assert not home.daemon_file.exists()


def test_peers_that_do_not_answer_hold_nobody_up(home):
    # A node starts, answers and stops while the peer it was told of is away.
    id_ = "a" * 52
    with home.node(peers=()) as node:
        pass
    address = f"p2phub://{node.node_id}@127.0.0.1:{free_port()}"
    other = Home(home.folder.with_name("other"))
    with other.node(peers=(address,)):
        status = other.json("status")

    assert status["peers"] == 1
    assert id_ not in other.run("status").out


# ── the control API ─────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory):
    """Run a node that knows nobody."""
    with Home(tmp_path_factory.mktemp("running") / "home").node() as node:
        yield node


def test_an_operation_is_answered_with_lines_of_json(running):
    status, body = ask(running)

    assert status == 200
    assert json.loads(body.splitlines()[-1])["result"]["node_id"] == running.node_id


@pytest.mark.parametrize("token", ["", "wrong", "é", "x" * 10_000])
def test_a_wrong_token_is_401(token, running):
    status, body = ask(running, headers={"authorization": f"Bearer {token}".encode().decode("latin-1")})

    assert status in (401, 431)
    assert running.node_id.encode() not in body


def test_a_missing_token_is_401(running):
    assert ask(running, headers={"authorization": None})[0] == 401
    assert ask(running, headers={"authorization": "Basic eDp5"})[0] == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://example.org"},
        {"origin": "null"},
        {"origin": ""},
        {"host": "example.org"},
        {"host": "127.0.0.1.example.org"},
        {"host": "localhost.example.org:1"},
        {"sec-fetch-site": "cross-site"},
    ],
    ids=lambda headers: str(next(iter(headers.items()))),
)
def test_a_page_of_a_browser_is_403_even_with_the_token(headers, running):
    status, _ = ask(running, headers=headers)

    assert status == 403


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "localhost:1", "[::1]:8628"])
def test_loopback_is_this_machine_whatever_port_was_forwarded(host, running):
    assert ask(running, headers={"host": host})[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        b"", b"garbage", b"\xff\xfe", b"[]", b"null", b"{}", b'{"operation":"unknown"}', b'{"operation":"fetch"}',
        b'{"operation":"status","more":1}', b'{"operation":["status"]}', b'{"operation":"fetch","reference":7}',
        b'{"operation":"fetch","reference":"' + b"x" * 5000 + b'"}', b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
    ids=lambda body: body[:36].decode("latin-1") or "nothing",
)  # fmt: skip
def test_what_is_no_operation_is_400(body, running):
    status, answer = ask(running, body)

    assert status == 400
    assert json.loads(answer)["error"]["text"]


def test_an_oversize_operation_is_413(running):
    status, answer = ask(running, b'{"operation":"status","x":"' + b"x" * (2 * 1024 * 1024) + b'"}')

    assert status == 413
    assert "at most" in json.loads(answer)["error"]["text"]


def test_an_endless_body_is_cut_off(running):
    host, _, port = running.local_url.removeprefix("http://").rpartition(":")
    token = json.loads(running.home.daemon_file.read_text())["token"]
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(
            f"POST /control/v1/run HTTP/1.1\r\nhost: {host}:{port}\r\nauthorization: Bearer {token}\r\n"
            "transfer-encoding: chunked\r\n\r\n".encode()
        )
        sent, answer = 0, b""
        with contextlib.suppress(OSError):
            for _ in range(200):
                connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
                sent += 0x10000
        with contextlib.suppress(OSError):
            answer = connection.recv(65536)

    assert b" 413 " in answer or sent < 200 * 0x10000
    assert ask(running)[0] == 200


@pytest.mark.parametrize("sent", [b"zz\r\nhello", b"5\r\n{", b""], ids=["no length", "less than was said", "nothing"])
def test_a_client_that_leaves_in_the_middle_of_an_operation_is_no_error_of_the_node(home, sent):
    with home.node() as node:
        host, _, port = node.local_url.removeprefix("http://").rpartition(":")
        token = json.loads(home.daemon_file.read_text())["token"]
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(
                f"POST /control/v1/run HTTP/1.1\r\nhost: {host}:{port}\r\nauthorization: Bearer {token}\r\n"
                "transfer-encoding: chunked\r\n\r\n".encode()
                + sent
            )
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
        assert ask(node)[0] == 200

    assert "Traceback" not in node.errors()


def test_other_paths_and_methods_are_refused(running):
    assert ask(running, path="/")[0] == 404
    assert ask(running, path="/control/v1/other")[0] == 404
    assert ask(running, method="GET")[0] == 405
    assert ask(running, path="/healthz", method="GET")[0] == 200


def test_errors_cross_the_door_as_they_are(running):
    # The command line gives the same words and exit code with and without a daemon.
    there = running.home.call("fetch", "b3:" + "0" * 64, code=3)
    here = running.home.call("fetch", "b3:" + "0" * 64, code=3, env={"P2PHUB_NODE": "none"})

    assert there.err == here.err
    assert running.home.call("fetch", "no name", code=2).err.startswith("p2phub: error: ")


def test_p2phub_node_works_through_another_homes_node(running, tmp_path):
    token = json.loads(running.home.daemon_file.read_text())["token"]
    home = Home(tmp_path / "home")
    env = {"P2PHUB_NODE": running.local_url, "P2PHUB_TOKEN": token}
    status = home.ask("status", env=env)
    refused = home.call("status", code=5, env={**env, "P2PHUB_TOKEN": "wrong"})

    assert status["node_id"] == running.node_id
    assert "token" in refused.err


async def test_a_client_that_goes_away_stops_its_fetch_and_the_node_stays_well(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "weights.bin").write_bytes(os.urandom(30_000_000))
    seed_home, home = Home(tmp_path / "seed"), Home(tmp_path / "home")
    await trio.to_thread.run_sync(partial(seed_home.call, "id", "new"))
    published = await trio.to_thread.run_sync(partial(seed_home.ask, "publish", str(tmp_path / "folder"), "slow"))
    async with open_home(seed_home.folder) as seed, open_linked(seed, rate=5e6) as link:
        node = await trio.to_thread.run_sync(partial(home.start_node, peers=(str(link.address(seed)),)))
        body = json.dumps({"operation": "fetch", "reference": published["revision"]}).encode()
        host, _, port = node.local_url.removeprefix("http://").rpartition(":")
        token = json.loads(home.daemon_file.read_text())["token"]
        client = socket.create_connection((host, int(port)))
        client.sendall(
            f"POST /control/v1/run HTTP/1.1\r\nhost: {host}:{port}\r\nauthorization: Bearer {token}\r\n"
            f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        await wait_for(lambda: link.carried > 9_000_000, "the fetch to run")
        client.close()
        await wait_quiet(link)
        carried = link.carried
        link.rate = None
        result = await trio.to_thread.run_sync(partial(home.ask, "fetch", published["revision"]))
        code = await trio.to_thread.run_sync(node.stop)

    assert carried < 27_000_000
    assert result["here_before"] > 0
    assert tree(Path(result["path"])) == tree(tmp_path / "folder")
    assert code == 0
    assert "Traceback" not in node.errors()


def test_two_fetches_through_a_node_at_once_download_once(seed, home, tmp_path):
    with home.node(peers=(seed.node.address,)):
        before = seed.node.home.ask("status")["uploaded"]
        processes = [
            home.start("fetch", seed.name, "--to", str(tmp_path / f"out-{number}"), "--json") for number in range(3)
        ]
        results = []
        for process in processes:
            out, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
            results.append(json.loads(out))
        after = seed.node.home.ask("status")["uploaded"]

    size = results[0]["size"]
    assert sum(result["received"] for result in results) == size
    assert after - before == size
    for number in range(3):
        assert tree(tmp_path / f"out-{number}") == tree(seed.folder)


def test_log_lines_of_a_node_carry_no_secret(running):
    ask(running, headers={"authorization": "Bearer wrong"})
    token = json.loads(running.home.daemon_file.read_text())["token"]

    assert token not in running.errors()


def test_who_opens_connections_and_says_nothing_takes_no_descriptors_that_a_node_needs(home, seed):
    """With as few as a careless unit file gives it."""
    ready = home.folder / "ready.json"
    home.folder.mkdir()
    process = home.start(
        "node", "--listen", "127.0.0.1:0", "--local", "127.0.0.1:0", "--ready-file", str(ready), *seed.peer,
        preexec_fn=partial(resource.setrlimit, resource.RLIMIT_NOFILE, (96, 96)), stdout=subprocess.DEVNULL,
    )  # fmt: skip
    wait_until(lambda: ready.exists() or process.poll() is not None, "the node to be ready")
    facts = json.loads(ready.read_text())
    doors = [facts["address"].rpartition("@")[2], facts["local_url"].rpartition("/")[2]]
    idle = []
    for number in range(120):
        host, _, port = doors[number % 2].rpartition(":")
        idle.append(socket.create_connection((host, int(port))))
    fetched = home.call("fetch", seed.name)
    changed = home.call("limits", "set", "lan", "--up", "none")
    status = home.ask("status")
    for connection in idle:
        connection.close()
    process.terminate()
    _, errors = process.communicate()

    assert fetched.code == changed.code == 0
    assert status["serving"]
    assert process.returncode == 0
    assert "Too many open files" not in errors
