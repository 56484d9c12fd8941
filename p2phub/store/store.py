"""Everything on this machine's disk, opened together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .blobs import Blobs
from .chunklists import ChunkLists
from .database import Database
from .layout import Layout
from .lazily import is_made, made_once
from .manifests import Manifests
from .partial import Partials

if TYPE_CHECKING:
    from .ahead import Ahead
    from .assessments import Assessments
    from .bindings import Bindings
    from .catalogue import Catalogue
    from .chunkplaces import ChunkPlaces
    from .clearing import Clearing
    from .confirmations import Confirmations
    from .conflicts import Conflicts
    from .delegations import Delegations
    from .digests import Digests
    from .federations import Federations
    from .forks import Forks
    from .fresh import Statements
    from .gates import Gates
    from .holdings import Holdings
    from .intake import Intake
    from .keeping import Keeping
    from .listing import Listing
    from .logs import Logs
    from .mirrors import Mirrors
    from .parts import Parts
    from .peers import Peers
    from .pledges import Pledges
    from .policyuse import PolicyUse
    from .private import Private
    from .publishing import Publishing
    from .rates import Rates
    from .readables import Readables
    from .recalls import Recalls
    from .scans import Scans
    from .seals import Seals
    from .search import Search
    from .searchindex import SearchIndex
    from .settings import StoredSettings
    from .splits import Splits
    from .states import LogStates, NodeStates
    from .uploads import Uploads
    from .witnesses import Witnesses


class Store:
    """The stores of one home; may be open in several processes at once. A context manager.

    Each part is loaded when it is first asked for: there are many, and a command needs few.
    """

    def __init__(self, layout: Layout) -> None:
        """Open the store, made now if it is not there. Raises StoreError."""
        layout.create()
        self.layout = layout
        self.database = Database(layout.index, layout.kept)
        self.chunk_lists = ChunkLists(layout, self.database)
        self.blobs = Blobs(layout, self.database, self.chunk_lists)
        self.partials = Partials(layout)
        self.manifests = Manifests(layout, self.database)
        with self.database.read() as connection:
            (has_search,) = connection.execute("SELECT filled FROM search_state").fetchone()
        if not has_search:
            from .searchindex import REFILLED_AT_ONCE

            # More would keep whoever opens this waiting; a node goes on with it while it serves.
            self.index.refill(REFILLED_AT_ONCE)
        if layout.private.exists():
            # At once: what the index has lost would not count as private.
            self.private.find_files()

    @made_once
    def readables(self) -> Readables:
        from .readables import Readables

        return Readables(self.layout, self.blobs, self.chunk_lists, self.partials)

    @made_once
    def chunk_places(self) -> ChunkPlaces:
        from .chunkplaces import ChunkPlaces

        return ChunkPlaces(self.layout, self.database, self.blobs, self.chunk_lists, self.readables)

    @made_once
    def intake(self) -> Intake:
        from .intake import Intake

        return Intake(self.layout, self.database, self.blobs, self.chunk_lists)

    @made_once
    def clearing(self) -> Clearing:
        from .clearing import Clearing

        return Clearing(self.layout, self.database, self.chunk_lists)

    @made_once
    def index(self) -> SearchIndex:
        from .searchindex import SearchIndex

        return SearchIndex(self.database, self._entries)

    @made_once
    def catalogue(self) -> Catalogue:
        from .catalogue import Catalogue

        return Catalogue(self.database)

    @made_once
    def search(self) -> Search:
        from .search import Search

        return Search(self.database, self._entries)

    @made_once
    def listing(self) -> Listing:
        from .listing import Listing

        return Listing(self.database)

    @made_once
    def logs(self) -> Logs:
        from .cataloguewriter import CatalogueWriter
        from .logs import Logs

        return Logs(self.layout, self.database, CatalogueWriter(self.index))

    @made_once
    def private(self) -> Private:
        from .private import Private

        # Most homes have nothing private, and need no logs for it.
        return Private(self.layout, self.database, lambda: self.logs)

    @made_once
    def conflicts(self) -> Conflicts:
        from .conflicts import Conflicts

        return Conflicts(self.database)

    @made_once
    def forks(self) -> Forks:
        from .forks import Forks

        return Forks(self.database, self.logs.recount)

    @made_once
    def splits(self) -> Splits:
        from .splits import Splits

        return Splits(self.database)

    @made_once
    def peers(self) -> Peers:
        from .peers import Peers

        return Peers(self.database)

    @made_once
    def policy_use(self) -> PolicyUse:
        from .policyuse import PolicyUse

        return PolicyUse(self.database)

    @made_once
    def confirmations(self) -> Confirmations:
        from .confirmations import Confirmations

        return Confirmations(self.database)

    @made_once
    def log_states(self) -> LogStates:
        from .states import LogStates

        return LogStates(self.database)

    @made_once
    def log_digests(self) -> Digests:
        from .digests import Digests

        return Digests(self.database, self.log_states)

    @made_once
    def node_states(self) -> NodeStates:
        from .states import NodeStates

        return NodeStates(self.database)

    @made_once
    def node_digests(self) -> Digests:
        from .digests import Digests

        return Digests(self.database, self.node_states)

    @made_once
    def rates(self) -> Rates:
        from .rates import Rates

        return Rates(self.database)

    @made_once
    def holdings(self) -> Holdings:
        from .holdings import Holdings

        return Holdings(self.database)

    @made_once
    def delegations(self) -> Delegations:
        from .delegations import Delegations

        return Delegations(self.database)

    @made_once
    def keeping(self) -> Keeping:
        from .keeping import Keeping

        return Keeping(self.database)

    @made_once
    def fresh(self) -> Statements:
        from .fresh import Statements

        return Statements(self.database)

    @made_once
    def witnesses(self) -> Witnesses:
        from .witnesses import Witnesses

        return Witnesses(self.database)

    @made_once
    def pledges(self) -> Pledges:
        from .pledges import Pledges

        return Pledges(self.database)

    @made_once
    def federations(self) -> Federations:
        from .federations import Federations

        return Federations(self.database)

    @made_once
    def mirrors(self) -> Mirrors:
        from .mirrors import Mirrors

        return Mirrors(self.database)

    @made_once
    def seals(self) -> Seals:
        from .seals import Seals

        return Seals(self.database)

    @made_once
    def scans(self) -> Scans:
        from .scans import Scans

        return Scans(self.database)

    @made_once
    def recalls(self) -> Recalls:
        from .recalls import Recalls

        return Recalls(self.database)

    @made_once
    def assessments(self) -> Assessments:
        from .assessments import Assessments

        return Assessments(self.database)

    @made_once
    def gates(self) -> Gates:
        from .gates import Gates

        return Gates(self.database)

    @made_once
    def ahead(self) -> Ahead:
        from .ahead import Ahead

        return Ahead(self.database)

    @made_once
    def publishing(self) -> Publishing:
        from .publishing import Publishing

        return Publishing(self.database)

    @made_once
    def uploads(self) -> Uploads:
        from .uploads import Uploads

        return Uploads(self.layout.uploads)

    @made_once
    def parts(self) -> Parts:
        from .parts import Parts

        return Parts(self.layout.upstream)

    @made_once
    def bindings(self) -> Bindings:
        from .bindings import Bindings

        return Bindings(self.database)

    @made_once
    def settings(self) -> StoredSettings:
        from .settings import StoredSettings

        return StoredSettings(self.database)

    def close(self) -> None:
        if is_made(self, "logs"):
            self.logs.close()
        self.database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def rebuild(self, progress: Callable[[str], None]) -> dict[str, int]:
        """Make the index say what the files say; returns what was found.

        Objects are hashed again; files that were registered in place must be published again. What was known
        stays so until the files say otherwise: if it is broken off, nothing is missing that is there.
        """
        with self.database.write() as connection:
            self.blobs.forget_in_place(connection)
            (had_search,) = connection.execute("SELECT EXISTS (SELECT 1 FROM models)").fetchone()
        progress("reading manifests")
        manifests = self.manifests.list_again()
        progress("reading logs")
        records = self.logs.rebuild()
        # What was there may be wrong. Not before: searches go on, and what is cleared comes back piece by piece.
        if had_search:
            with self.database.write() as connection:
                self.index.clear(connection)
        self.index.refill()
        progress("hashing objects")
        objects, damaged = self.blobs.list_again(self.manifests.profiles())
        return {"manifests": manifests, "records": records, "objects": objects, "damaged": damaged}

    def _entries(self, keys: Sequence[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        return self.logs.entries_at(keys)
