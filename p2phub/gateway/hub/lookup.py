"""From the names in a request to a repository and a commit (spec/hub-api.md §2).

What is known here is answered at once; for what is not, peers are asked for news first.
Clients wait ten seconds for an answer, so nothing here takes longer.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import trio

from p2phub.core import private
from p2phub.core.access import ANYBODY
from p2phub.core.choices import DEFAULT_BRANCH, Kind
from p2phub.core.description import Card, Facts
from p2phub.core.errors import AccessDenied, BindingChanged, Conflict, DomainError, InvalidName, NotFound, Offline
from p2phub.core.ids import ContentId, ManifestId, NamespaceId
from p2phub.core.manifest import FileEntry, Manifest
from p2phub.core.names import NameRef, check_revision, is_hash_prefix, is_version, parse_reference
from p2phub.node.disk import on_disk
from p2phub.node.events import Event, Notice, ignore
from p2phub.node.names import find_public
from p2phub.node.node import Node
from p2phub.node.opened import Opened
from p2phub.node.opening import find_opened, require_opened
from p2phub.node.recalled import recall_of_repository
from p2phub.node.resolve import find_namespace, load_manifest, resolve
from p2phub.node.rulefacts import check_freshness
from p2phub.node.syncing import ask_for_news
from p2phub.node.unasked import ask_for

from .audience import Audience
from .errors import Refusal, no_repository, no_revision, not_allowed

NAME_TIMEOUT_S = 4.0  # to ask a domain whose publisher it names, the first time
NEWS_TIMEOUT_S = 4.0  # to ask peers about a name that is not known
NEWS_AGE_S = 1.0  # within this time they are not asked again
MOVED_TIMEOUT_S = 1.5  # to ask peers where a branch stands now; who has news pushes them, so this rarely matters
MOVED_AGE_S = 2.0  # within this time they are not asked again
MOVED_PAUSE_S = 30.0  # the same after one of them did not answer in time
MANIFEST_TIMEOUT_S = 8.0  # to get a manifest from peers
# A commit that was found is taken for what it is: clients ask for one file of it after the other. What each
# file of it is for is asked each time.
COMMIT_AGE_S = 1.0
COMMITS_MAX = 16  # that are kept so

log = logging.getLogger(__name__)

TAG_PREFIX = "tags/"  # of the branches that stand for tags which are no versions; spec/hub-api.md §2

T = TypeVar("T")
Look = Callable[[], Awaitable[str | None]]


@dataclass(frozen=True)
class Repository:
    """A repository that is known here."""

    name: str  # as the client wrote it: NAMESPACE/MODEL
    kind: Kind
    namespace: NamespaceId
    model: str
    is_private: bool = False


@dataclass(frozen=True)
class Commit:
    """One revision of a repository."""

    repository: Repository
    revision: ManifestId
    manifest: Manifest
    opened: Opened | None = None  # what is sealed

    @property
    def content(self) -> Manifest | Opened:
        """What its files are read from."""
        return self.opened or self.manifest

    @property
    def shown(self) -> Manifest:
        """What is said of its files."""
        return self.opened.manifest if self.opened else self.manifest

    @property
    def id(self) -> str:
        """What clients know it by: 40 hex digits."""
        return self.revision.commit

    @property
    def name(self) -> str:
        return self.repository.name

    @property
    def kind(self) -> Kind:
        return self.repository.kind

    @property
    def files(self) -> tuple[FileEntry, ...]:
        return self.shown.files

    @property
    def created(self) -> int:
        """When it was made, in seconds since 1970."""
        return self.manifest.created

    @property
    def card(self) -> Card | None:
        return self.shown.card

    @property
    def facts(self) -> Facts | None:
        return self.shown.facts

    def kept(self, files: Sequence[FileEntry]) -> set[ContentId]:
        """Return what `files` of it are kept as."""
        return {each.sealed.root for each in self.opened.of(files)} if self.opened else {file.root for file in files}

    def file(self, path: str) -> FileEntry | None:
        """Return the file at `path`, None if there is none."""
        return self.shown.file(path)


class Lookup:
    """Finds what requests name."""

    def __init__(self, node: Node, audience: Audience) -> None:
        """audience: for whom; what is not for everybody is found for the owner alone."""
        self._node = node
        self._audience = audience
        self._may_ask = audience is not Audience.PUBLIC and not node.settings.offline
        self._asking = trio.Lock()
        self._asked = -MOVED_PAUSE_S  # when peers were last asked for news, in trio's seconds
        self._about: set[NamespaceId] = set()  # of whom they were asked then what he stated
        self._age_s = MOVED_AGE_S  # how old news of branches may be
        self._found: dict[tuple[Kind, str, str], tuple[Commit, float]] = {}  # of late, and when; by 40 digits

    async def is_publisher(self, name: str) -> bool:
        """Say whether `NAMESPACE/MODEL` begins with a publisher of ours, not with what another hub calls an owner.

        Raises Refusal if it is a domain that names another publisher than before.
        """
        try:
            reference = parse_name(name)
        except Refusal:
            return False
        try:
            await self._namespace(reference)
        except (NotFound, Offline):
            return False
        return True

    def why_not(self, name: str) -> str | None:
        """Return why the domain in `NAMESPACE/MODEL` could not be believed, if that was tried just now."""
        failure = self._node.naming.failure(name.partition("/")[0])
        return str(failure) if failure else None

    async def _namespace(self, reference: NameRef) -> NamespaceId:
        """Return the publisher that is meant. Raises as `find_namespace`; a domain that takes long is not believed."""
        if self._audience is Audience.PUBLIC:
            return await on_disk(find_public, self._node, reference.namespace or "")
        try:
            with trio.move_on_after(NAME_TIMEOUT_S):
                return await find_namespace(self._node, reference, _log_notice)
        except BindingChanged as exc:
            # Not 409, at which clients take what they have in their cache and say nothing.
            raise no_repository(f"{exc} ({exc.hint})") from exc
        error = DomainError(f"{reference.namespace} did not answer within {NAME_TIMEOUT_S:.0f} s")
        self._node.naming.note_failure(reference.namespace or "", error)
        raise error

    async def publisher(self, name: str) -> NamespaceId | None:
        """Return the publisher that a client calls `name`, None if nobody is called so here. Raises Refusal."""
        try:
            reference = parse_name(f"{name}/x")
        except Refusal:
            return None
        try:
            return await self._namespace(reference)
        except (NotFound, Offline):
            return None

    async def known(self, kind: Kind, name: str) -> Repository:
        """Return the repository as it is known here, without asking peers. Raises Refusal."""
        return await self._repository(kind, name, self._without_news)

    async def repository(self, kind: Kind, name: str) -> Repository:
        """Return the repository. Raises Refusal if it is not known, nor to any peer that answers."""
        return await self._repository(kind, name, self._with_news)

    async def _repository(self, kind: Kind, name: str, find: Callable[[Look], Awaitable[str | None]]) -> Repository:
        reference = parse_name(name)
        try:
            namespace = await self._namespace(reference)
        except (NotFound, Offline) as exc:
            raise no_repository(str(exc)) from exc

        async def look() -> str | None:
            return await on_disk(self._kind, namespace, reference.model)

        known = await find(look)
        if known is None:
            raise no_repository(f"nothing is known of {name}")
        if known != kind:
            raise no_repository(f"{name} is a {known}, not a {kind}")
        only = private.Repository(namespace, reference.model)
        is_private = await on_disk(self._node.store.private.is_private, only)
        if is_private:
            # None but the owner gets here; see `_kind`.
            await on_disk(ask_for, self._node, only)
        return Repository(name, kind, namespace, reference.model, is_private)

    def _kind(self, namespace: NamespaceId, model: str) -> str | None:
        """Return the kind of a repository, None if there is none for those for whom this finds things."""
        # Before anything is looked up: what is hidden is answered as what is not there, in the same way.
        hidden = self._audience is not Audience.OWNER and self._node.store.private.is_private(
            private.Repository(namespace, model)
        )
        return None if hidden else self._node.store.listing.kind(namespace, model)

    async def commit(self, kind: Kind, name: str, revision: str | None = None) -> Commit:
        """Return the commit that `revision` (None: `main`) stands for. Raises Refusal."""
        place = kind, name, revision or DEFAULT_BRANCH
        found, then = self._found.get(place, (None, 0.0))
        if found is not None and trio.current_time() - then < COMMIT_AGE_S:
            return found
        commit = await self._commit(*place)
        if commit.id == revision:
            self._found.pop(place, None)
            self._found[place] = commit, trio.current_time()
            if len(self._found) > COMMITS_MAX:
                del self._found[next(iter(self._found))]
        return commit

    async def _commit(self, kind: Kind, name: str, revision: str) -> Commit:
        repository = await self.repository(kind, name)
        identifier = await self.revision(repository, revision)
        if _is_moving(revision):
            await self._check_fresh(repository)
        if not await self.may_have([identifier]):
            raise no_repository(f"nothing is known of {name}")
        manifest = await self._manifest(identifier)
        opened = await self._opened(identifier, manifest) if manifest.sealed else None
        return Commit(repository, identifier, manifest, opened)

    async def _check_fresh(self, repository: Repository) -> None:
        """Raise Refusal if the policy does not take the publisher's word for what is newest."""
        try:
            rules = await on_disk(self._node.rules.current)
            await on_disk(check_freshness, self._node, rules, repository.namespace)
        except AccessDenied as exc:
            raise not_allowed(f"{exc} ({exc.hint})" if exc.hint else str(exc)) from exc

    async def _opened(self, revision: ManifestId, manifest: Manifest) -> Opened:
        """Return a sealed revision opened. Raises Refusal if those for whom this finds things may not open it."""
        if self._audience is Audience.PUBLIC:
            # Its index is not fetched on a stranger's account.
            known = await on_disk(find_opened, self._node, revision, manifest)
            if known is None or not known.is_public:
                raise not_allowed(f"the files of {revision} are sealed")
            return known
        with trio.move_on_after(MANIFEST_TIMEOUT_S):
            try:
                opened, _ = await require_opened(self._node, revision, manifest, ignore)
            except AccessDenied as exc:
                raise not_allowed(f"{exc} ({exc.hint})" if exc.hint else str(exc)) from exc
            # The key of this home is its owner's alone.
            if not opened.is_public and self._audience is not Audience.OWNER:
                raise not_allowed(f"the files of {revision} are sealed, and only the owner of this node may open them")
            return opened
        raise Refusal(504, f"no peer gave the index of {revision} within {MANIFEST_TIMEOUT_S:.0f} s")

    async def revision(self, repository: Repository, text: str) -> ManifestId:
        """Return the revision that `text` stands for: a branch, a version or a commit. Raises Refusal."""
        revision = text.removeprefix("refs/heads/").removeprefix("refs/tags/")
        try:
            check_revision(revision)
        except InvalidName as exc:
            raise no_revision(str(exc)) from exc

        async def look() -> ManifestId | None:
            for name in (revision, TAG_PREFIX + revision):
                reference = f"{repository.namespace}/{repository.model}@{name}"
                try:
                    return (await resolve(self._node, reference, ignore, refresh=False)).manifest
                except (NotFound, Offline, InvalidName):
                    continue
                except Conflict as exc:
                    raise no_revision(str(exc)) from exc
            return None

        if _is_moving(text) and self._may_ask:
            await self._refresh(repository.namespace)
        found = await self._with_news(look)
        if found is None:
            raise no_revision(f"{repository.name} has no revision {revision}")
        return found

    async def manifest(self, revision: ManifestId) -> Manifest:
        """Return a manifest, from a peer if it is not here. Raises Refusal, or HubError if nobody gives it."""
        if not await self.may_have([revision]):
            raise no_revision(f"nothing is known of {revision}")
        return await self._manifest(revision)

    async def _manifest(self, revision: ManifestId) -> Manifest:
        if self._audience is Audience.PUBLIC:
            known = await on_disk(self._node.store.manifests.get, revision)
            if known is None:
                raise Refusal(404, f"the manifest {revision} is not here")
            return known
        with trio.move_on_after(MANIFEST_TIMEOUT_S):
            return await load_manifest(self._node, revision, ignore)
        raise Refusal(504, f"no peer gave the manifest {revision} within {MANIFEST_TIMEOUT_S:.0f} s")

    @property
    def is_for_owner(self) -> bool:
        """Whether this finds things for the owner of this node."""
        return self._audience is Audience.OWNER

    async def may_have(self, identifiers: Collection[bytes]) -> bool:
        """Say whether those for whom this finds things may have these files and manifests."""
        return self._audience is Audience.OWNER or await on_disk(self.lets_have, identifiers)

    def lets_have(self, identifiers: Collection[bytes]) -> bool:
        """Do what `may_have` does, in a thread for the disk."""
        return self._audience is Audience.OWNER or not self._node.access.withheld(ANYBODY, identifiers)

    async def tags(self, repository: Repository) -> dict[str, ManifestId]:
        """Return what the tags stand for: versions that were not yanked, and branches below `tags/`."""
        catalogue = self._node.store.catalogue

        def look() -> dict[str, ManifestId]:
            namespace, model = repository.namespace, repository.model
            versions = catalogue.versions(namespace, model)
            branches = catalogue.branches(namespace, model)
            found = {
                name: claim.manifest
                for name, claim in versions.items()
                if catalogue.yanked(namespace, model, name) is None
            } | {
                name.removeprefix(TAG_PREFIX): claim.manifest
                for name, claim in branches.items()
                if name.startswith(TAG_PREFIX)
            }
            asked = private.Repository(namespace, model)
            return {
                name: manifest
                for name, manifest in found.items()
                if manifest and recall_of_repository(self._node, asked, manifest) is None
            }

        return await on_disk(look)

    async def _without_news(self, look: Callable[[], Awaitable[T | None]]) -> T | None:
        return await look()

    async def _with_news(self, look: Callable[[], Awaitable[T | None]]) -> T | None:
        found = await look()
        if found is None and self._may_ask:
            await self._ask_for_news()
            found = await look()
        return found

    async def _refresh(self, namespace: NamespaceId) -> None:
        """Ask peers where the branches of a publisher stand, unless that was done just now."""
        start = trio.current_time()
        rules = await on_disk(self._node.rules.current)
        # What he stated matters only where it is asked for: here nobody reads notes.
        about = () if rules.fresh.max_age_days is None else (namespace,)
        await self._ask_for_news(max_age_s=self._age_s, timeout_s=MOVED_TIMEOUT_S, about=about)
        took_s = trio.current_time() - start
        # Every branch that is looked up would wait for a peer that is gone.
        self._age_s = MOVED_PAUSE_S if took_s >= MOVED_TIMEOUT_S else MOVED_AGE_S

    async def _ask_for_news(
        self, *, max_age_s: float = NEWS_AGE_S, timeout_s: float = NEWS_TIMEOUT_S, about: Sequence[NamespaceId] = ()
    ) -> None:
        # One at a time: who waited takes what the other one brought.
        async with self._asking:
            is_due = trio.current_time() - self._asked > max_age_s
            if is_due or not self._about.issuperset(about):
                await ask_for_news(self._node, ignore, timeout_s=timeout_s, about=about)
                self._about = {*about} if is_due else {*about, *self._about}
                self._asked = trio.current_time()


def _is_moving(revision: str | None) -> bool:
    """Say whether a revision, as clients write it, may stand for another one tomorrow."""
    name = (revision or DEFAULT_BRANCH).removeprefix("refs/heads/").removeprefix("refs/tags/")
    return not (is_version(name) or is_hash_prefix(name))


def _log_notice(event: Event) -> None:
    """Keep in the log what a person should know: a client of another hub has no place for it."""
    if isinstance(event, Notice):
        log.warning("%s", event.text)


def parse_name(name: str) -> NameRef:
    """Return the parts of `NAMESPACE/MODEL`. Raises Refusal if it is none."""
    try:
        reference = parse_reference(name)
    except InvalidName as exc:
        raise no_repository(str(exc)) from exc
    if not isinstance(reference, NameRef) or reference.namespace is None or reference.revision is not None:
        raise no_repository(f"'{name}' names no repository: expected NAMESPACE/MODEL")
    return reference
