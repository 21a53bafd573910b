"""What lies between servers of mbctl and a cluster: names and certificates, and a network."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from broker_process import BrokerProcess, wait_until
from cluster_proxy import Gate
from nats_operator import OperatorServer

from mbctl import Admin, Publisher, Subscriber
from mbctl.cluster.config import Security
from mbctl.cluster.processes import Cluster

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of one node."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    cluster.start(1, sync="2m")
    yield cluster
    cluster.stop()


def test_servers_side_by_side_share_topics_subscribers_and_work(cluster: Cluster) -> None:
    servers = [BrokerProcess(engine=cluster.url) for _ in range(2)]
    one, other = (server.address for server in servers)
    with Publisher(one) as publisher:
        publisher.create_topic("shared")
        with Subscriber(one, "billing") as a, Subscriber(other, "billing") as b:
            assert a.subscribe("shared").created
            assert not b.subscribe("shared").created
            for number in range(100):
                publisher.send("shared", b"%d" % number)
            got: list[bytes] = []
            while len(got) < 100:
                for reader in (a, b):
                    batch = reader.pull("shared", 7, wait=1)
                    got += batch.payloads
                    batch.ack()
            assert sorted(got, key=int) == [b"%d" % number for number in range(100)]
            assert not a.pull("shared", wait=0)
            assert not b.pull("shared", wait=0)
    with Admin(other) as admin:
        # What was read stays for two minutes, and then anybody gives it up.
        assert admin.subscription("shared", "billing").unread == 0
        admin.delete_topic("shared")
    with Admin(one) as admin:
        assert "shared" not in [info.topic for info in admin.topics()]
    for server in servers:
        server.check()


def test_acknowledgements_outlive_the_only_node_and_the_server(cluster: Cluster) -> None:
    server = BrokerProcess(engine=cluster.url)
    with (
        Publisher(server.address) as publisher,
        Subscriber(server.address, "billing") as subscriber,
    ):
        publisher.create_topic("kept")
        subscriber.subscribe("kept")
        for number in range(20):
            publisher.send("kept", b"%d" % number)
        for _ in range(4):
            subscriber.pull("kept", 5, wait=1, auto_ack=False).ack()
        os.kill(cluster.pid("n1") or 0, signal.SIGKILL)
    server.kill()
    server.check()
    cluster.start_node("n1")
    wait_until(lambda: all(node.state == "ready" for node in cluster.status()))
    server = BrokerProcess(engine=cluster.url)
    with (
        Publisher(server.address, timeout=30) as publisher,
        Subscriber(server.address, "billing", timeout=30) as subscriber,
    ):
        publisher.send("kept", b"new")
        subscriber.subscribe("kept")
        assert subscriber.pull("kept", wait=5).payloads == [b"new"]
    server.check()


def test_cut_between_server_and_cluster_is_survived(cluster: Cluster) -> None:
    gate = Gate(int(cluster.url.rpartition(":")[2]))
    server = BrokerProcess(engine=f"nats://127.0.0.1:{gate.port}")
    with (
        Publisher(server.address, timeout=30) as publisher,
        Subscriber(server.address, "billing", timeout=30) as subscriber,
    ):
        publisher.create_topic("cut")
        subscriber.subscribe("cut")
        receipts = [publisher.send("cut", b"before")]
        assert subscriber.pull("cut", wait=5).payloads == [b"before"]
        gate.close()
        begun = time.monotonic()
        with publisher.pipeline() as pipe:
            for number in range(50):
                pipe.send("cut", b"%d" % number)
            gate.open_again()
        assert time.monotonic() - begun < 10
        got: list[bytes] = []
        while len(got) < 50:
            batch = subscriber.pull("cut", wait=5)
            assert batch
            got += batch.payloads
            batch.ack()
        assert got == [b"%d" % number for number in range(50)]
        assert not subscriber.pull("cut", wait=0.5)
        assert publisher.send("cut", b"after").offset > receipts[0].offset
    server.check()
    gate.end()


def test_names_and_certificates_are_asked_for(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = authority.issue_cert("127.0.0.1", "localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "node.pem")
    security = Security(
        user="till",
        password="a secret",
        certificate=str(tmp_path / "node.pem"),
        key=str(tmp_path / "node.pem"),
        authority=str(tmp_path / "ca.pem"),
    )
    cluster = Cluster(tmp_path / "cluster", security)
    cluster.start(1, sync="2m")
    place = cluster.url.removeprefix("nats://")
    try:
        server = BrokerProcess(engine=f"nats://till:a%20secret@{place}?ca={tmp_path / 'ca.pem'}")
        with Publisher(server.address) as publisher:
            publisher.create_topic("safe")
            assert publisher.send("safe", "one").count == 1
        server.check()
        for wrong in (
            f"nats://{place}?ca={tmp_path / 'ca.pem'}",
            f"nats://till:wrong@{place}?ca={tmp_path / 'ca.pem'}",
            f"tls://till:a%20secret@{place}",
        ):
            command = [sys.executable, "-m", "mbctl", "server", "--port", "0", "--engine", wrong]
            ended = subprocess.run(command, capture_output=True, text=True, timeout=20)
            assert (ended.returncode, ended.stdout) == (1, "")
            assert "no connection to the cluster" in ended.stderr
            assert "secret" not in ended.stderr
    finally:
        cluster.stop()


def test_credentials_of_an_account_let_a_server_in(tmp_path: Path) -> None:
    cluster = OperatorServer(tmp_path)
    try:
        broker = BrokerProcess(engine=f"{cluster.url}?creds={cluster.credentials}")
        with Publisher(broker.address) as publisher:
            publisher.create_topic("known")
            publisher.send("known", b"hello")
        with Admin(broker.address) as admin:
            assert admin.peek("known").payloads == [b"hello"]
        broker.check()
        command = [sys.executable, "-m", "mbctl", "server", "--port", "0", "--engine", cluster.url]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert "no connection to the cluster" in ended.stderr
    finally:
        cluster.close()
