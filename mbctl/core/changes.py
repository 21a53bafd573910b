"""What changed and is not stored yet: who acknowledged what, and what that gives up.

What is given up because all have read it is decided when the changes are taken. They are
stored together, in order, so once that is durable every cursor that this was computed from
is durable too. Until then the places are not released; but nobody can subscribe below what
is being given up.

What is given up for another reason counts against what was not acknowledged by then. That
comes out the same when the changes are read again, all acknowledgements first: those from
before it are below it, those from after it above.
"""

import msgspec

from mbctl.core.leases import Agenda, Count
from mbctl.core.retention import Retention
from mbctl.core.subscription import Subscription
from mbctl.core.topic import Topic, Trimmed
from mbctl.model import Range


class Changes(msgspec.Struct, frozen=True):
    """What is to be stored beside what verbs answered with, in this order.

    ``acknowledged`` has, for each durable subscription, what it acknowledged since the changes
    were taken last; ``redelivered`` how often its messages were delivered, where that changed
    and is more than once. ``trimmed`` is what topics gave up, for each in order.
    """

    acknowledged: list[tuple[Subscription, list[Range]]]
    redelivered: list[tuple[Subscription, list[Count]]]
    trimmed: list[Trimmed]


class Untaken:
    """The durable subscriptions that changed, and the topics that may be trimmed."""

    def __init__(self, agenda: Agenda, retention: Retention) -> None:
        self.subscriptions: dict[Subscription, None] = {}
        self.topics: dict[Topic, None] = {}
        self._agenda = agenda
        self._retention = retention

    def __bool__(self) -> bool:
        """Whether there is something to take."""
        return bool(
            self.subscriptions
            or self.topics
            or self._agenda.recounted
            or self._agenda.moved
            or self._retention
        )

    def add(self, subscription: Subscription) -> None:
        """Note that a durable ``subscription`` acknowledged something, or was moved."""
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
        for subscription in self._agenda.moved:
            self.add(subscription)
        self._agenda.moved.clear()
        acknowledged = []
        for subscription in self.subscriptions:
            if ranges := subscription.take_acknowledged():
                acknowledged.append((subscription, ranges))
            subscription.topic.take_cursor(subscription)
        redelivered = []
        for subscription in list(self._agenda.recounted):
            if counts := subscription.leases.take_counts():
                redelivered.append((subscription, counts))
        for topic in self.topics:
            self._retention.reclaim(topic)
        self.subscriptions.clear()
        self.topics.clear()
        return Changes(acknowledged, redelivered, self._retention.take())
