"""The snapshot: a state on disk, and the segment that replay goes on with after it.

There is one, replaced as a whole. The room for the next is kept as a file of its own, so
that a full disk cannot keep a snapshot from being taken, and space from being freed.
"""

from contextlib import suppress

import msgspec

from mbctl.errors import StorageCorrupt
from mbctl.files import Directory, File, is_full
from mbctl.journal.checksum import crc32c
from mbctl.journal.format import (
    SNAPSHOT_HEAD_BYTES,
    pack_snapshot_head,
    unpack_snapshot_head,
)
from mbctl.journal.state import State, decode_state
from mbctl.model import KIB

SNAPSHOT_NAME = "snapshot"
NEXT_NAME = "snapshot.tmp"
# The least that is kept for the next snapshot; arbitrary, some thousand subscriptions.
_RESERVE_MIN = 256 * KIB


class NoRoom(OSError):
    """The disk has no room for a snapshot now; the one before holds."""


class Snapshot(msgspec.Struct, frozen=True):
    """A state, and where the journal goes on: with which segment and record number."""

    state: State
    segment: int
    next_number: int
    size: int


def read_snapshot(directory: Directory, journal_id: bytes, window: int) -> Snapshot:
    """Load the snapshot of ``directory``.

    Raises:
        StorageCorrupt: it is missing or damaged, or of another journal.
        NewerFormat: a newer mbctl wrote it.
    """
    path = directory.path / SNAPSHOT_NAME
    try:
        file = directory.open(SNAPSHOT_NAME)
    except FileNotFoundError as error:
        raise StorageCorrupt(path=str(path), position=0, reason="it is missing") from error
    try:
        data = file.read(file.size, 0)
    finally:
        file.close()
    head = unpack_snapshot_head(data)
    if head is None:
        raise StorageCorrupt(path=str(path), position=0, reason="its head is not readable")
    body = data[SNAPSHOT_HEAD_BYTES:]
    if len(body) != head.body_size or crc32c(body) != head.body_crc:
        raise StorageCorrupt(
            path=str(path), position=SNAPSHOT_HEAD_BYTES, reason="its checksum is wrong"
        )
    if head.journal_id != journal_id:
        raise StorageCorrupt(path=str(path), position=0, reason="it is of another journal")
    return Snapshot(decode_state(body, window), head.segment, head.next_number, len(data))


def write_snapshot(
    directory: Directory, state: State, segment: int, next_number: int, journal_id: bytes
) -> Snapshot:
    """Put a snapshot in place of the one before; it is durable when this returns.

    Raises:
        NoRoom: nothing was changed.
        OSError: the disk fails; which snapshot it has is not known.
    """
    body = state.encode()
    head = pack_snapshot_head(body, segment, next_number, journal_id)
    size = len(head) + len(body)
    file = _write_next(directory, [head, body])
    try:
        file.truncate(size)
        file.sync_all()
    finally:
        file.close()
    directory.rename(NEXT_NAME, SNAPSHOT_NAME)
    directory.sync()
    keep_room(directory, 2 * size)
    return Snapshot(state, segment, next_number, size)


def _write_next(directory: Directory, parts: list[bytes]) -> File:
    """The file of the next snapshot, written and not synced."""
    try:
        file = directory.open_or_create(NEXT_NAME)
        try:
            file.write(parts, 0)
        except OSError:
            file.close()
            raise
    except OSError as error:
        # Only of these calls: once there was room, a sync that fails is a broken disk.
        if is_full(error):
            raise NoRoom from error
        raise
    return file


def give_up_room(directory: Directory) -> None:
    """Let the room that is kept for the next snapshot be used for something else."""
    with suppress(FileNotFoundError):
        directory.unlink(NEXT_NAME)


def keep_room(directory: Directory, size: int) -> None:
    """Keep room for a snapshot of ``size`` bytes, as far as there is any."""
    file = directory.open_or_create(NEXT_NAME)
    try:
        file.allocate(max(_RESERVE_MIN, size))
    except OSError as error:
        if not is_full(error):
            raise
        # Without room now it is tried with what there is then.
        give_up_room(directory)
    finally:
        file.close()
