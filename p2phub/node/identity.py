"""The publisher of this home: his documents, his keys, and what is signed with them (spec/identity.md)."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from sqlite3 import Connection
from typing import TYPE_CHECKING, Protocol, TypeVar

from p2phub.core.checkpoint import parse_head
from p2phub.core.companion import CompanionKey
from p2phub.core.encoding import decode, encode
from p2phub.core.errors import AccessDenied, Conflict, HubError, NoSpace, NotFound, StoreError
from p2phub.core.identity import Identity, Role, new_document, open_identity, sign_document
from p2phub.core.ids import LogId, NamespaceId, PublicKey
from p2phub.core.recipient import RecipientKey
from p2phub.core.records import Entry, Record
from p2phub.core.signing import Signer
from p2phub.protocol.messages import IdentityChain
from p2phub.store.disk import disk_errors, free_bytes, write_file
from p2phub.store.journals import IDENTITY_SIZE_MAX
from p2phub.store.keys import load_or_create_companion, load_or_create_key, load_or_create_recipient

from .disk import on_disk

if TYPE_CHECKING:
    from p2phub.core.keybundle import KeyBundle
    from p2phub.store.logs import MakeRecord

    from .node import Node

logger = logging.getLogger(__name__)

K = TypeVar("K", CompanionKey, RecipientKey)

NEW_SIZE = 256 * 1024  # bytes on disk, more than an identity and its keys take
PUBLISH_FILE = "publish.key"  # in the folder of keys; spec/store.md §1


class LogBehind(Conflict):
    """The log was written elsewhere before, and whoever signs now would give it a second history."""

    def __init__(self, text: str, *, log: LogId, size: int, hint: str) -> None:
        super().__init__(text, hint=hint)
        self.log = log
        self.size = size  # records that it has at least


# ── documents ───────────────────────────────────────────────────────────────


def own_identity(node: Node) -> Identity:
    """Return the identity that this home publishes as. Raises NotFound if there is none."""
    bundle = _given(node)
    own = bundle.identity if bundle else None
    if own is None:
        own = _kept_identity(node)
    # Another machine with a root key may have renewed it.
    known = node.store.logs.identity(own.namespace)
    return known if known is not None and known.continues(own) else own


def has_identity(node: Node) -> bool:
    """Say whether this home publishes as anybody."""
    return own_namespace(node) is not None


def keep_own_identity(node: Node, identity: Identity) -> None:
    """Keep a checked identity as that of this home, in its newest form; `tell_identity` tells others.

    Raises SplitIdentity if another document of the same version is here.
    """
    node.store.logs.add_identity(identity, own=True)
    write_file(node.settings.layout.own_identity, encode(IdentityChain(identity.chain)), mode=0o644)


async def tell_identity(node: Node, namespace: NamespaceId) -> None:
    """Tell others that there is a newer identity document."""
    for state in await on_disk(node.store.logs.logs_of, namespace):
        node.note_news(state.log, state.size)


def create_identity(node: Node, signer: Signer | None = None) -> Identity:
    """Make the keys and the identity that this home publishes as. Raises StoreError if there is one.

    signer: the key for all roles, which is kept elsewhere; None: one is made here.
    """
    layout = node.settings.layout
    path = layout.own_identity
    if path.exists():
        raise StoreError("there is a publisher identity here already", path=str(path), hint="`p2phub id` shows it")
    if free_bytes(layout.home) < NEW_SIZE:
        # Before anything is made: who reads that it failed must not find a part of it.
        raise NoSpace(
            f"no space left in {layout.home} for an identity", path=str(layout.home), hint="make room on its disk first"
        )
    # Keys without an identity are what a crash between the two leaves behind: they signed nothing yet.
    key = signer or load_or_create_key(layout.keys / PUBLISH_FILE)
    document = new_document(
        key.public_key,
        created=int(node.clock()),
        companion=load_or_create_companion(layout.keys),
        recipient=load_or_create_recipient(layout.keys),
    )
    identity = open_identity([sign_document(document, [key])])
    keep_own_identity(node, identity)
    return identity


# ── keys ────────────────────────────────────────────────────────────────────


def own_keys(node: Node) -> dict[PublicKey, Signer]:
    """Return all that this home can sign with, by public key. Raises StoreError if a file is damaged."""
    if (bundle := _given(node)) is not None:
        return {key.public_key: key for key in bundle.signers}
    from p2phub.store.keyring import signers

    return signers(node.settings.layout.keys)


def own_signers(node: Node, role: Role) -> list[Signer]:
    """Return the keys of a role that this home can sign with, in the order of the document."""
    keys = own_keys(node)
    return [keys[key] for key in role.keys if key in keys]


def own_namespace(node: Node) -> NamespaceId | None:
    """Return the namespace that this home publishes in, None if it has none."""
    try:
        return own_identity(node).namespace
    except NotFound:
        return None


def own_publisher(node: Node) -> tuple[Identity, Signer]:
    """Return the identity that this home publishes as, and the key with which it does.

    Raises NotFound if there is no identity or key, AccessDenied if the key may not publish for it (any more),
    LogBehind if records of its log are missing here.
    """
    identity = own_identity(node)
    found = own_signers(node, identity.current.publish)
    if not found:
        raise _may_not_publish(node, identity)
    _check_log_is_here(node, identity.log_of(found[0].public_key))
    return identity, found[0]


def own_companion(node: Node) -> CompanionKey:
    """Return the companion key that the own identity names. Raises NotFound if it names none, or that is not here."""
    from p2phub.store.keyring import companions

    named = own_identity(node).current.companion
    return _named(companions(node.settings.layout.keys), named, "companion")


def own_recipient(node: Node) -> RecipientKey:
    """Return the recipient key that the own identity names. Raises NotFound if it names none, or that is not here."""
    named = own_identity(node).current.recipient
    return _named(own_recipients(node), named, "recipient")


def own_recipients(node: Node) -> list[RecipientKey]:
    """Return all recipient keys of this home: that which the identity names, if it is here, and those of before."""
    from p2phub.store.keyring import recipients

    return recipients(node.settings.layout.keys)


class RecordMaker(Protocol):
    """Makes a record of the place and time at which it is signed: mostly its type, with all other fields."""

    def __call__(self, *, log: LogId, index: int, previous: bytes, time: int) -> Record: ...


def placed(node: Node, make: RecordMaker) -> MakeRecord:
    """Return what makes the record in the transaction that appends it.

    Not before the record that it follows, even if the clock was set back: who goes by time must take it for the newer.
    """

    def make_record(connection: Connection, log: LogId, index: int, previous: bytes, since: int) -> Record:
        return make(log=log, index=index, previous=previous, time=max(int(node.clock()), since))

    return make_record


def publish_record(node: Node, make: RecordMaker) -> Entry:
    """Sign what `make` returns, append it to this home's own log, and state that it is the newest.

    Raises as `own_publisher` does.
    """
    from .fresh import state_newest  # it asks whose this home is

    identity, key = own_publisher(node)
    # An index that was lost does not know it any more, and peers will ask for it.
    node.store.logs.add_identity(identity, own=True)
    entry = node.store.logs.append_own(identity.namespace, key, placed(node, make))
    try:
        state_newest(node)
    except HubError as exc:
        # It is published; what is newest is stated by and by.
        logger.warning("cannot state what is newest: %s", exc)
    return entry


def written_elsewhere(node: Node, log: LogId) -> int | None:
    """Return how many records a log had when its key came here, None if the key was made here."""
    bundle = _given(node)
    if bundle is not None:
        heads = {head.log: head.size for head in map(parse_head, bundle.heads)}
        return heads.get(log, 0)
    path = node.settings.layout.restored
    if not path.exists():
        return None
    with disk_errors(path):
        sizes = dict(line.split() for line in path.read_text().splitlines())
    return int(sizes[str(log)]) if str(log) in sizes else None


# ── helpers ─────────────────────────────────────────────────────────────────


def _given(node: Node) -> KeyBundle | None:
    """Return the keys of P2PHUB_KEY_FILE, None if it is not set."""
    path = node.settings.key_file
    if path is None:
        return None
    from p2phub.store.keyring import read_bundle

    from .passphrase import read_passphrase

    return read_bundle(path, lambda of: read_passphrase(node.settings, of))


def _kept_identity(node: Node) -> Identity:
    path = node.settings.layout.own_identity
    with disk_errors(path):
        try:
            data = path.read_bytes()
        except FileNotFoundError as exc:
            raise NotFound(
                "there is no publisher identity here",
                hint="`p2phub id new` makes one; `p2phub id request` lets this machine publish as one that you have",
            ) from exc
    return _opened(data)


@functools.lru_cache(maxsize=4)
def _opened(data: bytes) -> Identity:
    """Return what the file of the own identity says. It is asked for often, and signatures take long to check."""
    return open_identity(decode(data, IdentityChain, size_max=IDENTITY_SIZE_MAX).documents)


def _may_not_publish(node: Node, identity: Identity) -> NotFound | AccessDenied:
    keys = own_keys(node)
    if not keys:
        return NotFound(
            f"no key of {identity.namespace} is on this machine",
            hint="`p2phub id request` asks the machine with the root key for one; `p2phub id import` takes a copy",
        )
    retired = [each for each in identity.current.retired if each.key in keys]
    if retired:
        return AccessDenied(
            f"the key of this machine, {retired[0].key}, was retired and publishes no more for {identity.namespace}",
            hint="if that was not meant, `p2phub id request` asks for another one",
        )
    return AccessDenied(
        f"no key of this machine may publish for {identity.namespace} yet",
        hint="`p2phub id request` prints what the machine with the root key needs",
    )


def _named(keys: Sequence[K], public_key: bytes | None, what: str) -> K:
    """Return that of `keys` which the identity names."""
    hint = "`p2phub id renew` makes one"
    if public_key is None:
        raise NotFound(f"the own identity names no {what} key", hint=hint)
    for key in keys:
        if key.public_key == public_key:
            return key
    raise NotFound(
        f"the {what} key of the own identity is not on this machine",
        hint="the answer of `p2phub id add-key` brings it, and `p2phub id rotate` makes another one",
    )


def _check_log_is_here(node: Node, log: LogId) -> None:
    """Raise LogBehind if records of `log` are missing, or may be: nobody was asked yet how far it went elsewhere."""
    stated, state = node.store.fresh.stated_head(log), node.store.logs.state(log)
    here = state.size if state else 0
    if stated is not None and stated.head.size > here and not node.store.forks.is_stopped(log):
        raise LogBehind(
            f"{stated.head.size} records of the own log were signed, and {here} of them are here:"
            " was this home brought back from a copy?",
            log=log,
            size=stated.head.size,
            hint="name a node that has the rest: `p2phub peers add`; `p2phub id rotate` goes on with a new key",
        )
    size = written_elsewhere(node, log)
    if size is None or log in node.caught_up or node.settings.layout.has_log(log):
        return
    raise LogBehind(
        "the key comes from another machine, and no node was asked how far its log went",
        log=log,
        size=size,
        hint="name one that has it: --peer p2phub://NODEID@HOST:PORT; `p2phub id rotate` goes on with a new key",
    )
