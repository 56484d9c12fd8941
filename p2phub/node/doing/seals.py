"""What the operations about seals do (spec/sealing.md)."""

from __future__ import annotations

from ..events import Tell
from ..handlers import Handlers
from ..node import Node
from ..operations.seals import SealFor, SealResult, ShowSeal, UnsealModel


async def seal_for(node: Node, op: SealFor, tell: Tell) -> SealResult:
    from .. import sealing  # loads what publishing does

    return await sealing.add_recipients(node, op.model, op.recipients, tell)


async def show_seal(node: Node, op: ShowSeal, tell: Tell) -> SealResult:
    from .. import sealing

    return await sealing.show_seal(node, op.reference, tell)


async def unseal(node: Node, op: UnsealModel, tell: Tell) -> SealResult:
    from .. import sealing

    return await sealing.unseal(node, op.model, op.message)


HANDLERS: Handlers = {
    SealFor: seal_for,
    ShowSeal: show_seal,
    UnsealModel: unseal,
}
