"""The verbs about subscriptions: who reads, what there is of them, and where they stand."""

from mbctl.core.grant import Wake
from mbctl.core.members import Member
from mbctl.core.parts import Parts
from mbctl.core.subscription import Subscription
from mbctl.core.topic import Topic
from mbctl.errors import InvalidArgument, LimitExceeded, NotSubscribed, ProtocolError
from mbctl.model import (
    Sought,
    Start,
    Subscribed,
    SubscribeOptions,
    check_name,
    check_options,
)


class Subscribing(Parts):
    """Registers reading processes, and creates, moves and ends subscriptions."""

    # --- subscribers ----------------------------------------------------------------------

    def register_subscriber(
        self, member_id: bytes, name: str | None, now_ns: int
    ) -> tuple[Member, list[Wake]]:
        """Make a reading process known; without a name it is ephemeral.

        Registering a process that is still known closes it first.

        Raises:
            InvalidName: the name breaks the rules.
        """
        subscriber = f"~{member_id.hex()}" if name is None else check_name(name)
        wakes = self.close_member(member_id, now_ns)
        return self._members.add(member_id, subscriber, durable=name is not None), wakes

    def close_member(self, member_id: bytes, now_ns: int) -> list[Wake]:
        """Release all that a process has which is gone; an ephemeral one may come back.

        Its waiting pulls are answered too, so that the caller can forget them.
        """
        member = self._members.get(member_id)
        if member is None:
            return []
        wakes = self._pulls.end(member.pulls)
        touched: dict[Subscription, None] = {}
        for lease in list(member.leases):
            lease.subscription.end_lease(lease)
            touched[lease.subscription] = None
        self._members.remove(member, now_ns)
        return wakes + self._pulls.serve(touched, now_ns)

    def member(self, member_id: bytes) -> Member:
        """The process registered under that id.

        Raises:
            ProtocolError: none is; a subscriber registers before its other verbs.
        """
        member = self._members.get(member_id)
        if member is None:
            raise ProtocolError(reason="this needs a registered subscriber")
        return member

    def subscribe(
        self, member: Member, topic_name: str, options: SubscribeOptions, *, wall_ns: int
    ) -> tuple[Subscribed, Subscription | None]:
        """Create the subscription, or keep its place and apply the options given.

        The answer; and the subscription, if it is durable and this is to be stored.

        Raises:
            TopicNotFound: there is no such topic, or no such dead-letter topic.
            OffsetOutOfRange: ``options.start`` is an offset the topic has not reached.
            InvalidArgument, InvalidName: an option makes no sense.
            LimitExceeded: the topic or the broker has all the subscriptions it may.
        """
        topic = self.topics.named(topic_name)
        self._check_options(topic, options)
        subscription = topic.subscriptions.get(member.subscriber)
        created = subscription is None
        skipped = 0
        if subscription is None:
            start = options.start
            if start is None:
                start = topic.default_start(durable=member.durable)
            offset, asked = topic.start_offset(start)
            skipped = offset - min(asked, topic.first_offset)
            self._check_room(topic)
            owner_id = None if member.durable else member.id
            subscription = self._add_subscription(topic, member.subscriber, offset, owner_id)
            subscription.created = subscription.moved_at = wall_ns
            if owner_id is not None:
                member.ephemeral[subscription] = None
        subscription.skip_reclaimed()
        is_changed = subscription.apply(options) or created
        self._serve_soon(subscription)
        subscribed = Subscribed(
            topic=topic_name,
            subscriber=member.subscriber,
            topic_id=topic.topic_id,
            offset=subscription.cursor,
            skipped=skipped,
            created=created,
        )
        return subscribed, subscription if subscription.durable and is_changed else None

    def _check_options(self, topic: Topic, options: SubscribeOptions) -> None:
        check_options(options)
        if options.dead_letter is None:
            return
        if options.dead_letter == topic.name:
            raise InvalidArgument(reason="a topic cannot be its own dead-letter topic")
        self.topics.named(options.dead_letter)

    def _check_room(self, topic: Topic) -> None:
        limits = self.limits
        if len(topic.subscriptions) >= limits.topic_subscriptions:
            raise LimitExceeded(
                what=f"subscriptions of topic {topic.name!r}", limit=limits.topic_subscriptions
            )
        if self.subscription_count >= limits.subscriptions:
            raise LimitExceeded(what="subscriptions", limit=limits.subscriptions)

    def unsubscribe(self, topic_name: str, subscriber: str) -> tuple[Subscription, list[Wake]]:
        """Delete the subscription; it, and the pulls that waited there.

        Raises:
            TopicNotFound, SubscriptionNotFound: there is no such thing.
        """
        subscription = self.subscription(topic_name, subscriber)
        refusal = NotSubscribed(topic=topic_name, subscriber=subscriber)
        return subscription, self._end_subscription(subscription, refusal)

    def seek(
        self, topic_name: str, subscriber: str, start: Start, *, now_ns: int, wall_ns: int
    ) -> tuple[Sought, Subscription, list[Wake]]:
        """Move a subscription: its leases end, and acks of what was granted before are void.

        Below ``start`` all counts as acknowledged, from there on nothing. The subscription is
        to be stored as it is now, if it is durable.

        Raises:
            TopicNotFound, SubscriptionNotFound: there is no such thing.
            OffsetOutOfRange: ``start`` is an offset that the topic has not reached.
        """
        subscription = self.subscription(topic_name, subscriber)
        topic = subscription.topic
        offset, asked = topic.start_offset(start)
        subscription.skip_reclaimed()
        subscription.seek(offset)
        subscription.moved_at = wall_ns
        if subscription.durable:
            topic.lower_cursor(subscription)
            self._untaken.add(subscription)
        sought = Sought(topic_name, subscriber, offset, max(0, topic.first_offset - asked))
        return sought, subscription, self._pulls.serve([subscription], now_ns)
