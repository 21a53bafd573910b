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
