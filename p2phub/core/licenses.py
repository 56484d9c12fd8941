"""Say in SPDX which licence a card means.

The existing hub has its own ids, lower case and sometimes of a whole family. The
SPDX form is what the rest of the world (package managers, compliance tools) compares.
Source: docs/hub/repositories-licenses.md of github.com/huggingface/hub-docs; spdx.org/licenses.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache
from typing import Any

TEXT_LENGTH_MAX = 512  # characters of an expression, in and out

# Ids that SPDX spells the same but for upper and lower case (`apache-2.0`, `cc-by-4.0`,
# `gpl-3.0`) are not here: the SPDX parser knows them.
_HUB_IDS = {
    "bsd": "LicenseRef-bsd",  # does not say which
    "bsl-1.1": "BUSL-1.1",  # not the Boost licence, which is bsl-1.0
    "c-uda": "C-UDA-1.0",
    "cc": "LicenseRef-cc",  # does not say which
    "gfdl": "GFDL-1.1-or-later",  # each GNU licence lets the user choose where none is named
    "gpl": "GPL-1.0-or-later",
    "lgpl": "LGPL-2.0-or-later",
    "lgpl-lr": "LGPLLR",
    "odbl": "ODbL-1.0",
    "odc-by": "ODC-By-1.0",
    "openrail++": "LicenseRef-openrail-plus-plus",
    "pddl": "PDDL-1.0",
    # Known to the hub, not to SPDX.
    **{
        id_: f"LicenseRef-{id_}"
        for id_ in (
            "apple-amlr",
            "apple-ascl",
            "bigcode-openrail-m",
            "bigscience-bloom-rail-1.0",
            "bigscience-openrail-m",
            "creativeml-openrail-m",
            "deepfloyd-if-license",
            "fair-noncommercial-research-license",
            "gemma",
            "grok2-community",
            "h-research",
            "intel-research",
            "llama2",
            "llama3",
            "llama3.1",
            "llama3.2",
            "llama3.3",
            "llama4",
            "openmdw-1.0",
            "openmdw-1.1",
            "openrail",
            "other",
        )
    },
}

_LICENSE_REF = re.compile(r"(DocumentRef-[A-Za-z0-9.-]+:)?LicenseRef-[A-Za-z0-9.-]+")


def to_spdx(text: str) -> str | None:
    """Return the SPDX expression that `text`, a hub id or itself an expression, stands for.

    None if it says nothing (`unknown`, empty) or is neither.
    """
    text = text.strip()
    if len(text) > TEXT_LENGTH_MAX:
        return None
    return _HUB_IDS.get(text.lower()) or _normalise(text)


def permits(expression: str, allowed: Collection[str], denied: Collection[str]) -> bool:
    """Say whether somebody who accepts the licences `allowed` (all, if there are none) but `denied` may use this.

    expression: in SPDX, as `to_spdx` returns it. allowed, denied: ids, as `to_spdx` returns them. Of licences
    joined by OR one has to be accepted, of those joined by AND all.
    """
    licensing = _spdx()
    yes, no = {name.lower() for name in allowed}, {name.lower() for name in denied}

    def accepts(node: Any) -> bool:
        if isinstance(node, licensing.AND):
            return all(accepts(part) for part in node.args)
        if isinstance(node, licensing.OR):
            return any(accepts(part) for part in node.args)
        # With an exception it permits more than without.
        names = {part.strip().lower() for part in (node.render(), *node.render().split(" WITH ")[:1])}
        return not names & no and (not yes or bool(names & yes))

    return accepts(licensing.parse(expression, strict=True))


def _normalise(text: str) -> str | None:
    licensing = _spdx()
    try:
        # strict: an exception stands after WITH and nowhere else.
        expression = licensing.parse(text, strict=True)
        if expression is None:
            return None
        unknown = licensing.unknown_license_keys(expression)
    except Exception:
        # Most are an ExpressionError, but some malformed text makes the parser itself
        # stumble: `()` is an IndexError, `( OR MIT` an AssertionError.
        return None
    if not all(_LICENSE_REF.fullmatch(key) for key in unknown):
        return None
    spdx = str(expression.render())
    # An id may be longer in SPDX, so a text within the limit can pass it here.
    return spdx if len(spdx) <= TEXT_LENGTH_MAX else None


@cache
def _spdx() -> Any:
    # Slow to import, and most programs that import us meet no licence.
    from license_expression import get_spdx_licensing

    return get_spdx_licensing()
