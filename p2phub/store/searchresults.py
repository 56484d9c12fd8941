"""Repositories as searches show them: what their releases say is in the logs, the rest in the index."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from sqlite3 import Connection
from typing import Any

import cbor2

from p2phub.core.choices import GateApproval
from p2phub.core.ids import ManifestId, NamespaceId
from p2phub.core.search import Model, Result, VariantInfo

from .atonce import Columns, as_list, fetch_at_once
from .facets import facet_of
from .gates import APPROVAL
from .searchcounts import ValuesOf
from .searchindex import ReadEntries
from .searchplan import IS_HERE


def models(
    connection: Connection, rows: Sequence[Columns], read_entries: ReadEntries, values: ValuesOf, *, has_gates: bool
) -> list[Model]:
    """Return the repositories of `rows` of models, but those whose release cannot be read."""
    gates = _gates(connection, [row["repository"] for row in rows]) if has_gates else {}
    kinds = [_kind_of(row) for row in rows]
    kind_of = values(set(kinds))
    read = read_entries([key_of(row) for row in rows])
    # Checked when they came in.
    found = [
        (row, kind_of[kind], cbor2.loads(cbor2.loads(read[key_of(row)])["payload"]))
        for row, kind in zip(rows, kinds, strict=True)
        if key_of(row) in read
    ]
    here = _here(connection, [record["manifest"] for _, _, record in found])
    return [
        _model(
            connection, row, record, kind=kind, is_here=record["manifest"] in here, gate=gates.get(row["repository"])
        )
        for row, kind, record in found
    ]


def key_of(row: Columns) -> tuple[int, int]:
    """Return where the release stands that describes a repository."""
    return row["log_number"], row["idx"]


def _model(
    connection: Connection,
    row: Columns,
    record: dict[str, Any],
    *,
    kind: str,
    is_here: bool,
    gate: GateApproval | None,
) -> Model:
    summary = record["summary"]
    manifest = ManifestId(record["manifest"])
    return Model(
        namespace=str(NamespaceId(record["namespace"])),
        model=record["model"],
        kind=kind,
        revision=str(manifest),
        version=record.get("version"),
        time=record["time"],
        files=summary["files"],
        size=summary["size"],
        parameters=summary.get("parameters"),
        task=summary.get("task"),
        library=summary.get("library"),
        license=summary.get("license"),
        languages=summary.get("languages", []),
        tags=summary.get("tags", []),
        base_models=summary.get("base_models", []),
        datasets=summary.get("datasets", []),
        tensor_types=summary.get("tensor_types", []),
        architecture=summary.get("architecture"),
        title=summary.get("title", ""),
        excerpt=summary.get("excerpt", ""),
        created=row["created"],
        variants=[VariantInfo(item["name"], item["size"]) for item in summary.get("variants", ())],
        results=[
            Result(f"{item['task']}/{item['dataset']}/{item['metric']}", item["value"])
            for item in summary.get("scores", ())
        ],
        replicas=row["replicas"],
        replicas_seen=_seen(connection, manifest) if row["replicas"] else None,
        here=is_here,
        gate=gate,
    )


def _kind_of(row: Columns) -> int:
    """Return the number of the value of the facet `kind` that a repository has."""
    return next(number for number in array("I", row["facets"]) if facet_of(number) == "kind")


def _seen(connection: Connection, manifest: ManifestId) -> int | None:
    (time,) = connection.execute("SELECT max(time) FROM holders WHERE manifest = ?", (manifest,)).fetchone()
    return int(time) if time is not None else None


def _gates(connection: Connection, repositories: Sequence[int]) -> dict[int, GateApproval | None]:
    """Return what the gates of repositories ask for besides that a licence is accepted; None: there is no gate."""
    rows = fetch_at_once(
        connection,
        f"SELECT k.value AS repository, {APPROVAL.format('k.value')} AS approval FROM json_each(?) AS k",
        (as_list(repositories),),
        ("repository", "approval"),
    )
    return {row["repository"]: row["approval"] for row in rows}


def _here(connection: Connection, manifests: list[bytes]) -> set[bytes]:
    """Return those of the manifests whose files are all in the store."""
    marks = ", ".join("?" * len(manifests))
    found = connection.execute(
        f"SELECT manifest FROM manifests WHERE manifest IN ({marks}) AND {IS_HERE.format('manifests.manifest')}",
        manifests,
    )
    return {row["manifest"] for row in found}
