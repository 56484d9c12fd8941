"""A home whose index was lost gives nothing to strangers that it did not give before, and is a member where it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2phub.core.access import ANYBODY
from p2phub.core.ids import ManifestId
from p2phub.node import federating, granting
from p2phub.node.events import ignore
from p2phub.node.identity import create_identity
from p2phub.node.node import Node
from p2phub.node.publish import publish
from p2phub.testing.hostile import open_home, serving
from p2phub.testing.values import identity

pytestmark = pytest.mark.timeout(60)

FRIEND = identity("friend").namespace


def write(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "README.md").write_text(text)
    return folder


def lose_index(home: Path) -> None:
    for path in home.glob("index.sqlite*"):
        path.unlink()


def ids_of(node: Node, revision: ManifestId) -> list[bytes]:
    manifest = node.store.manifests.get(revision)
    assert manifest
    return [revision, *(file.root for file in manifest.files)]


@pytest.mark.parametrize("is_rebuilt", [False, True])
async def test_what_is_not_for_others_stays_so(is_rebuilt: bool, tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_home(home) as node:
        create_identity(node)
        draft = await publish(node, write(tmp_path / "draft", "secret"), "draft@1.0.0", ignore, visibility="private")
        await granting.grant(node, "draft", str(FRIEND), None)
        gated = await publish(node, write(tmp_path / "gated", "of another hub"), "gated@1.0.0", ignore)
        secrets = [*ids_of(node, ManifestId.parse(draft.revision)), *ids_of(node, ManifestId.parse(gated.revision))]
        node.store.mirrors.withhold(ids_of(node, ManifestId.parse(gated.revision)))
        assert node.access.withheld(ANYBODY, secrets) == set(secrets)
    lose_index(home)
    async with open_home(home) as node:
        if is_rebuilt:
            node.store.rebuild(lambda text: None)

        assert node.access.withheld(ANYBODY, secrets) == set(secrets)
        if is_rebuilt:
            (shown,) = await granting.show(node, "draft")
            assert [grant.to for grant in shown.grants] == [str(FRIEND)]


async def test_federations_pins_names_and_settings_are_there_again(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with open_home(home) as node:
        create_identity(node)
        async with serving(node):
            await federating.invite(node, "climate", whom=None, days=7, terms=None)
        result = await publish(node, write(tmp_path / "model", "text"), "model@1.0.0", ignore)
        node.store.bindings.pin("friend", FRIEND, "added", now=node.clock(), checked=False)
        before = [await federating.show(node, None), node.store.keeping.pins(), node.store.bindings.all()]
    lose_index(home)
    async with open_home(home) as node:
        node.store.rebuild(lambda text: None)
        after = [await federating.show(node, None), node.store.keeping.pins(), node.store.bindings.all()]

    assert after == before
    assert len(after[0]) == len(after[2]) == 1
    assert ManifestId.parse(result.revision) in after[1]
