"""A journal on a simulated disk, and a naive idea of what it has to hold after a crash.

The naive idea: what was appended is a list, and what is recovered must be what the first so
many items of it amount to: at least those whose commit was done, at most all.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from crash_states import CrashState, crash_states
from simulated_disk import SimulatedDisk
from virtual_turns import VirtualTurns

from mbctl import batch as batches
from mbctl.errors import MbctlError
from mbctl.files import Directory
from mbctl.journal.disk import DiskJournal, JournalOptions, open_journal
from mbctl.journal.records import (
    NO_SESSION,
    Acknowledged,
    BatchHead,
    Count,
    Damaged,
    Record,
    Recovered,
    Redelivered,
    SubscriptionDeleted,
    SubscriptionState,
    TopicCreated,
    TopicDeleted,
    TopicTrimmed,
    TrimReason,
)
from mbctl.model import NS_PER_MS, TopicSettings

DATA = "/data"
WINDOW = 4
# So small that every few records cross a segment.
SMALL = JournalOptions(segment_bytes=1024, snapshot_bytes=2048, tail_bytes=512, window=WINDOW)
# Less than a record, so that a crash may tear every one.
TEARING = 128

Appended = tuple[BatchHead, bytes, Record | None] | Record


# --- what records amount to -------------------------------------------------------------------


class NaivePlace:
    """A subscription as sets of offsets."""

    def __init__(self, state: SubscriptionState) -> None:
        self.state = state
        self.acknowledged = _offsets([(0, state.cursor), *state.acknowledged])
        self.counts: dict[int, tuple[int, bool]] = {}
        self.lost = {"dropped": state.dropped, "expired": state.expired}
        self.count(state.counts)

    def count(self, counts: Sequence[Count]) -> None:
        """Take in how often messages were delivered."""
        for first, next_, deliveries, is_parked in counts:
            for offset in range(first, next_):
                self.counts[offset] = (deliveries, is_parked)

    def give_up(self, first_offset: int, reason: str) -> None:
        """Acknowledge all below, and count what it had not."""
        below = set(range(first_offset))
        if reason in self.lost:
            self.lost[reason] += len(below - self.acknowledged)
        self.acknowledged |= below

    def seen(self) -> Any:
        """All that can be known of it."""
        counts = {
            (offset, *value)
            for offset, value in self.counts.items()
            if offset not in self.acknowledged and (value[0] >= 2 or value[1])
        }
        return _place_seen(self.state, self.acknowledged, counts, tuple(self.lost.values()))


def _place_seen(state: SubscriptionState, acknowledged: set[int], *more: Any) -> Any:
    options = (state.ack_wait_ns, state.created, state.max_deliveries, state.dead_letter)
    return (options, frozenset(acknowledged), *more)


class NaiveTopic:
    """A topic as lists and sets."""

    def __init__(self, created: TopicCreated) -> None:
        self.created = created
        self.first_offset = 0
        self.next_offset = 0
        self.timestamp = 0
        self.batches: list[tuple[int, int, int, bytes]] = []
        self.nexts: dict[int, int] = {}
        """By the first offset of a batch, the one after it."""
        self.places: dict[str, NaivePlace] = {}

    def seen(self) -> Any:
        """All that can be known of it."""
        kept = [b for b in self.batches if b[0] + b[1] > self.first_offset]
        places = {name: place.seen() for name, place in self.places.items()}
        ends = (self.first_offset, self.next_offset, self.timestamp)
        return (self.created.name, self.created.settings, self.created.created, ends, kept, places)


class Naive:
    """What a list of appended items amounts to."""

    def __init__(self) -> None:
        self.next_topic_id = 1
        self.topics: dict[int, NaiveTopic] = {}
        self.sessions: dict[bytes, list[tuple[int, int, int, int]]] = {}

    def add(self, item: Appended) -> None:
        match item:
            case (head, body, also):
                self._add_batch(head, body)
                if also is not None:
                    self.add(also)
            case TopicCreated(topic_id):
                self.topics[topic_id] = NaiveTopic(item)
                self.next_topic_id = topic_id + 1
            case TopicDeleted(topic_id):
                del self.topics[topic_id]
            case TopicTrimmed(topic_id, first_offset, reason):
                self.topics[topic_id].first_offset = first_offset
                if reason != "read":
                    for place in self.topics[topic_id].places.values():
                        place.give_up(first_offset, reason)
            case SubscriptionState(topic_id, subscriber):
                self.topics[topic_id].places[subscriber] = NaivePlace(item)
            case Acknowledged(topic_id, subscriber, ranges):
                self.topics[topic_id].places[subscriber].acknowledged |= _offsets(ranges)
            case Redelivered(topic_id, subscriber, counts):
                self.topics[topic_id].places[subscriber].count(counts)
            case SubscriptionDeleted(topic_id, subscriber):
                del self.topics[topic_id].places[subscriber]

    def _add_batch(self, head: BatchHead, body: bytes) -> None:
        topic = self.topics[head.topic_id]
        assert head.first_offset == topic.next_offset
        topic.batches.append((head.first_offset, head.count, head.timestamp, body))
        topic.next_offset += head.count
        topic.nexts[head.first_offset] = topic.next_offset
        topic.timestamp = head.timestamp
        if head.session == NO_SESSION:
            return
        answers = self.sessions.setdefault(head.session, [])
        answers.append((head.sequence, head.topic_id, head.first_offset, head.count))
        del answers[:-WINDOW]

    def seen(self) -> Any:
        """All that can be known of it."""
        topics = {topic_id: topic.seen() for topic_id, topic in self.topics.items()}
        return (self.next_topic_id, topics, {k: list(v) for k, v in self.sessions.items()})


def _offsets(ranges: Sequence[tuple[int, int]]) -> set[int]:
    return {offset for first, next_ in ranges for offset in range(first, next_)}


def recovered_as_seen(recovered: Recovered, bodies: dict[int, bytes]) -> Any:
    """What was recovered, in the form of ``Naive.seen``; ``bodies`` by place."""
    topics = {}
    for topic in recovered.topics:
        kept = []
        for run in topic.runs:
            nexts = [*run.firsts[1:], run.next_offset]
            columns = zip(run.firsts, nexts, run.places, run.timestamps, run.sizes, strict=True)
            for first, next_, place, timestamp, size in columns:
                if next_ > topic.first_offset:
                    assert size == len(bodies[place])
                    kept.append((first, next_ - first, timestamp, bodies[place]))
        places = {
            state.subscriber: _place_seen(
                state,
                _offsets([(0, state.cursor), *state.acknowledged]),
                {(o, *count[2:]) for count in state.counts for o in range(count[0], count[1])},
                (state.dropped, state.expired),
            )
            for state in topic.subscriptions
        }
        ends = (topic.first_offset, topic.next_offset, topic.timestamp)
        topics[topic.topic_id] = (topic.name, topic.settings, topic.created, ends, kept, places)
    sessions = {state.session: list(state.answers) for state in recovered.sessions}
    return (recovered.next_topic_id, topics, sessions)


# --- the journal ------------------------------------------------------------------------------


class Progressed(msgspec.Struct, frozen=True):
    """A mark in the trace: how many items were appended, and how many of them are durable."""

    appended: int
    durable: int


# A mark in the trace: the journal was opened, so that all that it held may have been seen.
OPENED = "opened"


class World:
    """One journal on one disk, all that was appended to it, and how much of it is durable."""

    def __init__(
        self,
        disk: SimulatedDisk | None = None,
        options: JournalOptions = SMALL,
        *,
        items: Sequence[Appended] = (),
        chance: random.Random | None = None,
        journal_class: Callable[..., Any] | None = None,
        is_moving: bool = True,
    ) -> None:
        self.disk = SimulatedDisk(page_bytes=TEARING) if disk is None else disk
        self.start = self.disk.copy()
        self.disk.trace.clear()
        self.disk.mark(Progressed(len(items), len(items)))
        self.options = options
        self.items: list[Appended] = []
        self.durable = 0
        self.notes: list[str] = []
        self.failures: list[MbctlError] = []
        self.turns = VirtualTurns(chance)
        self.is_closed = False
        self.moved = 0
        """How many batches the journal has moved."""
        self._is_freeing = True
        open_ = journal_class or open_journal
        self.journal: DiskJournal
        self.recovered: Recovered
        self.journal, self.recovered = open_(
            Directory(self.disk, Path(DATA)),
            self.turns,
            options,
            progress=self.notes.append,
            new_worker=self.turns.new_worker,
        )
        self.disk.mark(OPENED)
        self.journal.on_failure = self.failures.append
        if is_moving:
            self.journal.index = self
        self.naive = Naive()
        """What all that was appended amounts to."""
        self.begin_with(items)
        self.places: dict[tuple[int, int], int] = {}
        for topic in self.recovered.topics:
            for run in topic.runs:
                for first, place in zip(run.firsts, run.places, strict=True):
                    self.places[topic.topic_id, first] = place

    def begin_with(self, items: Sequence[Appended]) -> None:
        """Take these items for what the journal held when it was opened."""
        self.items = list(items)
        self.durable = len(self.items)
        self.naive = Naive()
        for item in self.items:
            self.naive.add(item)

    # --- appending --------------------------------------------------------------------------

    def topic(self, name: str = "orders") -> int:
        """Create a topic; its id."""
        topic_id = self.naive.next_topic_id
        settings = TopicSettings()
        self._append(TopicCreated(topic_id, name, settings, created=self.turns.wall_ns()))
        return topic_id

    def send(
        self,
        topic_id: int,
        size: int = 100,
        *,
        count: int = 1,
        payload: bytes | None = None,
        session: bytes = b"s" * 16,
        also: Record | None = None,
    ) -> None:
        """Append a batch, and a record in one with it."""
        topic = self.naive.topics[topic_id]
        answers = self.naive.sessions.get(session, [])
        sequence = answers[-1][0] + 1 if answers else 1
        if also is not None:
            session, sequence = NO_SESSION, 0
        if payload is None:
            payload = (b"%d/%d/" % (topic_id, topic.next_offset)).ljust(size, b"x")
        body = batches.encode([payload] + [b"y"] * (count - 1))
        timestamp = max(topic.timestamp, self.turns.wall_ns())
        head = BatchHead(topic_id, topic.next_offset, count, timestamp, session, sequence)
        self.items.append((head, body, also))
        self.naive.add((head, body, also))
        self._mark()
        self.places[topic_id, head.first_offset] = self.journal.append_batch(head, body, also)

    def subscribe(
        self, topic_id: int, subscriber: str = "billing", cursor: int = 0, **more: Any
    ) -> None:
        """Append a subscription."""
        created = self.turns.wall_ns()
        self._append(SubscriptionState(topic_id, subscriber, cursor, [], 30, created, **more))

    def redeliver(self, topic_id: int, *counts: Count, subscriber: str = "billing") -> None:
        """Append how often messages were delivered."""
        self._append(Redelivered(topic_id, subscriber, list(counts)))

    def bury(self, topic_id: int, offset: int, dead_letters: int) -> None:
        """Append a message to another topic and its acknowledgement, in one."""
        also = Acknowledged(topic_id, "billing", [(offset, offset + 1)])
        self.send(dead_letters, 30, also=also)

    def ack(self, topic_id: int, first: int, next_: int, subscriber: str = "billing") -> None:
        """Append an acknowledgement."""
        self._append(Acknowledged(topic_id, subscriber, [(first, next_)]))

    def unsubscribe(self, topic_id: int, subscriber: str = "billing") -> None:
        """Append the end of a subscription."""
        self._append(SubscriptionDeleted(topic_id, subscriber))

    def trim(self, topic_id: int, first_offset: int, reason: TrimReason = "read") -> None:
        """Append that what is below is gone."""
        self._append(TopicTrimmed(topic_id, first_offset, reason))

    def delete(self, topic_id: int) -> None:
        """Append the end of a topic."""
        self._append(TopicDeleted(topic_id))

    def _append(self, record: Record) -> None:
        self._is_freeing |= isinstance(record, TopicTrimmed | TopicDeleted)
        self.items.append(record)
        self.naive.add(record)
        self._mark()
        self.journal.append(record)

    def _mark(self) -> None:
        self.disk.mark(Progressed(len(self.items), self.durable))

    # --- committing and releasing -------------------------------------------------------------

    def commit(self, *, is_waited_for: bool = True) -> None:
        """Commit what was appended, and release what is dead once that is durable."""
        count, dead = len(self.items), self._dead() if self._is_freeing else []
        self._is_freeing = False

        def done() -> None:
            assert self.durable <= count, "commits are done out of order"
            self.durable = count
            self._mark()
            self.journal.release(self.places.pop(batch) for batch in dead if batch in self.places)

        self.journal.commit(done)
        if is_waited_for:
            self.turns.run()

    def _dead(self) -> list[tuple[int, int]]:
        """The batches that nobody needs once all that was appended is durable."""
        needed = {
            (topic_id, first)
            for topic_id, topic in self.naive.topics.items()
            for first, count, _, _ in topic.batches
            if first + count > topic.first_offset
        }
        return [batch for batch in self.places if batch not in needed]

    def close(self) -> None:
        """Close the journal."""
        closed: list[bool] = []

        def done() -> None:
            closed.append(True)

        self.journal.close(done)
        self.turns.run()
        assert closed == [True] or self.failures
        self.is_closed = True
        self.durable = len(self.items) if not self.failures else self.durable
        self._mark()

    def look_around(self) -> None:
        """Have the journal take it that what did not die by now will not."""
        self.journal._census.look_around()
        self.journal._mover._look_around()

    def quiet(self) -> None:
        """Let so much time pass that the journal says what is durable."""
        self.turns.advance(50 * NS_PER_MS)

    # --- where batches are ------------------------------------------------------------------

    def live(self, topic_id: int, firsts: Sequence[int], places: Sequence[int]) -> Sequence[int]:
        """The positions of those that are kept and there."""
        assert len(firsts) == len(places)
        return [
            at
            for at, (first, place) in enumerate(zip(firsts, places, strict=True))
            if self._is_kept(topic_id, first) and self.places.get((topic_id, first)) == place
        ]

    def move(self, topic_id: int, moves: Sequence[tuple[int, int, int]]) -> Sequence[int]:
        """Let batches be elsewhere."""
        assert [move[0] for move in moves] == sorted({move[0] for move in moves})
        left = []
        for first, place, new_place in moves:
            if self.live(topic_id, [first], [place]):
                self.places[topic_id, first] = new_place
                self.moved += 1
            else:
                left.append(new_place)
        return left

    def _is_kept(self, topic_id: int, first: int) -> bool:
        topic = self.naive.topics.get(topic_id)
        if topic is None:
            return False
        return topic.nexts[first] > topic.first_offset

    # --- looking ----------------------------------------------------------------------------

    def read(self, places: Sequence[int]) -> list[Any]:
        """The batches at these places."""
        found: list[Any] = []
        self.journal.read(places, found.append)
        self.turns.run()
        assert len(found) == 1, "a read is not answered"
        return [body if isinstance(body, Damaged) else bytes(memoryview(body)) for body in found[0]]

    def seen(self) -> Any:
        """What was recovered, with the bodies as they are read now."""
        places = [
            place
            for topic in self.recovered.topics
            for run in topic.runs
            for place, next_ in zip(run.places, [*run.firsts[1:], run.next_offset], strict=True)
            if next_ > topic.first_offset
        ]
        return recovered_as_seen(self.recovered, dict(zip(places, self.read(places), strict=True)))


class Expectations:
    """What the first so many of some items amount to, for every number."""

    def __init__(self, items: Sequence[Appended]) -> None:
        self.items = list(items)
        naive = Naive()
        self.all = [naive.seen()]
        """By how many items."""
        for item in items:
            naive.add(item)
            self.all.append(naive.seen())

    def check(self, state: CrashState, *, is_bounded: bool = True, **how: Any) -> World:
        """Open the journal of a crash state and assert that it holds what it must.

        That is what the first so many items amount to, those that were durable among them
        and none that was not appended yet, and nothing else.
        """
        marks = [mark for mark in state.marks if isinstance(mark, Progressed)]
        durable, appended = 0, len(self.items)
        if is_bounded:
            durable, appended = marks[-1].durable, marks[-1].appended
        world = World(state.disk, **how)
        seen = world.seen()
        counts = [n for n, expected in enumerate(self.all) if expected == seen]
        assert counts, f"there never was a state as is recovered; {durable} are durable: {seen}"
        assert counts[-1] >= durable, f"{durable} items were durable and {counts[-1]} are left"
        assert counts[0] <= appended, f"{appended} were appended and {counts[0]} are there"
        world.begin_with(self.items[: min(counts[-1], appended)])
        return world

    def check_again(self, state: CrashState, opened: World, **how: Any) -> Iterator[World]:
        """The same for all crash states of what ``opened`` did to open that one.

        Once it was open, what it held must not change any more.
        """
        count = len(opened.items)
        for inner in crash_states(opened.start, opened.disk.trace, sampled=1, alone=2):
            marks = state.marks
            if OPENED in inner.marks:
                marks = [*marks, Progressed(count, count)]
            place = f"{state.place}, then {inner.place}"
            with noted(place):
                yield self.check(CrashState(inner.disk, marks, place), **how)


@contextmanager
def noted(place: str) -> Iterator[None]:
    """Let a failure say which crash it is about."""
    try:
        yield
    except Exception as error:
        error.add_note(f"crash state: {place}")
        raise


def check_goes_on(world: World) -> None:
    """Assert that a journal that was opened keeps what is sent to it from now on."""
    topics = world.naive.topics
    topic_id = next(iter(topics)) if topics else world.topic("later")
    world.send(topic_id)
    world.commit()
    assert world.durable == len(world.items), "a commit is not done"
    again = World(world.disk.power_cut(), world.options)
    assert again.seen() == world.naive.seen()
