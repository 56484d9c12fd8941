"""Commands that ask and change the catalogue: search, info, ls, log, branch, yank."""

from __future__ import annotations

import fnmatch

import click

from .running import json_option, offline_option, peer_option, print_json, run
from .text import human_bytes, human_count, human_time, parse_range, say


@click.command()
@click.argument("text", nargs=-1)
@click.option("--kind", type=click.Choice(["model", "dataset"]))
@click.option("--task", help="Such as text-generation.")
@click.option("--library", help="Such as transformers.")
@click.option("--license", "license_", help="SPDX id, such as Apache-2.0.")
@click.option("--publisher", metavar="NAMESPACE")
@click.option("--params", metavar="RANGE", help="Number of parameters: 1B-8B, 1B- or -500M.")
@click.option(
    "--sort",
    type=click.Choice(["relevance", "newest", "size", "parameters", "name"]),
    default="relevance",
    show_default=True,
)
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@offline_option
@peer_option
@json_option
def search(
    text: tuple[str, ...],
    kind: str | None,
    task: str | None,
    library: str | None,
    license_: str | None,
    publisher: str | None,
    params: str | None,
    sort: str,
    limit: int,
    offline: bool,
    peer: tuple[str, ...],
    as_json: bool,
) -> None:
    """Search the catalogue that this node replicates; without TEXT, list it."""
    from p2phub.core.licenses import to_spdx
    from p2phub.core.search import Query
    from p2phub.node.operations import Search

    low = high = None
    if params:
        try:
            low, high = parse_range(params)
        except ValueError as exc:
            raise click.BadParameter(f"'{params}' is no range such as 1B-8B", param_hint="--params") from exc
    query = Query(
        text=" ".join(text)[:1000],
        kind=kind,
        task=task,
        library=library,
        # People write the existing hub's ids as well.
        license=(to_spdx(license_) or license_) if license_ else None,
        publisher=publisher,
        parameters_min=low,
        parameters_max=high,
        sort=sort,  # type: ignore[arg-type]
        limit=limit,
    )
    found = run(Search(query), offline=offline, peers=peer, news=True)
    if as_json:
        print_json(found)
        return
    if not found:
        say("nothing found", err=True)
    for model in found:
        name = f"{model.namespace}/{model.model}" + (f"@{model.version}" if model.version else "")
        facts = [
            model.task,
            f"{human_count(model.parameters)} parameters" if model.parameters else None,
            human_bytes(model.size),
            model.license,
            human_time(model.time)[:10],
        ]
        say(name)
        say("  " + ", ".join(fact for fact in facts if fact))
        if model.title or model.excerpt:
            say(f"  {_shorten(model.title or model.excerpt, 100)}")


@click.command()
@click.argument("reference", metavar="REF")
@offline_option
@peer_option
@json_option
def info(reference: str, offline: bool, peer: tuple[str, ...], as_json: bool) -> None:
    """Show what is known of a repository."""
    from p2phub.node.operations import Info

    result = run(Info(reference), offline=offline, peers=peer)
    if as_json:
        print_json(result)
        return
    name = f"{result.namespace}/{result.model}" if result.model else result.reference
    facts, card = result.facts, result.card
    rows = [
        ("name", name),
        ("kind", result.kind),
        ("revision", result.revision),
        ("commit", result.commit),
        ("created", human_time(result.created)),
        ("files", f"{len(result.files)}, {human_bytes(result.size)}, {human_bytes(result.here)} of it here"),
        ("versions", ", ".join(f"{v} (yanked)" if v in result.yanked else v for v in result.versions)),
        ("branches", ", ".join(result.branches)),
        ("task", card.task if card else None),
        ("library", card.library if card else None),
        ("license", card.license if card else None),
        ("languages", ", ".join(card.languages) if card else None),
        ("base models", ", ".join(card.base_models) if card else None),
        ("architecture", facts.architecture if facts else None),
        ("parameters", f"{facts.parameters:,}" if facts and facts.parameters else None),
        ("tensors", ", ".join(t.dtype for t in facts.tensor_types) if facts else None),
        ("context", f"{facts.context_length:,} tokens" if facts and facts.context_length else None),
        ("variants", ", ".join(result.variants)),
        ("origins", ", ".join(result.origin_urls)),
        ("pinned", "yes" if result.pinned else "no"),
    ]
    for label, value in rows:
        if value:
            say(f"{label:>13}  {value}")
    if card and card.excerpt:
        say(f"\n{card.excerpt}")


@click.command()
@click.argument("reference", metavar="REF")
@click.argument("pattern", required=False)
@offline_option
@peer_option
@json_option
def ls(reference: str, pattern: str | None, offline: bool, peer: tuple[str, ...], as_json: bool) -> None:
    """List the files of a repository, with size, hash and whether each is here."""
    from p2phub.node.operations import Info

    result = run(Info(reference), offline=offline, peers=peer)
    files = [file for file in result.files if not pattern or fnmatch.fnmatchcase(file.path, pattern)]
    if as_json:
        print_json(files)
        return
    for file in files:
        say(f"{file.size:>14}  {'here' if file.here else '    '}  {file.root[:19]}…  {file.path}")


@click.command()
@click.argument("name", metavar="NAME")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@offline_option
@peer_option
@json_option
def log(name: str, limit: int, offline: bool, peer: tuple[str, ...], as_json: bool) -> None:
    """Show the signed records of NAMESPACE/MODEL or of a whole NAMESPACE, newest first."""
    from p2phub.node.operations import Log

    lines = run(Log(name), offline=offline, peers=peer)[:limit]
    if as_json:
        print_json(lines)
        return
    for line in lines:
        what = line.version or line.branch or ""
        refused = f"  refused: {line.refused}" if line.refused else ""
        revision = (line.revision or "")[:15]
        place = f"{line.index:>5}  {human_time(line.time)}"
        say(f"{place}  {line.type:<7}  {line.model}  {what:<12} {revision}{refused}")
        if line.message:
            say(f"       {_shorten(line.message, 100)}")


@click.command()
@click.argument("model", metavar="MODEL")
@click.argument("branch_name", metavar="BRANCH")
@click.argument("revision", required=False)
@click.option("--delete", is_flag=True, help="Delete the branch.")
@click.option("-m", "--message", default="", help="Why.")
@json_option
def branch(model: str, branch_name: str, revision: str | None, delete: bool, message: str, as_json: bool) -> None:
    """Let BRANCH of your MODEL stand for REVISION: a version, a branch or a hash; an older one is a rollback."""
    from p2phub.node.operations import MoveBranch

    if delete == (revision is not None):
        raise click.UsageError("give either a REVISION or --delete")
    result = run(MoveBranch(model, branch_name, revision, message))
    if as_json:
        print_json(result)
    elif result.revision:
        say(f"{result.branch} of {result.model} is {result.revision} now")
    else:
        say(f"deleted {result.branch} of {result.model}")


@click.command()
@click.argument("name", metavar="MODEL@VERSION")
@click.option("-m", "--message", default="", help="Why.")
@json_option
def yank(name: str, message: str, as_json: bool) -> None:
    """Say that a version of yours should not be chosen any more; it can still be fetched."""
    from p2phub.node.operations import YankVersion

    result = run(YankVersion(name, message))
    if as_json:
        print_json(result)
    else:
        say(f"yanked {result.model}@{result.version}")


def _shorten(text: str, length: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"
