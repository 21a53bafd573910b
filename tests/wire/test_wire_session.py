"""Sessions: what each end makes of what comes, right or wrong."""

import tracemalloc
from collections.abc import Callable, Sequence

import msgspec
import pytest

from mbctl import batch as batches
from mbctl.errors import ProtocolError, TopicNotFound
from mbctl.model import LIMITS, Limits
from mbctl.wire import messages as wire
from mbctl.wire.frames import frame
from mbctl.wire.session import (
    REPLY_FRAMES,
    WELCOME_BYTES,
    ClientSession,
    Fatal,
    Rejected,
    ServerSession,
)

HELLO = wire.encode(wire.Hello(1, 1, 1, "test"))
PING = wire.encode(wire.Ping(9))
MIB = 1 << 20


def packed(*elements: object) -> bytes:
    return frame(msgspec.msgpack.encode(elements))


def array32(count: int) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big")


def open_server(limits: Limits = LIMITS) -> ServerSession:
    session = ServerSession(limits)
    session.feed(HELLO)
    assert session.is_open
    return session


def open_client(limits: Limits = LIMITS) -> ClientSession:
    session = ClientSession()
    session.feed(wire.encode(wire.Welcome(1, 1, "0", "local", "memory", limits)))
    assert session.is_open
    return session


def fatal_error(events: Sequence[object]) -> ProtocolError:
    (event,) = events
    assert isinstance(event, Fatal)
    assert isinstance(event.error, ProtocolError)
    return event.error


# --- the server's opening -------------------------------------------------------------------


def test_hello_opens_the_session() -> None:
    session = ServerSession()
    assert not session.is_open
    assert session.feed(HELLO) == [wire.Hello(1, 1, 1, "test")]
    assert session.is_open


def test_requests_right_behind_the_hello_are_read() -> None:
    large = wire.encode(wire.Send(2, "orders", 1, 0, msgspec.Raw(batches.encode([b"x" * 10_000]))))
    hello, send, ping = ServerSession().feed(HELLO + large + PING)
    assert isinstance(hello, wire.Hello)
    assert isinstance(send, wire.Send)
    assert ping == wire.Ping(9)


@pytest.mark.parametrize(
    "first",
    [
        PING,
        packed("hello"),
        packed("hello", 1),
        packed("hello", 1, "1", 1, "test"),
        packed("hello", 0, 1, 1, "test"),
        packed("welcome", 1, 1, "0", "local", "memory", {}),
        packed("fly", 1),
        frame(b"\xc1"),
        b"\x00\x00\x00\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
    ids=repr,
)
def test_first_frame_that_is_no_hello_ends_the_session(first: bytes) -> None:
    session = ServerSession()
    fatal_error(session.feed(first + HELLO))
    assert not session.is_open


def test_first_frame_may_have_4_kib_and_no_more() -> None:
    filler = "x" * 1000
    hello = msgspec.msgpack.encode(["hello", 1, 1, 1, "test", *[filler] * 4])
    fill = "x" * (4096 - len(hello) - 2)
    longest = msgspec.msgpack.encode(["hello", 1, 1, 1, "test", *[filler] * 4, fill])
    assert len(longest) == 4096
    assert ServerSession().feed(frame(longest)) == [wire.Hello(1, 1, 1, "test")]
    error = fatal_error(ServerSession().feed((4097).to_bytes(4, "big")))
    assert "4097 bytes; 1 to 4096" in error.reason


@pytest.mark.parametrize(
    ("oldest", "newest"), [(2, 3), (0, 0), (-5, -1), (3, 1), (2**63, 2**64 - 1)]
)
def test_hello_of_other_versions_is_a_version_mismatch(oldest: int, newest: int) -> None:
    (event,) = ServerSession().feed(packed("hello", 1, oldest, newest, "test"))
    assert isinstance(event, Fatal)
    assert event.error.code == "VersionMismatch"
    assert event.error.details == {"client": f"{oldest} to {newest}", "server": "1"}


def test_hello_of_a_later_version_that_speaks_ours_is_welcome() -> None:
    (event,) = ServerSession().feed(packed("hello", 1, 1, 7, "test", {"later": 1}))
    assert event == wire.Hello(1, 1, 7, "test")


def test_second_hello_is_refused() -> None:
    rejected, ping = open_server().feed(packed("hello", 5, 1, 1, "test") + PING)
    assert isinstance(rejected, Rejected)
    assert (rejected.id, rejected.error.code) == (5, "InvalidArgument")
    assert "only once" in str(rejected.error)
    assert ping == wire.Ping(9)


def test_frame_limit_is_the_one_configured() -> None:
    limits = Limits(frame_bytes=5000)
    assert open_server(limits).feed((5000).to_bytes(4, "big")) == []
    fatal_error(open_server(limits).feed((5001).to_bytes(4, "big")))


# --- requests that are wrong ------------------------------------------------------------------

LONGEST = "x" * 1024
BAD_UTF8 = frame(b"\x93\xa5topic\x07\xa2\xff\xfe")
SURROGATE = frame(b"\x93\xa5topic\x07\xa3\xed\xa0\x80")

REFUSED = {
    "unknown verb": (packed("fly", 7, 1, 2), "NotSupported"),
    "empty verb": (packed("", 7), "NotSupported"),
    "reply": (packed("done", 7), "NotSupported"),
    "verb of another case": (packed("PING", 7), "NotSupported"),
    "missing field": (packed("topic", 7), "InvalidArgument"),
    "nil for text": (packed("topic", 7, None), "InvalidArgument"),
    "bytes for text": (packed("topic", 7, b"orders"), "InvalidArgument"),
    "text for bytes": (packed("registerPublisher", 7, "0123456789abcdef"), "InvalidArgument"),
    "float for int": (packed("cancel", 7, 1.0), "InvalidArgument"),
    "bool for int": (packed("cancel", 7, True), "InvalidArgument"),
    "int for bool": (packed("createTopic", 7, "t", {}, 1), "InvalidArgument"),
    "array for map": (packed("createTopic", 7, "t", []), "InvalidArgument"),
    "bad choice": (packed("createTopic", 7, "t", {"when_full": "burst"}), "InvalidArgument"),
    "range of one": (packed("ack", 7, "t", 1, [[1]]), "InvalidArgument"),
    "range of three": (packed("ack", 7, "t", 1, [[1, 2, 3]]), "InvalidArgument"),
    "range of text": (packed("ack", 7, "t", 1, [["1", "2"]]), "InvalidArgument"),
    "bad acknowledge": (packed("pull", 7, "t", 1, None, 0, [1]), "InvalidArgument"),
    "text too long": (packed("topic", 7, LONGEST + "x"), "InvalidArgument"),
    "too many ranges": (packed("ack", 7, "t", 1, [[0, 1]] * 10_001), "InvalidArgument"),
    "too many carried": (
        packed("pull", 7, "t", 1, 1, 1, [1, [[0, 1]] * 10_001]),
        "InvalidArgument",
    ),
    "invalid UTF-8": (BAD_UTF8, "InvalidArgument"),
    "surrogate": (SURROGATE, "InvalidArgument"),
}


@pytest.mark.parametrize(("data", "code"), REFUSED.values(), ids=REFUSED)
def test_malformed_request_is_rejected_with_its_id(data: bytes, code: str) -> None:
    rejected, ping = open_server().feed(data + PING)
    assert isinstance(rejected, Rejected)
    assert (rejected.id, rejected.error.code) == (7, code)
    assert ping == wire.Ping(9)


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (packed("topic", 7, None), "`topic`"),
        (packed("createTopic", 7, "t", {"max_age": "1h"}), "`settings.max_age`"),
        (packed("pull", 7, "t", 1, 1, 1, [1, [["0", 1]]]), "`acknowledge[1][0][0]`"),
        (packed("pull", 7, "t", "all"), "`max_messages`"),
    ],
)
def test_malformed_request_is_told_what_of_it_is_wrong(data: bytes, field: str) -> None:
    (rejected,) = open_server().feed(data)
    assert isinstance(rejected, Rejected)
    assert rejected.error.message.endswith(f" - at {field}")


def test_text_and_ranges_at_their_limits_are_taken() -> None:
    assert open_server().feed(packed("topic", 7, LONGEST)) == [wire.GetTopic(7, LONGEST)]
    (ack,) = open_server().feed(packed("ack", 7, "t", 1, [[0, 1]] * 10_000))
    assert ack == wire.Ack(7, "t", 1, [(0, 1)] * 10_000)


FATAL = {
    "nil": b"\xc0",
    "never used byte": b"\xc1",
    "int": b"\x05",
    "text": b"\xa4ping",
    "map": msgspec.msgpack.encode({"tag": "ping", "id": 7}),
    "extension": b"\xd6\xff\x00\x00\x00\x07",
    "empty array": b"\x90",
    "verb alone": b"\x91\xa4ping",
    "verb of bytes": b"\x92\xc4\x04ping\x07",
    "verb of nil": b"\x92\xc0\x07",
    "verb of invalid UTF-8": b"\x92\xa2\xff\xfe\x07",
    "no id": b"\x92\xa4ping\xc0",
    "id 0": b"\x92\xa4ping\x00",
    "negative id": b"\x92\xa4ping\xff",
    "smallest id": b"\x92\xa4ping\xd3\x80" + bytes(7),
    "id of 64 bits": b"\x92\xa4ping\xcf\x80" + bytes(7),
    "float id": b"\x92\xa4ping\xcb\x3f\xf0" + bytes(6),
    "bool id": b"\x92\xa4ping\xc3",
    "text id": b"\x92\xa4ping\xa17",
    "bytes left over": b"\x92\xa4ping\x07\xc0",
    "two values": b"\x92\xa4ping\x07" * 2,
    "truncated": b"\x93\xa5topic\x07\xa6order",
    "claimed array": array32(2**32 - 1),
    "claimed field array": b"\x95\xa3ack\x07\xa1t\x01" + array32(10_000),
    "claimed map": b"\x94\xabcreateTopic\x07\xa1t\xdf\xff\xff\xff\xff",
    "claimed text": b"\x93\xa5topic\x07\xdb\xff\xff\xff\xff",
    "claimed bytes": b"\x93\xb1registerPublisher\x07\xc6\xff\xff\xff\xff",
    "claimed batch": b"\x96\xa4send\x07\xa1t\x01\x00" + array32(2**32 - 1),
    "claimed extension": b"\x93\xa4ping\x07\xc9\xff\xff\xff\xff\x01",
    "deep array": b"\x91" * 100_000 + b"\xc0",
    "deep field": b"\x93\xa5topic\x07" + b"\x91" * 100_000 + b"\xc0",
    "deep extra field": b"\x93\xa4ping\x07" + b"\x91" * 100_000 + b"\xc0",
    "deep map": b"\x94\xabcreateTopic\x07\xa1t" + b"\x81\xa1x" * 100_000 + b"\xc0",
    "deep batch": b"\x96\xa4send\x07\xa1t\x01\x00" + b"\x91" * 100_000 + b"\xc0",
}


@pytest.mark.parametrize("content", FATAL.values(), ids=FATAL)
def test_frame_that_is_no_message_ends_the_session(content: bytes) -> None:
    session = open_server()
    error = fatal_error(session.feed(frame(content) + PING))
    assert error.reason.startswith("a frame that is no message")
    assert session.feed(PING) == []


def test_extra_fields_are_ignored_whatever_they_hold() -> None:
    extra = b"\x81\xa2\xff\xfe\x92\xc3\xcb" + bytes(8)
    (event,) = open_server().feed(frame(b"\x94\xa4ping\x07" + extra + b"\xc7\x01\x05\x00"))
    assert event == wire.Ping(7)


def test_requests_before_the_end_are_still_read() -> None:
    ping, fatal = open_server().feed(PING + b"\x00\x00\x00\x00" + PING)
    assert ping == wire.Ping(9)
    assert isinstance(fatal, Fatal)


def test_session_that_ended_keeps_nothing_of_what_comes() -> None:
    session = open_server()
    session.feed(b"\xff\xff\xff\xff" + b"x" * 1000)
    assert session.buffered == 0
    assert session.feed(b"x" * 1000) == []
    assert session.buffered == 0


def test_buffered_counts_an_incomplete_frame() -> None:
    session = open_server()
    assert session.feed(PING + PING[:7]) == [wire.Ping(9)]
    assert session.buffered == 7
    assert session.feed(PING[7:]) == [wire.Ping(9)]
    assert session.buffered == 0


@pytest.mark.parametrize(
    "data",
    [
        packed("x" * MIB, 7),
        packed("createTopic", 7, "t", {"when_full": "x" * MIB}),
        packed("topic", 7, "x" * MIB),
        frame(b"\x93\xa5topic\x07" + b"\xdb\x00\x10\x00\x00" + b"\xff" * MIB),
    ],
    ids=["verb", "choice", "name", "invalid UTF-8"],
)
def test_error_repeats_little_of_what_the_peer_sent(data: bytes) -> None:
    (event,) = open_server().feed(data)
    assert isinstance(event, Rejected)
    assert len(wire.encode(wire.Error.of(event.id, event.error))) < 1000
    assert event.error.__cause__ is None
    assert event.error.__context__ is None


# --- memory -----------------------------------------------------------------------------------


def peak_of(call: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


HUNGRY = {
    "elements of an unknown verb": array32(MIB) + b"\xa3fly\x07" + b"\xc0" * (MIB - 2),
    "extra elements": array32(MIB) + b"\xa4ping\x07" + b"\xc0" * (MIB - 2),
    "ranges": b"\x95\xa3ack\x07\xa1t\x01" + array32(MIB) + b"\x92\x00\x01" * MIB,
    "carried ranges": b"\x97\xa4pull\x07\xa1t\x01\x01\x00\x92\x01"
    + array32(MIB)
    + b"\x92\x00\x01" * MIB,
    "settings": b"\x94\xabcreateTopic\x07\xa1t\xdf\x00\x10\x00\x00" + b"\xa0\xc0" * MIB,
    "batch": b"\x96\xa4send\x07\xa1t\x01\x00\x91" + array32(MIB) + b"\xc4\x00" * MIB,
    "nested arrays that lie": b"\x95\xa3ack\x07\xa1t\x01" + (array32(MIB) * 200_000),
    "text": b"\x93\xa5topic\x07\xdb\x00\x10\x00\x00" + b"x" * MIB,
}


@pytest.mark.parametrize("content", HUNGRY.values(), ids=HUNGRY)
def test_memory_is_bounded_by_what_came(content: bytes) -> None:
    session, data = open_server(), frame(content)
    assert len(data) < LIMITS.frame_bytes
    # One copy is the frame itself, and a text is held twice while it is read.
    assert peak_of(lambda: session.feed(data)) < 3 * len(data) + 16_384


def test_memory_is_bounded_when_a_large_frame_comes_in_pieces() -> None:
    session = open_server()
    data = wire.encode(wire.Send(7, "t", 1, 0, msgspec.Raw(batches.encode([b"x" * 4 * MIB]))))

    def feed() -> None:
        for at in range(0, len(data), 65_536):
            events = session.feed(data[at : at + 65_536])
        assert len(events) == 1

    assert peak_of(feed) < 3 * len(data)


# --- the client's end ---------------------------------------------------------------------------


def test_replies_are_read() -> None:
    sent = wire.encode(wire.Sent(7, 0, 1))
    refused = wire.encode(wire.Error.of(8, TopicNotFound(topic="t")))
    assert open_client().feed(sent + refused) == [
        wire.Sent(7, 0, 1),
        wire.Error(8, "TopicNotFound", {"topic": "t"}),
    ]


@pytest.mark.parametrize("first", [wire.Done(1), wire.Sent(1, 0, 1)])
def test_first_reply_must_be_a_welcome(first: wire.Message) -> None:
    session = ClientSession()
    error = fatal_error(session.feed(wire.encode(first)))
    assert "must be a welcome" in error.reason
    assert not session.is_open


@pytest.mark.parametrize("id_", [0, 1])
def test_error_instead_of_a_welcome_ends_the_session_with_it(id_: int) -> None:
    (event,) = ClientSession().feed(
        packed("error", id_, "LimitExceeded", {"what": "x", "limit": 1})
    )
    assert isinstance(event, Fatal)
    assert event.error.code == "LimitExceeded"


def test_error_with_id_0_ends_the_session_with_it() -> None:
    session = open_client()
    done, event = session.feed(packed("done", 3) + packed("error", 0, "ServerStopping", {}))
    assert done == wire.Done(3)
    assert isinstance(event, Fatal)
    assert event.error.code == "ServerStopping"
    assert session.feed(packed("done", 4)) == []


def test_error_of_an_unknown_code_is_a_server_error() -> None:
    (event,) = open_client().feed(packed("error", 0, "Newfangled", {"x": 1}))
    assert isinstance(event, Fatal)
    assert event.error.code == "ServerError"
    assert "Newfangled" in str(event.error)


def test_details_of_an_error_cannot_replace_what_it_is_made_of() -> None:
    details = {name: "x" for name in ("topic", "self", "args", "with_traceback", "hint", "details")}
    (event,) = open_client().feed(packed("error", 0, "TopicNotFound", details))
    assert isinstance(event, Fatal)
    assert event.error.details == {"topic": "x"}


@pytest.mark.parametrize(
    "data",
    [
        packed("flown", 7),
        packed("ping", 7),
        packed("sent", 7, "0", 1),
        packed("sent", 7),
        packed("sent", 0, 0, 1),
        packed("error", -1, "TopicNotFound", {}),
        packed("error", 7, "TopicNotFound", {"topic": None}),
        frame(b"\xc0"),
        b"\x00\x00\x00\x00",
    ],
    ids=repr,
)
def test_reply_that_cannot_be_read_ends_the_session(data: bytes) -> None:
    fatal_error(open_client().feed(data))


def test_first_reply_is_bounded_and_later_ones_by_what_the_welcome_says() -> None:
    too_long = (WELCOME_BYTES + 1).to_bytes(4, "big")
    assert ClientSession().feed(WELCOME_BYTES.to_bytes(4, "big")) == []
    fatal_error(ClientSession().feed(too_long))
    limits = Limits(frame_bytes=20_000)
    assert open_client(limits).feed((REPLY_FRAMES * 20_000).to_bytes(4, "big")) == []
    fatal_error(open_client(limits).feed((REPLY_FRAMES * 20_000 + 1).to_bytes(4, "big")))


def test_welcome_of_a_later_server_opens_with_the_limits_we_know() -> None:
    session = ClientSession()
    limits = {"frame_bytes": 9000, "later_bytes": 5}
    (event,) = session.feed(packed("welcome", 1, 1, "9", "local", "memory", limits, "later"))
    assert isinstance(event, wire.Welcome)
    assert event.limits == Limits(frame_bytes=9000)
