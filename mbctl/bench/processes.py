"""A broker of our own to work on: a server process on a free port of this machine."""

import subprocess
import sys
from types import TracebackType
from typing import Self

from mbctl.errors import ServerError

_STOP_S = 10.0


class ServerProcess:
    """``mbctl server`` in memory on a free port, for as long as the block lasts."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "mbctl", "server", "--memory", "--port", "0"]
        # In a session of its own, so that a Ctrl-C reaches it only through us.
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        ready = self._process.stdout.readline()
        if not ready:
            raise ServerError(reason="the broker did not start; try: mbctl server --memory")
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


def memory_bytes(pid: int) -> int:
    """The resident memory of a process; 0 where /proc does not tell."""
    try:
        with open(f"/proc/{pid}/statm") as statm:
            pages = int(statm.read().split()[1])
    except OSError:
        return 0
    return pages * 4096
