"""How much disk a journal takes while one subscription is stuck and another follows.

    python scripts/disk_use_figures.py                 3 GB through segments of 1 MiB
    python scripts/disk_use_figures.py --gb 50 --segment-mib 16
    python scripts/disk_use_figures.py --stuck-every 4 --size 20000

One topic is read as it is written. Another gets a batch for every so many of the first, and
its subscription acknowledges nothing, so a little of every segment stays alive. Both are on
real files, through the engine. It prints the largest of disk / (2 x live + 2 segments), where
live is the records of what is kept; then everything is read back, after a restart too, and
every send is repeated.
"""

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from measuring.machine import machine

from mbctl import batch as batches
from mbctl.engine.local import LocalEngine
from mbctl.engine.opening import StorageOptions, open_storage
from mbctl.errors import MbctlError
from mbctl.journal.census import BATCH_BYTES
from mbctl.journal.disk import DiskJournal
from mbctl.model import LIMITS, MIB, SubscribeOptions, TopicInfo, TopicSettings
from mbctl.server.runtime import AsyncioRuntime, loop_factory

READER, SENDER = b"reader", b"p" * 16
# So many sends are under way at once: they share what a commit costs.
AT_ONCE = 32


class Broker:
    """An engine on a directory, whose verbs are awaited."""

    def __init__(self, directory: Path, segment_bytes: int) -> None:
        runtime = AsyncioRuntime(asyncio.get_running_loop())
        options = StorageOptions(directory=directory, segment_bytes=segment_bytes)
        storage = open_storage(options, runtime, print)
        self.journal = cast("DiskJournal", storage.journal)
        self.engine: LocalEngine = storage.engine(runtime, LIMITS)
        self._sequence = 0

    async def call(self, verb: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """The answer of a verb."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(answer: Any) -> None:
            if isinstance(answer, MbctlError):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        verb(*args, **named, done=done)
        return await future

    async def send(self, topic: str, payload: bytes, sequence: int) -> Any:
        """Send one message under this number."""
        batch = batches.encode([payload])
        return await self.call(self.engine.send, SENDER, sequence, topic, batch, age_ms=0)

    async def pull(self, topic: str) -> tuple[int, list[tuple[int, bytes]]]:
        """What there is: the topic's id, and offsets with payloads."""
        pulled = await self.call(
            self.engine.pull, READER, topic, max_messages=1000, max_bytes=4 * MIB, wait_ms=0
        )
        found = []
        for first, *_, batch in pulled.pieces:
            found += [(first + at, bytes(p)) for at, p in enumerate(batches.decode(batch).payloads)]
        return pulled.topic_id, found

    async def close(self) -> None:
        """End it in good order."""
        future = asyncio.get_running_loop().create_future()
        self.engine.close(lambda: future.set_result(None))
        await future


def disk_bytes(directory: Path) -> int:
    """What the files of segments take up on disk, reserved room included."""
    size = 0
    for entry in os.scandir(directory):
        if entry.name.endswith((".segment", ".cold", ".tmp")) and "snapshot" not in entry.name:
            try:
                size += entry.stat().st_blocks * 512
            except FileNotFoundError:
                continue
    return size


class Worst:
    """The largest shares of the bound that were seen."""

    def __init__(self, broker: Broker, directory: Path, segment_bytes: int) -> None:
        self._broker = broker
        self._directory = directory
        self._segment_bytes = segment_bytes
        self.of_records = self.of_disk = 0.0
        self.live = self.taken = 0
        self.when = (0, 0)
        """How much was alive and taken when there was most in proportion."""

    async def look(self) -> None:
        """Look how much is taken up now."""
        topics: list[TopicInfo] = await self._broker.call(self._broker.engine.topics)
        # Each is a batch of one message.
        self.live = sum(topic.bytes + topic.messages * BATCH_BYTES for topic in topics)
        self.taken = self._broker.journal.taken
        bound = 2 * self.live + 2 * self._segment_bytes
        if self.taken / bound > self.of_records:
            self.of_records, self.when = self.taken / bound, (self.live, self.taken)
        # Two segments are made ahead of need and reserved as a whole: not more than the bound
        # has for what is written.
        reserved = bound + 2 * self._segment_bytes
        self.of_disk = max(self.of_disk, disk_bytes(self._directory) / reserved)


async def traffic(broker: Broker, options: argparse.Namespace, worst: Worst) -> list[bytes]:
    """Send it all; what the stuck subscription has to get."""
    kept: list[bytes] = []
    sequence = sent = 0
    began = time.monotonic()
    while sent < options.gb * 1e9:
        if options.mb_per_s:
            early_s = sent / options.mb_per_s / 1e6 - (time.monotonic() - began)
            await asyncio.sleep(max(0.0, early_s))
        sends = []
        for _ in range(AT_ONCE):
            sequence += 1
            if sequence % options.stuck_every == 0:
                kept.append(b"%d" % sequence + os.urandom(options.stuck_size))
                sends.append(broker.send("stuck", kept[-1], sequence))
            else:
                sends.append(broker.send("busy", b"x" * options.size, sequence))
            sent += options.size
        receipts = await asyncio.gather(*sends)
        # A repeated send is answered as it was, whatever has been moved since.
        assert await broker.send("stuck", b"", sequence) == receipts[-1]
        topic_id, found = await broker.pull("busy")
        ranges = [(found[0][0], found[-1][0] + 1)] if found else []
        await broker.call(broker.engine.ack, READER, "busy", topic_id, ranges)
        await worst.look()
    return kept


async def read_all(broker: Broker) -> list[bytes]:
    """All that the stuck subscription gets, in order."""
    read: list[tuple[int, bytes]] = []
    while found := (await broker.pull("stuck"))[1]:
        read += found
    assert [offset for offset, _ in read] == list(range(len(read))), "out of order"
    return [payload for _, payload in read]


async def begin(broker: Broker) -> None:
    """Make the reader known, its topics and its subscriptions."""
    await broker.call(broker.engine.register_publisher, SENDER)
    await broker.call(broker.engine.register_subscriber, READER, "reader")
    for topic in ("stuck", "busy"):
        await broker.call(broker.engine.create_topic, topic, TopicSettings(), True)
        await broker.call(broker.engine.subscribe, READER, topic, SubscribeOptions())


async def measure(options: argparse.Namespace, directory: Path) -> None:
    """One run."""
    segment_bytes = int(options.segment_mib * MIB)
    broker = Broker(directory, segment_bytes)
    await begin(broker)
    worst = Worst(broker, directory, segment_bytes)
    began = time.monotonic()
    kept = await traffic(broker, options, worst)
    took = time.monotonic() - began
    assert await read_all(broker) == kept, "something is lost or changed"
    await broker.close()
    broker = Broker(directory, segment_bytes)
    await begin(broker)
    assert await read_all(broker) == kept, "something is lost or changed after a restart"
    names = [name for name in os.listdir(directory) if name.endswith((".segment", ".cold"))]
    cold = [name for name in names if name.endswith(".cold")]
    await broker.close()
    print(f"sent                     {options.gb:.1f} GB in {took:.0f} s")
    print(
        f"segments                 {options.gb * 1e9 / segment_bytes:.0f} of {segment_bytes} bytes"
    )
    print(f"alive in the end         {worst.live / 1e6:.1f} MB in {len(kept)} batches")
    print(f"taken in the end         {worst.taken / 1e6:.1f} MB, {len(cold)} of {len(names)} cold")
    live, taken = (size / 1e6 for size in worst.when)
    print(f"worst: records           {worst.of_records:.2f} of 2 x live + 2 segments")
    print(f"                         that was {taken:.1f} MB with {live:.1f} MB alive")
    print(f"worst: disk, as reserved {worst.of_disk:.2f} of 2 x live + 4 segments")
    print(f"machine                  {machine()}")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gb", type=float, default=3.0)
    parser.add_argument("--segment-mib", type=float, default=1.0)
    parser.add_argument("--size", type=int, default=20_000, help="bytes of a message that is read")
    parser.add_argument("--stuck-size", type=int, default=2_000)
    parser.add_argument("--stuck-every", type=int, default=20)
    parser.add_argument("--mb-per-s", type=float, help="send no more than that; by default as fast")
    parser.add_argument("--dir", help="where to write, if not to a temporary directory")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=options.dir) as directory,
        asyncio.Runner(loop_factory=loop_factory()) as runner,
    ):
        runner.run(measure(options, Path(directory) / "data"))


if __name__ == "__main__":
    main()
