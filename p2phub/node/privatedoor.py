"""What the peer door answers about private logs (spec/private.md §7): to each caller those that he may read."""

from __future__ import annotations

from p2phub.core.access import Caller
from p2phub.protocol.messages import Records, RecordsQuery
from p2phub.protocol.privatetalk import ACTS_MAX, PRIVATE_HEADS_MAX, PrivateHeads, PrivateHeadsQuery

from .introduce import delegations_of
from .maps import records_of
from .node import Node
from .privatelogs import note_caller


def private_heads(node: Node, caller: Caller, query: PrivateHeadsQuery) -> PrivateHeads:
    """Return the private logs that `caller` may read."""
    note_caller(node, caller)
    readable = node.access.private.readable(caller)
    found = [each for each in node.store.private.logs(readable) if each.state.log > (query.after or b"")]
    return PrivateHeads(
        tuple(each.told for each in found[:PRIVATE_HEADS_MAX]),
        more=len(found) > PRIVATE_HEADS_MAX,
        acts=tuple(delegations_of(node)[:ACTS_MAX]),
    )


def private_records(node: Node, caller: Caller, query: RecordsQuery) -> Records:
    """Return the entries that are here of the first ranges, of logs that `caller` may read; of others none."""
    readable = {each.state.log for each in node.store.private.logs(node.access.private.readable(caller))}
    return records_of(node.store, query, private=readable)
