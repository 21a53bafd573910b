"""A topic that moves from a local server into a cluster, and back, with movers that are killed."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from broker_process import BrokerProcess, wait_until

from mbctl import Admin, Publisher, Subscriber
from mbctl.cluster.processes import Cluster

pytestmark = pytest.mark.slow

MESSAGES = 24_000


@pytest.fixture
def clustered(tmp_path: Path) -> Iterator[BrokerProcess]:
    """A server on a cluster of one node."""
    cluster = Cluster(tmp_path / "cluster")
    cluster.start(1, sync="2m")
    broker = BrokerProcess(engine=cluster.url)
    yield broker
    broker.check()
    cluster.stop()


def test_topic_moves_into_a_cluster_and_back(
    server: str, clustered: BrokerProcess, topic: str
) -> None:
    payloads = [b"%01000d" % number for number in range(MESSAGES - 1)] + [b""]
    keys = [b"%d" % (number % 7) if number % 3 else None for number in range(MESSAGES)]
    headers = [{"number": str(number)} if number % 2 else None for number in range(MESSAGES)]
    with Publisher(server) as publisher:
        publisher.create_topic(topic, max_messages=MESSAGES, max_age=3600)
        for part in (slice(first, first + 500) for first in range(0, MESSAGES, 500)):
            publisher.send_many(topic, payloads[part], keys=keys[part], headers=headers[part])
    there = move(topic, server, clustered.address)
    assert there.returncode == 2
    assert b"leave it out: --without max-messages" in there.stderr
    for _ in range(3):
        kill_midway(topic, server, clustered.address)
    assert move(topic, server, clustered.address, "--without", "max-messages").returncode == 0
    with Admin(clustered.address) as admin:
        assert admin.topic(topic).settings.max_age == 3600
        shown = admin.peek(topic, "earliest", 2 * MESSAGES)
    assert shown.payloads == payloads
    assert [message.key for message in shown] == keys
    assert [dict(message.headers) or None for message in shown] == headers
    with Subscriber(clustered.address, "billing") as subscriber:
        subscriber.subscribe(topic, start="earliest")
        assert subscriber.pull(topic, 10, wait=5).payloads == payloads[:10]
    with Publisher(server) as publisher:
        publisher.delete_topic(topic)
    assert move(topic, clustered.address, server).returncode == 0
    with Admin(server) as admin:
        assert admin.peek(topic, "earliest", 2 * MESSAGES).payloads == payloads


def command(topic: str, source: str, target: str, *options: str) -> list[str]:
    return [
        *(sys.executable, "-m", "mbctl", "topic", "move", topic),
        *("-s", source, "--to", target, *options),
    ]


def move(topic: str, source: str, target: str, *options: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command(topic, source, target, *options), capture_output=True, check=False
    )


def kill_midway(topic: str, source: str, target: str) -> None:
    """Kill a move when some more messages have come."""
    with Admin(target) as admin:
        before = moved(admin, topic)
        with subprocess.Popen(
            command(topic, source, target, "-q", "--without", "max-messages")
        ) as process:
            wait_until(lambda: moved(admin, topic) > before)
            process.kill()
        assert process.returncode == -signal.SIGKILL


def moved(admin: Admin, topic: str) -> int:
    """How many batches of the topic are at the target."""
    return next((info.batches or 0 for info in admin.topics() if info.topic == topic), 0)
