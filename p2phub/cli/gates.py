"""Commands about gates: set, off, show, accept, approve, refuse, ls, accepted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .running import confirm, json_option, offline_option, peer_option, print_json, run
from .text import human_time, say

if TYPE_CHECKING:
    from p2phub.node.operations.gates import Accepted, GateInfo

message_option = click.option("-m", "--message", default="", help="Why.")

_STATES = {
    "asked": "not accepted here",
    "good": "accepted",
    "waiting": "accepted; the publisher has to approve it yet",
    "refused": "refused by the publisher, or over",
    "yours": "yours",
}


@click.group()
def gate() -> None:
    """Licences that must be accepted before content is handed out."""


@gate.command("set")
@click.argument("model", metavar="MODEL")
@click.option(
    "--licence", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True, help="Its text."
)
@click.option("--name", help="What it is called; else the name of the file.")
@click.option(
    "--per",
    type=click.Choice(["person", "institution"]),
    default="institution",
    show_default=True,
    help="Who must accept: each person on each machine, or once for all who act for the same publisher.",
)
@click.option(
    "--approval",
    type=click.Choice(["automatic", "manual"]),
    default="automatic",
    show_default=True,
    help="Whether accepting is enough, or you approve each.",
)
@json_option
def set_(model: str, licence: Path, name: str | None, per: str, approval: str, as_json: bool) -> None:
    """Let whoever wants the content of your MODEL accept a licence first, on every node that keeps it."""
    from p2phub.core.choices import LICENCE_SIZE_MAX
    from p2phub.core.errors import InvalidName, StoreError
    from p2phub.node.operations.gates import GateSet

    try:
        with licence.open("rb") as file:
            data = file.read(4 * LICENCE_SIZE_MAX + 1)  # a device has no end, and a character at most 4 bytes
        if len(data) > 4 * LICENCE_SIZE_MAX:
            raise _wrong_length(licence, f"more than {LICENCE_SIZE_MAX}")
        text = data.decode()
    except UnicodeDecodeError as exc:
        raise InvalidName(f"{licence} is no text in UTF-8") from exc
    except OSError as exc:
        raise StoreError(f"cannot read {licence}: {exc.strerror}", path=str(licence)) from exc
    if not 1 <= len(text) <= LICENCE_SIZE_MAX:
        raise _wrong_length(licence, f"{len(text)}")
    operation = GateSet(model, (name or licence.name)[:128], text, per, approval)  # type: ignore[arg-type]
    _show(run(operation), as_json)


def _wrong_length(licence: Path, count: str) -> Exception:
    from p2phub.core.choices import LICENCE_SIZE_MAX
    from p2phub.core.errors import InvalidName

    hint = "what is longer can lie in the repository, and the licence say where"
    return InvalidName(f"{licence} has {count} characters; a licence has 1 to {LICENCE_SIZE_MAX}", hint=hint)


@gate.command("off")
@click.argument("model", metavar="MODEL")
@message_option
def off(model: str, message: str) -> None:
    """Let everybody have the content of your MODEL again."""
    from p2phub.node.operations.gates import GateOff

    run(GateOff(model, message))
    say(f"nothing need be accepted for {model} any more")


@gate.command("show")
@click.argument("reference", metavar="REF")
@offline_option
@peer_option
@json_option
def show(reference: str, offline: bool, peer: tuple[str, ...], as_json: bool) -> None:
    """Show what must be accepted for a repository, with the whole text."""
    from p2phub.node.operations.gates import GateShow

    result = run(GateShow(reference), offline=offline, peers=peer)
    _show(result, as_json)
    if not as_json:
        say("\n" + result.licence)


@gate.command("accept")
@click.argument("reference", metavar="REF")
@click.option("--yes", is_flag=True, help="Do not show it and ask.")
@click.option("--to", type=click.Path(path_type=Path), help="Also write the receipt to this file, for the publisher.")
@click.option(
    "--receipt", type=click.Path(path_type=Path), help="Take what another machine of your institution wrote by --to."
)
@peer_option
@json_option
def accept(
    reference: str, yes: bool, to: Path | None, receipt: Path | None, peer: tuple[str, ...], as_json: bool
) -> None:
    """Accept what a repository asks for: sign a receipt, and show it to who serves the content."""
    from p2phub.core.errors import NotAccepted
    from p2phub.node.operations.gates import GateAccept, GateShow
    from p2phub.store.layout import own_path

    seen = None
    if not yes and receipt is None:
        asked = run(GateShow(reference), peers=peer)
        seen = asked.gate
        say(asked.licence, err=True)
        whom = "for yourself, on this machine" if asked.per == "person" else "for all who act for your publisher"
        if not confirm(f"accept {asked.name} of {asked.reference}, {whom}?", instead="--yes"):
            raise NotAccepted(f"{asked.name} was not accepted")
    target, given = (str(own_path(path)) if path else None for path in (to, receipt))
    result = run(GateAccept(reference, seen, target, given), peers=peer)
    if as_json:
        print_json(result)
        return
    _say_accepted(result)
    if result.file:
        say(f"  the receipt is in {result.file}: its publisher takes it by `p2phub gate approve MODEL FILE`")


@gate.command("approve")
@click.argument("model", metavar="MODEL")
@click.argument("who", metavar="WHO|FILE")
@click.option("--days", type=click.IntRange(1, 36500), help="For so long; else as long as the gate stands.")
@message_option
@json_option
def approve(model: str, who: str, days: int | None, message: str, as_json: bool) -> None:
    """Let somebody who accepted have the content of your MODEL: a publisher, or whose receipt is in FILE."""
    from p2phub.node.operations.gates import GateDecide

    _show(run(GateDecide(model, _whom(who), True, days, message)), as_json)


@gate.command("refuse")
@click.argument("model", metavar="MODEL")
@click.argument("who", metavar="WHO")
@message_option
@json_option
def refuse(model: str, who: str, message: str, as_json: bool) -> None:
    """Let somebody who accepted not have the content of your MODEL, or not any more."""
    from p2phub.node.operations.gates import GateDecide

    _show(run(GateDecide(model, _whom(who), False, None, message)), as_json)


@gate.command("ls")
@json_option
def ls(as_json: bool) -> None:
    """Show your gates, and who accepted what they ask for."""
    from p2phub.node.operations.gates import GateList

    found = run(GateList())
    if as_json:
        print_json(found)
        return
    for each in found:
        _show(each, as_json)
    if not found:
        say("none of your repositories has a gate", err=True)


@gate.command("accepted")
@json_option
def accepted(as_json: bool) -> None:
    """Show what was accepted here."""
    from p2phub.node.operations.gates import GateAccepted

    found = run(GateAccepted())
    if as_json:
        print_json(found)
        return
    for each in found:
        _say_accepted(each)
    if not found:
        say("nothing was accepted here", err=True)


def _whom(text: str) -> str:
    """Return a publisher as it was typed, or a file as an absolute path."""
    path = os.path.abspath(os.path.expanduser(text))
    if os.path.isfile(path):
        return path
    if "/" in text:
        raise click.UsageError(f"there is no file {text}")
    return text


def _show(info: GateInfo, as_json: bool) -> None:
    if as_json:
        print_json(info)
        return
    say(f"{info.reference} asks each {info.per} to accept {info.name}")
    manual = ", and its publisher approves each" if info.approval == "manual" else ""
    say(f"  since {human_time(info.time)}{manual}; {_STATES.get(info.state, info.state)}")
    for receipt in info.receipts:
        where = f" on {receipt.node[:12]}…" if receipt.node else ""
        say(f"  {receipt.namespace}{where}  {human_time(receipt.time)}  {receipt.state}")


def _say_accepted(result: Accepted) -> None:
    say(f"{result.reference}: {result.name}, {_STATES.get(result.state, result.state)}")
    if result.told:
        say(f"  shown to {'1 peer' if result.told == 1 else f'{result.told} peers'}")
