"""Nodes, leaders and servers are killed and paused under load; the ledger must agree."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from broker_process import BrokerProcess
from ledger import TOPIC, Ledger

from mbctl.cluster.processes import Cluster

pytestmark = pytest.mark.slow

# An election takes up to 9 s, and on a machine that is busy some more.
SERVICE_S = 15.0
LOAD = 300


class World:
    """A cluster of three, two servers on it, and a ledger: one sends here and one reads there."""

    def __init__(self, directory: Path) -> None:
        self.cluster = Cluster(directory)
        self.cluster.start(3, sync="2m")
        url = self.cluster.url
        self.servers = [BrokerProcess("--replicas", "3", engine=url) for _ in range(2)]
        self.ledger = Ledger(self.servers[0].address, self.servers[1].address)
        self.took: dict[str, float] = {}

    def leader(self) -> str:
        """The node that leads the stream of the topic."""
        import asyncio

        import nats

        async def ask() -> str:
            client = await nats.connect(self.cluster.url.split(","), connect_timeout=2)
            try:
                reply = await client.request(f"$JS.API.STREAM.INFO.mbctl_{TOPIC}", timeout=5)
                return msgspec.json.decode(reply.data)["cluster"]["leader"]
            finally:
                await client.close()

        return asyncio.run(ask())

    def kill(self, node: str) -> None:
        pid = self.cluster.pid(node)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def kill_server(self, at: int) -> None:
        """Kill a server, and start another one in its place."""
        port = self.servers[at].port
        self.servers[at].kill()
        self.servers[at].check()
        self.servers[at] = BrokerProcess("--replicas", "3", port=port, engine=self.cluster.url)

    def comes_back(self, what: str) -> None:
        """Wait until both sending and reading go on, and note how long that took."""
        self.took[what] = self.ledger.wait_for(LOAD)

    def wait_until_whole(self) -> None:
        until = time.monotonic() + 30
        while not all(node.state == "ready" for node in self.cluster.status()):
            assert time.monotonic() < until, self.cluster.status()
            time.sleep(0.1)

    def close(self) -> None:
        for server in self.servers:
            server.check()
        self.cluster.stop()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    try:
        yield world
    finally:
        world.ledger.close()
        world.close()


def break_leader(world: World) -> None:
    leader = world.leader()
    world.kill(leader)
    world.comes_back("leader killed")
    world.cluster.start_node(leader)


def break_follower(world: World) -> None:
    follower = next(name for name in world.cluster.node_names() if name != world.leader())
    world.kill(follower)
    world.comes_back("follower killed")
    world.cluster.start_node(follower)


def pause_leader(world: World) -> None:
    pid = world.cluster.pid(world.leader())
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        world.comes_back("leader paused")
    finally:
        os.kill(pid, signal.SIGCONT)


def break_sender(world: World) -> None:
    world.kill_server(0)
    world.comes_back("server of the sender killed")


def break_reader(world: World) -> None:
    world.kill_server(1)
    world.comes_back("server of the reader killed")


FAULTS = (break_leader, pause_leader, break_follower, break_sender, break_reader)


@pytest.mark.timeout(240)
def test_faults_in_turn_lose_nothing_and_are_over_soon(
    world: World, record_property: Callable[[str, object], None]
) -> None:
    is_in_order = True
    for fault in FAULTS:
        world.ledger.wait_for(LOAD)
        fault(world)
        world.wait_until_whole()
        if fault is break_follower:
            # What a server had in hand that died comes again after what is newer.
            is_in_order = world.ledger.is_in_order
    world.ledger.wait_for(LOAD)
    world.ledger.close()
    world.ledger.check()
    sending, reading = world.ledger.pauses()
    twice = len(world.ledger.read) - len(set(world.ledger.read))
    for what, value in {
        **world.took,
        "longest pause of sending": sending,
        "longest pause of reading": reading,
        "sent": len(world.ledger.sent),
        "read twice before an ack": twice,
    }.items():
        record_property(what, value)
        print(f"{what}: {value:.2f}")
    assert max(sending, reading) < SERVICE_S
    if not is_in_order:
        # A delivery lost with the connection to a node comes again only after 10 s.
        pytest.xfail("after the death of a node a batch came after what was sent later")
    if world.ledger.again:
        # Seen in some runs, one batch each: not understood yet, and said in docs/scaling.md.
        pytest.xfail(f"delivered again after a confirmed ack: {world.ledger.again[:5]}")
