"""The one layer under every file operation: what the disk can do, and a file on it.

``Disk`` is the operating system's calls, one method for each, so that a test can stand in
for the whole disk: remember what was synced and what was not, fail any call, write short.
``File`` and the functions below are what the rest of the project uses; they hold for every
disk: a write is whole or an error, and an error names its file.
"""

import errno
import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final

Buffer = bytes | bytearray | memoryview

FILE_MODE: Final = 0o600
DIRECTORY_MODE: Final = 0o700
# How many buffers one call may be given; Linux and macOS allow 1,024.
_BUFFERS_MAX = 1024
# What is read at once where a whole file is.
_BLOCK_BYTES = 1024 * 1024
_ZEROS = bytes(_BLOCK_BYTES)
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Disk:
    """The operating system's file calls."""

    def open(self, path: str, flags: int) -> int:
        """Open and return a descriptor; never a symbolic link, never inherited."""
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""
        os.close(descriptor)

    def pwritev(self, descriptor: int, buffers: Sequence[Buffer], position: int) -> int:
        """Write some of ``buffers`` at ``position``; how many bytes it was."""
        return os.pwritev(descriptor, buffers, position)

    def pread(self, descriptor: int, size: int, position: int) -> bytes:
        """Read up to ``size`` bytes at ``position``."""
        return os.pread(descriptor, size, position)

    def fdatasync(self, descriptor: int) -> None:
        """Force a file's data to disk, and what is needed to read it again."""
        # macOS has none, and its fsync does not flush the drive's own cache.
        if hasattr(fcntl, "F_FULLFSYNC"):
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(descriptor)

    def fsync(self, descriptor: int) -> None:
        """Force a file or directory to disk, with all that is known of it."""
        os.fsync(descriptor)

    def allocate(self, descriptor: int, size: int) -> None:
        """Reserve the file's first ``size`` bytes on disk; what is new reads as zeros."""
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        elif os.fstat(descriptor).st_size < size:
            os.ftruncate(descriptor, size)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut the file off after ``size`` bytes."""
        os.ftruncate(descriptor, size)

    def size(self, descriptor: int) -> int:
        """The file's length in bytes."""
        return os.fstat(descriptor).st_size

    def rename(self, old: str, new: str) -> None:
        """Give a file its new name, in place of a file that has it."""
        os.rename(old, new)

    def unlink(self, path: str) -> None:
        """Take a file's name away."""
        os.unlink(path)

    def mkdir(self, path: str) -> None:
        """Make a directory."""
        os.mkdir(path, DIRECTORY_MODE)

    def listdir(self, path: str) -> list[str]:
        """The names in a directory."""
        return os.listdir(path)

    def lock(self, descriptor: int) -> None:
        """Lock the file for this descriptor, or raise BlockingIOError."""
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def free(self, path: str) -> tuple[int, int]:
        """Bytes that may still be written to the file system of ``path``, and its size."""
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize

    def stat(self, path: str) -> os.stat_result:
        """Owner and permissions of a file or directory, not followed through a link."""
        return os.lstat(path)


class File:
    """An open file. Every method raises OSError with the file's name in it."""

    def __init__(self, disk: Disk, path: Path, descriptor: int) -> None:
        self._disk = disk
        self._named = named(path)
        self._descriptor = descriptor

    @property
    def path(self) -> Path:
        """Where it is, as far as was told."""
        return self._named.path

    def renamed(self, path: Path) -> None:
        """Take note that its name is another one now."""
        self._named = named(path)

    @property
    def size(self) -> int:
        """Its length in bytes."""
        with self._named:
            return self._disk.size(self._descriptor)

    def read_data(self) -> bytes:
        """All of it up to the last block that is not zeros; what follows is zeros."""
        blocks: list[bytes] = []
        last = 0
        while block := self.read(_BLOCK_BYTES, len(blocks) * _BLOCK_BYTES):
            # Most are zeros where room was reserved: one stands for all, which saves the
            # memory and the time to search it.
            is_zeros = block == _ZEROS or not block.strip(b"\0")
            blocks.append(_ZEROS if is_zeros else block)
            last = last if is_zeros else len(blocks)
        return b"".join(blocks[:last])

    def write(self, buffers: Sequence[Buffer], position: int) -> None:
        """Write all of ``buffers`` at ``position``, one after the other."""
        views = [memoryview(buffer).cast("B") for buffer in buffers]
        with self._named:
            while views:
                written = self._disk.pwritev(self._descriptor, views[:_BUFFERS_MAX], position)
                position += written
                at = 0
                while at < len(views) and written >= len(views[at]):
                    written -= len(views[at])
                    at += 1
                del views[:at]
                if written:
                    views[0] = views[0][written:]
                elif at == 0:
                    raise OSError(errno.EIO, "nothing was written")

    def read(self, size: int, position: int) -> bytes:
        """The ``size`` bytes at ``position``, fewer where the file ends."""
        with self._named:
            data = self._disk.pread(self._descriptor, size, position)
            while len(data) < size:
                more = self._disk.pread(self._descriptor, size - len(data), position + len(data))
                if not more:
                    break
                data += more
            return data

    def sync(self) -> None:
        """Have all that was written on disk before this returns."""
        with self._named:
            self._disk.fdatasync(self._descriptor)

    def sync_all(self) -> None:
        """The same, with the file's length and whatever else is known of it."""
        with self._named:
            self._disk.fsync(self._descriptor)

    def allocate(self, size: int) -> None:
        """Reserve room for ``size`` bytes, so that writing them cannot lack it."""
        with self._named:
            self._disk.allocate(self._descriptor, size)

    def truncate(self, size: int) -> None:
        """Cut off what is after ``size`` bytes."""
        with self._named:
            self._disk.truncate(self._descriptor, size)

    def lock(self) -> bool:
        """Lock the file while it is open here; False if somebody else has it locked."""
        with self._named:
            try:
                self._disk.lock(self._descriptor)
            except BlockingIOError:
                return False
            return True

    def close(self) -> None:
        """Close it; a second time does nothing."""
        if self._descriptor >= 0:
            self._disk.close(self._descriptor)
            self._descriptor = -1


class Directory:
    """A directory on a disk, by whose names its files are found."""

    def __init__(self, disk: Disk, path: Path) -> None:
        self.disk = disk
        self.path = path

    def make(self) -> None:
        """Make it, and those above it, as far as they are missing; durable when it returns."""
        above = Directory(self.disk, self.path.parent)
        if self._exists():
            # Who made it may have been killed before it could do this.
            with suppress(PermissionError):
                above.sync()
            return
        above.make()
        with named(self.path):
            self.disk.mkdir(str(self.path))
        above.sync()

    def _exists(self) -> bool:
        try:
            self.names()
        except FileNotFoundError:
            return False
        return True

    def create(self, name: str) -> File:
        """Make a file that is not there yet and open it to be written."""
        return self._open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL)

    def open(self, name: str, *, writable: bool = False) -> File:
        """Open a file that is there."""
        return self._open(name, os.O_RDWR if writable else os.O_RDONLY)

    def open_or_create(self, name: str) -> File:
        """Open a file to be written, whether or not it was there."""
        return self._open(name, os.O_RDWR | os.O_CREAT)

    def _open(self, name: str, flags: int) -> File:
        path = self.path / name
        with named(path):
            return File(self.disk, path, self.disk.open(str(path), flags))

    def names(self) -> list[str]:
        """What is in it, sorted."""
        with named(self.path):
            return sorted(self.disk.listdir(str(self.path)))

    def rename(self, old: str, new: str) -> None:
        """Give a file its new name, in place of one that has it. ``sync`` makes it last."""
        with named(self.path / old):
            self.disk.rename(str(self.path / old), str(self.path / new))

    def unlink(self, name: str) -> None:
        """Remove a file. ``sync`` makes it last."""
        with named(self.path / name):
            self.disk.unlink(str(self.path / name))

    def sync(self) -> None:
        """Have its names on disk before this returns."""
        with named(self.path):
            descriptor = self.disk.open(str(self.path), os.O_RDONLY | os.O_DIRECTORY)
            try:
                self.disk.fsync(descriptor)
            finally:
                self.disk.close(descriptor)

    def free(self) -> tuple[int, int]:
        """Bytes that may still be written here, and the size of the whole file system."""
        with named(self.path):
            return self.disk.free(str(self.path))


def named(path: Path) -> "_Naming":
    """Let an OSError that is raised in a block carry the name of its file."""
    return _Naming(path)


class _Naming:
    """May be entered again and again, and costs a lone write a tenth of what a generator does."""

    __slots__ = ("path",)

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(self.path)


def is_full(error: OSError) -> bool:
    """Whether ``error`` says that there is no room, and not that something broke."""
    return error.errno in _NO_SPACE
