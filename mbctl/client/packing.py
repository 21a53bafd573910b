"""From what a user passes to the bytes of a batch, with the limits checked."""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from numbers import Real
from operator import index
from typing import Any, TypedDict

import msgspec

from mbctl import batch as batches
from mbctl.client.buffers import LARGE_BYTES, Buffers
from mbctl.errors import BatchTooLarge, InvalidArgument
from mbctl.model import KIB, AtTime, Limits, Range, WhenFull
from mbctl.wire import messages as wire

Payload = bytes | bytearray | memoryview | str
Key = bytes | str
HeadersLike = Mapping[str, str]
Packed = bytes | bytearray | list[bytes]
"""A batch as it is sent: in one piece, or each payload after its head."""
StartLike = int | str | datetime | AtTime
"""A place in a topic: an offset, ``"new"``, ``"earliest"``, or a time."""


class TopicKeywords(TypedDict, total=False):
    """What ``create_topic`` may be given: the fields of ``TopicSettings``."""

    max_messages: int | None
    max_bytes: int | None
    max_age: float | None
    retain_age: float | None
    retain_bytes: int | None
    when_full: WhenFull


# Payloads of this size are sent from where they are: that takes a third less time than to copy
# them into one piece first, and less than that is lost on naming them to the system one by one.
LOOSE_BYTES = 8 * KIB
# Of so many at once: the system takes 1,024 pieces.
_LOOSE_MAX = 500
# What a frame holds beside its batch: verb, numbers, topic; arbitrary, far above it.
_FRAME_HEAD_BYTES = 1 * KIB
# Far above what the server takes as a wait or delay, and it fits a request as milliseconds.
_SECONDS_MAX = 1e12
# What comes after the last offset that a range can hold and the server can count to.
_OFFSET_MAX = 2**63 - 1

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_bytes(value: Payload, what: str = "payload") -> bytes:
    """``value`` as bytes; text is encoded as UTF-8.

    Raises:
        InvalidArgument: it is neither, or text that UTF-8 cannot encode.
    """
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            raise InvalidArgument(reason=f"the {what} is no valid text: {error.reason}") from error
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    raise InvalidArgument(reason=f"a {what} is bytes or str, not {type(value).__name__}")


def to_text(value: str, what: str) -> str:
    """``value`` if a request can carry it as text.

    Raises:
        InvalidArgument: it is no text, or one that UTF-8 cannot encode.
    """
    if not isinstance(value, str):
        raise InvalidArgument(reason=f"a {what} is str, not {type(value).__name__}")
    to_bytes(value, what)
    return value


def to_seconds(value: float, what: str) -> float:
    """``value`` if it is a number.

    Raises:
        InvalidArgument: it is none, or none that can be reckoned with.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InvalidArgument(reason=f"{what} is a number of seconds, not {value!r}")
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def to_ms(seconds: float, what: str) -> int:
    """``seconds`` in milliseconds. What is above 0 is so in milliseconds too.

    Raises:
        InvalidArgument: it is no number that a request can carry.
    """
    number = to_seconds(seconds, what)
    if not -_SECONDS_MAX <= number <= _SECONDS_MAX:
        raise InvalidArgument(reason=f"{what} is a number of seconds, not {number}")
    return 1 if 0 < number < 0.001 else round(number * 1000)


def to_bound(value: int, what: str) -> int:
    """``value`` if it is a number of messages or bytes that there may be at most.

    Raises:
        InvalidArgument: it is none, or none that a request can carry.
    """
    try:
        bound = 0 if isinstance(value, bool) else index(value)
    except TypeError:
        bound = 0
    if not 0 < bound <= _OFFSET_MAX:
        raise InvalidArgument(reason=f"{what} is a number from 1, not {value!r}")
    return bound


def to_start(start: StartLike) -> int | str | AtTime:
    """``start`` as a request carries it. A time without a zone is the local one.

    Raises:
        InvalidArgument: it is no place in a topic.
    """
    if isinstance(start, datetime):
        try:
            microseconds = (start.astimezone(UTC) - _EPOCH) // _MICROSECOND
        except (ValueError, OverflowError) as error:
            reason = f"a time is from 1970 to 2262, not {start}"
            raise InvalidArgument(reason=reason) from error
        return AtTime(microseconds * 1000)
    if isinstance(start, bool) or not isinstance(start, int | str | AtTime):
        raise InvalidArgument(
            reason=f"a place in a topic is an offset, 'new', 'earliest' or a datetime, not {start}"
        )
    return start


def to_ranges(offsets: Iterable[int] | None) -> list[Range] | None:
    """``offsets`` as ranges, neighbours joined; None for all there are.

    Raises:
        InvalidArgument: one of them is no offset.
    """
    if offsets is None:
        return None
    ranges: list[Range] = []
    listed = _to_list(offsets, "offsets")
    for offset in listed:
        if isinstance(offset, bool) or not isinstance(offset, int):
            raise InvalidArgument(reason=f"an offset is a number, not {offset!r}")
        if not 0 <= offset < _OFFSET_MAX:
            raise InvalidArgument(reason=f"an offset is 0 to {_OFFSET_MAX - 1}, not {offset}")
    for offset in sorted(set(listed)):
        if ranges and ranges[-1][1] == offset:
            ranges[-1] = (ranges[-1][0], offset + 1)
        else:
            ranges.append((offset, offset + 1))
    return ranges


def to_frame(request: wire.Message) -> bytes:
    """``request`` as one frame.

    Raises:
        InvalidArgument: something in it is not what its type says.
    """
    try:
        return wire.encode(request)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidArgument(reason=f"this cannot be sent: {error}") from error


def _to_list(values: Iterable[Any], what: str) -> list[Any]:
    """``values`` as a list.

    Raises:
        InvalidArgument: they are none; a text is one value, not many letters.
    """
    if isinstance(values, list):
        return values
    if isinstance(values, str | bytes | bytearray | memoryview) or not isinstance(values, Iterable):
        raise InvalidArgument(reason=f"{what} are a list, not {type(values).__name__}")
    return list(values)


def to_payloads(payloads: Iterable[Payload]) -> list[bytes]:
    """``payloads`` as a list of bytes.

    Raises:
        InvalidArgument: they are no list of payloads.
    """
    listed = _to_list(payloads, "payloads")
    try:
        # The usual case that all are bytes already: half of what it takes to look at their types.
        return msgspec.convert(listed, list[bytes], builtin_types=(bytes,))
    except (msgspec.ValidationError, UnicodeEncodeError):
        return [to_bytes(payload) for payload in listed]


def to_keys(keys: Sequence[Key | None] | None) -> list[bytes | None] | None:
    """``keys`` as a column of a batch.

    Raises:
        InvalidArgument: they are no list of keys.
    """
    if keys is None:
        return None
    listed = _to_list(keys, "keys")
    column: list[bytes | None]
    try:
        column = msgspec.convert(listed, list[bytes | None], builtin_types=(bytes,))
    except (msgspec.ValidationError, UnicodeEncodeError):
        column = [None if key is None else to_bytes(key, "key") for key in listed]
    # To compare all of them with None takes as long as to make a column of them.
    is_empty = column and column[0] is None and column.count(None) == len(column)
    return None if is_empty else column


def to_headers(headers: Sequence[HeadersLike | None] | None) -> list[dict[str, str] | None] | None:
    """``headers`` as a column of a batch.

    Raises:
        InvalidArgument: they are no list of mappings, or a name or value is not text.
    """
    if headers is None:
        return None
    if isinstance(headers, Mapping):
        raise InvalidArgument(
            reason="headers of a batch are a list, with a mapping for each message"
        )
    listed = _to_list(headers, "headers")
    if listed and not any(listed):
        return None
    if listed and listed.count(listed[0]) == len(listed):
        # All alike, as often: one copy serves for all.
        return [_to_set(listed[0])] * len(listed)
    return list(map(_to_set, listed))


def _to_set(pairs: HeadersLike | None) -> dict[str, str] | None:
    if not pairs:
        return None
    if not isinstance(pairs, Mapping):
        reason = f"headers are a mapping of text to text, not {type(pairs).__name__}"
        raise InvalidArgument(reason=reason)
    headers = dict(pairs)
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidArgument(reason=f"header {name!r} must be text to text")
    return headers


def pack(
    payloads: list[bytes],
    keys: list[bytes | None] | None,
    headers: list[dict[str, str] | None] | None,
    limits: Limits,
    buffers: Buffers | None = None,
) -> Packed:
    """The bytes of a batch that the server will take.

    With ``buffers`` in one of these if it is large, or in parts if its payloads are.

    Raises:
        InvalidArgument: the batch is empty, or its columns differ in length.
        BatchTooLarge, MessageTooLarge: it is above a limit.
    """
    batches.check_count(len(payloads), limits)
    for what, column in (("keys", keys), ("headers", headers)):
        if column is not None and len(column) != len(payloads):
            raise InvalidArgument(reason=f"{len(payloads)} payloads but {len(column)} {what}")
    if keys is not None:
        batches.check_keys(keys, limits)
    if headers is not None:
        batches.check_header_sets(headers, limits)
    limit = limits.frame_bytes - _FRAME_HEAD_BYTES
    if len(payloads) * len(payloads[0]) > limit and (size := sum(map(len, payloads))) > limit:
        # Told before they are packed: who splits them would pack them again.
        batches.check_size("payload", max(map(len, payloads)), limits.message_bytes)
        raise BatchTooLarge(size=size, what="bytes", limit=limit)
    batch: Packed
    if buffers is not None and keys is None and headers is None and _are_large(payloads):
        batch = batches.encode_parts(payloads)
    elif buffers is not None and len(payloads) * len(payloads[0]) >= LARGE_BYTES:
        batch = buffers.take()
        batches.encode_into(batch, payloads, keys, headers)
    else:
        batch = batches.encode(payloads, keys, headers)
    size = size_of(batch)
    if size > limits.message_bytes:
        batches.check_size("payload", max(map(len, payloads)), limits.message_bytes)
    if size > limit:
        raise BatchTooLarge(size=size, what="bytes", limit=limit)
    return batch


def _are_large(payloads: list[bytes]) -> bool:
    """Whether payloads are better not copied; the first one tells of most that they are not."""
    if len(payloads[0]) < LOOSE_BYTES or len(payloads) > _LOOSE_MAX:
        return False
    return sum(map(len, payloads)) >= LOOSE_BYTES * len(payloads)


def size_of(batch: Packed) -> int:
    """The bytes of a batch."""
    return sum(map(len, batch)) if type(batch) is list else len(batch)


def payloads_of(batch: Packed) -> list[bytes]:
    """The payloads of a batch."""
    return batch[1::2] if isinstance(batch, list) else batches.decode(batch).payloads
