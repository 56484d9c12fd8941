"""What other tools take as proof: signatures of OpenSSF model signing, bills of materials (spec/model-signing.md)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from blake3 import blake3

import p2phub
from p2phub.core import companion, oms
from p2phub.core.bom import Described, bill_of_materials
from p2phub.core.choices import BillForm
from p2phub.core.errors import InvalidData, InvalidName, NotFound, StoreError
from p2phub.core.manifest import Manifest
from p2phub.core.oms import Resource, Statement
from p2phub.store.disk import disk_errors
from p2phub.store.ownfiles import OwnFiles

from .disk import from_thread, on_disk
from .events import Progress, Tell
from .identity import own_companion
from .names import find
from .node import Node
from .opening import require_opened
from .operations.checking import BillOfMaterials, ModelSignature, SignatureCheck
from .resolve import Target, load_manifest, resolve

READ_SIZE = 1024 * 1024  # bytes
# What tools that sign do not count either, in the folder of a model.
NOT_COUNTED = frozenset({".git", ".gitattributes", ".github", ".gitignore"})


async def sign(node: Node, reference: str, tell: Tell) -> ModelSignature:
    """Sign with the own companion key what files a repository consists of, all of which must be here.

    Raises NotFound, InvalidData if the files are sealed, AccessDenied.
    """
    target, manifest = await _described(node, reference, tell)
    key = await on_disk(own_companion, node)
    if manifest.sealed is not None:
        raise InvalidData(f"the files of {reference} are sealed, and others would see other files")
    here = await on_disk(node.store.blobs.find_all, {file.root for file in manifest.files})
    missing = [file.path for file in manifest.files if file.root not in here]
    if missing:
        raise NotFound(
            f"{len(missing)} of {len(manifest.files)} files of {reference} are not here, such as {missing[0]}",
            hint=f"p2phub fetch {reference}",
        )
    payload = oms.statement(target.model or str(target.manifest), ((f.path, f.sha256) for f in manifest.files))
    return ModelSignature(
        reference=reference,
        revision=str(target.manifest),
        files=len(manifest.files),
        bundle=oms.bundle(payload, key.private_key).decode(),
        public_key=oms.key_text(key.private_key.public_key()),
    )


async def check(
    node: Node,
    folder: Path,
    bundle: Path,
    tell: Tell,
    *,
    key: Path | None = None,
    publisher: str | None = None,
    certificates: Path | None = None,
) -> SignatureCheck:
    """Compare the files in `folder` with what the signature in `bundle` says of them.

    Exactly one of key (a public key as PEM), publisher (whose companion key signed) and certificates (of those who
    are trusted to vouch, PEM) says by whom it must be. Raises InvalidSignature, InvalidData, NotFound, StoreError.
    """
    own = await on_disk(OwnFiles, node.store.layout)
    signed = oms.read_bundle(await on_disk(_read, bundle, own))
    if certificates is not None:
        statement, signer = oms.check_certified(signed, await on_disk(_read, certificates, own), now=_now(node))
    elif publisher is not None:
        statement, signer = oms.check_signed(signed, await _key_of(node, publisher, tell)), publisher
    elif key is not None:
        statement, signer = oms.check_signed(signed, oms.read_key(await on_disk(_read, key, own))), str(key)
    else:
        raise InvalidName("who must have signed? Give a key, a publisher, or certificates")
    return await on_disk(_compare, folder, bundle, statement, signer, own, from_thread(tell))


async def bill(node: Node, reference: str, form: BillForm, tell: Tell) -> BillOfMaterials:
    """Return the bill of materials of a revision. Raises NotFound, Offline, AccessDenied if it is sealed for others."""
    target, manifest = await _described(node, reference, tell)
    assert target.manifest is not None
    if manifest.sealed is not None:
        # What everybody sees of it names no file.
        opened, _ = await require_opened(node, target.manifest, manifest, tell, refresh=True)
        manifest = opened.manifest
    version = target.version or await on_disk(_version_of, node, target) or target.manifest.hex()[:12]
    described = Described(
        name=target.model or str(target.manifest),
        version=version,
        publisher=target.namespace,
        revision=target.manifest,
        manifest=manifest,
        tool=p2phub.__version__,
    )
    return BillOfMaterials(reference, str(target.manifest), form, bill_of_materials(described, form))


async def _described(node: Node, reference: str, tell: Tell) -> tuple[Target, Manifest]:
    target = await resolve(node, reference, tell, refresh=True)
    if target.manifest is None:
        raise InvalidName(f"{reference} is a single file, and no repository")
    return target, await load_manifest(node, target.manifest, tell)


def _version_of(node: Node, target: Target) -> str | None:
    """Return the last version that stands for this revision."""
    if target.namespace is None or target.model is None:
        return None
    claims = node.store.catalogue.versions(target.namespace, target.model)
    return next((name for name, claim in reversed(claims.items()) if claim.manifest == target.manifest), None)


async def _key_of(node: Node, publisher: str, tell: Tell) -> Any:
    namespace = await find(node, publisher, tell)
    identity = await on_disk(node.store.logs.identity, namespace)
    if identity is None or identity.current.companion is None:
        raise NotFound(f"no key of {publisher} for such signatures is known", hint="give the key itself: --key FILE")
    return companion.public_key(identity.current.companion)


def _now(node: Node) -> datetime:
    return datetime.fromtimestamp(node.clock(), UTC)


def _read(path: Path, own: OwnFiles) -> bytes:
    own.refuse(path)
    with disk_errors(path), open(path, "rb") as file:
        data = file.read(oms.BUNDLE_SIZE_MAX + 1)
    if len(data) > oms.BUNDLE_SIZE_MAX:
        raise InvalidData(f"{path} is larger than {oms.BUNDLE_SIZE_MAX} bytes")
    return data


def _compare(
    folder: Path, bundle: Path, statement: Statement, signer: str, own: OwnFiles, tell: Tell
) -> SignatureCheck:
    signed: dict[str, list[Resource]] = {}
    for resource in statement.resources:
        signed.setdefault(resource.path, []).append(resource)
    ignored = {*NOT_COUNTED, *statement.ignored}
    found = {path: size for path, size in _walk(folder, bundle, own) if not _is_under(path, ignored)}
    total, done = sum(size for path, size in found.items() if path in signed), 0
    wrong = []
    for path, size in found.items():
        if path in signed:
            if not _is_as_signed(folder / path, size, signed[path], statement.hash):
                wrong.append(path)
            done += size
            tell(Progress("verifying", done, total))
    return SignatureCheck(
        signer=signer,
        model=statement.name,
        files=len(signed),
        size=total,
        wrong=sorted(wrong),
        missing=sorted(signed.keys() - found.keys()),
        unsigned=sorted(found.keys() - signed.keys()),
    )


def _walk(folder: Path, bundle: Path, own: OwnFiles) -> Iterator[tuple[str, int]]:
    """Yield path and size of each file below `folder`, but for the bundle itself and `own` files."""
    signature = os.path.realpath(bundle)

    def refuse(exc: OSError) -> None:
        raise StoreError(f"cannot read {exc.filename}: {exc.strerror}", path=str(exc.filename))

    for parent, _, names in os.walk(folder, onerror=refuse):
        for name in names:
            path = os.path.join(parent, name)
            if os.path.realpath(path) != signature and not own.has(path):
                with disk_errors(Path(path)):
                    yield os.path.relpath(path, folder).replace(os.sep, "/"), os.stat(path).st_size


def _is_under(path: str, folders: set[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def _is_as_signed(path: Path, size: int, parts: Sequence[Resource], kind: str) -> bool:
    if not oms.covered(parts, size):
        return False
    with disk_errors(path), open(path, "rb") as file:
        for part in parts:
            hasher: Any = blake3() if kind == "blake3" else hashlib.new(kind)
            file.seek(part.begin)
            left = size - part.begin if part.end is None else part.end - part.begin
            while left and (data := file.read(min(READ_SIZE, left))):
                hasher.update(data)
                left -= len(data)
            if left or hasher.digest() != part.digest:
                return False
    return True
