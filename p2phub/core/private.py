"""Private repositories: a log that nobody finds who was not told of it, and who may read it (spec/private.md).

    secret ──▶ log id          nobody can ask for a log whose name he cannot know
    grants in the log ──▶ who may read it, until when

Only what the publisher signed decides: so every node that holds a repository decides alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from blake3 import blake3
from msgspec import Meta, Struct

from .access import Caller
from .checkpoint import HEAD_SIZE_MAX, Head, open_head
from .choices import GranteeKind
from .errors import InvalidData
from .identity import CHAIN_MAX, Identity
from .ids import LogId, NamespaceId, NodeId, PublicKey
from .names import ModelName
from .records import Grant, Ungrant

SECRET_SIZE = 32  # bytes; spec/private.md §2

_LOG_CONTEXT = "p2phub 1 private log"  # spec/private.md §2

Secret = Annotated[bytes, Meta(min_length=SECRET_SIZE, max_length=SECRET_SIZE)]


class Grantee(Struct, frozen=True, order=True):
    """Whom something is granted to: all nodes that act for a namespace, or one node."""

    kind: GranteeKind
    id: bytes  # 32 bytes

    def __str__(self) -> str:
        return str(NamespaceId(self.id)) if self.kind == "namespace" else str(NodeId(self.id))


class Repository(Struct, frozen=True, order=True):
    """A repository by its full name."""

    namespace: NamespaceId
    model: ModelName

    def __str__(self) -> str:
        return f"{self.namespace}/{self.model}"


class PrivateHead(Struct, frozen=True, forbid_unknown_fields=True):
    """The head of a private log, with all that is needed to find and check the log."""

    namespace: NamespaceId
    version: Annotated[int, Meta(ge=1, le=CHAIN_MAX)]  # of the newest identity document that the sender has
    key: PublicKey
    secret: Secret
    head: Annotated[bytes, Meta(max_length=HEAD_SIZE_MAX)]

    @property
    def log(self) -> LogId:
        return private_log_id(self.namespace, self.key, self.secret)

    def __repr__(self) -> str:
        return "PrivateHead(…)"  # its secret must not reach a log


class PrivateLogFile(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What lies on disk beside a private log, so that it can be read again; spec/private.md §6."""

    schema: Literal[1]
    namespace: NamespaceId
    key: PublicKey
    secret: Secret
    model: ModelName
    unasked: bool = False  # nobody here asked for it: §5

    def __repr__(self) -> str:
        return "PrivateLogFile(…)"


def private_log_id(namespace: NamespaceId, key: PublicKey, secret: bytes) -> LogId:
    """Return the id of the private log that `key` keeps with `secret`."""
    return LogId(blake3(namespace + key + secret, derive_key_context=_LOG_CONTEXT).digest())


def open_private_head(told: PrivateHead, identity: Identity) -> Head:
    """Return the head that `told` states, checked to be signed by a key that publishes now. Raises InvalidData."""
    if told.namespace != identity.namespace or told.key not in identity.current.publish.keys:
        raise InvalidData("a private log is kept by a key that publishes in its namespace")
    return open_head(told.head, log=told.log, key=told.key)


class Granted(Struct, frozen=True):
    """The last word of one log on one grantee."""

    grantee: Grantee
    until: int  # seconds since 1970; 0: it was taken back
    time: int  # when it was said
    index: int  # place in its log
    log: LogId
    renewed: bool = False


def granted_by(record: Grant | Ungrant) -> Granted:
    """Return what a record says."""
    grantee = Grantee(record.to_kind, record.to)
    if isinstance(record, Ungrant):
        return Granted(grantee, 0, record.time, record.index, record.log)
    return Granted(grantee, record.end, record.time, record.index, record.log, record.renewed)


def in_force(said: Iterable[Granted]) -> dict[Grantee, Granted]:
    """Return what counts of what the logs of one repository say: of each grantee the last word, expired ones too."""
    found: dict[Grantee, Granted] = {}
    for each in said:
        known = found.get(each.grantee)
        # Of two that were said in one second of different logs, to take back counts.
        order = (each.time, each.until == 0, each.index, each.log)
        if known is None or order > (known.time, known.until == 0, known.index, known.log):
            found[each.grantee] = each
    return found


def names_caller(grantee: Grantee, caller: Caller) -> bool:
    """Say whether `grantee` means who asks."""
    return grantee.id in caller.namespaces if grantee.kind == "namespace" else grantee.id == caller.node
