"""The vectors of authority hold for the code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from p2phub.core import encoding
from p2phub.core.delegation import check_delegation, open_delegation
from p2phub.core.errors import InvalidData
from p2phub.core.httpsig import Ask, open_ask
from p2phub.core.identity import open_identity
from p2phub.core.ids import NodeId
from p2phub.protocol.letters import read_letter
from p2phub.protocol.messages import IdentityChain
from p2phub.testing.vectors.plain import plain

VECTORS = json.loads((Path(__file__).parent.parent / "spec/vectors/authority.json").read_text())


def ask_of(case: Any) -> Ask:
    return Ask(case["method"], case["path"], case["query"], bytes.fromhex(case["body"]))


def test_requests() -> None:
    vectors = VECTORS["requests"]
    audience, now = NodeId.parse(vectors["audience"]), vectors["now"]
    for case in vectors["valid"]:
        signed = open_ask(ask_of(case), case["fields"], audience, now=now)
        assert signed is not None
        assert (str(signed.node), signed.nonce.hex()) == (case["node"], case["nonce"])
    for case in vectors["invalid"]:
        with pytest.raises(InvalidData):
            open_ask(ask_of(case), case["fields"], audience, now=now)


def test_delegations() -> None:
    vectors = VECTORS["delegations"]
    chain = encoding.decode(bytes.fromhex(vectors["identity"]), IdentityChain, size_max=100_000)
    identity = open_identity(chain.documents)
    valid, now = vectors["valid"], vectors["now"]
    delegation = open_delegation(bytes.fromhex(valid["encoded"]), now=now)
    check_delegation(delegation, identity)
    assert plain(delegation) == valid["value"]
    assert read_letter(valid["word"], to=delegation.node, now=now)[0] == delegation
    for case in vectors["invalid"]:
        with pytest.raises(InvalidData):
            check_delegation(open_delegation(bytes.fromhex(case["encoded"]), now=now), identity)
