"""Frames: a stream of bytes cut into msgpack values.

     0       4                 4 + length
     ├───────┼──────────────────┤
     │length │ one msgpack value│      length: unsigned, big-endian, 1 <= length <= limit
     └───────┴──────────────────┘

The length is compared with the limit before anything is kept for it, and memory is taken
only as bytes arrive, or as much as the frame before took. Source: docs/protocol.md, "Frames".

What comes from a peer is received into ``room``, or fed from memory that is lent. A server
keeps frames as they are and has thousands of peers: ``FrameReader``. A client takes out of
a frame what it needs and has one peer: ``FrameBuffer``.
"""

import struct
from collections.abc import Callable
from typing import Protocol

from mbctl.errors import ProtocolError

HEAD = struct.Struct(">I")
# From this length on a frame is received into memory of its own, and not copied there, once so
# much of it has come that to take twice as much for it is nothing.
_LARGE_BYTES = 32 * 1024
_BEGUN_BYTES = 2 * 1024
# Who has sent a frame of this size may be about to send another: then it is not looked for in much
# that came, but received into memory of its own from its first bytes on. So much of that is taken
# before it has come.
_EXPECTED_MIN_BYTES = 128 * 1024
_EXPECTED_MAX_BYTES = 1024 * 1024
# What tells that it has begun, with its head.
BEGIN_BYTES = 4 * 1024
# The least room that a FrameBuffer has, and the most that it keeps while it holds nothing.
_ROOM_BYTES = 256 * 1024
_IDLE_BYTES = 8 * 1024 * 1024


class Frames(Protocol):
    """Cuts a stream into frames, however its bytes arrive.

    Once a length is out of bounds the framing is lost and every further ``next_frame`` raises.
    """

    limit: int
    """How long a frame may be; may change between two of them."""

    @property
    def buffered(self) -> int:
        """Bytes held of a frame that is not complete (or not yet taken)."""

    def room(self) -> memoryview | None:
        """Where to receive what comes next; None if that is to be fed."""

    def received(self, count: int) -> None:
        """Note that ``count`` bytes came into ``room``."""

    def feed(self, data: bytes | memoryview) -> None:
        """Add what came, which must not change until ``keep`` is called."""

    def keep(self) -> None:
        """Let go of what was fed: what is left of it is copied."""

    def drop(self) -> None:
        """Forget all that came."""

    def next_frame(self) -> bytes | bytearray | memoryview | None:
        """The next complete frame's content, or None if more bytes are needed.

        Raises:
            ProtocolError: the length is 0 or above the limit; the stream is of no more use.
        """


class FrameReader:
    """Frames that own their bytes: a stored batch must not keep its neighbours alive."""

    __slots__ = (
        "_allocate",
        "_filled",
        "_frame",
        "_length",
        "_position",
        "_source",
        "expected",
        "limit",
    )

    def __init__(self, limit: int, allocate: Callable[[int], bytearray] = bytearray) -> None:
        """``allocate`` gives memory whose content does not matter."""
        self.limit = limit
        self._allocate = allocate
        self.drop()

    def drop(self) -> None:
        """Forget all that came."""
        self._source: bytes | bytearray | memoryview = b""
        self._position = 0
        # The large frame under way: its memory so far, how much of that is filled, its length.
        self._frame: bytearray | None = None
        self._filled = self._length = 0
        self.expected = 0
        """How long the next frame may be, if it is large; then ``BEGIN_BYTES`` are fed first."""

    @property
    def buffered(self) -> int:
        """Bytes held of a frame that is not complete (or not yet taken)."""
        return self._filled + len(self._source) - self._position

    def room(self) -> memoryview | None:
        """Where to receive the rest of a large frame; None if there is none."""
        if self._frame is None or self._filled == self._length:
            return None
        if self._filled == len(self._frame):
            # Twice as much as has come: who only claims a long frame takes up nothing.
            grown = self._allocate(min(self._length, 2 * self._filled))
            grown[: self._filled] = self._frame
            self._frame = grown
        return memoryview(self._frame)[self._filled :]

    def received(self, count: int) -> None:
        """Note that ``count`` bytes came into ``room``."""
        self._filled += count

    def feed(self, data: bytes | memoryview) -> None:
        """Add what came, which must not change until ``keep`` is called."""
        while self._frame is not None and data and (room := self.room()) is not None:
            part = min(len(room), len(data))
            room[:part] = data[:part]
            self.received(part)
            data = data[part:]
        if self._position == len(self._source):
            # The usual case: whole frames in ``data``, which is read where it lies.
            self._source, self._position = data, 0
        else:
            rest = self._rest()
            rest += data
            self._source = rest

    def keep(self) -> None:
        """Let go of what was fed: what is left of it is copied.

        Few bytes then do not hold a large buffer either.
        """
        start = self._position + HEAD.size
        size = len(self._source) - start
        if self._frame is None and size >= _BEGUN_BYTES:
            (length,) = HEAD.unpack_from(self._source, self._position)
            if max(size, _LARGE_BYTES - 1) < length <= self.limit:
                self._frame = self._allocate(min(length, max(2 * size, self.expected)))
                self._frame[:size] = memoryview(self._source)[start:]
                self._filled, self._length = size, length
                self._source, self._position = b"", 0
                return
        if size > -HEAD.size:
            self._source = self._rest()
        else:
            self._source, self._position = b"", 0

    def next_frame(self) -> bytes | bytearray | None:
        """The next complete frame's content, or None if more bytes are needed.

        Raises:
            ProtocolError: the length is 0 or above the limit; the stream is of no more use.
        """
        if self._frame is not None:
            if self._filled < self._length:
                return None
            frame, self._frame = self._frame, None
            self._expect(self._length)
            self._filled = self._length = 0
            return frame
        start = self._position + HEAD.size
        if start > len(self._source):
            return None
        length = _length_at(self._source, self._position, self.limit)
        end = start + length
        if end > len(self._source):
            return None
        self._position = end
        self._expect(length)
        return bytes(memoryview(self._source)[start:end])

    def _expect(self, length: int) -> None:
        """Note how long a frame was: the next one may be as long."""
        is_large = length >= _EXPECTED_MIN_BYTES
        self.expected = min(length, _EXPECTED_MAX_BYTES) if is_large else 0

    def _rest(self) -> bytearray:
        """What is not taken yet, alone in a buffer that can grow."""
        source, position = self._source, self._position
        self._position = 0
        if isinstance(source, bytearray):
            del source[:position]
            return source
        return bytearray(memoryview(source)[position:])


class FrameBuffer:
    """Frames in a memory that is received into again and again.

    What ``next_frame`` returned is gone when more comes: whoever wants something of it copies
    that. Fresh memory would cost more than all that is done with it, page by page.
    """

    __slots__ = ("_buffer", "_end", "_position", "_view", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._buffer = bytearray()
        self._view = memoryview(self._buffer)
        self._position = self._end = 0

    @property
    def buffered(self) -> int:
        """Bytes held of a frame that is not complete (or not yet taken)."""
        return self._end - self._position

    def room(self) -> memoryview:
        """Where to receive what comes next."""
        if self._position:
            self._view[: self.buffered] = self._view[self._position : self._end]
            self._position, self._end = 0, self.buffered
        if self._end == 0 and len(self._buffer) > _IDLE_BYTES:
            self._hold(bytearray(_ROOM_BYTES))
        elif len(self._buffer) - self._end < _ROOM_BYTES // 2:
            self._hold(_grown(self._buffer, max(_ROOM_BYTES, 2 * len(self._buffer))))
        return self._view[self._end :]

    def received(self, count: int) -> None:
        """Note that ``count`` bytes came into ``room``."""
        self._end += count

    def feed(self, data: bytes | memoryview) -> None:
        """Add what came."""
        while data:
            room = self.room()
            part = min(len(room), len(data))
            room[:part] = data[:part]
            self.received(part)
            data = data[part:]

    def keep(self) -> None:
        """Nothing to do: what was fed is copied."""

    def drop(self) -> None:
        """Forget all that came."""
        self._position = self._end = 0

    def next_frame(self) -> memoryview | None:
        """The next complete frame's content, or None if more bytes are needed.

        Raises:
            ProtocolError: the length is 0 or above the limit; the stream is of no more use.
        """
        start = self._position + HEAD.size
        if start > self._end:
            return None
        end = start + _length_at(self._buffer, self._position, self.limit)
        if end > self._end:
            return None
        self._position = end
        return self._view[start:end]

    def _hold(self, buffer: bytearray) -> None:
        self._buffer, self._view = buffer, memoryview(buffer)


def _grown(buffer: bytearray, size: int) -> bytearray:
    """A longer buffer with the same beginning. The old one may be in use, and stays as it is."""
    grown = bytearray(size)
    grown[: len(buffer)] = buffer
    return grown


def _length_at(source: bytes | bytearray | memoryview, position: int, limit: int) -> int:
    """What the head at ``position`` says, if it may."""
    length: int = HEAD.unpack_from(source, position)[0]
    if not 0 < length <= limit:
        raise ProtocolError(reason=f"a frame of {length} bytes; 1 to {limit} are allowed here")
    return length


def frame(content: bytes) -> bytes:
    """``content`` with its length before it."""
    return HEAD.pack(len(content)) + content
