"""The errors of p2phub: classes differ where a catcher would act differently.

The text of each is a sentence for a person: lower case, no full stop. `hint`
says what to do next, where there is something to do.
"""

from __future__ import annotations


class HubError(Exception):
    """Anything that can go wrong in a foreseen way."""

    def __init__(self, text: str, *, hint: str | None = None) -> None:
        super().__init__(text)
        self.hint = hint


class InvalidData(HubError):
    """Bytes that break the spec; names no culprit."""


class InvalidEncoding(InvalidData):
    """Bytes that are not the one encoding of a value of the expected type."""


class UnknownForm(InvalidEncoding):
    """A well-formed value with fields, types or sizes that we do not know: it may be of another version."""


class TooEarly(InvalidData):
    """Something signed at a time that has not come yet, by our clock: it may be right later."""


class InvalidSignature(InvalidData):
    """A signature that does not verify, or a key that must not be used."""


class SplitIdentity(InvalidData):
    """Two identity documents of one version, both signed as they must be: the fault of the publisher alone."""


class HashMismatch(InvalidData):
    """Content that is not what its hash says."""


class InvalidName(HubError):
    """Text that is no valid name, reference or address."""


class ForkedLog(HubError):
    """A publisher signed two histories of one log; carries both heads as evidence."""

    def __init__(self, text: str, *, ours: bytes, theirs: bytes, hint: str | None = None) -> None:
        super().__init__(text, hint=hint)
        self.ours = ours
        self.theirs = theirs


class PeerError(HubError):
    """A peer did not do what was asked; carries its node id or address as text."""

    def __init__(self, text: str, *, peer: str, hint: str | None = None) -> None:
        super().__init__(text, hint=hint)
        self.peer = peer


class PeerUnreachable(PeerError):
    """Try another peer now, and this one later."""


class PeerBusy(PeerError):
    """The peer has no upload slot free; ask again after `retry_after_s`."""

    def __init__(self, text: str, *, peer: str, retry_after_s: float) -> None:
        super().__init__(text, peer=peer)
        self.retry_after_s = retry_after_s


class GivenMeanwhile(PeerError):
    """The peer gave to another what was asked for as a first copy; look again what it has not given yet."""


class FileRefused(PeerError):
    """The provider does not give the file `root`; others it may."""

    def __init__(self, text: str, *, peer: str, root: bytes) -> None:
        super().__init__(text, peer=peer)
        self.root = root


class OnlyWhole(FileRefused):
    """The provider gives the file `root`, but no parts of it."""


class OtherVersion(PeerError):
    """The peer said what another version of the protocol may allow: leave it for a while, and blame it for nothing."""


class PeerViolation(PeerError):
    """The peer broke the protocol or lied; drop it. `__cause__` says what it sent."""


class StoreError(HubError):
    """The local disk is full, read-only or damaged; carries the path."""

    def __init__(self, text: str, *, path: str, hint: str | None = None) -> None:
        super().__init__(text, hint=hint)
        self.path = path


class NoSpace(StoreError):
    """The disk or a quota is full."""


class NotFound(HubError):
    """Nobody we know of has it."""


class Offline(HubError):
    """It is not here, and the network may not be used."""


class Conflict(HubError):
    """It would change the meaning of something that is fixed, such as a published version."""


class DomainError(NotFound):
    """A domain does not say, or not so that it can be believed, who publishes under it."""


class BindingChanged(Conflict):
    """A domain names another publisher than the one that it is pinned to."""


class AccessDenied(HubError):
    """The capability shown does not allow it."""


class WrongPassphrase(AccessDenied):
    """What is locked with a passphrase is not opened by this one."""


class NotAccepted(HubError):
    """Its publisher asks to accept a licence first, or has not approved that it was."""


class VerificationFailed(HubError):
    """Content on this machine is not what was published."""


def told_class(error: HubError) -> str:
    """Return by which class another process is told of `error`: its own, or the nearest one that `rebuild` knows."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind in (*_CLASSES.values(), HubError))


def rebuild(name: str, text: str, hint: str | None) -> HubError:
    """Return the error of class `name` that another process met, as far as its text carries it."""
    match _CLASSES.get(name, HubError):
        case cls if issubclass(cls, PeerBusy):
            error: HubError = PeerUnreachable(text, peer="")
        case cls if issubclass(cls, PeerError):
            error = cls(text, peer="")
        case cls if issubclass(cls, StoreError):
            error = cls(text, path="")
        case cls if issubclass(cls, ForkedLog):
            error = cls(text, ours=b"", theirs=b"")
        case cls:
            error = cls(text)
    error.hint = hint
    return error


_CLASSES: dict[str, type[HubError]] = {
    cls.__name__: cls
    for cls in (
        InvalidData, InvalidEncoding, UnknownForm, InvalidSignature, SplitIdentity, HashMismatch, InvalidName,
        ForkedLog, PeerError, PeerUnreachable, PeerBusy, OtherVersion, PeerViolation, StoreError, NoSpace, NotFound,
        Offline, Conflict, AccessDenied, WrongPassphrase, NotAccepted, VerificationFailed, DomainError, BindingChanged,
    )
}  # fmt: skip
