"""Turns what core granted and the journal read into the pieces of a pull's reply."""

from collections import OrderedDict
from collections.abc import Sequence

from mbctl import batch as batches
from mbctl.batch import Buffer
from mbctl.core.grant import PIECE_BYTES, Piece
from mbctl.model import MIB, Range

# Decoded batches kept at hand for the next cut from the same; as bytes of memory, more or
# less. Arbitrary: it holds the batches that a few dozen subscriptions are in the middle of.
_KEPT_BYTES = 64 * MIB
# What a message takes in memory beside its bytes: an object and a reference for a payload,
# and the same again for a key, and a dict for headers. Measured on CPython 3.11.
_PLAIN_BYTES = 48
_FULL_BYTES = 400

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

        Core grants parts of a batch by its mean message size, so a part can turn out too
        large, and then what was granted after it. The first message always fits.
        """
        reply: list[ReplyPiece] = []
        for number, (piece, body) in enumerate(zip(granted, bodies, strict=True)):
            max_bytes -= PIECE_BYTES
            body, next_offset = self._fitting(piece, body, max_bytes)
            size = memoryview(body).nbytes
            if reply and size > max_bytes:
                next_offset = piece.first
            else:
                reply.append((piece.first, piece.timestamp, piece.deliveries, body))
                max_bytes -= size
            if next_offset < piece.next:
                rest = [(later.first, later.next) for later in granted[number + 1 :]]
                return reply, [(next_offset, piece.next), *rest]
        return reply, []

    def _fitting(self, piece: Piece, body: Buffer, max_bytes: int) -> tuple[Buffer, int]:
        """A batch of the piece's messages as far as they fit, at least one, and its end."""
        if piece.first == piece.batch_first and piece.next == piece.batch_next:
            return body, piece.next
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
        size = _memory_size(columns, body)
        self._kept[place] = (columns, size)
        self._kept_bytes += size
        while self._kept_bytes > _KEPT_BYTES and len(self._kept) > 1:
            _, (_, size) = self._kept.popitem(last=False)
            self._kept_bytes -= size
        return columns


def _memory_size(columns: batches.Columns, body: Buffer) -> int:
    is_full = columns.keys is not None or columns.headers is not None
    a_message = _FULL_BYTES if is_full else _PLAIN_BYTES
    return memoryview(body).nbytes + a_message * len(columns.payloads)
