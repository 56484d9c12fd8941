"""A peer-to-peer, content-addressed hub for models and datasets.

    import p2phub
    folder = p2phub.snapshot_download("NAMESPACE/MODEL", revision="1.0.0")

`fetch`, `publish`, `search`, `info`, `verify`, `snapshot_download`, `file_download`
and `locate` are here as plain functions and, for trio programs, in `p2phub.aio`; see there for what
each takes and returns. Every foreseen error is a `HubError`.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

__version__ = "0.1.0"

# Loaded when first used: the command line must start fast.
_FUNCTIONS = ("fetch", "publish", "search", "info", "verify", "snapshot_download", "file_download", "locate")
_ERRORS = (
    "AccessDenied", "Conflict", "ForkedLog", "HashMismatch", "HubError", "InvalidData", "InvalidName", "NoSpace",
    "NotFound", "Offline", "PeerError", "StoreError", "VerificationFailed",
)  # fmt: skip

__all__ = ["__version__", *_FUNCTIONS, *_ERRORS]


def __getattr__(name: str) -> Any:
    if name in _ERRORS:
        return getattr(importlib.import_module("p2phub.core.errors"), name)
    if name in _FUNCTIONS:
        function = _synchronous(getattr(importlib.import_module("p2phub.aio"), name))
        globals()[name] = function
        return function
    raise AttributeError(f"module 'p2phub' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def _synchronous(function: Any) -> Any:
    """Return `function` of `p2phub.aio` as one that runs to its end before it returns."""
    from p2phub.node.running import run_to_end

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        return run_to_end(functools.partial(function, *args, **kwargs))

    return run
