"""Commands about links: limits, and limits set, range, label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from p2phub.core.choices import LINK_CLASSES, LinkClass

from .running import json_option, print_json, run
from .text import human_rate, parse_rate, say

if TYPE_CHECKING:
    from p2phub.core.limits import Limit, LinkSettings

LINK = click.Choice(LINK_CLASSES)
LINK_OR_NONE = click.Choice([*LINK_CLASSES, "none"])


def _rate(ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
    """Return the bytes a second that an option gives, 0 for none."""
    try:
        return None if text is None else parse_rate(text)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def limits(ctx: click.Context, as_json: bool) -> None:
    """Show or change how fast links may be used, and which peers are on which.

    Links are of four classes: lan, site, federation and internet. A peer's class follows from its address and from the
    labels in its record; `p2phub peers ls` shows it. Changes hold at once, for what is under way too.
    """
    if ctx.invoked_subcommand is not None:
        return
    from p2phub.node.operations.limits import ShowLimits

    _show(run(ShowLimits()), as_json)


@limits.command("set")
@click.argument("link", metavar="CLASS", type=LINK)
@click.option("--up", callback=_rate, metavar="RATE", help="What may be sent: 500k, 50MB/s, 100Mbit; none is no limit.")
@click.option("--down", callback=_rate, metavar="RATE", help="What may be received.")
@click.option(
    "--background", type=click.Choice(["on", "off"]), help="Whether all transfers over it yield to other traffic."
)
@json_option
def set_(link: LinkClass, up: int | None, down: int | None, background: str | None, as_json: bool) -> None:
    """Change how fast links of CLASS (lan, site, federation, internet) may be used."""
    from p2phub.node.operations.limits import SetLimit

    if up is None and down is None and background is None:
        raise click.UsageError("give --up, --down or --background")
    chosen = None if background is None else background == "on"
    _show(run(SetLimit(link, up, down, chosen)), as_json)


@limits.command("range")
@click.argument("range_", metavar="RANGE")
@click.argument("link", metavar="CLASS|none", type=LINK_OR_NONE)
@json_option
def range_(range_: str, link: LinkClass, as_json: bool) -> None:
    """Let peers with an address in RANGE (such as 10.8.0.0/16) belong to CLASS; none forgets the range.

    Of several ranges with an address the smallest counts.
    """
    from p2phub.node.operations.limits import SetRange

    _show(run(SetRange(range_, _or_none(link))), as_json)


@limits.command("label")
@click.argument("label", metavar="LABEL")
@click.argument("link", metavar="CLASS|none", type=LINK_OR_NONE)
@json_option
def label(label: str, link: LinkClass, as_json: bool) -> None:
    """Let peers whose record has LABEL as cluster or site belong to CLASS; none forgets the label."""
    from p2phub.node.operations.limits import SetLabel

    _show(run(SetLabel(label, _or_none(link))), as_json)


def describe(limit: Limit) -> str:
    """Return what may be used of a class of links: `5 MB/s up, 50 MB/s down, in the background`."""
    said = [f"{human_rate(rate)} {name}" for rate, name in ((limit.up, "up"), (limit.down, "down")) if rate]
    said = said or ["no limit"]
    return ", ".join([*said, "in the background"] if limit.background else said)


def _or_none(link: str) -> LinkClass | None:
    return next((each for each in LINK_CLASSES if each == link), None)


def _show(settings: LinkSettings, as_json: bool) -> None:
    if as_json:
        print_json(settings)
        return
    for limit in settings.limits:
        say(f"{limit.link:>10}  {describe(limit)}")
    for rule in settings.ranges:
        say(f"{'range':>10}  {rule.range} is {rule.link}")
    for labelled in settings.labels:
        say(f"{'label':>10}  {labelled.label} is {labelled.link}")
