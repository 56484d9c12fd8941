"""Who may sign for a namespace: identity documents and their rotation (spec/identity.md).

The namespace is the hash of the first document, so nobody can claim another's.
Each later document names the one before it, and counts only if enough root keys
of both signed it: those of the old one hand over, those of the new one take over.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from blake3 import blake3
from msgspec import Meta, Struct
from msgspec.structs import replace

from .companion import PUBLIC_KEY_SIZE as COMPANION_SIZE
from .companion import CompanionKey, check_companion_key
from .encoding import decode, encode, read
from .envelope import Signature
from .errors import InvalidData, InvalidSignature
from .ids import LogId, NamespaceId, PublicKey, SignerKey
from .manifest import Time
from .names import DomainName
from .recipient import PUBLIC_KEY_SIZE as RECIPIENT_SIZE
from .recipient import RecipientKey, check_recipient_key
from .records import log_id
from .signing import Signer, check_signature

PURPOSE = "identity"  # spec/signing.md §2
DOCUMENT_SIZE_MAX = 16 * 1024  # bytes; spec/identity.md §1
CHAIN_MAX = 1000  # documents; spec/identity.md §3
KEYS_MAX = 16  # in one role; spec/identity.md §1
RETIRED_MAX = 64  # keys; spec/identity.md §1
EPOCHS_MAX = 64  # of all keys together; spec/identity.md §4

_NAMESPACE_CONTEXT = "p2phub 1 namespace"  # spec/identity.md §2

Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]


class Role(Struct, frozen=True, forbid_unknown_fields=True):
    """Keys, and how many of them must sign."""

    keys: Annotated[tuple[PublicKey, ...], Meta(min_length=1, max_length=KEYS_MAX)]  # sorted
    threshold: Annotated[int, Meta(ge=1, le=KEYS_MAX)]


class RetiredKey(Struct, frozen=True, forbid_unknown_fields=True):
    """A publishing key that is no longer used; its log counts up to `size` records."""

    key: PublicKey
    size: Annotated[int, Meta(ge=0, le=2**53)]


class Epoch(Struct, frozen=True, forbid_unknown_fields=True):
    """The end of a log of `key`: it had `size` records with this `root`. The key goes on in its log number `number`."""

    key: PublicKey
    number: Annotated[int, Meta(ge=1, le=EPOCHS_MAX)]
    size: Annotated[int, Meta(ge=0, le=2**53)]
    root: Hash


class IdentityDocument(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Version `version` of a namespace's keys."""

    schema: Literal[1]
    version: Annotated[int, Meta(ge=1, le=CHAIN_MAX)]
    created: Time
    root: Role  # signs documents
    publish: Role  # each key keeps a log; the threshold is 1
    fresh: Role  # signs statements that nothing newer is withheld
    previous: Hash | None = None  # BLAKE3 of the document before; None in version 1
    domains: Annotated[tuple[DomainName, ...], Meta(max_length=16)] = ()  # claimed, sorted
    retired: Annotated[tuple[RetiredKey, ...], Meta(max_length=RETIRED_MAX)] = ()
    epochs: Annotated[tuple[Epoch, ...], Meta(max_length=EPOCHS_MAX)] = ()  # sorted by key, then by number
    companion: Annotated[bytes, Meta(min_length=COMPANION_SIZE, max_length=COMPANION_SIZE)] | None = None  # P-256
    recipient: Annotated[bytes, Meta(min_length=RECIPIENT_SIZE, max_length=RECIPIENT_SIZE)] | None = None  # X25519


class KeySignature(Struct, frozen=True, forbid_unknown_fields=True):
    """One key's signature over a document."""

    key: SignerKey
    signature: Signature


class SignedDocument(Struct, frozen=True, forbid_unknown_fields=True):
    """An identity document as it travels: the bytes that were signed, and the signatures."""

    document: Annotated[bytes, Meta(max_length=DOCUMENT_SIZE_MAX)]
    signatures: Annotated[tuple[KeySignature, ...], Meta(min_length=1, max_length=2 * KEYS_MAX)]


class PublishKeys(Struct, frozen=True):
    """With which keys a namespace publishes, by document `version` of its identity."""

    namespace: NamespaceId
    version: int
    keys: tuple[PublicKey, ...]


class Identity(Struct, frozen=True):
    """A namespace and its documents, all checked: what `open_identity` makes."""

    namespace: NamespaceId
    current: IdentityDocument
    chain: tuple[SignedDocument, ...]  # version 1 first

    @property
    def publish_keys(self) -> PublishKeys:
        """The keys that publish now."""
        return PublishKeys(self.namespace, self.current.version, self.current.publish.keys)

    @property
    def publishers(self) -> set[PublicKey]:
        """The keys that publish or did."""
        return {*self.current.publish.keys, *(retired.key for retired in self.current.retired)}

    @property
    def logs(self) -> dict[LogId, PublicKey]:
        """The logs of the namespace, those that were closed and those of retired keys included, with their keys."""
        keys = [*self.current.publish.keys, *(retired.key for retired in self.current.retired)]
        return {log_id(self.namespace, key, epoch): key for key in keys for epoch in range(self._epochs_of(key) + 1)}

    def log_of(self, key: PublicKey) -> LogId:
        """Return the log in which `key` signs now."""
        return log_id(self.namespace, key, self._epochs_of(key))

    @property
    def closed(self) -> dict[LogId, Epoch]:
        """The logs that go on no more, with their end."""
        return {log_id(self.namespace, epoch.key, epoch.number - 1): epoch for epoch in self.current.epochs}

    def continues(self, other: Identity) -> bool:
        """Say whether this one has all documents of `other`, and perhaps later ones."""
        ours = [signed.document for signed in self.chain[: len(other.chain)]]
        return ours == [signed.document for signed in other.chain]

    def check_next(self, document: IdentityDocument) -> None:
        """Raise InvalidData if `document`, the next one, takes back what the documents so far say."""
        publishers = {
            key
            for signed in self.chain
            for key in Identity(self.namespace, open_document(signed.document), ()).publishers
        }
        after = Identity(self.namespace, document, ())
        _check_takes_nothing_back(self, after, publishers - self.publishers)

    def counted(self, log: LogId, size: int) -> int:
        """Return how many of the first `size` records of `log` count."""
        limit = self.size_max(log)
        return size if limit is None else min(size, limit)

    def counted_of(self, key: PublicKey) -> int:
        """Return how many records of a retired key count, of all its logs together."""
        last = sum(retired.size for retired in self.current.retired if retired.key == key)
        return last + sum(epoch.size for epoch in self.current.epochs if epoch.key == key)

    def last_log_of(self, key: PublicKey) -> LogId:
        """Return the last log in which `key` signed what counts: that of now, or of a retired key that was closed."""
        is_closed = any(retired.key == key and not retired.size for retired in self.current.retired)
        return log_id(self.namespace, key, max(0, self._epochs_of(key) - is_closed))

    def size_max(self, log: LogId) -> int | None:
        """Return how many records of `log` count; None if all do."""
        for retired in self.current.retired:
            if self.log_of(retired.key) == log:
                return retired.size
        closed = self.closed.get(log)
        return closed.size if closed else None

    def _epochs_of(self, key: PublicKey) -> int:
        return sum(epoch.key == key for epoch in self.current.epochs)


def new_document(
    key: PublicKey, *, created: int, companion: CompanionKey | None = None, recipient: RecipientKey | None = None
) -> IdentityDocument:
    """Return a first document in which one key has all roles."""
    role = Role((key,), 1)
    return IdentityDocument(
        schema=1,
        version=1,
        created=created,
        root=role,
        publish=role,
        fresh=role,
        companion=companion.public_key if companion else None,
        recipient=recipient.public_key if recipient else None,
    )


def next_document(identity: Identity, *, created: int) -> IdentityDocument:
    """Return the document after the last one of `identity`, which changes nothing yet."""
    return replace(
        identity.current,
        version=identity.current.version + 1,
        created=max(created, identity.current.created),
        previous=document_hash(identity.chain[-1]),
    )


def sign_document(document: IdentityDocument, keys: Iterable[Signer]) -> SignedDocument:
    """Return `document` signed by `keys`."""
    data = encode(document)
    signatures = (KeySignature(SignerKey(key.public_key), key.sign(PURPOSE, data)) for key in keys)
    return SignedDocument(data, tuple(sorted(signatures, key=lambda signature: signature.key)))


def open_identity(chain: Sequence[SignedDocument]) -> Identity:
    """Return the identity that `chain` proves, version 1 first.

    Raises InvalidData if a version is missing, a document does not name the one
    before it, or too few root keys of it or of the one before signed.
    """
    if not 1 <= len(chain) <= CHAIN_MAX:
        raise InvalidData(f"an identity has 1 to {CHAIN_MAX} documents, not {len(chain)}")
    namespace, whole = namespace_id(chain[0].document), tuple(chain)
    before: Identity | None = None
    gone: set[PublicKey] = set()  # keys that published once, and that a document since did not name any more
    for version, signed in enumerate(chain, start=1):
        document = open_document(signed.document)
        before_hash = document_hash(chain[version - 2]) if before else None
        if document.version != version or document.previous != before_hash:
            raise InvalidData(f"identity document {document.version} does not follow document {version - 1}")
        _check_signatures(signed, [before.current.root, document.root] if before else [document.root])
        identity = Identity(namespace, document, whole)
        if before is not None:
            _check_takes_nothing_back(before, identity, gone)
            gone |= before.publishers - identity.publishers
        before = identity
    assert before is not None
    return before


def open_document(data: bytes) -> IdentityDocument:
    """Return the document that `data` encodes, checked as far as it stands for itself. Raises InvalidData."""
    document = decode(data, IdentityDocument, size_max=DOCUMENT_SIZE_MAX)
    _check_document(document)
    return document


def document_hash(signed: SignedDocument) -> bytes:
    """Return the hash by which the next document names this one."""
    return blake3(signed.document).digest()


def read_identity(chain: Sequence[SignedDocument]) -> Identity:
    """Return the identity that `chain` proves, for a chain that `open_identity` accepted before."""
    current = read(chain[-1].document, IdentityDocument)
    return Identity(namespace_id(chain[0].document), current, tuple(chain))


def namespace_id(first_document: bytes) -> NamespaceId:
    """Return the namespace that begins with this document."""
    return NamespaceId(blake3(first_document, derive_key_context=_NAMESPACE_CONTEXT).digest())


def _check_document(document: IdentityDocument) -> None:
    for role in (document.root, document.publish, document.fresh):
        if list(role.keys) != sorted(set(role.keys)):
            raise InvalidData("the keys of a role are sorted and each stands once")
        if role.threshold > len(role.keys):
            raise InvalidData(f"a threshold of {role.threshold} cannot be met by {len(role.keys)} keys")
    if document.publish.threshold != 1:
        raise InvalidData("each publishing key keeps its own log, so the threshold of publish is 1")
    if list(document.domains) != sorted(set(document.domains)):
        raise InvalidData("domains are sorted and each stands once")
    retired = [key.key for key in document.retired]
    if retired != sorted(set(retired)) or set(retired) & set(document.publish.keys):
        raise InvalidData("retired keys are sorted, each stands once, and none publishes")
    ends = [(epoch.key, epoch.number) for epoch in document.epochs]
    numbered = [(key, number) for key in sorted({key for key, _ in ends}) for number in _numbers(key, ends)]
    if ends != numbered or not {key for key, _ in ends} <= {*document.publish.keys, *retired}:
        raise InvalidData("epochs are sorted, numbered from 1 for each key, and of keys that publish or did")
    if document.companion is not None:
        check_companion_key(document.companion)
    if document.recipient is not None:
        check_recipient_key(document.recipient)


def _numbers(key: PublicKey, ends: Sequence[tuple[PublicKey, int]]) -> range:
    return range(1, 1 + sum(other == key for other, _ in ends))


def _check_takes_nothing_back(before: Identity, after: Identity, gone: set[PublicKey]) -> None:
    """Raise InvalidData if `after` lets count what `before`, or a document before it, does not let count any more.

    gone: keys that an earlier document dropped.
    """
    if after.publishers & gone:
        raise InvalidData("a key that an earlier document dropped comes back")
    retired = {each.key: each.size for each in before.current.retired}
    if retired.keys() & set(after.current.publish.keys):
        raise InvalidData("a retired key publishes again")
    ends = {(epoch.key, epoch.number): epoch for epoch in after.current.epochs}
    for epoch in before.current.epochs:
        end = ends.get((epoch.key, epoch.number))
        is_less = epoch.key in retired and end is not None and end.size < epoch.size
        if epoch.key in after.publishers and end != epoch and not is_less:
            raise InvalidData("the end of a closed log is taken back")
    for key in retired.keys() & after.publishers:
        # If the log is closed meanwhile, the size of the retired key is about the one that comes after it.
        closed = sum(epoch.key == key for epoch in before.current.epochs)
        sizes = [end.size for (each, number), end in ends.items() if each == key and number > closed]
        sizes += [each.size for each in after.current.retired if each.key == key]
        if sizes[0] > retired[key] or any(sizes[1:]):
            raise InvalidData("more of the log of a retired key would count than before")


def _check_signatures(signed: SignedDocument, roles: Sequence[Role]) -> None:
    signers = [signature.key for signature in signed.signatures]
    # So that two signatures by one key cannot count as two, and nobody can add to a document.
    if signers != sorted(set(signers)):
        raise InvalidData("the signatures of a document are sorted by key and each key signs once")
    if not set(signers) <= {key for role in roles for key in role.keys}:
        raise InvalidData("a document is signed by a key that is no root key")
    for signature in signed.signatures:
        check_signature(signature.key, PURPOSE, signed.document, signature.signature)
    for role in roles:
        count = len(set(signers) & set(role.keys))
        if count < role.threshold:
            raise InvalidSignature(f"{count} root keys signed, {role.threshold} must")
