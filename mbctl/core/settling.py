"""The verbs that settle what was granted: acknowledge it, give it back, keep it for longer."""

from mbctl.core.grant import Wake
from mbctl.core.members import Member
from mbctl.core.pulling import Pulling
from mbctl.core.subscription import Subscription
from mbctl.errors import OffsetOutOfRange, TopicNotFound
from mbctl.model import Range


class Settling(Pulling):
    """Settles leases."""

    # --- settling -------------------------------------------------------------------------

    def ack(
        self,
        member: Member,
        topic_name: str,
        topic_id: int,
        ranges: list[Range],
        *,
        now_ns: int,
        wall_ns: int,
    ) -> tuple[int, list[Wake]]:
        """Acknowledge messages; how many were not acknowledged before and may be now.

        Raises:
            TopicNotFound: there is no such topic, or it is not the one of ``topic_id``.
            NotSubscribed: the subscription is gone.
            OffsetOutOfRange: a range goes beyond the topic's messages, or is empty.
            LimitExceeded: there would be too many ranges; nothing changed.
        """
        subscription = self._to_settle(member, topic_name, topic_id, ranges)
        cursor = subscription.cursor
        count = subscription.acknowledge(member, ranges)
        if subscription.durable and count:
            self._untaken.add(subscription)
        if subscription.cursor != cursor:
            subscription.moved_at = wall_ns
        # At its bound on ranges a subscription is granted nothing new; this made room.
        return count, self._pulls.serve([subscription], now_ns)

    def nack(
        self,
        member: Member,
        topic_name: str,
        topic_id: int,
        ranges: list[Range],
        *,
        delay_ns: int = 0,
        counted: bool = True,
        now_ns: int,
    ) -> tuple[int, list[Wake]]:
        """Give leased messages back, to be granted again after ``delay_ns``.

        Not ``counted``: as if they had not been granted.

        Raises: as ``ack``.
        """
        subscription = self._to_settle(member, topic_name, topic_id, ranges)
        ready_ns = now_ns + delay_ns if delay_ns > 0 else None
        count = subscription.give_back(member, ranges, ready_ns=ready_ns, counted=counted)
        return count, self._pulls.serve([subscription], now_ns)

    def extend(
        self, member: Member, topic_name: str, topic_id: int, ranges: list[Range], now_ns: int
    ) -> int:
        """Renew leases; how many messages are still this member's.

        Raises: as ``ack``.
        """
        subscription = self._to_settle(member, topic_name, topic_id, ranges)
        return subscription.extend(member, ranges, now_ns)

    def _to_settle(
        self, member: Member, topic_name: str, topic_id: int, ranges: list[Range]
    ) -> Subscription:
        """The subscription whose leases ``ranges`` are about, if they can be any."""
        subscription = self._subscribed(member, topic_name)
        topic = subscription.topic
        if topic.topic_id != topic_id:
            raise TopicNotFound(topic=topic_name)
        for first, next_offset in ranges:
            if not 0 <= first < next_offset <= topic.visible_next:
                raise OffsetOutOfRange(
                    topic=topic_name,
                    offset=max(first, next_offset - 1),
                    next_offset=topic.visible_next,
                )
        subscription.skip_reclaimed()
        return subscription
