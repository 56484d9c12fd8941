"""Say what one found of content, whoever's it is (spec/records.md §2)."""

from __future__ import annotations

import msgspec

from p2phub.core.choices import Judgement, Verdict, Visibility
from p2phub.core.errors import AccessDenied, InvalidData, InvalidName, NotFound
from p2phub.core.ids import ContentId, LogId, ManifestId
from p2phub.core.private import Repository
from p2phub.core.records import Assess, Record, Score
from p2phub.store.assessments import Assessment

from .catchup import ready_to_publish
from .disk import on_disk
from .events import Tell
from .meant import no_file
from .node import Node
from .operations.catalogue import FoundBy
from .operations.records import AssessResult
from .privatenews import announce
from .resolve import load_manifest, resolve
from .visibility import append_record


async def assess(
    node: Node,
    reference: str,
    claim: Judgement,
    verdict: Verdict,
    *,
    path: str | None,
    metric: str | None,
    tool: str | None,
    message: str,
    tell: Tell,
) -> AssessResult:
    """Sign what this home's publisher found of a revision, or of the file `path` of it.

    metric: `TASK/DATASET/METRIC=VALUE`, of an evaluation. Raises InvalidName, InvalidData, NotFound.
    """
    identity, _ = await ready_to_publish(node, tell)
    target = await resolve(node, reference, tell, refresh=True)
    if target.manifest is None or target.model is None:
        raise NotFound(f"nobody is known who published {reference}", hint="`p2phub search` shows names of revisions")
    private = target.namespace is not None and await on_disk(
        node.store.private.is_private, Repository(target.namespace, target.model)
    )
    if private and target.namespace != identity.namespace:
        raise AccessDenied(f"{reference} is private: what is said of it would tell everybody of it")
    root: ContentId | None = None
    if path is not None:
        manifest = await load_manifest(node, target.manifest, tell)
        entry = manifest.file(path)
        if entry is None:
            raise no_file(reference, path, [file.path for file in manifest.files])
        root = entry.root
    score = _score(metric)
    subject: ManifestId | ContentId = root or target.manifest

    def make(*, log: LogId, index: int, previous: bytes, time: int) -> Record:
        try:
            return Assess(
                namespace=identity.namespace,
                log=log,
                index=index,
                previous=previous,
                time=time,
                model=target.model or "",
                claim=claim,
                verdict=verdict,
                manifest=target.manifest if root is None else None,
                file=root,
                publisher=target.namespace,
                score=score,
                tool=tool,
                message=message,
            )
        except ValueError as exc:
            raise InvalidData(str(exc)) from exc

    # Of what is private, in its own log; of all else, in that for everybody.
    visibility: Visibility = "private" if private else "public"
    signed = await on_disk(append_record, node, target.model, make, visibility=visibility)
    await announce(node, signed)
    return AssessResult(str(subject), claim, verdict, signed.record.index)


def found_by(assessments: list[Assessment], paths: dict[bytes, str]) -> list[FoundBy]:
    """Return what was found, as people read it. paths: of files, by their roots."""
    return [
        FoundBy(
            namespace=str(said.namespace),
            claim=said.claim,
            verdict=said.verdict,
            path=paths.get(said.subject),
            metric=said.metric or None,
            value=said.value or None,
            tool=said.tool or None,
            message=said.message,
            time=said.time,
        )
        for said in assessments
    ]


def _score(text: str | None) -> Score | None:
    if text is None:
        return None
    name, is_there, value = text.rpartition("=")
    task, _, rest = name.partition("/")
    dataset, _, metric = rest.rpartition("/")
    try:
        if not is_there:
            raise msgspec.ValidationError("there is no =")
        return msgspec.convert({"task": task, "dataset": dataset, "metric": metric, "value": value}, type=Score)
    except msgspec.ValidationError as exc:
        raise InvalidName(f"'{text}' is no TASK/DATASET/METRIC=VALUE: {exc}") from exc
