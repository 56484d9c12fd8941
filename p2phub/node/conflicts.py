"""Show what publishers' own keys do not agree about, and let a publisher say which history of his log counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct
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
from .early import early_records, names_published
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


class Reopened(Struct, frozen=True):
    """What became of the own log."""

    log: LogId  # that was closed
    given_up: list[str]  # what its records that do not count published


def reopen_log(node: Node, size: int | None = None, *, extra: Iterable[Signer] = ()) -> Reopened:
    """Close this home's log, which forked or got far ahead of the clock, and go on in a new one.

    size: how many records of the history that is here count; None: all that are not too far ahead of the clock, unless
    another node has more: then it may be the clock of this machine that is wrong.
    extra: root keys that are not in this home.
    Raises Conflict if the log needs it not or has not so many records that can count, and as `change_identity`.
    """
    identity, key = own_publisher(node)
    log = identity.log_of(key.public_key)
    early = early_records(node, log)
    if node.store.forks.get(log) is None and early is None:
        raise Conflict(
            f"log {log} has not forked, nor is it ahead of the clock",
            hint="`p2phub trust conflicts` shows which logs have forked, `p2phub status` how this one is",
        )
    state = node.store.logs.state(log)
    held = early.first if early else state.size if state else 0
    if early and size is None:
        _check_clock(node, log, held)
    size = held if size is None else size
    if size > held:
        what = "are not ahead of the clock" if early else "are here"
        raise Conflict(f"{held} records of log {log} {what}, not {size}")
    root = node.store.logs.root(log, size)
    assert root is not None, "so many records are here"
    end = Epoch(
        key=key.public_key,
        number=sum(epoch.key == key.public_key for epoch in identity.current.epochs) + 1,
        size=size,
        root=root,
    )
    # Before they are dropped.
    given_up = names_published(node, log, size)
    change_identity(node, lambda document: replace(document, epochs=_sorted((*document.epochs, end))), extra=extra)
    return Reopened(log, given_up)


def _check_clock(node: Node, log: LogId, size: int) -> None:
    """Refuse to give up what others took in by their clocks, as a clock that was set back asks for."""
    for each in node.store.confirmations.of(log):
        if each.size > size:
            raise Conflict(
                f"node {each.node} has {each.size} records of log {log}, of which the clock here lets {size} count",
                hint=f"set this machine's clock right; if it is right, `p2phub id reopen --size {size}`",
            )


def _sorted(epochs: Sequence[Epoch]) -> tuple[Epoch, ...]:
    return tuple(sorted(epochs, key=lambda epoch: (epoch.key, epoch.number)))
