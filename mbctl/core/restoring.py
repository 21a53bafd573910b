"""What was before a restart: the verbs that bring it back."""

from collections.abc import Iterable, Sequence

from mbctl.core.index import BatchColumns
from mbctl.core.leases import Count
from mbctl.core.parts import Parts
from mbctl.core.subscription import Subscription
from mbctl.core.topic import Topic
from mbctl.model import Range, Receipt, TopicSettings
from mbctl.ranges import merged


class Restoring(Parts):
    """Takes over topics, subscriptions and sessions as they were stored."""

    def restore_topic(
        self,
        topic_id: int,
        name: str,
        settings: TopicSettings,
        *,
        created: int,
        runs: Iterable[BatchColumns],
        first_offset: int,
        next_offset: int,
        timestamp: int,
    ) -> tuple[Topic, Sequence[int]]:
        """A topic as it was, all its messages visible; and the places it needs no longer.

        See ``Topic.restore`` for what describes its messages.
        """
        topic = Topic(name, topic_id, settings, created)
        places = topic.restore(
            runs, first_offset=first_offset, next_offset=next_offset, timestamp=timestamp
        )
        self.topics.add(topic)
        self._retention.watch_restored(topic)
        return topic, places

    def restore_subscription(
        self,
        topic: Topic,
        subscriber: str,
        *,
        cursor: int,
        acknowledged: list[Range],
        ack_wait_ns: int,
        created: int,
        max_deliveries: int | None = None,
        dead_letter: str | None = None,
        counts: Iterable[Count] = (),
        dropped: int = 0,
        expired: int = 0,
    ) -> tuple[Subscription, bool]:
        """A durable subscription as it was; and whether that fits what the topic keeps.

        If not, messages were lost, and its place is moved to what there is: a cursor or range
        beyond the end would let messages to come count as acknowledged.
        """
        low, high = topic.first_offset, topic.next_offset
        ranges = merged(acknowledged)
        subscription = self._add_subscription(topic, subscriber, min(max(cursor, low), high), None)
        subscription.ack_wait_ns = ack_wait_ns
        subscription.max_deliveries = max_deliveries
        subscription.dead_letter = dead_letter
        subscription.dropped = dropped
        subscription.expired = expired
        subscription.restore(
            [(first, min(next, high)) for first, next in ranges if first < high],
            [
                (first, min(next, high), deliveries, is_parked)
                for first, next, deliveries, is_parked in counts
                if first < high
            ],
        )
        subscription.created = created
        subscription.moved_at = max(created, topic.index.timestamp_at(subscription.cursor))
        is_whole = low <= cursor <= high and all(next <= high for _, next in ranges)
        return subscription, is_whole

    def restore_session(
        self, session: bytes, answers: Iterable[tuple[int, int, int, int]], now_ns: int
    ) -> None:
        """A publisher session as it was, in use now.

        ``answers`` are ``(sequence, topic id, first offset, count)``, by rising sequence.
        """
        receipts = []
        for sequence, topic_id, first, count in answers:
            topic = self.topics.with_id(topic_id)
            receipts.append((sequence, Receipt("" if topic is None else topic.name, first, count)))
        self._publishers.restore(session, receipts, now_ns)
