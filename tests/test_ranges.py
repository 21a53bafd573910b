"""Sets of offsets as ranges."""

import random

import pytest

from mbctl.ranges import RangeMap, RangeSet, merged


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([], []),
        ([(3, 5)], [(3, 5)]),
        ([(7, 9), (3, 5)], [(3, 5), (7, 9)]),
        ([(3, 5), (5, 7)], [(3, 7)]),
        ([(3, 9), (4, 6), (3, 4)], [(3, 9)]),
        ([(3, 4), (3, 4), (3, 4)], [(3, 4)]),
    ],
    ids=["none", "one", "unsorted", "touching", "nested", "repeated"],
)
def test_merged_ranges_are_sorted_and_apart(ranges, expected) -> None:
    assert merged(ranges) == expected


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        ((20, 25), [(0, 2), (4, 6), (10, 12), (20, 25)]),
        ((2, 4), [(0, 6), (10, 12)]),
        ((6, 7), [(0, 2), (4, 7), (10, 12)]),
        ((9, 10), [(0, 2), (4, 6), (9, 12)]),
        ((1, 11), [(0, 12)]),
        ((4, 6), [(0, 2), (4, 6), (10, 12)]),
    ],
    ids=["apart", "closing a gap", "touching above", "touching below", "over all", "there already"],
)
def test_adding_a_range_joins_what_it_meets(added, expected) -> None:
    ranges = RangeSet()
    for first, next in ((0, 2), (4, 6), (10, 12)):
        ranges.add(first, next)
    ranges.add(*added)
    ranges.check()
    assert list(ranges) == expected


@pytest.mark.parametrize(
    ("offset", "end", "expected"),
    [
        (0, 0, [(2, 4), (6, 8)]),
        (2, 4, [(6, 8)]),
        (3, 4, [(6, 8)]),
        (4, 4, [(6, 8)]),
        (5, 5, [(6, 8)]),
        (6, 8, []),
        (100, 100, []),
    ],
)
def test_removing_below_an_offset_tells_where_the_range_there_ended(offset, end, expected) -> None:
    ranges = RangeSet()
    ranges.add(2, 4)
    ranges.add(6, 8)
    assert ranges.remove_below(offset) == end
    ranges.check()
    assert list(ranges) == expected


def test_range_set_agrees_with_a_set_of_offsets_whatever_is_done() -> None:
    choice = random.Random(2)
    ranges, expected = RangeSet(), set[int]()
    for _ in range(3_000):
        first = choice.randrange(100)
        if choice.random() < 0.9:
            next = first + choice.randint(1, 5)
            ranges.add(first, next)
            expected.update(range(first, next))
        else:
            end = ranges.remove_below(first)
            assert end == next_missing(expected, first)
            expected = {offset for offset in expected if offset >= end}
        ranges.check()
        assert {offset for first, next in ranges for offset in range(first, next)} == expected
        assert ranges.total == len(expected)
        probe = choice.randrange(100)
        assert ranges.begins_at(probe) == (probe in expected and probe - 1 not in expected)
        assert ranges.ends_at(probe) == (probe - 1 in expected and probe not in expected)
        assert len(ranges) == sum(offset - 1 not in expected for offset in expected)


def next_missing(offsets: set[int], offset: int) -> int:
    """The first offset from there on that is not in the set."""
    while offset in offsets:
        offset += 1
    return offset


@pytest.mark.parametrize("seed", range(20))
def test_a_map_of_ranges_is_a_dictionary_of_offsets(seed: int) -> None:
    chance = random.Random(seed)
    ranges: RangeMap[int] = RangeMap()
    naive: dict[int, int] = {}
    for _ in range(200):
        first = chance.randrange(40)
        next = first + chance.randint(1, 8)
        value = chance.randint(0, 2)
        if value:
            ranges.set(first, next, value)
            naive.update(dict.fromkeys(range(first, next), value))
        else:
            ranges.remove(first, next)
            for offset in range(first, next):
                naive.pop(offset, None)
        ranges.check()
        assert {o: value for first, next, value in ranges for o in range(first, next)} == naive
        edges = [o for o in naive if naive.get(o - 1) != naive[o]]
        assert len(ranges) == len(edges)


@pytest.mark.parametrize("offset", range(12))
def test_total_below_an_offset_counts_what_is_there(offset: int) -> None:
    ranges = RangeSet()
    ranges.add(2, 5)
    ranges.add(7, 9)
    assert ranges.total_below(offset) == len({2, 3, 4, 7, 8} & set(range(offset)))
