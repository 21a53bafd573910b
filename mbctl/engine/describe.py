"""What the read-only verbs say of core's state."""

from collections.abc import Iterator

from mbctl.core.broker import Broker
from mbctl.core.subscription import Subscription
from mbctl.core.topic import Topic
from mbctl.model import NS_PER_S, Hold, SubscriptionInfo, TopicHolds, TopicInfo

# So many ranges of parked messages are told; there may be ten thousand.
_PARKED_RANGES = 20


def topic(topic: Topic, durability: str) -> TopicInfo:
    """One topic as it is now."""
    return TopicInfo(
        topic=topic.name,
        messages=topic.messages,
        bytes=topic.index.size,
        first_offset=topic.first_offset,
        next_offset=topic.next_offset,
        subscriptions=len(topic.subscriptions),
        topic_id=topic.topic_id,
        created=topic.created,
        settings=topic.settings,
        durability=durability,
    )


def holds(topic: Topic) -> TopicHolds:
    """Who keeps messages of the topic alive, the one furthest behind first."""
    durable = [s for s in topic.subscriptions.values() if s.durable]
    for subscription in durable:
        subscription.skip_reclaimed()
    behind = [s for s in durable if s.cursor < topic.next_offset]
    behind.sort(key=lambda subscription: subscription.cursor)
    return TopicHolds(
        topic=topic.name,
        messages=topic.messages,
        bytes=topic.index.size,
        holds=[
            Hold(
                subscriber=subscription.subscriber,
                cursor=subscription.cursor,
                messages=topic.next_offset - subscription.cursor,
                bytes=topic.index.size_from(subscription.cursor),
                since=subscription.moved_at,
                last_pull=subscription.last_pull,
            )
            for subscription in behind
        ],
    )


def subscriptions(core: Broker, topic_name: str | None) -> Iterator[SubscriptionInfo]:
    """All subscriptions of one topic, or of all, by name; what ends meanwhile is passed over.

    Raises:
        TopicNotFound: at the first step, if there is no such topic.
    """
    topics = list(core.topics) if topic_name is None else [core.topics.named(topic_name)]
    for topic in sorted(topics, key=lambda topic: topic.name):
        for name in sorted(topic.subscriptions):
            found = topic.subscriptions.get(name)
            if found is not None:
                yield subscription(found)


def subscription(subscription: Subscription) -> SubscriptionInfo:
    """One subscription as it is now."""
    subscription.skip_reclaimed()
    return SubscriptionInfo(
        topic=subscription.topic.name,
        subscriber=subscription.subscriber,
        durable=subscription.durable,
        cursor=subscription.cursor,
        unread=subscription.unread,
        leased=subscription.leases.leased_count,
        redeliver=subscription.redeliver_count,
        lost=subscription.lost,
        ranges=subscription.ranges,
        waiting_pulls=len(subscription.pulls),
        ack_wait=subscription.ack_wait_ns / NS_PER_S,
        created=subscription.created,
        last_pull=subscription.last_pull,
        max_deliveries=subscription.max_deliveries,
        dead_letter=subscription.dead_letter,
        parked=subscription.parked_count,
        parked_ranges=subscription.parked_ranges()[:_PARKED_RANGES],
        dropped=subscription.dropped,
        expired=subscription.expired,
        at_limit=subscription.at_limit,
    )
