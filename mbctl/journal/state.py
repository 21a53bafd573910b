"""What a sequence of records amounts to: topics, subscriptions, publisher sessions.

Opening a journal and taking a snapshot both fold records into a ``State``; a snapshot is
one of these on disk. Of batches it knows how far each topic reaches, not where they are.
"""

import msgspec

from mbctl.journal.footer import LastSends, SegmentIndex
from mbctl.journal.format import decode_changes
from mbctl.journal.records import (
    Acknowledged,
    Count,
    Record,
    Redelivered,
    SubscriptionDeleted,
    SubscriptionState,
    TopicCreated,
    TopicDeleted,
    TopicTrimmed,
    TrimReason,
)
from mbctl.model import LIMITS, NS_PER_S, Range, TopicSettings
from mbctl.ranges import RangeMap, RangeSet

# Sessions idle for longer are forgotten: as long as the engine keeps them.
_SESSION_IDLE_NS = 11 * 60 * NS_PER_S
# A count below this says nothing: a message that is delivered is delivered once.
_DELIVERIES_KEPT = 2


class Place:
    """A durable subscription's place: its cursor, and what there is to say of what is above."""

    __slots__ = ("_state", "acknowledged", "counts", "cursor", "dropped", "expired")

    def __init__(self, state: SubscriptionState) -> None:
        self._state = state
        self.cursor = state.cursor
        self.acknowledged = RangeSet()
        for first, next_offset in state.acknowledged:
            self.acknowledged.add(first, next_offset)
        self.counts: RangeMap[tuple[int, bool]] = RangeMap()
        self.count(state.counts)
        self.dropped = state.dropped
        self.expired = state.expired

    def acknowledge(self, ranges: list[Range]) -> None:
        """Take in acknowledged messages; those it had before change nothing."""
        for first, next_offset in ranges:
            first = max(first, self.cursor)
            if first < next_offset:
                self.acknowledged.add(first, next_offset)
                self.counts.remove(first, next_offset)
        self._advance(self.cursor)

    def count(self, counts: list[Count]) -> None:
        """Take in how often messages were delivered."""
        for first, next_offset, deliveries, is_parked in counts:
            first = max(first, self.cursor)
            if first >= next_offset:
                continue
            if is_parked or deliveries >= _DELIVERIES_KEPT:
                self.counts.set(first, next_offset, (deliveries, is_parked))
            else:
                self.counts.remove(first, next_offset)

    def give_up(self, first_offset: int, reason: TrimReason) -> None:
        """Let nothing below ``first_offset`` be asked for, and count what was not acknowledged."""
        if first_offset <= self.cursor:
            return
        unread = first_offset - self.cursor - self.acknowledged.total_below(first_offset)
        if reason == "dropped":
            self.dropped += unread
        elif reason == "expired":
            self.expired += unread
        self.counts.remove(self.cursor, first_offset)
        self._advance(first_offset)

    def _advance(self, offset: int) -> None:
        """Have nothing below ``offset``, nor at it if that is acknowledged."""
        self.cursor = self.acknowledged.remove_below(offset)

    def state(self) -> SubscriptionState:
        """All of it."""
        return msgspec.structs.replace(
            self._state,
            cursor=self.cursor,
            acknowledged=list(self.acknowledged),
            counts=[(first, next_offset, *value) for first, next_offset, value in self.counts],
            dropped=self.dropped,
            expired=self.expired,
        )


class TopicState:
    """A topic: what of it is kept, and its durable subscriptions."""

    __slots__ = (
        "created",
        "first_offset",
        "name",
        "next_offset",
        "places",
        "settings",
        "timestamp",
        "topic_id",
    )

    def __init__(self, topic_id: int, name: str, settings: TopicSettings, created: int) -> None:
        self.topic_id = topic_id
        self.name = name
        self.settings = settings
        self.created = created
        self.first_offset = 0
        self.next_offset = 0
        self.timestamp = 0
        self.places: dict[str, Place] = {}

    def subscriptions(self) -> list[SubscriptionState]:
        """Its subscriptions as records."""
        return [place.state() for place in self.places.values()]

    def trim(self, first_offset: int, reason: TrimReason) -> None:
        """Give up what is below ``first_offset``."""
        self.first_offset = max(self.first_offset, first_offset)
        if reason != "read":
            for place in self.places.values():
                place.give_up(first_offset, reason)


class _TopicBody(msgspec.Struct, array_like=True):
    """A topic in a snapshot."""

    topic_id: int
    name: str
    settings: TopicSettings
    created: int
    first_offset: int
    next_offset: int
    timestamp: int
    subscriptions: list[SubscriptionState]


class _Body(msgspec.Struct, array_like=True):
    """The body of a snapshot."""

    next_topic_id: int
    topics: list[_TopicBody]
    sessions: list[tuple[bytes, int, list[tuple[int, int, int, int]]]]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Body)


class State:
    """Topics, subscriptions and sessions, as far as they outlive a restart."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.next_topic_id = 1
        self.topics: dict[int, TopicState] = {}
        self.sessions: dict[bytes, LastSends] = {}
        """By last use, the longest ago first."""

    @property
    def clock_ns(self) -> int:
        """How old the journal was when a session was last used, in nanoseconds of its life."""
        newest = next(reversed(self.sessions.values()), None)
        return 0 if newest is None else newest.used_ns

    def add_segment(self, index: SegmentIndex) -> None:
        """Take in what a segment holds, which follows on all taken in before."""
        for body in index.changes:
            for record in decode_changes(body):
                self.add(record)
        for topic_id, columns in index.topics.items():
            topic = self.topics.get(topic_id)
            if topic is not None:
                topic.next_offset = columns.next_offset
                topic.timestamp = columns.timestamps[-1]
        for session, sends in sorted(index.sessions.items(), key=lambda item: item[1].used_ns):
            known = self.sessions.pop(session, None) or LastSends(self.window)
            known.answers.extend(sends.answers)
            known.used_ns = sends.used_ns
            self.sessions[session] = known
        self._forget_idle()

    def _forget_idle(self) -> None:
        while len(self.sessions) > LIMITS.sessions:
            del self.sessions[next(iter(self.sessions))]
        oldest = self.clock_ns - _SESSION_IDLE_NS
        for session in list(self.sessions):
            if self.sessions[session].used_ns >= oldest:
                break
            del self.sessions[session]

    def add(self, record: Record) -> None:
        """Take in one change. One of a topic that has ended since changes nothing."""
        match record:
            case TopicCreated(topic_id, name, settings, created):
                self.topics[topic_id] = TopicState(topic_id, name, settings, created)
                self.next_topic_id = max(self.next_topic_id, topic_id + 1)
            case TopicDeleted(topic_id):
                self.topics.pop(topic_id, None)
            case TopicTrimmed(topic_id, first_offset, reason):
                if (topic := self.topics.get(topic_id)) is not None:
                    topic.trim(first_offset, reason)
            case SubscriptionState():
                if (topic := self.topics.get(record.topic_id)) is not None:
                    topic.places[record.subscriber] = Place(record)
            case Acknowledged(topic_id, subscriber, ranges):
                if (place := self._place(topic_id, subscriber)) is not None:
                    place.acknowledge(ranges)
            case Redelivered(topic_id, subscriber, counts):
                if (place := self._place(topic_id, subscriber)) is not None:
                    place.count(counts)
            case SubscriptionDeleted(topic_id, subscriber):
                if (topic := self.topics.get(topic_id)) is not None:
                    topic.places.pop(subscriber, None)

    def _place(self, topic_id: int, subscriber: str) -> Place | None:
        topic = self.topics.get(topic_id)
        return topic.places.get(subscriber) if topic is not None else None

    def encode(self) -> bytes:
        """The body of a snapshot."""
        topics = [
            _TopicBody(
                topic.topic_id,
                topic.name,
                topic.settings,
                topic.created,
                topic.first_offset,
                topic.next_offset,
                topic.timestamp,
                topic.subscriptions(),
            )
            for topic in self.topics.values()
        ]
        sessions = [
            (session, sends.used_ns, list(sends.answers))
            for session, sends in self.sessions.items()
        ]
        return _encoder.encode(_Body(self.next_topic_id, topics, sessions))


def decode_state(body: bytes, window: int) -> State:
    """The state that a snapshot holds, whose CRC was right."""
    found = _decoder.decode(body)
    state = State(window)
    state.next_topic_id = found.next_topic_id
    for item in found.topics:
        topic = TopicState(item.topic_id, item.name, item.settings, item.created)
        topic.first_offset = item.first_offset
        topic.next_offset = item.next_offset
        topic.timestamp = item.timestamp
        topic.places = {one.subscriber: Place(one) for one in item.subscriptions}
        state.topics[item.topic_id] = topic
    for session, used_ns, answers in found.sessions:
        sends = state.sessions[session] = LastSends(window)
        sends.answers.extend(answers)
        sends.used_ns = used_ns
    return state
