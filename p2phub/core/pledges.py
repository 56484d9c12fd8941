"""What a pledge is about: one revision, one repository, or all that a publisher publishes (spec/pledges.md §1)."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from .choices import PLEDGE_REPLICAS_MAX
from .ids import ManifestId, NamespaceId
from .names import ModelName

Replicas = Annotated[int, Meta(ge=1, le=PLEDGE_REPLICAS_MAX)]


class Subject(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, order=True):
    """Either `manifest` alone, or `publisher` with or without one `model` of his."""

    manifest: ManifestId | None = None
    publisher: NamespaceId | None = None
    model: ModelName | None = None  # None: all of the publisher's repositories

    def __post_init__(self) -> None:
        if (self.manifest is None) == (self.publisher is None) or (self.model and self.publisher is None):
            raise ValueError("a pledge is about a manifest, or about a publisher with or without a model")

    def __str__(self) -> str:
        if self.manifest is not None:
            return str(self.manifest)
        return f"{self.publisher}/{self.model}" if self.model else str(self.publisher)
