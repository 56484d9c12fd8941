"""What the operations about gates do (spec/gates.md)."""

from __future__ import annotations

from pathlib import Path

from ..events import Tell
from ..handlers import Handlers
from ..node import Node
from ..operations import Done
from ..operations.gates import (
    Accepted,
    GateAccept,
    GateAccepted,
    GateDecide,
    GateInfo,
    GateList,
    GateOff,
    GateSet,
    GateShow,
)

# `gates` loads what publishing does, so it is imported where it is needed.


async def set_gate(node: Node, op: GateSet, tell: Tell) -> GateInfo:
    from .. import gates

    return await gates.set_gate(node, op.model, op.name, op.licence, op.per, op.approval)


async def off(node: Node, op: GateOff, tell: Tell) -> Done:
    from .. import gates

    await gates.open_gate(node, op.model, op.message)
    return Done()


async def show(node: Node, op: GateShow, tell: Tell) -> GateInfo:
    from .. import gates

    return await gates.show_gate(node, op.reference, tell)


async def accept(node: Node, op: GateAccept, tell: Tell) -> Accepted:
    from .. import gates

    return await gates.accept(
        node,
        op.reference,
        tell,
        leaf=op.gate,
        to=Path(op.to) if op.to else None,
        given=Path(op.given) if op.given else None,
    )


async def decide(node: Node, op: GateDecide, tell: Tell) -> GateInfo:
    from .. import gates

    return await gates.decide(node, op.model, op.who, tell, is_approved=op.approved, days=op.days, message=op.message)


async def list_gates(node: Node, op: GateList, tell: Tell) -> list[GateInfo]:
    from .. import gates

    return await gates.list_gates(node)


async def list_accepted(node: Node, op: GateAccepted, tell: Tell) -> list[Accepted]:
    from .. import gates

    return await gates.list_accepted(node)


HANDLERS: Handlers = {
    GateSet: set_gate,
    GateOff: off,
    GateShow: show,
    GateAccept: accept,
    GateDecide: decide,
    GateList: list_gates,
    GateAccepted: list_accepted,
}
