"""How a node runs: what the environment and the command line say (spec/cli.md §3)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from p2phub.core.errors import InvalidName
from p2phub.core.labels import check_label
from p2phub.store.layout import Layout


@dataclass(frozen=True)
class Settings:
    """How a node runs."""

    layout: Layout
    offline: bool = False  # use no network at all
    plain: bool = False  # no TLS between nodes, for closed clusters
    only_tls: bool = False  # fetch content over HTTPS even where encrypted frames would pass
    advertise: tuple[str, ...] = ()  # HOST:PORT that others should call; empty: what it is bound to
    cluster: str | None = None
    site: str | None = None
    lan: bool = True  # find nodes in the local network, and be found

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Return what the variables P2PHUB_… say (spec/cli.md §3). Raises InvalidName."""
        return cls(
            Layout.from_environment(environment),
            offline=_is_on(environment, "P2PHUB_OFFLINE"),
            plain=_is_on(environment, "P2PHUB_PLAIN"),
            only_tls=_is_on(environment, "P2PHUB_ONLY_TLS"),
            cluster=_label(environment, "P2PHUB_CLUSTER"),
            site=_label(environment, "P2PHUB_SITE"),
            lan=_is_on(environment, "P2PHUB_LAN", default=True),
        )


def with_given_origins(given: Sequence[str], environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return `given` and the URLs of origins that P2PHUB_FROM holds, apart by white space (spec/cli.md §3)."""
    return (*given, *environment.get("P2PHUB_FROM", "").split())


def _label(environment: Mapping[str, str], name: str) -> str | None:
    label = environment.get(name)
    if not label:
        return None
    try:
        check_label(label)
    except InvalidName as exc:
        raise InvalidName(f"{name}: {exc}") from exc
    return label


def _is_on(environment: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    value = environment.get(name, "").strip().lower()
    if value == "":
        return default
    if value in ("0", "false", "no", "off"):
        return False
    if value in ("1", "true", "yes", "on"):
        return True
    raise InvalidName(f"{name}={value} is neither 1 nor 0")
