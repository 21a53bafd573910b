"""A topic's index: from an offset to the batch that holds it."""

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence

# Trim the arrays once this many dropped entries stand before the live ones; arbitrary.
_TRIM_MIN = 1024

# A batch: its first offset, the next one's, its place, timestamp and size.
BatchEntry = tuple[int, int, int, int, int]


class BatchIndex:
    """The batches of a topic in arrays: 32 bytes a batch.

    Entry i is a batch: its first offset, its place in the journal, its timestamp, and the
    bytes of all batches before it, so that the size of any run of batches is one
    subtraction.
    """

    __slots__ = ("_before", "_end", "_firsts", "_head", "_places", "_timestamps", "next_offset")

    def __init__(self) -> None:
        self.next_offset = 0
        """The offset that the next message will get."""
        self._firsts = array("Q")
        self._places = array("Q")
        self._timestamps = array("q")
        self._before = array("Q")
        self._end = 0
        # Entries before this one were dropped.
        self._head = 0

    def __len__(self) -> int:
        """How many batches are kept."""
        return len(self._firsts) - self._head

    @property
    def size(self) -> int:
        """Bytes of all batches kept."""
        return self._end - self._before[self._head] if len(self) else 0

    def append(self, count: int, size: int, timestamp: int) -> tuple[int, int]:
        """Add a batch at the end: its first offset, and a timestamp that never decreases.

        ``set_last_place`` says later where it went.
        """
        assert count > 0
        assert size > 0
        first = self.next_offset
        if self._timestamps:
            timestamp = max(timestamp, self._timestamps[-1])
        self._firsts.append(first)
        self._places.append(0)
        self._timestamps.append(timestamp)
        self._before.append(self._end)
        self._end += size
        self.next_offset += count
        return first, timestamp

    def set_last_place(self, place: int) -> None:
        """Note where the journal put the batch appended last."""
        self._places[-1] = place

    def drop_below(self, offset: int) -> list[int]:
        """Forget the batches that lie wholly below ``offset``; their places."""
        head = self._head
        # The batch that holds ``offset`` stays, unless that is past the newest message.
        keep = len(self._firsts) if offset >= self.next_offset else self._find(offset)
        places = self._places[head:keep].tolist()
        self._head = keep
        if keep > _TRIM_MIN and 2 * keep > len(self._firsts):
            self._trim()
        return places

    def _trim(self) -> None:
        # The last entry stays even when it is dead: it carries the newest timestamp.
        count = min(self._head, len(self._firsts) - 1)
        for column in (self._firsts, self._places, self._timestamps, self._before):
            del column[:count]
        self._head -= count

    def places(self) -> Sequence[int]:
        """The places of all batches kept."""
        return self._places[self._head :]

    def size_from(self, offset: int) -> int:
        """Bytes of the batches from the one that holds ``offset`` on."""
        if not len(self) or offset >= self.next_offset:
            return 0
        return self._end - self._before[max(self._find(offset), self._head)]

    def walk(self, offset: int) -> Iterator[BatchEntry]:
        """The batches from the one that holds ``offset``, which is kept, to the last."""
        at = self._find(offset)
        assert at >= self._head
        end = len(self._firsts)
        while at < end:
            last = at + 1 == end
            yield (
                self._firsts[at],
                self.next_offset if last else self._firsts[at + 1],
                self._places[at],
                self._timestamps[at],
                (self._end if last else self._before[at + 1]) - self._before[at],
            )
            at += 1

    def _find(self, offset: int) -> int:
        return bisect_right(self._firsts, offset, self._head) - 1

    def check(self, first_offset: int) -> None:
        """Assert that the entries cover what is kept, in order."""
        firsts = self._firsts[self._head :].tolist()
        assert firsts == sorted(set(firsts))
        assert (first_offset == self.next_offset) == (not firsts)
        if firsts:
            assert firsts[0] <= first_offset < self.next_offset
            assert len(firsts) == 1 or firsts[1] > first_offset
            assert firsts[-1] < self.next_offset
        timestamps = self._timestamps.tolist()
        assert timestamps == sorted(timestamps)
