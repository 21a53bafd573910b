"""A topic's index: from an offset to the batch that holds it."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

# The bytes before an entry are noted for every so manieth entry, and added up from there:
# running sums for all of them take longer to restore than all other columns together.
_STRIDE = 1024

# A batch: its first offset, the next one's, its place, timestamp and size.
BatchEntry = tuple[int, int, int, int, int]
# Batches that follow each other: their first offsets, places, timestamps and sizes as columns
# of equal length, and the offset after the last. Columns of the types below are taken over as
# they are, others number by number.
BatchColumns = tuple["array[int]", "array[int]", "array[int]", "array[int]", int]


class BatchIndex:
    """The batches of a topic in arrays: 28 bytes a batch.

    Entry i is a batch: its first offset, its place in the journal, its timestamp, its size.
    Entry i of ``_before`` has the bytes of all batches before entry ``i * _STRIDE``, so that
    the size of any run of batches is a subtraction and two short sums.
    """

    __slots__ = (
        "_before",
        "_end",
        "_firsts",
        "_head",
        "_places",
        "_sizes",
        "_timestamps",
        "next_offset",
        "timestamp",
    )

    def __init__(self) -> None:
        self.next_offset = 0
        """The offset that the next message will get."""
        self.timestamp = 0
        """That of the newest batch, kept or not."""
        self._firsts = array("Q")
        self._places = array("Q")
        self._timestamps = array("q")
        self._sizes = array("I")
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
        return self._end - self._bytes_before(self._head)

    def append(self, count: int, size: int, timestamp: int) -> tuple[int, int]:
        """Add a batch at the end: its first offset, and a timestamp that never decreases.

        ``set_last_place`` says later where it went.
        """
        assert count > 0
        assert size > 0
        first = self.next_offset
        self.timestamp = timestamp = max(timestamp, self.timestamp)
        self._firsts.append(first)
        self._places.append(0)
        self._timestamps.append(timestamp)
        if len(self._sizes) % _STRIDE == 0:
            self._before.append(self._end)
        self._sizes.append(size)
        self._end += size
        self.next_offset += count
        return first, timestamp

    def set_last_place(self, place: int) -> None:
        """Note where the journal put the batch appended last."""
        self._places[-1] = place

    def extend(self, run: BatchColumns) -> None:
        """Add batches at the end, column by column: there may be millions.

        Between them and those before, offsets may be missing that ``drop_below`` passes over.
        """
        firsts, places, timestamps, sizes, next_offset = run
        assert len(firsts) == len(places) == len(timestamps) == len(sizes)
        if not firsts:
            return
        assert self.next_offset <= firsts[0] <= firsts[-1] < next_offset
        _put(self._firsts, firsts)
        _put(self._places, places)
        _put(self._timestamps, timestamps)
        at = len(self._sizes)
        _put(self._sizes, sizes)
        while at < len(self._sizes):
            if at % _STRIDE == 0:
                self._before.append(self._end)
            stop = at - at % _STRIDE + _STRIDE
            self._end += sum(self._sizes[at:stop])
            at = stop
        self.next_offset = next_offset
        self.timestamp = max(self.timestamp, timestamps[-1])

    def drop_below(self, offset: int) -> Sequence[int]:
        """Forget the batches that lie wholly below ``offset``; their places."""
        head = self._head
        # The batch that holds ``offset`` stays, unless that is past the newest message.
        keep = len(self._firsts) if offset >= self.next_offset else max(head, self._find(offset))
        places = self._places[head:keep]
        self._head = keep
        if keep > _STRIDE and 2 * keep > len(self._firsts):
            self._trim()
        return places

    def _trim(self) -> None:
        strides = self._head // _STRIDE
        for column in (self._firsts, self._places, self._timestamps, self._sizes):
            del column[: strides * _STRIDE]
        del self._before[:strides]
        self._head -= strides * _STRIDE

    def places(self) -> Sequence[int]:
        """The places of all batches kept."""
        return self._places[self._head :]

    def live(self, firsts: Sequence[int], places: Sequence[int]) -> list[int]:
        """Which of these batches, by rising first offset, are kept at these places."""
        found, at = [], self._head
        for position, (first, place) in enumerate(zip(firsts, places, strict=True)):
            at = bisect_left(self._firsts, first, at)
            if at == len(self._firsts):
                break
            if self._firsts[at] == first and self._places[at] == place:
                found.append(position)
        return found

    def move(self, moves: Sequence[tuple[int, int, int]]) -> list[int]:
        """Let batches be at new places; the new places of those that are not kept, or not there.

        ``moves`` are ``(first offset, place, new place)``, by rising first offset.
        """
        live = set(self.live([move[0] for move in moves], [move[1] for move in moves]))
        at, left = self._head, []
        for position, (first, _, new_place) in enumerate(moves):
            if position in live:
                at = bisect_left(self._firsts, first, at)
                self._places[at] = new_place
            else:
                left.append(new_place)
        return left

    def size_from(self, offset: int) -> int:
        """Bytes of the batches from the one that holds ``offset`` on."""
        if not len(self) or offset >= self.next_offset:
            return 0
        return self._end - self._bytes_before(max(self._find(offset), self._head))

    @property
    def first_timestamp(self) -> int:
        """That of the oldest batch, of which there is one."""
        return self._timestamps[self._head]

    def first_at(self, offset: int) -> int:
        """The first offset of the batch that holds ``offset``, or ``offset`` if it is to come."""
        return self._firsts[self._find(offset)] if offset < self.next_offset else offset

    def first_since(self, timestamp: int) -> int:
        """The first offset of the first batch of that time or later; else the next offset."""
        return self._first_of(bisect_left(self._timestamps, timestamp, self._head))

    def first_after(self, timestamp: int) -> int:
        """The first offset of the first batch later than that; else the next offset."""
        return self._first_of(bisect_right(self._timestamps, timestamp, self._head))

    def first_within(self, end: int, size: int) -> int:
        """Where the last batches before ``end``, where one begins, have at most ``size`` bytes.

        Walks over the batches before that place.
        """
        at, last = self._head, self._entry_at(end)
        over = self._bytes_before(last) - self._bytes_before(at) - size
        while over > 0:
            over -= self._sizes[at]
            at += 1
        return self._first_of(at)

    def first_without(self, size: int) -> int:
        """Where what is kept begins without the oldest batches that have ``size`` bytes or more.

        Walks over them. At most the next offset.
        """
        at, end = self._head, len(self._firsts)
        while at < end and size > 0:
            size -= self._sizes[at]
            at += 1
        return self._first_of(at)

    def first_from(self, offset: int) -> int:
        """The first offset of the first batch that begins there or later, or the next offset."""
        return self._first_of(bisect_left(self._firsts, offset, self._head))

    def timestamp_at(self, offset: int) -> int:
        """That of the batch that holds ``offset``, which is not below what is kept, or 0."""
        return self._timestamps[self._find(offset)] if offset < self.next_offset else 0

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
                self._sizes[at],
            )
            at += 1

    def _first_of(self, at: int) -> int:
        """The first offset of entry ``at``, which may be the next one to come."""
        return self._firsts[at] if at < len(self._firsts) else self.next_offset

    def _entry_at(self, offset: int) -> int:
        """The entry that holds ``offset``, or the next one to come."""
        return self._find(offset) if offset < self.next_offset else len(self._firsts)

    def _bytes_before(self, at: int) -> int:
        """Bytes of all batches before entry ``at``, which may be the next one to come."""
        if at == len(self._sizes):
            return self._end
        stride = at // _STRIDE
        return self._before[stride] + sum(self._sizes[stride * _STRIDE : at])

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
        assert len(self._before) == -(-len(self._sizes) // _STRIDE)
        assert self.size == sum(self._sizes[self._head :])
        timestamps = [*self._timestamps, self.timestamp]
        assert timestamps == sorted(timestamps)


def _put(column: "array[int]", values: "array[int]") -> None:
    """Append ``values``, as memory where both are of the same type."""
    same = values.typecode == column.typecode
    column.extend(values if same else array(column.typecode, values))
