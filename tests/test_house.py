"""The rules that tools can check: who imports whom, style, types, references to the spec."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SPEC = ROOT / "spec"


def run(*command: str) -> None:
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"


def test_a_floor_imports_only_from_the_floors_below_it() -> None:
    run(str(Path(sys.executable).with_name("lint-imports")), "--no-cache")


def test_the_style_is_that_of_ruff() -> None:
    run(sys.executable, "-m", "ruff", "check", ".")


def test_the_types_hold() -> None:
    run(sys.executable, "-m", "mypy")
    # Scripts, which mypy does not find by itself.
    run(sys.executable, "-m", "mypy", "tools/make-vectors")
    run(sys.executable, "-m", "mypy", "tools/make-schema")


def named_tests() -> set[tuple[str, str]]:
    """Return file and name of each test that a table of the threat model names."""
    found = set()
    for line in (SPEC / "threat-model.md").read_text().splitlines():
        if line.startswith("| "):
            last = ""
            # `path::name`, and behind it `::name` of the same file.
            for path, name in re.findall(r"(tests/[\w/]+\.py)?::(\w+)", line):
                last = path or last
                found.add((last, name))
    return found


def test_every_test_that_the_threat_model_names_is_there() -> None:
    def defines(path: str, name: str) -> bool:
        file = ROOT / path
        return file.is_file() and re.search(rf"^(async )?def {name}\(", file.read_text(), re.MULTILINE) is not None

    assert [test for test in sorted(named_tests()) if not defines(*test)] == []


def test_every_attack_of_the_threat_model_names_a_test() -> None:
    rows = re.findall(r"^\| (?!Attack|---).*$", (SPEC / "threat-model.md").read_text(), re.MULTILINE)

    assert len(rows) > 20
    assert [row for row in rows if not re.search(r"tests/[\w/]+\.py::test_\w+`?[^|]*\|$", row)] == []


def sections(page: Path) -> set[str]:
    return set(re.findall(r"^#+ ([0-9.]*[0-9])", page.read_text(), re.MULTILINE))


def references() -> set[tuple[str, str, str]]:
    """Return who refers to which page and which of its sections ("" for the whole page)."""
    found = set()
    for folder in ("p2phub", "tools", "tests"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix in ("", ".py"):
                for page, numbers in re.findall(r"spec/([a-z-]+\.md)((?:,? §[0-9.]*[0-9])*)", path.read_text()):
                    found |= {(path.name, page, number) for number in re.findall(r"[0-9.]+", numbers) or [""]}
    for path in SPEC.glob("*.md"):
        for page, number in re.findall(r"\]\(([A-Za-z-]+\.md)\)(?: §([0-9.]*[0-9]))?", path.read_text()):
            found.add((path.name, page, number))
    return found


def test_every_section_of_the_spec_that_is_referred_to_is_there() -> None:
    known = {(page.name, number) for page in SPEC.glob("*.md") for number in ("", *sections(page))}

    assert [reference for reference in sorted(references()) if reference[1:] not in known] == []
