"""The server as a process: starting, its log, and stopping in the middle of everything."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
from broker_process import PATIENCE_S, BrokerProcess, wait_until
from server_harness import RawClient

from mbctl import Admin, ConnectionLost, MbctlError, Publisher, Receipt, Subscriber
from mbctl.model import MIB, Limits
from mbctl.wire import messages as wire

Start = Callable[..., BrokerProcess]


def run_server(*options: str) -> subprocess.CompletedProcess[str]:
    """Run a server that is not expected to start."""
    return subprocess.run(
        [sys.executable, "-m", "mbctl", "server", "--memory", *options],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


# --- starting -----------------------------------------------------------------------------------


def test_the_ready_line_is_all_of_stdout_and_tells_the_real_port(start_broker: Start) -> None:
    broker = start_broker()
    assert re.fullmatch(r"127\.0\.0\.1:\d+", broker.address)
    assert broker.port > 0
    with Admin(broker.address) as admin:
        assert admin.status().address == broker.address
    assert broker.stop() == (0, "")


@pytest.mark.parametrize("host", ["::1", "localhost", "127.0.0.2"])
def test_a_server_listens_on_any_loopback_address(host: str, start_broker: Start) -> None:
    broker = start_broker("--host", host)
    with Admin(broker.address) as admin:
        assert admin.ping() > 0


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.org"])
def test_a_host_beyond_loopback_is_refused_without_insecure(host: str) -> None:
    ended = run_server("--host", host, "--port", "0")
    assert ended.returncode == 2
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert "--insecure" in line
    assert host in line


def test_a_host_beyond_loopback_is_served_with_insecure(start_broker: Start) -> None:
    broker = start_broker("--host", "0.0.0.0", "--insecure")
    with Admin(f"127.0.0.1:{broker.port}") as admin:
        assert admin.ping() > 0


def test_a_port_in_use_is_one_clear_line(start_broker: Start) -> None:
    broker = start_broker()
    ended = run_server("--port", str(broker.port))
    assert ended.returncode == 1
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert f"127.0.0.1:{broker.port}" in line
    assert "address already in use" in line.lower()


@pytest.mark.parametrize("options", [["--host", "no-such-host.invalid"], ["--host", "192.0.2.1"]])
def test_a_host_that_is_not_ours_is_one_clear_line(options: list[str]) -> None:
    ended = run_server("--insecure", "--port", "0", *options)
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert options[1] in ended.stderr


@pytest.mark.parametrize("options", [["--max-bytes", "5"], ["--port", "70000"]])
def test_options_that_make_no_sense_are_usage_errors(options: list[str]) -> None:
    ended = run_server(*options)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr


def test_a_port_is_free_again_the_moment_its_server_has_stopped(start_broker: Start) -> None:
    broker = start_broker()
    with Publisher(broker.address) as publisher:
        for _ in range(3):
            publisher.create_topic("t")
            broker.stop()
            broker = start_broker(port=broker.port)


# --- the log ------------------------------------------------------------------------------------


def test_the_log_has_one_line_for_each_event(start_broker: Start) -> None:
    broker = start_broker()
    with RawClient(broker.address) as client:
        client.write(b"GET / HTTP/1.1\r\n\r\n")
        client.rest()
    broker.stop()
    lines = broker.log.splitlines()
    for line in lines:
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (info   |warning) \w", line), line
    events = [" ".join(line.split()[2:4]) for line in lines]
    assert events == ["server ready", "connection ended", "server stopping", "server stopped"]
    assert 'code="ProtocolError"' in lines[1]


def test_the_log_may_be_json(start_broker: Start) -> None:
    broker = start_broker("--log-format", "json")
    with RawClient(broker.address) as client:
        client.write(b"\x1b[31m" * 10)
        client.rest()
    broker.stop()
    events = [json.loads(line) for line in broker.log.splitlines()]
    assert [event["event"] for event in events] == [
        "server ready",
        "connection ended",
        "server stopping",
        "server stopped",
    ]
    assert {"time", "level", "address", "version"} <= set(events[0])
    assert events[1]["code"] == "ProtocolError"


def test_a_client_that_misbehaves_in_a_loop_does_not_fill_the_log(start_broker: Start) -> None:
    broker = start_broker()
    begin = time.monotonic()
    for _ in range(300):
        with RawClient(broker.address) as client:
            client.write(b"\0\0\0\0")
            client.rest()
    seconds = time.monotonic() - begin
    lines = [line for line in broker.log.splitlines() if "connection ended" in line]
    assert 5 <= len(lines) <= 5 * (seconds + 2)
    assert "more of these" in lines[4]


def test_a_log_that_nobody_reads_does_not_stop_the_server() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "mbctl", "server", "--memory", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    address = process.stdout.readline().split()[-1]
    process.stderr.close()
    process.stdout.close()
    with RawClient(address) as client:
        client.write(b"\0\0\0\0")
        client.rest()
    with Admin(address) as admin:
        assert admin.ping() > 0
    process.terminate()
    assert process.wait(PATIENCE_S) == 0


# --- stopping -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_an_idle_server_at_once(number: int, start_broker: Start) -> None:
    broker = start_broker()
    begin = time.monotonic()
    assert broker.stop(number) == (0, "")
    assert time.monotonic() - begin < 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_answers_all_that_was_accepted(
    number: int, start_broker: Start
) -> None:
    broker = start_broker()
    receipts: list[Receipt] = []
    seen: list[int] = []
    troubles: list[BaseException] = []

    def act(call: Callable[[], None]) -> threading.Thread:
        def until_it_is_gone() -> None:
            try:
                while True:
                    call()
            except MbctlError as error:
                if not isinstance(error, ConnectionLost) and error.code != "OutcomeUnknown":
                    troubles.append(error)

        thread = threading.Thread(target=until_it_is_gone)
        thread.start()
        return thread

    with (
        Publisher(broker.address, timeout=1) as sender,
        Publisher(broker.address, timeout=1) as piper,
        Subscriber(broker.address, name="s", timeout=1) as subscriber,
    ):
        sender.create_topic("one")
        sender.create_topic("two")
        subscriber.subscribe("one")
        subscriber.subscribe("two")

        def pipe() -> None:
            with piper.pipeline() as pipe:
                for _ in range(20):
                    pipe.send_many("two", [bytes(100)] * 1000)

        def follow() -> None:
            for message in subscriber.follow("one", "two"):
                if message.topic == "one":
                    seen.append(message.offset)

        threads = [
            act(lambda: receipts.append(sender.send("one", b"x"))),
            act(pipe),
            act(follow),
        ]
        wait_until(lambda: len(receipts) > 100 and len(seen) > 100)
        begin = time.monotonic()
        assert broker.stop(number) == (0, "")
        assert time.monotonic() - begin < 4
        for thread in threads:
            thread.join()
        # There is no server to acknowledge the last batch to.
        subscriber.close()
    assert troubles == []
    # No send was answered twice or out of turn, and none that was answered is missing.
    assert [receipt.offset for receipt in receipts] == list(range(len(receipts)))
    assert seen == list(range(len(seen)))


def test_a_server_that_was_told_twice_to_stop_stops_once(start_broker: Start) -> None:
    broker = start_broker()
    with RawClient(broker.address) as idle:
        idle.hello()
        broker.process.send_signal(signal.SIGTERM)
        broker.process.send_signal(signal.SIGTERM)
        assert broker.stop(signal.SIGINT) == (0, "")


def test_a_stopping_server_accepts_no_one(start_broker: Start) -> None:
    broker = start_broker()
    # A client that does not read its reply keeps the server stopping for a while.
    with RawClient(broker.address) as deaf, Publisher(broker.address) as publisher:
        publisher.create_topic("t")
        for _ in range(3):
            publisher.send_many("t", [bytes(MIB)] * 4)
        deaf.take_little()
        deaf.subscriber("deaf")
        deaf.ask(wire.Subscribe(0, "t"))
        for _ in range(3):
            deaf.write(deaf.frame(wire.Pull(0, "t", 1000)))
        with Admin(broker.address) as admin:
            wait_until(lambda: admin.status().messages_out == 7)
        broker.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "server stopping" in broker.log)
        host, port = broker.address.split(":")
        wait_until(lambda: _is_refused(host, int(port)))
        # What it was sent is there to read after all.
        for id_ in (4, 5, 6):
            assert isinstance(deaf.reply(id_), wire.Pulled)
        deaf.rest()
        assert deaf.end == "ServerStopping"
        assert broker.wait() == (0, "")


def _is_refused(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 1).close()
    except OSError:
        return True
    return False


# --- what it holds ------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_thousand_connections_opened_and_closed_leave_nothing(start_broker: Start) -> None:
    broker = start_broker()
    with Admin(broker.address) as admin:
        admin.status()
        before = broker.descriptors
        for _ in range(10):
            clients = [RawClient(broker.address) for _ in range(100)]
            for client in clients:
                client.socket.close()
        wait_until(lambda: admin.status().connections == 1)
        wait_until(lambda: broker.descriptors <= before)


def test_a_server_short_of_descriptors_takes_fewer_connections(start_broker: Start) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, before[1]))
    try:
        command = ["-c", "ulimit -Hn 100; exec $0 -m mbctl server --memory --port 0"]
        process = subprocess.Popen(
            ["/bin/sh", *command, sys.executable],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert process.stdout is not None
    address = process.stdout.readline().split()[-1]
    clients = [RawClient(address) for _ in range(60)]
    held = []
    for client in clients:
        client.write(client.frame(wire.Hello(0, 1, 1, "x")))
        try:
            held.append(client.reply())
        except ConnectionError:
            assert client.end == "LimitExceeded"
    # Half of what there is, for the rest is little.
    assert len(held) == 50
    for client in clients:
        client.socket.close()
    with Admin(address) as admin:
        wait_until(lambda: admin.status().connections == 1)
    process.terminate()
    _, log = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert "internal error" not in log
    assert "Traceback" not in log


def test_clients_that_come_and_go_leave_no_memory_behind(start_broker: Start) -> None:
    broker = start_broker(limits=Limits(session_idle_s=0, ephemeral_idle_s=0))
    with Admin(broker.address) as admin:
        admin.create_topic("t")

        def come_and_go(count: int) -> int:
            for number in range(count):
                client = RawClient(broker.address).subscriber(None, os.urandom(16))
                client.ask(wire.Subscribe(0, "t"))
                for _ in range(10):
                    client.write(client.frame(wire.Pull(0, "t", 1, None, 60_000)))
                client.ask(wire.Ping(0))
                if number % 2:
                    client.reset()
                else:
                    client.socket.close()
            wait_until(lambda: admin.status().connections == 1)
            return broker.memory_bytes

        settled = come_and_go(200)
        assert come_and_go(600) - settled < 4 * MIB
