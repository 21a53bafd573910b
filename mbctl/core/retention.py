"""What topics give up: what all have read, what is too old, and what there is no room for.

    first_offset        read_next                                   next_offset
         │ only retained     │ somebody has not read it, or nobody asked │
    ─────┴───────────────────┴───────────────────────────────────────────┴──▶ offsets

What is only retained goes first, the oldest first: whole batches, when they are older than
``retain_age``, when with those after them they are more than ``retain_bytes``, or when there
is no room. Where both bounds are given, both must hold for a batch to stay. What is not
retained goes message by message as it is read. What is unread goes in whole batches, when
it is older than ``max_age``, or when there is no room and the topic drops the oldest.

Old messages are looked for by the clock, at most once a second for each topic.
"""

from array import array
from collections.abc import Sequence

from mbctl.core.heap import Heap
from mbctl.core.topic import Topic, Trimmed, TrimReason
from mbctl.errors import TopicFull
from mbctl.model import NS_PER_S

# Old messages of a topic are looked for this often at most, and at least as often: the clock
# on the wall may be put forward. Arbitrary.
_LOOK_NS_MIN = NS_PER_S
_LOOK_NS_MAX = 600 * NS_PER_S


class Retention:
    """What is given up and not stored yet, and when to look for more."""

    def __init__(self) -> None:
        self.looks: Heap[Topic] = Heap()
        """When ``expire`` is to look at each topic."""
        # What was given up of each topic since it was taken last, in order.
        self._trimmed: list[Trimmed] = []
        self._last: dict[Topic, int] = {}
        # The topics that may have something that is only retained.
        self._retaining: dict[Topic, None] = {}
        # Those that are looked at in time for what is read of them to grow too old.
        self._aging: set[Topic] = set()

    def __bool__(self) -> bool:
        """Whether ``take`` has something."""
        return bool(self._trimmed)

    def take(self) -> list[Trimmed]:
        """What was given up since the last call."""
        trimmed, self._trimmed = self._trimmed, []
        self._last.clear()
        return trimmed

    def trim(self, topic: Topic, first_offset: int, reason: TrimReason) -> None:
        """Give up what is below ``first_offset``, if there is any."""
        if first_offset <= topic.first_offset:
            return
        places = topic.trim(first_offset, reason)
        last = self._last.get(topic)
        if last is not None and self._trimmed[last].reason == reason:
            places = _joined(self._trimmed[last].places, places)
            self._trimmed[last] = Trimmed(topic, first_offset, places, reason)
        else:
            self._last[topic] = len(self._trimmed)
            self._trimmed.append(Trimmed(topic, first_offset, places, reason))

    def forget(self, topic: Topic) -> None:
        """Look for nothing any more in a topic that is deleted."""
        self.looks.remove(topic)
        self._retaining.pop(topic, None)
        self._aging.discard(topic)

    # --- what all have read ---------------------------------------------------------------

    def reclaim(self, topic: Topic) -> None:
        """Give up what every durable subscription has read and is not to be retained."""
        settings, read_next = topic.settings, topic.read_next
        if read_next <= topic.first_offset:
            return
        if settings.retain_bytes is None and settings.retain_age is None:
            self.trim(topic, read_next, "read")
            return
        end = topic.index.first_at(read_next)
        if settings.retain_bytes is not None:
            self.trim(topic, topic.index.first_within(end, settings.retain_bytes), "read")
        if topic.first_offset < read_next:
            self._retaining[topic] = None
        if (
            settings.retain_age is not None
            and topic.first_offset < end
            and topic not in self._aging
        ):
            # How old it is shows when it is looked at; what is unread may have longer to wait.
            self._aging.add(topic)
            self.looks.set(topic, _next_look(topic, 0))

    def give_up_retained(self) -> bool:
        """Give up all that is only retained, of every topic; whether there was any."""
        is_any = False
        for topic in self._retaining:
            is_any |= topic.read_next > topic.first_offset
            self.trim(topic, topic.read_next, "read")
        self._retaining.clear()
        return is_any

    # --- what there is no room for --------------------------------------------------------

    def make_room(self, topic: Topic, count: int, size: int) -> None:
        """Give up as much as the topic's settings let it to have room for a batch.

        Raises:
            TopicFull: that is not enough; nothing changed.
        """
        settings = topic.settings
        if settings.max_messages is None and settings.max_bytes is None:
            return
        first_offset, read_next = topic.first_offset, topic.read_next
        wanted = first_offset
        if settings.max_messages is not None:
            wanted = topic.next_offset + count - settings.max_messages
        if settings.max_bytes is not None:
            over = topic.index.size + size - settings.max_bytes
            wanted = max(wanted, topic.index.first_without(over))
        is_too_large = _above(count, settings.max_messages) or _above(size, settings.max_bytes)
        if wanted <= read_next and not is_too_large:
            self.trim(topic, wanted, "read")
            return
        if settings.when_full == "refuse" or is_too_large:
            raise _full(topic, count if is_too_large else count + topic.next_offset - read_next)
        self.trim(topic, read_next, "read")
        self.trim(topic, topic.index.first_from(wanted), "dropped")

    # --- what is too old ------------------------------------------------------------------

    def watch(self, topic: Topic, now_ns: int, wall_ns: int) -> None:
        """Have a topic that got its first message looked at when that is too old."""
        if topic.settings.max_age is not None and topic not in self.looks:
            self.looks.set(topic, _next_look(topic, now_ns + _wait_ns(topic, wall_ns)))

    def watch_restored(self, topic: Topic) -> None:
        """Have a topic looked at soon: it may have grown old while nobody looked."""
        settings = topic.settings
        if len(topic.index) and (settings.max_age is not None or settings.retain_age is not None):
            self.looks.set(topic, 0)

    def expire(self, now_ns: int, wall_ns: int) -> list[Topic]:
        """Give up what is too old; the topics of which that may have been unread."""
        expired = []
        while (topic := self.looks.pop_through(now_ns)) is not None:
            topic.looked_ns = now_ns
            if self._expire_unread(topic, wall_ns):
                expired.append(topic)
            self._expire_retained(topic, wall_ns)
            if topic.settings.retain_age is None or not _has_read_batch(topic):
                self._aging.discard(topic)
            if _is_watched(topic):
                self.looks.set(topic, _next_look(topic, now_ns + _wait_ns(topic, wall_ns)))
        return expired

    def _expire_unread(self, topic: Topic, wall_ns: int) -> bool:
        age = topic.settings.max_age
        if age is None:
            return False
        first_offset = topic.first_offset
        self.trim(topic, topic.index.first_after(wall_ns - _ns(age)), "expired")
        return topic.first_offset > first_offset

    def _expire_retained(self, topic: Topic, wall_ns: int) -> None:
        age = topic.settings.retain_age
        if age is not None:
            young = topic.index.first_after(wall_ns - _ns(age))
            self.trim(topic, min(young, topic.index.first_at(topic.read_next)), "read")

    def check(self, topics: Sequence[Topic]) -> None:
        """Assert that every topic that has messages which grow too old is looked at."""
        for topic in topics:
            if len(topic.index) and topic.settings.max_age is not None:
                assert topic in self.looks
            settings = topic.settings
            if settings.retain_bytes is None and settings.retain_age is None:
                assert topic not in self._retaining
        assert set(self._retaining) <= set(topics)
        assert self._aging <= set(topics)
        assert len(self.looks) == sum(topic in self.looks for topic in topics)
        self.looks.check()


def _ns(seconds: float) -> int:
    return round(seconds * NS_PER_S)


def _above(number: int, bound: int | None) -> bool:
    return bound is not None and number > bound


def _full(topic: Topic, messages: int) -> TopicFull:
    """The refusal of a batch that would make it so many messages that cannot be given up."""
    bound = topic.settings.max_messages
    if bound is not None and messages > bound:
        return TopicFull(topic=topic.name, what="messages", limit=bound)
    bound = topic.settings.max_bytes
    assert bound is not None
    return TopicFull(topic=topic.name, what="bytes", limit=bound)


def _is_watched(topic: Topic) -> bool:
    """Whether the oldest batch of a topic grows too old."""
    if not len(topic.index):
        return False
    if topic.settings.max_age is not None:
        return True
    return topic.settings.retain_age is not None and _has_read_batch(topic)


def _has_read_batch(topic: Topic) -> bool:
    return topic.index.first_at(topic.read_next) > topic.first_offset


def _wait_ns(topic: Topic, wall_ns: int) -> int:
    """How long until the oldest batch of a topic is too old."""
    settings = topic.settings
    ages = [] if settings.max_age is None else [_ns(settings.max_age)]
    if settings.retain_age is not None and _has_read_batch(topic):
        ages.append(_ns(settings.retain_age))
    return min(min(ages) + topic.index.first_timestamp - wall_ns, _LOOK_NS_MAX)


def _next_look(topic: Topic, when_ns: int) -> int:
    """``when_ns``, or a second after the last look if that is later."""
    return when_ns if topic.looked_ns is None else max(when_ns, topic.looked_ns + _LOOK_NS_MIN)


def _joined(places: Sequence[int], more: Sequence[int]) -> Sequence[int]:
    """Both; the first, which nobody else has yet, grows."""
    assert isinstance(places, array)
    places.extend(more)
    return places
