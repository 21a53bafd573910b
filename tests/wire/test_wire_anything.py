"""Anything at all fed to a session: typed events, the same however it is cut, no growth."""

import tracemalloc
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from mbctl import batch as batches
from mbctl.model import LIMITS
from mbctl.wire import messages as wire
from mbctl.wire.frames import frame
from mbctl.wire.session import ClientSession, Fatal, Rejected, ServerSession

ME = bytes(range(16))
BATCH = msgspec.Raw(batches.encode([b"one", b""], [b"k", None], [None, {"type": "new"}]))
REQUESTS: list[wire.Message] = [
    wire.Hello(1, 1, 1, "test"),
    wire.RegisterPublisher(2, ME, "till"),
    wire.CreateTopic(3, "orders"),
    wire.Send(4, "orders", 1, 0, BATCH),
    wire.RegisterSubscriber(5, ME, None),
    wire.Subscribe(6, "orders", "earliest"),
    wire.Pull(7, "orders", 10, None, 5000, wire.Acknowledge(1, [(0, 1)])),
    wire.Nack(8, "orders", 1, [(1, 2), (4, 9)], 50),
    wire.Cancel(9, 7),
    wire.GetStatus(10),
]
REPLIES: list[wire.Message] = [
    wire.Welcome(1, 1, "0", "local", "memory", LIMITS),
    wire.Done(2),
    wire.Created(3, 1, True),
    wire.Sent(4, 0, 2),
    wire.Pulled(7, 1, 0, [wire.Piece(0, 5, 1, BATCH), wire.Piece(2, 6, 3, BATCH)]),
    wire.Error(8, "TopicNotFound", {"topic": "orders"}),
    wire.TopicsReply(9, []),
]
ASKED = [wire.encode(message) for message in REQUESTS]
ANSWERED = [wire.encode(message) for message in REPLIES]

scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats()
values = st.recursive(
    scalars | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)
tags = st.sampled_from([str(m.__struct_config__.tag) for m in [*REQUESTS, *REPLIES]])
messages = st.builds(
    lambda tag, id_, fields: [tag, id_, *fields],
    tags | st.text(max_size=10),
    st.integers(1, 100),
    st.lists(values, max_size=6),
)
cuts = st.lists(st.integers(0, 4000), max_size=30)


@st.composite
def mutated(draw: st.DrawFn, frames: list[bytes]) -> bytes:
    """A conversation with some of its bytes changed, dropped, put in or repeated."""
    data = bytearray(b"".join(frames))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        size = draw(st.integers(0, 8))
        inserted = draw(st.binary(max_size=8) | st.just(bytes(data[at : at + 40])))
        data[at : at + size] = inserted
    return bytes(data)


def told(events: list[Any]) -> list[object]:
    """Events in a form that can be compared."""
    return [
        wire.encode(event)
        if isinstance(event, wire.Message)
        else (type(event), getattr(event, "id", None), event.error.code, str(event.error))
        for event in events
    ]


def fed(session: ServerSession | ClientSession, data: bytes, at: list[int]) -> list[Any]:
    """The events of ``data`` cut at ``at``, of which only the last may be a Fatal."""
    edges = sorted({0, len(data), *(position for position in at if position < len(data))})
    events: list[Any] = []
    for first, next_ in pairwise(edges):
        events += session.feed(data[first:next_])
        assert session.buffered <= len(data)
    for event in events:
        assert isinstance(event, wire.Message | Rejected | Fatal)
    assert not any(isinstance(event, Fatal) for event in events[:-1])
    if events and isinstance(events[-1], Fatal):
        assert session.feed(ASKED[0] + ANSWERED[0]) == []
        assert session.buffered == 0
    return events


@settings(deadline=None)
@given(st.binary(max_size=200), st.booleans(), cuts)
def test_any_bytes_give_typed_events(data: bytes, opened: bool, at: list[int]) -> None:
    for session_type, opening in ((ServerSession, ASKED[0]), (ClientSession, ANSWERED[0])):
        start = opening if opened else b""
        fed(session_type(), start + data, at)


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=60), max_size=5))
def test_any_frames_give_one_event_each_until_one_ends_it(contents: list[bytes]) -> None:
    events = fed(ServerSession(), ASKED[0] + b"".join(map(frame, contents)), [])
    if isinstance(events[-1], Fatal):
        assert len(events) <= len(contents) + 1
    else:
        assert len(events) == len(contents) + 1


@settings(max_examples=50, deadline=None)
@given(st.lists(messages, min_size=1, max_size=5))
def test_any_well_formed_request_is_read_or_rejected_with_its_id(asked: list[list[Any]]) -> None:
    data = b"".join(frame(msgspec.msgpack.encode(message)) for message in asked)
    events = fed(ServerSession(), ASKED[0] + data, [])[1:]
    assert [event.id for event in events] == [message[1] for message in asked]


@settings(max_examples=100, deadline=None)
@given(mutated(ASKED), cuts)
def test_cutting_never_changes_what_a_server_reads(data: bytes, at: list[int]) -> None:
    whole = told(fed(ServerSession(), data, []))
    assert told(fed(ServerSession(), data, at)) == whole
    assert told(fed(ServerSession(), data, list(range(len(data))))) == whole


@settings(max_examples=100, deadline=None)
@given(mutated(ANSWERED), cuts)
def test_cutting_never_changes_what_a_client_reads(data: bytes, at: list[int]) -> None:
    whole = told(fed(ClientSession(), data, []))
    assert told(fed(ClientSession(), data, at)) == whole
    assert told(fed(ClientSession(), data, list(range(len(data))))) == whole


def test_conversation_that_nobody_changed_is_read_as_it_was_written() -> None:
    assert told(fed(ServerSession(), b"".join(ASKED), [])) == ASKED
    assert told(fed(ClientSession(), b"".join(ANSWERED), [])) == ANSWERED


@settings(max_examples=60, deadline=None)
@given(mutated([frame(b"\xdd\xff\xff\xff\xff"), *ASKED, *ASKED[1:]]) | mutated(ASKED), cuts)
def test_anything_takes_memory_in_proportion_to_its_bytes(data: bytes, at: list[int]) -> None:
    session = ServerSession()
    # What is built once and kept, whoever asks, is not this stream's.
    fed(ServerSession(), b"".join(ASKED) + b"\xff\xff\xff\xff", [])
    tracemalloc.start()
    try:
        fed(session, data, at)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The shortest request has 11 bytes and is an object of some 100, errors have a few more.
    assert peak < 30 * len(data) + 32_768
