"""Replies that their peers have not read yet: how much there is in all, and who gives way.

While there is little room left, pulls are answered with less, so that those who read are
served and those who do not cannot take up more. When it is too much all the same, those give
way who have taken nothing for the longest time.
"""

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from mbctl.model import KIB, NS_PER_S, Limits
from mbctl.server import log

if TYPE_CHECKING:
    from mbctl.server.connection import Connection

# The least a pull is answered with, of what it asks for; arbitrary, enough to get on with.
_PULL_BYTES_MIN = 64 * KIB
# One reply takes at most this part of the room that is left.
_PULL_SHARE = 8
# How long a peer may take nothing while this part of the room is taken up.
_STALLED_NS = 30 * NS_PER_S
_ROOM_SHARE = 2
# To look at all who have not read takes time; when it is too much it is done this often.
_LOOK_S = 0.01


class Unread:
    """Who has not read what, and since when they have taken nothing."""

    def __init__(self, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        self.bytes = 0
        """Of those that are noted, as it was when they were looked at last."""
        self.queued = 0
        """On its way to the sockets in this turn."""
        self._limit = limits.server_bytes
        self._pull_bytes = limits.pull_bytes
        self._peers: dict[Connection, list[int]] = {}
        """Of each its size, and since when it has not become less."""
        self._loop = loop
        self._look: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._peers)

    @property
    def is_tight(self) -> bool:
        """Whether nobody who has something to read should get more to read."""
        return self.bytes > self._limit // _ROOM_SHARE

    @property
    def pull_bytes(self) -> int:
        """How much one pull may be answered with now."""
        room = (self._limit - self.bytes - self.queued) // _PULL_SHARE
        return min(self._pull_bytes, max(_PULL_BYTES_MIN, room))

    def note(self, connection: "Connection", size: int, now_ns: int) -> None:
        """``connection`` was written to, and ``size`` bytes could not be sent."""
        peer = self._peers.setdefault(connection, [0, now_ns])
        self.bytes += size - peer[0]
        peer[0] = size
        if self.bytes > self._limit and self._look is None:
            self._look = self._loop.call_later(_LOOK_S, self.bound)

    def forget(self, connection: "Connection") -> None:
        """``connection`` has sent everything, or is closed."""
        size, _ = self._peers.pop(connection, (0, 0))
        self.bytes -= size

    def bound(self) -> None:
        """See who has read since the last look, and drop who must give way."""
        if self._look is not None:
            self._look.cancel()
            self._look = None
        now_ns = time.monotonic_ns()
        for connection, peer in self._peers.items():
            size = connection.unsent_bytes
            if size < peer[0]:
                self.bytes += size - peer[0]
                peer[:] = size, now_ns
        if not self.is_tight:
            return
        for connection, (_, since_ns) in sorted(self._peers.items(), key=lambda peer: peer[1][1]):
            if self.bytes <= self._limit and now_ns - since_ns <= _STALLED_NS:
                return
            log.event(logging.WARNING, "connection dropped: it reads nothing", peer=connection.peer)
            self.forget(connection)
            connection.abort()
