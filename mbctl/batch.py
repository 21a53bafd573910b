"""A batch as bytes: encode, validate, slice.

A batch is one msgpack array of columns, and the same bytes are on the wire, in the
journal and in a pull's reply:

    [payloads]                      0x91, array of bin
    [payloads, keys, headers]       0x93, array of bin,
                                          nil or array of (bin or nil),
                                          nil or array of (map of str to str, or nil)

Columns, because msgspec reads an array of payloads an order of magnitude faster than
an array of rows. Source: docs/protocol.md, "Batch".

What a peer sent is validated piece by piece: a count is read from the head of its array
and compared before anything is built for it, and header sets, which as dicts take up to
seventy times their bytes, are looked at one at a time.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from itertools import groupby
from typing import Annotated, Any, TypeVar

import msgspec

from mbctl.errors import BatchTooLarge, InvalidArgument, MessageTooLarge
from mbctl.model import LIMITS, Limits

Buffer = bytes | bytearray | memoryview | msgspec.Raw
Headers = dict[str, str]

_PLAIN = 0x91
_FULL = 0x93
_NIL = b"\xc0"
_NOTHING = msgspec.Raw(_NIL)
# The largest a payload can grow by being packed: its bin32 head.
_HEAD_BYTES = 5
# The largest a batch is without its messages: its own head and those of three columns.
_BATCH_BYTES = 16


class Columns(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A decoded batch: one list for each column, all of the same length."""

    payloads: list[bytes]
    keys: list[bytes | None] | None = None
    headers: list[Headers | None] | None = None


class ReadColumns(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A batch as its reader gets it: header sets, which take the longest, not yet looked into."""

    payloads: list[bytes]
    keys: list[bytes | None] | None = None
    headers: msgspec.Raw = _NOTHING

    def own(self) -> None:
        """Copy what lies in the memory that this was decoded from."""
        self.headers = self.headers.copy() if len(self.headers) > 1 else _NOTHING

    def header_sets(self) -> list[Headers | None] | None:
        """One for each message; None if none has any.

        Raises:
            InvalidArgument: they cannot be read, or are not as many.
        """
        sets: list[Headers | None] | None
        sets = _read(_header_column_decoder, memoryview(self.headers))
        if sets is not None and len(sets) != len(self.payloads):
            raise InvalidArgument(reason="the batch has columns of different lengths")
        return sets


class _OtherColumns(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The optional columns of a batch, not yet looked into."""

    keys: msgspec.Raw = _NOTHING
    headers: msgspec.Raw = _NOTHING


class _RawColumns(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A batch taken apart into columns, the optional ones not yet looked into."""

    payloads: list[bytes]
    keys: msgspec.Raw = _NOTHING
    headers: msgspec.Raw = _NOTHING


class _ViewColumns(_RawColumns):
    """The same, with payloads that are not copied; to make so many views takes longer."""

    payloads: list[memoryview]  # type: ignore[assignment]


# Header sets are decoded together up to this: as dicts they take up to seventy times as much.
_DICTS_BYTES = 256 * 1024
# Above this size a view of a payload takes less time than a copy; measured.
_LARGE_BYTES = 4096
# From so many on it takes less time to find that all are packed alike; measured.
_MANY = 100
# How long the head of a long array is, and that of a payload, by its first byte.
_ARRAY_HEADS = {0xDC: 3, 0xDD: 5}
_BIN_HEADS = {0xC4: 2, 0xC5: 3, 0xC6: 5}
# What an array of all columns but the payloads begins with, by what the batch does.
_OTHER = {_PLAIN: b"\x90", _FULL: b"\x92"}


def plain(value: object) -> bytes | str:
    """A ``bytes`` or ``str`` of somebody's own class as one of those that msgspec packs.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes):
        return bytes.__getitem__(value, slice(None))
    raise TypeError(f"{type(value).__name__} is no type of a message")


_encoder = msgspec.msgpack.Encoder(enc_hook=plain)
_decoder = msgspec.msgpack.Decoder(Columns)
_read_columns_decoder = msgspec.msgpack.Decoder(ReadColumns)
_raw_columns_decoder = msgspec.msgpack.Decoder(_RawColumns)
_other_columns_decoder = msgspec.msgpack.Decoder(_OtherColumns)
_view_columns_decoder = msgspec.msgpack.Decoder(_ViewColumns)
_keys_decoder = msgspec.msgpack.Decoder(list[bytes | None])
_raw_decoder = msgspec.msgpack.Decoder(msgspec.Raw)
_raws_decoder = msgspec.msgpack.Decoder(list[msgspec.Raw])
_header_sets_decoder = msgspec.msgpack.Decoder(list[Headers | None])
_header_column_decoder = msgspec.msgpack.Decoder(list[Headers | None] | None)
_headers_decoder = msgspec.msgpack.Decoder(Headers)

T = TypeVar("T")


def encode(
    payloads: Sequence[bytes],
    keys: Sequence[bytes | None] | None = None,
    headers: Sequence[Headers | None] | None = None,
) -> bytes:
    """The bytes of a batch. The columns have equal lengths; limits are not checked here."""
    return _encoder.encode(_columns(payloads, keys, headers))


def encode_into(
    buffer: bytearray,
    payloads: Sequence[bytes],
    keys: Sequence[bytes | None] | None = None,
    headers: Sequence[Headers | None] | None = None,
) -> None:
    """Let ``buffer`` be the bytes of a batch, as ``encode`` makes them."""
    _encoder.encode_into(_columns(payloads, keys, headers), buffer)


def encode_parts(payloads: Sequence[bytes]) -> list[bytes]:
    """The bytes of a batch as ``encode`` makes them, in parts: each payload after its head."""
    parts = [b""] * (2 * len(payloads))
    parts[::2] = map(_bin_head, map(len, payloads))
    parts[1::2] = payloads
    parts[0] = bytes([_PLAIN]) + array_head(len(payloads)) + parts[0]
    return parts


def _bin_head(size: int) -> bytes:
    """What ``size`` bytes begin with."""
    if size < 256:
        return bytes([0xC4, size])
    if size < 65_536:
        return b"\xc5" + size.to_bytes(2, "big")
    return b"\xc6" + size.to_bytes(4, "big")


def _columns(
    payloads: Sequence[bytes],
    keys: Sequence[bytes | None] | None,
    headers: Sequence[Headers | None] | None,
) -> tuple[object, ...]:
    assert keys is None or len(keys) == len(payloads)
    assert headers is None or len(headers) == len(payloads)
    if headers and _is_one(headers):
        packed = _encoder.encode(headers[0]) * len(headers)
        return payloads, keys, msgspec.Raw(array_head(len(headers)) + packed)
    return (payloads,) if keys is None and headers is None else (payloads, keys, headers)


def _is_one(headers: Sequence[Headers | None]) -> bool:
    """Whether all of them are alike, as where one set goes with every message."""
    return headers.count(headers[0]) == len(headers)


def array_head(count: int) -> bytes:
    """What an array of so many elements begins with."""
    if count < 16:
        return bytes([0x90 | count])
    if count < 65_536:
        return b"\xdc" + count.to_bytes(2, "big")
    return b"\xdd" + count.to_bytes(4, "big")


def decode(batch: Buffer) -> Columns:
    """The columns of a batch that was validated before."""
    return _decoder.decode(batch)


def read(batch: Buffer) -> ReadColumns:
    """A batch as its reader gets it, who may not be the first to look at it."""
    return _read_columns_decoder.decode(batch)


def validate(batch: Buffer, limits: Limits = LIMITS) -> int:
    """Return the count of messages in ``batch`` if it is one and keeps the limits.

    What passes here is handed to subscribers as it is, so it must hold whatever a
    peer sent.

    Raises:
        InvalidArgument: it is not a batch, is empty, or its columns differ in length.
        BatchTooLarge: it has more than ``limits.batch_messages``.
        MessageTooLarge: a payload, key or header set is above its limit.
    """
    view = memoryview(batch)
    if len(view) == 0 or view[0] not in (_PLAIN, _FULL):
        raise InvalidArgument(reason="the batch is not an array of one or three columns")
    # Mostly few, so that the count is part of the head.
    few = view[1] if len(view) > 1 else 0
    count = few & 0x0F if few & 0xF0 == 0x90 else _array_count(view[1:])
    check_count(count, limits)
    columns = _validate_payloads(view, count, limits)
    if view[0] == _FULL:
        _validate_keys(memoryview(columns.keys), count, limits)
        _validate_headers(memoryview(columns.headers), count, limits)
    return count


def _validate_payloads(view: memoryview, count: int, limits: Limits) -> _OtherColumns | _RawColumns:
    """Look at the payloads, and take the batch apart into columns."""
    alike = _alike(view[1:], count) if count >= _MANY else None
    if alike is not None:
        size, rest = alike
        check_size("payload", size, limits.message_bytes)
        others: _OtherColumns = _read(_other_columns_decoder, memoryview(_OTHER[view[0]] + rest))
        return others
    # Large payloads are looked at where they lie: to copy 8 MiB holds a server up for 7 ms.
    if len(view) > _LARGE_BYTES * count:
        columns: _RawColumns = _read(_view_columns_decoder, view)
    else:
        columns = _read(_raw_columns_decoder, view)
    # No payload can be too large in a batch that is small enough as a whole.
    if len(view) > limits.message_bytes:
        check_size("payload", max(map(len, columns.payloads)), limits.message_bytes)
    return columns


def _alike(view: memoryview, count: int) -> tuple[int, memoryview] | None:
    """The size of each of the bytes in an array and what follows on it, if all are packed alike.

    They are if at equal distances there is the head of the first: then each ends where
    the next begins. That is a seventh of the work of making them, where they are many.
    """
    at = _ARRAY_HEADS.get(view[0], 1)
    head = _BIN_HEADS.get(view[at], 0) if at < len(view) else 0
    size = int.from_bytes(view[at + 1 : at + head], "big")
    end = at + count * (head + size)
    # What follows is copied: where it is most of a batch, that would cost more than it spares.
    if not head or not len(view) // 2 < end <= len(view):
        return None
    for place in range(at, at + head):
        if view[place : end : head + size] != bytes([view[place]]) * count:
            return None
    return size, view[end:]


def count_of(batch: Buffer) -> int:
    """How many messages a batch has that was validated before, from its head alone."""
    return _array_count(memoryview(batch)[1:])


def _validate_keys(column: memoryview, count: int, limits: Limits) -> None:
    if column == _NIL:
        return
    _check_length(column, count)
    alike = _alike(column, count) if count >= _MANY else None
    if alike is not None and not alike[1]:
        check_size("key", alike[0], limits.key_bytes)
        return
    keys: list[bytes | None] = _read(_keys_decoder, column)
    check_keys(keys, limits)


def _validate_headers(column: memoryview, count: int, limits: Limits) -> None:
    if column == _NIL:
        return
    _check_length(column, count)
    alike = _one_of_all(column, count, limits)
    if alike is None:
        raws = _read(_raws_decoder, column)
        if _are_as_encoded(column, raws, limits):
            return
    else:
        raws = [alike]
    for packed in raws:
        raw = memoryview(packed)
        if raw == _NIL:
            continue
        pairs = _map_count(raw)
        check_size("header set", pairs, limits.headers, unit="pairs")
        headers = _read(_headers_decoder, raw)
        if len(headers) != pairs:
            raise InvalidArgument(reason="a message has two headers of the same name")
        # With the heads of its texts a set is larger than without them.
        if len(raw) > limits.headers_bytes:
            check_headers(headers, limits)


def _one_of_all(column: memoryview, count: int, limits: Limits) -> msgspec.Raw | None:
    """One header set, if all are packed alike; what it is is not known yet."""
    head = len(array_head(count))
    size, rest = divmod(len(column) - head, count)
    if rest or not 0 < size <= limits.headers_bytes:
        return None
    one = bytes(column[head : head + size])
    if one * count != column[head:]:
        return None
    try:
        return _raw_decoder.decode(one)
    except msgspec.DecodeError:
        # Alike are then only the bytes, by chance.
        return None


def _are_as_encoded(column: memoryview, raws: Sequence[msgspec.Raw], limits: Limits) -> bool:
    """Whether all header sets are within the limits and packed as ``encode`` does.

    That is found in C and tells that no name stands twice; of others nothing is known yet.
    """
    if len(column) > _DICTS_BYTES or max(map(len, raws)) > limits.headers_bytes:
        return False
    headers = _read(_header_sets_decoder, column)
    pairs = max(map(len, filter(None, headers)), default=0)
    return pairs <= limits.headers and _encoder.encode(headers) == column


def _check_length(column: memoryview, count: int) -> None:
    length = _array_count(column)
    if length != count:
        raise InvalidArgument(reason=f"the batch has columns of {count} and {length}")


def _array_count(view: memoryview) -> int:
    """How many elements the array at the start of ``view`` says it has."""
    return _count(view, small=0x90, wide=0xDC, what="column of the batch is not an array")


def _map_count(view: memoryview) -> int:
    """How many pairs the map at the start of ``view`` says it has."""
    return _count(view, small=0x80, wide=0xDE, what="header set is not a map")


def _count(view: memoryview, *, small: int, wide: int, what: str) -> int:
    """Read a msgpack head: four bits of count in one byte, or 16 or 32 after it."""
    head = view[0] if view else 0
    if head & 0xF0 == small:
        return head & 0x0F
    if head not in (wide, wide + 1):
        raise InvalidArgument(reason=f"a {what}")
    return int.from_bytes(view[1 : 3 if head == wide else 5], "big")


def _read(decoder: msgspec.msgpack.Decoder[T], view: memoryview) -> T:
    try:
        return decoder.decode(view)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = str(error)
    # Out of the except block, because the refusal is remembered for a retry and must not
    # hold the error, which holds what it could not decode.
    raise InvalidArgument(reason=f"the batch cannot be read: {reason}")


def check_count(count: int, limits: Limits) -> None:
    """Refuse a batch of no messages or of too many."""
    if count == 0:
        raise InvalidArgument(reason="the batch is empty")
    if count > limits.batch_messages:
        raise BatchTooLarge(size=count, what="messages", limit=limits.batch_messages)


def check_size(what: str, size: int, limit: int, *, unit: str = "bytes") -> None:
    """Refuse ``what`` if its ``size`` is above ``limit``."""
    if size > limit:
        raise MessageTooLarge(what=what, size=size, unit=unit, limit=limit)


def check_keys(keys: Sequence[bytes | None], limits: Limits) -> None:
    """Refuse keys of which one is too long."""
    if len(keys) >= _MANY:
        # Found in C, in a third of the time; which one it is, if there is one, is told below.
        with suppress(msgspec.ValidationError):
            msgspec.convert(keys, _keys_up_to(limits.key_bytes), builtin_types=(bytes,))
            return
    check_size("key", max(map(len, filter(None, keys)), default=0), limits.key_bytes)


@cache
def _keys_up_to(size: int) -> Any:
    """The type of keys of at most ``size`` bytes."""
    return list[Annotated[bytes, msgspec.Meta(max_length=size)] | None]


def check_header_sets(column: Sequence[Headers | None], limits: Limits) -> None:
    """Refuse header sets of which one is above a limit, or of texts that are none."""
    # One of each, in a row; mostly they are all alike.
    several = column[:1] if column and _is_one(column) else (one for one, _ in groupby(column))
    sets = [headers for headers in several if headers]
    try:
        # With the heads of its texts a set is larger than without them.
        largest = max(map(len, map(_encoder.encode, sets)), default=0)
    except UnicodeEncodeError:
        largest = limits.headers_bytes + 1
    if largest > limits.headers_bytes or max(map(len, sets), default=0) > limits.headers:
        for headers in sets:
            check_headers(headers, limits)


def check_headers(headers: Headers, limits: Limits) -> None:
    """Refuse a header set of too many pairs or bytes, or of texts that are none."""
    check_size("header set", len(headers), limits.headers, unit="pairs")
    try:
        size = sum(len(name.encode()) + len(value.encode()) for name, value in headers.items())
    except UnicodeEncodeError as error:
        raise InvalidArgument(reason=f"a header is not a valid text: {error}") from error
    check_size("header set", size, limits.headers_bytes)


def cut(columns: Columns, first: int, next: int) -> bytes:
    """The batch of the messages at ``first <= index < next``, as bytes."""
    return encode(
        columns.payloads[first:next],
        None if columns.keys is None else columns.keys[first:next],
        None if columns.headers is None else columns.headers[first:next],
    )


def fit(columns: Columns, first: int, next: int, size_max: int) -> int:
    """How far a cut from ``first`` may go to stay within ``size_max`` bytes.

    Returns at least ``first + 1``, so that a message above the bound still gets through.
    """
    room = size_max - _BATCH_BYTES
    for index in range(first, next):
        room -= _message_size(columns, index)
        if room < 0:
            return max(index, first + 1)
    return next


def _message_size(columns: Columns, index: int) -> int:
    size = len(columns.payloads[index]) + _HEAD_BYTES
    if columns.keys is not None:
        size += len(columns.keys[index] or b"") + _HEAD_BYTES
    if columns.headers is not None:
        size += len(_encoder.encode(columns.headers[index]))
    return size
