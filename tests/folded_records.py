"""What a journal holds, by folding its records one by one: the plainest recovery there is.

Nothing is clever here, so that a real recovery can be held against it.
"""

from array import array
from collections.abc import Container, Iterable
from types import SimpleNamespace

from msgspec.structs import replace

from mbctl.journal.records import (
    NO_SESSION,
    Acknowledged,
    BatchHead,
    BatchRun,
    Count,
    Record,
    Recovered,
    RecoveredTopic,
    Redelivered,
    SessionState,
    SubscriptionDeleted,
    SubscriptionState,
    TopicCreated,
    TopicDeleted,
    TopicTrimmed,
    TrimReason,
)
from mbctl.model import Range

# So few that most topics come back in several runs.
RUN_BATCHES = 3


class FoldedRecords:
    """The state that records lead to. Append them in order, then ask what is recovered."""

    def __init__(self, next_topic_id: int = 1, window: int = 128) -> None:
        self.next_topic_id = next_topic_id
        self.window = window
        self.topics: dict[int, SimpleNamespace] = {}
        self.sessions: dict[bytes, list[tuple[int, int, int, int]]] = {}

    def append_batch(
        self, head: BatchHead, size: int, place: int, also: Record | None = None
    ) -> None:
        """A batch was stored, and a record in one with it."""
        if also is not None:
            assert head.session == NO_SESSION
            self.append(also)
        if head.session != NO_SESSION:
            self._answer(head)
        topic = self.topics[head.topic_id]
        assert head.first_offset == topic.next
        topic.next += head.count
        topic.timestamp = head.timestamp
        topic.batches.append((head.first_offset, topic.next, place, head.timestamp, size))

    def _answer(self, head: BatchHead) -> None:
        answers = self.sessions.setdefault(head.session, [])
        if answers and head.sequence <= answers[-1][0]:
            # It had been idle for so long that it was forgotten, and began anew.
            answers.clear()
        answers.append((head.sequence, head.topic_id, head.first_offset, head.count))
        del answers[: -self.window]

    def append(self, record: Record) -> None:
        """A record was stored."""
        if isinstance(record, TopicCreated):
            assert record.topic_id >= self.next_topic_id
            self.next_topic_id = record.topic_id + 1
            self.topics[record.topic_id] = SimpleNamespace(
                record=record, first=0, next=0, timestamp=0, batches=[], subscriptions={}
            )
            return
        if isinstance(record, TopicDeleted):
            del self.topics[record.topic_id]
            return
        topic = self.topics[record.topic_id]
        match record:
            case TopicTrimmed():
                assert topic.first < record.first_offset <= topic.next
                topic.first = record.first_offset
                if record.reason != "read":
                    for name, state in topic.subscriptions.items():
                        topic.subscriptions[name] = give_up(state, topic.first, record.reason)
            case SubscriptionState():
                topic.subscriptions[record.subscriber] = count(record, record.counts)
            case Acknowledged():
                state = topic.subscriptions[record.subscriber]
                topic.subscriptions[record.subscriber] = acknowledge(state, record.ranges)
            case Redelivered():
                state = topic.subscriptions[record.subscriber]
                topic.subscriptions[record.subscriber] = count(state, record.counts)
            case SubscriptionDeleted():
                del topic.subscriptions[record.subscriber]

    def move(self, new_places: dict[int, int]) -> None:
        """Batches at these places are at others now."""
        for topic in self.topics.values():
            topic.batches = [
                (first, next, new_places.get(place, place), timestamp, size)
                for first, next, place, timestamp, size in topic.batches
            ]

    def release(self, places: Iterable[int]) -> None:
        """The bytes of these batches are gone."""
        gone = set(places)
        for topic in self.topics.values():
            topic.batches = [batch for batch in topic.batches if batch[2] not in gone]

    def forget_sessions(self, known: Container[bytes]) -> None:
        """All sessions but those ``known`` were idle for too long."""
        self.sessions = {id: answers for id, answers in self.sessions.items() if id in known}

    def recovered(self) -> Recovered:
        """What a restart finds."""
        return Recovered(
            self.next_topic_id,
            [recovered_topic(topic) for topic in self.topics.values()],
            [SessionState(session, list(answers)) for session, answers in self.sessions.items()],
        )


def acknowledge(state: SubscriptionState, ranges: list[Range]) -> SubscriptionState:
    """The state with these offsets acknowledged too."""
    cursor = state.cursor
    offsets = {o for first, next in [*state.acknowledged, *ranges] for o in range(first, next)}
    while cursor in offsets:
        cursor += 1
    above = {offset for offset in offsets if offset > cursor}
    counts = {o: value for o, value in counted(state).items() if o >= cursor and o not in above}
    return replace(state, cursor=cursor, acknowledged=joined(above), counts=as_ranges(counts))


def give_up(state: SubscriptionState, first_offset: int, reason: TrimReason) -> SubscriptionState:
    """The state when all below an offset is gone, and why."""
    if first_offset <= state.cursor:
        return state
    acknowledged = {o for first, next in state.acknowledged for o in range(first, next)}
    unread = len(set(range(state.cursor, first_offset)) - acknowledged)
    state = acknowledge(state, [(state.cursor, first_offset)])
    if reason in ("dropped", "expired"):
        state = replace(state, **{reason: getattr(state, reason) + unread})
    return state


def count(state: SubscriptionState, counts: list[Count]) -> SubscriptionState:
    """The state with these deliveries counted."""
    known = counted(state)
    for first, next, deliveries, is_parked in counts:
        known.update(dict.fromkeys(range(first, next), (deliveries, is_parked)))
    kept = {
        offset: value
        for offset, value in known.items()
        if offset >= state.cursor and (value[0] >= 2 or value[1])
    }
    return replace(state, counts=as_ranges(kept))


def counted(state: SubscriptionState) -> dict[int, tuple[int, bool]]:
    """What is counted for each offset."""
    return {
        offset: (deliveries, is_parked)
        for first, next, deliveries, is_parked in state.counts
        for offset in range(first, next)
    }


def as_ranges(counts: dict[int, tuple[int, bool]]) -> list[Count]:
    """The same by ranges, as long as they can be."""
    found: list[Count] = []
    for value in set(counts.values()):
        offsets = {offset for offset, other in counts.items() if other == value}
        found += [(first, next, *value) for first, next in joined(offsets)]
    return sorted(found)


def joined(offsets: set[int]) -> list[Range]:
    """The same by ranges, as long as they can be."""
    firsts = sorted(offset for offset in offsets if offset - 1 not in offsets)
    nexts = sorted(offset + 1 for offset in offsets if offset + 1 not in offsets)
    return list(zip(firsts, nexts, strict=True))


def recovered_topic(topic: SimpleNamespace) -> RecoveredTopic:
    """One topic as it stands."""
    batches = topic.batches
    return RecoveredTopic(
        topic.record.topic_id,
        topic.record.name,
        topic.record.settings,
        topic.record.created,
        topic.first,
        topic.next,
        topic.timestamp,
        [run_of(batches[at : at + RUN_BATCHES]) for at in range(0, len(batches), RUN_BATCHES)],
        list(topic.subscriptions.values()),
    )


def run_of(batches: list[tuple[int, int, int, int, int]]) -> BatchRun:
    """Batches as columns."""
    firsts, nexts, places, timestamps, sizes = zip(*batches, strict=True)
    return BatchRun(
        array("Q", firsts), array("Q", places), array("q", timestamps), array("I", sizes), nexts[-1]
    )
