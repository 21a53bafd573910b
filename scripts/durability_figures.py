"""What durability costs: measures it on this machine and writes reports/durability.json.

    python scripts/durability_figures.py            all of it, about five minutes
    python scripts/durability_figures.py modes      a part: modes, topics, backlog, recovery

Publishers, subscribers and server are processes of their own, the server is new for every
figure, and the raw speed of machine and disk is measured in the same run: compare ratios.
"""

import json
import multiprocessing
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mbctl import Admin, Publisher, Subscriber
from mbctl import batch as batches
from mbctl.files import Directory, Disk
from mbctl.journal.disk import JournalOptions, open_journal
from mbctl.journal.records import BatchHead, SubscriptionState, TopicCreated
from mbctl.model import TopicSettings

ROOT = Path(__file__).parent.parent
PAYLOAD = os.urandom(100)
MODES = {"memory": ["--memory"], "never": ["--sync", "never"], "always": []}
MIB = 1024 * 1024


class Server:
    """``mbctl server`` on a free port, with a data directory of its own."""

    def __init__(self, directory: Path, mode: str = "always") -> None:
        data = [] if mode == "memory" else ["--data", str(directory)]
        began = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mbctl", "server", "--port", "0", *MODES[mode], *data],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.start_s = time.perf_counter() - began
        assert line, "the server did not start"
        self.address = line.split()[-1]

    @property
    def memory_mib(self) -> float:
        """Its resident memory."""
        fields = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / MIB

    def end(self, number: int = signal.SIGTERM) -> None:
        """Stop it, or kill it."""
        self.process.send_signal(number)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def served(mode: str = "always") -> Iterator[Server]:
    """A new server with an empty directory, removed afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="mbctl-figures-", dir=os.environ.get("TMPDIR")))
    server = Server(directory / "data", mode)
    try:
        yield server
    finally:
        server.end()
        shutil.rmtree(directory)


def timed(work: Callable[[], object]) -> float:
    """The seconds that ``work`` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def quantiles(seconds: list[float]) -> dict[str, float]:
    """Median and 99th percentile, in microseconds."""
    cuts = statistics.quantiles(seconds, n=100)
    return {"p50_us": round(cuts[49] * 1e6), "p99_us": round(cuts[98] * 1e6)}


# --- the machine --------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """The raw speed of what everything else stands on."""
    with tempfile.NamedTemporaryFile(prefix="mbctl-figures-") as file:
        descriptor = file.fileno()
        os.posix_fallocate(descriptor, 0, 64 * MIB)
        os.fsync(descriptor)
        body, syncs = os.urandom(300), []
        for at in range(1000):
            syncs.append(
                timed(lambda: (os.pwrite(descriptor, body, at * 300), os.fdatasync(descriptor)))  # noqa: B023
            )
        block = os.urandom(MIB)

        def stream() -> None:
            for at in range(64):
                os.pwrite(descriptor, block, at * MIB)
                os.fdatasync(descriptor)

        streamed = timed(stream)
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "cores": os.cpu_count(),
        "write_and_fdatasync_300_bytes": quantiles(syncs),
        "write_and_fdatasync_1_mib_mb_per_s": round(64 * MIB / streamed / 1e6),
        "ping_pong_100_bytes": quantiles(_ping_pong(3000)),
    }


def _ping_pong(count: int) -> list[float]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        echo = multiprocessing.Process(target=_echo, args=(listener.getsockname(),))
        echo.start()
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection:
            times = [
                timed(lambda: (connection.sendall(PAYLOAD), connection.recv(200)))
                for _ in range(count)
            ]
        echo.join()
    return times


def _echo(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := connection.recv(200):
            connection.sendall(data)


# --- modes --------------------------------------------------------------------------------


def modes(messages: int = 2_000_000) -> list[dict[str, Any]]:
    """Durable against never against memory, in batches, one a call, and one at a time."""
    return [_mode(mode, messages) for mode in MODES]


def _mode(mode: str, messages: int) -> dict[str, Any]:
    found: dict[str, Any] = {"mode": mode}
    with served(mode) as server, Publisher(server.address) as publisher:
        admin = Admin(server.address)
        publisher.create_topic("t")

        def one_at_a_time() -> list[float]:
            return [timed(lambda: publisher.send("t", PAYLOAD)) for _ in range(2000)]

        def batches() -> None:
            with publisher.pipeline() as pipe:
                for _ in range(messages // 2000):
                    pipe.send_many("t", [PAYLOAD] * 2000)

        def one_a_call() -> None:
            with publisher.pipeline() as pipe:
                for _ in range(messages // 4):
                    pipe.send("t", PAYLOAD)

        before = admin.status().syncs
        found["one_at_a_time"] = quantiles(one_at_a_time())
        found["one_at_a_time"]["syncs_per_send"] = (admin.status().syncs - before) / 2000
        for name, work, count in (
            ("send_many_2000", batches, messages),
            ("pipeline_send", one_a_call, messages // 4),
        ):
            before = admin.status().syncs
            seconds = timed(work)
            found[name] = {
                "messages_per_s": round(count / seconds),
                "syncs": admin.status().syncs - before,
            }
        total = admin.topic("t").messages
        reader = multiprocessing.Process(target=_read, args=(server.address, "r", total))
        seconds = timed(lambda: (reader.start(), reader.join()))
        found["read_backlog_messages_per_s"] = round(total / seconds)
        found["server_memory_mib"] = round(server.memory_mib)
        admin.close()
    return found


def _read(address: str, name: str, count: int) -> None:
    with Subscriber(address, name=name) as subscriber:
        subscriber.subscribe("t", "earliest")
        while count > 0:
            count -= len(subscriber.pull("t", max_messages=65_536, wait=30).payloads)


# --- topics -------------------------------------------------------------------------------


def topics(messages: int = 120_000) -> list[dict[str, Any]]:
    """One message a batch to 1, 100 and 10,000 topics in turn: one sync serves all."""
    found = []
    for count in (1, 100, 10_000):
        with served() as server, Publisher(server.address) as publisher:
            names = [f"t{number}" for number in range(count)]
            for name in names:
                publisher.create_topic(name)
            admin = Admin(server.address)
            before = admin.status().syncs

            def send(names: list[str] = names, publisher: Publisher = publisher) -> None:
                with publisher.pipeline() as pipe:
                    for number in range(messages):
                        pipe.send_many(names[number % len(names)], [PAYLOAD])

            seconds = timed(send)
            found.append(
                {
                    "topics": count,
                    "messages_per_s": round(messages / seconds),
                    "syncs": admin.status().syncs - before,
                }
            )
            admin.close()
    return found


# --- an old backlog beside live subscribers -----------------------------------------------


def backlog(mib: int = 512) -> dict[str, Any]:
    """How long live messages take while somebody else reads an old backlog."""
    with served() as server, Publisher(server.address) as publisher:
        publisher.create_topic("t")
        batch = [PAYLOAD] * 2000
        count = mib * MIB // (100 * 2000)
        with publisher.pipeline() as pipe:
            for _ in range(count):
                pipe.send_many("t", batch)
        publisher.create_topic("live")
        alone = _live(server.address, 2000)
        reader = multiprocessing.Process(target=_read, args=(server.address, "old", count * 2000))
        reader.start()
        with Admin(server.address) as admin:
            while not admin.subscriptions("t"):
                time.sleep(0.001)
            began = time.perf_counter()
            beside = _live(server.address, 1 << 30, reader)
            reader.join()
            seconds = time.perf_counter() - began
    return {
        "live_alone": alone,
        "live_beside_the_reader": beside,
        "reader_mb_per_s": round(count * 2000 * 100 / seconds / 1e6),
    }


def _live(
    address: str, most: int, while_alive: multiprocessing.Process | None = None
) -> dict[str, float]:
    """From a send to its delivery and back, one message after the other."""
    times: list[float] = []
    with Publisher(address) as publisher, Subscriber(address, name="live") as subscriber:
        subscriber.subscribe("live", "new")
        while len(times) < most and (while_alive is None or while_alive.is_alive()):
            times.append(
                timed(lambda: (publisher.send("live", PAYLOAD), subscriber.pull("live", wait=5)))
            )
    return {**quantiles(times), "count": len(times)}


# --- recovery -----------------------------------------------------------------------------


def recovery(mib: int = 1024) -> list[dict[str, Any]]:
    """Ready after kill -9 with a backlog of that many MiB on disk."""
    return [_recover(per_batch, mib) for per_batch in (100, 1)]


def _recover(per_batch: int, mib: int) -> dict[str, Any]:
    directory = Path(tempfile.mkdtemp(prefix="mbctl-figures-", dir=os.environ.get("TMPDIR")))
    try:
        builder = multiprocessing.Process(target=_build, args=(directory / "data", per_batch, mib))
        builder.start()
        builder.join()
        size = sum(path.stat().st_size for path in (directory / "data").glob("*.segment"))
        again = Server(directory / "data")
        with Admin(again.address) as admin:
            kept = admin.topic("t").messages
        memory = again.memory_mib
        again.end()
        third = Server(directory / "data")
        third.end()
    finally:
        shutil.rmtree(directory)
    empty = Server(directory / "data")
    empty.end()
    shutil.rmtree(directory)
    return {
        "messages_in_a_batch": per_batch,
        "messages": kept,
        "disk_mib": round(size / MIB),
        "ready_empty_s": round(empty.start_s, 2),
        "ready_after_kill_s": round(again.start_s, 2),
        "ready_after_stop_s": round(third.start_s, 2),
        "memory_mib": round(memory),
    }


def _build(directory: Path, per_batch: int, mib: int) -> None:
    """Fill a journal, faster than a client could with single messages, and die."""
    journal, _ = open_journal(
        Directory(Disk(), directory), Moments(), JournalOptions(), new_worker=AtOnce
    )
    journal.append(TopicCreated(1, "t", TopicSettings(), 0))
    journal.append(SubscriptionState(1, "old", 0, [], 30 * 10**9, 0))
    batch = batches.encode([PAYLOAD] * per_batch)
    number = 0
    while journal.taken < mib * MIB:
        number += 1
        journal.check_room(len(batch))
        head = BatchHead(1, (number - 1) * per_batch, per_batch, number, b"s" * 16, number)
        journal.append_batch(head, batch)
        if number % 1000 == 0:
            journal.commit(lambda: None)
    journal.commit(lambda: None)
    os.kill(os.getpid(), signal.SIGKILL)


class Moments:
    """The loop of a journal that nothing happens in but what it is told."""

    now_ns = staticmethod(time.monotonic_ns)
    wall_ns = staticmethod(time.time_ns)

    def call_at(self, when_ns: int, call: Callable[[], None]) -> "Moments":
        """Never."""
        return self

    def cancel(self) -> None:
        """Nothing to do."""

    def call_soon_threadsafe(self, call: Callable[[], None]) -> None:
        """Now."""
        call()


class AtOnce:
    """A worker that does its jobs when it is given them."""

    def __init__(self, name: str, loop: object) -> None:
        self.name = name

    def submit(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Do it."""
        done(job())

    def close(self, done: Callable[[], None]) -> None:
        """Nothing to wait for."""
        done()


PARTS: dict[str, Callable[[], Any]] = {
    "machine": machine,
    "modes": modes,
    "topics": topics,
    "backlog": backlog,
    "recovery": recovery,
}


def main(wanted: list[str]) -> None:
    """Measure the parts that are wanted; those measured before stay in the report."""
    path = ROOT / "reports" / "durability.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    for name in ("machine", *(wanted or [name for name in PARTS if name != "machine"])):
        print(f"measuring {name}", file=sys.stderr)
        found[name] = PARTS[name]()
        print(json.dumps(found[name], indent=1))
        path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
