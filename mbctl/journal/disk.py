"""The journal on disk: where records go, where room for them comes from, and where it goes.

    append ─▶ group ─▶ write, fdatasync ─▶ done          (the writer's thread, or here)
    read   ─▶ tail in memory, or the disk                (the reader's thread)
    release ─▶ segment without live batches ─▶ deleted   (the keeper's thread)

All calls come from the loop and all answers go to it. One group is written at a time; what is
appended meanwhile is the next.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import msgspec

from mbctl.batch import Buffer
from mbctl.errors import DiskFull, MbctlError, ServerStopping, StorageFailed
from mbctl.files import Directory, File
from mbctl.journal.backup import Backups
from mbctl.journal.census import Census
from mbctl.journal.directory import read_or_begin, sign, take
from mbctl.journal.format import (
    BATCH,
    BOTH,
    CHANGES,
    HEAD_BYTES,
    MARK,
    SEGMENT_HEAD_BYTES,
    encode_change,
    encode_changes,
    is_cold,
    pack_head,
    place_of,
    position_of,
    salt_of,
    segment_of,
)
from mbctl.journal.group import Group
from mbctl.journal.keeper import Keeper
from mbctl.journal.mover import Mover
from mbctl.journal.reader import Done, Reader, Tail
from mbctl.journal.records import NO_SESSION, Backup, BatchHead, Index, Record, Recovered
from mbctl.journal.recovery import Opened, Progress, recover
from mbctl.journal.space import Space
from mbctl.journal.worker import Loop, ThreadWorker, Timer, Worker
from mbctl.model import KIB, LIMITS, MIB, NS_PER_MS

# A group is written without a thread if it is the only one, this small, and syncs have
# lately taken less than this: the way to a thread and back takes 150 to 250 us, and others are
# kept waiting for no longer than they would not mind.
_INLINE_BYTES = 64 * KIB
_INLINE_NS = 500_000
# More than this no sync counts: one in a hundred takes twenty times as long as most, and says
# nothing of the next.
_SYNC_NS_MAX = 2 * _INLINE_NS
# A group larger than this is given to the thread while it is at another one.
_AHEAD_BYTES = 512 * KIB
# How much the newest sync counts in how long they lately took: a quarter.
_SYNC_SHARE = 4
# What a change takes beside its ranges and name, at most, with the trim that comes of it.
_CHANGE_BYTES = 320
# How often space is looked for while there is none.
_RELIEF_NS = 50 * NS_PER_MS
# After this long without a group a mark is written, so that damage to the last is noticed.
_QUIET_NS = 20 * NS_PER_MS
# With a bound on all bytes a segment is at most this share of it.
_SEGMENTS_MIN = 8

NewWorker = Callable[[str, Loop], Worker]


class JournalOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a journal on disk is kept."""

    durability: str = "always"
    """``always``: synced before a commit is done; ``never``: written before it is done."""
    max_bytes: int | None = None
    """Bytes that segments may take up; None leaves 5 % or 1 GiB of the disk free."""
    segment_bytes: int = 64 * MIB
    snapshot_bytes: int = 256 * MIB
    """How far the journal grows before a snapshot is due."""
    tail_bytes: int = 32 * MIB
    """Bytes of written batches that are kept in memory while they are read."""
    window: int = LIMITS.sends_in_flight
    """How many sends of a publisher session are remembered."""

    @property
    def capacity(self) -> int:
        """Bytes that a segment is made with."""
        if self.max_bytes is None:
            return self.segment_bytes
        return min(self.segment_bytes, max(4 * KIB, self.max_bytes // _SEGMENTS_MIN))


def open_journal(
    directory: Directory,
    loop: Loop,
    options: JournalOptions,
    *,
    progress: Progress = lambda text: None,
    new_worker: NewWorker = ThreadWorker,
) -> tuple["DiskJournal", Recovered]:
    """Take the data directory, recover what is in it, and go on with it.

    ``progress`` is told what was found that is out of the ordinary.

    Raises:
        ServerError: the directory is in use or cannot be used.
        StorageCorrupt, NewerFormat: it cannot be understood; nothing was changed.
        OSError: the disk fails or has no room.
    """
    with ExitStack() as undo:
        lock = take(directory)
        undo.callback(lock.close)
        journal_id = read_or_begin(
            directory, window=options.window, capacity=options.capacity, created=loop.wall_ns()
        )
        opened = recover(directory, journal_id, window=options.window, progress=progress)
        sign(lock)
        journal = DiskJournal(
            directory,
            loop,
            options,
            opened,
            lock=lock,
            journal_id=journal_id,
            new_worker=new_worker,
        )
        undo.pop_all()
    return journal, opened.recovered


class DiskJournal:
    """A Journal in a directory."""

    def __init__(
        self,
        directory: Directory,
        loop: Loop,
        options: JournalOptions,
        opened: Opened,
        *,
        lock: File,
        journal_id: bytes,
        new_worker: NewWorker,
    ) -> None:
        self.durability = options.durability
        self._on_failure: Callable[[MbctlError], None] = lambda error: None
        self._failure: MbctlError | None = None
        self.syncs = 0
        self._directory = directory
        self._loop = loop
        self._lock = lock
        self._salt = salt_of(journal_id)
        self._is_synced = options.durability == "always"
        self._next_record = opened.next_number
        self._clock_offset_ns = opened.clock_ns - loop.now_ns()
        self._space = Space(
            directory,
            loop,
            journal_id=journal_id,
            capacity=options.capacity,
            max_bytes=options.max_bytes,
            window=options.window,
            taken=lambda: self.taken,
        )
        known = [number for number in opened.sizes if not is_cold(number)]
        next_segment = max([*known, *opened.empty, opened.snapshot.segment - 1]) + 1
        self._space.open(opened.empty, next_segment, self._next_record)
        self._tail = Tail(options.tail_bytes)
        self._writer = new_worker("journal writer", loop)
        self._reading = new_worker("journal reader", loop)
        self._keeping = new_worker("journal keeper", loop)
        self._reader = Reader(directory, self._tail, self._reading, self._fail, salt=self._salt)
        self._moving = new_worker("journal mover", loop)
        self._census = Census(opened.sizes, opened.live, opened.batches)
        self._mover = Mover(
            directory,
            loop,
            self._moving,
            self._census,
            self._space,
            journal_id=journal_id,
            window=options.window,
            failed=self._fail,
            on_moved=self._moved,
        )
        self._keeper = Keeper(
            directory,
            opened,
            self._census,
            (self._keeping, self._reading),
            self._reader,
            failed=self._fail,
            journal_id=journal_id,
            window=options.window,
            snapshot_bytes=options.snapshot_bytes,
            unsynced=lambda: None if self._is_synced else segment_of(self._written_place),
            look=self._mover.look,
        )
        self._backups = Backups(directory, loop, self._keeper, self._sealed, self._reading)
        self._changes: list[msgspec.Raw] = []
        # Bytes of the changes that there was said to be room for since the last commit.
        self._promised = 0
        self._group = Group()
        self._under_way: deque[Group] = deque()
        self._durable = self._written_place = self._end
        # The segments that will be sealed by what is under way, and how far they are written.
        self._sealing: dict[int, int] = {}
        self._sync_ns = self._written_ns = 0
        self._quiet: Timer | None = None
        self._is_closing = self._is_relieving = False
        self._relieved_ns = -_RELIEF_NS
        self._prepare()
        self._keeper.tidy()

    @property
    def on_failure(self) -> Callable[[MbctlError], None]:
        """Who is told, once, that a write or sync failed."""
        return self._on_failure

    @on_failure.setter
    def on_failure(self, tell: Callable[[MbctlError], None]) -> None:
        """Tell ``tell``, also of what failed before."""
        self._on_failure = tell
        if self._failure is not None:
            # It failed between opening and now, when there was nobody to tell.
            self._loop.call_soon_threadsafe(partial(tell, self._failure))

    @property
    def index(self) -> Index | None:
        """Where the engine says the batches are."""
        return self._mover.index

    @index.setter
    def index(self, index: Index | None) -> None:
        """Begin to move batches, when the engine has all that was recovered."""
        self._mover.index = index
        self._loop.call_soon_threadsafe(self._mover.look)

    def _sealed(self) -> list[int]:
        """The segments that are sealed, and the one that takes over from some of them."""
        switching = self._mover.switching
        return [*self._census.sizes, *([] if switching is None else [switching])]

    # --- room ---------------------------------------------------------------------------------

    @property
    def taken(self) -> int:
        """Bytes of the disk that records take up."""
        return self._census.bytes + sum(self._sealing.values()) + self._space.active.position

    @property
    def max_bytes(self) -> int:
        """How many bytes may be taken up before a batch is refused."""
        return self._space.limit()

    def check_room(self, size: int, *, is_reserved: bool = False) -> None:
        """Refuse what there may be no room for; see ``Journal``."""
        wanted = size + self._promised
        if is_reserved:
            wanted += _CHANGE_BYTES
        try:
            self._space.check(wanted, is_reserved=is_reserved)
        except DiskFull:
            self._relieve()
            raise
        except OSError as error:
            self._fail(error)
        if is_reserved:
            self._promised = wanted

    def _relieve(self) -> None:
        """Free what can be: dead segments, and if need be the one that is written to."""
        now_ns = self._loop.now_ns()
        if now_ns < self._relieved_ns + _RELIEF_NS:
            return
        self._relieved_ns = now_ns
        segment = self._space.active
        index = segment.index
        is_dead = index is not None and index.batch_count and not self._census.live(segment.number)
        if is_dead and not self._under_way and self._failure is None:
            if self._space.has_spare:
                self._roll()
                self.commit(_nothing)
            elif not self._is_relieving:
                # It gives back at least as much as the next one takes.
                self._is_relieving = True
                self._keeping.submit(partial(self._space.prepare, may_use_all=True), self._relieved)
        self._keeper.tidy(is_pressed=True)

    def _relieved(self, outcome: Exception | None) -> None:
        self._is_relieving = False
        self._check(outcome)

    def _prepare(self) -> None:
        self._keeping.submit(self._space.prepare, self._check)

    def _check(self, outcome: Exception | None) -> None:
        if isinstance(outcome, Exception):
            self._fail(outcome)

    # --- appending ----------------------------------------------------------------------------

    @property
    def _end(self) -> int:
        segment = self._space.active
        return place_of(segment.number, segment.position)

    def append_batch(self, head: BatchHead, batch: Buffer, also: Record | None = None) -> int:
        """Add a batch, and ``also`` in one with it, after all that was appended before."""
        self._append_changes()
        size = memoryview(batch).nbytes
        kind, body, changes, sequence = BATCH, batch, b"", head.sequence
        if also is not None:
            assert head.session == NO_SESSION
            changes = encode_changes([encode_change(also)])
            kind, body, sequence = BOTH, b"".join((batch, changes)), size
        packed = pack_head(
            kind,
            body,
            self._next_record,
            self._durable,
            salt=self._salt,
            count=head.count,
            topic_id=head.topic_id,
            first_offset=head.first_offset,
            timestamp=head.timestamp,
            session=head.session,
            sequence=sequence,
        )
        place = self._append(packed, body, len(changes))
        segment = self._space.active
        assert segment.index is not None
        used_ns = self._loop.now_ns() + self._clock_offset_ns
        segment.index.add_batch(head, position_of(place), size, used_ns)
        if changes:
            segment.index.add_changes(changes)
        self._census.add_batch(segment.number, size)
        self._tail.add(place, batch)
        return place

    def append(self, record: Record) -> None:
        """Add a record after all that was appended before."""
        self._changes.append(encode_change(record))

    def _append_changes(self) -> None:
        """Write the changes that came together as one record."""
        if not self._changes:
            return
        body = encode_changes(self._changes)
        self._changes.clear()
        packed = pack_head(CHANGES, body, self._next_record, self._durable, salt=self._salt)
        self._append(packed, body, len(body))
        assert self._space.active.index is not None
        self._space.active.index.add_changes(body)

    def _append(self, head: bytes, body: Buffer, growth: int) -> int:
        """Put a record where there is room for it; its place."""
        segment = self._space.active
        size = len(head) + memoryview(body).nbytes
        assert segment.index is not None
        growth = segment.index.growth(growth)
        if not segment.has_room(size, growth):
            try:
                if segment.position > SEGMENT_HEAD_BYTES:
                    self._roll()
                    segment = self._space.active
                segment.enlarge(segment.position + size + segment.room_for_footer(growth))
            except OSError as error:
                # What was kept back for changes was not enough.
                self._fail(error)
        place = place_of(segment.number, segment.position)
        self._group.add(segment, head, body)
        segment.position += size
        self._group.end = place_of(segment.number, segment.position)
        self._next_record += 1
        return place

    def _roll(self) -> None:
        """Seal the segment that is written to, and go on with the next."""
        segment = self._space.active
        assert segment.index is not None
        self._group.end_segment(segment, self._next_record)
        self._sealing[segment.number] = segment.position
        self._keeper.expect(segment.index.state_size)
        self._space.advance(self._next_record)
        self._prepare()

    # --- committing ---------------------------------------------------------------------------

    def commit(self, done: Callable[[], None]) -> None:
        """Make all that was appended so far durable, then call ``done``."""
        if self._failure is not None:
            return
        self._append_changes()
        if self._failure is not None:
            return
        self._promised = 0
        self._group.waiters.append(done)
        # The thread has the next at hand when it is done with one, if that is worth a sync.
        if not self._under_way or (len(self._under_way) == 1 and self._group.size > _AHEAD_BYTES):
            self._write()

    def _write(self) -> None:
        """Write what has gathered: here if it is little and nothing else waits."""
        group, self._group = self._group, Group()
        is_alone = not self._under_way
        self._under_way.append(group)
        write = partial(group.write, is_synced=self._is_synced, salt=self._salt)
        is_little = group.is_small and group.size <= _INLINE_BYTES and len(group.waiters) == 1
        if is_alone and (group.is_empty or (is_little and self._sync_ns < _INLINE_NS)):
            try:
                outcome: Any = write()
            except OSError as error:
                outcome = error
            self._written(group, outcome)
        else:
            self._writer.submit(write, partial(self._written, group))

    def _written(self, group: Group, outcome: Any) -> None:
        if self._failure is not None:
            return
        if isinstance(outcome, Exception):
            self._fail(outcome)
            return
        syncs, sync_ns, sealed = outcome
        self.syncs += syncs
        if self._is_synced and syncs and group.size <= _INLINE_BYTES:
            self._sync_ns += (min(sync_ns, _SYNC_NS_MAX) - self._sync_ns) // _SYNC_SHARE
        if group.end:
            self._written_place = group.end
            self._tail.wrote_to(group.end)
            self._durable = group.end if self._is_synced else self._durable
            self._written_ns = self._loop.now_ns()
        if sealed:
            for number in sealed:
                self._sealing.pop(number, None)
            self._keeper.add_sealed(sealed)
        for done in group.waiters:
            done()
        self._under_way.popleft()
        if self._failure is not None or self._under_way:
            return
        if self._group.waiters:
            self._write()
        elif self._is_synced and group.end and not group.is_mark and not self._is_closing:
            self._watch_for_quiet()

    def _watch_for_quiet(self) -> None:
        if self._quiet is None:
            self._quiet = self._loop.call_at(self._written_ns + _QUIET_NS, self._mark)

    def _mark(self) -> None:
        """Say in the journal that all of it is durable, if nothing else will say so soon."""
        self._quiet = None
        if self._failure is not None or self._under_way or not self._group.is_empty:
            return
        if self._loop.now_ns() < self._written_ns + _QUIET_NS:
            self._watch_for_quiet()
            return
        segment = self._space.active
        assert segment.index is not None
        if not segment.has_room(HEAD_BYTES, segment.index.growth(0)):
            # The next record will say it; on a full disk there is nothing to roll to.
            return
        head = pack_head(MARK, b"", self._next_record, self._durable, salt=self._salt)
        self._append(head, b"", 0)
        self._group.is_mark = True
        self.commit(_nothing)

    def _fail(self, error: Exception) -> None:
        """Do nothing more, ever: what is on disk is not known."""
        if self._failure is not None:
            return
        if isinstance(error, OSError):
            path = str(error.filename or self._directory.path)
            failure: MbctlError = StorageFailed(path=path, reason=error.strerror or str(error))
        else:
            failure = StorageFailed(path=str(self._directory.path), reason=repr(error))
        self._failure = failure
        self._mover.halt()
        self._on_failure(failure)

    # --- reading and releasing ----------------------------------------------------------------

    def read(self, places: Sequence[int], done: Done) -> None:
        """Call ``done`` with the batches at ``places``."""
        self._reader.read(places, done)

    def release(self, places: Iterable[int]) -> None:
        """Let the space of these batches be used again."""
        places = list(places)
        if not places or self._failure is not None:
            return
        for place in places:
            self._tail.remove(place)
        self._keeper.release(places)

    def _moved(self, places: list[int]) -> None:
        """Forget where batches were that are elsewhere now."""
        if self._failure is None:
            for place in places:
                self._tail.remove(place)
            self._keeper.tidy()

    # --- backups ------------------------------------------------------------------------------

    def backup(self, done: Callable[[Backup | MbctlError], None]) -> None:
        """Call ``done`` with all that is durable when this is; see ``backup``."""
        if self._failure is not None or self._is_closing:
            done(ServerStopping())
        elif self._space.has_spare:
            self._append_changes()
            if self._space.active.position > SEGMENT_HEAD_BYTES:
                self._roll()
            self.commit(partial(self._backups.begin, done))
        else:
            self._keeping.submit(self._space.prepare, partial(self._back_up, done))

    def _back_up(
        self, done: Callable[[Backup | MbctlError], None], outcome: Exception | None
    ) -> None:
        self._check(outcome)
        if self._space.has_spare or self._failure is not None or self._is_closing:
            self.backup(done)
        else:
            done(DiskFull(size=self.taken, limit=self.max_bytes))

    # --- the end ------------------------------------------------------------------------------

    def close(self, done: Callable[[], None]) -> None:
        """Commit, seal, take a snapshot, and let go of everything; then call ``done``."""
        self._is_closing = True
        if self._quiet is not None:
            self._quiet.cancel()
        if self._failure is not None:
            # A disk that has failed may hang: nothing waits for it, and the process ends.
            self._lock.close()
            done()
        else:
            self.commit(partial(self._seal, done))

    def _seal(self, done: Callable[[], None]) -> None:
        segment = self._space.active
        assert segment.index is not None
        self._keeper.close()
        self._mover.close()
        finish = partial(self._let_go, done)
        is_used = segment.index.first_number != self._next_record
        if is_used:
            self._group.end_segment(segment, self._next_record)
        if self._space.has_spare or not is_used:
            # The segment that replay would begin with is there, so that it can be missed.
            finish = partial(self._keeper.take_snapshot, finish)
        self.commit(finish)

    def _let_go(self, done: Callable[[], None]) -> None:
        """End the workers, one after the other, then let go of the files."""
        finish = partial(self._finish, done)
        finish = partial(self._keeping.close, finish)
        finish = partial(self._moving.close, finish)
        finish = partial(self._writer.close, finish)
        self._backups.close()
        self._reading.submit(self._reader.close, lambda outcome: self._reading.close(finish))

    def _finish(self, done: Callable[[], None]) -> None:
        self._space.close()
        self._lock.close()
        done()


def _nothing() -> None:
    """Wait for nothing."""
