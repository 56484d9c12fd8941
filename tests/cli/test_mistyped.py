"""What somebody reads who mistyped a name: what is right, or what to do next."""

from __future__ import annotations

import pytest

from p2phub.testing.processes import Home

MISTYPED = [
    (["branch", "parrot", "my branch", "1.0.0"], "'my branch' is no branch name", "begins with a letter"),
    (["publish", "FOLDER", "parrot", "--branch", "2b"], "'2b' is no branch name", "begins with a letter"),
    (["branch", "parot", "prod", "1.0.0"], "you have published nothing as parot", "you have published parrot"),
    (["branch", "parrot", "--delete", "prod"], "parrot has no branch prod", "it has main"),
    (["branch", "parrot", "prod", f"b3:{'ab' * 32}"], "is no revision", "write the digits without b3:"),
    (["yank", "parrot@2.0.0"], "parrot has no version 2.0.0", "it has 1.0.0"),
    (["yank", "parot@1.0.0"], "you have published nothing as parot", "you have published parrot"),
    (["yank", "zzz@1.0.0"], "you have published nothing as zzz", "you have published parrot, words"),
    (["recall", "parot@1.0.0"], "you have published nothing as parot", "you have published parrot"),
    (
        ["gate", "set", "parot", "--licence", "LICENCE"],
        "you have published nothing as parot",
        "you have published parrot",
    ),
    (["publish", "FOLDER", "my model"], "'my model' is no model name", "'my-model' is one"),
    (["publish", "FOLDER", "parrot..v2.git"], "is no model name", "'parrot.v2' is one"),
    (["fetch", "parrot@"], "has no revision after '@'", "it means its branch main"),
    (["fetch", "parot"], "nothing is known of parot", "of its publisher parrot can be had"),
    (["fetch", "b3:1234"], "is no content hash", "NAMESPACE/MODEL@HASH"),
    (["peers", "add", "192.0.2.7:8627"], "is no node address", "`p2phub node` prints"),
    (["peers", "rm", f"{'a' * 52}"], "is known", "`p2phub peers ls`"),
    (["cat", "parrot", "a"], "parrot has no file a", "it has a.txt"),
    (["ls", "parrot", "b*"], "parrot has no file b*", "it has a.txt"),
    (["attest", "parrot", "--claim", "scan", "--file", "a.tx"], "parrot has no file a.tx", "it has a.txt"),
    (["grants", "parrot"], "no private repository parrot is known here", "`p2phub grants` lists"),
    (["witness", "add", "abc"], "'abc' is no key of a log or witness", "`p2phub node --witness` prints"),
    (["id", "join", "nowhere"], "there is no file nowhere", "begins with p2phub-"),
    (["node", "--listen", "here"], "'here' is no HOST:PORT", "such as 192.0.2.7:8627"),
]


# What other tools call a command, and what does it here.
OTHERS = [
    (["push", "x"], "`p2phub publish DIR MODEL`"),
    (["serach", "x"], "`p2phub search`"),
    (["trust", "list"], "`p2phub trust ls`"),
    (["trust", "remove", "x"], "`p2phub trust rm`"),
    (["trust", "show"], "`p2phub trust why REF`"),
    (["limits", "ls"], "`p2phub limits`"),
    (["limits", "remove", "lan"], "`p2phub limits set CLASS --up none --down none`"),
    (["id", "ls"], "`p2phub id show`"),
    (["id", "create"], "`p2phub id new`"),
    (["gate", "remove"], "`p2phub gate off`"),
    (["follow", "add", "bob"], "`p2phub follow NAMESPACE`"),
    (["follow", "ls"], "`p2phub follow`"),
    (["follow", "remove", "bob"], "`p2phub follow --remove NAMESPACE`"),
    (["branch", "parrot"], "`p2phub info parrot`"),
    (["branch", "list", "parrot"], "`p2phub info parrot`"),
    (["branch", "parrot", "list"], "`p2phub info parrot`"),
    (["lock", "add", "lab.example/x"], "`p2phub lock NAME`"),
]


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Return a home that has published two repositories, and a private one."""
    base = tmp_path_factory.mktemp("mistyped")
    (base / "folder").mkdir()
    (base / "folder" / "a.txt").write_text("a\n")
    home = Home(base / "home")
    home.call("id", "new")
    for name in ("parrot@1.0.0", "words"):
        home.call("publish", str(base / "folder"), name)
    home.call("publish", str(base / "folder"), "parot-secret", "--private")
    return home


@pytest.mark.parametrize(("words", "error", "hint"), MISTYPED, ids=[" ".join(words[:3]) for words, _, _ in MISTYPED])
def test_who_mistyped_a_name_reads_what_is_right_or_what_to_do_next(words, error, hint, publisher):
    places = {
        "FOLDER": str(publisher.folder.parent / "folder"),
        "LICENCE": str(publisher.folder.parent / "folder/a.txt"),
    }
    shown = publisher.call(*(places.get(word, word) for word in words), code=None)

    lines = shown.err.splitlines()
    assert shown.code in (2, 3)
    assert error in next(line for line in lines if line.startswith("p2phub: error: "))
    assert hint in next((line for line in lines if line.startswith("p2phub: hint: ")), "no hint")
    assert "secret" not in shown.err


@pytest.mark.parametrize(("words", "instead"), OTHERS, ids=[" ".join(words) for words, _ in OTHERS])
def test_who_types_what_another_tool_calls_it_reads_what_it_is_called_here(words, instead, publisher):
    shown = publisher.call(*words, code=2)

    assert instead in shown.err


def test_a_publisher_may_be_called_like_a_verb(publisher):
    publisher.call("trust", "add", f"add={publisher.ask('id')['namespace']}")
    followed = publisher.ask("follow", "add")["followed"]
    publisher.call("follow", "open")

    assert followed == [publisher.ask("id")["namespace"]]


def test_a_command_that_is_none_at_all_gets_no_hint(publisher):
    shown = publisher.call("xyzzy", code=2)

    assert "No such command 'xyzzy'" in shown.err
    assert "hint" not in shown.err


def test_what_is_not_pinned_is_told_where_pins_are_shown(publisher):
    publisher.call("store", "unpin", "words")
    shown = publisher.call("store", "unpin", "words", code=3)

    assert "words is not pinned" in shown.err
    assert "`p2phub store ls`" in shown.err
