"""The rules that tools can check: who imports whom, style, types."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run(*command: str) -> None:
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"


def test_a_floor_imports_only_from_the_floors_below_it() -> None:
    run(str(Path(sys.executable).with_name("lint-imports")), "--no-cache")


def test_the_style_is_that_of_ruff() -> None:
    run(sys.executable, "-m", "ruff", "check", ".")


def test_the_types_hold() -> None:
    run(sys.executable, "-m", "mypy")
