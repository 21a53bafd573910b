"""Turns what core granted and the journal read into the pieces of a pull's reply."""

from collections import OrderedDict
from collections.abc import Sequence

from mbctl import batch as batches
from mbctl.batch import Buffer
from mbctl.core.subscription import Piece
from mbctl.model import MIB, Range

# Decoded batches kept at hand for the next cut from the same; as bytes of their encoding.
# Arbitrary: it holds the batches that a few dozen subscriptions are in the middle of.
_KEPT_BYTES = 32 * MIB

ReplyPiece = tuple[int, int, int, Buffer]


class Cuts:
    """Passes whole batches on as they are and cuts parts out of the others.

    A subscriber that pulls a large batch bit by bit cuts it many times, so the batches
    decoded last stay decoded.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[int, tuple[batches.Columns, int]] = OrderedDict()
        self._kept_bytes = 0

    def pieces(
        self, granted: Sequence[Piece], bodies: Sequence[Buffer], max_bytes: int
    ) -> tuple[list[ReplyPiece], list[Range]]:
        """The reply's pieces, and what was granted and does not fit into ``max_bytes``.

        Core grants parts of a batch by its mean message size, so only a part can turn out
        too large.
        """
        reply: list[ReplyPiece] = []
        over: list[Range] = []
        for piece, body in zip(granted, bodies, strict=True):
            if over:
                over.append((piece.first, piece.next))
                continue
            if piece.first != piece.batch_first or piece.next != piece.batch_next:
                body, next_offset = self._cut(piece, body, max_bytes)
                if next_offset < piece.next:
                    over.append((next_offset, piece.next))
            reply.append((piece.first, piece.timestamp, piece.deliveries, body))
            max_bytes -= memoryview(body).nbytes
        return reply, over

    def _cut(self, piece: Piece, body: Buffer, max_bytes: int) -> tuple[bytes, int]:
        columns = self._decoded(piece.place, body)
        first = piece.first - piece.batch_first
        end = piece.next - piece.batch_first
        part = batches.cut(columns, first, end)
        if len(part) > max_bytes and end - first > 1:
            end = batches.fit(columns, first, end, max_bytes)
            part = batches.cut(columns, first, end)
        return part, piece.batch_first + end

    def _decoded(self, place: int, body: Buffer) -> batches.Columns:
        kept = self._kept.get(place)
        if kept is not None:
            self._kept.move_to_end(place)
            return kept[0]
        columns = batches.decode(body)
        size = memoryview(body).nbytes
        self._kept[place] = (columns, size)
        self._kept_bytes += size
        while self._kept_bytes > _KEPT_BYTES and len(self._kept) > 1:
            _, (_, size) = self._kept.popitem(last=False)
            self._kept_bytes -= size
        return columns
