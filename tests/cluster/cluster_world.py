"""A cluster of three, two servers on it, a ledger, and what is broken of them under load.

``scripts/break-cluster ROUNDS`` breaks everything in turn, as often as that.
"""

import asyncio
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import nats

# Beside pytest, which does so by itself, for what is run as a program.
sys.path.insert(0, str(Path(__file__).parents[1]))

from broker_process import BrokerProcess
from ledger import TOPIC, Ledger

from mbctl.cluster.processes import Cluster
from mbctl.engine.jetstream.names import topic_of

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

        async def ask() -> str:
            client = await nats.connect(self.cluster.url.split(","), connect_timeout=2)
            try:
                reply = await client.request("$JS.API.STREAM.NAMES", timeout=5)
                streams = msgspec.json.decode(reply.data)["streams"]
                [stream] = (one for one in streams if topic_of(one) == TOPIC)
                reply = await client.request(f"$JS.API.STREAM.INFO.{stream}", timeout=5)
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

    def end(self) -> None:
        """End everything, and assert that nothing was lost and no pause was long."""
        self.ledger.close()
        self.ledger.check()
        assert max(self.ledger.pauses()) < SERVICE_S, self.ledger.pauses()

    def figures(self) -> dict[str, float]:
        """What was seen, of what is promised and of what is not."""
        sending, reading = self.ledger.pauses()
        return {
            **self.took,
            "longest pause of sending": sending,
            "longest pause of reading": reading,
            "sent": len(self.ledger.sent),
            "read twice before an ack": len(self.ledger.read) - len(set(self.ledger.read)),
            "read again after a confirmed ack": len(self.ledger.again),
            "in order": self.ledger.is_in_order,
        }

    def close(self) -> None:
        self.ledger.close()
        for server in self.servers:
            server.check()
        self.cluster.stop()


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


ALL = (break_leader, pause_leader, break_follower, break_sender, break_reader)


def break_all(directory: Path) -> dict[str, float]:
    """Break everything in turn; what was seen."""
    world = World(directory)
    try:
        for fault in ALL:
            world.ledger.wait_for(LOAD)
            fault(world)
            world.wait_until_whole()
        world.ledger.wait_for(LOAD)
        world.end()
        return world.figures()
    finally:
        world.close()


def main() -> None:
    """Break a new cluster as often as the argument says, and print what was seen."""
    for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else 1):
        with tempfile.TemporaryDirectory() as directory:
            seen = break_all(Path(directory))
        print(f"round {number + 1}: " + ", ".join(f"{k} {v:.4g}" for k, v in seen.items()))


if __name__ == "__main__":
    main()
