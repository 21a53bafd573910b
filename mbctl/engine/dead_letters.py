"""Moves messages that were delivered as often as they may be to their dead-letter topic.

Each piece is read, given headers that tell where it comes from, and stored in one record
that also acknowledges it at its source. What cannot be moved is parked.
"""

from collections.abc import Sequence
from functools import partial

from mbctl import batch as batches
from mbctl.batch import Buffer, Headers
from mbctl.core.broker import Broker
from mbctl.core.exhausted import Exhausted
from mbctl.engine.interface import Runtime
from mbctl.engine.turn import Turns
from mbctl.errors import DataLoss, DiskFull, MbctlError
from mbctl.journal.records import NO_SESSION, Acknowledged, BatchHead, Damaged, Journal
from mbctl.model import MIB, Limits

# So many pieces are moved at once, and so many bytes are read for them, more or less: a large
# lease must not hold the loop, nor fill the memory.
_PIECES_MAX = 64
_BYTES_MAX = 4 * MIB
# How far dead letters may go beyond what may be stored: an eighth of it, or this much. A message
# may be kept for others and be a dead letter of a thousand subscriptions. Arbitrary.
_RESERVE_SHARE = 8
_RESERVE_BYTES = MIB

TOPIC_HEADER = "mbctl-topic"
OFFSET_HEADER = "mbctl-offset"
SUBSCRIBER_HEADER = "mbctl-subscriber"
DELIVERIES_HEADER = "mbctl-deliveries"


class DeadLetters:
    """The moves to dead-letter topics, one portion at a time."""

    def __init__(
        self, core: Broker, journal: Journal, runtime: Runtime, turns: Turns, limits: Limits
    ) -> None:
        self._core = core
        self._journal = journal
        self._runtime = runtime
        self._turns = turns
        self._limits = limits
        self._is_moving = False
        self._is_over = False

    def move(self) -> None:
        """Begin to move what there is, unless that is under way."""
        if self._is_moving or self._is_over:
            return
        exhausted = self._core.take_exhausted(_PIECES_MAX, _BYTES_MAX)
        if not exhausted:
            return
        self._is_moving = True
        # Many may be of one batch, as what was granted before is granted alone.
        places = list(dict.fromkeys(one.piece.place for one in exhausted))
        self._journal.read(places, partial(self._move, exhausted, places))

    def stop(self) -> None:
        """Move nothing any more: what is left is moved after the next start."""
        self._is_over = True

    def _move(
        self,
        exhausted: Sequence[Exhausted],
        places: Sequence[int],
        bodies: Sequence[Buffer | Damaged],
    ) -> None:
        if self._is_over:
            return
        found = {
            place: None if isinstance(body, Damaged) else batches.decode(body)
            for place, body in zip(places, bodies, strict=True)
        }
        for one in exhausted:
            try:
                self._move_one(one, found[one.piece.place])
            except MbctlError:
                # No room, no such topic, too many headers, damaged: somebody has to look.
                self._core.park(one)
        self._is_moving = False
        self._turns.end_soon()
        if self._core.has_exhausted:
            self._runtime.call_soon(self.move)

    def _move_one(self, one: Exhausted, columns: batches.Columns | None) -> None:
        batch = _dead_letter(one, columns)
        count = batches.validate(batch, self._limits)
        name = one.subscription.subscriber
        self._check_room(len(batch))
        self._turns.reserve(len(batch) + len(name))
        stored = self._core.dead_letter(
            one,
            count=count,
            size=len(batch),
            now_ns=self._runtime.now_ns(),
            wall_ns=self._runtime.wall_ns(),
        )
        if stored is None:
            return
        also = None
        if one.subscription.durable:
            source = one.subscription.topic.topic_id
            also = Acknowledged(source, name, [(one.piece.first, one.piece.next)])
        head = BatchHead(stored.topic_id, stored.first, count, stored.timestamp, NO_SESSION, 0)
        place = self._journal.append_batch(head, batch, also)
        self._core.set_place(stored.topic_id, place)
        self._turns.current.reveals[stored.topic_id] = stored.first + count

    def _check_room(self, size: int) -> None:
        """Refuse a dead letter that what is kept back for them has no room for.

        Raises:
            DiskFull: that is used up.
        """
        taken, limit = self._journal.taken, self._journal.max_bytes
        if taken + size > limit + max(limit // _RESERVE_SHARE, _RESERVE_BYTES):
            raise DiskFull(size=taken, limit=limit)


def _dead_letter(one: Exhausted, columns: batches.Columns | None) -> bytes:
    """The messages of ``one``, of their batch, with headers that tell where they come from.

    Raises:
        DataLoss: they cannot be read.
    """
    piece, subscription = one.piece, one.subscription
    if columns is None:
        raise DataLoss(topic=subscription.topic.name, first=piece.first, next=piece.next)
    low, high = piece.first - piece.batch_first, piece.next - piece.batch_first
    headers: list[Headers | None] = []
    for index in range(low, high):
        earlier = columns.headers[index] if columns.headers is not None else None
        headers.append(
            {
                **(earlier or {}),
                TOPIC_HEADER: subscription.topic.name,
                OFFSET_HEADER: str(piece.batch_first + index),
                SUBSCRIBER_HEADER: subscription.subscriber,
                DELIVERIES_HEADER: str(piece.deliveries),
            }
        )
    keys = None if columns.keys is None else columns.keys[low:high]
    return batches.encode(columns.payloads[low:high], keys, headers)
