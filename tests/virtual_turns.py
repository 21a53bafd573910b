"""The loop, the clock and the workers of a journal or engine, in virtual time, without threads.

What could happen at the same time happens in an order that is drawn: a call that waits for
its turn of the loop, or the next job of one of the workers.
"""

import random
from collections import deque
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from typing import Any

from mbctl.model import NS_PER_S

Call = Callable[[], None]


class VirtualTimer:
    """A call in virtual time."""

    def __init__(self, call: Call) -> None:
        self.call: Call | None = call

    def cancel(self) -> None:
        self.call = None


class VirtualWorker:
    """Does its jobs one after the other, each when it is drawn."""

    def __init__(self, turns: "VirtualTurns") -> None:
        self._turns = turns
        self.jobs: deque[tuple[Callable[[], Any], Callable[[Any], None]]] = deque()
        self.is_closed = False

    def submit(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        assert not self.is_closed
        self.jobs.append((job, done))

    def close(self, done: Callable[[], None]) -> None:
        while self.jobs:
            self.work()
        self.is_closed = True
        self._turns.call_soon_threadsafe(done)

    def work(self) -> None:
        """Do the next job."""
        job, done = self.jobs.popleft()
        try:
            outcome = job()
        except AssertionError:
            # In a thread it would end the journal; in a test it ends the test.
            raise
        except Exception as error:
            outcome = error
        self._turns.call_soon_threadsafe(partial(done, outcome))


class VirtualTurns:
    """A loop whose time stands still until it is told to pass.

    Without ``chance`` the loop goes first and then the workers, the oldest first.
    """

    def __init__(self, chance: random.Random | None = None, ns: int = 1_000 * NS_PER_S) -> None:
        self.chance = chance
        self.ns = ns
        self.wall_offset_ns = 1_700_000_000 * NS_PER_S
        self.workers: list[VirtualWorker] = []
        self.fired = 0
        """How many timers have come to their time."""
        self._soon: deque[Call] = deque()
        self._timers: list[tuple[int, int, VirtualTimer]] = []
        self._count = 0

    # --- for the journal and the engine -------------------------------------------------------

    def now_ns(self) -> int:
        return self.ns

    def wall_ns(self) -> int:
        return self.ns + self.wall_offset_ns

    def call_soon(self, call: Call) -> None:
        self._soon.append(call)

    call_soon_threadsafe = call_soon

    def call_at(self, when_ns: int, call: Call) -> VirtualTimer:
        timer = VirtualTimer(call)
        self._count += 1
        heappush(self._timers, (when_ns, self._count, timer))
        return timer

    def new_worker(self, name: str, loop: object) -> VirtualWorker:
        """A worker whose jobs are among what can happen next."""
        self.workers.append(VirtualWorker(self))
        return self.workers[-1]

    # --- for tests --------------------------------------------------------------------------

    def step(self) -> bool:
        """Let one thing happen; whether there was one."""
        ready: list[Call] = [worker.work for worker in self.workers if worker.jobs]
        if self._soon:
            ready.insert(0, self._call_first)
        if ready:
            (self.chance.choice(ready) if self.chance else ready[0])()
        return bool(ready)

    def _call_first(self) -> None:
        self._soon.popleft()()

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Let all happen that can without time passing, or as much as it takes."""
        steps = 0
        while not until() and self.step():
            steps += 1
            assert steps < 100_000, "it never comes to rest"

    def advance(self, ns: int) -> None:
        """Let time pass, timer by timer."""
        until = self.ns + ns
        self.run()
        while self._timers and self._timers[0][0] <= until:
            when_ns, _, timer = heappop(self._timers)
            self.ns = max(self.ns, when_ns)
            if timer.call is not None:
                self.fired += 1
                timer.call()
                self.run()
        self.ns = until
