"""The listener and what its connections share: counts, bounds, the sweep, the stop."""

import asyncio
import os
import resource
import time
from contextlib import suppress

from mbctl import __version__
from mbctl.engine.interface import Engine, EngineStatus
from mbctl.model import NS_PER_S, Limits, ServerStatus
from mbctl.server.alert import Alert
from mbctl.server.backups import Backups
from mbctl.server.connection import Connection
from mbctl.server.listening import Listening
from mbctl.server.partial import READ_BYTES, Partial
from mbctl.server.turns import Turns
from mbctl.server.unread import Unread
from mbctl.wire.frames import BEGIN_BYTES

_SWEEP_S = 1.0
# Descriptors left for everything that is not a client's connection; at most half of all.
_SPARE_DESCRIPTORS = 64
# How long a stop waits for clients to see it and close, and then to take their last replies.
_FAREWELL_S = 0.25
_STOP_S = 5.0
# Connections that are not counted any more and stay open for a moment, at most: this part of
# the spare descriptors.
_LINGERING_SHARE = 4


class Server:
    """Listens, and holds what is counted over all connections."""

    now_ns = staticmethod(time.monotonic_ns)

    def __init__(self, engine: Engine, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        self.engine = engine
        self.limits = limits
        self.loop = loop
        self.connections: dict[Connection, None] = {}
        spare = _spare_descriptors()
        self.connections_max = _connections_max(limits, spare)
        self._lingering_max = spare // _LINGERING_SHARE
        self.watched: dict[Connection, None] = {}
        """Connections with a frame under way."""
        self.stalled: dict[Connection, None] = {}
        """Connections whose peer does not read."""
        self.congested: dict[Connection, None] = {}
        """Connections that are not read from because they have enough to do or in flight."""
        self.turns = Turns(loop, lambda: self.has_room)
        self.alert = Alert(loop, engine.is_storing)
        self.partial = Partial(limits.partial_bytes, self.turns)
        self.unread = Unread(limits, loop)
        self.request_bytes = 0
        self.backups = Backups(loop)
        self.address = ""
        self.is_stopping = False
        self.inbox = memoryview(bytearray(READ_BYTES))
        """What is received comes in here; a connection copies what it does not use at once."""
        self.inbox_begin = self.inbox[:BEGIN_BYTES]
        """The same, to see a large frame begin."""
        self._members: dict[bytes, Connection] = {}
        self._lingering: dict[Connection, None] = {}
        self._listening = Listening(loop, lambda: Connection(self))
        self._sweep: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self._started_ns = self.now_ns()
        self._started = time.time_ns()

    async def start(self, host: str, port: int) -> None:
        """Listen on ``host``; port 0 takes a free one. ``address`` tells which.

        Raises:
            OSError: the address cannot be listened on.
        """
        self.address = await self._listening.open(host, port)
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
        self._listening.close()
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
        self.turns.leave(connection)
        self.unread.forget(connection)
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
            if len(self._lingering) >= self._lingering_max:
                return False
            self._lingering[connection] = None
        return True

    @property
    def has_room(self) -> bool:
        """Whether there may be more requests in flight, on all connections together."""
        return self.request_bytes <= self.limits.server_bytes

    def count_bytes(self, size: int) -> None:
        """Count requests in flight; wake who waited for there to be less of them."""
        before = self.request_bytes
        self.request_bytes = before + size
        if before > self.limits.server_bytes:
            self.turns.wake()

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
        self.partial.look()
        self.unread.bound()
        self._sweep = self.loop.call_later(_SWEEP_S, self._sweep_once)

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


def _spare_descriptors() -> int:
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return _SPARE_DESCRIPTORS
    return min(_SPARE_DESCRIPTORS, descriptors // 2)


def _connections_max(limits: Limits, spare: int) -> int:
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return limits.connections
    return max(1, min(limits.connections, descriptors - spare))
