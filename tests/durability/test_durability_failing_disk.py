"""A disk that fails: the server ends at once, names the file, and has promised nothing since."""

import resource
import time
from pathlib import Path

import pytest
from crashes.processes import Server, wait_until
from durability_parts import Sending, StartServer
from strace_oracle import LAST_LINE, STRACE, Judge, read_trace

from mbctl.model import KIB, MIB

pytestmark = pytest.mark.slow

# How long a server may go on after its disk has failed. The second that it has is its own;
# the rest is for a machine that is busy.
END_S = 1.5


def check_end(server: Server) -> None:
    """Assert that the server ended by itself, because of a segment, and said so once."""
    assert server.process.stdout is not None
    assert server.process.stdout.read() == ""
    assert server.wait() == 1
    (named,) = [line for line in server.log.splitlines() if "server failed" in line]
    assert ".segment" in named
    assert "Traceback" not in server.log


def check_trace(trace: Path, sendings: list[Sending]) -> None:
    """Assert that all that was acknowledged had been synced, so nothing after the failure."""
    wait_until(lambda: LAST_LINE in trace.read_text()[-200:])
    with trace.open() as file:
        judge = Judge().look(read_trace(file))
    assert judge.violations == []
    # An answer that was given may have been lost with the connection.
    assert judge.acknowledged >= sum(len(sending.stored) for sending in sendings)


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
# The first is of the creation of the topic.
@pytest.mark.parametrize("number", [1, 2, 3, 7, 20, 50])
def test_failed_fdatasync_ends_the_server_and_nothing_acknowledged_is_lost(
    number: int, error: str, start_server: StartServer, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    inject = f"inject=fdatasync:error={error}:when={number}"
    wrapper = ("strace", *STRACE, "-e", inject, "-o", str(trace))
    server = start_server(*wrapper, segment_bytes=64 * KIB)
    # It has marked every message with a number of its own, as the trace needs it.
    sending = Sending(server.address, size=2_000)
    check_end(server)
    sending.stop()
    assert sending.end is not None
    check_trace(trace, [sending])
    sending.check(start_server(segment_bytes=64 * KIB).address)


@pytest.mark.usefixtures("strace")
def test_server_ends_within_a_second_of_a_failed_fdatasync(start_server: StartServer) -> None:
    wrapper = ("strace", "-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null")
    inject = ("-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=100+")
    server = start_server(*wrapper, *inject, segment_bytes=MIB)
    sendings = [Sending(server.address, f"t{n}") for n in range(3)]
    wait_until(lambda: "server failed" in server.log)
    begin = time.monotonic()
    check_end(server)
    assert time.monotonic() - begin < END_S
    for sending in sendings:
        sending.stop()
    server = start_server(segment_bytes=MIB)
    for sending in sendings:
        sending.check(server.address)


def test_write_beyond_the_limit_for_files_ends_the_server(start_server: StartServer) -> None:
    server = start_server(segment_bytes=MIB)
    sending = Sending(server.address, size=10_000)
    wait_until(lambda: len(sending.stored) > 10)
    # The next write across this place is cut short, and the one after it is refused.
    limit = 400 * KIB + 123
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (limit, limit))
    check_end(server)
    sending.stop()
    assert len(sending.stored) <= limit // 10_000
    sending.check(start_server(segment_bytes=MIB).address)
