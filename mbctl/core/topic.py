"""One topic: where its batches are, what of it is kept, and who reads it.

    first_offset          visible_next       next_offset
         │  kept, readable     │ not yet durable  │
    ─────┴─────────────────────┴──────────────────┴──▶ offsets

``first_offset`` follows the lowest cursor of the durable subscriptions. The index drops
a batch when all of it lies below.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush, heapreplace

from mbctl.core.subscription import Subscription
from mbctl.errors import TopicFull
from mbctl.model import TopicSettings

# Trim the arrays once this many dropped entries stand before the live ones; arbitrary.
_TRIM_MIN = 1024


class Topic:
    """A topic's settings, its index of batches and its subscriptions."""

    __slots__ = (
        "_floor",
        "created",
        "durable_count",
        "first_offset",
        "index",
        "name",
        "next_offset",
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
        self.next_offset = 0
        self.subscriptions: dict[str, Subscription] = {}
        self.waiting: dict[Subscription, None] = {}
        """The subscriptions that have waiting pulls: who to look at when messages come."""
        self.durable_count = 0
        # One entry for each durable subscription: a cursor it once had, which is at or
        # below the one it has. The lowest true cursor is found by correcting the top.
        self._floor: list[tuple[int, int, Subscription]] = []

    @property
    def messages(self) -> int:
        """Messages kept."""
        return self.next_offset - self.first_offset

    def check_room(self, count: int, size: int) -> None:
        """Refuse a batch that the topic's settings have no room for."""
        settings = self.settings
        if settings.max_messages is not None and self.messages + count > settings.max_messages:
            raise TopicFull(topic=self.name, what="messages", limit=settings.max_messages)
        if settings.max_bytes is not None and self.index.size + size > settings.max_bytes:
            raise TopicFull(topic=self.name, what="bytes", limit=settings.max_bytes)

    def append(self, count: int, size: int, timestamp: int) -> tuple[int, int]:
        """Give a batch its place in the order: its first offset and its timestamp."""
        first = self.next_offset
        timestamp = max(timestamp, self.index.last_timestamp)
        self.index.append(first, size, timestamp)
        self.next_offset = first + count
        return first, timestamp

    def add_subscription(self, subscription: Subscription) -> None:
        """Let ``subscription`` be counted and, if durable, hold messages."""
        assert subscription.subscriber not in self.subscriptions
        self.subscriptions[subscription.subscriber] = subscription
        if subscription.durable:
            self.durable_count += 1
            heappush(self._floor, _floor_entry(subscription))

    def remove_subscription(self, subscription: Subscription) -> None:
        """Forget ``subscription``; what only it held can be reclaimed now."""
        del self.subscriptions[subscription.subscriber]
        self.waiting.pop(subscription, None)
        if subscription.durable:
            self.durable_count -= 1

    def reclaim(self) -> list[int]:
        """Advance ``first_offset`` to the lowest durable cursor; the places that are free now.

        With no durable subscription nothing is reclaimed.
        """
        if self.durable_count == 0:
            return []
        lowest = self._lowest_cursor()
        if lowest <= self.first_offset:
            return []
        self.first_offset = lowest
        return self.index.drop_below(lowest, self.next_offset)

    def _lowest_cursor(self) -> int:
        while True:
            cursor, _, subscription = self._floor[0]
            if self.subscriptions.get(subscription.subscriber) is not subscription:
                heappop(self._floor)
            elif cursor < subscription.cursor:
                heapreplace(self._floor, _floor_entry(subscription))
            else:
                return cursor

    def check(self) -> None:
        """Assert what must hold between two verbs."""
        assert 0 <= self.first_offset <= self.visible_next <= self.next_offset
        durable = [s for s in self.subscriptions.values() if s.durable]
        assert self.durable_count == len(durable)
        assert all(s.cursor >= self.first_offset for s in durable)
        if durable:
            assert self._lowest_cursor() == min(s.cursor for s in durable)
        assert set(self.waiting) == {s for s in self.subscriptions.values() if s.waiting}
        self.index.check(self.first_offset, self.next_offset)
        for subscription in self.subscriptions.values():
            subscription.check()


def _floor_entry(subscription: Subscription) -> tuple[int, int, Subscription]:
    return (subscription.cursor, id(subscription), subscription)


class BatchIndex:
    """From offset to batch, in arrays: 32 bytes a batch.

    Entry i is a batch: its first offset, its place in the journal, its timestamp, and the
    bytes of all batches before it, so that the size of any run of batches is one
    subtraction.
    """

    __slots__ = ("_before", "_end", "_firsts", "_head", "_places", "_timestamps")

    def __init__(self) -> None:
        self._firsts = array("Q")
        self._places = array("Q")
        self._timestamps = array("Q")
        self._before = array("Q")
        self._end = 0
        self._head = 0

    def __len__(self) -> int:
        return len(self._firsts) - self._head

    @property
    def size(self) -> int:
        """Bytes of all batches kept."""
        return self._end - self._before[self._head] if len(self) else 0

    @property
    def last_timestamp(self) -> int:
        """The timestamp of the newest batch kept, or 0."""
        return self._timestamps[-1] if self._timestamps else 0

    def append(self, first: int, size: int, timestamp: int) -> None:
        """Add a batch at the end; ``set_last_place`` says later where it went."""
        self._firsts.append(first)
        self._places.append(0)
        self._timestamps.append(timestamp)
        self._before.append(self._end)
        self._end += size

    def set_last_place(self, place: int) -> None:
        """Note where the journal put the batch appended last."""
        self._places[-1] = place

    def drop_below(self, offset: int, next_offset: int) -> list[int]:
        """Forget the batches that lie wholly below ``offset``; their places."""
        head = self._head
        # The batch that holds ``offset`` stays, unless that is past the newest message.
        keep = len(self._firsts) if offset >= next_offset else self._find(offset)
        places = self._places[head:keep].tolist()
        self._head = keep
        if keep > _TRIM_MIN and 2 * keep > len(self._firsts):
            self._trim()
        return places

    def _trim(self) -> None:
        # The last entry stays even when it is dead: it carries the newest timestamp.
        count = min(self._head, len(self._firsts) - 1)
        for column in (self._firsts, self._places, self._timestamps, self._before):
            del column[:count]
        self._head -= count

    def places(self) -> Sequence[int]:
        """The places of all batches kept."""
        return self._places[self._head :]

    def size_from(self, offset: int) -> int:
        """Bytes of the batches from the one that holds ``offset`` on."""
        if not len(self):
            return 0
        return self._end - self._before[max(self._find(offset), self._head)]

    def walk(self, first: int, next_offset: int) -> Iterator[tuple[int, int, int, int, int]]:
        """The batches from the one that holds ``first`` on.

        Each as ``(first, next, place, timestamp, size)``.
        """
        end = len(self._firsts)
        for at in range(self._find(first), end):
            last = at + 1 == end
            yield (
                self._firsts[at],
                next_offset if last else self._firsts[at + 1],
                self._places[at],
                self._timestamps[at],
                (self._end if last else self._before[at + 1]) - self._before[at],
            )

    def _find(self, offset: int) -> int:
        return bisect_right(self._firsts, offset, self._head) - 1

    def check(self, first_offset: int, next_offset: int) -> None:
        """Assert that the entries cover what is kept, in order."""
        firsts = self._firsts[self._head :].tolist()
        assert firsts == sorted(set(firsts))
        assert (first_offset == next_offset) == (not firsts)
        if firsts:
            assert firsts[0] <= first_offset < next_offset
            assert len(firsts) == 1 or firsts[1] > first_offset
