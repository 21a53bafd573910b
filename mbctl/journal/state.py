"""What a sequence of records amounts to: topics, subscriptions, publisher sessions.

Opening a journal and taking a snapshot both fold records into a ``State``; a snapshot is
one of these on disk. Of batches it knows how far each topic reaches, not where they are.
"""

import msgspec

from mbctl.journal.footer import LastSends, SegmentIndex
from mbctl.journal.format import decode_changes
from mbctl.journal.records import (
    Acknowledged,
    Record,
    SubscriptionDeleted,
    SubscriptionState,
    TopicCreated,
    TopicDeleted,
    TopicTrimmed,
)
from mbctl.model import LIMITS, NS_PER_S, TopicSettings
from mbctl.ranges import RangeSet

# Sessions idle for longer are forgotten: as long as the engine keeps them.
_SESSION_IDLE_NS = 11 * 60 * NS_PER_S


class Place:
    """A durable subscription's place: its cursor and what is acknowledged above it."""

    __slots__ = ("ack_wait_ns", "acknowledged", "created", "cursor")

    def __init__(self, state: SubscriptionState) -> None:
        self.cursor = state.cursor
        self.ack_wait_ns = state.ack_wait_ns
        self.created = state.created
        self.acknowledged = RangeSet()
        for first, next_offset in state.acknowledged:
            self.acknowledged.add(first, next_offset)

    def acknowledge(self, first: int, next_offset: int) -> None:
        """Take in acknowledged messages; those it had before change nothing."""
        first = max(first, self.cursor)
        if first < next_offset:
            self.acknowledged.add(first, next_offset)
            self.cursor = self.acknowledged.remove_below(self.cursor)


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
        return [
            SubscriptionState(
                self.topic_id,
                subscriber,
                place.cursor,
                list(place.acknowledged),
                place.ack_wait_ns,
                place.created,
            )
            for subscriber, place in self.places.items()
        ]


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
            case TopicTrimmed(topic_id, first_offset):
                if (topic := self.topics.get(topic_id)) is not None:
                    topic.first_offset = max(topic.first_offset, first_offset)
            case SubscriptionState():
                if (topic := self.topics.get(record.topic_id)) is not None:
                    topic.places[record.subscriber] = Place(record)
            case Acknowledged(topic_id, subscriber, ranges):
                topic = self.topics.get(topic_id)
                place = topic.places.get(subscriber) if topic is not None else None
                if place is not None:
                    for first, next_offset in ranges:
                        place.acknowledge(first, next_offset)
            case SubscriptionDeleted(topic_id, subscriber):
                if (topic := self.topics.get(topic_id)) is not None:
                    topic.places.pop(subscriber, None)

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
