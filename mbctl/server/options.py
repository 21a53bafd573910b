"""What ``mbctl server`` may be told, checked before anything is opened."""

import ipaddress
import os
from pathlib import Path

import msgspec

from mbctl.errors import InvalidArgument, NotSupported
from mbctl.model import DEFAULT_HOST, DEFAULT_PORT, LIMITS, MIB, Limits


class ServerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one server process. ``max_bytes`` None means a share of the memory."""

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    data: str | None = None
    memory: bool = False
    sync: str = "always"
    max_bytes: int | None = None
    insecure: bool = False
    log_format: str = "text"
    limits: Limits = LIMITS

    def check(self) -> None:
        """Refuse what cannot or must not be served.

        Raises:
            InvalidArgument: a value has no meaning, or the host is open to the network.
            NotSupported: the sync mode is unknown.
        """
        if not 0 <= self.port <= 65_535:
            raise InvalidArgument(reason=f"a port is 0 to 65535, not {self.port}")
        if self.max_bytes is not None and self.max_bytes < MIB:
            raise InvalidArgument(reason=f"--max-bytes is at least 1 MiB, not {self.max_bytes}")
        if self.sync not in ("always", "never"):
            raise NotSupported(what=f"--sync {self.sync}")
        if self.log_format not in ("text", "json"):
            raise NotSupported(what=f"--log-format {self.log_format}")
        if not self.insecure and not is_loopback(self.host):
            raise InvalidArgument(
                reason=f"--host {self.host} is open to the network and this server knows no "
                "users or TLS yet; add --insecure if that is what you want"
            )

    @property
    def bytes_limit(self) -> int:
        """How many bytes of batches the server may hold."""
        return self.max_bytes if self.max_bytes is not None else memory_bytes() // 4


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
