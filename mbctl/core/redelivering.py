"""The verbs about what was delivered as often as it may be: move it, park it, decide about it.

The caller takes what is EXHAUSTED piece by piece, reads it, and says for each piece either
``dead_letter`` or ``park``. Until then it may be acknowledged, given up or moved all the
same; the piece is void then.
"""

from itertools import islice

from mbctl.core.exhausted import DeadLettered, Exhausted
from mbctl.core.grant import Piece, Wake
from mbctl.core.leases import Lease
from mbctl.core.parts import Parts
from mbctl.core.subscription import Subscription
from mbctl.model import Range


class Redelivering(Parts):
    """Sees to messages that are not to be granted again."""

    @property
    def has_exhausted(self) -> bool:
        """Whether ``take_exhausted`` may have something."""
        return bool(self._agenda.exhausted)

    def take_exhausted(self, pieces_max: int, bytes_max: int) -> list[Exhausted]:
        """Some pieces that nobody has in hand, each to be moved or parked.

        So many at most, of batches that have ``bytes_max`` together or little more.
        """
        taken: list[Exhausted] = []
        sizes: dict[int, int] = {}
        waiting = self._agenda.exhausted
        while waiting:
            for lease in list(islice(waiting, pieces_max)):
                lease.subscription.skip_reclaimed()
                while lease in waiting:
                    piece, size = _piece_of(lease, waiting[lease])
                    is_enough = piece.place not in sizes and sum(sizes.values()) >= bytes_max
                    if is_enough or len(taken) == pieces_max:
                        return taken
                    sizes[piece.place] = size
                    taken.append(Exhausted(lease.subscription, piece))
                    waiting[lease] = piece.next
                    if piece.next == lease.next:
                        del waiting[lease]
        return taken

    def dead_letter(
        self, exhausted: Exhausted, *, count: int, size: int, now_ns: int, wall_ns: int
    ) -> DeadLettered | None:
        """Append a piece to the dead-letter topic as a batch, and acknowledge it at its source.

        The batch is not visible yet; ``set_place`` is to follow. None if the piece, or some of
        it, is not to be moved any more: nothing changed, and what is left is to be taken anew.

        Raises:
            TopicNotFound: there is no dead-letter topic.
            TopicFull: it has no room.
            LimitExceeded: the subscription has too many ranges to move a part of a lease.
        """
        subscription, piece = self._current(exhausted), exhausted.piece
        assert count == piece.next - piece.first
        if subscription is None:
            return None
        if not subscription.is_exhausted(piece.first, piece.next):
            self._hand_back(subscription, piece)
            return None
        assert subscription.dead_letter is not None
        target = self.topics.named(subscription.dead_letter)
        subscription.check_moving(piece.first, piece.next)
        self._retention.make_room(target, count, size)
        first, timestamp = target.index.append(count, size, wall_ns)
        self._retention.watch(target, now_ns, wall_ns)
        cursor = subscription.cursor
        subscription.move_away(piece.first, piece.next)
        if subscription.cursor != cursor:
            subscription.moved_at = wall_ns
        if subscription.durable:
            self._untaken.add(subscription)
        self._serve_soon(subscription)
        return DeadLettered(target.topic_id, first, timestamp, [(piece.first, piece.next)])

    def park(self, exhausted: Exhausted) -> None:
        """Keep a piece that cannot be moved, as far as it was to be, until somebody decides."""
        subscription = self._current(exhausted)
        if subscription is not None:
            subscription.park(exhausted.piece.first, exhausted.piece.next)

    def _current(self, exhausted: Exhausted) -> Subscription | None:
        """The subscription of a piece, if it has not ended."""
        subscription = exhausted.subscription
        topic = self.topics.with_id(subscription.topic.topic_id)
        if topic is None or topic.subscriptions.get(subscription.subscriber) is not subscription:
            return None
        subscription.skip_reclaimed()
        return subscription

    def _hand_back(self, subscription: Subscription, piece: Piece) -> None:
        """Let what is left of a piece be taken anew, as it stands now."""
        for lease in subscription.exhausted_within(piece.first, piece.next):
            self._agenda.exhausted[lease] = lease.first

    # --- what somebody decides ------------------------------------------------------------

    def release_parked(
        self, topic_name: str, subscriber: str, ranges: list[Range] | None, *, now_ns: int
    ) -> tuple[int, list[Wake]]:
        """Let parked messages, of these ranges or all, be granted as if they never had been.

        Raises:
            TopicNotFound, SubscriptionNotFound: there is no such thing.
            LimitExceeded: there would be too many ranges; nothing changed.
        """
        subscription = self.subscription(topic_name, subscriber)
        subscription.skip_reclaimed()
        count = subscription.release_parked(ranges)
        return count, self._pulls.serve([subscription], now_ns)

    def drop_parked(
        self,
        topic_name: str,
        subscriber: str,
        ranges: list[Range] | None,
        *,
        now_ns: int,
        wall_ns: int,
    ) -> tuple[int, list[Wake]]:
        """Acknowledge parked messages, of these ranges or all.

        Raises: as ``release_parked``.
        """
        subscription = self.subscription(topic_name, subscriber)
        subscription.skip_reclaimed()
        cursor = subscription.cursor
        count = subscription.drop_parked(ranges)
        if subscription.durable and count:
            self._untaken.add(subscription)
        if subscription.cursor != cursor:
            subscription.moved_at = wall_ns
        return count, self._pulls.serve([subscription], now_ns)


def _piece_of(lease: Lease, first: int) -> tuple[Piece, int]:
    """What one batch has of ``lease`` from ``first`` on, and the size of the batch."""
    batch_first, batch_next, place, timestamp, size = next(
        lease.subscription.topic.index.walk(first)
    )
    end = min(batch_next, lease.next)
    return Piece(place, batch_first, batch_next, first, end, timestamp, lease.deliveries), size
