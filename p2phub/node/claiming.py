"""Claim a domain for this home's publisher, and write and check the file for its web server (spec/names.md §6).

id domain ──▶ identity document N+1 claims it ──▶ the file for the web server ──put there by its owner──▶ checked
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from p2phub.core.choices import DOMAIN_NODES_MAX
from p2phub.core.errors import DomainError, InvalidName, PeerError
from p2phub.core.identity import Identity, IdentityDocument
from p2phub.core.names import Address, is_domain, parse_address
from p2phub.core.signing import Signer
from p2phub.core.wellknown import PATH, format_well_known
from p2phub.net.addresses import is_public
from p2phub.store.peers import Peer

from .calling import call_peer
from .disk import on_disk
from .events import Notice, Tell
from .identity import own_identity
from .names import ask_domain, named_nodes
from .node import Node
from .operations.trust import DomainFile, Reason
from .renewing import Change, change_identity, check_not_split
from .verdicts import bad, good, unknown

DOMAINS_MAX = 16  # that a publisher claims; spec/identity.md §1


async def claim_domain(node: Node, domain: str, nodes: Sequence[str], tell: Tell) -> DomainFile:
    """Claim `domain` in this home's identity, and return the file for its web server.

    nodes: addresses that the file names; none: this node's own, if it serves. Raises NotFound if there is no identity,
    AccessDenied if its root keys are not here, InvalidName.
    """
    _check_domain(domain)
    addresses = [parse_address(text) for text in nodes or node.addresses]
    if len(addresses) > DOMAIN_NODES_MAX:
        raise InvalidName(f"{len(addresses)} nodes are too many, the limit is {DOMAIN_NODES_MAX}")

    identity = await _renew(node, claiming(domain))
    if domain not in node.settings.domains_at:
        _tell_addresses(domain, addresses, tell)
    return _file(identity, domain, addresses)


async def drop_domain(node: Node, domain: str) -> DomainFile:
    """Claim `domain` no longer. Raises as `claim_domain`, and NotFound if it is not claimed."""
    _check_domain(domain)
    return _file(await _renew(node, claiming_no_longer(domain)), domain, [])


async def check_domain(node: Node, domain: str) -> list[Reason]:
    """Return what others find who ask for `domain`. Raises NotFound if there is no identity here."""
    _check_domain(domain)
    identity = await on_disk(own_identity, node)
    found = [
        good("claim", f"your identity claims {domain}")
        if domain in identity.current.domains
        else bad("claim", f"your identity does not claim {domain}: `p2phub id domain {domain}` does that")
    ]
    try:
        file = await ask_domain(node, domain)
    except DomainError as exc:
        return [*found, bad("web server", f"{exc}; {exc.hint}" if exc.hint else str(exc))]
    found.append(good("web server", f"https://{domain}{PATH} is there, and {domain} has a certificate"))
    if file.namespace == identity.namespace:
        found.append(good("namespace", f"it names you: {file.namespace}"))
    else:
        found.append(bad("namespace", f"it names {file.namespace}, and you are {identity.namespace}"))
    if not file.nodes:
        found.append(unknown("node", "it names no nodes: only who knows a node that knows you finds you"))
    reachable = {peer.node: peer for peer in await named_nodes(node, domain, file.nodes)}
    for address in file.nodes:
        found.append(await _check_node(node, domain, address, reachable.get(address.node), identity))
    return found


async def _check_node(node: Node, domain: str, address: Address, peer: Peer | None, identity: Identity) -> Reason:
    """Say whether a node that a domain names can tell others that its publisher claims it."""
    about = "node"
    if address.node == node.id:
        is_private = not _may_be_called(address.host) and domain not in node.settings.domains_at
        if is_private:
            return bad(about, f"{address} is this node, at no public address: others do not call it there")
        return unknown(about, f"{address} is this node: whether others reach it there is not seen from here")
    if peer is None:
        return bad(about, f"{address} is not to be found, or at no public address: others do not call it")
    try:
        async with call_peer(node, peer) as client:
            chain = (await client.identities([identity.namespace]))[0]
    except PeerError as exc:
        return bad(about, f"{address} does not answer: {exc}")
    if chain is None:
        return bad(about, f"{address} does not know you: `p2phub peers add {address}` lets it hear of you")
    if len(chain.documents) < len(identity.chain):
        return bad(about, f"{address} has an older document of yours, and will have the newest once it hears of it")
    return good(about, f"{address} answers, and knows you")


def _check_domain(domain: str) -> None:
    if not is_domain(domain):
        raise InvalidName(f"'{domain}' is no domain such as lab.example")


def _tell_addresses(domain: str, addresses: Sequence[Address], tell: Tell) -> None:
    if not addresses:
        tell(Notice("no node runs here, so the file names none: give the addresses of yours with --node"))
    for address in addresses:
        if not _may_be_called(address.host):
            tell(Notice(f"{address} is at no public address: others who ask {domain} will not call it"))


def _may_be_called(host: str) -> bool:
    """Say whether others may call `host`, as far as its text shows: a name may lead to any address."""
    try:
        return is_public(host)
    except ValueError:
        return True


def _file(identity: Identity, domain: str, addresses: Sequence[Address]) -> DomainFile:
    return DomainFile(
        domain=domain,
        namespace=str(identity.namespace),
        url=f"https://{domain}{PATH}",
        text=format_well_known(identity.namespace, addresses),
        version=identity.current.version,
        claimed=domain in identity.current.domains,
    )


def claim_locally(node: Node, domain: str, drop: bool, extra: Iterable[Signer]) -> Identity:
    """Claim `domain`, or no longer, without telling others. Raises as `change_identity` and `claim_domain`."""
    _check_domain(domain)
    change = claiming_no_longer(domain) if drop else claiming(domain)
    return _sign(node, change, extra)


def claiming(domain: str) -> Change:
    """Return the change of a document that claims `domain`. It raises InvalidName if there are too many."""

    def add(document: IdentityDocument) -> IdentityDocument:
        domains = tuple(sorted({*document.domains, domain}))
        if len(domains) > DOMAINS_MAX:
            raise InvalidName(f"{len(domains)} domains are too many for one publisher, the limit is {DOMAINS_MAX}")
        return replace(document, domains=domains)

    return add


def claiming_no_longer(domain: str) -> Change:
    """Return the change of a document that claims `domain` no longer. It raises InvalidName if it does not."""

    def remove(document: IdentityDocument) -> IdentityDocument:
        if domain not in document.domains:
            raise InvalidName(f"this publisher does not claim {domain}")
        return replace(document, domains=tuple(each for each in document.domains if each != domain))

    return remove


async def _renew(node: Node, change: Change) -> Identity:
    """Sign a next document with what `change` makes of the one that counts, unless it is the same."""
    identity = await on_disk(_sign, node, change)
    for log in identity.logs:
        node.note_news(log, 0)
    return identity


def _sign(node: Node, change: Change, extra: Iterable[Signer] = ()) -> Identity:
    identity = own_identity(node)
    if change(identity.current) == identity.current:
        return identity
    check_not_split(node)
    return change_identity(node, change, extra=extra)
