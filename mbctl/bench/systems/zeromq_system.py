"""ZeroMQ: sockets between publishers and subscribers, without a server."""

from pathlib import Path

from mbctl.bench.systems.interface import Durability, Settings
from mbctl.bench.systems.peer import Peer
from mbctl.bench.systems.spawn import client_version


class Bench(Peer):
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
