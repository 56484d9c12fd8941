"""A publisher whose clock was far ahead: what people see of it, and how he gets out."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from p2phub.node.events import ignore
from p2phub.node.publish import publish
from p2phub.testing.hostile import open_home
from p2phub.testing.processes import Home

pytestmark = pytest.mark.timeout(180)


def publish_ahead(home: Home, folder: Path, name: str) -> None:
    """Publish by a clock that is a month ahead."""

    async def do() -> None:
        async with open_home(home.folder) as node:
            now = node.clock
            node.clock = lambda: now() + 30 * 86400
            await publish(node, folder, name, ignore)

    trio.run(do)


def test_who_published_by_a_clock_far_ahead_is_told_the_way_out_and_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "README.md").write_text("# Lark\n")
    one, two = Home(tmp_path / "one"), Home(tmp_path / "two")
    namespace = one.json("id", "new")["namespace"]
    publish_ahead(one, folder, "lark@1.0.0")
    with one.node() as node:
        published = one.run("publish", str(folder), "lark@1.1.0")
        status, shown = one.ask("status"), one.run("status")
        vain = two.run("fetch", f"{namespace}/lark@1.1.0", "--peer", node.address, code=3)
        reopened = one.run("id", "reopen")
        one.run("publish", str(folder), "lark@1.1.0")
        fetched = two.run("fetch", f"{namespace}/lark@1.1.0", "--peer", node.address, "--to", str(tmp_path / "to"))
        after = one.run("status")

    for said in (published.err, shown.out):
        assert "`p2phub id reopen`" in said
        assert "days ahead of the clock" in said
    assert (status["early"]["first"], status["early"]["count"]) == (0, 2)
    assert "ahead of this machine's clock" in vain.err
    assert "to be published again: lark@1.0.0, lark@1.1.0" in reopened.err
    assert (tmp_path / "to" / "README.md").read_text() == "# Lark\n", str(fetched)
    assert "id reopen" not in after.out
