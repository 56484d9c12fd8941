"""Commands about the store: ls, rm, gc, pin, unpin, df, view, adopt, rebuild."""

from __future__ import annotations

from pathlib import Path

import click

from .hub import hub_cache
from .running import json_option, link_option, print_json, run
from .text import human_bytes, human_files, say


@click.group("store")
def storage() -> None:
    """What is kept on this machine's disk."""


@storage.command("ls")
@json_option
def ls(as_json: bool) -> None:
    """List the repositories of which anything is here."""
    from p2phub.node.operations.storage import StoreList

    found = run(StoreList())
    if as_json:
        print_json(found)
        return
    if not found:
        say("nothing is here: p2phub fetch REF brings something", err=True)
    for repository in found:
        pinned = f", pinned ({repository.pinned})" if repository.pinned else ""
        say(f"{repository.revision[:19]}…  {', '.join(repository.names) or '(no name)'}")
        say(f"  {human_bytes(repository.here)} of {human_bytes(repository.size)}{pinned}")


@storage.command("rm")
@click.argument("reference", metavar="REF")
@json_option
def rm(reference: str, as_json: bool) -> None:
    """Remove a repository's files, as far as nothing else needs them."""
    from p2phub.node.operations.storage import StoreRemove

    _freed(run(StoreRemove(reference)), as_json)


@storage.command("gc")
@click.option("--unpinned", is_flag=True, help="Also remove every repository that is not pinned.")
@json_option
def gc(unpinned: bool, as_json: bool) -> None:
    """Remove content that no repository here needs."""
    from p2phub.node.operations.storage import StoreCollect

    _freed(run(StoreCollect(unpinned)), as_json)


@storage.command("pin")
@click.argument("reference", metavar="REF")
@json_option
def pin(reference: str, as_json: bool) -> None:
    """Keep a repository until it is unpinned."""
    from p2phub.node.operations.storage import StorePin

    result = run(StorePin(reference))
    if as_json:
        print_json(result)
    else:
        say(f"pinned {result.revision}")


@storage.command("unpin")
@click.argument("reference", metavar="REF")
@json_option
def unpin(reference: str, as_json: bool) -> None:
    """Take a pin back."""
    from p2phub.node.operations.storage import StoreUnpin

    result = run(StoreUnpin(reference))
    if as_json:
        print_json(result)
    else:
        say(f"unpinned {result.revision}")


@storage.command("df")
@json_option
def df(as_json: bool) -> None:
    """Show how much the store takes."""
    from p2phub.node.operations.storage import StoreUse

    use = run(StoreUse())
    if as_json:
        print_json(use)
        return
    say(use.store)
    say(f"  objects   {use.objects:>7}  {human_bytes(use.objects_bytes)}")
    say(f"  partials  {use.partials:>7}  {human_bytes(use.partials_bytes)}")
    say(f"  in place  {use.in_place:>7}  {human_bytes(use.in_place_bytes)}")
    say(f"  index              {human_bytes(use.index_bytes)}")
    say(f"  free               {human_bytes(use.free_bytes)}")


@storage.command("view")
@click.argument("view", metavar="hf", type=click.Choice(["hf"]))
@click.argument("folder", metavar="[DIR]", type=click.Path(path_type=Path), required=False)
@link_option
@click.option("--allow-pickle", is_flag=True, help="Show pickles too, if a scan finds nothing in them but data.")
@click.option("--with-code", is_flag=True, help="Show programs too (.py and the like).")
@json_option
def view(view: str, folder: Path | None, link: str, allow_pickle: bool, with_code: bool, as_json: bool) -> None:
    """Show all that is whole here in the cache of huggingface_hub: in DIR, or where it usually is."""
    from p2phub.node.operations.storage import StoreView
    from p2phub.store.layout import own_path

    cache = str(own_path(folder or hub_cache()))
    shown = run(StoreView(view, cache, link, allow_pickle, with_code))  # type: ignore[arg-type]
    if as_json:
        print_json(shown)
        return
    say(shown.cache)
    for repository in shown.repositories:
        say(f"  {repository.name}  {', '.join(repository.references) or repository.commit[:12]}")


@storage.command("adopt")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@json_option
def adopt(folder: Path, as_json: bool) -> None:
    """Take in what lies in DIR (a cache of huggingface_hub, an Ollama store, any folder) without copying it."""
    from p2phub.node.operations.storage import StoreAdopt
    from p2phub.store.layout import own_path

    adopted = run(StoreAdopt(str(own_path(folder))))
    if as_json:
        print_json(adopted)
        return
    say(f"{human_files(adopted.files)}, {human_bytes(adopted.size)} in {adopted.folder} ({adopted.shape})")
    for repository in adopted.repositories:
        name = ", ".join(repository.names) or f"{repository.revision[:19]}…"
        here = f"{human_bytes(repository.here)} of {human_bytes(repository.size)} are here now"
        say(f"  {human_files(repository.files)} of {name}; {here}")


@storage.command("rebuild")
@json_option
def rebuild(as_json: bool) -> None:
    """Fill the index again from the files of the store."""
    from p2phub.node.operations.storage import StoreRebuild

    found = run(StoreRebuild())
    if as_json:
        print_json(found)
        return
    say(f"{found.manifests} manifests, {found.records} records, {found.objects} objects")
    if found.damaged:
        say(f"{found.damaged} objects are damaged: `p2phub verify REF --repair` mends them", err=True)


def _freed(freed: object, as_json: bool) -> None:
    if as_json:
        print_json(freed)
    else:
        say(f"freed {human_bytes(freed.bytes)} in {human_files(freed.items)}")  # type: ignore[attr-defined]
