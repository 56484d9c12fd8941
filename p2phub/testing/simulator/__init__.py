"""The real code of nodes on a simulated network, with virtual time and seeded chance (spec/simulation.md).

scenarios ──▶ World ──▶ SimulatedNode ──▶ open_node, open_peer_door, replicate: the real code
                │              │
                ▼              ▼
             Network ◀── VirtualSocket: what trio gives it for a socket
"""

from .network import Weather
from .nodes import SimulatedNode
from .trace import Trace
from .world import World, simulate

__all__ = ["SimulatedNode", "Trace", "Weather", "World", "simulate"]
