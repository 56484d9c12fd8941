"""Repositories of other hubs at the door: what clients ask by ORG/NAME (spec/mirrors.md §6).

A file is sent once all of it is here and has the hash that its hub lists: until then no byte of it is
known to be right. Clients that would not wait so long are told when to come again. What a publisher
whom the owner trusts vouches for comes chunk by chunk, as everything else does.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import trio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from p2phub.core.choices import DEFAULT_BRANCH, Kind
from p2phub.core.errors import AccessDenied, HubError, InvalidName, NotFound
from p2phub.core.ids import ContentId
from p2phub.core.manifest import FileEntry, Manifest
from p2phub.core.upstream import Gated, NoSuchRevision, UpstreamFile, foreign, is_revision
from p2phub.node.arrivals import may_share
from p2phub.node.foreign import Arrivals, ForeignCommit, find_commit, known_names
from p2phub.node.node import Node
from p2phub.node.reading import Readings

from .audience import Audience
from .errors import Refusal, no_repository, no_revision, refusal_of
from .files import FIRST_BYTE_S, FileAnswer, parse_range
from .inspector import Inspector
from .requests import while_client_stays
from .trees import File, etag_of

log = logging.getLogger(__name__)

_NOBODY = ContentId(bytes(32))  # the root of no file

_COMES_AGAIN = ("hf_hub/", "p2phub")  # in the User-Agent of clients that do so when they are told


class ForeignRepositories:
    """Finds and serves what other hubs have."""

    def __init__(
        self, node: Node, readings: Readings, arrivals: Arrivals, inspector: Inspector, audience: Audience
    ) -> None:
        self._node = node
        self._inspector = inspector
        self._audience = audience
        self._readings = readings
        self._arrivals = arrivals

    async def commit(self, kind: Kind, name: str, revision: str | None) -> ForeignCommit:
        """Return the commit that a name stands for. Raises Refusal."""
        wanted = (revision or DEFAULT_BRANCH).removeprefix("refs/heads/").removeprefix("refs/tags/")
        try:
            repository = foreign(self._node.hub.name, kind, name)
            if not is_revision(wanted):
                raise NoSuchRevision(f"'{wanted}' is no revision")
            return self._if_visible(await find_commit(self._node, repository, wanted))
        except NoSuchRevision as exc:
            raise no_revision(str(exc)) from exc
        except (NotFound, InvalidName) as exc:
            raise no_repository(f"{exc} ({exc.hint})" if exc.hint else str(exc)) from exc
        except Gated as exc:
            raise Refusal(403, str(exc), code="GatedRepo") from exc
        except AccessDenied:
            raise
        except HubError as exc:
            # What the hub said, or that it said nothing, is no fault of the request.
            raise Refusal(504, str(exc)) from exc

    def _if_visible(self, commit: ForeignCommit) -> ForeignCommit:
        """Return a commit, unless its hub gave it to the owner of the node alone, and somebody else asks."""
        for_all = commit.listing is None or may_share(self._node, commit.listing)
        if self._audience is not Audience.OWNER and not for_all:
            raise NotFound(f"nothing is known of {commit.name}")
        return commit

    async def references(self, kind: Kind, name: str) -> dict[str, object]:
        """Return the branches and tags that are known here. Raises Refusal."""
        commit = await self.commit(kind, name, None)
        names = {DEFAULT_BRANCH: commit.id} | await known_names(self._node, commit.repository)
        branches = [{"name": known, "ref": f"refs/heads/{known}", "targetCommit": id} for known, id in names.items()]
        return {"branches": branches, "converts": [], "tags": [], "pullRequests": []}

    async def file(self, commit: ForeignCommit, file: File, method: str, headers: Mapping[str, str]) -> Response:
        """Return the answer that sends a file. Raises Refusal, AccessDenied."""
        if isinstance(file, FileEntry):
            assert commit.manifest is not None
            if method == "GET":
                await self._inspector.check_file(file, commit.manifest, headers.get("user-agent", ""))
            return FileAnswer(self._readings, commit.manifest, file, commit=commit.id, method=method, headers=headers)
        return ForeignFileAnswer(
            self._readings, self._arrivals, self._inspector, commit, file, method=method, headers=headers
        )


@dataclass(frozen=True)
class _Found:
    """A file that can be read."""

    entry: FileEntry
    manifest: Manifest


class ForeignFileAnswer(Response):
    """The answer that sends a file which another hub lists, once it is here."""

    def __init__(
        self,
        readings: Readings,
        arrivals: Arrivals,
        inspector: Inspector,
        commit: ForeignCommit,
        file: UpstreamFile,
        *,
        method: str,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__()
        self._readings = readings
        self._arrivals = arrivals
        self._inspector = inspector
        self._commit = commit
        self._file = file
        self._method = method
        self._given = headers
        # What is wrong with the request is said before anything is fetched.
        self._head = self._answer(_stand_in(file))

    def _answer(self, found: _Found) -> FileAnswer:
        return FileAnswer(
            self._readings,
            found.manifest,
            found.entry,
            commit=self._commit.id,
            method=self._method,
            headers=self._given,
            etag=etag_of(self._file),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._method == "HEAD" or self._head.status_code == 304 or self._file.size == 0:
            await self._head(scope, receive, send)
            return
        answer: Response | None = None
        async with while_client_stays(receive):
            try:
                answer = await self._find()
            except Refusal as refusal:
                answer = refusal.response()
            except HubError as exc:
                failure = refusal_of(exc)
                # A hub that sends other bytes than it lists is no fault of the request.
                answer = Refusal(504 if failure.status == 400 else failure.status, failure.text).response()
        if answer is not None:
            await answer(scope, receive, send)

    async def _find(self) -> Response:
        """Return the answer that sends the file. Raises HubError, Refusal if it is not here yet."""
        entry = await self._arrivals.here(self._commit, self._file)
        agent = self._given.get("user-agent", "")
        if entry is not None:
            return await self._inspected(_Found(entry, _alone(entry, self._commit)), agent)
        vouched = self._commit.vouched(self._file)
        if vouched is not None and self._commit.manifest is not None and await self._comes(vouched):
            return await self._inspected(_Found(vouched, self._commit.manifest), agent)
        patience_s = FIRST_BYTE_S if any(name in agent for name in _COMES_AGAIN) else float("inf")
        came = await self._arrivals.wait(self._commit, self._file, patience_s=patience_s)
        if isinstance(came, int):
            text = f"{self._file.path} is being fetched, and will be here in {came} s or so"
            raise Refusal(429, text, headers={"retry-after": str(came)})
        return await self._inspected(_Found(came, _alone(came, self._commit)), agent)

    async def _inspected(self, found: _Found, agent: str) -> Response:
        """Return the answer that sends a file, if the policy lets it. Raises AccessDenied, Refusal."""
        await self._inspector.check_file(found.entry, found.manifest, agent)
        return self._answer(found)

    async def _comes(self, entry: FileEntry) -> bool:
        """Say whether peers give what somebody trusted vouches for."""
        assert self._commit.manifest is not None
        span = parse_range(self._given.get("range"), entry.size)
        try:
            with trio.move_on_after(FIRST_BYTE_S):
                async with self._readings.open(entry, self._commit.manifest) as reading:
                    await reading.read(span.begin if span else 0, 1)
                    return True
        except HubError as exc:
            log.info("no peer gives %s of %s: %s", entry.path, self._commit.repository, exc)
        return False


def _stand_in(file: UpstreamFile) -> _Found:
    """Return a file that answers what can be answered without content."""
    entry = FileEntry(file.path, file.size, _NOBODY, file.sha256 or bytes(32), "other", "cdc-1m")
    return _Found(entry, Manifest(schema=1, kind="model", created=0, files=(entry,)))


def _alone(entry: FileEntry, commit: ForeignCommit) -> Manifest:
    """Return a manifest of one file: what is read of it is here already."""
    return Manifest(schema=1, kind=commit.kind, created=commit.created, files=(entry,))
