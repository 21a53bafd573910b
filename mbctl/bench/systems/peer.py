"""What all peers have in common: servers of their own, and a client that workers import."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from mbctl.bench.systems.interface import Publishing, Reading, Settings, System
from mbctl.bench.systems.spawn import Spawned, accepts


class Peer(System):
    """Another system.

    Its client is the module ``NAME_client`` beside this one, with ``create``, ``drop``,
    ``PublishingEnd`` and ``ReadingEnd``; it is imported where it is used, as it needs packages
    that may not be there.
    """

    def __init__(self) -> None:
        self._servers: list[Spawned] = []
        """Its processes, in the order in which they were started."""

    def _spawn(
        self,
        command: Sequence[str | Path],
        directory: Path,
        port: int,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start a process, and return when it accepts connections.

        Raises:
            Unavailable: it ended before, or took too long.
        """
        server = Spawned(command, directory, environment)
        self._servers.append(server)
        server.wait_until(lambda: accepts(port))

    @property
    def _client(self) -> Any:
        return import_module(f"mbctl.bench.systems.{self.name}_client")

    def pids(self) -> list[int]:
        """The server's processes."""
        return [pid for server in self._servers for pid in server.pids()]

    def create(self, address: str, topic: str, subscribers: Sequence[str]) -> None:
        """Make a topic, and the subscriptions."""
        self._client.create(address, topic, subscribers)

    def drop(self, address: str, topic: str) -> None:
        """Delete the topic, and what belongs to it."""
        self._client.drop(address, topic)

    def publishing(self, address: str, topic: str, settings: Settings) -> Publishing:
        """A publisher's end."""
        end: Publishing = self._client.PublishingEnd(address, topic, settings)
        return end

    def reading(self, address: str, topic: str, subscriber: str, settings: Settings) -> Reading:
        """A subscriber's end."""
        end: Reading = self._client.ReadingEnd(address, topic, subscriber, settings)
        return end

    def stop(self) -> None:
        """End the servers, the last one first."""
        while self._servers:
            self._servers[-1].stop()
            self._servers.pop()
