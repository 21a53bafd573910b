"""Programs of this folder as processes: a server that is to die, and a load that goes on."""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

SCRIPTS = Path(__file__).resolve().parent.parent
READY = "mbctl server ready on "
# Generous: only something that is broken takes so long.
PATIENCE_S = 30.0
T = TypeVar("T")

# What must never stand in a server's log.
_TROUBLE = re.compile(r"Traceback|internal error|never awaited|Warning:")


class Failed(Exception):
    """The broker did what it must never do: it did not start, or broke by itself."""


def free_port() -> int:
    """A port that nobody listens on; the server keeps it through its restarts.

    Not one of those that a system gives to outgoing connections (on Linux from 32768 on):
    while the server is down, a client's connection could take it, even to itself.
    """
    while True:
        port = random.randrange(15_000, 30_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def _start(*arguments: str, wrapper: Sequence[str] = (), **pipes: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*wrapper, sys.executable, "-m", *arguments],
        cwd=SCRIPTS,
        text=True,
        env={name: value for name, value in os.environ.items() if "MBCTL" not in name},
        **pipes,
    )


class Server:
    """``crashes.server`` with ``settings``; ``wrapper`` is a command that runs it, as strace."""

    def __init__(self, settings: msgspec.Struct, wrapper: Sequence[str] = ()) -> None:
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._log = ""
        self.process = _start(
            "crashes.server",
            msgspec.json.encode(settings).decode(),
            wrapper=wrapper,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )
        self.address = ""

    def wait_ready(self) -> bool:
        """Wait for the ready line; False if the process ended before it."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(PATIENCE_S)
            return False
        assert line.startswith(READY), line
        self.address = line.removeprefix(READY).strip()
        return True

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.pid

    @property
    def log(self) -> str:
        """What it wrote to stderr."""
        if not self._stderr.closed:
            self._stderr.seek(0)
            self._log = self._stderr.read()
        return self._log

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def wait(self, seconds: float = PATIENCE_S) -> int:
        """Wait for its end; the exit code."""
        return self.process.wait(seconds)

    def kill(self) -> int:
        """Kill it if it still runs, and wait; the exit code."""
        if self.is_running:
            self.process.send_signal(signal.SIGKILL)
        return self.finish()

    def stop(self) -> int:
        """Ask it to stop and wait; the exit code."""
        if self.is_running:
            self.process.send_signal(signal.SIGTERM)
        return self.finish()

    def close(self) -> None:
        """Kill it if it still runs, whatever it has to say; a second time does nothing."""
        if self.is_running:
            self.process.kill()
            self.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._stderr.close()

    def finish(self) -> int:
        """Wait for its end and look at its log; the exit code.

        Raises:
            Failed: there is trouble in its log.
        """
        code = self.wait()
        log = self.log
        self.close()
        if _TROUBLE.search(log):
            raise Failed(log)
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Load:
    """``crashes.load``, publishing or subscribing."""

    def __init__(self, kind: str, settings: msgspec.Struct) -> None:
        self._process = _start(
            "crashes.load",
            kind,
            msgspec.json.encode(settings).decode(),
            stdin=subprocess.PIPE,
        )

    @property
    def is_running(self) -> bool:
        """Whether it goes on."""
        return self._process.poll() is None

    def end(self) -> None:
        """Let everybody finish what is under way.

        Raises:
            Failed: something went wrong in it.
        """
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._process.wait(2 * PATIENCE_S) != 0:
            raise Failed("the load ended by an error of its own, see above")

    def kill(self) -> None:
        """End it at once."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()


def wait_until(condition: Callable[[], T], seconds: float = PATIENCE_S) -> T:
    """Wait until ``condition()`` is true; what it returned.

    Raises:
        Failed: it did not become true.
    """
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise Failed(f"not true after {seconds} s: {condition}")
        time.sleep(0.005)
    return found
