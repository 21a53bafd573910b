"""Our own broker, as a process of its own, through the blocking face of the library."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mbctl import __version__
from mbctl.bench.processes import ServerProcess
from mbctl.bench.systems.interface import Durability, Publishing, Reading, Settings, System
from mbctl.client.publisher import Publisher
from mbctl.client.subscriber import Subscriber
from mbctl.model import LIMITS, MIB

PULL_MESSAGES = 20_000
"""More than a reply may hold of all but the smallest messages: it is filled by bytes."""
# As measured: a reply of small messages is worked on while it is in the processor's cache; one of
# large messages is better copied in few pieces.
_PULL_BYTES = 1 * MIB
_LARGE_PULL_BYTES = 2 * MIB
_FEW = 512

_MODES: dict[Durability, str] = {"memory": "--memory", "written": "--sync never", "synced": ""}


class Bench(System):
    """``mbctl server``."""

    name = "mbctl"
    durabilities: tuple[Durability, ...] = ("memory", "written", "synced")

    def __init__(self) -> None:
        self._server: ServerProcess | None = None

    def version(self) -> str:
        """The version, which is one for server and client."""
        return f"mbctl {__version__}"

    def describe(self, settings: Settings) -> str:
        """How it is set up and used."""
        mode = _MODES[settings.durability] or "--sync always"
        if settings.in_flight == 1:
            return f"{mode}; one message at a time; pulls, each acknowledging the one before"
        return (
            f"{mode}; batches of {settings.batch} through a pipeline, "
            f"{LIMITS.sends_in_flight} without an answer; "
            f"follow_batches, {_pull_bytes(settings) // MIB} MiB at a time"
        )

    def start(self, directory: Path, settings: Settings) -> str:
        """Start a server on a free port; its address."""
        options = _MODES[settings.durability].split()
        if settings.durability != "memory":
            options += ["--data", str(directory)]
        self._server = ServerProcess(options)
        return self._server.address

    def pids(self) -> list[int]:
        """The server's process."""
        return [self._server.pid] if self._server else []

    def create(self, address: str, topic: str, subscribers: Sequence[str]) -> None:
        """Make the topic and durable subscriptions."""
        with Publisher(address) as publisher:
            publisher.create_topic(topic)
        for name in subscribers:
            with Subscriber(address, name=name) as subscriber:
                subscriber.subscribe(topic)

    def drop(self, address: str, topic: str) -> None:
        """Delete the topic with all it holds."""
        with Publisher(address) as publisher:
            publisher.delete_topic(topic)

    def publishing(self, address: str, topic: str, settings: Settings) -> Publishing:
        """A publisher's end."""
        return MbctlPublishing(address, topic)

    def reading(self, address: str, topic: str, subscriber: str, settings: Settings) -> Reading:
        """A subscriber's end."""
        return MbctlReading(address, topic, subscriber, settings)

    def kill(self) -> None:
        """End the server as a crash does."""
        if self._server:
            self._server.kill()
            self._server = None

    def stop(self) -> None:
        """End the server and wait until it is gone."""
        if self._server:
            self._server.stop()
            self._server = None


class MbctlPublishing(Publishing):
    """A Publisher."""

    def __init__(self, address: str, topic: str) -> None:
        self._publisher = Publisher(address, timeout=60.0)
        self._topic = topic

    def publish(self, batches: Iterator[Sequence[bytes]]) -> int:
        """Send each batch by one call."""
        topic = self._topic
        with self._publisher.pipeline() as pipe:
            for batch in batches:
                pipe.send_many(topic, batch)
        return pipe.sent

    def publish_each(self, batches: Iterator[Sequence[bytes]]) -> int:
        """Send each message by one call; the pipeline gathers them."""
        topic = self._topic
        with self._publisher.pipeline() as pipe:
            send = pipe.send
            for batch in batches:
                for payload in batch:
                    send(topic, payload)
        return pipe.sent

    def publish_one(self, payload: bytes) -> None:
        """Send one message and wait for its receipt."""
        self._publisher.send(self._topic, payload)

    def close(self) -> None:
        """Close the connection."""
        self._publisher.close()


class MbctlReading(Reading):
    """A Subscriber: it pulls where messages come one by one, and otherwise follows its topic."""

    def __init__(self, address: str, topic: str, subscriber: str, settings: Settings) -> None:
        self._subscriber = Subscriber(address, name=subscriber, timeout=60.0)
        self._settings = settings
        self._topic = topic

    def read(self, idle_s: float) -> Iterator[Sequence[bytes]]:
        """The payloads of each batch."""
        topic, bound = self._topic, _pull_bytes(self._settings)
        if self._settings.in_flight == 1:
            # Nothing is to be asked for before what came is given out.
            pull = self._subscriber.pull
            while batch := pull(topic, PULL_MESSAGES, bound, idle_s):
                yield batch.payloads
            return
        for batch in self._subscriber.follow_batches(
            topic, max_messages=PULL_MESSAGES, max_bytes=bound, idle=idle_s
        ):
            yield batch.payloads

    def close(self) -> None:
        """Acknowledge what was pulled last, and close the connection."""
        with self._subscriber:
            pass


def _pull_bytes(settings: Settings) -> int:
    """How much to pull at a time: where few messages are a batch, they are large."""
    return _LARGE_PULL_BYTES if settings.batch <= _FEW else _PULL_BYTES
