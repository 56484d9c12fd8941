"""Keep in touch with neighbours, tell them news and hear theirs (spec/gossip.md §2–§4).

    clock ──▶ Membership ──Ask, Exchange, Leave──▶ peer
    note_news ──▶ Gossip ──Telling──▶ compose (news) ──▶ peer ──▶ hear ──▶ take (news) ──▶ note_news

The machines decide; this module does what they say. What arrives is passed on only after it
was verified and kept, so nothing false travels further than one step.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable

import trio
from msgspec.structs import replace

from p2phub.core.errors import HubError, InvalidData, PeerBusy, PeerViolation
from p2phub.core.ids import LogId, NodeId
from p2phub.core.names import parse_endpoint
from p2phub.core.noderecord import open_node_record
from p2phub.protocol.gossip import Mark, Telling
from p2phub.protocol.membership import Ask, Command, Contact, Exchange, Leave, Origin
from p2phub.protocol.talk import TOLD_MAX, Federate, Heard, Push, Reply, Say, sign_talk
from p2phub.protocol.talk import Ask as SayAsk
from p2phub.protocol.talk import Exchange as SayExchange
from p2phub.protocol.talk import Leave as SayLeave
from p2phub.store.peers import Peer

from .calling import ban_peer, converse
from .confirm import note_held, own_log
from .disk import on_disk
from .federationtalk import hear_state
from .neighbours import contact_of, slot_network
from .news import Message, compose, take
from .node import Node

log = logging.getLogger(__name__)

TEND_S = 1.0  # seconds between looks at what is to be done
CANDIDATES_S = 15.0  # seconds between looks for candidates in the store
CANDIDATES = 8  # of each origin that are taken up at once
TALK_TIMEOUT_S = 15.0  # for one message and its answer
SEEN_S = 60.0  # seconds between notes on disk that a peer answered
LIAR_HOLD_S = 600.0  # seconds that one who passed on what does not check is no neighbour
TOLD = 6  # peers told of at once; spec/gossip.md §2
TELL_LATE_S = 5.0  # seconds until what is new is told at the latest, whatever was missed


async def tend(node: Node, nursery: trio.Nursery) -> None:
    """Keep neighbours, and tell them what is new; runs until cancelled."""
    neighbours = node.neighbours
    neighbours.is_running = True
    next_look = 0.0
    try:
        while True:
            now = trio.current_time()
            if now >= next_look:
                next_look = now + CANDIDATES_S
                await _look_for_candidates(node)
            _follow(node, nursery, neighbours.members.tick(now))
            await trio.sleep(TEND_S)
    finally:
        neighbours.is_running = False


async def tell_forever(node: Node, nursery: trio.Nursery) -> None:
    """Tell neighbours what is new as soon as it is due; runs until cancelled."""
    neighbours = node.neighbours
    while True:
        woken = neighbours.woken
        if neighbours.news:
            await _take_up_news(node)
        for telling in neighbours.gossip.due(trio.current_time()):
            nursery.start_soon(_quietly, _tell, node, nursery, telling)
        next_at = neighbours.gossip.next_at()
        until = trio.current_time() + TELL_LATE_S if next_at is None else next_at
        if not neighbours.news:
            with trio.move_on_at(until):
                await woken.wait()


async def _quietly(work: Callable[..., Awaitable[None]], *arguments: object) -> None:
    """Do one thing for a neighbour; what goes wrong with it ends nothing else."""
    try:
        await work(*arguments)
    except HubError as exc:
        log.warning("cannot talk to a peer: %s", exc)


async def _take_up_news(node: Node) -> None:
    """Give the machine what changed here."""
    neighbours = node.neighbours
    news, neighbours.news = neighbours.news, {}

    def marks() -> dict[LogId, Mark]:
        states = ((log, node.store.logs.state(log)) for log in news)
        return {log: (state.size, state.version) for log, state in states if state}

    for log_, mark in (await on_disk(marks)).items():
        neighbours.gossip.changed(log_, mark, news[log_].start, trio.current_time(), source=news[log_].source)


# ── whom to keep in touch with ──────────────────────────────────────────────


async def _look_for_candidates(node: Node) -> None:
    """Take up some of the peers that the store knows, by chance, and let go of those that it does not want."""
    members = node.neighbours.members

    def look() -> tuple[dict[Origin, list[Peer]], list[NodeId], LogId | None]:
        peers, now = node.store.peers, node.clock()
        node.following.refresh()
        found: dict[Origin, list[Peer]] = {}
        for origin, added in (("added", True), ("reached", False)):
            callable_ = [peer for peer in peers.callable(now, added=added) if peer != node.id]
            some = node.rng.sample(callable_, min(CANDIDATES, len(callable_)))
            found[origin] = [peer for each in some if (peer := peers.get(each))]  # type: ignore[index]
        known = {each: peers.get(each) for each in (*members.active, *members.candidates())}
        gone = [each for each, peer in known.items() if peer is not None and peer.banned_until > now]
        return found, gone, own_log(node)

    found, gone, node.neighbours.own_log = await on_disk(look)
    for each in gone:
        node.neighbours.forget(each)
    for origin, peers in found.items():
        for peer in peers:
            members.know(contact_of(peer), origin)


def _follow(node: Node, nursery: trio.Nursery, commands: Iterable[Command]) -> None:
    for command in commands:
        match command:
            case Ask(to, urgent):
                nursery.start_soon(_quietly, _ask, node, nursery, to, urgent)
            case Exchange(to):
                nursery.start_soon(_quietly, _exchange, node, to)
            case Leave(to):
                nursery.start_soon(_quietly, _leave, node, to)
    node.neighbours.update_links()


async def _ask(node: Node, nursery: trio.Nursery, to: NodeId, urgent: bool) -> None:
    members = node.neighbours.members
    try:
        reply = await _say(node, to, SayAsk(urgent), with_record=True)
    except HubError:
        members.refused(to, trio.current_time(), 2 * TEND_S)  # not its fault
        raise
    if reply is None:
        return
    now = trio.current_time()
    is_first = not members.active
    if reply.neighbour and node.endpoints:
        _follow(node, nursery, members.accepted(to, now))
        if is_first:
            # Who comes back after a while compares catalogues at once.
            node.neighbours.note_behind(to)
        _tell_of_own_log(node, to)
    else:
        members.refused(to, now)
    # Others were told of: go on at once.
    _follow(node, nursery, members.tick(now))


async def _exchange(node: Node, to: NodeId) -> None:
    told = node.neighbours.members.sample(TOLD, without=to)
    records = await on_disk(_records, node, told)
    reply = await _say(node, to, SayExchange(tuple(records)), with_record=True)
    if reply is not None and not reply.neighbour and node.neighbours.members.is_active(to):
        node.neighbours.members.left(to, trio.current_time())
        node.neighbours.update_links()


async def _leave(node: Node, to: NodeId) -> None:
    await _say(node, to, SayLeave(), matters=False)


def _records(node: Node, told: Iterable[NodeId]) -> list[bytes]:
    """Return the signed records of peers, as far as they are here."""
    peers = (node.store.peers.get(each) for each in told)
    return [peer.record for peer in peers if peer and peer.record][:TOLD_MAX]


async def _say(node: Node, to: NodeId, say: Say, *, with_record: bool = False, matters: bool = True) -> Reply | None:
    """Say something to a peer and take up what the answer tells of others; None if there is none.

    matters: a peer that does not answer has failed.
    """
    peer = await on_disk(node.store.peers.get, to)
    if peer is None or peer.banned_until > node.clock():
        node.neighbours.forget(to)
        return None
    # Who has no address is nobody's neighbour, and need not be introduced.
    record = node.record() if with_record and node.endpoints else None
    try:
        message = sign_talk(say, node.key, to, now=node.clock(), record=record)
        with trio.fail_after(TALK_TIMEOUT_S):
            reply = await converse(node, peer, message)
    except PeerViolation as exc:
        await ban_peer(node, to, str(exc))
        return None
    except PeerBusy:
        node.neighbours.members.refused(to, trio.current_time())
        if isinstance(say, Push):
            raise
        return None
    except (HubError, trio.TooSlowError) as exc:
        log.info("node %s does not answer: %s", to, exc or "too slow")
        if matters:
            await _note_failure(node, to, str(exc) or "it is too slow")
        return None
    await _note_answer(node, to, reply.records)
    return reply


async def _note_failure(node: Node, to: NodeId, why: str) -> None:
    wait_s = await on_disk(node.store.peers.note_failure, to, why, node.clock())
    node.neighbours.members.failed(to, trio.current_time(), float(wait_s))
    node.neighbours.seen.pop(to, None)
    node.neighbours.update_links()


async def _note_answer(node: Node, sender: NodeId, records: Iterable[bytes]) -> None:
    """Note that a peer answered, and take up the nodes that it tells of."""
    neighbours, now = node.neighbours, trio.current_time()
    if neighbours.seen.get(sender, -SEEN_S) + SEEN_S <= now:
        neighbours.seen[sender] = now
        await on_disk(node.store.peers.note_seen, sender, node.clock())
    neighbours.members.answered(sender, now)
    await _hear_of(node, records)


async def _hear_of(node: Node, records: Iterable[bytes]) -> None:
    """Take up the nodes that others tell of, as far as their records are right."""
    contacts: list[Contact] = []

    def keep() -> None:
        for data in records:
            try:
                signed = open_node_record(data, now=node.clock())
            except InvalidData:
                continue
            if signed.record.node != node.id and signed.record.addresses:
                node.store.peers.note_record(signed)
                host, _ = parse_endpoint(signed.record.addresses[0])
                contacts.append(Contact(signed.record.node, slot_network(host)))

    if records:
        await on_disk(keep)
        node.neighbours.members.heard(contacts)


# ── telling ─────────────────────────────────────────────────────────────────


def _tell_of_own_log(node: Node, to: NodeId) -> None:
    """Let a new neighbour know how far the own log is: what was published while nobody listened is not to wait."""
    if node.neighbours.own_log is not None:
        node.neighbours.gossip.remind(to, node.neighbours.own_log, trio.current_time())
        node.neighbours.wake()


async def _tell(node: Node, nursery: trio.Nursery, telling: Telling) -> None:
    """Send one message of news, and note its answer."""
    neighbours = node.neighbours
    message = Message(Push())
    try:
        message = await on_disk(compose, node.store, telling.whole, telling.word)
        reply = await _say(node, telling.to, message.push) if message.has_news else None
    except PeerBusy as exc:
        until = trio.current_time() + exc.retry_after_s
        neighbours.gossip.put_off(telling, {**message.marks, **message.left}, until)
        return
    except HubError:
        neighbours.gossip.failed(telling.to)
        raise
    if reply is None:
        neighbours.gossip.failed(telling.to)
        return
    wanted = {log: (mark, telling.whole.get(log, 0)) for log, mark in message.left.items()}
    for want in reply.wanted:
        if want.index < len(message.push.word):
            log_ = message.push.word[want.index].log
            wanted[log_] = (message.marks[log_], want.size)
    now = trio.current_time()
    neighbours.gossip.told(telling, wanted=wanted, was_news=reply.was_news, now=now)
    own = neighbours.own_log
    if own in message.marks and own not in wanted and reply.holds:
        await note_held(node, telling.to, message.marks[own][0])
    if not reply.neighbour and neighbours.members.is_active(telling.to):
        neighbours.members.left(telling.to, now)
        neighbours.update_links()
    neighbours.wake()


# ── hearing ─────────────────────────────────────────────────────────────────


async def hear(node: Node, heard: Heard, host: str, nursery: trio.Nursery) -> Reply:
    """Answer what a node said that called from `host`.

    nursery: where what follows goes on.
    """
    peer = await on_disk(node.store.peers.get, heard.node)
    members = node.neighbours.members
    if heard.node == node.id or (peer and peer.banned_until > node.clock()):
        return Reply(neighbour=False)
    match heard.say:
        case SayAsk(urgent):
            return await _answer_ask(node, heard, host, urgent, nursery)
        case SayLeave():
            members.left(heard.node, trio.current_time())
            node.neighbours.update_links()
            return Reply(neighbour=False)
        case SayExchange(records):
            await _introduce(node, heard, host)
            members.called(heard.node, trio.current_time())
            await _hear_of(node, records)
            # As many as came: an answer is not to cost more than the question.
            told = members.sample(min(TOLD, len(records)), without=heard.node)
            return Reply(members.is_active(heard.node), tuple(await on_disk(_records, node, told)))
        case Push() as push:
            return await _take_push(node, heard.node, push, host)
        case Federate(state):
            await _introduce(node, heard, host)
            known = await hear_state(node, heard.node, state)
            return Reply(members.is_active(heard.node), federation=known)


async def _introduce(node: Node, heard: Heard, host: str) -> None:
    """Take up the record of who calls."""
    if heard.record is None or not heard.record.record.addresses:
        return
    for address in heard.record.record.addresses:
        where, port = parse_endpoint(address)
        if where == host:
            node.dialling.called_from(where, port)
    await on_disk(node.store.peers.note_record, heard.record)


async def _answer_ask(node: Node, heard: Heard, host: str, urgent: bool, nursery: trio.Nursery) -> Reply:
    members, now = node.neighbours.members, trio.current_time()
    accepted = False
    if heard.record is not None and heard.record.record.addresses and node.neighbours.is_running:
        await _introduce(node, heard, host)
        was_active = members.is_active(heard.node)
        # By where it calls from: a record may claim any network.
        accepted, commands = members.ask_came(Contact(heard.node, slot_network(host)), urgent=urgent, now=now)
        _follow(node, nursery, commands)
        if accepted and not was_active:
            _tell_of_own_log(node, heard.node)
    told = members.sample(TOLD, without=heard.node)
    return Reply(accepted, tuple(await on_disk(_records, node, told)))


async def _take_push(node: Node, sender: NodeId, push: Push, host: str) -> Reply:
    """Take in what a node tells; what is news is told on by and by."""
    neighbours = node.neighbours
    # What is being verified already came twice.
    whole = tuple(each for each in push.whole if each.head.head not in neighbours.taking)
    neighbours.taking.update(each.head.head for each in whole)
    may_begin = neighbours.limits.may_begin_log(sender, host)
    try:
        wanted = replace(push, whole=whole)
        taken = await on_disk(take, node.store, node.following, wanted, now=node.clock(), may_begin=may_begin)
    finally:
        for each in whole:
            neighbours.taking.discard(each.head.head)
    now = trio.current_time()
    if taken.new_logs:
        neighbours.limits.count_new_logs(sender, host, taken.new_logs)
    for log_, mark in taken.known.items():
        neighbours.gossip.knows(sender, log_, mark)
    for log_, before in taken.news.items():
        node.note_news(log_, before, sender)
    if push.whole:
        neighbours.gossip.came(sender, was_news=taken.was_news)
    is_neighbour = neighbours.members.is_active(sender)
    if taken.wrong is not None:
        # It passes on what it did not check. What it really has the next comparison shows.
        log.warning("node %s told what is not right: %s", sender, taken.wrong)
        neighbours.members.failed(sender, now, LIAR_HOLD_S)
        neighbours.update_links()
        is_neighbour = False
    elif taken.is_behind and is_neighbour:
        neighbours.note_behind(sender)
    neighbours.members.called(sender, now)
    return Reply(
        is_neighbour,
        was_news=taken.was_news,
        holds=taken.holds and len(whole) == len(push.whole),
        wanted=tuple(taken.wanted),
    )
