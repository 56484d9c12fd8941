"""The vectors of the spec hold for the code, and are what `tools/make-vectors` makes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from p2phub.core import encoding, fingerprints, gguf, ids, manifest, merkle, names, origins, safetensors
from p2phub.core.certificate import certificate
from p2phub.core.checkpoint import open_head, parse_head
from p2phub.core.chunking import tensor_cuts
from p2phub.core.envelope import ENVELOPE_SIZE_MAX, Envelope
from p2phub.core.errors import ForkedLog, HubError, InvalidData, InvalidEncoding, InvalidName, InvalidSignature
from p2phub.core.filetree import ChunkList, TreePage, check_page, join_pages, pack
from p2phub.core.forks import PROOF_SIZE_MAX, ForkProof, check_fork
from p2phub.core.frames import HEADER_SIZE, Opener, Sealer, plaintext_size
from p2phub.core.fresh import SignedFresh, open_fresh
from p2phub.core.identity import Identity, SignedDocument, open_identity
from p2phub.core.ids import ContentId, LogId, ManifestId, NamespaceId, NodeId, PublicKey
from p2phub.core.lookalikes import alike
from p2phub.core.merkle import FILE_TREE, LOG_TREE, TreeHash
from p2phub.core.noderecord import open_node_record
from p2phub.core.notes import COSIGNATURE, parse_note_key, split_note
from p2phub.core.paths import check_path, check_paths
from p2phub.core.records import NO_PREVIOUS, SKEW_MAX_S, Summary, log_id, open_entry, read_entry
from p2phub.core.search import Query
from p2phub.core.signing import SigningKey, check_public_key, check_signature, signed_message
from p2phub.core.upstream import Foreign
from p2phub.core.wellknown import parse_well_known
from p2phub.core.witness import cosign, cosigned_by, format_request, parse_checkpoint, parse_request
from p2phub.protocol import messages, talk
from p2phub.protocol.witnessing import Cosigned, check_request
from p2phub.store.keys import load_key
from p2phub.store.layout import Layout
from p2phub.store.partial import saved_chunks
from p2phub.store.store import Store
from p2phub.testing.vectors import FILES
from p2phub.testing.vectors.content import cut, long_chunk_list, recipe
from p2phub.testing.vectors.plain import plain

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "spec/vectors"
SIZE_MAX = 800_000  # bytes of all files together: small enough to be read by people

ID_TYPES: dict[str, type[ids.Id]] = {
    "content": ids.ContentId,
    "manifest": ids.ManifestId,
    "public key": ids.PublicKey,
    "node": ids.NodeId,
    "namespace": ids.NamespaceId,
    "log": ids.LogId,
}


def load(name: str) -> Any:
    return json.loads((FOLDER / name).read_text())


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


def test_making_them_again_gives_the_same_bytes(tmp_path: Path) -> None:
    subprocess.run([ROOT / "tools/make-vectors", tmp_path], check=True, cwd="/")

    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    kept = {path.name: path.read_bytes() for path in FOLDER.iterdir()}
    assert made == kept
    assert set(kept) == set(FILES)


def test_they_are_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < SIZE_MAX


def test_ids() -> None:
    vectors = load("ids.json")
    for case in vectors["valid"]:
        id_ = ID_TYPES[case["kind"]].parse(case["text"])
        assert id_ == unhex(case["bytes"])
        assert str(id_) == case["text"]
    for case in vectors["commits"]:
        assert ids.ManifestId.parse(case["manifest"]).commit == case["commit"]
    for case in vectors["invalid"]:
        with pytest.raises(InvalidName):
            ID_TYPES[case["kind"]].parse(case["text"])


def test_encoding() -> None:
    types: dict[str, Any] = {"PageRef": messages.PageRef, "Summary": Summary}
    vectors = load("encoding.json")
    for case in vectors["valid"]:
        value = encoding.decode(unhex(case["encoded"]), types[case["type"]], size_max=10_000)
        assert plain(value) == case["value"]
        assert encoding.encode(value) == unhex(case["encoded"])
    for case in vectors["invalid"]:
        with pytest.raises(InvalidEncoding):
            encoding.decode(unhex(case["encoded"]), types[case["type"]], size_max=10_000)


def test_talk() -> None:
    vectors = load("talk.json")
    to = ids.NodeId.parse(vectors["to"])
    for case in vectors["valid"]:
        heard = talk.open_talk(unhex(case["encoded"]), own=to, now=case["now"])
        assert heard.node == unhex(case["value"]["node"])
        assert plain(heard.say) == case["value"]["say"]
    for case in vectors["invalid"]:
        with pytest.raises(InvalidData):
            talk.open_talk(unhex(case["encoded"]), own=to, now=case["now"])
    for case in vectors["replies"]:
        reply = encoding.decode(unhex(case["encoded"]), talk.Reply, size_max=10_000)
        assert plain(reply) == case["value"]


def test_signing() -> None:
    vectors = load("signing.json")
    for case in vectors["signed"]:
        key = SigningKey(unhex(case["seed"]))
        assert key.public_key == unhex(case["public_key"])
        assert signed_message(case["purpose"], unhex(case["payload"])) == unhex(case["message"])
        assert key.sign(case["purpose"], unhex(case["payload"])) == unhex(case["signature"])
    for case in vectors["invalid"]:
        key_bytes, payload, signature = (unhex(case[name]) for name in ("public_key", "payload", "signature"))
        with pytest.raises(InvalidSignature):
            check_signature(PublicKey(key_bytes), case["purpose"], payload, signature)
    for case in vectors["refused_keys"]:
        with pytest.raises(InvalidSignature):
            check_public_key(unhex(case["public_key"]))
    case = vectors["envelope"]
    envelope = encoding.decode(unhex(case["encoded"]), Envelope, size_max=ENVELOPE_SIZE_MAX)
    envelope.check(PublicKey(unhex(case["public_key"])), case["purpose"])
    assert envelope == Envelope(unhex(case["payload"]), unhex(case["signature"]))


@pytest.mark.parametrize(("name", "tree"), [("log", LOG_TREE), ("file", FILE_TREE)])
def test_merkle(name: str, tree: TreeHash) -> None:
    vectors = load("merkle.json")[name]
    leaves = [unhex(case["hash"]) for case in vectors["leaves"]]
    roots = [unhex(root) for root in vectors["roots"]]
    assert [tree.leaf(unhex(case["data"])) for case in vectors["leaves"]] == leaves
    assert [merkle.root(tree, leaves[:size]) for size in range(len(roots))] == roots
    for case in vectors["inclusion"]:
        index, size, proof = case["index"], case["size"], [unhex(node) for node in case["proof"]]
        assert merkle.root_from_inclusion(tree, leaves[index], index, size, proof) == roots[size]
        assert list(merkle.inclusion_proof(tree, leaves[:size], index)) == proof
    for case in vectors.get("consistency", ()):
        old, new, proof = case["old"], case["new"], [unhex(node) for node in case["proof"]]
        merkle.check_consistency(tree, old, roots[old], new, roots[new], proof)
        assert list(merkle.consistency_proof(tree, leaves[:new], old)) == proof


def layout(data: bytes) -> tuple[int, list[int]]:
    """Return where the data and the tensors of a safetensors or GGUF file begin."""

    def read(offset: int, size: int) -> bytes:
        return data[offset : offset + size]

    if data.startswith(gguf.MAGIC):
        header = gguf.parse_header(read, len(data))
        return header.data_begin, [tensor.begin for tensor in header.tensors]
    found = safetensors.parse_header(read, len(data))
    return found.header_size, [tensor.begin for tensor in found.tensors]


def test_content() -> None:
    vectors = load("content.json")
    for case in vectors["files"]:
        data = recipe(case["parts"])
        chunks = cut(case["profile"], data)
        assert chunks.size == len(data) == case["size"]
        assert [chunks.length(index) for index in range(len(chunks))] == case["lengths"]
        assert blake3(chunks.packed).hexdigest() == case["chunk_list_blake3"]
        assert chunks.root().hex() == case["root"]
    for case in vectors["tensor_cuts"]:
        assert tensor_cuts(case["size"], case["data_begin"], case["tensor_begins"]) == case["cuts"]
    for case in vectors["headers"]["good"]:
        assert layout(unhex(case["file"])) == (case["data_begin"], case["tensor_begins"]), case["name"]
    for case in vectors["headers"]["broken"]:
        with pytest.raises(InvalidData):
            layout(unhex(case["file"]))
    for case in vectors["lists"]:
        page = encoding.decode(unhex(case["page"]), TreePage, size_max=10_000)
        root = ContentId(unhex(case["root"]))
        check_page(page, root)
        chunks = join_pages([page], root)
        assert chunks.packed == unhex(case["packed"])
        assert chunks.packed == b"".join(pack(chunk["length"], unhex(chunk["hash"])) for chunk in case["chunks"])
    for case in vectors["invalid_pages"]:
        with pytest.raises(InvalidData):
            check_page(encoding.decode(unhex(case["page"]), TreePage, size_max=10_000), ContentId(unhex(case["root"])))


def test_content_of_many_pages() -> None:
    case = load("content.json")["long_list"]
    chunks = long_chunk_list(case["count"])
    assert chunks.size == case["size"]
    for expected in case["pages"]:
        index = expected["index"]
        packed = chunks.packed[index * 4096 * 36 : (index + 1) * 4096 * 36]
        page = TreePage(case["size"], case["count"], index, packed, tuple(unhex(node) for node in expected["proof"]))
        assert blake3(packed).hexdigest() == expected["chunks_blake3"]
        check_page(page, ContentId(unhex(case["root"])))


def test_origins() -> None:
    vectors = load("origins.json")
    for case in vectors["urls"]:
        origins.check_published(case["template"])
        for path, url in case["files"].items():
            assert str(origins.url_of_path(case["template"], path)) == url
    for case in vectors["invalid"]:
        with pytest.raises(InvalidData):
            origins.check_published(case["template"])


def test_manifest() -> None:
    vectors = load("manifest.json")
    for case in vectors["valid"]:
        data = unhex(case["encoded"])
        assert plain(manifest.decode(data)) == case["value"]
        assert str(manifest.manifest_id(data)) == case["id"]
        assert manifest.manifest_id(data).commit == case["commit"]
    for case in vectors["invalid"]:
        with pytest.raises(InvalidData):
            manifest.decode(unhex(case["encoded"]))


def accepts(check: Any, value: Any, error: type[HubError]) -> bool:
    try:
        check(value)
    except error:
        return False
    return True


def test_paths() -> None:
    vectors = load("paths.json")
    for case in vectors["paths"]:
        assert accepts(check_path, case["path"], InvalidData) == case["valid"], case
    for case in vectors["lists"]:
        assert accepts(check_paths, case["paths"], InvalidData) == case["valid"], case


def test_records() -> None:
    vectors = load("records.json")
    namespace, key = NamespaceId.parse(vectors["namespace"]), PublicKey.parse(vectors["public_key"])
    assert str(log_id(namespace, key)) == vectors["log"]
    previous = NO_PREVIOUS
    leaves: list[bytes] = []
    for index, case in enumerate(vectors["entries"]):
        entry = open_entry(unhex(case["entry"]), namespace=namespace, key=key, index=index, previous=previous)
        previous = entry.leaf
        leaves.append(entry.leaf)
        assert plain(entry.record) == case["value"]
        assert encoding.encode(entry.record) == unhex(case["payload"])
        assert entry.leaf == unhex(case["leaf"])
        assert merkle.root(LOG_TREE, leaves) == unhex(case["root"])
    for case in vectors["invalid_at_index_0"]:
        with pytest.raises(InvalidData):
            open_entry(unhex(case["entry"]), namespace=namespace, key=key, index=0, previous=NO_PREVIOUS)
    late = vectors["late"]
    time = read_entry(unhex(late["entry"])).record.time
    assert late["refused_at"] + SKEW_MAX_S < time <= late["good_at"] + SKEW_MAX_S
    long = vectors["long_payload"]
    payload = unhex(vectors["entries"][0]["payload"]).ljust(long["size"], b"\0")
    envelope = encoding.encode(Envelope(payload, SigningKey(blake3(b"publisher").digest()).sign("record", payload)))
    assert (len(envelope), blake3(envelope).hexdigest()) == (long["envelope_size"], long["envelope_blake3"])
    with pytest.raises(InvalidEncoding):
        open_entry(envelope, namespace=namespace, key=key, index=0, previous=NO_PREVIOUS)


def open_store(home: Path) -> Store:
    return Store(Layout(home, home / "store"))


def take_log(store: Store, identity: Identity, entries: list[str], note: str) -> None:
    """Let the log of a case be in `store`."""
    head = parse_head(note.encode())
    if head.size:
        store.logs.extend(identity, head, [unhex(entry) for entry in entries], now=4e9)


@pytest.mark.parametrize("case", load("catalogue.json")["cases"], ids=lambda case: case["why"])
@pytest.mark.parametrize("turn", [1, -1])
@pytest.mark.parametrize("retired_first", [True, False])
def test_catalogue(case: Any, turn: int, retired_first: bool, tmp_path: Path) -> None:
    chain = read_chain(case["identity"])
    identity = open_identity(chain)
    before = identity if retired_first else open_identity(chain[:1])
    with open_store(tmp_path) as store:
        store.logs.add_identity(before)
        for log in case["logs"][::turn]:
            take_log(store, before, log["entries"], log["head"])
        store.logs.add_identity(identity)

        expected, catalogue = case["repository"], store.catalogue
        place = (identity.namespace, "parrot")
        branches = {name: catalogue.branch(*place, name) for name in ("main", "other")}
        assert plain_claims(branches) == expected["branches"]
        versions = catalogue.versions(*place)
        assert plain_claims(versions) == expected["versions"]
        yanked = {name: catalogue.yanked(*place, name) for name in versions}
        assert {name: text for name, text in yanked.items() if text is not None} == expected["yanked"]
        assert sorted(revision.hex() for revision in catalogue.revisions(*place, "")) == expected["revisions"]
        assert catalogue.kind(*place) == expected["kind"]
        lab, publishers = Foreign("hub.example", "model", "lab", "parrot"), {identity.namespace}
        names = {name for row in store.mirrors.attestations(lab, publishers) for name in (row.commit, *row.names)}
        mirrors = {name: store.mirrors.attested(lab, publishers, name) for name in names}
        assert {name: row.manifest.hex() for name, row in mirrors.items() if row} == expected["mirrors"]
        assert store.mirrors.attestations(lab, set()) == []
        newest = [model.revision for model in store.search.find(Query())]
        assert newest == ([str(ManifestId(unhex(expected["newest"])))] if expected["newest"] else [])


def plain_claims(claims: Any) -> Any:
    return {
        name: {"manifest": claim.manifest.hex() if claim.manifest else None, "conflicts": claim.conflicts}
        for name, claim in claims.items()
        if claim
    }


def test_proofs_of_forks() -> None:
    vectors = load("forks.json")
    identity = open_identity(read_chain(vectors["identity"]))
    for case in vectors["proofs"]:
        proof = encoding.decode(unhex(case["proof"]), ForkProof, size_max=PROOF_SIZE_MAX)  # type: ignore[arg-type]
        try:
            common = check_fork(proof, identity=identity, log=LogId.parse(vectors["log"]))
        except InvalidData:
            common = None
        assert common == case["common"], case["why"]


@pytest.mark.parametrize("case", load("forks.json")["cases"], ids=lambda case: case["why"])
def test_forks(case: Any, tmp_path: Path) -> None:
    vectors = load("forks.json")
    identity = open_identity(read_chain(vectors["identity"]))
    log = LogId.parse(vectors["log"])
    with open_store(tmp_path) as store:
        store.logs.add_identity(identity)
        take_log(store, identity, case["ours"], case["our_head"])
        result = "good"
        try:
            head = open_head(case["head"].encode(), log=log, key=identity.logs[log])
            if case["entries"]:
                store.logs.extend(identity, head, [unhex(entry) for entry in case["entries"]], now=4e9)
            else:
                store.logs.check_head(head)
        except ForkedLog:
            result = "fork"
        except InvalidData:
            result = "lie"

        assert result == case["result"]
        assert (store.logs.fork(log) is not None) == (result == "fork")


def test_checkpoint() -> None:
    vectors = load("checkpoint.json")
    log, key = LogId.parse(vectors["log"]), PublicKey.parse(vectors["public_key"])
    for case in vectors["valid"]:
        head = open_head(case["note"].encode(), log=log, key=key)
        assert (head.size, head.root) == (case["size"], unhex(case["root"]))
    for case in vectors["invalid"]:
        with pytest.raises(InvalidData):
            open_head(case["note"].encode(), log=log, key=key)


def read_chain(documents: list[str]) -> list[SignedDocument]:
    return [encoding.decode(unhex(data), SignedDocument, size_max=30_000) for data in documents]


def test_identity() -> None:
    vectors = load("identity.json")
    for case in vectors["valid"]:
        identity = open_identity(read_chain([document["encoded"] for document in case["chain"]]))
        assert str(identity.namespace) == case["namespace"]
        assert plain(identity.current) == case["chain"][-1]["value"]
        assert case["logs"] == [
            {"log": str(log), "public_key": str(key), "size_max": identity.size_max(log)}
            for log, key in identity.logs.items()
        ]
    for case in vectors["invalid"]:
        with pytest.raises(InvalidData):
            open_identity(read_chain(case["chain"]))


def test_fresh() -> None:
    vectors = load("fresh.json")
    identities = {name: open_identity(read_chain(chain)) for name, chain in vectors["identities"].items()}
    for case in vectors["valid"]:
        signed = encoding.decode(unhex(case["encoded"]), SignedFresh, size_max=80_000)
        opened = open_fresh(signed, identities[case["identity"]], now=vectors["now"])
        assert plain(opened.fresh) == case["value"]
    for case in vectors["invalid"]:
        signed = encoding.decode(unhex(case["encoded"]), SignedFresh, size_max=80_000)
        with pytest.raises(InvalidData):
            open_fresh(signed, identities[case["identity"]], now=vectors["now"])


def test_witness() -> None:
    vectors = load("witness.json")
    key = SigningKey(unhex(vectors["seed"]))
    witness = parse_note_key(vectors["key"], type_=COSIGNATURE)
    text, at = vectors["text"].encode(), vectors["time"]
    assert str(witness) == vectors["key"]
    assert cosign(text, witness.name, key, time=at).text == vectors["line"]
    known: Cosigned | None = None
    for case in vectors["requests"]:
        request = parse_request(case["request"].encode())
        assert format_request(request) == case["request"].encode()
        signed, _ = split_note(request.note)
        checkpoint = parse_checkpoint(signed)
        refusal = check_request(request, checkpoint, known)
        assert (refusal.status if refusal else 200) == case["status"]
        if refusal is None:
            known = Cosigned(checkpoint.size, checkpoint.root, request.note)
            assert cosigned_by(request.note + case["body"].encode(), [witness]) == {witness: at}
        elif refusal.size is not None:
            assert f"{refusal.size}\n" == case["body"]


def test_node_record() -> None:
    vectors = load("node-record.json")
    for case in vectors["valid"]:
        signed = open_node_record(unhex(case["encoded"]), now=vectors["now"])
        assert plain(signed.record) == case["value"]
    for case in vectors["invalid"]:
        with pytest.raises(InvalidData):
            open_node_record(unhex(case["encoded"]), now=vectors["now"])


def test_names() -> None:
    vectors = load("names.json")
    for case in vectors["references"]:
        assert plain(names.parse_reference(case["text"])) == case["value"]
    for text in vectors["invalid_references"]:
        assert not accepts(names.parse_reference, text, InvalidName), text
    kinds = {"version": names.is_version, "branch": names.is_branch, "hash prefix": names.is_hash_prefix}
    for case in vectors["revisions"]:
        assert [kind for kind, is_kind in kinds.items() if is_kind(case["text"])] == [case["kind"]]
    for case in vectors["endpoints"]:
        assert list(names.parse_endpoint(case["text"])) == case["value"]
    for text in vectors["invalid_endpoints"]:
        assert not accepts(names.parse_endpoint, text, InvalidName), text
    for case in vectors["addresses"]:
        address = names.parse_address(case["text"])
        assert (address.node.hex(), address.host, address.port) == (case["node"], case["host"], case["port"])
    for case in vectors["domain_files"]:
        assert plain(parse_well_known(case["text"].encode())) == case["value"]
    for case in vectors["invalid_domain_files"]:
        assert not accepts(parse_well_known, case["text"].encode(), InvalidData), case["why"]
    for case in vectors["look_alikes"]:
        assert alike(case["name"], case["other"]) == case["how"]
    for case in vectors["invalid_addresses"]:
        assert not accepts(names.parse_address, case["text"], InvalidName), case


def test_messages() -> None:
    vectors = load("messages.json")
    for case in vectors["invalid"]:
        with pytest.raises(InvalidEncoding):
            encoding.decode(unhex(case["encoded"]), getattr(messages, case["type"]), size_max=100_000)
    for case in vectors["messages"]:
        message = encoding.decode(unhex(case["encoded"]), getattr(messages, case["type"]), size_max=100_000)
        assert plain(message) == case["value"]
        assert encoding.encode(message) == unhex(case["encoded"])


def open_frame(opener: Opener, frame: bytes) -> bytes:
    plaintext = bytearray(plaintext_size(frame[:HEADER_SIZE]))
    opener.open_into(frame[:HEADER_SIZE], memoryview(frame)[HEADER_SIZE:], memoryview(plaintext))
    return bytes(plaintext)


def test_bulk() -> None:
    vectors = load("bulk.json")
    ticket = vectors["ticket"]
    assert vectors["preface"] == messages.BULK_PREFACE.hex() + ticket["id"]
    for side in ("client", "server"):
        key = unhex(ticket[f"{side}_key"])
        sealer, opener = Sealer(key), Opener(key)
        for case in vectors[side]:
            plaintext, frame = unhex(case["plaintext"]), unhex(case["frame"])
            assert sealer.seal(plaintext) == frame
            assert open_frame(opener, frame) == plaintext
    for case in vectors["invalid_first_frames_of_the_server"]:
        with pytest.raises(InvalidData):
            open_frame(Opener(unhex(ticket["server_key"])), unhex(case["frame"]))


def test_fingerprints() -> None:
    vectors = load("fingerprints.json")
    salt = unhex(vectors["salt"])

    def items(count: int) -> list[fingerprints.Item]:
        names = ((f"key {number}", f"digest {number}") for number in range(count))
        return sorted((blake3(key.encode()).digest(), blake3(digest.encode()).digest()) for key, digest in names)

    for case in vectors["maps"]:
        assert fingerprints.branch_of(items(case["count"]), 0).fingerprint.hex() == case["root"]
        if case["children"]:
            children = fingerprints.children_of(items(case["count"]), 0)
            assert [child.fingerprint.hex() for child in children] == case["children"]
            assert [fingerprints.short(child.fingerprint, salt).hex() for child in children] == case["short"]
    assert [fingerprints.short_item(item, salt).hex() for item in items(3)] == vectors["short_items"]
    for case in vectors["log_states"]:
        digest = fingerprints.log_digest(case["version"], case["size"], unhex(case["root"]))
        assert digest.hex() == case["digest"]
    for case in vectors["forked_logs"]:
        digest = fingerprints.forked_digest(case["version"], case["common"], case["held"])
        assert digest.hex() == case["digest"]
    node = vectors["node_state"]
    assert fingerprints.node_digest(unhex(node["record"])).hex() == node["digest"]


def test_certificates() -> None:
    for case in load("certificate.json")["certificates"]:
        key = SigningKey(unhex(case["seed"]))
        assert str(NodeId(key.public_key)) == case["node"]
        assert certificate(key).hex() == case["certificate"]


def test_files_on_disk(tmp_path: Path) -> None:
    vectors = load("disk.json")
    case = vectors["partial_map"]
    (tmp_path / "x.map").write_bytes(unhex(case["file"]))
    chunks = ChunkList(pack(1000, bytes(32)) * case["chunk_count"])
    assert [index for index, here in enumerate(saved_chunks(tmp_path / "x.data", chunks)) if here] == case["have"]

    case = vectors["key"]
    (tmp_path / "key").write_text(case["file"])
    (tmp_path / "key").chmod(0o600)
    assert load_key(tmp_path / "key").seed == unhex(case["seed"])

    case, records = vectors["log"], load("records.json")
    identity = open_identity(read_chain([load("identity.json")["valid"][0]["chain"][0]["encoded"]]))
    with open_store(tmp_path / "home") as store:
        log = LogId.parse(records["log"])
        store.logs.add_identity(identity)
        store.layout.log(log).parent.mkdir(parents=True, exist_ok=True)
        store.layout.log(log).write_bytes(unhex(case["file"]))
        assert store.logs.rebuild() == len(case["entries"])
        assert [entry.hex() for entry in store.logs.entries(log, 0, size_max=100_000)] == case["entries"]
