"""Institutions agree, act by it, and end it; nobody is bound by what it did not sign, nor in it uninvited."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from blake3 import blake3
from msgspec.structs import replace

from p2phub.core.access import Caller
from p2phub.core.encoding import encode
from p2phub.core.errors import AccessDenied, Conflict, HubError, InvalidData, InvalidName, NotFound, PeerError
from p2phub.core.federation import (
    Agreement,
    Charter,
    State,
    format_invitation,
    open_agreement,
    open_charter,
    parse_invitation,
    sign_agreement,
    sign_charter,
)
from p2phub.core.identity import RetiredKey, Role, open_identity, sign_document
from p2phub.core.ids import NamespaceId
from p2phub.core.names import Address
from p2phub.core.private import Repository
from p2phub.core.terms import Terms
from p2phub.node import federationtalk, inspect, inventory, keeping
from p2phub.node.charters import find, sign_word, signer_of, state_of
from p2phub.node.dispatch import run
from p2phub.node.events import ignore
from p2phub.node.federatedgrants import keep_grants, sync_grants
from p2phub.node.federations import membership_of, memberships
from p2phub.node.federationtalk import answer_join, hear_state, tend_federations
from p2phub.node.identity import create_identity
from p2phub.node.keeping import keep_promises
from p2phub.node.node import Node
from p2phub.node.operations.federations import (
    FederationAccept,
    FederationInvite,
    FederationJoin,
    FederationLeave,
    FederationList,
    FederationRead,
    FederationRemove,
    FederationSetTerms,
)
from p2phub.node.operations.grants import GrantAccess, RevokeAccess
from p2phub.node.operations.policy import ChangePolicy
from p2phub.node.publish import publish
from p2phub.node.syncing import sync_all
from p2phub.protocol.federation import Join
from p2phub.protocol.messages import IdentityChain
from p2phub.testing.hostile import open_home, serving, wait_for
from p2phub.testing.values import identity, key

pytestmark = pytest.mark.timeout(120)


@dataclass
class Places:
    """Homes of this process, each with a publisher and a door."""

    base: Path
    stack: AsyncExitStack
    nursery: trio.Nursery
    nodes: dict[str, Node] = field(default_factory=dict)
    names: dict[str, NamespaceId] = field(default_factory=dict)

    async def place(self, name: str) -> Node:
        node = await self.stack.enter_async_context(open_home(self.base / name))
        self.names[name] = create_identity(node).namespace
        address: Address = await self.nursery.start(self._serve, node)
        for other in self.nodes.values():
            other.store.peers.add(address)
            host, _, port = other.endpoints[0].rpartition(":")
            node.store.peers.add(Address(other.id, host, int(port)))
        self.nodes[name] = node
        return node

    async def _serve(self, node: Node, task_status=trio.TASK_STATUS_IGNORED) -> None:
        async with serving(node) as address:
            task_status.started(address)
            await trio.sleep_forever()

    async def federation(self, *names: str, terms: Terms | None = None) -> list[Node]:
        """Let `names` be in one federation called `birds`, the first coordinating it."""
        nodes = [await self.place(name) for name in names]
        for number, node in enumerate(nodes[1:]):
            invited = await run(nodes[0], FederationInvite("birds", terms=terms if number == 0 else None), ignore)
            await run(node, FederationJoin(invited.text), ignore)
        await self.spread()
        return nodes

    async def spread(self) -> None:
        """Let all tell all what they know, as they do every minute."""
        for _ in range(2):
            for node in self.nodes.values():
                for known in node.store.federations.all():
                    await federationtalk.spread(node, known, federationtalk.listed_nodes(known))

    def who(self, node: Node) -> set[str]:
        """Return who is a member by what `node` knows, by name."""
        by_namespace = {namespace: name for name, namespace in self.names.items()}
        own = self.names[next(name for name, each in self.nodes.items() if each is node)]
        found = memberships(node.store, own, node.clock())
        return {by_namespace[member] for each in found for member in each.members}


@pytest.fixture
async def places(tmp_path):
    # The doors close before the homes.
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        yield Places(tmp_path, stack, nursery)
        nursery.cancel_scope.cancel()


async def release(node: Node, folder: Path, name: str, license_: str = "apache-2.0", kind: str = "model", **options):
    where = folder / "files" / name.replace("@", "-")
    where.mkdir(parents=True)
    (where / "README.md").write_text(f"---\nlicense: {license_}\n---\n# {name}\n")
    return await publish(node, where, name, ignore, kind=kind, **options)


async def models(node: Node) -> set[str]:
    found = set()
    for state in node.store.logs.states():
        found |= {line.model for line in await inspect.log_lines(node, str(state.namespace))} - {""}
    return found


# ── agreeing ────────────────────────────────────────────────────────────────


async def test_whoever_is_invited_sees_the_terms_joins_and_is_known_to_all(places):
    ann, bob = await places.place("ann"), await places.place("bob")
    terms = Terms(kinds=("model",), licenses=("Apache-2.0",), replicas=2, up=1_000_000)
    first = await run(ann, FederationInvite("birds", terms=terms), ignore)
    read = await run(bob, FederationRead(first.text), ignore)
    joined = await run(bob, FederationJoin(first.text), ignore)
    cyd = await places.place("cyd")
    second = await run(ann, FederationInvite("birds", str(places.names["cyd"])), ignore)
    await run(cyd, FederationJoin(second.text), ignore)
    before = places.who(bob)
    await places.spread()

    assert (read.name, read.coordinator, read.member) == ("birds", str(places.names["ann"]), False)
    assert (read.terms.kinds, read.terms.licenses, read.terms.replicas, read.terms.up) == (
        ["model"], ["Apache-2.0"], 2, 1_000_000,
    )  # fmt: skip
    assert joined.member
    assert {each.namespace: each.state for each in joined.members} == {
        str(places.names[name]): "member" for name in ("ann", "bob")
    }
    assert before == {"ann", "bob"}
    assert places.who(ann) == places.who(bob) == places.who(cyd) == {"ann", "bob", "cyd"}
    assert membership_of(bob.store, "birds", places.names["bob"], bob.clock()).nodes.keys() == {ann.id, bob.id, cyd.id}
    with pytest.raises(NotFound, match="no federation called bees"):
        membership_of(bob.store, "bees", places.names["bob"], bob.clock())


async def test_whoever_leaves_belongs_to_it_no_more_at_once_and_everywhere(places):
    ann, bob, cyd = await places.federation("ann", "bob", "cyd")
    await run(bob, FederationLeave("birds"), ignore)

    assert places.who(bob) == set()
    # Told at once, not by the next round.
    assert places.who(ann) == places.who(cyd) == {"ann", "cyd"}
    federationtalk._keep_up(ann)
    assert places.names["bob"] not in find(ann, "birds").charter.members
    await places.spread()
    with pytest.raises(AccessDenied, match="left birds"):
        await run(bob, FederationAccept("birds"), ignore)


async def test_a_member_who_left_is_told_nothing_more(places):
    ann, bob, cyd = await places.federation("ann", "bob", "cyd")
    await run(cyd, FederationLeave("birds"), ignore)
    federationtalk._keep_up(ann)
    dan = await places.place("dan")
    await run(dan, FederationJoin((await run(ann, FederationInvite("birds"), ignore)).text), ignore)
    await places.spread()
    known = find(cyd, "birds")
    answered = [await hear_state(node, cyd.id, state_of(known)) for node in (ann, bob, dan)]

    assert places.who(bob) == {"ann", "bob", "dan"}
    assert answered == [None, None, None]
    assert places.names["dan"] not in find(cyd, "birds").charter.members


async def test_a_coordinator_removes_a_member_and_dissolves_it(places):
    ann, bob, cyd = await places.federation("ann", "bob", "cyd")
    await run(ann, FederationRemove("birds", str(places.names["cyd"])), ignore)
    after = [places.who(node) for node in (ann, bob, cyd)]
    with pytest.raises(AccessDenied, match="coordinated by"):
        await run(bob, FederationRemove("birds", str(places.names["ann"])), ignore)
    with pytest.raises(AccessDenied, match="coordinated by"):
        await run(bob, FederationInvite("birds"), ignore)
    info = await run(ann, FederationLeave("birds"), ignore)

    assert after == [{"ann", "bob"}, {"ann", "bob"}, set()]
    assert [each.state for each in info.members] == ["left"]
    assert places.who(ann) == places.who(bob) == set()


async def test_new_terms_bind_nobody_who_did_not_agree_to_them(places):
    ann, bob = await places.federation("ann", "bob")
    await run(ann, FederationSetTerms("birds", Terms(replicas=9)), ignore)
    meanwhile = places.who(ann), places.who(bob)
    (shown,) = await run(bob, FederationList("birds"), ignore)
    await run(bob, FederationAccept("birds"), ignore)

    assert meanwhile == ({"ann"}, set())
    assert {each.namespace: each.state for each in shown.members}[str(places.names["bob"])] == "other terms"
    assert places.who(ann) == places.who(bob) == {"ann", "bob"}


# ── attacks ─────────────────────────────────────────────────────────────────


async def test_an_invitation_works_once_and_only_for_whom_it_is(places):
    ann, bob, mallory = [await places.place(name) for name in ("ann", "bob", "mallory")]
    anybodys = await run(ann, FederationInvite("birds"), ignore)
    bobs = await run(ann, FederationInvite("birds", str(places.names["bob"])), ignore)
    with pytest.raises(AccessDenied, match="is for"):
        await run(mallory, FederationJoin(bobs.text), ignore)
    # Also if its own program does not look.
    stolen = parse_invitation(bobs.text)
    swapped = replace(stolen, offer=parse_invitation(anybodys.text).offer)
    with pytest.raises(InvalidData, match="do not belong together"):
        await run(mallory, FederationJoin(format_invitation(swapped)), ignore)
    await run(mallory, FederationJoin(anybodys.text), ignore)
    with pytest.raises(PeerError, match=f"used by {places.names['mallory']}"):
        await run(bob, FederationJoin(anybodys.text), ignore)
    await run(ann, FederationRemove("birds", str(places.names["mallory"])), ignore)
    with pytest.raises(PeerError, match="used by"):
        await run(mallory, FederationJoin(anybodys.text), ignore)
    await run(bob, FederationJoin(bobs.text), ignore)

    assert places.who(ann) == {"ann", "bob"}


async def test_a_coordinator_believes_nothing_of_whoever_joins(places):
    ann, mallory = await places.place("ann"), await places.place("mallory")
    text = (await run(ann, FederationInvite("birds"), ignore)).text
    for_bob = (await run(ann, FederationInvite("birds", str(NamespaceId(bytes(32)))), ignore)).text
    charter, own = find(ann, "birds").charter, signer_of(mallory)
    good = Join(
        parse_invitation(text).offer,
        parse_invitation(text).secret,
        sign_word(mallory, own, charter),
        IdentityChain(own.identity.chain),
    )
    word = open_agreement(good.agreement)
    stranger, coordinator = key("stranger"), signer_of(ann)
    wrong = {
        "is for": replace(good, offer=parse_invitation(for_bob).offer, secret=parse_invitation(for_bob).secret),
        "not given out here": replace(good, secret=bytes(32)),
        "was taken back": replace(good, offer=parse_invitation(for_bob).offer),
        "does not publish": replace(good, identity=IdentityChain(coordinator.identity.chain)),
        "does not publish for": replace(
            good, agreement=sign_agreement(replace(word, key=stranger.public_key), stranger)
        ),
        "terms have changed": replace(good, agreement=sign_agreement(replace(word, terms=None), own.key)),
        "has expired": replace(good, agreement=_over(word, own.key)),
    }  # fmt: skip
    for why, request in wrong.items():
        with pytest.raises((AccessDenied, InvalidData), match=why):
            await answer_join(ann, encode(request))
    assert places.who(ann) == {"ann"}
    await answer_join(ann, encode(good))
    await places.spread()

    assert places.who(ann) == {"ann", "mallory"}


def _over(word: Agreement, signer) -> bytes:
    """Return a word that was good for a minute, an hour ago."""
    then = word.time - 3600
    return sign_agreement(replace(word, time=then, serial=then, expires=then + 60), signer)


async def test_an_invitation_that_is_over_or_not_whole_is_refused(places, monkeypatch):
    ann, bob = await places.place("ann"), await places.place("bob")
    invited = await run(ann, FederationInvite("birds", days=1), ignore)
    for text in (invited.text[:-5], invited.text + "A", "p2phub-invite:", "hello", invited.text.upper()):
        with pytest.raises((InvalidName, InvalidData)):
            await run(bob, FederationJoin(text), ignore)
    real = bob.clock
    bob.clock = lambda: real() + 2 * 24 * 3600
    with pytest.raises(AccessDenied, match="has expired"):
        await run(bob, FederationJoin(invited.text), ignore)
    bob.clock = real
    ann.clock = lambda: real() + 2 * 24 * 3600
    with pytest.raises(PeerError, match="has expired"):
        await run(bob, FederationJoin(invited.text), ignore)


async def test_a_charter_or_a_word_that_is_not_signed_by_whose_it_is_counts_for_nothing(places):
    _, bob, mallory = await places.federation("ann", "bob", "mallory")
    known, evil = find(bob, "birds"), signer_of(mallory)
    charter = known.charter
    forged = sign_charter(replace(charter, key=evil.key.public_key, version=charter.version + 1, members=(
        *sorted([places.names["ann"], places.names["mallory"]]),)), evil.key)  # fmt: skip
    word = known.agreements[places.names["ann"]]
    then = word.time + 1
    leaving = replace(word, key=evil.key.public_key, serial=then, time=then, expires=then + 9, terms=None)
    other_hand = replace(charter, key=evil.key.public_key, coordinator=evil.namespace, version=99)
    for state in (
        replace(state_of(known), charter=forged),
        replace(state_of(known), agreements=(sign_agreement(leaving, evil.key),)),
        replace(state_of(known), charter=sign_charter(other_hand, evil.key)),
    ):
        await hear_state(bob, mallory.id, state)

    assert find(bob, "birds").charter == charter
    assert places.who(bob) == {"ann", "bob", "mallory"}


async def test_what_is_older_than_what_was_seen_is_never_believed_again(places):
    ann, bob, cyd = await places.federation("ann", "bob", "cyd")
    old = state_of(find(bob, "birds"))
    await run(cyd, FederationLeave("birds"), ignore)
    for node in (ann, bob):
        await hear_state(node, cyd.id, old)
    left = places.who(ann), places.who(bob)
    await run(ann, FederationRemove("birds", str(places.names["cyd"])), ignore)
    for node in (ann, bob):
        await hear_state(node, cyd.id, old)

    assert left == ({"ann", "bob"}, {"ann", "bob"})
    assert places.who(ann) == places.who(bob) == {"ann", "bob"}


async def test_a_coordinator_who_says_two_things_is_found_out(places):
    ann, bob = await places.federation("ann", "bob")
    known, own = find(ann, "birds"), signer_of(ann)
    second = sign_charter(replace(known.charter, members=(own.namespace,), time=known.charter.time + 1,
                                  expires=known.charter.expires), own.key)  # fmt: skip
    await hear_state(bob, ann.id, replace(state_of(known), charter=second))
    (shown,) = await run(bob, FederationList("birds"), ignore)

    assert shown.contradicted
    assert places.who(bob) == {"ann", "bob"}


async def test_what_a_stolen_key_of_the_coordinator_wrote_ends_with_the_next_round(places):
    ann, bob = await places.federation("ann", "bob")
    mallory = await places.place("mallory")
    known, stolen = find(ann, "birds"), signer_of(ann).key
    later = int(ann.clock()) + 300
    members = tuple(sorted({*known.charter.members, places.names["mallory"]}))
    forged = sign_charter(replace(known.charter, version=later, time=later, members=members), stolen)
    with pytest.raises(ValueError, match="at most its time"):
        replace(known.charter, version=later + 1, time=later)
    word = sign_word(mallory, signer_of(mallory), open_charter(forged))
    for node in (ann, bob):
        node.store.logs.add_identity(signer_of(mallory).identity)
        await hear_state(node, mallory.id, State(forged, (*state_of(known).agreements, word)))
    meanwhile = places.who(ann), places.who(bob)
    federationtalk._keep_up(ann)
    await places.spread()
    (shown,) = await run(ann, FederationList("birds"), ignore)

    assert meanwhile == ({"ann", "bob"}, {"ann", "bob", "mallory"})
    assert places.who(ann) == places.who(bob) == {"ann", "bob"}
    assert find(bob, "birds").charter.version == later + 1
    assert "is its key in other hands" in shown.warning


async def test_nobody_counts_while_the_charter_is_by_a_key_that_was_replaced(places):
    ann, bob = await places.federation("ann", "bob")
    own, new = signer_of(ann), key("another key of ann")
    role, retired = Role((new.public_key,), 1), (RetiredKey(own.key.public_key, 0),)
    document = replace(
        own.identity.current,
        version=2,
        publish=role,
        retired=retired,
        previous=blake3(own.identity.chain[-1].document).digest(),
    )
    bob.store.logs.add_identity(open_identity([*own.identity.chain, sign_document(document, [own.key])]))

    assert places.who(bob) == set()


async def test_a_word_for_another_federation_or_of_nobody_invited_does_not_count(places):
    ann, _ = await places.federation("ann", "bob")
    mallory = await places.place("mallory")
    charter = find(ann, "birds").charter
    uninvited = sign_word(mallory, signer_of(mallory), charter)
    ann.store.logs.add_identity(signer_of(mallory).identity)
    await hear_state(ann, mallory.id, replace(state_of(find(ann, "birds")), agreements=(uninvited,)))

    assert places.who(ann) == {"ann", "bob"}
    assert places.names["mallory"] not in find(ann, "birds").agreements


async def test_an_outsider_learns_nothing_of_a_federation(places):
    ann, _ = await places.federation("ann", "bob")
    mallory = await places.place("mallory")
    answer = await hear_state(ann, mallory.id, state_of(find(ann, "birds")))
    unknown = await hear_state(mallory, ann.id, state_of(find(ann, "birds")))

    assert answer is None
    assert unknown is None
    assert mallory.store.federations.all() == []


# ── acting by it ────────────────────────────────────────────────────────────


async def test_members_are_followed_by_whoever_follows_only_some(places, tmp_path):
    ann, bob = await places.federation("ann", "bob")
    mallory = await places.place("mallory")
    await release(ann, tmp_path, "wanted@1.0.0")
    await release(mallory, tmp_path, "unwanted@1.0.0")
    await run(bob, ChangePolicy(mode="listed"), ignore)
    await sync_all(bob, timeout_s=30)
    first = await models(bob)
    await run(ann, FederationRemove("birds", str(places.names["bob"])), ignore)
    await release(ann, tmp_path, "later@1.0.0")
    await sync_all(bob, timeout_s=30)

    assert first == {"wanted"}
    assert await models(bob) == {"wanted"}


async def test_what_falls_under_the_terms_is_mirrored_and_nothing_else(places, tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "ROUND_S", 0.2)
    monkeypatch.setattr(keeping, "GAP_S", 0.1)
    monkeypatch.setattr(inventory, "INVENTORY_S", 0.1)
    terms = Terms(kinds=("model",), licenses=("Apache-2.0", "MIT"), replicas=2)
    ann, bob, cyd = await places.federation("ann", "bob", "cyd", terms=terms)
    mallory = await places.place("mallory")
    made = {
        "good": await release(ann, tmp_path, "good@1.0.0"),
        "choice": await release(ann, tmp_path, "choice@1.0.0", license_="MIT OR GPL-3.0-only"),
        "data": await release(ann, tmp_path, "data@1.0.0", kind="dataset"),
        "closed": await release(ann, tmp_path, "closed@1.0.0", license_="gpl-3.0"),
        "foreign": await release(mallory, tmp_path, "foreign@1.0.0"),
    }
    for node in (bob, cyd):
        await sync_all(node, timeout_s=30)

    def kept(node: Node) -> set[str]:
        here = {str(each) for each in node.store.holdings.whole(node.store.manifests.all())}
        return {name for name, result in made.items() if result.revision in here}

    async def enough() -> bool:
        return kept(bob) | kept(cyd) >= {"good", "choice"}

    async with trio.open_nursery() as nursery:
        for node in (ann, bob, cyd):
            nursery.start_soon(keep_promises, node)
        await wait_for(enough, "the copies")
        await trio.sleep(1.0)
        nursery.cancel_scope.cancel()

    assert kept(bob) | kept(cyd) == {"good", "choice"}
    # Ann has her own; one more of each is enough.
    assert not kept(bob) & kept(cyd)


async def test_a_private_repository_is_granted_to_whoever_is_a_member_now(places, tmp_path):
    ann, bob, cyd = await places.federation("ann", "bob", "cyd")
    await release(ann, tmp_path, "secret@1.0.0", visibility="private")
    await run(ann, GrantAccess("secret", str(places.names["cyd"])), ignore)
    given = await run(ann, GrantAccess("secret", "federation:birds"), ignore)
    dan = await places.place("dan")
    await run(dan, FederationJoin((await run(ann, FederationInvite("birds"), ignore)).text), ignore)
    await places.spread()
    await sync_grants(ann)
    joined = granted(ann, places)
    for node in (bob, cyd):
        await run(node, FederationLeave("birds"), ignore)
    await sync_grants(ann)
    left = granted(ann, places)
    await run(ann, RevokeAccess("secret", "federation:birds"), ignore)

    assert {each.to for each in given.grants} == {str(places.names[name]) for name in ("bob", "cyd")}
    assert joined == {"bob", "cyd", "dan"}
    # Cyd was let in by name before.
    assert left == {"cyd", "dan"}
    assert granted(ann, places) == {"cyd"}
    with pytest.raises(NotFound, match="is not granted"):
        await run(ann, RevokeAccess("secret", "federation:birds"), ignore)
    with pytest.raises(NotFound, match="no federation called bees"):
        await run(ann, GrantAccess("secret", "federation:bees"), ignore)
    with pytest.raises(InvalidName, match="takes no --days"):
        await run(ann, GrantAccess("secret", "federation:birds", days=3), ignore)


def granted(node: Node, places: Places) -> set[str]:
    """Return who may read `secret` of `node` now, by name."""
    own = next(places.names[name] for name, each in places.nodes.items() if each is node)
    said = node.store.private.grants(Repository(own, "secret"))
    names = {bytes(namespace): name for name, namespace in places.names.items()}
    return {names[each.id] for each, grant in said.items() if grant.until > node.clock()}


async def test_whoever_leaves_loses_what_its_members_were_granted_by_itself(places, tmp_path):
    ann, bob = await places.federation("ann", "bob")
    await release(ann, tmp_path, "secret@1.0.0", visibility="private")
    await run(ann, GrantAccess("secret", "federation:birds"), ignore)

    async def nobody() -> bool:
        return granted(ann, places) == set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_grants, ann)
        await trio.sleep(0.1)
        assert granted(ann, places) == {"bob"}
        await run(bob, FederationLeave("birds"), ignore)
        await wait_for(nobody, "the grant to be taken back")
        nursery.cancel_scope.cancel()


async def test_a_federation_can_be_followed(places, tmp_path):
    ann, bob = await places.federation("ann", "bob")
    mallory = await places.place("mallory")
    await release(ann, tmp_path, "wanted@1.0.0")
    await release(mallory, tmp_path, "unwanted@1.0.0")
    policy = await run(bob, ChangePolicy(mode="listed", follow=("birds",)), ignore)
    await sync_all(bob, timeout_s=30)

    assert (policy.mode, policy.followed) == ("listed", ())
    assert await models(bob) == {"wanted"}
    with pytest.raises(NotFound, match="no federation called bees"):
        await run(bob, ChangePolicy(follow=("federation:bees",)), ignore)


async def test_links_between_members_are_of_the_class_and_the_rate_that_was_agreed_on(places):
    terms = Terms(up=1_000_000, down=3_000_000, link="internet")
    ann, bob = await places.federation("ann", "bob", terms=terms)
    far = Address(bob.id, "198.51.100.7", 8627)  # loopback is a link of its own class
    peer = replace(ann.store.peers.get(bob.id), endpoints=((far.host, far.port),))
    stranger = replace(peer, node=ann.id)
    near = [await ann.links.class_of(ann.store.peers.get(bob.id)), await ann.links.class_of(stranger)]
    agreed = await ann.links.class_of(peer)
    await run(ann, FederationSetTerms("birds", Terms(link="federation", up=2_000_000)), ignore)
    await run(bob, FederationAccept("birds"), ignore)
    await places.spread()
    after = await ann.links.class_of(peer)
    by_caller = await ann.links.class_of(far.host, caller=Caller(bob.id))
    by_delegation = await ann.links.class_of(far.host, caller=Caller(ann.id, frozenset({places.names["bob"]})))
    by_stranger = await ann.links.class_of(far.host, caller=Caller(ann.id))
    up = ann.links._limit(ann.links.settings, "federation").up
    await run(ann, FederationLeave("birds"), ignore)

    assert near == ["lan", "internet"]
    assert agreed == "internet"
    assert after == by_caller == by_delegation == "federation"
    assert by_stranger == "internet"
    assert up == 2_000_000
    assert await ann.links.class_of(peer) == "internet"
    assert ann.links._limit(ann.links.settings, "federation").up is None


async def test_a_node_whose_key_was_replaced_signs_its_word_anew(places):
    ann, bob = await places.federation("ann", "bob")
    before = find(ann, "birds").agreements[places.names["bob"]]
    # Another machine of bob's: the same publisher, another node.
    bob.key = (await places.place("cyd")).key
    federationtalk._keep_up(bob)
    after = find(bob, "birds").agreements[places.names["bob"]]

    assert after.serial > before.serial
    assert after.expires == before.expires
    assert bob.id in after.nodes
    assert set(before.nodes) <= set(after.nodes)


async def test_what_is_wrong_is_said(places):
    ann = await places.place("ann")
    await run(ann, FederationInvite("birds"), ignore)
    with pytest.raises(InvalidName, match="names no federation"):
        await run(ann, FederationInvite("Birds of Europe"), ignore)
    with pytest.raises(Conflict, match="has terms already"):
        await run(ann, FederationInvite("birds", terms=Terms(replicas=1)), ignore)
    with pytest.raises(Conflict, match="member of birds already"):
        await run(ann, FederationInvite("birds", str(places.names["ann"])), ignore)
    for operation in (FederationLeave("bees"), FederationAccept("bees"), FederationList("bees")):
        with pytest.raises(NotFound, match="no federation called bees"):
            await run(ann, operation, ignore)
    ann.endpoints = []
    with pytest.raises(HubError, match="does not run"):
        await run(ann, FederationInvite("birds"), ignore)


async def test_members_tell_each_other_what_is_new_by_themselves(places, monkeypatch):
    ann, bob, cyd = await places.federation("ann", "bob", "cyd")

    async def heard() -> bool:
        return places.who(bob) == places.who(ann) == {"ann", "bob", "cyd", "dan"}

    async with trio.open_nursery() as nursery:
        for node in (ann, bob, cyd):
            nursery.start_soon(tend_federations, node)
        dan = await places.place("dan")
        await run(dan, FederationJoin((await run(ann, FederationInvite("birds"), ignore)).text), ignore)
        await wait_for(heard, "dan to be known")
        nursery.cancel_scope.cancel()


def test_charters_and_words_are_bound_to_their_purpose_and_time():
    signer, whose = key("publisher"), identity().namespace
    charter = Charter(key=signer.public_key, time=100, expires=200, name="birds", coordinator=whose, created=100,
                      version=1, members=(whose,), terms=Terms())  # fmt: skip
    word = Agreement(key=signer.public_key, time=100, expires=200, federation=charter.id, namespace=whose, serial=1)
    data, said = sign_charter(charter, signer), sign_agreement(word, signer)

    assert open_charter(data) == charter
    assert open_agreement(said) == word
    assert replace(charter, version=7, members=()).id == charter.id
    assert replace(charter, name="bees").id != charter.id
    for wrong in (replace(charter, expires=100), replace(charter, expires=100 + 401 * 86400)):
        with pytest.raises(InvalidData, match="lasts at most"):
            sign_charter(wrong, signer)
    with pytest.raises(InvalidData):
        open_agreement(data)
    for members in ((NamespaceId(bytes(32)),), (whose, NamespaceId(bytes(32))), (whose, whose)):
        with pytest.raises(ValueError, match="member"):
            replace(charter, members=members)
