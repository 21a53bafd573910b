"""Frames: a stream of bytes cut into msgpack values.

     0       4                 4 + length
     ├───────┼──────────────────┤
     │length │ one msgpack value│      length: unsigned, big-endian, 1 <= length <= limit
     └───────┴──────────────────┘

The length is compared with the limit before anything is kept for it, and the buffer
grows only as bytes arrive. Source: docs/protocol.md, "Frames".
"""

import struct

from mbctl.errors import ProtocolError

HEAD = struct.Struct(">I")


class FrameReader:
    """Cuts a stream into frames, however its bytes arrive.

    ``limit`` may change between two frames. Once a length is out of bounds the framing
    is lost and every further call raises.
    """

    __slots__ = ("_position", "_source", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._source: bytes | bytearray = b""
        self._position = 0

    @property
    def buffered(self) -> int:
        """Bytes held of a frame that is not complete (or not yet taken)."""
        return len(self._source) - self._position

    def feed(self, data: bytes) -> None:
        """Add what came from the peer. Call ``next_frame`` until it returns None."""
        if self._position == len(self._source):
            # The usual case: whole frames in ``data``, which is read where it lies.
            self._source = data
            self._position = 0
        else:
            rest = self._rest()
            rest += data
            self._source = rest

    def next_frame(self) -> bytes | None:
        """The next complete frame's content, or None if more bytes are needed.

        Raises:
            ProtocolError: the length is 0 or above the limit; the stream is of no more use.
        """
        start = self._position + HEAD.size
        end = start
        if start <= len(self._source):
            (length,) = HEAD.unpack_from(self._source, self._position)
            if not 0 < length <= self.limit:
                raise ProtocolError(
                    reason=f"a frame of {length} bytes; 1 to {self.limit} are allowed here"
                )
            end += length
        if end > len(self._source):
            # What was taken is let go, so that a few bytes do not hold a large buffer.
            self._source = self._rest() if self._position < len(self._source) else b""
            self._position = 0
            return None
        self._position = end
        # A frame owns its bytes: a stored batch must not keep its neighbours alive.
        return bytes(memoryview(self._source)[start:end])

    def _rest(self) -> bytearray:
        """What is not taken yet, alone in a buffer that can grow."""
        source, position = self._source, self._position
        self._position = 0
        if isinstance(source, bytearray):
            del source[:position]
            return source
        return bytearray(memoryview(source)[position:])


def frame(content: bytes) -> bytes:
    """``content`` with its length before it."""
    return HEAD.pack(len(content)) + content
