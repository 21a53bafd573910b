"""Drives an engine for the conformance tests: in virtual time, or whatever a later one needs.

A test says what it wants through a ``Driver`` and never touches the engine, so that the
same tests run against an engine on a real loop in real time.
"""

from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from typing import Any, Protocol

from mbctl.batch import Buffer
from mbctl.engine.local import LocalEngine
from mbctl.errors import MbctlError
from mbctl.journal.memory import MemoryJournal
from mbctl.journal.records import BatchHead, Record
from mbctl.model import MIB, NS_PER_MS, NS_PER_S, Limits


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
    """``dense_offsets``: the offsets of a topic have no gaps."""

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

    def close(self) -> None:
        """End the engine; everything must have been answered."""


class VirtualRuntime:
    """A Runtime whose time stands still until it is told to pass."""

    def __init__(self) -> None:
        self.ns = 1_000 * NS_PER_S
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

    With ``hold`` its commits are not done before ``let_go``.
    """

    __test__ = False

    def __init__(self) -> None:
        super().__init__()
        self.hold = False
        self.heads: list[BatchHead] = []
        self.records: list[Record] = []
        self.released: list[int] = []
        self.commits = 0
        self._waiting: list[Callable[[], None]] = []

    def append_batch(self, head: BatchHead, batch: Buffer) -> int:
        self.heads.append(head)
        return super().append_batch(head, batch)

    def append(self, record: Record) -> None:
        self.records.append(record)

    def commit(self, done: Callable[[], None]) -> None:
        self.commits += 1
        if self.hold or self._waiting:
            self._waiting.append(done)
        else:
            done()

    def release(self, places: Iterable[int]) -> None:
        places = list(places)
        self.released += places
        super().release(places)

    @property
    def waiting(self) -> int:
        """How many commits are not done."""
        return len(self._waiting)

    def let_go(self, count: int | None = None) -> None:
        """Let the oldest commits be done: so many, or all."""
        done, self._waiting = self._waiting[:count], self._waiting[count:] if count else []
        for call in done:
            call()


class LaggingJournal(MemoryJournal):
    """A journal in memory that is as slow as a disk, for commits and for reads."""

    def __init__(self, runtime: VirtualRuntime) -> None:
        super().__init__()
        self.runtime = runtime

    def commit(self, done: Callable[[], None]) -> None:
        self.runtime.call_at(self.runtime.ns + 3 * NS_PER_MS, done)

    def read(self, places: Sequence[int], done: Callable[[list[Buffer]], None]) -> None:
        # What is released later is still read: the batches are taken hold of here.
        bodies: list[Buffer] = []
        super().read(places, bodies.extend)
        self.runtime.call_at(self.runtime.ns + NS_PER_MS, lambda: done(bodies))


class LocalDriver:
    """A local engine in virtual time."""

    capabilities = frozenset({"dense_offsets"})

    def __init__(
        self,
        journal: Callable[[VirtualRuntime], MemoryJournal],
        limits: Limits | None = None,
        max_bytes: int = 64 * MIB,
    ) -> None:
        self.limits = limits or Limits()
        self.runtime = VirtualRuntime()
        self.journal = journal(self.runtime)
        self.engine = LocalEngine(self.journal, self.runtime, self.limits, max_bytes=max_bytes)
        self.pending: list[Pending] = []

    def call(self, verb: str, *args: Any, **named: Any) -> Any:
        pending = self.start(verb, *args, **named)
        self.runtime.run_turns()
        while not pending.done:
            assert self.runtime.next_timer_ns() is not None, f"{verb} is never answered"
            self.runtime.run_timer()
        self.engine.core.check()
        return pending.result()

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
        closed = self.start("close")
        self.settle()
        assert closed.done
        unanswered = [pending for pending in self.pending if not pending.done]
        assert not unanswered, "closing left requests without an answer"


Factory = Callable[..., Driver]


def memory(limits: Limits | None = None, **options: Any) -> LocalDriver:
    """The local engine on memory."""
    return LocalDriver(lambda runtime: MemoryJournal(), limits, **options)


def slow_journal(limits: Limits | None = None, **options: Any) -> LocalDriver:
    """The local engine on a journal whose commits and reads take time."""
    return LocalDriver(LaggingJournal, limits, **options)


# Every engine that must pass the conformance tests.
ENGINES: dict[str, Factory] = {"memory": memory, "slow journal": slow_journal}
