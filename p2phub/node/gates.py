"""Set gates, accept what they ask for, show that it was accepted, and look at what others show (spec/gates.md).

gate accept ──▶ Receipt, kept here ──shown to each peer that is asked for the content──▶ kept there
                                         publisher ──gate approve──▶ record ──▶ everybody
"""

from __future__ import annotations

import base64
import contextlib
import re
from functools import partial
from pathlib import Path

from p2phub.core.choices import DEFAULT_BRANCH, LICENCE_SIZE_MAX, GateApproval, GatePer
from p2phub.core.encoding import decode, encode
from p2phub.core.errors import Conflict, InvalidData, InvalidName, NotAccepted, NotFound
from p2phub.core.gates import Gate, SignedReceipt, check_fits, open_receipt, read_receipt, sign_receipt
from p2phub.core.identity import Identity
from p2phub.core.ids import NamespaceId
from p2phub.core.private import Repository
from p2phub.core.records import Approve, OpenGate, Refuse, SetGate
from p2phub.protocol.messages import LARGE_QUERY_SIZE_MAX, ReceiptsQuery
from p2phub.store.disk import disk_errors, write_file
from p2phub.store.ownfiles import OwnFiles

from .disk import on_disk
from .events import Tell
from .identity import RecordMaker, own_identity, own_publisher
from .meant import check_published
from .names import find
from .node import Node
from .operations.gates import Accepted, GateInfo, ReceiptInfo
from .ownnames import own_model
from .privatenews import announce
from .receipts import identities_in, name_of, newest_identity, own_receipt, query_of, show_to_some
from .resolve import own_namespace, resolve
from .visibility import append_record

SHOWN_TO_MAX = 16  # peers that a receipt is shown to when it is made
SHOW_TIMEOUT_S = 10.0  # that they are waited for
LICENCE_NAME_LENGTH_MAX = 128  # characters; spec/gates.md §1

_LICENCE_FILE = r"(licen[cs]e|copying)(\.(txt|md))?"  # paths of files that are one


# ── the publisher ───────────────────────────────────────────────────────────


async def set_gate(node: Node, model: str, name: str, licence: str, per: GatePer, approval: GateApproval) -> GateInfo:
    """Let whoever wants the content of one's own `model` accept `licence` first. Earlier receipts end.

    Raises InvalidName if the licence is too long, NotFound if there is no such model.
    """
    identity = await on_disk(own_identity, node)
    model = await _published(node, identity, model)
    if not licence.strip() or len(licence.encode()) > LICENCE_SIZE_MAX:
        raise InvalidName(f"a licence has 1 to {LICENCE_SIZE_MAX} bytes, not {len(licence.encode())}")
    gate = await on_disk(node.store.gates.of_repository, identity.namespace, model)
    asked = (name, licence, per, approval)
    if gate is None or (gate.name, gate.licence, gate.per, gate.approval) != asked:
        make = partial(
            SetGate, namespace=identity.namespace, model=model, name=name, licence=licence, per=per, approval=approval
        )

        await _sign(node, model, make)
    gate = await on_disk(node.store.gates.of_repository, identity.namespace, model)
    assert gate
    return await on_disk(_info, node, gate)


async def set_gate_by_file(node: Node, model: str, approval: GateApproval) -> GateInfo:
    """Let whoever wants the content of one's own `model` accept the licence first that lies in it: each person.

    Of a gate that stands only the approval changes. Raises NotFound if there is no such file.
    """
    identity = await on_disk(own_identity, node)
    model = await _published(node, identity, model)
    gate = await on_disk(node.store.gates.of_repository, identity.namespace, model)
    if gate is not None:
        return await set_gate(node, model, gate.name, gate.licence, gate.per, approval)
    name, licence = await on_disk(_licence_in, node, identity, model)
    return await set_gate(node, model, name, licence, "person", approval)


def _licence_in(node: Node, identity: Identity, model: str) -> tuple[str, str]:
    """Return name and text of the licence that lies in one's own `model`. Raises NotFound."""
    claim = node.store.catalogue.branch(identity.namespace, model, DEFAULT_BRANCH)
    manifest = node.store.manifests.get(claim.manifest) if claim and claim.manifest else None
    for file in manifest.files if manifest else ():
        held = node.store.blobs.find(file.root) if re.fullmatch(_LICENCE_FILE, file.path, re.IGNORECASE) else None
        if held is not None and 0 < held.size <= 4 * LICENCE_SIZE_MAX:
            with disk_errors(held.path):
                data = held.path.read_bytes()
            with contextlib.suppress(UnicodeDecodeError):
                card = manifest.card if manifest else None
                name = card and (card.license or card.license_name)
                return (name or file.path)[:LICENCE_NAME_LENGTH_MAX], data.decode()
    raise NotFound(
        f"{model} has no file with a licence that could be accepted",
        hint=f"publish a LICENSE in it, or say which: `p2phub gate set {model} --licence FILE`",
    )


async def open_gate(node: Node, model: str, message: str) -> None:
    """Let everybody have the content of one's own `model` again. Raises NotFound if it has no gate."""
    identity = await on_disk(own_identity, node)
    model = await own_model(node, model, identity.namespace)
    await _own_gate(node, identity, model)

    make = partial(OpenGate, namespace=identity.namespace, model=model, message=message)

    await _sign(node, model, make)


async def decide(
    node: Node, model: str, whom: str, tell: Tell, *, is_approved: bool, days: int | None, message: str
) -> GateInfo:
    """Approve or refuse the receipts of somebody for one's own `model`.

    whom: a publisher, or the file that `gate accept --to` wrote. Raises NotFound if no receipt of his is here.
    """
    identity = await on_disk(own_identity, node)
    model = await own_model(node, model, identity.namespace)
    gate = await _own_gate(node, identity, model)
    if Path(whom).is_absolute():
        namespace = await on_disk(_take_file, node, gate, Path(whom))
    else:
        namespace = await find(node, whom, tell)
    receipts = [each for each in await on_disk(node.store.gates.receipts, gate) if each.namespace == namespace]
    if not receipts:
        raise NotFound(
            f"no receipt of {namespace} for {model} is here",
            hint="it comes when his node asks yours; or as the file that his `p2phub gate accept … --to FILE` writes",
        )
    now = int(node.clock())
    until = now + days * 86400 if days else None
    for receipt in receipts:
        decision = partial(Approve, until=until) if is_approved else Refuse
        make = partial(decision, namespace=identity.namespace, model=model, receipt=receipt.hash, message=message)
        await _sign(node, model, make)
    return await on_disk(_info, node, gate)


async def _published(node: Node, identity: Identity, name: str) -> str:
    model = await own_model(node, name, identity.namespace)
    await on_disk(check_published, node, identity.namespace, model)
    if await on_disk(node.store.private.is_private, Repository(identity.namespace, model)):
        # A gate stands in a public log, and would tell everybody of it.
        raise Conflict(f"{model} is private, and has no gate", hint="`p2phub grant` lets somebody in")
    return model


async def _own_gate(node: Node, identity: Identity, model: str) -> Gate:
    gate = await on_disk(node.store.gates.of_repository, identity.namespace, model)
    if gate is None:
        raise NotFound(f"{model} of yours has no gate", hint=f"p2phub gate set {model} --licence FILE")
    return gate


async def _sign(node: Node, model: str, make: RecordMaker) -> None:
    await announce(node, await on_disk(append_record, node, model, make))
    # Somebody may have lost what is being sent to him.
    node.open_answers.note_change()


# ── who wants it ────────────────────────────────────────────────────────────


async def show_gate(node: Node, reference: str, tell: Tell) -> GateInfo:
    """Return what must be accepted for a repository. Raises NotFound if it has no gate."""
    return await on_disk(_info, node, await _find_gate(node, reference, tell))


async def accept(
    node: Node, reference: str, tell: Tell, *, leaf: str | None, to: Path | None, given: Path | None = None
) -> Accepted:
    """Sign that what a repository's gate asks for is accepted, and show it to peers.

    leaf: what was read, in hex; None: whatever it asks for now. to: a file to write the receipt to, for the publisher.
    given: such a file of another machine, which accepted for an institution that this node acts for.
    Raises NotFound if it has no gate or there is no identity here, NotAccepted if it asks for something else by now.
    """
    gate = await _find_gate(node, reference, tell)
    if leaf is not None and gate.leaf.hex() != leaf:
        raise NotAccepted(f"{gate.model} asks for something else by now", hint=f"p2phub gate show {reference}")
    if given is not None:
        await on_disk(_take_given, node, gate, given)
    kept = await on_disk(own_receipt, node, gate)
    if kept is None:
        identity, key = await on_disk(own_publisher, node)
        signed = sign_receipt(gate, identity.namespace, node.id, key, now=int(node.clock()))
        await on_disk(node.store.gates.keep, signed, None)
        kept = await on_disk(own_receipt, node, gate)
    assert kept
    if to is not None:
        query = await on_disk(query_of, node, [kept])
        await on_disk(write_file, to, base64.b64encode(encode(query)) + b"\n", mode=0o644)
    told = 0 if node.settings.offline else await show_to_some(node, gate, kept, tell)
    state = await on_disk(node.access.gates.state, gate, kept)
    return Accepted(name_of(gate), gate.name, str(kept.namespace), state, told, str(to) if to else None)


async def list_accepted(node: Node) -> list[Accepted]:
    """Return what was accepted here."""

    def look() -> list[Accepted]:
        found = []
        for receipt in node.store.gates.own_receipts():
            gate = node.store.gates.by_leaf(receipt.gate)
            if gate:
                state = node.access.gates.state(gate, receipt)
                found.append(Accepted(name_of(gate), gate.name, str(receipt.namespace), state, 0, None))
        return found

    return await on_disk(look)


async def list_gates(node: Node) -> list[GateInfo]:
    """Return the own gates, with who accepted what they ask for."""

    def look() -> list[GateInfo]:
        namespace = own_namespace(node)
        gates = node.store.gates.of_publisher(namespace) if namespace else []
        return [_info(node, gate) for gate in gates]

    return await on_disk(look)


async def _find_gate(node: Node, reference: str, tell: Tell) -> Gate:
    target = await resolve(node, reference, tell, refresh=True)
    if target.namespace is None or target.model is None:
        raise NotFound(f"{reference} is no repository that is known by name here")
    gate = await on_disk(node.store.gates.of_repository, target.namespace, target.model)
    if gate is None:
        raise NotFound(f"nothing need be accepted for {reference}")
    return gate


def _take_file(node: Node, gate: Gate, path: Path) -> NamespaceId:
    """Keep the receipt in a file that somebody handed over; returns whose it is. Raises InvalidData."""
    signed, _ = _read_file(node, gate, path)
    node.store.gates.keep(signed, signed.receipt.node or node.id)
    return signed.receipt.namespace


def _take_given(node: Node, gate: Gate, path: Path) -> None:
    """Keep the receipt in a file as an own one. Raises InvalidData if it is of a person on another machine."""
    signed, identity = _read_file(node, gate, path)
    if signed.receipt.node not in (None, node.id):
        raise InvalidData(f"{gate.model} asks each person on each machine, and the receipt is of another machine")
    # Whoever is shown the receipt asks who signed it.
    node.store.logs.add_identity(identity)
    node.store.gates.keep(signed, None)


def _read_file(node: Node, gate: Gate, path: Path) -> tuple[SignedReceipt, Identity]:
    OwnFiles(node.store.layout).refuse(path)
    with disk_errors(path):
        text = path.read_bytes()
    try:
        data = base64.b64decode(text.strip(), validate=True)
    except ValueError as exc:
        raise InvalidData(f"{path} holds no receipt") from exc
    query = decode(data, ReceiptsQuery, size_max=LARGE_QUERY_SIZE_MAX)
    receipt = read_receipt(query.receipts[0])
    check_fits(receipt, gate)
    identity = newest_identity(node, receipt.namespace, identities_in(query))
    keys = node.authority.newest_keys(identity.publish_keys)
    return open_receipt(query.receipts[0], keys, now=node.clock()), identity


def _info(node: Node, gate: Gate) -> GateInfo:
    own = own_receipt(node, gate)
    is_ours = gate.publisher == own_namespace(node)
    receipts = node.store.gates.receipts(gate) if is_ours else []
    return GateInfo(
        reference=name_of(gate),
        gate=gate.leaf.hex(),
        name=gate.name,
        licence=gate.licence,
        per=gate.per,
        approval=gate.approval,
        time=gate.time,
        state="yours" if is_ours else node.access.gates.state(gate, own) if own else "asked",
        receipts=[
            ReceiptInfo(
                str(each.namespace),
                str(each.node) if each.node else None,
                each.time,
                node.access.gates.state(gate, each),
            )
            for each in receipts
            if each.shown_by is not None
        ],
    )
