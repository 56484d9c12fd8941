"""Say which repository somebody may have meant who wrote a name that means none (spec/cli.md §1)."""

from __future__ import annotations

from collections.abc import Collection

from p2phub.core.errors import NotFound
from p2phub.core.ids import NamespaceId

from .node import Node

SHOWN_MAX = 10  # names of repositories, or of revisions of one
LOOKED_AT_MAX = 10_000  # names of a publisher


def check_published(node: Node, namespace: NamespaceId, model: str) -> None:
    """Raise NotFound unless the publisher `namespace`, of this home, has published something as `model`."""
    if node.store.catalogue.kind(namespace, model) is None:
        names = names_meant(node, namespace, model)
        hint = f"you have published {names}" if names else "`p2phub publish DIR MODEL` publishes a folder"
        raise NotFound(f"you have published nothing as {model}", hint=hint)


def revisions_there(names: Collection[str]) -> str:
    """Return the last of a repository's branches or versions, as text; empty if there are none."""
    return f"it has {', '.join(list(names)[-SHOWN_MAX:])}" if names else ""


def no_file(reference: str, path: str, paths: Collection[str]) -> NotFound:
    """Return the error for a path that is none of `paths`, those of `reference`; it names those that may be meant."""
    import difflib  # only who mistyped something waits for it

    near = [each for each in paths if each.rpartition("/")[2] == path.rpartition("/")[2] or each.startswith(f"{path}/")]
    near += [each for each in difflib.get_close_matches(path, paths, SHOWN_MAX) if each not in near]
    some = ", ".join(near[:SHOWN_MAX]) or (", ".join(paths) if len(paths) <= SHOWN_MAX else "")
    hint = f"it has {some}" if some else f"`p2phub ls {reference}` shows the files"
    return NotFound(f"{reference} has no file {path}", hint=hint)


def names_meant(node: Node, namespace: NamespaceId, model: str) -> str:
    """Return those of a publisher's repositories that are called nearly so, else some, as text; empty if it has none.

    Only what is for everybody, as whoever asks may be anybody.
    """
    import difflib  # only who mistyped something waits for it

    known = node.store.catalogue.listed(namespace, LOOKED_AT_MAX)
    near = difflib.get_close_matches(model, known, SHOWN_MAX)
    if near or len(known) <= SHOWN_MAX:
        return ", ".join(near or known)
    return ", ".join(known[:SHOWN_MAX]) + f" and {len(known) - SHOWN_MAX} more"
