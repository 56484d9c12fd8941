"""Another hub at its best and worst, on loopback: lists repositories and serves their files.

    with FakeHub() as hub:
        commit = hub.publish("org/name", {"config.json": b"{}", "model.bin": data})
        hub.behaviours.append(only(is_file, times(2, answering(500))))

What it answers is right; the behaviours of `webserver` spoil it. It can be changed while it runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha1, sha256
from typing import Any

from p2phub.core.choices import Kind
from p2phub.core.gitobjects import blob_id

from .webserver import Asked, Behaviour, Reply, WebServer

LARGE_SIZE = 10_000  # bytes from which on a file is listed by its SHA-256


class FakeHub(WebServer):
    """A hub. A context manager, during which it runs."""

    def __init__(self, *behaviours: Behaviour) -> None:
        self.pages: dict[str, bytes] = {}
        super().__init__(self.pages, *behaviours)

    @property
    def name(self) -> str:
        """What this hub is called: HOST:PORT."""
        return self.url.removeprefix("http://")

    def publish(
        self, name: str, files: Mapping[str, bytes], *, kind: Kind = "model", revision: str = "main", **info: Any
    ) -> str:
        """Let `revision` of a repository hold `files`; returns the commit. info: what else is said of it."""
        rows = [listed(path, data) for path, data in files.items()]
        commit = sha1(json.dumps([name, rows]).encode(), usedforsecurity=False).hexdigest()
        said = {"id": name, "sha": commit, "private": False, "gated": False, "lastModified": "2026-01-02T03:04:05.000Z"}
        api = f"api/{kind}s/{name}"
        for known in (revision, commit):
            self.pages[f"{api}/revision/{known}"] = json.dumps(said | info).encode()
        self.pages[f"{api}/tree/{commit}"] = json.dumps(rows).encode()
        prefix = "datasets/" if kind == "dataset" else ""
        for path, data in files.items():
            self.pages[f"{prefix}{name}/resolve/{commit}/{path}"] = data
        return commit

    def fetched(self, path: str) -> int:
        """Return how often content of files called `path` was asked for."""
        return sum(is_file(asked) and asked.path.endswith(f"/{path}") for asked in self.asked)


def listed(path: str, data: bytes) -> dict[str, Any]:
    """Return how a hub lists a file."""
    row: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": blob_id(data).hex()}
    if len(data) >= LARGE_SIZE:
        row["lfs"] = {"oid": sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return row


# ── what is asked, and behaviours ───────────────────────────────────────────


def is_file(asked: Asked) -> bool:
    """Say whether content of a file is asked for."""
    return "/resolve/" in asked.path


def is_api(asked: Asked) -> bool:
    """Say whether the hub is asked about a repository."""
    return asked.path.startswith("api/")


def is_tree(asked: Asked) -> bool:
    """Say whether the files of a commit are asked for."""
    return is_api(asked) and "/tree/" in asked.path


def like_missing(asked: Asked, reply: Reply) -> Reply:
    """Say with the codes of the big hub what is not there."""
    if reply.status != 404:
        return reply
    code = "EntryNotFound" if is_file(asked) else "RepoNotFound"
    return replace(reply, headers={"x-error-code": code})


def paged(count: int, server: WebServer) -> Behaviour:
    """List `count` files a page."""

    def behave(asked: Asked, reply: Reply) -> Reply:
        if not is_tree(asked) or reply.status != 200:
            return reply
        rows = json.loads(reply.body)
        start = int(asked.target.partition("cursor=")[2] or 0)
        headers = {}
        if start + count < len(rows):
            path = asked.target.partition("?")[0]
            headers["link"] = f'<{server.url}{path}?recursive=true&cursor={start + count}>; rel="next"'
        return replace(reply, body=json.dumps(rows[start : start + count]).encode(), headers=headers)

    return behave
