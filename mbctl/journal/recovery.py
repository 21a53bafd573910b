"""Opens a journal: what it held, and every file of it sealed, whatever happened before.

The rules, which docs/storage-format.md explains:

- nothing is written before all that is there was understood;
- a torn tail, never acknowledged, is cut off and kept in ``lost+found``;
- damage to what was durable is an error, but for the body of a batch, which is reported
  to whoever reads it;
- what a killed process left unsealed is written anew, because it may be in the system's
  cache only: the process could have been ended by a failed sync.

All of it can be interrupted anywhere and begun again.
"""

import errno
import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import msgspec

from mbctl.errors import StorageCorrupt
from mbctl.files import Directory, File, is_full
from mbctl.journal.census import BATCH_BYTES
from mbctl.journal.footer import SegmentIndex
from mbctl.journal.format import (
    COLD_NUMBER,
    HEAD_BYTES,
    SEGMENT_HEAD_BYTES,
    is_cold,
    place_of,
    position_of,
    salt_of,
    segment_name,
    unpack_head,
)
from mbctl.journal.records import Recovered, RecoveredTopic, SessionState
from mbctl.journal.runs import Runs, runs_of
from mbctl.journal.scan import Scan, scan
from mbctl.journal.segment import TEMPORARY, check_head, corrupt, read_footer, seal
from mbctl.journal.snapshot import NEXT_NAME, Snapshot, give_up_room, read_snapshot
from mbctl.journal.state import TopicState

LOST_AND_FOUND = "lost+found"
_SEGMENT_NAME = re.compile(r"(\d{10})\.segment")
_COLD_NAME = re.compile(r"(\d{10})\.cold")

Progress = Callable[[str], None]


class Opened(msgspec.Struct, frozen=True):
    """A journal that is ready to go on."""

    recovered: Recovered
    snapshot: Snapshot
    live: dict[int, int]
    """By number of a sealed segment, how many of its batches may still be needed."""
    batches: dict[int, tuple[int, int]]
    """By number of a sealed segment, how many batches it has, and bytes of their records."""
    sizes: dict[int, int]
    """By number of a sealed segment, its length."""
    empty: list[int]
    """The segments that are there to be written to, by rising number."""
    next_number: int
    """The number of the next record."""
    clock_ns: int
    """How old the journal is, in nanoseconds of its life."""
    state_size: int
    """Bytes that the next snapshot may be larger by, at most."""


class _Found(msgspec.Struct):
    """A segment with records: what is in it, and how it was scanned if it is not sealed."""

    number: int
    index: SegmentIndex
    end: int
    """Where its records end."""
    next_number: int
    """The record number that follows them."""
    size: int
    scanned: Scan | None = None

    @property
    def end_place(self) -> int:
        """Where its records end, as a place."""
        return place_of(self.number, self.end)

    @property
    def durable(self) -> int:
        """Up to where it proves that all was durable.

        That is its end, if it is sealed; else what its marks say, and the segments before
        it, because one is sealed before the next is written to.
        """
        if self.scanned is None:
            return self.end_place
        begun = 0 if self.scanned.is_empty else place_of(self.number, 0)
        return max(begun, self.scanned.mark)


def recover(directory: Directory, journal_id: bytes, *, window: int, progress: Progress) -> Opened:
    """Understand what is in ``directory`` and make it whole.

    ``progress`` is told in words what was found that is out of the ordinary.

    Raises:
        StorageCorrupt: what was acknowledged is damaged or missing; nothing was changed.
        NewerFormat: a newer mbctl wrote it; nothing was changed.
    """
    snapshot = read_snapshot(directory, journal_id, window)
    numbers = segment_numbers(directory)
    _check_none_missing(directory, numbers, snapshot.segment)
    kept, empty = _understand(directory, numbers, journal_id, snapshot, window)
    _check_no_cut_but_last(directory, kept)
    state = snapshot.state
    covers = snapshot.segment
    last = kept[-1] if kept else None
    state_size = sum(one.index.state_size for one in kept if one.number >= covers)
    for segment in kept:
        if segment.number >= snapshot.segment:
            if segment.scanned is not None:
                # When these were used is not in their records: not before all known ones.
                for sends in segment.index.sessions.values():
                    sends.used_ns = state.clock_ns
            state.add_segment(segment.index)
            if segment.scanned is None and segment is not last:
                # There can be many; they are not needed twice.
                segment.index.forget()
    kept += _cold_segments(directory, journal_id, window)
    runs = runs_of(state, [(segment.number, segment.index) for segment in kept])
    for topic in state.topics.values():
        _check_whole(directory, topic, runs[topic.topic_id])
    if last is not None and last.scanned is not None and last.scanned.rest:
        _cut(directory, last, progress)
    for segment in kept:
        if segment.scanned is not None:
            name = segment_name(segment.number)
            for place in segment.scanned.damaged:
                progress(f"the batch at byte {position_of(place)} of {name} is damaged")
        is_last = segment is last and segment.number >= snapshot.segment
        if segment.scanned is not None or is_last:
            # The last may have its footer in the system's cache only: nothing was written
            # after it that would prove more.
            segment.size = _seal_anew(directory, segment, salt_of(journal_id))
    _delete_temporary(directory)
    # Also what the process before has renamed is to be used from here on.
    directory.sync()
    live: Counter[int] = Counter()
    for of_topic in runs.values():
        live.update(of_topic.live())
    return Opened(
        Recovered(
            state.next_topic_id,
            [_recovered(topic, runs[topic.topic_id]) for topic in state.topics.values()],
            [SessionState(key, list(sends.answers)) for key, sends in state.sessions.items()],
        ),
        snapshot,
        live,
        {segment.number: _batches_of(segment.index) for segment in kept},
        {segment.number: segment.size for segment in kept},
        empty,
        snapshot.next_number if last is None else max(snapshot.next_number, last.next_number),
        state.clock_ns,
        state_size,
    )


def segment_numbers(directory: Directory) -> list[int]:
    """The numbers of the segments in ``directory`` that batches were appended to."""
    matches = map(_SEGMENT_NAME.fullmatch, directory.names())
    return [int(match[1]) for match in matches if match]


def cold_numbers(directory: Directory) -> list[int]:
    """The numbers of the cold segments in ``directory``."""
    matches = map(_COLD_NAME.fullmatch, directory.names())
    return [COLD_NUMBER + int(match[1]) for match in matches if match]


# --- understanding ------------------------------------------------------------------------


def _check_none_missing(directory: Directory, numbers: list[int], first: int) -> None:
    """Refuse a gap in what is to be replayed; what is before it may have been deleted."""
    there = {number for number in numbers if number >= first}
    for number in range(first, max(there, default=first) + 1):
        if number not in there:
            raise StorageCorrupt(
                path=str(directory.path / segment_name(number)), position=0, reason="it is missing"
            )


def _understand(
    directory: Directory, numbers: list[int], journal_id: bytes, snapshot: Snapshot, window: int
) -> tuple[list[_Found], list[int]]:
    """The segments that have records, and those that have none yet."""
    durable = place_of(snapshot.segment, 0)
    while True:
        found: list[_Found] = []
        expected = None
        for number in numbers:
            if number == snapshot.segment:
                expected = snapshot.next_number
            look = partial(_look_at, directory, number, journal_id, window=window)
            found.append(look(expected=expected, durable=durable))
            if number < snapshot.segment:
                # All but its batches is in the snapshot.
                found[-1].index.forget()
            if expected is not None:
                expected = found[-1].next_number
        highest = max((segment.durable for segment in found), default=0)
        if highest <= durable or all(
            segment.scanned is None or segment.end_place >= highest for segment in found
        ):
            break
        # Something ends before what was durable: look again, knowing that.
        durable = highest
    empty = []
    while found and found[-1].scanned is not None and found[-1].scanned.is_empty:
        empty.append(found.pop().number)
    return found, empty[::-1]


def _look_at(
    directory: Directory,
    number: int,
    journal_id: bytes,
    *,
    expected: int | None,
    window: int,
    durable: int,
) -> _Found:
    """What is in one segment, whose first record should have the number ``expected``."""
    file = directory.open(segment_name(number))
    try:
        check_head(file, number, journal_id)
        sealed = read_footer(file, number, journal_id, window)
        if sealed is None:
            scanned = scan(
                file,
                number,
                expected,
                journal_id=journal_id,
                window=window,
                durable=durable,
                complete_at=None
                if is_cold(number)
                else _first_number(directory, number + 1, journal_id, window),
            )
            return _Found(number, scanned.index, scanned.end, scanned.next_number, 0, scanned)
        index, end, next_number = sealed
        if expected is not None and index.first_number != expected:
            raise corrupt(
                file, 0, f"record {expected} is missing, it begins with {index.first_number}"
            )
        return _Found(number, index, end, next_number, file.size)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise corrupt(file, 0, "the disk cannot read it") from error
    finally:
        file.close()


def _first_number(directory: Directory, number: int, journal_id: bytes, window: int) -> int | None:
    """The number of the first record of a segment, if it is there and has one."""
    try:
        file = directory.open(segment_name(number))
    except FileNotFoundError:
        return None
    try:
        check_head(file, number, journal_id)
        sealed = read_footer(file, number, journal_id, window)
        if sealed is not None:
            return sealed[0].first_number
        head = unpack_head(file.read(HEAD_BYTES, SEGMENT_HEAD_BYTES), salt_of(journal_id))
        return None if head is None else head.number
    finally:
        file.close()


def _cold_segments(directory: Directory, journal_id: bytes, window: int) -> list[_Found]:
    """What was moved. All of it was durable before it had its name."""
    return [
        _look_at(
            directory,
            number,
            journal_id,
            expected=None,
            window=window,
            durable=place_of(number + 1, 0),
        )
        for number in cold_numbers(directory)
    ]


def _check_no_cut_but_last(directory: Directory, found: list[_Found]) -> None:
    """Refuse a torn segment before others: one is sealed before the next is written to."""
    for segment in found[:-1]:
        if segment.scanned is not None and segment.scanned.rest:
            path = str(directory.path / segment_name(segment.number))
            raise StorageCorrupt(path=path, position=segment.end, reason=segment.scanned.reason)


def _check_whole(directory: Directory, topic: TopicState, runs: Runs) -> None:
    """Refuse a topic that misses messages nobody gave up."""
    at = runs.missing_from(topic.next_offset)
    if at is not None:
        raise StorageCorrupt(
            path=str(directory.path),
            position=0,
            reason=f"messages of topic {topic.name!r} are missing from offset {at} on",
        )


def _batches_of(index: SegmentIndex) -> tuple[int, int]:
    size = sum(sum(columns.sizes) for columns in index.topics.values())
    return index.batch_count, size + index.batch_count * BATCH_BYTES


def _recovered(topic: TopicState, runs: Runs) -> RecoveredTopic:
    return RecoveredTopic(
        topic.topic_id,
        topic.name,
        topic.settings,
        topic.created,
        topic.first_offset,
        topic.next_offset,
        topic.timestamp,
        runs.runs,
        topic.subscriptions(),
    )


def _delete_temporary(directory: Directory) -> None:
    """Delete the files that something was interrupted in making."""
    for name in directory.names():
        if name.endswith(TEMPORARY) and name != NEXT_NAME:
            directory.unlink(name)


# --- mending ------------------------------------------------------------------------------


def _cut(directory: Directory, last: _Found, progress: Progress) -> None:
    """Put away what follows the end of ``last``: torn, and never acknowledged."""
    scanned = last.scanned
    assert scanned is not None
    lost = Directory(directory.disk, directory.path / LOST_AND_FOUND)
    name = f"{segment_name(last.number)}.from-{last.next_number}"
    try:
        lost.make()
        _keep(lost, name, scanned.rest)
    except OSError as error:
        if not is_full(error):
            raise
        give_up_room(directory)
        lost.make()
        _keep(lost, name, scanned.rest)
    progress(
        f"cut {len(scanned.rest)} bytes that were never acknowledged off "
        f"{segment_name(last.number)} at byte {last.end}: {scanned.reason}; "
        f"they are kept in {lost.path}"
    )


def _keep(lost: Directory, name: str, data: bytes) -> None:
    with suppress(FileNotFoundError):
        lost.unlink(name)
    file = lost.create(name)
    try:
        file.write([data], 0)
        file.sync_all()
    finally:
        file.close()
    lost.sync()


def _seal_anew(directory: Directory, segment: _Found, salt: int) -> int:
    """Write the records of an unsealed segment again and seal it; its size."""
    name = segment_name(segment.number)
    file = directory.open(name, writable=True)
    try:
        records = file.read(segment.end, 0)
        try:
            return _seal_copy(directory, segment, records, salt)
        except OSError as error:
            if not is_full(error):
                raise
        # No room for a copy. The same bytes in the same place are as good: they are written
        # again from here, whatever the system had made of them.
        file.write([records], 0)
        file.sync_all()
        return _seal_at_end(file, segment, salt)
    finally:
        file.close()


def _seal_copy(directory: Directory, segment: _Found, records: bytes, salt: int) -> int:
    name = segment_name(segment.number)
    temporary = name + TEMPORARY
    with suppress(FileNotFoundError):
        directory.unlink(temporary)
    copy = directory.create(temporary)
    try:
        copy.write([records], 0)
        copy.sync_all()
        size = _seal_at_end(copy, segment, salt)
        directory.rename(temporary, name)
        directory.sync()
    except OSError:
        with suppress(OSError):
            directory.unlink(temporary)
        raise
    finally:
        copy.close()
    return size


def _seal_at_end(file: File, segment: _Found, salt: int) -> int:
    return seal(
        file,
        segment.number,
        segment.end,
        segment.index.encode(),
        record_number=segment.next_number,
        salt=salt,
    )
