"""Drives an engine for the conformance tests: in virtual time, or whatever a later one needs.

A test says what it wants through a ``Driver`` and never touches the engine, so that the
same tests run against an engine on a real loop in real time.
"""

from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from typing import Any, Protocol

from folded_records import FoldedRecords

from mbctl.batch import Buffer
from mbctl.engine.local import LocalEngine
from mbctl.errors import DiskFull, MbctlError
from mbctl.journal.memory import MemoryJournal
from mbctl.journal.records import BatchHead, Damaged, Journal, Record, Recovered
from mbctl.model import KIB, MIB, NS_PER_MS, NS_PER_S, Limits


class Pending:
    """A verb under way. Its answer must come exactly once."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.returned: Any = None
        """What the verb itself returned, as the number of a waiting pull."""

    def __call__(self, answer: Any = None) -> None:
        self.answers.append(answer)
        assert len(self.answers) == 1, f"answered twice: {self.answers}"

    @property
    def done(self) -> bool:
        """Whether the answer has come."""
        return bool(self.answers)

    def result(self) -> Any:
        """The answer; raises it if it is a refusal."""
        assert self.done, "not answered"
        if isinstance(self.answers[0], MbctlError):
            raise self.answers[0]
        return self.answers[0]


class Driver(Protocol):
    """What a conformance test may do with an engine."""

    limits: Limits
    capabilities: frozenset[str]
    """``dense_offsets``: the offsets of a topic have no gaps.
    ``durable``: what was answered outlives a restart.
    """

    def call(self, verb: str, *args: Any, **named: Any) -> Any:
        """Do a verb and wait for its answer, which may take time; raises a refusal."""

    def start(self, verb: str, *args: Any, **named: Any) -> Pending:
        """Begin a verb that is answered through ``done``."""

    def tell(self, verb: str, *args: Any) -> None:
        """Do a verb that has no answer."""

    def settle(self) -> None:
        """Let what is under way come to rest; hardly any time passes."""

    def advance(self, seconds: float) -> None:
        """Let time pass."""

    def restart(self, *, crash: bool) -> None:
        """End the engine and go on with what it stored; only with the capability ``durable``.

        With ``crash`` it ends as if killed: what has no answer yet will never have one.
        """

    def close(self) -> None:
        """End the engine; everything must have been answered."""


class VirtualRuntime:
    """A Runtime whose time stands still until it is told to pass."""

    def __init__(self, ns: int = 1_000 * NS_PER_S) -> None:
        self.ns = ns
        self.wall_offset_ns = 1_700_000_000 * NS_PER_S
        self.turns = 0
        self._soon: list[Callable[[], None]] = []
        self._timers: list[tuple[int, int, VirtualTimer]] = []
        self._count = 0

    def now_ns(self) -> int:
        return self.ns

    def wall_ns(self) -> int:
        return self.ns + self.wall_offset_ns

    def call_soon(self, call: Callable[[], None]) -> None:
        self._soon.append(call)

    call_soon_threadsafe = call_soon

    def call_at(self, when_ns: int, call: Callable[[], None]) -> "VirtualTimer":
        timer = VirtualTimer(call)
        self._count += 1
        heappush(self._timers, (when_ns, self._count, timer))
        return timer

    def run_turn(self) -> None:
        """Call what was to be called soon, once."""
        soon, self._soon = self._soon, []
        self.turns += 1
        for call in soon:
            call()

    def run_turns(self) -> None:
        """Turn until nothing is to be called soon."""
        while self._soon:
            self.run_turn()

    def advance(self, ns: int) -> None:
        """Let time pass, timer by timer."""
        until = self.ns + ns
        self.run_turns()
        while (when_ns := self.next_timer_ns()) is not None and when_ns <= until:
            self.run_timer()
        self.ns = until

    def next_timer_ns(self) -> int | None:
        """When the next timer is due that was not called off."""
        while self._timers and self._timers[0][2].call is None:
            heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def run_timer(self) -> None:
        """Let it be the time of the next timer."""
        when_ns, _, timer = heappop(self._timers)
        self.ns = max(self.ns, when_ns)
        assert timer.call is not None
        timer.call()
        self.run_turns()


class VirtualTimer:
    """A call in virtual time."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class TestJournal(MemoryJournal):
    """A journal in memory that writes down what it is told.

    With ``hold`` its commits are not done before ``let_go``, with ``hold_reads`` its reads
    not before ``let_reads_go``. The batches at the ``damaged`` places cannot be read.
    """

    __test__ = False
    durability = "always"

    def __init__(self, max_bytes: int = 64 * MIB) -> None:
        super().__init__(max_bytes)
        self.hold = self.hold_reads = False
        self.is_full = False
        """Whether there is no room even for what frees space."""
        self.damaged: set[int] = set()
        self.heads: list[BatchHead] = []
        self.records: list[Record] = []
        self.released: list[int] = []
        self.asked: list[int] = []
        """The places that were to be read."""
        self.commits = 0
        self._waiting: list[Callable[[], None]] = []
        self._reads: list[Callable[[], None]] = []

    def check_room(self, size: int, *, is_reserved: bool = False) -> None:
        if self.is_full:
            raise DiskFull(size=self.taken, limit=self.max_bytes)
        super().check_room(size, is_reserved=is_reserved)

    def append_batch(self, head: BatchHead, batch: Buffer, also: Record | None = None) -> int:
        self.heads.append(head)
        if also is not None:
            self.records.append(also)
        return super().append_batch(head, batch, also)

    def append(self, record: Record) -> None:
        self.records.append(record)

    def commit(self, done: Callable[[], None]) -> None:
        self.commits += 1
        if self.hold or self._waiting:
            self._waiting.append(done)
        else:
            done()

    def read(self, places: Sequence[int], done: Callable[[list[Buffer | Damaged]], None]) -> None:
        self.asked += places
        bodies = bodies_of(super().read, places)
        for index, place in enumerate(places):
            if place in self.damaged:
                bodies[index] = Damaged("its CRC is wrong")
        if self.hold_reads:
            self._reads.append(lambda: done(bodies))
        else:
            done(bodies)

    def release(self, places: Iterable[int]) -> None:
        places = list(places)
        self.released += places
        super().release(places)

    @property
    def places(self) -> list[int]:
        """Where there are batches."""
        return list(self._batches)

    def move(self, place: int) -> int:
        """Have a batch elsewhere; where."""
        self._batches[self._next_place] = self._batches.pop(place)
        self._next_place += 1
        return self._next_place - 1

    @property
    def waiting(self) -> int:
        """How many commits are not done."""
        return len(self._waiting)

    def let_go(self, count: int | None = None) -> None:
        """Let the oldest commits be done: so many, or all."""
        done, self._waiting = self._waiting[:count], self._waiting[count:] if count else []
        for call in done:
            call()

    def let_reads_go(self) -> None:
        """Let all reads be done."""
        reads, self._reads = self._reads, []
        for call in reads:
            call()


def bodies_of(
    read: Callable[[Sequence[int], Callable[[list[Buffer | Damaged]], None]], None],
    places: Sequence[int],
) -> list[Buffer | Damaged]:
    """What a journal in memory reads, which it does at once."""
    bodies: list[Buffer | Damaged] = []
    read(places, bodies.extend)
    return bodies


class LaggingJournal(MemoryJournal):
    """A journal in memory that is as slow as a disk, for commits and for reads."""

    def __init__(self, runtime: VirtualRuntime, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self.runtime = runtime

    def commit(self, done: Callable[[], None]) -> None:
        self.runtime.call_at(self.runtime.ns + 3 * NS_PER_MS, done)

    def read(self, places: Sequence[int], done: Callable[[list[Buffer | Damaged]], None]) -> None:
        # What is released later is still read: the batches are taken hold of here.
        bodies = bodies_of(super().read, places)
        self.runtime.call_at(self.runtime.ns + NS_PER_MS, lambda: done(bodies))


class RememberingJournal(LaggingJournal):
    """A slow journal that remembers in ``log`` what it was told, and how much is durable."""

    durability = "always"

    def __init__(self, runtime: VirtualRuntime, max_bytes: int) -> None:
        super().__init__(runtime, max_bytes)
        self.log: list[Record | tuple[BatchHead, int, Record | None]] = []
        self.durable = 0
        self.released: list[int] = []

    def append_batch(self, head: BatchHead, batch: Buffer, also: Record | None = None) -> int:
        place = super().append_batch(head, batch, also)
        self.log.append((head, place, also))
        return place

    def append(self, record: Record) -> None:
        self.log.append(record)

    def commit(self, done: Callable[[], None]) -> None:
        end = len(self.log)

        def durable() -> None:
            self.durable = end
            self.syncs += 1
            done()

        super().commit(durable)

    def release(self, places: Iterable[int]) -> None:
        places = list(places)
        self.released += places
        super().release(places)

    def close(self, done: Callable[[], None]) -> None:
        """Keep the batches: the next process reads them."""
        assert self.durable == len(self.log)
        done()

    def successor(
        self, runtime: VirtualRuntime, window: int
    ) -> tuple["RememberingJournal", Recovered]:
        """The journal of the next process, and what it finds: what was durable here."""
        log = self.log[: self.durable]
        journal = RememberingJournal(runtime, self.max_bytes)
        journal.log, journal.durable, journal.released = log, len(log), self.released
        journal._next_place = self._next_place
        folded = FoldedRecords(window=window)
        for entry in log:
            if isinstance(entry, tuple):
                head, place, also = entry
                body = self._batches.get(place, b"released")
                folded.append_batch(head, memoryview(body).nbytes, place, also)
            else:
                folded.append(entry)
        folded.release(self.released)
        for topic in folded.topics.values():
            for _, _, place, _, size in topic.batches:
                journal._batches[place] = self._batches[place]
                journal._size += size
        return journal, folded.recovered()


class Store(Protocol):
    """Where an engine in virtual time has its journal."""

    capabilities: frozenset[str]

    def open(self, runtime: VirtualRuntime, limits: Limits) -> tuple[Journal, Recovered | None]:
        """The journal, and what was in it, the first time or after the process ended."""


class VolatileStore:
    """A journal that is made anew each time."""

    capabilities = frozenset({"dense_offsets"})

    def __init__(self, new_journal: Callable[[VirtualRuntime], Journal]) -> None:
        self._new_journal = new_journal

    def open(self, runtime: VirtualRuntime, limits: Limits) -> tuple[Journal, Recovered | None]:
        return self._new_journal(runtime), None


class RememberingStore:
    """Journals that follow one another and know what the one before held."""

    capabilities = frozenset({"dense_offsets", "durable"})

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._journal: RememberingJournal | None = None

    def open(self, runtime: VirtualRuntime, limits: Limits) -> tuple[Journal, Recovered | None]:
        if self._journal is None:
            self._journal = RememberingJournal(runtime, self._max_bytes)
            return self._journal, Recovered(1, [], [])
        self._journal, recovered = self._journal.successor(runtime, limits.sends_in_flight)
        return self._journal, recovered


class LocalDriver:
    """A local engine in virtual time."""

    def __init__(self, store: Store, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.capabilities = store.capabilities
        self.store = store
        self.pending: list[Pending] = []
        self._open(VirtualRuntime())

    def _open(self, runtime: VirtualRuntime) -> None:
        self.runtime = runtime
        self.journal, recovered = self.store.open(runtime, self.limits)
        self.engine = LocalEngine(self.journal, runtime, self.limits, recovered)
        self.is_closed = False
        runtime.run_turns()

    def restart(self, *, crash: bool) -> None:
        assert "durable" in self.capabilities
        if not crash:
            self.close()
        self.pending = [pending for pending in self.pending if pending.done]
        # What the old runtime was still to call is gone with its process.
        self._open(VirtualRuntime(self.runtime.ns + NS_PER_S))
        self.engine.core.check()

    def call(self, verb: str, *args: Any, **named: Any) -> Any:
        pending = self.start(verb, *args, **named)
        self._wait_for(pending)
        self.engine.core.check()
        return pending.result()

    def _wait_for(self, pending: Pending) -> None:
        self.runtime.run_turns()
        while not pending.done:
            assert self.runtime.next_timer_ns() is not None, "it is never answered"
            self.runtime.run_timer()

    def start(self, verb: str, *args: Any, **named: Any) -> Pending:
        pending = Pending()
        self.pending.append(pending)
        pending.returned = getattr(self.engine, verb)(*args, **named, done=pending)
        return pending

    def tell(self, verb: str, *args: Any) -> None:
        getattr(self.engine, verb)(*args)

    def settle(self) -> None:
        self.advance(0.05)

    def advance(self, seconds: float) -> None:
        self.runtime.advance(round(seconds * NS_PER_S))
        self.engine.core.check()

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._wait_for(self.start("close"))
        unanswered = [pending for pending in self.pending if not pending.done]
        assert not unanswered, "closing left requests without an answer"


Factory = Callable[..., Driver]


def memory(limits: Limits | None = None, max_bytes: int = 64 * MIB) -> LocalDriver:
    """The local engine on memory."""
    return LocalDriver(VolatileStore(lambda runtime: MemoryJournal(max_bytes)), limits)


def slow_journal(limits: Limits | None = None, max_bytes: int = 64 * MIB) -> LocalDriver:
    """The local engine on a journal whose commits and reads take time."""
    return LocalDriver(VolatileStore(lambda runtime: LaggingJournal(runtime, max_bytes)), limits)


def remembering_journal(limits: Limits | None = None, max_bytes: int = 64 * MIB) -> LocalDriver:
    """The local engine on a slow journal that remembers, by the plainest recovery there is."""
    return LocalDriver(RememberingStore(max_bytes), limits)


def disk(limits: Limits | None = None, max_bytes: int = 64 * MIB) -> LocalDriver:
    """The local engine on the journal on disk."""
    from disk_store import DiskStore

    return LocalDriver(DiskStore(max_bytes=max_bytes, segment_bytes=MIB), limits)


def small_segments(limits: Limits | None = None, max_bytes: int = 64 * MIB) -> LocalDriver:
    """The same, with segments so small that every few records cross one."""
    from disk_store import DiskStore

    store = DiskStore(max_bytes=max_bytes, segment_bytes=2 * KIB, snapshot_bytes=8 * KIB)
    return LocalDriver(store, limits)


# Every engine that must pass the conformance tests, and of them those with ``durable``.
DURABLE_ENGINES: dict[str, Factory] = {
    "remembering journal": remembering_journal,
    "disk": disk,
    "disk with small segments": small_segments,
}
ENGINES: dict[str, Factory] = {
    "memory": memory,
    "slow journal": slow_journal,
    **DURABLE_ENGINES,
}
