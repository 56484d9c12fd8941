"""A policy that wants statements and witnesses: what it refuses of names that move, and of unvouched records."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_witness import a_witness, added

from p2phub.core.errors import AccessDenied, InvalidName
from p2phub.core.names import Address
from p2phub.core.notes import COSIGNATURE, NoteKey
from p2phub.core.rules import parse
from p2phub.core.signing import SigningKey
from p2phub.node.dispatch import run
from p2phub.node.events import ignore
from p2phub.node.fetch import fetch, locate
from p2phub.node.fresh import take
from p2phub.node.identity import create_identity, own_identity
from p2phub.node.node import Node
from p2phub.node.operations.rules import CheckRules
from p2phub.node.publish import publish
from p2phub.testing.hostile import open_home, serving

pytestmark = pytest.mark.timeout(120)

STRANGER = str(NoteKey("w.example/stranger", COSIGNATURE, SigningKey(b"x" * 32).public_key))


@dataclass
class Shop:
    """A publisher that serves, and a reader with a policy."""

    node: Node
    reader: Node
    witness: Node
    witness_address: Address
    name: str

    @property
    def witness_key(self) -> str:
        assert self.witness.witness is not None
        return str(self.witness.witness.key)

    def policy(self, text: str) -> None:
        (self.reader.settings.layout.home / "policy.toml").write_text(text)


@asynccontextmanager
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "README.md").write_text("# Parrot\n")
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(open_home(tmp_path / "publisher"))
        create_identity(node)
        result = await publish(node, tmp_path / "files", "parrot@1.0.0", ignore)
        reader = await stack.enter_async_context(open_home(tmp_path / "reader"))
        reader.store.peers.add(await stack.enter_async_context(serving(node)))
        witness, address = await stack.enter_async_context(a_witness(tmp_path))
        yield Shop(node, reader, witness, address, f"{result.namespace}/parrot")


async def test_a_name_that_moves_is_refused_when_the_publishers_word_is_too_old(tmp_path: Path) -> None:
    async with shop(tmp_path) as it:
        it.policy("[fresh]\nmax_age_days = 7\n")
        await fetch(it.reader, it.name, ignore, to=tmp_path / "first")
        later = it.reader.clock() + 8 * 86400
        it.reader.clock = lambda: later

        with pytest.raises(AccessDenied, match=r"of the last 7 days that .*, and he gave it 8 days"):
            await fetch(it.reader, it.name, ignore, to=tmp_path / "second")
        with pytest.raises(AccessDenied, match=r"8 days ago"):
            await locate(it.reader, it.name, "README.md", ignore)
        # What never moves cannot grow old.
        await fetch(it.reader, f"{it.name}@1.0.0", ignore, to=tmp_path / "third")

        it.policy("[fresh]\nmax_age_days = 9\n")
        await fetch(it.reader, it.name, ignore, to=tmp_path / "fourth")
        it.policy("")
        await fetch(it.reader, it.name, ignore, to=tmp_path / "fifth")


async def test_a_publisher_who_never_stated_anything_is_refused_where_the_policy_wants_his_word(tmp_path: Path) -> None:
    async with shop(tmp_path) as it:
        with it.node.store.database.write() as connection:
            connection.execute("DELETE FROM fresh_statements")
            connection.execute("DELETE FROM stated_heads")
        it.policy("[fresh]\nmax_age_days = 1\n")

        with pytest.raises(AccessDenied, match=r"of the last day that nothing newer is there, and there is none"):
            await fetch(it.reader, it.name, ignore, to=tmp_path / "first")


async def test_a_name_of_which_something_newer_is_withheld_is_refused(tmp_path: Path) -> None:
    async with shop(tmp_path) as it:
        it.policy("[fresh]\nmax_age_days = 7\n")
        await fetch(it.reader, it.name, ignore, to=tmp_path / "first")
        (tmp_path / "files" / "README.md").write_text("# Parrot, repaired\n")
        await publish(it.node, tmp_path / "files", "parrot@1.0.1", ignore)
        namespace = own_identity(it.node).namespace
        newest = it.node.store.fresh.get(namespace)
        assert newest is not None
        it.reader.store.peers.remove(it.node.id)
        take(it.reader.store, namespace, newest, now=it.reader.clock())

        with pytest.raises(AccessDenied, match=r"the publisher stated 2 records of log .*, here are 1"):
            await fetch(it.reader, it.name, ignore, to=tmp_path / "second")
        await fetch(it.reader, f"{it.name}@1.0.0", ignore, to=tmp_path / "third")


async def test_what_no_witness_vouches_for_is_refused(tmp_path: Path) -> None:
    async with shop(tmp_path) as it:
        it.policy(f"[witnesses]\nneed = 1\nkeys = ['{it.witness_key}', '{STRANGER}']\n")
        for name in (it.name, f"{it.name}@1.0.0"):
            with pytest.raises(AccessDenied, match=r"wants 1 of 2 witnesses to vouch for its record, and 0 do"):
                await fetch(it.reader, name, ignore, to=tmp_path / "first")

        await added(it.node, it.witness, it.witness_address)
        await fetch(it.reader, it.name, ignore, to=tmp_path / "second")
        # The record of a version is the same, and it counts by its hash alone, too.
        await fetch(it.reader, f"{it.name}@1.0.0", ignore, to=tmp_path / "third")
        checked = await run(it.reader, CheckRules(it.name), ignore)
        assert any("1 of 2 witnesses vouch for its record" in finding.text for finding in checked.findings)

        it.policy(f"[witnesses]\nneed = 2\nkeys = ['{it.witness_key}', '{STRANGER}']\n")
        with pytest.raises(AccessDenied, match=r"wants 2 of 2 witnesses to vouch for its record, and 1 do"):
            await fetch(it.reader, it.name, ignore, to=tmp_path / "fourth")
        await fetch(it.reader, checked.revision, ignore, to=tmp_path / "fifth")


async def test_ones_own_word_needs_nobodys(tmp_path: Path) -> None:
    async with shop(tmp_path) as it:
        policy = f"[fresh]\nmax_age_days = 1\n[witnesses]\nneed = 1\nkeys = ['{STRANGER}']\n"
        (it.node.settings.layout.home / "policy.toml").write_text(policy)
        later = it.node.clock() + 50 * 86400
        it.node.clock = lambda: later

        await fetch(it.node, it.name, ignore, to=tmp_path / "first")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[fresh]\nmax_age_days = 0\n", "max_age_days"),
        ("[fresh]\nmax_age = 7\n", "fresh.max_age is no rule"),
        ("[witnesses]\nneed = 1\n", "witnesses: 1 witnesses must vouch for a head, and 0 are named"),
        ("[witnesses]\nneed = 1\nkeys = ['w.example']\n", "witnesses: 'w.example' is no key"),
        (f"[witnesses]\nneed = 2\nkeys = ['{STRANGER}', '{STRANGER}']\n", "it would count twice"),
    ],
)
def test_a_rule_that_cannot_be_kept_is_no_rule(text: str, error: str) -> None:
    with pytest.raises(InvalidName) as failure:
        parse(text)

    assert error in str(failure.value)
