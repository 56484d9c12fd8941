"""Commands for projects: lock, sync."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .running import from_option, json_option, offline_option, peer_option, print_json, run
from .text import human_bytes, human_files, say

if TYPE_CHECKING:
    from p2phub.core.locked import Locked

FILE_NAME = "p2phub.lock"
# What other tools call it -> what does it here.
VERBS = {
    "add": "p2phub lock NAME",
    "update": "p2phub lock --update",
    **dict.fromkeys(("ls", "list", "show"), "p2phub lock"),
    **dict.fromkeys(("rm", "remove", "delete"), "p2phub lock --rm NAME"),
}

file_option = click.option(
    "--file",
    "file",
    type=click.Path(path_type=Path),
    default=Path(FILE_NAME),
    show_default=True,
    help="The lock file.",
)


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--update", is_flag=True, help="Look up again what NAMEs mean, or all names that are locked.")
@click.option("--rm", "remove", multiple=True, metavar="NAME", help="Lock this name no longer.")
@file_option
@offline_option
@peer_option
@json_option
def lock(
    names: tuple[str, ...],
    update: bool,
    remove: tuple[str, ...],
    file: Path,
    offline: bool,
    peer: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write down what NAMEs mean now, by hash, so that a project has the same on every machine.

    NAME is NAMESPACE/MODEL[@REVISION]. Names that are locked already stay as they are, but with --update. Without
    anything, show what is locked. `p2phub sync` fetches it.
    """
    from p2phub.core.errors import NotFound
    from p2phub.core.lockfile import encode_lock
    from p2phub.node.operations.checking import LockNames
    from p2phub.store.disk import write_file

    if names and names[0].lower() in VERBS:
        raise click.UsageError(f"'{names[0]}' is no NAME: `{VERBS[names[0].lower()]}` does that")
    known = {each.name: each for each in _read(file)} if file.exists() or not names else {}
    for name in remove:
        if known.pop(name, None) is None:
            raise NotFound(f"{name} is not locked in {file}", hint=f"it has {', '.join(known)}" if known else None)
    wanted = list(names or known) if update else [name for name in names if name not in known]
    if wanted:
        known |= {each.name: each for each in run(LockNames(tuple(wanted)), offline=offline, peers=peer, news=True)}
    if wanted or remove:
        write_file(file.absolute(), encode_lock(known.values()), mode=0o644)
    _show([known[name] for name in sorted(known)], as_json)


@click.command()
@click.option("--frozen", is_flag=True, help="Fetch what is locked and ask nobody what names mean now: for CI.")
@click.option("--to", "target", type=click.Path(path_type=Path), help="Place files in DIR/NAMESPACE/MODEL.")
@click.option("--allow-pickle", is_flag=True, help="Take pickles too, if a scan finds nothing in them but data.")
@click.option("--with-code", is_flag=True, help="Take programs too (.py and the like).")
@file_option
@from_option
@offline_option
@peer_option
@json_option
def sync(
    frozen: bool,
    target: Path | None,
    allow_pickle: bool,
    with_code: bool,
    file: Path,
    origins: tuple[str, ...],
    offline: bool,
    peer: tuple[str, ...],
    as_json: bool,
) -> None:
    """Fetch all that `p2phub.lock` names, exactly as it was locked, verified.

    Without --frozen, it is also checked that the names are still of the same publishers, and told which have moved on.
    """
    from p2phub.node.operations.checking import CheckLocks
    from p2phub.node.operations.content import Fetch
    from p2phub.node.settings import standing_origins

    from .transfer import say_left_out

    locked = _read(file)
    if locked and not frozen:
        moved = run(CheckLocks(tuple(locked)), offline=offline, peers=peer)
        if moved:
            say(f"{file} stays as it is; `p2phub lock --update` moves on", err=True)
    results = []
    for each in locked:
        result = run(
            Fetch(
                reference=each.revision,
                to=str(target.absolute() / _folder(each)) if target else None,
                kind=each.kind,
                origins=origins,
                standing_origins=standing_origins(),
                allow_pickle=allow_pickle,
                with_code=with_code,
            ),
            offline=offline,
            peers=peer,
            quiet=as_json,
        )
        results.append(result)
        if not as_json:
            say(result.path or "")
            say(f"  {each.name}, {human_files(result.files)}, {human_bytes(result.size)}, verified")
            say_left_out(result)
    if as_json:
        print_json(results)


def _read(file: Path) -> list[Locked]:
    from p2phub.core.errors import InvalidData, NotFound, StoreError
    from p2phub.core.lockfile import decode_lock

    try:
        data = file.read_bytes()
    except FileNotFoundError as exc:
        raise NotFound(f"there is no {file}", hint="`p2phub lock NAME...` makes one") from exc
    except OSError as exc:
        raise StoreError(f"cannot read {file}: {exc.strerror}", path=str(file)) from exc
    try:
        return decode_lock(data)
    except InvalidData as exc:
        raise InvalidData(f"the lock file {file} {exc}") from exc


def _folder(locked: Locked) -> str:
    """Return NAMESPACE/MODEL of a locked name: neither part has a slash, or begins with a dot."""
    return locked.name.partition("@")[0]


def _show(locked: list[Locked], as_json: bool) -> None:
    if as_json:
        print_json(locked)
        return
    for each in locked:
        say(each.name)
        say(f"  {each.kind} {each.revision}")
        place = f", record {each.index} of log {each.log}" if each.log else ""
        say(f"  of {each.namespace}{place}")
    if not locked:
        say("nothing is locked", err=True)
