"""What the read-only verbs say of core's state."""

from mbctl.core.broker import Broker
from mbctl.core.subscription import Subscription
from mbctl.core.topic import Topic
from mbctl.model import NS_PER_S, Hold, SubscriptionInfo, TopicHolds, TopicInfo


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
    behind = [s for s in topic.subscriptions.values() if s.durable and s.cursor < topic.next_offset]
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


def subscriptions(core: Broker, topic_name: str | None) -> list[SubscriptionInfo]:
    """All subscriptions of one topic, or of all, by name."""
    topics = core.topics if topic_name is None else [core.topics.named(topic_name)]
    found = [subscription(s) for topic in topics for s in topic.subscriptions.values()]
    return sorted(found, key=lambda info: (info.topic, info.subscriber))


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
    )
