"""Peers and publishers who want files where nobody asked for them: nothing is written, and they are named."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from p2phub.core import manifest as manifests
from p2phub.core.encoding import encode
from p2phub.core.errors import HubError
from p2phub.core.ids import ManifestId
from p2phub.core.manifest import BaseModel, Manifest, manifest_id
from p2phub.net.door import Request, Response
from p2phub.node.events import ignore
from p2phub.node.fetch import fetch
from p2phub.node.identity import create_identity
from p2phub.node.publish import publish
from p2phub.testing.hostile import open_home, serving
from p2phub.testing.processes import tree

pytestmark = pytest.mark.timeout(120)


def everything_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize(
    "path",
    ["../evil", "{absolute}/evil", "sub/../../evil", ".", "sub//evil", "C:\\evil", "evil\\..\\..\\evil",
     "con.txt", ".git/hooks/post-checkout", "sub/.GIT/config", "evil\x00.txt", "evil.", "a/" * 600 + "evil"],
)  # fmt: skip
async def test_a_manifest_with_a_path_that_leads_out_is_refused_before_anything_is_fetched(path, tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "good").write_text("good")
    (tmp_path / "absolute").mkdir()
    path = path.replace("{absolute}", str(tmp_path / "absolute"))
    async with open_home(tmp_path / "liar") as liar:
        create_identity(liar)
        result = await publish(liar, tmp_path / "files", "small", ignore)
        good = liar.store.manifests.get(ManifestId.parse(result.revision))
        # Written past the one who checks: whoever reads it has to.
        entry = msgspec.structs.replace(good.files[0], path=path)
        data = encode(msgspec.structs.replace(good, files=(entry,)))
        revision = manifest_id(data)

        def give_it(handler):
            async def answer(request: Request) -> Response:
                if re.fullmatch(f"/v1/manifest/{revision.hex()}", request.path):
                    return Response(200, data)
                return await handler(request)

            return answer

        async with serving(liar, wrap=give_it) as address, open_home(tmp_path / "home") as node:
            node.store.peers.add(address)
            before = everything_in(tmp_path) - everything_in(tmp_path / "home")
            with pytest.raises(HubError):
                await fetch(node, str(revision), ignore, to=tmp_path / "to" / "deep")
            assert node.store.manifests.get(revision) is None
            assert not node.store.blobs.find(entry.root)

    assert not (tmp_path / "to").exists()
    assert not any("evil" in name for name in everything_in(tmp_path) - before)


async def test_nothing_comes_but_the_files_that_were_asked_for(tmp_path):
    """A revision names what it was made from; a fetch brings none of it, and runs none of what it brings."""
    for name, files in {
        "base": {"base.bin": "x" * 5000},
        "data": {"d.csv": "a,b\n"},
        "tuned": {"t.bin": "y" * 3000},
    }.items():
        (tmp_path / name).mkdir()
        for path, text in files.items():
            (tmp_path / name / path).write_text(text)
    async with open_home(tmp_path / "seed") as seed:
        create_identity(seed)
        base = await publish(seed, tmp_path / "base", "base", ignore)
        data = await publish(seed, tmp_path / "data", "data", ignore, kind="dataset")
        tuned = await publish(seed, tmp_path / "tuned", "tuned", ignore)
        plain = seed.store.manifests.get(ManifestId.parse(tuned.revision))
        more: Manifest = msgspec.structs.replace(
            plain,
            base_models=(BaseModel(ManifestId.parse(base.revision), "finetune"),),
            datasets=(ManifestId.parse(data.revision),),
        )
        revision = seed.store.manifests.add(manifests.encode(more))
        async with serving(seed) as address, open_home(tmp_path / "home") as node:
            node.store.peers.add(address)
            result = await fetch(node, str(revision), ignore, to=tmp_path / "to")

    assert result.received == 3000
    assert set(tree(tmp_path / "to")) == {"t.bin"}


async def test_a_configuration_that_names_programs_of_others_is_told(tmp_path):
    (tmp_path / "files").mkdir()
    config = {"model_type": "x", "auto_map": {"AutoModel": "somebody/else--modeling.Model", "AutoConfig": "own.Config"}}
    (tmp_path / "files" / "config.json").write_text(json.dumps(config))
    (tmp_path / "files" / "own.py").write_text("class Config: pass\n")
    notices: list[str] = []
    async with open_home(tmp_path / "home") as node:
        create_identity(node)
        await publish(node, tmp_path / "files", "remote", ignore)
        await fetch(node, "remote", lambda event: notices.append(getattr(event, "text", "")), to=tmp_path / "to")

    assert set(tree(tmp_path / "to")) == {"config.json"}
    [notice] = [notice for notice in notices if "config.json" in notice]
    assert "somebody/else" in notice
    assert "own.Config" in notice
