"""Where measuring takes place: servers that run, workers at their ends, and files of both."""

import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from mbctl.bench import jobs
from mbctl.bench.crew import Crew, Job
from mbctl.bench.jobs import Place
from mbctl.bench.payloads import Content
from mbctl.bench.systems.interface import Durability, Settings, System
from mbctl.bench.systems.registry import system

_PREPARE_S = 60.0


class Stage:
    """Servers and workers, started when they are first needed and kept until the block ends."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = tempfile.TemporaryDirectory(
            prefix="mbctl-bench-", dir=directory, ignore_cleanup_errors=True
        )
        self._servers: dict[tuple[str, Durability], tuple[System, str]] = {}
        self._crews: dict[str, Crew] = {}
        self._numbers = count(1)

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, *_: object) -> None:
        with ExitStack() as stack:
            # One Ctrl-C is enough: another would leave servers behind.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                stack.callback(signal.signal, number, signal.signal(number, signal.SIG_IGN))
            stack.callback(self._directory.cleanup)
            for server, _address in self._servers.values():
                stack.callback(server.stop)
            for crew in self._crews.values():
                stack.callback(crew.close)

    def new_directory(self) -> Path:
        """An empty directory, there until the block ends."""
        path = Path(self._directory.name) / str(next(self._numbers))
        path.mkdir()
        return path

    def play(self, name: str, work: Sequence[Job], seconds_max: float) -> list[Any]:
        """Do jobs at the same time, in processes that do only what belongs to ``name``."""
        return self._crews.setdefault(name, Crew()).play(work, seconds_max)

    def pids(self, name: str, durability: Durability) -> list[int]:
        """The processes of a server that runs."""
        return self._servers[name, durability][0].pids()

    def address(self, name: str, settings: Settings) -> str:
        """A server of this system that does nothing else; it is started if need be."""
        found = self._servers.get((name, settings.durability))
        if found is None:
            server = system(name)
            try:
                address = server.start(self.new_directory(), settings)
            except BaseException:
                # Interrupted, or not there in time: it is not to be left behind.
                server.stop()
                raise
            found = self._servers[name, settings.durability] = server, address
        return found[1]

    def forget(self, name: str) -> None:
        """End what belongs to a system, after a failure: the next measurement begins anew."""
        crew = self._crews.pop(name, None)
        if crew is not None:
            crew.close()
        for key in [key for key in self._servers if key[0] == name]:
            self._servers.pop(key)[0].stop()

    @contextmanager
    def topic(
        self, name: str, settings: Settings, content: Content, subscribers: Sequence[str] = ()
    ) -> Iterator[Place]:
        """A new topic, for as long as the block lasts."""
        address = self.address(name, settings)
        place = Place(name, address, f"bench-{next(self._numbers)}", settings, content)
        self.play(name, [(jobs.create, (place, subscribers))], _PREPARE_S)
        yield place
        self.play(name, [(jobs.drop, (place,))], _PREPARE_S)
