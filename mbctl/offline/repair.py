"""Makes of a damaged directory one that is served, with all of it that can be read.

What is whole stays as it is. What is not is written anew in a directory beside it. When
all of that is on disk, renaming the directory decides it; from then on whoever is killed is
followed by one who goes on. What was replaced is kept. docs/storage-format.md has the steps.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgspec

from mbctl.files import Directory
from mbctl.journal.directory import (
    FORMAT_NAME,
    REPAIRED_NAME,
    REPAIRING_NAME,
    hold,
    write_format,
)
from mbctl.journal.disk import JournalOptions
from mbctl.journal.footer import SegmentIndex
from mbctl.journal.format import (
    BATCH,
    CHANGES,
    HEAD_BYTES,
    LOST,
    MOVED,
    SEGMENT_HEAD_BYTES,
    batch_size,
    is_cold,
    pack_head,
    place_of,
    salt_of,
    segment_name,
)
from mbctl.journal.records import NO_SESSION, BatchHead
from mbctl.journal.recovery import LOST_AND_FOUND
from mbctl.journal.scan import batch_head
from mbctl.journal.segment import Segment, create_segment, seal
from mbctl.journal.snapshot import SNAPSHOT_NAME, NoRoom, give_up_room, write_snapshot
from mbctl.offline.examine import WINDOW, Examined, Progress, check_is_one, examine
from mbctl.offline.rebuild import Lost, Plan
from mbctl.offline.report import Report
from mbctl.offline.salvage import BATCHES, Found, Salvaged, walk

REPORT_NAME = "report.json"
_NEW = ".new"
_KEPT = re.compile(r"before-repair-(\d+)")


def verify(directory: Directory, progress: Progress = lambda done, total: None) -> Report:
    """Read all that is in a directory and say what is wrong; nothing is changed.

    ``progress`` is told how many bytes were read, of how many.

    Raises:
        ServerError: a server uses it.
        InvalidArgument: it is no data directory.
        NewerFormat: a newer mbctl wrote it.
        StorageCorrupt: nothing tells which journal its files are of.
        OSError: the disk fails, or it is not there.
    """
    lock = hold(directory, is_read_only=True)
    try:
        return examine(directory, progress).report
    finally:
        if lock is not None:
            lock.close()


def repair(
    directory: Directory,
    progress: Progress = lambda done, total: None,
    *,
    created: int,
    segment_bytes: int = JournalOptions().segment_bytes,
) -> Report:
    """Give up what is damaged and keep the rest; it is durable when this returns.

    ``created`` is now, for the heads of new files, and ``segment_bytes`` the size of one that
    is made to be written to. A directory that is whole is left alone. ``progress`` is told how
    many bytes were read, of how many.

    Raises:
        ServerError: a server uses it, or it is somebody else's.
        InvalidArgument: it is no data directory.
        NewerFormat: a newer mbctl wrote it; nothing was changed.
        StorageCorrupt: nothing tells which journal its files are of; nothing was changed.
        OSError: the disk fails or has no room; to repeat it goes on.
    """
    names = directory.names()
    if REPAIRED_NAME not in names:
        # Before there is a file to lock: what is no data directory stays as it is.
        check_is_one(directory, names)
    lock = hold(directory, is_read_only=False)
    assert lock is not None
    try:
        if REPAIRED_NAME in directory.names():
            return _complete(directory)
        examined = examine(directory, progress)
        if examined.report.is_whole:
            return examined.report
        try:
            _write_all(directory, examined, created, segment_bytes)
        except OSError:
            # It may have been for lack of room: what is of no use gives it back.
            with suppress(OSError):
                _clear(_place(directory))
            raise
        return _complete(directory)
    finally:
        lock.close()


# --- writing what is new --------------------------------------------------------------------


def _write_all(directory: Directory, examined: Examined, created: int, segment_bytes: int) -> None:
    """Write all new files beside the old ones, and decide that they take their places."""
    work = _place(directory)
    work.make()
    _clear(work)
    new = _write_segments(directory, work, examined, created)
    cold = _write_cold(directory, work, examined, created)
    rebuilt = examined.rebuilt
    assert rebuilt is not None
    kept = _usable(examined, new)
    if not kept:
        # Replay begins with a segment that must be there.
        last = max([segment.number for segment in examined.segments] + new, default=0)
        empty = create_segment(work, last + 1, segment_bytes, examined.journal_id, created)
        empty.file.close()
        kept, new = [last + 1], [*new, last + 1]
    first = min(kept)
    try:
        write_snapshot(work, rebuilt.state, first, examined.next_number, examined.journal_id)
    except NoRoom as error:
        reason = os.strerror(errno.ENOSPC)
        raise OSError(errno.ENOSPC, reason, str(directory.path)) from error
    # The room for the next one is where it always is.
    give_up_room(work)
    names = [*map(segment_name, [*new, *cold]), SNAPSHOT_NAME]
    if not examined.is_format_whole:
        write_format(work, examined.journal_id)
        names.append(FORMAT_NAME)
    for name in names:
        work.rename(name, name + _NEW)
    report = examined.report
    there = directory.names()
    report.put_away = sorted({name for name in [*names, *report.put_away] if name in there})
    file = work.create(REPORT_NAME)
    try:
        file.write([msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"], 0)
        file.sync_all()
    finally:
        file.close()
    work.sync()
    directory.rename(REPAIRING_NAME, REPAIRED_NAME)
    directory.sync()


def _place(directory: Directory) -> Directory:
    """Where the new files are written."""
    return Directory(directory.disk, directory.path / REPAIRING_NAME)


def _clear(work: Directory) -> None:
    """Remove what a repair has left there that did not come to an end."""
    for name in work.names():
        work.unlink(name)


def _usable(examined: Examined, new: list[int]) -> list[int]:
    """The empty segments that can stay: those that follow each other. Others are put away."""
    kept: list[int] = []
    for number in examined.empty:
        if number in new:
            continue
        if not kept or number == kept[-1] + 1:
            kept.append(number)
        else:
            examined.report.put_away.append(segment_name(number))
    return kept


def _write_segments(
    directory: Directory, work: Directory, examined: Examined, created: int
) -> list[int]:
    """Write the segments that are not as they should be; their numbers."""
    rebuilt = examined.rebuilt
    assert rebuilt is not None
    numbers = []
    segments = examined.segments
    for segment in segments:
        is_last = segment is segments[-1]
        if not examined.must_be_written(segment) and not (is_last and rebuilt.at_end):
            continue
        writer = _Writer(work, examined, segment.number, segment.index.first_number, created)
        writer.copy(directory, segment)
        if is_last:
            writer.add_lost(rebuilt.at_end)
        examined.next_number = max(examined.next_number, writer.finish())
        numbers.append(segment.number)
    if not segments and rebuilt.at_end:
        number = min(examined.empty, default=1)
        writer = _Writer(work, examined, number, examined.next_number, created)
        writer.add_lost(rebuilt.at_end)
        examined.next_number = max(examined.next_number, writer.finish())
        numbers.append(number)
    return numbers


def _write_cold(
    directory: Directory, work: Directory, examined: Examined, created: int
) -> list[int]:
    """Write the cold segments that are not as they should be; the numbers of those left."""
    numbers = []
    for segment in examined.cold:
        if not examined.must_be_written(segment):
            continue
        writer = _Writer(work, examined, segment.number, segment.index.first_number, created)
        writer.copy(directory, segment)
        if writer.is_empty:
            writer.discard()
            examined.report.put_away.append(segment.file)
        else:
            writer.finish()
            numbers.append(segment.number)
    return numbers


class _Writer:
    """Writes one segment anew and seals it."""

    def __init__(
        self, work: Directory, examined: Examined, number: int, first_number: int, created: int
    ) -> None:
        self._examined = examined
        self._work = work
        self._number = number
        self._next_number = first_number
        self._salt = salt_of(examined.journal_id)
        self._index = SegmentIndex(first_number, WINDOW)
        self._segment: Segment = create_segment(
            work, number, SEGMENT_HEAD_BYTES, examined.journal_id, created
        )

    def copy(self, directory: Directory, segment: Salvaged) -> None:
        """Write what can be read of a segment and is needed, and what is missing in it."""
        rebuilt = self._examined.rebuilt
        assert rebuilt is not None
        for body in segment.index.changes:
            self._write(CHANGES, body)
            self._index.add_changes(body)
        plan = rebuilt.plans.get(segment.number, Plan({}, [], {}))
        for found in self._needed(directory, segment, plan):
            self.add_lost(plan.before.get(found.position, []))
            self._add(found, segment.index)
        self.add_lost(plan.at_end)

    def _needed(self, directory: Directory, segment: Salvaged, plan: Plan) -> Iterator[Found]:
        """The batches of a segment that are whole and that somebody may need."""
        assert self._examined.rebuilt is not None
        topics = self._examined.rebuilt.state.topics
        file = directory.open(segment.file)
        try:
            data = file.read_data()
        finally:
            file.close()
        floor = segment.index.first_number
        for found in walk(data[: segment.limit], self._salt, floor, number=segment.number):
            if not isinstance(found, Found) or found.wrong:
                continue
            if found.head.kind not in (*BATCHES, LOST):
                continue
            head = found.head
            topic = topics.get(head.topic_id)
            is_needed = topic is not None and head.first_offset + head.count > topic.first_offset
            if is_needed and head.first_offset >= plan.floors.get(head.topic_id, 0):
                yield found

    def _add(self, found: Found, index: SegmentIndex) -> None:
        head = found.head
        if head.kind == LOST:
            self.add_lost([Lost(head.topic_id, head.first_offset, head.count, head.timestamp)])
            return
        batch, size = batch_head(head), batch_size(head)
        # The changes that came with it are among the others.
        kind = MOVED if is_cold(self._number) else BATCH
        position = self._write(kind, found.body[:size], **msgspec.structs.asdict(batch))
        if kind == MOVED:
            self._index.add_moved(batch, position, size)
            return
        sends = index.sessions.get(head.session)
        used_ns = 0 if sends is None else sends.used_ns
        self._index.add_batch(batch, position, size, used_ns)

    def add_lost(self, records: list[Lost]) -> None:
        """Write what stands for messages that are given up."""
        for lost in records:
            position = self._write(
                LOST,
                b"",
                count=lost.count,
                topic_id=lost.topic_id,
                first_offset=lost.first,
                timestamp=lost.timestamp,
            )
            self._note_lost(lost, position)

    def _note_lost(self, lost: Lost, position: int) -> None:
        if is_cold(self._number):
            head = BatchHead(lost.topic_id, lost.first, lost.count, lost.timestamp, NO_SESSION, 0)
            self._index.add_moved(head, position, HEAD_BYTES)
        else:
            self._index.add_lost(lost.topic_id, lost.first, lost.count, lost.timestamp, position)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was written yet."""
        return self._index.batch_count == 0

    def discard(self) -> None:
        """Leave no file."""
        self._segment.file.close()
        self._work.unlink(segment_name(self._number))

    def _write(self, kind: int, body: bytes | memoryview, **fields: Any) -> int:
        """Write a record; its position."""
        segment = self._segment
        position = segment.position
        mark = place_of(self._number, position)
        head = pack_head(kind, body, self._next_number, mark, salt=self._salt, **fields)
        segment.file.write([head, body], position)
        segment.position += len(head) + len(body)
        self._next_number += 1
        return position

    def finish(self) -> int:
        """Seal it; the number of the record that follows. It is durable when this returns."""
        segment = self._segment
        segment.file.sync()
        seal(
            segment.file,
            self._number,
            segment.position,
            self._index.encode(),
            record_number=self._next_number,
            salt=self._salt,
        )
        segment.file.close()
        return self._next_number


# --- putting it in place --------------------------------------------------------------------


def _complete(directory: Directory) -> Report:
    """Put the new files in place of the old, from wherever that was interrupted."""
    work = Directory(directory.disk, directory.path / REPAIRED_NAME)
    report = _read_report(work)
    there, moved = set(directory.names()), set(work.names())
    for name in report.put_away:
        # One that was moved before may have its new one in its place already.
        if name in there - moved:
            directory.rename(name, f"{REPAIRED_NAME}/{name}")
    work.sync()
    directory.sync()
    for name in moved:
        if name.endswith(_NEW):
            directory.rename(f"{REPAIRED_NAME}/{name}", name.removesuffix(_NEW))
    directory.sync()
    work.sync()
    lost = Directory(directory.disk, directory.path / LOST_AND_FOUND)
    lost.make()
    numbers = [int(match[1]) for match in map(_KEPT.fullmatch, lost.names()) if match]
    report.kept_in = f"{LOST_AND_FOUND}/before-repair-{max(numbers, default=0) + 1}"
    directory.rename(REPAIRED_NAME, report.kept_in)
    lost.sync()
    directory.sync()
    return report


def _read_report(work: Directory) -> Report:
    file = work.open(REPORT_NAME)
    try:
        return msgspec.json.decode(file.read(file.size, 0), type=Report)
    finally:
        file.close()
