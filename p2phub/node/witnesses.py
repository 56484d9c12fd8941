"""Count on witnesses, see how they stand with the own log, forget them (spec/witness.md §5)."""

from __future__ import annotations

from p2phub.core.errors import HubError, InvalidName
from p2phub.core.fresh import read_fresh
from p2phub.core.names import parse_address
from p2phub.core.notes import COSIGNATURE, parse_note_key
from p2phub.core.origins import parse_url
from p2phub.store.witnesses import KnownWitness

from .confirm import own_confirmations, own_log
from .cosigning import collect
from .disk import on_disk
from .events import Tell
from .fresh import vouched_sizes
from .identity import own_identity
from .node import Node
from .operations.witnesses import AddWitness, ListWitnesses, RemoveWitness, Witnesses, WitnessInfo


async def add(node: Node, op: AddWitness, tell: Tell) -> WitnessInfo:
    """Count on a witness from now on, and ask it at once if it can be asked. Raises InvalidName, Conflict."""
    key = parse_note_key(op.key, type_=COSIGNATURE)
    if op.place is not None:
        await _check_place(node, op.place)
    await on_disk(node.store.witnesses.add, key, op.place)
    if op.place is not None and not node.settings.offline:
        await collect(node, names=(str(key),))
    (added,) = [each for each in await on_disk(_infos, node) if each.key == str(key)]
    return added


async def show(node: Node, op: ListWitnesses, tell: Tell) -> Witnesses:
    """Return the witnesses that are known, and what this node does as one."""
    return await on_disk(_show, node)


async def remove(node: Node, op: RemoveWitness, tell: Tell) -> WitnessInfo:
    """Forget a witness. Raises NotFound, Conflict."""
    return _info(await on_disk(node.store.witnesses.remove, op.name))


async def _check_place(node: Node, place: str) -> None:
    """Raise InvalidName unless a witness can be asked at `place`."""
    if place.startswith("p2phub://"):
        address = parse_address(place)
        if address.node == node.id:
            raise InvalidName("a node is no witness of its own log: nobody else would vouch for it")
        await on_disk(node.store.peers.add, address)
        return
    try:
        url = parse_url(place)
    except InvalidName as exc:
        raise InvalidName(f"a witness is asked at https://… or at p2phub://…: {exc}") from exc
    if url.user is not None or "?" in url.target:
        raise InvalidName("the URL of a witness has no user and no query")


def _show(node: Node) -> Witnesses:
    own_records, _ = own_confirmations(node)
    witness = node.witness
    return Witnesses(
        _infos(node),
        own_records,
        _stated(node),
        str(witness.key) if witness else None,
        witness.count() if witness else 0,
    )


def _infos(node: Node) -> list[WitnessInfo]:
    known, own = node.store.witnesses.all(), own_log(node)
    vouched = vouched_sizes(node.store, own, [each.key for each in known]) if own else {}
    return [_info(each, vouched.get(each.key)) for each in known]


def _stated(node: Node) -> int | None:
    try:
        signed = node.store.fresh.get(own_identity(node).namespace)
    except HubError:
        return None
    return read_fresh(signed).time if signed else None


def _info(witness: KnownWitness, vouched: tuple[int, int] | None = None) -> WitnessInfo:
    """vouched: for how many records of the own log, and when."""
    size, answered = vouched or (0, None)
    return WitnessInfo(witness.key.name, str(witness.key), witness.place, size, answered, witness.problem)
