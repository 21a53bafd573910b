"""A whole file system in memory that knows what was synced, and what a crash may leave of it.

``SimulatedDisk`` takes the place of ``mbctl.files.Disk``. Every change goes through a
``Change`` value, which is kept in ``trace``; replaying a trace on a copy gives the disk as it
was at any moment (``crash_states.py``). What it models, and how harsh it is:

- A write is there for readers at once and on disk after a sync of its file. Until then each
  page may or may not be on disk, in any of the versions it had since the last sync.
- A file's length and allocation are on disk after a sync of the file; before that a crash may
  keep the data and lose the length, or the other way round (then it reads as zeros).
- A new, renamed or removed name is on disk after a sync of its directory, and of no other.
- A failed sync leaves the pages clean in memory and not on disk, as Linux does: readers see
  the new bytes, a later sync succeeds without writing them, and a power cut takes them away.
- A kill of the process (``killed``) loses nothing but open files and locks, but what was not
  synced still is not.
"""

import errno
import os
import random
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from mbctl.files import DIRECTORY_MODE, FILE_MODE, Buffer, Disk

PAGE_BYTES: Final = 4096
ROOT: Final = 1


# --- changes --------------------------------------------------------------------------------


class Made(msgspec.Struct, frozen=True):
    """A new file or directory was given a name."""

    directory: int
    name: str
    inode: int
    is_directory: bool = False


class Wrote(msgspec.Struct, frozen=True):
    """Bytes were written to a file."""

    inode: int
    position: int
    data: bytes


class Allocated(msgspec.Struct, frozen=True):
    """Room was reserved for the first bytes of a file."""

    inode: int
    size: int


class Truncated(msgspec.Struct, frozen=True):
    """A file was given another length."""

    inode: int
    size: int


class Synced(msgspec.Struct, frozen=True):
    """A file or directory was forced to disk, or that failed."""

    inode: int
    failed: bool = False


class Renamed(msgspec.Struct, frozen=True):
    """A file was given another name."""

    directory: int
    name: str
    new_directory: int
    new_name: str


class Unlinked(msgspec.Struct, frozen=True):
    """A name was taken away."""

    directory: int
    name: str


class Marked(msgspec.Struct, frozen=True):
    """Not a change of the disk: something that a test wants to know the place of."""

    what: Any


Change = Made | Wrote | Allocated | Truncated | Synced | Renamed | Unlinked | Marked


class Link(msgspec.Struct, frozen=True):
    """A directory operation not known to be on disk: the names it set, None where removed."""

    names: list[tuple[int, str, int | None]]
    unsynced: frozenset[int]
    """The directories that have to be synced for it to be on disk."""


# --- inodes ---------------------------------------------------------------------------------


class Version(msgspec.Struct, frozen=True):
    """What a page held at some moment since the last sync."""

    content: bytes
    metadata: int
    """How many changes of the file's length and allocation came before it."""
    is_cut: bool = False
    """Whether it is the work of such a change itself, and there if and only if that is."""


class Metadata(msgspec.Struct, frozen=True):
    """A file's length, and the pages it has room for on disk."""

    size: int
    allocated: frozenset[int]


class Content:
    """A file: what readers see, what is on disk, and how the one differs from the other."""

    def __init__(self, page_bytes: int) -> None:
        self.page_bytes = page_bytes
        self.data = bytearray()
        self.durable = bytearray()
        self.allocated: frozenset[int] = frozenset()
        self.pages: dict[int, list[Version]] = {}
        self.metadata: list[Metadata] = [Metadata(0, frozenset())]
        """The one on disk, and those it has had since."""
        self.mode = stat.S_IFREG | FILE_MODE

    def copy(self) -> "Content":
        """The same, to be changed by itself."""
        new = Content(self.page_bytes)
        new.data, new.durable = self.data[:], self.durable[:]
        new.allocated = self.allocated
        new.pages = {page: versions[:] for page, versions in self.pages.items()}
        new.metadata = self.metadata[:]
        new.mode = self.mode
        return new

    def write(self, data: bytes, position: int) -> None:
        """Write for readers to see."""
        end = position + len(data)
        if end > len(self.data):
            self.data.extend(bytes(end - len(self.data)))
        self.data[position:end] = data
        touched = self.pages_of(position, end)
        self._set_metadata(len(self.data), self.allocated | frozenset(touched))
        for page in touched:
            self._note(page, is_cut=False)

    def resize(self, size: int, allocated: frozenset[int]) -> None:
        """Give it another length; what is new reads as zeros."""
        old = len(self.data)
        if size < old:
            del self.data[size:]
        else:
            self.data.extend(bytes(size - old))
        self._set_metadata(size, allocated)
        # Zeros that are cut off, as reserved room is, are nothing to remember.
        written = self.pages_of(0, len(self.durable.rstrip(b"\0")))
        for page in self.pages_of(size, old):
            if page in written or page in self.pages:
                self._note(page, is_cut=True)

    def sync(self) -> None:
        """Put it on disk as readers see it, but for what a failed sync forgot."""
        if not self.pages and len(self.metadata) == 1:
            return
        last = self.metadata[-1]
        self.durable = self.content_with(
            len(self.metadata) - 1, {page: len(found) for page, found in self.pages.items()}
        )
        self.metadata = [last]
        self.pages.clear()

    def forget(self) -> None:
        """Take what was written for synced although it is not."""
        self.pages.clear()

    def content_with(self, metadata: int, pages: dict[int, int]) -> bytearray:
        """What is on disk if that much of its metadata is, and of each page that version."""
        size = self.metadata[metadata].size
        data = self.durable[:size]
        data.extend(bytes(size - len(data)))
        for page, versions in self.pages.items():
            content = self._version(versions, pages.get(page, 0), metadata)
            if content is not None:
                first = page * self.page_bytes
                data[first:size] = (content + data[first + len(content) :])[: max(0, size - first)]
        return data

    def _version(self, versions: list[Version], wanted: int, metadata: int) -> bytes | None:
        """The wanted version of a page, or the nearest that may go with ``metadata``."""
        found: Version | None = None
        for number, version in enumerate(versions, start=1):
            if version.is_cut:
                if version.metadata > metadata:
                    break
                found = version
            elif number <= wanted:
                found = version
        return found.content if found is not None else None

    def pages_of(self, first: int, next_: int) -> range:
        """The pages that hold these bytes."""
        return range(first // self.page_bytes, -(-max(first, next_) // self.page_bytes))

    def _set_metadata(self, size: int, allocated: frozenset[int]) -> None:
        self.allocated = allocated
        now = Metadata(size, allocated)
        if now != self.metadata[-1]:
            self.metadata.append(now)

    def _note(self, page: int, *, is_cut: bool) -> None:
        first = page * self.page_bytes
        content = bytes(self.data[first : first + self.page_bytes]).ljust(self.page_bytes, b"\0")
        versions = self.pages.setdefault(page, [])
        versions.append(Version(content, len(self.metadata) - 1, is_cut))


class Names:
    """A directory: the names in it, for readers and on disk."""

    def __init__(self) -> None:
        self.now: dict[str, int] = {}
        self.durable: dict[str, int] = {}
        self.mode = stat.S_IFDIR | DIRECTORY_MODE

    def copy(self) -> "Names":
        """The same, to be changed by itself."""
        new = Names()
        new.now, new.durable, new.mode = dict(self.now), dict(self.durable), self.mode
        return new


class Call(msgspec.Struct, frozen=True):
    """A call of the disk's interface, for who wants to let it fail."""

    number: int
    """How many came before it."""
    kind: str
    path: str

    def __str__(self) -> str:
        return f"call {self.number}: {self.kind} {self.path}"


class Fault(msgspec.Struct):
    """What is to go wrong, when, and how often (None: every time)."""

    when: Callable[[Call], bool]
    times: int | None
    error: OSError | None = None
    short: int | None = None


class Descriptor(msgspec.Struct):
    """An open file."""

    inode: int
    flags: int
    path: str


# --- the file system ------------------------------------------------------------------------


class SimulatedDisk(Disk):
    """A file system in memory; see the module's text for what a crash does to it."""

    def __init__(self, capacity: int = 1 << 40, page_bytes: int = PAGE_BYTES) -> None:
        self.capacity = capacity
        self.page_bytes = page_bytes
        self.trace: list[Change] = []
        self.calls: list[Call] = []
        self.owner = os.getuid()
        self._inodes: dict[int, Content | Names] = {ROOT: Names()}
        self._links: list[Link] = []
        self._open: dict[int, Descriptor] = {}
        self._locks: dict[int, int] = {}
        self._faults: list[Fault] = []
        self._next_inode = ROOT + 1
        self._next_descriptor = 1_000

    # --- for tests --------------------------------------------------------------------------

    def fail(
        self, when: int | Callable[[Call], bool], error: OSError, *, times: int | None = 1
    ) -> None:
        """Let a call raise ``error``: that with this number, or those that ``when`` is true of."""
        self._faults.append(Fault(_condition(when), times, error=error))

    def shorten(
        self, when: int | Callable[[Call], bool], size: int, *, times: int | None = 1
    ) -> None:
        """Let a write write at most ``size`` bytes."""
        self._faults.append(Fault(_condition(when), times, short=size))

    def mend(self) -> None:
        """Let nothing fail any more."""
        self._faults.clear()

    def mark(self, what: Any) -> None:
        """Put something into the trace that a test wants to know the place of."""
        self.trace.append(Marked(what))

    def read_file(self, path: str) -> bytes:
        """The content of a file as readers see it."""
        return bytes(self._file(self._find(path)).data)

    def write_file(self, path: str, data: bytes) -> None:
        """Make or replace a file, on disk at once and behind everybody's back."""
        directory, name = self._parent(path)
        names = self._names(directory)
        if name not in names.now:
            self.apply(Made(directory, name, self._next_inode))
        inode = names.now[name]
        content = Content(self.page_bytes)
        content.write(data, 0)
        content.sync()
        self._inodes[inode] = content
        self.sync_everything()

    def remove_file(self, path: str) -> None:
        """Take a file away, on disk at once and behind everybody's back."""
        self.apply(Unlinked(*self._parent(path)))
        self.sync_everything()

    def sync_everything(self) -> None:
        """Have all on disk, behind everybody's back."""
        for inode in list(self._inodes):
            self._sync(inode)

    def chmod(self, path: str, mode: int) -> None:
        """Give a file or directory other permissions."""
        found = self._inodes[self._find(path)]
        found.mode = stat.S_IFMT(found.mode) | mode

    def tree(self) -> dict[str, bytes | None]:
        """All files with their content, and directories with None, as readers see them."""
        return dict(self._walk(ROOT, ""))

    def descriptors(self) -> list[str]:
        """The paths of what is open."""
        return [descriptor.path for descriptor in self._open.values()]

    @property
    def used(self) -> int:
        """Bytes that the files take up, those included that are only open."""
        kept = {descriptor.inode for descriptor in self._open.values()} | self._linked()
        pages = sum(len(self._file(i).allocated) for i in kept if self._is_file(i))
        return pages * self.page_bytes

    # --- crashes ----------------------------------------------------------------------------

    def copy(self) -> "SimulatedDisk":
        """The same disk with nothing open and no faults; what is not synced is not there too."""
        new = type(self)(self.capacity, self.page_bytes)
        new._inodes = {number: inode.copy() for number, inode in self._inodes.items()}
        new._links = self._links[:]
        new._next_inode = self._next_inode
        new._next_descriptor = self._next_descriptor
        return new

    killed = copy
    """What is there after the process was killed: everything, but not more on disk than before."""

    def choices(self, *, ordered: bool = True) -> list[int]:
        """How many ways each thing has that a power cut may or may not have left on disk.

        Choice 0 is what was synced, the highest what readers saw. With ``ordered`` a later
        operation on a directory is never kept where an earlier one is lost.
        """
        counts = []
        for number, file in self._files():
            if self._may_be_found(number):
                counts.append(len(file.metadata))
                counts += [len(file.pages[page]) + 1 for page in sorted(file.pages)]
        if ordered:
            return counts + [len(group) + 1 for group in self._groups()]
        return counts + [2] * len(self._links)

    def power_cut(self, chosen: Sequence[int] = (), *, ordered: bool = True) -> "SimulatedDisk":
        """What is there after a power cut that left ``chosen``; by default only what was synced."""
        left = iter(chosen)
        new = type(self)(self.capacity, self.page_bytes)
        new._next_inode = self._next_inode
        new._next_descriptor = self._next_descriptor
        for number, inode in self._inodes.items():
            if isinstance(inode, Names):
                new._inodes[number] = inode.copy()
                new._names(number).now = dict(inode.durable)
            elif self._may_be_found(number):
                metadata = next(left, 0)
                pages = {page: next(left, 0) for page in sorted(inode.pages)}
                new._inodes[number] = _settled(inode, metadata, pages)
        kept = self._kept_in_order(left) if ordered else [k for k in self._links if next(left, 0)]
        for link in kept:
            new._set_names(link)
        for names in new._directories():
            names.durable = dict(names.now)
        return new

    def random_power_cut(self, chance: random.Random, *, ordered: bool = True) -> "SimulatedDisk":
        """What one of the possible power cuts leaves."""
        counts = self.choices(ordered=ordered)
        return self.power_cut([chance.randrange(count) for count in counts], ordered=ordered)

    def _kept_in_order(self, left: Iterator[int]) -> list[Link]:
        kept = [link for group in self._groups() for link in group[: next(left, 0)]]
        return [link for link in self._links if any(link is other for other in kept)]

    def _groups(self) -> list[list[Link]]:
        """Operations not known to be on disk, those together that touch the same directories."""
        groups: list[tuple[set[int], list[Link]]] = []
        for link in self._links:
            touched = {directory for directory, _, _ in link.names}
            joined = [group for group in groups if group[0] & touched]
            groups = [group for group in groups if not group[0] & touched]
            links = [other for _, others in joined for other in others]
            groups.append((touched.union(*(d for d, _ in joined)), [*links, link]))
        return [links for _, links in groups]

    def _may_be_found(self, inode: int) -> bool:
        """Whether a file has a name, or may have one after a power cut."""
        return any(inode in names.durable.values() for names in self._directories()) or any(
            found == inode for link in self._links for _, _, found in link.names
        )

    # --- changes ----------------------------------------------------------------------------

    def apply(self, change: Change) -> None:
        """Let a change happen, and keep it in the trace."""
        self.trace.append(change)
        match change:
            case Made(directory, name, inode, is_directory):
                self._inodes[inode] = Names() if is_directory else Content(self.page_bytes)
                self._next_inode = max(self._next_inode, inode + 1)
                self._link([(directory, name, inode)])
            case Wrote(inode, position, data):
                self._file(inode).write(data, position)
            case Allocated(inode, size):
                file = self._file(inode)
                pages = file.allocated | frozenset(file.pages_of(0, size))
                file.resize(max(size, len(file.data)), pages)
            case Truncated(inode, size):
                file = self._file(inode)
                kept = frozenset(file.pages_of(0, size))
                file.resize(size, file.allocated & kept)
            case Synced(inode, failed):
                if not failed:
                    self._sync(inode)
                elif self._is_file(inode):
                    self._file(inode).forget()
            case Renamed(directory, name, new_directory, new_name):
                inode = self._names(directory).now[name]
                self._link([(new_directory, new_name, inode), (directory, name, None)])
            case Unlinked(directory, name):
                self._link([(directory, name, None)])
            case Marked():
                pass

    def _link(self, names: list[tuple[int, str, int | None]]) -> None:
        link = Link(names, frozenset(directory for directory, _, _ in names))
        self._links.append(link)
        self._set_names(link)

    def _set_names(self, link: Link) -> None:
        for directory, name, inode in link.names:
            _set(self._names(directory).now, name, inode)

    def _sync(self, inode: int) -> None:
        if self._is_file(inode):
            self._file(inode).sync()
            return
        left = []
        for link in self._links:
            unsynced = link.unsynced - {inode}
            if unsynced:
                left.append(Link(link.names, unsynced))
            else:
                for directory, name, found in link.names:
                    _set(self._names(directory).durable, name, found)
        self._links = left

    # --- the operating system's calls ---------------------------------------------------------

    def open(self, path: str, flags: int) -> int:
        """Open a file or directory."""
        self._called("open", path)
        directory, name = self._parent(path)
        inode = self._names(directory).now.get(name) if name else ROOT
        if inode is None:
            if not flags & os.O_CREAT:
                raise _error(errno.ENOENT, path)
            if self.used + self.page_bytes > self.capacity:
                raise _error(errno.ENOSPC, path)
            inode = self._next_inode
            self.apply(Made(directory, name, inode))
        elif flags & os.O_CREAT and flags & os.O_EXCL:
            raise _error(errno.EEXIST, path)
        if self._is_file(inode):
            if flags & os.O_DIRECTORY:
                raise _error(errno.ENOTDIR, path)
        elif flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT):
            raise _error(errno.EISDIR, path)
        self._next_descriptor += 1
        self._open[self._next_descriptor] = Descriptor(inode, flags, path)
        return self._next_descriptor

    def close(self, descriptor: int) -> None:
        """Close, and let go of its lock."""
        found = self._descriptor(descriptor)
        del self._open[descriptor]
        if self._locks.get(found.inode) == descriptor:
            del self._locks[found.inode]
        self._called("close", found.path)

    def pwritev(self, descriptor: int, buffers: Sequence[Buffer], position: int) -> int:
        """Write as much as there is room for."""
        found = self._writable(descriptor)
        data = b"".join(bytes(memoryview(buffer).cast("B")) for buffer in buffers)
        short = self._called("pwritev", found.path)
        data = data[:short]
        size = self._fitting(self._file(found.inode), position, len(data))
        if size == 0 and data:
            raise _error(errno.ENOSPC)
        if size:
            self.apply(Wrote(found.inode, position, data[:size]))
        return size

    def _fitting(self, file: Content, position: int, size: int) -> int:
        """How many of ``size`` bytes at ``position`` there is room for."""
        free = (self.capacity - self.used) // self.page_bytes
        for page in file.pages_of(position, position + size):
            if page not in file.allocated:
                if free <= 0:
                    return max(0, page * self.page_bytes - position)
                free -= 1
        return size

    def pread(self, descriptor: int, size: int, position: int) -> bytes:
        """Read."""
        found = self._descriptor(descriptor)
        self._called("pread", found.path)
        if not self._is_file(found.inode):
            raise _error(errno.EISDIR)
        return bytes(self._file(found.inode).data[position : position + size])

    def fdatasync(self, descriptor: int) -> None:
        """Force to disk."""
        self._force("fdatasync", descriptor)

    def fsync(self, descriptor: int) -> None:
        """Force to disk."""
        self._force("fsync", descriptor)

    def _force(self, kind: str, descriptor: int) -> None:
        found = self._descriptor(descriptor)
        try:
            self._called(kind, found.path)
        except OSError:
            self.apply(Synced(found.inode, failed=True))
            raise
        self.apply(Synced(found.inode))

    def allocate(self, descriptor: int, size: int) -> None:
        """Reserve room."""
        self._called("allocate", self._descriptor(descriptor).path)
        if size <= 0:
            raise _error(errno.EINVAL)
        found = self._writable(descriptor)
        file = self._file(found.inode)
        if self._fitting(file, 0, size) < size:
            raise _error(errno.ENOSPC)
        self.apply(Allocated(found.inode, size))

    def truncate(self, descriptor: int, size: int) -> None:
        """Give a file another length."""
        found = self._descriptor(descriptor)
        self._called("truncate", found.path)
        if size < 0 or not found.flags & (os.O_RDWR | os.O_WRONLY):
            raise _error(errno.EINVAL)
        self.apply(Truncated(found.inode, size))

    def size(self, descriptor: int) -> int:
        """A file's length."""
        found = self._descriptor(descriptor)
        self._called("size", found.path)
        return self._size(found.inode)

    def data_end(self, descriptor: int) -> int:
        """Where the last page ends that is not all zeros."""
        found = self._descriptor(descriptor)
        self._called("data_end", found.path)
        file = self._file(found.inode)
        last = file.pages_of(0, len(file.data.rstrip(b"\0")))
        return min(len(file.data), last.stop * self.page_bytes)

    def rename(self, old: str, new: str) -> None:
        """Give a file another name."""
        self._called("rename", new)
        source, target = self._parent(old), self._parent(new)
        inode = self._names(source[0]).now.get(source[1])
        if inode is None:
            raise _error(errno.ENOENT, old)
        if _parts(new)[: len(_parts(old))] == _parts(old) and _parts(new) != _parts(old):
            raise _error(errno.EINVAL, new)
        there = self._names(target[0]).now.get(target[1])
        if there == inode:
            return
        if there is not None and not self._is_file(there):
            if self._is_file(inode):
                raise _error(errno.EISDIR, new)
            if self._names(there).now:
                raise _error(errno.ENOTEMPTY, new)
        elif there is not None and not self._is_file(inode):
            raise _error(errno.ENOTDIR, new)
        self.apply(Renamed(*source, *target))

    def unlink(self, path: str) -> None:
        """Take a name away."""
        self._called("unlink", path)
        if not self._is_file(self._find(path)):
            raise _error(errno.EISDIR, path)
        self.apply(Unlinked(*self._parent(path)))

    def mkdir(self, path: str) -> None:
        """Make a directory."""
        self._called("mkdir", path)
        directory, name = self._parent(path)
        if name in self._names(directory).now:
            raise _error(errno.EEXIST, path)
        self.apply(Made(directory, name, self._next_inode, is_directory=True))

    def listdir(self, path: str) -> list[str]:
        """The names in a directory, in no order that anybody could rely on."""
        self._called("listdir", path)
        inode = self._find(path)
        if self._is_file(inode):
            raise _error(errno.ENOTDIR, path)
        return list(reversed(self._names(inode).now))

    def lock(self, descriptor: int) -> None:
        """Lock a file for a descriptor."""
        found = self._descriptor(descriptor)
        self._called("lock", found.path)
        if self._locks.setdefault(found.inode, descriptor) != descriptor:
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))

    def free(self, path: str) -> tuple[int, int]:
        """Room that is left, and all there is."""
        self._called("free", path)
        self._find(path)
        return max(0, self.capacity - self.used), self.capacity

    def stat(self, path: str) -> os.stat_result:
        """What is known of a file or directory."""
        self._called("stat", path)
        inode = self._find(path)
        mode, size = self._inodes[inode].mode, self._size(inode)
        return os.stat_result((mode, inode, 1, 1, self.owner, self.owner, size, 0, 0, 0))

    # --- helpers ----------------------------------------------------------------------------

    def _called(self, kind: str, path: str) -> int | None:
        """Count a call, and let it fail if it is to; how short it is to be, if it is."""
        call = Call(len(self.calls), kind, path)
        self.calls.append(call)
        short = None
        for fault in self._faults:
            if fault.times == 0 or not fault.when(call):
                continue
            if fault.short is not None and kind != "pwritev":
                continue
            if fault.times is not None:
                fault.times -= 1
            if fault.error is not None:
                raise OSError(*fault.error.args)
            short = fault.short
        return short

    def _find(self, path: str) -> int:
        directory, name = self._parent(path)
        if not name:
            return ROOT
        found = self._names(directory).now.get(name)
        if found is None:
            raise _error(errno.ENOENT, path)
        return found

    def _parent(self, path: str) -> tuple[int, str]:
        """The directory that a path lies in, and its name there; no name for the root."""
        parts = _parts(path)
        inode = ROOT
        for name in parts[:-1]:
            found = self._names(inode).now.get(name)
            if found is None:
                raise _error(errno.ENOENT, path)
            if self._is_file(found):
                raise _error(errno.ENOTDIR, path)
            inode = found
        return inode, parts[-1] if parts else ""

    def _descriptor(self, descriptor: int) -> Descriptor:
        if descriptor not in self._open:
            raise _error(errno.EBADF)
        return self._open[descriptor]

    def _writable(self, descriptor: int) -> Descriptor:
        found = self._descriptor(descriptor)
        if not found.flags & (os.O_RDWR | os.O_WRONLY):
            raise _error(errno.EBADF)
        return found

    def _is_file(self, inode: int) -> bool:
        return isinstance(self._inodes[inode], Content)

    def _file(self, inode: int) -> Content:
        found = self._inodes[inode]
        assert isinstance(found, Content)
        return found

    def _size(self, inode: int) -> int:
        return len(self._file(inode).data) if self._is_file(inode) else self.page_bytes

    def _names(self, inode: int) -> Names:
        found = self._inodes[inode]
        assert isinstance(found, Names)
        return found

    def _files(self) -> Iterator[tuple[int, Content]]:
        for number, inode in self._inodes.items():
            if isinstance(inode, Content):
                yield number, inode

    def _directories(self) -> Iterator[Names]:
        return (inode for inode in self._inodes.values() if isinstance(inode, Names))

    def _linked(self) -> set[int]:
        return {inode for names in self._directories() for inode in names.now.values()}

    def _walk(self, inode: int, path: str) -> Iterator[tuple[str, bytes | None]]:
        for name, found in sorted(self._names(inode).now.items()):
            here = f"{path}/{name}"
            if self._is_file(found):
                yield here, bytes(self._file(found).data)
            else:
                yield here, None
                yield from self._walk(found, here)


def _settled(file: Content, metadata: int, pages: dict[int, int]) -> Content:
    """The file that a power cut leaves."""
    new = Content(file.page_bytes)
    new.durable = file.content_with(metadata, pages)
    new.data = new.durable[:]
    new.allocated = file.metadata[metadata].allocated
    new.metadata = [file.metadata[metadata]]
    new.mode = file.mode
    return new


def _condition(when: int | Callable[[Call], bool]) -> Callable[[Call], bool]:
    if callable(when):
        return when
    return lambda call: call.number == when


def _set(names: dict[str, int], name: str, inode: int | None) -> None:
    if inode is None:
        names.pop(name, None)
    else:
        names[name] = inode


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def _error(number: int, path: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), path)
