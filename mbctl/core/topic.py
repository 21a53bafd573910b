"""Topics, and of each: what of it is kept, who reads it, and who holds its messages.

    first_offset          visible_next       next_offset
         │  kept, readable     │ not yet durable  │
    ─────┴─────────────────────┴──────────────────┴──▶ offsets

``first_offset`` follows the lowest cursor of the durable subscriptions, as far as the
cursors themselves are durable. The index drops a batch when all of it lies below.
"""

from collections.abc import Iterator

from mbctl.core.heap import Heap
from mbctl.core.index import BatchIndex
from mbctl.core.subscription import Subscription
from mbctl.errors import LimitExceeded, OffsetOutOfRange, TopicExists, TopicFull, TopicNotFound
from mbctl.model import Limits, TopicSettings, check_name


class Topic:
    """A topic's settings, its index of batches and its subscriptions."""

    __slots__ = (
        "_held",
        "created",
        "durable_count",
        "first_offset",
        "index",
        "name",
        "settings",
        "subscriptions",
        "topic_id",
        "visible_next",
        "waiting",
    )

    def __init__(self, name: str, topic_id: int, settings: TopicSettings, created: int) -> None:
        self.name = name
        self.topic_id = topic_id
        self.settings = settings
        self.created = created
        self.index = BatchIndex()
        self.first_offset = 0
        self.visible_next = 0
        self.subscriptions: dict[str, Subscription] = {}
        self.waiting: dict[Subscription, None] = {}
        """The subscriptions that have waiting pulls: who to look at when messages come."""
        self.durable_count = 0
        # The durable cursor of each durable subscription. One that is new, and one that
        # was deleted, hold messages until that too is durable.
        self._held: Heap[Subscription] = Heap()

    @property
    def next_offset(self) -> int:
        """The offset that the next message will get."""
        return self.index.next_offset

    @property
    def messages(self) -> int:
        """Messages kept."""
        return self.index.next_offset - self.first_offset

    def check_room(self, count: int, size: int) -> None:
        """Refuse a batch that the topic's settings have no room for."""
        settings = self.settings
        if settings.max_messages is not None and self.messages + count > settings.max_messages:
            raise TopicFull(topic=self.name, what="messages", limit=settings.max_messages)
        if settings.max_bytes is not None and self.index.size + size > settings.max_bytes:
            raise TopicFull(topic=self.name, what="bytes", limit=settings.max_bytes)

    def reveal(self, next_offset: int) -> None:
        """Let subscribers see the messages below ``next_offset``."""
        assert self.visible_next <= next_offset <= self.next_offset
        self.visible_next = next_offset

    # --- subscriptions --------------------------------------------------------------------

    def start_offset(self, start: int | str | None, *, durable: bool) -> tuple[int, int]:
        """Where a new subscription begins, and how many messages before that it passes over.

        By default the first subscription begins at the earliest message. A durable one is
        the first when no other durable one is there: a look by an ephemeral reader must not
        cost it the backlog. What is not visible yet counts as new.

        Raises:
            OffsetOutOfRange: ``start`` is an offset that the topic has not reached.
        """
        if start is None:
            others = self.durable_count if durable else len(self.subscriptions)
            start = "new" if others else "earliest"
        if start == "new":
            asked = self.visible_next
        elif start == "earliest":
            asked = self.first_offset
        else:
            assert isinstance(start, int)
            asked = start
            if not 0 <= asked <= self.visible_next:
                raise OffsetOutOfRange(topic=self.name, offset=asked, next_offset=self.visible_next)
        offset = max(asked, self.first_offset)
        return offset, offset - min(asked, self.first_offset)

    def add_subscription(self, subscription: Subscription) -> None:
        """Let ``subscription`` be found and, if it is durable, hold all that is kept."""
        assert subscription.subscriber not in self.subscriptions
        self.subscriptions[subscription.subscriber] = subscription
        if subscription.durable:
            self.durable_count += 1
            self._held.set(subscription, self.first_offset)

    def remove_subscription(self, subscription: Subscription) -> None:
        """Let ``subscription`` not be found any more; it holds messages until ``let_go``."""
        assert not subscription.pulls
        del self.subscriptions[subscription.subscriber]
        if subscription.durable:
            self.durable_count -= 1

    # --- reclaiming -----------------------------------------------------------------------

    def hold_from(self, subscription: Subscription, cursor: int) -> None:
        """Note that this cursor is durable: what is below is not needed for it."""
        held_from = self._held.get(subscription)
        if held_from is not None and held_from < cursor:
            self._held.set(subscription, cursor)

    def let_go(self, subscription: Subscription) -> None:
        """Note that the end of ``subscription`` is durable: nothing is needed for it."""
        self._held.remove(subscription)

    def reclaim(self) -> list[int]:
        """Advance ``first_offset`` to the lowest durable cursor; the places that are free now.

        With no durable subscription nothing is reclaimed.
        """
        lowest = self._held.lowest()
        if lowest is None or lowest <= self.first_offset:
            return []
        self.first_offset = lowest
        return self.index.drop_below(lowest)

    def check(self) -> None:
        """Assert what must hold between two verbs."""
        assert 0 <= self.first_offset <= self.visible_next <= self.next_offset
        durable = [s for s in self.subscriptions.values() if s.durable]
        assert self.durable_count == len(durable)
        for subscription in durable:
            held_from = self._held.get(subscription)
            assert held_from is not None
            assert self.first_offset <= held_from
            assert held_from <= subscription.cursor
        assert set(self.waiting) == {s for s in self.subscriptions.values() if s.pulls}
        self.index.check(self.first_offset)
        self._held.check()
        for subscription in self.subscriptions.values():
            subscription.check()


class Topics:
    """All topics, by name and by id. An id is never used again."""

    def __init__(self, limits: Limits, first_topic_id: int) -> None:
        self._limits = limits
        self._next_id = first_topic_id
        self._by_name: dict[str, Topic] = {}
        self._by_id: dict[int, Topic] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Topic]:
        return iter(self._by_name.values())

    def named(self, name: str) -> Topic:
        """The topic of that name.

        Raises:
            TopicNotFound: there is none.
        """
        topic = self._by_name.get(name)
        if topic is None:
            raise TopicNotFound(topic=name)
        return topic

    def with_id(self, topic_id: int) -> Topic | None:
        """The topic of that id, if it has not been deleted."""
        return self._by_id.get(topic_id)

    def create(
        self, name: str, settings: TopicSettings, *, exist_ok: bool, created: int
    ) -> tuple[Topic, bool]:
        """Return the topic and whether it was created now.

        Raises:
            InvalidName: the name breaks the rules.
            TopicExists: it exists with other settings, or at all if not ``exist_ok``.
            LimitExceeded: there are ``limits.topics`` already.
        """
        check_name(name)
        topic = self._by_name.get(name)
        if topic is not None:
            if exist_ok and topic.settings == settings:
                return topic, False
            raise TopicExists(topic=name)
        if len(self) >= self._limits.topics:
            raise LimitExceeded(what="topics", limit=self._limits.topics)
        topic = Topic(name, self._next_id, settings, created)
        self._next_id += 1
        self._by_name[name] = self._by_id[topic.topic_id] = topic
        return topic, True

    def remove(self, topic: Topic) -> None:
        """Forget ``topic``, which has no subscriptions left."""
        assert not topic.subscriptions
        del self._by_name[topic.name]
        del self._by_id[topic.topic_id]

    def check(self) -> None:
        """Assert what must hold between two verbs, of each topic too."""
        assert {topic.topic_id: topic for topic in self} == self._by_id
        assert len(self) <= self._limits.topics
        assert all(topic_id < self._next_id for topic_id in self._by_id)
        for topic in self:
            assert len(topic.subscriptions) <= self._limits.topic_subscriptions
            topic.check()
