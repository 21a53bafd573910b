"""Where a server is: ``HOST:PORT``, ``mb://HOST:PORT``, ``[::1]:5555`` or just ``HOST``."""

import os
from typing import NamedTuple

from mbctl.errors import ConnectionLost, InvalidArgument
from mbctl.model import DEFAULT_HOST, DEFAULT_PORT


class Address(NamedTuple):
    """A host and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse(text: str) -> Address:
    """The address that ``text`` means.

    Raises:
        InvalidArgument: it is none.
    """
    if not isinstance(text, str):
        raise InvalidArgument(reason=f"an address is str, not {type(text).__name__}")
    rest = text.removeprefix("mb://").rstrip("/")
    host, separator, port = rest.rpartition(":")
    if not separator or (rest.startswith("[") and rest.endswith("]")):
        host, port = rest, str(DEFAULT_PORT)
    if not (host.startswith("[") and host.endswith("]")) and ":" in host:
        # An IPv6 address without its brackets: where it ends cannot be told.
        port = ""
    host = host.removeprefix("[").removesuffix("]") or DEFAULT_HOST
    is_port = port.isascii() and port.isdecimal() and 0 < int(port) < 65_536
    if not is_port or "/" in host or any(character.isspace() for character in host):
        raise InvalidArgument(reason=f"{text!r} is no address; use HOST:PORT or mb://HOST:PORT")
    return Address(host, int(port))


def lost(address: Address, error: OSError) -> ConnectionLost:
    """The error that says that ``error`` made or kept a connection to ``address`` from working."""
    if isinstance(error, TimeoutError):
        reason = "no answer in time"
    elif error.errno is not None and error.errno > 0:
        # What the system calls it; an event loop adds the address, which is said already.
        reason = os.strerror(error.errno)
    else:
        reason = error.strerror or str(error)
    return ConnectionLost(address=str(address), reason=reason.lower())
