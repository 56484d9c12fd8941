"""Commands about the policy file: policy show, check."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from .running import json_option, offline_option, peer_option, print_json, run
from .text import printable, say

if TYPE_CHECKING:
    from p2phub.node.operations.rules import PolicyCheck

_SIGNS = {"fine": "good", "left out": "left out", "refused": "refused"}


@click.group()
def policy() -> None:
    """What may be fetched, opened and served here: licences, formats, pickles, programs, blocks."""


@policy.command("show")
@json_option
def show(as_json: bool) -> None:
    """Show the rules that are in force, and the file that says so."""
    from p2phub.node.operations.rules import ShowRules

    result = run(ShowRules())
    if as_json:
        print_json(result)
        return
    say(f"# {result.path}" + ("" if result.exists else ": not there, so these hold"))
    for section, rules in result.rules.items():
        if isinstance(rules, dict):
            _show_section(f"[{section}]", rules)
        for each in () if isinstance(rules, dict) else rules:
            _show_section(f"[[{section}]]", each)


def _show_section(name: str, rules: dict[str, Any]) -> None:
    say(f"\n{name}")
    inner = {key: value for key, value in rules.items() if isinstance(value, dict)}
    for key, value in rules.items():
        if key not in inner and value is not None:  # what is not said has no value in TOML
            say(f"{key} = {_toml(value)}")
    for key, value in inner.items():
        _show_section(f"{name[:-1]}.{key}]", value)


def _toml(value: Any) -> str:
    import json

    return json.dumps(value)  # of text, lists of text, numbers, true and false: the same in TOML


@policy.command("check")
@click.argument("reference", metavar="REF|PATH")
@click.option("--allow-pickle", is_flag=True, help="As if it was fetched so.")
@click.option("--with-code", is_flag=True, help="As if it was fetched so.")
@offline_option
@peer_option
@json_option
def check(
    reference: str, allow_pickle: bool, with_code: bool, offline: bool, peer: tuple[str, ...], as_json: bool
) -> None:
    """Say what the policy means for a repository, or for a file or folder on disk, wherever it came from.

    Files that are not here are judged by their names alone.
    """
    from p2phub.core.errors import InvalidName, NotFound
    from p2phub.node.operations.rules import CheckRules

    from .main import EXIT_REFUSED

    path = os.path.abspath(os.path.expanduser(reference))
    is_path = reference != "" and os.path.lexists(path)  # the path of nothing would be this folder
    check_rules = CheckRules(path if is_path else reference, allow_pickle, with_code)
    try:
        result = run(check_rules, offline=offline, peers=peer)
    except (NotFound, InvalidName) as exc:
        if reference and not is_path and not os.path.isabs(reference):
            exc.hint = f"a file or folder {reference} is not here either" + (f"; {exc.hint}" if exc.hint else "")
        raise
    if as_json:
        print_json(result)
    else:
        _say_check(result)
    if any(finding.outcome == "refused" for finding in result.findings):
        sys.exit(EXIT_REFUSED)


def _say_check(result: PolicyCheck) -> None:
    for finding in result.findings:
        say(f"{_SIGNS[finding.outcome]:<8}  {printable(finding.text)}")
        if finding.hint:
            say(f"          {finding.hint}")
    if not result.findings:
        say("nothing speaks against it")
