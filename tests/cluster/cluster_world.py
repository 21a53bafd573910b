"""A cluster of three, two servers on it, a ledger, and what is broken of them under load.

``scripts/break-cluster`` breaks everything in turn, as often as wanted.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import nats
import nats.errors
from broker_process import BrokerProcess, wait_until
from leaders import Leaders
from ledger import READER, TOPIC, Ledger

from mbctl.cluster.processes import Cluster
from mbctl.engine.jetstream.names import BUCKET, topic_of

# Sending and reading go on so soon, as nats-server begins an election after 4 to 9 s. Few of them
# have to be repeated, which is not to be set: then it is so long after they are over.
SERVICE_S = 10.0
AFTER_ELECTION_S = 3.0
PATIENCE_S = 15.0
LOAD = 300


class Fault(msgspec.Struct):
    """What a fault came to, in seconds: until the load went on, and the longest pauses."""

    name: str
    back_s: float
    sending_pause_s: float
    reading_pause_s: float
    leaderless_s: float
    """How long at most the stream, the consumer or the bucket had no leader."""

    @property
    def is_soon_over(self) -> bool:
        """Whether the service was back as soon as it is to be."""
        return self.longest_s < max(SERVICE_S, self.leaderless_s + AFTER_ELECTION_S)

    @property
    def longest_s(self) -> float:
        """How long at most there was no service of one kind."""
        return max(self.sending_pause_s, self.reading_pause_s)


class World:
    """A cluster of three, two servers on it, and a ledger: one sends here and one reads there.

    Of two readers the second one reads where is sent to.
    """

    def __init__(self, directory: Path, *, readers: int = 1) -> None:
        self.cluster = Cluster(directory)
        self.cluster.start(3, sync="2m")
        url = self.cluster.url
        self.servers = [BrokerProcess("--replicas", "3", engine=url) for _ in range(2)]
        at = [server.address for server in self.servers]
        self.ledger = Ledger(at[0], *at[::-1][:readers])
        self.faults: list[Fault] = []
        stream, consumer = self._stream()["config"]["name"], self._consumer()["name"]
        self.leaders = Leaders(
            self.cluster.url.split(","),
            [
                f"STREAM.INFO.{stream}",
                f"CONSUMER.INFO.{stream}.{consumer}",
                f"STREAM.INFO.{BUCKET}",
            ],
        )

    # --- who leads ------------------------------------------------------------------------

    def leader(self) -> str:
        """The node that leads the stream of the topic."""
        return wait_until(lambda: self._leader(self._stream()))

    def reader_leader(self) -> str:
        """The node that leads the consumer of the reader."""
        return wait_until(lambda: self._leader(self._consumer()))

    def _leader(self, found: Any) -> str | None:
        # In an election nobody knows.
        return found and found["cluster"].get("leader")

    def _stream(self) -> Any:
        return self._found("STREAM.LIST", "streams", _is_ours)

    def _consumer(self) -> Any:
        stream = self._stream()
        verb = f"CONSUMER.LIST.{stream['config']['name']}" if stream else ""
        return verb and self._found(verb, "consumers", lambda one: one["name"].startswith(READER))

    def _found(self, verb: str, key: str, is_it: Callable[[Any], bool]) -> Any:
        """The first of a list of JetStream's; None where nobody knows."""

        async def ask() -> Any:
            client = await nats.connect(self.cluster.url.split(","), connect_timeout=2)
            try:
                return (await client.request(f"$JS.API.{verb}", timeout=5)).data
            finally:
                await client.close()

        with contextlib.suppress(nats.errors.Error, OSError):
            items = msgspec.json.decode(asyncio.run(ask())).get(key) or ()
            return next(filter(is_it, items), None)
        return None

    def follower(self) -> str:
        """A node that leads neither the stream nor the consumer, if there is one."""
        leaders = [self.leader(), self.reader_leader()]
        return min(self.cluster.node_names(), key=leaders.count)

    # --- breaking -------------------------------------------------------------------------

    def kill(self, *nodes: str) -> None:
        """End nodes without a word."""
        for node in nodes:
            os.kill(self._pid(node), signal.SIGKILL)

    @contextlib.contextmanager
    def paused(self, node: str) -> Iterator[None]:
        """Let a node stand still."""
        pid = self._pid(node)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def _pid(self, node: str) -> int:
        pid = self.cluster.pid(node)
        assert pid is not None
        return pid

    def kill_server(self, at: int) -> None:
        """Kill a server, and start another one in its place."""
        port = self.servers[at].port
        self.servers[at].kill()
        self.servers[at].check()
        self.servers[at] = BrokerProcess("--replicas", "3", port=port, engine=self.cluster.url)

    def wait_until_whole(self) -> None:
        """Wait until all nodes have what the others have."""
        until = time.monotonic() + 30
        while not all(node.state == "ready" for node in self.cluster.status()):
            assert time.monotonic() < until, self.cluster.status()
            time.sleep(0.1)

    @contextlib.contextmanager
    def without_majority(self) -> Iterator[None]:
        """Let two of the three nodes be down."""
        down = [name for name in self.cluster.node_names() if name != self.leader()]
        self.kill(*down)
        try:
            yield
        finally:
            for node in down:
                self.cluster.start_node(node)

    # --- what was seen --------------------------------------------------------------------

    def suffer(self, name: str) -> Fault:
        """Break something while all works, until all works again; what that came to."""
        self.ledger.wait_for(LOAD)
        begun = time.monotonic()
        back_s = FAULTS[name](self)
        self.wait_until_whole()
        self.ledger.wait_for(LOAD)
        fault = Fault(name, back_s, *self.ledger.pauses(begun), self.leaders.away(begun))
        self.faults.append(fault)
        return fault

    def end(self) -> None:
        """End the load, and assert that the ledger agrees and no fault lasted long."""
        self.ledger.close()
        self.ledger.check()
        for fault in self.faults:
            assert fault.is_soon_over, fault

    def close(self) -> None:
        """Leave no process behind."""
        self.ledger.close()
        self.leaders.close()
        try:
            for server in self.servers:
                server.check()
        finally:
            for server in self.servers:
                server.kill()
            self.cluster.stop()


def _is_ours(stream: Any) -> bool:
    return topic_of(stream["config"]["name"]) == TOPIC


def _kill_node(which: Callable[[World], str]) -> Callable[[World], float]:
    def fault(world: World) -> float:
        node = which(world)
        world.kill(node)
        back_s = world.ledger.wait_for(LOAD)
        world.cluster.start_node(node)
        return back_s

    return fault


def _pause_node(which: Callable[[World], str]) -> Callable[[World], float]:
    def fault(world: World) -> float:
        with world.paused(which(world)):
            return world.ledger.wait_for(LOAD)

    return fault


def _kill_server(at: int) -> Callable[[World], float]:
    def fault(world: World) -> float:
        world.kill_server(at)
        return world.ledger.wait_for(LOAD)

    return fault


FAULTS: dict[str, Callable[[World], float]] = {
    "leader of the stream killed": _kill_node(World.leader),
    "leader of the stream paused": _pause_node(World.leader),
    "leader of the consumer killed": _kill_node(World.reader_leader),
    "leader of the consumer paused": _pause_node(World.reader_leader),
    "follower killed": _kill_node(World.follower),
    "follower paused": _pause_node(World.follower),
    "server of the publisher killed": _kill_server(0),
    "server of the reader killed": _kill_server(1),
}
"""What can be broken; each is a call that breaks it and says how long until the load went on."""
