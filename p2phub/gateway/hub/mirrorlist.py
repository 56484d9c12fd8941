"""Repositories of other hubs in lists: those that are mirrored here, or by publishers who are trusted in it.

    what is known of mirrors ──▶ a summary each, kept ──conditions──▶ rows, the newest first (spec/hub-api.md §5)

They are in no index: there are some hundreds of them and not a million, and each list looks at all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import trio

from p2phub.core.choices import Kind
from p2phub.core.ids import ManifestId
from p2phub.core.names import is_namespace_id
from p2phub.core.search import Query
from p2phub.core.upstream import Foreign
from p2phub.core.words import squeeze, words
from p2phub.node.disk import on_disk
from p2phub.node.foreign import ForeignCommit, KnownMirror, known_mirrors, load_commit
from p2phub.node.node import Node

from .audience import Audience
from .describe import moment, repository_info

MIRRORS_MAX = 1000  # that are looked at, those first of which something was said last; spec/hub-api.md §5
WHOLE_AT_ONCE = 8  # of which the manifest is asked of peers

_LARGE_FIELDS = ("siblings", "usedStorage", "cardData", "config", "spaces", "safetensors")


@dataclass(frozen=True)
class ListedMirror:
    """A mirror as lists show it, and what it is found by."""

    known: KnownMirror
    row: dict[str, Any]
    time: int  # of its commit, in seconds since 1970
    words: frozenset[str]
    values: frozenset[str]  # tags and the like, in lower case
    parameters: int | None

    @property
    def name(self) -> str:
        return self.known.repository.name

    @property
    def place(self) -> tuple[int, str]:
        """Where it stands in a list: the later, the further on."""
        return -self.time, self.name


class MirrorList:
    """Finds mirrors for those who look for something."""

    def __init__(self, node: Node, audience: Audience) -> None:
        self._node = node
        self._audience = audience
        # Of those whose manifest or list is here; by repository, commit and manifest.
        self._kept: dict[tuple[Foreign, str, ManifestId | None], ListedMirror] = {}

    async def find(self, query: Query, owner: str | None, after: tuple[int, str] | None) -> list[ListedMirror]:
        """Return the mirrors that match, in the order of lists. owner: what their hub calls it; after: a place."""
        # The public door shows nothing of other hubs; a gate of another hub's makes a mirror one for its owner alone.
        if self._audience is Audience.PUBLIC or query.gated:
            return []
        listed = await on_disk(self._look, "dataset" if query.kind == "dataset" else "model")
        found = [
            each
            for each in listed
            if (owner is None or each.known.repository.owner.lower() == owner.lower())
            and (after is None or each.place > after)
            and _matches(each, query)
        ]
        return sorted(found, key=lambda each: each.place)

    async def load_rows(self, mirrors: Iterable[ListedMirror], rows: dict[str, dict[str, Any]]) -> None:
        """Put all that is said of mirrors into `rows`, by name, as it comes: from here, or from peers."""
        limiter = trio.CapacityLimiter(WHOLE_AT_ONCE)

        async def load(mirror: ListedMirror) -> None:
            async with limiter:
                if commit := await load_commit(self._node, mirror.known):
                    rows[mirror.name] = {**_info(commit), "trendingScore": 0}

        async with trio.open_nursery() as nursery:
            for mirror in mirrors:
                nursery.start_soon(load, mirror)

    def _look(self, kind: Kind) -> list[ListedMirror]:
        names = {binding.name for binding in self._node.store.bindings.all()}
        found = []
        for known in known_mirrors(self._node, kind, MIRRORS_MAX):
            owner = known.repository.owner
            # By that name the door would find a publisher of ours instead.
            is_ours = owner in names or is_namespace_id(owner)
            if not is_ours and (self._audience is Audience.OWNER or known.is_shared):
                found.append(self._kept.get(_key(known)) or self._summary(known))
        return found

    def _summary(self, known: KnownMirror) -> ListedMirror:
        manifest = self._node.store.manifests.get(known.manifest) if known.manifest else None
        listing = None if manifest else self._node.store.mirrors.listing(known.repository, known.commit)
        if manifest is None and listing is None:
            # It comes once somebody wants to see it whole.
            return _made(known, _bare_row(known), known.said, "", None)
        commit = ForeignCommit(known.repository, known.commit, listing, manifest)
        row = {name: value for name, value in _info(commit).items() if name not in _LARGE_FIELDS}
        card, facts = commit.card, commit.facts
        text = f"{card.title or ''} {card.excerpt or ''}" if card else ""
        summary = _made(
            known, {**row, "trendingScore": 0}, commit.created, text, facts.parameters if facts else None,
            [facts.architecture] if facts and facts.architecture else (),
        )  # fmt: skip
        if len(self._kept) >= 2 * MIRRORS_MAX:
            self._kept.clear()
        self._kept[_key(known)] = summary
        return summary


def _key(known: KnownMirror) -> tuple[Foreign, str, ManifestId | None]:
    return known.repository, known.commit, known.manifest


def _info(commit: ForeignCommit) -> dict[str, Any]:
    return repository_info(commit, created=commit.created, blobs=False)


def _bare_row(known: KnownMirror) -> dict[str, Any]:
    """Return how a mirror is shown of which nothing but an attestation is here."""
    name = known.repository.name
    row: dict[str, Any] = {
        "_id": known.commit[:24],
        "id": name,
        "author": known.repository.owner,
        "sha": known.commit,
        "lastModified": moment(known.said),
        "createdAt": moment(known.said),
        "private": False,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "trendingScore": 0,
        "tags": [],
    }
    return row | ({"modelId": name} if known.repository.kind == "model" else {})


def _made(
    known: KnownMirror, row: dict[str, Any], time: int, text: str, parameters: int | None, more: Iterable[str] = ()
) -> ListedMirror:
    values = frozenset(tag.lower() for tag in (*row["tags"], *more))
    found = frozenset(words(" ".join([known.repository.name, *row["tags"], *more, text])))
    return ListedMirror(known, row, time, found, values, parameters)


def _matches(mirror: ListedMirror, query: Query) -> bool:
    wanted = [
        *([query.task] if query.task else []),
        *([query.library] if query.library else []),
        *([f"license:{query.license}"] if query.license else []),
        *(f"dataset:{name}" for name in query.datasets),
        *(f"base_model:{name}" for name in query.base_models),
        *query.languages,
        *query.filters,
    ]
    if not all(value.lower() in mirror.values for value in wanted):
        return False
    if query.parameters_min is not None or query.parameters_max is not None:
        low, high = query.parameters_min or 0, query.parameters_max
        if mirror.parameters is None or mirror.parameters < low or (high is not None and mirror.parameters > high):
            return False
    name = squeeze(mirror.name)
    *whole, last = words(query.text) or [""]
    return all(word in mirror.words or word in name for word in whole) and (
        last in name or any(word.startswith(last) for word in mirror.words)
    )
