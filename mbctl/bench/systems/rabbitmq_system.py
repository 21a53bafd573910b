"""RabbitMQ: a fanout exchange for each topic, a queue for each subscriber."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mbctl.bench.systems.interface import (
    Durability,
    Settings,
)
from mbctl.bench.systems.peer import Peer
from mbctl.bench.systems.spawn import (
    address_of,
    client_version,
    durability_of,
    free_port,
    missing,
    on_path,
)

_PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_NODE = "mbctl-bench@localhost"
# What a confirmation waits for was seen in the system calls: version 2 of the classic queues
# writes persistent messages and does not sync them, version 1 does, and quorum queues do it
# twice as fast, with one fdatasync for what has gathered.
_QUEUES: dict[Durability, dict[str, str | int]] = {
    "memory": {"x-queue-version": 2},
    "written": {"x-queue-version": 2},
    "synced": {"x-queue-type": "quorum"},
}
_SAID: dict[Durability, str] = {
    "memory": "classic queues, version 2, transient messages",
    "written": "classic queues, version 2, persistent messages, confirmed before they are synced",
    "synced": "quorum queues on one node, confirmed after fdatasync",
}


class Bench(Peer):
    """A RabbitMQ node of our own, used through pika's codec and frames by hand."""

    name = "rabbitmq"
    durabilities: tuple[Durability, ...] = ("memory", "written", "synced")

    def version(self) -> str:
        """Versions of server and client."""
        client = client_version("pika")
        program = _program()
        return f"RabbitMQ {_version_of(program)}, pika {client}"

    def describe(self, settings: Settings) -> str:
        """How it is set up and used."""
        from mbctl.bench.systems.rabbitmq_client import PREFETCH

        return (
            f"{_SAID[settings.durability]}; a fanout exchange to a queue for each subscriber; "
            f"AMQP frames by hand, {settings.batch * settings.in_flight} messages unconfirmed; "
            f"prefetch {PREFETCH}, one acknowledgement for all that a reading of the socket brought"
        )

    def start(self, directory: Path, settings: Settings) -> str:
        """Start the name server that Erlang wants, and a node; its address."""
        program, port, names_port = _program(), free_port(), free_port()
        directory = directory.resolve()
        (directory / "home").mkdir(parents=True, exist_ok=True)
        (directory / "plugins").write_text("[].\n")
        (directory / "rabbitmq.conf").write_text(_configuration(port))
        environment = _environment(directory, names_port)
        where = ("-address", "127.0.0.1", "-port", str(names_port))
        self._spawn([_epmd(), *where], directory / "epmd", names_port)
        self._spawn([program], directory, port, environment)
        return address_of(port, settings.durability)

    def create(self, address: str, topic: str, subscribers: Sequence[str]) -> None:
        """Make the exchange and the queues."""
        from mbctl.bench.systems.rabbitmq_client import create

        create(address, topic, subscribers, _QUEUES[durability_of(address)])


def _program() -> Path:
    """The server's own script: the command that Debian puts on the path changes the user."""
    program = _PROGRAM if _PROGRAM.exists() else on_path("rabbitmq-server")
    if program is None:
        raise missing("rabbitmq-server", "apt-get install rabbitmq-server")
    return program


def _epmd() -> Path:
    program = on_path("epmd")
    if program is None:
        raise missing("epmd, which comes with Erlang,", "apt-get install rabbitmq-server")
    return program


def _version_of(program: Path) -> str:
    """The version, from the directory that it is in: to ask would take seconds."""
    return program.resolve().parents[1].name.rpartition("-")[2]


def _configuration(port: int) -> str:
    """The node's file. Frames may be as large as any message, and nothing is slowed down."""
    return f"""
listeners.tcp.1 = 127.0.0.1:{port}
heartbeat = 0
frame_max = 8388608
disk_free_limit.absolute = 100MB
tcp_listen_options.nodelay = true
tcp_listen_options.sndbuf = 4194304
tcp_listen_options.recbuf = 4194304
log.file.level = warning
"""


def _environment(directory: Path, names_port: int) -> Mapping[str, str]:
    """Everything of the node's own, and nothing of another node of this machine."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(directory / "home"),  # Where Erlang puts the cookie that it makes.
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(names_port),
        # Erlang in the place of the script, not below it.
        "RUNNING_UNDER_SYSTEMD": "true",
        "RABBITMQ_NODENAME": _NODE,
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "RABBITMQ_CONF_ENV_FILE": str(directory / "none"),
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(directory / "none"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(directory / "generated"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
    }
