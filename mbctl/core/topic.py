"""Topics, and of each: what of it is kept, who reads it, and who holds its messages.

    first_offset          visible_next       next_offset
         │  kept, readable     │ not yet durable  │
    ─────┴─────────────────────┴──────────────────┴──▶ offsets

``first_offset`` follows the lowest cursor of the durable subscriptions as these cursors are
taken to be made durable, see ``changes``; what is retained beyond that, and what is given up
though somebody has not read it, is decided in ``retention``. The index drops a batch when
all of it lies below.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import msgspec

from mbctl.core.heap import Heap
from mbctl.core.index import BatchColumns, BatchIndex
from mbctl.core.subscription import Subscription
from mbctl.errors import LimitExceeded, OffsetOutOfRange, TopicExists, TopicNotFound
from mbctl.model import AtTime, Limits, Start, TopicSettings, check_name, check_settings

TrimReason = Literal["read", "dropped", "expired", "purged"]
"""Why messages are given up: every durable subscription has them, or whether it has or not."""

# So many places where something was given up are kept for the subscriptions to look at; then
# all of them are looked at. Arbitrary.
_GIVEN_UP_MAX = 64


class Trimmed(msgspec.Struct, frozen=True):
    """The messages of a topic below ``first_offset`` are given up, and why.

    ``places`` are those of the batches that are gone, to be released when that is durable.
    """

    topic: "Topic"
    first_offset: int
    places: Sequence[int]
    reason: TrimReason


class Topic:
    """A topic's settings, its index of batches and its subscriptions."""

    __slots__ = (
        "_held",
        "created",
        "durable_count",
        "first_offset",
        "given_up",
        "index",
        "looked_ns",
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
        self.given_up: list[tuple[int, int, TrimReason]] = []
        """What was given up though it may be unread, as ranges; see ``skip_reclaimed``."""
        self.looked_ns: int | None = None
        """When its old messages were looked at last."""
        self.subscriptions: dict[str, Subscription] = {}
        self.waiting: dict[Subscription, None] = {}
        """The subscriptions that have waiting pulls: who to look at when messages come."""
        self.durable_count = 0
        # The cursor of each durable subscription as it was taken last.
        self._held: Heap[Subscription] = Heap()

    @property
    def next_offset(self) -> int:
        """The offset that the next message will get."""
        return self.index.next_offset

    @property
    def messages(self) -> int:
        """Messages kept."""
        return self.index.next_offset - self.first_offset

    @property
    def read_next(self) -> int:
        """The offset below which all is read by every durable subscription, and stored as such.

        ``first_offset`` if there is none.
        """
        lowest = self._held.lowest()
        return self.first_offset if lowest is None else max(self.first_offset, lowest)

    def reveal(self, next_offset: int) -> None:
        """Let subscribers see the messages below ``next_offset``."""
        assert next_offset <= self.next_offset
        # What was given up before it could be seen is passed over already.
        self.visible_next = max(self.visible_next, next_offset)

    # --- subscriptions --------------------------------------------------------------------

    def default_start(self, *, durable: bool) -> Start:
        """Where a new subscription begins that does not say: the first at the earliest message.

        A durable one is the first when no other durable one is there: a look by an ephemeral
        reader must not cost it the backlog.
        """
        others = self.durable_count if durable else len(self.subscriptions)
        return "new" if others else "earliest"

    def start_offset(self, start: Start) -> tuple[int, int]:
        """The offset that ``start`` means; and the one it asks for, which may not be kept.

        What is not visible yet counts as new. Of a time before all that is kept it is not
        known what was asked for.

        Raises:
            OffsetOutOfRange: ``start`` is an offset that the topic has not reached.
        """
        if start == "new":
            return self.visible_next, self.visible_next
        if start == "earliest":
            return self.first_offset, self.first_offset
        if isinstance(start, AtTime):
            since = max(self.first_offset, self.index.first_since(start.ns))
            since = min(since, self.visible_next)
            return since, since
        assert isinstance(start, int)
        if not 0 <= start <= self.visible_next:
            raise OffsetOutOfRange(topic=self.name, offset=start, next_offset=self.visible_next)
        return max(start, self.first_offset), start

    def add_subscription(self, subscription: Subscription) -> None:
        """Let ``subscription`` be found and, if it is durable, hold all from its cursor on."""
        assert subscription.subscriber not in self.subscriptions
        self.subscriptions[subscription.subscriber] = subscription
        if subscription.durable:
            self.durable_count += 1
            self._held.set(subscription, subscription.cursor)

    def remove_subscription(self, subscription: Subscription) -> None:
        """Let ``subscription`` not be found any more, and hold nothing."""
        assert not subscription.pulls
        del self.subscriptions[subscription.subscriber]
        if subscription.durable:
            self.durable_count -= 1
            self._held.remove(subscription)

    # --- reclaiming -----------------------------------------------------------------------

    def take_cursor(self, subscription: Subscription) -> None:
        """Let a durable ``subscription`` hold nothing below its cursor, which is being stored."""
        if self._held.get(subscription) != subscription.cursor:
            self._held.set(subscription, subscription.cursor)

    def lower_cursor(self, subscription: Subscription) -> None:
        """Let a durable ``subscription`` that was moved back hold all from there on, at once."""
        held_from = self._held.get(subscription)
        if held_from is not None and subscription.cursor < held_from:
            self._held.set(subscription, subscription.cursor)

    def trim(self, first_offset: int, reason: TrimReason) -> Sequence[int]:
        """Give up what is below ``first_offset``; the places of the batches that are gone."""
        assert self.first_offset < first_offset <= self.next_offset
        if reason == "read":
            assert first_offset <= self.read_next
        else:
            self._note_given_up(first_offset, reason)
        self.first_offset = first_offset
        self.visible_next = max(self.visible_next, first_offset)
        return self.index.drop_below(first_offset)

    def _note_given_up(self, next: int, reason: TrimReason) -> None:
        first = self.first_offset
        if self.given_up and self.given_up[-1][1:] == (first, reason):
            self.given_up[-1] = (self.given_up[-1][0], next, reason)
            return
        if len(self.given_up) == _GIVEN_UP_MAX:
            for subscription in self.subscriptions.values():
                subscription.skip_reclaimed()
            self.given_up.clear()
        self.given_up.append((first, next, reason))

    def restore(
        self,
        runs: Iterable[BatchColumns],
        *,
        first_offset: int,
        next_offset: int,
        timestamp: int,
    ) -> Sequence[int]:
        """Keep and show the messages ``first_offset <= offset < next_offset``.

        ``runs`` hold their batches, and may hold some before them: their places are returned.
        ``timestamp`` is that of the newest batch, kept or not.
        """
        for run in runs:
            self.index.extend(run)
        assert self.index.next_offset <= next_offset
        self.index.next_offset = self.visible_next = next_offset
        self.index.timestamp = max(timestamp, self.index.timestamp)
        self.first_offset = first_offset
        places = self.index.drop_below(first_offset)
        assert (first_offset == next_offset) == (not len(self.index))
        return places

    def check(self) -> None:
        """Assert what must hold between two verbs."""
        assert 0 <= self.first_offset <= self.visible_next <= self.next_offset
        assert len(self.given_up) <= _GIVEN_UP_MAX
        assert all(first < next <= self.first_offset for first, next, _ in self.given_up)
        durable = [s for s in self.subscriptions.values() if s.durable]
        assert self.durable_count == len(durable)
        for subscription in durable:
            held_from = self._held.get(subscription)
            assert held_from is not None
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

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

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
            InvalidArgument: a setting makes no sense.
            TopicExists: it exists with other settings, or at all if not ``exist_ok``.
            LimitExceeded: there are ``limits.topics`` already.
        """
        check_name(name)
        check_settings(settings)
        topic = self._by_name.get(name)
        if topic is not None:
            if exist_ok and topic.settings == settings:
                return topic, False
            raise TopicExists(topic=name)
        if len(self) >= self._limits.topics:
            raise LimitExceeded(what="topics", limit=self._limits.topics)
        topic = Topic(name, self._next_id, settings, created)
        self._next_id += 1
        self.add(topic)
        return topic, True

    def add(self, topic: Topic) -> None:
        """Let ``topic`` be found; its id is one that was given before."""
        assert topic.name not in self._by_name
        assert topic.topic_id not in self._by_id
        assert topic.topic_id < self._next_id
        self._by_name[topic.name] = self._by_id[topic.topic_id] = topic

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
