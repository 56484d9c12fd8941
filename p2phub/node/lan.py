"""Take up the nodes that are found in the local network (spec/gossip.md §8)."""

from __future__ import annotations

import contextlib
import logging
from ipaddress import ip_address

import trio

from p2phub.core.names import Address
from p2phub.net.lan import Lan

from .disk import on_disk
from .neighbours import contact_of
from .node import Node

log = logging.getLogger(__name__)

FOUND_WAITING_MAX = 64  # found nodes that wait to be taken up; of more, each is found again


async def discover(node: Node, host: str, port: int) -> None:
    """Let nodes of the local network find this one, which serves at `host:port`, and find them; until cancelled.

    Does nothing at an address of this machine alone, and where it cannot be done.
    """
    if not node.settings.lan or is_loopback(host):
        return
    token = trio.lowlevel.current_trio_token()
    # Not size 0: what finds them is another library's thread, and must not wait.
    send, receive = trio.open_memory_channel[Address](FOUND_WAITING_MAX)

    def put(address: Address) -> None:
        try:
            send.send_nowait(address)
        except (trio.WouldBlock, trio.BrokenResourceError):
            log.info("%s was found and is left alone: there are too many", address)

    def found(address: Address) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(put, address)

    try:
        lan = await on_disk(Lan, node.id, host, port, found)
    except Exception as exc:  # of another library, and whatever it says the node works without it
        log.warning("cannot look for nodes in the local network: %s", str(exc) or type(exc).__name__)
        return
    try:
        async for address in receive:
            await take_up(node, address)
    finally:
        with trio.CancelScope(shield=True):
            await on_disk(lan.close)


async def take_up(node: Node, address: Address) -> None:
    """Remember a node that was found, as one of many that may become neighbours."""
    await on_disk(node.store.peers.note_found, address)
    peer = await on_disk(node.store.peers.get, address.node)
    if peer is not None and peer.banned_until <= node.clock():
        node.neighbours.members.know(contact_of(peer), "heard")


def is_loopback(host: str) -> bool:
    """Say whether `host` is an address that only this machine can call."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
