"""How repositories of other hubs are named, and what of a hub's words is taken."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2phub.core.errors import InvalidData, InvalidName
from p2phub.core.gitobjects import blob_id, pointer
from p2phub.core.origins import is_hub
from p2phub.core.upstream import (
    Foreign,
    UpstreamFile,
    foreign,
    git_id_of,
    is_revision,
    parse_foreign,
    parse_upstream,
    read_files,
    read_info,
)

HUB = "hub.example"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "kind", "name", "revision"),
    [
        ("hf://Org/na.me_1", "model", "Org/na.me_1", "main"),
        ("hf://Org/name@v1.0", "model", "Org/name", "v1.0"),
        ("hf://datasets/Org/name@refs/pr/7", "dataset", "Org/name", "refs/pr/7"),
        ("hf://models/Org/name", "model", "Org/name", "main"),
        # Without a third part it is an owner's name.
        ("hf://datasets/name", "model", "datasets/name", "main"),
        (f"hf://a/b@{COMMIT}", "model", "a/b", COMMIT),
    ],
)
def test_names_are_read(text, kind, name, revision):
    repository, wanted = parse_foreign(text, HUB)

    assert (repository.hub, repository.kind, repository.name, wanted) == (HUB, kind, name, revision)
    assert parse_foreign(f"{repository}@{wanted}", HUB) == (repository, wanted)


@pytest.mark.parametrize(
    "text",
    [
        "", "hf:/a/b", "a/b", "hf://a", "hf://a/b/c/d", "hf://../b", "hf://a/..", "hf://a/b@", "hf://a/b@x..y",
        "hf://a/b c", "hf://a/b@-x", "hf://a/b.git", "hf://a--b/c", "hf://" + "a" * 97 + "/b", "hf://a/b@" + "x" * 257,
    ],
)  # fmt: skip
def test_other_names_are_refused(text):
    with pytest.raises(InvalidName):
        parse_foreign(text, HUB)


@pytest.mark.parametrize(
    "url", ["hub.example", "ftp://hub.example", "https://u:p@hub.example", "https://hub.example/?x"]
)
def test_an_upstream_is_a_plain_url(url):
    with pytest.raises(InvalidName):
        parse_upstream(url)


def test_a_hub_is_called_by_host_and_port():
    urls = ("https://Hub.example/", "http://[::1]:8000/x", "https://a.b:443")
    assert [parse_upstream(url).endpoint for url in urls] == [
        "hub.example", "[::1]:8000", "a.b",
    ]  # fmt: skip
    assert all(map(is_hub, ("hub.example", "[::1]:8000", "127.0.0.1:80")))
    assert not any(map(is_hub, ("https://hub.example", "Hub.example", "hub.example/", "", "a" * 262)))


@given(data=st.binary(max_size=2000), cut=st.integers(0, 2000))
def test_the_id_of_a_small_file_is_that_of_git(data, cut):
    assert git_id_of([data[:cut], data[cut:]], len(data)) == blob_id(data)


def test_files_are_read_as_they_are_listed():
    digest = sha256(b"x").hexdigest()
    rows = [
        {"type": "directory", "path": "sub", "oid": "0" * 40, "size": 0},
        {"type": "file", "path": "a", "size": 5, "oid": "1" * 40, "more": [1]},
        {
            "type": "file",
            "path": "b",
            "size": 130,
            "oid": "2" * 40,
            "lfs": {"oid": digest, "size": 7},
            "xetHash": "3" * 64,
        },
    ]
    small, large = read_files(json.dumps(rows).encode())

    assert small == UpstreamFile("a", 5, b"\x11" * 20)
    assert large == UpstreamFile("b", 7, bytes.fromhex(digest))
    assert (small.sha256, large.sha256) == (None, bytes.fromhex(digest))
    assert large.git_id == blob_id(pointer(bytes.fromhex(digest), 7))


@pytest.mark.parametrize(
    ("fields", "restricted"),
    [
        ({}, False),
        ({"private": False, "gated": False, "disabled": None}, False),
        ({"private": True}, True),
        ({"gated": "auto"}, True),
        ({"gated": "no"}, True),
        ({"disabled": True}, True),
    ],
)
def test_what_is_not_plainly_for_everybody_is_not(fields, restricted):
    assert read_info(json.dumps({"sha": COMMIT} | fields).encode()).is_restricted is restricted


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_whatever_a_hub_says_is_taken_or_refused(value):
    for said in (value, {"sha": COMMIT, "tags": value, "lastModified": value, "pipeline_tag": value, "gated": value}):
        for read in (read_info, read_files):
            try:
                read(json.dumps(said).encode())
            except InvalidData:
                continue


def test_a_repository_has_an_owner():
    assert foreign(HUB, "model", "a/b") == Foreign(HUB, "model", "a", "b")
    with pytest.raises(InvalidName):
        foreign(HUB, "model", "gpt2")
    assert is_revision("feature/x+1")
    assert not is_revision("/x")
