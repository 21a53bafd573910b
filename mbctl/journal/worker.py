"""Threads that do one job after the other and tell the loop when each is done."""

import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
Job = Callable[[], T]
Outcome = Callable[[T | Exception], None]


class Timer(Protocol):
    """A call in the future that can be called off."""

    def cancel(self) -> None:
        """Do not call."""


class Loop(Protocol):
    """The turns and the time that a journal lives in; all its own calls come from there."""

    def now_ns(self) -> int:
        """Monotonic nanoseconds."""

    def wall_ns(self) -> int:
        """Nanoseconds since 1970, UTC."""

    def call_at(self, when_ns: int, call: Callable[[], None]) -> Timer:
        """Call when ``now_ns()`` has reached ``when_ns``."""

    def call_soon_threadsafe(self, call: Callable[[], None], /) -> object:
        """Call in the loop; may be used from any thread."""


class Worker(Protocol):
    """Does jobs in the order they are given."""

    def submit(self, job: Job[T], done: Outcome[T]) -> None:
        """Do ``job`` elsewhere, then call ``done`` in the loop with its result or exception."""

    def close(self, done: Callable[[], None]) -> None:
        """End when all jobs are done, then call ``done`` in the loop; takes no more jobs."""


class ThreadWorker:
    """A Worker that is a thread."""

    def __init__(self, name: str, loop: Loop) -> None:
        self._loop = loop
        self._jobs: queue.SimpleQueue[tuple[Job[Any], Outcome[Any]] | None] = queue.SimpleQueue()
        self._closed: Callable[[], None] = _nothing
        # A daemon: a process that must end at once does not wait for a disk that hangs.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Job[T], done: Outcome[T]) -> None:
        """Do ``job`` in the thread, then call ``done`` in the loop."""
        self._jobs.put((job, done))

    def close(self, done: Callable[[], None]) -> None:
        """Let the thread end when all jobs are done; its last act is to have ``done`` called."""
        self._closed = done
        self._jobs.put(None)

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, done = item
            try:
                result = job()
            except Exception as error:
                result = error
            self._loop.call_soon_threadsafe(partial(done, result))
            # Nothing of a job stays here while the thread waits for the next.
            del item, job, done, result
        self._loop.call_soon_threadsafe(self._closed)


def _nothing() -> None:
    """Wait for nothing."""
