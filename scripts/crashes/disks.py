"""Bad disks: one that kills the server at a chosen call, one that a power cut empties, a slow one.

Each is a ``Disk`` that can be mixed with the others; the server program says which. They are
set up by class attributes, because the server makes its disk itself.
"""

import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import ClassVar, TypeVar

import msgspec

from mbctl.files import Buffer, Disk

SEGMENT = ".segment"
TEMPORARY = ".segment.tmp"
COLD = (".cold", ".cold.tmp")
_PAGE = 4096
_NUMBER = re.compile(r"\d{10}")

# What a server does at its disk when it is killed, as far as that can be told from outside.
PHASES = ("append", "sync", "roll", "snapshot", "reclaim", "move", "recovery")
MOMENTS = ("before", "middle", "after")

T = TypeVar("T")


def phase_of(call: str, path: str) -> str:
    """What the server is about when it makes this call; empty for what belongs to no phase."""
    name = os.path.basename(path)
    if name.startswith("snapshot"):
        return "snapshot"
    if name.endswith(COLD):
        return "move"
    if name.endswith(TEMPORARY):
        return "roll"
    if not name.endswith(SEGMENT):
        return ""
    return {
        "pwritev": "append",
        "fdatasync": "sync",
        "unlink": "reclaim",
        "truncate": "roll",
        "fsync": "roll",
    }.get(call, "")


class Kill(msgspec.Struct, frozen=True):
    """Die at the ``count``-th call of a phase, before, in the middle of or after it."""

    phase: str
    count: int
    moment: str
    report: str
    """The file that is told what was hit."""


class NamedDisk(Disk):
    """Knows the path of each descriptor, also after its file was renamed."""

    def __init__(self) -> None:
        self._paths: dict[int, str] = {}

    def open(self, path: str, flags: int) -> int:
        descriptor = super().open(path, flags)
        self._paths[descriptor] = path
        return descriptor

    def close(self, descriptor: int) -> None:
        self._paths.pop(descriptor, None)
        super().close(descriptor)

    def rename(self, old: str, new: str) -> None:
        super().rename(old, new)
        for descriptor, path in self._paths.items():
            if path == old:
                self._paths[descriptor] = new

    def path(self, descriptor: int) -> str:
        """The path of an open file."""
        return self._paths.get(descriptor, "")


class PowerCutDisk(NamedDisk):
    """Keeps what is written in the process's memory until it is synced.

    A kill -9 then loses what a power cut would. As with a real disk, some pages of what was
    not synced get there all the same, in no order: ``leak`` is the share of the writes of
    which some do. Names and lengths of files are durable at once.
    """

    leak: ClassVar[float] = 0.3
    skips_fdatasync: ClassVar[bool] = False
    """What a server does that acknowledges without a sync: this disk must show it."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._unsynced: dict[int, list[tuple[int, bytes]]] = {}
        self._random = random.Random(os.getpid())

    def open(self, path: str, flags: int) -> int:
        descriptor = super().open(path, flags)
        if flags & os.O_EXCL:
            # The number of a file that is gone may be given again.
            self._unsynced.pop(os.fstat(descriptor).st_ino, None)
        return descriptor

    def pwritev(self, descriptor: int, buffers: Sequence[Buffer], position: int) -> int:
        content = b"".join(buffers)
        with self._lock:
            inode = os.fstat(descriptor).st_ino
            self._unsynced.setdefault(inode, []).append((position, content))
            if self._random.random() < self.leak:
                self._leak(descriptor, content, position)
        return len(content)

    def _leak(self, descriptor: int, content: bytes, position: int) -> None:
        end = position + len(content)
        for page in range(position // _PAGE, end // _PAGE + 1):
            if self._random.random() < 0.5:
                first, last = max(page * _PAGE, position), min((page + 1) * _PAGE, end)
                os.pwrite(descriptor, content[first - position : last - position], first)

    def pread(self, descriptor: int, size: int, position: int) -> bytes:
        with self._lock:
            pieces = list(self._unsynced.get(os.fstat(descriptor).st_ino, ()))
            found = bytearray(super().pread(descriptor, size, position))
            length = self.size(descriptor)
        found += bytes(max(0, min(size, length - position) - len(found)))
        for begin, content in pieces:
            first, last = max(begin, position), min(begin + len(content), position + len(found))
            if first < last:
                found[first - position : last - position] = content[first - begin : last - begin]
        return bytes(found)

    def size(self, descriptor: int) -> int:
        pieces = self._unsynced.get(os.fstat(descriptor).st_ino, ())
        ends = [position + len(content) for position, content in pieces]
        return max([super().size(descriptor), *ends])

    def truncate(self, descriptor: int, size: int) -> None:
        self._flush(descriptor)
        super().truncate(descriptor, size)

    def fdatasync(self, descriptor: int) -> None:
        if not self.skips_fdatasync:
            self._flush(descriptor)
        super().fdatasync(descriptor)

    def fsync(self, descriptor: int) -> None:
        self._flush(descriptor)
        super().fsync(descriptor)

    def _flush(self, descriptor: int) -> None:
        with self._lock:
            for position, content in self._unsynced.pop(os.fstat(descriptor).st_ino, ()):
                assert os.pwrite(descriptor, content, position) == len(content)


class SlowDisk(Disk):
    """Takes its time for a sync."""

    sync_s: ClassVar[float] = 0.0

    def fdatasync(self, descriptor: int) -> None:
        time.sleep(self.sync_s)
        super().fdatasync(descriptor)


class SlowReadingDisk(Disk):
    """Takes its time for each read, so that a recovery is long enough to be met."""

    read_s: ClassVar[float] = 0.0

    def pread(self, descriptor: int, size: int, position: int) -> bytes:
        time.sleep(self.read_s)
        return super().pread(descriptor, size, position)


class KillingDisk(NamedDisk):
    """Kills its own process, as SIGKILL from outside would, at a chosen call."""

    kill: ClassVar[Kill]
    is_ready: ClassVar[bool] = False
    """Set when the server has said that it is ready."""

    def __init__(self) -> None:
        super().__init__()
        self._calls = count(1)
        self._dying = threading.Lock()

    def _is_hit(self, call: str, path: str) -> bool:
        phase = phase_of(call, path) if KillingDisk.is_ready else "recovery"
        return phase == self.kill.phase and next(self._calls) == self.kill.count

    def _around(self, call: str, path: str, act: Callable[[], T]) -> T:
        if not self._is_hit(call, path):
            return act()
        if self.kill.moment == "before":
            self._die(call, path)
        elif self.kill.moment == "middle":
            threading.Thread(target=self._die, args=(call, path), daemon=True).start()
        result = act()
        self._die(call, path)
        return result

    def _die(self, call: str, path: str) -> None:
        # Of two threads that get here the second waits for its end.
        self._dying.acquire()
        name = "directory" if os.path.isdir(path) else _NUMBER.sub("N", os.path.basename(path))
        with open(self.kill.report, "a") as file:
            file.write(f"{self.kill.phase} {self.kill.moment} {call} {name}\n")
        os.kill(os.getpid(), signal.SIGKILL)
        # Nothing may follow, also if the signal takes its time.
        time.sleep(60)

    def pwritev(self, descriptor: int, buffers: Sequence[Buffer], position: int) -> int:
        path = self.path(descriptor)
        if not self._is_hit("pwritev", path):
            return super().pwritev(descriptor, buffers, position)
        content = b"".join(buffers)
        size = {"before": 0, "middle": random.randrange(len(content)), "after": len(content)}
        super().pwritev(descriptor, [content[: size[self.kill.moment]]], position)
        self._die("pwritev", path)
        return 0

    def pread(self, descriptor: int, size: int, position: int) -> bytes:
        path = self.path(descriptor)
        # Only in a recovery is reading an act that counts.
        if not KillingDisk.is_ready and self._is_hit("pread", path):
            self._die("pread", path)
        return super().pread(descriptor, size, position)

    def open(self, path: str, flags: int) -> int:
        # Opening a file that is there changes nothing.
        if not flags & os.O_CREAT:
            return super().open(path, flags)
        call = super().open
        return self._around("open", path, lambda: call(path, flags))

    def fdatasync(self, descriptor: int) -> None:
        call = super().fdatasync
        self._around("fdatasync", self.path(descriptor), lambda: call(descriptor))

    def fsync(self, descriptor: int) -> None:
        call = super().fsync
        self._around("fsync", self.path(descriptor), lambda: call(descriptor))

    def allocate(self, descriptor: int, size: int) -> None:
        call = super().allocate
        self._around("allocate", self.path(descriptor), lambda: call(descriptor, size))

    def truncate(self, descriptor: int, size: int) -> None:
        call = super().truncate
        self._around("truncate", self.path(descriptor), lambda: call(descriptor, size))

    def rename(self, old: str, new: str) -> None:
        call = super().rename
        self._around("rename", old, lambda: call(old, new))

    def unlink(self, path: str) -> None:
        call = super().unlink
        self._around("unlink", path, lambda: call(path))


class EarlyAcknowledgements:
    """What must never be: a journal that says that a commit is durable before it is."""

    @staticmethod
    def install() -> None:
        """Break the journal of this process."""
        from mbctl.journal import disk
        from mbctl.journal.disk import DiskJournal

        # In the thread, however fast the disk is: an answer is sent at the end of a turn, so
        # with a sync in the same turn nobody could tell that it was given before.
        disk._INLINE_NS = 0
        honest = DiskJournal.commit

        def commit(journal: DiskJournal, done: object) -> None:
            done()  # type: ignore[operator]
            honest(journal, lambda: None)

        DiskJournal.commit = commit  # type: ignore[assignment, method-assign]
