"""What the tests of the command line share: commands as processes, and how they ended."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Self

import msgspec
from broker_process import PATIENCE_S


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


class Command:
    """A command that runs in a process of its own, to be interrupted or cut off."""

    def __init__(self, *args: str, stdin: int | None = subprocess.DEVNULL) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mbctl", *args],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def read_line(self) -> bytes:
        """The next line of stdout; waits for it."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def read_note(self) -> str:
        """The next line of stderr; waits for it."""
        assert self.process.stderr is not None
        return self.process.stderr.readline().decode()

    def close_stdout(self) -> None:
        """Stop reading, as ``head`` does when it has enough."""
        assert self.process.stdout is not None
        self.process.stdout.close()

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def end(self) -> Ended:
        """Wait for the end; what was not read yet."""
        code = self.process.wait(timeout=PATIENCE_S)
        out, err = self.process.stdout, self.process.stderr
        assert out is not None
        assert err is not None
        return Ended(code, b"" if out.closed else out.read(), err.read().decode())
