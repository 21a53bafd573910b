"""One file of the journal: made ahead of need, written from front to end, then sealed.

    ┌──────┬────────┬────────┬─ ─┬────────┬────────┬─────────┐
    │ head │ record │ record │   │ record │ footer │ trailer │
    └──────┴────────┴────────┴─ ─┴────────┴────────┴─────────┘

Until it is sealed zeros stand where the next record will. A segment is written by the
process that made it and by no other: a later one seals what it finds.
"""

from contextlib import suppress

from mbctl.errors import StorageCorrupt
from mbctl.files import Directory, File
from mbctl.journal.checksum import crc32c
from mbctl.journal.footer import SegmentIndex, decode_footer
from mbctl.journal.format import (
    FOOTER,
    HEAD_BYTES,
    SEGMENT_HEAD_BYTES,
    TRAILER_BYTES,
    pack_head,
    pack_segment_head,
    pack_trailer,
    place_of,
    salt_of,
    segment_name,
    unpack_head,
    unpack_segment_head,
    unpack_trailer,
)

TEMPORARY = ".tmp"


class Segment:
    """A segment that is being written, or is there to be written next."""

    def __init__(self, number: int, file: File, capacity: int) -> None:
        self.number = number
        self.file = file
        self.capacity = capacity
        """Bytes that are reserved for it on disk."""
        self.position = SEGMENT_HEAD_BYTES
        """Where the next record goes."""
        self.index: SegmentIndex | None = None
        """What is in it, once it is written to."""

    def room_for_footer(self, growth: int) -> int:
        """Bytes to keep for the footer, when one more record makes it grow by ``growth``."""
        return growth if self.index is None else self.index.size + growth

    def has_room(self, size: int, growth: int) -> bool:
        """Whether a record of ``size`` bytes fits that makes the footer grow by ``growth``."""
        return self.position + size + self.room_for_footer(growth) <= self.capacity

    def enlarge(self, capacity: int) -> None:
        """Reserve more, for a record that is larger than segments are."""
        if capacity > self.capacity:
            self.file.allocate(capacity)
            self.capacity = capacity


def create_segment(
    directory: Directory, number: int, capacity: int, journal_id: bytes, created: int
) -> Segment:
    """Make an empty segment; it is durable, with its name, when this returns.

    Raises:
        OSError: there is no room (``files.is_full``), or the disk fails.
    """
    name = segment_name(number)
    temporary = name + TEMPORARY
    with suppress(FileNotFoundError):
        directory.unlink(temporary)
    file = directory.create(temporary)
    try:
        file.allocate(capacity)
        file.write([pack_segment_head(number, journal_id, created)], 0)
        file.sync_all()
        directory.rename(temporary, name)
        directory.sync()
    except OSError:
        file.close()
        with suppress(OSError):
            directory.unlink(temporary)
        raise
    file.renamed(directory.path / name)
    return Segment(number, file, capacity)


def seal(
    file: File, number: int, position: int, body: bytes, *, record_number: int, salt: int
) -> int:
    """Write the footer at ``position`` and end the file; its length then.

    All records are durable already: a trailer says so. It is durable when this returns.
    """
    mark = place_of(number, position)
    head = pack_head(FOOTER, body, record_number, mark, salt=salt)
    size = position + len(head) + len(body) + TRAILER_BYTES
    file.write([head, body, pack_trailer(number, position)], position)
    file.truncate(size)
    file.sync_all()
    return size


def check_head(file: File, number: int, journal_id: bytes) -> None:
    """Refuse a file that is not this segment of this journal.

    Raises:
        StorageCorrupt, NewerFormat: and why.
    """
    head = unpack_segment_head(file.read(SEGMENT_HEAD_BYTES, 0))
    if head is None:
        raise corrupt(file, 0, "its head is not readable")
    if head.journal_id != journal_id:
        raise corrupt(file, 0, "it is of another journal")
    if head.number != number:
        raise corrupt(file, 0, f"it is segment {head.number} under the name of another")


def read_footer(
    file: File, number: int, journal_id: bytes, window: int
) -> tuple[SegmentIndex, int, int] | None:
    """The index of a sealed segment, where its records end and the next record number.

    None if it is not sealed, or what says so is damaged: then its records tell.
    """
    size = file.size
    if size < SEGMENT_HEAD_BYTES + HEAD_BYTES + TRAILER_BYTES:
        return None
    position = unpack_trailer(file.read(TRAILER_BYTES, size - TRAILER_BYTES), number)
    if position is None or not SEGMENT_HEAD_BYTES <= position <= size - TRAILER_BYTES:
        return None
    data = file.read(size - TRAILER_BYTES - position, position)
    head = unpack_head(data, salt_of(journal_id))
    body = memoryview(data)[HEAD_BYTES:]
    if head is None or head.kind != FOOTER or len(body) != head.body_size:
        return None
    if crc32c(body) != head.body_crc:
        return None
    return decode_footer(body, window), position, head.number


def corrupt(file: File, position: int, reason: str) -> StorageCorrupt:
    """The error that says so of ``file``."""
    return StorageCorrupt(path=str(file.path), position=position, reason=reason)
