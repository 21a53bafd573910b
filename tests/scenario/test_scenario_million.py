"""A million messages from two publisher processes to three subscriber processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mbctl import Admin, Subscriber
from mbctl.bench.processes import ServerProcess, memory_bytes
from mbctl.model import MIB

PARTS = Path(__file__).with_name("million_parts.py")
TOPIC = "million"
PUBLISHERS = (1, 2)
SUBSCRIBERS = ("billing", "audit", "reports")


def start(role: str, address: str, name: object, count: int) -> "subprocess.Popen[str]":
    command = [sys.executable, str(PARTS), role, address, str(name), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def answers(processes: "list[subprocess.Popen[str]]") -> list[dict]:
    results = []
    for process in processes:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        results.append(json.loads(out))
    return results


@pytest.mark.slow
def test_every_subscriber_gets_each_of_a_million_messages_once_and_in_order() -> None:
    total = 1_000_000
    with ServerProcess() as server, Admin(server.address) as admin:
        admin.create_topic(TOPIC)
        for name in SUBSCRIBERS:
            with Subscriber(server.address, name=name) as subscriber:
                subscriber.subscribe(TOPIC)
        before = memory_bytes(server.pid)
        readers = [start("subscribe", server.address, name, total) for name in SUBSCRIBERS]
        writers = [start("publish", server.address, p, total // 2) for p in PUBLISHERS]
        peak = before
        while any(process.poll() is None for process in (*readers, *writers)):
            admin.ping()
            peak = max(peak, memory_bytes(server.pid))
            try:
                readers[-1].wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            break
        sent, received = answers(writers), answers(readers)
        after, topic = memory_bytes(server.pid), admin.topic(TOPIC)

    assert sum(result["count"] for result in sent) == total
    for result in received:
        assert result["count"] == total
        assert result["wrong"] == 0
        assert result["per_publisher"] == {"1": total // 2, "2": total // 2}
    assert len({json.dumps(result["digests"], sort_keys=True) for result in received}) == 1
    assert (topic.messages, topic.next_offset) == (0, total)

    begin = min(result["begin"] for result in sent)
    published = total / (max(result["end"] for result in sent) - begin)
    delivered = 3 * total / (max(result["end"] for result in received) - begin)
    print(
        f"\npublished {published:,.0f}/s, delivered {delivered:,.0f}/s in all; server memory"
        f" {before / MIB:.0f} MiB before, {peak / MIB:.0f} at the peak, {after / MIB:.0f} after"
    )
