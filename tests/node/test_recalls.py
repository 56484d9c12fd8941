"""What a publisher takes back, and what others found of content: who goes by it, and how far it reaches."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from p2phub.core.access import ANYBODY, Caller
from p2phub.core.checkpoint import parse_head
from p2phub.core.description import Card
from p2phub.core.errors import AccessDenied, HubError, InvalidData, InvalidName, NotFound
from p2phub.core.ids import ManifestId, NamespaceId
from p2phub.core.records import Attest
from p2phub.core.rules import Consent
from p2phub.core.search import Query
from p2phub.core.upstream import Foreign, Listing
from p2phub.core.upstream import Info as CommitInfo
from p2phub.node import granting, mirrortrust
from p2phub.node.calling import call_peer
from p2phub.node.committing import publish_revision
from p2phub.node.dispatch import run
from p2phub.node.events import ignore
from p2phub.node.fetch import fetch
from p2phub.node.foreign import find_commit
from p2phub.node.housekeeping import remove
from p2phub.node.identity import create_identity, own_identity, publish_record
from p2phub.node.node import Node
from p2phub.node.operations.catalogue import Info, Log
from p2phub.node.operations.content import Fetch
from p2phub.node.operations.pledges import PledgeAdd
from p2phub.node.operations.records import AssessContent, RecallRevision
from p2phub.node.publish import publish
from p2phub.node.syncing import ask_for_news
from p2phub.node.why import why
from p2phub.testing.hostile import open_home, serving
from p2phub.testing.processes import tree
from p2phub.testing.together import write_files
from p2phub.testing.values import identity

pytestmark = pytest.mark.timeout(120)


async def publish_twice(node, folder: Path) -> tuple[str, str, str]:
    """Publish 1.0.0 and 2.0.0 of `small`, which share a file; returns the name and both revisions."""
    if not node.settings.layout.own_identity.exists():
        create_identity(node)
    first = await publish(
        node, write_files(folder, README__md="one", kept="same", gone="old " * 100), "small@1.0.0", ignore
    )
    second = await publish(node, write_files(folder, README__md="two", kept="same"), "small@2.0.0", ignore)
    return f"{first.namespace}/small", first.revision, second.revision


async def models(node) -> list[str]:
    return [found.version or "" for found in node.store.search.find(Query()).models]


async def test_what_was_recalled_is_refused_by_every_name_and_hash(tmp_path):
    async with open_home(tmp_path / "home") as node:
        name, first, second = await publish_twice(node, tmp_path / "files")
        await run(node, RecallRevision("small@2.0.0", "a back door"), ignore)
        for reference in (f"{name}@2.0.0", name, second, f"{name}@{second[3:20]}"):
            with pytest.raises(AccessDenied, match="recalled by its publisher: a back door") as failure:
                await fetch(node, reference, ignore)
            assert "--recalled" in (failure.value.hint or "")
        await fetch(node, first, ignore)
        await run(node, Fetch(second, to=str(tmp_path / "to"), recalled=True), ignore)
        info = await run(node, Info(f"{name}@2.0.0"), ignore)
        lines = await run(node, Log(name), ignore)
        reasons = await why(node, f"{name}@2.0.0", ignore)
        shown = await models(node)

    assert set(tree(tmp_path / "to")) == {"README.md", "kept"}
    assert info.recalled == "a back door"
    assert lines[0].type == "recall"
    assert any(reason.verdict == "bad" and "a back door" in reason.text for reason in reasons)
    assert shown == ["1.0.0"]


async def test_search_forgets_a_repository_of_which_all_was_recalled(tmp_path):
    async with open_home(tmp_path / "home") as node:
        name, first, second = await publish_twice(node, tmp_path / "files")
        for revision in (first, second):
            await run(node, RecallRevision(f"small@{revision[3:]}", ""), ignore)
        shown = await models(node)
        known = node.store.listing.kind(*reference_of(name))

    assert shown == []
    assert known is None


def reference_of(name: str):
    namespace, model = name.split("/")
    return NamespaceId.parse(namespace), model


async def test_nothing_of_it_is_served_but_what_something_else_lists(tmp_path):
    async with AsyncExitStack() as stack:
        seed = await stack.enter_async_context(open_home(tmp_path / "seed"))
        name, first, second = await publish_twice(seed, tmp_path / "files")
        address = await stack.enter_async_context(serving(seed))
        early = await stack.enter_async_context(open_home(tmp_path / "early"))
        early.store.peers.add(address)
        await fetch(early, f"{name}@1.0.0", ignore)
        gone = early.store.manifests.get(ManifestId.parse(first)).file("gone").root
        await run(seed, RecallRevision("small@1.0.0", "bad"), ignore)
        late = await stack.enter_async_context(open_home(tmp_path / "late"))
        late.store.peers.add(address)
        # The later version has a file in common with it.
        await fetch(late, f"{name}@2.0.0", ignore)
        for reference in (f"{name}@1.0.0", first):
            with pytest.raises(AccessDenied, match="recalled"):
                await fetch(late, reference, ignore)
        for reference in (first, str(gone)):
            with pytest.raises(NotFound):
                await fetch(late, reference, ignore, consent=Consent(recalled=True))
        async with call_peer(late, late.store.peers.get(address.node)) as client:
            held = [str(each.manifest) for each in (await client.inventory(None)).held]
        # Whoever has it learns of the recall, and serves it no more either.
        await ask_for_news(early, ignore, timeout_s=10)
        with pytest.raises(AccessDenied):
            await fetch(early, f"{name}@1.0.0", ignore)
        here = await stack.enter_async_context(serving(early))
        late.store.peers.remove(address.node)
        late.store.peers.add(here)
        with pytest.raises(NotFound):
            await fetch(late, first, ignore, consent=Consent(recalled=True))

    assert held == [second]


async def test_a_pledge_keeps_it_reachable_by_its_hash(tmp_path):
    async with AsyncExitStack() as stack:
        seed = await stack.enter_async_context(open_home(tmp_path / "seed"))
        name, first, _ = await publish_twice(seed, tmp_path / "files")
        await run(seed, PledgeAdd(f"{name}@1.0.0"), ignore)
        await run(seed, RecallRevision("small@1.0.0", "bad"), ignore)
        address = await stack.enter_async_context(serving(seed))
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        node.store.peers.add(address)
        await fetch(node, first, ignore, consent=Consent(recalled=True))
        with pytest.raises(AccessDenied):
            await fetch(node, f"{name}@1.0.0", ignore)


async def test_nobody_can_recall_what_another_publisher_stands_by(tmp_path):
    async with AsyncExitStack() as stack:
        alice = await stack.enter_async_context(open_home(tmp_path / "alice"))
        name, first, _ = await publish_twice(alice, tmp_path / "files")
        address = await stack.enter_async_context(serving(alice))
        mallory = await stack.enter_async_context(open_home(tmp_path / "mallory"))
        mallory.store.peers.add(address)
        create_identity(mallory)
        await fetch(mallory, first, ignore)
        # The same bytes under another name, to take them away from everybody.
        folder = Path((await fetch(mallory, first, ignore, to=tmp_path / "copy")).path)
        await publish(mallory, folder, "stolen@1.0.0", ignore)
        await run(mallory, RecallRevision("stolen@1.0.0", "mine"), ignore)
        theirs = await stack.enter_async_context(serving(mallory))
        alice.store.peers.add(theirs)
        await ask_for_news(alice, ignore, timeout_s=10)
        await fetch(alice, f"{name}@1.0.0", ignore)
        await fetch(alice, first, ignore)
        assert alice.access.withheld(ANYBODY, [ManifestId.parse(first)]) == set()


async def mirror_of(tmp_path: Path, node: Node) -> ManifestId:
    """Keep something as what another hub has as org/small; returns its manifest."""
    async with open_home(tmp_path / "elsewhere") as elsewhere:
        _, first, _ = await publish_twice(elsewhere, tmp_path / "files")
        manifest = ManifestId.parse(first)
        data = elsewhere.store.manifests.data(manifest)
        await fetch(elsewhere, first, ignore, to=tmp_path / "mirrored")
    node.store.manifests.add(data)
    for file in node.store.manifests.get(manifest).files:
        node.store.intake.ingest(tmp_path / "mirrored" / file.path, file.profile, in_place=False)
    return manifest


def attest_mirror(node: Node, manifest: ManifestId) -> None:
    publish_record(
        node,
        partial(
            Attest, namespace=own_identity(node).namespace, model="small",
            claim="mirror-of", kind="model", manifest=manifest, hub="huggingface.co", owner="org",
            commit="a" * 40, names=("main",),
        ),
    )  # fmt: skip


async def steal_and_recall(tmp_path: Path, victim: Node, manifest: ManifestId) -> None:
    """Have somebody publish a manifest, take it back, and tell the victim."""
    async with open_home(tmp_path / "mallory") as mallory:
        create_identity(mallory)
        mallory.store.manifests.add(victim.store.manifests.data(manifest))
        await publish_revision(mallory, "stolen", "main", manifest, ignore, version="1.0.0")
        await run(mallory, RecallRevision("stolen@1.0.0", "mine"), ignore)
        (state,) = mallory.store.logs.states()
        entries = mallory.store.logs.entries(state.log, 0, size_max=10**6)
        victim.store.logs.extend(own_identity(mallory), parse_head(state.head), entries, now=victim.clock())


async def test_nobody_can_recall_what_another_attests_to_be_a_mirror(tmp_path):
    async with open_home(tmp_path / "home") as node:
        create_identity(node)
        manifest = await mirror_of(tmp_path, node)
        attest_mirror(node, manifest)
        await steal_and_recall(tmp_path, node, manifest)
        await fetch(node, "hf://org/small", ignore)
        await fetch(node, str(manifest), ignore)
        roots = [file.root for file in node.store.manifests.get(manifest).files]
        assert node.access.withheld(ANYBODY, [manifest, *roots]) == set()
        # Who attests it can take it back, as who publishes it can.
        await publish_revision(node, "small", "main", manifest, ignore, version="1.0.0")
        await run(node, RecallRevision("small@1.0.0", "a back door"), ignore)
        for reference in ("hf://org/small", str(manifest)):
            with pytest.raises(AccessDenied, match="recalled"):
                await fetch(node, reference, ignore)
        assert node.access.withheld(ANYBODY, [manifest, *roots]) == {manifest, *roots}


async def test_nobody_can_recall_what_this_node_mirrors_itself(tmp_path):
    repository = Foreign("huggingface.co", "model", "org", "small")
    async with open_home(tmp_path / "home") as node:
        manifest = await mirror_of(tmp_path, node)
        node.store.mirrors.keep_listing(repository, Listing(CommitInfo("a" * 40, False, 0, Card()), ()))
        node.store.mirrors.set_manifest(repository, "a" * 40, manifest)
        await steal_and_recall(tmp_path, node, manifest)
        await fetch(node, f"hf://org/small@{'a' * 40}", ignore)
        await fetch(node, str(manifest), ignore)
        assert node.access.withheld(ANYBODY, [manifest]) == set()
        # Its own publisher can.
        create_identity(node)
        await publish_revision(node, "small", "main", manifest, ignore, version="1.0.0")
        await run(node, RecallRevision("small@1.0.0", "a back door"), ignore)
        with pytest.raises(AccessDenied, match="recalled"):
            await fetch(node, str(manifest), ignore)
        assert node.access.withheld(ANYBODY, [manifest]) == {manifest}


async def copy_and_say(tmp_path: Path, node: Node, manifest: ManifestId, who: str, recall: str | None) -> NamespaceId:
    """Have `who` publish a manifest, vouch for it as a mirror and perhaps take it back; returns his namespace."""
    async with open_home(tmp_path / who) as other:
        own = create_identity(other)
        other.store.manifests.add(node.store.manifests.data(manifest))
        attest_mirror(other, manifest)
        await publish_revision(other, "small", "main", manifest, ignore, version="1.0.0")
        if recall is not None:
            other.clock = lambda: node.clock() + (60 if who == "stranger" else 0)  # his word is the last
            await run(other, RecallRevision("small@1.0.0", recall), ignore)
        (state,) = other.store.logs.states()
        entries = other.store.logs.entries(state.log, 0, size_max=10**6)
        node.store.logs.extend(own, parse_head(state.head), entries, now=node.clock())
    return own.namespace


async def test_a_mirror_is_recalled_by_whom_the_user_trusts_in_it(tmp_path):
    async with open_home(tmp_path / "home") as node:
        manifest = await mirror_of(tmp_path, node)
        friend = await copy_and_say(tmp_path, node, manifest, "friend", None)
        await copy_and_say(tmp_path, node, manifest, "stranger", "pay me")
        await mirrortrust.trust(node, friend, is_trusted=True)
        await fetch(node, "hf://org/small", ignore)

    async with open_home(tmp_path / "home2") as node:
        manifest = await mirror_of(tmp_path / "2", node)
        friend = await copy_and_say(tmp_path / "2", node, manifest, "friend", "a back door")
        # Whoever goes on standing by it does not matter to whom nobody trusts him.
        await copy_and_say(tmp_path / "2", node, manifest, "stranger", None)
        await mirrortrust.trust(node, friend, is_trusted=True)
        with pytest.raises(AccessDenied, match="a back door"):
            await fetch(node, "hf://org/small", ignore)
        with pytest.raises(AccessDenied, match="a back door"):
            await find_commit(node, Foreign("huggingface.co", "model", "org", "small"), "main")
        await fetch(node, str(manifest), ignore)


async def test_a_stranger_writes_no_reasons(tmp_path):
    async with open_home(tmp_path / "home") as node:
        manifest = await mirror_of(tmp_path, node)
        friend = await copy_and_say(tmp_path, node, manifest, "friend", "a back door")
        await copy_and_say(tmp_path, node, manifest, "stranger", "get the repaired one at evil.example")
        reasons = []
        for _ in range(2):
            with pytest.raises(AccessDenied, match="recalled") as refusal:
                await fetch(node, str(manifest), ignore)
            reasons += [str(refusal.value), (await run(node, Info(str(manifest)), ignore)).recalled]
            node.store.bindings.pin("friend", friend, "added", now=node.clock(), checked=False)

    assert reasons == [
        "it was recalled by its publisher",
        "",
        "it was recalled by its publisher: a back door",
        "a back door",
    ]


@pytest.mark.parametrize("is_same", [True, False], ids=["the same manifest", "the same files"])
async def test_a_private_copy_undoes_no_recall_but_for_its_readers(is_same, tmp_path):
    friend = Caller(None, frozenset({identity("friend").namespace}))
    async with open_home(tmp_path / "home") as node:
        create_identity(node)
        folder = write_files(tmp_path / "files", README__md="one")
        await publish(node, write_files(tmp_path / "staging", **({"draft": "x"} if is_same else {"README__md": "one"})),
                      "staging", ignore, visibility="private")  # fmt: skip
        await granting.grant(node, "staging", str(identity("friend").namespace), None)
        # Another manifest, of the same file.
        node.clock = lambda: time.time() + 10
        revision = ManifestId.parse((await publish(node, folder, "small@1.0.0", ignore)).revision)
        if is_same:
            await publish_revision(node, "staging", "main", revision, ignore, version="1.0.0")
        (file,) = node.store.manifests.get(revision).files
        await run(node, RecallRevision("small@1.0.0", "a back door"), ignore)
        assert node.access.withheld(ANYBODY, [revision, file.root]) == {revision, file.root}
        assert node.access.withheld(friend, [revision, file.root]) == (set() if is_same else {revision})


async def test_a_private_recall_takes_nothing_from_others(tmp_path):
    async with open_home(tmp_path / "home") as node:
        create_identity(node)
        manifest = await mirror_of(tmp_path, node)
        attest_mirror(node, manifest)
        await publish_revision(node, "staging", "main", manifest, ignore, version="1.0.0", visibility="private")
        await run(node, RecallRevision("staging@1.0.0", "not yet"), ignore)
        assert node.access.refused.withheld(ANYBODY, [manifest]) == set()


async def test_only_a_revision_of_ones_own_can_be_recalled(tmp_path):
    async with open_home(tmp_path / "home") as node:
        name, _, _ = await publish_twice(node, tmp_path / "files")
        for text, error in (("small", InvalidName), ("small@9.0.0", NotFound), ("b3:" + "0" * 64, InvalidName),
                            ("a" * 52 + "/small@1.0.0", InvalidName)):  # fmt: skip
            with pytest.raises(error):
                await run(node, RecallRevision(text, ""), ignore)
        assert await models(node) == ["2.0.0"]
        # By the name of its branch, too: what it stands for now.
        notices: list[str] = []
        await run(node, RecallRevision(f"{name}@main", ""), lambda event: notices.append(getattr(event, "text", "")))

    assert any("main still stands for it" in notice for notice in notices)


async def test_recalls_survive_a_rebuild_of_the_index(tmp_path):
    async with open_home(tmp_path / "home") as node:
        name, _, second = await publish_twice(node, tmp_path / "files")
        await run(node, RecallRevision("small@2.0.0", "bad"), ignore)
        await run(node, RecallRevision("small@1.0.0", "bad"), ignore)
        node.store.rebuild(lambda text: None)
        assert await models(node) == []
        with pytest.raises(AccessDenied):
            await fetch(node, second, ignore)
        with pytest.raises(AccessDenied):
            await fetch(node, name, ignore)


# ── what others found ───────────────────────────────────────────────────────


async def two_publishers(stack: AsyncExitStack, tmp_path: Path):
    """Give a publisher of `small`, and a reviewer that has taken it over."""
    author = await stack.enter_async_context(open_home(tmp_path / "author"))
    name, first, second = await publish_twice(author, tmp_path / "files")
    address = await stack.enter_async_context(serving(author))
    reviewer = await stack.enter_async_context(open_home(tmp_path / "reviewer"))
    reviewer.store.peers.add(address)
    namespace = create_identity(reviewer).namespace
    await ask_for_news(reviewer, ignore, timeout_s=10)
    return author, reviewer, namespace, name, (first, second)


async def test_what_was_found_is_shown_and_can_be_withdrawn(tmp_path):
    async with AsyncExitStack() as stack:
        _, reviewer, namespace, name, _ = await two_publishers(stack, tmp_path)
        for operation in (
            AssessContent(f"{name}@1.0.0", "review", "good", message="clean"),
            AssessContent(f"{name}@1.0.0", "evaluation", "good", metric="qa/squad/f1=88.5", tool="kit 1"),
            AssessContent(f"{name}@1.0.0", "scan", "bad", path="gone", tool="scanner"),
        ):
            await run(reviewer, operation, ignore)
        shown = (await run(reviewer, Info(f"{name}@1.0.0"), ignore)).found
        reasons = await why(reviewer, f"{name}@1.0.0", ignore)
        await run(reviewer, AssessContent(f"{name}@1.0.0", "review", "withdrawn"), ignore)
        after = (await run(reviewer, Info(f"{name}@1.0.0"), ignore)).found

    assert {(each.claim, each.verdict, each.metric, each.value, each.path) for each in shown} == {
        ("review", "good", None, None, None),
        ("evaluation", "good", "qa/squad/f1", "88.5", None),
        ("scan", "bad", None, None, "gone"),
    }
    assert {each.namespace for each in shown} == {str(namespace)}
    assert any(reason.about == "review" and "clean" in reason.text for reason in reasons)
    assert {each.claim for each in after} == {"evaluation", "scan"}


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"claim": "review", "verdict": "good", "metric": "a/b/c=1"}, InvalidData),
        ({"claim": "evaluation", "verdict": "good", "metric": "a/b=1"}, InvalidName),
        ({"claim": "evaluation", "verdict": "good", "metric": "a/b/c=high"}, InvalidName),
        ({"claim": "blocked", "verdict": "good"}, InvalidData),
        ({"claim": "scan", "verdict": "good", "path": "nothing"}, NotFound),
    ],
)
async def test_what_makes_no_sense_is_not_signed(fields, error, tmp_path):
    async with open_home(tmp_path / "home") as node:
        name, _, _ = await publish_twice(node, tmp_path / "files")
        with pytest.raises(error):
            await run(node, AssessContent(name, **fields), ignore)
        assert {line.type for line in await run(node, Log(name), ignore)} == {"publish"}


async def test_a_policy_can_want_somebodys_word(tmp_path):
    async with AsyncExitStack() as stack:
        _, reviewer, namespace, name, _ = await two_publishers(stack, tmp_path)
        policy = tmp_path / "reviewer" / "policy.toml"
        policy.write_text(f"[[attested]]\nclaim = 'review'\nby = ['{namespace}']\n")
        with pytest.raises(AccessDenied, match="wants review of 1 of 1"):
            await fetch(reviewer, f"{name}@1.0.0", ignore)
        await run(reviewer, AssessContent(f"{name}@1.0.0", "review", "good"), ignore)
        await fetch(reviewer, f"{name}@1.0.0", ignore)
        await run(reviewer, AssessContent(f"{name}@1.0.0", "review", "bad"), ignore)
        with pytest.raises(AccessDenied, match="found it bad"):
            await fetch(reviewer, f"{name}@1.0.0", ignore)


async def test_a_block_list_is_somebodys_word_that_one_subscribes_to(tmp_path):
    async with AsyncExitStack() as stack:
        _, reviewer, namespace, name, (first, _) = await two_publishers(stack, tmp_path)
        await fetch(reviewer, f"{name}@1.0.0", ignore)
        await run(reviewer, AssessContent(f"{name}@1.0.0", "blocked", "bad", path="gone", message="malware"), ignore)
        # Whoever does not subscribe is not bound by it.
        await fetch(reviewer, f"{name}@1.0.0", ignore)
        (tmp_path / "reviewer" / "policy.toml").write_text(f"[block]\nlists = ['{namespace}']\n")
        for reference in (f"{name}@1.0.0", first):
            with pytest.raises(AccessDenied, match=r"gone is on the block list of .*: malware"):
                await fetch(reviewer, reference, ignore)
        manifest = reviewer.store.manifests.get(ManifestId.parse(first))
        with pytest.raises(AccessDenied):
            await fetch(reviewer, str(manifest.file("gone").root), ignore)
        await fetch(reviewer, f"{name}@2.0.0", ignore)
        # What is blocked is not given to others either, and what it shares with others is.
        blocked, shared = manifest.file("gone").root, manifest.file("kept").root
        withheld = reviewer.access.withheld(ANYBODY, [blocked, shared, ManifestId.parse(first)])
        await run(reviewer, AssessContent(f"{name}@1.0.0", "blocked", "withdrawn", path="gone"), ignore)
        await fetch(reviewer, f"{name}@1.0.0", ignore)

    assert withheld == {blocked}


async def test_a_policy_may_call_publishers_by_their_names(tmp_path):
    async with AsyncExitStack() as stack:
        _, reviewer, namespace, name, _ = await two_publishers(stack, tmp_path)
        author = NamespaceId.parse(name.split("/")[0])
        policy = tmp_path / "reviewer" / "policy.toml"
        policy.write_text("[block]\npublishers = ['mallory']\n")
        with pytest.raises(InvalidName, match="mallory") as failure:
            await fetch(reviewer, name, ignore)
        reviewer.store.bindings.pin("mallory", author, "added", now=0, checked=False)
        with pytest.raises(AccessDenied, match="blocks the publisher"):
            await fetch(reviewer, name, ignore)
        # Whom a name means is looked up each time.
        reviewer.store.bindings.accept("mallory", namespace, now=1)
        await fetch(reviewer, name, ignore)

    assert "p2phub trust add mallory" in (failure.value.hint or "")


async def test_a_node_with_a_broken_policy_gives_nothing(tmp_path):
    async with AsyncExitStack() as stack:
        seed = await stack.enter_async_context(open_home(tmp_path / "seed"))
        name, _, _ = await publish_twice(seed, tmp_path / "files")
        address = await stack.enter_async_context(serving(seed))
        node = await stack.enter_async_context(open_home(tmp_path / "node"))
        node.store.peers.add(address)
        (tmp_path / "seed" / "policy.toml").write_text("[blok]\n")
        with pytest.raises(HubError):
            await fetch(node, name, ignore)
        (tmp_path / "seed" / "policy.toml").write_text("")
        await fetch(node, name, ignore)
        await remove(node, name, ignore)
