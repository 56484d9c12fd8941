"""Walk with one peer through one map, to where it differs (spec/replication.md §2).

    own map ──prefixes──▶ deeper where the peer has something else ──▶ buckets to ask for ──▶ what is left of them

`protocol/reconcile` decides where the walk goes; here it asks, and checks that answers are to what was asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from blake3 import blake3
from msgspec.structs import replace

from p2phub.core.errors import InvalidData, PeerViolation
from p2phub.core.fingerprints import SALT_SIZE, range_of
from p2phub.net.peerclient import PeerClient
from p2phub.protocol.messages import Bucket, MapAnswer, MapQuery, ReconcileQuery
from p2phub.protocol.reconcile import HAVE_MAX, Walk
from p2phub.store.digests import Digests

from .disk import on_disk
from .maps import have_of
from .node import Node


async def compare_roots(node: Node, client: PeerClient) -> tuple[Comparison | None, Comparison | None]:
    """Ask in one question whether the maps of nodes and of logs are the peer's; returns what to go on with.

    None stands for a map that is the same.
    """
    # Hashed, so that salts tell nobody of the next ones.
    salt = blake3(node.rng.randbytes(SALT_SIZE)).digest(SALT_SIZE)
    nodes = Comparison(node.store.node_digests, client, Walk(salt), of_nodes=True)
    logs = Comparison(node.store.log_digests, client, Walk(salt), of_nodes=False)
    own_nodes, own_logs = await on_disk(_roots, node)
    query = ReconcileQuery(salt, MapQuery(own_logs, logs.walk.question()), MapQuery(own_nodes, nodes.walk.question()))
    answer = await client.reconcile(query)
    return await _begun(nodes, own_nodes, answer.nodes), await _begun(logs, own_logs, answer.logs)


async def _begun(comparison: Comparison, own_root: bytes, told: MapAnswer | None) -> Comparison | None:
    assert told is not None
    if told.root == own_root:
        return None
    await comparison.take(told.children)
    return comparison


def _roots(node: Node) -> tuple[bytes, bytes]:
    return node.store.node_digests.root().fingerprint, node.store.log_digests.root().fingerprint


class Comparison:
    """One map of this node beside the peer's, as far as they are compared."""

    def __init__(self, digests: Digests, client: PeerClient, walk: Walk, *, of_nodes: bool) -> None:
        self.walk = walk
        self._digests = digests
        self._client = client
        self._of_nodes = of_nodes

    async def take(self, theirs: Sequence[bytes]) -> None:
        """Take in what the peer has under the prefixes of the last question. Raises PeerViolation."""
        try:
            self.walk.compare(await on_disk(self._digests.children, self.walk.question()), theirs)
        except InvalidData as exc:
            text = f"{self._client} sent an answer that breaks the protocol"
            raise PeerViolation(text, peer=str(self._client.node)) from exc

    async def next_buckets(self, unwanted: Sequence[tuple[bytes, bytes]] = ()) -> tuple[Bucket, ...]:
        """Go on until buckets are to be asked for; none if the walk is over. unwanted: items not to be sent."""
        while prefixes := self.walk.question():
            # The root is not of interest any more: none is like the asker's.
            asked = MapQuery(bytes(32), prefixes)
            salt, of_nodes = self.walk.salt, self._of_nodes
            answer = await self._client.reconcile(
                ReconcileQuery(salt, nodes=asked) if of_nodes else ReconcileQuery(salt, logs=asked)
            )
            told = answer.nodes if of_nodes else answer.logs
            assert told is not None
            await self.take(told.children)
        return await on_disk(_questions, self._digests, self.walk.buckets(), self.walk.salt, unwanted)


def _questions(
    digests: Digests, prefixes: Iterable[str], salt: bytes, unwanted: Sequence[tuple[bytes, bytes]]
) -> tuple[Bucket, ...]:
    return tuple(have_of(digests, prefix, salt, have_max=HAVE_MAX, unwanted=unwanted) for prefix in prefixes)


def rest_of(client: PeerClient, buckets: Sequence[Bucket], complete: int, keys: Sequence[bytes]) -> tuple[Bucket, ...]:
    """Return what of `buckets` is to be asked again after an answer with items of `keys`.

    Raises PeerViolation if they are not in the order of the buckets, or if the answer brings nothing.
    """
    places = iter(enumerate(buckets))
    at, bucket = next(places)
    last = bucket.after or b""
    for key in keys:
        while not (last < key and range_of(bucket.prefix)[0] <= key <= range_of(bucket.prefix)[1]):
            step = next(places, None)
            if step is None:
                raise PeerViolation(f"{client} sent what it was not asked for, or out of order", peer=str(client.node))
            at, bucket = step
            last = bucket.after or b""
        last = key
    if complete > len(buckets) or (complete < len(buckets) and (at > complete or not (complete or keys))):
        raise PeerViolation(f"{client} left out what it was asked for", peer=str(client.node))
    rest = list(buckets[complete:])
    if rest and at == complete and keys:
        rest[0] = replace(rest[0], after=last or None)
    return tuple(rest)
