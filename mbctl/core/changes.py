"""What changed and is not stored yet: who acknowledged what, and what that gives up.

Trimming is decided when the changes are taken. They are stored together, in order, so once
that is durable every cursor that the trimming was computed from is durable too. Until then
the places are not released; but nobody can subscribe below what is being given up.
"""

import msgspec

from mbctl.core.subscription import Subscription
from mbctl.core.topic import Topic, Trimmed
from mbctl.model import Range


class Changes(msgspec.Struct, frozen=True):
    """What is to be stored beside what verbs answered with, in this order.

    ``acknowledged`` has, for each durable subscription, what it acknowledged since the changes
    were taken last. ``trimmed`` follows from it.
    """

    acknowledged: list[tuple[Subscription, list[Range]]]
    trimmed: list[Trimmed]


class Untaken:
    """The durable subscriptions that acknowledged, and the topics that may be trimmed."""

    def __init__(self) -> None:
        self.subscriptions: dict[Subscription, None] = {}
        self.topics: dict[Topic, None] = {}

    def __bool__(self) -> bool:
        """Whether there is something to take."""
        return bool(self.subscriptions or self.topics)

    def add(self, subscription: Subscription) -> None:
        """Note that a durable ``subscription`` acknowledged something."""
        assert subscription.durable
        self.subscriptions[subscription] = None
        self.topics[subscription.topic] = None

    def add_holder(self, subscription: Subscription) -> None:
        """Note that a durable ``subscription`` holds messages from now on, or no longer."""
        assert subscription.durable
        self.subscriptions.pop(subscription, None)
        self.topics[subscription.topic] = None

    def remove_topic(self, topic: Topic) -> None:
        """Forget a topic that has no subscriptions left."""
        self.topics.pop(topic, None)

    def take(self) -> Changes:
        """All that there is; nothing is left."""
        acknowledged = []
        for subscription in self.subscriptions:
            acknowledged.append((subscription, subscription.take_acknowledged()))
            subscription.topic.take_cursor(subscription)
        trimmed = [done for topic in self.topics if (done := topic.trim()) is not None]
        self.subscriptions.clear()
        self.topics.clear()
        return Changes(acknowledged, trimmed)
