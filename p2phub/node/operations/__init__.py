"""Everything a person or program can ask of a node, as values: one Struct each, with what it returns.

The command line makes a value and runs it: through the daemon of the same home if one
runs, else on a node that it opens for itself. So both do the same.

    cli / python ──Operation──▶ daemon's control API ─┐
                └──────────────▶ own node ────────────┴──▶ dispatch.run ──▶ events, result

Values alone, so that whoever only asks a daemon does not load what does the work. They
are a module for each subject, since a command asks one thing: what `operations/gates.py`
asks for is done by `doing/gates.py`. Here is what they share (spec/local-api.md §2).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta, Struct

from p2phub.core.origins import GIVEN_MAX

Text = Annotated[str, Meta(min_length=1, max_length=4096)]
# The node has a folder of its own that it works in, and not that of who asks.
AbsolutePath = Annotated[str, Meta(pattern="^/", max_length=4096)]
View = Literal["hf"]  # the cache of huggingface_hub
# URLs of origins. What else they must be is checked where they are used, which says why not.
Given = Annotated[tuple[Text, ...], Meta(max_length=GIVEN_MAX)]
Namespaces = Annotated[tuple[Text, ...], Meta(max_length=1000)]


class Operation(Struct, frozen=True, forbid_unknown_fields=True, tag_field="operation"):
    """Something to do. Paths are absolute."""

    result: ClassVar[Any]  # the type of what it returns, so that both ends of the control API agree


class Done(Struct, frozen=True):
    """Nothing more to say."""
