"""Commands for other tools: export --oms, sbom."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from .running import json_option, offline_option, peer_option, print_json, run
from .text import human_bytes, human_files, say


@click.command()
@click.argument("reference", metavar="REF")
@click.option("--oms", is_flag=True, required=True, help="As OpenSSF model signing has it.")
@click.option("--to", "target", type=click.Path(path_type=Path), help="Write to this file instead of stdout.")
@click.option("--key-to", type=click.Path(path_type=Path), help="Write the public key that verifies it here, as PEM.")
@offline_option
@peer_option
@json_option
def export(
    reference: str,
    oms: bool,
    target: Path | None,
    key_to: Path | None,
    offline: bool,
    peer: tuple[str, ...],
    as_json: bool,
) -> None:
    """Sign what a repository consists of, for tools that do not know p2phub.

    Your companion key signs, which your identity names. `p2phub verify DIR --oms FILE` checks it, and so does
    `model_signing verify key DIR --signature FILE --public_key KEY`.
    """
    from p2phub.node.operations.checking import SignModel

    result = run(SignModel(reference), offline=offline, peers=peer)
    _write(key_to, result.public_key)
    if as_json:
        print_json(result)
        return
    if target is None:
        sys.stdout.write(result.bundle)
        return
    _write(target, result.bundle)
    say(f"signed {reference}, {human_files(result.files)}: {target}", err=True)


@click.command()
@click.argument("reference", metavar="REF")
@click.option("--as", "form", type=click.Choice(["cyclonedx", "spdx"]), default="cyclonedx", show_default=True)
@click.option("--to", "target", type=click.Path(path_type=Path), help="Write to this file instead of stdout.")
@offline_option
@peer_option
def sbom(reference: str, form: str, target: Path | None, offline: bool, peer: tuple[str, ...]) -> None:
    """List what a repository consists of and was made from, for tools that audit it (CycloneDX 1.6, SPDX 3.0)."""
    from p2phub.node.operations.checking import ShowBill

    result = run(ShowBill(reference, form), offline=offline, peers=peer)  # type: ignore[arg-type]
    if target is None:
        sys.stdout.write(result.text)
        return
    _write(target, result.text)
    say(f"{reference} as {form}: {target}", err=True)


def check_signature(
    folder: str,
    bundle: Path,
    whose: dict[str, Path | str | None],
    *,
    offline: bool,
    peer: tuple[str, ...],
    as_json: bool,
) -> None:
    """Do what `verify DIR --oms FILE` says.

    whose: who must have signed, as the options `key`, `publisher` and `certificates` say it.
    """
    from p2phub.node.operations.checking import CheckSignature

    from .main import EXIT_VERIFICATION

    given = {name: str(value) for name, value in whose.items() if value is not None}
    if len(given) != 1:
        raise click.UsageError("Give one of --key, --publisher and --certificates: who must have signed?")
    if not os.path.isdir(folder):
        raise click.UsageError(f"{folder} is no folder.")
    files = {name: value if name == "publisher" else os.path.abspath(value) for name, value in given.items()}
    result = run(CheckSignature(folder, os.path.abspath(bundle), **files), offline=offline, peers=peer)
    if as_json:
        print_json(result)
    else:
        differences = {"not as signed": result.wrong, "missing": result.missing, "not signed": result.unsigned}
        for what, paths in differences.items():
            for path in paths:
                say(f"{path}: {what}")
        found = "all as signed" if result.good else "not what was signed"
        say(f"{human_files(result.files)}, {human_bytes(result.size)}: {found} by {result.signer}")
    if not result.good:
        sys.exit(EXIT_VERIFICATION)


def _write(path: Path | None, text: str) -> None:
    from p2phub.store.disk import write_file

    if path is not None:
        write_file(path.absolute(), text.encode(), mode=0o644)
