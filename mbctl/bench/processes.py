"""Server processes of our own to work on, and what the system says of a process."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from mbctl.errors import ServerError

_STOP_S = 10.0
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


class ServerProcess:
    """``mbctl server`` on a free port, for as long as the block lasts; in memory by default."""

    def __init__(self, options: Iterable[str] = ("--memory",)) -> None:
        command = [sys.executable, "-m", "mbctl", "server", "--port", "0", *options]
        # Closed when the block ends, with the process that writes it.
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        # In a session of its own, so that a Ctrl-C reaches it only through us.
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,
        )
        try:
            self.address = self._ready_line().split()[-1]
        except BaseException:
            # A Ctrl-C while it starts is not to leave it behind.
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server as an operator does, and wait until it is gone; again does nothing."""
        if self._log.closed:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._tidy()

    def kill(self) -> None:
        """End the server as a crash does."""
        self._process.kill()
        self._tidy()

    def _ready_line(self) -> str:
        assert self._process.stdout is not None
        ready = self._process.stdout.readline()
        if not ready:
            raise ServerError(reason=f"the broker did not start: {self._log_end()}")
        return ready

    def _tidy(self) -> None:
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()

    def _log_end(self) -> str:
        """The last line of the server's log."""
        self._process.wait()
        self._log.seek(0)
        return self._log.read().strip().rpartition("\n")[2] or "it said nothing"


def memory_bytes(pid: int) -> int:
    """The resident memory of a process; 0 where /proc does not tell."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except OSError:
        return 0


def cpu_s(pid: int) -> float:
    """The processor time that a process has used, to the tick; 0 where /proc does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS
