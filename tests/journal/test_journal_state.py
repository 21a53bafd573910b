"""What records amount to: the state of the journal against the plainest fold there is."""

import random
from typing import Any

import pytest
from folded_records import FoldedRecords

from mbctl.journal.footer import SegmentIndex
from mbctl.journal.format import encode_change, encode_changes
from mbctl.journal.records import (
    NO_SESSION,
    Acknowledged,
    BatchHead,
    Record,
    Redelivered,
    SubscriptionDeleted,
    SubscriptionState,
    TopicCreated,
    TopicDeleted,
    TopicTrimmed,
)
from mbctl.journal.state import State, decode_state
from mbctl.model import TopicSettings

WINDOW = 4


def subscriptions_of(state: State) -> dict[tuple[int, str], SubscriptionState]:
    """By topic id and name."""
    return {
        (topic_id, one.subscriber): one
        for topic_id, topic in state.topics.items()
        for one in topic.subscriptions()
    }


class Walk:
    """Random records, folded by the journal's state and by the plain fold."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.folded = FoldedRecords(window=WINDOW)
        self.state = State(WINDOW)
        self.index = SegmentIndex(1, WINDOW)
        self.seen: set[str] = set()
        self.add(TopicCreated(1, "orders", TopicSettings(), 0))

    def add(self, record: Record) -> None:
        self.seen.add(type(record).__name__)
        self.folded.append(record)
        self.index.add_changes(encode_changes([encode_change(record)]))

    def step(self) -> None:
        """Append something."""
        topics = list(self.folded.topics)
        topic_id = self.chance.choice(topics)
        topic = self.folded.topics[topic_id]
        kind = self.chance.choice([*"bbbbsaaarrtdue", "x"])
        if kind == "b":
            self.batch(topic_id, topic.next)
        elif kind == "s":
            state = SubscriptionState(
                topic_id,
                self.chance.choice("xyz"),
                self.chance.randint(topic.first, topic.next),
                [],
                30,
                1,
                self.chance.choice([None, 3]),
                self.chance.choice([None, "dead"]),
            )
            self.add(state)
        elif kind in "ar" and topic.subscriptions:
            name = self.chance.choice(list(topic.subscriptions))
            if kind == "a":
                self.add(Acknowledged(topic_id, name, [self.range_in(topic)]))
            else:
                self.add(Redelivered(topic_id, name, self.counts_in(topic.subscriptions[name])))
        elif kind == "t" and topic.next > topic.first:
            reason = self.chance.choice(["dropped", "expired", "purged", "read"])
            if reason == "read" and topic.subscriptions:
                return
            first = self.chance.randint(topic.first + 1, topic.next)
            self.add(TopicTrimmed(topic_id, first, reason))  # type: ignore[arg-type]
        elif kind == "d" and topic.subscriptions and self.chance.random() < 0.3:
            self.add(SubscriptionDeleted(topic_id, self.chance.choice(list(topic.subscriptions))))
        elif kind == "u" and len(topics) < 3:
            self.add(TopicCreated(self.folded.next_topic_id, "more", TopicSettings(), 0))
        elif kind == "e" and len(topics) > 1 and self.chance.random() < 0.2:
            self.add(TopicDeleted(topic_id))
        elif kind == "x":
            self.seal()

    def batch(self, topic_id: int, first: int) -> None:
        session = self.chance.choice([NO_SESSION, b"s" * 16])
        answers = self.folded.sessions.get(session, [])
        sequence = answers[-1][0] + 1 if answers else 1
        count = self.chance.randint(1, 4)
        head = BatchHead(topic_id, first, count, 0, session, sequence)
        self.folded.append_batch(head, 10, 0)
        self.index.add_batch(head, 64, 10)

    def range_in(self, topic: Any) -> tuple[int, int]:
        first = self.chance.randint(topic.first, topic.next)
        return first, self.chance.randint(first + 1, first + 4)

    def counts_in(self, state: SubscriptionState) -> list[tuple[int, int, int, bool]]:
        """Counts of what is not acknowledged: only that is delivered."""
        acknowledged = {o for first, next_ in state.acknowledged for o in range(first, next_)}
        offsets = [o for o in range(state.cursor, state.cursor + 12) if o not in acknowledged]
        return [
            (offset, offset + 1, self.chance.randint(0, 3), self.chance.random() < 0.2)
            for offset in self.chance.sample(offsets, min(3, len(offsets)))
        ]

    def seal(self) -> None:
        """Fold what there is into the state, and look."""
        self.state.add_segment(self.index)
        self.index = SegmentIndex(1, WINDOW)
        self.state = decode_state(self.state.encode(), WINDOW)
        recovered = self.folded.recovered()
        expected = {
            (s.topic_id, s.subscriber): s for t in recovered.topics for s in t.subscriptions
        }
        found = subscriptions_of(self.state)
        assert found == expected
        for topic in recovered.topics:
            ours = self.state.topics[topic.topic_id]
            assert (ours.first_offset, ours.next_offset) == (topic.first_offset, topic.next_offset)
        answers = {s.session: s.answers for s in recovered.sessions}
        assert {k: list(v.answers) for k, v in self.state.sessions.items()} == answers


@pytest.mark.parametrize("seed", range(30))
def test_state_is_what_the_records_amount_to(seed: int) -> None:
    walk = Walk(seed)
    for _ in range(300):
        walk.step()
    walk.seal()
    assert {"Acknowledged", "Redelivered", "TopicTrimmed", "SubscriptionState"} <= walk.seen


def test_dead_letters_are_in_no_publishers_window() -> None:
    index = SegmentIndex(1, WINDOW)
    index.add_batch(BatchHead(1, 0, 1, 0, NO_SESSION, 0), 64, 10)
    assert index.sessions == {}


def test_a_trim_by_force_is_counted_to_who_had_not_read() -> None:
    state = State(WINDOW)
    state.add(TopicCreated(1, "orders", TopicSettings(), 0))
    state.add(SubscriptionState(1, "ahead", 8, [], 30, 0))
    state.add(SubscriptionState(1, "behind", 1, [(2, 4), (5, 7)], 30, 0, counts=[(1, 2, 5, True)]))
    state.add(TopicTrimmed(1, 6, "dropped"))
    found = {name: one for (_, name), one in subscriptions_of(state).items()}
    assert found["ahead"].cursor == 8
    assert found["ahead"].dropped == 0
    # 1 and 4 it had not acknowledged; 6 it had.
    assert (found["behind"].cursor, found["behind"].dropped) == (7, 2)
    assert found["behind"].counts == []
