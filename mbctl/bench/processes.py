"""A broker of our own to work on: a server process on a free port of this machine."""

import subprocess
import sys
import tempfile
from types import TracebackType
from typing import Self

from mbctl.errors import ServerError

_STOP_S = 10.0


class ServerProcess:
    """``mbctl server`` in memory on a free port, for as long as the block lasts."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "mbctl", "server", "--memory", "--port", "0"]
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
        assert self._process.stdout is not None
        ready = self._process.stdout.readline()
        if not ready:
            raise ServerError(reason=f"the broker did not start: {self._log_end()}")
        self.address = ready.split()[-1]

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
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
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
        with open(f"/proc/{pid}/statm") as statm:
            pages = int(statm.read().split()[1])
    except OSError:
        return 0
    return pages * 4096
