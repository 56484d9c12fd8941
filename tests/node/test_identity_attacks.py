"""Identity documents that nobody may believe, offered to a real node by a peer: nothing of them is taken."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from p2phub.core import merkle
from p2phub.core.checkpoint import sign_head
from p2phub.core.encoding import encode
from p2phub.core.errors import PeerViolation
from p2phub.core.identity import (
    PURPOSE,
    Identity,
    KeySignature,
    RetiredKey,
    Role,
    SignedDocument,
    new_document,
    next_document,
    open_identity,
    sign_document,
)
from p2phub.core.ids import ManifestId, PublicKey
from p2phub.core.merkle import LOG_TREE
from p2phub.core.records import Publish, Summary, sign_record
from p2phub.core.search import Query
from p2phub.core.signing import SigningKey
from p2phub.net.door import Response
from p2phub.net.peerclient import open_peer
from p2phub.node.maps import refresh_maps
from p2phub.node.node import Node
from p2phub.node.pulling import pull
from p2phub.protocol.messages import Identities, IdentityChain
from p2phub.testing import values
from p2phub.testing.hostile import answering, open_home, serving

pytestmark = pytest.mark.timeout(120)

ROOTS = sorted((values.key(f"root {number}") for number in range(3)), key=lambda key: key.public_key)
KEY, THIEF = values.key("publisher"), values.key("thief")


def role(*keys: SigningKey, threshold: int = 1) -> Role:
    return Role(tuple(sorted(key.public_key for key in keys)), threshold)


FIRST = open_identity(
    [
        sign_document(
            replace(new_document(KEY.public_key, created=values.TIME), root=role(*ROOTS, threshold=2)), ROOTS[:2]
        )
    ]
)
SECOND = open_identity(
    [
        *FIRST.chain,
        sign_document(replace(next_document(FIRST, created=values.TIME), domains=("lab.example",)), ROOTS[:2]),
    ]
)


def forged(signers: Sequence[SigningKey], before: Identity = FIRST, **fields: object) -> list[SignedDocument]:
    """Return the documents of `before` and one more, which lets the thief publish."""
    change: dict[str, object] = {"publish": role(KEY, THIEF)}
    document = replace(next_document(before, created=values.TIME), **(change | fields))
    return [*before.chain, sign_document(document, signers)]


def signed_twice() -> list[SignedDocument]:
    (*before, last) = forged(ROOTS[:1])
    return [*before, SignedDocument(last.document, last.signatures * 2)]


def signed_by_nobody() -> list[SignedDocument]:
    """Return a document of root keys for which anybody can make a signature that some libraries accept."""
    identity_point = PublicKey((1).to_bytes(32, "little"))
    document = replace(next_document(FIRST, created=values.TIME), root=Role((identity_point,), 1))
    data = encode(document)
    both = [KeySignature(key.public_key, key.sign(PURPOSE, data)) for key in ROOTS[:2]]
    nobody = KeySignature(identity_point, identity_point + bytes(32))
    return [*FIRST.chain, SignedDocument(data, tuple(sorted([*both, nobody], key=lambda each: each.key)))]


def without_the_one_between() -> list[SignedDocument]:
    third = forged(ROOTS[:2], before=SECOND)[-1]
    return [*FIRST.chain, third]


RETIRED = open_identity(
    [*FIRST.chain, *forged(ROOTS[:2], publish=role(THIEF), retired=(RetiredKey(KEY.public_key, 1),))[-1:]]
)

LIES = {
    "a threshold counts one key twice": signed_twice,
    "one root key of two": lambda: forged(ROOTS[:1]),
    "the publishing key signs documents": lambda: forged([KEY]),
    "a thief names himself root": lambda: forged([THIEF], root=role(THIEF)),
    "the new root keys alone hand over": lambda: forged(ROOTS[2:], root=role(ROOTS[2])),
    "version 3 without version 2": without_the_one_between,
    "a root key of small order": signed_by_nobody,
    "a recipient key of small order": lambda: forged(ROOTS[:2], recipient=bytes(32)),
    "a companion key that is no point": lambda: forged(ROOTS[:2], companion=b"\2" + b"\xff" * 32),
    "a retired key publishes again": lambda: forged(ROOTS[:2], before=RETIRED, publish=role(KEY), retired=()),
    "another namespace": lambda: list(values.identity("somebody").chain),
}


def give(node: Node, identity: Identity, model: str) -> None:
    """Let `node` have a log of the publisher with one record."""
    log = identity.log_of(KEY.public_key)
    record = Publish(
        namespace=identity.namespace, log=log, index=0, previous=bytes(32), time=values.TIME, model=model,
        kind="model", manifest=ManifestId(bytes(32)), depth=1, branch="main", summary=Summary(files=1, size=1),
    )  # fmt: skip
    entry = sign_record(record, KEY)
    head = sign_head(log, 1, merkle.root(LOG_TREE, [entry.leaf]), KEY)
    node.store.logs.extend(identity, head, [entry.data], now=node.clock())


@pytest.mark.parametrize("lie", LIES)
async def test_a_peer_that_offers_documents_which_prove_nothing_is_dropped(lie: str, tmp_path: Path) -> None:
    async with open_home(tmp_path / "a") as node, open_home(tmp_path / "b") as liar:
        give(node, FIRST, "mine")
        give(liar, SECOND, "mine")
        await refresh_maps(liar)
        answer = encode(Identities((IdentityChain(tuple(LIES[lie]())),)))
        wrap = answering("/v1/identities", Response(200, answer))
        async with serving(liar, wrap=wrap) as address, open_peer(liar.id, address.host, address.port) as client:
            with pytest.raises(PeerViolation, match=r"sent an|protocol"):
                await pull(node, client)

        known = node.store.logs.identity(FIRST.namespace)
        assert known is not None
        assert known.chain == FIRST.chain
        assert {found.model for found in node.store.search.find(Query())} == {"mine"}


async def test_the_same_peer_is_believed_what_is_signed(tmp_path: Path) -> None:
    async with open_home(tmp_path / "a") as node, open_home(tmp_path / "b") as honest:
        give(node, FIRST, "mine")
        give(honest, SECOND, "mine")
        await refresh_maps(honest)
        async with serving(honest) as address, open_peer(honest.id, address.host, address.port) as client:
            await pull(node, client)

        known = node.store.logs.identity(FIRST.namespace)
        assert known is not None
        assert known.chain == SECOND.chain
