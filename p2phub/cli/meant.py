"""What was meant by a word that is no command: commands of other tools do the same under other names.

Loaded when somebody typed one.
"""

from __future__ import annotations

import re
from difflib import get_close_matches

import click

# Word -> what does it here.
_MEANT = {
    "add": "publish DIR MODEL",
    "block": "follow --block NAMESPACE",
    "clone": "fetch REF --to DIR",
    "daemon": "node",
    "del": "store rm REF",
    "delete": "store rm REF",
    "df": "store df",
    "find": "search TEXT",
    "gc": "store gc",
    "get": "fetch REF",
    "import": "mirror add hf://ORG/NAME",
    "init": "id new",
    "install": "fetch REF",
    "keygen": "id new",
    "list": "store ls",
    "login": "id new",
    "pin": "store pin REF",
    "prune": "store gc",
    "push": "publish DIR MODEL",
    "remove": "store rm REF",
    "rm": "store rm REF",
    "rollback": "branch MODEL BRANCH REVISION",
    "serve": "node",
    "share": "publish DIR MODEL",
    "show": "info REF",
    "start": "node",
    "tag": "publish DIR MODEL@VERSION",
    "unfollow": "follow --remove NAMESPACE",
    "unpin": "store unpin REF",
    "upload": "publish DIR MODEL",
    "versions": "info REF",
    "whoami": "id",
}
_MEANT_IN = {
    ("federation", "add"): "federation invite NAME",
    ("federation", "show"): "federation terms NAME",
    ("id", "whoami"): "id show",
    ("limits", "rm"): "limits set CLASS --up none --down none",
    ("peers", "ban"): "peers rm NODE",
    ("seal", "rm"): "unseal MODEL",
    ("trust", "show"): "trust why REF",
}
# What commands of groups are called elsewhere -> here; the first that there is.
_USUAL = {
    ("list", "show", "all", "status"): ("ls", "show"),
    ("remove", "delete", "del", "forget", "unset"): ("rm", "off"),
    ("create", "new", "set"): ("add", "set", "new"),
}


def meant(error: click.UsageError) -> str | None:
    """Return what to type instead of the command that `error` says there is none of; None if it says something else."""
    found = re.match(r"No such command '([^']+)'", error.message)
    if found is None or error.ctx is None or not isinstance(group := error.ctx.command, click.Group):
        return None
    word = found[1].lower()
    path = _path(error.ctx)
    command = _in_group(group, " ".join(path), word, error.ctx) if path else _MEANT.get(word)
    if command is None:
        close = get_close_matches(word, group.list_commands(error.ctx), 1)
        command = " ".join([*path, *close]) if close else None
    return f"`p2phub {command}` does that" if command else None


def _path(ctx: click.Context) -> list[str]:
    """Return the commands that were given, without `p2phub` itself."""
    return [*_path(ctx.parent), ctx.info_name or ""] if ctx.parent else []


def _in_group(group: click.Group, name: str, word: str, ctx: click.Context) -> str | None:
    usual = next((ours for theirs, ours in _USUAL.items() if word in (*theirs, *ours)), ())
    if (name, word) in _MEANT_IN:
        return _MEANT_IN[name, word]
    for each in usual:
        if group.get_command(ctx, each) is not None:
            return f"{name} {each}"
    for each in usual:
        if (name, each) in _MEANT_IN:
            return _MEANT_IN[name, each]
    # Without a command it shows what there is.
    return name if group.invoke_without_command and "ls" in usual else None
