"""What a pull gets of the batches in hand: chosen by offset, leased, and put into its reply."""

from typing import TYPE_CHECKING

from mbctl.batch import Buffer
from mbctl.core.grant import PIECE_BYTES, Piece
from mbctl.engine.interface import Pulled
from mbctl.engine.jetstream import names
from mbctl.engine.jetstream.held import LEASED, NEW, READY, Held, Part

if TYPE_CHECKING:
    from mbctl.engine.jetstream.reader import Reader
    from mbctl.engine.jetstream.serving import Pull

PIECES_MAX = 4096
"""So many pieces a reply has at most."""

Chosen = tuple[Held, list[Part]]
"""Parts of one batch."""


class Granting:
    """Leases one reader's batches in hand to its pulls."""

    def __init__(self, reader: "Reader") -> None:
        self._reader = reader

    def lease(self, pull: "Pull", chosen: list[Chosen]) -> Pulled:
        """Lease to a pull what was chosen for it; its answer."""
        reader, shared = self._reader, self._reader.parts
        pieces, bodies = self._lease(pull, chosen)
        reply, over = shared.cuts.pieces(pieces, bodies, pull.max_bytes)
        for first, next in over:
            self._take_back(first, next)
        count = sum(p.next - p.first for p in pieces) - sum(high - low for low, high in over)
        shared.messages_out += count
        shared.bytes_out += sum(memoryview(piece[3]).nbytes for piece in reply)
        for held, _ in chosen:
            if held.sequence in reader.held:
                reader.changed(held)
                if not held.has(NEW, READY):
                    held.body = None
        skipped, reader.skipped = reader.skipped, 0
        return Pulled(reader.topic.topic_id, skipped, reply)

    def choose(self, pull: "Pull") -> list[Chosen]:
        """The parts in hand that a pull gets: first what was granted before, by offset."""
        reader = self._reader
        limit = reader.parts.limits.subscription_ranges - 3
        messages, size = pull.max_messages, pull.max_bytes
        chosen: list[Chosen] = []
        for sequence in list(reader.open):
            held = reader.held[sequence]
            fitting: list[Part] = []
            for part in list(held.parts):
                if part.state not in (NEW, READY):
                    continue
                if part.state is NEW and held.ranges >= limit:
                    continue
                is_alone = reader.options.max_deliveries is not None and part.deliveries > 0
                if is_alone and (chosen or fitting):
                    return [*chosen, (held, fitting)] if fitting else chosen
                count = min(part.count, messages, 1 if is_alone else part.count)
                room = size - PIECE_BYTES
                if held.size * count // held.count > room:
                    if chosen or fitting:
                        return [*chosen, (held, fitting)] if fitting else chosen
                    count = min(count, max(1, room * held.count // max(1, held.size)))
                is_cut = count < part.count
                if is_cut:
                    held.parts.insert(
                        held.parts.index(part) + 1, part.rest_from(part.first + count)
                    )
                fitting.append(part)
                messages -= count
                size -= held.size * count // held.count + PIECE_BYTES
                if is_cut or is_alone or messages <= 0 or size <= 0 or len(chosen) >= PIECES_MAX:
                    return [*chosen, (held, fitting)]
            if fitting:
                chosen.append((held, fitting))
        return chosen

    def _lease(self, pull: "Pull", chosen: list[Chosen]) -> tuple[list[Piece], list[Buffer]]:
        until_ns = self._reader.parts.runtime.now_ns() + self._reader.ack_wait_ns
        pieces: list[Piece] = []
        bodies: list[Buffer] = []
        for held, parts in chosen:
            assert held.body is not None
            base = names.offset_of(held.sequence)
            for part in parts:
                part.deliveries += 1
                part.state, part.member, part.until_ns = LEASED, pull.member, until_ns
                pieces.append(
                    Piece(
                        held.place,
                        base,
                        base + held.count,
                        base + part.first,
                        base + part.next,
                        held.timestamp,
                        part.deliveries,
                    )
                )
                bodies.append(held.body)
        return pieces, bodies

    def _take_back(self, first: int, next: int) -> None:
        """Undo a grant as far as the reply had no room for it."""
        base = names.offset_of(names.sequence_of(first))
        held = self._reader.held[names.sequence_of(first)]
        for part in held.isolated(first - base, next - base):
            part.deliveries -= 1
            part.state = READY if part.deliveries else NEW
