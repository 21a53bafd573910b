"""A client that does nothing wrong, and how long the server takes to serve it."""

import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import Any

from mbctl import Admin, Publisher, Subscriber

PAYLOAD = b"x" * 100
# A pause after each round: this client is one of many, it does not load the server.
_PAUSE_S = 0.002


class Healthy:
    """A process that sends a message and pulls it, again and again."""

    def __init__(self, address: str) -> None:
        self._over = multiprocessing.Event()
        self._ready = multiprocessing.Event()
        ours, theirs = multiprocessing.Pipe()
        self._answers = ours
        self._process = multiprocessing.Process(
            target=_rounds, args=(address, self._ready, self._over, theirs)
        )
        self._process.start()
        self._ready.wait()

    def begin(self) -> None:
        """Begin to count rounds."""
        self._answers.send("begin")

    def counted(self) -> dict[str, float]:
        """How long it waited in the rounds since it began."""
        self._answers.send("end")
        return figures(self._answers.recv())

    def during(self, seconds: float) -> dict[str, float]:
        """How long it waited in the rounds of the next so many seconds."""
        self.begin()
        time.sleep(seconds)
        return self.counted()

    def end(self) -> None:
        """Let it go."""
        self._over.set()
        self._answers.send("end")
        self._process.join()


def _rounds(address: str, ready: Event, over: Event, orders: Connection) -> None:
    with (
        Publisher(address) as publisher,
        Subscriber(address, name="healthy") as subscriber,
        Admin(address) as admin,
    ):
        publisher.create_topic("healthy")
        subscriber.subscribe("healthy")
        admin.status()
        ready.set()
        while not over.is_set():
            orders.recv()
            seconds = []
            while not orders.poll() and not over.is_set():
                begin = time.perf_counter()
                publisher.send("healthy", PAYLOAD)
                assert len(subscriber.pull("healthy", wait=30).payloads) == 1
                seconds.append(time.perf_counter() - begin)
                time.sleep(_PAUSE_S)
            if not over.is_set():
                orders.recv()
                orders.send(seconds)


def figures(seconds: list[float]) -> dict[str, Any]:
    """Median, 99th percentile and the longest, in milliseconds."""
    if len(seconds) < 2:
        seconds = [*seconds, float("inf"), float("inf")]
    cuts = statistics.quantiles(seconds, n=100)
    return {
        "rounds": len(seconds),
        "p50_ms": round(cuts[49] * 1e3, 2),
        "p99_ms": round(cuts[98] * 1e3, 2),
        "max_ms": round(max(seconds) * 1e3, 1),
    }
