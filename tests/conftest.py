"""Settings for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no failure: speed is shown by tools/bench, not by tests.
settings.register_profile("p2phub", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("p2phub")


def pytest_addoption(parser):
    parser.addoption("--seeds", type=int, default=100, help="how many seeds of small worlds are simulated (100)")


@pytest.fixture(scope="module", params=["xfs", "btrfs"])
def reflink_disk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder of a file system with reflinks."""
    from p2phub.testing.reflinks import NoReflinks, reflink_folder

    try:
        with reflink_folder(request.param, tmp_path_factory.mktemp("reflinks")) as root:
            yield root
    except NoReflinks as exc:
        pytest.skip(str(exc))


@pytest.fixture
def reflink_empty(reflink_disk: Path) -> Path:
    """Return a folder of it in which nothing is yet."""
    path = reflink_disk / os.urandom(8).hex()
    path.mkdir()
    return path
