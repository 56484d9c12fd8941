"""To which class a link belongs."""

from __future__ import annotations

import pytest

from p2phub.core.errors import InvalidName
from p2phub.core.labels import Labels
from p2phub.core.limits import LabelRule, LinkSettings, RangeRule
from p2phub.core.links import classify, parse_ip, parse_range

NONE = LinkSettings()


def link(address: str, labels: Labels = Labels(), own: Labels = Labels(), rules: LinkSettings = NONE) -> str:  # noqa: B008
    return classify(parse_ip(address), labels, own=own, subnets=[parse_range("203.0.113.0/26")], rules=rules)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", "lan"), ("::1", "lan"), ("169.254.3.4", "lan"), ("fe80::1", "lan"), ("203.0.113.9", "lan"),
        ("203.0.113.99", "internet"), ("10.1.2.3", "site"), ("172.16.0.1", "site"), ("172.32.0.1", "internet"),
        ("192.168.9.9", "site"), ("100.64.0.1", "site"), ("fd00::1", "site"), ("2001:db8::1", "internet"),
        ("8.8.8.8", "internet"), ("::ffff:10.1.2.3", "site"), ("hub.example", "internet"),
    ],
)  # fmt: skip
def test_an_address_tells_how_far_it_is(address: str, expected: str) -> None:
    assert link(address) == expected


def test_labels_that_are_ours_bring_a_peer_nearer_and_others_do_not() -> None:
    own = Labels(cluster="gpu", site="north")

    assert link("8.8.8.8", Labels(cluster="gpu"), own) == "lan"
    assert link("8.8.8.8", Labels(cluster="cpu", site="north"), own) == "site"
    assert link("8.8.8.8", Labels(cluster="cpu", site="south"), own) == "internet"
    assert link("8.8.8.8", Labels(), Labels()) == "internet", "to have none is nothing in common"


def test_what_the_owner_says_goes_first_and_the_longest_range_of_all() -> None:
    rules = LinkSettings(
        ranges=(RangeRule("10.0.0.0/8", "federation"), RangeRule("10.9.0.0/16", "lan")),
        labels=(LabelRule("gpu", "internet"), LabelRule("partner", "federation")),
    )
    own = Labels(cluster="gpu")

    assert link("10.1.1.1", Labels(cluster="gpu"), own, rules) == "federation"
    assert link("10.9.1.1", rules=rules) == "lan"
    assert link("127.0.0.1", Labels(site="partner"), own, rules) == "federation"
    assert link("127.0.0.1", Labels(cluster="gpu"), own, rules) == "internet"


@pytest.mark.parametrize("text", ["", "10.0.0.1/8", "10.0.0.0/33", "lan", "10.0.0", "::/129"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(InvalidName):
        parse_range(text)
