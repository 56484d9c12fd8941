"""Commands about sealed repositories: seal add, seal ls, unseal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .running import confirm, json_option, offline_option, peer_option, print_json, run
from .text import say

if TYPE_CHECKING:
    from p2phub.node.operations.seals import SealResult


@click.group()
def seal() -> None:
    """Repositories that their keepers cannot read; `publish --sealed-for` makes them."""


@seal.command("add")
@click.argument("model", metavar="MODEL")
@click.argument("recipients", metavar="WHO…", nargs=-1, required=True)
@peer_option
@json_option
def add(model: str, recipients: tuple[str, ...], peer: tuple[str, ...], as_json: bool) -> None:
    """Let more publishers open what you sealed as MODEL, all revisions of it; nothing is sealed or sent again."""
    from p2phub.node.operations.seals import SealFor

    _show(run(SealFor(model, recipients), peers=peer), as_json)


@seal.command("ls")
@click.argument("reference", metavar="REF")
@offline_option
@peer_option
@json_option
def ls(reference: str, offline: bool, peer: tuple[str, ...], as_json: bool) -> None:
    """Show who may open a sealed repository."""
    from p2phub.node.operations.seals import ShowSeal

    _show(run(ShowSeal(reference), offline=offline, peers=peer), as_json)


@click.command()
@click.argument("model", metavar="MODEL")
@click.option("-m", "--message", default="", help="Why.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def unseal(model: str, message: str, yes: bool, as_json: bool) -> None:
    """Let everybody open what you sealed as MODEL, wherever it is kept. It cannot be taken back."""
    from p2phub.node.operations.seals import UnsealModel

    question = f"everybody will be able to read all that you sealed as {model}, for ever; go on?"
    if not yes and not confirm(question, instead="--yes"):
        raise click.Abort
    _show(run(UnsealModel(model, message)), as_json)


def _show(result: SealResult, as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    keys = "one key" if result.keys == 1 else f"{result.keys} keys"
    say(
        f"{result.model} is "
        + ("open to everybody: its key was told" if result.unsealed else f"sealed with {keys}, for")
    )
    for name in result.recipients if not result.unsealed else []:
        say(f"  {name}")
