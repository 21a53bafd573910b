"""Offsets as half-open ranges: a set of them, and how to put a list of them in order."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from mbctl.model import Range


def merged(ranges: Iterable[Range]) -> list[Range]:
    """The same offsets as ranges in order that neither overlap nor touch."""
    result: list[Range] = []
    for first, next in sorted(ranges):
        if result and first <= result[-1][1]:
            result[-1] = (result[-1][0], max(next, result[-1][1]))
        else:
            result.append((first, next))
    return result


class RangeSet:
    """Offsets as disjoint ranges that do not touch; costs by ranges, not by offsets."""

    __slots__ = ("_firsts", "_nexts", "total")

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._nexts: list[int] = []
        self.total = 0
        """How many offsets are in the set."""

    def __len__(self) -> int:
        """How many ranges."""
        return len(self._firsts)

    def __iter__(self) -> Iterator[Range]:
        return zip(self._firsts, self._nexts, strict=True)

    def add(self, first: int, next: int) -> None:
        """Put ``first <= offset < next`` in, joining what it meets."""
        assert first < next
        low = bisect_left(self._nexts, first)
        high = bisect_right(self._firsts, next)
        if low < high:
            first = min(first, self._firsts[low])
            next = max(next, self._nexts[high - 1])
            self.total -= sum(self._nexts[low:high]) - sum(self._firsts[low:high])
        self._firsts[low:high] = [first]
        self._nexts[low:high] = [next]
        self.total += next - first

    def remove_below(self, offset: int) -> int:
        """Take out all below ``offset`` and the range that begins at or spans it.

        Returns where that range ended, or ``offset``: the first offset at or after
        ``offset`` that was not in the set.
        """
        count = bisect_right(self._firsts, offset)
        if count == 0:
            return offset
        end = max(offset, self._nexts[count - 1])
        self.total -= sum(self._nexts[:count]) - sum(self._firsts[:count])
        del self._firsts[:count]
        del self._nexts[:count]
        return end

    def begins_at(self, offset: int) -> bool:
        """Whether one of the ranges begins at ``offset``."""
        at = bisect_left(self._firsts, offset)
        return at < len(self._firsts) and self._firsts[at] == offset

    def ends_at(self, offset: int) -> bool:
        """Whether one of the ranges has ``offset`` as its next."""
        at = bisect_left(self._nexts, offset)
        return at < len(self._nexts) and self._nexts[at] == offset

    def check(self) -> None:
        """Assert that the ranges are sorted, apart, not empty, and counted."""
        assert all(first < next for first, next in self)
        assert all(a < b for a, b in zip(self._nexts, self._firsts[1:], strict=False))
        assert self.total == sum(next - first for first, next in self)
