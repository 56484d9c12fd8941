"""Do what operations about who has and gives a repository say."""

from __future__ import annotations

from .. import whohas
from ..events import Tell
from ..explain import swarm_info
from ..handlers import Handlers
from ..node import Node
from ..operations.swarm import ExplainSwarm, ListProviders, Providers, SwarmInfo


async def _swarm(node: Node, op: ExplainSwarm, tell: Tell) -> SwarmInfo:
    return await swarm_info(node, op.reference, tell)


async def _providers(node: Node, op: ListProviders, tell: Tell) -> Providers:
    return await whohas.providers(node, op.reference, tell)


HANDLERS: Handlers = {
    ExplainSwarm: _swarm,
    ListProviders: _providers,
}
