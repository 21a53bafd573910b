"""What the verbs of the broker share: its state, and how a subscription is found and ended."""

from typing import Any

from mbctl.core.changes import Untaken
from mbctl.core.grant import Wake
from mbctl.core.heap import Heap
from mbctl.core.leases import Agenda
from mbctl.core.members import Members
from mbctl.core.publisher import Publishers
from mbctl.core.pulls import Pulls
from mbctl.core.retention import Retention
from mbctl.core.subscription import Subscription
from mbctl.core.topic import Topic, Topics
from mbctl.errors import MbctlError, SubscriptionNotFound
from mbctl.model import LIMITS, Limits


class Parts:
    """Topics, publishers and subscriptions of one engine."""

    def __init__(self, limits: Limits = LIMITS, first_topic_id: int = 1) -> None:
        self.limits = limits
        self.topics = Topics(limits, first_topic_id)
        self.subscription_count = 0
        self._publishers = Publishers(limits)
        self._members = Members(limits)
        self._pulls = Pulls()
        self._agenda = Agenda()
        self._retention = Retention()
        self._untaken = Untaken(self._agenda, self._retention)
        # Of all that time brings.
        self._deadlines: tuple[Heap[Any], ...] = (
            self._agenda.deadlines,
            self._pulls.deadlines,
            self._members.deadlines,
            self._publishers.deadlines,
            self._retention.looks,
        )
        # Who may be granted something and is served with the next deadline.
        self._unserved: dict[Subscription, None] = {}

    def subscription(self, topic_name: str, subscriber: str) -> Subscription:
        """The subscription of that subscriber.

        Raises:
            TopicNotFound, SubscriptionNotFound: there is no such thing.
        """
        subscription = self.topics.named(topic_name).subscriptions.get(subscriber)
        if subscription is None:
            raise SubscriptionNotFound(topic=topic_name, subscriber=subscriber)
        return subscription

    def _add_subscription(
        self, topic: Topic, subscriber: str, offset: int, owner_id: bytes | None
    ) -> Subscription:
        subscription = Subscription(
            topic,
            subscriber,
            offset,
            owner_id=owner_id,
            ranges_max=self.limits.subscription_ranges,
            agenda=self._agenda,
        )
        topic.add_subscription(subscription)
        self.subscription_count += 1
        if subscription.durable:
            self._untaken.add_holder(subscription)
        return subscription

    def _end_subscription(self, subscription: Subscription, refusal: MbctlError) -> list[Wake]:
        wakes = self._pulls.end(subscription.pulls, refusal)
        subscription.leases.clear()
        self._unserved.pop(subscription, None)
        subscription.topic.remove_subscription(subscription)
        self.subscription_count -= 1
        if subscription.durable:
            self._untaken.add_holder(subscription)
        else:
            self._members.forget(subscription)
        return wakes

    def _serve_soon(self, subscription: Subscription) -> None:
        """Have waiting pulls answered with the next deadline, which is now, if there are any."""
        if subscription.pulls and subscription.has_messages:
            self._unserved[subscription] = None
