"""Values of every format, the same on every run: for tests, and for `tools/make-vectors`.

Secrets here are hashes of names: never use one of these keys for anything.
"""

from __future__ import annotations

from hashlib import sha256

import msgspec
from blake3 import blake3

from p2phub.core import manifest as manifests
from p2phub.core.choices import Profile
from p2phub.core.companion import CompanionKey
from p2phub.core.description import Card, Facts, MetricResult, TensorTypeCount
from p2phub.core.filetree import ChunkList, pack
from p2phub.core.identity import (
    Identity,
    IdentityDocument,
    RetiredKey,
    Role,
    new_document,
    open_identity,
    sign_document,
)
from p2phub.core.ids import ManifestId, NodeId
from p2phub.core.manifest import BaseModel, FileEntry, Manifest, Origin, Variant
from p2phub.core.manifest import Role as FileRole
from p2phub.core.noderecord import NodeRecord
from p2phub.core.pledges import Subject
from p2phub.core.recipient import RecipientKey
from p2phub.core.records import (
    NO_PREVIOUS,
    Approve,
    Assess,
    Attest,
    Branch,
    Entry,
    OpenGate,
    Pledge,
    Publish,
    Recall,
    Record,
    Refuse,
    Score,
    Seal,
    SetGate,
    Summary,
    Unpledge,
    Unseal,
    VariantSize,
    WrappedKey,
    Yank,
    log_id,
    sign_record,
)
from p2phub.core.signing import SigningKey

TIME = 1_767_225_600  # seconds: 2026-01-01 00:00 UTC


def content(name: str, size: int) -> bytes:
    """Return `size` bytes that look random: the extended output of BLAKE3 over `name`."""
    return blake3(name.encode()).digest(length=size)


def key(name: str) -> SigningKey:
    """Return the signing key called `name`: its seed is BLAKE3 of the name."""
    return SigningKey(content(name, 32))


def file_entry(path: str, data: bytes, *, role: FileRole = "other", profile: Profile = "cdc-1m") -> FileEntry:
    """Return the entry of a file with `data`, of one chunk at most."""
    packed = pack(len(data), blake3(data).digest()) if data else b""
    return FileEntry(path, len(data), ChunkList(packed).root(), sha256(data).digest(), role, profile)


def manifest() -> Manifest:
    """Return the manifest of a first revision with one file, and no field that may be left out."""
    readme = file_entry("README.md", b"# Parrot\n", role="card")
    return Manifest(schema=1, kind="model", created=TIME, files=(readme,))


def manifest_with_origins() -> Manifest:
    """Return a manifest that has every field."""
    return msgspec.structs.replace(
        full_manifest(), origin_urls=("https://models.example/acme/{path}", "http://192.0.2.1:8080/parrot")
    )


def full_manifest() -> Manifest:
    """Return a manifest that has every field but `origin_urls`."""
    weights = content("model-Q4_K_M.gguf", 4000)
    return Manifest(
        schema=1,
        kind="model",
        created=TIME + 3600,
        files=(
            file_entry("README.md", b"# Parrot\n\nIt repeats.\n", role="card"),
            file_entry("config.json", b'{"model_type": "parrot"}\n', role="config"),
            file_entry("empty.txt", b""),
            file_entry("model-Q4_K_M.gguf", weights, role="weights", profile="fixed-1m"),
            file_entry("tokenizer.json", content("tokenizer.json", 300), role="tokenizer"),
        ),
        depth=2,
        parents=(manifests.manifest_id(manifests.encode(manifest())),),
        base_models=(BaseModel(ManifestId(content("base model", 32)), "quantized"),),
        datasets=(ManifestId(content("dataset", 32)),),
        variants=(Variant("Q4_K_M", ("model-Q4_K_M.gguf",)),),
        card=_card(),
        facts=_facts(),
        origin=Origin("hub.example", "acme/parrot-7b", "0123456789abcdef0123456789abcdef01234567"),
    )


def _card() -> Card:
    return Card(
        task="text-generation",
        library="transformers",
        license="Apache-2.0",
        languages=("en", "fr"),
        tags=("birds",),
        base_models=("acme/finch-7b",),
        base_model_relation="quantized",
        datasets=("acme/birdsong",),
        metrics=("accuracy",),
        results=(MetricResult("accuracy", "0.875", task="text-generation", dataset="acme/birdsong"),),
        title="Parrot",
        excerpt="It repeats.",
    )


def _facts() -> Facts:
    return Facts(
        parameters=7_000_000_000,
        tensor_types=(TensorTypeCount("F32", 1_000), TensorTypeCount("Q4_K", 6_999_999_000)),
        architecture="ParrotForCausalLM",
        model_type="parrot",
        context_length=8192,
        embedding_size=4096,
        vocabulary_size=32_000,
        layers=32,
        quantization="Q4_K_M",
    )


def identity(name: str = "publisher") -> Identity:
    """Return the identity of one person with one key, called `name`."""
    only = key(name)
    return open_identity([sign_document(new_document(only.public_key, created=TIME), [only])])


def companion(name: str) -> CompanionKey:
    """Return the companion key called `name`."""
    return CompanionKey(content(f"companion of {name}", 32))


def recipient(name: str) -> RecipientKey:
    """Return the recipient key called `name`."""
    return RecipientKey(content(f"recipient of {name}", 32))


def whole_identity(name: str = "publisher") -> Identity:
    """Return the identity of one person with one key, called `name`, and keys for other purposes."""
    only = key(name)
    document = new_document(only.public_key, created=TIME, companion=companion(name), recipient=recipient(name))
    return open_identity([sign_document(document, [only])])


def rotated_identity() -> Identity:
    """Return an identity of three documents: one key; three root keys of which two sign; a laptop retired."""
    old_laptop, laptop, server = key("laptop 1"), key("laptop 2"), key("server")
    roots = sorted((key(f"root {number}") for number in range(3)), key=lambda root: root.public_key)
    first = sign_document(new_document(old_laptop.public_key, created=TIME), [old_laptop])
    second = IdentityDocument(
        schema=1,
        version=2,
        created=TIME + 1000,
        root=Role(tuple(root.public_key for root in roots), 2),
        publish=Role(tuple(sorted((old_laptop.public_key, laptop.public_key))), 1),
        fresh=Role((server.public_key,), 1),
        previous=blake3(first.document).digest(),
        domains=("birds.example", "lab.example"),
    )
    signed_second = sign_document(second, [old_laptop, roots[0], roots[1]])
    third = IdentityDocument(
        schema=1,
        version=3,
        created=TIME + 2000,
        root=second.root,
        publish=Role((laptop.public_key,), 1),
        fresh=second.fresh,
        previous=blake3(signed_second.document).digest(),
        domains=second.domains,
        retired=(RetiredKey(old_laptop.public_key, 12),),
    )
    return open_identity([first, signed_second, sign_document(third, [roots[1], roots[2]])])


def log(name: str = "publisher") -> list[Entry]:
    """Return the log of `identity(name)`: two revisions, a rollback, a yank, and one record of each other type."""
    signer, namespace = key(name), identity(name).namespace
    first, second = (manifests.manifest_id(manifests.encode(value)) for value in (manifest(), full_manifest()))
    entries: list[Entry] = []

    def add(type_: type[Record], **fields: object) -> None:
        position = {
            "namespace": namespace,
            "log": log_id(namespace, signer.public_key),
            "index": len(entries),
            "previous": entries[-1].leaf if entries else NO_PREVIOUS,
            "time": TIME + 60 * len(entries),
        }
        about = {} if type_ in (Pledge, Unpledge) else {"model": "parrot-7b"}
        entries.append(sign_record(type_(**position, **about, **fields), signer))  # type: ignore[arg-type]

    add(Publish, kind="model", manifest=first, depth=1, branch="main", summary=Summary(files=1, size=manifest().size))
    add(
        Publish,
        kind="model",
        manifest=second,
        depth=2,
        branch="main",
        version="1.0.0",
        message="first release",
        summary=_summary(),
    )
    add(Branch, branch="main", manifest=first, message="the quantization was broken")
    add(Yank, version="1.0.0", message="the quantization was broken")
    add(Branch, branch="old")
    add(
        Attest,
        claim="mirror-of",
        kind="model",
        manifest=second,
        hub="hub.example",
        owner="Lab",
        commit=content("commit", 20).hex(),
        names=("main",),
    )
    add(
        Seal,
        key=content("key id", 32),
        recipients=(WrappedKey(identity("other").namespace, content("recipient", 32), content("box", 80)),),
    )
    add(Unseal, key=content("repository key", 32), message="the embargo is over")
    keeper = NodeId(key("node").public_key)
    add(Pledge, node=keeper, subject=Subject(manifest=second), until=TIME + 31_536_000)
    whole = Subject(publisher=namespace, model="parrot-7b")
    add(Pledge, node=keeper, subject=whole, replicas=3, until=TIME + 31_536_000)
    add(Unpledge, node=keeper, subject=whole)
    add(Recall, manifest=second, message="the weights had a back door")
    add(
        Assess,
        claim="evaluation",
        verdict="good",
        manifest=first,
        publisher=identity("other").namespace,
        score=Score("text-generation", "wikitext", "perplexity", "7.25"),
        tool="eval-kit 1.0",
    )
    add(SetGate, name="Parrot-1.0", licence="Be kind to parrots.\n", per="person", approval="manual")
    add(Approve, receipt=content("receipt", 32), until=TIME + 31_536_000)
    add(Refuse, receipt=content("receipt", 32), message="it was sold")
    add(OpenGate)
    return entries


def _summary() -> Summary:
    card, facts = _card(), _facts()
    sizes = {file.path: file.size for file in full_manifest().files}
    return Summary(
        files=len(full_manifest().files),
        size=full_manifest().size,
        title=card.title or "",
        excerpt=card.excerpt or "",
        task=card.task,
        library=card.library,
        license=card.license,
        languages=card.languages,
        tags=card.tags,
        base_models=card.base_models,
        datasets=card.datasets,
        scores=(Score("text-generation", "acme/birdsong", "accuracy", "0.875"),),
        architecture=facts.architecture,
        parameters=facts.parameters,
        tensor_types=tuple(count.dtype for count in facts.tensor_types),
        variants=tuple(
            VariantSize(variant.name, sum(sizes[path] for path in variant.paths))
            for variant in full_manifest().variants
        ),
    )


def node_record(name: str = "node") -> NodeRecord:
    """Return what the node called `name` says of itself at TIME."""
    return NodeRecord(
        schema=1,
        node=NodeId(key(name).public_key),
        addresses=("192.0.2.1:7447", "[2001:db8::1]:7447", "node.lab.example:7447"),
        certificate=content("certificate", 300),
        time=TIME,
        ttl=3600,
        cluster="c1",
        site="lab.example",
    )
