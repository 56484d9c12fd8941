from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from p2phub.core import encoding
from p2phub.core.checkpoint import HEAD_SIZE_MAX, sign_head
from p2phub.core.envelope import ENVELOPE_SIZE_MAX
from p2phub.core.errors import InvalidEncoding
from p2phub.core.filetree import FILE_SIZE_MAX, TreePage
from p2phub.core.identity import CHAIN_MAX
from p2phub.core.ids import ContentId, LogId, NamespaceId
from p2phub.core.noderecord import sign_node_record
from p2phub.protocol import messages
from p2phub.protocol.messages import (
    ANNOUNCED_HEADS_MAX,
    ANSWER_SIZE_MAX,
    FRAME_SIZE_MAX,
    HAVE_ROOTS_MAX,
    HEADS_PAGE,
    LARGE_QUERY_SIZE_MAX,
    NODES_MAX,
    SPAN_BYTES_MAX,
    SPANS_MAX,
    TICKET_TTL_S,
    TICKETS_PER_QUERY_MAX,
    TREE_PAGES_MAX,
    Announcement,
    BulkAnswer,
    ByteRange,
    Have,
    HaveQuery,
    Heads,
    HeadsQuery,
    Hello,
    IdentityChain,
    LogHead,
    LogPage,
    Nodes,
    PageRef,
    SpansQuery,
    Ticket,
    Tickets,
    TicketsQuery,
    Trees,
    TreesQuery,
)
from p2phub.testing import values

ROOT = ContentId(b"\xff" * 32)
LOG = LogId(b"\xff" * 32)
KEY = values.key("publisher")
RECORD = sign_node_record(values.node_record(), values.key("node")).data
HEAD = LogHead(NamespaceId(b"\xff" * 32), 1000, sign_head(LOG, 2**53, bytes(32), KEY).text)
PAGE = TreePage(0, 0, 0, b"", ())
TICKET = Ticket(b"i" * 16, b"c" * 16, b"s" * 16, TICKET_TTL_S)

EXAMPLES: list[Struct] = [
    Hello(RECORD),
    Nodes((RECORD, RECORD)),
    HEAD,
    HeadsQuery(),
    HeadsQuery(LOG),
    Heads((), False),
    Heads((HEAD, HEAD), True),
    Announcement(RECORD, (HEAD,)),
    IdentityChain(values.rotated_identity().chain),
    LogPage(7, tuple(entry.data for entry in values.log())),
    LogPage(0, ()),
    HaveQuery((ROOT, ROOT)),
    Have((True, False, b"\x05", b"")),
    TreesQuery((PageRef(ROOT, 3),)),
    Trees((PAGE, None, PAGE)),
    SpansQuery((ByteRange(ROOT, 0, 1), ByteRange(ROOT, 2**41, SPAN_BYTES_MAX))),
    SpansQuery((ByteRange(ROOT, 0, 1),), first_copy=True, background=True),
    TicketsQuery(2),
    Tickets((TICKET, TICKET)),
    BulkAnswer(200, SPAN_BYTES_MAX),
    BulkAnswer(429, 0, 3, "all upload slots are taken"),
]


def round_trip(message: Struct, *, size_max: int = ANSWER_SIZE_MAX) -> Struct:
    return encoding.decode(encoding.encode(message), type(message), size_max=size_max)


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_message_reads_back_from_its_bytes(message: Struct) -> None:
    assert round_trip(message) == message


def test_every_message_has_an_example() -> None:
    kinds = {value for value in vars(messages).values() if isinstance(value, type) and issubclass(value, Struct)}
    ours = {kind for kind in kinds if kind.__module__ == messages.__name__}

    assert ours <= {type(example) for example in EXAMPLES} | {PageRef, ByteRange, Ticket}


@given(st.sampled_from(EXAMPLES), st.data())
def test_a_changed_byte_gives_another_message_or_none(message: Struct, data: st.DataObject) -> None:
    encoded = bytearray(encoding.encode(message))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))

    try:
        changed = encoding.decode(bytes(encoded), type(message), size_max=ANSWER_SIZE_MAX)
    except InvalidEncoding:
        return
    assert changed != message


REFUSED: dict[str, Struct] = {
    "nobody's record": Nodes(()),
    "too many node records": Nodes((b"",) * (NODES_MAX + 1)),
    "a node record over the limit": Hello(bytes(ENVELOPE_SIZE_MAX + 1)),
    "a head over the limit": LogHead(NamespaceId(bytes(32)), 1, bytes(HEAD_SIZE_MAX + 1)),
    "too many heads": Heads((LogHead(NamespaceId(bytes(32)), 1, b""),) * (HEADS_PAGE + 1), False),
    "too many announced heads": Announcement(
        b"", (LogHead(NamespaceId(bytes(32)), 1, b""),) * (ANNOUNCED_HEADS_MAX + 1)
    ),
    "an identity without documents": IdentityChain(()),
    "an identity with too many documents": IdentityChain(values.identity().chain * (CHAIN_MAX + 1)),
    "entries before the first": LogPage(-1, ()),
    "a question about no file": HaveQuery(()),
    "a question about too many files": HaveQuery((ROOT,) * (HAVE_ROOTS_MAX + 1)),
    "an answer about too many files": Have((True,) * (HAVE_ROOTS_MAX + 1)),
    "an answer that is a number": Have((1,)),  # type: ignore[arg-type]
    "a question for no page": TreesQuery(()),
    "a question for too many pages": TreesQuery((PageRef(ROOT, 0),) * (TREE_PAGES_MAX + 1)),
    "a page below 0": TreesQuery((PageRef(ROOT, -1),)),
    "too many pages": Trees((None,) * (TREE_PAGES_MAX + 1)),
    "a question for no bytes": SpansQuery(()),
    "too many spans": SpansQuery((ByteRange(ROOT, 0, 1),) * (SPANS_MAX + 1)),
    "a span of nothing": SpansQuery((ByteRange(ROOT, 0, 0),)),
    "a span over the limit": SpansQuery((ByteRange(ROOT, 0, SPAN_BYTES_MAX + 1),)),
    "a span before the file": SpansQuery((ByteRange(ROOT, -1, 1),)),
    "a question for no ticket": TicketsQuery(0),
    "a question for too many tickets": TicketsQuery(TICKETS_PER_QUERY_MAX + 1),
    "no tickets": Tickets(()),
    "too many tickets": Tickets((TICKET,) * (TICKETS_PER_QUERY_MAX + 1)),
    "a ticket with a short id": Tickets((replace(TICKET, id=bytes(15)),)),
    "a ticket with a long key": Tickets((replace(TICKET, server_key=bytes(17)),)),
    "a ticket that is over": Tickets((replace(TICKET, ttl=0),)),
    "an answer with an unknown class of status": BulkAnswer(600, 0),
    "an answer over the limit": BulkAnswer(200, SPAN_BYTES_MAX + 1),
    "an answer with too many words": BulkAnswer(404, 0, 0, "x" * 201),
    "a span beyond any file": SpansQuery((ByteRange(ROOT, FILE_SIZE_MAX + 1, 1),)),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_refuses(what: str) -> None:
    with pytest.raises(InvalidEncoding):
        round_trip(REFUSED[what])


@pytest.mark.parametrize(
    ("message", "size_max"),
    [
        (HaveQuery((ROOT,) * HAVE_ROOTS_MAX), LARGE_QUERY_SIZE_MAX),
        (TreesQuery((PageRef(ROOT, FILE_SIZE_MAX),) * TREE_PAGES_MAX), LARGE_QUERY_SIZE_MAX),
        (SpansQuery((ByteRange(ROOT, FILE_SIZE_MAX, SPAN_BYTES_MAX),) * SPANS_MAX), LARGE_QUERY_SIZE_MAX),
        (Announcement(RECORD, (HEAD,) * ANNOUNCED_HEADS_MAX), FRAME_SIZE_MAX),
        (Heads((HEAD,) * HEADS_PAGE, True), ANSWER_SIZE_MAX),
        (Nodes((RECORD,) * NODES_MAX), ANSWER_SIZE_MAX),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Struct) else "",
)
def test_the_largest_message_fits_its_limit(message: Struct, size_max: int) -> None:
    assert round_trip(message, size_max=size_max) == message


def test_the_keys_of_a_ticket_are_in_no_text() -> None:
    for text in (repr(TICKET), str(TICKET), repr(Tickets((TICKET,)))):
        assert "ccc" not in text
        assert "sss" not in text


def test_a_bitmap_is_told_from_all_and_none() -> None:
    held: Any = round_trip(Have((True, False, b"\x01", b"\x00")))

    assert [type(value) for value in held.held] == [bool, bool, bytes, bytes]
