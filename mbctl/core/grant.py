"""What a pull gets: the grant, its pieces, and the room that they fill."""

from collections.abc import Hashable
from typing import TYPE_CHECKING

import msgspec

from mbctl.errors import MbctlError

if TYPE_CHECKING:
    from mbctl.core.index import BatchIndex

# A pull is answered with at most this many pieces, so that a backlog of single messages
# cannot hold the loop for long; arbitrary.
_PIECES_MAX = 4096
# What a piece adds to a reply beside its batch: offset, timestamp, deliveries, heads.
PIECE_BYTES = 32


class Piece(msgspec.Struct, frozen=True, gc=False):
    """Part of one batch, to be read at ``place``: messages ``first <= offset < next``.

    ``batch_first`` and ``batch_next`` are the batch's own, so that a piece is the whole
    batch when they are equal to its ends.
    """

    place: int
    batch_first: int
    batch_next: int
    first: int
    next: int
    timestamp: int
    deliveries: int


class Grant(msgspec.Struct, frozen=True):
    """What a pull gets: pieces in the order of their offsets; none means nothing came.

    ``skipped`` counts messages that this subscription never got and cannot get any more.
    """

    topic: str
    topic_id: int
    subscriber: str
    skipped: int
    pieces: list[Piece]


class Wake(msgspec.Struct, frozen=True):
    """The answer to a pull that waited: what it was granted, or why it was ended."""

    token: Hashable
    result: Grant | MbctlError


class Room:
    """What is left of a pull's bounds while it is being filled."""

    __slots__ = ("bytes", "messages", "pieces")

    def __init__(self, messages: int, bytes: int) -> None:
        assert messages > 0
        assert bytes > 0
        self.messages = messages
        self.bytes = bytes
        self.pieces: list[Piece] = []

    @property
    def is_full(self) -> bool:
        """Whether nothing more goes in."""
        return self.messages == 0 or self.bytes <= 0 or len(self.pieces) >= _PIECES_MAX

    def fill(self, index: "BatchIndex", first: int, next: int, deliveries: int) -> int:
        """Take in as much of ``first <= offset < next`` as fits; the offset where it ended."""
        if first == next:
            return first
        for batch_first, batch_next, place, timestamp, size in index.walk(first):
            wanted = min(batch_next, next) - first
            batch_count = batch_next - batch_first
            count = self._fitting(wanted, batch_count, size)
            if count == 0:
                break
            self.pieces.append(
                Piece(place, batch_first, batch_next, first, first + count, timestamp, deliveries)
            )
            self.messages -= count
            self.bytes -= size * count // batch_count + PIECE_BYTES
            first += count
            if count < wanted or first == next or self.is_full:
                break
        return first

    def _fitting(self, count: int, batch_count: int, size: int) -> int:
        """How many of the next ``count`` messages of a batch go in; 0 if they should wait.

        They go in together or wait for the next pull, unless they are the first: then as
        many as their mean size lets expect, at least one.
        """
        count = min(count, self.messages)
        room = self.bytes - PIECE_BYTES
        if size * count // batch_count <= room:
            return count
        return 0 if self.pieces else max(1, room * batch_count // size)
