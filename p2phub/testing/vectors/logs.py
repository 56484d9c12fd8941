"""Vectors of what logs add up to: cases for the catalogue, and logs of which a publisher signed two histories."""

from __future__ import annotations

from typing import Any

from blake3 import blake3
from msgspec import Struct
from msgspec.structs import replace

from p2phub.core import encoding, merkle
from p2phub.core.checkpoint import sign_head
from p2phub.core.forks import ForkedHeads, prove_by_entries
from p2phub.core.identity import Identity, IdentityDocument, RetiredKey, Role, open_identity, sign_document
from p2phub.core.ids import LogId, ManifestId
from p2phub.core.merkle import LOG_TREE
from p2phub.core.records import NO_PREVIOUS, Attest, Branch, Entry, Publish, Record, Summary, Yank, log_id, sign_record
from p2phub.core.signing import SigningKey
from p2phub.testing import values

from .plain import Json

TIME = values.TIME

_COMMITS = tuple(values.content(f"commit {number}", 20).hex() for number in range(3))


def revision(name: str) -> ManifestId:
    """Return the manifest id that vectors call `name`."""
    return ManifestId(values.content(f"manifest {name}", 32))


def two_keys() -> Identity:
    """Return an identity whose keys `log a` and `log b` publish."""
    return open_identity([_signed_first()])


def one_key_retired(size: int) -> Identity:
    """Return the same identity after the key `log b` was retired at `size` entries."""
    first, root = _signed_first(), values.key("publisher")
    only = Role((root.public_key,), 1)
    second = IdentityDocument(
        schema=1,
        version=2,
        created=TIME + 5000,
        root=only,
        publish=Role((values.key("log a").public_key,), 1),
        fresh=only,
        previous=blake3(first.document).digest(),
        retired=(RetiredKey(values.key("log b").public_key, size),),
    )
    return open_identity([first, sign_document(second, [root])])


def _signed_first() -> Any:
    root = values.key("publisher")
    only = Role((root.public_key,), 1)
    publish = Role(tuple(sorted(values.key(f"log {name}").public_key for name in "ab")), 1)
    document = IdentityDocument(schema=1, version=1, created=TIME, root=only, publish=publish, fresh=only)
    return sign_document(document, [root])


class _Log:
    """Writes the log of one key."""

    def __init__(self, name: str, entries: tuple[Entry, ...] = ()) -> None:
        self.key: SigningKey = values.key(f"log {name}")
        self.namespace = two_keys().namespace
        self.log: LogId = log_id(self.namespace, self.key.public_key)
        self.entries = list(entries)

    def add(self, type_: type[Record], time: int, **fields: object) -> _Log:
        place = {
            "namespace": self.namespace,
            "log": self.log,
            "index": len(self.entries),
            "previous": self.entries[-1].leaf if self.entries else NO_PREVIOUS,
            "time": TIME + time,
            "model": "parrot",
        }
        self.entries.append(sign_record(type_(**place | fields), self.key))  # type: ignore[arg-type]
        return self

    def publish(self, time: int, name: str, **fields: object) -> _Log:
        base = {"kind": "model", "depth": 1, "branch": "main", "summary": Summary(files=1, size=1)}
        return self.add(Publish, time, manifest=revision(name), **base | fields)

    def branch(self, time: int, name: str | None, **fields: object) -> _Log:
        return self.add(Branch, time, branch="main", manifest=revision(name) if name else None, **fields)

    def yank(self, time: int, version: str, message: str) -> _Log:
        return self.add(Yank, time, version=version, message=message)

    def attest(self, time: int, name: str, commit: str, **fields: object) -> _Log:
        base = {"claim": "mirror-of", "kind": "model", "hub": "hub.example", "owner": "lab", "names": ("main",)}
        return self.add(Attest, time, manifest=revision(name), commit=commit, **base | fields)

    def root(self, size: int) -> bytes:
        return merkle.root(LOG_TREE, [entry.leaf for entry in self.entries[:size]])

    def head(self, size: int | None = None, root: bytes | None = None) -> str:
        size = len(self.entries) if size is None else size
        return sign_head(self.log, size, self.root(size) if root is None else root, self.key).text.decode()

    def plain(self) -> Json:
        return {
            "log": str(self.log),
            "public_key": str(self.key.public_key),
            "entries": [entry.data for entry in self.entries],
            "head": self.head(),
        }


def _case(
    why: str,
    logs: list[_Log],
    *,
    kind: str | None = "model",
    branches: Json | None = None,
    versions: Json | None = None,
    yanked: Json | None = None,
    newest: str | None = None,
    revisions: tuple[str, ...] = (),
    mirrors: Json | None = None,
    retired_size: int | None = None,
) -> Json:
    identity = two_keys() if retired_size is None else one_key_retired(retired_size)

    def named(claims: Json | None) -> Json:
        return {
            name: {"manifest": revision(manifest) if manifest else None, "conflicts": conflicts}
            for name, (manifest, conflicts) in (claims or {}).items()
        }

    return {
        "why": why,
        "identity": [encoding.encode(signed) for signed in identity.chain],
        "logs": [log.plain() for log in logs],
        "repository": {
            "kind": kind,
            "branches": named(branches),
            "versions": named(versions),
            "yanked": yanked or {},
            "newest": revision(newest) if newest else None,
            "revisions": sorted(revision(name) for name in revisions),
            "mirrors": {name: revision(manifest) for name, manifest in (mirrors or {}).items()},
        },
    }


def catalogue() -> Json:
    cases = [
        _case(
            "a branch goes to the greater depth, not to the later time",
            [_Log("a").publish(0, "1").publish(10, "2", depth=2), _Log("b").publish(20, "3")],
            branches={"main": ("2", 1)},
            newest="3",
            revisions=("1", "2", "3"),
        ),
        _case(
            "of equal depths the later time counts",
            [_Log("a").publish(10, "1"), _Log("b").publish(20, "2")],
            branches={"main": ("2", 1)},
            newest="2",
            revisions=("1", "2"),
        ),
        _case(
            "each log's last word on a branch counts, a rollback to a smaller depth too",
            [_Log("a").publish(0, "1").publish(10, "2", depth=2).branch(20, "1"), _Log("b").publish(5, "1")],
            branches={"main": ("1", 0)},
            newest="2",
            revisions=("1", "2"),
        ),
        _case(
            "a branch that was deleted stands for nothing; the other log says otherwise",
            [_Log("a").publish(0, "1"), _Log("b").branch(10, None)],
            branches={"main": (None, 1)},
            newest="1",
            revisions=("1",),
        ),
        _case(
            "a version goes to the least time",
            [_Log("a").publish(20, "1", version="1.0"), _Log("b").publish(10, "2", version="1.0")],
            branches={"main": ("1", 1)},
            versions={"1.0": ("2", 1)},
            newest="1",
            revisions=("1", "2"),
        ),
        _case(
            "a version that the log published before with another manifest: no effect at all",
            [_Log("a").publish(0, "1", version="1.0").publish(10, "2", version="1.0", depth=2)],
            branches={"main": ("1", 0)},
            versions={"1.0": ("1", 0)},
            newest="1",
            revisions=("1",),
        ),
        _case(
            "a version that the log published before with the same manifest moves the branch",
            [_Log("a").publish(0, "1", version="1.0").publish(10, "1", version="1.0", branch="other")],
            branches={"main": ("1", 0), "other": ("1", 0)},
            versions={"1.0": ("1", 0)},
            newest="1",
            revisions=("1",),
        ),
        _case(
            "the first publish of a name in a log fixes its kind there: the second has no effect",
            [_Log("a").publish(10, "1").publish(0, "2", kind="dataset", version="1.0", depth=2)],
            branches={"main": ("1", 0)},
            newest="1",
            revisions=("1",),
        ),
        _case(
            "among logs the kind is that of the least time",
            [_Log("a").publish(10, "1", depth=2), _Log("b").publish(5, "2", kind="dataset")],
            kind="dataset",
            branches={"main": ("1", 1)},
            newest="1",
            revisions=("1", "2"),
        ),
        _case(
            "a yank marks the version in the whole namespace, and the latest message is shown",
            [
                _Log("a").publish(0, "1", version="1.0").yank(10, "1.0", "broken"),
                _Log("b").yank(20, "1.0", "very broken"),
            ],
            branches={"main": ("1", 0)},
            versions={"1.0": ("1", 0)},
            yanked={"1.0": "very broken"},
            newest="1",
            revisions=("1",),
        ),
        _case(
            "the log of a retired key counts up to its size",
            [
                _Log("a").publish(0, "1"),
                _Log("b").publish(10, "2", depth=2).publish(20, "3", depth=3, version="1.0"),
            ],
            branches={"main": ("2", 1)},
            newest="2",
            revisions=("1", "2"),
            retired_size=1,
        ),
        _case(
            "nothing of the log of a key that was retired at size 0 counts",
            [_Log("a"), _Log("b").publish(10, "2")],
            kind=None,
            retired_size=0,
        ),
        _case(
            "an attestation names no repository of the publisher; the newest that is about a name or a commit counts",
            [
                _Log("a").attest(0, "1", _COMMITS[0]).attest(30, "2", _COMMITS[1], names=("main", "1.0")),
                _Log("b").attest(20, "3", _COMMITS[0]).attest(40, "4", _COMMITS[2], names=()),
            ],
            kind=None,
            mirrors={"main": "2", "1.0": "2", _COMMITS[0]: "3", _COMMITS[1]: "2", _COMMITS[2]: "4"},
        ),
        _case(
            "of another hub, owner or kind nothing is said",
            [
                _Log("a").attest(0, "1", _COMMITS[0], hub="other.example").attest(0, "1", _COMMITS[0], owner="Lab"),
                _Log("b").attest(0, "1", _COMMITS[0], kind="dataset"),
            ],
            kind=None,
        ),
    ]
    return {
        "about": "all records are about the model `parrot`; what is not listed under `repository` is not there",
        "newest": "the manifest of the publish that search shows",
        "conflicts": "how many other logs say otherwise",
        "mirrors": "what stands for the names and commits of the model `lab/parrot` of the hub `hub.example`",
        "cases": cases,
    }


def forks() -> Json:
    ours = _Log("a").publish(0, "1").publish(10, "2")
    longer = _Log("a", tuple(ours.entries)).publish(20, "3")
    other = _Log("a", tuple(ours.entries[:1])).publish(11, "4").publish(20, "3")
    by_b = _Log("b").publish(0, "1").publish(10, "2").publish(20, "3")
    empty = _Log("a")
    wrong_root = blake3(b"root").digest()
    cases: list[tuple[str, str, _Log, str, list[Entry]]] = [
        ("the log goes on", "good", ours, longer.head(), longer.entries[2:]),
        ("a smaller head of the same history", "good", longer, ours.head(), []),
        ("an entry with another previous", "fork", ours, other.head(), other.entries[2:]),
        ("a longer head with another root", "fork", ours, longer.head(root=wrong_root), longer.entries[2:]),
        ("a head of the same size with another root", "fork", ours, other.head(2), []),
        ("a smaller head with another root", "fork", longer, other.head(2), []),
        ("the own log is empty, and the root is another", "lie", empty, ours.head(root=wrong_root), ours.entries),
        ("the own log is empty, and the first entry has a previous", "lie", empty, longer.head(), ours.entries[1:]),
        ("an entry of another log", "lie", ours, longer.head(), by_b.entries[2:]),
        ("an entry of another index", "lie", ours, longer.head(), longer.entries[1:]),
        ("a head that another key signed", "lie", ours, _signed_by_b(longer), longer.entries[2:]),
    ]
    return {
        "about": "the node has `ours`; a peer sends `head` and, from the node's size on, `entries`",
        "results": {
            "good": "taken",
            "fork": "the publisher signed two histories: the log is frozen, the peer is not banned",
            "lie": "the peer is banned",
        },
        "identity": [encoding.encode(signed) for signed in two_keys().chain],
        "log": str(ours.log),
        "cases": [
            {
                "why": why,
                "result": result,
                "ours": [entry.data for entry in mine.entries],
                "our_head": mine.head(),
                "head": head,
                "entries": [entry.data for entry in entries],
            }
            for why, result, mine, head, entries in cases
        ],
        "proofs": [
            {"why": why, "common": common, "proof": encoding.encode(proof)}
            for why, common, proof in _proofs(longer, other)
        ],
    }


def _proofs(one: _Log, other: _Log) -> list[tuple[str, int | None, Struct]]:
    """Return proofs of a fork with the records in common, None for what proves nothing."""
    by_entries = prove_by_entries(one.entries[1].data, other.entries[1].data)
    leaves = [entry.leaf for entry in one.entries]
    by_heads = ForkedHeads(
        one.head().encode(), other.head(2).encode(), one.root(2), merkle.consistency_proof(LOG_TREE, leaves, 2)
    )
    return [
        ("two records at the same place", 1, by_entries),
        ("two heads, and what the larger had at the size of the smaller", 1, by_heads),
        ("the same record twice", None, replace(by_entries, entries=by_entries.entries[:1] * 2)),
        ("not sorted", None, replace(by_entries, entries=by_entries.entries[::-1])),
        (
            "behind the place where the histories part",
            None,
            prove_by_entries(one.entries[2].data, other.entries[2].data),
        ),
        ("heads of one history", None, replace(by_heads, smaller=one.head(2).encode())),
        ("a root that the larger never had", None, replace(by_heads, root=other.root(2))),
        ("a head that another key signed", None, replace(by_heads, larger=_signed_by_b(one).encode())),
    ]


def _signed_by_b(log: _Log) -> str:
    return sign_head(log.log, len(log.entries), log.root(len(log.entries)), values.key("log b")).text.decode()
