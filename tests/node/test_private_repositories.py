"""A private repository is for those whom its publisher lets in, and to all others it is not there."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from p2phub.core.access import ANYBODY, Caller
from p2phub.core.checkpoint import parse_head
from p2phub.core.encoding import decode, encode
from p2phub.core.errors import Conflict, InvalidName, NotFound
from p2phub.core.fingerprints import SALT_SIZE
from p2phub.core.ids import ContentId, LogId, ManifestId, NamespaceId, NodeId
from p2phub.core.private import Grantee, Repository
from p2phub.core.search import Query
from p2phub.net.door import Request, Response
from p2phub.node import gates, granting, grants, inspect, syncing
from p2phub.node.branches import move_branch, yank
from p2phub.node.committing import Put, commit, publish_revision
from p2phub.node.events import ignore
from p2phub.node.identity import create_identity
from p2phub.node.maps import refresh_maps
from p2phub.node.news import compose
from p2phub.node.node import Node
from p2phub.node.publish import publish
from p2phub.node.serve import PeerDoor
from p2phub.protocol.messages import (
    ANSWER_SIZE_MAX,
    Bucket,
    BucketsQuery,
    ByteRange,
    ConsistencyQuery,
    Have,
    HaveQuery,
    Heads,
    Inventory,
    LogRange,
    PageRef,
    RecordsQuery,
    SpansQuery,
    Trees,
    TreesQuery,
    UpstreamQuery,
)
from p2phub.protocol.privatetalk import PrivateHeadsQuery
from p2phub.store.store import Store
from p2phub.testing.hostile import open_home
from p2phub.testing.values import identity, key

pytestmark = pytest.mark.timeout(60)

PAIRS = 150  # of answers that are compared

FRIEND = Caller(NodeId(key("friend's node").public_key), frozenset({identity("friend").namespace}))
STRANGER = Caller(NodeId(key("stranger's node").public_key), frozenset({identity("stranger").namespace}))


def folder_with(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


async def _as_it_is(request: Request) -> Request:
    return request


class Asker:
    """Asks a door as one caller or another."""

    def __init__(self, door: PeerDoor) -> None:
        self._door = door
        # Who asks is made up here.
        door._node.authority.identify = _as_it_is  # type: ignore[method-assign]

    async def ask(self, caller: Caller, path: str, body: bytes = b"", **query: str) -> Response:
        method = "POST" if body else "GET"
        return await self._door.handle(Request(method, f"/v1/{path}", query, body, "192.0.2.1", caller=caller))

    async def may_fetch(self, caller: Caller, revision: str, node: Node) -> bool:
        """Say whether a caller gets all of a revision: manifest, chunk list, what is here, bytes."""
        manifest = ManifestId.parse(revision)
        known = node.store.manifests.get(manifest)
        assert known is not None
        answers = []
        answers.append((await self.ask(caller, f"manifest/{manifest.hex()}")).status == 200)
        for file in known.files:
            have = await self.ask(caller, "have", encode(HaveQuery((file.root,))))
            answers.append(decode(have.body, Have, size_max=ANSWER_SIZE_MAX).held == (True,))
            trees = await self.ask(caller, "trees", encode(TreesQuery((PageRef(file.root, 0),))))
            answers.append(decode(trees.body, Trees, size_max=ANSWER_SIZE_MAX).pages != (None,))
            spans = await self.ask(caller, "spans", encode(SpansQuery((ByteRange(file.root, 0, file.size),))))
            answers.append(spans.status == 200)
            spans.release()
        assert len(set(answers)) == 1, answers
        return answers[0]


@pytest.fixture
async def node(tmp_path: Path):
    async with open_home(tmp_path / "home") as node:
        create_identity(node)
        yield node


@pytest.fixture
async def asker(node: Node, nursery: trio.Nursery):
    return Asker(PeerDoor(node, nursery))


async def publish_secret(node: Node, tmp_path: Path, name: str = "secret@1.0.0", **files: str):
    folder = folder_with(tmp_path / name.partition("@")[0], **(files or {"weights": "nobody may know this"}))
    return await publish(node, folder, name, ignore, visibility="private")


def private_log(node: Node) -> LogId:
    (log,) = [each.state.log for each in node.store.private.logs()]
    return log


def private_secret(node: Node) -> bytes:
    (secret,) = [each.secret for each in node.store.private.logs()]
    return secret


# ── who may have it ─────────────────────────────────────────────────────────


async def test_only_those_who_were_let_in_get_anything(tmp_path, node, asker):
    revision = (await publish_secret(node, tmp_path)).revision
    owner = Caller(STRANGER.node, frozenset({NamespaceId.parse((await inspect.status(node)).namespace)}))
    assert not await asker.may_fetch(FRIEND, revision, node)
    await granting.grant(node, "secret", str(identity("friend").namespace), None)

    assert await asker.may_fetch(FRIEND, revision, node)
    assert await asker.may_fetch(owner, revision, node)
    assert not await asker.may_fetch(STRANGER, revision, node)
    assert not await asker.may_fetch(ANYBODY, revision, node)
    # Nothing was proved of the namespace.
    assert not await asker.may_fetch(Caller(FRIEND.node), revision, node)


async def test_what_is_taken_back_is_lost_at_once(tmp_path, node, asker):
    revision = (await publish_secret(node, tmp_path)).revision
    friend = str(identity("friend").namespace)
    await granting.grant(node, "secret", friend, None)
    await granting.revoke(node, "secret", friend, "we parted")
    with pytest.raises(NotFound, match="not granted"):
        await granting.revoke(node, "secret", friend, "")

    assert not await asker.may_fetch(FRIEND, revision, node)
    assert (await granting.show(node, "secret"))[0].grants == []
    lines = await inspect.log_lines(node, "secret")
    assert [(line.type, line.message.partition(" ")[0]) for line in lines[:2]] == [
        ("ungrant", "namespace"),
        ("grant", "namespace"),
    ]
    assert lines[0].message.endswith("we parted")


async def test_one_node_can_be_let_in_and_time_lets_it_out(tmp_path, node, asker):
    revision = (await publish_secret(node, tmp_path)).revision
    assert FRIEND.node is not None
    await granting.grant(node, "secret", f"node:{FRIEND.node}", 2)

    assert await asker.may_fetch(Caller(FRIEND.node), revision, node)
    assert not await asker.may_fetch(Caller(STRANGER.node, FRIEND.namespaces), revision, node)
    now = node.clock()
    node.access.private._clock = lambda: now + 2 * grants.DAY_S + 1
    assert not await asker.may_fetch(Caller(FRIEND.node), revision, node)


async def test_grants_are_renewed_when_half_of_their_time_is_over(tmp_path, node):
    await publish_secret(node, tmp_path)
    friend = str(identity("friend").namespace)
    await granting.grant(node, "secret", friend, None)
    await granting.grant(node, "secret", f"node:{STRANGER.node}", 3)
    assert grants.renew_grants(node) == []
    begun = node.clock()
    node.clock = lambda: begun + 16 * grants.DAY_S

    assert [entry.record.to for entry in grants.renew_grants(node)] == [bytes(identity("friend").namespace)]
    assert grants.renew_grants(node) == []
    (shown,) = await granting.show(node, None)
    assert [(each.to, each.until > begun + 45 * grants.DAY_S) for each in shown.grants] == [(friend, True)]


async def test_who_is_let_in_must_be_somebody(tmp_path, node):
    await publish_secret(node, tmp_path)
    await publish(node, folder_with(tmp_path / "open", a="b"), "open", ignore)
    own = (await inspect.status(node)).namespace

    for name, who, error in [
        ("open", FRIEND.node, NotFound),
        ("nothing", FRIEND.node, NotFound),
        ("secret@1.0.0", FRIEND.node, InvalidName),
        ("secret", "no such name!", InvalidName),
        ("secret", "node:short", InvalidName),
        ("secret", own, InvalidName),
    ]:
        with pytest.raises(error):
            await granting.grant(node, name, str(who), None)


# ── what outsiders see ──────────────────────────────────────────────────────


async def test_to_outsiders_a_private_repository_answers_as_one_that_is_not_there(tmp_path, node, asker):
    revision = ManifestId.parse((await publish_secret(node, tmp_path)).revision)
    await granting.grant(node, "secret", str(identity("friend").namespace), None)
    known = node.store.manifests.get(revision)
    assert known is not None
    root, log = known.files[0].root, private_log(node)
    absent, nothing, no_log = ContentId(os.urandom(32)), ManifestId(os.urandom(32)), LogId(os.urandom(32))

    async def answers(manifest: ManifestId, root: ContentId, log: LogId, caller: Caller) -> list[tuple[object, ...]]:
        replies = [
            await asker.ask(caller, f"manifest/{manifest.hex()}"),
            await asker.ask(caller, "have", encode(HaveQuery((root,), fetching=STRANGER.node))),
            await asker.ask(caller, "trees", encode(TreesQuery((PageRef(root, 0),)))),
            await asker.ask(caller, "spans", encode(SpansQuery((ByteRange(root, 0, 1),)))),
            await asker.ask(caller, f"head/{log}"),
            await asker.ask(caller, f"fork/{log}"),
            await asker.ask(caller, "records", encode(RecordsQuery((LogRange(log, 0, 5),)))),
            await asker.ask(caller, "consistency", encode(ConsistencyQuery(log, 1, 1))),
            await asker.ask(caller, "private/heads", encode(PrivateHeadsQuery())),
            await asker.ask(caller, "private/records", encode(RecordsQuery((LogRange(log, 0, 5),)))),
        ]
        for reply in replies:
            reply.release()
        # Content is no bytes here, and of the asked root an answer may speak.
        bodies = [reply.body if isinstance(reply.body, bytes) else b"content" for reply in replies]
        bodies = [body.replace(str(root).encode(), b"ROOT") for body in bodies]
        return [(reply.status, body, reply.headers) for reply, body in zip(replies, bodies, strict=True)]

    for caller in (STRANGER, ANYBODY):
        assert await answers(revision, root, log, caller) == await answers(nothing, absent, no_log, caller)
    friends = await answers(revision, root, log, FRIEND)
    differs = [
        mine != other for mine, other in zip(friends, await answers(nothing, absent, no_log, FRIEND), strict=True)
    ]
    # Not even to those let in is a private log told of where all can ask.
    assert differs == [True, True, True, True, False, False, False, False, False, True]
    assert bytes(log) in (await asker.ask(FRIEND, "private/records", encode(RecordsQuery((LogRange(log, 0, 5),))))).body
    assert private_secret(node) in friends[8][1]
    assert private_secret(node) not in (await answers(revision, root, log, STRANGER))[8][1]


@pytest.mark.parametrize("caller", [ANYBODY, STRANGER], ids=["anybody", "stranger"])
async def test_the_time_of_an_answer_does_not_tell_what_is_private_from_what_is_not_there(
    tmp_path, node, asker, caller, monkeypatch
):
    """Compare many answers to each question, in random order: how often that about what is private takes longer."""
    # Or most questions are too many.
    monkeypatch.setattr(node.neighbours.limits, "wait_s", lambda host: 0.0)
    files = {f"file{number}": "private " * 500 + str(number) for number in range(20)}
    revision = ManifestId.parse((await publish_secret(node, tmp_path, **files)).revision)
    await granting.grant(node, "secret", str(identity("friend").namespace), None)
    known = node.store.manifests.get(revision)
    assert known is not None
    roots, log = [file.root for file in known.files], private_log(node)

    def questions(manifest: ManifestId, roots: list[ContentId], log: LogId) -> dict[str, bytes]:
        return {
            f"manifest/{manifest.hex()}": b"",
            "have": encode(HaveQuery(tuple(roots))),
            "trees": encode(TreesQuery(tuple(PageRef(root, 0) for root in roots))),
            "spans": encode(SpansQuery(tuple(ByteRange(root, 0, 100) for root in roots))),
            f"head/{log}": b"",
            "records": encode(RecordsQuery((LogRange(log, 0, 5),))),
        }

    private = questions(revision, roots, log)
    absent = questions(ManifestId(os.urandom(32)), [ContentId(os.urandom(32)) for _ in roots], LogId(os.urandom(32)))
    shares = {}
    for (path, body), (other_path, other_body) in zip(private.items(), absent.items(), strict=True):
        longer = 0.0
        for turn in range(PAIRS):
            times = {}
            for which in ("private", "absent") if turn % 2 else ("absent", "private"):
                begun = time.perf_counter()
                await asker.ask(caller, *((path, body) if which == "private" else (other_path, other_body)))
                times[which] = time.perf_counter() - begun
            longer += (times["private"] > times["absent"]) + 0.5 * (times["private"] == times["absent"])
        shares[path.partition("/")[0]] = longer / PAIRS

    # Half of them, but for chance and what a row of the index takes; nearly all, where anything is read.
    assert all(0.2 < share < 0.8 for share in shares.values()), shares


async def test_nothing_that_is_told_to_all_speaks_of_it(tmp_path, node, asker):
    node.neighbours.is_running = True
    await publish(node, folder_with(tmp_path / "open", a="for all"), "open", ignore)
    secret = ManifestId.parse((await publish_secret(node, tmp_path)).revision)
    log = private_log(node)
    await refresh_maps(node)

    everything = await asker.ask(ANYBODY, "heads", encode(BucketsQuery(bytes(SALT_SIZE), (Bucket(""),))))
    heads = decode(everything.body, Heads, size_max=ANSWER_SIZE_MAX)
    inventory = decode((await asker.ask(ANYBODY, "inventory")).body, Inventory, size_max=ANSWER_SIZE_MAX)
    message = compose(node.store, {log: 0}, (log,))
    page = await inspect.search(node, Query(limit=100))

    assert len(heads.heads) == 1
    assert len(inventory.held) == 1
    assert not message.has_news
    assert [model.model for model in page.models] == ["open"]
    assert node.neighbours.news.keys() == {heads_log(heads)}
    for told in (everything.body, encode(inventory), encode(message.push)):
        assert bytes(log) not in told
        assert bytes(secret) not in told
        assert b"secret" not in told


def heads_log(heads: Heads) -> LogId:
    return parse_head(heads.heads[0].head).log


async def test_what_is_being_downloaded_is_not_told_to_outsiders(tmp_path, node, asker):
    revision = ManifestId.parse((await publish_secret(node, tmp_path)).revision)
    known = node.store.manifests.get(revision)
    assert known is not None
    mates: list[NodeId] = []

    class Arriving:
        have = bytearray(b"\x00\x01")
        note_mate = mates.append

    node.arriving[known.files[0].root] = Arriving()  # type: ignore[assignment]
    answer = await asker.ask(STRANGER, "have", encode(HaveQuery((known.files[0].root,), fetching=STRANGER.node)))

    assert decode(answer.body, Have, size_max=ANSWER_SIZE_MAX) == Have((False,))
    # Or it would be asked for the file in its turn.
    assert mates == []


async def test_files_that_a_hub_lists_lead_outsiders_to_no_private_one(tmp_path, node, asker):
    from p2phub.store.mirrors import UpstreamContent

    revision = ManifestId.parse((await publish_secret(node, tmp_path)).revision)
    known = node.store.manifests.get(revision)
    assert known is not None
    file = known.files[0]
    node.store.mirrors.note_content(file.sha256, UpstreamContent(file.root, file.sha256, file.profile))

    answer = await asker.ask(STRANGER, "upstream", encode(UpstreamQuery((file.sha256,))))

    assert bytes(file.root) not in answer.body


# ── what is public, too ─────────────────────────────────────────────────────


async def test_what_its_owner_also_published_for_all_is_for_all(tmp_path, node, asker):
    secret = await publish_secret(node, tmp_path, "secret", shared="in both", own="in one")
    both = await publish(node, folder_with(tmp_path / "open", shared="in both"), "open", ignore)

    assert await asker.may_fetch(ANYBODY, both.revision, node)
    known = node.store.manifests.get(ManifestId.parse(secret.revision))
    assert known is not None
    shown = {file.path: (await asker.ask(ANYBODY, "spans", encode(SpansQuery((ByteRange(file.root, 0, 1),))))).status
             for file in known.files}  # fmt: skip
    assert shown == {"shared.txt": 200, "own.txt": 404}


async def steal(data: bytes, from_: Node, tmp_path: Path) -> None:
    """Let a thief who knows a manifest publish it for all, and a node hear of that."""
    async with open_home(tmp_path / "thief") as thief:
        create_identity(thief)
        revision = thief.store.manifests.add(data)
        await publish_revision(thief, "stolen", "main", revision, ignore, version=None)
        (state,) = thief.store.logs.states()
        known = thief.store.logs.identity(state.namespace)
        assert known is not None
        entries = thief.store.logs.entries(state.log, 0, size_max=10**6)
        from_.store.logs.extend(known, parse_head(state.head), entries, now=from_.clock())


async def test_who_names_private_files_in_a_public_repository_does_not_make_them_public(tmp_path, node, asker):
    secret = await publish_secret(node, tmp_path, "secret", weights="nobody may know this")
    data = node.store.manifests.data(ManifestId.parse(secret.revision))
    assert data is not None
    # It was let in once, and knows the hashes.
    await steal(data, node, tmp_path)
    node.store.manifests.add(data)

    assert not await asker.may_fetch(ANYBODY, secret.revision, node)


async def test_who_names_them_before_they_come_does_not_make_them_public_either(tmp_path, node):
    revision = ManifestId.parse((await publish_secret(node, tmp_path)).revision)
    data = node.store.manifests.data(revision)
    assert data is not None
    async with open_home(tmp_path / "friend") as friend:
        await steal(data, friend, tmp_path)
        friend.store.private.mark(node.store.private.repositories()[0], [revision])
        friend.store.manifests.add(data)

        assert friend.store.private.hidden([revision], ()) == {revision}


async def test_what_was_here_and_public_before_cannot_be_claimed(tmp_path, node, asker):
    open_one = await publish(node, folder_with(tmp_path / "open", weights="for all"), "open", ignore)
    manifest = node.store.manifests.get(ManifestId.parse(open_one.revision))
    assert manifest is not None
    stranger = Repository(identity("stranger").namespace, "claimed")
    node.store.private.mark(stranger, [ManifestId.parse(open_one.revision), *(f.root for f in manifest.files)])

    assert await asker.may_fetch(ANYBODY, open_one.revision, node)


async def test_a_public_card_does_not_lead_to_a_private_base(tmp_path, node):
    own = (await inspect.status(node)).namespace
    await publish_secret(node, tmp_path, "base")
    card = f"---\nbase_model: {own}/base\n---\n# Derived\n"
    (folder_with(tmp_path / "derived") / "README.md").write_text(card)
    opened = await publish(node, tmp_path / "derived", "derived", ignore)
    kept = await publish(node, tmp_path / "derived", "kept", ignore, visibility="private")

    manifests = [node.store.manifests.get(ManifestId.parse(each.revision)) for each in (opened, kept)]
    assert [len(manifest.base_models) for manifest in manifests if manifest] == [0, 1]


# ── one name, one visibility ────────────────────────────────────────────────


async def test_the_first_publication_decides_for_whom_a_repository_is(tmp_path, node, asker):
    await publish_secret(node, tmp_path)
    await publish(node, folder_with(tmp_path / "hidden", a="1"), "hidden", ignore, visibility="unlisted")
    await publish(node, folder_with(tmp_path / "open", a="2"), "open", ignore)
    for name, wanted in [("secret", "public"), ("open", "private"), ("hidden", "private"), ("open", "unlisted")]:
        with pytest.raises(Conflict, match="the first publication decides"):
            await publish(node, tmp_path / "open", name, ignore, visibility=wanted)  # type: ignore[arg-type]

    again = await publish(node, folder_with(tmp_path / "secret", weights="more"), "secret@2.0.0", ignore)
    later = await publish(node, folder_with(tmp_path / "hidden", a="3"), "hidden", ignore)
    assert (again.visibility, later.visibility) == ("private", "unlisted")
    assert not await asker.may_fetch(ANYBODY, again.revision, node)
    assert await asker.may_fetch(ANYBODY, later.revision, node)
    await move_branch(node, "secret", "main", "1.0.0", "back", ignore)
    await yank(node, "secret@2.0.0", "bad", ignore)
    (state,) = node.store.logs.states()
    assert state.size == 3  # of open and hidden alone
    assert [line.type for line in await inspect.log_lines(node, "secret")] == ["yank", "branch", "publish", "publish"]


async def test_a_commit_to_a_private_repository_stays_private(tmp_path, node, asker):
    await publish_secret(node, tmp_path)
    digest = hashlib.sha256(b"more").digest()
    with node.store.uploads.begin(4) as upload:
        upload.write(b"more")
        upload.finish(digest, 4)
    revision = await commit(node, "secret", "model", "main", [Put("more.txt", digest, 4)], ignore)

    assert not await asker.may_fetch(ANYBODY, str(revision), node)
    assert len(node.store.logs.states()) == 0


async def test_an_unlisted_repository_is_found_by_its_name_alone(tmp_path, node, asker):
    hidden = await publish(node, folder_with(tmp_path / "hidden", a="1"), "hidden", ignore, visibility="unlisted")
    inventory = decode((await asker.ask(ANYBODY, "inventory")).body, Inventory, size_max=ANSWER_SIZE_MAX)

    assert (await inspect.search(node, Query(limit=100))).models == []
    assert inventory.held == ()
    assert (await inspect.info(node, "hidden", ignore, refresh=False)).revision == hidden.revision
    async with AsyncExitStack() as stack:
        from p2phub.testing.hostile import serving

        other = await stack.enter_async_context(open_home(tmp_path / "other"))
        other.store.peers.add(await stack.enter_async_context(serving(node)))
        assert await syncing.sync_all(other, timeout_s=30) == []
        full = f"{hidden.namespace}/hidden"
        assert (await inspect.info(other, full, ignore, refresh=False)).revision == hidden.revision
        assert (await inspect.search(other, Query(limit=100))).models == []


# ── on disk ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("lost", [False, True])
async def test_a_rebuilt_or_lost_index_keeps_what_was_private(tmp_path, lost):
    async with open_home(tmp_path / "home") as node, trio.open_nursery() as nursery:
        create_identity(node)
        revision = (await publish_secret(node, tmp_path)).revision
        await granting.grant(node, "secret", str(identity("friend").namespace), None)
        layout = node.settings.layout
    if lost:
        for path in layout.home.glob("index.sqlite*"):
            path.unlink()
    async with open_home(tmp_path / "home") as node, trio.open_nursery() as nursery:
        asker = Asker(PeerDoor(node, nursery))
        early = await asker.ask(ANYBODY, f"manifest/{ManifestId.parse(revision).hex()}")
        node.store.rebuild(lambda text: None)

        assert early.status == 404
        assert not await asker.may_fetch(ANYBODY, revision, node)
        assert await asker.may_fetch(FRIEND, revision, node)
        assert (await granting.show(node, "secret"))[0].grants[0].to == str(identity("friend").namespace)
        nursery.cancel_scope.cancel()


async def test_files_of_a_private_log_are_for_its_owner_alone(tmp_path, node):
    await publish_secret(node, tmp_path)
    layout, log = node.settings.layout, private_log(node)

    for path in (layout.log(log), layout.log(log).with_suffix(".head"), layout.private_log(log)):
        assert path.stat().st_mode & 0o777 == 0o600


async def test_another_home_of_a_shared_store_keeps_it_private_too(tmp_path, node):
    revision = ManifestId.parse((await publish_secret(node, tmp_path)).revision)
    from p2phub.store.layout import Layout

    with Store(Layout(tmp_path / "other", node.settings.layout.store)) as other:
        assert other.private.hidden([revision], ()) == {revision}
        assert other.private.repositories() == node.store.private.repositories()


def test_grantees_are_written_as_what_they_are() -> None:
    assert str(Grantee("namespace", bytes(identity("friend").namespace))) == str(identity("friend").namespace)


# ── beside what is public ───────────────────────────────────────────────────


async def bytes_given(asker: Asker, caller: Caller, node: Node, revision: str) -> bool:
    """Say whether a caller gets the bytes of all files of a revision."""
    known = node.store.manifests.get(ManifestId.parse(revision))
    assert known is not None
    answers = []
    for file in known.files:
        spans = await asker.ask(caller, "spans", encode(SpansQuery((ByteRange(file.root, 0, file.size),))))
        answers.append(spans.status == 200)
        spans.release()
    assert len(set(answers)) == 1, answers
    return answers[0]


async def test_a_private_copy_opens_no_gate(tmp_path, node, asker):
    await publish_secret(node, tmp_path, "staging", weights="the same")
    revision = (await publish(node, folder_with(tmp_path / "out", weights="the same"), "parrot", ignore)).revision
    await gates.set_gate(node, "parrot", "Parrot-1.0", "Be kind.", "person", "manual")
    await granting.grant(node, "staging", str(identity("friend").namespace), None)

    assert not await bytes_given(asker, ANYBODY, node, revision)
    assert not await bytes_given(asker, STRANGER, node, revision)
    assert await bytes_given(asker, FRIEND, node, revision)


@pytest.mark.parametrize("is_claimed", [False, True])
async def test_what_is_restricted_and_published_in_private_is_for_its_readers_alone(is_claimed, tmp_path, node, asker):
    folder = folder_with(tmp_path / "files", weights="from where not all may have it")
    async with open_home(tmp_path / "elsewhere") as elsewhere:
        publisher = create_identity(elsewhere)
        theirs = (await publish(elsewhere, folder, "parrot", ignore)).revision
        manifest = elsewhere.store.manifests.get(ManifestId.parse(theirs))
        assert manifest is not None
        (root,) = [file.root for file in manifest.files]
        node.store.mirrors.withhold([root])
        node.store.intake.ingest(folder / "weights.txt", manifest.files[0].profile, in_place=False)
        # Somebody who knows the hash names it for all, and lets others read it, as if it was his.
        node.store.manifests.add(elsewhere.store.manifests.data(ManifestId.parse(theirs)))
        (state,) = elsewhere.store.logs.states()
        entries = elsewhere.store.logs.entries(state.log, 0, size_max=10**6)
        node.store.logs.extend(publisher, parse_head(state.head), entries, now=node.clock())
        if is_claimed:
            await publish(elsewhere, folder, "mine", ignore, visibility="private")
            await granting.grant(elsewhere, "mine", str(identity("stranger").namespace), None)
            (log,) = elsewhere.store.private.logs()
            entries = elsewhere.store.logs.entries(log.state.log, 0, size_max=10**6, private=True)
            for kept in elsewhere.store.manifests.all():
                node.store.manifests.add(elsewhere.store.manifests.data(kept))
            node.store.private.take(publisher, log.told, 0, entries, now=node.clock())
    revision = (await publish(node, folder, "secret", ignore, visibility="private")).revision
    await granting.grant(node, "secret", str(identity("friend").namespace), None)

    for caller in (ANYBODY, STRANGER):
        assert not await bytes_given(asker, caller, node, revision)
    assert await bytes_given(asker, FRIEND, node, revision)
    # By his own word all may have it.
    await publish(node, folder, "open", ignore)
    assert await bytes_given(asker, ANYBODY, node, revision)
