"""From the command line: wait for others, see who has what, choose whom to follow."""

from __future__ import annotations

import signal

import pytest

pytestmark = pytest.mark.timeout(180)


def test_a_publisher_waits_for_a_node_and_status_says_that_it_has_the_record(seed, home, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "README.md").write_text("# Lark\n")
    namespace = home.ask("id", "new")["namespace"]
    home.call("peers", "add", seed.node.address)
    waited = home.call("publish", str(tmp_path / "model"), "lark@1.0.0", "--wait", "1")
    status = home.ask("status")
    shown = home.call("status")
    found = seed.node.home.ask("log", namespace)

    assert "1 other node has the record" in waited.out
    assert [(each["node"], each["records"]) for each in status["confirmed"]] == [(seed.node.node_id, 1)]
    assert f"1 record, all of them confirmed by {seed.node.node_id[:12]}…" in shown.out
    assert [line["version"] for line in found] == ["1.0.0"]


def test_who_waits_in_vain_and_interrupts_reads_that_it_is_published(seed, home, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "README.md").write_text("# Lark\n")
    home.call("id", "new")
    home.call("peers", "add", seed.node.address)
    process = home.start("publish", str(tmp_path / "model"), "lark@1.0.0", "--wait", "2")
    said = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate()

    assert "it is published" in said
    assert process.returncode == 130
    assert rest.strip() == "p2phub: interrupted"
    assert home.ask("info", "lark@1.0.0")["version"] == "1.0.0"


def test_who_waits_and_knows_nobody_reads_that_it_is_published(home, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "README.md").write_text("# Lark\n")
    home.call("id", "new")
    waited = home.call("publish", str(tmp_path / "model"), "lark@1.0.0", "--wait", "2", code=3)

    assert "it is published" in waited.err


def test_providers_shows_who_has_a_repository_and_when_it_said_so(seed, home):
    home.call("peers", "add", seed.node.address)
    (provider,) = home.ask("providers", seed.name)["providers"]
    shown = home.call("providers", seed.name)
    nobody = home.call("providers", seed.name, "--offline")

    assert (provider["node"], provider["state"], provider["has"]) == (seed.node.node_id, "offers", 1.0)
    assert "has all of it, now" in shown.out
    assert (nobody.out, "0 peers were asked" in nobody.err) == ("", True)


def test_whom_to_follow_is_kept_and_shown(seed, home):
    assert "records of all publishers are taken in" in home.call("follow").out
    policy = home.ask("follow", seed.namespace, "--records-max", "100", "--bytes-max", "5MB")
    assert policy == {
        "mode": "listed", "followed": [seed.namespace], "records_max": 100, "bytes_max": 5_000_000,
    }  # fmt: skip
    assert "of one publisher are taken in" in home.call("follow").out
    assert home.ask("follow", "open", "--remove", seed.namespace, "--records-max", "none") == {"bytes_max": 5_000_000}
    for wrong in (("Lab..example",), ("open", seed.namespace), ("--records-max", "many"), ("--block", "X!")):
        assert home.call("follow", *wrong, code=2).out == ""
