"""The chunk list of each file, by its root: what its bytes are checked with (spec/store.md §2).

Short ones lie in the index, each long one is a file of its own, in `trees/`. Rule: none
is kept that was not verified, and a file is checked again when it is read, since wrong
hashes make liars of honest peers.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping

from p2phub.core.errors import InvalidData
from p2phub.core.filetree import ChunkList
from p2phub.core.ids import ContentId

from .database import Database, rows_by_root
from .disk import disk_errors, write_file
from .layout import Layout

INLINE_SIZE_MAX = 64 * 1024  # bytes of a chunk list that the index holds itself; spec/store.md §1
LONG_LISTS_MAX = 8  # long chunk lists kept in memory, 36 bytes a chunk: to check one takes 2 s a million chunks


class ChunkLists:
    """The chunk lists of one store."""

    def __init__(self, layout: Layout, database: Database) -> None:
        self._layout = layout
        self._database = database
        self._long: OrderedDict[ContentId, ChunkList] = OrderedDict()  # checked; the last used last
        self._lock = threading.Lock()

    def find(self, root: ContentId) -> ChunkList | None:
        """Return the chunk list of the file `root`, or None if it is not here."""
        return self.find_all([root]).get(root)

    def find_all(self, roots: Collection[ContentId]) -> dict[ContentId, ChunkList]:
        """Return the chunk lists of those of the files `roots` for which one is here."""
        rows = rows_by_root(self._database, "SELECT root, packed FROM chunk_lists", roots)
        lists = {}
        for root in roots:
            if root in rows and (packed := rows[root]["packed"]) is not None:
                lists[root] = ChunkList(packed)
        for root in self._layout.perhaps_in("trees", [root for root in roots if root not in lists]):
            if (chunks := self._long_list(root)) is not None:
                lists[root] = chunks
        return lists

    def _long_list(self, root: ContentId) -> ChunkList | None:
        """Return the chunk list of the file `root` that is a file of its own, None if there is none."""
        with self._lock:
            if root in self._long:
                self._long.move_to_end(root)
                return self._long[root]
        path = self._layout.tree(root)
        with disk_errors(path):
            try:
                with open(path, "rb") as file:
                    packed = file.read()
            except FileNotFoundError:
                return None  # as of nearly all: most lists are short, and lie in the index
        try:
            chunks = ChunkList(packed)
        except InvalidData:
            return None
        # Wrong hashes would make liars of honest peers, and rot of good chunks.
        if chunks.root() != root:
            return None
        with self._lock:
            self._long[root] = chunks
            if len(self._long) > LONG_LISTS_MAX:
                self._long.popitem(last=False)
        return chunks

    def save(self, root: ContentId, chunks: ChunkList) -> None:
        """Keep the verified chunk list of the file `root`."""
        self.save_all({root: chunks})

    def save_all(self, lists: Mapping[ContentId, ChunkList]) -> None:
        """Keep verified chunk lists, by file root."""
        rows: list[tuple[ContentId, bytes | None]] = []
        for root, chunks in lists.items():
            inline = len(chunks.packed) <= INLINE_SIZE_MAX
            if not inline:
                write_file(self._layout.tree(root), chunks.packed)
            rows.append((root, chunks.packed if inline else None))
        with self._database.write() as connection:
            connection.executemany("INSERT OR REPLACE INTO chunk_lists (root, packed) VALUES (?, ?)", rows)

    def forget(self, root: ContentId) -> None:
        """Keep nothing of the file `root` in memory, of which the chunk list was removed."""
        with self._lock:
            self._long.pop(root, None)
