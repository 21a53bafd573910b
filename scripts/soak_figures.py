"""Whether a server stays as small as it is: writes reports/soak.json and .md.

    python scripts/soak_figures.py --minutes 30              a journal on disk, and a cluster
    python scripts/soak_figures.py --minutes 5 --only cluster

A server is used for so long in every way that makes and ends something: publishers and readers
that connect anew all the time, subscriptions that are made, acknowledged in whole and in part,
given back, sought and deleted, subscribers without a name that just go, topics that are made and
deleted, requests that are refused, and connections that break within a request. Several times a
minute it is looked how much memory and how many descriptors the server has, and on a cluster how
much memory the nodes and how many entries, streams and consumers there are. The figures are flat
if the median of the last third is not much above that of the third before.
"""

import argparse
import asyncio
import os
import random
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import nats
from measuring.machine import machine

from mbctl import Admin, Publisher, Subscriber
from mbctl.cluster.processes import Cluster
from mbctl.engine.jetstream.names import BUCKET
from mbctl.errors import MbctlError
from mbctl.model import MIB

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from broker_process import BrokerProcess  # noqa: E402

TOPIC, SIDE = "soak", "side"
# How long the clients wait between two things that they do. Who goes without a word is kept for
# half a minute, and a topic takes 1,000 subscriptions.
PAUSE_S = 0.005
LEAVING_PAUSE_S = 0.05
SAMPLES = 90


class Soak:
    """Clients of all kinds, each in a thread, and how often each has done its thing."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.counts: Counter[str] = Counter()
        self.errors: list[BaseException] = []
        self._over = threading.Event()
        self._random = random.Random(7)
        with Admin(address) as admin:
            admin.create_topic(TOPIC)
            admin.create_topic(SIDE)
        often = [self.publish, self.read, self.read_in_parts]
        leaving = [self.publish_alone, self.read_nameless, self.subscribe_anew]
        leaving += [self.topics, self.refused, self.broken]
        self._threads = [
            threading.Thread(target=self._again, args=(kind, pause_s))
            for kinds, pause_s in ((often, PAUSE_S), (leaving, LEAVING_PAUSE_S))
            for kind in kinds
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Let all clients finish."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def _again(self, kind: Callable[[], None], pause_s: float) -> None:
        try:
            while not self._over.wait(pause_s):
                kind()
        except BaseException as error:
            self.errors.append(error)

    # --- kinds of clients -----------------------------------------------------------------

    def publish(self) -> None:
        """A publisher that sends batches, and is another one soon."""
        with Publisher(self.address) as publisher:
            for _ in range(50):
                publisher.send_many(TOPIC, [os.urandom(100) for _ in range(200)])
                self.counts["messages sent in batches"] += 200
                if self._over.wait(PAUSE_S):
                    break

    def publish_alone(self) -> None:
        """A publisher that sends one message, with a key and headers, and goes."""
        with Publisher(self.address) as publisher:
            publisher.send(SIDE, b"x" * 100, key=b"k", headers={"from": "soak"})
        self.counts["publishers with one message"] += 1

    def read(self) -> None:
        """A reader that acknowledges by its next pull, and connects anew soon."""
        with Subscriber(self.address, name="whole") as subscriber:
            subscriber.subscribe(TOPIC)
            for _ in range(100):
                self.counts["messages read"] += len(subscriber.pull(TOPIC, 5000, wait=0.5))
                if self._over.is_set():
                    break

    def read_in_parts(self) -> None:
        """A reader that acknowledges a part, extends, and gives back the rest."""
        with Subscriber(self.address, name="parts") as subscriber:
            subscriber.subscribe(TOPIC)
            for _ in range(100):
                batch = subscriber.pull(TOPIC, 1500, wait=0.5, auto_ack=False)
                offsets = [message.offset for message in batch]
                if not offsets or self._over.is_set():
                    break
                kept = self._random.randrange(len(offsets) + 1)
                batch.extend()
                if kept:
                    batch.ack_range(offsets[0], offsets[kept - 1] + 1)
                batch.nack()
                self.counts["messages read in parts"] += kept

    def read_nameless(self) -> None:
        """A subscriber without a name that goes without a word."""
        with Subscriber(self.address) as subscriber:
            subscriber.subscribe(SIDE)
            subscriber.pull(SIDE, 10, wait=0.05)
        self.counts["subscribers without a name"] += 1

    def subscribe_anew(self) -> None:
        """A named subscriber that subscribes, seeks, reads and unsubscribes."""
        with Subscriber(self.address, name=f"guest-{self._random.randrange(1000)}") as subscriber:
            subscriber.subscribe(SIDE, start="earliest")
            subscriber.seek(SIDE, "new")
            subscriber.seek(SIDE, "earliest")
            subscriber.pull(SIDE, 10, wait=0)
            subscriber.unsubscribe(SIDE)
        self.counts["subscriptions made and deleted"] += 1

    def topics(self) -> None:
        """A topic that is made, used and deleted."""
        name = f"passing-{self._random.randrange(1000)}"
        with Publisher(self.address) as publisher:
            publisher.create_topic(name)
            publisher.send(name, b"x")
            with Subscriber(self.address, name="passing") as subscriber:
                subscriber.subscribe(name, start="earliest")
                assert len(subscriber.pull(name, wait=5)) == 1
            publisher.delete_topic(name)
        self.counts["topics made and deleted"] += 1

    def refused(self) -> None:
        """Requests that are refused."""
        with Publisher(self.address) as publisher, Subscriber(self.address) as subscriber:
            for refused in (
                lambda: publisher.send("missing", b"x"),
                lambda: subscriber.pull("missing", wait=0),
                lambda: subscriber.subscribe(SIDE, start=2**62),
            ):
                try:
                    refused()
                except MbctlError:
                    self.counts["requests refused"] += 1
                else:
                    raise AssertionError("it was not refused")

    def broken(self) -> None:
        """A connection that ends within a request."""
        host, _, port = self.address.rpartition(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"\x00\x01\x00\x00" + b"x" * 1000)
        self.counts["connections that broke"] += 1


# --- looking ------------------------------------------------------------------------------


def local_look(server: BrokerProcess) -> Callable[[], dict[str, float]]:
    """What is looked at of any server."""

    def look() -> dict[str, float]:
        memory_mib = round(server.memory_bytes / MIB, 1)
        return {"server, MiB": memory_mib, "descriptors": server.descriptors}

    return look


def cluster_look(server: BrokerProcess, cluster: Cluster) -> Callable[[], dict[str, float]]:
    """What is looked at of a server and its cluster."""
    of_server = local_look(server)

    def look() -> dict[str, float]:
        resident = [
            int(Path(f"/proc/{node.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            for node in cluster.status()
        ]
        nodes = {"nodes together, MiB": round(sum(resident) / MIB, 1)}
        return {**of_server(), **nodes, **asyncio.run(_of_jetstream(cluster.url))}

    return look


async def _of_jetstream(url: str) -> dict[str, float]:
    client = await nats.connect(url.split(","))
    try:
        stream = client.jetstream()
        account = await stream.account_info()
        bucket = await stream.stream_info(BUCKET)
        return {
            "streams": account.streams,
            "consumers": account.consumers,
            "entries": bucket.state.messages,
        }
    finally:
        await client.close()


class Run(msgspec.Struct):
    """One server's time: what was done, and the samples, each with its second."""

    minutes: float
    counts: dict[str, int]
    samples: list[dict[str, float]]

    def growth(self, name: str) -> float:
        """The median of the last third over that of the third before."""
        values = [sample[name] for sample in self.samples]
        third = len(values) // 3
        before, last = values[third : 2 * third], values[2 * third :]
        return round(statistics.median(last) / max(1, statistics.median(before)), 2)


def soak(server: BrokerProcess, look: Callable[[], dict[str, float]], minutes: float) -> Run:
    """Use a server for so long."""
    clients = Soak(server.address)
    samples: list[dict[str, float]] = []
    begin = time.monotonic()
    for number in range(1, SAMPLES + 1):
        time.sleep(max(0.0, begin + number * minutes * 60 / SAMPLES - time.monotonic()))
        samples.append({"second": round(time.monotonic() - begin), **look()})
        if number % 10 == 0 or clients.errors:
            print(samples[-1], flush=True)
        if clients.errors:
            break
    clients.end()
    return Run(minutes, dict(sorted(clients.counts.items())), samples)


def on_disk(minutes: float) -> Run:
    """A server with a journal of its own."""
    with tempfile.TemporaryDirectory() as directory:
        server = BrokerProcess(data=Path(directory))
        run = soak(server, local_look(server), minutes)
        server.check()
        return run


def on_cluster(minutes: float) -> Run:
    """A server on three nodes, three replicas of everything."""
    with tempfile.TemporaryDirectory() as directory:
        cluster = Cluster(Path(directory))
        url = cluster.start(3, sync="2m")
        try:
            server = BrokerProcess("--replicas", "3", engine=url)
            run = soak(server, cluster_look(server, cluster), minutes)
            server.check()
        finally:
            cluster.stop()
        return run


# --- the report ---------------------------------------------------------------------------

ENGINES = {"disk": on_disk, "cluster": on_cluster}


def page_of(figures: dict[str, Any]) -> str:
    """The runs as a page of the reports."""
    cores = figures["machine"]["cores"]
    lines = [
        "# A server that is used for long",
        "",
        f"`python scripts/soak_figures.py`, on a machine with {cores} cores that others used too.",
        "All that makes and ends something comes at once, at nine clients. What a server keeps",
        "for a while, as the last answers to each publisher for eleven minutes, is there after a",
        "third; growth is the median of the last third over that of the second.",
        "[soak.json](soak.json) has each sample.",
    ]
    for name in ENGINES:
        if name not in figures:
            continue
        run = msgspec.convert(figures[name], Run)
        lines += ["", f"## {name.capitalize()}, {run.minutes:g} minutes", ""]
        lines += ["| | count |", "|---|---|"]
        lines += [f"| {what} | {count:,} |" for what, count in run.counts.items()]
        lines += [
            "",
            "| | after a third | after two | at the end | growth |",
            "|---|---|---|---|---|",
        ]
        third = len(run.samples) // 3
        for what in list(run.samples[0])[1:]:
            at = (run.samples[third], run.samples[2 * third], run.samples[-1])
            values = " | ".join(f"{sample[what]:,}" for sample in at)
            lines.append(f"| {what} | {values} | {run.growth(what):.2f} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Run what is wanted, and write the report anew with it."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30, help="for each server")
    parser.add_argument("--only", choices=ENGINES, help="this server only")
    options = parser.parse_args()
    file = ROOT / "reports" / "soak"
    raw = file.with_suffix(".json")
    runs = {
        name: msgspec.to_builtins(use(options.minutes))
        for name, use in ENGINES.items()
        if options.only in (None, name)
    }
    earlier = msgspec.json.decode(raw.read_bytes()) if raw.exists() else {}
    figures = {**earlier, "machine": machine(), **runs}
    raw.write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=2) + b"\n")
    file.with_suffix(".md").write_text(page_of(figures))


if __name__ == "__main__":
    main()
