"""A cold segment while it is written: batches that are moved out of others.

It gets its name when it is sealed and synced, so there is none that is not whole.
"""

import errno
from contextlib import suppress

import msgspec

from mbctl.batch import Buffer
from mbctl.files import Directory, File, is_full
from mbctl.journal.checksum import crc32c
from mbctl.journal.footer import SegmentIndex
from mbctl.journal.format import (
    BATCH,
    BOTH,
    HEAD_BYTES,
    LOST,
    MOVED,
    SEGMENT_HEAD_BYTES,
    Head,
    batch_size,
    pack_head,
    pack_segment_head,
    place_of,
    position_of,
    salt_of,
    segment_name,
    segment_of,
    unpack_head,
)
from mbctl.journal.scan import batch_head
from mbctl.journal.segment import TEMPORARY, seal
from mbctl.journal.snapshot import NoRoom
from mbctl.model import KIB, MIB

# How much is left for the last sync at most, which is one piece of work for the disk.
_UNSYNCED_BYTES = 8 * MIB
# How much is read at once; arbitrary.
_WINDOW_BYTES = 64 * KIB
# What a topic has in the footer at most, beside its batches.
TOPIC_BYTES = 48


class ColdSegment:
    """Takes in batches, one topic after the other, each by rising first offset.

    What lacks room raises NoRoom, and then it is of no use any more but to be ``discard``ed.
    Every other OSError says that the disk fails.
    """

    def __init__(self, directory: Directory, number: int, journal_id: bytes, window: int) -> None:
        self.number = number
        self.position = SEGMENT_HEAD_BYTES
        """Where the next record goes."""
        self._directory = directory
        self._journal_id = journal_id
        self._salt = salt_of(journal_id)
        self._index = SegmentIndex(1, window)
        self._file: File | None = None
        self._sources: dict[int, File] = {}
        self._window_data = memoryview(b"")
        self._window_place = 0
        self._unsynced = 0
        self._next_number = 1
        self._name = segment_name(number)

    @property
    def count(self) -> int:
        """How many batches are in it."""
        return self._index.batch_count

    def begin(self, size: int, created: int) -> None:
        """Make the file, with room for ``size`` bytes beside its ends."""
        size += SEGMENT_HEAD_BYTES + self._index.size
        try:
            with suppress(FileNotFoundError):
                self._directory.unlink(self._name + TEMPORARY)
            self._file = self._directory.create(self._name + TEMPORARY)
            self._file.allocate(size)
            self._file.write([pack_segment_head(self.number, self._journal_id, created)], 0)
        except OSError as error:
            raise _no_room(error) from error

    def copy(self, batches: list[tuple[int, int]], buffers: list[Buffer]) -> list[int | None]:
        """Take in the batches at these places, of these sizes; where they are going to be.

        What to write for that is added to ``buffers``. None for one that cannot be read: it
        stays where it is.
        """
        found: list[int | None] = []
        for place, size in batches:
            record = self._read(place, size)
            found.append(None if record is None else self._add(*record, buffers))
        return found

    def write(self, buffers: list[Buffer]) -> None:
        """Write what was taken in since the last time, and sync it where it gets much."""
        assert self._file is not None
        size = sum(memoryview(buffer).nbytes for buffer in buffers)
        try:
            self._file.write(buffers, self.position - size)
        except OSError as error:
            raise _no_room(error) from error
        self._unsynced += size
        if self._unsynced >= _UNSYNCED_BYTES:
            self._file.sync()
            self._unsynced = 0

    def _add(self, head: Head, body: Buffer, buffers: list[Buffer]) -> int:
        place = place_of(self.number, self.position)
        kind = LOST if head.kind == LOST else MOVED
        batch = batch_head(head)
        packed = pack_head(
            kind, body, self._next_number, place, salt=self._salt, **msgspec.structs.asdict(batch)
        )
        size = memoryview(body).nbytes
        # What stands for messages that were given up is as large as it is on disk.
        self._index.add_moved(batch, self.position, size if kind == MOVED else HEAD_BYTES)
        buffers += [packed, body]
        self.position += len(packed) + size
        self._next_number += 1
        return place

    def _read(self, place: int, size: int) -> tuple[Head, Buffer] | None:
        """The record of a batch, or None if it is damaged, or was deleted as all there died."""
        try:
            window = self._window_at(place, HEAD_BYTES + size)
            head = unpack_head(window[:HEAD_BYTES], self._salt)
            if head is None or head.kind not in (BATCH, BOTH, MOVED, LOST):
                return None
            if head.body_size > size:
                # There are changes after the batch.
                window = self._window_at(place, HEAD_BYTES + head.body_size)
            body = window[HEAD_BYTES : HEAD_BYTES + head.body_size]
        except OSError as error:
            if error.errno not in (errno.EIO, errno.ENOENT):
                raise
            return None
        if len(body) != head.body_size or crc32c(body) != head.body_crc:
            return None
        return head, bytes(body[: batch_size(head)])

    def _window_at(self, place: int, size: int) -> memoryview:
        """At least ``size`` bytes from ``place`` on, as far as the file goes.

        Every read is a system call, after which a thread may wait for the interpreter: so
        what lies close to what was read is read with it.
        """
        first = place - self._window_place
        if not 0 <= first <= len(self._window_data) - size:
            # Numbers of segments are the upper part of a place: none is taken for another.
            file = self._source(segment_of(place))
            try:
                data = file.read(max(size, _WINDOW_BYTES), position_of(place))
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                # The bad sector may be in what was not asked for.
                data = file.read(size, position_of(place))
            self._window_data, self._window_place, first = memoryview(data), place, 0
        return self._window_data[first:]

    def _source(self, number: int) -> File:
        file = self._sources.get(number)
        if file is None:
            file = self._sources[number] = self._directory.open(segment_name(number))
        return file

    def finish(self) -> int:
        """Seal it and give it its name; its size. It is durable when this returns."""
        assert self._file is not None
        try:
            size = seal(
                self._file,
                self.number,
                self.position,
                self._index.encode(),
                record_number=self._next_number,
                salt=self._salt,
            )
            self._directory.rename(self._name + TEMPORARY, self._name)
        except OSError as error:
            raise _no_room(error) from error
        self._directory.sync()
        self._close()
        return size

    def discard(self) -> None:
        """Let go of all of it."""
        self._close()
        with suppress(OSError):
            self._directory.unlink(self._name + TEMPORARY)

    def _close(self) -> None:
        for file in (self._file, *self._sources.values()):
            if file is not None:
                file.close()
        self._file, self._sources = None, {}


def _no_room(error: OSError) -> OSError:
    """The same, told apart if it says that there is no room."""
    return NoRoom(error.errno, error.strerror, error.filename) if is_full(error) else error
