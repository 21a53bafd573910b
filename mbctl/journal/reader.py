"""Reads batches: the newest from memory, the others from disk in a thread of their own.

A reply of many batches is read a piece at a time, and between the pieces others get their
turn: who reads an old backlog does not make those wait who read what is new.
"""

import errno
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import cast

from mbctl.batch import Buffer
from mbctl.files import Directory, File
from mbctl.journal.checksum import crc32c
from mbctl.journal.format import (
    BATCH,
    BOTH,
    HEAD_BYTES,
    LOST,
    MOVED,
    batch_size,
    position_of,
    segment_name,
    segment_of,
    unpack_head,
)
from mbctl.journal.records import Damaged
from mbctl.journal.worker import Worker
from mbctl.model import KIB, MIB

# The most that is read for one reply before another gets its turn.
_TURN_BYTES = MIB
# What is read at least: most batches are smaller.
_AHEAD_MIN_BYTES = 16 * KIB
# Segments kept open to be read.
_OPEN_MAX = 32

# How much less is kept in memory while nobody reads; arbitrary.
_UNREAD_SHARE = 4

Bodies = list[Buffer | Damaged]
Done = Callable[[Bodies], None]


class Tail:
    """The batches appended last, in memory: all that are not written yet, and some more.

    Of what is written ``max_bytes`` are kept while it is read: who reads what is new, and falls a
    little behind, costs less from here than from disk. While nobody reads it is a part of that.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        # Of a plain dict, to find the first after many have gone is to pass over all of them.
        self._unwritten: OrderedDict[int, Buffer] = OrderedDict()
        self._written: OrderedDict[int, Buffer] = OrderedDict()
        self._written_bytes = 0
        self._bytes_since_read = 0

    def get(self, place: int) -> Buffer | None:
        """The batch at ``place``, if it is here."""
        self._bytes_since_read = 0
        return self._written.get(place) or self._unwritten.get(place)

    def add(self, place: int, batch: Buffer) -> None:
        """Keep a batch that is not written yet."""
        self._unwritten[place] = batch

    def wrote_to(self, place: int) -> None:
        """Note that all below ``place`` is written; the oldest of that are given up."""
        unwritten, written = self._unwritten, self._written
        # What is written now could not be read before.
        unread_max = self._max_bytes // _UNREAD_SHARE
        limit = self._max_bytes if self._bytes_since_read <= unread_max else unread_max
        while unwritten and (first := next(iter(unwritten))) < place:
            batch = written[first] = unwritten.pop(first)
            size = memoryview(batch).nbytes
            self._written_bytes += size
            self._bytes_since_read += size
        while self._written_bytes > limit:
            self._written_bytes -= memoryview(written.popitem(last=False)[1]).nbytes

    def remove(self, place: int) -> None:
        """Let go of a batch that nobody will read."""
        batch = self._written.pop(place, None)
        if batch is not None:
            self._written_bytes -= memoryview(batch).nbytes


class _Read:
    """One request for batches that are on disk, some of which may have been read."""

    __slots__ = ("at", "bodies", "done", "missing", "number")

    def __init__(self, number: int, bodies: list[Buffer | Damaged | None], done: Done) -> None:
        self.number = number
        self.bodies = bodies
        self.done = done
        self.missing: list[tuple[int, int]] = []
        """By rising place: the place, and where in ``bodies`` its batch goes."""
        self.at = 0


class Reader:
    """Reads batches by their places."""

    def __init__(
        self,
        directory: Directory,
        tail: Tail,
        worker: Worker,
        failed: Callable[[Exception], None],
        *,
        salt: int,
    ) -> None:
        self._directory = directory
        self._tail = tail
        self._worker = worker
        self._failed = failed
        self._salt = salt
        self._reads: dict[int, _Read] = {}
        self._next_read = 1
        self._waiting: list[tuple[int, Callable[[], None]]] = []
        # Used by the worker's jobs only.
        self._open: OrderedDict[int, File] = OrderedDict()

    def read(self, places: Sequence[int], done: Done) -> None:
        """Call ``done`` with the batches at ``places``, at once if all are in memory."""
        bodies: list[Buffer | Damaged | None] = [self._tail.get(place) for place in places]
        if None not in bodies:
            done([body for body in bodies if body is not None])
            return
        read = _Read(self._next_read, bodies, done)
        self._next_read += 1
        missing = [(place, at) for at, place in enumerate(places) if bodies[at] is None]
        read.missing = sorted(missing)
        self._reads[read.number] = read
        self._go_on(read, None)

    def _go_on(self, read: _Read, outcome: Exception | None) -> None:
        if isinstance(outcome, Exception):
            self._failed(outcome)
        elif read.at < len(read.missing):
            self._worker.submit(partial(self._read_some, read), partial(self._go_on, read))
        else:
            del self._reads[read.number]
            self._call_waiting()
            read.done([body for body in read.bodies if body is not None])

    def after_reads(self, call: Callable[[], None]) -> None:
        """Call when all reads that are under way now have been answered."""
        self._waiting.append((self._next_read, call))
        self._call_waiting()

    def _call_waiting(self) -> None:
        oldest = next(iter(self._reads), self._next_read)
        while self._waiting and self._waiting[0][0] <= oldest:
            self._waiting.pop(0)[1]()

    def forget(self, numbers: Iterable[int]) -> None:
        """Close segments that are going to be deleted. For the worker."""
        for number in numbers:
            file = self._open.pop(number, None)
            if file is not None:
                file.close()

    def close(self) -> None:
        """Close all files. For the worker."""
        self.forget(list(self._open))

    # --- in the worker ------------------------------------------------------------------------

    def _read_some(self, read: _Read) -> None:
        """Read some of what is missing, up to the bound."""
        window = _Window(self._salt, read.bodies)
        while read.at < len(read.missing) and window.taken < _TURN_BYTES:
            place, at = read.missing[read.at]
            window.put(at, self._file(segment_of(place)), place)
            read.at += 1
        window.let_go()

    def _file(self, number: int) -> File:
        file = self._open.get(number)
        if file is None:
            file = self._open[number] = self._directory.open(segment_name(number))
            if len(self._open) > _OPEN_MAX:
                self._open.popitem(last=False)[1].close()
        else:
            self._open.move_to_end(number)
        return file


class _Window:
    """The part of a segment that was read last, which the next batch may be in too.

    It is small at first and twice as large for each batch that follows soon on the one
    before: a backlog that lies in one piece is read in large ones, and one that is
    scattered between other topics' is not read for nothing.
    """

    def __init__(self, salt: int, bodies: list[Buffer | Damaged | None]) -> None:
        self._salt = salt
        self._bodies = bodies
        self._file: File | None = None
        self._data = memoryview(b"")
        self._first = 0
        self._ahead = _AHEAD_MIN_BYTES
        self._end = 0
        """Where the record ended that was read last."""
        self._parts: list[int] = []
        """Which of the bodies are parts of the data."""
        self.taken = 0
        """Bytes that were read in all."""

    def put(self, at: int, file: File, place: int) -> None:
        """Let the batch at ``place``, which is in ``file``, be that body."""
        try:
            self._bodies[at] = self._body(at, file, position_of(place))
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            # A bad sector is damage like any other: it costs what is in it.
            self._bodies[at] = Damaged(f"{file.path} cannot be read at byte {position_of(place)}")

    def _body(self, at: int, file: File, position: int) -> Buffer | Damaged:
        head = unpack_head(self._at(file, position, HEAD_BYTES), self._salt)
        if head is not None and head.kind == LOST:
            return Damaged(f"it was given up when {file.path.parent} was repaired")
        if head is None or head.kind not in (BATCH, BOTH, MOVED):
            return Damaged(f"{file.path} has no readable batch at byte {position}")
        body = self._at(file, position + HEAD_BYTES, head.body_size)
        if crc32c(body) != head.body_crc:
            return Damaged(f"{file.path} has a wrong checksum at byte {position}")
        self._end = position + HEAD_BYTES + head.body_size
        self._parts.append(at)
        return body[: batch_size(head)]

    def let_go(self) -> None:
        """Copy what is wanted of the data if it is a small part, which would keep all of it."""
        parts = [memoryview(cast("Buffer", self._bodies[at])) for at in self._parts]
        if 2 * sum(part.nbytes for part in parts) < len(self._data):
            for at, part in zip(self._parts, parts, strict=True):
                self._bodies[at] = bytes(part)
        self._parts.clear()

    def _at(self, file: File, position: int, size: int) -> memoryview:
        """``size`` bytes at ``position``, as far as the file goes."""
        first = position - self._first
        if file is not self._file or first < 0 or first + size > len(self._data):
            is_near = file is self._file and 0 <= position - self._end <= self._ahead
            self._ahead = min(2 * self._ahead, _TURN_BYTES) if is_near else _AHEAD_MIN_BYTES
            self.let_go()
            self._data = memoryview(self._read(file, size, position))
            self.taken += len(self._data)
            self._file, self._first, first = file, position, 0
        return self._data[first : first + size]

    def _read(self, file: File, size: int, position: int) -> bytes:
        try:
            return file.read(max(size, self._ahead), position)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            # The bad sector may be in what was not asked for.
            return file.read(size, position)
