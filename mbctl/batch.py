"""A batch as bytes: encode, validate, slice.

A batch is one msgpack array of columns, and the same bytes are on the wire, in the
journal and in a pull's reply:

    [payloads]                      0x91, array of bin
    [payloads, keys, headers]       0x93, array of bin,
                                          nil or array of (bin or nil),
                                          nil or array of (map of str to str, or nil)

Columns, because msgspec reads an array of payloads an order of magnitude faster than
an array of rows. Source: docs/protocol.md, "Batch".
"""

from collections.abc import Sequence

import msgspec

from mbctl.errors import BatchTooLarge, InvalidArgument, MessageTooLarge
from mbctl.model import LIMITS, Limits

Buffer = bytes | bytearray | memoryview | msgspec.Raw
Headers = dict[str, str]

_PLAIN = 0x91
_FULL = 0x93
# The largest a payload can grow by being packed: its bin32 head.
_HEAD_BYTES = 5


class Columns(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A decoded batch: one list for each column, all of the same length."""

    payloads: list[bytes]
    keys: list[bytes | None] | None = None
    headers: list[Headers | None] | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Columns)


def encode(
    payloads: Sequence[bytes],
    keys: Sequence[bytes | None] | None = None,
    headers: Sequence[Headers | None] | None = None,
) -> bytes:
    """The bytes of a batch. The columns have equal lengths; limits are not checked here."""
    assert keys is None or len(keys) == len(payloads)
    assert headers is None or len(headers) == len(payloads)
    if keys is None and headers is None:
        return _encoder.encode((payloads,))
    return _encoder.encode((payloads, keys, headers))


def decode(batch: Buffer) -> Columns:
    """The columns of a batch that was validated before."""
    return _decoder.decode(batch)


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
    try:
        columns = _decoder.decode(view)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(reason=f"the batch cannot be read: {error}") from error
    count = len(columns.payloads)
    check_count(count, limits)
    # No payload can be too large in a batch that is small enough as a whole.
    if len(view) > limits.message_bytes:
        check_size("payload", max(map(len, columns.payloads)), limits.message_bytes)
    if columns.keys is not None or columns.headers is not None:
        _validate_extras(columns, count, limits)
    return count


def _validate_extras(columns: Columns, count: int, limits: Limits) -> None:
    for column in (columns.keys, columns.headers):
        if column is not None and len(column) != count:
            raise InvalidArgument(reason=f"the batch has columns of {count} and {len(column)}")
    for key in columns.keys or ():
        if key is not None:
            check_size("key", len(key), limits.key_bytes)
    for headers in columns.headers or ():
        if headers:
            check_headers(headers, limits)


def check_count(count: int, limits: Limits) -> None:
    """Refuse a batch of no messages or of too many."""
    if count == 0:
        raise InvalidArgument(reason="the batch is empty")
    if count > limits.batch_messages:
        raise BatchTooLarge(size=count, what="messages", limit=limits.batch_messages)


def check_size(what: str, size: int, limit: int) -> None:
    """Refuse ``what`` if its ``size`` is above ``limit``."""
    if size > limit:
        raise MessageTooLarge(what=what, size=size, limit=limit)


def check_headers(headers: Headers, limits: Limits) -> None:
    """Refuse a header set of too many pairs or bytes."""
    if len(headers) > limits.headers:
        raise MessageTooLarge(what="header set", size=len(headers), limit=limits.headers)
    size = sum(len(name.encode()) + len(value.encode()) for name, value in headers.items())
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
    room = size_max
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
