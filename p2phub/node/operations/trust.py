"""What names mean here, and why."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from p2phub.core.choices import DOMAIN_NODES_MAX

from . import Operation, Text


class BindingInfo(Struct, frozen=True):
    """What a name means on this machine."""

    name: str
    namespace: str
    source: str  # domain or petname
    how: str  # first use, added, accepted: how it came to mean this publisher
    since: int  # seconds since 1970
    checked: int | None  # when the domain last said so, seconds since 1970
    problem: str | None  # why it did not say so when it was last asked
    offered: str | None  # another publisher, whom the domain names now


class TrustAdd(Operation, tag="trust-add", frozen=True):
    """Let a name mean a publisher here: a domain the one that it names, a petname the one that is given."""

    result = BindingInfo

    name: Text
    namespace: Text | None = None


class TrustAccept(Operation, tag="trust-accept", frozen=True):
    """Let a domain mean the publisher that it names now."""

    result = BindingInfo

    name: Text


class TrustRemove(Operation, tag="trust-rm", frozen=True):
    """Let a name mean nothing here any more."""

    result = BindingInfo

    name: Text


class TrustList(Operation, tag="trust-ls", frozen=True):
    """What names mean here."""

    result = list[BindingInfo]


class Reason(Struct, frozen=True):
    """One thing that speaks for or against what is asked about."""

    about: str
    verdict: Literal["good", "bad", "unknown", "off"]  # off: it was not asked for
    text: str


class TrustWhy(Operation, tag="trust-why", frozen=True):
    """Why a reference, or a publisher's name, means what it means, and what is believed of it."""

    result = list[Reason]

    reference: Text


class DomainFile(Struct, frozen=True):
    """What the web server of a domain is to have, so that the domain stands for a publisher."""

    domain: str
    namespace: str
    url: str  # where it is to be found
    text: str  # of the file
    version: int  # of the identity document that says which domains are claimed
    claimed: bool  # it claims this one


class ClaimDomain(Operation, tag="id-domain", frozen=True):
    """Claim a domain for this home's publisher, or no longer."""

    result = DomainFile

    domain: Text
    nodes: Annotated[tuple[Text, ...], Meta(max_length=DOMAIN_NODES_MAX)] = ()  # addresses; none: this node's
    drop: bool = False


class CheckDomain(Operation, tag="id-domain-check", frozen=True):
    """What others find who ask for a domain of this home's publisher."""

    result = list[Reason]

    domain: Text
