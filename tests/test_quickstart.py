"""tools/quickstart leaves nothing running, whatever goes wrong."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import quickstart


def test_a_node_that_does_not_become_ready_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Noted)
    monkeypatch.setattr(quickstart, "READY_TIMEOUT_S", 0.0)

    with pytest.raises(quickstart.Failure, match="node A did not start"):
        quickstart.QuickNode("A", tmp_path, [])

    assert [process.returncode is not None for process in started] == [True]
