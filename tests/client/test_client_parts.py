"""The small parts of the client: addresses, time, and what becomes a batch."""

import time
from datetime import datetime, timedelta, timezone
from enum import Enum
from fractions import Fraction
from typing import Any

import pytest

from mbctl import InvalidArgument, Timeout
from mbctl import batch as batches
from mbctl.client import address, packing
from mbctl.client.backoff import Backoff
from mbctl.client.deadline import Deadline
from mbctl.model import Limits
from mbctl.wire import messages as wire

# --- addresses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("127.0.0.1:5555", "127.0.0.1", 5555, "127.0.0.1:5555"),
        ("broker", "broker", 5555, "broker:5555"),
        ("broker:1", "broker", 1, "broker:1"),
        ("mb://broker:65535", "broker", 65535, "broker:65535"),
        ("mb://broker/", "broker", 5555, "broker:5555"),
        ("[::1]:7", "::1", 7, "[::1]:7"),
        ("[::1]", "::1", 5555, "[::1]:5555"),
        ("mb://[fe80::1]:7", "fe80::1", 7, "[fe80::1]:7"),
        (":7", "127.0.0.1", 7, "127.0.0.1:7"),
    ],
)
def test_an_address_is_read_and_shown(text: str, host: str, port: int, shown: str) -> None:
    parsed = address.parse(text)
    assert (parsed.host, parsed.port, str(parsed)) == (host, port, shown)
    assert address.parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "host:0",
        "host:65536",
        "host:-1",
        "host:",
        "host:x",
        "host:1:",
        "a b:1",
        "a/b:1",
        "h:٣",
        "::1",
        "::1:7",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="is no address"):
        address.parse(text)


@pytest.mark.parametrize("text", [None, 5555, b"127.0.0.1"])
def test_what_is_no_text_is_no_address(text: Any) -> None:
    with pytest.raises(InvalidArgument, match="an address is str"):
        address.parse(text)


# --- time ---------------------------------------------------------------------------------------


def test_a_deadline_runs_out() -> None:
    deadline = Deadline(0.01)
    assert 0 < deadline.remaining <= 0.01
    end = time.monotonic() + 0.01
    while time.monotonic() < end:
        pass
    assert deadline.remaining <= 0


def test_a_deadline_tells_how_long_it_was() -> None:
    error = Deadline(2.5).timeout("the answer")
    assert isinstance(error, Timeout)
    assert str(error) == "the answer took longer than 2.5 s"


def test_the_earlier_of_two_moments_counts() -> None:
    soon, late = Deadline(1), Deadline(100)
    assert soon.within(50) is soon
    assert 49 < late.within(50).remaining <= 50


def test_waits_between_attempts_double_up_to_a_second() -> None:
    backoff = Backoff()
    waits = [backoff.next_s() for _ in range(12)]
    bounds = [min(0.02 * 2**n, 1.0) for n in range(12)]
    for wait, bound in zip(waits, bounds, strict=True):
        assert bound / 2 <= wait <= bound
    assert len({Backoff().next_s() for _ in range(10)}) > 1


# --- what becomes a batch -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "packed"),
    [(b"a", b"a"), ("ä", "ä".encode()), (bytearray(b"a"), b"a"), (memoryview(b"abc")[1:], b"bc")],
)
def test_bytes_and_text_become_bytes(value: Any, packed: bytes) -> None:
    assert packing.to_bytes(value) == packed
    assert packing.to_payloads([value, b"x"]) == [packed, b"x"]


@pytest.mark.parametrize("value", [None, 5, ["a"], "\ud800"])
def test_anything_else_does_not(value: Any) -> None:
    with pytest.raises(InvalidArgument):
        packing.to_bytes(value)
    with pytest.raises(InvalidArgument):
        packing.to_payloads([b"x", value])


@pytest.mark.parametrize("values", [None, 5, "ab", b"ab", bytearray(b"ab"), memoryview(b"ab")])
@pytest.mark.parametrize("pack", [packing.to_payloads, packing.to_keys, packing.to_headers])
def test_one_value_is_no_list_of_them(pack: Any, values: Any) -> None:
    if values is None and pack is not packing.to_payloads:
        assert pack(values) is None
    else:
        with pytest.raises(InvalidArgument, match=f"are a list, not {type(values).__name__}"):
            pack(values)


def test_columns_that_are_empty_are_not_left_out() -> None:
    for keys, headers in (([], None), (None, [])):
        with pytest.raises(InvalidArgument, match="1 payloads but 0"):
            packing.pack([b"a"], packing.to_keys(keys), packing.to_headers(headers), Limits())


class Text(str):
    """A text of somebody's own class."""


class Colour(Text, Enum):
    """Texts that say something else when they are shown."""

    RED = "red"


class Blob(bytes):
    """Bytes of somebody's own class."""


def test_texts_and_bytes_of_other_classes_are_packed_as_what_they_are() -> None:
    payloads = packing.to_payloads([Blob(b"a"), Text("b"), Colour.RED])
    keys = packing.to_keys([Blob(b"k"), None, Colour.RED])
    headers = packing.to_headers([{Text("h"): Colour.RED}, None, {Colour.RED: Text("v")}])
    for sent in (payloads, [packing.to_bytes(payload) for payload in (Blob(b"a"), "b", "red")]):
        batch = packing.pack(sent, keys, headers, Limits())
        columns = batches.decode(bytes(batch))
        assert columns.payloads == [b"a", b"b", b"red"]
        assert columns.keys == [b"k", None, b"red"]
        assert columns.headers == [{"h": "red"}, None, {"red": "v"}]
    assert packing.to_frame(wire.GetTopic(1, Text("t"))) == wire.encode(wire.GetTopic(1, "t"))


def test_payloads_that_are_bytes_are_not_copied() -> None:
    payloads: list[packing.Payload] = [b"first", b"second"]
    listed = packing.to_payloads(payloads)
    assert all(ours is theirs for ours, theirs in zip(listed, payloads, strict=True))


def test_columns_that_say_nothing_are_left_out() -> None:
    assert packing.to_keys([None, None]) is None
    assert packing.to_headers([None, {}]) is None
    assert packing.to_keys([None, "k"]) == [None, b"k"]
    assert packing.to_headers([None, {}, {"a": "b"}]) == [None, None, {"a": "b"}]


def test_a_packed_batch_is_what_the_server_validates() -> None:
    batch = packing.pack([b"a", b"b"], [None, b"k"], [{"h": "v"}, None], Limits())
    assert batches.validate(batch) == 2
    assert batches.decode(batch).payloads == [b"a", b"b"]


@pytest.mark.parametrize(
    ("seconds", "ms"),
    [(0, 0), (5e-324, 1), (0.0014, 1), (Fraction(3, 2), 1500), (-2, -2000), (1e12, 10**15)],
)
def test_seconds_become_milliseconds(seconds: float, ms: int) -> None:
    assert packing.to_ms(seconds, "wait") == ms


@pytest.mark.parametrize(
    "seconds", [float("nan"), float("inf"), -1e300, 10**400, None, "1", True, [1]]
)
def test_seconds_that_are_no_number_do_not(seconds: Any) -> None:
    with pytest.raises(InvalidArgument, match="wait"):
        packing.to_ms(seconds, "wait")


@pytest.mark.parametrize("zone", [None, timezone(timedelta(hours=14))])
def test_a_time_that_no_clock_shows_is_refused(zone: timezone | None) -> None:
    with pytest.raises(InvalidArgument, match="from 1970 to 2262"):
        packing.to_start(datetime.min.replace(tzinfo=zone))


def test_offsets_become_ranges() -> None:
    assert packing.to_ranges(None) is None
    assert packing.to_ranges(iter([3, 1, 2, 2, 7])) == [(1, 4), (7, 8)]


@pytest.mark.parametrize(
    "offsets", [5, True, "12", b"12", [-1], [2**63 - 1], [True], [1.0], [[1]], [None]]
)
def test_what_is_no_offset_is_refused(offsets: Any) -> None:
    with pytest.raises(InvalidArgument, match="offset"):
        packing.to_ranges(offsets)


@pytest.mark.parametrize(
    "request_",
    [
        wire.GetTopic(1, "\ud800"),
        wire.Subscribe(1, "t", 2**70),
        wire.GetTopic(1, object()),  # type: ignore[arg-type]
    ],
)
def test_a_request_that_cannot_be_packed_is_refused(request_: wire.Message) -> None:
    with pytest.raises(InvalidArgument, match="cannot be sent"):
        packing.to_frame(request_)
