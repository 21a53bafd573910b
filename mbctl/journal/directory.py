"""The data directory: whose it is, which format it has, and that one server uses it.

FORMAT               the format's version and the journal's id; made last
LOCK                 locked by the server that uses the directory
0000000001.segment   the journal, in numbered files
snapshot             what all before a certain segment amounts to
lost+found           what was cut off when the journal was opened
"""

import os
import stat
from contextlib import suppress

import msgspec

from mbctl.errors import ServerError, StorageCorrupt
from mbctl.files import Directory, File
from mbctl.journal.format import (
    FORMAT_VERSION,
    SEGMENT_HEAD_BYTES,
    SNAPSHOT_HEAD_BYTES,
    check_version,
    segment_name,
    unpack_snapshot_head,
)
from mbctl.journal.recovery import LOST_AND_FOUND
from mbctl.journal.segment import TEMPORARY, create_segment
from mbctl.journal.snapshot import NEXT_NAME, SNAPSHOT_NAME, write_snapshot
from mbctl.journal.state import State

FORMAT_NAME = "FORMAT"
LOCK_NAME = "LOCK"
# What a repair has made so far, and what it has made complete and not yet put in place.
REPAIRING_NAME = "repairing"
REPAIRED_NAME = "repaired"
# What a first start that was interrupted may leave behind.
_BEGINNINGS = {
    LOCK_NAME,
    FORMAT_NAME + TEMPORARY,
    SNAPSHOT_NAME,
    NEXT_NAME,
    segment_name(1),
    segment_name(1) + TEMPORARY,
    LOST_AND_FOUND,
    REPAIRING_NAME,
}
_DIRECTORIES = {LOST_AND_FOUND, REPAIRING_NAME}


class _Format(msgspec.Struct):
    """The contents of the file FORMAT."""

    format: int
    journal: str


def take(directory: Directory) -> File:
    """Make the directory if it is missing and lock it; the lock, which lasts while it is open.

    Raises:
        ServerError: it is somebody else's, not a data directory, or in use.
        OSError: it cannot be made or opened.
    """
    directory.make()
    _check_owner(directory)
    names = directory.names()
    if REPAIRED_NAME in names:
        path = str(directory.path / REPAIRED_NAME)
        raise StorageCorrupt(path=path, position=0, reason="a repair was interrupted")
    if FORMAT_NAME not in names and (strange := sorted(set(names) - _BEGINNINGS)):
        if any(name.endswith((".segment", ".cold")) for name in strange):
            raise StorageCorrupt(
                path=str(directory.path / FORMAT_NAME), position=0, reason="it is missing"
            )
        raise ServerError(
            reason=f"{directory.path} is not a data directory of mbctl: it has {strange[0]!r} "
            "in it; choose an empty or a new directory"
        )
    lock = directory.open_or_create(LOCK_NAME)
    _lock(directory, lock, "stop that server, or choose another --data")
    return lock


def hold(directory: Directory, *, is_read_only: bool) -> File | None:
    """Lock a data directory that is there; the lock, which lasts while it is open.

    With ``is_read_only`` nothing is made: None if there is no file to lock.

    Raises:
        ServerError: it is in use, or somebody else's and to be written to.
        OSError: it is not there or cannot be opened.
    """
    names = directory.names()
    if is_read_only:
        if LOCK_NAME not in names:
            return None
        lock = directory.open(LOCK_NAME)
    else:
        _check_owner(directory)
        lock = directory.open_or_create(LOCK_NAME)
    _lock(directory, lock, "stop that server first")
    return lock


def _lock(directory: Directory, lock: File, advice: str) -> None:
    if lock.lock():
        return
    pid = lock.read(20, 0).decode("ascii", "replace").strip()
    lock.close()
    by = f" by the process {pid}" if pid else ""
    raise ServerError(reason=f"the data directory {directory.path} is in use{by}; {advice}")


def sign(lock: File) -> None:
    """Note in the lock file which process has it; for people."""
    text = f"{os.getpid()}\n".encode()
    with suppress(OSError):
        lock.truncate(0)
        lock.write([text], 0)


def _check_owner(directory: Directory) -> None:
    found = directory.disk.stat(str(directory.path))
    if stat.S_ISLNK(found.st_mode):
        raise ServerError(reason=f"{directory.path} is a symbolic link; name what it points to")
    if not stat.S_ISDIR(found.st_mode):
        raise ServerError(reason=f"{directory.path} is not a directory")
    if found.st_uid != os.geteuid():
        raise ServerError(
            reason=f"the data directory {directory.path} belongs to another user; "
            "run the server as that user, or choose another --data"
        )
    if found.st_mode & stat.S_IWOTH:
        raise ServerError(
            reason=f"everybody may write to the data directory {directory.path}; "
            f"choose another --data, or close this one with: chmod 700 {directory.path}"
        )


def read_or_begin(directory: Directory, *, window: int, capacity: int, created: int) -> bytes:
    """The id of the journal in a directory that was taken; begins one where there is none.

    Raises:
        StorageCorrupt: the file FORMAT is damaged, or missing where it was.
        NewerFormat: a newer mbctl made the directory; nothing was changed.
    """
    if FORMAT_NAME in directory.names():
        return read_format(directory)
    if not is_unused(directory):
        path = str(directory.path / FORMAT_NAME)
        raise StorageCorrupt(path=path, position=0, reason="it is missing")
    for name in directory.names():
        if name not in {LOCK_NAME, *_DIRECTORIES}:
            directory.unlink(name)
    journal_id = os.urandom(16)
    write_snapshot(directory, State(window), 1, 1, journal_id)
    create_segment(directory, 1, capacity, journal_id, created).file.close()
    # Only now is it a journal: with this file, one that lacks any other is damaged.
    write_format(directory, journal_id)
    return journal_id


def write_format(directory: Directory, journal_id: bytes) -> None:
    """Make the file FORMAT; it is durable when this returns."""
    file = directory.open_or_create(FORMAT_NAME + TEMPORARY)
    try:
        body = msgspec.json.encode(_Format(FORMAT_VERSION, journal_id.hex()))
        file.write([body + b"\n"], 0)
        file.sync_all()
    finally:
        file.close()
    directory.rename(FORMAT_NAME + TEMPORARY, FORMAT_NAME)
    directory.sync()


def read_format(directory: Directory) -> bytes:
    """The id of the journal, as the file FORMAT says.

    Raises:
        FileNotFoundError: there is none.
        StorageCorrupt: it is not readable.
        NewerFormat: a newer mbctl made the directory.
    """
    file = directory.open(FORMAT_NAME)
    try:
        found = msgspec.json.decode(file.read(4096, 0), type=_Format)
        journal_id = bytes.fromhex(found.journal)
    except (msgspec.MsgspecError, ValueError) as error:
        raise StorageCorrupt(path=str(file.path), position=0, reason=str(error)) from error
    finally:
        file.close()
    check_version("the data directory", found.format)
    return journal_id


def is_unused(directory: Directory) -> bool:
    """Whether a directory without FORMAT has nothing but what a first start leaves behind."""
    names = directory.names()
    if set(names) - _BEGINNINGS:
        return False
    if SNAPSHOT_NAME in names:
        # It had its name after it was synced: one that is not readable was damaged later.
        head = unpack_snapshot_head(_read_part(directory, SNAPSHOT_NAME, 0))
        if head is None or head.next_number != 1:
            return False
    # Where the first record would be: with one, somebody lost the file FORMAT.
    name = segment_name(1)
    return name not in names or not _read_part(directory, name, SEGMENT_HEAD_BYTES).strip(b"\0")


def _read_part(directory: Directory, name: str, position: int) -> bytes:
    """As much as a head takes."""
    file = directory.open(name)
    try:
        return file.read(SNAPSHOT_HEAD_BYTES, position)
    finally:
        file.close()
