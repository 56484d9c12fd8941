"""How many requests each provider of a download is asked at once."""

from __future__ import annotations

import pytest

from p2phub.core.choices import LinkClass
from p2phub.node.connections import Connections, connections_to_each
from p2phub.node.download import ProviderReport
from p2phub.node.providers import Provider


def test_the_more_providers_there_are_the_fewer_requests_each_is_asked() -> None:
    assert [connections_to_each(count) for count in (1, 2, 3, 7, 8, 16)] == [3, 2, 2, 2, 1, 1]


@pytest.mark.parametrize(
    ("link", "offers", "expected"),
    [
        ("lan", None, [3, 2, 1, 1]),
        ("site", None, [3, 2, 1, 1]),
        ("internet", None, [3, 2, 2, 1]),  # between two requests it would have nothing to do
        ("lan", b"\x01\x00", [3, 2, 2, 1]),  # one request may have to wait for what it gets next
    ],
)
def test_several_that_are_near_and_have_everything_are_asked_one_each(
    link: LinkClass, offers: bytes | None, expected: list[int]
) -> None:
    connections = Connections.__new__(Connections)  # what it knows of others is all that counts here
    provider = Provider(ProviderReport("asked"), link)
    provider.offers = offers

    def asked_among(count: int) -> int:
        connections.providers = {str(number): provider for number in range(count)}
        return connections._at_once(provider)

    assert [asked_among(count) for count in (1, 2, 3, 8)] == expected
