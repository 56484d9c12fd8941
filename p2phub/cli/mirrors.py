"""Commands about mirrors of other hubs' repositories: add, ls, update, rm, trust."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .running import json_option, print_json, run
from .text import human_bytes, human_files, human_time, say

if TYPE_CHECKING:
    from p2phub.node.operations.mirrors import MirrorInfo

kind_option = click.option("--kind", type=click.Choice(["model", "dataset"]), help="Else as hf://datasets/… says.")


@click.group()
def mirror() -> None:
    """Copies of other hubs' repositories, checked, shared with peers, and vouched for."""


@mirror.command("add")
@click.argument("reference", metavar="hf://ORG/NAME[@REVISION]")
@kind_option
@json_option
def add(reference: str, kind: str | None, as_json: bool) -> None:
    """Fetch all of another hub's repository, keep it, and vouch for it.

    The hub is the one that P2PHUB_UPSTREAM or `p2phub node --upstream` names, else huggingface.co. What it does not
    give to everybody is kept for this machine alone.
    """
    from p2phub.node.operations.mirrors import MirrorAdd

    _show(run(MirrorAdd(reference, kind)), as_json)  # type: ignore[arg-type]


@mirror.command("ls")
@json_option
def ls(as_json: bool) -> None:
    """List the mirrors that are kept here."""
    from p2phub.node.operations.mirrors import MirrorList

    found = run(MirrorList())
    if as_json:
        print_json(found)
        return
    if not found:
        say("no mirrors are kept here: p2phub mirror add hf://ORG/NAME", err=True)
    for info in found:
        _show(info, as_json)


@mirror.command("update")
@click.argument("reference", required=False, metavar="[hf://ORG/NAME[@REVISION]]")
@kind_option
@json_option
def update(reference: str | None, kind: str | None, as_json: bool) -> None:
    """Fetch what the hub changed since; without a name, of all mirrors."""
    from p2phub.node.operations.mirrors import MirrorUpdate

    found = run(MirrorUpdate(reference, kind))  # type: ignore[arg-type]
    if as_json:
        print_json(found)
        return
    for info in found:
        _show(info, as_json)


@mirror.command("rm")
@click.argument("reference", metavar="hf://ORG/NAME[@REVISION]")
@kind_option
@json_option
def rm(reference: str, kind: str | None, as_json: bool) -> None:
    """Keep a mirror no longer; `p2phub store gc --unpinned` frees its files."""
    from p2phub.node.operations.mirrors import MirrorRemove

    info = run(MirrorRemove(reference, kind))  # type: ignore[arg-type]
    if as_json:
        print_json(info)
    else:
        say(f"{info.reference} is kept no longer")


@mirror.command("trust")
@click.argument("namespace", required=False, metavar="[NAMESPACE]")
@click.option("--remove", is_flag=True, help="No longer.")
@json_option
def trust(namespace: str | None, remove: bool, as_json: bool) -> None:
    """Let ORG/NAME stand for what the publisher NAMESPACE mirrored; without one, show who is trusted.

    One's own mirrors count always.
    """
    from p2phub.node.operations.mirrors import MirrorTrust

    if remove and namespace is None:
        raise click.UsageError("--remove needs a NAMESPACE")
    result = run(MirrorTrust(namespace, not remove))
    if as_json:
        print_json(result)
        return
    for name in result.namespaces:
        say(name)
    if not result.namespaces:
        say("nobody is trusted about mirrors but yourself", err=True)


def _show(info: MirrorInfo, as_json: bool) -> None:
    if as_json:
        print_json(info)
        return
    say(info.reference)
    if info.commit is None:
        say(f"  of {info.hub}, not whole yet")
        return
    checked = f", the hub was asked {human_time(info.checked)}" if info.checked else ""
    only = ", for this machine alone" if info.restricted else ""
    say(f"  of {info.hub}, commit {info.commit[:12]}{checked}")
    say(f"  {human_files(info.files)}, {human_bytes(info.size)}{only}")
