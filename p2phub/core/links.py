"""Tell links by what they cost (spec/links.md §1).

    address, labels, rules of this node ──classify──▶ lan │ site │ federation │ internet

What a peer says of itself (its labels) only chooses which of our limits it falls under.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from .choices import LinkClass
from .errors import InvalidName
from .labels import Labels
from .limits import LinkSettings, RangeRule

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

# Of IPv4 and IPv6: addresses that mean something within one organisation only.
_PRIVATE = tuple(
    ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)  # fmt: skip


def parse_range(text: str) -> IPNetwork:
    """Return the address range that `text` writes: CIDR, or one address. Raises InvalidName."""
    try:
        return ip_network(text.strip())
    except ValueError as exc:
        wrong = "has bits set behind its length" if "host bits" in str(exc) else "is no range such as 10.8.0.0/16"
        raise InvalidName(f"'{text}' {wrong}") from exc


def parse_ip(text: str) -> IPAddress | None:
    """Return the address that `text` writes, None if it is a name. An IPv4 address in IPv6 form is taken for itself."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def classify(
    address: IPAddress | None,
    labels: Labels,
    *,
    own: Labels,
    subnets: Iterable[IPNetwork],
    rules: LinkSettings,
    agreed: LinkClass | None = None,
) -> LinkClass:
    """Return the class of the link to a peer; spec/links.md §1.

    address: where it is, None if that is not known. labels: what its record claims.
    own: this node's labels. subnets: those of this machine's interfaces.
    agreed: the class that members of a federation agreed on, if it acts for another one.
    """
    if address is not None and (ruled := _by_range(address, rules.ranges)):
        return ruled
    for label in (labels.cluster, labels.site):
        for rule in rules.labels:
            if rule.label == label:
                return rule.link
    if own.cluster is not None and labels.cluster == own.cluster:
        return "lan"
    if own.site is not None and labels.site == own.site:
        return "site"
    if address and (address.is_loopback or address.is_link_local or any(_is_in(address, each) for each in subnets)):
        return "lan"
    if agreed is not None:
        return agreed
    if address is None:
        return "internet"
    return "site" if any(_is_in(address, network) for network in _PRIVATE) else "internet"


def network_of(host: str, *, bits_v4: int, bits_v6: int) -> str | None:
    """Return the network of so many bits that a public address is in, None for an address of one organisation.

    Whoever has one address of it is likely to have many; spec/gossip.md §2. A name stands for itself.
    """
    address = parse_ip(host.partition("%")[0])
    if address is None:
        return f"name:{host.lower()}"
    if not address.is_global or address.is_multicast:
        return None
    return str(ip_network((int(address), bits_v4 if address.version == 4 else bits_v6), strict=False))


def _by_range(address: IPAddress, rules: Iterable[RangeRule]) -> LinkClass | None:
    matches = [(network.prefixlen, rule.link) for rule in rules if _is_in(address, network := ip_network(rule.range))]
    return max(matches)[1] if matches else None


def _is_in(address: IPAddress, network: IPNetwork) -> bool:
    return address.version == network.version and address in network
