"""Where things lie on disk (spec/store.md §1).

The store holds data that can be shared by hosts on one file system; the home
holds keys and the index, which belong to one machine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from p2phub.core.errors import InvalidName
from p2phub.core.ids import ContentId, LogId, ManifestId, NamespaceId

from .disk import disk_errors

FOLDERS = ("objects", "trees", "partial", "manifests", "logs", "identities", "views")
FEW = 16  # files that are looked for in less time than their folder is listed


class Layout(Struct, frozen=True):
    """The paths of one home and its store."""

    home: Path
    store: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Layout:
        """Return the layout that P2PHUB_HOME and P2PHUB_STORE name, or the platform's default. Raises InvalidName."""
        home = named_path(environment, "P2PHUB_HOME") or own_path(_default_home())
        return cls(home, named_path(environment, "P2PHUB_STORE") or home / "store")

    def create(self) -> None:
        """Make the folders that are missing; the home is readable by its owner only."""
        with disk_errors(self.home):
            self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in FOLDERS:
            with disk_errors(self.store / name):
                (self.store / name).mkdir(parents=True, exist_ok=True)

    @property
    def index(self) -> Path:
        return self.home / "index.sqlite"

    @property
    def kept(self) -> Path:
        """What the index alone knows, for the day on which it is lost."""
        return self.home / "kept.cbor"

    @property
    def journals(self) -> Path:
        """Records that came from others, many logs in a file; known to this home's index alone."""
        return self.home / "journals"

    @property
    def keys(self) -> Path:
        return self.home / "keys"

    @property
    def own_identity(self) -> Path:
        return self.home / "identity.cbor"

    @property
    def cosigned(self) -> Path:
        """What the witness of this home has cosigned; its key lies beside the others."""
        return self.home / "cosigned.sqlite"

    @property
    def restored(self) -> Path:
        """Which logs were written elsewhere before, and how many records they had: `LOG SIZE` in each line."""
        return self.home / "restored"

    @property
    def policy(self) -> Path:
        return self.home / "policy.toml"

    @property
    def daemon(self) -> Path:
        """What a running daemon says of itself, with its token."""
        return self.home / "daemon.json"

    @property
    def uploads(self) -> Path:
        """Files that clients sent and that were not committed yet."""
        return self.store / "uploads"

    @property
    def upstream(self) -> Path:
        """Files that come from another hub and are not whole yet."""
        return self.store / "upstream"

    def object(self, root: ContentId) -> Path:
        return self._sharded("objects", root.hex())

    def object_name(self, root: ContentId) -> str:
        """Return `object` as text: for thousands of files, to make a Path of it takes longer than to look there."""
        name = root.hex()
        return f"{self.store}/objects/{name[:2]}/{name}"

    def tree(self, root: ContentId) -> Path:
        return self._sharded("trees", root.hex())

    def partial(self, root: ContentId) -> Path:
        """The sparse file of a download; its bitmap has the suffix `.map`."""
        return self._sharded("partial", root.hex()).with_suffix(".data")

    def manifest(self, manifest: ManifestId) -> Path:
        return self._sharded("manifests", manifest.hex())

    def log(self, log: LogId) -> Path:
        return self._sharded("logs", str(log))

    def has_log(self, log: LogId) -> bool:
        """Say whether a log has a file of its own; asked of every log that comes, so without making a Path."""
        name = str(log)
        return os.path.exists(f"{self.store}/logs/{name[:2]}/{name}")

    @property
    def private(self) -> Path:
        """What must be known to read each private log, a file a log."""
        return self.store / "private"

    def private_log(self, log: LogId) -> Path:
        return self.private / str(log)

    def identity(self, namespace: NamespaceId) -> Path:
        return self._sharded("identities", str(namespace))

    def view(self, namespace: str, model: str, manifest: ManifestId) -> Path:
        return self.store / "views" / namespace / model / manifest.hex()[:12]

    def perhaps_in(self, folder: str, roots: Sequence[ContentId]) -> Sequence[ContentId]:
        """Return those of `roots` of which something may lie in a folder of the store."""
        if len(roots) <= FEW:
            return roots
        path = self.store / folder
        with disk_errors(path):
            # Mostly next to nothing lies there, and a look at each of thousands of names takes long.
            shards = set(os.listdir(path))
        return [root for root in roots if root.hex()[:2] in shards]

    def _sharded(self, folder: str, name: str) -> Path:
        return self.store / f"{folder}/{name[:2]}/{name}"


def own_path(path: str | Path) -> Path:
    """Return the absolute path that a person means by `path`, which may begin with `~`. Raises InvalidName."""
    try:
        absolute = Path(path).expanduser().absolute()
    except RuntimeError as exc:
        raise InvalidName(f"no home folder is known for {path}", hint="write the path without ~, or set HOME") from exc
    try:
        str(absolute).encode()
    except UnicodeEncodeError as exc:
        # The index and other nodes keep names of folders as text.
        raise InvalidName(f"the path {absolute} is not UTF-8") from exc
    return absolute


def named_path(environment: Mapping[str, str], name: str) -> Path | None:
    """Return the path that the variable `name` holds, None if it is empty or not set. Raises InvalidName."""
    text = environment.get(name)
    if not text:
        return None
    try:
        return own_path(text)
    except InvalidName as exc:
        raise InvalidName(f"{name}: {exc}", hint=exc.hint) from exc


def _default_home() -> str:
    import platformdirs  # not needed where the environment says it

    try:
        return platformdirs.user_data_dir("p2phub")
    except RuntimeError as exc:
        raise InvalidName("no home folder is known for this user", hint="set P2PHUB_HOME") from exc
