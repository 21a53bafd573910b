"""One asyncio connection: requests out, replies in. It reconnects to nothing.

    post → queue → flush, once a turn → transport
    taker ← data_received ← session ← transport

Every request has a taker, a function that is told its reply, or why there will be none: each
is called once, whatever happens to who asked. It changes state at once and waits for nothing,
so what becomes of a reply never depends on a task that may be cancelled.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import TypeVar, cast

from mbctl import forks
from mbctl.client.address import Address, lost
from mbctl.client.deadline import Deadline
from mbctl.client.packing import to_frame
from mbctl.errors import ConnectionLost, InvalidArgument, MbctlError, from_wire
from mbctl.model import MIB, Limits
from mbctl.wire import messages as wire
from mbctl.wire.session import ClientSession, Fatal, Rejected

T = TypeVar("T")
Reply = wire.Message | MbctlError
Taker = Callable[[Reply], None]

# Unsent requests above which a call waits before it sends another.
_OUTPUT_HIGH = MIB
# How long closing waits for the last requests to leave.
_FLUSH_S = 1.0

# Connections of the parent process; a transport that is garbage would close itself.
_disowned: list["Connection"] = []


class Connection(asyncio.Protocol):
    """A transport and the client's end of a session."""

    def __init__(self, address: Address, loop: asyncio.AbstractEventLoop) -> None:
        self._address = address
        self._loop = loop
        self._session = ClientSession()
        self._transport: asyncio.Transport | None = None
        self._takers: dict[int, Taker] = {}
        self._out: list[bytes | bytearray] = []
        self._out_bytes = 0
        self._is_paused = False
        self._writers: list[asyncio.Future[None]] = []
        self._gone: asyncio.Future[None] = loop.create_future()
        self.end: MbctlError | None = None
        """Why the connection is of no more use; None while it is."""
        self.is_closed_here = False
        """Whether this side ended it."""
        self.slots = asyncio.Semaphore()
        """Held by each request in flight but pulls and sends, which have bounds of their own."""
        forks.watch(self)

    @classmethod
    async def connect(cls, address: Address, deadline: Deadline) -> "Connection":
        """Connect before ``deadline``.

        Raises:
            ConnectionLost: nobody listens there, or nobody answered in time.
            InvalidArgument: the address cannot be looked up at all.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(deadline.remaining):
                _, connection = await loop.create_connection(lambda: cls(address, loop), *address)
        except OSError as error:
            raise lost(address, error) from error
        except ValueError as error:
            raise InvalidArgument(reason=f"{str(address)!r} is no address") from error
        return connection

    def bound(self, limits: Limits) -> None:
        """Keep to the limits that the server has said it has."""
        count = limits.connection_requests - limits.connection_pulls - limits.sends_in_flight
        self.slots = asyncio.Semaphore(max(1, count))

    # --- the transport's calls --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_OUTPUT_HIGH)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell all who wait."""
        if isinstance(exc, OSError):
            self.fail(lost(self._address, exc))
        else:
            self.fail(self._ended("the server closed it"))
        self._transport = None
        if not self._gone.done():
            self._gone.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Hand each reply to its taker."""
        for event in self._session.feed(data):
            if isinstance(event, Fatal | Rejected):
                self.fail(event.error)
                return
            taker = self._takers.pop(event.id, None)
            if taker is not None:
                taker(event)

    def pause_writing(self) -> None:
        """The server does not read as fast as it is written to."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """The server has read."""
        self._is_paused = False
        self._wake_writers()

    # --- requests ---------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether requests can be sent."""
        return self.end is None

    @property
    def is_congested(self) -> bool:
        """Whether who has something to send should wait until it is not."""
        return self._is_paused or self._out_bytes > _OUTPUT_HIGH

    def post(self, id_: int, frame: list[bytes | bytearray], taker: Taker) -> None:
        """Queue the request ``id_``; ``taker`` is told its reply. To be called while open."""
        assert self.end is None
        assert id_ not in self._takers
        self._takers[id_] = taker
        if not self._out:
            # All frames of a turn are written at once.
            self._loop.call_soon(self._flush)
        self._out += frame
        self._out_bytes += sum(map(len, frame))

    def tell(self, request: wire.Message) -> None:
        """Send a request whose reply says nothing that is needed; nothing if not open."""
        if self.end is None:
            self.post(request.id, [to_frame(request)], _ignore)

    def retake(self, id_: int, taker: Taker) -> None:
        """Let another take the reply to request ``id_``, which has not come yet."""
        assert id_ in self._takers
        self._takers[id_] = taker

    def ask(self, request: wire.Message) -> "Asked":
        """Queue a request, whose reply is waited for."""
        asked = Asked(self._loop)
        self.post(request.id, [to_frame(request)], asked.take)
        return asked

    async def drained(self, deadline: Deadline) -> None:
        """Wait until the connection is not congested, or lost."""
        while self.is_congested and self.end is None:
            writer: asyncio.Future[None] = self._loop.create_future()
            self._writers.append(writer)
            await until(writer, deadline, "writing to the server")

    # --- the end ----------------------------------------------------------------------------

    def fail(self, error: MbctlError) -> None:
        """End the connection now; all who wait for replies are told ``error``."""
        if self._transport is not None:
            self._transport.abort()
        if self.end is not None:
            return
        self.end = error
        self._out.clear()
        self._out_bytes = 0
        takers, self._takers = self._takers, {}
        for taker in takers.values():
            taker(error)
        self._wake_writers()

    def abort(self) -> None:
        """End the connection from this side, now."""
        self.is_closed_here = True
        self.fail(self._ended("it was closed here"))

    async def close(self) -> None:
        """End the connection from this side, once what was queued has been sent."""
        self._flush()
        transport = self._transport
        if transport is None or self.end is not None:
            self.abort()
            return
        try:
            # It goes on sending what it has, and then tells of the end.
            self._transport = None
            self.abort()
            transport.close()
            async with asyncio.timeout(_FLUSH_S):
                await self._gone
        except TimeoutError:
            pass
        finally:
            transport.abort()

    def _in_child(self) -> None:
        # The event loop shares its poll with the parent's, so the transport must not be
        # closed, nor be garbage; only this process's descriptor is, by putting another file
        # in its place.
        if self.end is None:
            self.end = self._ended("it is the parent process's")
        _disowned.append(self)
        sock = None if self._transport is None else self._transport.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, sock.fileno(), inheritable=False)
            os.close(null)

    def _ended(self, reason: str) -> ConnectionLost:
        return ConnectionLost(address=str(self._address), reason=reason)

    def _flush(self) -> None:
        if self._transport is None or not self._out:
            return
        out, self._out = self._out, []
        was_congested = self.is_congested
        self._out_bytes = 0
        self._transport.writelines(out)
        if was_congested and not self._is_paused:
            self._wake_writers()

    def _wake_writers(self) -> None:
        writers, self._writers = self._writers, []
        for writer in writers:
            if not writer.done():
                writer.set_result(None)


async def until(future: "asyncio.Future[T]", deadline: Deadline, what: str) -> T:
    """The result of ``future``, which is ``what`` is waited for.

    Raises:
        Timeout: it did not come before ``deadline``.
    """
    if future.done():
        return future.result()
    try:
        async with asyncio.timeout(None if deadline.is_endless else deadline.remaining):
            return await future
    except TimeoutError as error:
        raise deadline.timeout(what) from error


class Asked:
    """The reply to a request, or what kept that from coming, and the wait for it."""

    __slots__ = ("_came", "reply")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._came: asyncio.Future[None] = loop.create_future()
        self.reply: Reply | None = None
        """None until it comes."""

    def take(self, reply: Reply) -> None:
        """Take the reply; also where the wait for it has been cancelled a moment ago."""
        self.reply = reply
        if not self._came.done():
            self._came.set_result(None)

    async def answer(self, deadline: Deadline) -> wire.Message:
        """Wait for the reply.

        Raises:
            Timeout: it did not come before ``deadline``.
            MbctlError: it will not come, and why.
        """
        await until(self._came, deadline, "the answer")
        assert self.reply is not None
        if isinstance(self.reply, MbctlError):
            raise anew(self.reply)
        return self.reply


def anew(error: MbctlError) -> MbctlError:
    """An error equal to ``error``, to be raised: one is told to many, each with a traceback."""
    return from_wire(error.code, error.details)


def _ignore(_: Reply) -> None:
    """Take a reply that says nothing that is needed."""
