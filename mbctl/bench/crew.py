"""Worker processes: each does one job after the other and answers through its pipe.

    Crew.play([job, ...])   each job prepares and says so; then all are let go, the last one first

A job is a function of a module, with a ``Link`` as its first argument. It calls ``link.ready()``
once it is prepared, and returns what it measured.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

SLOTS = 64
"""Numbers that all workers of a crew share."""

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_START_S = 60.0
_STOP_S = 5.0

Job = tuple[Callable[..., Any], tuple[Any, ...]]


class WorkerFailed(Exception):
    """A job did not come to its end; the text says why."""


class Link:
    """A job's tie to who started it, and to the other workers of its crew."""

    def __init__(self, pipe: "Connection[Any, Any]", shared: Any) -> None:
        self._pipe = pipe
        self.shared = shared
        """``SLOTS`` numbers, which are 0 when the jobs begin."""

    def ready(self) -> None:
        """Say that all is prepared, and return when all others are, too."""
        self._pipe.send(("ready", None))
        self._pipe.recv()


class _Worker:
    """One process."""

    def __init__(self, context: Any, shared: Any) -> None:
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, shared), daemon=True)
        self._process.start()
        theirs.close()

    def tell(self, order: Any) -> None:
        try:
            self._pipe.send(order)
        except OSError as error:
            raise WorkerFailed("a worker has died") from error

    def hear(self, kind: str, deadline: float) -> Any:
        """What it answers, which is to be of this kind."""
        try:
            if not self._pipe.poll(max(deadline - time.monotonic(), 0.0)):
                raise WorkerFailed("it took too long")
            heard, value = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise WorkerFailed("a worker has died") from error
        if heard != kind:
            raise WorkerFailed(str(value))
        return value

    def end(self) -> None:
        self._pipe.close()
        self._process.terminate()
        self._process.join(_STOP_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


class Crew:
    """Workers that are kept, since starting one takes longer than many a measurement."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._shared = self._context.RawArray("q", SLOTS)
        self._workers: list[_Worker] = []
        # Starting it lets signals through, which is not wanted in the middle of another start.
        resource_tracker.ensure_running()

    def play(self, jobs: Sequence[Job], seconds_max: float) -> list[Any]:
        """Do all jobs at the same time; what they return, in their order.

        Raises:
            WorkerFailed: one of them failed, or took longer than ``seconds_max``.
        """
        for slot in range(SLOTS):
            self._shared[slot] = 0
        try:
            while len(self._workers) < len(jobs):
                self._start_worker()
            return self._play(jobs, seconds_max)
        except BaseException:
            # They may be anywhere in their jobs.
            self.close()
            raise

    def _start_worker(self) -> None:
        # What ends this process waits until the worker is known and can be ended too. It begins
        # without these signals: a Ctrl-C is for the process that measures.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        try:
            self._workers.append(_Worker(self._context, self._shared))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _play(self, jobs: Sequence[Job], seconds_max: float) -> list[Any]:
        workers = self._workers[: len(jobs)]
        for worker, job in zip(workers, jobs, strict=True):
            worker.tell(job)
        deadline = time.monotonic() + _START_S
        for worker in workers:
            worker.hear("ready", deadline)
        for worker in reversed(workers):
            worker.tell("go")
        deadline = time.monotonic() + seconds_max
        return [worker.hear("done", deadline) for worker in workers]

    def close(self) -> None:
        """End all workers."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.end()


def _work(pipe: "Connection[Any, Any]", shared: Any) -> None:
    """What a worker does all its life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    if not os.environ.get("MBCTL_DEBUG"):
        # Libraries of peers chat there; what goes wrong is told through the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    link = Link(pipe, shared)
    while True:
        try:
            job, arguments = pipe.recv()
        except EOFError:
            return
        try:
            answer = ("done", job(link, *arguments))
        except Exception as error:
            # Whatever a peer's client raises; the process that measures says it in a line.
            lines = str(error).strip().splitlines() or [""]
            answer = ("failed", f"{type(error).__name__}: {lines[0]}")
        pipe.send(answer)
