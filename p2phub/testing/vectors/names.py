"""Vectors of names, and of what peers say to each other."""

from __future__ import annotations

import json

import cbor2
from msgspec import Struct

from p2phub.core import encoding, lookalikes, merkle, names
from p2phub.core.checkpoint import sign_head
from p2phub.core.filetree import ChunkList, pack
from p2phub.core.gates import Gate, sign_receipt
from p2phub.core.ids import ContentId, LogId, ManifestId, NamespaceId, NodeId
from p2phub.core.merkle import LOG_TREE
from p2phub.core.noderecord import sign_node_record
from p2phub.core.origins import url_of_path
from p2phub.core.records import log_id
from p2phub.core.wellknown import parse_well_known
from p2phub.protocol import messages
from p2phub.testing import values

from .plain import Json
from .wire import ticket


def name_texts() -> Json:
    namespace = str(values.identity().namespace)
    node = NodeId(values.key("node").public_key)
    references = [
        "parrot", "parrot@1.0.0", "parrot:main", "lab.example/parrot-7b", "lab.example/parrot-7b@1.0.0-rc.1+build.5",
        "lab.example/parrot-7b:feature/x", "me/Parrot_7B.v2@refs/pr/1", f"{namespace}/parrot@0123456789ab",
        f"{namespace}/parrot@{'0123456789abcdef' * 4}", "b3:" + "00" * 32, "b3@main",
        "a" * 96, f"{'a' * 63}/x", ".".join(["a" * 49] * 5) + ".abc/x", "a@" + "b" * 128, "a@1." + "2" * 62,
    ]  # fmt: skip
    invalid = [
        "", "@main", "parrot@", "parrot:", "-parrot", "parrot-", "par--rot", "par..rot", "parrot.git", "par rot",
        "a" * 97, "Lab.example/parrot", "lab..example/parrot", "192.0.2.1/parrot", "lab.example/parrot/x@main",
        "parrot@1", "parrot@1..0", "parrot@-x", "parrot@a..b", "parrot@a//b", "parrot@0123456789a", "b3:00",
        "b3:" + "AA" * 32, "https://lab.example/parrot", "hf://org/name", "parrot@main\n",
        f"{'a' * 64}/parrot", f"{'a' * 63}.{'a' * 64}/x", ".".join(["a" * 49] * 5) + ".abcd/x", "a@" + "b" * 129,
        "a@1." + "2" * 63, "a@" + "0" * 65, "a@b/", "a@/b", "a@b/.c", "a@1.0+", "a@1.0+a+b",
    ]  # fmt: skip
    revisions = [
        "1.0", "1.2.0", "2026.01.15", "1.0.0-rc.1", "1.0b2", "main", "v1", "feature/x", "deadbeef", "abcdefabcdef",
        "0" * 64, "a" * 65, "ABCDEFABCDEF",
    ]  # fmt: skip
    endpoints = ["lab.example:443", "192.0.2.1:7447", "[2001:db8::1]:7447", "localhost:0"]
    bad_endpoints = [
        "lab.example", "lab.example:", ":80", "lab.example:080", "lab.example:65536", "::1:80", "[1.2.3.4]:80"
    ]  # fmt: skip
    address = names.Address(node, "2001:db8::1", 7447)
    return {
        "references": [{"text": text, "value": names.parse_reference(text)} for text in references],
        "invalid_references": invalid,
        "revisions": [{"text": text, "kind": _kind(text)} for text in revisions],
        "endpoints": [{"text": text, "value": names.parse_endpoint(text)} for text in endpoints],
        "invalid_endpoints": bad_endpoints,
        "addresses": [{"text": str(address), "node": node, "host": address.host, "port": address.port}],
        "invalid_addresses": [
            {"text": str(address).removeprefix("p2phub://"), "why": "no p2phub://"},
            {"text": "https://" + str(address).removeprefix("p2phub://"), "why": "another scheme"},
            {"text": "p2phub://[2001:db8::1]:7447", "why": "no node id"},
            {"text": str(address).replace(str(node), str(node).upper()), "why": "node id in upper case"},
            {"text": str(address).replace(str(node), str(node)[:51]), "why": "node id of 51 characters"},
            {"text": str(address).replace(str(node), str(NodeId(bytes(32)))), "why": "a point of small order"},
            {"text": str(address).replace(str(node), str(NodeId(b"\x02" + bytes(31)))), "why": "no point of the curve"},
            {"text": f"p2phub://{node}@192.0.2.1", "why": "no port"},
            {"text": f"p2phub://{node}@2001:db8::1:7447", "why": "IPv6 without brackets"},
            {"text": f"p2phub://{node}@[fe80::1%eth0]:7447", "why": "a zone"},
            {"text": f"{address}/", "why": "something follows"},
        ],
        **_domain_files(namespace, address),
        "look_alikes": [
            {"name": name, "other": other, "how": lookalikes.alike(name, other)} for name, other in _LOOK_ALIKES
        ],
    }


_LOOK_ALIKES = [
    ("1ab.example", "lab.example"), ("lab.exarnple", "lab.example"), ("xn--lb-7kc.example", "lab.example"),
    ("lab.exampel", "lab.example"), ("lab.example.evil.example", "lab.example"), ("institute.com", "institute.edu"),
    ("lab.com", "lab.edu"), ("bob", "rob"), ("lab.example", "lab.example"), ("owl.example", "lab.example"),
]  # fmt: skip


def _domain_files(namespace: str, address: names.Address) -> Json:
    good = [{"p2phub": 1, "namespace": namespace}, {"p2phub": 1, "namespace": namespace, "nodes": [str(address)] * 16}]
    bad = {
        "another number": {"p2phub": 2, "namespace": namespace},
        "no number": {"namespace": namespace},
        "no namespace": {"p2phub": 1},
        "a petname": {"p2phub": 1, "namespace": "lab"},
        "another field": {"p2phub": 1, "namespace": namespace, "name": "lab"},
        "17 nodes": {"p2phub": 1, "namespace": namespace, "nodes": [str(address)] * 17},
        "a node without its id": {"p2phub": 1, "namespace": namespace, "nodes": ["192.0.2.1:7447"]},
        "null": {"p2phub": 1, "namespace": namespace, "nodes": None},
    }
    return {
        "domain_files": [
            {"text": text, "value": parse_well_known(text.encode())} for text in (json.dumps(file) for file in good)
        ],
        "invalid_domain_files": [
            *({"text": json.dumps(file), "why": why} for why, file in bad.items()),
            {"text": json.dumps(good[0]) + "}", "why": "something follows"},
        ],
    }


def _kind(text: str) -> str | None:
    kinds = {"version": names.is_version, "branch": names.is_branch, "hash prefix": names.is_hash_prefix}
    return next((kind for kind, is_kind in kinds.items() if is_kind(text)), None)


def origin_urls() -> Json:
    paths = ["README.md", "a b/c#1?.bin", "données/modèle 100%.bin", "~x-_.y/(z)"]
    templates = [
        "https://models.example", "https://models.example/", "HTTP://Models.Example:8080/parrot/{path}",
        "https://[2001:DB8::1]:8443/x?file={path}&raw=1", "https://models.example/%7Eme/{path}.bin",
        "http://192.0.2.1:80/a//b/", "https://models.example:443/{path}", "https://models.example?f={path}",
    ]  # fmt: skip
    invalid = {
        "no scheme": "models.example/parrot",
        "another scheme": "ftp://models.example/",
        "no host": "https:///parrot",
        "a fragment": "https://models.example/#{path}",
        "a space": "https://models.example/a b",
        "not ASCII": "https://models.example/mod\N{LATIN SMALL LETTER E WITH GRAVE}le",
        "a line break": "https://models.example/\n",
        "a backslash": "https:\\\\models.example/",
        "a % without two hex digits": "https://models.example/100%",
        "port 0": "https://models.example:0/",
        "port 65536": "https://models.example:65536/",
        "an empty port": "https://models.example:/",
        "something in brackets that is no address": "https://[models.example]/",
        "a user": "https://me@models.example/",
        "an empty user": "https://@models.example/",
        "{path} twice": "https://models.example/{path}/{path}",
        "{path} in the host": "https://{path}.example/",
        "{path} in the port": "https://models.example:{path}/",
        "another place": "https://models.example/{revision}/{path}",
        "a query and no {path}": "https://models.example/?file=",
    }
    return {
        "urls": [
            {"template": template, "files": {path: str(url_of_path(template, path)) for path in paths}}
            for template in templates
        ],
        "invalid": [{"template": template, "why": why} for why, template in invalid.items()],
    }


def peer_messages() -> Json:
    root, log = ContentId(values.content("root", 32)), LogId(values.content("log", 32))
    other, salt = values.content("other root", 32), values.content("salt", 32)
    identity = values.identity()
    key = values.key("publisher")
    record = sign_node_record(values.node_record(), values.key("node")).data
    own_log, leaves = log_id(identity.namespace, key.public_key), [entry.leaf for entry in values.log()]
    head = messages.LogHead(identity.namespace, 1, sign_head(own_log, 5, merkle.root(LOG_TREE, leaves), key).text)
    chunks = ChunkList(pack(1000, values.content("chunk", 32)))
    gate = Gate(identity.namespace, "parrot-7b", root, "Parrot-1.0", "Be kind.\n", "person", "manual", values.TIME)
    receipt = sign_receipt(
        gate,
        values.identity("other").namespace,
        NodeId(values.key("node").public_key),
        values.key("other"),
        now=values.TIME,
    )
    cases: list[tuple[str, Struct]] = [
        (
            "I accepted this, and here is who I am",
            messages.ReceiptsQuery((receipt.data,), (messages.IdentityChain(values.identity("other").chain),)),
        ),
        ("its publisher has to approve that", messages.ReceiptsAnswer(("waiting",))),
        ("a node introduces itself", messages.Hello(record)),
        ("the answer: the peer's own record first", messages.Nodes((record,))),
        (
            "are your logs and your nodes the same as mine?",
            messages.ReconcileQuery(salt, messages.MapQuery(root, ("",)), messages.MapQuery(other, ("",))),
        ),
        (
            "the nodes are, the logs are not: the fingerprints of the 16 children of their root",
            messages.Reconciled(
                messages.MapAnswer(other, (values.content("children", 64),)), messages.MapAnswer(other, ())
            ),
        ),
        (
            "what do your logs have under these prefixes?",
            messages.ReconcileQuery(salt, messages.MapQuery(root, ("0a", "f"))),
        ),
        (
            "children, and a bucket",
            messages.Reconciled(messages.MapAnswer(other, (values.content("children", 64), b""))),
        ),
        (
            "the heads under a prefix, but those of two items",
            messages.BucketsQuery(salt, (messages.Bucket("0ab", bytes(8)),)),
        ),
        ("the rest of them, from behind this log", messages.BucketsQuery(salt, (messages.Bucket("", after=log),))),
        (
            "a log that forked after 4 records, and one that was closed with 5",
            messages.Heads(
                (),
                1,
                (
                    messages.StoppedLog(identity.namespace, 1, own_log, 4, 4),
                    messages.StoppedLog(identity.namespace, 2, log, 5),
                ),
            ),
        ),
        ("one head, and nothing is left out", messages.Heads((head,), 1)),
        ("the record of one node, and there is more in the first bucket", messages.NodeRecords((record,), 0)),
        ("the identity of a namespace", messages.IdentityChain(identity.chain)),
        ("who are these publishers?", messages.IdentitiesQuery((identity.namespace, NamespaceId(root)))),
        ("the first is not known", messages.Identities((None,))),
        ("what did these publishers state last?", messages.FreshQuery((identity.namespace, NamespaceId(root)))),
        ("nothing is known of the first", messages.Statements((None,))),
        ("for whom I act", messages.SessionQuery((record,), (messages.IdentityChain(identity.chain),))),
        (
            "you act here for one; another has expired",
            messages.SessionAnswer((identity.namespace,), (), ("expired",), values.content("session", 16), 86400),
        ),
        (
            "two entries of a log from index 3 on, and one of another",
            messages.RecordsQuery((messages.LogRange(own_log, 3, 2), messages.LogRange(log, 0, 1))),
        ),
        ("one of the two, and none", messages.Records((tuple(entry.data for entry in values.log()[3:4]), ()))),
        ("all of one repository and half of another", _inventory()),
        ("which chunks of these files do you have?", messages.HaveQuery((root, root, root))),
        ("all, none, and the chunks 0 and 9", messages.Have((True, False, b"\x01\x02"))),
        ("the first page of the chunk list of a file", messages.TreesQuery((messages.PageRef(root, 0),))),
        ("one page, and one that the peer does not know", messages.Trees((chunks.page(0), None))),
        ("who has what I want?", messages.UpstreamQuery((bytes(root), bytes(20)), NodeId(key.public_key))),
        ("the first is here, the second is being fetched", messages.UpstreamFiles((root, None), b"\0\x02")),
        ("two tickets for bulk connections", messages.TicketsQuery(2)),
        ("a ticket", messages.Tickets((ticket(),))),
        ("65536 bytes follow", messages.BulkAnswer(200, 65536)),
        ("no upload slot is free, ask again in 3 s", messages.BulkAnswer(429, 0, 3, "all upload slots are taken")),
        ("bytes of a file", messages.SpansQuery((messages.ByteRange(root, 2**32, 65536),))),
        ("bytes that can wait", messages.SpansQuery((messages.ByteRange(root, 0, 1),), background=True)),
    ]
    return {
        "messages": [
            {"type": type(value).__name__, "meaning": meaning, "value": value, "encoded": encoding.encode(value)}
            for meaning, value in cases
        ],
        "invalid": _invalid_messages(root, head, record),
    }


def _inventory() -> messages.Inventory:
    first, second = sorted(ManifestId(values.content(f"manifest {number}", 32)) for number in range(2))
    return messages.Inventory((messages.Held(first, 1000), messages.Held(second, 500)), more=False)


def _invalid_messages(root: ContentId, head: messages.LogHead, record: bytes) -> list[Json]:
    ref = {"root": root, "index": 0}
    span = {"root": root, "offset": 0, "length": 1}
    log_head = {"namespace": bytes(head.namespace), "version": 1, "head": head.head}
    ticket_fields = {"id": bytes(16), "client_key": bytes(16), "server_key": bytes(16), "ttl": 600}
    cases: list[tuple[str, str, Json]] = [
        ("Hello", "no record", {}),
        ("Hello", "another field", {"record": record, "more": 1}),
        ("Nodes", "no record, not even its own", {"records": []}),
        ("Nodes", "65 records", {"records": [b""] * 65}),
        ("ReconcileQuery", "a salt of 31 bytes", {"salt": bytes(31)}),
        ("ReconcileQuery", "null written out", {"salt": bytes(32), "logs": None}),
        ("ReconcileQuery", "257 prefixes", {"salt": bytes(32), "logs": {"root": bytes(32), "prefixes": [""] * 257}}),
        (
            "ReconcileQuery",
            "a prefix of 64 digits",
            {"salt": bytes(32), "logs": {"root": bytes(32), "prefixes": ["0" * 64]}},
        ),
        ("ReconcileQuery", "an upper-case digit", {"salt": bytes(32), "logs": {"root": bytes(32), "prefixes": ["A"]}}),
        ("Reconciled", "65 bytes for a prefix", {"logs": {"root": bytes(32), "children": [bytes(65)]}}),
        ("BucketsQuery", "no buckets", {"salt": bytes(32), "buckets": []}),
        ("BucketsQuery", "129 buckets", {"salt": bytes(32), "buckets": [{"prefix": ""}] * 129}),
        (
            "BucketsQuery",
            "65 items that the asker has",
            {"salt": bytes(32), "buckets": [{"prefix": "", "have": bytes(260)}]},
        ),
        ("BucketsQuery", "a key of 31 bytes", {"salt": bytes(32), "buckets": [{"prefix": "", "after": bytes(31)}]}),
        ("Heads", "`complete` is a truth value", {"heads": [], "complete": True}),
        ("Heads", "a head without version", {"heads": [{"namespace": bytes(32), "head": b""}], "complete": 1}),
        ("Heads", "version 0", {"heads": [log_head | {"version": 0}], "complete": 1}),
        ("Heads", "version 1001", {"heads": [log_head | {"version": 1001}], "complete": 1}),
        ("Heads", "a head that is text", {"heads": [log_head | {"head": head.head.decode()}], "complete": 1}),
        ("Heads", "a head of 4097 bytes", {"heads": [log_head | {"head": bytes(4097)}], "complete": 1}),
        ("IdentitiesQuery", "no namespaces", {"namespaces": []}),
        ("SessionQuery", "17 delegations", {"delegations": [record] * 17}),
        ("SessionQuery", "a delegation that is text", {"delegations": ["x"]}),
        ("SessionAnswer", "an id of 15 bytes", {"id": bytes(15), "ttl": 86400}),
        ("RecordsQuery", "no ranges", {"ranges": []}),
        ("RecordsQuery", "no entries asked for", {"ranges": [{"log": bytes(32), "start": 0, "count": 0}]}),
        ("IdentityChain", "no documents", {"documents": []}),
        ("Inventory", "a share of 0", {"held": [{"manifest": bytes(32), "share": 0}], "more": False}),
        ("HaveQuery", "no roots", {"roots": []}),
        ("Have", "a number", {"held": [1]}),
        ("Have", "null", {"held": [None]}),
        ("TreesQuery", "no pages", {"pages": []}),
        ("TreesQuery", "an index below 0", {"pages": [ref | {"index": -1}]}),
        ("UpstreamQuery", "no files", {"files": []}),
        ("UpstreamQuery", "a hash of 19 bytes", {"files": [bytes(19)]}),
        ("UpstreamFiles", "a root of 31 bytes", {"roots": [bytes(31)], "states": b"\0"}),
        ("SpansQuery", "a default that is written", {"spans": [span], "background": False}),
        ("SpansQuery", "no ranges", {"spans": []}),
        ("SpansQuery", "an empty range", {"spans": [span | {"length": 0}]}),
        ("SpansQuery", "a range of more than 64 MiB", {"spans": [span | {"length": 2**26 + 1}]}),
        ("SpansQuery", "an offset beyond the limit of a file", {"spans": [span | {"offset": 2**41 + 1}]}),
        ("TicketsQuery", "no tickets", {"count": 0}),
        ("TicketsQuery", "17 tickets", {"count": 17}),
        ("Tickets", "a key of 15 bytes", {"tickets": [ticket_fields | {"client_key": bytes(15)}]}),
        ("BulkAnswer", "default of `retry_after` written out", {"status": 404, "size": 0, "retry_after": 0}),
        ("BulkAnswer", "default of `text` written out", {"status": 404, "size": 0, "text": ""}),
        ("BulkAnswer", "text of 201 characters", {"status": 404, "size": 0, "text": "a" * 201}),
    ]
    return [{"type": type_, "why": why, "encoded": cbor2.dumps(value, canonical=True)} for type_, why, value in cases]
