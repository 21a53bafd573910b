"""ZeroMQ: sockets between publishers and subscribers, without a server."""

from collections.abc import Sequence
from pathlib import Path

from mbctl.bench.systems.interface import Durability, Publishing, Reading, Settings, System
from mbctl.bench.systems.spawn import client_version


class Bench(System):
    """pyzmq in the workers. The address is a directory that says who listens where."""

    name = "zeromq"
    durabilities: tuple[Durability, ...] = ("memory",)
    stores = False

    def version(self) -> str:
        """Versions of the library and its Python face."""
        client = client_version("pyzmq")
        import zmq

        return f"libzmq {zmq.zmq_version()}, pyzmq {client}"

    def describe(self, settings: Settings) -> str:
        """How it is used."""
        return (
            "no server: nothing is stored or acknowledged, and sending is done when the library "
            "has a message; XPUB to SUB over TCP, one ZeroMQ message for each payload, waiting "
            "for subscribers and when a queue is full, so that nothing is lost while all live"
        )

    def start(self, directory: Path, settings: Settings) -> str:
        """The directory; there is nothing to start."""
        self.version()
        directory.mkdir(parents=True, exist_ok=True)
        return str(directory.resolve())

    def pids(self) -> list[int]:
        """None."""
        return []

    def create(self, address: str, topic: str, subscribers: Sequence[str]) -> None:
        """Choose ports for the subscribers."""
        from mbctl.bench.systems.zeromq_client import create

        create(address, topic, subscribers)

    def drop(self, address: str, topic: str) -> None:
        """Delete the note of its ports."""
        from mbctl.bench.systems.zeromq_client import drop

        drop(address, topic)

    def publishing(self, address: str, topic: str, settings: Settings) -> Publishing:
        """A publisher's end."""
        from mbctl.bench.systems.zeromq_client import ZeroPublishing

        return ZeroPublishing(address, topic, settings)

    def reading(self, address: str, topic: str, subscriber: str, settings: Settings) -> Reading:
        """A subscriber's end."""
        from mbctl.bench.systems.zeromq_client import ZeroReading

        return ZeroReading(address, topic, subscriber, settings)

    def stop(self) -> None:
        """Nothing to end."""
