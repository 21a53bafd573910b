"""The messages of a pull, whatever face pulled them: columns, places, and what is still open."""

from collections.abc import Iterator, Mapping
from itertools import chain, repeat
from types import MappingProxyType
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from mbctl.model import Range
from mbctl.wire.messages import Piece, Pulled

B = TypeVar("B", bound="PulledBatch[Any]")
M = TypeVar("M", bound="PulledMessage[Any]")

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class PulledMessage(msgspec.Struct, Generic[B], frozen=True, eq=False, gc=False):
    """One message, without the verbs that settle it."""

    payload: bytes
    offset: int
    timestamp: int
    deliveries: int
    key: bytes | None
    headers: Mapping[str, str]
    batch: B

    @property
    def topic(self) -> str:
        """The topic it came from."""
        return self.batch.topic

    def __repr__(self) -> str:
        return f"<Message {self.topic}#{self.offset} {len(self.payload)} bytes>"


class PulledBatch(Generic[M]):
    """The messages of one pull, in the order of their offsets, without the verbs that settle."""

    __slots__ = ("_open", "_pieces", "member", "skipped", "topic", "topic_id")

    _message_type: ClassVar[type[PulledMessage[Any]]]

    def __init__(self, topic: str, reply: Pulled, skipped: int = 0) -> None:
        self.topic = topic
        self.topic_id = reply.topic_id
        self.skipped = reply.skipped + skipped
        """Messages that this subscription missed before these, because they were gone."""
        self.member = b""
        """The id of the subscriber that they were granted to."""
        self._pieces = reply.pieces
        self._open = _ranges(self._pieces)

    def __len__(self) -> int:
        return sum(len(piece.batch.payloads) for piece in self._pieces)

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def __iter__(self) -> Iterator[M]:
        return chain.from_iterable(map(self._messages, self._pieces))

    def __repr__(self) -> str:
        return f"<Batch {self.topic} of {len(self)} messages>"

    @property
    def payloads(self) -> list[bytes]:
        """The payloads alone."""
        if len(self._pieces) == 1:
            return self._pieces[0].batch.payloads
        joined: list[bytes] = []
        for piece in self._pieces:
            # A list at a time: a quarter of what it takes message by message.
            joined += piece.batch.payloads
        return joined

    @property
    def next_offset(self) -> int:
        """The offset after the last message; 0 for an empty batch."""
        if not self._pieces:
            return 0
        piece = self._pieces[-1]
        return piece.first + len(piece.batch.payloads)

    @property
    def open_ranges(self) -> list[Range]:
        """The offsets neither acknowledged nor given back yet, as ranges."""
        return list(self._open)

    def take_over(self, older: "PulledBatch[M]") -> None:
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

    def _messages(self, piece: Piece) -> Iterator[M]:
        columns = piece.batch
        sets = columns.header_sets()
        build: Any = self._message_type
        # All columns in step, built at the speed of C.
        return map(
            build,
            columns.payloads,
            range(piece.first, piece.first + len(columns.payloads)),
            repeat(piece.timestamp),
            repeat(piece.deliveries),
            repeat(None) if columns.keys is None else columns.keys,
            repeat(_NO_HEADERS)
            if sets is None
            else [_NO_HEADERS if headers is None else headers for headers in sets],
            repeat(self),
        )


class Peeked(PulledBatch[PulledMessage[Any]]):
    """Messages as a peek shows them: nobody has them, so there is nothing to settle.

    Their ``deliveries`` are 0.
    """

    __slots__ = ()

    _message_type = PulledMessage

    def __repr__(self) -> str:
        return f"<Peeked {self.topic} of {len(self)} messages>"

    def add(self, later: "Peeked") -> None:
        """Let ``later``, of the same topic, follow on these."""
        self.skipped += later.skipped
        self._pieces += later._pieces


def _ranges(pieces: list[Piece]) -> list[Range]:
    """The offsets of the pieces, neighbours joined."""
    ranges: list[Range] = []
    for piece in pieces:
        next_offset = piece.first + len(piece.batch.payloads)
        if ranges and ranges[-1][1] == piece.first:
            ranges[-1] = (ranges[-1][0], next_offset)
        else:
            ranges.append((piece.first, next_offset))
    return ranges
