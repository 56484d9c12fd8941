"""Which HTTP origins a fetch has: those that its owner gave, and those that the manifest names (spec/origins.md §1).

    --from, P2PHUB_FROM, manifest ──▶ URL of each file ──▶ Origin ──▶ connections

What is given counts as the owner's word, also where the manifest names the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from p2phub.core.choices import PROFILES, Profile
from p2phub.core.errors import InvalidName
from p2phub.core.ids import ContentId
from p2phub.core.manifest import FileEntry
from p2phub.core.origins import GIVEN_MAX, OriginFile, Url, check_given, host_of, url_of_file, url_of_path

from .events import Notice, Tell

if TYPE_CHECKING:
    from p2phub.net.origin import OriginConnection
    from p2phub.net.pacing import Pacer

# Files that an origin may refuse before it has given any: a manifest can name a server that has nothing to do with it,
# and everybody who fetches the manifest asks it; spec/origins.md §2.
REFUSALS_MAX = 16


class GivenOrigins(Struct, frozen=True):
    """Templates that the owner of this node gave."""

    named: tuple[str, ...] = ()  # for this fetch: one that does not fit what is fetched ends it
    standing: tuple[str, ...] = ()  # for whatever is fetched (P2PHUB_FROM): one that does not fit is passed over

    def check(self) -> None:
        """Raise InvalidName unless all of them are URLs of origins."""
        if (count := len(self.named) + len(self.standing)) > GIVEN_MAX:
            raise InvalidName(f"{count} origins are too many, the limit is {GIVEN_MAX}")
        for template in self.named:
            check_given(template)
        for template in self.standing:
            try:
                check_given(template)
            except InvalidName as exc:
                raise InvalidName(str(exc), hint="it is one of those in P2PHUB_FROM") from exc

    def of_repository(self, tell: Tell) -> tuple[str, ...]:
        """Return those to use for a repository."""
        return self._fitting(lambda template: url_of_path(template, "x"), tell)

    def of_file(self, tell: Tell) -> tuple[str, ...]:
        """Return those to use for a single file, of which no manifest is known."""
        return self._fitting(url_of_file, tell)

    def _fitting(self, use: Callable[[str], Url], tell: Tell) -> tuple[str, ...]:
        fitting = []
        for template in self.standing:
            try:
                use(template)
                fitting.append(template)
            except InvalidName as exc:
                tell(Notice(f"origin {host_of(template)} of P2PHUB_FROM is passed over: {exc}"))
        return (*self.named, *fitting)


NONE_GIVEN = GivenOrigins()


class Origin(Struct, frozen=True):
    """One server and what it has of the wanted files."""

    name: str  # host and port, which is all that is shown; no two of a fetch have the same
    host: str
    files: Mapping[ContentId, OriginFile]
    is_given: bool  # by the owner of this node

    def connect(self, pacer: Pacer | None = None) -> OriginConnection:
        """Return a new connection, paced by `pacer`; it connects when it is first used."""
        # Loaded when the first origin is: the command line must start fast.
        from p2phub.net.origin import OriginConnection

        return OriginConnection(self.name, self.files, is_given=self.is_given, pacer=pacer)


class Origins(Struct, frozen=True):
    """The origins of one fetch."""

    origins: tuple[Origin, ...] = ()
    profiles: Mapping[ContentId, Sequence[Profile]] = field(default_factory=dict)  # how each file may be cut

    def __bool__(self) -> bool:
        return bool(self.origins)

    def having(self, root: ContentId) -> list[Origin]:
        """Return the origins that have a URL for the file `root`."""
        return [origin for origin in self.origins if root in origin.files]

    def size(self, root: ContentId) -> int:
        """Return how many bytes the file `root` has, as far as is known."""
        return max((origin.files[root].size or 0 for origin in self.having(root)), default=0)

    def of_size(self, root: ContentId, size: int) -> Origins:
        """Return the same for the single file `root`, which has `size` bytes."""
        sized = [replace(origin, files={root: replace(origin.files[root], size=size)}) for origin in self.having(root)]
        return replace(self, origins=tuple(sized))


def of_repository(files: Iterable[FileEntry], given: Sequence[str], published: Sequence[str]) -> Origins:
    """Return the origins of `files`, by templates. Raises InvalidName if one that was given is none."""
    entries = {file.root: file for file in files}
    templates = {template: True for template in given} | {
        template: False for template in published if template not in given
    }
    origins = []
    for template, is_given in templates.items():
        found = {
            root: OriginFile(url_of_path(template, file.path), file.size, file.path) for root, file in entries.items()
        }
        origins.append((url_of_path(template, "x"), found, is_given))
    return Origins(tuple(_named(origins)), {root: (file.profile,) for root, file in entries.items()})


def of_file(root: ContentId, given: Sequence[str]) -> Origins:
    """Return the origins of a single file, of which no manifest is known. Raises InvalidName."""
    origins = []
    for template in dict.fromkeys(given):
        url = url_of_file(template)
        origins.append((url, {root: OriginFile(url, None, f"b3:{root.hex()[:12]}…")}, True))
    # The likeliest first: each costs reading the whole file, but tensors, which are not there or are at once seen.
    return Origins(tuple(_named(origins)), {root: PROFILES[::-1]})


def _named(origins: Iterable[tuple[Url, Mapping[ContentId, OriginFile], bool]]) -> Iterable[Origin]:
    """Give each origin a name that no other has."""
    seen: dict[str, int] = {}
    for url, files, is_given in origins:
        count = seen[url.endpoint] = seen.get(url.endpoint, 0) + 1
        name = url.endpoint if count == 1 else f"{url.endpoint} ({count})"
        yield Origin(name, url.host, files, is_given)
