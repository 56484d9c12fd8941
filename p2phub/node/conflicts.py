"""Show what publishers' own keys do not agree about, and let a publisher say which history of his log counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from p2phub.core.errors import Conflict
from p2phub.core.identity import Epoch
from p2phub.core.ids import LogId, NamespaceId
from p2phub.core.signing import Signer
from p2phub.store.conflicts import Disagreement
from p2phub.store.forks import KnownFork
from p2phub.store.splits import KnownSplit
from p2phub.store.store import Store

from .disk import on_disk
from .events import Tell, ignore
from .identity import own_publisher
from .names import find
from .node import Node
from .operations.catalogue import ConflictInfo
from .renewing import change_identity


async def list_conflicts(node: Node, name: str | None, tell: Tell = ignore) -> list[ConflictInfo]:
    """Return the conflicts that are known: all, or those of the publisher `name`. Raises as `names.find`."""
    return await on_disk(_list, node.store, await find(node, name, tell) if name else None)


def _list(store: Store, namespace: NamespaceId | None) -> list[ConflictInfo]:
    forks = [fork for fork in store.forks.all() if namespace in (None, fork.namespace)]
    splits = [split for split in store.splits.all() if namespace in (None, split.namespace)]
    return [
        *(_of_split(split) for split in splits),
        *(_of_fork(fork) for fork in forks),
        *(_of_names(store, found) for found in store.conflicts.disagreements(namespace)),
        *(
            ConflictInfo("refused", str(refusal.namespace), refusal.reason, log=str(refusal.log), index=refusal.index)
            for refusal in store.conflicts.refusals(namespace)
        ),
    ]


def _of_fork(fork: KnownFork) -> ConflictInfo:
    text = f"two histories were signed that have {fork.common} records in common"
    text += "; its publisher has closed it since" if fork.is_settled else ", and only these count"
    return ConflictInfo("fork", str(fork.namespace), text, log=str(fork.log), index=fork.common)


def _of_split(split: KnownSplit) -> ConflictInfo:
    text = (
        f"its root keys signed two identity documents of version {split.version}; the one that came first counts here"
    )
    return ConflictInfo("identity", str(split.namespace), text)


def _of_names(store: Store, found: Disagreement) -> ConflictInfo:
    look = store.catalogue.version if found.kind == "version" else store.catalogue.branch
    chosen = look(found.namespace, found.model, found.name)
    counts = str(chosen.manifest) if chosen and chosen.manifest else None
    others = sorted({str(said) for said in found.claims.values() if said and str(said) != counts})
    text = f"the keys of the publisher do not agree what {found.kind} {found.name} of {found.model} is"
    return ConflictInfo(
        found.kind, str(found.namespace), text, model=found.model, name=found.name, counts=counts, others=others
    )


def reopen_log(node: Node, size: int | None = None, *, extra: Iterable[Signer] = ()) -> LogId:
    """Close this home's log, which forked, and go on in a new one; returns the log that was closed.

    size: how many records of the history that is here count; None: all. extra: root keys that are not in this home.
    Raises Conflict if the log did not fork or is not so long, and as `change_identity`.
    """
    identity, key = own_publisher(node)
    log = identity.log_of(key.public_key)
    if node.store.forks.get(log) is None:
        raise Conflict(f"log {log} has not forked", hint="`p2phub trust conflicts` shows which logs have")
    state = node.store.logs.state(log)
    held = state.size if state else 0
    size = held if size is None else size
    if size > held:
        raise Conflict(f"there are {held} records of log {log} here, not {size}")
    root = node.store.logs.root(log, size)
    assert root is not None, "so many records are here"
    end = Epoch(
        key=key.public_key,
        number=sum(epoch.key == key.public_key for epoch in identity.current.epochs) + 1,
        size=size,
        root=root,
    )
    change_identity(node, lambda document: replace(document, epochs=_sorted((*document.epochs, end))), extra=extra)
    return log


def _sorted(epochs: Sequence[Epoch]) -> tuple[Epoch, ...]:
    return tuple(sorted(epochs, key=lambda epoch: (epoch.key, epoch.number)))
