"""What a pull returns: a Batch of Messages, and how they are acknowledged."""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain, repeat
from types import MappingProxyType
from typing import Protocol

import msgspec

from mbctl import batch as batches
from mbctl.errors import ProtocolError
from mbctl.model import Range
from mbctl.wire.messages import Piece, Pulled

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Settler(Protocol):
    """What settles messages: the Subscriber that pulled them."""

    def settle_ack(self, batch: "Batch", ranges: list[Range]) -> int:
        """Acknowledge, and wait until that is durable."""

    def settle_nack(self, batch: "Batch", ranges: list[Range], delay: float) -> int:
        """Give back."""

    def settle_extend(self, batch: "Batch", ranges: list[Range]) -> int:
        """Renew the lease."""


class Message(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One message. ``timestamp`` is nanoseconds since 1970; ``deliveries`` counts this one too."""

    payload: bytes
    offset: int
    timestamp: int
    deliveries: int
    key: bytes | None
    headers: Mapping[str, str]
    batch: "Batch"

    @property
    def topic(self) -> str:
        """The topic it came from."""
        return self.batch.topic

    def ack(self) -> int:
        """Acknowledge this message alone; 1 if that was still open to us, else 0."""
        return self.batch.ack_range(self.offset, self.offset + 1)

    def nack(self, delay: float = 0.0) -> int:
        """Give this message back, to be delivered again after ``delay`` seconds."""
        return self.batch.nack_range(self.offset, self.offset + 1, delay)

    def extend(self) -> int:
        """Renew the lease of this message alone."""
        return self.batch.settler.settle_extend(self.batch, [(self.offset, self.offset + 1)])

    def __repr__(self) -> str:
        return f"<Message {self.topic}#{self.offset} {len(self.payload)} bytes>"


class Batch:
    """The messages of one pull, in the order of their offsets. Empty when nothing came.

    Iterate for messages, or take ``payloads`` when nothing else is needed: that builds no
    message objects.
    """

    __slots__ = ("_open", "_parts", "settler", "skipped", "topic", "topic_id")

    def __init__(self, settler: Settler, topic: str, reply: Pulled, skipped: int = 0) -> None:
        self.settler = settler
        self.topic = topic
        self.topic_id = reply.topic_id
        self.skipped = reply.skipped + skipped
        """Messages that this subscription missed before these, because they were gone."""
        try:
            self._parts = [(piece, batches.decode(piece.batch)) for piece in reply.pieces]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ProtocolError(reason=f"the server sent what is no batch: {error}") from error
        self._open = _ranges(self._parts)

    def __len__(self) -> int:
        return sum(len(columns.payloads) for _, columns in self._parts)

    def __bool__(self) -> bool:
        return bool(self._parts)

    def __iter__(self) -> Iterator[Message]:
        return chain.from_iterable(map(self._messages, self._parts))

    def __repr__(self) -> str:
        return f"<Batch {self.topic} of {len(self)} messages>"

    @property
    def payloads(self) -> list[bytes]:
        """The payloads alone."""
        if len(self._parts) == 1:
            return self._parts[0][1].payloads
        return [payload for _, columns in self._parts for payload in columns.payloads]

    @property
    def next_offset(self) -> int:
        """The offset after the last message; 0 for an empty batch."""
        if not self._parts:
            return 0
        piece, columns = self._parts[-1]
        return piece.first + len(columns.payloads)

    @property
    def open_ranges(self) -> list[Range]:
        """The offsets neither acknowledged nor given back yet, as ranges."""
        return list(self._open)

    def ack(self) -> int:
        """Acknowledge what is still open, and wait until that is durable; how many messages.

        Messages that were granted to someone else meanwhile do not count.
        """
        return self._close(self.settler.settle_ack)

    def nack(self, delay: float = 0.0) -> int:
        """Give back what is still open, to be delivered again after ``delay`` seconds."""

        def give_back(batch: "Batch", ranges: list[Range]) -> int:
            return self.settler.settle_nack(batch, ranges, delay)

        return self._close(give_back)

    def extend(self) -> int:
        """Renew the lease of what is still open; how many messages are still leased to us."""
        return self.settler.settle_extend(self, self.open_ranges) if self._open else 0

    def _close(self, settle: Callable[["Batch", list[Range]], int]) -> int:
        if not self._open:
            return 0
        count = settle(self, self.open_ranges)
        self._open = []
        return count

    def ack_range(self, first: int, next: int) -> int:
        """Acknowledge ``first <= offset < next`` of this batch."""
        count = self.settler.settle_ack(self, [(first, next)])
        self.close_range(first, next)
        return count

    def nack_range(self, first: int, next: int, delay: float) -> int:
        """Give back ``first <= offset < next`` of this batch."""
        count = self.settler.settle_nack(self, [(first, next)], delay)
        self.close_range(first, next)
        return count

    def take_over(self, older: "Batch") -> None:
        """Let what is open of an older batch be settled with this one."""
        if older.topic_id == self.topic_id:
            self._open = [*older._open, *self._open]

    def close_range(self, first: int, next: int) -> None:
        """Take ``first <= offset < next`` out of what is open."""
        self._open = [
            part
            for low, high in self._open
            for part in ((low, min(high, first)), (max(low, next), high))
            if part[0] < part[1]
        ]

    def _messages(self, part: tuple[Piece, batches.Columns]) -> Iterator[Message]:
        piece, columns = part
        # All columns in step, built at the speed of C.
        return map(
            Message,
            columns.payloads,
            range(piece.first, piece.first + len(columns.payloads)),
            repeat(piece.timestamp),
            repeat(piece.deliveries),
            repeat(None) if columns.keys is None else columns.keys,
            repeat(_NO_HEADERS)
            if columns.headers is None
            else [_NO_HEADERS if headers is None else headers for headers in columns.headers],
            repeat(self),
        )


def _ranges(parts: list[tuple[Piece, batches.Columns]]) -> list[Range]:
    """The offsets of the pieces, neighbours joined."""
    ranges: list[Range] = []
    for piece, columns in parts:
        next_offset = piece.first + len(columns.payloads)
        if ranges and ranges[-1][1] == piece.first:
            ranges[-1] = (ranges[-1][0], next_offset)
        else:
            ranges.append((piece.first, next_offset))
    return ranges
