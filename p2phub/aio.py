"""The Python API for trio programs; `import p2phub` has the same without `await`.

    import p2phub.aio
    folder = await p2phub.aio.snapshot_download("NAMESPACE/MODEL", revision="1.0.0")

Work goes through the daemon of the home if one runs, else it is done here. Every
foreseen error is a `p2phub.HubError`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import trio
from msgspec.structs import replace

from p2phub.core.choices import DEFAULT_BRANCH, Kind, LinkMode, Profile
from p2phub.core.errors import InvalidName, NotFound
from p2phub.core.names import HashRef, parse_reference
from p2phub.core.search import Page, Query, Sort, parse_metric
from p2phub.gateway.client import Call, Daemon, find_daemon
from p2phub.net.threads import run_abortable
from p2phub.node.disk import from_thread, on_disk
from p2phub.node.dispatch import run_alone
from p2phub.node.events import Event, ignore
from p2phub.node.given import check_given
from p2phub.node.operations import Operation
from p2phub.node.operations.catalogue import Info, RepositoryInfo, Search
from p2phub.node.operations.checking import Verify, VerifyResult
from p2phub.node.operations.content import (
    Fetch,
    FetchFile,
    FetchResult,
    FileResult,
    PublishFolder,
    PublishResult,
    exact_pattern,
)
from p2phub.node.operations.peers import AddPeers
from p2phub.node.settings import Settings, standing_origins
from p2phub.store.layout import own_path

# What to do about what was left out.
TAKEN_BY = "allow_pickle=True and with_code=True take pickles and programs"

PathLike = str | os.PathLike[str]
Tell = Callable[[Event], None]


async def fetch(
    reference: str,
    *,
    to: PathLike | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    link: LinkMode = "auto",
    force: bool = False,
    dry_run: bool = False,
    kind: Kind | None = None,
    origins: Sequence[str] = (),
    background: bool = False,
    sealed: bool = False,
    allow_pickle: bool = False,
    with_code: bool = False,
    peers: Sequence[str] = (),
    home: PathLike | None = None,
    offline: bool = False,
    on_event: Tell = ignore,
) -> FetchResult:
    """Bring what `reference` means into the store, verified, and place it in a folder (`result.path`).

    reference: `NAMESPACE/MODEL[@REVISION]`, or `b3:<hash>` of a manifest or a single file.
    to: the folder; None takes one in the store. include, exclude: glob patterns over paths.
    kind: refuse anything else than a model, or a dataset.
    origins: URLs of web servers that have the files too; `{path}` in one stands for the path of a file.
    What they send is verified like what peers send. P2PHUB_FROM holds more of them.
    background: let all other traffic go first, here and at the peers.
    sealed: keep what is sealed as it is, for others; it is not opened, and `result.path` is None.
    allow_pickle: take pickles too, if a scan finds nothing in them but data. with_code: take programs too.
    Without these they are left out, and `result.left_out` says which.
    peers: addresses `p2phub://NODEID@HOST:PORT` to ask besides those that are known.
    Raises NotFound, Offline, Conflict, NoSpace and other HubErrors.
    """
    operation = Fetch(
        reference=reference,
        to=_absolute(to),
        include=tuple(include),
        exclude=tuple(exclude),
        link=link,
        force=force,
        dry_run=dry_run,
        kind=kind,
        origins=tuple(origins),
        standing_origins=standing_origins(),
        background=background,
        sealed=sealed,
        allow_pickle=allow_pickle,
        with_code=with_code,
    )
    result: FetchResult = await _run(operation, home, offline, on_event, peers)
    return result


async def publish(
    folder: PathLike,
    name: str,
    *,
    branch: str = DEFAULT_BRANCH,
    message: str = "",
    in_place: bool = False,
    profile: Profile | None = None,
    kind: Kind = "model",
    origin_urls: Sequence[str] = (),
    sealed: bool = False,
    sealed_for: Sequence[str] = (),
    allow_secrets: bool = False,
    home: PathLike | None = None,
    on_event: Tell = ignore,
) -> PublishResult:
    """Publish the files of `folder` as `name` (`MODEL` or `MODEL@VERSION`), signed with the home's key.

    origin_urls: where else the files can be fetched; `{path}` in one stands for the path of a file.
    sealed, sealed_for: so that its keepers cannot read it, but the publisher and who is named can.
    allow_secrets: publish private keys that are no keys of p2phub.
    Raises Conflict if the version exists with other content, NotFound if the home has no
    identity, StoreError, InvalidData.
    """
    operation = PublishFolder(
        folder=_absolute(folder) or "",
        name=name,
        branch=branch,
        message=message,
        in_place=in_place,
        profile=profile,
        kind=kind,
        origin_urls=tuple(origin_urls),
        sealed=sealed,
        sealed_for=tuple(sealed_for),
        allow_secrets=allow_secrets,
    )
    result: PublishResult = await _run(operation, home, False, on_event, ())
    return result


async def search(
    text: str = "",
    *,
    kind: Kind | None = None,
    task: str | None = None,
    library: str | None = None,
    license: str | None = None,
    publisher: str | None = None,
    languages: Sequence[str] = (),
    tags: Sequence[str] = (),
    base_models: Sequence[str] = (),
    datasets: Sequence[str] = (),
    tensor_types: Sequence[str] = (),
    architecture: str | None = None,
    variants: Sequence[str] = (),
    metrics: Sequence[str] = (),
    parameters_min: int | None = None,
    parameters_max: int | None = None,
    size_min: int | None = None,
    size_max: int | None = None,
    fits: int | None = None,
    replicas_min: int | None = None,
    here: bool = False,
    sort: Sort = "relevance",
    limit: int = 20,
    cursor: str | None = None,
    facets: bool = False,
    home: PathLike | None = None,
    offline: bool = False,
) -> Page:
    """Return a page of the repositories in the replicated catalogue that match all conditions.

    The page can be gone through like a list. `page.cursor`, given with the same conditions, asks for the next one.
    license: an SPDX id. variants: names such as `Q4_K_M`; `*` is any. metrics: such as `DATASET/METRIC>=60`.
    size_min, size_max: bytes of all files. fits: bytes that the smallest variant may have.
    replicas_min: other nodes that were seen to hold it. here: only what is whole in the store.
    facets: also count the values of each facet (`page.counts`).
    Raises InvalidName, also for a wrong cursor, InvalidData for a wrong metric.
    """
    query = Query(
        text=text,
        kind=kind,
        task=task,
        library=library,
        license=license,
        publisher=publisher,
        languages=tuple(languages),
        tags=tuple(tags),
        base_models=tuple(base_models),
        datasets=tuple(datasets),
        tensor_types=tuple(tensor_types),
        architecture=architecture,
        variants=tuple(variants),
        metrics=tuple(parse_metric(metric) for metric in metrics),
        parameters_min=parameters_min,
        parameters_max=parameters_max,
        size_min=size_min,
        size_max=size_max,
        fits=fits,
        replicas_min=replicas_min,
        here=here,
        sort=sort,
        limit=limit,
        cursor=cursor,
        facets=facets,
    )
    found: Page = await _run(Search(query), home, offline, ignore, ())
    return found


async def info(
    reference: str, *, peers: Sequence[str] = (), home: PathLike | None = None, offline: bool = False
) -> RepositoryInfo:
    """Return what is known of a repository at one revision. Raises NotFound."""
    result: RepositoryInfo = await _run(Info(reference), home, offline, ignore, peers)
    return result


async def verify(
    reference: PathLike,
    *,
    repair: bool = False,
    origins: Sequence[str] = (),
    home: PathLike | None = None,
    offline: bool = False,
    on_event: Tell = ignore,
) -> VerifyResult:
    """Hash again a repository in the store, or a folder that files were placed in; `result.good` says how it is.

    repair: fetch damaged chunks again. origins: as for `fetch`. Raises NotFound.
    """
    folder = _absolute(reference)
    where = folder if folder and os.path.isdir(folder) else str(reference)  # noqa: ASYNC240 (one stat)
    result: VerifyResult = await _run(
        Verify(where, repair, tuple(origins), standing_origins()), home, offline, on_event, ()
    )
    return result


async def snapshot_download(
    repo_id: str,
    *,
    repo_type: Kind | None = None,
    revision: str | None = None,
    local_dir: PathLike | None = None,
    allow_patterns: Sequence[str] | str | None = None,
    ignore_patterns: Sequence[str] | str | None = None,
    local_files_only: bool = False,
    allow_pickle: bool = False,
    with_code: bool = False,
    home: PathLike | None = None,
    on_event: Tell = ignore,
) -> str:
    """Return the folder with the files of `repo_id` at `revision`, fetched if need be.

    The arguments are named as the existing hub's client has them; `allow_pickle` and `with_code` are as for `fetch`.
    """
    result = await fetch(
        _reference(repo_id, revision),
        to=local_dir,
        include=_patterns(allow_patterns),
        exclude=_patterns(ignore_patterns),
        kind=repo_type,
        home=home,
        offline=local_files_only,
        allow_pickle=allow_pickle,
        with_code=with_code,
        on_event=on_event,
    )
    if result.left_out:
        first = result.left_out[0].reason
        more = f", and {len(result.left_out) - 1} more files" if len(result.left_out) > 1 else ""
        # Whoever looks for one of them would find nothing, and no reason.
        warnings.warn(f"{repo_id} is not complete: {first}{more}; {TAKEN_BY}", stacklevel=2)
    if result.path is None:
        raise NotFound(f"{repo_id} was not placed in a folder")
    return result.path


async def file_download(
    repo_id: str,
    filename: str,
    *,
    subfolder: str | None = None,
    repo_type: Kind | None = None,
    revision: str | None = None,
    local_dir: PathLike | None = None,
    local_files_only: bool = False,
    home: PathLike | None = None,
    on_event: Tell = ignore,
) -> str:
    """Return the path of one file of `repo_id` at `revision`, fetched if need be.

    The arguments are named as the existing hub's client has them.
    """
    path = f"{subfolder}/{filename}" if subfolder else filename
    folder = await snapshot_download(
        repo_id,
        repo_type=repo_type,
        revision=revision,
        local_dir=local_dir,
        allow_patterns=exact_pattern(path),
        local_files_only=local_files_only,
        # Who names a file wants it; what is in it is looked at all the same.
        allow_pickle=True,
        with_code=True,
        home=home,
        on_event=on_event,
    )
    return str(Path(folder) / path)


async def locate(
    reference: str, path: str, *, peers: Sequence[str] = (), home: PathLike | None = None, offline: bool = False
) -> str:
    """Return where the file `path` of `reference` lies in the store, fetched and verified if it was not here.

    It is read only, and its name is its hash. Raises NotFound, Offline.
    """
    result: FileResult = await _run(FetchFile(reference, path), home, offline, ignore, peers)
    return result.location


async def _run(operation: Operation, home: PathLike | None, offline: bool, on_event: Tell, peers: Sequence[str]) -> Any:
    environment = dict(os.environ)
    if home is not None:
        environment["P2PHUB_HOME"] = os.fspath(home)
    settings = Settings.from_environment(environment)
    settings = replace(settings, offline=settings.offline or offline)
    operations = [*([AddPeers(tuple(peers), news=False)] if peers else []), operation]
    for each in operations:
        check_given(each)
    # The daemon may use the network; who wants none does without it.
    daemon = None if settings.offline else await on_disk(find_daemon, settings.layout)
    if daemon is None:
        return await run_alone(settings, operations, on_event)
    return [await _call(daemon, each, on_event) for each in operations][-1]


async def _call(daemon: Daemon, operation: Operation, on_event: Tell) -> Any:
    """Let the daemon do `operation`. When cancelled, so is the operation there."""
    call = Call(daemon, operation, from_thread(on_event))
    results: list[Any] = []
    await run_abortable(lambda: results.append(call.run()), call.abort, trio.CapacityLimiter(1))
    return results[0]


def _reference(repo_id: str, revision: str | None) -> str:
    reference = parse_reference(repo_id)
    if revision is None:
        return repo_id
    if isinstance(reference, HashRef) or reference.revision:
        raise InvalidName(f"'{repo_id}' has a revision of its own beside revision={revision!r}")
    return f"{repo_id}@{revision}"


def _patterns(patterns: Sequence[str] | str | None) -> Sequence[str]:
    if patterns is None:
        return ()
    return [patterns] if isinstance(patterns, str) else patterns


def _absolute(path: PathLike | None) -> str | None:
    return None if path is None else str(own_path(Path(path)))
