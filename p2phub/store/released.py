"""Say which releases are of a manifest, so that SQLite finds them by its index (spec/store.md §5)."""

from __future__ import annotations


def is_of(manifest: str, *, row: str = "r") -> str:
    """Return a condition for rows of release_rows, called `row` in the statement.

    manifest: what stands for the manifest there, such as a parameter or another table's column.
    """
    # The index holds the first bytes only, which makes it half as large; without them all releases are gone through.
    return f"substr({row}.manifest, 1, 8) = substr({manifest}, 1, 8) AND {row}.manifest = {manifest}"


# A row of models, called m in a statement, shows the release in a row of release_rows, called r.
IS_SHOWN = "m.repository = r.repository AND m.log_number = r.log_number AND m.idx = r.idx"

# The repositories that have a release of the manifest ?1, by namespace and model.
REPOSITORIES = (
    "SELECT DISTINCT namespace, model FROM release_rows AS r"
    " JOIN repositories ON repositories.number = r.repository"
    " JOIN identities ON identities.number = repositories.publisher"
    f" WHERE {is_of('?1')}"
)
