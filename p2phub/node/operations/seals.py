"""Who may open what is sealed."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from . import Operation, Text


class SealResult(Struct, frozen=True):
    """Who may open a repository."""

    model: str
    keys: int  # that its revisions are sealed with
    recipients: list[str]  # namespaces that can open all of them
    unsealed: bool  # everybody can
    log_index: int | None  # of the new record; None: it was so already


class SealFor(Operation, tag="seal-add", frozen=True):
    """Let more namespaces open what one sealed as a model."""

    result = SealResult

    model: Text
    recipients: Annotated[tuple[Text, ...], Meta(min_length=1, max_length=1000)]


class ShowSeal(Operation, tag="seal-ls", frozen=True):
    """Who may open a repository."""

    result = SealResult

    reference: Text


class UnsealModel(Operation, tag="unseal", frozen=True):
    """Let everybody open what one sealed as a model."""

    result = SealResult

    model: Text
    message: Annotated[str, Meta(max_length=4096)] = ""
