"""Settings for the tests of connections."""

from __future__ import annotations

import pytest

from p2phub.net import web


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let stalls end within a second or so."""
    monkeypatch.setattr(web.Web.left_s, "__defaults__", (1.0,))
