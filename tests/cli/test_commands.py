"""What a person types, and what comes back: results, notes, exit codes."""

from __future__ import annotations

import ctypes
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import trio

from p2phub.core.armor import unarmor
from p2phub.testing.hostile import open_home, open_linked, wait_for, wait_quiet
from p2phub.testing.processes import Home, tree, wait_until

COMMANDS = [
    "publish", "fetch", "pull", "download", "search", "info", "ls", "log", "cat", "verify", "branch", "yank", "node",
    "peers", "peers ls", "peers add", "peers rm", "status", "swarm", "id", "id new", "id show", "id export",
    "id renew", "id rotate", "id revoke-key", "id threshold", "id recovery", "id recovery new", "id recover",
    "id use-agent", "id request", "id add-key", "id join", "id sign", "id import",
    "id reopen", "trust", "trust conflicts", "policy", "policy show", "policy check", "recall", "attest",
    "limits", "limits set", "limits range", "limits label",
    "store", "store ls", "store rm", "store gc", "store pin", "store unpin", "store df", "store rebuild",
]  # fmt: skip

pytestmark = pytest.mark.timeout(180)


def one_line(outcome) -> str:
    """Return the error line; AssertionError unless there is exactly one, and nothing on stdout."""
    assert outcome.out == "", str(outcome)
    lines = outcome.err.splitlines()
    errors = [line for line in lines if line.startswith("p2phub: error: ")]
    rest = [line for line in lines if line not in errors]
    assert len(errors) == 1, str(outcome)
    assert all(line.startswith(("p2phub: hint: ", "p2phub: note: ")) for line in rest), str(outcome)
    return errors[0]


# ── help and usage ──────────────────────────────────────────────────────────


def test_every_command_explains_itself(home):
    processes = {command: home.start(*command.split(), "--help") for command in COMMANDS}
    for command, process in processes.items():
        out, err = process.communicate(timeout=60)

        assert process.returncode == 0, command
        assert out.startswith("Usage:"), command
        assert len(out.splitlines()) > 3, command
        assert err == "", command
    assert not home.folder.exists(), "asking for help makes no home"
    everything = home.run("--help").out
    for command in ("publish", "fetch", "search", "info", "verify", "node", "peers", "status", "id", "store"):
        assert re.search(rf"^  {command} ", everything, re.MULTILINE)
    assert re.search(r"\d+\.\d+", home.run("--version").out)


@pytest.mark.parametrize(
    "arguments",
    [
        ("fetch",),
        ("fetsh", "x"),
        ("fetch", "x", "--link", "magic"),
        ("search", "--params", "many"),
        ("search", "--params", "1e999-"),
        ("search", "--params", "-"),
        ("search", "--limit", "-1"),
        ("search", "--fits", "much"),
        ("search", "--size", "1GB"),
        ("search", "--metric", ">=60"),
        ("branch", "small", "main"),
        ("branch", "small", "main", "1.0.0", "--delete"),
        ("peers", "add"),
        ("publish", "."),
        ("node", "--listen", "nowhere"),
        ("node", "--listen", "127.0.0.1:99999"),
        ("node", "--peer", "127.0.0.1:1"),
        ("peers", "add", "http://example.org"),
        ("peers", "add", "p2phub://short@127.0.0.1:1"),
        ("peers", "rm", "nobody"),
        ("fetch", "not a name"),
        ("fetch", "b3:123"),
        ("info", "a/b/c"),
        ("log", "!"),
        ("ls", ""),
        ("cat", "UPPER/x", "README.md"),
        ("verify", "x@"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2_and_said_in_words(arguments, home):
    outcome = home.call(*arguments, code=2)

    assert outcome.out == ""
    assert outcome.err.strip()
    assert len(outcome.err.splitlines()) <= 5


# ── exit codes ──────────────────────────────────────────────────────────────


def test_exit_codes_tell_what_kind_of_failure_it_was(seed, copy_home, home, tmp_path):
    known = copy_home("known")
    other = f"{seed.namespace}/other"

    expected: list[tuple[Home, int, str, tuple[str, ...]]] = [
        (home, 3, "no peers are known", ("fetch", other)),
        (home, 3, "no peers are known", ("fetch", seed.revision)),
        (known, 3, other, ("fetch", other)),
        (known, 3, "2.0.0", ("fetch", f"{seed.name}@2.0.0")),
        (known, 3, "no file", ("fetch", seed.name, "--include", "*.gguf")),
        (known, 3, "no file", ("cat", seed.name, "nothing.txt")),
        (known, 3, "no records", ("log", other)),
        (known, 3, "no files were placed", ("verify", str(tmp_path))),
        (known, 6, "switched off", ("fetch", other, "--offline")),
        (home, 6, "switched off", ("fetch", seed.revision, "--offline")),
        (known, 2, "not your namespace", ("publish", str(seed.folder), seed.name)),
        (known, 1, "no folder", ("publish", str(tmp_path / "nothing"), "x")),
    ]
    for home_, code, words, arguments in expected:
        assert words in one_line(home_.call(*arguments, code=code))


def test_offline_does_what_it_can_without_the_network(seed, copy_home, tmp_path):
    known = copy_home()
    offline = {"P2PHUB_OFFLINE": "1"}
    known.call("fetch", seed.name, "--to", str(tmp_path / "out"), env=offline)

    assert tree(tmp_path / "out") == tree(seed.folder)
    assert known.ask("search", "mood", env=offline)["models"]
    assert known.ask("info", seed.name, env=offline)["revision"] == seed.revision
    assert known.ask("ls", seed.name, "--offline")
    assert known.ask("log", seed.name, "--offline")


# ── JSON ────────────────────────────────────────────────────────────────────


def test_json_is_one_document_on_stdout_for_every_command(seed, copy_home, tmp_path):
    home = copy_home()
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "README.md").write_text("# Own\n")
    (folder / "broken.safetensors").write_bytes(b"no header")
    (folder / "link").symlink_to(tmp_path)
    runs = {
        ("id", "show"): dict,
        ("publish", str(folder), "own@1.0.0"): dict,
        ("search", "--facets"): dict,
        ("search", "nothing-like-it"): dict,
        ("info", seed.name): dict,
        ("ls", seed.name): list,
        ("log", seed.name): list,
        ("fetch", seed.name, "--to", str(tmp_path / "out")): dict,
        ("fetch", "own", "--dry-run"): dict,
        ("verify", seed.name): dict,
        ("verify", str(tmp_path / "out")): dict,
        ("branch", "own", "stable", "1.0.0"): dict,
        ("yank", "own@1.0.0"): dict,
        ("peers", "ls"): list,
        ("peers", "add", seed.node.address): list,
        ("peers", "rm", seed.node.node_id): dict,
        ("status",): dict,
        ("store", "ls"): list,
        ("store", "pin", seed.name): dict,
        ("store", "unpin", seed.name): dict,
        ("store", "df"): dict,
        ("store", "rebuild"): dict,
        ("store", "gc"): dict,
        ("store", "rm", seed.name): dict,
    }
    for arguments, kind in runs.items():
        outcome = home.call(*arguments, "--json")

        assert isinstance(outcome.json, kind), str(outcome)
        assert outcome.out.count("\n") == 1, "one line, so that it can be piped"
        if arguments[0] == "publish":
            assert "note: " in outcome.err, "notes are kept out of the document"
            assert "broken.safetensors" in outcome.err
    again = home.call("id", "new", "--json", code=1)
    assert again.out == ""


def test_an_error_prints_nothing_on_stdout_with_json_too(home):
    outcome = home.call("fetch", "b3:" + "0" * 64, "--json", code=3)

    assert one_line(outcome)


def test_what_people_see_names_the_facts(seed, copy_home):
    home = copy_home()
    info = home.call("info", seed.name).out
    listing = home.call("ls", seed.name, "*.bin").out
    search = home.call("search").out

    for fact in (seed.name, seed.revision, "1.0.0", "main", "text-classification", "Apache-2.0", "Sorts sentences"):
        assert fact in info
    assert "weights.bin" in listing
    assert "README.md" not in listing
    assert "here" in listing
    assert f"{seed.name}@1.0.0" in search
    assert f"{seed.namespace}/sentences" in search


def test_search_filters_by_every_facet(seed, copy_home):
    home = copy_home()

    queries = {
        ("--sort", "newest"): {"mood", "sentences"},
        ("sorts", "mood"): {"mood"},
        ("--kind", "dataset"): {"sentences"},
        ("--task", "text-classification"): {"mood"},
        ("--library", "transformers", "--license", "apache-2.0"): {"mood"},
        ("--license", "MIT"): set(),
        ("--publisher", seed.namespace): {"mood", "sentences"},
        ("--sort", "size", "--limit", "1"): {"mood"},
        ("--sort", "name", "--limit", "1"): {"mood"},
        ("--params", "1B-"): set(),
        ("--size", "-1MB"): {"sentences"},
        ("--size", "1TB-"): set(),
        ("--fits", "1"): {"mood", "sentences"},
        ("--fits", "1B"): set(),
        ("--here",): {"mood"},
        ("--replicas", "1"): set(),
        ("--has-variant",): set(),
        ("--metric", "accuracy>=0.5"): set(),
        ("--language", "en", "--language", "xx"): set(),
        ('"unbalanced OR (', "*"): set(),
    }
    found = {
        query: {model["model"] for model in home.ask("search", *query, "--offline")["models"]} for query in queries
    }

    assert found == queries


# ── terminals, pipes, signals ───────────────────────────────────────────────


def run_on_terminal(home: Home, *arguments: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a command on a terminal of its own; returns its exit code and all it showed."""
    ours, theirs = pty.openpty()
    process = home.start(
        *arguments, env={"TERM": "xterm", "COLUMNS": "120", "LINES": "40", **(env or {})}, stdin=theirs, stdout=theirs,
        stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        ready, _, _ = select.select([ours], [], [], 60)
        assert ready, f"nothing more came: {shown!r}"
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end was closed
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    return process.wait(timeout=60), shown.decode("utf-8", "replace")


async def test_a_terminal_shows_a_bar_with_rate_and_providers_and_a_pipe_does_not(known_home, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "weights.bin").write_bytes(os.urandom(12_000_000))
    seed_home = Home(tmp_path / "seed")
    await trio.to_thread.run_sync(partial(seed_home.call, "id", "new"))
    published = await trio.to_thread.run_sync(partial(seed_home.ask, "publish", str(tmp_path / "folder"), "slow@1.0.0"))
    async with open_home(seed_home.folder) as seed, open_linked(seed, rate=4e6) as link:
        arguments = ("fetch", published["revision"], "--peer", str(link.address(seed)))
        code, shown = await trio.to_thread.run_sync(
            partial(run_on_terminal, Home(tmp_path / "a"), *arguments, "--to", str(tmp_path / "out-a"))
        )
        link.rate = None
        plain_code, plain = await trio.to_thread.run_sync(
            partial(run_on_terminal, Home(tmp_path / "c"), *arguments, env={"NO_COLOR": "1"})
        )
        piped = await trio.to_thread.run_sync(
            partial(Home(tmp_path / "b").run, *arguments, "--to", str(tmp_path / "out-b"))
        )

    assert code == plain_code == 0
    assert "fetching" in shown
    assert re.search(r"\d MB/s", shown), "the rate"
    assert re.search(r"MB of 12\.0 MB", shown), "how much of how much"
    assert " left" in shown, "the time left"
    assert re.search(rf"{str(seed.id)[:12]}….*/s", shown), "what each provider gives"
    assert str(tmp_path / "out-a") in shown
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", plain), "no colours with NO_COLOR"
    assert "\x1b" not in piped.out + piped.err
    assert "/s left" not in piped.err
    assert piped.out == f"{tmp_path / 'out-b'}\n"
    assert "verified" in piped.err


@pytest.mark.parametrize("arguments", [("search",), ("info",), ("ls", "--json"), ("store", "df"), ("cat",)])
def test_a_reader_that_leaves_early_gets_no_traceback(arguments, seed, copy_home):
    home = copy_home()
    command = list(arguments)
    if arguments[0] in ("info", "ls", "cat"):
        command.insert(1, seed.name)
    if arguments[0] == "cat":
        command.append("weights.bin")
    ours, theirs = os.pipe()
    os.close(ours)  # nobody reads at all
    try:
        process = home.start(*command, stdout=theirs)
    finally:
        os.close(theirs)
    _, err = process.communicate(timeout=60)

    assert err == ""
    assert process.returncode in (0, 1, 141)


def test_a_full_disk_behind_stdout_is_said_in_one_line(copy_home):
    home = copy_home()
    with open("/dev/full", "w") as full:
        process = home.start("store", "df", stdout=full)
        _, err = process.communicate(timeout=60)

    assert process.returncode in (1, 8)
    assert err.startswith("p2phub: error: ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("through_daemon", [False, True], ids=["alone", "through the daemon"])
async def test_ctrl_c_during_a_fetch_ends_it_at_once_with_one_line_and_keeps_what_came(through_daemon, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "weights.bin").write_bytes(os.urandom(20_000_000))
    seed_home, home = Home(tmp_path / "seed"), Home(tmp_path / "home")
    await trio.to_thread.run_sync(partial(seed_home.call, "id", "new"))
    published = await trio.to_thread.run_sync(partial(seed_home.ask, "publish", str(tmp_path / "folder"), "slow"))
    async with open_home(seed_home.folder) as seed, open_linked(seed, rate=5e6) as link:
        arguments = ("fetch", published["revision"], "--peer", str(link.address(seed)), "--json")
        node = await trio.to_thread.run_sync(home.start_node) if through_daemon else None
        process = home.start(*arguments)
        await wait_for(lambda: link.carried > 9_000_000 or process.poll() is not None, "the fetch to run")
        process.send_signal(signal.SIGINT)
        out, err = await trio.to_thread.run_sync(partial(process.communicate, timeout=60))
        # Whoever did the work stops too.
        await wait_quiet(link)
        carried = link.carried
        link.rate = None
        result = await trio.to_thread.run_sync(partial(home.ask, *arguments[:-1]))
        code = await trio.to_thread.run_sync(node.stop) if node else 0

    assert process.returncode == 130
    assert out == ""
    assert err.strip() == "p2phub: interrupted"
    assert carried < 18_000_000
    assert result["here_before"] > 2_000_000
    assert code == 0


def test_ctrl_c_at_any_time_gives_no_traceback(seed, tmp_path):
    for number, wait_s in enumerate((0.05, 0.2, 0.35, 0.5, 0.65)):
        home = Home(tmp_path / str(number))
        process = home.start("fetch", seed.name, *seed.peer)
        time.sleep(wait_s)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)

        # Before the program has begun, on a busy machine for long, it is Python that shows one.
        if "entry()" in err or "Traceback" not in err:
            assert "Traceback" not in err, f"after {wait_s} s:\n{err}"
            assert process.returncode in (0, 130, -signal.SIGINT), wait_s


# ── the environment ─────────────────────────────────────────────────────────


def test_a_bad_environment_is_said_in_one_line(home, tmp_path):
    (tmp_path / "file").write_text("a file")

    assert "P2PHUB_OFFLINE=maybe" in one_line(home.call("search", code=2, env={"P2PHUB_OFFLINE": "maybe"}))
    assert "127.0.0.1:1" in one_line(home.call("search", code=1, env={"P2PHUB_NODE": "http://127.0.0.1:1"}))
    assert "P2PHUB_NODE" in one_line(home.call("search", code=1, env={"P2PHUB_NODE": "nonsense"}))
    assert "P2PHUB_NODE" in one_line(home.call("search", code=1, env={"P2PHUB_NODE": "http://[::1"}))
    assert str(tmp_path / "file") in one_line(home.call("search", code=1, env={"P2PHUB_HOME": str(tmp_path / "file")}))
    assert str(tmp_path / "file") in one_line(home.call("search", code=1, env={"P2PHUB_STORE": str(tmp_path / "file")}))
    assert str(tmp_path / "file") in one_line(
        home.call("search", code=1, env={"P2PHUB_HOME": str(tmp_path / "file" / "below")})
    )


def test_a_damaged_index_is_said_in_one_line_with_the_way_out(copy_home):
    home = copy_home()
    for path in home.folder.glob("index.sqlite*"):
        path.unlink()
    (home.folder / "index.sqlite").write_bytes(b"this is no database" * 100)
    outcome = home.call("search", code=1)

    assert "index.sqlite" in one_line(outcome)
    assert "store rebuild" in outcome.err


def test_a_key_that_others_may_read_is_refused_with_the_remedy(copy_home, seed):
    home = copy_home()
    (home.folder / "keys" / "publish.key").chmod(0o644)
    outcome = home.call("publish", str(seed.folder), "x", code=1)

    assert "publish.key" in one_line(outcome)
    assert "chmod 600" in outcome.err
    assert "p2phub-key" not in outcome.err


# ── identity ────────────────────────────────────────────────────────────────


def test_an_identity_is_made_once_shown_and_exported_without_secrets(home, tmp_path):
    made = home.ask("id", "new")
    again = home.call("id", "new", code=1)
    shown = home.ask("id", "show")
    home.call("id", "export", "--public", "--to", str(tmp_path / "identity"))
    process = home.start("id", "export", "--public", text=False, errors=None)
    piped, _ = process.communicate(timeout=60)
    secret = (home.folder / "keys" / "publish.key").read_text().split()[-1]

    assert shown == made
    assert home.ask("id") == made
    assert "already" in one_line(again)
    assert "p2phub id" in again.err
    assert (tmp_path / "identity").read_bytes() == piped
    assert piped.startswith(b"p2phub-identity-1:")
    assert bytes.fromhex(secret) not in unarmor("identity", piped.decode(), size_max=10_000)
    assert secret not in json.dumps(made)
    assert (home.folder / "keys" / "publish.key").stat().st_mode & 0o777 == 0o600
    assert (home.folder / "keys").stat().st_mode & 0o777 == 0o700
    assert home.folder.stat().st_mode & 0o777 == 0o700


def test_without_an_identity_every_command_that_needs_one_shows_the_way(home, seed):
    commands = (
        ("id", "show"), ("publish", str(seed.folder), "x"), ("branch", "x", "main", "1.0.0"), ("yank", "x@1.0.0"),
    )  # fmt: skip
    for arguments in commands:
        outcome = home.call(*arguments, code=3)

        assert "no publisher identity" in one_line(outcome)
        assert "p2phub id new" in outcome.err


# ── publish, fetch, verify as typed ─────────────────────────────────────────


def _obey_permissions() -> None:
    """Let root be like anybody: without the capabilities to read what permissions deny."""
    libc = ctypes.CDLL(None)
    for capability in (1, 2):  # linux/capability.h: DAC_OVERRIDE, DAC_READ_SEARCH
        libc.prctl(24, capability, 0, 0, 0)  # linux/prctl.h: CAPBSET_DROP


def test_publish_names_the_path_that_it_cannot_read(home, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "README.md").write_text("# One\n")
    (folder / "secret.bin").write_text("secret")
    (folder / "secret.bin").chmod(0)
    home.run("id", "new")
    one = home.run("publish", str(folder), "x", code=1, preexec_fn=_obey_permissions)
    (folder / "secret.bin").unlink()
    (folder / "closed").mkdir(mode=0)
    two = home.run("publish", str(folder), "x", code=1, preexec_fn=_obey_permissions)
    (folder / "closed").chmod(0o755)

    assert "secret.bin" in one_line(one)
    assert "ermission" in one.err
    assert "closed" in one_line(two)


def test_names_that_are_no_text_are_shown_and_harm_nothing(copy_home, tmp_path):
    home = copy_home()
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "README.md").write_text("# One\n")
    os.mkfifo(os.path.join(os.fsencode(folder), b"pipe-\xff"))
    strange = os.path.join(os.fsencode(tmp_path), b"folder-\xff")
    os.mkdir(strange)
    with home.node():
        noted = home.call("publish", str(folder), "own")
        told = home.call("publish", os.fsdecode(strange), "own", code=2)
    with open(os.path.join(os.fsencode(folder), b"file-\xff"), "w") as file:
        file.write("x")
    refused = home.call("publish", str(folder), "own", code=1)
    alone = home.call("publish", os.fsdecode(strange), "own", code=2)

    assert "pipe-" in noted.err
    assert "file-" in one_line(refused)
    for outcome in (told, alone):
        assert "not UTF-8" in one_line(outcome)


def test_a_folder_fetched_to_by_any_spelling_can_be_verified_by_any_other(seed, copy_home, tmp_path, monkeypatch):
    home = copy_home()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "sub")
    home.call("fetch", seed.name, "--to", "sub/../out")
    home.call("fetch", seed.name, "--to", "./out/")
    home.call("fetch", seed.name, "--to", "link/inner")

    spellings = ("out", "./out", str(tmp_path / "out"), "sub/../out/", "link/inner", "sub/inner")
    for spelling in spellings:
        assert home.ask("verify", spelling)["files"] == 4, spelling


def test_verify_exits_with_4_and_names_file_and_bytes(seed, copy_home, tmp_path):
    home = copy_home()
    home.call("fetch", seed.name, "--to", str(tmp_path / "out"), "--link", "copy")
    with open(tmp_path / "out" / "weights.bin", "r+b") as file:
        file.seek(2_500_000)
        file.write(b"rotten")
    shown = home.call("verify", str(tmp_path / "out"), code=4)
    as_json = home.ask("verify", str(tmp_path / "out"), code=4)
    good = home.call("verify", seed.name)
    mended = home.call("verify", str(tmp_path / "out"), "--repair")
    home.call("verify", str(tmp_path / "out"))

    begin, end = map(int, re.search(r"weights\.bin: damaged in bytes (\d+)-(\d+)", shown.out).groups())
    assert begin <= 2_500_000 <= end
    assert end - begin < 2 * 1024 * 1024
    assert "--repair" in shown.err
    assert as_json["damaged"][0]["path"] == "weights.bin"
    assert "all good" in good.out
    assert "repaired" in mended.out
    assert tree(tmp_path / "out") == tree(seed.folder)


def test_what_is_in_the_way_is_refused_and_replaced_only_by_force(seed, copy_home, tmp_path):
    home = copy_home()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("mine")
    refused = home.call("fetch", seed.name, "--to", str(tmp_path / "out"), code=1)
    before = tree(tmp_path / "out")
    home.call("fetch", seed.name, "--to", str(tmp_path / "out"), "--force")

    assert "config.json" in one_line(refused)
    assert "--force" in refused.err
    assert set(before) == {"config.json"}
    assert tree(tmp_path / "out") == tree(seed.folder)


def test_cat_prints_the_bytes_and_nothing_else(seed, home):
    process = home.start("cat", seed.name, "weights.bin", *seed.peer, text=False, errors=None)
    data, _ = process.communicate(timeout=60)

    assert process.returncode == 0
    assert data == (seed.folder / "weights.bin").read_bytes()


def test_aliases_do_the_same(seed, home, tmp_path):
    home.call("pull", seed.name, "--to", str(tmp_path / "a"), *seed.peer)
    home.call("download", seed.name, "--to", str(tmp_path / "b"))

    assert tree(tmp_path / "a") == tree(tmp_path / "b") == tree(seed.folder)


def test_the_store_commands_say_what_they_did(seed, copy_home):
    home = copy_home()
    listed = home.call("store", "ls").out
    pinned = home.call("store", "pin", seed.name).out
    refused = home.call("store", "rm", seed.name, code=1)
    kept = home.ask("store", "gc", "--unpinned")
    home.call("store", "unpin", seed.name)
    removed = home.ask("store", "rm", seed.name)
    use = home.ask("store", "df")
    twice = home.call("store", "unpin", seed.name, code=3)

    assert seed.name in listed
    assert seed.revision in pinned
    assert "pinned" in one_line(refused)
    assert "unpin" in refused.err
    assert kept["items"] == 0
    assert removed["items"] == 4
    assert use["objects"] == 0
    assert one_line(twice)


def test_peers_are_added_listed_and_forgotten(seed, home):
    added = home.call("peers", "add", seed.node.address)
    listed = home.ask("peers", "ls")
    shown = home.call("peers", "ls").out
    home.call("peers", "rm", seed.node.address)
    gone = home.call("peers", "rm", seed.node.node_id, code=3)
    for peer in home.ask("peers", "ls"):  # others, of whom the seed told
        home.call("peers", "rm", peer["node"])
    nobody = home.call("peers", "ls")

    assert seed.node.node_id in added.out
    assert "not answered" not in added.out
    assert [(peer["node"], peer["last_seen"] is not None) for peer in listed if peer["added"]] == [
        (seed.node.node_id, True)
    ]
    assert seed.node.address in shown
    assert one_line(gone)
    assert nobody.out == ""
    assert "peers add" in nobody.err


def test_two_command_lines_at_once_share_a_home(seed, home, tmp_path):
    folders = []
    for number in range(4):
        folder = tmp_path / f"folder-{number}"
        folder.mkdir()
        (folder / "README.md").write_text(f"# Number {number}\n")
        (folder / "same.bin").write_bytes(b"same" * 500_000)
        folders.append(folder)
    home.run("id", "new")
    processes = [home.start("publish", str(folder), f"number-{folder.name[-1]}@1.0.0") for folder in folders]
    processes.append(home.start("fetch", seed.name, *seed.peer))
    ends = [(process.communicate(timeout=120), process.returncode) for process in processes]

    for (_, err), code in ends:
        assert code == 0, err
    wait_until(lambda: len(home.ask("log", home.ask("id", "show")["namespace"])) == 4, "four records")
    assert [line["index"] for line in home.ask("log", home.ask("id", "show")["namespace"])] == [3, 2, 1, 0]


def test_the_package_runs_as_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "p2phub", "search", "--nonsense"], capture_output=True, text=True)

    assert done.returncode == 2
    assert "No such option" in done.stderr
