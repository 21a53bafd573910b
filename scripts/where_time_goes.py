#!/usr/bin/env python3
"""Tell where the processor time of a message goes, on each side of it, by perf (Linux, as root).

    .venv/bin/python scripts/where_time_goes.py [--durable] [--subscribers 4] [--size 100]

One publisher sends batches of 2,000, or 512 KiB, through a pipeline, subscribers follow it by
1 MiB at a time, the server is a process of its own. perf samples one of them at a time while all
run, and each sample is put into a class by its function. Printed are nanoseconds a message, of
that process alone.
"""

import argparse
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from mbctl import Publisher, Subscriber

BATCH = 2000
BATCH_BYTES = 512 << 10
PULL_BYTES = 1 << 20
WARM_UP_S = 0.7
TOPIC = "t"

# A function belongs to the first class whose pattern finds it: "library function".
CLASSES = (
    ("socket, kernel to user", r"kernel.*copy_to_iter"),
    ("socket, user to kernel", r"kernel.*[ _]copy_from_iter"),
    ("file, into the page cache", r"kernel.*(copy_folio|copy_page)_from"),
    ("fresh pages", r"kernel.*(clear_page|page_fault|anonymous_page|charge|folio_add_lru)"),
    ("rest of the kernel: TCP, scheduling, files", r"kernel"),
    ("checksum", r"crc32c"),
    ("msgpack", r"_core\.cpython"),
    ("copies within the process", r"mem(move|cpy|set)"),
    ("objects made and freed", r"[mM]alloc|[fF]ree|dealloc|FromStringAndSize"),
    ("event loop", r"uvloop|/loop\."),
    ("interpreter", r"python"),
)


def publish(address: str, size: int, seconds: float) -> None:
    """Send batches for so long."""
    batch = [os.urandom(size) for _ in range(max(1, min(BATCH, BATCH_BYTES // size)))]
    end = time.monotonic() + seconds
    with Publisher(address) as publisher, publisher.pipeline() as pipe:
        while time.monotonic() < end:
            pipe.send_many(TOPIC, batch)


def read(address: str, name: str) -> None:
    """Pull until it is ended."""
    with Subscriber(address, name=name) as subscriber:
        for _ in subscriber.follow_batches(TOPIC, max_messages=65_536, max_bytes=PULL_BYTES):
            pass


@contextmanager
def served(durable: bool) -> Iterator[tuple[str, int]]:
    """A server's address and process."""
    directory = tempfile.mkdtemp(prefix="mbctl-profile-")
    data = ["--data", directory] if durable else ["--memory"]
    server = subprocess.Popen(
        [sys.executable, "-m", "mbctl", "server", "--port", "0", *data],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        yield server.stdout.readline().split()[-1], server.pid
    finally:
        server.terminate()
        server.communicate()
        shutil.rmtree(directory)


def cpu_s(pid: int) -> float:
    """The processor time that a process has taken, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def profiled(side: str, options: argparse.Namespace) -> tuple[float, Counter[str]]:
    """The time that a message costs this side, in ns, and the share of each class."""
    with ExitStack() as stack:
        address, server = stack.enter_context(served(options.durable))
        with Publisher(address) as publisher:
            publisher.create_topic(TOPIC)
        names = [f"reader-{number}" for number in range(options.subscribers)]
        for name in names:
            with Subscriber(address, name=name) as subscriber:
                subscriber.subscribe(TOPIC)
        readers = [multiprocessing.Process(target=read, args=(address, name)) for name in names]
        sending = multiprocessing.Process(
            target=publish, args=(address, options.size, options.seconds + 2 * WARM_UP_S)
        )
        for process in (*readers, sending):
            process.start()
            stack.callback(process.kill)
        time.sleep(WARM_UP_S)
        pid = {"server": server, "publisher": sending.pid, "subscriber": readers[0].pid}[side]
        assert pid is not None
        with Publisher(address) as publisher:
            return _sampled(pid, publisher, options.seconds)


def _sampled(pid: int, publisher: Publisher, seconds: float) -> tuple[float, Counter[str]]:
    """Sample a process. A message of our own tells how many there are at begin and end."""
    used, first = -cpu_s(pid), publisher.send(TOPIC, b"begin").offset
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory, "perf.data")
        record = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "5000", "-p", str(pid)]
        # perf 6.1 ends by a signal of its own making when it has all.
        subprocess.run([*record, "-o", data, "--", "sleep", str(seconds)], check=False)
        used += cpu_s(pid)
        count = publisher.send(TOPIC, b"end").offset - first
        report = ["perf", "report", "-i", data, "--stdio", "-g", "none", "--sort", "dso,symbol"]
        shown = subprocess.run(report, capture_output=True, text=True, check=True).stdout
    shares: Counter[str] = Counter()
    for share, function in re.findall(r"^ +([\d.]+)% +(\S.*)$", shown, re.MULTILINE):
        shares[class_of(function)] += float(share)
    return used * 1e9 / count, shares


def class_of(function: str) -> str:
    """The class that a line of perf's report belongs to."""
    for name, pattern in CLASSES:
        if re.search(pattern, function):
            return name
    return "other"


def main() -> None:
    """Measure the three sides and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--durable", action="store_true")
    parser.add_argument("--subscribers", type=int, default=1)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    if shutil.which("perf") is None:
        sys.exit("this needs perf: install linux-perf, and run as root")
    sides = {side: profiled(side, options) for side in ("publisher", "server", "subscriber")}
    print("| ns a message | " + " | ".join(sides) + " |\n|---|" + "---|" * len(sides))
    for name in (*(name for name, _ in CLASSES), "other"):
        cells = [f"{cost * shares[name] / 100:.0f}" for cost, shares in sides.values()]
        print(f"| {name} | " + " | ".join(cells) + " |")
    print("| in all | " + " | ".join(f"{cost:.0f}" for cost, _ in sides.values()) + " |")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
