"""Which repositories of other hubs are kept here."""

from __future__ import annotations

from msgspec import Struct

from p2phub.core.choices import Kind

from . import Operation, Text


class MirrorInfo(Struct, frozen=True):
    """A revision of another hub's repository that is kept here."""

    reference: str  # hf://…
    hub: str
    kind: str
    name: str  # ORG/NAME
    revision: str
    commit: str | None  # that is whole here
    manifest: str | None
    files: int
    size: int  # bytes
    restricted: bool  # not everybody may have it
    checked: int | None  # when the hub was last asked, in seconds since 1970


class MirrorAdd(Operation, tag="mirror-add", frozen=True):
    """Fetch all of another hub's repository, keep it, and vouch for it."""

    result = MirrorInfo

    reference: Text  # hf://ORG/NAME[@REVISION]
    kind: Kind | None = None


class MirrorList(Operation, tag="mirror-ls", frozen=True):
    """Show the mirrors that are kept here."""

    result = list[MirrorInfo]


class MirrorUpdate(Operation, tag="mirror-update", frozen=True):
    """Fetch what changed since, of one mirror or (None) of all."""

    result = list[MirrorInfo]

    reference: Text | None = None
    kind: Kind | None = None


class MirrorRemove(Operation, tag="mirror-rm", frozen=True):
    """Mirror a repository no longer."""

    result = MirrorInfo

    reference: Text
    kind: Kind | None = None


class TrustedMirrors(Struct, frozen=True):
    """The publishers, besides one's own, whose word about mirrors counts here."""

    namespaces: list[str]


class MirrorTrust(Operation, tag="mirror-trust", frozen=True):
    """Take a publisher at his word about mirrors, or no longer; without one, show whom."""

    result = TrustedMirrors

    namespace: Text | None = None
    trusted: bool = True
