"""The daemon: a node that serves peers and people until it is told to stop."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import secrets
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import trio

from p2phub.core.encoding import prepare_types
from p2phub.core.errors import Offline
from p2phub.core.names import Address
from p2phub.net.localdoor import bind_local, check_loopback, serve_local
from p2phub.node.compacting import compact_journals, merge_search
from p2phub.node.cosigning import vouch
from p2phub.node.disk import on_disk
from p2phub.node.federatedgrants import keep_grants
from p2phub.node.federationtalk import tend_federations
from p2phub.node.keeping import keep_promises
from p2phub.node.lan import discover
from p2phub.node.mirroring import keep_up
from p2phub.node.names import recheck
from p2phub.node.node import Node, open_node
from p2phub.node.reading import Readings
from p2phub.node.replicate import replicate
from p2phub.node.serve import open_peer_door
from p2phub.node.settings import Settings
from p2phub.node.witness import Witness
from p2phub.store.disk import write_file
from p2phub.store.lazily import make_all

from .alone import only_node
from .control import control_app
from .hub.app import HubDoor
from .local import local_app
from .public import STALL_S, PublicDoor, public_hosts

log = logging.getLogger(__name__)

# Code that is loaded when it is needed, and that a node is asked for most: to fetch, and to look into what came.
LOADED_AHEAD = ("p2phub.node.doing.content", "p2phub.core.pickles")


@dataclass(frozen=True)
class Public:
    """Where the public door is, and by which names it is called."""

    host: str
    port: int
    names: tuple[str, ...] = ()


async def run_daemon(
    settings: Settings,
    *,
    listen: tuple[str, int],
    local: tuple[str, int],
    public: Public | None,
    peers: Sequence[Address],
    ready_file: Path | None,
    ready: Callable[[Node, str, str | None], None],
) -> None:
    """Serve until SIGINT or SIGTERM.

    public: a door for everybody, read-only. ready: called with the node, the URL of the local door and that of
    the public one, if there is one, once all doors answer.
    Raises Offline if the network is switched off, HubError if a daemon of this home runs already; in groups, as
    nurseries do, if a door cannot be opened.
    """
    if settings.offline:
        raise Offline("a node needs the network, which is switched off", hint="unset P2PHUB_OFFLINE")
    check_loopback(local[0])
    names = public_hosts(public.host, public.names) if public else frozenset()
    _allow_many_connections()
    # It may block: nothing else runs yet.
    with only_node(settings.layout):
        async with open_node(settings) as node:
            _load_ahead(node)
            for address in peers:
                await on_disk(node.store.peers.add, address)
            if settings.witness:
                node.witness = await on_disk(Witness.open, settings.layout)
            with contextlib.ExitStack() as listeners:
                here = _bind(listeners, *local)
                there = _bind(listeners, public.host, public.port) if public else None
                async with trio.open_nursery() as nursery:
                    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                        bound = await open_peer_door(node, *listen, nursery)
                        token = await _open_local_door(node, here, nursery)
                        if there is not None:
                            door = PublicDoor(node, Readings(node, nursery, may_fetch=False), names)
                            await nursery.start(partial(serve_local, door, there.listener, stall_s=STALL_S))
                        await on_disk(_announce_here, node, here.endpoint, token, ready_file, listeners)
                        _begin_what_goes_on(node, bound, nursery)
                        ready(node, f"http://{here.endpoint}", f"http://{there.endpoint}" if there else None)
                        async for number in signals:
                            log.info("stopping on %s", signal.Signals(number).name)
                            break
                        nursery.cancel_scope.cancel()


async def _open_local_door(node: Node, here: _Bound, nursery: trio.Nursery) -> str:
    """Serve people and programs of this machine; returns the token of the control API."""
    token = secrets.token_urlsafe(32)
    hosts = frozenset({here.endpoint})
    app = local_app(control_app(node, token, hosts), HubDoor(node, token, hosts, nursery))
    await nursery.start(serve_local, app, here.listener)
    return token


def _begin_what_goes_on(node: Node, bound: tuple[str, int], nursery: trio.Nursery) -> None:
    """Begin all that a node does by itself. bound: where peers reach it."""
    nursery.start_soon(on_disk, node.store.index.refill)
    nursery.start_soon(replicate, node)
    nursery.start_soon(recheck, node)
    nursery.start_soon(vouch, node)
    nursery.start_soon(keep_promises, node)
    nursery.start_soon(tend_federations, node)
    nursery.start_soon(keep_grants, node)
    nursery.start_soon(discover, node, *bound)
    nursery.start_soon(keep_up, node)
    nursery.start_soon(compact_journals, node)
    nursery.start_soon(merge_search, node)


def _load_ahead(node: Node) -> None:
    """Load what who asks first would wait for, and tell msgspec of the types in it before there are threads."""
    make_all(node.store)
    make_all(node)
    for module in LOADED_AHEAD:
        import_module(module)
    prepare_types()


def _allow_many_connections() -> None:
    """Let this process have as many descriptors as it may: most systems give fewer than a node has connections."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _announce_here(
    node: Node, endpoint: str, token: str, ready_file: Path | None, listeners: contextlib.ExitStack
) -> None:
    """Leave word on disk of where this node answers, until `listeners` close; the token only where its owner reads."""
    facts = {
        "node_id": str(node.id),
        "address": node.addresses[0],
        "local_url": f"http://{endpoint}",
        "pid": os.getpid(),
    }
    word = node.settings.layout.daemon
    # One that is there already was left by a node that was killed.
    listeners.callback(_unlink, word)
    write_file(word, json.dumps({**facts, "token": token}).encode(), mode=0o600)
    if ready_file is not None:
        listeners.callback(_unlink, ready_file)
        write_file(ready_file, json.dumps(facts).encode() + b"\n", mode=0o644)


def _unlink(path: Path) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


class _Bound(NamedTuple):
    """A door of HTTP that listens, but is not served yet."""

    listener: socket.socket
    endpoint: str  # host and port


def _bind(listeners: contextlib.ExitStack, host: str, port: int) -> _Bound:
    listener, endpoint = bind_local(host, port)
    listeners.callback(listener.close)
    return _Bound(listener, endpoint)
