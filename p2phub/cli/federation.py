"""Commands about agreements between institutions: federation invite, join, ls, leave, terms, accept, rm."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .running import confirm, json_option, print_json, run
from .text import human_bytes, human_date, parse_rate, say

if TYPE_CHECKING:
    from p2phub.core.terms import Terms
    from p2phub.node.operations.federations import FederationInfo, FederationTerms

F = TypeVar("F", bound=Callable[..., Any])

_STATES = {
    "member": "member",
    "left": "has left",
    "other terms": "has not agreed to these terms yet",
    "over": "its word is over: p2phub federation accept there",
    "key retired": "signed with a key that it retired",
    "unknown": "nothing was heard of it yet",
}


def terms_options(function: F) -> F:
    """Add the options that say what members of a federation do for each other."""
    classes = click.Choice(["lan", "site", "federation", "internet"])
    options = (
        click.option("--publisher", "publishers", multiple=True, metavar="NAMESPACE", help="Whose; else the members'."),
        click.option("--kind", "kinds", multiple=True, type=click.Choice(["model", "dataset"]), help="Else both."),
        click.option("--license", "licenses", multiple=True, metavar="SPDX", help="Else any; can be repeated."),
        click.option("--replicas", type=click.IntRange(0, 100), metavar="N", help="Copies kept together; 0: none."),
        click.option("--up", metavar="RATE", help="What a node gives the others together, at most, such as 50MB/s."),
        click.option("--down", metavar="RATE", help="What it takes of them."),
        click.option("--link", type=classes, help="Class of links between members; else federation."),
    )
    for option in reversed(options):
        function = option(function)
    return function


@click.group()
def federation() -> None:
    """Agreements between institutions: who belongs to it, and what members do for each other."""


@federation.command("invite")
@click.argument("name", metavar="NAME")
@click.option("--for", "namespace", metavar="NAMESPACE", help="Who alone can use it; else whoever has it, once.")
@click.option("--days", type=click.IntRange(1, 30), default=7, show_default=True, help="How long it can be used.")
@terms_options
@json_option
def invite(name: str, namespace: str | None, days: int, as_json: bool, **given: Any) -> None:
    """Invite an institution to the federation NAME, and found it if there is none.

    Pass the text that is printed on, over a way that you trust: whoever joins with it calls your node back. The options
    about terms are for a federation that is founded.
    """
    from p2phub.node.operations.federations import FederationInvite

    terms = _terms(None, given) if any(value not in (None, ()) for value in given.values()) else None
    info = run(FederationInvite(name, namespace, days, terms))
    if as_json:
        print_json(info)
        return
    whom = f" by {info.namespace}" if info.namespace else ""
    say(f"can be used once{whom}, until {human_date(info.expires)}: p2phub federation join TEXT", err=True)
    click.echo(info.text)


@federation.command("join")
@click.argument("text", metavar="TEXT|FILE|-")
@click.option("--yes", is_flag=True, help="Agree to the terms without a question.")
@json_option
def join(text: str, yes: bool, as_json: bool) -> None:
    """Show the terms of an invitation and, if you agree, sign them and become a member."""
    from p2phub.core.federation import parse_invitation
    from p2phub.node.operations.federations import FederationJoin, FederationRead

    text = _read(text)
    parse_invitation(text)  # before anybody is asked about it
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("there is nobody to ask here: --yes agrees to the terms")
        _show(run(FederationRead(text)), err=True)
        click.confirm("Agree to this?", abort=True, err=True)
    info = run(FederationJoin(text))
    if as_json:
        print_json(info)
    else:
        _show(info)


@federation.command("ls")
@click.argument("name", required=False, metavar="[NAME]")
@json_option
def ls(name: str | None, as_json: bool) -> None:
    """List the federations that this home belongs to or left: members, terms, until when."""
    from p2phub.node.operations.federations import FederationList

    found = run(FederationList(name))
    if as_json:
        print_json(found)
        return
    for info in found:
        _show(info)
    if not found:
        say("this home belongs to no federation: p2phub federation invite NAME, or join", err=True)


@federation.command("leave")
@click.argument("name", metavar="NAME")
@click.option("--yes", is_flag=True, help="Leave without a question.")
@json_option
def leave(name: str, yes: bool, as_json: bool) -> None:
    """Leave a federation, at once; its coordinator dissolves it so. `store gc --unpinned` frees what was mirrored."""
    from p2phub.node.operations.federations import FederationLeave

    if not yes and not confirm(f"leave {name}, which dissolves it if you coordinate it?", instead="--yes"):
        raise click.Abort
    info = run(FederationLeave(name))
    if as_json:
        print_json(info)
    else:
        say(f"left {info.name}" + (", which is dissolved" if _is_dissolved(info) else ""))


@federation.command("accept")
@click.argument("name", metavar="NAME")
@json_option
def accept(name: str, as_json: bool) -> None:
    """Agree to the terms as they are now: they changed, or your word is over soon."""
    from p2phub.node.operations.federations import FederationAccept

    info = run(FederationAccept(name))
    if as_json:
        print_json(info)
    else:
        _show(info)


@federation.command("terms")
@click.argument("name", metavar="NAME")
@terms_options
@json_option
def terms(name: str, as_json: bool, **given: Any) -> None:
    """Show the terms of a federation, or change those that options name: others count again once they accept them.

    `none` empties what --publisher, --license, --up and --down say; for both kinds name both.
    """
    from p2phub.node.operations.federations import FederationList, FederationSetTerms

    (info, *_) = run(FederationList(name))
    if any(value not in (None, ()) for value in given.values()):
        info = run(FederationSetTerms(info.federation, _terms(info.terms, given)))
    if as_json:
        print_json(info)
    else:
        _show(info)


@federation.command("rm")
@click.argument("name", metavar="NAME")
@click.argument("namespace", metavar="NAMESPACE")
@json_option
def rm(name: str, namespace: str, as_json: bool) -> None:
    """Let a member belong no longer to a federation that you coordinate, at once."""
    from p2phub.node.operations.federations import FederationRemove

    info = run(FederationRemove(name, namespace))
    if as_json:
        print_json(info)
    else:
        _show(info)


def _read(text: str) -> str:
    """Return the invitation that an argument is, or names a file of; `-` is the standard input."""
    if text == "-":
        return sys.stdin.read(64 * 1024).strip()
    if text.startswith("p2phub-invite:"):
        return text
    try:
        return Path(text).read_text(errors="replace")[: 64 * 1024].strip()
    except OSError as exc:
        raise click.UsageError(f"'{text}' is neither an invitation nor a file that can be read") from exc


def _terms(old: FederationTerms | None, given: dict[str, Any]) -> Terms:
    """Return the terms that options give, and those of before where they give none."""
    from p2phub.core.ids import NamespaceId
    from p2phub.core.terms import Terms

    def listed(name: str) -> list[str]:
        values = list(given[name]) or list(getattr(old, name) if old else [])
        return sorted({value for value in values if value != "none"})

    def rate(name: str) -> int | None:
        if given[name] is None:
            value: int | None = getattr(old, name) if old else None
            return value
        try:
            value = parse_rate(given[name]) or None
        except ValueError as exc:
            raise click.BadParameter(str(exc), param_hint=f"--{name}") from exc
        if value is not None and value < 50_000:
            raise click.BadParameter("the lowest is 50k; none is no limit", param_hint=f"--{name}")
        return value

    replicas = given["replicas"] if given["replicas"] is not None else old.replicas if old else 0
    kinds = listed("kinds")
    return Terms(
        publishers=tuple(sorted(NamespaceId.parse(text) for text in listed("publishers"))),
        kinds=() if len(kinds) == 2 else tuple(kinds),  # type: ignore[arg-type]
        licenses=tuple(_spdx(text) for text in listed("licenses")),
        replicas=replicas,
        up=rate("up"),
        down=rate("down"),
        link=given["link"] or (old.link if old else "federation"),
    )


def _spdx(text: str) -> str:
    from p2phub.core.licenses import to_spdx

    found = to_spdx(text)
    if found is None:
        raise click.BadParameter(f"'{text}' is no licence that SPDX knows", param_hint="--license")
    return found


def _show(info: FederationInfo, *, err: bool = False) -> None:
    dissolved = ", dissolved" if _is_dissolved(info) else ""
    state = "" if info.member else ", this home is no member"
    say(f"{info.name}{dissolved or state}", err=err)
    say(f"  {info.federation}, version {info.version}, until {human_date(info.expires)}", err=err)
    for each in info.members:
        role = ", coordinates it" if each.namespace == info.coordinator else ""
        until = f" until {human_date(each.until)}" if each.until else ""
        say(f"    {each.namespace}  {_STATES[each.state]}{until}{role}", err=err)
    for line in _describe(info.terms):
        say(f"  {line}", err=err)
    if info.invitations:
        say(f"  invitations not used yet: {info.invitations}", err=err)
    if info.warning:
        say(f"  {info.warning}", err=err)


def _is_dissolved(info: FederationInfo) -> bool:
    return all(each.state == "left" for each in info.members)


def _describe(terms: FederationTerms) -> list[str]:
    whose = ", ".join(terms.publishers) or "the members"
    what = " and ".join(f"{kind}s" for kind in terms.kinds) or "all repositories"
    licences = f" under {', '.join(terms.licenses)}" if terms.licenses else ""
    kept = f"{terms.replicas} copies of each are kept together" if terms.replicas else "nothing is mirrored by itself"
    rates = [
        f"{human_bytes(rate)}/s {name}" for name, rate in (("up", terms.up), ("down", terms.down)) if rate is not None
    ]
    limit = f", at most {', '.join(rates)}" if rates else ""
    return [f"about {what}{licences} of {whose}: {kept}", f"links between members are of the class {terms.link}{limit}"]
