"""Compare files and names with what they must be, and vouch for them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from p2phub.core.choices import BillForm
from p2phub.core.locked import NAMES_MAX, Locked

from . import AbsolutePath, Given, Operation, Text


class ByteSpan(Struct, frozen=True):
    """Bytes `begin` to `end - 1` of a file."""

    begin: int
    end: int


class Damage(Struct, frozen=True):
    """A file that is not as it should be, and where."""

    path: str
    location: str  # on disk
    spans: list[ByteSpan]
    missing: bool  # nothing of it is here
    repaired: bool


class VerifyResult(Struct, frozen=True):
    """What was found."""

    reference: str
    revision: str | None
    files: int
    size: int  # bytes hashed
    damaged: list[Damage]
    received: int  # bytes fetched to repair
    seconds: float

    @property
    def good(self) -> bool:
        return all(damage.repaired for damage in self.damaged)


class Verify(Operation, tag="verify", frozen=True):
    """Hash again what is here of a repository, and mend it if asked to."""

    result = VerifyResult

    reference: Text
    repair: bool = False
    origins: Given = ()
    standing_origins: Given = ()  # of the environment: those that do not fit are passed over


class LockNames(Operation, tag="lock", frozen=True):
    """What names mean now, to be written down."""

    result = list[Locked]

    names: Annotated[tuple[Text, ...], Meta(max_length=NAMES_MAX)]


class CheckLocks(Operation, tag="lock-check", frozen=True):
    """Which of the names that were written down mean something else now."""

    result = list[str]

    locked: Annotated[tuple[Locked, ...], Meta(max_length=NAMES_MAX)]


class ModelSignature(Struct, frozen=True):
    """A signature of OpenSSF model signing."""

    reference: str
    revision: str
    files: int
    bundle: str  # JSON
    public_key: str  # PEM: of the key that signed it


class SignModel(Operation, tag="sign-model", frozen=True):
    """Sign what a repository consists of, for tools of OpenSSF model signing."""

    result = ModelSignature

    reference: Text


class SignatureCheck(Struct, frozen=True):
    """How the files of a folder compare with what was signed."""

    signer: str
    model: str  # as the signer calls it
    files: int  # that were signed
    size: int  # bytes hashed
    wrong: list[str]  # paths: of another content than signed
    missing: list[str]
    unsigned: list[str]

    @property
    def good(self) -> bool:
        return not (self.wrong or self.missing or self.unsigned)


class CheckSignature(Operation, tag="check-signature", frozen=True):
    """Compare a folder with such a signature; one of `key`, `publisher`, `certificates` says whose it must be."""

    result = SignatureCheck

    folder: AbsolutePath
    bundle: AbsolutePath
    key: AbsolutePath | None = None  # file: a public key as PEM
    publisher: Text | None = None
    certificates: AbsolutePath | None = None  # file: of those who are trusted to vouch, PEM


class BillOfMaterials(Struct, frozen=True):
    """What a revision consists of, for other tools."""

    reference: str
    revision: str
    form: str
    text: str  # JSON


class ShowBill(Operation, tag="sbom", frozen=True):
    """List what a repository consists of and was made from, for other tools."""

    result = BillOfMaterials

    reference: Text
    form: BillForm = "cyclonedx"
