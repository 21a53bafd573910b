"""The asyncio face: flows run on one connection that many calls share, with reconnects.

No task of its own: everything happens inside the calls that are awaited, and in the connection
when replies come. Whoever finds the connection gone makes the next one, inside its own time;
the others wait for that.
"""

import asyncio
from types import TracebackType
from typing import Self, TypeVar

from mbctl import forks
from mbctl.client.aio.connection import Connection, Reply, anew
from mbctl.client.backoff import FIRST_CONNECT_S, LAST_ATTEMPT_S, Backoff, is_survivable
from mbctl.client.base import ClientBase, Flow
from mbctl.client.deadline import Deadline
from mbctl.errors import ConnectionLost, InvalidArgument, MbctlError, Timeout, from_wire
from mbctl.wire import messages as wire

T = TypeVar("T")


class AioClient(ClientBase):
    """A client whose calls are coroutines. Use it with ``async with``, or ``close`` it."""

    def __init__(self, server: str, timeout: float) -> None:
        super().__init__(server, timeout)
        self._connection: Connection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connecting = asyncio.Lock()
        self._closes = 0
        """How often it was closed: a call that began before does not connect any more."""
        self._is_parents = False
        """Whether it was connected in the process that this one was forked from."""
        forks.watch(self)

    async def __aenter__(self) -> Self:
        await self._connected(Deadline(self.timeout))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection. The object may be used again: it connects anew."""
        self._check_closable()
        self._closes += 1
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    @property
    def is_connected(self) -> bool:
        """Whether there was a connection at the last call."""
        return self._connection is not None and self._connection.is_open

    # --- the connection -----------------------------------------------------------------------

    def _in_child(self) -> None:
        is_bound = self._loop is not None and not self._loop.is_closed()
        self._is_parents |= is_bound and (self._connection is not None or self._connecting.locked())
        self._connection = None
        self._loop = None
        self._rebound()
        super()._in_child()

    def _here(self) -> asyncio.AbstractEventLoop:
        """The event loop that all calls are made in.

        Raises:
            InvalidArgument: this one is not the one that has the connection, or it was left
                behind in the parent process.
        """
        if self._is_parents:
            what = type(self).__name__
            raise InvalidArgument(
                reason=f"this {what} is connected in the parent process, and an event loop does "
                "not survive a fork; make another one here"
            )
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._loop is not None and not self._loop.is_closed() and self.is_connected:
                what = type(self).__name__
                raise InvalidArgument(reason=f"this {what} is at work in another event loop")
            self._loop = loop
            self._connection = None
            self._rebound()
        return loop

    def _check_closable(self) -> None:
        """Raise InvalidArgument if another event loop has the connection."""
        # What is the parent process's is not closed here, and nothing is wrong with leaving it.
        if not self._is_parents:
            self._here()

    def _rebound(self) -> None:
        """Make anew what belongs to an event loop."""
        self._connecting = asyncio.Lock()

    async def _connected(self, deadline: Deadline, closes: int | None = None) -> Connection:
        """The connection, made anew if it is gone.

        ``closes`` is how often the client had been closed when the call began that needs it.

        Raises:
            ConnectionLost: there is none in time, or the client was closed meanwhile.
        """
        self._here()
        if closes is None:
            closes = self._closes
        elif closes != self._closes:
            raise self._lost("it was closed here")
        connection = self._connection
        if connection is not None and connection.is_open:
            return connection
        # A pull may wait for hours, but not for a server that is gone.
        first = self.welcome is None
        deadline = deadline.within(min(self.timeout, FIRST_CONNECT_S) if first else self.timeout)
        # The last attempt has little time; why the one before it failed says more.
        reasons: list[MbctlError] = [self._lost("no answer in time")]
        try:
            async with asyncio.timeout(deadline.remaining), self._connecting:
                return await self._connect(deadline, closes, reasons)
        except TimeoutError as error:
            raise reasons[-1] from error

    async def _connect(
        self, deadline: Deadline, closes: int, reasons: list[MbctlError]
    ) -> Connection:
        backoff = Backoff()
        while True:
            connection = self._connection
            if connection is not None and connection.is_open:
                return connection
            if self._closes != closes:
                raise self._lost("it was closed here")
            try:
                return await self._attempt(deadline, closes)
            except MbctlError as error:
                if not isinstance(error, Timeout):
                    reasons.append(error)
                pause = min(backoff.next_s(), deadline.remaining - LAST_ATTEMPT_S)
                if not error.retryable or pause <= 0 or self._closes != closes:
                    if reasons[-1] is error:
                        raise
                    raise reasons[-1] from error
            await asyncio.sleep(pause)

    async def _attempt(self, deadline: Deadline, closes: int) -> Connection:
        connection = await Connection.connect(self.address, deadline)
        try:
            requests = self.opening()
            for request in requests:
                request.id = next(self._ids)
            replies = [connection.ask(request) for request in requests]
            self.opened([await reply.answer(deadline) for reply in replies])
            connection.bound(self.limits)
            await self._reopened(connection, deadline)
            if self._closes != closes:
                raise self._lost("it was closed here")
        except BaseException:
            connection.abort()
            raise
        self._connection = connection
        return connection

    async def _reopened(self, connection: Connection, deadline: Deadline) -> None:
        """What else a new connection needs; a publisher sends again here."""

    def _lost(self, reason: str) -> ConnectionLost:
        return ConnectionLost(address=self.server, reason=reason)

    # --- requests -----------------------------------------------------------------------------

    async def _run(self, flow: Flow[T]) -> T:
        """Run a verb's flow to its answer, within the client's timeout."""
        return await self._answer_of(flow, Deadline(self.timeout))

    async def _answer_of(self, flow: Flow[T], deadline: Deadline) -> T:
        """Run a verb's flow to its answer."""
        try:
            request = next(flow)
            while True:
                try:
                    reply = await self._exchange(request, deadline)
                except MbctlError as error:
                    request = flow.throw(error)
                else:
                    request = flow.send(reply)
        except StopIteration as end:
            answer: T = end.value
            return answer

    async def _exchange(self, request: wire.Message, deadline: Deadline) -> wire.Message:
        """Send ``request`` and wait for its reply; again, if the connection is lost.

        Every request may be repeated. A pull or an ack that was answered unheard has
        nothing left to do the second time, which is what its reply then says.
        """
        backoff = Backoff()
        closes = self._closes
        was_retried = False
        try:
            while True:
                connection = await self._connected(deadline, closes)
                try:
                    reply = await self._ask(connection, request, deadline)
                    break
                except MbctlError as error:
                    if not self._survives(error, connection, deadline):
                        raise
                was_retried = True
                await asyncio.sleep(min(backoff.next_s(), max(deadline.remaining, 0)))
                if isinstance(request, wire.Pull):
                    self._shorten(request, deadline)
        finally:
            # The flow goes on without a pause in between, so this is about its request.
            self.was_retried = was_retried
        if isinstance(reply, wire.Error):
            raise from_wire(reply.code, reply.details)
        return reply

    def _survives(self, error: MbctlError, connection: Connection, deadline: Deadline) -> bool:
        """Whether a request that ended with ``error`` is worth another attempt."""
        if connection.is_closed_here or deadline.remaining <= 0:
            return False
        # What a waiter was told is equal to the connection's end, and not the same.
        end = connection.end
        ended = end is not None and error.code == end.code
        return is_survivable(end if ended and end is not None else error, end)

    async def _ask(
        self, connection: Connection, request: wire.Message, deadline: Deadline
    ) -> wire.Message:
        """Send ``request`` on this connection, and wait for its reply."""
        if isinstance(request, wire.Pull):
            return await self._ask_now(connection, request, deadline)
        if connection.slots.locked():
            await _acquired(connection.slots, deadline)
        else:
            await connection.slots.acquire()
        try:
            return await self._ask_now(connection, request, deadline)
        finally:
            connection.slots.release()

    async def _ask_now(
        self, connection: Connection, request: wire.Message, deadline: Deadline
    ) -> wire.Message:
        if connection.is_congested:
            await connection.drained(deadline)
        if connection.end is not None:
            raise anew(connection.end)
        request.id = next(self._ids)
        asked = connection.ask(request)
        try:
            return await asked.answer(deadline)
        except Timeout as error:
            # A server that does not answer in this time is as good as gone.
            connection.fail(self._lost(str(error)))
            raise
        except asyncio.CancelledError:
            self._cancelled(connection, request, asked.reply)
            raise

    def _cancelled(
        self, connection: Connection, request: wire.Message, reply: Reply | None
    ) -> None:
        """Nobody waits for the reply to ``request`` any more, which may have come already."""

    def _shorten(self, request: wire.Pull, deadline: Deadline) -> None:
        """Let a pull that is repeated wait only for what is left of its time."""
        left_ms = round((deadline.remaining - self.timeout) * 1000)
        request.wait_ms = max(0, min(request.wait_ms, left_ms))


async def _acquired(slots: asyncio.Semaphore, deadline: Deadline) -> None:
    """Wait for one of ``slots``."""
    try:
        async with asyncio.timeout(deadline.remaining):
            await slots.acquire()
    except TimeoutError as error:
        raise deadline.timeout("an earlier answer") from error
