"""The owner of the node at the hub door: what is his, and what he signs there (spec/hub-api.md §8)."""

from __future__ import annotations

import trio
from starlette.requests import Request

from p2phub.core.choices import Kind, Visibility
from p2phub.core.errors import BindingChanged, InvalidName, NotFound, Offline
from p2phub.core.ids import ManifestId
from p2phub.core.names import check_model
from p2phub.node import branches
from p2phub.node.committing import Change, commit, publish_revision, uploads_of
from p2phub.node.disk import on_disk
from p2phub.node.events import ignore
from p2phub.node.identity import own_namespace
from p2phub.node.node import Node
from p2phub.node.resolve import find_namespace

from .account import Account
from .errors import Refusal
from .lookup import TAG_PREFIX, Commit, Lookup, Repository, parse_name


class Owner:
    """Says what is the owner's, and publishes for him. What changes something holds `committing`."""

    def __init__(self, node: Node, lookup: Lookup, account: Account) -> None:
        self._node = node
        self._lookup = lookup
        self._account = account
        # Two commits at once would both be made from the same tip, and one be lost.
        self.committing = trio.Lock()

    def require(self, request: Request) -> None:
        """Raise Refusal unless it is the owner who asks."""
        self._account.require(request)

    async def own_name(self, organization: str | None, name: str) -> tuple[str, str]:
        """Return the whole name and the model's for what is to be made or removed. Raises Refusal if it is not ours."""
        own = await on_disk(own_namespace, self._node)
        if own is None:
            raise Refusal(403, "this node has no identity to publish as: `p2phub id new` makes one")
        try:
            check_model(name)
        except InvalidName as exc:
            raise Refusal(400, str(exc)) from exc
        whole = f"{organization or own}/{name}"
        try:
            theirs = await find_namespace(self._node, parse_name(whole), ignore)
        except (NotFound, Offline, BindingChanged):
            theirs = None
        if theirs != own:
            raise Refusal(403, f"'{organization}' is not your namespace; yours is {own}")
        return whole, name

    async def repository(self, kind: Kind, name: str) -> Repository:
        """Return a repository of the owner. Raises Refusal if it is not there, or not his."""
        repository = await self._lookup.repository(kind, name)
        await self.own_name(name.partition("/")[0], repository.model)
        return repository

    async def commit(self, kind: Kind, name: str, revision: str) -> Commit:
        """Return what a revision of a repository of the owner is. Raises Refusal as `repository` does."""
        repository = await self.repository(kind, name)
        identifier = await self._lookup.revision(repository, revision)
        return Commit(repository, identifier, await self._lookup.manifest(identifier))

    async def publish(
        self, model: str, kind: Kind, branch: str, changes: list[Change], *, message: str, parent: str | None = None,
        visibility: Visibility | None = None,
    ) -> ManifestId:  # fmt: skip
        """Make and publish a commit on a branch. parent: the id that its tip must begin with.

        Raises Conflict if the tip is another, NotFound if a change is of a file that is not there.
        """

        def is_parent(tip: ManifestId | None) -> bool:
            return parent is None or (tip is not None and len(parent) >= 7 and tip.hex().startswith(parent))

        made = await commit(self._node, model, kind, branch, changes, ignore, message=message, is_parent=is_parent,
                            visibility=visibility)  # fmt: skip
        for path in await on_disk(uploads_of, self._node, changes):
            await on_disk(path.unlink, missing_ok=True)
        return made

    async def keep(self, data: bytes) -> bytes:
        """Keep `data` as an uploaded file; returns its SHA-256."""

        def work() -> bytes:
            with self._node.store.uploads.begin(len(data)) as upload:
                upload.write(data)
                return bytes.fromhex(upload.finish(None, len(data)).name)

        return await on_disk(work)

    async def publish_version(
        self, model: str, version: str, revision: ManifestId, message: str, visibility: Visibility | None = None
    ) -> None:
        """Publish a version of a revision; the record also moves a branch, so it names one that is there already."""
        namespace = await on_disk(own_namespace, self._node)
        assert namespace is not None
        catalogue = self._node.store.catalogue
        known = await on_disk(catalogue.branches, namespace, model)
        there = next((branch for branch, claim in known.items() if claim.manifest == revision), None)
        branch = there or f"{TAG_PREFIX}{version}"
        await publish_revision(
            self._node, model, branch, revision, ignore, version=version, message=message, visibility=visibility
        )
        if there is None:
            await branches.move_branch(self._node, model, branch, None, message, ignore)
