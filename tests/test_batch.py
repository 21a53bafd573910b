"""Batches: what is encoded is valid, what lies is refused, parts are what they were."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mbctl import batch as batches
from mbctl.batch import Columns
from mbctl.errors import (
    BatchTooLarge,
    InvalidArgument,
    MessageTooLarge,
    RequestRefused,
)
from mbctl.model import LIMITS, Limits

MIB = 1 << 20
keys = st.none() | st.binary(max_size=20)
header_sets = st.none() | st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=4)


@st.composite
def columns(draw: st.DrawFn) -> Columns:
    payloads = draw(st.lists(st.binary(max_size=300), min_size=1, max_size=20))
    count = len(payloads)
    return Columns(
        payloads,
        draw(st.none() | st.lists(keys, min_size=count, max_size=count)),
        draw(st.none() | st.lists(header_sets, min_size=count, max_size=count)),
    )


def encoded(batch: Columns) -> bytes:
    return batches.encode(batch.payloads, batch.keys, batch.headers)


def packed(*elements: Any) -> bytes:
    return msgspec.msgpack.encode(elements)


def array32(count: int) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big")


# --- encode, decode, validate -------------------------------------------------------------------


@settings(deadline=None)
@given(columns())
def test_batch_comes_back_as_it_was_encoded(batch: Columns) -> None:
    data = encoded(batch)
    assert batches.decode(data) == batch
    assert batches.validate(data) == len(batch.payloads)


@pytest.mark.parametrize("count", [1, 15, 16, 300])
@pytest.mark.parametrize("size", [0, 255, 256, 65_535, 65_536])
def test_batch_in_parts_is_the_same_and_copies_no_payload(count: int, size: int) -> None:
    payloads = [bytes([number % 256]) * size for number in range(count)]
    parts = batches.encode_parts(payloads)
    assert b"".join(parts) == batches.encode(payloads)
    assert all(part is payload for part, payload in zip(parts[1::2], payloads, strict=True))


@settings(deadline=None)
@given(columns())
def test_batch_is_one_array_of_columns(batch: Columns) -> None:
    plain = batch.keys is None and batch.headers is None
    expected = [batch.payloads] if plain else [batch.payloads, batch.keys, batch.headers]
    assert msgspec.msgpack.decode(encoded(batch)) == expected


@pytest.mark.parametrize("buffer", [bytes, bytearray, memoryview, msgspec.Raw])
def test_batch_may_lie_in_any_buffer(buffer: type) -> None:
    batch = buffer(batches.encode([b"one", b"two"], [b"k", None], [None, {"type": "new"}]))
    assert batches.validate(batch) == 2
    assert batches.decode(batch).payloads == [b"one", b"two"]


def test_payloads_may_be_any_sequence() -> None:
    assert batches.encode((b"one", b"two")) == batches.encode([b"one", b"two"])


@pytest.mark.skipif(not __debug__, reason="an assertion is what refuses")
@pytest.mark.parametrize("column", ["keys", "headers"])
def test_columns_of_different_lengths_are_not_encoded(column: str) -> None:
    with pytest.raises(AssertionError):
        batches.encode([b"one", b"two"], **{column: [None]})


def test_longer_forms_of_a_head_are_valid() -> None:
    wide = b"\xdc\x00\x01\xc6\x00\x00\x00\x03one"
    assert batches.validate(b"\x91" + wide) == 1
    headers = b"\xdc\x00\x01\xdf\x00\x00\x00\x01\xd9\x01a\xdb\x00\x00\x00\x01b"
    batch = b"\x93" + array32(1) + wide[3:] + array32(1) + b"\xc5\x00\x01k" + headers
    assert batches.validate(batch) == 1
    assert batches.decode(batch) == Columns([b"one"], [b"k"], [{"a": "b"}])


def test_full_batch_of_no_keys_and_no_headers_is_valid() -> None:
    assert batches.validate(packed([b"one"], None, None)) == 1


# --- what lies ----------------------------------------------------------------------------------

LIES = {
    "nothing": b"",
    "nil": b"\xc0",
    "a text": packed("one")[1:],
    "a map": b"\x81\xa1a\xa1b",
    "no columns": b"\x90",
    "two columns": packed([b"one"], [b"k"]),
    "four columns": packed([b"one"], None, None, None),
    "one column in a long form": b"\xdc\x00\x01\x91\xc4\x00",
    "head alone": b"\x91",
    "no payloads": packed([]),
    "no payloads, full": packed([], [], []),
    "nil for payloads": packed(None),
    "map for payloads": packed({}),
    "map32 for payloads": b"\x91\xdf\x00\x00\x00\x00",
    "text payload": packed(["one"]),
    "nil payload": packed([None]),
    "nested payload": packed([[b"one"]]),
    "payload missing": b"\x91\x92\xc4\x00",
    "payload cut short": b"\x91\x91\xc4\x05four",
    "payload that claims 4 GiB": b"\x91\x91\xc6\xff\xff\xff\xff",
    "count cut short": b"\x91\xdd\x00",
    "bytes left over": packed([b"one"]) + b"\x00",
    "second batch behind": packed([b"one"]) * 2,
    "more columns said than there": b"\x93\x91\xc4\x00",
    "fewer keys": packed([b"one", b"two"], [b"k"], None),
    "more keys": packed([b"one"], [b"k", b"k"], None),
    "no keys in the column": packed([b"one"], [], None),
    "text key": packed([b"one"], ["k"], None),
    "int for keys": packed([b"one"], 5, None),
    "text for keys": packed([b"one"], "k", None),
    "keys that claim 4 billion": b"\x93\x91\xc4\x00" + array32(2**32 - 1) + b"\xc0",
    "fewer header sets": packed([b"one", b"two"], None, [None]),
    "more header sets": packed([b"one"], None, [None, None]),
    "map for headers": packed([b"one"], None, {"a": "b"}),
    "array for a header set": packed([b"one"], None, [["a", "b"]]),
    "text for a header set": packed([b"one"], None, ["a"]),
    "int for a header": packed([b"one"], None, [{"a": 1}]),
    "bytes for a header": packed([b"one"], None, [{"a": b"b"}]),
    "bytes for a header's name": packed([b"one"], None, [{b"a": "b"}]),
    "nil for a header": packed([b"one"], None, [{"a": None}]),
    "header twice": b"\x93\x91\xc4\x00\xc0\x91\x82\xa1a\xa1b\xa1a\xa1c",
    "invalid UTF-8 in a header": b"\x93\x91\xc4\x00\xc0\x91\x81\xa1a\xa2\xff\xfe",
    "invalid UTF-8 in a name": b"\x93\x91\xc4\x00\xc0\x91\x81\xa2\xff\xfe\xa1a",
    "surrogate in a header": b"\x93\x91\xc4\x00\xc0\x91\x81\xa1a\xa3\xed\xa0\x80",
    "headers that claim 4 billion": b"\x93\x91\xc4\x00\xc0" + array32(2**32 - 1),
    "deep": b"\x91\x91" + b"\x91" * 100_000 + b"\xc0",
    "deep keys": b"\x93\x91\xc4\x00" + b"\x91" * 100_000 + b"\xc0\xc0",
    "deep header": b"\x93\x91\xc4\x00\xc0\x91\x81\xa1a" + b"\x91" * 500 + b"\xc0",
    "never used byte": b"\x91\x91\xc1",
}


@pytest.mark.parametrize("data", LIES.values(), ids=LIES)
def test_batch_that_lies_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument):
        batches.validate(data)


@pytest.mark.parametrize(
    "data", [LIES["invalid UTF-8 in a header"], LIES["payload cut short"], LIES["deep"]]
)
def test_refusal_does_not_hold_on_to_another_error(data: bytes) -> None:
    with pytest.raises(InvalidArgument) as caught:
        batches.validate(data)
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


@settings(deadline=None, max_examples=150)
@given(
    st.binary(max_size=60)
    | st.tuples(st.sampled_from([b"\x91\x91", b"\x91\x92", b"\x93\x91"]), st.binary()).map(b"".join)
)
def test_any_bytes_are_a_batch_or_refused(data: bytes) -> None:
    check_that_it_holds(data)


@settings(deadline=None, max_examples=150)
@given(columns(), st.integers(0, 400), st.integers(0, 3), st.binary(max_size=3))
def test_any_change_to_a_batch_is_a_batch_or_refused(
    batch: Columns, at: int, removed: int, inserted: bytes
) -> None:
    data = encoded(batch)
    check_that_it_holds(data[:at] + inserted + data[at + removed :])


def packed_alike(size: int, count: int, head: int, array: int, keys: bytes) -> bytes:
    """A batch of payloads of one size, with heads of so many bytes."""
    kind = bytes([{2: 0xC4, 3: 0xC5, 5: 0xC6}[head]])
    heads = {1: bytes([0x90 | count]), 3: b"\xdc" + count.to_bytes(2, "big"), 5: array32(count)}
    payload = kind + size.to_bytes(head - 1, "big") + b"p" * size
    return (b"\x93" if keys else b"\x91") + heads[array] + payload * count + keys


@settings(deadline=None, max_examples=400)
@given(
    st.sampled_from([(0, 2), (1, 2), (255, 2), (0, 3), (7, 3), (256, 3), (3, 5), (65_536, 5)]),
    st.integers(1, 15),
    st.sampled_from([1, 3, 5]),
    st.booleans(),
    st.integers(0, 40),
    st.integers(0, 3),
    st.binary(max_size=3),
)
def test_payloads_of_one_size_are_judged_as_all_others_are(
    form: tuple[int, int],
    count: int,
    array: int,
    has_keys: bool,
    at: int,
    removed: int,
    inserted: bytes,
) -> None:
    size, head = form
    keys = msgspec.msgpack.encode([b"key"] * count) + b"\xc0" if has_keys else b""
    data = packed_alike(size, count, head, array, keys)
    assert judged_twice(data) == count
    # Mostly where it hurts: at the head, at that of a payload, and at the end.
    payload = 1 + array + (head + size) * (at % count)
    for place in (at, at % 8, payload + at % (head + 1), len(data) - at % 8):
        judged_twice(data[:place] + inserted + data[place + removed :])


def judged_twice(data: bytes) -> int | type[RequestRefused]:
    """As ``judged``, which says the same whether or not payloads may be found to be alike."""
    found = []
    for many in (1, 1 << 32):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(batches, "_MANY", many)
            found.append(judged(data))
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize("form", [(100, 2), (300, 3), (70_000, 5)])
@pytest.mark.parametrize("array", [3, 5])
def test_payloads_that_are_alike_are_not_made(form: tuple[int, int], array: int) -> None:
    size, head = form
    data = packed_alike(size, 100, head, array, b"")
    assert peak_of(lambda: batches.validate(data)) < 5000
    data = packed_alike(size, 100, head, array, b"\xc0\xc0")
    assert peak_of(lambda: batches.validate(data)) < 5000


@pytest.mark.parametrize("sizes", [[1024], [1024, 0], [1, 1024]])
def test_many_keys_keep_the_limit(sizes: list[int]) -> None:
    count = 100
    keys: list[bytes | None] = [b"k" * sizes[n % len(sizes)] for n in range(count)]
    assert batches.validate(batches.encode([b""] * count, keys)) == count
    keys = [None if key is None else key + b"k" for key in keys]
    with pytest.raises(MessageTooLarge, match="the key has 1025 bytes"):
        batches.validate(batches.encode([b""] * count, keys))
    with pytest.raises(MessageTooLarge, match="the key has 1025 bytes"):
        batches.check_keys(keys, LIMITS)
    some = [key if number % 2 else None for number, key in enumerate(keys)]
    some[1] = b"k" * 1025
    with pytest.raises(MessageTooLarge):
        batches.validate(batches.encode([b""] * count, some))


def test_payloads_that_are_alike_keep_the_limit() -> None:
    data = batches.encode([b"x" * 100] * 200)
    assert batches.validate(data, msgspec.structs.replace(LIMITS, message_bytes=100)) == 200
    with pytest.raises(MessageTooLarge):
        batches.validate(data, msgspec.structs.replace(LIMITS, message_bytes=99))


@pytest.mark.parametrize("form", [(100, 2), (3, 3), (300, 3), (3, 5), (70_000, 5)])
@pytest.mark.parametrize("number", [0, 1, 99])
def test_a_head_among_alike_ones_that_is_another_is_found(
    form: tuple[int, int], number: int
) -> None:
    size, head = form
    data = bytearray(packed_alike(size, 100, head, 3, b""))
    for place in range(head):
        data[4 + (head + size) * number + place] ^= 1
        assert judged_twice(bytes(data)) is InvalidArgument
        data[4 + (head + size) * number + place] ^= 1


def judged(data: bytes | bytearray) -> int | type[RequestRefused]:
    """How many messages there are, or as what it is refused."""
    try:
        return batches.validate(data)
    except RequestRefused as refusal:
        return type(refusal)


def check_that_it_holds(data: bytes) -> None:
    """What is taken for a batch is what a subscriber can read, of as many messages."""
    try:
        count = batches.validate(data)
    except RequestRefused:
        return
    batch = batches.decode(data)
    assert count == len(batch.payloads) > 0
    assert batch.keys is None or len(batch.keys) == count
    assert batch.headers is None or len(batch.headers) == count
    assert batches.validate(batches.cut(batch, 0, count)) == count


# --- limits -------------------------------------------------------------------------------------


def headers_of(size: int) -> dict[str, str]:
    return {"ñame": "é" * ((size - 5) // 2) + "x" * ((size - 5) % 2)}


@pytest.mark.parametrize("with_keys", [False, True])
def test_batch_has_at_most_65536_messages(with_keys: bool) -> None:
    count = LIMITS.batch_messages
    assert count == 65_536
    full = [b""] * count
    assert batches.validate(batches.encode(full, [None] * count if with_keys else None)) == count
    full.append(b"")
    with pytest.raises(BatchTooLarge) as caught:
        batches.validate(batches.encode(full, [None] * (count + 1) if with_keys else None))
    assert caught.value.details == {"size": 65_537, "what": "messages", "limit": 65_536}


@pytest.mark.parametrize("size", [MIB - 1, MIB])
def test_payload_at_its_limit_is_taken(size: int) -> None:
    assert batches.validate(batches.encode([b"x", b"x" * size])) == 2


@pytest.mark.parametrize("with_keys", [False, True])
def test_payload_above_its_limit_is_refused(with_keys: bool) -> None:
    payloads, some_keys = [b"x", b"x" * (MIB + 1)], [None, b"k"]
    with pytest.raises(MessageTooLarge, match=r"payload has 1048577 bytes .* 1048576"):
        batches.validate(batches.encode(payloads, some_keys if with_keys else None))


def test_many_payloads_within_their_limit_may_be_more_together() -> None:
    assert batches.validate(batches.encode([b"x" * MIB] * 7)) == 7


def test_key_at_its_limit_is_taken_and_one_byte_more_refused() -> None:
    assert batches.validate(batches.encode([b"", b""], [None, b"k" * 1024])) == 2
    with pytest.raises(MessageTooLarge, match="key has 1025 bytes and the limit is 1024"):
        batches.validate(batches.encode([b"", b""], [None, b"k" * 1025]))


def test_header_set_has_at_most_32_pairs() -> None:
    pairs = {str(number): "" for number in range(32)}
    assert batches.validate(batches.encode([b"", b""], None, [None, pairs])) == 2
    with pytest.raises(MessageTooLarge, match="header set has 33 pairs and the limit is 32"):
        batches.validate(batches.encode([b"", b""], None, [None, pairs | {"one more": ""}]))


def test_pairs_are_counted_before_equal_names_are_joined() -> None:
    one_name = b"\xdc\x00\x01\xde\x00\x21" + b"\xa1a\xa1b" * 33
    with pytest.raises(MessageTooLarge, match="33 pairs"):
        batches.validate(b"\x93\x91\xc4\x00\xc0" + one_name)


def test_header_set_has_at_most_8_kib_of_utf8() -> None:
    for size in (100, 8191, 8192):
        batch = batches.encode([b"", b""], None, [None, headers_of(size)])
        assert batches.validate(batch) == 2
    with pytest.raises(MessageTooLarge, match="header set has 8193 bytes and the limit is 8192"):
        batches.validate(batches.encode([b"", b""], None, [None, headers_of(8193)]))


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("others", [[], [b"\x81\xa1b\xa1b"], [b"\xc0"]], ids=["alike", "b", "nil"])
@pytest.mark.parametrize(
    ("packed", "is_valid"),
    [
        (b"\x81\xa1a\xa1b", True),
        (b"\x81\xd9\x01a\xd9\x01b", True),
        (b"\xde\x00\x01\xa1a\xa1b", True),
        (b"\x82\xa1a\xa1b\xa1a\xa1c", False),
        (b"\x81\xa1a\xa1\xff", False),
        (b"\x81\xa1a\xc4\x01b", False),
        (b"\x81\xa1a\x01", False),
    ],
    ids=["short", "longer texts", "longer head", "twice", "no text", "bytes", "number"],
)
def test_header_sets_are_valid_or_not_whatever_others_there_are(
    packed: bytes, is_valid: bool, count: int, others: list[bytes]
) -> None:
    column = [packed] * count + others
    total = len(column)
    batch = b"\x93" + bytes([0x90 | total]) + b"\xc4\x00" * total + b"\xc0"
    batch += bytes([0x90 | total]) + b"".join(column)
    if is_valid:
        assert batches.validate(batch) == total
        assert batches.decode(batch).headers is not None
    else:
        with pytest.raises(InvalidArgument):
            batches.validate(batch)


@pytest.mark.parametrize(
    ("limits", "batch"),
    [
        (Limits(batch_messages=3), batches.encode([b"x"] * 4)),
        (Limits(message_bytes=3), batches.encode([b"four"])),
        (Limits(key_bytes=3), batches.encode([b""], [b"four"])),
        (Limits(headers=1), batches.encode([b""], None, [{"a": "", "b": ""}])),
        (Limits(headers_bytes=3), batches.encode([b""], None, [{"ab": "cd"}])),
    ],
)
def test_limits_are_the_ones_configured(limits: Limits, batch: bytes) -> None:
    assert batches.validate(batch) > 0
    with pytest.raises((BatchTooLarge, MessageTooLarge)):
        batches.validate(batch, limits)


def test_headers_are_checked_before_they_are_encoded() -> None:
    batches.check_headers(headers_of(8192), LIMITS)
    with pytest.raises(MessageTooLarge, match="8193 bytes"):
        batches.check_headers(headers_of(8193), LIMITS)
    with pytest.raises(MessageTooLarge, match="33 pairs"):
        batches.check_headers({str(number): "" for number in range(33)}, LIMITS)


@pytest.mark.parametrize("headers", [{"a": "\ud800"}, {"\udfff": "a"}])
def test_header_that_is_no_text_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument, match="not a valid text"):
        batches.check_headers(headers, LIMITS)


def test_header_sets_are_checked_together_as_each_by_itself() -> None:
    fine = headers_of(8192)
    batches.check_header_sets([None, fine, fine, {"a": "b"}, {}], LIMITS)
    for wrong in (headers_of(8193), {str(number): "" for number in range(33)}):
        with pytest.raises(MessageTooLarge):
            batches.check_header_sets([fine, fine, wrong, None], LIMITS)
    with pytest.raises(InvalidArgument, match="not a valid text"):
        batches.check_header_sets([fine, {"a": "\ud800"}], LIMITS)


# --- memory -------------------------------------------------------------------------------------


def peak_of(call: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


HUNGRY = {
    "small payloads": b"\x91" + array32(MIB) + b"\xc4\x02ab" * MIB,
    "keys": b"\x93\x91\xc4\x00" + array32(MIB) + b"\xc4\x02ab" * MIB + b"\xc0",
    "empty header sets": b"\x93\x91\xc4\x00\xc0" + array32(MIB) + b"\x80" * MIB,
    "one set of many pairs": b"\x93\x91\xc4\x00\xc0\x91\xdf\x00\x10\x00\x00" + b"\xa1a\xa0" * MIB,
}


@pytest.mark.parametrize("data", HUNGRY.values(), ids=HUNGRY)
def test_batch_above_a_count_is_refused_without_building_it(data: bytes) -> None:
    def refused() -> None:
        with pytest.raises(RequestRefused):
            batches.validate(data)

    assert peak_of(refused) < 64 * 1024


def test_largest_valid_header_sets_take_memory_in_proportion() -> None:
    pairs = b"\xde\x00\x20" + b"".join(b"\xa1%c\xa0" % number for number in range(64, 96))
    count = 20_000
    heads = array32(count)
    data = b"\x93" + heads + b"\xc4\x00" * count + b"\xc0" + heads + pairs * count
    assert peak_of(lambda: batches.validate(data)) < 2 * len(data)


# --- parts --------------------------------------------------------------------------------------


@settings(deadline=None)
@given(columns(), st.data())
def test_cut_is_the_batch_of_its_messages(batch: Columns, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(batch.payloads) - 1))
    next_ = data.draw(st.integers(first + 1, len(batch.payloads)))
    part = batches.cut(batch, first, next_)
    assert batches.validate(part) == next_ - first
    assert batches.decode(part) == Columns(
        batch.payloads[first:next_],
        batch.keys and batch.keys[first:next_],
        batch.headers and batch.headers[first:next_],
    )


def test_cut_of_everything_is_the_batch_itself() -> None:
    data = batches.encode([b"one", b"two"], None, [None, {"type": "new"}])
    assert batches.cut(batches.decode(data), 0, 2) == data


@settings(deadline=None, max_examples=100)
@given(columns(), st.integers(0, 3000), st.data())
def test_fit_keeps_the_bound_or_takes_one_message(
    batch: Columns, size_max: int, data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, len(batch.payloads) - 1))
    next_ = data.draw(st.integers(first + 1, len(batch.payloads)))
    end = batches.fit(batch, first, next_, size_max)
    assert first < end <= next_
    assert end == first + 1 or len(batches.cut(batch, first, end)) <= size_max
    if end < next_:
        # It stops only where the next message might go beyond, if every head were the longest.
        slack = 16 + 10 * (end + 1 - first)
        assert len(batches.cut(batch, first, end + 1)) + slack > size_max


def test_fit_takes_as_many_as_there_is_room_for() -> None:
    batch = Columns([b"x" * 95] * 100)
    assert batches.fit(batch, 0, 100, 16 + 1000) == 10
    assert batches.fit(batch, 95, 100, 16 + 1000) == 100
    assert batches.fit(batch, 0, 100, 1) == 1
    assert batches.fit(batch, 7, 100, 0) == 8


def test_fit_counts_keys_and_headers() -> None:
    batch = Columns([b""] * 9, [b"k" * 90] * 9, [{"a": "b" * 80}] * 9)
    assert batches.fit(Columns([b""] * 9), 0, 9, 500) == 9
    assert batches.fit(Columns([b""] * 9, batch.keys), 0, 9, 500) == 4
    assert batches.fit(batch, 0, 9, 500) == 2


def test_largest_batch_is_cut_into_parts_that_fit_and_lose_nothing() -> None:
    count = LIMITS.batch_messages
    numbers = [b"%d" % number for number in range(count)]
    batch = batches.decode(batches.encode(numbers, None, [{"n": "1"}] + [None] * (count - 1)))
    first, seen = 0, []
    while first < count:
        end = batches.fit(batch, first, count, 50_000)
        part = batches.cut(batch, first, end)
        assert len(part) <= 50_000
        seen += batches.decode(part).payloads
        first = end
    assert seen == numbers


# --- read -------------------------------------------------------------------------------------


def test_header_sets_outlive_the_memory_that_they_came_in() -> None:
    memory = bytearray(batches.encode([b"one", b"two"], None, [{"type": "new"}, None]))
    columns = batches.read(memoryview(memory))
    columns.own()
    memory[:] = bytes(len(memory))
    assert columns.header_sets() == [{"type": "new"}, None]


@pytest.mark.parametrize("headers", [None, [None, None]])
def test_a_batch_without_headers_is_read_as_one_of_none(headers: list[None] | None) -> None:
    memory = bytearray(batches.encode([b"one", b"two"], [b"k", None], headers))
    columns = batches.read(memoryview(memory))
    columns.own()
    memory[:] = bytes(len(memory))
    assert columns.header_sets() == headers


@pytest.mark.parametrize("packed", [b"\x91\xc0", b"\x81\xa1a\xa1b", b"\x92\xc0\x01"])
def test_headers_that_are_not_one_set_a_message_are_refused_when_looked_at(packed: bytes) -> None:
    columns = batches.ReadColumns([b"one", b"two"], None, msgspec.Raw(packed))
    with pytest.raises(InvalidArgument):
        columns.header_sets()


def test_one_set_for_all_is_packed_as_equal_ones_are() -> None:
    one = {"type": "new", "note": "a b"}
    for count in (1, 15, 16, 70_000):
        payloads = [b""] * count
        alike = batches.encode(payloads, None, [one] * count)
        assert alike == batches.encode(payloads, None, [dict(one) for _ in range(count)])
        assert (
            batches.validate(alike, msgspec.structs.replace(LIMITS, batch_messages=count)) == count
        )
