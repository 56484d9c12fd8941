"""What neighbours say to each other (spec/gossip.md §4).

Each message is signed by the node that says it, for the one node that it is said to: who
takes it knows whom to answer for it, and nobody can say it in another's name.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from p2phub.core.encoding import decode, encode
from p2phub.core.envelope import ENVELOPE_SIZE_MAX, Envelope, seal
from p2phub.core.errors import InvalidData
from p2phub.core.federation import State
from p2phub.core.fresh import SignedFresh
from p2phub.core.identity import CHAIN_MAX
from p2phub.core.ids import LogId, NodeId
from p2phub.core.manifest import Time
from p2phub.core.noderecord import SignedNodeRecord, open_node_record
from p2phub.core.records import SKEW_MAX_S
from p2phub.core.signing import SigningKey

from .gossip import WHOLE_MAX, WORD_MAX
from .messages import FRAME_SIZE_MAX, EnvelopeBytes, IdentityChain, LogHead, StoppedLog

PURPOSE = "talk"  # spec/signing.md §2
TOLD_MAX = 8  # node records in one message or answer; spec/gossip.md §4
STOPPED_MAX = 64  # logs that go on no more in one message; spec/gossip.md §4
PUSH_SIZE_MAX = 56 * 1024  # bytes of heads, identities and entries in one message; spec/gossip.md §4

Count = Annotated[int, Meta(ge=0, le=2**53)]
Records = Annotated[tuple[EnvelopeBytes, ...], Meta(max_length=TOLD_MAX)]


class Ask(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="type", tag="ask"):
    """Asks to become a neighbour."""

    urgent: bool = False


class Leave(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="leave"):
    """Says that the other is no neighbour any more."""


class Exchange(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="type", tag="exchange"):
    """Tells of other nodes, and asks for as much."""

    records: Records = ()  # signed node records


class Whole(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A log that came further, with what proves it, as far as it fits."""

    head: LogHead
    start: Count = 0  # index of the first of `entries`
    entries: Annotated[tuple[EnvelopeBytes, ...], Meta(max_length=10_000)] = ()  # up to the head, or none
    identity: IdentityChain | None = None
    fresh: SignedFresh | None = None  # what the publisher stated last


class Word(Struct, frozen=True, forbid_unknown_fields=True):
    """A log that is there."""

    log: LogId
    size: Count  # records
    version: Annotated[int, Meta(ge=1, le=CHAIN_MAX)]  # of the identity of its namespace


class Push(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="type", tag="push"):
    """Tells news."""

    whole: Annotated[tuple[Whole, ...], Meta(max_length=WHOLE_MAX)] = ()
    word: Annotated[tuple[Word, ...], Meta(max_length=WORD_MAX)] = ()
    stopped: Annotated[tuple[StoppedLog, ...], Meta(max_length=STOPPED_MAX)] = ()  # of which comparing tells more


class Federate(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="federate"):
    """Tells what is known of a federation, and asks for as much; spec/federation.md §5."""

    state: State


Say = Ask | Leave | Exchange | Push | Federate


class Talk(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one node says to another."""

    schema: Literal[1]
    node: NodeId  # who says it
    to: NodeId
    time: Time
    say: Say
    record: EnvelopeBytes | None = None  # the signed node record of `node`


class Wanted(Struct, frozen=True, forbid_unknown_fields=True):
    """A log of which word came and that is to be sent whole."""

    index: Annotated[int, Meta(ge=0, lt=WORD_MAX)]  # in the list of words
    size: Count  # records of it that are there


class Reply(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The answer to all that is said."""

    neighbour: bool  # the caller is a neighbour now
    records: Records = ()  # signed node records of others
    was_news: bool = False  # something that came whole was news
    holds: bool = False  # all that came whole is there now, and all of what word came that is not wanted
    wanted: Annotated[tuple[Wanted, ...], Meta(max_length=WORD_MAX)] = ()
    federation: State | None = None  # to a member that told of it


class Heard(Struct, frozen=True):
    """What was said, checked."""

    node: NodeId
    say: Say
    record: SignedNodeRecord | None


def sign_talk(say: Say, key: SigningKey, to: NodeId, *, now: float, record: bytes | None = None) -> bytes:
    """Return the message that says `say` to one node. Raises InvalidData if it is too long."""
    talk = Talk(schema=1, node=NodeId(key.public_key), to=to, time=int(now), say=say, record=record)
    data = encode(seal(talk, key, PURPOSE))
    if len(data) > FRAME_SIZE_MAX:
        raise InvalidData(f"a message of {len(data)} bytes, the limit is {FRAME_SIZE_MAX}")
    return data


def open_talk(data: bytes, *, own: NodeId, now: float) -> Heard:
    """Return what `data` says to the node `own` at the time `now` (seconds since 1970).

    Raises InvalidData: no message, not signed by whom it names, for another node, of
    another time, or with a record that is not right.
    """
    envelope = decode(data, Envelope, size_max=min(FRAME_SIZE_MAX, ENVELOPE_SIZE_MAX))
    talk = decode(envelope.payload, Talk, size_max=FRAME_SIZE_MAX)
    if talk.to != own:
        raise InvalidData("this was said to another node")
    # Said long ago it may be said again by who overheard it.
    if abs(talk.time - now) > SKEW_MAX_S:
        raise InvalidData(f"the clocks differ by {abs(talk.time - now):.0f} s, {SKEW_MAX_S} s at most are allowed")
    envelope.check(talk.node, PURPOSE)
    record = open_node_record(talk.record, now=now) if talk.record is not None else None
    if record is not None and record.record.node != talk.node:
        raise InvalidData("the record is of another node than who sent it")
    return Heard(talk.node, talk.say, record)
