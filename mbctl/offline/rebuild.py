"""Makes of what was salvaged a state that holds together, and says what it lacks."""

from collections.abc import Iterator

import msgspec

from mbctl.journal.footer import Columns
from mbctl.journal.format import decode_changes
from mbctl.journal.records import (
    Record,
    SubscriptionDeleted,
    TopicCreated,
    TopicDeleted,
)
from mbctl.journal.snapshot import Snapshot
from mbctl.journal.state import State, TopicState
from mbctl.model import Range, TopicSettings
from mbctl.offline.report import Loss
from mbctl.offline.salvage import Part, Salvaged
from mbctl.ranges import merged

# The most that one record can stand for: its count is of 32 bits.
_COUNT_MAX = 2**32 - 1


class Lost(msgspec.Struct, frozen=True):
    """A record that has to be written for messages that are lost."""

    topic_id: int
    first: int
    count: int
    timestamp: int


class Plan(msgspec.Struct):
    """What has to be written in one segment beside what is readable of it."""

    before: dict[int, list[Lost]]
    """By the position of a batch, what has to come before it."""
    at_end: list[Lost]
    floors: dict[int, int]
    """By topic id, the offset that another segment had reached: what is below is there twice."""

    @property
    def is_empty(self) -> bool:
        """Whether the segment has all that it should."""
        return not self.before and not self.at_end


class Rebuilt(msgspec.Struct):
    """A state, and what there is to write so that the journal fits it."""

    state: State
    plans: dict[int, Plan]
    """By number of a segment."""
    at_end: list[Lost]
    """What has to come after all segments."""
    lost: list[Loss]
    guesses: list[str]
    """What may not be as it was, in sentences."""


def rebuild(
    snapshot: Snapshot | None, segments: list[Salvaged], cold: list[Salvaged], window: int
) -> Rebuilt:
    """Fold what was salvaged, and find the messages that are missing in it.

    ``cold`` are the segments that batches were moved to. ``snapshot`` is changed.
    """
    state = State(window) if snapshot is None else snapshot.state
    replayed = [s for s in segments if snapshot is None or s.number >= snapshot.segment]
    rebuilt = Rebuilt(state, {}, [], [], [])
    _create_missing(rebuilt, [*cold, *replayed], is_known_from=state.next_topic_id)
    for segment in replayed:
        if not segment.is_indexed:
            # When these were used is not in their records: as late as it can have been.
            for sends in segment.index.sessions.values():
                sends.used_ns = state.clock_ns
        state.add_segment(segment.index)
    _make_names_unique(rebuilt)
    for topic in state.topics.values():
        ends = [topic.next_offset, _known_end(topic, state)]
        ends += [s.index.topics[topic.topic_id].next_offset for s in _with(topic, cold)]
        topic.next_offset = max(ends)
        if snapshot is None:
            _begin_with_what_is_there(rebuilt, topic, [*segments, *cold])
        moved = [r for s in cold for r in s.moved.get(topic.topic_id, [])]
        _Topic(rebuilt, topic, merged(moved)).plan(segments)
    return rebuilt


# --- topics whose creation is lost ----------------------------------------------------------


def _create_missing(rebuilt: Rebuilt, segments: list[Salvaged], *, is_known_from: int) -> None:
    """Create the topics of which there are messages or changes and no creation."""
    created: set[int] = set()
    deleted: set[int] = set()
    mentioned: dict[int, int] = {}
    for segment in segments:
        for topic_id, columns in segment.index.topics.items():
            mentioned.setdefault(topic_id, columns.timestamps[0])
        for change in changes_of(segment):
            match change:
                case TopicCreated(topic_id):
                    created.add(topic_id)
                case TopicDeleted(topic_id):
                    deleted.add(topic_id)
                case SubscriptionDeleted():
                    # Nothing is left of what it was about.
                    continue
                case _:
                    mentioned.setdefault(change.topic_id, 0)
    answered = (
        a[1] for s in segments for sends in s.index.sessions.values() for a in sends.answers
    )
    known = [*mentioned, *created, *deleted, *answered]
    state = rebuilt.state
    state.next_topic_id = max([state.next_topic_id, *(topic_id + 1 for topic_id in known)])
    for topic_id, timestamp in mentioned.items():
        # One below the snapshot's next that is not in it had been deleted.
        if topic_id in created | deleted or topic_id < is_known_from:
            continue
        name = _free_name(state, topic_id)
        state.add(TopicCreated(topic_id, name, TopicSettings(), timestamp))
        rebuilt.guesses.append(f"the name and settings of the topic that is called {name!r} now")


def changes_of(segment: Salvaged) -> list[Record]:
    """The changes in a segment, in order."""
    return [change for body in segment.index.changes for change in decode_changes(body)]


def _free_name(state: State, topic_id: int) -> str:
    names = {topic.name for topic in state.topics.values()}
    name = f"recovered-{topic_id}"
    while name in names:
        name += "-"
    return name


def _make_names_unique(rebuilt: Rebuilt) -> None:
    """Rename the older of two topics of one name: that it was deleted is lost."""
    newest: dict[str, TopicState] = {}
    for topic in sorted(rebuilt.state.topics.values(), key=lambda topic: topic.topic_id):
        older = newest.get(topic.name)
        if older is not None:
            name = _free_name(rebuilt.state, older.topic_id)
            rebuilt.guesses.append(f"that the topic which is called {name!r} now was deleted")
            older.name = name
        newest[topic.name] = topic


# --- how far topics reach -------------------------------------------------------------------


def _known_end(topic: TopicState, state: State) -> int:
    """The offset that a topic has reached for certain: one that was given is not given again."""
    ends = [topic.first_offset]
    for place in topic.places.values():
        ends += [place.cursor, *(next_offset for _, next_offset in place.acknowledged)]
    for sends in state.sessions.values():
        ends += [
            first + count
            for _, topic_id, first, count in sends.answers
            if topic_id == topic.topic_id
        ]
    return max(ends)


def _with(topic: TopicState, segments: list[Salvaged]) -> list[Salvaged]:
    """Those of the segments that had batches of a topic."""
    return [segment for segment in segments if topic.topic_id in segment.index.topics]


def _begin_with_what_is_there(
    rebuilt: Rebuilt, topic: TopicState, segments: list[Salvaged]
) -> None:
    """Have a topic begin where its messages do: nobody knows whether others are missing."""
    firsts = [s.index.topics[topic.topic_id].firsts[0] for s in _with(topic, segments)]
    first = min(firsts, default=topic.next_offset)
    if first > topic.first_offset:
        topic.first_offset = first
        rebuilt.guesses.append(f"messages of topic {topic.name!r} from before offset {first}")


class _Topic:
    """Goes through the segments for one topic, and plans what has to be written."""

    def __init__(self, rebuilt: Rebuilt, topic: TopicState, moved: list[Range]) -> None:
        self._rebuilt = rebuilt
        # What is in cold segments, by rising offset.
        self._moved = moved
        self._topic = topic
        self._at = topic.first_offset
        self._timestamp = 0

    def plan(self, segments: list[Salvaged]) -> None:
        """Plan a record for every offset that is missing between first and next."""
        for segment in segments:
            columns = segment.index.topics.get(self._topic.topic_id)
            if columns is None or columns.next_offset <= self._topic.first_offset:
                continue
            self._segment(segment, columns)
        self._rebuilt.at_end += self._missing(self._topic.next_offset, self._topic.timestamp)
        self._topic.next_offset = self._at
        self._topic.timestamp = max(self._topic.timestamp, self._timestamp)

    def _segment(self, segment: Salvaged, columns: Columns) -> None:
        plan = self._rebuilt.plans.setdefault(segment.number, Plan({}, [], {}))
        part = segment.parts.get(self._topic.topic_id)
        if self._at > self._topic.first_offset:
            plan.floors[self._topic.topic_id] = self._at
        if part is not None:
            self._part(plan, part)
        plan.at_end += self._missing(columns.next_offset, columns.timestamps[-1])

    def _part(self, plan: Plan, part: Part) -> None:
        missing = self._missing(part.first, part.first_timestamp)
        if missing:
            plan.before.setdefault(part.position, []).extend(missing)
        for gap in part.gaps:
            self._at = max(self._at, gap.first)
            missing = self._missing(gap.next, gap.timestamp)
            if missing:
                plan.before.setdefault(gap.position, []).extend(missing)
        self._at = max(self._at, part.next)
        self._timestamp = max(self._timestamp, part.timestamp)

    def _missing(self, next_offset: int, timestamp: int) -> list[Lost]:
        """What stands for the offsets from where the topic is up to ``next_offset``."""
        missing = []
        self._timestamp = max(self._timestamp, timestamp)
        for first, end in self._not_moved(self._at, next_offset):
            self._tell(first, end)
            for at in range(first, end, _COUNT_MAX):
                count = min(end - at, _COUNT_MAX)
                missing.append(Lost(self._topic.topic_id, at, count, self._timestamp))
        self._at = max(self._at, next_offset)
        return missing

    def _not_moved(self, first: int, next_offset: int) -> Iterator[Range]:
        """Of these offsets those that are in no cold segment."""
        for begun, end in self._moved:
            if first < min(begun, next_offset):
                yield first, min(begun, next_offset)
            first = max(first, end)
        if first < next_offset:
            yield first, next_offset

    def _tell(self, first: int, next_offset: int) -> None:
        lost = self._rebuilt.lost
        if lost and (lost[-1].topic_id, lost[-1].next) == (self._topic.topic_id, first):
            first = lost.pop().first
        lost.append(Loss(self._topic.name, self._topic.topic_id, first, next_offset))
