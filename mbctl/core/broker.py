"""The broker's state and its verbs: one object that owns everything.

Every verb takes ``now_ns``, changes state at once, and returns what there is to do:
an answer, or ``Wake``s for pulls that had been waiting. Three things collect until the
caller takes them: subscriptions whose cursor moved (``take_moved``), places that hold no
live message any more (``reclaim``), and deadlines (``next_deadline_ns``, ``expire``).

A batch is visible to subscribers only when the caller says that it is durable (``reveal``).
"""

from collections.abc import Hashable

import msgspec

from mbctl.core.publisher import PublisherSession
from mbctl.core.subscription import (
    Grant,
    Lease,
    Member,
    Piece,
    Room,
    Subscription,
    Waiting,
)
from mbctl.core.timers import Timers
from mbctl.core.topic import Topic
from mbctl.errors import (
    LimitExceeded,
    MbctlError,
    NotSubscribed,
    OffsetOutOfRange,
    OutcomeUnknown,
    ProtocolError,
    RequestRefused,
    SubscriptionNotFound,
    TopicExists,
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

# A session is forgotten a while after its sends became too old to retry, so that a retry
# which is young enough always finds its answer, also when it took long to arrive.
_SESSION_GRACE_NS = 60 * NS_PER_S


class Wake(msgspec.Struct, frozen=True):
    """The answer to a pull that waited: what it was granted, or why it was ended."""

    token: Hashable
    result: Grant | MbctlError


class Stored(msgspec.Struct, frozen=True):
    """What became of a send: new, or (not ``is_new``) a retry of one that is stored already."""

    receipt: Receipt
    topic_id: int
    timestamp: int
    is_new: bool


class Broker:
    """Topics, publishers and subscriptions of one engine."""

    def __init__(self, limits: Limits = LIMITS, first_topic_id: int = 1) -> None:
        self.limits = limits
        self.topics: dict[str, Topic] = {}
        self.subscription_count = 0
        self._topics_by_id: dict[int, Topic] = {}
        self._next_topic_id = first_topic_id
        self._sessions: dict[bytes, PublisherSession] = {}
        self._members: dict[bytes, Member] = {}
        self._timers: Timers[Hashable] = Timers()
        # Ephemeral readers whose connection is gone, until they come back or time is up.
        self._gone: dict[bytes, Member] = {}
        self._pulls: dict[Hashable, Waiting] = {}
        self._moved: dict[Subscription, None] = {}
        self._free: list[int] = []

    # --- publishers -----------------------------------------------------------------------

    @property
    def session_count(self) -> int:
        """Publisher sessions remembered."""
        return len(self._sessions)

    def register_publisher(self, session: bytes, now_ns: int) -> None:
        """Make the session known.

        Raises:
            LimitExceeded: there are ``limits.sessions`` already.
        """
        self._session(session, now_ns).used_ns = now_ns

    def _session(self, session: bytes, now_ns: int) -> PublisherSession:
        known = self._sessions.get(session)
        if known is None:
            if len(self._sessions) >= self.limits.sessions:
                raise LimitExceeded(what="publisher sessions", limit=self.limits.sessions)
            known = PublisherSession(session, self.limits.sends_in_flight, now_ns)
            self._sessions[session] = known
            self._timers.set(known, now_ns + self._session_idle_ns)
        return known

    @property
    def _session_idle_ns(self) -> int:
        return self.limits.session_idle_s * NS_PER_S + _SESSION_GRACE_NS

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
            TopicNotFound, TopicFull: refused, and remembered for a retry.
        """
        publisher = self._session(session, now_ns)
        publisher.used_ns = now_ns
        if age_ns > self.limits.session_idle_s * NS_PER_S:
            raise OutcomeUnknown(what=f"send {sequence}, first tried too long ago,")
        earlier = publisher.earlier_answer(sequence)
        if earlier is not None:
            return Stored(earlier, 0, 0, is_new=False)
        try:
            if refusal is not None:
                raise refusal
            target = self.topic(topic)
            target.check_room(count, size)
        except RequestRefused as error:
            publisher.remember(sequence, error)
            raise
        first, timestamp = target.append(count, size, wall_ns)
        receipt = Receipt(topic, first, count)
        publisher.remember(sequence, receipt)
        return Stored(receipt, target.topic_id, timestamp, is_new=True)

    def set_place(self, topic_id: int, place: int) -> None:
        """Say where the batch that ``send`` accepted last for this topic is stored."""
        self._topics_by_id[topic_id].index.set_last_place(place)

    def reveal(self, topic_id: int, next_offset: int, now_ns: int) -> list[Wake]:
        """Make messages below ``next_offset`` visible; they are durable."""
        topic = self._topics_by_id.get(topic_id)
        if topic is None:
            return []
        assert topic.visible_next <= next_offset <= topic.next_offset
        topic.visible_next = next_offset
        wakes: list[Wake] = []
        for subscription in list(topic.waiting):
            wakes += self._serve(subscription, now_ns)
        return wakes

    # --- topics ---------------------------------------------------------------------------

    def topic(self, name: str) -> Topic:
        """The topic of that name.

        Raises:
            TopicNotFound: there is none.
        """
        topic = self.topics.get(name)
        if topic is None:
            raise TopicNotFound(topic=name)
        return topic

    def create_topic(
        self, name: str, settings: TopicSettings, *, exist_ok: bool, created: int
    ) -> tuple[Topic, bool]:
        """Return the topic and whether it was created now.

        Raises:
            InvalidName: the name breaks the rules.
            TopicExists: it exists with other settings, or at all if not ``exist_ok``.
            LimitExceeded: there are ``limits.topics`` already.
        """
        check_name(name)
        topic = self.topics.get(name)
        if topic is not None:
            if exist_ok and topic.settings == settings:
                return topic, False
            raise TopicExists(topic=name)
        if len(self.topics) >= self.limits.topics:
            raise LimitExceeded(what="topics", limit=self.limits.topics)
        topic = Topic(name, self._next_topic_id, settings, created)
        self._next_topic_id += 1
        self.topics[name] = topic
        self._topics_by_id[topic.topic_id] = topic
        return topic, True

    def delete_topic(self, name: str) -> tuple[Topic, list[Wake]]:
        """Delete the topic with its subscriptions; it, and the pulls that waited there.

        The places of its batches are left to the caller, there may be millions.

        Raises:
            TopicNotFound: there is none.
        """
        topic = self.topic(name)
        wakes: list[Wake] = []
        for subscription in list(topic.subscriptions.values()):
            wakes += self._end_subscription(subscription, TopicNotFound(topic=name))
        del self.topics[name]
        del self._topics_by_id[topic.topic_id]
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
        member = Member(member_id, subscriber, durable=name is not None)
        gone = self._gone.pop(member_id, None)
        if gone is not None:
            self._timers.cancel(gone)
            member.ephemeral_subscriptions = gone.ephemeral_subscriptions
        self._members[member_id] = member
        return member, wakes

    def close_member(self, member_id: bytes, now_ns: int) -> list[Wake]:
        """Release all leases of a process that is gone; an ephemeral one may come back."""
        member = self._members.pop(member_id, None)
        if member is None:
            return []
        for waiting in list(member.waiting):
            self._forget(waiting)
        touched: dict[Subscription, None] = {}
        for lease in list(member.leases):
            lease.subscription.release(lease)
            touched[lease.subscription] = None
        if member.ephemeral_subscriptions:
            self._gone[member_id] = member
            self._timers.set(member, now_ns + self.limits.ephemeral_idle_s * NS_PER_S)
        return [wake for subscription in touched for wake in self._serve(subscription, now_ns)]

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
    ) -> Subscribed:
        """Create the subscription, or keep its place and apply the options given.

        Raises:
            TopicNotFound: there is no such topic.
            OffsetOutOfRange: ``options.start`` is an offset the topic has not reached.
            InvalidArgument: ``options.ack_wait`` is out of bounds.
            LimitExceeded: the topic or the broker has all the subscriptions it may.
        """
        topic = self.topic(topic_name)
        ack_wait_ns = round(check_ack_wait(options.ack_wait) * NS_PER_S)
        subscription = topic.subscriptions.get(member.subscriber)
        created = subscription is None
        skipped = 0
        if subscription is None:
            offset, skipped = _start_offset(topic, member, options.start)
            subscription = self._add_subscription(topic, member, offset)
            subscription.created = subscription.moved_at = wall_ns
        subscription.drop_below(topic.first_offset)
        subscription.ack_wait_ns = ack_wait_ns
        if member.durable:
            self._moved[subscription] = None
        return Subscribed(
            topic=topic_name,
            subscriber=member.subscriber,
            topic_id=topic.topic_id,
            offset=subscription.cursor,
            skipped=skipped,
            created=created,
        )

    def _add_subscription(self, topic: Topic, member: Member, offset: int) -> Subscription:
        if len(topic.subscriptions) >= self.limits.topic_subscriptions:
            raise LimitExceeded(
                what=f"subscriptions of topic {topic.name!r}", limit=self.limits.topic_subscriptions
            )
        if self.subscription_count >= self.limits.subscriptions:
            raise LimitExceeded(what="subscriptions", limit=self.limits.subscriptions)
        subscription = Subscription(topic, member, offset, self._timers)
        subscription.ranges_max = self.limits.subscription_ranges
        topic.add_subscription(subscription)
        self.subscription_count += 1
        if not member.durable:
            member.ephemeral_subscriptions[subscription] = None
        return subscription

    def unsubscribe(self, topic_name: str, subscriber: str) -> tuple[int, list[Wake]]:
        """Delete the subscription; the topic's id, and the pulls that waited there.

        Raises:
            TopicNotFound, SubscriptionNotFound: there is no such thing.
        """
        topic = self.topic(topic_name)
        subscription = self.subscription(topic_name, subscriber)
        refusal = NotSubscribed(topic=topic_name, subscriber=subscriber)
        return topic.topic_id, self._end_subscription(subscription, refusal)

    def subscription(self, topic_name: str, subscriber: str) -> Subscription:
        """The subscription of that subscriber.

        Raises:
            TopicNotFound, SubscriptionNotFound: there is no such thing.
        """
        subscription = self.topic(topic_name).subscriptions.get(subscriber)
        if subscription is None:
            raise SubscriptionNotFound(topic=topic_name, subscriber=subscriber)
        return subscription

    def _end_subscription(self, subscription: Subscription, refusal: MbctlError) -> list[Wake]:
        topic = subscription.topic
        wakes = []
        for waiting in subscription.end():
            del self._pulls[waiting.token]
            wakes.append(Wake(waiting.token, refusal))
        topic.remove_subscription(subscription)
        self.subscription_count -= 1
        self._moved.pop(subscription, None)
        for readers in (self._members, self._gone):
            member = readers.get(subscription.member_id)
            if member is not None:
                member.ephemeral_subscriptions.pop(subscription, None)
        self._free += topic.reclaim()
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
        room = Room(max_messages, max_bytes)
        grant = self._grant(subscription, member, room, now_ns)
        if grant.pieces or grant.skipped or wait_ns <= 0:
            return grant
        waiting = Waiting(token, member, subscription, room)
        subscription.waiting[waiting] = None
        subscription.topic.waiting[subscription] = None
        member.waiting[waiting] = None
        self._pulls[token] = waiting
        self._timers.set(waiting, now_ns + wait_ns)
        return None

    def cancel_pull(self, token: Hashable) -> Grant | None:
        """End a waiting pull; its empty grant, or None if it was answered already."""
        waiting = self._pulls.get(token)
        return None if waiting is None else self._forget(waiting)

    def _subscribed(self, member: Member, topic_name: str) -> Subscription:
        subscription = self.topic(topic_name).subscriptions.get(member.subscriber)
        if subscription is None:
            raise NotSubscribed(topic=topic_name, subscriber=member.subscriber)
        return subscription

    def _grant(self, subscription: Subscription, member: Member, room: Room, now_ns: int) -> Grant:
        pieces = subscription.grant(member, room, now_ns)
        skipped, subscription.skipped = subscription.skipped, 0
        return _grant_of(subscription, skipped, pieces)

    def _serve(self, subscription: Subscription, now_ns: int) -> list[Wake]:
        """Answer the waiting pulls of ``subscription`` while there is something to grant."""
        wakes = []
        while subscription.waiting and subscription.has_messages:
            waiting = next(iter(subscription.waiting))
            room = Room(waiting.max_messages, waiting.max_bytes)
            grant = self._grant(subscription, waiting.member, room, now_ns)
            if not grant.pieces:
                break
            self._forget(waiting)
            wakes.append(Wake(waiting.token, grant))
        return wakes

    def _forget(self, waiting: Waiting) -> Grant:
        """Take a waiting pull out of everything; the empty grant to answer it with."""
        subscription = waiting.subscription
        del self._pulls[waiting.token]
        del waiting.member.waiting[waiting]
        del subscription.waiting[waiting]
        if not subscription.waiting:
            del subscription.topic.waiting[subscription]
        self._timers.cancel(waiting)
        return _grant_of(subscription, 0, [])

    # --- settling -------------------------------------------------------------------------

    def ack(
        self, member: Member, topic_name: str, topic_id: int, ranges: list[Range], wall_ns: int
    ) -> int:
        """Acknowledge messages; how many were not acknowledged before and may be now.

        Raises:
            TopicNotFound: there is no such topic, or it is not the one of ``topic_id``.
            NotSubscribed: the subscription is gone.
            OffsetOutOfRange: a range goes beyond the topic's messages, or is empty.
            LimitExceeded: there would be too many ranges; nothing changed.
        """
        subscription = self._settled(member, topic_name, topic_id, ranges)
        cursor = subscription.cursor
        count = subscription.acknowledge(member, ranges)
        if subscription.durable and count:
            self._moved[subscription] = None
        if subscription.cursor != cursor:
            subscription.moved_at = wall_ns
        return count

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

        Raises: as ``ack``.
        """
        subscription = self._settled(member, topic_name, topic_id, ranges)
        ready_ns = now_ns + delay_ns if delay_ns > 0 else None
        count = subscription.give_back(member, ranges, ready_ns=ready_ns, counted=counted)
        return count, self._serve(subscription, now_ns)

    def extend(
        self, member: Member, topic_name: str, topic_id: int, ranges: list[Range], now_ns: int
    ) -> int:
        """Renew leases; how many messages are still this member's.

        Raises: as ``ack``.
        """
        subscription = self._settled(member, topic_name, topic_id, ranges)
        return subscription.extend(member, ranges, now_ns)

    def _settled(
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
        subscription.drop_below(topic.first_offset)
        return subscription

    # --- what collects --------------------------------------------------------------------

    def take_moved(self) -> list[Subscription]:
        """The durable subscriptions created or acknowledged since the last call."""
        moved = list(self._moved)
        self._moved.clear()
        return moved

    def reclaim(self, subscriptions: list[Subscription]) -> list[int]:
        """The places that nobody needs, now that these subscriptions' cursors are durable."""
        for topic in {subscription.topic: None for subscription in subscriptions}:
            if topic.topic_id in self._topics_by_id:
                self._free += topic.reclaim()
        free, self._free = self._free, []
        return free

    def next_deadline_ns(self) -> int | None:
        """When ``expire`` has something to do next, or None."""
        return self._timers.next_ns()

    def expire(self, now_ns: int) -> list[Wake]:
        """Do what is due: end waits and leases, forget sessions and ephemeral readers."""
        wakes: list[Wake] = []
        ready: dict[Subscription, None] = {}
        for key in self._timers.take_due(now_ns):
            match key:
                case Waiting():
                    wakes.append(Wake(key.token, self._forget(key)))
                case Lease():
                    key.subscription.expire(key)
                    ready[key.subscription] = None
                case PublisherSession():
                    self._expire_session(key, now_ns)
                case Member():
                    del self._gone[key.id]
                    for subscription in list(key.ephemeral_subscriptions):
                        gone = NotSubscribed(
                            topic=subscription.topic.name, subscriber=subscription.subscriber
                        )
                        wakes += self._end_subscription(subscription, gone)
                case _:
                    raise AssertionError(key)
        for subscription in ready:
            wakes += self._serve(subscription, now_ns)
        return wakes

    def _expire_session(self, session: PublisherSession, now_ns: int) -> None:
        # The timer is not moved by every send; it looks here whether it fired too early.
        forget_ns = session.used_ns + self._session_idle_ns
        if forget_ns <= now_ns:
            del self._sessions[session.id]
        else:
            self._timers.set(session, forget_ns)

    def check(self) -> None:
        """Assert what must hold between two verbs. Slow: for tests."""
        assert {t.topic_id: t for t in self.topics.values()} == self._topics_by_id
        assert self.subscription_count == sum(len(t.subscriptions) for t in self.topics.values())
        assert all(topic_id < self._next_topic_id for topic_id in self._topics_by_id)
        waiting = [w for t in self.topics.values() for s in t.waiting for w in s.waiting]
        assert sorted(map(id, waiting)) == sorted(map(id, self._pulls.values()))
        for pull in waiting:
            assert pull in pull.member.waiting
            assert self._timers.when(pull) is not None
        for topic in self.topics.values():
            topic.check()
        for session in self._sessions.values():
            session.check()
            assert self._timers.when(session) is not None
        assert len(self._sessions) <= self.limits.sessions


def _grant_of(subscription: Subscription, skipped: int, pieces: list[Piece]) -> Grant:
    topic = subscription.topic
    return Grant(topic.name, topic.topic_id, subscription.subscriber, skipped, pieces)


def _start_offset(topic: Topic, member: Member, start: int | str | None) -> tuple[int, int]:
    """Where a new subscription begins, and how many messages before that it passes over.

    By default the first subscription begins at the earliest message. A durable one is the
    first when no other durable one is there: a look by an ephemeral reader must not cost it
    the backlog.
    """
    if start is None:
        others = topic.durable_count if member.durable else len(topic.subscriptions)
        start = "new" if others else "earliest"
    if start == "new":
        asked = topic.next_offset
    elif start == "earliest":
        asked = topic.first_offset
    else:
        assert isinstance(start, int)
        asked = start
        if not 0 <= asked <= topic.next_offset:
            raise OffsetOutOfRange(topic=topic.name, offset=asked, next_offset=topic.next_offset)
    offset = max(asked, topic.first_offset)
    return offset, offset - min(asked, topic.first_offset)
