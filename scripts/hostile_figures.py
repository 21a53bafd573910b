"""What hostile and unlucky clients cost the others: writes reports/hostile.json and a table.

    python scripts/hostile_figures.py                     all of it, about five minutes
    python scripts/hostile_figures.py never_read silent   only these
    python scripts/hostile_figures.py --loop asyncio      on the plain asyncio loop

Each attack has a new server, in memory with the default limits. A healthy client, in a
process of its own, sends a message and pulls it, again and again, first alone and then beside
the attack: compare the two. Attackers have a low priority, as they would be on machines of
their own; what they take of this one all the same shows in what a second server, that is not
attacked, takes at the same time to serve a client like that. scripts/hostile/ has the attacks.
"""

import argparse
import json
import multiprocessing
import os
import resource
import sys
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from hostile.attacks import ATTACKS, Told
from measuring.healthy import Healthy
from measuring.machine import machine
from measuring.server import MIB, Peak, Server

ROOT = Path(__file__).parent.parent


def measured(name: str, loop: str, seconds: float) -> dict[str, Any]:
    """One attack: what it did to the healthy client and to the server."""
    with Server(loop=loop) as server, Server(loop=loop) as other:
        healthy, elsewhere = Healthy(server.address), Healthy(other.address)
        healthy.during(0.5)
        elsewhere.during(0.5)
        alone = healthy.during(seconds)
        before, descriptors = server.memory_bytes, server.descriptors
        begun, over = multiprocessing.Event(), multiprocessing.Event()
        seen: Queue[dict[str, int]] = multiprocessing.Queue()
        attack = multiprocessing.Process(
            target=_attack, args=(name, server.address, begun, over, seen)
        )
        with Peak(server) as peak:
            attack.start()
            begun.wait()
            cpu_s, began = server.cpu_s, time.monotonic()
            elsewhere.begin()
            beside = healthy.during(seconds)
            quiet = elsewhere.counted()
            cpu = (server.cpu_s - cpu_s) / (time.monotonic() - began)
            over.set()
            noted = seen.get()
            attack.join()
        left = _descriptors_left(server, descriptors)
        healthy.end()
        elsewhere.end()
        return {
            "attack": name,
            "loop": loop,
            "alone": alone,
            "elsewhere": quiet,
            "beside": beside,
            "p99_ratio": round(beside["p99_ms"] / alone["p99_ms"], 2),
            "p99_ratio_elsewhere": round(beside["p99_ms"] / quiet["p99_ms"], 2),
            "server_cpu": round(cpu, 2),
            "memory_before_mib": round(before / MIB),
            "memory_peak_mib": round(peak.bytes / MIB),
            "log_lines_per_s": server.log_lines_per_s,
            "descriptors_left": left,
            "seen": noted,
        }


def _attack(
    name: str, address: str, begun: Event, over: Event, seen: "Queue[dict[str, int]]"
) -> None:
    os.nice(10)
    told = Told(over.is_set, begun.set)
    try:
        ATTACKS[name](address, told)
    except Exception as error:
        told.note(f"failed: {error!r}")
        begun.set()
    seen.put(told.seen)


def _descriptors_left(server: Server, before: int) -> int:
    """How many descriptors the attack left behind, some seconds later."""
    end = time.monotonic() + 10
    while server.descriptors > before and time.monotonic() < end:
        time.sleep(0.1)
    return server.descriptors - before


def row(found: dict[str, Any]) -> str:
    """A line of the table."""
    alone, elsewhere, beside = found["alone"], found["elsewhere"], found["beside"]
    seen = ", ".join(f"{count} {what}" for what, count in sorted(found["seen"].items()))
    return (
        f"| {found['attack'].replace('_', ' ')} | {found['loop']} | {alone['p50_ms']} | "
        f"{alone['p99_ms']} | {elsewhere['p50_ms']} | {elsewhere['p99_ms']} | {beside['p50_ms']} | "
        f"{beside['p99_ms']} | {found['p99_ratio']}, {found['p99_ratio_elsewhere']} | "
        f"{beside['max_ms']} | {found['memory_peak_mib']} | {found['log_lines_per_s']} | "
        f"{found['descriptors_left']} | {round(found['server_cpu'] * 100)} % | {seen} |"
    )


HEAD = (
    "| attack | loop | alone: p50, ms | p99 | elsewhere: p50 | p99 | beside: p50 | p99 "
    "| p99 to alone, to elsewhere | longest | "
    "memory at most, MiB | log lines a second | descriptors left | server's core | seen |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Measure what is wanted; what was measured before stays in the report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=", ".join(ATTACKS))
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--json", type=Path, default=ROOT / "reports" / "hostile.json")
    asked = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found = json.loads(asked.json.read_text()) if asked.json.exists() else {"attacks": {}}
    found["machine"] = machine()
    found["command"] = "python " + " ".join(["scripts/hostile_figures.py", *sys.argv[1:]])
    print(HEAD)
    for name in asked.attacks or ATTACKS:
        result = measured(name, asked.loop, asked.seconds)
        found["attacks"][f"{name} {asked.loop}"] = result
        print(row(result), flush=True)
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
