"""The listener and what its connections share: counts, bounds, the sweep, the stop."""

import asyncio
import logging
import os
import resource
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from mbctl import __version__
from mbctl.engine.interface import Engine, EngineStatus
from mbctl.errors import LimitExceeded
from mbctl.model import NS_PER_S, Limits, ServerStatus
from mbctl.server import log
from mbctl.server.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Iterable

_BACKLOG = 128
_SWEEP_S = 1.0
# Descriptors left for everything that is not a client's connection.
_SPARE_DESCRIPTORS = 64
# How long a peer may leave its replies unread once all unread replies together are too much.
_STALLED_NS = 30 * NS_PER_S
# How long a stop waits for clients to see it and close, and then to take their last replies.
_FAREWELL_S = 0.25
_STOP_S = 5.0
# Connections that are not counted any more and stay open for a moment, at most: half of the
# spare descriptors.
_LINGERING_MAX = 32


class Server:
    """Listens, and holds what is counted over all connections."""

    def __init__(self, engine: Engine, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        self.engine = engine
        self.limits = limits
        self.loop = loop
        self.connections: dict[Connection, None] = {}
        self.connections_max = _connections_max(limits)
        self.watched: dict[Connection, None] = {}
        """Connections with a frame under way."""
        self.stalled: dict[Connection, None] = {}
        """Connections whose peer does not read."""
        self.congested: dict[Connection, None] = {}
        """Connections that are not read from because they have enough in flight."""
        self.request_bytes = 0
        self.partial_bytes = 0
        self.address = ""
        self.is_stopping = False
        self._members: dict[bytes, Connection] = {}
        self._lingering: dict[Connection, None] = {}
        self._listener: asyncio.Server | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self._started_ns = self.now_ns()
        self._started = time.time_ns()

    def now_ns(self) -> int:
        """Monotonic nanoseconds."""
        return time.monotonic_ns()

    async def start(self, host: str, port: int) -> None:
        """Listen on ``host``; port 0 takes a free one. ``address`` tells which.

        Raises:
            OSError: the address cannot be listened on.
        """
        self._listener = await self.loop.create_server(
            lambda: Connection(self), host, port, backlog=_BACKLOG, reuse_address=True
        )
        bound = self._listener.sockets[0].getsockname()
        shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        self.address = f"{shown}:{bound[1]}"
        self._sweep = self.loop.call_later(_SWEEP_S, self._sweep_once)

    async def stop(self) -> None:
        """Accept nothing more, answer what is in flight, close all, and close the engine."""
        self._stop_accepting()
        await self.close_engine()
        await self._farewell(_STOP_S)

    async def abandon(self, seconds: float) -> None:
        """Accept nothing more and let what is answered leave, at most so long.

        For a server whose engine has failed and can answer nothing more.
        """
        self._stop_accepting()
        await self._farewell(max(0.0, seconds - _FAREWELL_S))

    async def close_engine(self) -> None:
        """Have the engine make all durable and let go of what it holds."""
        closed = asyncio.Event()
        self.engine.close(closed.set)
        await closed.wait()

    def _stop_accepting(self) -> None:
        self.is_stopping = True
        if self._listener is not None:
            self._listener.close()
        if self._sweep is not None:
            self._sweep.cancel()

    async def _farewell(self, seconds: float) -> None:
        """Close all connections; peers have so long to take what was said to them."""
        for connection in list(self.connections):
            connection.stop()
        await self._wait_until_empty(_FAREWELL_S)
        for connection in list(self.connections):
            connection.finish()
        await self._wait_until_empty(seconds)
        for connection in list(self.connections):
            connection.abort()

    async def _wait_until_empty(self, seconds: float) -> None:
        """Wait until all connections are closed, at most so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.connections:
                    self._empty.clear()
                    await self._empty.wait()

    # --- connections ------------------------------------------------------------------------

    def admit(self, connection: Connection) -> bool:
        """Count a new connection in, if there is room."""
        if len(self.connections) >= self.connections_max:
            return False
        self.connections[connection] = None
        return True

    def forget(self, connection: Connection) -> None:
        """Count a closed connection out."""
        for group in (
            self.connections,
            self.watched,
            self.stalled,
            self.congested,
            self._lingering,
        ):
            group.pop(connection, None)
        self.release_member(connection)
        if not self.connections:
            self._empty.set()

    def release_member(self, connection: Connection) -> None:
        """Release what the reading process of an ended connection had."""
        member = connection.member
        if member is not None and self._members.get(member) is connection:
            del self._members[member]
            self.engine.close_member(member)

    def may_linger(self, connection: Connection) -> bool:
        """Whether a connection that was ended may stay open for a moment."""
        if connection not in self.connections:
            if len(self._lingering) >= _LINGERING_MAX:
                return False
            self._lingering[connection] = None
        return True

    def count_bytes(self, size: int) -> None:
        """Count requests in flight; wake who waited for there to be less of them."""
        was_over = self.request_bytes > self.limits.server_bytes
        self.request_bytes += size
        if was_over and self.request_bytes <= self.limits.server_bytes:
            for connection in self.congested:
                self.loop.call_soon(connection.proceed)

    def bound_partial_frames(self) -> None:
        """End who holds the oldest frames begun, while all of them together are too much."""
        limit = self.limits.partial_bytes
        if self.partial_bytes <= limit:
            return
        holders = [c for c in self.watched if c.buffered and c.deadline_ns is not None]
        for connection in sorted(holders, key=lambda c: c.deadline_ns or 0):
            if self.partial_bytes <= limit:
                return
            connection.end(LimitExceeded(what="bytes of partial frames", limit=limit))

    def take_member(self, member: bytes, connection: Connection) -> None:
        """Let ``connection`` be the one of this reading process, instead of an older one."""
        older = self._members.get(member)
        self._members[member] = connection
        connection.member = member
        if older is not None and older is not connection:
            older.abort()

    def _sweep_once(self) -> None:
        """Once a second: frames that take too long, peers that never read, requests that wait."""
        now_ns = self.now_ns()
        for connection in list(self.watched):
            connection.check_deadline(now_ns)
        if self.stalled and _unsent(self.stalled) > self.limits.server_bytes:
            self._drop_stalled(now_ns)
        for connection in list(self.congested):
            connection.proceed()
        self._sweep = self.loop.call_later(_SWEEP_S, self._sweep_once)

    def _drop_stalled(self, now_ns: int) -> None:
        for connection in list(self.stalled):
            since_ns = connection.stalled_since_ns
            if since_ns is not None and now_ns - since_ns > _STALLED_NS:
                log.event(
                    logging.WARNING, "connection dropped: it reads nothing", peer=connection.peer
                )
                connection.abort()

    # --- what the server says of itself -----------------------------------------------------

    def status(self, engine: EngineStatus) -> ServerStatus:
        """The engine's status with the server's own."""
        return ServerStatus(
            version=__version__,
            address=self.address,
            pid=os.getpid(),
            started=self._started,
            uptime_s=(self.now_ns() - self._started_ns) / NS_PER_S,
            connections=len(self.connections),
            **{name: getattr(engine, name) for name in engine.__struct_fields__},
        )


def _unsent(connections: "Iterable[Connection]") -> int:
    return sum(connection.unsent_bytes for connection in connections)


def _connections_max(limits: Limits) -> int:
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return limits.connections
    return max(1, min(limits.connections, descriptors - _SPARE_DESCRIPTORS))
