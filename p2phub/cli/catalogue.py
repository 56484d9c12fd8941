"""Commands that ask and change the catalogue: info, ls, log, branch, yank."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING

import click

from .names import pinned_names
from .running import json_option, offline_option, peer_option, print_json, run
from .text import human_bytes, human_time, say, shorten

if TYPE_CHECKING:
    from p2phub.node.operations.catalogue import FoundBy

FOUND_SHOWN = 20  # that publishers found of one repository


_FOR = {"private": "its publisher, and those it is granted to", "unlisted": "everybody who knows its name"}


@click.command()
@click.argument("reference", metavar="REF")
@offline_option
@peer_option
@json_option
def info(reference: str, offline: bool, peer: tuple[str, ...], as_json: bool) -> None:
    """Show what is known of a repository."""
    from p2phub.node.operations.catalogue import Info

    result = run(Info(reference), offline=offline, peers=peer)
    if as_json:
        print_json(result)
        return
    names = pinned_names() if result.namespace else {}
    publisher = names.get(result.namespace or "", result.namespace)
    name = f"{publisher}/{result.model}" if result.model else result.reference
    facts, card = result.facts, result.card
    rows = [
        ("name", name),
        ("publisher", result.namespace if publisher != result.namespace else None),
        ("kind", result.kind),
        ("for", _FOR.get(result.visibility or "public")),
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
        ("sealed", result.sealed),
        ("gate", f"{result.gate} must be accepted: `p2phub gate show`" if result.gate else None),
        ("pinned", "yes" if result.pinned else "no"),
        ("recalled", None if result.recalled is None else result.recalled or "by its publisher"),
        *(("found", _found(each)) for each in result.found[:FOUND_SHOWN]),
    ]
    for label, value in rows:
        if value:
            say(f"{label:>13}  {value}")
    if card and card.excerpt:
        say(f"\n{card.excerpt}")


def _found(found: FoundBy) -> str:
    """Return what a publisher found, in a line."""
    score = f" {found.metric} = {found.value}" if found.metric else ""
    tool = f" with {found.tool}" if found.tool else ""
    where = f" of {found.path}" if found.path else ""
    words = f": {shorten(found.message, 60)}" if found.message else ""
    return f"{found.claim}{where}{tool}: {found.verdict}{score}, says {found.namespace}{words}"


@click.command()
@click.argument("reference", metavar="REF")
@click.argument("pattern", required=False)
@offline_option
@peer_option
@json_option
def ls(reference: str, pattern: str | None, offline: bool, peer: tuple[str, ...], as_json: bool) -> None:
    """List the files of a repository, with size, hash and whether each is here."""
    from p2phub.node.operations.catalogue import Info

    result = run(Info(reference), offline=offline, peers=peer)
    files = [file for file in result.files if not pattern or fnmatch.fnmatchcase(file.path, pattern)]
    if pattern and not files:
        from p2phub.node.meant import no_file

        # A pattern is in the place of a path here.
        raise no_file(reference, pattern, [file.path for file in result.files])
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
    from p2phub.node.operations.catalogue import Log

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
            say(f"       {shorten(line.message, 100)}")


@click.command()
@click.argument("model", metavar="MODEL")
@click.argument("branch_name", metavar="BRANCH", required=False)
@click.argument("revision", required=False)
@click.option("--delete", is_flag=True, help="Delete the branch.")
@click.option("-m", "--message", default="", help="Why.")
@json_option
def branch(
    model: str, branch_name: str | None, revision: str | None, delete: bool, message: str, as_json: bool
) -> None:
    """Let BRANCH of your MODEL stand for REVISION: a version, a branch or a hash; an older one is a rollback."""
    from p2phub.node.operations.records import MoveBranch

    if branch_name is None or delete == (revision is not None):
        # What other tools call it comes first there: `branch ls MODEL`.
        verb = model.lower() if branch_name else ""
        shown = branch_name if verb in ("ls", "list", "show") else model
        wrong = "give a BRANCH, and" if branch_name is None else "give"
        raise click.UsageError(
            f"{wrong} either a REVISION or --delete; `p2phub info {shown}` shows what branches it has"
        )
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
    from p2phub.node.operations.records import YankVersion

    result = run(YankVersion(name, message))
    if as_json:
        print_json(result)
    else:
        say(f"yanked {result.model}@{result.version}")


@click.command()
@click.argument("name", metavar="MODEL@REVISION")
@click.option("-m", "--message", default="", help="Why.")
@json_option
def recall(name: str, message: str, as_json: bool) -> None:
    """Take a revision of yours back, for ever: it is not found, fetched or served any more, but where it is pledged."""
    from p2phub.node.operations.records import RecallRevision

    result = run(RecallRevision(name, message))
    if as_json:
        print_json(result)
    else:
        say(f"recalled {result.revision} of {result.model}")
