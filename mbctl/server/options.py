"""What ``mbctl server`` may be told, checked before anything is opened."""

import ipaddress
import os
from pathlib import Path

import msgspec

from mbctl.engine.jetstream.address import parse_address
from mbctl.errors import InvalidArgument, NotSupported
from mbctl.model import DEFAULT_HOST, DEFAULT_PORT, LIMITS, MIB, Limits

REPLICAS = (1, 3, 5)


class ServerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one server process; None means the default."""

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    data: str | None = None
    """The data directory; by default the user's."""
    memory: bool = False
    """Whether to keep nothing on disk."""
    sync: str | None = None
    """``always``, the default, or ``never``: whether a message is on disk before its answer."""
    max_bytes: int | None = None
    """What messages may take up; by default what the memory or the disk has room for."""
    engine: str = "local"
    """``local``, or the address of a NATS JetStream cluster: ``nats://HOST:PORT[,HOST:PORT...]``."""
    replicas: int | None = None
    """How many servers of the cluster keep each message."""
    insecure: bool = False
    log_format: str = "text"
    limits: Limits = LIMITS
    segment_bytes: int | None = None
    """The size of a file of the journal."""
    snapshot_bytes: int | None = None
    """How much the journal grows before the next snapshot."""

    def check(self) -> None:
        """Refuse what cannot or must not be served.

        Raises:
            InvalidArgument: a value has no meaning or is of the wrong type, two of them
                contradict each other, or the host is open to the network.
            NotSupported: the sync mode is unknown.
        """
        try:
            msgspec.convert(msgspec.structs.asdict(self), ServerOptions)
        except msgspec.ValidationError as error:
            raise InvalidArgument(reason=f"these are no options of a server: {error}") from error
        if not 0 <= self.port <= 65_535:
            raise InvalidArgument(reason=f"a port is 0 to 65535, not {self.port}")
        if self.max_bytes is not None and self.max_bytes < MIB:
            raise InvalidArgument(reason=f"--max-bytes is at least 1 MiB, not {self.max_bytes}")
        if self.sync not in (None, "always", "never"):
            raise NotSupported(what=f"--sync {self.sync}")
        if self.data == "":
            raise InvalidArgument(reason="--data is the name of a directory, and it is empty")
        if self.memory and self.data is not None:
            raise _contradicting("--data", "names a directory")
        if self.memory and self.sync is not None:
            raise _contradicting("--sync", "is about a disk")
        self._check_engine()
        if self.log_format not in ("text", "json"):
            raise NotSupported(what=f"--log-format {self.log_format}")
        if not self.insecure and not is_loopback(self.host):
            raise InvalidArgument(
                reason=f"--host {self.host} is open to the network and this server knows no "
                "users or TLS yet; add --insecure if that is what you want"
            )

    @property
    def is_local(self) -> bool:
        """Whether messages are kept by this process."""
        return self.engine == "local"

    def _check_engine(self) -> None:
        if self.is_local:
            if self.replicas is not None:
                raise InvalidArgument(
                    reason="--replicas is about a cluster; add --engine nats://HOST:PORT, or "
                    "leave it out"
                )
            return
        parse_address(self.engine)
        if self.replicas is not None and self.replicas not in REPLICAS:
            raise InvalidArgument(
                reason=f"--replicas is 1, 3 or 5, not {self.replicas}: with an even number no "
                "more servers may fail than with one less"
            )
        said = {"--data": self.data, "--memory": self.memory or None, "--max-bytes": self.max_bytes}
        for option, value in said.items():
            if value is not None:
                raise InvalidArgument(
                    reason=f"{option} is about messages kept by this server, and with --engine "
                    "the cluster keeps them; leave out one of them"
                )

    @property
    def data_directory(self) -> Path | None:
        """Where messages are kept; None is in memory only."""
        if self.memory:
            return None
        data = self.data if self.data is not None else default_directory()
        # It may be reached through links; what is in it may not.
        return Path(os.path.realpath(data))

    @property
    def bytes_limit(self) -> int | None:
        """How many bytes messages may take up; None is as long as the disk has room."""
        if self.memory and self.max_bytes is None:
            return memory_bytes() // 4
        return self.max_bytes


def default_directory() -> Path:
    """The user's data directory for mbctl, wherever this system has it."""
    # Imported here because whoever names a directory does without it.
    import platformdirs

    return platformdirs.user_data_path("mbctl")


def _contradicting(option: str, why: str) -> InvalidArgument:
    return InvalidArgument(
        reason=f"--memory keeps nothing on disk and {option} {why}; leave out one of them"
    )


def is_loopback(host: str) -> bool:
    """Whether ``host`` can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def memory_bytes() -> int:
    """The memory this process may use: the machine's, or its control group's if that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(path).read_text()))
        except (OSError, ValueError):
            continue
    return total
