"""The room for records: reserved on disk before it is needed.

There is the segment that is written to, and one or more made ready for when it is full. A
record is only accepted when there is room for it in one of them, so that what was accepted
cannot fail for lack of room.
"""

import threading
from collections import deque
from collections.abc import Callable

from mbctl.errors import DiskFull
from mbctl.files import Directory, is_full
from mbctl.journal.footer import SegmentIndex
from mbctl.journal.format import HEAD_BYTES, SEGMENT_HEAD_BYTES, segment_name
from mbctl.journal.segment import Segment, create_segment
from mbctl.journal.snapshot import give_up_room
from mbctl.journal.worker import Loop
from mbctl.model import KIB, MIB, NS_PER_MS

# What sends leave of a segment for acknowledgements and whatever else frees space.
_RESERVE_SHARE = 4
# Where the disk is too full for a whole segment, one this much smaller must do.
_SMALL_SHARE = 16
# On a disk that is full at the start, this must do: a part of what is kept for a snapshot.
_LEAST_BYTES = 64 * KIB
# How long a full disk is not asked again.
_RETRY_NS = 100 * NS_PER_MS
# What is left free on the disk if no bound was given: this share of it, or this much.
_FREE_SHARE = 20
_FREE_BYTES = 1024 * MIB


class Space:
    """The segments that can be written to."""

    def __init__(
        self,
        directory: Directory,
        loop: Loop,
        *,
        journal_id: bytes,
        capacity: int,
        max_bytes: int | None,
        window: int,
        taken: Callable[[], int],
    ) -> None:
        """``taken``: how many bytes of the disk records take up."""
        self._directory = directory
        self._loop = loop
        self._journal_id = journal_id
        self.capacity = capacity
        """Bytes that a segment is made with."""
        self._max_bytes = max_bytes
        self._window = window
        self._taken = taken
        self._reserve = capacity // _RESERVE_SHARE
        self._spares: deque[Segment] = deque()
        self._next_number = 1
        # Segments are made by the keeper's thread ahead of need, and here if that was late.
        self._lock = threading.Lock()
        # Until when not to ask again, for those who may use all of the disk and the others.
        self._full_until_ns = {True: 0, False: 0}
        self.active: Segment

    def open(self, empty: list[int], next_segment: int, next_record: int) -> None:
        """Take over empty segments, or make one.

        Raises:
            OSError: there is no room for a segment, or the disk fails.
        """
        self._next_number = next_segment
        for number in empty:
            file = self._directory.open(segment_name(number), writable=True)
            self._spares.append(Segment(number, file, file.size))
        if not self._spares:
            self._make_first()
        self.advance(next_record)

    def _make_first(self) -> None:
        """Make a segment, in the room that is kept for a snapshot if there is no other.

        Without one nothing could be acknowledged, and no space ever be freed.
        """
        try:
            self._make_one(0)
        except OSError as error:
            if not is_full(error):
                raise
            give_up_room(self._directory)
            self._make_one(0, min(self.capacity, _LEAST_BYTES))

    @property
    def has_spare(self) -> bool:
        """Whether the next segment is there."""
        return bool(self._spares)

    def advance(self, next_record: int) -> None:
        """Go on with the next segment, whose first record will be ``next_record``.

        Raises:
            OSError: there is none and no room to make one.
        """
        if not self._spares:
            with self._lock:
                self._make_one(0)
        self.active = self._spares.popleft()
        self.active.index = SegmentIndex(next_record, self._window)

    # --- room ---------------------------------------------------------------------------------

    def check(self, size: int, *, is_reserved: bool) -> None:
        """Refuse a record with a body of ``size`` bytes that there may be no room for.

        Raises:
            DiskFull: there is none; nothing was changed.
        """
        if is_reserved:
            need = HEAD_BYTES + size
        else:
            need = HEAD_BYTES + size + self._reserve
            if self._max_bytes is not None and self._taken() + size > self._max_bytes:
                raise DiskFull(size=self._taken(), limit=self._max_bytes)
        index = self.active.index
        assert index is not None
        growth = index.growth(size if is_reserved else 0)
        if self.active.has_room(need, growth):
            return
        capacity = SEGMENT_HEAD_BYTES + need + SegmentIndex(0, self._window).size + growth
        if self._spares and self._spares[0].capacity >= capacity:
            return
        self._make_room(capacity, may_use_all=is_reserved)

    def _make_room(self, capacity: int, *, may_use_all: bool) -> None:
        now_ns = self._loop.now_ns()
        if now_ns < self._full_until_ns[may_use_all]:
            raise DiskFull(size=self._taken(), limit=self.limit())
        try:
            with self._lock:
                if not self._spares and (may_use_all or self._may_grow(capacity)):
                    self._make_one(capacity)
                if self._spares:
                    self._spares[0].enlarge(capacity)
                    return
        except OSError as error:
            if not is_full(error):
                raise
        self._full_until_ns[may_use_all] = now_ns + _RETRY_NS
        raise DiskFull(size=self._taken(), limit=self.limit())

    def limit(self) -> int:
        """How many bytes may be taken in all."""
        if self._max_bytes is not None:
            return self._max_bytes
        free, total = self._directory.free()
        return self._taken() + max(0, free - _kept_free(total))

    def _may_grow(self, capacity: int) -> bool:
        """Whether the disk has more free than is to be left, by another segment."""
        free, total = self._directory.free()
        # To free space takes some, if what is alive has to be moved for it.
        kept = _kept_free(total) if self._max_bytes is None else self.capacity // 2
        return free - max(capacity, self.capacity) >= kept

    def to_copy(self) -> int:
        """About how many bytes may be copied at once to free others.

        Where all are bounded that is half a segment more than may be taken: to free space
        takes some.
        """
        if self._max_bytes is None:
            return self.capacity
        return min(self.capacity, max(0, self._max_bytes - self._taken()) + self.capacity // 2)

    def may_copy(self, size: int) -> bool:
        """Whether ``size`` bytes leave what the next segment makes do with.

        Without that nothing could be acknowledged.
        """
        return self._directory.free()[0] >= size + self.capacity // _SMALL_SHARE

    def _make_one(self, least: int, usual: int | None = None) -> None:
        """Make a segment of the ``usual`` capacity, and of ``least`` at least."""
        wanted = max(least, usual or self.capacity)
        created = self._loop.wall_ns()

        def make(size: int) -> Segment:
            number = self._next_number
            return create_segment(self._directory, number, size, self._journal_id, created)

        try:
            segment = make(wanted)
        except OSError as error:
            small = max(least, wanted // _SMALL_SHARE)
            if not is_full(error) or small == wanted:
                raise
            segment = make(small)
        self._next_number += 1
        self._spares.append(segment)

    def prepare(self, *, may_use_all: bool = False) -> None:
        """Have a segment ready before it is needed, if there is room. For the keeper's thread."""
        with self._lock:
            if not self._spares and (may_use_all or self._may_grow(0)):
                try:
                    self._make_one(0)
                except OSError as error:
                    if not is_full(error):
                        raise

    def close(self) -> None:
        """Close the files of all segments that can be written to."""
        for segment in (self.active, *self._spares):
            segment.file.close()


def _kept_free(total: int) -> int:
    share: int = total // _FREE_SHARE
    return max(_FREE_BYTES, share)
