"""What is known of federations is only replaced by what is newer, and an invitation is used by one."""

from __future__ import annotations

from p2phub.core.federation import Agreement, Charter, Terms, sign_agreement, sign_charter
from p2phub.core.ids import FederationId, NamespaceId
from p2phub.store.federations import Federations
from p2phub.testing.values import TIME, identity, key

ANN, BOB = identity().namespace, identity("other").namespace
KEY = key("publisher")


def charter(version: int, *members: NamespaceId) -> Charter:
    return Charter(
        key=KEY.public_key,
        time=TIME,
        expires=TIME + 100,
        name="birds",
        coordinator=ANN,
        created=TIME,
        version=version,
        members=tuple(sorted({ANN, *members})),
        terms=Terms(),
    )


def word(federation: FederationId, serial: int) -> bytes:
    said = Agreement(
        key=KEY.public_key, time=TIME, expires=TIME + 100, federation=federation, namespace=ANN, serial=serial
    )
    return sign_agreement(said, KEY)


def test_of_two_who_use_an_invitation_one_gets_it(store):
    federations: Federations = store.federations
    federations.note_invitation(bytes(32), charter(1).id, None, TIME + 100)
    federations.note_invitation(bytes(31) + b"1", charter(1).id, BOB, TIME + 100)

    assert len(federations.open_invitations(charter(1).id, TIME)) == 2
    assert federations.open_invitations(charter(1).id, TIME + 100) == []
    assert federations.use_invitation(bytes(32), ANN) == ANN
    assert federations.use_invitation(bytes(32), BOB) == ANN
    assert federations.use_invitation(b"2" * 32, BOB) is None
    assert federations.withdraw_invitations(charter(1).id) == 1
    assert federations.invitation(bytes(32)).used_by == ANN
    assert federations.invitation(bytes(31) + b"1") is None


def test_only_what_is_newer_is_kept_and_a_contradiction_is_noted(store):
    federations: Federations = store.federations
    first, second = sign_charter(charter(2), KEY), sign_charter(charter(2, BOB), KEY)

    assert federations.put_charter(first)
    assert not federations.put_charter(first)
    assert not federations.get(charter(2).id).contradicted
    assert not federations.put_charter(second)
    assert federations.get(charter(2).id).contradicted
    assert federations.get(charter(2).id).charter == charter(2)
    assert not federations.put_charter(sign_charter(charter(1), KEY))
    assert federations.put_charter(sign_charter(charter(3, BOB), KEY))
    known = charter(2).id
    assert [federations.put_agreement(word(known, serial)) for serial in (5, 5, 4, 6)] == [True, False, False, True]
    assert federations.get(known).agreements[ANN].serial == 6
