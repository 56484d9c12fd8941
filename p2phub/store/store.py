"""Everything on this machine's disk, opened together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .ahead import Ahead
from .assessments import Assessments
from .bindings import Bindings
from .blobs import Blobs
from .catalogue import Catalogue
from .confirmations import Confirmations
from .conflicts import Conflicts
from .database import REBUILT, Database
from .delegations import Delegations
from .digests import Digests
from .federations import Federations
from .forks import Forks
from .fresh import Statements
from .gates import Gates
from .holdings import Holdings
from .keeping import Keeping
from .layout import Layout
from .listing import Listing
from .logs import Logs
from .manifests import Manifests
from .mirrors import Mirrors
from .parts import Parts
from .peers import Peers
from .pledges import Pledges
from .policyuse import PolicyUse
from .private import Private
from .publishing import Publishing
from .rates import Rates
from .recalls import Recalls
from .scans import Scans
from .seals import Seals
from .search import Search
from .searchindex import REFILLED_AT_ONCE, SearchIndex
from .settings import StoredSettings
from .splits import Splits
from .states import LogStates, NodeStates
from .uploads import Uploads
from .witnesses import Witnesses


class Store:
    """The stores of one home; may be open in several processes at once. A context manager."""

    def __init__(self, layout: Layout) -> None:
        """Open the store, made now if it is not there. Raises StoreError."""
        layout.create()
        self.layout = layout
        self.database = Database(layout.index, layout.kept)
        self.blobs = Blobs(layout, self.database)
        self.manifests = Manifests(layout, self.database)
        self.index = SearchIndex(self.database, self._entries)
        self.catalogue = Catalogue(self.database, self.index)
        self.search = Search(self.database, self._entries)
        self.listing = Listing(self.database)
        self.logs = Logs(layout, self.database, self.catalogue)
        self.private = Private(layout, self.database, self.logs)
        self.conflicts = Conflicts(self.database)
        self.forks = Forks(self.database, self.logs.recount)
        self.splits = Splits(self.database)
        self.peers = Peers(self.database)
        self.policy_use = PolicyUse(self.database)
        self.confirmations = Confirmations(self.database)
        self.log_states = LogStates(self.database)
        self.log_digests = Digests(self.database, self.log_states)
        self.node_states = NodeStates(self.database)
        self.node_digests = Digests(self.database, self.node_states)
        self.rates = Rates(self.database)
        self.holdings = Holdings(self.database)
        self.delegations = Delegations(self.database)
        self.keeping = Keeping(self.database)
        self.fresh = Statements(self.database)
        self.witnesses = Witnesses(self.database)
        self.pledges = Pledges(self.database)
        self.federations = Federations(self.database)
        self.mirrors = Mirrors(self.database)
        self.seals = Seals(self.database)
        self.scans = Scans(self.database)
        self.recalls = Recalls(self.database)
        self.assessments = Assessments(self.database)
        self.gates = Gates(self.database)
        self.ahead = Ahead(self.database)
        self.publishing = Publishing(self.database)
        self.uploads = Uploads(layout.uploads)
        self.parts = Parts(layout.upstream)
        self.bindings = Bindings(self.database)
        self.settings = StoredSettings(self.database)
        # More would keep whoever opens this waiting; a node goes on with it while it serves.
        self.index.refill(REFILLED_AT_ONCE)

    def close(self) -> None:
        self.logs.close()
        self.database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def rebuild(self, progress: Callable[[str], None]) -> dict[str, int]:
        """Empty what can be rebuilt of the index and fill it from the files; returns what was found.

        Objects are hashed again; files that were registered in place must be published again.
        """
        with self.database.write() as connection:
            for table in REBUILT:
                connection.execute(f"DELETE FROM {table}")
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
