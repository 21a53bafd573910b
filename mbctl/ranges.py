"""Offsets as half-open ranges: a set of them, and how to put a list of them in order."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from mbctl.model import Range

T = TypeVar("T")


def merged(ranges: Iterable[Range]) -> list[Range]:
    """The same offsets as ranges in order that neither overlap nor touch."""
    result: list[Range] = []
    for first, next in sorted(ranges):
        if result and first <= result[-1][1]:
            result[-1] = (result[-1][0], max(next, result[-1][1]))
        else:
            result.append((first, next))
    return result


def without(ranges: Iterable[Range], taken: Iterable[Range]) -> list[Range]:
    """What is left of ``ranges`` when ``taken`` is taken out, in order and joined."""
    left = merged(ranges)
    for low, high in taken:
        cut = ((first, min(next, low)) for first, next in left)
        rest = ((max(first, high), next) for first, next in left)
        left = merged([pair for pair in (*cut, *rest) if pair[0] < pair[1]])
    return left


class RangeSet:
    """Offsets as disjoint ranges that do not touch; costs by ranges, not by offsets."""

    __slots__ = ("_nexts", "firsts", "total")

    def __init__(self) -> None:
        self.firsts: list[int] = []
        """Where the ranges begin, in order."""
        self._nexts: list[int] = []
        self.total = 0
        """How many offsets are in the set."""

    def __len__(self) -> int:
        """How many ranges."""
        return len(self.firsts)

    def __iter__(self) -> Iterator[Range]:
        return zip(self.firsts, self._nexts, strict=True)

    def add(self, first: int, next: int) -> None:
        """Put ``first <= offset < next`` in, joining what it meets."""
        assert first < next
        low = bisect_left(self._nexts, first)
        high = bisect_right(self.firsts, next)
        if low < high:
            first = min(first, self.firsts[low])
            next = max(next, self._nexts[high - 1])
            self.total -= sum(self._nexts[low:high]) - sum(self.firsts[low:high])
        self.firsts[low:high] = [first]
        self._nexts[low:high] = [next]
        self.total += next - first

    def remove_below(self, offset: int) -> int:
        """Take out all below ``offset`` and the range that begins at or spans it.

        Returns where that range ended, or ``offset``: the first offset at or after
        ``offset`` that was not in the set.
        """
        count = bisect_right(self.firsts, offset)
        if count == 0:
            return offset
        end = max(offset, self._nexts[count - 1])
        self.total -= sum(self._nexts[:count]) - sum(self.firsts[:count])
        del self.firsts[:count]
        del self._nexts[:count]
        return end

    def total_below(self, offset: int) -> int:
        """How many offsets below ``offset`` are in the set."""
        count = bisect_left(self.firsts, offset)
        over = max(0, self._nexts[count - 1] - offset) if count else 0
        return sum(self._nexts[:count]) - sum(self.firsts[:count]) - over

    def begins_at(self, offset: int) -> bool:
        """Whether one of the ranges begins at ``offset``."""
        at = bisect_left(self.firsts, offset)
        return at < len(self.firsts) and self.firsts[at] == offset

    def ends_at(self, offset: int) -> bool:
        """Whether one of the ranges has ``offset`` as its next."""
        at = bisect_left(self._nexts, offset)
        return at < len(self._nexts) and self._nexts[at] == offset

    def check(self) -> None:
        """Assert that the ranges are sorted, apart, not empty, and counted."""
        assert all(first < next for first, next in self)
        assert all(a < b for a, b in zip(self._nexts, self.firsts[1:], strict=False))
        assert self.total == sum(next - first for first, next in self)


class RangeMap(Generic[T]):
    """A value for each of some offsets, kept as disjoint ranges; neighbours of equal value join."""

    __slots__ = ("_firsts", "_nexts", "_values")

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._nexts: list[int] = []
        self._values: list[T] = []

    def __len__(self) -> int:
        """How many ranges."""
        return len(self._firsts)

    def __iter__(self) -> Iterator[tuple[int, int, T]]:
        return zip(self._firsts, self._nexts, self._values, strict=True)

    def set(self, first: int, next: int, value: T) -> None:
        """Let ``first <= offset < next`` have this value, whatever they had."""
        at = self._cut_out(first, next)
        if at < len(self._firsts) and self._firsts[at] == next and self._values[at] == value:
            next = self._nexts[at]
            self._delete(at, at + 1)
        if at and self._nexts[at - 1] == first and self._values[at - 1] == value:
            self._nexts[at - 1] = next
        else:
            self._insert(at, first, next, value)

    def remove(self, first: int, next: int) -> None:
        """Let ``first <= offset < next`` have none."""
        self._cut_out(first, next)

    def _cut_out(self, first: int, next: int) -> int:
        """Take out what is there between the two; where in the lists that was."""
        assert first < next
        low = bisect_right(self._nexts, first)
        high = bisect_left(self._firsts, next)
        if low == high:
            return low
        ends = (self._firsts[low], self._nexts[high - 1])
        values = (self._values[low], self._values[high - 1])
        self._delete(low, high)
        if next < ends[1]:
            self._insert(low, next, ends[1], values[1])
        if ends[0] < first:
            self._insert(low, ends[0], first, values[0])
            low += 1
        return low

    def _delete(self, low: int, high: int) -> None:
        del self._firsts[low:high]
        del self._nexts[low:high]
        del self._values[low:high]

    def _insert(self, at: int, first: int, next: int, value: T) -> None:
        self._firsts.insert(at, first)
        self._nexts.insert(at, next)
        self._values.insert(at, value)

    def check(self) -> None:
        """Assert that the ranges are sorted, not empty, and joined where they can be."""
        before: tuple[int, int, T] | None = None
        for item in self:
            assert item[0] < item[1]
            assert before is None or before[1] <= item[0]
            assert before is None or before[1] < item[0] or before[2] != item[2]
            before = item
