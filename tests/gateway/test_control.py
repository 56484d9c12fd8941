"""What the control API sends: first what an operation tells, then its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from doorkit import open_door

from p2phub.gateway import control
from p2phub.node.events import Notice, Tell
from p2phub.node.node import Node
from p2phub.node.operations import Operation
from p2phub.node.operations.limits import ShowLimits
from p2phub.testing.hostile import open_home

TOLD = [f"notice {number}" for number in range(20)]


async def test_all_that_an_operation_told_comes_before_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def tell_much_at_once(node: Node, operation: Operation, tell: Tell) -> str:
        for text in TOLD:
            tell(Notice(text))
        return "done"

    monkeypatch.setattr(control, "run", tell_much_at_once)
    async with open_home(tmp_path / "home") as node, open_door(node) as client:
        answer = await client.post("/control/v1/run", content=msgspec.json.encode(ShowLimits()))
    lines: list[dict[str, Any]] = [msgspec.json.decode(line) for line in answer.text.splitlines()]

    assert [line["event"]["text"] for line in lines[:-1]] == TOLD
    assert lines[-1] == {"result": "done"}
