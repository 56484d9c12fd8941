"""A next identity document while signatures of root keys are collected (spec/identity.md §7).

next document ──one signs──▶ Proposal ──others sign──▶ Proposal ──enough──▶ identity
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

from .encoding import encode
from .errors import InvalidData
from .identity import (
    CHAIN_MAX,
    DOCUMENT_SIZE_MAX,
    KEYS_MAX,
    PURPOSE,
    Identity,
    IdentityDocument,
    KeySignature,
    Role,
    SignedDocument,
    document_hash,
    open_document,
    open_identity,
)
from .ids import PublicKey, SignerKey
from .signing import Signer, check_signature

PROPOSAL_SIZE_MAX = 4 * 1024 * 1024 + 2 * DOCUMENT_SIZE_MAX  # bytes; a chain (spec/identity.md §3) and one document


class Proposal(Struct, frozen=True, forbid_unknown_fields=True):
    """The documents of a namespace, a next one, and who signed that so far."""

    chain: Annotated[tuple[SignedDocument, ...], Meta(min_length=1, max_length=CHAIN_MAX - 1)]
    document: Annotated[bytes, Meta(max_length=DOCUMENT_SIZE_MAX)]
    signatures: Annotated[tuple[KeySignature, ...], Meta(max_length=2 * KEYS_MAX)] = ()


class OpenProposal(Struct, frozen=True):
    """A proposal that was checked."""

    proposal: Proposal
    before: Identity
    after: IdentityDocument

    @property
    def roles(self) -> tuple[Role, Role]:
        """Whose keys must sign: the root of the last document, and of the next one."""
        return self.before.current.root, self.after.root

    @property
    def signers(self) -> set[PublicKey]:
        """Who signed."""
        return {signature.key for signature in self.proposal.signatures}

    @property
    def wanted(self) -> set[PublicKey]:
        """Whose signature would bring it on."""
        return {key for role in self.roles if self._missing(role) for key in role.keys} - self.signers

    @property
    def missing(self) -> int:
        """How many signatures are missing, at least; 0: it may take effect."""
        return max(self._missing(role) for role in self.roles)

    def _missing(self, role: Role) -> int:
        return max(0, role.threshold - len(self.signers & set(role.keys)))


def propose(before: Identity, document: IdentityDocument) -> OpenProposal:
    """Return a proposal that nobody signed yet. Raises InvalidData if `document` is no next one of `before`."""
    return open_proposal(Proposal(before.chain, encode(document)))


def open_proposal(proposal: Proposal) -> OpenProposal:
    """Return a proposal with what it says. Raises InvalidData if anything of it is wrong but that signatures miss."""
    before = open_identity(proposal.chain)
    after = open_document(proposal.document)
    if after.version != before.current.version + 1 or after.previous != document_hash(proposal.chain[-1]):
        raise InvalidData("the document that is proposed does not follow the last one")
    keys = [signature.key for signature in proposal.signatures]
    if keys != sorted(set(keys)) or not set(keys) <= {*before.current.root.keys, *after.root.keys}:
        raise InvalidData("the signatures of a proposal are sorted, and each root key signs once")
    for signature in proposal.signatures:
        check_signature(signature.key, PURPOSE, proposal.document, signature.signature)
    before.check_next(after)
    return OpenProposal(proposal, before, after)


def sign_proposal(opened: OpenProposal, signers: Iterable[Signer]) -> OpenProposal:
    """Return the proposal with the signatures of those of `signers` that bring it on."""
    signatures: dict[PublicKey, KeySignature] = {each.key: each for each in opened.proposal.signatures}
    for signer in signers:
        if signer.public_key in opened.wanted and signer.public_key not in signatures:
            signed = signer.sign(PURPOSE, opened.proposal.document)
            signatures[signer.public_key] = KeySignature(SignerKey(signer.public_key), signed)
    ordered = tuple(signatures[key] for key in sorted(signatures))
    return replace(opened, proposal=replace(opened.proposal, signatures=ordered))


def settle(opened: OpenProposal) -> Identity:
    """Return the identity with the document that was proposed. Raises InvalidSignature if too few signed."""
    signed = SignedDocument(opened.proposal.document, opened.proposal.signatures)
    return open_identity((*opened.proposal.chain, signed))
