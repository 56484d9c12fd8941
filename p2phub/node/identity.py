"""The publisher of this home: his documents, his keys, and what is signed with them (spec/identity.md)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from p2phub.core.companion import CompanionKey
from p2phub.core.encoding import decode, encode
from p2phub.core.errors import AccessDenied, NotFound, StoreError
from p2phub.core.identity import Identity, new_document, open_identity, sign_document
from p2phub.core.recipient import RecipientKey
from p2phub.core.records import Entry
from p2phub.core.signing import SigningKey
from p2phub.protocol.messages import IdentityChain
from p2phub.store.disk import write_file
from p2phub.store.keys import (
    load_companion,
    load_key,
    load_or_create_companion,
    load_or_create_key,
    load_or_create_recipient,
    load_recipient,
)
from p2phub.store.logs import IDENTITY_SIZE_MAX, MakeRecord

if TYPE_CHECKING:
    from .node import Node

K = TypeVar("K", CompanionKey, RecipientKey)

PUBLISH_FILE = "publish.key"  # in the folder of keys; spec/store.md §1


def own_identity(node: Node) -> Identity:
    """Return the identity that this home publishes as. Raises NotFound if there is none."""
    path = node.settings.layout.own_identity
    try:
        data = path.read_bytes()
    except FileNotFoundError as exc:
        raise NotFound("there is no publisher identity here", hint="`p2phub id new` makes one") from exc
    own = open_identity(decode(data, IdentityChain, size_max=IDENTITY_SIZE_MAX).documents)
    # Another machine with a root key may have renewed it.
    known = node.store.logs.identity(own.namespace)
    return known if known is not None and known.continues(own) else own


def own_publisher(node: Node) -> tuple[Identity, SigningKey]:
    """Return the identity that this home publishes as, and the key with which it does.

    Raises NotFound if there is no identity or key, AccessDenied if the key may not publish for it (any more).
    """
    identity = own_identity(node)
    key = load_key(node.settings.layout.keys / PUBLISH_FILE)
    if key.public_key not in identity.current.publish.keys:
        raise AccessDenied(f"the key of this machine, {key.public_key}, may not publish for {identity.namespace}")
    return identity, key


def own_companion(node: Node) -> CompanionKey:
    """Return the companion key that the own identity names. Raises NotFound if it names none, or that is not here."""
    return _named(node, load_companion, own_identity(node).current.companion, "companion")


def own_recipient(node: Node) -> RecipientKey:
    """Return the recipient key that the own identity names. Raises NotFound if it names none, or that is not here."""
    return _named(node, load_recipient, own_identity(node).current.recipient, "recipient")


def publish_record(node: Node, make: MakeRecord) -> Entry:
    """Sign what `make` returns, append it to this home's own log, and state that it is the newest.

    Raises as `own_publisher` does.
    """
    from .fresh import state_newest  # it asks whose this home is

    identity, key = own_publisher(node)
    # An index that was lost does not know it any more, and peers will ask for it.
    node.store.logs.add_identity(identity, own=True)
    entry = node.store.logs.append_own(identity.namespace, key, make)
    state_newest(node)
    return entry


def create_identity(node: Node) -> Identity:
    """Make the keys and the identity that this home publishes as. Raises StoreError if there is one."""
    layout = node.settings.layout
    path = layout.own_identity
    if path.exists():
        raise StoreError("there is a publisher identity here already", path=str(path), hint="`p2phub id show` shows it")
    # Keys without an identity are what a crash between the two leaves behind: they signed nothing yet.
    key = load_or_create_key(layout.keys / PUBLISH_FILE)
    document = new_document(
        key.public_key,
        created=int(node.clock()),
        companion=load_or_create_companion(layout.keys),
        recipient=load_or_create_recipient(layout.keys),
    )
    identity = open_identity([sign_document(document, [key])])
    write_file(path, encode(IdentityChain(identity.chain)), mode=0o644)
    node.store.logs.add_identity(identity, own=True)
    return identity


def _named(node: Node, load: Callable[[Path], K], public_key: bytes | None, what: str) -> K:
    """Return the key of the home that `load` loads, if it is the one that the identity names."""
    hint = "`p2phub id renew` makes one"
    if public_key is None:
        raise NotFound(f"the own identity names no {what} key", hint=hint)
    try:
        key = load(node.settings.layout.keys)
    except NotFound as exc:
        raise NotFound(f"the {what} key of the own identity is not on this machine", hint=hint) from exc
    if key.public_key != public_key:
        raise NotFound(f"the {what} key on this machine is not that of the own identity", hint=hint)
    return key
