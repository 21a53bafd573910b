"""What happens when the system has no descriptor for another connection."""

import asyncio
import logging
import os
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from broker_process import PATIENCE_S, BrokerProcess, wait_until
from server_harness import RawClient, ServerInside

from mbctl import Admin, Publisher
from mbctl.wire import messages as wire

Start = Callable[..., BrokerProcess]

_SERVE = """
import sys
if sys.argv[1] == "asyncio":
    sys.modules["uvloop"] = None
from mbctl.server import ServerOptions, run
raise SystemExit(run(ServerOptions(port=0, memory=True)))
"""


@contextmanager
def descriptors_at_most(count: int) -> Iterator[None]:
    """Let this process, and those it starts, have no more than ``count`` files open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("loop", ["uvloop", pytest.param("asyncio", marks=pytest.mark.slow)])
def test_connections_wait_while_there_is_no_descriptor_and_are_served_when_there_is(
    loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    loop_factory: Any = asyncio.SelectorEventLoop
    if loop == "uvloop":
        loop_factory = pytest.importorskip("uvloop").Loop
    caplog.set_level(logging.INFO, "mbctl.server")
    with ServerInside(loop_factory=loop_factory) as inside, inside.client() as there:
        there.hello()
        with inside.held():
            clients = [inside.client() for _ in range(30)]
        inside.wait_until(lambda: len(inside.server.connections) == 31)
        for client in clients:
            client.socket.close()
        inside.wait_until(lambda: len(inside.server.connections) == 1)
        with inside.held():
            clients = [inside.client() for _ in range(30)]
            # One more may be opened than is open now; who waits to be accepted needs thirty.
            lowest = os.dup(0)
            os.close(lowest)
            limit = descriptors_at_most(lowest + 1)
            limit.__enter__()
        try:
            wait_until(lambda: "no connection can be accepted" in caplog.text)
            for _ in range(20):
                assert isinstance(there.ask(wire.Ping(0)), wire.Done)
            assert caplog.text.count("no connection can be accepted") == 1
        finally:
            limit.__exit__(None, None, None)
        for client in clients:
            client.hello()
            client.socket.close()
        assert "accepting connections again" in caplog.text


@pytest.mark.parametrize("loop", ["uvloop", pytest.param("asyncio", marks=pytest.mark.slow)])
def test_a_server_with_few_descriptors_survives_two_hundred_clients(loop: str) -> None:
    process = subprocess.Popen(
        ["/bin/sh", "-c", f'ulimit -n 64; exec {sys.executable} -c "$0" {loop}', _SERVE],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    address = process.stdout.readline().split()[-1]
    with Publisher(address) as publisher:
        publisher.create_topic("t")
        clients = [RawClient(address) for _ in range(200)]
        ends: Counter[str | None] = Counter()
        for client in clients:
            client.write(client.frame(wire.Hello(0, 1, 1, "x")))
        for client in clients:
            try:
                client.reply()
                ends["welcome"] += 1
            except OSError:
                ends[client.end] += 1
        # Who was there is served, some are welcome, and others are told that they are not.
        assert publisher.send("t", b"x").count == 1
        assert ends["welcome"] == 31
        assert ends["LimitExceeded"] > 0
        for client in clients:
            client.socket.close()
        with Admin(address) as admin:
            wait_until(lambda: admin.status().connections == 2)
            again = [RawClient(address).hello() for _ in range(28)]
            assert admin.status().connections == 30
            for client in again:
                client.socket.close()
    process.terminate()
    _, log = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert "Traceback" not in log
    assert "internal error" not in log
    seconds = Counter(line[:19] for line in log.splitlines())
    assert max(seconds.values()) < 10


def come_and_go(broker: BrokerProcess, count: int) -> None:
    for number in range(count):
        client = RawClient(broker.address)
        if number % 3 == 0:
            client.hello()
        if number % 2:
            client.reset()
        else:
            client.socket.close()


def test_five_hundred_reconnects_leave_no_descriptor_behind(start_broker: Start) -> None:
    _check_reconnects(start_broker(), 500)


@pytest.mark.slow
def test_ten_thousand_reconnects_leave_no_descriptor_behind(start_broker: Start) -> None:
    _check_reconnects(start_broker(), 10_000)


def _check_reconnects(broker: BrokerProcess, count: int) -> None:
    with Admin(broker.address) as admin:
        come_and_go(broker, 10)
        wait_until(lambda: admin.status().connections == 1)
        before = broker.descriptors
        come_and_go(broker, count)
        wait_until(lambda: admin.status().connections == 1)
        wait_until(lambda: broker.descriptors <= before)
