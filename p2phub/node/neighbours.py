"""What a node keeps in memory of its neighbours: the machines of membership and gossip, and what waits for them."""

from __future__ import annotations

import random

import trio
from msgspec import Struct

from p2phub.core.ids import LogId, NodeId
from p2phub.core.links import network_of
from p2phub.protocol.gossip import Gossip
from p2phub.protocol.membership import Contact, Membership
from p2phub.protocol.tokens import Allowance, Tokens
from p2phub.store.peers import Peer

NEWS_MAX = 10_000  # logs that changed here and that nobody was told of yet; pulls bring the rest
# What others may cost this node; spec/gossip.md §6.
TALKS_OF_NODE = Allowance(burst=60, rate=10.0)  # messages
TALKS_OF_NETWORK = Allowance(burst=600, rate=100.0)  # messages
QUERIES_OF_NETWORK = Allowance(burst=2000, rate=200.0)  # of all kinds but for content, from public addresses
NEW_LOGS_OF_NODE = Allowance(burst=100, rate=5.0)  # logs never heard of before
NEW_LOGS_OF_NETWORK = Allowance(burst=300, rate=15.0)
PRIVATE_NEWS_OF_NODE = Allowance(burst=6000, rate=100.0)  # entries, and one more for each message
PRIVATE_NEWS_OF_NETWORK = Allowance(burst=20_000, rate=500.0)


class News(Struct):
    """A log that came further here."""

    start: int  # records that were here before
    source: NodeId | None  # the neighbour that brought it


class Limits:
    """What those who talk to this node have left."""

    def __init__(self) -> None:
        self.nodes = Tokens(TALKS_OF_NODE)
        self.networks = Tokens(TALKS_OF_NETWORK)
        self.queries = Tokens(QUERIES_OF_NETWORK)
        self.new_logs = Tokens(NEW_LOGS_OF_NODE)
        self.new_logs_of_network = Tokens(NEW_LOGS_OF_NETWORK)
        self.private_news = Tokens(PRIVATE_NEWS_OF_NODE)
        self.private_news_of_network = Tokens(PRIVATE_NEWS_OF_NETWORK)

    def may_begin_log(self, node: NodeId, host: str) -> bool:
        """Say whether a node at `host` may bring a log that was never heard of: anybody can make any number of keys."""
        now = trio.current_time()
        return self.new_logs.left(node, now) >= 1 and self.new_logs_of_network.left(cost_network(host), now) >= 1

    def count_new_logs(self, node: NodeId, host: str, count: int) -> None:
        """Count logs that a node at `host` brought and that were never heard of."""
        now = trio.current_time()
        self.new_logs.take(node, count, now)
        self.new_logs_of_network.take(cost_network(host), count, now)

    def wait_for_private_news_s(self, node: NodeId, host: str, cost: int) -> float:
        """Count what a node tells of private logs; returns 0, or the seconds to wait if it tells too much.

        cost: entries, and one more for the message.
        """
        now = trio.current_time()
        wait_s = self.private_news_of_network.take(cost_network(host), cost, now)
        return wait_s or self.private_news.take(node, cost, now)

    def wait_s(self, host: str) -> float:
        """Count a query from `host`; returns 0, or the seconds to wait if its network asks too much."""
        network = network_of(host, bits_v4=24, bits_v6=48)
        # Who asks from an organisation's own network is one of its nodes, and a cluster asks much.
        return 0.0 if network is None else self.queries.take(network, 1, trio.current_time())


class Neighbours:
    """Whom one node keeps in touch with. Used from trio's thread."""

    def __init__(self, own: NodeId, rng: random.Random) -> None:
        self.members = Membership(own, rng, trio.current_time())
        self.gossip = Gossip(rng)
        self.limits = Limits()
        self.is_running = False  # news is told
        self.news: dict[LogId, News] = {}
        self.taking: set[bytes] = set()  # heads that came and are being verified
        self.behind: dict[NodeId, None] = {}  # neighbours that have more than they could send
        self.seen: dict[NodeId, float] = {}  # when it was last noted on disk that a peer answered
        self.inventories: dict[NodeId, float] = {}  # when a peer was asked what it has
        self.own_log: LogId | None = None
        self.woken = trio.Event()

    def wake(self) -> None:
        """Let whoever waits for news look."""
        self.woken.set()
        self.woken = trio.Event()

    def note_news(self, log: LogId, start: int, source: NodeId | None) -> None:
        """Note that a log came further, from `start` records on."""
        if not self.is_running:
            return
        if old := self.news.get(log):
            source = source if source == old.source else None
            start = min(start, old.start)
        elif len(self.news) >= NEWS_MAX:
            return
        self.news[log] = News(start, source)
        self.wake()

    def note_behind(self, node: NodeId) -> None:
        """Note that a neighbour has more than it could send."""
        self.behind[node] = None
        self.wake()

    def forget(self, node: NodeId) -> None:
        """Let go of a peer altogether."""
        self.members.forget(node)
        self.behind.pop(node, None)
        self.seen.pop(node, None)
        self.update_links()

    def update_links(self) -> None:
        """Let news go to those who are neighbours now."""
        self.gossip.set_neighbours(self.members.active)
        self.wake()


def contact_of(peer: Peer) -> Contact:
    """Return a peer as the machine of membership takes it."""
    return Contact(peer.node, slot_network(peer.endpoints[0][0]) if peer.endpoints else None)


def slot_network(host: str) -> str | None:
    """Return the network of which few may be neighbours; spec/gossip.md §2."""
    return network_of(host, bits_v4=16, bits_v6=32)


def cost_network(host: str) -> str:
    """Return the network whose callers share what they may cost; spec/gossip.md §6."""
    return network_of(host, bits_v4=24, bits_v6=48) or host
