"""A promise to keep something, as people make it and see it."""

from __future__ import annotations

import pytest

from p2phub.testing.processes import Home, wait_until


@pytest.fixture
def home(tmp_path) -> Home:
    home = Home(tmp_path / "home")
    home.call("id", "new")
    return home


def test_a_running_node_fetches_what_is_pledged_and_says_so(seed, home):
    with home.node(peers=(seed.node.address,)):
        said = home.call("pledge", seed.name, "--days", "30").out
        wait_until(lambda: home.ask("pledge", "ls")[0]["here"] == 1, "the pledged model")
        shown = home.call("pledge", "ls").out
        everybody = home.call("pledge", "ls", seed.namespace + "/mood").out
        status = home.call("status").out
        log = home.call("log", home.ask("id", "show")["namespace"]).out
        removed = home.call("pledge", "rm", seed.name).out

    assert said.startswith(f"pledged {seed.name} until 20")
    assert "1 revision" in shown
    assert "1 whole here" in shown
    assert "1 of 1 copies that were promised" in shown
    assert "by this node" in everybody
    assert "1, about 1 revision, 1 of them whole here" in status
    assert f"keeps {seed.name} until" in log
    assert removed == f"{seed.name} is pledged no longer\n"


def test_options_may_come_first(seed, home):
    made = home.ask("pledge", "--replicas", "3", f"{seed.name}@1.0.0", "--peer", seed.node.address)

    assert (made["subject"], made["replicas"], made["have"], made["needed"]) == (seed.revision, 3, 0, 3)


def test_what_is_wrong_is_said(seed, home, tmp_path):
    nobody = Home(tmp_path / "nobody").call("pledge", seed.namespace, code=3)
    unknown = home.call("pledge", "no-such-model", code=3)
    none = home.call("pledge", "rm", seed.namespace, code=3)
    usage = home.call("pledge", seed.namespace, "--replicas", "0", code=2)
    empty = home.call("pledge", "ls")

    assert "p2phub id new" in nobody.err
    assert "nothing is known of no-such-model" in unknown.err
    assert "did not pledge" in none.err
    assert "--replicas" in usage.err
    assert (empty.out, empty.err) == ("", "nothing is pledged here: p2phub pledge REF\n")
