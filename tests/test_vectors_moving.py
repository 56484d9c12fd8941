"""The vectors of what moves between machines of a publisher hold for the code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from p2phub.core import encoding
from p2phub.core.armor import armor, unarmor
from p2phub.core.errors import HubError, InvalidData
from p2phub.core.ids import PublicKey
from p2phub.core.joining import ANSWER_SIZE_MAX, REQUEST_SIZE_MAX, open_answer, open_request
from p2phub.core.keybundle import BUNDLE_SIZE_MAX, decode_bundle
from p2phub.core.passphrase import LOCKED_SIZE_MAX, unlock
from p2phub.core.proposal import PROPOSAL_SIZE_MAX, Proposal, open_proposal, settle
from p2phub.core.recipient import RecipientKey
from p2phub.testing.vectors.plain import plain

VECTORS: Any = json.loads((Path(__file__).parent.parent / "spec/vectors/moving.json").read_text())


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


def test_requests() -> None:
    for case in VECTORS["requests"]["valid"]:
        data = unarmor("request", case["word"], size_max=REQUEST_SIZE_MAX)
        assert data.hex() == case["encoded"]
        assert plain(open_request(data)) == case["value"]
        assert armor("request", data) == case["word"]
    for case in VECTORS["requests"]["invalid"]:
        with pytest.raises(InvalidData):
            open_request(unarmor("request", case["word"], size_max=REQUEST_SIZE_MAX))


def test_answers() -> None:
    answers = VECTORS["answers"]
    key, box = PublicKey.parse(answers["key"]), RecipientKey(unhex(answers["box_secret"]))
    for case in answers["valid"]:
        identity, secrets = open_answer(unhex(case["encoded"]), key, box)
        assert str(identity.namespace) == case["namespace"]
        assert (secrets.companion.hex() if secrets.companion else None) == case["companion"]
        assert [each.hex() for each in secrets.recipients] == case["recipients"]
        assert len(unhex(case["encoded"])) <= ANSWER_SIZE_MAX
    for case in answers["invalid"]:
        with pytest.raises(InvalidData):
            open_answer(unhex(case["encoded"]), key, box)


def test_proposals() -> None:
    def read(text: str) -> Proposal:
        return encoding.decode(unhex(text), Proposal, size_max=PROPOSAL_SIZE_MAX)

    for case in VECTORS["proposals"]["valid"]:
        opened = open_proposal(read(case["encoded"]))
        assert (opened.missing, len(opened.signers)) == (case["missing"], case["signers"])
        if not opened.missing:
            assert settle(opened).current == opened.after
    for case in VECTORS["proposals"]["invalid"]:
        with pytest.raises(InvalidData):
            open_proposal(read(case["encoded"]))


def test_files_with_keys() -> None:
    files = VECTORS["files"]
    for case in files["keys"]:
        bundle = decode_bundle(unarmor("keys", case["word"], size_max=BUNDLE_SIZE_MAX))
        assert [str(key.public_key) for key in bundle.signers] == case["public_keys"]
        assert (str(bundle.identity.namespace) if bundle.identity else None) == case["namespace"]
    for case in files["invalid_keys"]:
        with pytest.raises(InvalidData):
            decode_bundle(unarmor("keys", case["word"], size_max=BUNDLE_SIZE_MAX))
    for case in files["locked"]:
        data = unarmor("locked", case["word"], size_max=LOCKED_SIZE_MAX)
        assert unlock(data, files["passphrase"]).hex() == case["opened"]
    for case in files["invalid_locked"]:
        with pytest.raises(HubError):
            unlock(unarmor("locked", case["word"], size_max=LOCKED_SIZE_MAX), files["passphrase"])
