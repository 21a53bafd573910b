"""The journal's twin without a disk: keeps batches in memory and forgets all else."""

from collections.abc import Callable, Iterable, Sequence

from mbctl.batch import Buffer
from mbctl.errors import DiskFull, MbctlError, NotSupported
from mbctl.journal.records import Backup, BatchHead, Damaged, Index, Record

# What a batch costs beside its own bytes: its objects and its entry; measured at 250.
BATCH_BYTES = 256


class MemoryJournal:
    """A Journal whose commits are done at once and whose records end with the process."""

    durability = "memory"
    syncs = 0

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.on_failure: Callable[[MbctlError], None] = _never
        self.index: Index | None = None
        """Not used: nothing is ever moved."""
        self._batches: dict[int, Buffer] = {}
        self._next_place = 1
        self._size = 0

    @property
    def taken(self) -> int:
        """Bytes of memory that the batches take up."""
        return self._size + BATCH_BYTES * len(self._batches)

    def check_room(self, size: int, *, is_reserved: bool = False) -> None:
        """Refuse a batch of ``size`` bytes that there is no room for.

        What frees space needs none here.

        Raises:
            DiskFull: it would be more than ``max_bytes``.
        """
        taken = self.taken
        if not is_reserved and taken + size > self.max_bytes:
            raise DiskFull(size=taken, limit=self.max_bytes)

    def append_batch(self, head: BatchHead, batch: Buffer, also: Record | None = None) -> int:
        """Keep ``batch``; its place. What ``also`` tells of is in memory already."""
        assert head.count > 0
        place = self._next_place
        self._next_place += 1
        self._batches[place] = batch
        self._size += memoryview(batch).nbytes
        return place

    def append(self, record: Record) -> None:
        """Nothing to do: the state that the record tells of is in memory already."""

    def commit(self, done: Callable[[], None]) -> None:
        """Call ``done``: in memory there is nothing to wait for."""
        done()

    def read(self, places: Sequence[int], done: Callable[[list[Buffer | Damaged]], None]) -> None:
        """Call ``done`` with the batches at ``places``."""
        done([self._batches[place] for place in places])

    def release(self, places: Iterable[int]) -> None:
        """Forget these batches."""
        for place in places:
            self._size -= memoryview(self._batches.pop(place)).nbytes
        assert self._size >= 0

    def backup(self, done: Callable[[Backup | MbctlError], None]) -> None:
        """Refuse it: there is nothing on a disk."""
        done(NotSupported(what="a backup of what is in memory only"))

    def close(self, done: Callable[[], None]) -> None:
        """Forget everything, and call ``done``."""
        self._batches.clear()
        self._size = 0
        done()


def _never(error: MbctlError) -> None:
    """Memory does not fail."""
