"""What the policy file means."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from p2phub.core.findings import Finding

from . import Operation, Text


class ShownRules(Struct, frozen=True):
    """The policy file, as it is understood."""

    path: str
    exists: bool  # False: these are the rules that hold without one
    rules: dict[str, Any]  # as the file has them


class ShowRules(Operation, tag="rules", frozen=True):
    """Show what the policy file says."""

    result = ShownRules


class PolicyCheck(Struct, frozen=True):
    """What the policy says of a repository, or of files."""

    reference: str
    revision: str | None
    findings: list[Finding]


class CheckRules(Operation, tag="rules-check", frozen=True):
    """Say what the policy file means for a repository, or (an absolute path) for files on disk."""

    result = PolicyCheck

    reference: Text
    allow_pickle: bool = False
    with_code: bool = False
