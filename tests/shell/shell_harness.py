"""What the tests of the shells share: processes, and a terminal whose screen can be read."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import msgspec
import pexpect
import pyte

from mbctl.cli import main

READY = "mbctl server ready on "
MBCTL = [sys.executable, "-m", "mbctl"]

# Generous: only a failing test waits this long.
PATIENCE_S = 10.0


class ServerProcess:
    """A server in a process of its own, on a free port unless told which.

    What it stores is in ``data``, or in memory.
    """

    def __init__(self, port: int = 0, data: Path | None = None) -> None:
        kept = ["--memory"] if data is None else ["--data", str(data)]
        self.process = subprocess.Popen(
            [*MBCTL, "server", *kept, "--port", str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith(READY):
            raise AssertionError(f"the server began with {line!r} and exited {self.stop()}")
        self.address = line.removeprefix(READY).strip()

    def stop(self) -> int:
        """Stop the server as Ctrl-C would; its exit code."""
        self.process.terminate()
        return self._end()

    def kill(self) -> None:
        """End the server, whatever state it is in."""
        self.process.kill()
        self._end()

    def _end(self) -> int:
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.wait(timeout=PATIENCE_S)


class Ended(msgspec.Struct, frozen=True):
    """How a script ended and what it wrote."""

    code: int
    out: bytes
    err: str


def run_shell(kind: str, *options: str, stdin: bytes = b"") -> Ended:
    """Run ``mbctl publisher`` or ``mbctl subscriber`` with a script, in this process."""
    out, err, source = (io.TextIOWrapper(io.BytesIO(content)) for content in (b"", b"", stdin))
    terminal, sys.stdin = sys.stdin, source
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = main([kind, *options])
    finally:
        sys.stdin = terminal
    return Ended(code, _written(out), _written(err).decode())


def _written(stream: io.TextIOWrapper) -> bytes:
    stream.flush()
    stream.seek(0)
    return stream.buffer.read()


class Terminal:
    """A shell at a terminal, and the screen as its user sees it."""

    def __init__(
        self, *args: str, env: Mapping[str, str], columns: int = 80, out: Path | None = None
    ) -> None:
        command = [*MBCTL, *args]
        if out is not None:
            command = ["/bin/sh", "-c", 'exec "$@" > "$0"', str(out), *command]
        self._screen = pyte.Screen(columns, 24)
        self._stream = pyte.ByteStream(self._screen)
        self._child = pexpect.spawn(
            command[0],
            command[1:],
            dimensions=(24, columns),
            # A list may be longer than the screen, and nobody is there to leave the pager.
            env={**os.environ, "TERM": "xterm-256color", "PAGER": "cat", **env},
            timeout=PATIENCE_S,
        )
        # pexpect naps around each of these, which here serves nothing.
        self._child.delaybeforesend = None
        self._child.ptyproc.delayafterclose = 0.01
        # prompt_toolkit asks where the cursor is, and shows its toolbar once it knows.
        self._screen.write_process_input = self._child.send

    @property
    def lines(self) -> list[str]:
        """The lines of the screen that are not blank, without the blanks at their ends.

        There is always a last one, even on an empty screen.
        """
        return [line.rstrip() for line in self._screen.display if line.strip()] or [""]

    @property
    def is_coloured(self) -> bool:
        """Whether anything on the screen has a colour."""
        return any(
            cell.fg != "default" or cell.bg != "default"
            for row in self._screen.buffer.values()
            for cell in row.values()
        )

    @property
    def is_coloured_at(self) -> Callable[[str], set[str]]:
        """The colours that a word has where it stands last on the screen."""

        def colours(word: str) -> set[str]:
            for number, line in reversed(list(enumerate(self._screen.display))):
                start = line.rfind(word)
                if start >= 0:
                    row = self._screen.buffer[number]
                    return {row[column].fg for column in range(start, start + len(word))}
            raise AssertionError(f"{word!r} is not on the screen:\n" + "\n".join(self.lines))

        return colours

    @property
    def title(self) -> str:
        """What the window is called, which only an escape sequence can change."""
        return str(self._screen.title)

    def resize(self, columns: int, lines: int = 24) -> None:
        """Make the terminal another size, as dragging its corner does."""
        self._screen.resize(lines, columns)
        self._child.setwinsize(lines, columns)

    def paste(self, block: str) -> None:
        """Paste as a terminal does that tells pasting from typing."""
        self.type(f"\x1b[200~{block}\x1b[201~")

    def type(self, keys: str) -> None:
        """Send ``keys`` as the keyboard would."""
        self._child.send(keys)

    def enter(self, line: str) -> None:
        """Type a line and Enter."""
        self.type(f"{line}\r")

    def watch(self, seconds: float) -> None:
        """Draw what comes for so long, as somebody does who is in no hurry."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._read(left)

    def wait(self, seen: Callable[[list[str]], bool]) -> list[str]:
        """The lines of the screen once ``seen`` says so of them."""
        deadline = time.monotonic() + PATIENCE_S
        while not seen(self.lines):
            left = deadline - time.monotonic()
            if left <= 0 or not self._read(left):
                raise AssertionError("never on the screen:\n" + "\n".join(self.lines))
        return self.lines

    def wait_for(self, line: str) -> list[str]:
        """The lines of the screen once one of them is ``line``."""
        return self.wait(lambda lines: line in lines)

    def wait_for_end(self) -> int:
        """The exit code, once the shell has ended."""
        deadline = time.monotonic() + PATIENCE_S
        # One that goes on drawing does not end either.
        while (left := deadline - time.monotonic()) > 0 and self._read(left):
            pass
        assert self._child.flag_eof, "never ended:\n" + "\n".join(self.lines)
        self._child.wait()
        assert self._child.exitstatus is not None, f"ended by signal {self._child.signalstatus}"
        return int(self._child.exitstatus)

    def close(self) -> None:
        """End the shell, however it is."""
        if self._child.isalive():
            self._child.kill(signal.SIGKILL)
            self._child.wait()
        self._child.close()

    def _read(self, seconds: float) -> bool:
        """Draw what comes within ``seconds``; False at the end."""
        try:
            self._stream.feed(self._child.read_nonblocking(65536, timeout=seconds))
        except (pexpect.EOF, pexpect.TIMEOUT):
            return False
        return True
