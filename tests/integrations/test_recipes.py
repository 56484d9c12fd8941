"""Every recipe for Python in spec/recipes.md does what it shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from clientkit import environment_of, run_client

from p2phub.testing.fakehub import FakeHub, like_missing
from p2phub.testing.processes import DEADLINE_S, Home, tree

BIN = Path(sys.executable).parent
PAGE = Path(__file__).parents[2] / "spec" / "recipes.md"
RECIPES = re.findall(r"^## ([^\n]+)\n|^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def recipes() -> list[tuple[str, str]]:
    found, title = [], ""
    for heading, code in RECIPES:
        title = heading or title
        if code:
            found.append((title, code))
    return found


@pytest.mark.parametrize(("title", "code"), recipes(), ids=lambda value: value[:20] if "\n" not in value else "")
def test_a_recipe_works(title, code, shelf, tmp_path):
    home = Home(tmp_path / "home")
    home.ask("id", "new")
    folder = shelf.folders["parrot"]
    with FakeHub(like_missing) as hub:
        hub.publish("Lab/parrot", {path: (folder / path).read_bytes() for path in tree(folder)})
        with home.node("--upstream", hub.url, peers=(shelf.node.address,)):
            variables = home.ask("env")
            run_client(
                code.replace("NAMESPACE", shelf.namespace).replace("ORG/", "Lab/"),
                tmp_path / "client", P2PHUB_HOME=str(home.folder), **variables,
            )  # fmt: skip


def test_the_page_has_recipes():
    assert len(recipes()) >= 8


def test_the_recipe_for_continuous_integration_works(shelf, tmp_path):
    recipe = PAGE.read_text().partition("## Continuous integration\n")[2]
    lines = [line.removeprefix("    ") for line in recipe.splitlines() if line.startswith("    ")]
    # What follows is how a job publishes.
    script = "\n".join(lines[: lines.index("pytest")]).replace("p2phub://…@…", shelf.node.address)
    # Any ports, as other nodes may run here.
    script = script.replace("p2phub node ", "p2phub node --listen 127.0.0.1:0 --local 127.0.0.1:0 ")
    home = Home(tmp_path / "home")
    home.call("id", "new")
    done = subprocess.run(
        ["bash", "-euc", f"trap 'kill %1; wait' EXIT\n{script}\nhf download {shelf.name('parrot')} README.md"],
        cwd=tmp_path,
        env={**environment_of(tmp_path), "P2PHUB_HOME": str(home.folder), "PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    (path,) = re.findall(r"/\S+/README\.md", done.stdout)
    assert Path(path).read_bytes() == (shelf.folders["parrot"] / "README.md").read_bytes()
