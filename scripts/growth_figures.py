"""What the server costs as it grows: writes reports/growth.json and prints a table.

    python scripts/growth_figures.py                   all of it, about five minutes
    python scripts/growth_figures.py topics            only what grows by that name
    python scripts/growth_figures.py --share 0.1       with a tenth of everything

Each row is two servers, in memory, one of which has much of something. A round is a message
sent, pulled, and acknowledged by the next pull. It is measured with both servers in turn, some
hundred rounds at a time, and so is the processor time that they take for it: other work on the
machine comes to both.
"""

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from growing.worlds import GROWN, READER, USED, World
from measuring.machine import machine
from measuring.raw import Raw
from measuring.server import MIB, Server

from mbctl import Admin, Publisher, Subscriber
from mbctl.wire import messages as wire

ROOT = Path(__file__).parent.parent
ROUNDS = 300
TURNS = 12
IDLE_S = 20.0


class Used:
    """The clients whose rounds are measured."""

    def __init__(self, server: Server, admin: Admin) -> None:
        self.server = server
        self.admin = admin
        self.publisher = Publisher(server.address)
        self.publisher.create_topic(USED)
        self.seconds: list[float] = []
        self.cpu_s = 0.0
        self.read()

    def read(self) -> None:
        """Read what is new from now on; what was granted stays so."""
        self.subscriber = Subscriber(self.server.address, name=READER)
        self.subscriber.subscribe(USED, start="new", ack_wait=3600.0)

    def close(self) -> None:
        """Let the clients go."""
        self.subscriber.close()
        self.publisher.close()

    def rounds(self, count: int) -> None:
        """So many rounds."""
        cpu_s = self.server.cpu_s
        for _ in range(count):
            begin = time.perf_counter()
            self._round()
            self.seconds.append(time.perf_counter() - begin)
        self.cpu_s += self.server.cpu_s - cpu_s

    @property
    def figures(self) -> dict[str, float]:
        """The median of a round, and the server's time for one."""
        return {
            "round_us": round(statistics.median(self.seconds) * 1e6),
            "server_us": round(self.cpu_s / len(self.seconds) * 1e6),
        }

    def _round(self) -> None:
        self.publisher.send(USED, b"x" * 100)
        assert len(self.subscriber.pull(USED, wait=10).payloads) == 1

    def looks(self) -> dict[str, float]:
        """How long the looks at everything take, in milliseconds, the best of three."""
        looks: dict[str, Callable[[], object]] = {
            "status": self.admin.status,
            "topics": self.admin.topics,
            "subscriptions": self.admin.subscriptions,
            "why": lambda: self.admin.why(USED),
        }
        return {
            name: round(min(_timed(look) for _ in range(3)) * 1e3, 2)
            for name, look in looks.items()
        }


def _timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def grown(name: str, share: float) -> dict[str, Any]:
    """One world: what a round costs before and after, and what else there is to tell."""
    grow, count = GROWN[name]
    count = max(1000, int(count * share)) if count >= 1000 else int(count * share)
    with (
        Server() as plain,
        Server() as server,
        Admin(plain.address) as plain_admin,
        Admin(server.address) as admin,
    ):
        alone, used = Used(plain, plain_admin), Used(server, admin)
        # Until all tables of Python itself have the size that they keep.
        used.rounds(ROUNDS)
        memory = server.memory_bytes
        world = World(server.address)
        # What the reader has not acknowledged of its own is not part of it.
        used.subscriber.pull(USED)
        used.subscriber.close()
        if name == "messages of backlog":
            admin.delete_subscription(USED, READER)
        took_s = _timed(lambda: grow(world, count))
        memory = server.memory_bytes - memory
        used.read()
        used.seconds, used.cpu_s = [], 0.0
        for _ in range(TURNS):
            alone.rounds(ROUNDS)
            used.rounds(ROUNDS)
        one, many = alone.figures, used.figures
        found = {
            "grown": name,
            "count": count,
            "one": one,
            "many": many,
            "server_ratio": round(many["server_us"] / one["server_us"], 2),
            "round_ratio": round(many["round_us"] / one["round_us"], 2),
            "bytes_each": round(memory / count, 1),
            "memory_mib": round(server.memory_bytes / MIB),
            "built_s": round(took_s, 1),
            "looks_ms": used.looks(),
        }
        used.close()
        alone.close()
        if name in ("waiting pulls", "connections"):
            found["idle_share"] = _idle(server)
        world.close()
        return found


def _idle(server: Server) -> float:
    """The share of a core that the server takes when there is nothing to do."""
    time.sleep(1)
    cpu_s = server.cpu_s
    time.sleep(IDLE_S)
    return round((server.cpu_s - cpu_s) / IDLE_S, 4)


def fan_out(share: float) -> dict[str, Any]:
    """What one delivery costs the server: to one subscriber, and to a thousand of a topic."""
    found: dict[str, Any] = {}
    for count in (1, max(10, int(1000 * share))):
        with Server() as server, Publisher(server.address) as publisher:
            publisher.create_topic(USED)
            clients = [Raw(server.address).subscriber(f"s-{number}") for number in range(count)]
            for client in clients:
                client.ask(wire.Subscribe(0, USED, "new"))
            messages = 3000 // count if count > 1 else 3000
            cpu_s = server.cpu_s
            for _ in range(messages):
                for client in clients:
                    client.write(client.frame(wire.Pull(0, USED, 10, None, 30_000)))
                publisher.send(USED, b"x" * 100)
                for client in clients:
                    client.reply()
            cpu_s = server.cpu_s - cpu_s
            found[str(count)] = {"server_us": round(cpu_s / (messages * count) * 1e6)}
            for client in clients:
                client.close()
    one, many = found.values()
    found["server_ratio"] = round(many["server_us"] / one["server_us"], 2)
    return found


HEAD = (
    "| much of | how many | server's time a round: with one | with many | ratio "
    "| a round: with one | with many | ratio | bytes each "
    "| status, ms | topics | subscriptions | why | idle |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def row(found: dict[str, Any]) -> str:
    """A line of the table."""
    one, many, looks = found["one"], found["many"], found["looks_ms"]
    idle = f"{found['idle_share'] * 100:.2f} %" if "idle_share" in found else ""
    return (
        f"| {found['grown']} | {found['count']:,} | {one['server_us']} µs | {many['server_us']} µs "
        f"| {found['server_ratio']} | {one['round_us']} µs | {many['round_us']} µs | "
        f"{found['round_ratio']} | {found['bytes_each']:,} | {looks['status']} | "
        f"{looks['topics']} | {looks['subscriptions']} | {looks['why']} | {idle} |"
    )


def main() -> None:
    """Measure what is wanted; what was measured before stays in the report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join([*GROWN, "fan-out"]))
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--json", type=Path, default=ROOT / "reports" / "growth.json")
    asked = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found = json.loads(asked.json.read_text()) if asked.json.exists() else {"grown": {}}
    found["machine"] = machine()
    found["command"] = " ".join(["python", "scripts/growth_figures.py", *sys.argv[1:]])
    print(HEAD)
    for name in asked.names or GROWN:
        if name in GROWN:
            found["grown"][name] = grown(name, asked.share)
            print(row(found["grown"][name]), flush=True)
    if not asked.names or "fan-out" in asked.names:
        found["fan_out"] = fan_out(asked.share)
        print(f"\nA delivery, by the number of subscribers: {json.dumps(found['fan_out'])}")
    asked.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
