"""Bills of materials: what a model consists of, for tools that audit software (spec/model-signing.md §5).

The same revision gives the same bytes, wherever it is asked for.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

from msgspec import Struct

from .choices import BillForm
from .description import Card, Facts
from .ids import ManifestId, NamespaceId
from .manifest import Manifest

_SPACE = UUID("7a4d8f0e-6c53-5b1e-9f55-0d3a51f2c1b7")  # of the names of our documents, made once by chance
_SPDX_CONTEXT = "https://spdx.org/rdf/3.0.1/spdx-context.jsonld"
_CYCLONEDX_SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"


class Described(Struct, frozen=True):
    """A revision, and what it is called."""

    name: str  # of the repository
    version: str
    publisher: NamespaceId | None
    revision: ManifestId
    manifest: Manifest
    tool: str  # version of the program that writes

    @property
    def card(self) -> Card:
        return self.manifest.card or Card()

    @property
    def facts(self) -> Facts:
        return self.manifest.facts or Facts()

    @property
    def created(self) -> str:
        return datetime.fromtimestamp(self.manifest.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    @property
    def ancestors(self) -> list[str]:
        """What it was made from: by name as the card has it, or by revision."""
        return list(self.card.base_models) or [str(base.manifest) for base in self.manifest.base_models]

    @property
    def datasets(self) -> list[str]:
        return list(self.card.datasets) or [str(dataset) for dataset in self.manifest.datasets]

    @property
    def numbers(self) -> dict[str, int]:
        """What the files say of the model in numbers."""
        facts = self.facts
        named = {
            "parameters": facts.parameters,
            "context length": facts.context_length,
            "embedding size": facts.embedding_size,
            "vocabulary size": facts.vocabulary_size,
            "layers": facts.layers,
        }
        return {name: value for name, value in named.items() if value is not None}


def bill_of_materials(described: Described, form: BillForm) -> str:
    """Return the bill of materials of a revision as JSON."""
    value = cyclonedx(described) if form == "cyclonedx" else spdx(described)
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


# ── CycloneDX ───────────────────────────────────────────────────────────────


def cyclonedx(described: Described) -> dict[str, Any]:
    """Return it as CycloneDX 1.6 has it: a component that is a model or data, and one for each file."""
    main = _main_component(described)
    files = [
        {
            "type": "file",
            "bom-ref": f"file:{file.path}",
            "name": file.path,
            "hashes": [{"alg": "SHA-256", "content": file.sha256.hex()}],
            "properties": [{"name": "p2phub:root", "value": str(file.root)}, {"name": "size", "value": str(file.size)}],
        }
        for file in described.manifest.files
    ]
    return {
        "$schema": _CYCLONEDX_SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid5(_SPACE, str(described.revision))}",
        "version": 1,
        "metadata": {
            "timestamp": described.created,
            "tools": {"components": [{"type": "application", "name": "p2phub", "version": described.tool}]},
            "component": main,
        },
        "components": files,
        "dependencies": [{"ref": main["bom-ref"], "dependsOn": [file["bom-ref"] for file in files]}],
        "compositions": [{"aggregate": "complete", "assemblies": [main["bom-ref"]]}],
    }


def _main_component(described: Described) -> dict[str, Any]:
    card, is_model = described.card, described.manifest.kind == "model"
    component: dict[str, Any] = {
        "type": "machine-learning-model" if is_model else "data",
        "bom-ref": str(described.revision),
        "name": described.name,
        "version": described.version,
        # The id of a revision is its BLAKE3.
        "hashes": [{"alg": "BLAKE3", "content": described.revision.hex()}],
    }
    if described.publisher is not None:
        component |= {"group": str(described.publisher), "publisher": str(described.publisher)}
    if card.title or card.excerpt:
        component["description"] = " — ".join(filter(None, (card.title, card.excerpt)))
    if licenses := _licenses(card):
        component["licenses"] = licenses
    if card.tags:
        component["tags"] = list(card.tags)
    if described.ancestors:
        ancestors = [{"type": "machine-learning-model", "name": name} for name in described.ancestors]
        component["pedigree"] = {"ancestors": ancestors}
    if origin := described.manifest.origin:
        text = f"{origin.hub}/{origin.repository}, commit {origin.commit}"
        component["externalReferences"] = [
            {"type": "distribution", "url": f"https://{origin.hub}/{origin.repository}", "comment": text}
        ]
    if is_model:
        component["modelCard"] = _model_card(described)
    return component


def _licenses(card: Card) -> list[dict[str, Any]]:
    if card.license and not card.license.startswith("LicenseRef-"):
        return [{"expression": card.license}]
    if name := card.license_name or card.license:
        return [{"license": {"name": name} | ({"url": card.license_link} if card.license_link else {})}]
    return []


def _model_card(described: Described) -> dict[str, Any]:
    card, facts = described.card, described.facts
    parameters = {
        "task": card.task,
        "architectureFamily": facts.model_type,
        "modelArchitecture": facts.architecture,
        "datasets": [{"type": "dataset", "name": name} for name in described.datasets],
    }
    found: dict[str, Any] = {"modelParameters": {name: value for name, value in parameters.items() if value}}
    if card.results:
        found["quantitativeAnalysis"] = {
            "performanceMetrics": [
                {"type": result.metric, "value": result.value} | ({"slice": result.dataset} if result.dataset else {})
                for result in card.results
            ]
        }
    said = {**described.numbers, **{f"parameters in {each.dtype}": each.parameters for each in facts.tensor_types}}
    if said:
        found["properties"] = [{"name": name, "value": str(value)} for name, value in said.items()]
    return found


# ── SPDX ────────────────────────────────────────────────────────────────────


def spdx(described: Described) -> dict[str, Any]:
    """Return it as SPDX 3.0.1 has it, in JSON-LD: a package of the profile AI or Dataset, and what it is made of."""
    return _Spdx(described).document()


class _Spdx:
    """Collects the elements of one document."""

    def __init__(self, described: Described) -> None:
        self._described = described
        self._base = f"urn:uuid:{uuid5(_SPACE, f'spdx {described.revision}')}"
        self._elements: list[dict[str, Any]] = []

    def document(self) -> dict[str, Any]:
        described = self._described
        who = str(described.publisher) if described.publisher else "unknown"
        agent = self._add("Organization" if described.publisher else "Agent", "publisher", name=who)
        tool = self._add("Tool", "tool", name=f"p2phub {described.tool}")
        is_model = described.manifest.kind == "model"
        main = self._model(agent) if is_model else self._dataset(agent)
        files = [
            self._add("software_File", f"file-{number}", name=file.path, verifiedUsing=[_hash("sha256", file.sha256)])
            for number, file in enumerate(described.manifest.files)
        ]
        self._relate(main, "contains", files)
        self._license(main)
        if is_model:
            self._relate(main, "descendantOf", [self._other_model(*each) for each in enumerate(described.ancestors)])
            self._relate(main, "trainedOn", [self._other_dataset(*each) for each in enumerate(described.datasets)])
        profiles = ["core", "software", "simpleLicensing", "ai" if is_model else "dataset"]
        document = {
            "type": "SpdxDocument",
            "spdxId": f"{self._base}#document",
            "creationInfo": "_:creation",
            "name": f"{described.name} {described.version}",
            "profileConformance": profiles,
            "rootElement": [main],
            "element": [element["spdxId"] for element in self._elements],
        }
        creation = {
            "type": "CreationInfo",
            "@id": "_:creation",
            "specVersion": "3.0.1",
            "created": described.created,
            "createdBy": [agent],
            "createdUsing": [tool],
        }
        return {"@context": _SPDX_CONTEXT, "@graph": [creation, document, *self._elements]}

    def _model(self, agent: str) -> str:
        card, facts = self._described.card, self._described.facts
        return self._package(
            "ai_AIPackage",
            agent,
            software_primaryPurpose="model",
            ai_domain=[card.task] if card.task else [],
            ai_typeOfModel=[kind for kind in (facts.architecture or facts.model_type,) if kind],
            ai_hyperparameter=[_entry(name, value) for name, value in self._described.numbers.items()],
            ai_metric=[
                _entry(f"{result.dataset}: {result.metric}" if result.dataset else result.metric, result.value)
                for result in card.results
            ],
        )

    def _dataset(self, agent: str) -> str:
        return self._package(
            "dataset_DatasetPackage", agent, software_primaryPurpose="data", dataset_datasetType=["noAssertion"]
        )

    def _package(self, kind: str, agent: str, **fields: Any) -> str:
        described = self._described
        return self._add(
            kind,
            "package",
            name=described.name,
            software_packageVersion=described.version,
            suppliedBy=agent,
            releaseTime=described.created,
            summary=described.card.title,
            description=described.card.excerpt,
            software_downloadLocation=f"urn:p2phub:{described.revision}",
            verifiedUsing=[_hash("blake3", described.revision)],
            **fields,
        )

    def _license(self, main: str) -> None:
        card = self._described.card
        if card.license:
            text = self._add(
                "simplelicensing_LicenseExpression", "license", simplelicensing_licenseExpression=card.license
            )
            self._relate(main, "hasDeclaredLicense", [text])

    def _other_model(self, number: int, name: str) -> str:
        return self._add("ai_AIPackage", f"ancestor-{number}", name=name)

    def _other_dataset(self, number: int, name: str) -> str:
        return self._add("dataset_DatasetPackage", f"dataset-{number}", name=name, dataset_datasetType=["noAssertion"])

    def _relate(self, source: str, kind: str, targets: list[str]) -> None:
        if targets:
            self._add("Relationship", kind, **{"from": source, "relationshipType": kind, "to": targets})

    def _add(self, kind: str, part: str, **fields: Any) -> str:
        """Add the element that is called `part` here, with those of its fields that say something; returns its id."""
        identifier = f"{self._base}#{part}"
        said = {field: value for field, value in fields.items() if value not in (None, [], "")}
        self._elements.append({"type": kind, "spdxId": identifier, "creationInfo": "_:creation", **said})
        return identifier


def _hash(algorithm: str, digest: bytes) -> dict[str, str]:
    return {"type": "Hash", "algorithm": algorithm, "hashValue": digest.hex()}


def _entry(name: str, value: object) -> dict[str, str]:
    return {"type": "DictionaryEntry", "key": name, "value": str(value)}
