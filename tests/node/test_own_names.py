"""Whoever names a repository of somebody else is never answered about one of his own that is called alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from p2phub.core.errors import HubError, InvalidName
from p2phub.core.ids import NamespaceId
from p2phub.node.dispatch import run
from p2phub.node.events import ignore
from p2phub.node.identity import create_identity
from p2phub.node.node import Node
from p2phub.node.operations import Operation
from p2phub.node.operations.content import PublishFolder
from p2phub.node.operations.gates import GateOff
from p2phub.node.operations.grants import GrantAccess, RevokeAccess
from p2phub.node.operations.records import MoveBranch, RecallRevision, YankVersion
from p2phub.node.operations.seals import SealFor, UnsealModel
from p2phub.testing.hostile import open_home
from p2phub.testing.values import identity

pytestmark = pytest.mark.timeout(60)

OTHER = identity("other").namespace
FRIEND = str(identity("friend").namespace)
ABOUT_OWN: dict[str, Callable[[str], Operation]] = {
    "grant": lambda name: GrantAccess(name, FRIEND),
    "revoke": lambda name: RevokeAccess(name, FRIEND),
    "yank": lambda name: YankVersion(f"{name}@1.0.0"),
    "recall": lambda name: RecallRevision(f"{name}@1.0.0"),
    "branch": lambda name: MoveBranch(name, "next", "1.0.0"),
    "gate off": lambda name: GateOff(name),
    "seal": lambda name: SealFor(name, (FRIEND,)),
    "unseal": lambda name: UnsealModel(name),
}


def write_draft(folder: Path) -> None:
    folder.mkdir()
    (folder / "README.md").write_text("# A draft\n")


async def publish_draft(node: Node, folder: Path) -> NamespaceId:
    """Publish a private `draft`; returns the namespace."""
    own = create_identity(node)
    write_draft(folder)
    await run(node, PublishFolder(str(folder), "draft@1.0.0", visibility="private"), ignore)
    return own.namespace


def pin(node: Node, name: str, namespace: NamespaceId) -> None:
    node.store.bindings.pin(name, namespace, "added", now=time.time(), checked=False)


@pytest.mark.parametrize("what", ABOUT_OWN)
async def test_what_is_said_of_anothers_repository_is_refused(what: str, tmp_path: Path) -> None:
    async with open_home(tmp_path / "home") as node:
        own = await publish_draft(node, tmp_path / "draft")
        pin(node, "bob", OTHER)
        before = node.store.logs.logs_of(own, private=True)
        for name in (f"{OTHER}/draft", "bob/draft", "nobody.example/draft"):
            with pytest.raises(InvalidName, match="is not your namespace"):
                await run(node, ABOUT_OWN[what](name), ignore)

        assert node.store.logs.logs_of(own, private=True) == before


@pytest.mark.parametrize("what", ABOUT_OWN)
async def test_ones_own_names_mean_what_one_has(what: str, tmp_path: Path) -> None:
    outcomes = set()
    for number, name in enumerate(("draft", "OWN/draft", "lab.example/draft")):
        async with open_home(tmp_path / f"home{number}") as node:
            own = await publish_draft(node, tmp_path / f"draft{number}")
            pin(node, "lab.example", own)
            try:
                await run(node, ABOUT_OWN[what](name.replace("OWN", str(own))), ignore)
            except HubError as exc:
                outcomes.add(str(exc))
            else:
                outcomes.add("done")

    assert len(outcomes) == 1
