"""Every recipe for Python in spec/recipes.md does what it shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from clientkit import run_client

from p2phub.testing.processes import Home

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
    with home.node(peers=(shelf.node.address,)):
        variables = home.ask("env")
        run_client(
            code.replace("NAMESPACE", shelf.namespace),
            tmp_path / "client", P2PHUB_HOME=str(home.folder), **variables,
        )  # fmt: skip


def test_the_page_has_recipes():
    assert len(recipes()) >= 7
