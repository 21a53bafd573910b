"""The bytes of the journal: records, and the heads and ends of its files.

docs/storage-format.md draws them. To change the format: raise ``FORMAT_VERSION``, read the
version before it too (or say in the changelog that an upgrade needs an empty journal), add
golden files of the new version beside those of the old, and redraw the page.
"""

import struct
from typing import Final

import msgspec

from mbctl.batch import Buffer
from mbctl.errors import NewerFormat
from mbctl.journal.checksum import crc32c
from mbctl.journal.records import NO_SESSION, Record

FORMAT_VERSION: Final = 1

# --- records ------------------------------------------------------------------------------

RECORD_MAGIC: Final = b"mbRe"
BATCH: Final = 1
CHANGES: Final = 2
MARK: Final = 3
FOOTER: Final = 4
LOST: Final = 5
BOTH: Final = 6
MOVED: Final = 7

# magic, version, kind, length of the head, of the body, count, number, topic id, first
# offset, timestamp, session, sequence, durable mark, CRC of the body; CRC of all of these.
_HEAD = struct.Struct("<4sBBHIIQQQq16sQQI")
_CRC = struct.Struct("<I")
HEAD_BYTES: Final = _HEAD.size + _CRC.size


class Head(msgspec.Struct, frozen=True, gc=False):
    """The head of a record, as ``unpack_head`` reads it."""

    kind: int
    body_size: int
    count: int
    number: int
    topic_id: int
    first_offset: int
    timestamp: int
    session: bytes
    sequence: int
    mark: int
    body_crc: int


def salt_of(journal_id: bytes) -> int:
    """What the checksums of a journal's heads begin with.

    So a head is only one in the journal it was written for, and nobody outside can make a
    payload that looks like one.
    """
    return crc32c(journal_id)


def pack_head(
    kind: int,
    body: Buffer,
    number: int,
    mark: int,
    *,
    salt: int,
    count: int = 0,
    topic_id: int = 0,
    first_offset: int = 0,
    timestamp: int = 0,
    session: bytes = NO_SESSION,
    sequence: int = 0,
) -> bytes:
    """The head of the record that ``body`` is the rest of."""
    view = memoryview(body)
    head = _HEAD.pack(
        RECORD_MAGIC,
        FORMAT_VERSION,
        kind,
        HEAD_BYTES,
        view.nbytes,
        count,
        number,
        topic_id,
        first_offset,
        timestamp,
        session,
        sequence,
        mark,
        crc32c(view),
    )
    return head + _CRC.pack(crc32c(head, salt))


def unpack_head(data: Buffer, salt: int, at: int = 0) -> Head | None:
    """The head at ``at``, or None if there is none that is whole.

    Raises:
        NewerFormat: it is whole and of a newer format.
    """
    if len(data) - at < HEAD_BYTES or data[at : at + 4] != RECORD_MAGIC:
        return None
    (crc,) = _CRC.unpack_from(data, at + _HEAD.size)
    if crc != crc32c(memoryview(data)[at : at + _HEAD.size], salt):
        return None
    _, version, kind, head_size, body_size, *rest = _HEAD.unpack_from(data, at)
    check_version("a record", version)
    if head_size != HEAD_BYTES:
        return None
    return Head(kind, body_size, *rest)


def batch_size(head: Head) -> int:
    """How much of the body is the batch; what follows in one of kind BOTH are changes."""
    return head.sequence if head.kind == BOTH else head.body_size


def check_version(what: str, version: int) -> None:
    """Refuse what a newer mbctl wrote.

    Raises:
        NewerFormat: ``version`` is above ours.
    """
    if version > FORMAT_VERSION:
        raise NewerFormat(what=what, found=version, known=FORMAT_VERSION)


# --- changes ------------------------------------------------------------------------------

_changes_encoder = msgspec.msgpack.Encoder()
_changes_decoder = msgspec.msgpack.Decoder(list[Record])


def encode_change(record: Record) -> msgspec.Raw:
    """One change, to be put into a record with others."""
    return msgspec.Raw(_changes_encoder.encode(record))


def encode_changes(changes: list[msgspec.Raw]) -> bytes:
    """The body of a record of changes."""
    return _changes_encoder.encode(changes)


def decode_changes(body: Buffer) -> list[Record]:
    """The changes in the body of such a record, whose CRC was right."""
    return _changes_decoder.decode(body)


# --- places -------------------------------------------------------------------------------

# A place is the number of a segment and the position of a record in it.
POSITION_BITS: Final = 32


def place_of(segment: int, position: int) -> int:
    """The place of the record at ``position`` of that segment."""
    return segment << POSITION_BITS | position


def segment_of(place: int) -> int:
    """The number of the segment that ``place`` is in."""
    return place >> POSITION_BITS


def position_of(place: int) -> int:
    """Where in its segment ``place`` is."""
    return place & (1 << POSITION_BITS) - 1


# --- segments -----------------------------------------------------------------------------

SEGMENT_MAGIC: Final = b"mbctlSeg"
# magic, version, length of the head, segment number, journal id, time; CRC of all of these.
_SEGMENT = struct.Struct("<8sHHIQ16sq")
SEGMENT_HEAD_BYTES: Final = 64
TRAILER_MAGIC: Final = b"mbctlEnd"
# magic, segment number, position of the footer; CRC of all of these.
_TRAILER = struct.Struct("<8sQQ")
TRAILER_BYTES: Final = _TRAILER.size + _CRC.size


class SegmentHead(msgspec.Struct, frozen=True):
    """The head of a segment."""

    number: int
    journal_id: bytes


# The numbers of cold segments, to which batches are moved, begin here.
COLD_NUMBER: Final = 1 << 31


def is_cold(number: int) -> bool:
    """Whether batches are moved to that segment, and not appended."""
    return number >= COLD_NUMBER


def segment_name(number: int) -> str:
    """The name of the file of that segment."""
    if number >= COLD_NUMBER:
        return f"{number - COLD_NUMBER:010d}.cold"
    return f"{number:010d}.segment"


def pack_segment_head(number: int, journal_id: bytes, created: int) -> bytes:
    """The first bytes of a segment."""
    head = _SEGMENT.pack(
        SEGMENT_MAGIC, FORMAT_VERSION, SEGMENT_HEAD_BYTES, 0, number, journal_id, created
    )
    return (head + _CRC.pack(crc32c(head))).ljust(SEGMENT_HEAD_BYTES, b"\0")


def unpack_segment_head(data: Buffer) -> SegmentHead | None:
    """The head that a segment begins with, or None if it is not whole.

    Raises:
        NewerFormat: it is of a newer format.
    """
    if len(data) < SEGMENT_HEAD_BYTES or data[:8] != SEGMENT_MAGIC:
        return None
    (crc,) = _CRC.unpack_from(data, _SEGMENT.size)
    if crc != crc32c(memoryview(data)[: _SEGMENT.size]):
        return None
    _, version, _, _, number, journal_id, _ = _SEGMENT.unpack_from(data)
    check_version("a segment", version)
    return SegmentHead(number, journal_id)


def pack_trailer(number: int, footer_position: int) -> bytes:
    """The last bytes of a sealed segment."""
    trailer = _TRAILER.pack(TRAILER_MAGIC, number, footer_position)
    return trailer + _CRC.pack(crc32c(trailer))


def unpack_trailer(data: Buffer, number: int) -> int | None:
    """Where the footer is, or None if this is not the whole trailer of that segment."""
    found = unpack_any_trailer(data)
    return found[1] if found is not None and found[0] == number else None


def unpack_any_trailer(data: Buffer) -> tuple[int, int] | None:
    """Which segment this is the trailer of and where its footer is, or None if it is not whole."""
    if len(data) != TRAILER_BYTES or data[:8] != TRAILER_MAGIC:
        return None
    (crc,) = _CRC.unpack_from(data, _TRAILER.size)
    if crc != crc32c(memoryview(data)[: _TRAILER.size]):
        return None
    _, number, position = _TRAILER.unpack_from(data)
    return number, position


# --- snapshots ----------------------------------------------------------------------------

SNAPSHOT_MAGIC: Final = b"mbctlSna"
# magic, version, length of the head, CRC of the body, length of the body, the segment and
# the record number that replay starts with, journal id; CRC of all of these.
_SNAPSHOT = struct.Struct("<8sHHIQQQ16s")
SNAPSHOT_HEAD_BYTES: Final = 64


class SnapshotHead(msgspec.Struct, frozen=True):
    """The head of a snapshot."""

    body_crc: int
    body_size: int
    segment: int
    next_number: int
    journal_id: bytes


def pack_snapshot_head(body: Buffer, segment: int, next_number: int, journal_id: bytes) -> bytes:
    """The first bytes of a snapshot."""
    head = _SNAPSHOT.pack(
        SNAPSHOT_MAGIC,
        FORMAT_VERSION,
        SNAPSHOT_HEAD_BYTES,
        crc32c(body),
        memoryview(body).nbytes,
        segment,
        next_number,
        journal_id,
    )
    return (head + _CRC.pack(crc32c(head))).ljust(SNAPSHOT_HEAD_BYTES, b"\0")


def unpack_snapshot_head(data: Buffer) -> SnapshotHead | None:
    """The head that a snapshot begins with, or None if it is not whole.

    Raises:
        NewerFormat: it is of a newer format.
    """
    if len(data) < SNAPSHOT_HEAD_BYTES or data[:8] != SNAPSHOT_MAGIC:
        return None
    (crc,) = _CRC.unpack_from(data, _SNAPSHOT.size)
    if crc != crc32c(memoryview(data)[: _SNAPSHOT.size]):
        return None
    _, version, _, *rest = _SNAPSHOT.unpack_from(data)
    check_version("the snapshot", version)
    return SnapshotHead(*rest)
