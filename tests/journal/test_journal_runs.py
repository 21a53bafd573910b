"""Putting batches that were moved between those that were not, against a plain dictionary."""

import random
from array import array

import pytest

from mbctl.journal.footer import SegmentIndex
from mbctl.journal.format import COLD_NUMBER, place_of
from mbctl.journal.records import NO_SESSION, BatchHead, TopicCreated
from mbctl.journal.runs import Runs, runs_of
from mbctl.journal.state import State
from mbctl.model import TopicSettings


class Journal:
    """Segments of one topic, and where each batch is."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.next_offset = 0
        self.counts: dict[int, int] = {}
        self.places: dict[int, int] = {}
        self.segments: dict[int, SegmentIndex] = {}

    def append(self, number: int, batches: int) -> None:
        """A segment with so many batches."""
        index = self.segments[number] = SegmentIndex(1, 4)
        for at in range(batches):
            count = self.chance.randint(1, 3)
            head = BatchHead(1, self.next_offset, count, at, NO_SESSION, 0)
            index.add_batch(head, 64 + at, 10)
            self.counts[self.next_offset] = count
            self.places[self.next_offset] = place_of(number, 64 + at)
            self.next_offset += count

    def move(self, number: int, firsts: list[int]) -> None:
        """Copy batches to a cold segment; they are still where they were."""
        index = self.segments[number] = SegmentIndex(1, 4)
        for at, first in enumerate(sorted(firsts)):
            index.add_moved(BatchHead(1, first, self.counts[first], 0, NO_SESSION, 0), 64 + at, 10)
            self.places[first] = place_of(number, 64 + at)

    def runs(self, first_offset: int) -> Runs:
        """What is made of it."""
        state = State(4)
        state.add(TopicCreated(1, "orders", TopicSettings(), 0))
        state.topics[1].first_offset = first_offset
        return runs_of(state, sorted(self.segments.items()))[1]


def spread(runs: Runs) -> dict[int, tuple[int, int]]:
    """Next offset and place of each batch, by its first offset."""
    found: dict[int, tuple[int, int]] = {}
    at = -1
    for run in runs.runs:
        nexts = [*run.firsts[1:], run.next_offset]
        assert isinstance(run.firsts, array)
        assert len(run.firsts) == len(run.places) == len(run.timestamps) == len(run.sizes) > 0
        for first, next_offset, place in zip(run.firsts, nexts, run.places, strict=True):
            assert first >= at, "they are not in order"
            found[first] = (next_offset, place)
            at = next_offset
    return found


@pytest.mark.parametrize("seed", range(60))
def test_the_newest_copy_of_each_batch_counts(seed: int) -> None:
    chance = random.Random(seed)
    journal = Journal(chance)
    for number in range(1, 6):
        journal.append(number, chance.randint(1, 8))
    for number in range(1, chance.randint(2, 5)):
        firsts = [first for first in journal.counts if chance.random() < 0.4]
        journal.move(COLD_NUMBER + number, firsts)
    first_offset = chance.choice([0, 0, chance.randint(0, journal.next_offset - 1)])
    for number in range(1, 6):
        # One of which all is elsewhere may be gone already.
        used = {
            place >> 32
            for first, place in journal.places.items()
            if first + journal.counts[first] > first_offset
        }
        if number not in used and chance.random() < 0.5:
            del journal.segments[number]
    runs = journal.runs(first_offset)
    found = spread(runs)
    expected = {
        first: (first + count, journal.places[first])
        for first, count in journal.counts.items()
        if first + count > first_offset
    }
    assert {first: found[first] for first in expected} == expected
    assert runs.missing_from(journal.next_offset) is None
    live = runs.live()
    for number in {place >> 32 for _, place in found.values()}:
        assert live[number] == len([p for _, p in found.values() if p >> 32 == number])


@pytest.mark.parametrize("seed", range(20))
def test_a_batch_that_is_nowhere_is_missed(seed: int) -> None:
    chance = random.Random(seed)
    journal = Journal(chance)
    for number in range(1, 4):
        journal.append(number, 4)
    second = [first for first, place in journal.places.items() if place >> 32 == 2]
    lost = chance.choice(second)
    journal.move(COLD_NUMBER + 1, [first for first in second if first != lost])
    del journal.segments[2]
    assert journal.runs(0).missing_from(journal.next_offset) == lost


def test_columns_of_which_nothing_was_moved_are_taken_over_as_they_are() -> None:
    journal = Journal(random.Random(1))
    for number in range(1, 4):
        journal.append(number, 1000)
    firsts = list(journal.segments[1].topics[1].firsts)
    journal.move(COLD_NUMBER + 1, firsts)
    del journal.segments[1]
    runs = journal.runs(0).runs
    assert len(runs) == 3
    assert runs[1].firsts is journal.segments[2].topics[1].firsts
