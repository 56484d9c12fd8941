"""Repositories of one's own, made, moved and deleted as clients of other hubs ask for it (spec/hub-api.md §8)."""

from __future__ import annotations

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from p2phub.core.choices import DEFAULT_BRANCH, GateApproval, Kind, Visibility
from p2phub.core.errors import NotFound
from p2phub.node import branches
from p2phub.node.committing import Put, publish_revision
from p2phub.node.disk import on_disk
from p2phub.node.events import ignore
from p2phub.node.node import Node
from p2phub.node.visibility import visibility_of

from .commitbody import Text
from .commits import LARGE
from .describe import gated
from .errors import Refusal, not_served
from .lookup import Lookup, Repository, parse_name
from .owner import Owner
from .requests import read_json
from .urls import repository_url

# A repository cannot be empty, and this is what other hubs begin one with.
_FIRST_FILE = ".gitattributes"
_FIRST_CONTENT = "".join(f"*{ending} filter=lfs diff=lfs merge=lfs -text\n" for ending in LARGE).encode()


class Create(Struct, frozen=True):
    """A repository to make."""

    name: Text
    organization: Text | None = None
    type: Text | None = None
    visibility: Text | None = None
    private: bool | None = None


class DeleteRepository(Struct, frozen=True):
    """A repository to delete."""

    name: Text
    organization: Text | None = None
    type: Text | None = None


class Move(Struct, frozen=True, rename="camel"):
    """A repository to rename."""

    from_repo: Text
    to_repo: Text
    type: Text | None = None


class Settings(Struct, frozen=True):
    """Settings of a repository; those that mean something here."""

    private: bool | None = None
    visibility: Text | None = None
    gated: bool | Text | None = None


class RepositoryRequests:
    """Answers about whole repositories, for the owner of the node."""

    def __init__(self, node: Node, lookup: Lookup, owner: Owner) -> None:
        self._node = node
        self._lookup = lookup
        self._owner = owner

    async def create(self, request: Request) -> Response:
        """Make a repository."""
        self._owner.require(request)
        wanted: Create = await read_json(request, Create)
        kind = _kind(wanted.type)
        visibility = _visibility(wanted.private, wanted.visibility)
        name, model = await self._owner.own_name(wanted.organization, wanted.name)
        url = repository_url(request, kind, name)
        async with self._owner.committing:
            if await self._exists(kind, name):
                raise Refusal(409, f"you have {name} already", body={"url": url, "name": name})
            digest = await self._owner.keep(_FIRST_CONTENT)
            change = Put(_FIRST_FILE, digest, len(_FIRST_CONTENT))
            await self._owner.publish(
                model, kind, DEFAULT_BRANCH, [change], message="initial commit", visibility=visibility
            )
        return JSONResponse({"url": url, "name": name, "id": name})

    async def delete(self, request: Request) -> Response:
        """Delete all branches and yank all versions; whoever has copies keeps them."""
        self._owner.require(request)
        wanted: DeleteRepository = await read_json(request, DeleteRepository)
        name, _ = await self._owner.own_name(wanted.organization, wanted.name)
        repository = await self._lookup.known(_kind(wanted.type), name)
        async with self._owner.committing:
            await self._remove(repository, f"{name} was deleted")
        return JSONResponse({"ok": True})

    async def move(self, request: Request) -> Response:
        """Publish all branches and versions under another name, and delete the old one."""
        self._owner.require(request)
        wanted: Move = await read_json(request, Move)
        kind = _kind(wanted.type)
        for name in (wanted.from_repo, wanted.to_repo):
            parse_name(name)
        old_name, _ = await self._owner.own_name(*wanted.from_repo.split("/"))
        new_name, new_model = await self._owner.own_name(*wanted.to_repo.split("/"))
        repository = await self._lookup.known(kind, old_name)
        async with self._owner.committing:
            if await self._exists(kind, new_name):
                raise Refusal(409, f"you have {new_name} already")
            catalogue = self._node.store.catalogue
            claims = await on_disk(catalogue.branches, repository.namespace, repository.model)
            versions = await on_disk(catalogue.versions, repository.namespace, repository.model)
            message = f"moved from {repository.model}"
            visibility = await on_disk(visibility_of, self._node, repository.namespace, repository.model)
            for version, claim in versions.items():
                if claim.manifest:
                    await self._owner.publish_version(new_model, version, claim.manifest, message, visibility)
            for branch, claim in claims.items():
                if claim.manifest:
                    await publish_revision(
                        self._node,
                        new_model,
                        branch,
                        claim.manifest,
                        ignore,
                        version=None,
                        message=message,
                        visibility=visibility,
                    )
            await self._remove(repository, f"moved to {new_model}")
        return JSONResponse({"ok": True, "url": repository_url(request, kind, new_name)})

    async def settings(self, request: Request, kind: Kind, name: str) -> Response:
        """Set or take away a gate, and refuse what else would change something."""
        self._owner.require(request)
        wanted: Settings = await read_json(request, Settings)
        repository = await self._owner.repository(kind, name)
        visibility: Visibility = "private" if repository.is_private else "public"
        if _visibility(wanted.private, wanted.visibility) not in (None, visibility):
            raise not_served(f"{name} is {visibility}; the first publication decides that")
        if wanted.gated is not None:
            async with self._owner.committing:
                await self._set_gate(repository, _approval(wanted.gated))
        gate = await on_disk(self._node.store.gates.of_repository, repository.namespace, repository.model)
        shown = gated(gate.approval if gate else None)
        return JSONResponse({"private": repository.is_private, "gated": shown, "visibility": visibility})

    async def _set_gate(self, repository: Repository, approval: GateApproval | None) -> None:
        """Let a repository have a gate, or none. Raises Refusal if it has no licence that could be accepted."""
        from p2phub.node import gates  # loads what signs

        model = repository.model
        if approval is not None:
            try:
                await gates.set_gate_by_file(self._node, model, approval)
            except NotFound as exc:
                raise Refusal(400, f"{exc} ({exc.hint})") from exc
        elif await on_disk(self._node.store.gates.of_repository, repository.namespace, model):
            await gates.open_gate(self._node, model, "")

    async def _exists(self, kind: Kind, name: str) -> bool:
        try:
            await self._lookup.known(kind, name)
        except Refusal:
            return False
        return True

    async def _remove(self, repository: Repository, message: str) -> None:
        catalogue = self._node.store.catalogue
        for branch in await on_disk(catalogue.branches, repository.namespace, repository.model):
            await branches.move_branch(self._node, repository.model, branch, None, message, ignore)
        for version in await on_disk(catalogue.versions, repository.namespace, repository.model):
            if await on_disk(catalogue.yanked, repository.namespace, repository.model, version) is None:
                await branches.yank(self._node, f"{repository.model}@{version}", message, ignore)


def _visibility(private: bool | None, visibility: str | None) -> Visibility | None:
    """Return for whom a repository is to be, None if nothing is said. Raises Refusal for what there is not."""
    if visibility not in (None, "public", "private"):
        raise not_served(f"a repository cannot be {visibility} here")
    if visibility is not None:
        return "private" if visibility == "private" else "public"
    return None if private is None else "private" if private else "public"


def _approval(gating: bool | str) -> GateApproval | None:
    """Return what a gate is to ask for besides that a licence is accepted, None for no gate. Raises Refusal."""
    known: dict[bool | str, GateApproval | None] = {
        False: None, "false": None, "auto": "automatic", "manual": "manual",
    }  # fmt: skip
    if gating not in known:
        raise Refusal(400, f"gated is auto, manual or false, not {str(gating).lower()}")
    return known[gating]


def _kind(text: str | None) -> Kind:
    if text in (None, "model"):
        return "model"
    if text == "dataset":
        return "dataset"
    raise not_served("this hub has models and datasets only")
