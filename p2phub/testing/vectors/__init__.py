"""Test vectors: bytes that every implementation of the spec must make and read (spec/README.md §3).

Each function in here gives one file of `spec/vectors/` as plain values, always the same.
Byte strings stand there in hex. `tools/make-vectors` writes the files; `tests/test_vectors.py`
reads them back through the code, and sees that they are what is made here.
"""

from __future__ import annotations

from collections.abc import Callable

from . import (
    agreements,
    authority,
    content,
    identities,
    logs,
    maps,
    moving,
    names,
    primitives,
    privates,
    records,
    seals,
    talks,
    vouching,
    wire,
)
from .plain import Json, render

FILES: dict[str, Callable[[], Json]] = {
    "ids.json": primitives.ids,
    "encoding.json": primitives.encodings,
    "signing.json": primitives.signing,
    "merkle.json": primitives.trees,
    "content.json": content.content,
    "manifest.json": content.manifest,
    "paths.json": content.paths,
    "origins.json": names.origin_urls,
    "records.json": records.records,
    "catalogue.json": logs.catalogue,
    "forks.json": logs.forks,
    "checkpoint.json": records.checkpoints,
    "fresh.json": vouching.statements,
    "witness.json": vouching.witnesses,
    "identity.json": identities.identities,
    "moving.json": moving.between_machines,
    "node-record.json": identities.node_records,
    "names.json": names.name_texts,
    "messages.json": names.peer_messages,
    "authority.json": authority.authority,
    "fingerprints.json": maps.maps,
    "talk.json": talks.talks,
    "private.json": privates.private,
    "sealing.json": seals.sealed,
    "federation.json": agreements.federations,
    "bulk.json": wire.bulk,
    "certificate.json": wire.certificates,
    "disk.json": wire.disk_files,
}

__all__ = ["FILES", "Json", "render"]
