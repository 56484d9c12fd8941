from __future__ import annotations

import posixpath
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2phub.core.errors import InvalidData
from p2phub.core.paths import COMPONENT_SIZE_MAX, PATH_SIZE_MAX, check_path, check_paths

GOOD = [
    "README.md",
    "a",
    "0",
    "model-00001-of-00002.safetensors",
    ".gitattributes",
    ".github/workflows/ci.yml",
    "1_Pooling/config.json",
    "a b/c d.txt",
    " leading space",
    "...a",
    "a..b",
    "-rf",
    "~",
    "a+b=c,d;e@f#g%h&i'j(k)l[m]{n}!$^`",
    "données/modèle.bin",
    "模型/权重.bin",
    "🦜.txt",
    "console.txt",
    "com.txt",
    "nullable",
    "lpt10",
    "auxiliary/con-fig",
    "a" * COMPONENT_SIZE_MAX,
    "/".join(["a" * 204] * 5),
]

BAD = {
    "empty": "",
    "absolute": "/etc/passwd",
    "absolute with two slashes": "//server/share",
    "parent": "..",
    "parent at the beginning": "../a",
    "parent inside": "a/../b",
    "parent at the end": "a/..",
    "current": ".",
    "current inside": "a/./b",
    "an empty part": "a//b",
    "a slash at the end": "a/",
    "NUL": "a\0b",
    "a line break": "a\nb",
    "an escape": "a\x1b[31mb",
    "delete": "a\x7f",
    "a C1 control": "a\x85b",
    "a lone surrogate": "a\ud800",
    "a backslash": "a\\b",
    "a parent with backslashes": "..\\a",
    "a drive": "C:/a",
    "a stream": "a.txt:stream",
    "an asterisk": "*.txt",
    "a question mark": "a?",
    "a quote": 'a"b',
    "angle brackets": "<a>",
    "a pipe": "a|b",
    "a space at the end": "a ",
    "a space at the end of a part": "a /b",
    "a dot at the end": "a.",
    "dots at the end": "a...",
    "three dots": "...",
    "a device": "con",
    "a device in upper case": "NUL",
    "a device with an ending": "aux.txt",
    "a device with two endings": "prn.tar.gz",
    "a device with a space": "con .txt",
    "a numbered device": "a/COM1/b",
    "a device with a superscript": "lpt².bin",
    "the console's input": "conin$",
    "a decomposed letter": unicodedata.normalize("NFD", "é"),
    "the ohm sign, which is an omega": "\N{OHM SIGN}",
    "git's own folder": ".git/hooks/post-checkout",
    "git's own folder in capitals": "a/.GIT/config",
    "git's own file": ".git",
    "a part that is too long": "a" * (COMPONENT_SIZE_MAX + 1),
    "a part that is too long in bytes": "é" * 128,
    "too long": "/".join(["a" * 204] * 5) + "a",
    "too long in bytes": "é/" * 342 + "a",
}


@pytest.mark.parametrize("path", GOOD)
def test_it_accepts(path: str) -> None:
    check_path(path)
    check_paths([path])


@pytest.mark.parametrize("what", BAD)
def test_it_refuses(what: str) -> None:
    with pytest.raises(InvalidData):
        check_path(BAD[what])
    with pytest.raises(InvalidData):
        check_paths([BAD[what]])


@given(st.text(max_size=60))
def test_an_accepted_path_stays_in_its_folder_and_is_one_of_a_kind(path: str) -> None:
    try:
        check_path(path)
    except InvalidData:
        return
    assert posixpath.normpath(posixpath.join("/folder", path)) == f"/folder/{path}"
    assert unicodedata.normalize("NFC", path) == path
    assert "\\" not in path
    assert path.isprintable() or not any(unicodedata.category(char) == "Cc" for char in path)
    assert len(path.encode()) <= PATH_SIZE_MAX


COLLIDING = {
    "case": ["README.md", "readme.md"],
    "case of a folder and a file": ["A/x", "a"],
    "a file that is a folder": ["a", "a/b"],
    "a file that is a folder above": ["a/b", "a/b/c/d"],
    "a file that is a folder in another case": ["A", "a/b"],
    "case outside ASCII": ["É", "é"],
    "sharp s": ["STRASSE", "straße"],
    "sigmas": ["Σ", "ς"],
    "a letter whose folding is decomposed": ["i\N{COMBINING DOT ABOVE}", "İ"],
    # The first folds to three characters, the second to two that are their composed form.
    "a letter whose capital is composed in another way": ["\u0390", "\u03aa\u0301"],
}


@pytest.mark.parametrize("what", COLLIDING)
def test_paths_collide_by(what: str) -> None:
    with pytest.raises(InvalidData, match="collide"):
        check_paths(COLLIDING[what])


def test_what_lies_between_does_not_hide_a_collision() -> None:
    with pytest.raises(InvalidData, match="'a' and 'a/b' collide"):
        check_paths(["a", "a!", "a-b", "a.txt", "a/b"])


@pytest.mark.parametrize("path", ["a", "a/b"])
def test_a_path_that_stands_twice_is_refused(path: str) -> None:
    with pytest.raises(InvalidData, match="not sorted"):
        check_paths([path, path])


@pytest.mark.parametrize("paths", [["b", "a"], ["a/b", "a.txt"], ["🦜", "\uffee"]])
def test_paths_are_sorted_by_their_bytes(paths: list[str]) -> None:
    with pytest.raises(InvalidData, match="not sorted"):
        check_paths(paths)

    check_paths(paths[::-1])
    assert sorted(paths, key=str.encode) == paths[::-1]


def test_every_character_is_judged_by_its_category() -> None:
    for code in range(0x110000):
        char = chr(code)
        try:
            check_path(f"a{char}b")
            is_refused = False
        except InvalidData as exc:
            is_refused = "not every file system" in str(exc)

        assert is_refused == (unicodedata.category(char) in ("Cc", "Cs") or char in '\\:*?"<>|'), hex(code)


def test_folders_may_be_shared() -> None:
    check_paths(["a/b/c", "a/b/d", "a/e", "f"])


def test_no_paths_are_fine() -> None:
    check_paths([])


@given(st.lists(st.text(st.sampled_from("aAbÉé/."), min_size=1, max_size=5), max_size=6))
def test_accepted_paths_can_be_written_where_case_does_not_count(paths: list[str]) -> None:
    paths = sorted(set(paths))
    try:
        check_paths(paths)
    except InvalidData:
        return
    files = {path.casefold() for path in paths}
    folders = {file[:at] for file in files for at, char in enumerate(file) if char == "/"}

    assert len(files) == len(paths)
    assert not files & folders


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("a\nb", r"rename it without '\n'"),
        ("C:/a", "rename it without ':'"),
        ("a\udcff", "convmv"),
        ("\udc80\ud800", "is not UTF-8"),
        (unicodedata.normalize("NFD", "modèle.bin"), r"rename it to 'mod\xe8le.bin'"),
        ("a/aux.txt", "rename 'aux.txt'"),
        ("a./b", "rename 'a.'"),
        ("x/.git/config", "rename '.git'"),
        ("a/../b", "stays in it"),
        ("b" * 300, "a shorter name: 'bbbbbbbbbbbbbbbbbbbb…' has 300"),
        ("/".join(["c" * 200] * 6), "this one has 1205"),
    ],
)
def test_who_wants_to_publish_it_is_told_what_to_do(path: str, hint: str) -> None:
    with pytest.raises(InvalidData) as failure:
        check_path(path)

    assert hint in (failure.value.hint or "")


@pytest.mark.parametrize("path", BAD.values(), ids=BAD)
def test_whatever_cannot_be_published_has_a_hint(path: str) -> None:
    with pytest.raises(InvalidData) as failure:
        check_path(path)

    assert failure.value.hint


def test_who_wants_to_publish_what_collides_is_told_what_to_do() -> None:
    for paths in (["README.md", "Readme.md"], ["a", "a/b"]):
        with pytest.raises(InvalidData) as failure:
            check_paths(paths)

        assert "rename one of them" in (failure.value.hint or "")
