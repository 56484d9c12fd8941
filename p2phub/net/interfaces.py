"""The networks that this machine is on."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import ifaddr

from p2phub.core.links import IPNetwork


def own_subnets() -> list[IPNetwork]:
    """Return the subnets of this machine's interfaces, without those of a single address."""
    found = []
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            address = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            network = ip_network(f"{address.partition('%')[0]}/{ip.network_prefix}", strict=False)
            if network.num_addresses > 1:
                found.append(network)
    return found


def own_addresses() -> list[str]:
    """Return the addresses of this machine's interfaces, without loopback and IPv6 link-local ones."""
    found = []
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            address = ip_address((ip.ip if isinstance(ip.ip, str) else ip.ip[0]).partition("%")[0])
            if not address.is_loopback and not (address.version == 6 and address.is_link_local):
                found.append(str(address))
    return found
