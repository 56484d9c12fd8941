"""Branches and tags of one's own, made and deleted (spec/hub-api.md §8)."""

from __future__ import annotations

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from p2phub.core.choices import DEFAULT_BRANCH, Kind
from p2phub.core.names import is_branch, is_version
from p2phub.node import branches
from p2phub.node.disk import on_disk
from p2phub.node.events import ignore
from p2phub.node.node import Node

from .commitbody import Text
from .errors import Refusal, no_revision
from .lookup import TAG_PREFIX, Lookup
from .owner import Owner
from .requests import read_json


class Tag(Struct, frozen=True):
    tag: Text
    message: Text | None = None


class NewBranch(Struct, frozen=True, rename="camel"):
    starting_point: Text | None = None


class BranchRequests:
    """Answers about branches and tags, for the owner of the node."""

    def __init__(self, node: Node, lookup: Lookup, owner: Owner) -> None:
        self._node = node
        self._lookup = lookup
        self._owner = owner

    async def create_tag(self, request: Request, kind: Kind, name: str, revision: str) -> Response:
        """Let a name stand for a commit for ever: a version if it is spelled like one, else a branch below `tags/`."""
        self._owner.require(request)
        wanted: Tag = await read_json(request, Tag)
        current = await self._owner.commit(kind, name, revision)
        repository, model = current.repository, current.repository.model
        if wanted.tag in await self._lookup.tags(repository):
            raise Refusal(409, f"{name} has a tag {wanted.tag} already")
        async with self._owner.committing:
            if is_version(wanted.tag):
                await self._owner.publish_version(model, wanted.tag, current.revision, wanted.message or "")
            else:
                branch = TAG_PREFIX + wanted.tag
                _check_branch(branch, wanted.tag)
                await branches.move_branch(
                    self._node, model, branch, current.revision.hex(), wanted.message or "", ignore
                )
        return JSONResponse({"ok": True})

    async def delete_tag(self, request: Request, kind: Kind, name: str, tag: str) -> Response:
        """Yank a version, or delete the branch that stands for a tag."""
        self._owner.require(request)
        repository = await self._owner.repository(kind, name)
        if tag not in await self._lookup.tags(repository):
            raise no_revision(f"{name} has no tag {tag}")
        async with self._owner.committing:
            if is_version(tag):
                await branches.yank(self._node, f"{repository.model}@{tag}", "the tag was deleted", ignore)
            else:
                await branches.move_branch(
                    self._node, repository.model, TAG_PREFIX + tag, None, "the tag was deleted", ignore
                )
        return JSONResponse({"ok": True})

    async def create_branch(self, request: Request, kind: Kind, name: str, branch: str) -> Response:
        """Begin a branch at a commit."""
        self._owner.require(request)
        wanted: NewBranch = await read_json(request, NewBranch)
        current = await self._owner.commit(kind, name, wanted.starting_point or DEFAULT_BRANCH)
        repository = current.repository
        _check_branch(branch, branch)
        if branch.startswith((TAG_PREFIX, "refs/")):
            raise Refusal(400, f"'{branch}' is kept for tags and proposals")
        if branch in await on_disk(self._node.store.catalogue.branches, repository.namespace, repository.model):
            raise Refusal(409, f"{name} has a branch {branch} already")
        async with self._owner.committing:
            await branches.move_branch(
                self._node, repository.model, branch, current.revision.hex(), f"branch {branch}", ignore
            )
        return JSONResponse({"ok": True})

    async def delete_branch(self, request: Request, kind: Kind, name: str, branch: str) -> Response:
        """Delete a branch."""
        self._owner.require(request)
        repository = await self._owner.repository(kind, name)
        if branch == DEFAULT_BRANCH:
            raise Refusal(403, f"{DEFAULT_BRANCH} cannot be deleted; the repository can")
        if branch not in await on_disk(self._node.store.catalogue.branches, repository.namespace, repository.model):
            raise no_revision(f"{name} has no branch {branch}")
        async with self._owner.committing:
            await branches.move_branch(self._node, repository.model, branch, None, "the branch was deleted", ignore)
        return JSONResponse({"ok": True})


def _check_branch(branch: str, shown: str) -> None:
    if not is_branch(branch):
        raise Refusal(400, f"'{shown}' is no name of a branch or tag")
