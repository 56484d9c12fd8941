"""What a command was given is checked the same way whether a node runs in its home or not."""

from __future__ import annotations

import pytest

from p2phub import aio
from p2phub.core.errors import InvalidData, InvalidName
from p2phub.core.search import MetricBound, Query, parse_metric
from p2phub.node.given import as_argument, check_given, read_given
from p2phub.node.operations.catalogue import Search
from p2phub.node.operations.content import Fetch, PublishFolder
from p2phub.node.operations.grants import GrantAccess
from p2phub.node.operations.limits import SetRange
from p2phub.node.operations.peers import AddPeers
from p2phub.node.operations.pledges import PledgeAdd

pytestmark = pytest.mark.timeout(180)

EMPTY = {
    ("grant", "draft", ""): "WHO",
    ("gate", "off", ""): "MODEL",
    ("gate", "accept", "", "--yes"): "REFERENCE",
    ("pledge", ""): "REFERENCE",
    ("pledge", "rm", ""): "REFERENCE",
    ("export", "", "--oms"): "REFERENCE",
    ("sbom", ""): "REFERENCE",
    ("witness", "add", ""): "KEY",
    ("id", "domain", ""): "DOMAIN",
    ("trust", "conflicts", ""): "NAMESPACE",
    ("policy", "check", ""): "REFERENCE",
    ("info", "mood", "--peer", ""): "one of ADDRESSES",
}


def check_all(home, folder) -> None:
    told = {}
    for arguments in EMPTY:
        outcome = home.call(*arguments, code=None)
        told[arguments] = (outcome.code, outcome.err)
    outcome = home.call("publish", str(folder), "m", "--sealed-for", "", code=None)
    told["sealed"] = (outcome.code, outcome.err)
    wanted = {arguments: (2, f"p2phub: error: {name} is empty\n") for arguments, name in EMPTY.items()}
    assert told == wanted | {"sealed": (2, "p2phub: error: one of SEALED-FOR is empty\n")}


def test_nothing_is_refused_as_such_with_a_node_and_without(home, tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "README.md").write_text("x")
    home.call("id", "new")
    check_all(home, folder)
    with home.node():
        check_all(home, folder)


@pytest.mark.parametrize("arguments", [("add-key",), ("join",), ("delegate", "--take")])
def test_an_empty_word_of_another_machine_is_called_empty(home, arguments):
    outcome = home.call("id", *arguments, "", code=2)

    assert "nothing was given" in outcome.err
    assert "directory" not in outcome.err


@pytest.mark.parametrize(
    ("operation", "text"),
    [
        (GrantAccess("m", "w" * 4097), "WHO is too long: it has at most 4096 characters"),
        (GrantAccess("m", "w", 31), "DAYS is at most 30"),
        (PledgeAdd("m", days=0), "DAYS is at least 1"),
        (AddPeers(()), "ADDRESSES is empty"),
        (AddPeers(("",)), "one of ADDRESSES is empty"),
        (AddPeers(("a",) * 101), "ADDRESSES is too long: it has at most 100 parts"),
        (Search(Query(text="x" * 1001)), "TEXT is too long: it has at most 1000 characters"),
        (Search(Query(languages=("x" * 401,))), "one of LANGUAGES is too long: it has at most 400 characters"),
        (Search(Query(publisher="")), "PUBLISHER is empty"),
        (Search(Query(metrics=(MetricBound(""),))), "one of METRICS is empty"),
        *(
            (Search(Query(metrics=(bound,))), "one of METRICS is not of the form that it must have")
            for bound in (parse_metric("f1>=" + "9" * 390), MetricBound("f1", None, float("nan")))
        ),
        (Fetch("m", to="/a\0b"), "TO is no text: it holds a NUL, or what is not UTF-8"),
        (Fetch("m", include=("*", "\udcff")), "INCLUDE is no text: it holds a NUL, or what is not UTF-8"),
        (Search(Query(tags=("\udcff",))), "TAGS is no text: it holds a NUL, or what is not UTF-8"),
        (Fetch("m", to="folder"), "TO is not of the form that it must have"),
        (PublishFolder("", "m"), "FOLDER is not of the form that it must have"),
        (SetRange("10.0.0.0/8", "moon"), "LINK is not of the form that it must have"),  # type: ignore[arg-type]
    ],
)
def test_each_limit_is_said_in_words(operation, text):
    with pytest.raises(InvalidName) as caught:
        check_given(operation, as_argument)

    assert str(caught.value) == text


def test_what_is_within_the_limits_passes():
    check_given(Fetch("m@1.0.0", origins=("https://a.example/{path}",)))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"operation": "info", "reference": ""}', "reference is empty"),
        (b'{"operation": "grant", "name": "draft", "who": ""}', "who is empty"),
        (b'{"operation": "peers-add", "addresses": [""]}', "one of addresses is empty"),
        (b'{"operation": "pledge-add", "reference": "a", "days": 0}', "days is at least 1"),
        (b'{"operation": "info"}', "not what was expected: Object missing required field `reference`"),
        (b'{"operation": "fetch", "reference": "a", "to": "/a\\u0000b"}', "to is no text"),
        (b'{"operation": "search", "query": {"tags": ["\\ud800"]}}', "no operation"),
        (
            b'{"operation": "store-adopt", "folder": "models"}',
            "not what was expected: Expected `str` matching regex '^/'",
        ),
        (b'{"operation": "bake"}', "not what was expected: Invalid value 'bake'"),
        (b"{", "no operation"),
    ],
)
def test_a_client_of_the_local_door_reads_what_is_wrong(body, text):
    with pytest.raises((InvalidName, InvalidData)) as caught:
        read_given(body)

    assert str(caught.value).startswith(text)


async def test_a_program_of_python_reads_what_is_wrong(tmp_path):
    with pytest.raises(InvalidName, match="reference is empty"):
        await aio.info("", home=tmp_path)
    assert list(tmp_path.iterdir()) == []
