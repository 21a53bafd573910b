"""The verbs of delivery: what a pull gets, and what becomes of a grant that cannot be sent."""

from collections.abc import Hashable

from mbctl.core.grant import Grant, Piece, Room, Wake
from mbctl.core.members import Member
from mbctl.core.parts import Parts
from mbctl.core.pulls import WaitingPull
from mbctl.core.subscription import Subscription
from mbctl.core.topic import Topic
from mbctl.errors import NotSubscribed
from mbctl.model import Range, Start


class Pulling(Parts):
    """Grants messages, at once or when there are some."""

    # --- pulling --------------------------------------------------------------------------

    def pull(
        self,
        member: Member,
        topic_name: str,
        *,
        max_messages: int,
        max_bytes: int,
        wait_ns: int,
        token: Hashable,
        now_ns: int,
        wall_ns: int,
    ) -> Grant | None:
        """Grant what there is; or, if nothing, None: a Wake with ``token`` follows.

        It follows within ``wait_ns``. With ``wait_ns`` 0 an empty grant is returned.

        Raises:
            TopicNotFound, NotSubscribed: there is nothing to pull from.
        """
        subscription = self._subscribed(member, topic_name)
        subscription.last_pull = wall_ns
        pull = WaitingPull(
            token, member, subscription, max_messages=max_messages, max_bytes=max_bytes
        )
        return self._pulls.pull(pull, wait_ns=wait_ns, now_ns=now_ns)

    def cancel_pull(self, token: Hashable) -> list[Wake]:
        """End a waiting pull, which gets nothing; no wake if it was answered already."""
        return self._pulls.cancel(token)

    def take_back(
        self, member_id: bytes, grant: Grant, ranges: list[Range], now_ns: int
    ) -> list[Wake]:
        """Undo ``grant`` as far as the reply had no room for it: as if never granted.

        Passes over what has ended since.
        """
        member = self._members.get(member_id)
        topic = self.topics.with_id(grant.topic_id)
        if member is None or topic is None or grant.subscriber not in topic.subscriptions:
            return []
        subscription = topic.subscriptions[grant.subscriber]
        subscription.take_back(member, ranges)
        return self._pulls.serve([subscription], now_ns)

    def lose(
        self, member_id: bytes, grant: Grant, lost: Range, *, now_ns: int, wall_ns: int
    ) -> tuple[list[Range], list[Wake]]:
        """Undo ``grant``, and pass over ``lost`` for its subscription: it cannot be read.

        As if acknowledged, whoever has it. What of it was not acknowledged; none if the
        process or the subscription is gone, so that the next who reads there is told.
        """
        member = self._members.get(member_id)
        topic = self.topics.with_id(grant.topic_id)
        if member is None or topic is None or grant.subscriber not in topic.subscriptions:
            return [], []
        subscription = topic.subscriptions[grant.subscriber]
        subscription.skip_reclaimed()
        cursor = subscription.cursor
        first, next_offset = lost
        passed = subscription.lose(first, min(next_offset, topic.visible_next))
        if subscription.cursor != cursor:
            subscription.moved_at = wall_ns
        if subscription.durable and passed:
            self._untaken.add(subscription)
        subscription.take_back(member, [(piece.first, piece.next) for piece in grant.pieces])
        subscription.skipped += grant.skipped
        return passed, self._pulls.serve([subscription], now_ns)

    def peek(
        self, topic_name: str, start: Start, *, max_messages: int, max_bytes: int
    ) -> tuple[Topic, list[Piece]]:
        """Messages from ``start`` on, or from the first kept after it; nothing changes.

        Raises:
            TopicNotFound: there is no such topic.
            OffsetOutOfRange: ``start`` is an offset that the topic has not reached.
        """
        topic = self.topics.named(topic_name)
        offset, _ = topic.start_offset(start)
        room = Room(max_messages, max_bytes)
        room.fill(topic.index, offset, topic.visible_next, 0)
        return topic, room.pieces

    def _subscribed(self, member: Member, topic_name: str) -> Subscription:
        subscription = self.topics.named(topic_name).subscriptions.get(member.subscriber)
        if subscription is None:
            raise NotSubscribed(topic=topic_name, subscriber=member.subscriber)
        return subscription
