"""What people type by mistake, and surroundings that are not as usual: one line says what is wrong."""

from __future__ import annotations

import socket
import threading

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from p2phub.cli.text import one_line, parse_byte_range, parse_range
from p2phub.core.ids import NodeId
from p2phub.core.search import Query, encode_cursor
from p2phub.testing.processes import Home

pytestmark = pytest.mark.timeout(180)

KEY = str(NodeId(Ed25519PrivateKey.generate().public_key().public_bytes_raw()))
NO_TEXT = "\udcff"  # how Python reads a byte that is not UTF-8


def refusal(outcome) -> str:
    """Return the error line; AssertionError unless it stands alone, but for a hint."""
    first, *rest = outcome.err.splitlines()
    assert first.startswith("p2phub: error: "), str(outcome)
    assert [line[:14] for line in rest] in ([], ["p2phub: hint: "]), str(outcome)
    assert outcome.out == "", str(outcome)
    return first


@pytest.mark.parametrize(
    "arguments",
    [
        ("yank", "own@1.0.0", "-m", NO_TEXT),
        ("attest", "own", "--claim", "review", "-m", NO_TEXT),
        ("search", "--tag", NO_TEXT),
        ("follow", NO_TEXT),
        ("log", NO_TEXT),
        ("fetch", "own", "--to", NO_TEXT),
        ("store", "adopt", NO_TEXT),
        ("verify", f"/{NO_TEXT}"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_is_not_utf_8_is_refused_before_anything_is_done(home, arguments):
    assert "not UTF-8" in refusal(home.call(*arguments, code=2))
    assert not home.folder.exists()


@pytest.mark.parametrize("variable", ["P2PHUB_HOME", "P2PHUB_STORE", "P2PHUB_KEY_FILE", "P2PHUB_POLICY"])
def test_a_home_of_a_user_who_is_not_there_is_no_place(tmp_path, variable):
    outcome = Home(tmp_path / "home", {variable: "~nobody-like-that/x"}).call("status", code=2)

    assert f"{variable}: no home folder is known for ~nobody-like-that/x" in refusal(outcome)


def test_a_folder_of_a_user_who_is_not_there_is_no_place(home):
    assert "no home folder is known" in refusal(home.call("fetch", "a/b", "--to", "~nobody-like-that/x", code=2))


def test_the_line_that_says_what_is_wrong_is_one_whatever_was_typed(home):
    assert "a" in refusal(home.call("fetch", "lab.example/a\nb", code=2))
    assert one_line("a\nb\x1bc") == "a\ufffdb\ufffdc"


@pytest.mark.parametrize("text", ["/dev/null", "./folder", "~/folder", "../folder"])
def test_a_path_is_not_taken_for_a_name(home, text):
    assert f"'{text}' is a path" in refusal(home.call("ls", text, code=2))


def test_a_range_that_holds_nothing_is_none():
    for parse in (parse_range, parse_byte_range):
        assert parse("5-5") == (5, 5)
        assert parse("5-") == (5, None)
        for text in ("9-1", "-", " - "):
            with pytest.raises(ValueError, match="range"):
                parse(text)


def test_a_search_for_too_much_is_wrong_usage(home):
    assert "TEXT is too long" in refusal(home.call("search", *["word"] * 300, code=2))
    assert "PUBLISHER is empty" in refusal(home.call("search", "--publisher", "", code=2))


def test_a_url_that_is_none_is_said_with_its_variable(tmp_path):
    outcome = Home(tmp_path / "home", {"P2PHUB_UPSTREAM": "nonsense"}).call("status", code=2)

    assert "P2PHUB_UPSTREAM: a URL has the form" in refusal(outcome)


@pytest.mark.parametrize("host", ["a..b", "a" * 64, NO_TEXT])
def test_a_door_whose_host_is_none_is_said_in_words(home, host):
    outcome = home.call("status", code=1, env={"P2PHUB_NODE": f"http://{host}:80"})

    assert "its host is no name that a host could have" in refusal(outcome)


def test_a_door_that_answers_with_a_riddle_is_no_node(home):
    riddle = b'{"a":' * 10_000
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            visitor, _ = server.accept()
            with visitor:
                visitor.recv(65536)
                visitor.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + riddle)

        thread = threading.Thread(target=answer)
        thread.start()
        outcome = home.call("status", code=1, env={"P2PHUB_NODE": f"http://127.0.0.1:{server.getsockname()[1]}"})
        thread.join()

    assert "what answers there is no p2phub node" in refusal(outcome)


def test_a_peer_that_is_away_is_told_as_people_write_addresses(home, seed):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    address = f"{seed.node.address.split('@')[0]}@127.0.0.1:{port}"
    outcome = home.call("peers", "add", address)

    assert f"at 127.0.0.1:{port}: Connection refused" in outcome.err


def test_lists_of_nothing_say_so(home):
    for command in ("store", "mirror"):
        outcome = home.call(command, "ls")
        assert outcome.out == ""
        assert len(outcome.err.splitlines()) == 1, str(outcome)


def test_an_id_that_was_mistyped_is_told_what_is_wrong_with_it(home):
    home.call("id", "new")
    short = home.json("id")["namespace"][:-1]
    told = [
        home.call(*arguments, code=None).err
        for arguments in (
            ("info", f"{short}/parrot"),
            ("fetch", f"{short}/parrot"),
            ("follow", short),
            ("log", short),
            ("log", f"{short}/parrot"),
            ("trust", "add", short),
            ("trust", "add", f"bob={short}"),
            ("peers", "add", f"p2phub://{short}@127.0.0.1:1"),
        )
    ]

    assert [text for text in told if "52 characters: this has 51" not in text or "trust add" in text] == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("--cursor", "nonsense"), "the cursor is none of ours"),
        (("--cursor", ""), "the cursor is none of ours"),
        (("--cursor", encode_cursor(Query("other"), (1, 1))), "the cursor belongs to another search"),
        (("--sort", "metric"), "to sort by a metric, say by which one"),
    ],
    ids=["nonsense", "nothing", "another search", "no metric"],
)
def test_a_search_that_cannot_be_answered_asks_nobody(home, wrong, said):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"p2phub://{KEY}@127.0.0.1:{server.getsockname()[1]}"
        outcome = home.call("search", "bert", "--peer", address, *wrong, code=2)

        assert said in refusal(outcome)
        assert "hint" in outcome.err
        server.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody called
            server.accept()
    assert not home.folder.exists()


def test_the_pages_of_a_search_by_a_name_follow_each_other(home, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "README.md").write_text("x")
    home.call("id", "new")
    home.call("trust", "add", f"bob={home.json('id')['namespace']}")
    for model in ("one", "two"):
        home.call("publish", str(tmp_path / "m"), model)
    found = []
    for conditions in (("--publisher", "bob"), ("bob/",)):
        page = home.json("search", *conditions, "--limit", "1")
        found += page["models"] + home.json("search", *conditions, "--cursor", page["cursor"])["models"]

    assert [each["model"] for each in found] == ["two", "one"] * 2


@pytest.mark.parametrize(("licence", "count"), [("/dev/zero", "more than 32768"), ("/dev/null", "0")])
def test_a_licence_has_an_end(home, licence, count):
    outcome = home.call("gate", "set", "own", "--licence", licence, code=2)

    assert f"{licence} has {count} characters; a licence has 1 to 32768" in refusal(outcome)
