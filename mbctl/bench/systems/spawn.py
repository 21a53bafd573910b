"""A peer's server as a process of ours: found, started, and ended with all that it began."""

import atexit
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from mbctl.bench.systems.interface import Durability, Unavailable

_START_S = 60.0
_STOP_S = 10.0
# Shorter than the fastest start by far, for the time to the first acknowledgement is measured.
_POLL_S = 0.001


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def accepts(port: int) -> bool:
    """Whether somebody listens on this port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def address_of(port: int, durability: Durability) -> str:
    """The address of a server of ours: ``127.0.0.1:5555/synced``."""
    return f"127.0.0.1:{port}/{durability}"


def host_and_port(address: str) -> tuple[str, int]:
    """Where a server listens, of an address as made here."""
    host, _, port = address.partition("/")[0].rpartition(":")
    return host, int(port)


def durability_of(address: str) -> Durability:
    """What a server of ours was started for, which is all that another process knows of it."""
    said = address.partition("/")[2]
    return "synced" if said == "synced" else "written" if said == "written" else "memory"


def in_package(package: str, program: str) -> Path | None:
    """A program that an installed Python package carries in its ``bin``; None if there is none."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "bin" / program
    return path if os.access(path, os.X_OK) else None


def on_path(program: str) -> Path | None:
    """A program beside this Python or on the path; None if there is none."""
    beside = Path(sys.executable).parent
    found = shutil.which(program, path=f"{beside}{os.pathsep}{os.environ.get('PATH', '')}")
    return None if found is None else Path(found)


def client_version(distribution: str) -> str:
    """The version of a peer's Python client.

    Raises:
        Unavailable: it is not installed.
    """
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        raise missing(f"the Python package {distribution}", "pip install mbctl[bench]") from None


def missing(what: str, how: str) -> Unavailable:
    """The refusal for something that is not installed, with how to get it outside a checkout."""
    return Unavailable(f"{what} is not installed; scripts/install-peers gets it, or {how}")


def output_of(command: Sequence[str | Path]) -> str:
    """What a short command prints."""
    return subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        check=False,
    ).stdout


class Spawned:
    """A server process. Its output goes to ``server.log`` in the directory given."""

    def __init__(
        self,
        command: Sequence[str | Path],
        directory: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._log = directory / "server.log"
        with self._log.open("ab") as log:
            # In a session of its own, so that a Ctrl-C reaches it only through us.
            self._process = subprocess.Popen(
                [*_tied(), *(str(word) for word in command)],
                cwd=directory,
                env=None if environment is None else dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._owner = os.getpid()
        # For a Ctrl-C that comes before anybody could end it.
        atexit.register(self._stop_forgotten)

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Return once ``ready`` says so; a server that ends before, or takes a minute, is ended.

        Raises:
            Unavailable: with the last line that the server wrote.
        """
        deadline = time.monotonic() + _START_S
        while not ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise Unavailable(f"the server did not start: {self._last_line()}")
            time.sleep(_POLL_S)

    def pids(self) -> list[int]:
        """This process and all below it, parents first."""
        return [self._process.pid, *_below(self._process.pid)]

    def stop(self) -> None:
        """End the process and everything it started, and wait until they are gone."""
        family = {pid: _birth(pid) for pid in self.pids()}
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pid, birth in family.items():
            if birth and _birth(pid) == birth:
                _end(pid)
        atexit.unregister(self._stop_forgotten)

    def _stop_forgotten(self) -> None:
        """End it with the process that started it, but not with a copy of that."""
        if os.getpid() == self._owner:
            self.stop()

    def _last_line(self) -> str:
        text = self._log.read_text(errors="replace").strip()
        return text.rpartition("\n")[2] or "it said nothing"


def _tied() -> list[str]:
    """What has Linux end a server when the thread that started it is gone; nothing elsewhere.

    For a process that is killed and can end nothing itself.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []


def _below(pid: int) -> list[int]:
    """All descendants of a process, parents first; none where /proc does not tell."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(word) for word in path.read_text().split()]
        except OSError:
            continue  # The thread has ended meanwhile.
        for child in children:
            found += [child, *_below(child)]
    return found


def _birth(pid: int) -> str:
    """When a process began, so that another one with its number is not taken for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19]
    except OSError:
        return ""


def _end(pid: int) -> None:
    """Make sure that an orphan of a stopped server is gone, or about to be."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    deadline = time.monotonic() + _STOP_S
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(_POLL_S)
