"""Run code as a client of another hub: a process of its own with caches of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

CLIENT_TIMEOUT_S = 300.0  # generous, as nothing here proves speed


def environment_of(folder: Path, **variables: str) -> dict[str, str]:
    """Return the environment of a client whose caches are in `folder`."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("HF_", "P2PHUB_"))}
    return {
        **kept,
        "HF_HOME": str(folder / "hf"),
        "TORCH_HOME": str(folder / "torch"),
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        **variables,
    }


def run_client(code: str, folder: Path, *arguments: str, **variables: str) -> str:
    """Run Python code in a process of its own whose folder and caches are in `folder`; returns what it printed."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        env=environment_of(folder, **variables),
        cwd=folder,  # where no folder has the name of a model
        capture_output=True,
        text=True,
        timeout=CLIENT_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
