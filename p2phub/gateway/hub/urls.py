"""URLs of this door as clients expect them (spec/hub-api.md §8)."""

from __future__ import annotations

from starlette.requests import Request

from p2phub.core.choices import Kind

from .requests import base_url


def repository_url(request: Request, kind: Kind, name: str) -> str:
    """Return the URL of a repository."""
    prefix = "datasets/" if kind == "dataset" else ""
    return f"{base_url(request)}/{prefix}{name}"


def commit_url(request: Request, kind: Kind, name: str, commit: str) -> str:
    """Return the URL of a commit."""
    return f"{repository_url(request, kind, name)}/commit/{commit}"
