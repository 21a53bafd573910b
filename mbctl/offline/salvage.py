"""Reads all of one segment that can be read, whatever has become of the rest.

Where a record is not readable, reading goes on with the next place that has a magic, a
checksum that is right, and a higher number than the last record. A footer that is whole
tells what was in the records that are not.
"""

from collections.abc import Iterator

import msgspec

from mbctl import batch as batches
from mbctl.files import File
from mbctl.journal.checksum import crc32c
from mbctl.journal.footer import SegmentIndex, decode_footer
from mbctl.journal.format import (
    BATCH,
    BOTH,
    CHANGES,
    FOOTER,
    HEAD_BYTES,
    LOST,
    MOVED,
    RECORD_MAGIC,
    SEGMENT_HEAD_BYTES,
    Head,
    batch_size,
    decode_changes,
    is_cold,
    place_of,
    salt_of,
    unpack_head,
)
from mbctl.journal.scan import add_record, batch_head, kinds_in
from mbctl.journal.segment import read_footer
from mbctl.model import Range
from mbctl.offline.report import Finding, Totals

# The kinds of records that have a batch.
BATCHES = (BATCH, BOTH, MOVED)


class Found(msgspec.Struct, frozen=True):
    """A record whose head is whole; ``wrong`` says what its body is, if that is not."""

    position: int
    head: Head
    body: memoryview
    wrong: str


class Hole(msgspec.Struct, frozen=True):
    """Bytes from ``position`` on that are no record, or ``missing`` numbers before it."""

    position: int
    reason: str
    missing: int = 0
    is_last: bool = False
    """Whether nothing readable comes after it."""


class Gap(msgspec.Struct, frozen=True):
    """Offsets that are missing before the batch at ``position``."""

    first: int
    next: int
    position: int
    timestamp: int
    """That of the batch after it."""


class Part(msgspec.Struct):
    """The batches of one topic in one segment that are readable."""

    first: int
    position: int
    """Where the first of them is."""
    first_timestamp: int
    next: int
    timestamp: int
    """That of the last."""
    gaps: list[Gap]
    """Between them."""


class Salvaged(msgspec.Struct):
    """What is in a segment."""

    number: int
    file: str
    index: SegmentIndex
    """What is known to have been in it, readable or not."""
    parts: dict[int, Part]
    """By topic id, what is readable."""
    totals: Totals
    findings: list[Finding]
    lost_records: list[Finding]
    rest: Finding | None
    """What is not readable after the last record, if no footer tells what it was."""
    given_up: list[tuple[int, int, int]]
    """What an earlier repair gave up: topic id, first and next offset."""
    is_sealed: bool
    is_indexed: bool
    """Whether a footer tells what was in it."""
    end: int
    """Where its records end, or the first thing that is wrong with them is."""
    mark: int
    """The highest mark of any record."""
    next_number: int
    """The record number that would follow, as far as is known."""
    limit: int | None = None
    """The position from which on nothing counts."""
    moved: dict[int, list[Range]] = {}
    """In a cold segment, by topic id, the offsets that are readable or stand for lost ones."""

    @property
    def is_empty(self) -> bool:
        """Whether no record was ever in it."""
        return self.next_number == self.index.first_number and not self.findings


def walk(
    data: bytes, salt: int, floor: int = 0, *, number: int, is_whole: bool = False
) -> Iterator[Found | Hole]:
    """What can be read of the bytes of segment ``number``, in order, up to its footer.

    No record has a number below ``floor``. With ``is_whole`` the data ends where the records
    do, else zeros may follow.
    """
    view = memoryview(data)
    used = len(data) if is_whole else len(data.rstrip(b"\0"))
    at, is_first = SEGMENT_HEAD_BYTES, True
    while at < used:
        begun = at
        head = _head_at(view, salt, at, floor)
        if head is None:
            found = _next_head(data, salt, at + 1, floor)
            if found is None:
                yield Hole(at, "what is here is no record", is_last=True)
                return
            at, head = found
        missing = 0 if is_first else head.number - floor
        if missing:
            what = "not readable" if at > begun else "missing"
            yield Hole(begun, records_are(floor, head.number, what), missing=missing)
        elif at > begun:
            yield Hole(begun, f"what is here up to byte {at} is no record", missing=int(is_first))
        is_first = False
        body = view[at + HEAD_BYTES : at + HEAD_BYTES + head.body_size]
        yield Found(at, head, body, _wrong(number, head, body))
        if head.kind == FOOTER:
            return
        floor = head.number + 1
        at += HEAD_BYTES + head.body_size


def records_are(first: int, next_number: int, what: str) -> str:
    """Says ``what`` the records from ``first`` to before ``next_number`` are."""
    last = next_number - 1
    return f"record {first} is {what}" if first == last else f"records {first} to {last} are {what}"


def _head_at(view: memoryview, salt: int, at: int, floor: int) -> Head | None:
    head = unpack_head(view, salt, at)
    if head is None or at + HEAD_BYTES + head.body_size > len(view):
        return None
    if head.number < floor:
        # A copy of an older record: it was in a message whose own record is not readable.
        return None
    return head


def _next_head(data: bytes, salt: int, at: int, floor: int) -> tuple[int, Head] | None:
    view = memoryview(data)
    while (at := data.find(RECORD_MAGIC, at)) >= 0:
        head = _head_at(view, salt, at, floor)
        if head is not None:
            return at, head
        at += 1
    return None


def _wrong(number: int, head: Head, body: memoryview) -> str:
    """What is wrong with a record of segment ``number``, or nothing."""
    if head.kind not in kinds_in(number):
        return f"a record is of the unknown kind {head.kind}"
    if crc32c(body) != head.body_crc:
        what = {CHANGES: "record of changes", FOOTER: "footer", **dict.fromkeys(BATCHES, "batch")}
        return f"a {what.get(head.kind, 'record')} has a wrong checksum"
    try:
        size = batch_size(head)
        if head.kind in BATCHES and len(batches.decode(body[:size]).payloads) != head.count:
            return f"a batch has not the {head.count} messages that it should"
        if head.kind == CHANGES:
            decode_changes(body)
        if head.kind == BOTH:
            decode_changes(body[size:])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return f"a record cannot be decoded: {error}"
    return ""


def salvage(
    file: File,
    number: int,
    floor: int,
    *,
    journal_id: bytes,
    window: int,
    end: int | None = None,
) -> Salvaged:
    """Read the segment in ``file``, up to ``end`` if that is given.

    No record in it has a number below ``floor``.

    Raises:
        NewerFormat: a newer mbctl wrote a record.
    """
    sealed = None if end is not None else read_footer(file, number, journal_id, window)
    data = file.read_data()[:end] if sealed is None else file.read(sealed[1], 0)
    if sealed is not None:
        floor = sealed[0].first_number
    reading = _Reading(file.path.name, number, floor, window)
    salt = salt_of(journal_id)
    for found in walk(data, salt, floor, number=number, is_whole=sealed is not None):
        reading.add(found)
    if sealed is not None:
        index, position, next_number = sealed
        reading.end_with(index, position, next_number)
    result = reading.result(len(data))
    result.limit = end
    return result


class _Reading:
    """What has been read of a segment so far."""

    def __init__(self, file: str, number: int, floor: int, window: int) -> None:
        self._file = file
        self._number = number
        self._window = window
        self._built = SegmentIndex(floor, window)
        self._footer: SegmentIndex | None = None
        self._is_first = True
        self._is_sealed = False
        self._parts: dict[int, Part] = {}
        self._moved: dict[int, list[Range]] = {}
        self._totals = Totals(segments=1)
        self._findings: list[Finding] = []
        self._lost_records: list[Finding] = []
        self._given_up: list[tuple[int, int, int]] = []
        self._end = SEGMENT_HEAD_BYTES
        self._mark = 0
        self._next_number = floor
        self._first_wrong: int | None = None
        self._rest: Finding | None = None

    def add(self, found: Found | Hole) -> None:
        """Take in what comes next."""
        if isinstance(found, Hole):
            self._note(found.position, found.reason, may_be_changes=found.missing > 0)
            if found.is_last:
                self._rest = self._findings[-1]
            return
        head = found.head
        if self._is_first:
            self._is_first = False
            self._built.first_number = self._next_number = head.number
        self._mark = max(self._mark, min(head.mark, place_of(self._number, found.position)))
        if head.kind == FOOTER:
            # One that its trailer does not lead to.
            if found.wrong:
                self._note(found.position, found.wrong)
            else:
                self._footer = decode_footer(found.body, self._window)
                self._note(found.position, "the trailer after the footer is not readable")
            return
        self._next_number = head.number + 1
        self._end = found.position + HEAD_BYTES + head.body_size
        if found.wrong:
            self._note(found.position, found.wrong, may_be_changes=head.kind != BATCH)
            if head.kind == BOTH:
                self._built.add_batch(batch_head(head), found.position, batch_size(head))
            elif head.kind in BATCHES:
                add_record(self._built, self._number, head, found.position, found.body)
            return
        self._take(found)

    def _note(self, position: int, reason: str, *, may_be_changes: bool = False) -> None:
        if self._first_wrong is None:
            self._first_wrong = position
        finding = Finding(self._file, position, reason)
        self._findings.append(finding)
        if may_be_changes:
            self._lost_records.append(finding)

    def _take(self, found: Found) -> None:
        """Take in a record that is whole."""
        head = found.head
        add_record(self._built, self._number, head, found.position, found.body)
        self._totals.records += 1
        self._totals.bytes += head.body_size
        if head.kind not in (*BATCHES, LOST):
            return
        next_offset = head.first_offset + head.count
        if head.kind in BATCHES:
            self._totals.batches += 1
            self._totals.messages += head.count
        else:
            self._given_up.append((head.topic_id, head.first_offset, next_offset))
        if is_cold(self._number):
            self._moved.setdefault(head.topic_id, []).append((head.first_offset, next_offset))
            return
        part = self._parts.get(head.topic_id)
        if part is None:
            self._parts[head.topic_id] = Part(
                head.first_offset,
                found.position,
                head.timestamp,
                next_offset,
                head.timestamp,
                [],
            )
            return
        if head.first_offset > part.next:
            part.gaps.append(Gap(part.next, head.first_offset, found.position, head.timestamp))
        part.next = next_offset
        part.timestamp = head.timestamp

    def end_with(self, index: SegmentIndex, position: int, next_number: int) -> None:
        """Take in the footer that the trailer leads to."""
        self._is_sealed = True
        self._footer = index
        self._end = position
        self._mark = place_of(self._number, position)
        self._next_number = next_number

    def result(self, size: int) -> Salvaged:
        """All of it."""
        index = self._footer or self._built
        if self._footer is not None or is_cold(self._number):
            # What the records cannot tell any more, their copy in the footer does.
            self._lost_records = []
            self._rest = None
        return Salvaged(
            self._number,
            self._file,
            index,
            self._parts,
            self._totals,
            self._findings,
            self._lost_records,
            self._rest,
            self._given_up,
            self._is_sealed,
            self._footer is not None,
            self._end if self._first_wrong is None else min(self._first_wrong, size),
            self._mark,
            self._next_number,
            moved=self._moved,
        )
