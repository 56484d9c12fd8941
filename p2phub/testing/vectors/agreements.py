"""Vectors of federations: charters, members' words, invitations (spec/federation.md)."""

from __future__ import annotations

import msgspec

from p2phub.core import encoding
from p2phub.core.envelope import seal
from p2phub.core.federation import (
    AGREEMENT_PURPOSE,
    CHARTER_PURPOSE,
    OFFER_PURPOSE,
    Agreement,
    Charter,
    Invitation,
    Offer,
    format_invitation,
    secret_digest,
    sign_agreement,
    sign_charter,
    sign_offer,
    terms_digest,
)
from p2phub.core.ids import NodeId
from p2phub.core.terms import Terms
from p2phub.testing import values
from p2phub.testing.values import TIME

from .plain import Json

DAY_S = 24 * 3600


def federations() -> Json:
    change = msgspec.structs.replace
    key = values.key("publisher")
    coordinator, member = values.identity().namespace, values.identity("other").namespace
    charter = Charter(
        key=key.public_key,
        time=TIME + 60,
        expires=TIME + 365 * DAY_S,
        name="birds-eu",
        coordinator=coordinator,
        created=TIME,
        version=2,
        members=tuple(sorted((coordinator, member))),
        terms=Terms(kinds=("model",), licenses=("Apache-2.0", "MIT"), replicas=3, up=50_000_000),
    )
    word = Agreement(
        key=key.public_key,
        time=TIME,
        expires=TIME + 30 * DAY_S,
        federation=charter.id,
        namespace=coordinator,
        serial=TIME,
        terms=terms_digest(charter.terms),
        nodes=(NodeId(values.key("node").public_key),),
    )
    secret = values.content("invitation", 32)
    offer = Offer(
        key=key.public_key,
        time=TIME,
        expires=TIME + 7 * DAY_S,
        federation=charter.id,
        secret=secret_digest(secret),
        namespace=member,
    )
    address = f"p2phub://{word.nodes[0]}@192.0.2.7:8627"
    invitation = Invitation(sign_charter(charter, key), sign_offer(offer, key), secret, (address,))

    def sealed(value: msgspec.Struct, purpose: str, by: str = "publisher") -> bytes:
        return encoding.encode(seal(value, values.key(by), purpose))

    return {
        "federation": str(charter.id),
        "terms_digest": terms_digest(charter.terms),
        "secret_digest": offer.secret,
        "charter": {"value": charter, "encoded": sign_charter(charter, key)},
        "dissolved": {"value": change(charter, version=3, members=()), "encoded": sign_charter(
            change(charter, version=3, members=()), key)},
        "agreement": {"value": word, "encoded": sign_agreement(word, key)},
        "leaving": {"value": change(word, terms=None), "encoded": sign_agreement(change(word, terms=None), key)},
        "offer": {"value": offer, "encoded": sign_offer(offer, key)},
        "invitation": {"value": invitation, "text": format_invitation(invitation)},
        "invalid_charters": [
            {"why": why, "encoded": data}
            for why, data in {
                "signed by another key": sealed(charter, CHARTER_PURPOSE, "other"),
                "signed for another purpose": sealed(charter, AGREEMENT_PURPOSE),
                "lasts 401 days": sealed(change(charter, expires=charter.time + 401 * DAY_S), CHARTER_PURPOSE),
                "is over when it begins": sealed(change(charter, expires=charter.time), CHARTER_PURPOSE),
                "version 0": sealed(change(charter, version=0), CHARTER_PURPOSE),
                "a name with an upper-case letter": sealed(change(charter, name="Birds"), CHARTER_PURPOSE),
                "51 copies too many": sealed(
                    change(charter, terms=change(charter.terms, replicas=151)), CHARTER_PURPOSE
                ),
                "a rate that is too low": sealed(
                    change(charter, terms=change(charter.terms, up=49_999)), CHARTER_PURPOSE
                ),
                "an agreement": sign_agreement(word, key),
            }.items()
        ],
        "invalid_agreements": [
            {"why": why, "encoded": data}
            for why, data in {
                "signed by another key": sealed(word, AGREEMENT_PURPOSE, "other"),
                "signed for another purpose": sealed(word, OFFER_PURPOSE),
                "serial 0": sealed(change(word, serial=0), AGREEMENT_PURPOSE),
                "a digest of 31 bytes": sealed(change(word, terms=bytes(31)), AGREEMENT_PURPOSE),
                "a charter": sign_charter(charter, key),
            }.items()
        ],
    }  # fmt: skip
