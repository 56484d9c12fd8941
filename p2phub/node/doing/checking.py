"""Do what operations say that compare files with what they must be, or vouch for it."""

from __future__ import annotations

from pathlib import Path

from p2phub.core.locked import Locked

from .. import locking
from ..events import Tell
from ..handlers import Handlers
from ..node import Node
from ..operations.checking import (
    BillOfMaterials,
    CheckLocks,
    CheckSignature,
    LockNames,
    ModelSignature,
    ShowBill,
    SignatureCheck,
    SignModel,
    Verify,
    VerifyResult,
)
from ..origins import GivenOrigins
from ..verify import verify


async def _lock(node: Node, op: LockNames, tell: Tell) -> list[Locked]:
    return await locking.lock_names(node, op.names, tell)


async def _check_locks(node: Node, op: CheckLocks, tell: Tell) -> list[str]:
    return await locking.check_locks(node, op.locked, tell)


async def _verify(node: Node, op: Verify, tell: Tell) -> VerifyResult:
    return await verify(
        node, op.reference, tell, repair=op.repair, origins=GivenOrigins(op.origins, op.standing_origins)
    )


async def _sign_model(node: Node, op: SignModel, tell: Tell) -> ModelSignature:
    from .. import vouching  # loads what only other tools need

    return await vouching.sign(node, op.reference, tell)


async def _check_signature(node: Node, op: CheckSignature, tell: Tell) -> SignatureCheck:
    from .. import vouching

    key, certificates = (Path(path) if path else None for path in (op.key, op.certificates))
    return await vouching.check(
        node, Path(op.folder), Path(op.bundle), tell, key=key, publisher=op.publisher, certificates=certificates
    )


async def _sbom(node: Node, op: ShowBill, tell: Tell) -> BillOfMaterials:
    from .. import vouching

    return await vouching.bill(node, op.reference, op.form, tell)


HANDLERS: Handlers = {
    LockNames: _lock,
    CheckLocks: _check_locks,
    Verify: _verify,
    SignModel: _sign_model,
    CheckSignature: _check_signature,
    ShowBill: _sbom,
}
