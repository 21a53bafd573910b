"""A backup of a journal on disk: its files as they stood at one moment, as one tar file.

    first member   CONTENTS_NAME: JSON, with the names and sizes of those that follow
    then           FORMAT, the snapshot, the sealed segments, an empty segment

At that moment everything was in sealed segments, as after a server was stopped in good
order: what is restored is opened like any other data directory. While a backup is open the
journal deletes no segment, so what it names can be read when its turn comes.
"""

from bisect import bisect_right
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from mbctl.errors import MbctlError, ServerError, ServerStopping
from mbctl.files import Directory, File
from mbctl.journal.directory import FORMAT_NAME
from mbctl.journal.format import (
    SNAPSHOT_HEAD_BYTES,
    is_cold,
    pack_segment_head,
    segment_name,
    unpack_snapshot_head,
)
from mbctl.journal.keeper import Keeper
from mbctl.journal.records import Backup
from mbctl.journal.segment import corrupt
from mbctl.journal.snapshot import SNAPSHOT_NAME
from mbctl.journal.worker import Loop, Worker
from mbctl.model import NS_PER_S

CONTENTS_NAME = "mbctl-backup"
BACKUP_VERSION = 1

# A tar file is made of blocks of this size, and ends with two that are zero.
_BLOCK_BYTES = 512
_EMPTY_BYTES = 4096


class Contents(msgspec.Struct):
    """What is in a backup: its first member."""

    version: int
    created: int
    """Nanoseconds since 1970, UTC."""
    files: dict[str, int]
    """By name, in order, how many bytes they have."""


class _Part(msgspec.Struct, frozen=True):
    """A stretch of the tar file: bytes, or a file of the directory by its name."""

    start: int
    size: int
    source: bytes | str


class Layout(msgspec.Struct, frozen=True):
    """The tar file, put together and not read yet."""

    size: int
    parts: list[_Part]
    snapshot: File
    """Held open, because it is replaced by the next one."""


def lay_out(directory: Directory, segments: list[int], created: int) -> Layout:
    """Put a backup together of the directory's segments of these numbers, all of them sealed.

    Raises:
        OSError: the disk fails.
        StorageCorrupt: the snapshot cannot be read.
    """
    format_file = directory.open(FORMAT_NAME)
    try:
        content = format_file.read(format_file.size, 0)
    finally:
        format_file.close()
    snapshot = directory.open(SNAPSHOT_NAME)
    head = unpack_snapshot_head(snapshot.read(SNAPSHOT_HEAD_BYTES, 0))
    if head is None:
        raise corrupt(snapshot, 0, "its head is damaged")
    # The segment that replay goes on with: empty, and there, so that a start can tell that
    # nothing after the last sealed one is missing.
    next_number = max(head.segment, *(number + 1 for number in segments if not is_cold(number)), 1)
    files: dict[str, bytes | str] = {FORMAT_NAME: content, SNAPSHOT_NAME: SNAPSHOT_NAME}
    sizes = {FORMAT_NAME: len(content), SNAPSHOT_NAME: snapshot.size}
    for name in map(segment_name, segments):
        files[name] = name
        file = directory.open(name)
        sizes[name] = file.size
        file.close()
    empty = pack_segment_head(next_number, head.journal_id, created).ljust(_EMPTY_BYTES, b"\0")
    files[segment_name(next_number)] = empty
    sizes[segment_name(next_number)] = len(empty)
    contents = msgspec.json.encode(Contents(BACKUP_VERSION, created, sizes))
    parts = _Parts()
    parts.add_member(CONTENTS_NAME, len(contents), contents, created)
    for name, source in files.items():
        parts.add_member(name, sizes[name], source, created)
    parts.add(2 * _BLOCK_BYTES, bytes(2 * _BLOCK_BYTES))
    return Layout(parts.size, parts.parts, snapshot)


class _Parts:
    """The parts of a tar file that is being put together."""

    def __init__(self) -> None:
        self.size = 0
        self.parts: list[_Part] = []

    def add(self, size: int, source: bytes | str) -> None:
        """Add a part."""
        if size:
            self.parts.append(_Part(self.size, size, source))
            self.size += size

    def add_member(self, name: str, size: int, source: bytes | str, created: int) -> None:
        """Add a file with its head, filled up to a whole number of blocks."""
        # Imported here: only backups need it, and every server would wait for it.
        from tarfile import TarInfo

        info = TarInfo(name)
        info.size, info.mtime, info.mode = size, created // NS_PER_S, 0o600
        head = info.tobuf()
        self.add(len(head), head)
        self.add(size, source)
        rest = -size % _BLOCK_BYTES
        self.add(rest, bytes(rest))


class Backups:
    """The backups of a journal: begun when all is in sealed segments."""

    def __init__(
        self,
        directory: Directory,
        loop: Loop,
        keeper: Keeper,
        sealed: Callable[[], list[int]],
        reading: Worker,
    ) -> None:
        self._directory = directory
        self._loop = loop
        self._keeper = keeper
        self._sealed = sealed
        self._reading = reading
        self._open: set[DiskBackup] = set()
        self._is_closed = False

    def begin(self, done: Callable[[Backup | MbctlError], None]) -> None:
        """Call ``done`` with a backup of what is sealed now."""
        if self._is_closed:
            done(ServerStopping())
            return
        # From here on nothing that it needs is deleted. Deletions under way concern what was
        # dead before, and so is not needed.
        self._keeper.hold()
        numbers = sorted(self._sealed())
        job = partial(lay_out, self._directory, numbers, self._loop.wall_ns())
        self._keeper.submit(job, partial(self._laid_out, done))

    def _laid_out(
        self, done: Callable[[Backup | MbctlError], None], outcome: Layout | Exception
    ) -> None:
        if isinstance(outcome, Exception):
            self._keeper.let_go()
            done(ServerError(reason=f"a backup cannot be made: {outcome}"))
            return
        if self._is_closed:
            # The reading worker may be gone, and has never seen this.
            outcome.snapshot.close()
            done(ServerStopping())
            return
        backup = DiskBackup(self._directory, outcome, self._reading, self._ended)
        self._open.add(backup)
        done(backup)

    def _ended(self, backup: "DiskBackup") -> None:
        self._open.discard(backup)
        self._keeper.let_go()

    def close(self) -> None:
        """End all backups; reads under way are still answered."""
        self._is_closed = True
        for backup in list(self._open):
            backup.close()


class DiskBackup:
    """A Backup that reads the directory's files as it is asked for them."""

    def __init__(
        self,
        directory: Directory,
        layout: Layout,
        reading: Worker,
        ended: Callable[["DiskBackup"], None],
    ) -> None:
        self.size = layout.size
        self._directory = directory
        self._layout = layout
        self._reading = reading
        self._ended = ended
        self._starts = [part.start for part in layout.parts]
        self._open: tuple[str, File] | None = None
        self._is_closed = False

    def read(self, position: int, size: int, done: Callable[[bytes | MbctlError], None]) -> None:
        """Call ``done`` with up to ``size`` bytes from ``position`` on.

        ``ServerError`` where the disk does not give them; the backup is of no use then.
        """
        if self._is_closed:
            done(ServerStopping())
            return
        end = min(position + size, self.size)
        self._reading.submit(partial(self._read, position, end), partial(_answer, done))

    def close(self) -> None:
        """Let go of the files, once the reads under way are done. Twice is once."""
        if not self._is_closed:
            self._is_closed = True
            self._reading.submit(self._close, lambda outcome: None)
            self._ended(self)

    # --- for the worker -----------------------------------------------------------------------

    def _read(self, position: int, end: int) -> bytes:
        pieces = []
        at = bisect_right(self._starts, position) - 1
        while position < end:
            part = self._layout.parts[at]
            stop = min(end, part.start + part.size)
            pieces.append(self._read_part(part, position - part.start, stop - part.start))
            position, at = stop, at + 1
        return b"".join(pieces)

    def _read_part(self, part: _Part, first: int, next: int) -> bytes:
        if isinstance(part.source, bytes):
            return part.source[first:next]
        file = self._file(part.source)
        content = file.read(next - first, first)
        if len(content) != next - first:
            raise OSError(0, "it is shorter than it was", str(self._directory.path / part.source))
        return content

    def _file(self, name: str) -> File:
        if name == SNAPSHOT_NAME:
            return self._layout.snapshot
        if self._open is None or self._open[0] != name:
            if self._open is not None:
                self._open[1].close()
                self._open = None
            self._open = (name, self._directory.open(name))
        return self._open[1]

    def _close(self) -> None:
        self._layout.snapshot.close()
        if self._open is not None:
            self._open[1].close()
            self._open = None


def _answer(done: Callable[[bytes | MbctlError], None], outcome: Any) -> None:
    """Pass on what was read, or why it cannot be."""
    if isinstance(outcome, OSError):
        reason = f"{outcome.filename} cannot be read: {outcome.strerror or outcome}"
        done(ServerError(reason=f"the backup is not complete: {reason}"))
    elif isinstance(outcome, Exception):
        done(ServerError(reason=f"the backup is not complete: {outcome!r}"))
    else:
        done(outcome)
