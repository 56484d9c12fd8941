"""Branches, tags and commits of a repository (spec/hub-api.md §3).

The log says who published what when and why; a manifest names its parents. What is
shown as history are the parents, told with the words of the log.
"""

from __future__ import annotations

from typing import Any

from p2phub.core.errors import HubError
from p2phub.core.ids import ManifestId
from p2phub.core.manifest import Manifest
from p2phub.core.records import Publish
from p2phub.node.disk import on_disk
from p2phub.node.inspect import first_publications
from p2phub.node.node import Node

from .describe import moment
from .errors import Refusal
from .lookup import TAG_PREFIX, Commit, Lookup, Repository

COMMITS_MAX = 10_000  # of one history, that are looked through


async def references(node: Node, lookup: Lookup, repository: Repository) -> dict[str, Any]:
    """Return the branches and tags."""
    branches = await on_disk(node.store.catalogue.branches, repository.namespace, repository.model)
    tips = {name: claim.manifest for name, claim in branches.items() if not name.startswith(TAG_PREFIX)}
    return {
        "branches": [_reference("heads", name, tip) for name, tip in tips.items() if tip],
        "converts": [],
        "tags": [_reference("tags", name, tip) for name, tip in (await lookup.tags(repository)).items()],
        "pullRequests": [],
    }


async def commits(
    node: Node, lookup: Lookup, commit: Commit, start: int, count: int
) -> tuple[list[dict[str, Any]], bool]:
    """Return `count` commits of the history of `commit` from place `start` on, newest first, and whether more follow.

    A parent that nobody has any more ends its line.
    """
    found: list[tuple[ManifestId, Manifest]] = []
    seen = {commit.revision}
    queue: list[tuple[int, ManifestId, Manifest]] = [(0, commit.revision, commit.manifest)]
    while queue and len(found) < min(start + count + 1, COMMITS_MAX):
        # The deepest first, so that no commit comes before one that was made from it.
        queue.sort(key=lambda item: (-item[2].depth, item[0]))
        _, revision, manifest = queue.pop(0)
        found.append((revision, manifest))
        for parent in manifest.parents:
            if parent not in seen:
                seen.add(parent)
                known = await _manifest(lookup, parent)
                if known is not None:
                    queue.append((len(seen), parent, known))
    page = found[start : start + count]
    repository = commit.repository
    records = await on_disk(
        first_publications, node.store, repository.namespace, repository.model, {revision for revision, _ in page}
    )
    rows = []
    for revision, manifest in page:
        record = records.get(revision)
        title, _, rest = (record.message if record else "").partition("\n")
        rows.append(
            {
                "id": revision.commit,
                "title": title or _default_title(record),
                "message": rest.strip(),
                "authors": [{"user": repository.name.partition("/")[0]}],
                "date": moment(record.time if record else manifest.created),
            }
        )
    return rows, len(found) > start + count


async def _manifest(lookup: Lookup, revision: ManifestId) -> Manifest | None:
    try:
        return await lookup.manifest(revision)
    except (HubError, Refusal):
        return None


def _reference(group: str, name: str, tip: ManifestId) -> dict[str, Any]:
    return {"name": name, "ref": f"refs/{group}/{name}", "targetCommit": tip.commit}


def _default_title(record: Publish | None) -> str:
    return f"Publish {record.version}" if record and record.version else "Publish"
