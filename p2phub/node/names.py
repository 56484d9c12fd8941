"""From a name to a publisher: petnames, and domains that are asked, believed once, and watched (spec/names.md §6–§8).

    domain ──.well-known──▶ namespace, nodes ──identity documents──▶ claims the domain back? ──▶ pinned
    pinned ──asked again now and then──▶ the same │ silent: a warning │ another publisher: BindingChanged

A domain can only say which publisher it means; the publisher's own document has to say the same. What a
domain meant first it means until a person accepts another publisher.
"""

from __future__ import annotations

import logging

import trio
from msgspec import Struct
from msgspec.structs import replace

from p2phub.core.choices import BindingHow
from p2phub.core.errors import (
    BindingChanged,
    DomainError,
    HubError,
    InvalidData,
    NotFound,
    Offline,
)
from p2phub.core.identity import Identity
from p2phub.core.ids import NamespaceId, misspelling
from p2phub.core.names import Address, check_namespace, is_domain, is_namespace_id
from p2phub.core.wellknown import WellKnown, parse_well_known
from p2phub.net.addresses import is_public, resolve
from p2phub.net.peerclient import PeerClient
from p2phub.net.threads import run_abortable
from p2phub.store.bindings import Binding
from p2phub.store.peers import Peer

from .asking import ask_in_turn
from .calling import usable_peers
from .disk import on_disk
from .events import Notice, Tell
from .identity import has_identity, own_identity
from .lookalikes import name_warnings
from .node import Node
from .publishers import learn_identities

log = logging.getLogger(__name__)

CHECKED_S = 3600.0  # seconds that the word of a domain is good for when a name is resolved; spec/names.md §8
RECHECK_S = 24 * 3600.0  # seconds between questions of a node about each domain; spec/names.md §8
RECHECK_TICK_S = 600.0  # seconds between looks whether one is due
AGAIN_S = 3.0  # seconds that somebody who resolves a pinned name waits for its domain
NODE_RESOLVE_S = 5.0  # seconds until the name of a domain's node is resolved


class Proof(Struct, frozen=True):
    """A domain and a publisher that say the same of each other."""

    namespace: NamespaceId
    nodes: tuple[Address, ...]
    identity: Identity


async def find(node: Node, name: str, tell: Tell) -> NamespaceId:
    """Return the publisher that `name` means: a namespace id, a petname, or a domain.

    A domain that was never used before is asked and pinned, if there is a network; one that is pinned is asked again
    after a while. Raises InvalidName, NotFound, DomainError, BindingChanged, Offline.
    """
    if is_namespace_id(name):
        return NamespaceId.parse(name)
    check_namespace(name)
    binding = await on_disk(node.store.bindings.get, name)
    if binding is None and not is_domain(name):
        raise NotFound(
            f"no publisher is known here by the name '{name}'",
            hint=misspelling(name)
            or f"`p2phub trust add {name}=NAMESPACE` gives a publisher this name on this machine",
        )
    if binding is None:
        binding = await _first_use(node, name, tell)
    elif binding.is_domain:
        binding = await _again(node, binding, tell)
    return meaning(binding)


def find_public(node: Node, name: str) -> NamespaceId:
    """Return the publisher that `name` means to everybody: an id, or a domain that is pinned here and that he claims.

    Nobody is asked, nothing is pinned, and the names that the owner gave are his own. Raises NotFound, InvalidName.
    """
    if is_namespace_id(name):
        return NamespaceId.parse(name)
    check_namespace(name)
    binding = node.store.bindings.get(name) if is_domain(name) else None
    if binding is None or binding.offered is not None or not _claims(node, binding.namespace, name):
        raise NotFound(f"no publisher is known here by the name '{name}'", hint=misspelling(name))
    return binding.namespace


async def find_alone(node: Node, text: str, tell: Tell) -> NamespaceId | None:
    """Return the publisher that a single word means: an id, a pinned name, or a domain; None: a model of one's own.

    Raises as `find`.
    """
    if is_namespace_id(text):
        return NamespaceId.parse(text)
    return await find(node, text, tell) if await on_disk(_names_publisher, node, text) else None


def _names_publisher(node: Node, word: str) -> bool:
    """Say whether a single word is the name of a publisher rather than that of a model of one's own."""
    if node.store.bindings.get(word) is not None:
        return True
    if not is_domain(word):
        return False
    # Models may have dots in their names, too.
    return not has_identity(node) or node.store.catalogue.kind(own_identity(node).namespace, word) is None


async def _first_use(node: Node, domain: str, tell: Tell) -> Binding:
    if node.settings.offline:
        raise Offline(f"{domain} was not used here before, and it cannot be asked: the network is switched off")
    async with node.naming.one_at_a_time(domain):
        # Who waited takes what the other one found.
        if binding := await on_disk(node.store.bindings.get, domain):
            return binding
        if failure := node.naming.failure(domain):
            raise failure
        try:
            binding = await pin(node, domain, "first use", tell)
        except HubError as exc:
            node.naming.note_failure(domain, exc)
            raise
        tell(Notice(f"{domain} means {binding.namespace} from now on: it was used for the first time"))
        return binding


async def _again(node: Node, binding: Binding, tell: Tell) -> Binding:
    """Ask a domain again, if that is due; returns what is known then."""
    if node.settings.offline or not is_due(binding, node.clock(), CHECKED_S):
        return binding
    async with node.naming.one_at_a_time(binding.name):
        with trio.move_on_after(AGAIN_S):
            return await check_again(node, binding, tell)
    problem = f"{binding.name} did not answer within {AGAIN_S:.0f} s"
    await on_disk(node.store.bindings.note_problem, binding.name, problem, now=node.clock())
    _tell_problem(binding, problem, tell)
    return binding


def with_ids(node: Node, text: str) -> str:
    """Return words to search for with namespace ids for pinned names: of `NAME/…`, and of a domain alone."""

    def id_for(word: str) -> str:
        name, slash, rest = word.partition("/")
        binding = node.store.bindings.get(name.lower()) if slash or "." in name else None
        return f"{binding.namespace} {rest}" if binding and binding.offered is None else word

    return " ".join(id_for(word) for word in text.split())


def meaning(binding: Binding) -> NamespaceId:
    """Return what a name means. Raises BindingChanged if its domain names another publisher since."""
    if binding.offered is None:
        return binding.namespace
    raise BindingChanged(
        f"{binding.name} names another publisher than before: {binding.offered}, and not {binding.namespace}",
        hint=f"ask its owner by another way whether that is meant; `p2phub trust accept {binding.name}` accepts it, "
        f"and {binding.namespace}/… still names the old one",
    )


def is_due(binding: Binding, now: float, age_s: float) -> bool:
    """Say whether a domain was not asked for `age_s` seconds."""
    return abs(now - (binding.tried or 0)) >= age_s


async def pin(node: Node, domain: str, how: BindingHow, tell: Tell) -> Binding:
    """Ask a domain, and let it mean the publisher that it names from now on, unless it means one already."""
    proof = await prove(node, domain, tell)
    await warn(node, domain, proof.namespace, tell)
    return await on_disk(node.store.bindings.pin, domain, proof.namespace, how, now=node.clock(), checked=True)


async def warn(node: Node, name: str, namespace: NamespaceId, tell: Tell) -> None:
    """Tell which names that mean other publishers a new one could be taken for."""
    for text in await on_disk(name_warnings, node, name, namespace):
        tell(Notice(f"take care: {text}"))


async def check_again(node: Node, binding: Binding, tell: Tell) -> Binding:
    """Ask a pinned domain whether it still means the same, and note what it says; returns what is known then."""
    bindings, name = node.store.bindings, binding.name
    try:
        file = await ask_domain(node, name)
        if file.namespace == binding.namespace:
            await on_disk(bindings.note_checked, name, now=node.clock())
            await _tell_lost_claim(node, binding, tell)
        else:
            await on_disk(bindings.note_offered, name, file.namespace, now=node.clock())
            log.warning("%s names another publisher than before: %s", name, file.namespace)
    except DomainError as exc:
        # What a domain said once does not depend on its web server being up.
        await on_disk(bindings.note_problem, name, str(exc), now=node.clock())
        _tell_problem(binding, str(exc), tell)
    return await on_disk(bindings.get, name) or binding


async def _tell_lost_claim(node: Node, binding: Binding, tell: Tell) -> None:
    """Tell if the publisher of a pinned domain does not claim it any more, by the document that is here."""
    identity = await on_disk(node.store.logs.identity, binding.namespace)
    if identity is not None and binding.name not in identity.current.domains:
        problem = f"{binding.namespace} does not claim {binding.name} any more"
        await on_disk(node.store.bindings.note_problem, binding.name, problem, now=node.clock())
        _tell_problem(binding, problem, tell)


def _tell_problem(binding: Binding, problem: str, tell: Tell) -> None:
    tell(Notice(f"{problem}; {binding.name} still means {binding.namespace}, to which it was pinned"))


async def recheck(node: Node) -> None:
    """Ask each domain that is pinned once a day; runs until cancelled."""
    while True:
        for binding in await on_disk(node.store.bindings.all):
            if binding.is_domain and is_due(binding, node.clock(), RECHECK_S):
                await check_again(node, binding, lambda event: log.warning("%s", getattr(event, "text", event)))
        await trio.sleep(RECHECK_TICK_S)


# ── asking ──────────────────────────────────────────────────────────────────


async def ask_domain(node: Node, domain: str) -> WellKnown:
    """Return what a domain says. Raises DomainError."""
    from p2phub.net.wellknown import WellKnownRequest  # loads an HTTP client, which few commands need

    request = WellKnownRequest(domain, node.settings.domains_at)
    found: list[bytes] = []
    await run_abortable(lambda: found.append(request.fetch()), request.abort, trio.CapacityLimiter(1))
    try:
        return parse_well_known(found[0])
    except InvalidData as exc:
        raise DomainError(f"{domain} cannot be believed: its /.well-known/p2phub.json {exc}") from exc


async def prove(node: Node, domain: str, tell: Tell) -> Proof:
    """Return the publisher that `domain` names and that claims it back. Raises DomainError."""
    file = await ask_domain(node, domain)
    identity = await _find_claim(node, domain, file, tell)
    return Proof(file.namespace, file.nodes, identity)


async def _find_claim(node: Node, domain: str, file: WellKnown, tell: Tell) -> Identity:
    """Return the publisher's identity, which claims `domain`. Raises DomainError if none that anybody knows does."""
    known = await on_disk(node.store.logs.identity, file.namespace)
    if known is not None and domain in known.current.domains:
        return known
    named = {peer.node: peer for peer in await named_nodes(node, domain, file.nodes)}
    peers = [*named.values(), *(peer for peer in await on_disk(usable_peers, node) if peer.node not in named)]

    async def ask(client: PeerClient) -> bool:
        if not await learn_identities(node, client, [file.namespace]):
            return False
        if client.node in named:
            # So that what its publisher publishes can be fetched, too.
            await on_disk(node.store.peers.note_found, Address(client.node, client.host, client.port))
        return await on_disk(_claims, node, file.namespace, domain)

    reasons = await ask_in_turn(node, peers, ask, tell, what=f"the publisher {file.namespace}")
    # Not what the last one said: of all documents the newest counts, and it may have dropped the claim.
    identity = await on_disk(node.store.logs.identity, file.namespace)
    if identity is not None and domain in identity.current.domains:
        return identity
    if identity is not None:
        raise DomainError(
            f"{domain} names the publisher {file.namespace}, which does not claim {domain}",
            hint=f"its owner does so with `p2phub id domain {domain}`; until then the one may not know of the other",
        )
    why = f": {reasons[0]}" if reasons else ""
    raise DomainError(
        f"{domain} names the publisher {file.namespace}, and nobody who could be asked knows it{why}",
        hint="add a peer that does: p2phub peers add p2phub://NODEID@HOST:PORT",
    )


def _claims(node: Node, namespace: NamespaceId, domain: str) -> bool:
    identity = node.store.logs.identity(namespace)
    return identity is not None and domain in identity.current.domains


async def named_nodes(node: Node, domain: str, addresses: tuple[Address, ...]) -> list[Peer]:
    """Return the nodes that a domain names, as far as they are where everybody may be sent.

    Their names are resolved here, and they are called by address: a name could lead elsewhere a moment later.
    """
    anywhere = domain in node.settings.domains_at
    found: dict[Address, list[str]] = {}

    async def look_up(address: Address) -> None:
        try:
            found[address] = await trio.to_thread.run_sync(
                resolve,
                address.host,
                address.port,
                lambda done: done.wait(NODE_RESOLVE_S),
                abandon_on_cancel=True,
                limiter=trio.CapacityLimiter(1),
            )
        except OSError as exc:
            log.info("a node of %s is not to be found: %s", domain, exc)

    async with trio.open_nursery() as nursery:
        for address in addresses:
            if address.node != node.id:
                nursery.start_soon(look_up, address)
    peers = []
    for address in addresses:
        places = found.get(address, [])
        known = await on_disk(node.store.peers.get, address.node)
        is_banned = known is not None and known.banned_until > node.clock()
        if places and not is_banned and (anywhere or all(is_public(place) for place in places)):
            peers.append(_peer(address, places, known))
    return peers


def _peer(address: Address, places: list[str], known: Peer | None) -> Peer:
    """Return a node that a domain names, at IP addresses, as a peer to be called."""
    endpoints = tuple((place, address.port) for place in places)
    if known is not None:
        return replace(known, endpoints=endpoints + known.endpoints)
    return Peer(
        node=address.node,
        endpoints=endpoints,
        record=None,
        added=False,
        last_seen=None,
        last_error=None,
        failures=0,
        next_try=0,
        received=0,
        bans=0,
        banned_until=0,
        ban_reason=None,
        skews=0,
        skew=None,
    )
