"""Claim a domain for this home's publisher, and write and check the file for its web server (spec/names.md §6).

id domain ──▶ identity document N+1 claims it ──▶ the file for the web server ──put there by its owner──▶ checked
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from blake3 import blake3
from msgspec.structs import replace

from p2phub.core.choices import DOMAIN_NODES_MAX
from p2phub.core.encoding import encode
from p2phub.core.errors import AccessDenied, DomainError, InvalidName
from p2phub.core.identity import Identity, IdentityDocument, open_identity, sign_document
from p2phub.core.names import Address, is_domain, parse_address
from p2phub.core.wellknown import PATH, format_well_known
from p2phub.net.addresses import is_public
from p2phub.protocol.messages import IdentityChain
from p2phub.store.disk import write_file
from p2phub.store.keys import load_key

from .disk import on_disk
from .events import Notice, Tell
from .identity import own_identity
from .names import ask_domain
from .node import Node
from .results import DomainFile, Reason

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

    def add(document: IdentityDocument) -> IdentityDocument:
        domains = tuple(sorted({*document.domains, domain}))
        if len(domains) > DOMAINS_MAX:
            raise InvalidName(f"{len(domains)} domains are too many for one publisher, the limit is {DOMAINS_MAX}")
        return replace(document, domains=domains)

    identity = await _renew(node, add)
    _tell_addresses(domain, addresses, tell)
    return _file(identity, domain, addresses)


async def drop_domain(node: Node, domain: str) -> DomainFile:
    """Claim `domain` no longer. Raises as `claim_domain`, and NotFound if it is not claimed."""
    _check_domain(domain)

    def remove(document: IdentityDocument) -> IdentityDocument:
        if domain not in document.domains:
            raise InvalidName(f"this publisher does not claim {domain}")
        return replace(document, domains=tuple(name for name in document.domains if name != domain))

    return _file(await _renew(node, remove), domain, [])


async def check_domain(node: Node, domain: str) -> list[Reason]:
    """Return what others find who ask for `domain`. Raises NotFound if there is no identity here."""
    _check_domain(domain)
    identity = await on_disk(own_identity, node)
    found = [
        Reason("claim", "good", f"your identity claims {domain}")
        if domain in identity.current.domains
        else Reason("claim", "bad", f"your identity does not claim {domain}: `p2phub id domain {domain}` does that")
    ]
    try:
        file = await ask_domain(node, domain)
    except DomainError as exc:
        return [*found, Reason("web server", "bad", f"{exc}; {exc.hint}" if exc.hint else str(exc))]
    found.append(Reason("web server", "good", f"https://{domain}{PATH} is there, and {domain} has a certificate"))
    if file.namespace == identity.namespace:
        found.append(Reason("namespace", "good", f"it names you: {file.namespace}"))
    else:
        found.append(Reason("namespace", "bad", f"it names {file.namespace}, and you are {identity.namespace}"))
    if not file.nodes:
        found.append(Reason("nodes", "unknown", "it names no nodes: only who knows a node that knows you finds you"))
    for address in file.nodes:
        if not _may_be_called(address.host) and domain not in node.settings.domains_at:
            found.append(Reason("nodes", "bad", f"{address} is at no public address: nobody else calls it"))
        else:
            found.append(Reason("nodes", "good", f"it names {address}"))
    return found


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


async def _renew(node: Node, change: Callable[[IdentityDocument], IdentityDocument]) -> Identity:
    """Sign a next document with what `change` makes of the one that counts, unless it is the same."""
    identity = await on_disk(_sign, node, change)
    for log in identity.logs:
        node.note_news(log, 0)
    return identity


def _sign(node: Node, change: Callable[[IdentityDocument], IdentityDocument]) -> Identity:
    identity = own_identity(node)
    changed = change(identity.current)
    if changed == identity.current:
        return identity
    key = load_key(node.settings.layout.keys / "publish.key")
    roots = identity.current.root
    if key.public_key not in roots.keys or roots.threshold > 1:
        raise AccessDenied("the root keys of this identity are not here, and they have to sign what it claims")
    document = replace(
        changed,
        version=identity.current.version + 1,
        created=int(node.clock()),
        previous=blake3(identity.chain[-1].document).digest(),
    )
    renewed = open_identity((*identity.chain, sign_document(document, [key])))
    write_file(node.settings.layout.own_identity, encode(IdentityChain(renewed.chain)), mode=0o644)
    node.store.logs.add_identity(renewed, own=True)
    return renewed
