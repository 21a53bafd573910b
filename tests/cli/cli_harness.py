"""What the tests of the command line share: a server process, and how a command ended."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cached_property
from typing import Any

import msgspec

READY = "mbctl server ready on "


class Ended(msgspec.Struct, frozen=True):
    """How a command ended and what it wrote."""

    code: int
    out: bytes
    err: str

    @property
    def json(self) -> Any:
        """Stdout as one JSON value."""
        return json.loads(self.out)

    @property
    def jsonl(self) -> list[Any]:
        """Stdout as a JSON value on each line."""
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Ended]


class ServerProcess:
    """A server in a process of its own, on a free port."""

    def __init__(self, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mbctl", "server", "--memory", "--port", "0", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    @cached_property
    def address(self) -> str:
        """Where the server listens; waits until it does."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith(READY), f"the server began with {line!r}"
        return line.removeprefix(READY).strip()

    def stop(self) -> int:
        """Stop the server as Ctrl-C would; its exit code."""
        self.process.terminate()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.wait(timeout=10)
