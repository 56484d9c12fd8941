"""A command ends with the same exit code whether it works by itself or a running node does the work."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import p2phub
from p2phub.cli.main import exit_code
from p2phub.core.errors import HubError, rebuild
from p2phub.gateway.control import error_fields

FLOORS = ("core", "protocol", "net", "store", "node", "gateway")


def every_error() -> list[type[HubError]]:
    for floor in FLOORS:
        package = importlib.import_module(f"p2phub.{floor}")
        for module in pkgutil.walk_packages(package.__path__, f"p2phub.{floor}."):
            importlib.import_module(module.name)
    return sorted(set(below(HubError)), key=lambda each: each.__name__)


def below(error: type[HubError]) -> Iterator[type[HubError]]:
    for each in error.__subclasses__():
        if each.__module__.startswith(f"{p2phub.__name__}."):
            yield each
        yield from below(each)


@pytest.mark.parametrize("kind", every_error())
def test_an_error_has_one_exit_code_through_a_node_and_without(kind: type[HubError]) -> None:
    error = kind.__new__(kind, "what failed")
    error.hint = "what to do"

    fields = error_fields(error)
    told = rebuild(fields["type"], fields["text"], fields.get("hint"))

    assert exit_code(told) == exit_code(error)
    assert (str(told), told.hint) == ("what failed", "what to do")
    # One that the page of the local door lists.
    assert type(told).__name__ == fields["type"] or fields["type"] == "PeerBusy"
