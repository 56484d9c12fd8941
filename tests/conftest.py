"""Settings for all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no failure: speed is shown by tools/bench, not by tests.
settings.register_profile("p2phub", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("p2phub")

# Who starts the tests in the background of a script lets them ignore ^C, and with them all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Whole files are given to several processes (tools/test). What takes longest is begun first, or one of them would
# still be at it when all others are done.
LONGEST_FIRST = ("simulator", "test_", "federations", "cli", "gateway", "node")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    """Return when a test is begun: the less, the sooner."""
    path = item.path.relative_to(Path(__file__).parent).as_posix()
    places = (place for place, prefix in enumerate(LONGEST_FIRST) if path.startswith(prefix))
    return next(places, len(LONGEST_FIRST))


def pytest_addoption(parser):
    parser.addoption("--seeds", type=int, default=100, help="how many seeds of small worlds are simulated (100)")


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no proxy of the machine stand between."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def hasty_upstream(no_proxy: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait for seconds until another hub is asked again."""
    from p2phub.node import upstream

    monkeypatch.setattr(upstream, "RETRY_S", (0.01, 0.02, 0.03, 0.04))


@pytest.fixture
def forget_authorities() -> None:
    """Let certificates be checked by the authorities that this test names: a process looks for them once."""
    from p2phub.net import web

    web._tls.cache_clear()


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Skip what needs a network of several machines where there can be none."""
    from p2phub.testing.netns import NoNamespaces, check_available

    try:
        check_available()
    except NoNamespaces as exc:
        pytest.skip(str(exc))


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
