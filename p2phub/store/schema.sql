CREATE TABLE content (
        root       BLOB PRIMARY KEY,   -- file root, 32 bytes
        size       INTEGER NOT NULL,   -- bytes
        sha256     BLOB,               -- of the whole file, if it was computed here
        path       TEXT,               -- absolute, of a file we do not own; NULL: in objects/
        mtime_ns   INTEGER NOT NULL,   -- as when hashed; if it moved, hash again
        inode      INTEGER NOT NULL,
        boot       TEXT                -- of the machine when written; NULL: synced to disk since
    ) STRICT;

CREATE TABLE chunk_lists (
        root       BLOB PRIMARY KEY,
        packed     BLOB                -- 36 bytes a chunk; NULL: in trees/
    ) STRICT;

CREATE TABLE sources (             -- files that were hashed, so that they need not be again
        path       TEXT NOT NULL,
        profile    TEXT NOT NULL,
        size       INTEGER NOT NULL,
        mtime_ns   INTEGER NOT NULL,
        inode      INTEGER NOT NULL,
        root       BLOB NOT NULL,
        sha256     BLOB NOT NULL,
        PRIMARY KEY (path, profile)
    ) STRICT, WITHOUT ROWID;

CREATE TABLE manifests (
        manifest   BLOB PRIMARY KEY,
        kind       TEXT NOT NULL,
        size       INTEGER NOT NULL    -- bytes of all its files
    ) STRICT;

CREATE TABLE manifest_files (
        manifest   BLOB NOT NULL,
        root       BLOB NOT NULL,
        size       INTEGER NOT NULL,
        PRIMARY KEY (manifest, root)
    ) STRICT, WITHOUT ROWID;

CREATE TABLE identities (
        namespace  BLOB PRIMARY KEY,
        version    INTEGER NOT NULL,
        chain      BLOB NOT NULL       -- all documents, as peers send them
    , number INTEGER) STRICT;

CREATE TABLE logs (
        log        BLOB PRIMARY KEY,
        namespace  BLOB NOT NULL,
        key        BLOB NOT NULL,
        size       INTEGER NOT NULL,   -- records
        bytes      INTEGER NOT NULL,   -- of the log's file that belong to them
        peaks      BLOB NOT NULL,      -- right edge of the tree, 32 bytes a peak
        head       BLOB NOT NULL       -- signed checkpoint; empty while there is none
    , number INTEGER, entry_bytes INTEGER NOT NULL DEFAULT 0) STRICT;

CREATE TABLE forks (               -- evidence: two heads of one log that do not agree
        log        BLOB PRIMARY KEY,
        ours       BLOB NOT NULL,
        theirs     BLOB NOT NULL
    ) STRICT;

CREATE TABLE refusals (            -- records that are in a log but may not count
        log        BLOB NOT NULL,
        idx        INTEGER NOT NULL,
        reason     TEXT NOT NULL,
        PRIMARY KEY (log, idx)
    ) STRICT, WITHOUT ROWID;

CREATE TABLE peers (
        node         BLOB PRIMARY KEY,
        typed        TEXT NOT NULL,    -- HOST:PORT that the user gave, between spaces
        addresses    TEXT NOT NULL,    -- those, and then what its newest record says
        record       BLOB,             -- its newest signed node record
        record_time  INTEGER NOT NULL, -- of that record, seconds since 1970; 0: none
        added        INTEGER NOT NULL, -- 1: by the user
        last_seen    INTEGER,          -- seconds since 1970
        last_error   TEXT,
        failures     INTEGER NOT NULL, -- since it was last seen
        received     INTEGER NOT NULL, -- bytes of content
        bans         INTEGER NOT NULL,
        banned_until INTEGER NOT NULL, -- seconds since 1970; 0: not banned
        ban_reason   TEXT
    , skews INTEGER NOT NULL DEFAULT 0, skew TEXT, next_try INTEGER NOT NULL DEFAULT 0) STRICT, WITHOUT ROWID;

CREATE TABLE pins (
        manifest   BLOB PRIMARY KEY,
        time       INTEGER NOT NULL,
        reason     TEXT NOT NULL       -- 'published' or 'kept'
    ) STRICT, WITHOUT ROWID;

CREATE TABLE views (               -- folders that files were placed in
        folder     TEXT PRIMARY KEY,   -- absolute
        manifest   BLOB NOT NULL,
        files      TEXT NOT NULL       -- JSON: path -> [size, mtime_ns, inode] as placed
    ) STRICT, WITHOUT ROWID;

CREATE TABLE settings (
        name       TEXT PRIMARY KEY,
        value      TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;

CREATE TABLE own_records (         -- of this node
        node       BLOB PRIMARY KEY,
        record     BLOB NOT NULL       -- signed
    ) STRICT, WITHOUT ROWID;

CREATE TABLE digests (             -- the maps that are compared with peers
        kind       INTEGER NOT NULL,   -- 1: logs, 2: nodes
        key        BLOB NOT NULL,
        digest     BLOB NOT NULL,
        expires    INTEGER,            -- seconds since 1970; NULL: never
        PRIMARY KEY (kind, key)
    ) STRICT, WITHOUT ROWID;

CREATE TABLE digests_changed (     -- what may have another digest by now
        kind       INTEGER NOT NULL,
        key        BLOB NOT NULL,
        PRIMARY KEY (kind, key)
    ) STRICT, WITHOUT ROWID;

CREATE TABLE prefixes (            -- fingerprints over digests
        kind       INTEGER NOT NULL,
        prefix     TEXT NOT NULL,      -- hex digits of the key
        count      INTEGER NOT NULL,   -- items under it
        fingerprint BLOB NOT NULL,
        PRIMARY KEY (kind, prefix)
    ) STRICT, WITHOUT ROWID;

CREATE TABLE attestations (        -- one row an attest record
        log        BLOB NOT NULL,
        idx        INTEGER NOT NULL,
        namespace  BLOB NOT NULL,
        hub        TEXT NOT NULL,      -- HOST[:PORT] of another hub
        kind       TEXT NOT NULL,
        owner      TEXT NOT NULL,
        model      TEXT NOT NULL,
        commit_id  TEXT NOT NULL,      -- 40 hex digits
        manifest   BLOB NOT NULL,
        names      TEXT NOT NULL,      -- JSON: branches and tags that stood for the commit
        time       INTEGER NOT NULL,
        PRIMARY KEY (log, idx)
    ) STRICT, WITHOUT ROWID;

CREATE TABLE upstream_commits (    -- what another hub listed
        hub        TEXT NOT NULL,
        kind       TEXT NOT NULL,
        owner      TEXT NOT NULL,
        model      TEXT NOT NULL,
        commit_id  TEXT NOT NULL,
        listing    BLOB NOT NULL,      -- JSON
        restricted INTEGER NOT NULL,   -- 1: not everybody may have it
        manifest   BLOB,               -- once all of it was here
        PRIMARY KEY (hub, kind, owner, model, commit_id)
    ) STRICT, WITHOUT ROWID;

CREATE TABLE upstream_names (      -- branches and tags there
        hub        TEXT NOT NULL,
        kind       TEXT NOT NULL,
        owner      TEXT NOT NULL,
        model      TEXT NOT NULL,
        name       TEXT NOT NULL,
        commit_id  TEXT NOT NULL,
        time       INTEGER NOT NULL,   -- when the hub said so, in seconds since 1970
        PRIMARY KEY (hub, kind, owner, model, name)
    ) STRICT, WITHOUT ROWID;

CREATE TABLE mirrors (             -- what the owner wants kept
        hub        TEXT NOT NULL,
        kind       TEXT NOT NULL,
        owner      TEXT NOT NULL,
        model      TEXT NOT NULL,
        revision   TEXT NOT NULL,
        commit_id  TEXT,               -- that is whole here; NULL: none is yet
        restricted INTEGER NOT NULL,
        time       INTEGER NOT NULL,   -- when the hub was last asked, in seconds since 1970
        PRIMARY KEY (hub, kind, owner, model, revision)
    ) STRICT, WITHOUT ROWID;

CREATE TABLE withheld (            -- files and manifests that are not for others
        id         BLOB PRIMARY KEY
    ) STRICT, WITHOUT ROWID;

CREATE TABLE rates (               -- how fast providers were lately
        provider   TEXT PRIMARY KEY,   -- a node id, or host and port of an origin
        rate       INTEGER NOT NULL,   -- bytes a second
        noted      INTEGER NOT NULL    -- seconds since 1970
    ) STRICT, WITHOUT ROWID;

CREATE TABLE confirmations (       -- other nodes that said to have the own log, and how far
        node       BLOB NOT NULL,
        log        BLOB NOT NULL,
        size       INTEGER NOT NULL,   -- records
        time       INTEGER NOT NULL,   -- when it said so, seconds since 1970
        PRIMARY KEY (node, log)
    ) STRICT, WITHOUT ROWID;

CREATE VIRTUAL TABLE search USING fts5 (
        tokens, content='', columnsize=0, detail='none', tokenize='ascii'
    );

CREATE TABLE facets (              -- values that repositories have
        id         INTEGER PRIMARY KEY, -- modulo 16: which facet
        facet      INTEGER NOT NULL,
        value      TEXT COLLATE NOCASE NOT NULL,
        count      INTEGER NOT NULL,   -- repositories
        UNIQUE (facet, value)
    ) STRICT;

CREATE TABLE scores (              -- results that cards claim
        id         INTEGER NOT NULL,   -- in models
        metric     INTEGER NOT NULL,   -- in facets
        value      REAL NOT NULL,
        PRIMARY KEY (id, metric, value)
    ) STRICT, WITHOUT ROWID;

CREATE TABLE vocabulary (          -- words that occur, about in the order of how often
        id         INTEGER PRIMARY KEY,
        word       TEXT NOT NULL UNIQUE
    ) STRICT;

CREATE TABLE search_state (
        generation INTEGER NOT NULL,   -- counts how often the tables were emptied
        filled     INTEGER NOT NULL    -- 1: all that the releases say is in them
    ) STRICT;

CREATE TABLE journals (            -- files that hold records of many logs
        number     INTEGER PRIMARY KEY, -- of the file
        bytes      INTEGER NOT NULL    -- of it that the index knows
    , looked INTEGER, emptied INTEGER) STRICT;

CREATE TABLE entry_rows (
        log_number INTEGER NOT NULL,   -- in logs
        idx        INTEGER NOT NULL,
        leaf       BLOB NOT NULL,
        journal    INTEGER NOT NULL,   -- 0: the log's own file
        offset     INTEGER NOT NULL,   -- bytes into the file
        length     INTEGER NOT NULL,   -- bytes
        PRIMARY KEY (log_number, idx)
    ) STRICT, WITHOUT ROWID;

CREATE TABLE repositories (
        number     INTEGER PRIMARY KEY,
        publisher  INTEGER NOT NULL,   -- number in identities
        model      TEXT NOT NULL,
        UNIQUE (publisher, model)
    ) STRICT;

CREATE TABLE release_rows (        -- one row a publish record that counts
        repository INTEGER NOT NULL,
        log_number INTEGER NOT NULL,
        idx        INTEGER NOT NULL,
        kind       TEXT NOT NULL,
        manifest   BLOB NOT NULL,
        version    TEXT,
        time       INTEGER NOT NULL, listed INTEGER NOT NULL DEFAULT 1,   -- seconds since 1970
        PRIMARY KEY (repository, log_number, idx)
    ) STRICT, WITHOUT ROWID;

CREATE TABLE branch_rows (         -- the last word of each log on a branch
        repository INTEGER NOT NULL,
        branch     TEXT NOT NULL,
        log_number INTEGER NOT NULL,
        idx        INTEGER NOT NULL,
        manifest   BLOB,               -- NULL: deleted
        depth      INTEGER NOT NULL,
        time       INTEGER NOT NULL,
        PRIMARY KEY (repository, branch, log_number)
    ) STRICT, WITHOUT ROWID;

CREATE TABLE version_rows (        -- the first word of each log on a version
        repository INTEGER NOT NULL,
        version    TEXT NOT NULL,
        log_number INTEGER NOT NULL,
        idx        INTEGER NOT NULL,   -- of its release
        PRIMARY KEY (repository, version, log_number)
    ) STRICT, WITHOUT ROWID;

CREATE TABLE yank_rows (           -- the last word of each log on a version that it yanked
        repository INTEGER NOT NULL,
        version    TEXT NOT NULL,
        log_number INTEGER NOT NULL,
        idx        INTEGER NOT NULL,
        message    TEXT NOT NULL,
        time       INTEGER NOT NULL,
        PRIMARY KEY (repository, version, log_number)
    ) STRICT, WITHOUT ROWID;

CREATE TABLE fork_proofs (         -- logs that forked, with what proves it to anybody
        log        BLOB PRIMARY KEY,
        namespace  BLOB NOT NULL,
        common     INTEGER NOT NULL,   -- records that count
        proof      BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;

CREATE TABLE closed_logs (         -- what the newest identity documents say of logs that go on no more
        log        BLOB PRIMARY KEY,
        namespace  BLOB NOT NULL,
        size       INTEGER NOT NULL,   -- records
        root       BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;

CREATE TABLE upstream_content (    -- files that had the hash that was listed
        id         BLOB PRIMARY KEY,   -- SHA-256, or the 20 bytes that git calls it by
        root       BLOB NOT NULL,
        sha256     BLOB NOT NULL,
        profile    TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;

CREATE TABLE holdings (            -- what other nodes said to have
        manifest   BLOB NOT NULL,
        node       BLOB NOT NULL,
        share      INTEGER NOT NULL,   -- thousandths of its bytes; 1000: all of it
        time       INTEGER NOT NULL,   -- when it said so, seconds since 1970
        PRIMARY KEY (manifest, node)
    ) STRICT, WITHOUT ROWID;

CREATE TABLE models (              -- one row a repository that search shows
        id         INTEGER PRIMARY KEY, -- grows with the time of the release
        repository INTEGER NOT NULL,   -- in repositories; negative: its tokens are still there, and lead to nothing
        model      TEXT NOT NULL,
        log_number INTEGER NOT NULL,   -- where the release stands that describes it
        idx        INTEGER NOT NULL,
        created    INTEGER NOT NULL,   -- time of the first release, seconds since 1970
        size       INTEGER NOT NULL,   -- bytes
        needs      INTEGER NOT NULL,   -- bytes of its smallest variant
        parameters INTEGER NOT NULL,   -- -1: not known
        replicas   INTEGER NOT NULL,   -- nodes that were seen to hold it
        facets     BLOB NOT NULL       -- ids in facets, 4 bytes each, in the order of this machine
    ) STRICT;

CREATE TABLE seal_rows (           -- one row a key that was wrapped for somebody
        repository INTEGER NOT NULL,
        log_number INTEGER NOT NULL,
        idx        INTEGER NOT NULL,
        place      INTEGER NOT NULL,   -- in the record
        key        BLOB NOT NULL,      -- names the key that was wrapped
        recipient_namespace BLOB NOT NULL,
        recipient  BLOB NOT NULL,      -- the X25519 key it was wrapped for
        box        BLOB NOT NULL,
        time       INTEGER NOT NULL,   -- seconds since 1970
        PRIMARY KEY (repository, log_number, idx, place)
    ) STRICT, WITHOUT ROWID;

CREATE TABLE unseal_rows (         -- keys that were told to everybody
        repository INTEGER NOT NULL,
        log_number INTEGER NOT NULL,
        idx        INTEGER NOT NULL,
        key        BLOB NOT NULL,      -- names it
        secret     BLOB NOT NULL,      -- is it
        time       INTEGER NOT NULL,   -- seconds since 1970
        PRIMARY KEY (repository, log_number, idx)
    ) STRICT, WITHOUT ROWID;

CREATE TABLE identity_splits (
        namespace  BLOB PRIMARY KEY,
        version    INTEGER NOT NULL,
        ours       BLOB NOT NULL,
        theirs     BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;

CREATE TABLE bindings (            -- which publisher a name means on this machine; cannot be rebuilt
        name       TEXT PRIMARY KEY,   -- a domain or a petname
        namespace  BLOB NOT NULL,
        how        TEXT NOT NULL,      -- first use, added, accepted: how it came to mean this publisher
        since      INTEGER NOT NULL,   -- that it does, seconds since 1970
        checked    INTEGER,            -- when the domain last said so, seconds since 1970; NULL: never, or a petname
        tried      INTEGER,            -- when it was last asked, seconds since 1970
        problem    TEXT,               -- why it did not say so then
        offered    BLOB                -- another namespace that it named then
    ) STRICT;

CREATE TABLE delegations (         -- publishers that said to this node that it acts for them
        namespace  BLOB PRIMARY KEY,
        expires    INTEGER NOT NULL,   -- seconds since 1970
        data       BLOB NOT NULL       -- as it was signed
    ) STRICT, WITHOUT ROWID;

CREATE TABLE fresh_statements (    -- what publishers stated last to be newest
        namespace  BLOB PRIMARY KEY,
        time       INTEGER NOT NULL,   -- when, seconds since 1970
        expires    INTEGER NOT NULL,   -- seconds since 1970
        version    INTEGER NOT NULL,   -- of the newest identity document, as they say
        records    INTEGER NOT NULL,   -- in all logs, as they say
        statement  BLOB NOT NULL       -- with its signatures
    ) STRICT, WITHOUT ROWID;

CREATE TABLE stated_heads (        -- the largest head of each log that its publisher ever stated
        log        BLOB PRIMARY KEY,
        namespace  BLOB NOT NULL,
        size       INTEGER NOT NULL,   -- records
        note       BLOB NOT NULL,      -- the head
        cosigned   BLOB NOT NULL       -- the largest one with lines of witnesses; empty: none had any
    ) STRICT, WITHOUT ROWID;

CREATE TABLE witnesses (           -- whom the owner of this home added
        key        TEXT PRIMARY KEY,   -- NAME+ID+KEY
        place      TEXT NOT NULL,      -- where it is asked: URL or address; empty: nowhere
        problem    TEXT NOT NULL DEFAULT ''     -- why it did not cosign when it was last asked
    ) STRICT, WITHOUT ROWID;

CREATE TABLE private_logs (        -- logs that are told of to some alone
        log        BLOB PRIMARY KEY,
        namespace  BLOB NOT NULL,
        key        BLOB NOT NULL,
        secret     BLOB NOT NULL,
        model      TEXT NOT NULL       -- the one repository that it is about
    , unasked INTEGER NOT NULL DEFAULT 0) STRICT, WITHOUT ROWID;

CREATE TABLE grants (              -- the last word of each private log on whom it lets in
        namespace  BLOB NOT NULL,
        model      TEXT NOT NULL,
        kind       TEXT NOT NULL,      -- of the grantee: namespace or node
        grantee    BLOB NOT NULL,
        log        BLOB NOT NULL,
        idx        INTEGER NOT NULL,
        until      INTEGER NOT NULL,   -- seconds since 1970; 0: taken back
        time       INTEGER NOT NULL,   -- when it was said, seconds since 1970
        renewed    INTEGER NOT NULL,   -- 1: the publisher means to renew it
        PRIMARY KEY (namespace, model, kind, grantee, log)
    ) STRICT, WITHOUT ROWID;

CREATE TABLE private_ids (         -- manifests and files of private repositories; a row goes with nothing
        id         BLOB NOT NULL,
        namespace  BLOB NOT NULL,
        model      TEXT NOT NULL, yields INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (id, namespace, model)
    ) STRICT, WITHOUT ROWID;

CREATE TABLE private_shared (      -- of these, what everybody may have all the same
        id         BLOB PRIMARY KEY
    ) STRICT, WITHOUT ROWID;

CREATE TABLE pledges (             -- the last word of each log on what a node keeps
        namespace  BLOB NOT NULL,      -- whose log it is
        log        BLOB NOT NULL,
        node       BLOB NOT NULL,
        manifest   BLOB NOT NULL,      -- what is kept; empty: not this
        publisher  BLOB NOT NULL,      -- or of whom
        model      TEXT NOT NULL,      -- and which repository; empty: all of them
        replicas   INTEGER,            -- that those who pledge so keep together; NULL: each keeps one
        until      INTEGER NOT NULL,   -- seconds since 1970; 0: it was taken back
        time       INTEGER NOT NULL,   -- when it was said, seconds since 1970
        idx        INTEGER NOT NULL,   -- of the record
        PRIMARY KEY (manifest, publisher, model, log, node)
    ) STRICT, WITHOUT ROWID;

CREATE TABLE pledge_checks (       -- what was found of nodes that said to hold a manifest
        manifest   BLOB NOT NULL,
        node       BLOB NOT NULL,
        good       INTEGER NOT NULL,   -- 1: it gave what it was asked for
        time       INTEGER NOT NULL,   -- seconds since 1970
        PRIMARY KEY (manifest, node)
    ) STRICT, WITHOUT ROWID;

CREATE TABLE federations (
        federation BLOB PRIMARY KEY,
        version    INTEGER NOT NULL,
        charter    BLOB NOT NULL,      -- signed; the newest that was ever seen
        contradicted INTEGER NOT NULL  -- 1: its coordinator signed another one of a version that was here
    ) STRICT, WITHOUT ROWID;

CREATE TABLE agreements (          -- the last word of each who is or was a member
        federation BLOB NOT NULL,
        namespace  BLOB NOT NULL,
        serial     INTEGER NOT NULL,
        agreement  BLOB NOT NULL,      -- signed
        PRIMARY KEY (federation, namespace)
    ) STRICT, WITHOUT ROWID;

CREATE TABLE invitations (         -- that were given out here
        digest     BLOB PRIMARY KEY,   -- of the secret
        federation BLOB NOT NULL,
        namespace  BLOB,               -- who may use it; NULL: anybody
        expires    INTEGER NOT NULL,   -- seconds since 1970
        used_by    BLOB                -- namespace
    ) STRICT, WITHOUT ROWID;

CREATE TABLE scans (               -- what was found in files that may be pickles
        root       BLOB PRIMARY KEY,   -- of the file
        version    INTEGER NOT NULL,   -- of the scan
        found      TEXT NOT NULL       -- JSON
    ) STRICT, WITHOUT ROWID;

CREATE TABLE recall_rows (         -- manifests that their publishers took back
        repository INTEGER NOT NULL,
        manifest   BLOB NOT NULL,
        log_number INTEGER NOT NULL,
        idx        INTEGER NOT NULL,
        message    TEXT NOT NULL,
        time       INTEGER NOT NULL,   -- seconds since 1970
        PRIMARY KEY (repository, manifest, log_number)
    ) STRICT, WITHOUT ROWID;

CREATE TABLE assessments (         -- what publishers found of content, whoever's it is
        log        BLOB NOT NULL,
        idx        INTEGER NOT NULL,
        namespace  BLOB NOT NULL,
        claim      TEXT NOT NULL,
        subject    BLOB NOT NULL,      -- of a manifest or a file
        verdict    TEXT NOT NULL,
        metric     TEXT NOT NULL,      -- TASK/DATASET/METRIC, or empty
        value      TEXT NOT NULL,      -- decimal, or empty
        tool       TEXT NOT NULL,      -- or empty
        message    TEXT NOT NULL,
        time       INTEGER NOT NULL,   -- seconds since 1970
        PRIMARY KEY (log, idx)
    ) STRICT, WITHOUT ROWID;

CREATE TABLE gate_rows (           -- what publishers ask for before content is handed out
        repository INTEGER NOT NULL,
        log_number INTEGER NOT NULL,
        idx        INTEGER NOT NULL,
        leaf       BLOB NOT NULL,      -- of the record
        name       TEXT,               -- of the licence; NULL: nothing is asked for any more
        licence    TEXT,
        per        TEXT,
        approval   TEXT,
        time       INTEGER NOT NULL,   -- seconds since 1970
        PRIMARY KEY (repository, log_number, idx)
    ) STRICT, WITHOUT ROWID;

CREATE TABLE gate_decisions (      -- what publishers said to receipts
        repository INTEGER NOT NULL,
        log_number INTEGER NOT NULL,
        idx        INTEGER NOT NULL,
        receipt    BLOB NOT NULL,      -- its hash
        approved   INTEGER NOT NULL,   -- 0: refused
        until      INTEGER,            -- seconds since 1970
        leaf       BLOB NOT NULL,
        time       INTEGER NOT NULL,   -- seconds since 1970
        PRIMARY KEY (repository, log_number, idx)
    ) STRICT, WITHOUT ROWID;

CREATE TABLE receipts (            -- own ones, and those that were shown to this node
        hash       BLOB PRIMARY KEY,
        gate       BLOB NOT NULL,      -- leaf of its record
        namespace  BLOB NOT NULL,
        node       BLOB,               -- NULL: of an institution
        data       BLOB NOT NULL,      -- signed
        shown_by   BLOB,               -- node; NULL: an own one
        time       INTEGER NOT NULL    -- when it was signed, seconds since 1970
    ) STRICT, WITHOUT ROWID;

CREATE TABLE publisher_keys (      -- of publishers whose identities are not here, but who matter
        namespace  BLOB PRIMARY KEY,
        version    INTEGER NOT NULL,   -- of the newest identity document that was seen
        keys       BLOB NOT NULL       -- with which they publish by it, 32 bytes each
    ) STRICT, WITHOUT ROWID;

CREATE TABLE signed_ahead (        -- nodes that signed requests by a clock ahead of ours
        node       BLOB PRIMARY KEY,
        created    INTEGER NOT NULL    -- the latest time that one bore, seconds since 1970
    ) STRICT, WITHOUT ROWID;

CREATE TABLE kept_state (          -- of what the index alone knows; store/kept.py
        changes    INTEGER NOT NULL,   -- that were made to it
        written    INTEGER NOT NULL    -- of these, which are in the file beside the index
    ) STRICT;

CREATE TABLE log_blocks (          -- of the trees of logs, what stands above 256 records, above 256 of these, …
        log_number INTEGER NOT NULL,   -- in logs
        level      INTEGER NOT NULL,   -- 1: above records
        idx        INTEGER NOT NULL,
        hash       BLOB NOT NULL,
        PRIMARY KEY (log_number, level, idx)
    ) STRICT, WITHOUT ROWID;

CREATE TABLE orders (              -- in which search goes along models; store/orders.py
        what       INTEGER NOT NULL,   -- 1: created, 2: size, 3: parameters, 4: name, in small letters; else a metric
        value      ANY NOT NULL,
        id         INTEGER NOT NULL,   -- in models
        PRIMARY KEY (what, value, id)
    ) STRICT, WITHOUT ROWID;

CREATE TABLE orders_new (          -- what is not there yet
        what       INTEGER NOT NULL,
        value      ANY NOT NULL,
        id         INTEGER NOT NULL,
        PRIMARY KEY (what, value, id)
    ) STRICT, WITHOUT ROWID;

INSERT INTO kept_state (changes, written) VALUES (1, 0);

INSERT INTO search_state (generation, filled) VALUES (2, 1);

INSERT INTO search (search, rank) VALUES ('hashsize', 16777216);

INSERT INTO search (search, rank) VALUES ('pgsz', 1000);

CREATE INDEX manifest_files_by_root ON manifest_files (root);

CREATE INDEX content_by_sha256 ON content (sha256);

CREATE INDEX sources_by_sha256 ON sources (sha256);

CREATE INDEX logs_by_namespace ON logs (namespace);

CREATE INDEX digests_by_expiry ON digests (kind, expires) WHERE expires IS NOT NULL;

CREATE INDEX attestations_by_repository ON attestations (hub, kind, owner, model);

CREATE INDEX attestations_by_namespace ON attestations (namespace);

CREATE INDEX facets_by_count ON facets (facet, count);

CREATE UNIQUE INDEX identities_by_number ON identities (number);

CREATE UNIQUE INDEX logs_by_number ON logs (number);

CREATE INDEX closed_logs_by_namespace ON closed_logs (namespace);

CREATE INDEX holdings_by_node ON holdings (node);

CREATE UNIQUE INDEX models_by_repository ON models (repository);

CREATE INDEX models_by_replicas ON models (replicas) WHERE replicas > 0;

CREATE INDEX release_rows_by_manifest ON release_rows (substr(manifest, 1, 8));

CREATE INDEX holdings_whole ON holdings (manifest) WHERE share = 1000;

CREATE INDEX seal_rows_by_key ON seal_rows (key);

CREATE INDEX unseal_rows_by_key ON unseal_rows (key);

CREATE INDEX bindings_by_namespace ON bindings (namespace);

CREATE INDEX stated_heads_by_namespace ON stated_heads (namespace);

CREATE INDEX private_logs_by_model ON private_logs (namespace, model);

CREATE INDEX grants_by_grantee ON grants (grantee);

CREATE INDEX pledges_by_namespace ON pledges (namespace, node);

CREATE INDEX recall_rows_by_manifest ON recall_rows (manifest);

CREATE INDEX assessments_by_subject ON assessments (subject);

CREATE INDEX gate_rows_by_leaf ON gate_rows (leaf);

CREATE INDEX gate_decisions_by_receipt ON gate_decisions (receipt);

CREATE INDEX receipts_by_gate ON receipts (gate);

CREATE INDEX receipts_by_node ON receipts (shown_by);

CREATE INDEX attestations_by_manifest ON attestations (manifest);

CREATE INDEX receipts_own ON receipts (gate) WHERE shown_by IS NULL;

CREATE INDEX upstream_commits_by_manifest ON upstream_commits (manifest) WHERE manifest IS NOT NULL;

CREATE INDEX receipts_by_namespace ON receipts (namespace);

CREATE INDEX signed_ahead_by_time ON signed_ahead (created);

CREATE VIEW entries AS
        SELECT logs.log, idx, leaf, journal, offset, length FROM logs JOIN entry_rows ON log_number = logs.number;

CREATE VIEW releases AS
        SELECT logs.log, r.idx, identities.namespace, repositories.model, r.kind, r.manifest, r.version, r.time, e.leaf
        FROM identities JOIN repositories ON repositories.publisher = identities.number
        JOIN release_rows AS r ON r.repository = repositories.number
        JOIN logs ON logs.number = r.log_number
        LEFT JOIN entry_rows AS e ON e.log_number = r.log_number AND e.idx = r.idx;

CREATE VIEW versions AS
        SELECT identities.namespace, repositories.model, v.version, logs.log, v.idx, r.manifest, r.time, e.leaf
        FROM identities JOIN repositories ON repositories.publisher = identities.number
        JOIN version_rows AS v ON v.repository = repositories.number
        JOIN release_rows AS r ON r.repository = v.repository AND r.log_number = v.log_number AND r.idx = v.idx
        JOIN logs ON logs.number = v.log_number
        LEFT JOIN entry_rows AS e ON e.log_number = v.log_number AND e.idx = v.idx;

CREATE VIEW yanks AS
        SELECT identities.namespace, repositories.model, r.version, logs.log, r.message, r.time, e.leaf
        FROM identities JOIN repositories ON repositories.publisher = identities.number
        JOIN yank_rows AS r ON r.repository = repositories.number
        JOIN logs ON logs.number = r.log_number
        LEFT JOIN entry_rows AS e ON e.log_number = r.log_number AND e.idx = r.idx;

CREATE VIEW branches AS
        SELECT identities.namespace, repositories.model, b.branch, logs.log, b.idx,
            CASE b.manifest WHEN x'' THEN r.manifest ELSE b.manifest END AS manifest, b.depth, b.time, e.leaf
        FROM identities JOIN repositories ON repositories.publisher = identities.number
        JOIN branch_rows AS b ON b.repository = repositories.number
        JOIN logs ON logs.number = b.log_number
        LEFT JOIN release_rows AS r
            ON r.repository = b.repository AND r.log_number = b.log_number AND r.idx = b.idx
        LEFT JOIN entry_rows AS e ON e.log_number = b.log_number AND e.idx = b.idx;

CREATE VIEW holders AS             -- nodes that said to have all of a manifest
        SELECT manifest, node, time FROM holdings WHERE share = 1000;

CREATE TRIGGER log_added AFTER INSERT ON logs BEGIN
        INSERT INTO digests_changed (kind, key) SELECT 1, new.log
            WHERE NOT EXISTS (SELECT 1 FROM digests_changed WHERE kind = 1 AND key = new.log);
    END;

CREATE TRIGGER log_removed AFTER DELETE ON logs BEGIN
        INSERT INTO digests_changed (kind, key) SELECT 1, old.log
            WHERE NOT EXISTS (SELECT 1 FROM digests_changed WHERE kind = 1 AND key = old.log);
    END;

CREATE TRIGGER identity_added AFTER INSERT ON identities BEGIN
        INSERT INTO digests_changed (kind, key) SELECT 1, log FROM logs WHERE namespace = new.namespace
            AND NOT EXISTS (SELECT 1 FROM digests_changed WHERE kind = 1 AND key = log);
    END;

CREATE TRIGGER identity_changed AFTER UPDATE ON identities BEGIN
        INSERT INTO digests_changed (kind, key) SELECT 1, log FROM logs WHERE namespace = new.namespace
            AND NOT EXISTS (SELECT 1 FROM digests_changed WHERE kind = 1 AND key = log);
    END;

CREATE TRIGGER peer_added AFTER INSERT ON peers WHEN new.record IS NOT NULL BEGIN
        INSERT INTO digests_changed (kind, key) SELECT 2, new.node
            WHERE NOT EXISTS (SELECT 1 FROM digests_changed WHERE kind = 2 AND key = new.node);
    END;

CREATE TRIGGER peer_changed AFTER UPDATE OF record ON peers WHEN new.record IS NOT old.record BEGIN
        INSERT INTO digests_changed (kind, key) SELECT 2, new.node
            WHERE NOT EXISTS (SELECT 1 FROM digests_changed WHERE kind = 2 AND key = new.node);
    END;

CREATE TRIGGER peer_removed AFTER DELETE ON peers BEGIN
        INSERT INTO digests_changed (kind, key) SELECT 2, old.node
            WHERE NOT EXISTS (SELECT 1 FROM digests_changed WHERE kind = 2 AND key = old.node);
    END;

CREATE TRIGGER own_record_added AFTER INSERT ON own_records BEGIN
        INSERT INTO digests_changed (kind, key) SELECT 2, new.node
            WHERE NOT EXISTS (SELECT 1 FROM digests_changed WHERE kind = 2 AND key = new.node);
    END;

CREATE TRIGGER own_record_removed AFTER DELETE ON own_records BEGIN
        INSERT INTO digests_changed (kind, key) SELECT 2, old.node
            WHERE NOT EXISTS (SELECT 1 FROM digests_changed WHERE kind = 2 AND key = old.node);
    END;

CREATE TRIGGER fork_proven AFTER INSERT ON fork_proofs BEGIN
        INSERT INTO digests_changed (kind, key) SELECT 1, new.log
            WHERE NOT EXISTS (SELECT 1 FROM digests_changed WHERE kind = 1 AND key = new.log);
    END;

CREATE TRIGGER fork_proven_again AFTER UPDATE ON fork_proofs BEGIN
        INSERT INTO digests_changed (kind, key) SELECT 1, new.log
            WHERE NOT EXISTS (SELECT 1 FROM digests_changed WHERE kind = 1 AND key = new.log);
    END;

CREATE TRIGGER log_closed AFTER INSERT ON closed_logs BEGIN
        INSERT INTO digests_changed (kind, key) SELECT 1, new.log
            WHERE NOT EXISTS (SELECT 1 FROM digests_changed WHERE kind = 1 AND key = new.log);
    END;

CREATE TRIGGER kept_bindings_insert AFTER insert ON bindings BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_bindings_update AFTER update ON bindings BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_bindings_delete AFTER delete ON bindings BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_settings_insert AFTER insert ON settings BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_settings_update AFTER update ON settings BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_settings_delete AFTER delete ON settings BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_pins_insert AFTER insert ON pins BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_pins_update AFTER update ON pins BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_pins_delete AFTER delete ON pins BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_mirrors_insert AFTER insert ON mirrors BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_mirrors_update AFTER update ON mirrors BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_mirrors_delete AFTER delete ON mirrors BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_witnesses_insert AFTER insert ON witnesses BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_witnesses_update AFTER update ON witnesses BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_witnesses_delete AFTER delete ON witnesses BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_federations_insert AFTER insert ON federations BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_federations_update AFTER update ON federations BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_federations_delete AFTER delete ON federations BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_agreements_insert AFTER insert ON agreements BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_agreements_update AFTER update ON agreements BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_agreements_delete AFTER delete ON agreements BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_invitations_insert AFTER insert ON invitations BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_invitations_update AFTER update ON invitations BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_invitations_delete AFTER delete ON invitations BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_receipts_insert AFTER insert ON receipts BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_receipts_update AFTER update ON receipts BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_receipts_delete AFTER delete ON receipts BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_delegations_insert AFTER insert ON delegations BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_delegations_update AFTER update ON delegations BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_delegations_delete AFTER delete ON delegations BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_publisher_keys_insert AFTER insert ON publisher_keys BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_publisher_keys_update AFTER update ON publisher_keys BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_publisher_keys_delete AFTER delete ON publisher_keys BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_identity_splits_insert AFTER insert ON identity_splits BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_identity_splits_update AFTER update ON identity_splits BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_identity_splits_delete AFTER delete ON identity_splits BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_withheld_insert AFTER insert ON withheld BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_withheld_update AFTER update ON withheld BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_withheld_delete AFTER delete ON withheld BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_private_ids_insert AFTER insert ON private_ids BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_private_ids_update AFTER update ON private_ids BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_private_ids_delete AFTER delete ON private_ids BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_private_shared_insert AFTER insert ON private_shared BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_private_shared_update AFTER update ON private_shared BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_private_shared_delete AFTER delete ON private_shared BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_peers_insert AFTER INSERT ON peers WHEN new.added = 1
    BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_peers_update AFTER UPDATE OF typed, added ON peers WHEN new.added = 1 OR old.added = 1
    BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER kept_peers_delete AFTER DELETE ON peers WHEN old.added = 1
    BEGIN UPDATE kept_state SET changes = changes + 1; END;

CREATE TRIGGER log_gone AFTER DELETE ON logs BEGIN
        DELETE FROM log_blocks WHERE log_number = old.number;
    END;

CREATE TRIGGER log_changed AFTER UPDATE ON logs BEGIN
        INSERT INTO digests_changed (kind, key) SELECT 1, new.log
            WHERE NOT EXISTS (SELECT 1 FROM digests_changed WHERE kind = 1 AND key = new.log);
    END;
