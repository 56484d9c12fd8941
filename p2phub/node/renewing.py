"""Change the own identity: a next document, signed by those root keys that are here (spec/identity.md §6, §7).

change ──▶ next document ──own keys sign──▶ enough: takes effect
                                        └──▶ too few: a Proposal, for others to sign
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from p2phub.core import rotation
from p2phub.core.armor import armor, copied, unarmor
from p2phub.core.encoding import decode, encode
from p2phub.core.errors import AccessDenied, Conflict, NotFound
from p2phub.core.identity import Identity, IdentityDocument, next_document
from p2phub.core.ids import NamespaceId, PublicKey
from p2phub.core.keybundle import KeyBundle
from p2phub.core.proposal import (
    PROPOSAL_SIZE_MAX,
    OpenProposal,
    Proposal,
    open_proposal,
    propose,
    settle,
    sign_proposal,
)
from p2phub.core.rotation import RoleName
from p2phub.core.signing import SEED_SIZE, Signer, SigningKey
from p2phub.store.disk import disk_errors
from p2phub.store.keyring import (
    companions,
    new_companion,
    new_recipient,
    new_signing_key,
    recipients,
    replace_bundle,
    write_bundle,
)

from .identity import has_identity, keep_own_identity, own_identity, own_keys, own_signers, written_elsewhere
from .node import Node

SPLIT_HINT = (
    "nodes go on with the one that they heard first: on the machine whose change fewer of them have, `p2phub id yield` "
    "takes the other's; then do its change again"
)
PROPOSAL_KIND = "proposal"  # spec/identity.md §7

Change = Callable[[IdentityDocument], IdentityDocument]


class TooFewSignatures(AccessDenied):
    """Root keys that are not here have to sign, too; carries what they have to sign."""

    def __init__(self, opened: OpenProposal) -> None:
        count = opened.missing
        super().__init__(
            f"{count} more root {'key' if count == 1 else 'keys'} must sign before this takes effect",
            hint="--key FILE names the file of a root key; who has another one signs with `p2phub id sign FILE`",
        )
        self.opened = opened


def change_identity(node: Node, change: Change, *, extra: Iterable[Signer] = ()) -> Identity:
    """Return the own identity with what `change` makes of its document; it is in force then.

    extra: keys that sign beside those of this home. Raises NotFound if there is no identity, TooFewSignatures,
    Conflict if `change` changes nothing.
    """
    return renew(node, own_identity(node), change, extra=extra)


def renew(node: Node, before: Identity, change: Change, *, extra: Iterable[Signer] = ()) -> Identity:
    """Do what `change_identity` does, for an identity that need not be that of this home yet."""
    document = next_document(before, created=int(node.clock()))
    changed = change(document)
    if changed == document:
        raise Conflict("this would change nothing")
    opened = sign_proposal(propose(before, changed), [*own_keys(node).values(), *extra])
    if opened.missing:
        raise TooFewSignatures(opened)
    return _take_effect(node, opened, is_own=True)


# ── own keys ────────────────────────────────────────────────────────────────


def complete_identity(node: Node, *, extra: Iterable[Signer] = ()) -> Identity:
    """Name a companion and a recipient key that are here, made now if there are none. Raises as `change_identity`."""
    keys = node.settings.layout.keys
    ours = {*(key.public_key for key in companions(keys)), *(key.public_key for key in recipients(keys))}
    named = own_identity(node).current
    if named.companion in ours and named.recipient in ours:
        raise Conflict("the identity has all keys that it can have", hint="`p2phub id rotate` replaces them")
    return change_identity(
        node,
        lambda document: _with_purposes(
            node,
            document,
            is_companion_new=named.companion not in ours,
            is_recipient_new=named.recipient not in ours,
        ),
        extra=extra,
    )


def rotate(
    node: Node,
    roles: Collection[RoleName] = (),
    *,
    signer: Signer | None = None,
    with_purposes: bool = False,
    extra: Iterable[Signer] = (),
) -> Identity:
    """Put new keys in the place of those of this machine.

    roles: of which; none: all that it has. signer: the new key, kept elsewhere; None: one is made here.
    with_purposes: the companion and recipient keys too. What was published before goes on to count.
    Raises Conflict if this machine has no other key in these roles, and as `change_identity`.
    """
    identity = own_identity(node)
    ours = own_keys(node)
    held = {name: rotation.role_of(identity.current, name).keys for name in rotation.ROLES}
    given = signer.public_key if signer else None
    old = {name: [key for key in keys if key in ours and key != given] for name, keys in held.items()}
    chosen = [name for name in rotation.ROLES if old[name] and (not roles or name in roles)]
    if not chosen and given is not None and any(given in keys for keys in held.values()):
        does = " and ".join(rotation.DOES[name] for name, keys in held.items() if given in keys)
        raise Conflict(f"key {given} signs for this machine already: it may {does}")
    if not chosen:
        raise Conflict("no key of this machine is in these roles", hint="`p2phub id` shows which keys have which role")
    new = signer or new_signing_key(node.settings.layout.keys)

    def change(document: IdentityDocument) -> IdentityDocument:
        for name in chosen:
            key = old[name][0]
            document = rotation.replace_key(document, key, new.public_key, [name], end_of(node, identity, key))
        return _with_purposes(node, document) if with_purposes else document

    return change_identity(node, change, extra=extra)


def revoke_key(node: Node, text: str, size: int | None, *, extra: Iterable[Signer] = ()) -> Identity:
    """Take a key out of all roles.

    text: the key, or how it begins. size: records of its log that count; None: all that are here.
    Raises NotFound if no such key is named, Conflict if a role would be left with too few, or nothing says how many
    records count, and as `change_identity`.
    """
    identity = own_identity(node)
    key = find_key(identity, text)
    if size is None and key in identity.publishers:
        _check_is_known(node, identity, [key])
    end = end_of(node, identity, key, size)
    return change_identity(node, lambda document: rotation.remove_key(document, key, end), extra=extra)


def set_threshold(node: Node, role: RoleName, threshold: int, *, extra: Iterable[Signer] = ()) -> Identity:
    """Let so many keys of a role have to sign. Raises Conflict if there are not so many, and as `change_identity`."""
    return change_identity(node, lambda document: rotation.set_threshold(document, role, threshold), extra=extra)


# ── recovery ────────────────────────────────────────────────────────────────


def new_recovery_key(
    node: Node, path: Path, passphrase: str | None, *, shared: bool, extra: Iterable[Signer] = ()
) -> Identity:
    """Make a root key in the new file `path`, to be kept elsewhere, and let it alone change the identity.

    shared: the root keys of now stay besides. Raises StoreError if there is such a file, and as `change_identity`.
    """

    def change(document: IdentityDocument, key: PublicKey) -> IdentityDocument:
        return rotation.set_root(document, (key, *(document.root.keys if shared else ())))

    return with_key_file(node, path, passphrase, change, extra=extra)


def with_key_file(
    node: Node,
    path: Path,
    passphrase: str | None,
    change: Callable[[IdentityDocument, PublicKey], IdentityDocument],
    *,
    extra: Iterable[Signer] = (),
) -> Identity:
    """Make a key in the new file `path`, and do what `change` makes of the document with it; it signs, too.

    Raises StoreError if there is such a file, and as `change_identity`; unless it is TooFewSignatures there is no file
    then.
    """
    key = SigningKey(os.urandom(SEED_SIZE))
    # Before the document: a key that is named and that nobody has would be the end of the identity.
    write_bundle(path, KeyBundle(1, (key.seed,), own_identity(node).chain), passphrase)
    try:
        identity = change_identity(node, lambda document: change(document, key.public_key), extra=[*extra, key])
    except TooFewSignatures:
        raise
    except BaseException:
        with disk_errors(path):
            path.unlink()
        raise
    replace_bundle(path, KeyBundle(1, (key.seed,), identity.chain), passphrase)
    return identity


def recover(node: Node, identity: Identity, extra: Sequence[Signer], *, size: int | None) -> Identity:
    """Let this machine alone publish, because the other keys were lost or stolen; returns the identity then.

    identity: the newest that is known. extra: the recovery keys. size: records of each other log that count; None:
    all that are here. Raises Conflict if this home publishes as another, or nothing says how many records count, and as
    `change_identity`.
    """
    if has_identity(node) and own_identity(node).namespace != identity.namespace:
        raise Conflict(f"this home publishes as {own_identity(node).namespace}", hint="use another P2PHUB_HOME")
    ours = own_signers(node, identity.current.publish)
    key = ours[0] if ours else new_signing_key(node.settings.layout.keys)
    if size is None:
        _check_is_known(node, identity, [other for other in identity.current.publish.keys if other != key.public_key])
    ends = {other: end_of(node, identity, other, size) for other in identity.current.publish.keys}

    def change(document: IdentityDocument) -> IdentityDocument:
        # Who has the old keys may read what is encrypted to them.
        return _with_purposes(node, rotation.recover(document, key.public_key, ends=ends))

    return renew(node, identity, change, extra=extra)


# ── documents that several people sign ──────────────────────────────────────


def format_proposal(opened: OpenProposal) -> str:
    """Return a proposal as a word that can be sent."""
    return armor(PROPOSAL_KIND, encode(opened.proposal))


def parse_proposal(text: str) -> OpenProposal:
    """Return the proposal that `text` writes, checked. Raises InvalidData."""
    data = unarmor(PROPOSAL_KIND, text, size_max=PROPOSAL_SIZE_MAX)
    with copied(PROPOSAL_KIND):
        return open_proposal(decode(data, Proposal, size_max=PROPOSAL_SIZE_MAX))


@dataclass(frozen=True)
class Signed:
    """What became of a proposal."""

    opened: OpenProposal
    is_signed: bool  # by a key that was asked, just now
    identity: Identity | None  # that is in force since; None: signatures are missing


def sign_for_others(node: Node, opened: OpenProposal, *, extra: Iterable[Signer] = ()) -> Signed:
    """Sign a proposal with the keys of this home, and let it take effect if enough signed.

    Raises SplitIdentity or Conflict if another document of this version is in force.
    """
    namespace = opened.before.namespace
    known = node.store.logs.identity(namespace)
    if known is not None and known.current.version > opened.before.current.version:
        is_same = known.chain[opened.before.current.version].document == opened.proposal.document
        if is_same:
            return Signed(opened, False, known)
        raise Conflict(
            f"version {opened.after.version} of {namespace} is in force already, and it is another one",
            hint="whoever proposed this has to propose it again",
        )
    signed = sign_proposal(opened, [*own_keys(node).values(), *extra])
    is_signed = signed.signers != opened.signers
    if signed.missing:
        return Signed(signed, is_signed, None)
    is_own = has_identity(node) and own_identity(node).namespace == namespace
    return Signed(signed, is_signed, _take_effect(node, signed, is_own=is_own))


# ── two documents of one version ────────────────────────────────────────────


def check_not_split(node: Node, namespace: NamespaceId | None = None) -> None:
    """Raise Conflict if two documents of one version of an identity are known, both signed by its root keys.

    namespace: None for the identity of this home.
    """
    if namespace is None:
        if not has_identity(node):
            return
        namespace = own_identity(node).namespace
    if (split := node.store.splits.of(namespace)) is not None:
        raise Conflict(f"another machine signed a version {split.version} of this identity, too", hint=SPLIT_HINT)


def yield_to_other(node: Node) -> Identity:
    """Go on with the other of two documents of one version, which another machine signed; returns the identity then.

    What this machine changed is to be done again. Raises NotFound if there are not two.
    """
    other = node.store.logs.yield_to_other(own_identity(node).namespace)
    keep_own_identity(node, other)
    return other


# ── helpers ─────────────────────────────────────────────────────────────────


def find_key(identity: Identity, text: str) -> PublicKey:
    """Return the key of `identity` that `text` is, or begins. Raises NotFound if there is none, or several."""
    named = identity.current
    keys = {*named.root.keys, *named.publish.keys, *named.fresh.keys, *(each.key for each in named.retired)}
    found = sorted(key for key in keys if str(key).startswith(text))
    if len(found) != 1 or not text:
        which = "several keys begin" if found else "no key begins"
        raise NotFound(f"{which} with '{text}'", hint="`p2phub id` shows the keys")
    return found[0]


def records_of(node: Node, identity: Identity, key: PublicKey) -> int:
    """Return how many records of the last log of `key` are here, or were where the key came from."""
    log = identity.last_log_of(key)
    state = node.store.logs.state(log)
    return max(state.size if state else 0, written_elsewhere(node, log) or 0)


def end_of(node: Node, identity: Identity, key: PublicKey, size: int | None = None) -> rotation.End:
    """Return where the last log of `key` ends after `size` records; None: after all that are known."""
    log = identity.last_log_of(key)
    size = records_of(node, identity, key) if size is None else size
    return rotation.End(size, node.store.logs.root(log, size))


def _check_is_known(node: Node, identity: Identity, keys: Iterable[PublicKey]) -> None:
    """Raise Conflict if nothing is here of the log of one of `keys`: all that it signed would count no more."""
    for key in keys:
        if not records_of(node, identity, key):
            raise Conflict(
                f"nothing that key {key} signed is here, and none of it would count any more, for ever",
                hint="name a node that has it: `p2phub peers add ADDRESS`; or say --from-index 0, if that is meant",
            )


def _with_purposes(
    node: Node, document: IdentityDocument, *, is_companion_new: bool = True, is_recipient_new: bool = True
) -> IdentityDocument:
    """Return `document` with new keys for other purposes."""
    keys = node.settings.layout.keys
    return replace(
        document,
        companion=new_companion(keys).public_key if is_companion_new else document.companion,
        recipient=new_recipient(keys).public_key if is_recipient_new else document.recipient,
    )


def _take_effect(node: Node, opened: OpenProposal, *, is_own: bool) -> Identity:
    identity = settle(opened)
    if is_own:
        keep_own_identity(node, identity)
    else:
        node.store.logs.add_identity(identity)
    return identity
