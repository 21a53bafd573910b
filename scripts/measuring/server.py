"""A server process to be measured: what it uses, what it logs, on which event loop."""

import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from mbctl.model import LIMITS, Limits

MIB = 1024 * 1024
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")

# A server with the limits given, and without uvloop if that is wanted.
_RUN = """
import sys
import msgspec
limits, loop, options = sys.argv[1:4]
if loop == "asyncio":
    sys.modules["uvloop"] = None
from mbctl.model import Limits
from mbctl.server import ServerOptions, run
options = msgspec.json.decode(options)
raise SystemExit(run(ServerOptions(
    port=0, limits=msgspec.json.decode(limits, type=Limits), **options
)))
"""


class Server:
    """``mbctl server`` on a free port, in memory unless ``data`` names a directory."""

    def __init__(
        self,
        *,
        limits: Limits = LIMITS,
        loop: str = "uvloop",
        data: Path | None = None,
        descriptors: int | None = None,
    ) -> None:
        options = {"memory": True} if data is None else {"data": str(data)}
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115

        def bound_descriptors() -> None:
            if descriptors is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", _RUN, msgspec.json.encode(limits).decode(), loop),
                msgspec.json.encode(options).decode(),
            ],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            preexec_fn=bound_descriptors,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the server did not start: {self.log}"
        self.address = line.split()[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    @property
    def memory_bytes(self) -> int:
        """Its resident memory."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * _PAGE

    @property
    def cpu_s(self) -> float:
        """The processor time it has used."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    @property
    def descriptors(self) -> int:
        """How many files and sockets it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    @property
    def log(self) -> str:
        """What it has logged so far."""
        self._log.seek(0)
        return self._log.read()

    @property
    def log_lines_per_s(self) -> int:
        """The most lines that one second has, by their time stamps."""
        seconds = Counter(line[:19] for line in self.log.splitlines())
        return max(seconds.values(), default=0)


class Peak:
    """Looks ten times a second at how much memory a server has, while the block lasts."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.bytes = server.memory_bytes

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.1) and self._server.is_alive:
            self.bytes = max(self.bytes, self._server.memory_bytes)
