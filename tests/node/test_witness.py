"""Witnesses at the real peer door: they vouch for logs that grow, and nobody gets a second history cosigned."""

from __future__ import annotations

import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trio
from test_fresh import LAPTOP, NOW, give, head, history, identity_of, publisher, release, resolved, statement

from p2phub.core import merkle
from p2phub.core.checkpoint import Head, sign_head
from p2phub.core.errors import Conflict, InvalidName
from p2phub.core.ids import LogId
from p2phub.core.merkle import LOG_TREE
from p2phub.core.names import Address
from p2phub.core.notes import COSIGNATURE, NoteKey, parse_lines
from p2phub.core.records import Entry
from p2phub.core.signing import SigningKey
from p2phub.core.witness import AddCheckpoint, Quorum, cosign, cosigned_by, format_request, parse_request
from p2phub.net.http import Answer
from p2phub.net.peerclient import PeerClient, open_peer
from p2phub.node import witnesses
from p2phub.node.catchup import ready_to_publish
from p2phub.node.cosigning import collect
from p2phub.node.events import ignore
from p2phub.node.fresh import take, witnessed_by
from p2phub.node.identity import LogBehind, own_identity
from p2phub.node.node import Node
from p2phub.node.operations.witnesses import AddWitness, ListWitnesses, RemoveWitness, WitnessInfo
from p2phub.node.renewing import rotate
from p2phub.node.syncing import sync_all
from p2phub.node.why import why
from p2phub.node.witness import Witness
from p2phub.testing.hostile import open_home, serving

pytestmark = pytest.mark.timeout(120)


@asynccontextmanager
async def a_witness(tmp_path: Path, name: str = "witness") -> AsyncIterator[tuple[Node, Address]]:
    """Give a node that is a witness, and its address."""
    async with open_home(tmp_path / name) as node:
        node.witness = Witness.open(node.settings.layout)
        async with serving(node) as address:
            yield node, address


def own_log(node: Node) -> LogId:
    (state,) = node.store.logs.logs_of(own_identity(node).namespace)
    return state.log


async def added(node: Node, witness: Node, address: Address) -> WitnessInfo:
    assert witness.witness is not None
    return await witnesses.add(node, AddWitness(str(witness.witness.key), str(address)), ignore)


# ── publisher and reader ────────────────────────────────────────────────────


async def test_a_publisher_is_cosigned_and_readers_see_it(tmp_path: Path) -> None:
    async with publisher(tmp_path) as node, AsyncExitStack() as stack:
        witness, address = await stack.enter_async_context(a_witness(tmp_path))
        second, other = await stack.enter_async_context(a_witness(tmp_path, "second"))
        # They never heard of the log: they are told.
        info = await added(node, witness, address)
        assert (info.size, info.problem) == (1, None)
        await added(node, second, other)
        release(node, "parrot")
        assert await collect(node)

        reader = await stack.enter_async_context(open_home(tmp_path / "reader"))
        reader.store.peers.add(await stack.enter_async_context(serving(node)))
        assert await resolved(reader, f"{own_identity(node).namespace}/parrot") == []

        assert witness.witness is not None
        assert second.witness is not None
        keys = [witness.witness.key, second.witness.key, NoteKey("w3", COSIGNATURE, LAPTOP.public_key)]
        needed = Quorum.parse(2, map(str, keys))
        assert needed.is_met_by(witnessed_by(reader.store, own_log(node), 1, needed.witnesses))
        assert not needed.is_met_by(witnessed_by(reader.store, own_log(node), 2, needed.witnesses))
        assert witnessed_by(reader.store, own_log(node), 0, keys[2:]) == {}
        shown = await witnesses.show(node, ListWitnesses(), ignore)
        assert [each.size for each in shown.witnesses] == [2, 2]
        assert (await witnesses.show(witness, ListWitnesses(), ignore)).cosigned == 1


async def test_lines_for_an_older_head_go_on_counting_for_the_records_it_covers(tmp_path: Path) -> None:
    async with publisher(tmp_path) as node, AsyncExitStack() as stack:
        async with a_witness(tmp_path) as (witness, address):
            assert witness.witness is not None
            key = witness.witness.key
            await added(node, witness, address)
        reader = await stack.enter_async_context(open_home(tmp_path / "reader"))
        reader.store.peers.add(await stack.enter_async_context(serving(node)))
        name = f"{own_identity(node).namespace}/parrot"
        await resolved(reader, name)
        # The witness is gone: what comes now it does not vouch for.
        release(node, "parrot")
        assert not await collect(node)
        await resolved(reader, name)

        assert key in witnessed_by(reader.store, own_log(node), 0, [key])
        assert witnessed_by(reader.store, own_log(node), 1, [key]) == {}
        (info,) = (await witnesses.show(node, ListWitnesses(), ignore)).witnesses
        assert info.problem is not None
        assert "cannot reach" in info.problem


async def test_lines_do_not_vouch_for_another_history(tmp_path: Path) -> None:
    """Equivocation: the reader has a history that nobody cosigned, and gets the lines of the other one."""
    identity = identity_of(LAPTOP)
    one, other = history(identity, LAPTOP, 3, word="one"), history(identity, LAPTOP, 5, word="other")
    key = NoteKey("w", COSIGNATURE, LAPTOP.public_key)
    line = cosign(head(one, LAPTOP).signed, "w", LAPTOP, time=1)
    async with open_home(tmp_path / "reader") as reader:
        give(reader.store, identity, other, LAPTOP)
        reader.store.fresh.note_lines(identity.namespace, _with(head(one, LAPTOP), line.text))

        assert witnessed_by(reader.store, one[0].record.log, 0, [key]) == {}


def _with(plain: Head, line: str) -> Head:
    return Head(plain.log, plain.size, plain.root, plain.text + line.encode())


async def test_a_home_that_was_brought_back_from_a_copy_is_told_so(tmp_path: Path) -> None:
    """Rollback of the publisher himself: what he signs next would be a second history."""
    async with AsyncExitStack() as stack:
        witness, address = await stack.enter_async_context(a_witness(tmp_path))
        async with publisher(tmp_path) as node:
            await added(node, witness, address)
            shutil.copytree(node.settings.layout.home, tmp_path / "copy")
            release(node, "parrot")
            assert await collect(node)
            async with serving(node) as publisher_address:
                witness.store.peers.add(publisher_address)
                assert await sync_all(witness, timeout_s=30) == []
        async with open_home(tmp_path / "copy") as copy:
            info = await added(copy, witness, address)
            assert info.problem is not None
            assert "brought back from a copy" in info.problem

            # The witness showed the head that was signed: nothing is signed beside it.
            with pytest.raises(LogBehind, match=r"2 records of the own log were signed, and 1 of them are here"):
                release(copy, "owl")
            # As every command does that publishes: the witness has the rest.
            await ready_to_publish(copy, ignore)
            release(copy, "owl")
            (state,) = copy.store.logs.logs_of(own_identity(copy).namespace)
            assert state.size == 3


async def test_a_new_log_is_cosigned_from_its_first_record_on(tmp_path: Path) -> None:
    """After the publisher's key changed: what the witness vouched for was another log of the same size."""
    async with publisher(tmp_path) as node, AsyncExitStack() as stack:
        witness, address = await stack.enter_async_context(a_witness(tmp_path))
        assert witness.witness is not None
        assert (await added(node, witness, address)).size == 1
        rotate(node)
        (shown,) = (await witnesses.show(node, ListWitnesses(), ignore)).witnesses
        assert shown.size == 0

        release(node, "parrot")
        assert await collect(node)

        (shown,) = (await witnesses.show(node, ListWitnesses(), ignore)).witnesses
        assert (shown.size, shown.problem) == (1, None)
        identity = own_identity(node)
        (key,) = identity.current.publish.keys
        assert list(witnessed_by(node.store, identity.log_of(key), 0, [witness.witness.key])) == [witness.witness.key]


async def test_a_witness_is_forgotten_by_name_or_key(tmp_path: Path) -> None:
    async with open_home(tmp_path / "home") as node:
        key = str(NoteKey("w1", COSIGNATURE, LAPTOP.public_key))
        await witnesses.add(node, AddWitness(key), ignore)
        assert (await witnesses.remove(node, RemoveWitness("w1"), ignore)).key == key
        assert (await witnesses.show(node, ListWitnesses(), ignore)).witnesses == []


@pytest.mark.parametrize("place", ["ftp://w.example/", "w.example", "https://u:p@w.example/", "https://w.example/?a=b"])
async def test_a_place_where_nobody_can_be_asked_is_refused(tmp_path: Path, place: str) -> None:
    async with open_home(tmp_path / "home") as node:
        with pytest.raises(InvalidName):
            await witnesses.add(node, AddWitness(str(NoteKey("w1", COSIGNATURE, LAPTOP.public_key)), place), ignore)


# ── a witness and who lies to it ────────────────────────────────────────────

IDENTITY = identity_of(LAPTOP)
ONE = history(IDENTITY, LAPTOP, 9, word="one")


def forked(size: int) -> list[Entry]:
    """Return another history of the same log, which has nothing in common with ONE."""
    return history(IDENTITY, LAPTOP, size, word="other")


async def ask(client: PeerClient, entries: Sequence[Entry], old: int, note: bytes | None = None) -> Answer:
    proof = merkle.consistency_proof(LOG_TREE, [entry.leaf for entry in entries], min(old, len(entries)))
    return await client.add_checkpoint(format_request(AddCheckpoint(old, proof, note or head(entries, LAPTOP).text)))


@asynccontextmanager
async def asked_witness(tmp_path: Path, held: Sequence[Entry]) -> AsyncIterator[tuple[Node, PeerClient]]:
    """Give a witness that has the records `held`, and a client to ask it."""
    async with a_witness(tmp_path) as (node, address):
        give(node.store, IDENTITY, held, LAPTOP)
        async with open_peer(node.id, address.host, address.port) as client:
            yield node, client


async def test_answers_are_those_of_the_specification(tmp_path: Path) -> None:
    async with asked_witness(tmp_path, ONE[:1]) as (node, client):
        assert node.witness is not None
        first = await ask(client, ONE[:3], 0)
        (line,) = parse_lines(first.body.decode())
        assert first.status == 200
        assert list(cosigned_by(head(ONE[:3], LAPTOP).text + first.body, [node.witness.key])) == [node.witness.key]
        assert line.name == node.witness.key.name

        stale = await ask(client, ONE[:6], 0)
        assert (stale.status, stale.body) == (409, b"3\n")
        assert stale.headers[b"content-type"] == b"text/x.tlog.size"
        assert (await ask(client, ONE[:6], 3)).status == 200
        assert (await ask(client, ONE[:6], 6)).status == 200
        assert (await ask(client, ONE[:6], 7)).status == 400
        assert (await client.add_checkpoint(b"old 6\n\nnonsense")).status == 400
        assert (await client.add_checkpoint(b"x" * 100_000)).status == 400

        stranger = sign_head(LogId(bytes(32)), 1, bytes(32), LAPTOP)
        assert (await ask(client, ONE[:1], 0, stranger.text)).status == 404
        foreign = head(ONE, LAPTOP).text.replace(b"p2phub/log/", b"example.org/log/")
        assert (await ask(client, ONE, 6, foreign)).status == 404
        unsigned = sign_head(ONE[0].record.log, 9, head(ONE, LAPTOP).root, SigningKey(b"s" * 32))
        assert (await ask(client, ONE, 6, unsigned.text)).status == 403


async def test_an_old_head_that_is_sent_again_is_looked_up_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with asked_witness(tmp_path, ONE) as (node, client):
        assert (await ask(client, ONE, 0)).status == 200

        looked: list[int] = []
        root = node.store.logs.root

        def noted(log: LogId, size: int) -> bytes | None:
            looked.append(size)
            return root(log, size)

        monkeypatch.setattr(node.store.logs, "root", noted)
        assert [(await ask(client, ONE[:4], old)).status for old in (0, 4, 9)] == [409, 409, 400]
        assert (await ask(client, ONE, 9)).status == 200
        assert looked == [4]


@pytest.mark.parametrize("size", [6, 9, 12])
async def test_a_second_history_is_never_cosigned(tmp_path: Path, size: int) -> None:
    """Equivocation: the publisher shows the witness one history, and then another."""
    async with asked_witness(tmp_path, forked(1)) as (_, client):
        # The witness has a record of the other history: it does not vouch for this one.
        assert (await ask(client, ONE[:1], 0)).status == 422
    shutil.rmtree(tmp_path / "witness")
    async with asked_witness(tmp_path, ONE[:1]) as (_, client):
        assert (await ask(client, ONE, 0)).status == 200

        for old in (0, 9, min(9, size)):
            assert (await ask(client, forked(size), old)).status in (400, 403, 409, 422)

        assert (await ask(client, ONE, 9)).status in (200, 403)


async def test_two_heads_of_one_size_are_kept_as_proof_and_nothing_more_is_cosigned(tmp_path: Path) -> None:
    async with asked_witness(tmp_path, ONE[:1]) as (node, client):
        assert (await ask(client, ONE[:6], 0)).status == 200

        answer = await ask(client, forked(6), 6)

        assert (answer.status, answer.body) == (409, b"6\n")
        fork = node.store.forks.get(ONE[0].record.log)
        assert fork is not None
        assert fork.common == 5
        assert (await ask(client, ONE[:7], 6)).status == 403


async def test_of_two_histories_at_once_one_is_cosigned(tmp_path: Path) -> None:
    """Equivocation: both requests are on their way before either is answered."""
    async with asked_witness(tmp_path, ONE[:1]) as (node, client):
        statuses: list[int] = []
        async with open_peer(node.id, client.host, client.port) as other, trio.open_nursery() as nursery:

            async def send(through: PeerClient, entries: Sequence[Entry]) -> None:
                statuses.append((await ask(through, entries, 0)).status)

            for turn in range(8):
                nursery.start_soon(send, (client, other)[turn % 2], ONE[:5] if turn % 2 else forked(4 + turn))

        assert statuses.count(200) == 1


async def test_a_node_that_is_no_witness_vouches_for_nothing(tmp_path: Path) -> None:
    async with open_home(tmp_path / "node") as node, serving(node) as address:
        give(node.store, IDENTITY, ONE[:1], LAPTOP)
        async with open_peer(node.id, address.host, address.port) as client:
            assert (await ask(client, ONE, 0)).status == 404


# ── witnesses of the web ────────────────────────────────────────────────────

WEB_KEY = SigningKey(b"w" * 32)
WEB = NoteKey("w.example/w1", COSIGNATURE, WEB_KEY.public_key)
Behaviour = Callable[[AddCheckpoint], tuple[int, str, bytes]]


@contextmanager
def web_witness(answer: Behaviour) -> Iterator[str]:
    """Run a witness of the web, as others write them; gives its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/prefix/add-checkpoint"
            status, kind, said = answer(parse_request(body))
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/prefix/"
    finally:
        server.shutdown()
        server.server_close()


def line_of(request: AddCheckpoint, *, name: str = WEB.name, key: SigningKey = WEB_KEY) -> bytes:
    return cosign(request.note.partition(b"\n\n")[0] + b"\n", name, key, time=1_800_000_000).text.encode()


def of_another_size(request: AddCheckpoint) -> AddCheckpoint:
    return AddCheckpoint(request.old, (), request.note.replace(b"\n1\n", b"\n2\n", 1))


async def test_a_witness_of_the_web_is_asked_from_the_size_that_it_knows(tmp_path: Path) -> None:
    asked: list[AddCheckpoint] = []

    def answer(request: AddCheckpoint) -> tuple[int, str, bytes]:
        asked.append(request)
        if request.old != 1:
            return 409, "text/x.tlog.size", b"1\n"
        # Lines of other keys, which are passed over.
        return 200, "text/plain", line_of(request, key=LAPTOP) + line_of(request)

    async with publisher(tmp_path) as node:
        release(node, "parrot")
        release(node, "parrot")
        with web_witness(answer) as url:
            info = await witnesses.add(node, AddWitness(str(WEB), url), ignore)

        assert (info.size, info.problem) == (3, None)
        assert [(request.old, len(request.proof)) for request in asked] == [(0, 0), (1, 2)]
        assert witnessed_by(node.store, own_log(node), 2, [WEB]) == {WEB: 1_800_000_000}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda request: (200, "text/plain", line_of(request, key=LAPTOP)), "no line of its key"),
        (lambda request: (200, "text/plain", b"nonsense\n"), "has not the form"),
        (lambda request: (200, "text/plain", line_of(of_another_size(request))), "signature is not by"),
        (lambda request: (409, "text/x.tlog.size", b"0\n"), "another head of 0 records"),
        (lambda request: (409, "text/x.tlog.size", b"7\n"), "brought back from a copy"),
        (lambda request: (409, "text/plain", b"1\n"), "answered 409"),
        (lambda request: (302, "text/plain", b""), "answered 302"),
        (lambda request: (404, "text/plain", b"unknown \x1b[31mlog"), "answered 404: unknown  [31mlog"),
        (lambda request: (200, "text/plain", b"x" * 100_000), "more than 65536 bytes"),
    ],
)
async def test_a_witness_that_answers_wrongly_vouches_for_nothing(tmp_path: Path, answer: Behaviour, why: str) -> None:
    async with publisher(tmp_path) as node:
        with web_witness(answer) as url:
            info = await witnesses.add(node, AddWitness(str(WEB), url), ignore)

        assert info.problem is not None
        assert why in info.problem
        assert witnessed_by(node.store, own_log(node), 0, [WEB]) == {}


async def reasons(node: Node, name: str) -> dict[str, set[str]]:
    """Return the verdicts of `why` about what is newest and who vouches, with their texts."""
    found: dict[str, set[str]] = {}
    for reason in await why(node, name, ignore):
        if reason.about in ("newest", "witness"):
            found.setdefault(f"{reason.about} {reason.verdict}", set()).add(reason.text)
    return found


async def test_why_says_who_vouches_and_what_is_newest(tmp_path: Path) -> None:
    async with publisher(tmp_path) as node, AsyncExitStack() as stack:
        witness, address = await stack.enter_async_context(a_witness(tmp_path))
        assert witness.witness is not None
        await added(node, witness, address)
        reader = await stack.enter_async_context(open_home(tmp_path / "reader"))
        reader.store.peers.add(await stack.enter_async_context(serving(node)))
        name = f"{own_identity(node).namespace}/parrot"

        assert set(await reasons(reader, name)) == {"newest good", "witness off"}

        await witnesses.add(reader, AddWitness(str(witness.witness.key)), ignore)
        await witnesses.add(reader, AddWitness(str(WEB)), ignore)
        found = await reasons(reader, name)
        (vouched,) = found["witness good"]
        assert vouched.startswith(f"{witness.witness.key.name} vouched on ")
        assert found["witness unknown"] == {"w.example/w1 does not vouch for its record"}

        ahead = reader.clock() + 4 * 86400
        reader.clock = lambda: ahead
        assert (await reasons(reader, name))["newest unknown"] == {
            "the publisher said 4 days ago that nothing newer is there"
        }


async def test_why_says_that_something_newer_is_withheld(tmp_path: Path) -> None:
    async with open_home(tmp_path / "reader") as reader:
        give(reader.store, IDENTITY, ONE[:2], LAPTOP)
        take(reader.store, IDENTITY.namespace, statement(IDENTITY, [head(ONE, LAPTOP)], [LAPTOP]), now=NOW)

        found = await reasons(reader, str(IDENTITY.namespace))

        (text,) = found["newest bad"]
        assert "the publisher stated 9 records" in text


async def test_as_many_witnesses_are_asked_as_their_lines_fit_into_a_head(tmp_path: Path) -> None:
    async with publisher(tmp_path) as node:
        keys = [SigningKey(bytes([number]) * 32) for number in range(1, 18)]
        names = [NoteKey(f"{'w' * 97}{number:03}", COSIGNATURE, key.public_key) for number, key in enumerate(keys)]

        def answer(request: AddCheckpoint) -> tuple[int, str, bytes]:
            both = zip(names, keys, strict=True)
            return 200, "text/plain", b"".join(line_of(request, name=name.name, key=key) for name, key in both)

        with web_witness(answer) as url:
            for name in names[:16]:
                assert (await witnesses.add(node, AddWitness(str(name), url), ignore)).problem is None
            with pytest.raises(Conflict, match=r"16 witnesses are asked already"):
                await witnesses.add(node, AddWitness(str(names[16]), url), ignore)
            await witnesses.add(node, AddWitness(str(names[16])), ignore)  # counted alone

            assert len(witnessed_by(node.store, own_log(node), 0, names)) == 16
            # Another one in the place of one that is asked no longer.
            await witnesses.remove(node, RemoveWitness(names[0].name), ignore)
            await witnesses.add(node, AddWitness(str(names[16]), url), ignore)
            assert names[16] in witnessed_by(node.store, own_log(node), 0, names)
            too_long = NoteKey("w" * 101, COSIGNATURE, LAPTOP.public_key)
            with pytest.raises(InvalidName):
                await witnesses.add(node, AddWitness(str(too_long), url), ignore)
