"""Commands that move content: publish, fetch, cat, verify."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .hub import hub_cache
from .running import from_option, json_option, link_option, offline_option, peer_option, print_json, run
from .text import human_bytes, human_files, human_seconds, provider_name, say

if TYPE_CHECKING:
    from p2phub.node.operations.content import FetchResult, PublishResult

LEFT_OUT_SHOWN = 10  # files


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=True, path_type=Path))
@click.argument("name", metavar="MODEL[@VERSION]")
@click.option("--branch", default="main", show_default=True, help="The branch that the revision becomes the tip of.")
@click.option("-m", "--message", default="", help="What changed.")
@click.option("--in-place", is_flag=True, help="Register the files where they lie instead of copying them.")
@click.option(
    "--profile",
    type=click.Choice(["fixed-1m", "cdc-1m", "tensor-1m"]),
    help="How files are cut into chunks; the default suits each file.",
)
@click.option("--kind", type=click.Choice(["model", "dataset"]), default="model", show_default=True)
@click.option(
    "--origin",
    "origin_urls",
    multiple=True,
    metavar="URL",
    help="Where else the files can be fetched; {path} stands for the path of a file. Can be repeated.",
)
@click.option(
    "--wait", type=click.IntRange(0, 100), default=0, metavar="N", help="Wait until N other nodes confirm to have it."
)
@click.option("--sealed", is_flag=True, help="So that nobody can read it but you, wherever it is kept.")
@click.option(
    "--sealed-for", multiple=True, metavar="WHO", help="So that only you and this publisher can. Can be repeated."
)
@click.option("--open", "is_open", is_flag=True, help="So that everybody can, though the revision before was sealed.")
@click.option(
    "--private", "visibility", flag_value="private", help="For you alone, and those you `p2phub grant` it to."
)
@click.option("--allow-secrets", is_flag=True, help="Also private keys that are found in it.")
@click.option("--unlisted", "visibility", flag_value="unlisted", help="For everybody who knows its name.")
@peer_option
@json_option
def publish(
    folder: Path,
    name: str,
    branch: str,
    message: str,
    in_place: bool,
    profile: str | None,
    kind: str,
    origin_urls: tuple[str, ...],
    wait: int,
    peer: tuple[str, ...],
    sealed: bool,
    sealed_for: tuple[str, ...],
    is_open: bool,
    allow_secrets: bool,
    visibility: str | None,
    as_json: bool,
) -> None:
    """Publish the files of DIR as MODEL, signed with your key."""
    from p2phub.core.errors import HubError
    from p2phub.node.operations.content import PublishFolder
    from p2phub.store.layout import own_path

    if is_open and (sealed or sealed_for):
        raise click.UsageError("--open and --sealed contradict each other")
    operation = PublishFolder(
        folder=str(own_path(folder)),
        name=name,
        branch=branch,
        message=message,
        in_place=in_place,
        profile=profile,  # type: ignore[arg-type]
        kind=kind,  # type: ignore[arg-type]
        origin_urls=origin_urls,
        wait=wait,
        sealed=sealed,
        sealed_for=sealed_for,
        is_open=is_open,
        allow_secrets=allow_secrets,
        visibility=visibility,  # type: ignore[arg-type]
    )
    if wait and visibility == "private":
        raise click.UsageError("--wait is for what everybody may have; `p2phub grants` shows who may read this")
    result = run(operation, peers=peer)
    if as_json:
        print_json(result)
    else:
        _say_published(result)
    if len(result.confirmed) < wait and result.visibility != "private":
        raise HubError(
            f"it is published, but only {len(result.confirmed)} of {wait} other nodes confirmed that they have it",
            hint="`p2phub status` shows who has; `p2phub peers ls` when each last answered",
        )


def _say_published(result: PublishResult) -> None:
    full = f"{result.namespace}/{result.model}" + (f"@{result.version}" if result.version else "")
    if result.new:
        say(f"published {full}" + ("" if result.visibility == "public" else f" ({result.visibility})"))
    else:
        say(f"nothing new: {full} is published already")
    say(f"  revision {result.revision}" + (", sealed" if result.sealed else ""))
    say(f"  {human_files(result.files)}, {human_bytes(result.size)}, {human_bytes(result.written)} written")
    if result.confirmed:
        nodes = "1 other node has" if len(result.confirmed) == 1 else f"{len(result.confirmed)} other nodes have"
        say(f"  {nodes} the record")


@click.command()
@click.argument("reference", metavar="REF")
@click.option("--to", metavar="DIR", type=click.Path(path_type=Path), help="Where to put the files.")
@click.option("--include", multiple=True, metavar="GLOB", help="Only files whose path matches; can be repeated.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="No files whose path matches; can be repeated.")
@link_option
@click.option(
    "--view",
    type=click.Choice(["hf"]),
    help="Show the files in the cache of huggingface_hub (--to, else its usual place), for HF_HUB_OFFLINE=1.",
)
@click.option("--force", is_flag=True, help="Replace files that were not put there by p2phub.")
@click.option("--dry-run", is_flag=True, help="Only say what would be fetched.")
@from_option
@click.option("--background", is_flag=True, help="Let all other traffic go first, here and at the peers.")
@click.option("--sealed", is_flag=True, help="Keep what is sealed as it is, for others: it is not opened.")
@click.option("--allow-pickle", is_flag=True, help="Take pickles too, if a scan finds nothing in them but data.")
@click.option("--with-code", is_flag=True, help="Take programs too (.py and the like).")
@click.option("--recalled", is_flag=True, help="Take it even if its publisher recalled it.")
@offline_option
@peer_option
@json_option
def fetch(
    reference: str,
    to: Path | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    link: str,
    view: str | None,
    force: bool,
    dry_run: bool,
    origins: tuple[str, ...],
    background: bool,
    sealed: bool,
    allow_pickle: bool,
    with_code: bool,
    recalled: bool,
    offline: bool,
    peer: tuple[str, ...],
    as_json: bool,
) -> None:
    """Fetch a repository by name (NAMESPACE/MODEL[@REVISION]) or content by hash (b3:…), verified."""
    from p2phub.node.operations.content import Fetch
    from p2phub.node.settings import standing_origins
    from p2phub.store.layout import own_path

    if view and to is None:
        to = hub_cache()
    operation = Fetch(
        reference=reference,
        to=str(own_path(to)) if to else None,
        include=include,
        exclude=exclude,
        link=link,  # type: ignore[arg-type]
        force=force,
        dry_run=dry_run,
        origins=origins,
        standing_origins=standing_origins(),
        view=view,  # type: ignore[arg-type]
        background=background,
        sealed=sealed,
        allow_pickle=allow_pickle,
        with_code=with_code,
        recalled=recalled,
    )
    result = run(operation, offline=offline, peers=peer)
    if as_json:
        print_json(result)
    elif dry_run:
        _say_forecast(result)
        say_left_out(result)
    else:
        _say_fetched(result)


def _say_fetched(result: FetchResult) -> None:
    say(result.path or "kept as it is, sealed")
    files = f"{human_files(result.files)}, {human_bytes(result.size)}"
    if result.copied:
        shared = f", {human_bytes(result.shared)} of it shared on disk" if result.shared else ""
        say(f"  {human_bytes(result.copied)} taken from other files here{shared}", err=True)
    if result.received:
        rate = f", {human_bytes(result.received / result.seconds)}/s" if result.seconds else ""
        received = f"{human_bytes(result.received)} fetched in {human_seconds(result.seconds)}{rate}"
        say(f"  {files}, verified; {received}", err=True)
    else:
        # Not hashed again: `verify` does that.
        say(f"  {files}, nothing to fetch", err=True)
    say_left_out(result)
    for provider in result.providers:
        why = f" ({provider.reason})" if provider.reason else ""
        state = "" if provider.state == "giving" else f", {provider.state}{why}"
        over = f" over {provider.link}" if provider.link and provider.received else ""
        name = provider_name(provider.node, provider.origin)
        say(f"  {name}  {human_bytes(provider.received)}{over}{state}", err=True)


def say_left_out(result: FetchResult) -> None:
    """Say which files the policy left out, one reason after the other."""
    for out in result.left_out[:LEFT_OUT_SHOWN]:
        say(f"  left out: {out.reason}" + (f"; {out.hint}" if out.hint else ""), err=True)
    if len(result.left_out) > LEFT_OUT_SHOWN:
        say(f"  left out: {len(result.left_out) - LEFT_OUT_SHOWN} more; --json lists them", err=True)


def _say_forecast(result: FetchResult) -> None:
    """Say what a dry run found: what is here, what would come from where, and how long it would take."""
    missing = result.size - result.here_before - result.copied
    copied = f", {human_bytes(result.copied)} are in other files here" if result.copied else ""
    say(f"{human_files(result.files)}, {human_bytes(result.size)}")
    say(f"  {human_bytes(result.here_before)} are here{copied}, {human_bytes(missing)} would be fetched")
    for share in result.links:
        whom = "1 provider" if share.providers == 1 else f"{share.providers} providers"
        say(f"  {human_bytes(share.size)} over {share.link}, from {whom}")
    if result.unoffered:
        say(f"  {human_bytes(result.unoffered)} nobody offers now")
    if result.links:
        say("  expected time: " + ("unknown" if result.expected_s is None else human_seconds(result.expected_s)))


@click.command()
@click.argument("reference", metavar="REF")
@click.argument("path")
@from_option
@offline_option
@peer_option
def cat(reference: str, path: str, origins: tuple[str, ...], offline: bool, peer: tuple[str, ...]) -> None:
    """Print one file of a repository, fetched and verified if it is not here."""
    import shutil

    from p2phub.node.operations.content import FetchFile
    from p2phub.node.settings import standing_origins

    result = run(FetchFile(reference, path, origins, standing_origins()), offline=offline, peers=peer)
    with open(result.location, "rb") as file:
        shutil.copyfileobj(file, sys.stdout.buffer, 1024 * 1024)
    sys.stdout.buffer.flush()


@click.command()
@click.argument("reference", metavar="REF|DIR")
@click.option("--repair", is_flag=True, help="Fetch again what is damaged, chunk by chunk.")
@click.option("--oms", type=click.Path(path_type=Path), help="Compare DIR with this model signature.")
@click.option("--key", type=click.Path(path_type=Path), help="With --oms: the public key that must have signed, PEM.")
@click.option("--publisher", metavar="NAMESPACE", help="With --oms: whose companion key must have signed.")
@click.option("--certificates", type=click.Path(path_type=Path), help="With --oms: who is trusted to vouch, PEM.")
@from_option
@offline_option
@peer_option
@json_option
def verify(
    reference: str,
    repair: bool,
    oms: Path | None,
    key: Path | None,
    publisher: str | None,
    certificates: Path | None,
    origins: tuple[str, ...],
    offline: bool,
    peer: tuple[str, ...],
    as_json: bool,
) -> None:
    """Hash again what is here, and say which bytes are not as published, or with --oms not as signed."""
    from p2phub.node.operations.checking import Verify
    from p2phub.node.settings import standing_origins

    from .main import EXIT_VERIFICATION

    folder = os.path.abspath(os.path.expanduser(reference))
    whose = {"key": key, "publisher": publisher, "certificates": certificates}
    if oms is not None:
        if repair or origins:
            raise click.UsageError("--oms goes without --repair and --from.")
        from .vouching import check_signature

        check_signature(folder, oms, whose, offline=offline, peer=peer, as_json=as_json)
        return
    if any(whose.values()):
        raise click.UsageError("--key, --publisher and --certificates go with --oms.")
    # A folder that exists is meant, unless it is spelled like a name only.
    if os.path.isdir(folder):
        reference = folder
    result = run(Verify(reference, repair, origins, standing_origins()), offline=offline, peers=peer)
    if as_json:
        print_json(result)
    else:
        for damage in result.damaged:
            ranges = ", ".join(f"{span.begin}-{span.end - 1}" for span in damage.spans)
            what = "missing" if damage.missing else f"damaged in bytes {ranges}"
            say(f"{damage.path}: {what}" + ("; repaired" if damage.repaired else ""))
        good = "all good" if not result.damaged else f"{len(result.damaged)} not as published"
        say(f"{human_files(result.files)}, {human_bytes(result.size)}: {good}")
        if result.damaged and not result.good:
            say("p2phub: hint: --repair fetches the damaged chunks again", err=True)
    if not result.good:
        sys.exit(EXIT_VERIFICATION)
