"""Find other nodes in the local network by multicast DNS, and be found (spec/gossip.md §8).

What comes is a hint: anybody in the network can send it. Whoever answers at the address
has to prove the node id like everybody else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from ipaddress import ip_address, ip_network

from zeroconf import InterfaceChoice, ServiceBrowser, ServiceInfo, ServiceStateChange, Zeroconf

from p2phub.core.errors import InvalidName
from p2phub.core.ids import NodeId
from p2phub.core.names import Address

from .interfaces import own_addresses, own_subnets

log = logging.getLogger(__name__)

SERVICE = "_p2phub._tcp.local."  # spec/gossip.md §8
FOUND_MAX = 256  # nodes that are told of; a flood of names is no reason to call everybody
INFO_TIMEOUT_MS = 3000
_LINK_LOCAL = (ip_network("169.254.0.0/16"), ip_network("fe80::/10"))


class Lan:
    """One node's presence in the local network, until it is closed. Opening and closing take a second or two."""

    def __init__(self, node: NodeId, host: str, port: int, found: Callable[[Address], None]) -> None:
        """Say that `node` serves at `host:port`, and call `found`, in another thread, for each other node.

        Raises OSError if there is no network to do so.
        """
        self._node = node
        self._found = found
        self._told: set[Address] = set()
        everywhere = host in ("0.0.0.0", "::")
        addresses = own_addresses() if everywhere else [host]
        self._zeroconf = Zeroconf(interfaces=InterfaceChoice.All if everywhere else [host])
        try:
            name = f"{node}.{SERVICE}"
            info = ServiceInfo(
                SERVICE, name, port=port, parsed_addresses=addresses, server=f"{node}.local.", properties={"v": "1"}
            )
            self._zeroconf.register_service(info)
            self._browser = ServiceBrowser(self._zeroconf, SERVICE, handlers=[self._changed])
        except BaseException:
            self._zeroconf.close()
            raise

    def close(self) -> None:
        """Say that the node is gone, and stop looking."""
        self._browser.cancel()
        self._zeroconf.close()

    def _changed(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        if state_change is ServiceStateChange.Removed or len(self._told) >= FOUND_MAX:
            return
        info = zeroconf.get_service_info(service_type, name, INFO_TIMEOUT_MS)
        if info is None or not info.port:
            return
        try:
            node = NodeId.parse(name.partition(".")[0].lower())
        except InvalidName:
            return
        for host in near(info.parsed_scoped_addresses()):
            address = Address(node, host, info.port)
            if node != self._node and address not in self._told:
                self._told.add(address)
                log.info("found %s in the local network", address)
                self._found(address)


def near(addresses: Iterable[str]) -> list[str]:
    """Return those of `addresses` that are in a network of this machine: others could be anybody's."""
    subnets = [*own_subnets(), *_LINK_LOCAL]
    found = []
    for text in addresses:
        address = ip_address(text.partition("%")[0])
        if any(address.version == subnet.version and address in subnet for subnet in subnets):
            found.append(text)
    return found
