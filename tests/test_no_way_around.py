"""No option, variable, setting or rule anywhere switches the verification of content off.

Two tests that look for the words, and one that sets every switch there is, one after the
other, before a peer that lies: a switch that comes later is tried without anybody thinking of it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import click
import msgspec
import pytest
import trio

from p2phub.cli.main import cli
from p2phub.core.errors import HubError
from p2phub.core.ids import ManifestId
from p2phub.core.names import Address
from p2phub.core.rules import Rules
from p2phub.net.door import serve_peers
from p2phub.node import connections, swarm
from p2phub.node.dispatch import run
from p2phub.node.events import ignore
from p2phub.node.identity import create_identity
from p2phub.node.operations.content import Fetch
from p2phub.node.operations.every import EVERY
from p2phub.node.publish import publish
from p2phub.node.serve import PeerDoor
from p2phub.node.settings import Settings
from p2phub.store.ingest import find_bad_chunks
from p2phub.testing.hostile import counting, flip_bits, open_home, serving
from p2phub.testing.samples import write_sample_model

ROOT = Path(__file__).parent.parent
SUSPICIOUS = re.compile(r"verif|check|hash|integrit|digest|insecure|unsafe|skip|bypass|unchecked|trust_all|no_sign")

# `id domain DOMAIN --check` only looks.
HARMLESS = {"id domain --check"}

pytestmark = pytest.mark.timeout(180)


# ── words ───────────────────────────────────────────────────────────────────


def options(command: click.Command, path: str = "") -> Iterator[str]:
    for parameter in command.params:
        for name in (*parameter.opts, *parameter.secondary_opts):
            if name.startswith("-"):
                yield f"{path} {name}".strip()
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from options(inner, f"{path} {name}".strip())


def fields(struct: type[msgspec.Struct], path: str) -> Iterator[str]:
    for field in msgspec.structs.fields(struct):
        yield f"{path}.{field.name}"
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from fields(field.type, f"{path}.{field.name}")


def variables() -> set[str]:
    """Return the environment variables that the code names."""
    code = "\n".join(path.read_text() for path in (ROOT / "p2phub").rglob("*.py"))
    return set(re.findall(r"\bP2PHUB_[A-Z_]*[A-Z]\b", code))


def test_nothing_is_called_as_if_it_switched_verification_off() -> None:
    names = {
        *(option for option in options(cli) if option not in HARMLESS),
        *variables(),
        *(field.name for field in msgspec.structs.fields(Settings)),
        *(name for each in EVERY for name in fields(each, "")),
        *fields(Rules, ""),
    }

    assert len(names) > 150
    assert "fetch --allow-pickle" in names
    # What stands behind the last blank or dot: a command may be called `verify`.
    assert [name for name in names if SUSPICIOUS.search(re.split(r"[ .]", name.lower().replace("-", "_"))[-1])] == []


def test_every_variable_is_in_the_spec() -> None:
    text = "\n".join(page.read_text() for page in (ROOT / "spec").glob("*.md"))

    assert [name for name in sorted(variables()) if not re.search(rf"\b{name}\b", text)] == []


# ── deeds ───────────────────────────────────────────────────────────────────

SETTINGS = [
    field.name for field in msgspec.structs.fields(Settings) if field.type in (bool, "bool") and field.name != "offline"
]
FLAGS = [field.name for field in msgspec.structs.fields(Fetch) if field.type is bool and field.name != "dry_run"]
PERMISSIVE = """
[licences]
unknown = true
[formats]
allow = ["safetensors", "gguf", "onnx", "flax", "tflite", "numpy", "keras", "tensorflow", "torchscript", "pickle",
         "code", "text", "media", "table", "archive", "other"]
[pickles]
fetch = "scanned"
accept = ["{revision}"]
[code]
fetch = "always"
"""


@asynccontextmanager
async def serving_plain(node, wrap):
    async with trio.open_nursery() as nursery:
        handler = wrap(PeerDoor(node, nursery).handle)
        _, port = await nursery.start(partial(serve_peers, "127.0.0.1", 0, handler, tls=None, bulk=None))
        node.serve_at([f"127.0.0.1:{port}"])
        yield Address(node.id, "127.0.0.1", port)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("settings", "flags"),
    [
        ({}, {}),
        *(({}, {flag: True}) for flag in FLAGS),
        *(({name: True}, dict.fromkeys(FLAGS, True)) for name in SETTINGS),
    ],
    ids=["nothing", *FLAGS, *(f"{name} and all flags" for name in SETTINGS)],
)
async def test_whatever_is_switched_on_no_wrong_byte_comes_in(settings, flags, tmp_path, monkeypatch):
    for name in ("PATIENCE_S", "PATIENCE_ALONE_S"):
        monkeypatch.setattr(swarm, name, 0.5)
    monkeypatch.setattr(connections, "RETRY_S", (0.1,))
    asked: Counter[str] = Counter()
    write_sample_model(tmp_path / "model", size=3_000_000)
    async with AsyncExitStack() as stack:
        liar = await stack.enter_async_context(open_home(tmp_path / "liar", plain=settings.get("plain", False)))
        create_identity(liar)
        result = await publish(liar, tmp_path / "model", "parrot", ignore)
        wrap = lambda handler: counting(asked)(flip_bits(liar)(handler))  # noqa: E731
        serve = serving_plain(liar, wrap) if settings.get("plain") else serving(liar, wrap=wrap)
        address = await stack.enter_async_context(serve)
        node = await stack.enter_async_context(open_home(tmp_path / "node", **{"lan": False, **settings}))
        node.store.peers.add(address)
        (tmp_path / "node" / "policy.toml").write_text(
            PERMISSIVE.replace("{revision}", result.revision) if flags else ""
        )
        with pytest.raises(HubError):
            await run(node, Fetch(result.revision, to=str(tmp_path / "to"), **flags), ignore)
        manifest = node.store.manifests.get(ManifestId.parse(result.revision))
        whole = node.store.blobs.find_all([file.root for file in manifest.files])
        wrong = [held for held in whole.values() if bad_chunks(node, held)]

    assert asked["/v1/spans"], "the liar was asked"
    assert wrong == []
    assert not (tmp_path / "to").exists()


def bad_chunks(node, held) -> list[int]:
    with open(held.path, "rb") as file:
        return find_bad_chunks(file.fileno(), node.store.chunk_lists.find(held.root))
