"""SIGTERM in every phase of a server's life, and two servers on one directory."""

import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from crashes.processes import Server, wait_until
from durability_parts import Sending, StartServer, contents, read_numbers

from mbctl import Publisher, Subscriber
from mbctl.model import KIB

# How long a stop may take, whatever the server is about.
STOP_S = 10.0


def stop(server: Server, *, signals: int = 1) -> None:
    """Send SIGTERM, once or more often, and assert that the server ends in good order."""
    begin = time.monotonic()
    for _ in range(signals):
        server.process.send_signal(signal.SIGTERM)
    assert server.finish() == 0, server.log
    assert time.monotonic() - begin < STOP_S


def fill(address: str, segments: int) -> int:
    """Send enough for so many segments of 64 KiB; how many messages."""
    count = 8 * segments
    with Publisher(address) as publisher:
        publisher.create_topic("t")
        for number in range(count):
            publisher.send_many("t", [(b"<%d>" % number).ljust(8 * KIB, b".")])
    return count


def is_recovering(server: Server) -> bool:
    """Whether a server has said that it is at it."""
    assert server.is_running
    return "recovering" in server.log


def check_clean_start(server: Server, sendings: list[Sending]) -> None:
    """Assert that a server has nothing to complain of, and all that was acknowledged."""
    assert " warning " not in server.log
    for sending in sendings:
        sending.check(server.address)


@pytest.mark.parametrize("signals", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_stop_under_load_loses_nothing(signals: int, start_server: StartServer) -> None:
    server = start_server(segment_bytes=64 * KIB)
    sendings = [Sending(server.address, f"t{n}") for n in range(3)]
    with Subscriber(server.address, "reader") as subscriber:
        for n in range(3):
            subscriber.subscribe(f"t{n}")
        # Not at a quiet moment: every publisher has had hundreds of answers.
        wait_until(lambda: all(len(sending.stored) > 300 for sending in sendings))
        stop(server, signals=signals)
        subscriber.close()
    for sending in sendings:
        sending.stop()
        assert sending.end is not None
    check_clean_start(start_server(), sendings)


@pytest.mark.slow
def test_stop_at_once_after_the_ready_line_is_clean(start_server: StartServer) -> None:
    for _ in range(2):
        stop(start_server())
    check_clean_start(start_server(), [])


@pytest.mark.slow
def test_stop_during_a_slow_sync_waits_for_it(start_server: StartServer) -> None:
    server = start_server(sync_ms=300.0)
    sending = Sending(server.address, timeout=1.5)
    wait_until(lambda: sending.begun == 2)
    stop(server, signals=2)
    sending.stop()
    check_clean_start(start_server(), [sending])


def test_stop_during_recovery_ends_it_and_the_next_start_is_whole(
    start_server: StartServer,
) -> None:
    server = start_server(segment_bytes=64 * KIB)
    count = fill(server.address, segments=40)
    server.kill()
    for _ in range(2):
        server = start_server(is_awaited=False, segment_bytes=64 * KIB, read_ms=100.0)
        wait_until(partial(is_recovering, server))
        process = server.process
        assert process.stdout is not None
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == ""
        assert process.wait(STOP_S) == 0, server.log
    server = start_server(segment_bytes=64 * KIB)
    assert len(read_numbers(server.address, "t")) == count


@pytest.mark.slow
@pytest.mark.parametrize("after_ms", [0, 1, 3, 10, 30, 100])
def test_stop_and_kill_shortly_after_it_lose_nothing(
    after_ms: int, start_server: StartServer
) -> None:
    server = start_server(segment_bytes=64 * KIB)
    sendings = [Sending(server.address, f"t{n}") for n in range(3)]
    wait_until(lambda: all(len(sending.stored) > 100 for sending in sendings))
    server.process.send_signal(signal.SIGTERM)
    time.sleep(after_ms / 1000)
    assert server.kill() in (0, -signal.SIGKILL)
    for sending in sendings:
        sending.stop()
    server = start_server()
    for sending in sendings:
        sending.check(server.address)


@pytest.mark.slow
def test_stop_at_any_moment_of_a_start_is_clean(start_server: StartServer) -> None:
    server = start_server(segment_bytes=64 * KIB)
    count = fill(server.address, segments=20)
    server.kill()
    codes: list[int] = []
    # Later and later, until it has been ready long before.
    while codes.count(0) < 5:
        server = start_server(is_awaited=False, segment_bytes=64 * KIB)
        time.sleep(len(codes) * 0.03)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.stdout is not None
        assert server.process.stdout.read().count("\n") <= 1
        codes.append(server.finish())
        # While the program is still being imported a signal ends it by itself.
        assert codes[-1] in (0, -signal.SIGTERM)
    server = start_server(segment_bytes=64 * KIB)
    assert len(read_numbers(server.address, "t")) == count


# --- two servers on one directory ---------------------------------------------------------------


def run_second(data: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "mbctl", "server", "--data", str(data), "--port", "0"]
    return subprocess.run(command, capture_output=True, text=True, timeout=20)


def test_second_server_on_a_directory_is_refused_and_changes_nothing(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server(segment_bytes=64 * KIB)
    fill(server.address, segments=3)
    # The mark that follows a quiet moment has been written, and nothing else is to come.
    before = wait_until(lambda: _quiet_contents(tmp_path / "data"))
    ended = run_second(tmp_path / "data")
    assert contents(tmp_path / "data") == before
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert str(tmp_path / "data") in line
    assert re.search(rf"\b{server.pid}\b", line)
    with Publisher(server.address) as publisher:
        assert publisher.send("t", b"still here").offset == 24


def _quiet_contents(data: Path) -> dict[str, bytes] | None:
    """What is in a directory, if it stays so for a while."""
    before = contents(data)
    time.sleep(0.1)
    return before if contents(data) == before else None


@pytest.mark.slow
def test_server_starts_at_once_after_the_one_before_was_killed(
    start_server: StartServer,
) -> None:
    for number in range(3):
        server = start_server(segment_bytes=64 * KIB)
        with Publisher(server.address) as publisher:
            publisher.create_topic("t")
            assert publisher.send("t", b"%d" % number).offset == number
        server.kill()
