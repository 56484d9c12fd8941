from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2phub.core.choices import LINK_CLASSES, LinkClass
from p2phub.core.errors import InvalidName
from p2phub.core.jsonform import from_json, to_json
from p2phub.core.labels import Labels, check_label
from p2phub.core.limits import LabelRule, Limit, LinkSettings, RangeRule
from p2phub.core.links import classify, network_of, parse_ip, parse_range

NOBODY = Labels()


def link_of(
    address: str | None,
    labels: Labels = NOBODY,
    *,
    own: Labels = NOBODY,
    subnets: tuple[str, ...] = (),
    ranges: tuple[tuple[str, LinkClass], ...] = (),
    by_label: tuple[tuple[str, LinkClass], ...] = (),
) -> LinkClass:
    rules = LinkSettings(
        ranges=tuple(RangeRule(range_, link) for range_, link in ranges),
        labels=tuple(LabelRule(label, link) for label, link in by_label),
    )
    networks = [ip_network(subnet) for subnet in subnets]
    return classify(parse_ip(address) if address else None, labels, own=own, subnets=networks, rules=rules)


@pytest.mark.parametrize(
    ("address", "link"),
    [
        ("127.0.0.1", "lan"),
        ("::1", "lan"),
        ("169.254.7.7", "lan"),
        ("fe80::1%eth0", "lan"),
        ("203.0.113.9", "lan"),  # in a subnet of ours, public or not
        ("2001:db8:5::9", "lan"),
        ("10.1.2.3", "site"),
        ("172.31.255.255", "site"),
        ("192.168.0.1", "site"),
        ("100.64.0.1", "site"),
        ("fd12::1", "site"),
        ("::ffff:10.1.2.3", "site"),
        ("172.32.0.1", "internet"),
        ("100.128.0.1", "internet"),
        ("8.8.8.8", "internet"),
        ("2001:4860::1", "internet"),
        ("203.0.113.200", "internet"),
        (None, "internet"),
    ],
)
def test_an_address_alone_tells_the_class(address: str | None, link: LinkClass) -> None:
    assert link_of(address, subnets=("203.0.113.0/25", "2001:db8:5::/64")) == link


def test_labels_that_are_ours_bring_near() -> None:
    own = Labels("rack-1", "campus")

    assert link_of("8.8.8.8", Labels("rack-1", "elsewhere"), own=own) == "lan"
    assert link_of("8.8.8.8", Labels("rack-2", "campus"), own=own) == "site"
    assert link_of(None, Labels(None, "campus"), own=own) == "site"
    assert link_of("8.8.8.8", Labels("campus", "rack-1"), own=own) == "internet"
    assert link_of("8.8.8.8", NOBODY, own=NOBODY) == "internet"


def test_a_rule_for_a_label_counts_more_than_our_own_labels() -> None:
    own = Labels("rack-1", "campus")
    by_label = (("campus", "federation"), ("rack-1", "internet"))

    assert link_of("10.0.0.1", Labels(None, "campus"), own=own, by_label=by_label) == "federation"
    assert link_of("127.0.0.1", Labels("rack-1", "campus"), own=own, by_label=by_label) == "internet"
    assert link_of("10.0.0.1", Labels("other"), own=own, by_label=by_label) == "site"


def test_a_range_counts_most_and_the_smallest_of_several() -> None:
    ranges = (("10.0.0.0/8", "federation"), ("10.8.0.0/16", "lan"), ("10.8.1.7/32", "internet"), ("::/0", "site"))
    own = Labels("rack-1")

    assert link_of("10.9.0.1", Labels("rack-1"), own=own, ranges=ranges) == "federation"
    assert link_of("10.8.0.1", ranges=ranges) == "lan"
    assert link_of("10.8.1.7", ranges=ranges) == "internet"
    assert link_of("::1", ranges=ranges) == "site"
    assert link_of("11.0.0.1", ranges=ranges) == "internet"


@given(st.ip_addresses(), st.lists(st.tuples(st.ip_addresses(), st.integers(0, 32), st.sampled_from(LINK_CLASSES))))
def test_the_order_of_ranges_makes_no_difference(address, found) -> None:
    ranges = {str(ip_network((base, length), strict=False)): link for base, length, link in found}
    rules = tuple(ranges.items())

    assert link_of(str(address), ranges=rules) == link_of(str(address), ranges=rules[::-1])


def test_ranges_are_read_and_written_in_one_way() -> None:
    assert str(parse_range(" 10.8.0.0/16 ")) == "10.8.0.0/16"
    assert str(parse_range("10.8.0.1")) == "10.8.0.1/32"
    assert str(parse_range("FD00:0::/8")) == "fd00::/8"
    for wrong, why in (
        ("10.8.0.1/16", "bits set"), ("10.8", "no range"), ("", "no range"), ("host", "no range"),
        ("10.0.0.0/33", "no range"), ("::/129", "no range"),
    ):  # fmt: skip
        with pytest.raises(InvalidName, match=why):
            parse_range(wrong)


def test_labels_are_of_the_form_that_records_have() -> None:
    check_label("rack-1.lip6_FR")
    for wrong in ("", "a b", "a/b", "a" * 65, "é", "a\n"):
        with pytest.raises(InvalidName):
            check_label(wrong)


def test_settings_read_back_from_json() -> None:
    settings = LinkSettings(
        limits=(Limit("internet", up=100_000, background=True),),
        ranges=(RangeRule("10.8.0.0/16", "site"),),
        labels=(LabelRule("lip6", "federation"),),
    )

    assert from_json(to_json(settings), LinkSettings) == settings
    assert settings.limit("internet").up == 100_000
    assert settings.limit("lan") == Limit("lan")
    assert [limit.link for limit in LinkSettings().limits] == list(LINK_CLASSES)


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("9.8.7.6", "9.8.0.0/16"),
        ("::ffff:9.8.7.6", "9.8.0.0/16"),
        ("2a00:1234:5678::1", "2a00:1234::/32"),
        ("10.1.2.3", None),
        ("127.0.0.1", None),
        ("fe80::1%eth0", None),
        ("::1", None),
        ("Node.Example.org", "name:node.example.org"),
    ],
)
def test_public_addresses_have_a_network(host, network):
    assert network_of(host, bits_v4=16, bits_v6=32) == network
