"""Gives space back: counts what is alive, takes snapshots, deletes what is dead.

A sealed segment is deleted when nothing in it is alive and a snapshot covers it; a cold one
needs no snapshot, for it has nothing but batches. All work on files is done by a worker of
its own.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TypeVar

from mbctl.files import Directory
from mbctl.journal.census import Census
from mbctl.journal.format import POSITION_BITS, is_cold, segment_name
from mbctl.journal.reader import Reader
from mbctl.journal.recovery import Opened
from mbctl.journal.segment import read_footer
from mbctl.journal.snapshot import NoRoom, keep_room, read_snapshot, write_snapshot
from mbctl.journal.worker import Job, Outcome, Worker

T = TypeVar("T")

# A snapshot may cost this share of what the journal has grown by since the last.
_SNAPSHOT_SHARE = 16


class Keeper:
    """The sealed segments of a journal and its snapshot."""

    def __init__(
        self,
        directory: Directory,
        opened: Opened,
        census: Census,
        workers: tuple[Worker, Worker],
        reader: Reader,
        *,
        failed: Callable[[Exception], None],
        journal_id: bytes,
        window: int,
        snapshot_bytes: int,
        unsynced: Callable[[], int | None],
        look: Callable[[], None],
    ) -> None:
        self._census = census
        # Whoever empties segments is told when there may be something to do.
        self._look = look
        self._directory = directory
        self._reader = reader
        self._worker, self._reading = workers
        self._failed = failed
        self._journal_id = journal_id
        self._window = window
        self._snapshot_bytes = snapshot_bytes
        self._unsynced = unsynced
        self._covered = opened.snapshot.segment
        """The snapshot covers the segments before this one."""
        self._snapshot_size = opened.snapshot.size
        # By how much the next snapshot may be larger.
        self._state_size = opened.state_size
        # While somebody reads what a backup names, nothing is deleted.
        self._holds = 0
        self._is_busy = False
        self._waiting: list[Callable[[], None]] = []
        self._is_closed = False

    def release(self, places: Iterable[int]) -> None:
        """Count batches out that nobody needs any more."""
        if self._census.subtract(Counter(place >> POSITION_BITS for place in places)):
            self.tidy()
        else:
            self._look()

    def add_sealed(self, sizes: dict[int, int]) -> None:
        """Take over segments that were sealed."""
        self._census.add_sealed(sizes)
        self.tidy()

    def expect(self, state_size: int) -> None:
        """Keep room for a snapshot that takes in ``state_size`` bytes more."""
        self._state_size += state_size
        size = self._snapshot_size + self._state_size
        self._worker.submit(lambda: keep_room(self._directory, size), self._note)

    def tidy(self, *, is_pressed: bool = False) -> None:
        """Delete what can be, and take a snapshot if it is time to, or pays when pressed."""
        if self._is_closed:
            return
        sizes, live = self._census.sizes, self._census.live
        dead_ones = [n for n in sizes if not live(n) and self._is_covered(n)]
        if dead_ones and not self._holds:
            self._delete(dead_ones)
        uncovered = {n: size for n, size in sizes.items() if not self._is_covered(n)}
        dead = sum(size for n, size in uncovered.items() if not live(n))
        cost = _SNAPSHOT_SHARE * self._snapshot_size
        is_due = sum(uncovered.values()) >= max(self._snapshot_bytes, cost)
        if is_due or dead >= cost or (is_pressed and dead):
            self.take_snapshot()
        self._look()

    def hold(self) -> None:
        """Delete nothing from now on, until each hold is let go."""
        self._holds += 1

    def submit(self, job: Job[T], done: Outcome[T]) -> None:
        """Do a job on files of its own, between those of this one."""
        self._worker.submit(job, done)

    def let_go(self) -> None:
        """End one hold."""
        self._holds -= 1
        self.tidy()

    def _is_covered(self, number: int) -> bool:
        return number < self._covered or is_cold(number)

    def _delete(self, numbers: list[int]) -> None:
        """Delete segments once all reads under way are done."""
        for number in numbers:
            self._census.remove(number)

        def forgotten(outcome: Exception | None) -> None:
            self._worker.submit(unlink, self._note)

        unsynced = self._unsynced()

        def unlink() -> None:
            # First what says that nobody needs it, where commits do not see to that.
            if unsynced is not None:
                self._sync(unsynced)
            for number in numbers:
                self._directory.unlink(segment_name(number))
            self._directory.sync()

        self._reader.after_reads(
            lambda: self._reading.submit(lambda: self._reader.forget(numbers), forgotten)
        )

    def _sync(self, number: int) -> None:
        try:
            file = self._directory.open(segment_name(number))
        except FileNotFoundError:
            # It was sealed since, and so synced, and deleted.
            return
        try:
            file.sync()
        finally:
            file.close()

    # --- the snapshot -------------------------------------------------------------------------

    def take_snapshot(self, done: Callable[[], None] = lambda: None) -> None:
        """Take a snapshot of all that is sealed, then call ``done``."""
        end = self._covered
        while end in self._census.sizes:
            end += 1
        if self._is_busy:
            self._waiting.append(done)
            return
        if end == self._covered:
            done()
            return
        self._is_busy = True

        def taken(outcome: int | Exception | None) -> None:
            self._is_busy = False
            if isinstance(outcome, int):
                self._covered, self._snapshot_size = end, outcome
                self._state_size = 0
                self.tidy()
            else:
                self._note(outcome)
            waiting, self._waiting = self._waiting, []
            for call in (done, *waiting):
                call()

        self._worker.submit(lambda: self._snapshot(end), taken)

    def _snapshot(self, end: int) -> int:
        """Fold the segments up to before ``end`` into the snapshot; its size."""
        snapshot = read_snapshot(self._directory, self._journal_id, self._window)
        next_number = snapshot.next_number
        for number in range(snapshot.segment, end):
            file = self._directory.open(segment_name(number))
            try:
                sealed = read_footer(file, number, self._journal_id, self._window)
            finally:
                file.close()
            assert sealed is not None, f"segment {number} is not sealed"
            index, _, next_number = sealed
            snapshot.state.add_segment(index)
        written = write_snapshot(
            self._directory, snapshot.state, end, next_number, self._journal_id
        )
        return written.size

    def _note(self, outcome: Exception | None) -> None:
        """Pass on what went wrong; for lack of room there will be another snapshot."""
        if isinstance(outcome, Exception) and not isinstance(outcome, NoRoom):
            self._failed(outcome)

    def close(self) -> None:
        """Begin nothing more."""
        self._is_closed = True
