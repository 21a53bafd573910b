"""The index from offsets to batches."""

import random

import pytest

from mbctl.core.index import BatchIndex


def index_of(*counts: int) -> BatchIndex:
    """Batches of these counts, ten bytes a message, at places 100, 101…"""
    index = BatchIndex()
    for number, count in enumerate(counts):
        index.append(count, 10 * count, 1_000 + number)
        index.set_last_place(100 + number)
    return index


def test_appended_batches_get_dense_offsets() -> None:
    index = index_of(3, 1, 2)
    assert [entry[:2] for entry in index.walk(0)] == [(0, 3), (3, 4), (4, 6)]
    assert index.next_offset == 6


def test_timestamp_never_decreases_even_when_everything_before_is_gone() -> None:
    index = BatchIndex()
    assert index.append(1, 10, 500) == (0, 500)
    assert index.append(1, 10, 400) == (1, 500)
    index.drop_below(2)
    assert index.append(1, 10, 300) == (2, 500)
    assert index.append(1, 10, 600) == (3, 600)


def test_timestamp_never_decreases_after_a_trim() -> None:
    index = BatchIndex()
    for number in range(5_000):
        index.append(1, 10, 10_000 + number)
    index.drop_below(5_000)
    assert len(index._firsts) < 1_024
    assert index.append(1, 10, 0) == (5_000, 14_999)


@pytest.mark.parametrize("offset", [0, 1, 2, 3, 4, 5])
def test_walk_begins_with_the_batch_that_holds_the_offset(offset) -> None:
    index = index_of(3, 1, 2)
    first, next_offset, place, timestamp, size = next(iter(index.walk(offset)))
    assert first <= offset < next_offset
    assert size == 10 * (next_offset - first)
    assert timestamp == 900 + place


@pytest.mark.parametrize(
    ("offset", "places", "kept"),
    [
        (0, [], 3),
        (2, [], 3),
        (3, [100], 2),
        (4, [100, 101], 1),
        (5, [100, 101], 1),
        (6, [100, 101, 102], 0),
    ],
)
def test_only_batches_wholly_below_are_dropped(offset, places, kept) -> None:
    index = index_of(3, 1, 2)
    assert list(index.drop_below(offset)) == places
    assert len(index) == kept
    assert index.size == sum([30, 10, 20][3 - kept :])
    assert list(index.places()) == [100, 101, 102][3 - kept :]
    index.check(offset)


def test_a_place_is_given_up_only_once() -> None:
    index = index_of(3, 1, 2)
    assert list(index.drop_below(4)) == [100, 101]
    assert list(index.drop_below(5)) == []
    assert list(index.drop_below(6)) == [102]


def test_size_from_an_offset_counts_whole_batches() -> None:
    index = index_of(3, 1, 2)
    assert [index.size_from(offset) for offset in range(8)] == [60, 60, 60, 30, 20, 20, 0, 0]
    index.drop_below(4)
    assert index.size_from(0) == 20
    assert BatchIndex().size_from(0) == 0


def test_index_gives_memory_back_when_batches_are_dropped() -> None:
    index = BatchIndex()
    for _ in range(200_000):
        index.append(1, 10, 0)
        index.drop_below(max(0, index.next_offset - 10))
    assert len(index._firsts) < 5_000
    assert len(index) == 10


def test_index_agrees_with_a_list_of_batches_whatever_is_done() -> None:
    choice = random.Random(3)
    index, batches, kept_from = BatchIndex(), [], 0
    for number in range(4_000):
        if choice.random() < 0.7:
            count, size = choice.randint(1, 5), choice.randint(1, 100)
            first, timestamp = index.append(count, size, number)
            index.set_last_place(number)
            batches.append((first, first + count, number, timestamp, size))
        elif index.next_offset > kept_from:
            kept_from = choice.randint(kept_from, min(kept_from + 20, index.next_offset))
            dropped = [batch for batch in batches if batch[1] <= kept_from]
            assert list(index.drop_below(kept_from)) == [batch[2] for batch in dropped]
            batches = batches[len(dropped) :]
        index.check(kept_from)
        assert len(index) == len(batches)
        assert index.size == sum(batch[4] for batch in batches)
        if batches:
            offset = choice.randrange(kept_from, index.next_offset)
            expected = [batch for batch in batches if batch[1] > offset]
            assert list(index.walk(offset)) == expected
            assert index.size_from(offset) == sum(batch[4] for batch in expected)


# --- where batches begin ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "at", "upward"), [(0, 0, 0), (1, 0, 3), (3, 3, 3), (5, 4, 6), (6, 6, 6), (9, 9, 6)]
)
def test_batches_begin_at_or_after_an_offset(offset, at, upward) -> None:
    index = index_of(3, 1, 2)
    assert index.first_at(offset) == at
    assert index.first_from(offset) == upward


@pytest.mark.parametrize(
    ("timestamp", "since", "after"),
    [(0, 0, 0), (1_000, 0, 3), (1_001, 3, 6), (1_002, 6, 7), (1_003, 7, 7)],
)
def test_batches_are_found_by_time(timestamp, since, after) -> None:
    index = index_of(3)
    for count, when in ((2, 1_001), (1, 1_001), (1, 1_002)):
        index.append(count, 10, when)
    assert index.first_since(timestamp) == since
    assert index.first_after(timestamp) == after


def test_times_are_looked_for_in_what_is_kept() -> None:
    index = index_of(3, 1, 2)
    index.drop_below(4)
    assert (index.first_since(0), index.first_after(0), index.first_timestamp) == (4, 4, 1_002)
    index.drop_below(6)
    assert (index.first_since(0), index.first_after(0)) == (6, 6)
    assert BatchIndex().first_since(0) == 0


@pytest.mark.parametrize(
    ("end", "size", "first"),
    [(6, 60, 0), (6, 59, 3), (6, 30, 3), (6, 29, 4), (6, 20, 4), (6, 1, 6), (3, 30, 0), (3, 9, 3)],
)
def test_the_last_batches_before_an_end_have_at_most_so_many_bytes(end, size, first) -> None:
    assert index_of(3, 1, 2).first_within(end, size) == first


@pytest.mark.parametrize(
    ("size", "first"), [(-5, 0), (0, 0), (1, 3), (30, 3), (31, 4), (40, 4), (41, 6), (99, 6)]
)
def test_the_oldest_batches_have_at_least_so_many_bytes(size, first) -> None:
    assert index_of(3, 1, 2).first_without(size) == first


# --- where batches are ------------------------------------------------------------------------


def test_batches_are_live_at_the_places_they_have() -> None:
    index = index_of(3, 1, 2, 4)
    assert index.live([0, 3, 4, 6], [100, 101, 102, 103]) == [0, 1, 2, 3]
    assert index.live([0, 3, 5, 6, 99], [100, 100, 102, 103, 103]) == [0, 3]
    index.drop_below(5)
    assert index.live([0, 3, 4, 6], [100, 101, 102, 103]) == [2, 3]
    assert index.live([], []) == []


def test_batches_are_moved_from_the_places_they_have() -> None:
    index = index_of(3, 1, 2, 4)
    index.drop_below(3)
    moves = [(0, 100, 7), (3, 101, 8), (4, 103, 9), (6, 103, 10), (10, 104, 11)]
    assert index.move(moves) == [7, 9, 11]
    assert list(index.places()) == [8, 102, 10]
    assert index.move([(3, 101, 12)]) == [12]
    assert index.move([(3, 8, 12)]) == []


def test_many_batches_are_looked_for_and_moved_together() -> None:
    index = BatchIndex()
    for number in range(20_000):
        index.append(1, 10, 0)
        index.set_last_place(number)
    firsts = list(range(20_000))
    assert index.live(firsts, firsts) == firsts
    assert index.move([(first, first, first + 1) for first in firsts]) == []
    assert index.live(firsts, firsts) == []
