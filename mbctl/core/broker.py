"""The broker's state and its verbs: one object that owns everything.

Every verb takes ``now_ns``, changes state at once, and returns what there is to do:
an answer, or ``Wake``s for pulls that had been waiting.

What is on its way to the disk: ``send`` accepts a batch, and ``reveal`` lets subscribers see
it when it is durable. ``take_changes`` gives what was acknowledged and is to be made durable,
with the places that nobody needs once it is. The ``restore_`` verbs bring back what was.
"""

from collections.abc import Hashable, Iterable, Sequence

from mbctl.core.changes import Changes, Untaken
from mbctl.core.grant import Grant, Wake
from mbctl.core.heap import Heap
from mbctl.core.index import BatchColumns
from mbctl.core.leases import Lease
from mbctl.core.members import Member, Members
from mbctl.core.publisher import Publishers, Stored
from mbctl.core.pulls import Pulls, WaitingPull
from mbctl.core.subscription import Subscription
from mbctl.core.topic import Topic, Topics
from mbctl.errors import (
    LimitExceeded,
    MbctlError,
    NotSubscribed,
    OffsetOutOfRange,
    ProtocolError,
    RequestRefused,
    SubscriptionNotFound,
    TopicNotFound,
)
from mbctl.model import (
    LIMITS,
    NS_PER_S,
    Limits,
    Range,
    Receipt,
    Subscribed,
    SubscribeOptions,
    TopicSettings,
    check_ack_wait,
    check_name,
)
from mbctl.ranges import merged


class Broker:
    """Topics, publishers and subscriptions of one engine."""

    def __init__(self, limits: Limits = LIMITS, first_topic_id: int = 1) -> None:
        self.limits = limits
        self.topics = Topics(limits, first_topic_id)
        self.subscription_count = 0
        self._publishers = Publishers(limits)
        self._members = Members(limits)
        self._pulls = Pulls()
        self._leases: Heap[Lease] = Heap()
        """The deadlines of all leases."""
        self._untaken = Untaken()

    # --- publishers -----------------------------------------------------------------------

    @property
    def session_count(self) -> int:
        """Publisher sessions remembered."""
        return len(self._publishers)

    def register_publisher(self, session: bytes, now_ns: int) -> None:
        """Make the session known.

        Raises:
            LimitExceeded: there are ``limits.sessions`` already.
        """
        self._publishers.use(session, now_ns)

    def send(
        self,
        session: bytes,
        sequence: int,
        topic: str,
        *,
        count: int,
        size: int,
        refusal: RequestRefused | None = None,
        age_ns: int,
        now_ns: int,
        wall_ns: int,
    ) -> Stored:
        """Give a batch its offsets, or answer a retry as its first attempt was.

        A new batch is in the index and not visible yet. The caller stores it and says
        where with ``set_place``, before any other verb. ``refusal`` is why the caller
        would refuse it if it is new; ``age_ns`` is how long ago the first attempt was;
        ``wall_ns`` the time for the batch's timestamp.

        Raises:
            OutcomeUnknown: the retry is too old to be told from a new send.
            LimitExceeded: the session is not known and there are too many.
            TopicNotFound, TopicFull: refused, and remembered for a retry.
        """
        publisher = self._publishers.use(session, now_ns)
        self._publishers.check_age(sequence, age_ns)
        earlier = publisher.earlier_answer(sequence)
        if earlier is not None:
            if not earlier.topic:
                # Its topic was deleted before a restart; the retry says what its name was.
                earlier = Receipt(topic, earlier.offset, earlier.count)
            return Stored(earlier, 0, 0, is_new=False)
        try:
            if refusal is not None:
                raise refusal
            target = self.topics.named(topic)
            target.check_room(count, size)
        except RequestRefused as error:
            publisher.remember(sequence, error)
            raise
        first, timestamp = target.index.append(count, size, wall_ns)
        receipt = Receipt(target.name, first, count)
        publisher.remember(sequence, receipt)
        return Stored(receipt, target.topic_id, timestamp, is_new=True)

    def set_place(self, topic_id: int, place: int) -> None:
        """Say where the batch that ``send`` accepted last for this topic is stored."""
        topic = self.topics.with_id(topic_id)
        assert topic is not None
        topic.index.set_last_place(place)

    def reveal(self, topic_id: int, next_offset: int, now_ns: int) -> list[Wake]:
        """Make messages below ``next_offset`` visible; they are durable."""
        topic = self.topics.with_id(topic_id)
        if topic is None:
            return []
        topic.reveal(next_offset)
        return self._pulls.serve(list(topic.waiting), now_ns)

    # --- topics ---------------------------------------------------------------------------

    def create_topic(
        self, name: str, settings: TopicSettings, *, exist_ok: bool, created: int
    ) -> tuple[Topic, bool]:
        """Return the topic and whether it was created now.

        Raises:
            InvalidName: the name breaks the rules.
            TopicExists: it exists with other settings, or at all if not ``exist_ok``.
            LimitExceeded: there are ``limits.topics`` already.
        """
        return self.topics.create(name, settings, exist_ok=exist_ok, created=created)

    def delete_topic(self, name: str) -> tuple[Topic, list[Wake]]:
        """Delete the topic with its subscriptions; it, and the pulls that waited there.

        The places in its index are left to the caller, there may be millions.

        Raises:
            TopicNotFound: there is none.
        """
        topic = self.topics.named(name)
        wakes: list[Wake] = []
        for subscription in list(topic.subscriptions.values()):
            wakes += self._end_subscription(subscription, TopicNotFound(topic=name))
        self.topics.remove(topic)
        self._untaken.remove_topic(topic)
        return topic, wakes

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
            lease.subscription.leases.make_ready(lease)
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
            TopicNotFound: there is no such topic.
            OffsetOutOfRange: ``options.start`` is an offset the topic has not reached.
            InvalidArgument: ``options.ack_wait`` is out of bounds.
            LimitExceeded: the topic or the broker has all the subscriptions it may.
        """
        topic = self.topics.named(topic_name)
        ack_wait_ns = round(check_ack_wait(options.ack_wait) * NS_PER_S)
        subscription = topic.subscriptions.get(member.subscriber)
        created = subscription is None
        skipped = 0
        if subscription is None:
            offset, skipped = topic.start_offset(options.start, durable=member.durable)
            self._check_room(topic)
            owner_id = None if member.durable else member.id
            subscription = self._add_subscription(topic, member.subscriber, offset, owner_id)
            subscription.created = subscription.moved_at = wall_ns
            if owner_id is not None:
                member.ephemeral[subscription] = None
        subscription.skip_reclaimed()
        is_changed = created or subscription.ack_wait_ns != ack_wait_ns
        subscription.ack_wait_ns = ack_wait_ns
        subscribed = Subscribed(
            topic=topic_name,
            subscriber=member.subscriber,
            topic_id=topic.topic_id,
            offset=subscription.cursor,
            skipped=skipped,
            created=created,
        )
        return subscribed, subscription if subscription.durable and is_changed else None

    def _check_room(self, topic: Topic) -> None:
        limits = self.limits
        if len(topic.subscriptions) >= limits.topic_subscriptions:
            raise LimitExceeded(
                what=f"subscriptions of topic {topic.name!r}", limit=limits.topic_subscriptions
            )
        if self.subscription_count >= limits.subscriptions:
            raise LimitExceeded(what="subscriptions", limit=limits.subscriptions)

    def _add_subscription(
        self, topic: Topic, subscriber: str, offset: int, owner_id: bytes | None
    ) -> Subscription:
        subscription = Subscription(
            topic,
            subscriber,
            offset,
            owner_id=owner_id,
            ranges_max=self.limits.subscription_ranges,
            deadlines=self._leases,
        )
        topic.add_subscription(subscription)
        self.subscription_count += 1
        if subscription.durable:
            self._untaken.add_holder(subscription)
        return subscription

    def unsubscribe(self, topic_name: str, subscriber: str) -> tuple[Subscription, list[Wake]]:
        """Delete the subscription; it, and the pulls that waited there.

        Raises:
            TopicNotFound, SubscriptionNotFound: there is no such thing.
        """
        subscription = self.subscription(topic_name, subscriber)
        refusal = NotSubscribed(topic=topic_name, subscriber=subscriber)
        return subscription, self._end_subscription(subscription, refusal)

    def subscription(self, topic_name: str, subscriber: str) -> Subscription:
        """The subscription of that subscriber.

        Raises:
            TopicNotFound, SubscriptionNotFound: there is no such thing.
        """
        subscription = self.topics.named(topic_name).subscriptions.get(subscriber)
        if subscription is None:
            raise SubscriptionNotFound(topic=topic_name, subscriber=subscriber)
        return subscription

    def _end_subscription(self, subscription: Subscription, refusal: MbctlError) -> list[Wake]:
        wakes = self._pulls.end(subscription.pulls, refusal)
        subscription.leases.clear()
        subscription.topic.remove_subscription(subscription)
        self.subscription_count -= 1
        if subscription.durable:
            self._untaken.add_holder(subscription)
        else:
            self._members.forget(subscription)
        return wakes

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

    def _subscribed(self, member: Member, topic_name: str) -> Subscription:
        subscription = self.topics.named(topic_name).subscriptions.get(member.subscriber)
        if subscription is None:
            raise NotSubscribed(topic=topic_name, subscriber=member.subscriber)
        return subscription

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

    # --- what is durable, and what is due -------------------------------------------------

    @property
    def has_changes(self) -> bool:
        """Whether ``take_changes`` may have something."""
        return bool(self._untaken)

    def take_changes(self) -> Changes:
        """What was acknowledged since the last call, and what of the topics that gives up."""
        return self._untaken.take()

    def next_deadline_ns(self) -> int | None:
        """When ``expire`` has something to do next, or None."""
        deadlines = (
            self._leases.lowest(),
            self._pulls.next_deadline_ns(),
            self._members.next_deadline_ns(),
            self._publishers.next_deadline_ns(),
        )
        nearest = None
        for when_ns in deadlines:
            if when_ns is not None and (nearest is None or when_ns < nearest):
                nearest = when_ns
        return nearest

    def expire(self, now_ns: int) -> list[Wake]:
        """Do what is due: end leases and waits, forget sessions and ephemeral readers.

        Leases first: a pull whose time is up still gets what has come free by then.
        """
        touched: dict[Subscription, None] = {}
        while (lease := self._leases.pop_through(now_ns)) is not None:
            lease.subscription.leases.make_ready(lease)
            touched[lease.subscription] = None
        wakes = self._pulls.serve(touched, now_ns) + self._pulls.expire(now_ns)
        while (member := self._members.pop_due(now_ns)) is not None:
            for subscription in list(member.ephemeral):
                refusal = NotSubscribed(
                    topic=subscription.topic.name, subscriber=subscription.subscriber
                )
                wakes += self._end_subscription(subscription, refusal)
        self._publishers.expire(now_ns)
        return wakes

    # --- what was before a restart --------------------------------------------------------

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
    ) -> tuple[Subscription, bool]:
        """A durable subscription as it was; and whether that fits what the topic keeps.

        If not, messages were lost, and its place is moved to what there is: a cursor or range
        beyond the end would let messages to come count as acknowledged.
        """
        low, high = topic.first_offset, topic.next_offset
        ranges = merged(acknowledged)
        subscription = self._add_subscription(topic, subscriber, min(max(cursor, low), high), None)
        subscription.restore([(first, min(next, high)) for first, next in ranges if first < high])
        subscription.ack_wait_ns = ack_wait_ns
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

    def check(self) -> None:
        """Assert what must hold between two verbs. Slow: for tests."""
        self.topics.check()
        subscriptions = [s for topic in self.topics for s in topic.subscriptions.values()]
        assert self.subscription_count == len(subscriptions) <= self.limits.subscriptions
        assert set(self._untaken.subscriptions) <= {s for s in subscriptions if s.durable}
        assert set(self._untaken.topics) <= set(self.topics)
        leases = [lease for subscription in subscriptions for lease in subscription.leases]
        assert len(self._leases) == sum(lease in self._leases for lease in leases)
        self._leases.check()
        self._pulls.check(subscriptions)
        self._members.check()
        self._publishers.check()
