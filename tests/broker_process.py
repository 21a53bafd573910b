"""A server in a process of its own, for tests: started on a free port, its log kept."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from mbctl.model import Limits

T = TypeVar("T")

READY = "mbctl server ready on "
# Generous: only a failing test waits this long.
PATIENCE_S = 20.0

# What must never stand in a server's log.
_TROUBLE = re.compile(r"Traceback|internal error|never awaited|Warning:")

# The command line has no options for the limits, so a server with small ones is run by this.
_WITH_LIMITS = """
import sys
import msgspec
from mbctl.model import Limits
from mbctl.server import ServerOptions, run
limits = msgspec.json.decode(sys.argv[1], type=Limits)
raise SystemExit(run(ServerOptions(port=int(sys.argv[2]), memory=True, limits=limits)))
"""


class BrokerProcess:
    """``mbctl server``: in memory, with ``data`` on disk, with ``engine`` on a cluster.

    With other ``limits`` if given, in memory.
    """

    def __init__(
        self,
        *options: str,
        port: int = 0,
        limits: Limits | None = None,
        data: Path | None = None,
        engine: str | None = None,
    ) -> None:
        if limits is None:
            where = ["--memory"] if data is None else ["--data", str(data)]
            where = where if engine is None else ["--engine", engine]
            command = ["-m", "mbctl", "server", *where, "--port", str(port), *options]
        else:
            command = ["-c", _WITH_LIMITS, msgspec.json.encode(limits).decode(), str(port)]
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, *command],
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env={name: value for name, value in os.environ.items() if "MBCTL" not in name},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith(READY):
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the server began with {line!r} and logged: {self.log}")
        self.address = line.removeprefix(READY).strip()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.pid

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.address.rpartition(":")[2])

    @property
    def log(self) -> str:
        """What it has written to stderr so far."""
        self._stderr.seek(0)
        return self._stderr.read()

    @property
    def memory_bytes(self) -> int:
        """Its resident memory."""
        with open(f"/proc/{self.pid}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def descriptors(self) -> int:
        """How many files and sockets it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Ask it to stop; its exit code, and what stdout held after the ready line."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        """Wait until it has ended; its exit code, and the rest of stdout."""
        assert self.process.stdout is not None
        rest = "" if self.process.stdout.closed else self.process.stdout.read()
        self.process.stdout.close()
        return self.process.wait(PATIENCE_S), rest

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.wait()

    def check(self) -> None:
        """Stop it if it still runs, and assert that nothing went wrong inside it."""
        was_running = self.process.poll() is None
        code, rest = self.stop()
        log = self.log
        self._stderr.close()
        assert _TROUBLE.search(log) is None, log
        if was_running:
            assert (code, rest) == (0, ""), log


def wait_until(condition: Callable[[], T], seconds: float = PATIENCE_S) -> T:
    """Wait until ``condition`` is true, asking often; what it returned."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not true after {seconds} s"
        time.sleep(0.002)
    return found
