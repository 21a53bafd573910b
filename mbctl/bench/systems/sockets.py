"""Sockets of the clients that are written by hand: their options, and how much is written."""

import socket
from collections.abc import Sequence

from mbctl.bench.systems.spawn import host_and_port

LARGE_BYTES = 8 << 10
"""From this size on it costs more to copy a payload into one string with others."""
_BUFFER_BYTES = 4 << 20
_PARTS_MAX = 1000


def connected(address: str) -> socket.socket:
    """A connection to a server of ours, with room for much on its way."""
    made = socket.socket()
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        made.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.connect(host_and_port(address))
    return made


def send_parts(to: socket.socket, parts: Sequence[bytes]) -> None:
    """Write all parts from where they lie, with few system calls."""
    for first in range(0, len(parts), _PARTS_MAX):
        left: list[bytes | memoryview] = list(parts[first : first + _PARTS_MAX])
        while left:
            sent = to.sendmsg(left)
            done = 0
            while done < len(left) and sent >= len(left[done]):
                sent -= len(left[done])
                done += 1
            del left[:done]
            if left:
                left[0] = memoryview(left[0])[sent:]
