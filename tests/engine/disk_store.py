"""The journal on disk for engines in virtual time: the disk is simulated, threads are timers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine_drivers import AT_HAND, VirtualRuntime
from simulated_disk import SimulatedDisk

from mbctl.files import Directory
from mbctl.journal.disk import DiskJournal, JournalOptions, open_journal
from mbctl.journal.records import Recovered
from mbctl.model import NS_PER_MS, Limits

_JOB_NS = NS_PER_MS


class TimedWorker:
    """Does its jobs one after the other, each a moment after it was given or the last was done."""

    def __init__(self, runtime: VirtualRuntime) -> None:
        self._runtime = runtime
        self._jobs: list[Callable[[], None]] = []

    def submit(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        def work() -> None:
            try:
                outcome = job()
            except OSError as error:
                outcome = error
            self._runtime.call_soon_threadsafe(lambda: done(outcome))

        self._jobs.append(work)
        if len(self._jobs) == 1:
            self._work_later()

    def close(self, done: Callable[[], None]) -> None:
        while self._jobs:
            self._jobs.pop(0)()
        self._runtime.call_soon_threadsafe(done)

    def _work_later(self) -> None:
        self._runtime.call_at(self._runtime.now_ns() + _JOB_NS, self._work)

    def _work(self) -> None:
        if self._jobs:
            self._jobs[0]()
            del self._jobs[0]
            if self._jobs:
                self._work_later()


class DiskStore:
    """A directory, and the journals that follow one another in it."""

    capabilities = AT_HAND | {"durable", "backup"}

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.disk = SimulatedDisk()
        self.notes: list[str] = []

    def open(self, runtime: VirtualRuntime, limits: Limits) -> tuple[DiskJournal, Recovered]:
        # As a killed process leaves it: what it wrote is there, and nothing is open.
        self.disk = self.disk.copy()
        return open_journal(
            Directory(self.disk, Path("/data")),
            runtime,
            JournalOptions(window=limits.sends_in_flight, **self.options),
            progress=self.notes.append,
            new_worker=lambda name, loop: TimedWorker(runtime),
        )
