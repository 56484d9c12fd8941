"""Commands about other machines, robots and people: id request, add-key, join, sign, export, import."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .identityfacts import facts_of
from .running import json_option, peer_option, print_json
from .secrets import (
    change,
    change_options,
    load_keys,
    new_file,
    new_passphrase,
    no_passphrase_option,
    proposal_option,
    say_changes,
    say_proposal,
    stop_at_split,
    tell_node,
    tell_others,
    with_node,
    write_proposal,
)
from .text import say

if TYPE_CHECKING:
    from p2phub.core.identity import Identity
    from p2phub.core.signing import SigningKey
    from p2phub.node.node import Node
    from p2phub.node.renewing import Signed

WORD_SIZE_MAX = 8 * 1024 * 1024  # characters of what another machine wrote


@click.command("request")
@click.option("--for-another", is_flag=True, help="Offer the key of this machine to another publisher, to sign with.")
def request(for_another: bool) -> None:
    """Ask, on a new machine, to publish as you do on your first one.

    It prints a word. On the first machine, `p2phub id add-key WORD` lets this one publish, and prints the answer for
    `p2phub id join`.
    """
    from p2phub.node.machines import parse_request, request_key

    word = with_node(lambda node: request_key(node, for_another=for_another))
    say(word)
    say(f"this machine's key is {_spaced(str(parse_request(word).key))}", err=True)
    say("now, on the machine that has your identity: p2phub id add-key WORD", err=True)


@click.command("add-key")
@click.argument("request", metavar="[REQUEST]", required=False)
@click.option("--role", "roles", multiple=True, type=click.Choice(["root", "publish", "fresh"]),
              help="What it may do; default: publish and fresh.")  # fmt: skip
@click.option("--new", "target", metavar="FILE", type=click.Path(path_type=Path),
              help="Make a key in FILE that may publish, for a robot: P2PHUB_KEY_FILE names it there.")  # fmt: skip
@click.option("--yes", is_flag=True, help="Do not ask whether it is the right key.")
@no_passphrase_option
@change_options
@proposal_option
@json_option
def add_key(
    request: str | None,
    roles: tuple[str, ...],
    target: Path | None,
    yes: bool,
    no_passphrase: bool,
    keys: tuple[Path, ...],
    proposal: Path | None,
    as_json: bool,
) -> None:
    """Let another machine publish as you: REQUEST is what `p2phub id request` printed there, or a file with it.

    With --role root, who has that key may change your identity: for several people of an institution.
    """
    if (request is None) == (target is None):
        raise click.UsageError("give what `p2phub id request` printed, or --new FILE")
    if target is not None:
        _add_key_file(target, roles, keys, no_passphrase, proposal, as_json)
        return
    assert request is not None
    from p2phub.core.rotation import DOES
    from p2phub.node.identity import own_identity
    from p2phub.node.machines import add_key as work
    from p2phub.node.machines import parse_request

    asked = parse_request(word_of(request))
    wanted = roles or ("publish", "fresh")
    if not yes:
        say(f"key {_spaced(str(asked.key))} … asks; the other machine shows its key: is it the same?", err=True)
        _confirm(f"let it {' and '.join(DOES[role] for role in wanted)} for you?")

    def do(node: Node, extra: list[SigningKey]) -> tuple[Identity, Identity, str]:
        before = own_identity(node)
        return before, *work(node, asked, wanted, extra=extra)  # type: ignore[arg-type]

    before, after, answer = change(do, keys=keys, proposal=proposal)
    if as_json:
        print_json({"namespace": after.namespace, "version": after.current.version, "key": asked.key, "answer": answer})
        return
    say_changes(before, after) if before.chain != after.chain else None
    if "publish" in wanted:
        say("now, on the other machine: p2phub id join ANSWER, where ANSWER is", err=True)
        say(answer)


def _add_key_file(
    target: Path,
    roles: tuple[str, ...],
    keys: tuple[Path, ...],
    no_passphrase: bool,
    proposal: Path | None,
    as_json: bool,
) -> None:
    from p2phub.node.machines import add_key_file

    if roles not in ((), ("publish",)):
        raise click.UsageError("a key for a robot may publish, and nothing else")
    path = new_file(target)
    passphrase = new_passphrase(path, none=no_passphrase)
    after = change(lambda node, extra: add_key_file(node, path, passphrase, extra=extra), keys=keys, proposal=proposal)
    if as_json:
        print_json({"namespace": after.namespace, "version": after.current.version, "file": str(path)})
        return
    say(str(path))
    say(f"with P2PHUB_KEY_FILE={path} whoever has it publishes as {after.namespace}", err=True)


@click.command("join")
@click.argument("answer", metavar="ANSWER|NAMESPACE")
@peer_option
@json_option
def join(answer: str, peer: tuple[str, ...], as_json: bool) -> None:
    """Publish on this machine as you do on your first one: ANSWER is what `p2phub id add-key` printed there.

    With a namespace instead, this machine learns from peers that its key was added.
    """
    from p2phub.core.ids import NamespaceId
    from p2phub.core.names import is_namespace_id
    from p2phub.node.machines import join as work
    from p2phub.node.machines import join_known

    if is_namespace_id(answer):
        namespace = NamespaceId.parse(answer)
        found = with_node(lambda node: join_known(node, namespace), peers=peer, learn=answer)
    else:
        word = word_of(answer)
        found = with_node(lambda node: work(node, word), peers=peer)
    tell_node()
    _show(found, as_json)


@click.command("sign")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--yes", is_flag=True, help="Do not ask whether to sign.")
@change_options
@json_option
def sign(file: Path, yes: bool, keys: tuple[Path, ...], as_json: bool) -> None:
    """Sign a change of an identity that several people have to sign.

    It shows what changes, adds your signature to FILE, and once enough signed, the change takes effect.
    """
    from p2phub.core.rotation import describe
    from p2phub.node.identity import own_namespace
    from p2phub.node.renewing import parse_proposal, sign_for_others

    opened = parse_proposal(_read(file))
    if not as_json:
        say(f"version {opened.after.version} of {opened.before.namespace} would change this:", err=True)
        for line in describe(opened.before.current, opened.after):
            say(f"  {line}", err=True)
    if not yes:
        _confirm("sign it?")
    extra = [key for path in keys for key in load_keys(path).signers]
    namespace = opened.before.namespace
    check = stop_at_split(namespace)

    def work(node: Node) -> tuple[Signed, bool]:
        check(node)
        return sign_for_others(node, opened, extra=extra), own_namespace(node) == namespace

    signed, is_own = with_node(work, learn=str(namespace))
    if signed.identity is None and not signed.is_signed:
        from p2phub.core.errors import AccessDenied

        raise AccessDenied(
            "no key of this machine has to sign this", hint="--key FILE names the file of a key that has to"
        )
    write_proposal(signed.opened, file)
    if signed.identity is not None and not tell_others(namespace) and not is_own:
        text = f"it is known here alone as yet: `p2phub id sign {file}` takes it up where it was proposed, too"
        say(f"p2phub: note: {text}", err=True)
    if as_json:
        print_json({"namespace": opened.before.namespace, "version": opened.after.version,
                    "missing": signed.opened.missing, "in_force": signed.identity is not None})  # fmt: skip
    elif signed.identity is not None:
        say(f"version {opened.after.version} of {opened.before.namespace} is in force")
    else:
        say_proposal(signed.opened, file.absolute())


@click.command("export")
@click.option("--to", "target", metavar="FILE", type=click.Path(path_type=Path), help="The new file.")
@click.option("--public", is_flag=True, help="Only the documents that everybody may have; no secret is in them.")
@json_option
def export(target: Path | None, public: bool, as_json: bool) -> None:
    """Write all your keys to FILE, locked with a passphrase: a copy for the day on which this disk breaks.

    For a second machine use `p2phub id request` there, so that each has a key of its own.
    """
    if public:
        _export_public(target)
        return
    if target is None:
        raise click.UsageError("give --to FILE, or --public")
    from p2phub.node.machines import export_keys

    path = new_file(target)
    passphrase = new_passphrase(path)
    assert passphrase is not None
    done = with_node(lambda node: export_keys(node, path, passphrase))
    if as_json:
        print_json({"file": str(path), "namespace": done.identity.namespace, "keys": done.keys,
                    "in_agent": done.in_agent})  # fmt: skip
        return
    say(str(path))
    for key in done.in_agent:
        say(f"key {key} is in the ssh-agent, and not in the file", err=True)


def _export_public(target: Path | None) -> None:
    from p2phub.node.identity import own_identity
    from p2phub.node.machines import format_documents
    from p2phub.store.disk import write_file

    path = new_file(target) if target is not None else None
    word = format_documents(with_node(own_identity))
    if path is None:
        say(word)
    else:
        write_file(path, f"{word}\n".encode(), mode=0o644)


@click.command("import")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@peer_option
@json_option
def import_(file: Path, peer: tuple[str, ...], as_json: bool) -> None:
    """Take over the keys that `p2phub id export` wrote, or documents that it wrote with --public.

    Do not go on with the same keys on two machines: their histories would part, and everybody would stop listening.
    """
    from p2phub.core.armor import kind_of
    from p2phub.node.machines import IDENTITY_KIND, import_keys, learn_documents

    text = _read(file)
    if kind_of(text) == IDENTITY_KIND:
        _show(with_node(lambda node: learn_documents(node, text)), as_json)
        return
    bundle = load_keys(file)
    namespace = str(bundle.identity.namespace) if bundle.identity else None
    found = with_node(lambda node: import_keys(node, bundle), peers=peer, learn=namespace)
    tell_node()
    _show(found, as_json)


def _show(found: Identity, as_json: bool) -> None:
    if as_json:
        print_json(facts_of(found))
    else:
        say(f"namespace  {found.namespace}")
        say(f"  version  {found.current.version}")


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("without a terminal, say --yes")
    click.confirm(question, abort=True, err=True)


_WORD_HINT = "give what the other machine printed, which begins with p2phub-, or a file that holds it"


def word_of(text: str) -> str:
    """Return what another machine wrote: `text` itself, or what the file `text` holds. Raises UsageError if empty."""
    if not text.strip():
        raise click.UsageError("nothing was given: what the other machine printed is empty here")
    return text if text.startswith("p2phub-") else _read(Path(text), hint=_WORD_HINT)


def _read(path: Path, *, hint: str | None = None) -> str:
    from p2phub.core.errors import InvalidData, NotFound
    from p2phub.store.disk import disk_errors
    from p2phub.store.layout import own_path

    with disk_errors(path):
        try:
            with open(own_path(path), "rb") as file:
                data = file.read(WORD_SIZE_MAX)
        except FileNotFoundError:
            raise NotFound(f"there is no file {path}", hint=hint) from None
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        raise InvalidData(f"{path} was not written by p2phub id") from None


def _spaced(key: str) -> str:
    """Return the beginning of a key so that it can be compared by eye."""
    return " ".join(key[at : at + 4] for at in range(0, 20, 4))
