"""Lists of repositories, page by page, as clients of other hubs ask for them (spec/hub-api.md §5).

A page goes on after the last row of the one before it, so that a catalogue that grows
meanwhile shows no repository twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from p2phub.core.ids import LogId, ManifestId, NamespaceId
from p2phub.core.search import Model

from .catalogue import match_expression, model_of
from .database import Database

PAGE_MAX = 1000  # repositories in a page
WORDS_MAX = 16  # conditions of one kind

Order = Literal["modified", "created"]

# A repository is there while it has a branch, or a version that was not yanked.
_IS_THERE = (
    "(EXISTS (SELECT 1 FROM branches AS b WHERE b.namespace = models.namespace AND b.model = models.model"
    " AND b.manifest IS NOT NULL)"
    " OR EXISTS (SELECT 1 FROM versions AS v WHERE v.namespace = models.namespace AND v.model = models.model"
    " AND NOT EXISTS (SELECT 1 FROM yanks AS y WHERE y.namespace = v.namespace AND y.model = v.model"
    " AND y.version = v.version)))"
)

# What a filter without a prefix may mean.
_TAG_COLUMNS = ("library", "task", "architecture")
_TAG_LISTS = ("tags", "languages")
_PREFIXES = {"license": "license", "library": "library", "pipeline_tag": "task", "task_categories": "task"}
_LIST_PREFIXES = {"dataset": "datasets", "base_model": "base_models", "language": "languages"}


@dataclass(frozen=True)
class ListQuery:
    """What to list; every condition given must hold."""

    kind: str
    texts: tuple[str, ...] = ()  # words that must occur
    publisher: NamespaceId | None = None
    filters: tuple[str, ...] = ()  # tags, or `license:mit`, `base_model:NAME`, …
    task: str | None = None
    parameters_min: int | None = None
    parameters_max: int | None = None
    order: Order = "modified"  # the newest first
    after: tuple[int, int] | None = None  # time and row of the last one that was shown


@dataclass(frozen=True)
class Listed:
    """A repository in a list."""

    model: Model
    created: int  # seconds since 1970
    place: tuple[int, int]  # for `ListQuery.after`


class Listing:
    """Answers for those who go through all repositories."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, query: ListQuery, limit: int) -> list[Listed]:
        """Return at most `limit` repositories (never more than PAGE_MAX and one, which tells that more follow)."""
        key = "time" if query.order == "modified" else "created"
        conditions, values = _conditions(query)
        if query.after is not None:
            conditions.append(f"({key}, id) < (?, ?)")
            values += query.after
        first = (
            "(SELECT min(time) FROM releases"
            " WHERE releases.namespace = models.namespace AND releases.model = models.model)"
        )
        # By time of change an index leads to the page alone; by time of creation all rows have to be looked at.
        source = f"SELECT *, {first} AS created FROM models"
        if query.order == "created":
            source = f"SELECT * FROM ({source}) AS models"
        with self._database.read() as connection:
            rows = connection.execute(
                f"{source} WHERE {' AND '.join(conditions)} ORDER BY {key} DESC, id DESC LIMIT ?",
                (*values, min(limit, PAGE_MAX + 1)),
            ).fetchall()
        return [Listed(model_of(row), row["created"], (row[key], row["id"])) for row in rows]

    def kind(self, namespace: NamespaceId, model: str) -> str | None:
        """Return the kind of a repository, None if there is none or all of it was deleted."""
        with self._database.read() as connection:
            row = connection.execute(
                f"SELECT kind FROM models WHERE namespace = ? AND model = ? AND {_IS_THERE}", (namespace, model)
            ).fetchone()
        return row["kind"] if row else None

    def created(self, namespace: NamespaceId, model: str) -> int | None:
        """Return when a repository was first published, in seconds since 1970."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT min(time) AS first FROM releases WHERE namespace = ? AND model = ?", (namespace, model)
            ).fetchone()
        return row["first"] if row else None

    def releases(self, namespace: NamespaceId, model: str) -> list[tuple[ManifestId, LogId, int]]:
        """Return the revisions of a repository with the log and index of their records, the oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT manifest, log, idx FROM releases WHERE namespace = ? AND model = ? ORDER BY time, leaf",
                (namespace, model),
            ).fetchall()
        return [(ManifestId(row["manifest"]), LogId(row["log"]), row["idx"]) for row in rows]


def _conditions(query: ListQuery) -> tuple[list[str], list[object]]:
    conditions: list[str] = ["kind = ?", _IS_THERE]
    values: list[object] = [query.kind]

    def add(condition: str, *bound: object) -> None:
        conditions.append(condition)
        values.extend(bound)

    for text in query.texts:
        if words := match_expression(text):
            add("id IN (SELECT rowid FROM models_fts WHERE models_fts MATCH ?)", words)
    if query.publisher is not None:
        add("namespace = ?", query.publisher)
    if query.task is not None:
        add("task = ? COLLATE NOCASE", query.task)
    if query.parameters_min is not None:
        add("parameters >= ?", query.parameters_min)
    if query.parameters_max is not None:
        add("parameters <= ?", query.parameters_max)
    for word in query.filters:
        prefix, colon, rest = word.partition(":")
        if colon and prefix in _PREFIXES:
            add(f"{_PREFIXES[prefix]} = ? COLLATE NOCASE", rest)
        elif colon and prefix in _LIST_PREFIXES:
            add(_holds(_LIST_PREFIXES[prefix]), rest)
        else:
            either = [f"{column} = ? COLLATE NOCASE" for column in _TAG_COLUMNS] + [_holds(name) for name in _TAG_LISTS]
            add(f"({' OR '.join(either)})", *[word] * len(either))
    return conditions, values


def _holds(column: str) -> str:
    """Return the condition that a word is in a column of words between spaces."""
    # Not LIKE: `_` and `%` in a tag mean themselves.
    return f"instr(' ' || lower({column}) || ' ', ' ' || lower(replace(?, ' ', '_')) || ' ')"
