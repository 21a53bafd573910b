"""Reads a segment that is not sealed, record by record, as far as it is whole.

Where the first bad record is, a checksum cannot tell whether what stood there was ever
durable. The marks can: every record says up to where all was durable when it was written.
"""

import msgspec

from mbctl.files import File
from mbctl.journal.checksum import crc32c
from mbctl.journal.footer import SegmentIndex
from mbctl.journal.format import (
    BATCH,
    BOTH,
    CHANGES,
    FOOTER,
    HEAD_BYTES,
    LOST,
    MARK,
    MOVED,
    RECORD_MAGIC,
    SEGMENT_HEAD_BYTES,
    Head,
    batch_size,
    is_cold,
    place_of,
    salt_of,
    segment_of,
    unpack_head,
)
from mbctl.journal.records import BatchHead
from mbctl.journal.segment import corrupt

# Every kind of record that a segment of this format can have, and a cold one.
_KINDS = (BATCH, CHANGES, MARK, FOOTER, LOST, BOTH)
_COLD_KINDS = (MOVED, FOOTER, LOST)


def kinds_in(number: int) -> tuple[int, ...]:
    """Every kind of record that the segment of that number can have."""
    return _COLD_KINDS if is_cold(number) else _KINDS


class Scan(msgspec.Struct):
    """What a scan found in one segment."""

    number: int
    index: SegmentIndex
    end: int
    """The position after the last record that counts."""
    next_number: int
    """The record number that would follow."""
    mark: int
    """The highest mark of any record, also of those after the first bad one."""
    rest: bytes
    """The bytes from ``end`` on up to the last that is not zero."""
    reason: str
    """What is wrong at ``end``, or empty if nothing is there."""
    damaged: list[int]
    """The places of batches that are kept though their bodies are not what was written."""

    @property
    def is_empty(self) -> bool:
        """Whether no record was ever in it."""
        return self.end == SEGMENT_HEAD_BYTES and not self.rest


def scan(
    file: File,
    number: int,
    first_number: int | None,
    *,
    journal_id: bytes,
    window: int,
    durable: int = 0,
    complete_at: int | None = None,
) -> Scan:
    """Read the segment in ``file``, whose first record is to have ``first_number`` if given.

    When the records reach the number ``complete_at``, which the next segment begins with,
    that is all there was, and what follows is a footer that cannot be read.

    Below the place ``durable`` everything was durable: there a batch with a wrong body is
    kept, to be reported to whoever reads it, and anything else that is wrong is an error.

    Raises:
        StorageCorrupt: what is below ``durable`` cannot be told, or a record is of no kind that
            this format has.
        NewerFormat: a newer mbctl wrote a record.
    """
    data, size = file.read_data(), file.size
    # Zeros at the end were left out, and can be the end of a head.
    data = data.ljust(min(size, len(data) + HEAD_BYTES), b"\0")
    view = memoryview(data)
    salt = salt_of(journal_id)
    if first_number is None:
        first = unpack_head(view, salt, SEGMENT_HEAD_BYTES)
        first_number = 0 if first is None else first.number
    index = SegmentIndex(first_number, window)
    found = Scan(number, index, SEGMENT_HEAD_BYTES, first_number, 0, b"", "", [])
    while True:
        head, reason = _head_at(view, salt, found.end, found.next_number)
        if head is None:
            break
        if head.kind not in kinds_in(number):
            # Its checksum is right, so it was meant: nothing that a crash leaves behind.
            raise corrupt(file, found.end, f"a record is of the unknown kind {head.kind}")
        end = found.end + HEAD_BYTES + head.body_size
        if end > size:
            head, reason = None, "a record goes beyond the end of the file"
            break
        if end > len(view):
            data = data.ljust(end, b"\0")
            view = memoryview(data)
        body = view[found.end + HEAD_BYTES : end]
        if crc32c(body) != head.body_crc:
            reason = "the checksum of a record is wrong"
            if head.kind not in (BATCH, MOVED) or place_of(number, found.end) >= durable:
                break
            found.damaged.append(place_of(number, found.end))
        found.mark = max(found.mark, head.mark)
        if head.kind == FOOTER:
            break
        add_record(index, number, head, found.end, body)
        found.end = end
        found.next_number += 1
    if (head is not None and head.kind == FOOTER) or found.next_number == complete_at:
        # It was being sealed, or what seals it is damaged: the records are all there.
        return found
    found.rest = data[found.end :].rstrip(b"\0")
    if found.rest:
        found.reason = reason
        found.mark = max(found.mark, _mark_after(data, salt, found))
    is_below = place_of(number, found.end) < durable
    if is_below and (found.rest or segment_of(durable) == number):
        raise corrupt(file, found.end, reason)
    return found


def _head_at(view: memoryview, salt: int, at: int, number: int) -> tuple[Head | None, str]:
    head = unpack_head(view, salt, at)
    if head is None:
        return None, "a record is not readable"
    if head.number != number:
        return None, f"record {number} is missing, {head.number} is there"
    return head, ""


def add_record(
    index: SegmentIndex, number: int, head: Head, position: int, body: memoryview
) -> None:
    """Note in ``index``, that of segment ``number``, the record at ``position``."""
    if is_cold(number):
        # As large as it is on disk, if it stands for messages that were given up.
        size = head.body_size if head.kind == MOVED else HEAD_BYTES
        index.add_moved(batch_head(head), position, size)
    elif head.kind in (BATCH, BOTH):
        index.add_batch(batch_head(head), position, batch_size(head))
        if head.kind == BOTH:
            index.add_changes(bytes(body[batch_size(head) :]))
    elif head.kind == LOST:
        index.add_lost(head.topic_id, head.first_offset, head.count, head.timestamp, position)
    elif head.kind == CHANGES:
        index.add_changes(bytes(body))


def batch_head(head: Head) -> BatchHead:
    """What ``append_batch`` was given with the batch that is in this record."""
    return BatchHead(
        head.topic_id,
        head.first_offset,
        head.count,
        head.timestamp,
        head.session,
        0 if head.kind == BOTH else head.sequence,
    )


def _mark_after(data: bytes, salt: int, found: Scan) -> int:
    """The highest mark of the records that are readable anywhere after the end.

    Only of such as can have been written after it: not of one that was copied out of this
    journal and came back in a payload.
    """
    mark, at = 0, found.end
    while (at := data.find(RECORD_MAGIC, at)) >= 0:
        head = unpack_head(data, salt, at)
        if head is not None and head.number >= found.next_number:
            mark = max(mark, min(head.mark, place_of(found.number, at)))
        at += 1
    return mark
