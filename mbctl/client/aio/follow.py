"""The loop behind ``follow`` and ``follow_batches``: always one pull under way for each topic."""

import asyncio
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from mbctl.client.aio.connection import Connection, Reply, anew, until
from mbctl.client.aio.messages import Batch, Message
from mbctl.client.backoff import Backoff
from mbctl.client.deadline import Deadline
from mbctl.client.packing import to_frame
from mbctl.client.subscribing import ACK_AFTER_S, Portion
from mbctl.errors import MbctlError, Timeout, from_wire
from mbctl.wire import messages as wire

if TYPE_CHECKING:
    from mbctl.client.aio.subscriber import Subscriber


T = TypeVar("T", Message, Batch)


class _Loop(AsyncIterator[T]):
    """What is gone through with ``async for``. Dropping it leaves the follow."""

    __slots__ = ("_follow", "_loop")

    def __init__(self, follow: "Follow", loop: asyncio.AbstractEventLoop) -> None:
        self._follow = follow
        self._loop = loop

    @abstractmethod
    async def __anext__(self) -> T:
        """The next one."""

    async def aclose(self) -> None:
        """Give back what was not yielded, now."""
        self._follow.leave()

    def __del__(self) -> None:
        # Garbage may be found in the middle of anything, and in any thread: this only marks.
        if not self._follow.is_ended:
            self._follow.is_dropped = True
            with suppress(RuntimeError):
                # Not when the loop is closed: everything was given back with it.
                self._loop.call_soon_threadsafe(self._follow.leave)


class Following(_Loop[Message]):
    """The messages of a follow."""

    __slots__ = ()

    async def __anext__(self) -> Message:
        follow = self._follow
        # The usual case, without another coroutine: a message of the batch at hand.
        for message in follow.messages:
            follow.yielded_next = message.offset + 1
            return message
        batch = await follow.next_batch()
        follow.messages = iter(batch)
        message = next(follow.messages)
        follow.yielded_next = message.offset + 1
        return message


class FollowingBatches(_Loop[Batch]):
    """The batches of a follow."""

    __slots__ = ()

    async def __anext__(self) -> Batch:
        batch = await self._follow.next_batch()
        self._follow.yielded_next = batch.next_offset
        return batch


class Follow:
    """The pulls under way on one connection, their replies, and the batch being yielded."""

    def __init__(self, subscriber: "Subscriber", portion: Portion) -> None:
        self._subscriber = subscriber
        self._portion = portion
        self._connection: Connection | None = None
        """The connection that ``_pulls`` were sent on."""
        self._pulls: dict[int, str] = {}
        self._replies: dict[int, wire.Message] = {}
        """The replies that have come and were not looked at, by the ids of their pulls."""
        self._waiter: asyncio.Future[MbctlError | None] | None = None
        self._batch: Batch | None = None
        self._owed_s = 0.0
        """When what is done with is acknowledged at the latest, while the next is waited for."""
        self.messages: Iterator[Message] = iter(())
        """What is left of the batch."""
        self.yielded_next = 0
        """The offset after the last message that was yielded."""
        self.is_dropped = False
        """Whether nobody can ask for a message any more."""
        self.is_ended = False

    async def next_batch(self) -> Batch:
        """The next batch, never an empty one; cancelled, it is the next one all the same.

        Raises:
            StopAsyncIteration: the follow has ended, by an error or with its Subscriber.
            MbctlError: as from ``Subscriber.pull``; that ends it.
        """
        if self.is_ended:
            raise StopAsyncIteration
        self._finish()
        try:
            return await self._next_batch()
        except MbctlError as error:
            if self.is_ended:
                raise StopAsyncIteration from error
            self.leave()
            raise

    async def _next_batch(self) -> Batch:
        """The next batch that comes for any topic; its topic's next pull is under way then."""
        subscriber, portion = self._subscriber, self._portion
        portion.begin(time.monotonic())
        with subscriber._waiting_for(portion.topics):
            while True:
                topic, reply = await self._next_reply()
                if isinstance(reply, wire.Error):
                    error = from_wire(reply.code, reply.details)
                    subscriber._pull_refused(topic, error)
                    raise error
                batch = subscriber._taken(topic, reply)
                assert self._connection is not None
                if self._connection.is_open:
                    self._ask(self._connection)
                if batch:
                    self._batch = batch
                    self.yielded_next = 0
                    return batch
                subscriber.leave_gap(batch)
                if portion.is_over(topic, time.monotonic()):
                    self.leave()
                    raise StopAsyncIteration

    # --- pulls ------------------------------------------------------------------------------------

    async def _next_reply(self) -> tuple[str, wire.Message]:
        """Wait for the reply to one of the pulls; its topic and the reply."""
        subscriber = self._subscriber
        backoff = Backoff()
        while True:
            # A follow is endless; each attempt and each reconnect has a time of its own.
            await subscriber._ended(self._portion.topics, Deadline(subscriber.timeout))
            if self.is_ended:
                raise StopAsyncIteration
            connection = await subscriber._connected(Deadline(subscriber.timeout))
            self._ask(connection)
            for id_ in self._replies:
                return self._pulls.pop(id_), self._replies.pop(id_)
            error = await self._told(connection)
            if error is None:
                continue
            if not subscriber._survives(error, connection, Deadline(subscriber.timeout)):
                raise anew(error)
            await asyncio.sleep(backoff.next_s())

    async def _told(self, connection: Connection) -> MbctlError | None:
        """Wait until there is a reply, or an error: why there will be none."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            deadline = Deadline(self._portion.wait_s + self._subscriber.timeout)
            if any(topic in self._subscriber._unsettled for topic in self._portion.topics):
                # Counted from when it was asked for first: this may be cancelled and begun again.
                patience_s = max(self._owed_s - time.monotonic(), 0.0)
                came, _ = await asyncio.wait([self._waiter], timeout=patience_s)
                if not came:
                    self._acknowledge(connection)
            return await until(self._waiter, deadline, "the answer")
        except Timeout as error:
            # A server that does not answer in this time is as good as gone.
            connection.fail(self._subscriber._lost(str(error)))
            raise
        finally:
            self._waiter = None

    def _ask(self, connection: Connection) -> None:
        """Send a pull for each topic that has none under way on this connection."""
        subscriber, portion = self._subscriber, self._portion
        if connection is not self._connection:
            self._connection = connection
            self._pulls.clear()
            self._replies.clear()
        for topic in portion.topics:
            if topic not in self._pulls.values():
                request = subscriber.pull_request(
                    topic, portion.max_messages, portion.max_bytes, portion.wait_s
                )
                request.id = next(subscriber._ids)
                frame = to_frame(request)
                self._pulls[request.id] = topic
                connection.post(request.id, [frame], partial(self._take, connection, request.id))

    def _take(self, connection: Connection, id_: int, reply: Reply) -> None:
        """Keep the reply to a pull until somebody asks for it."""
        if connection is not self._connection:
            return
        error = None
        if isinstance(reply, MbctlError):
            # What came before is delivered again, on the next connection.
            error = reply
            self._pulls.clear()
            self._replies.clear()
        else:
            self._replies[id_] = reply
        self._wake(error)

    def _wake(self, error: MbctlError | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(error)

    # --- acknowledging ----------------------------------------------------------------------------

    def _finish(self) -> None:
        """Let a batch that was yielded to its end be acknowledged by the pull after the next."""
        batch, self._batch = self._batch, None
        if batch is None:
            return
        self._subscriber.remember_place(batch.topic, batch.next_offset)
        if batch.open_ranges:
            self._subscriber.leave_unsettled(batch)
            self._owed_s = time.monotonic() + ACK_AFTER_S

    def _acknowledge(self, connection: Connection) -> None:
        """Acknowledge what no pull has carried so far, without waiting for the answer."""
        subscriber = self._subscriber
        for topic in self._portion.topics:
            batch = subscriber._unsettled.pop(topic, None)
            if batch is not None and batch.open_ranges:
                id_ = next(subscriber._ids)
                connection.tell(wire.Ack(id_, topic, batch.topic_id, batch.open_ranges))

    def restart(self, topic: str) -> None:
        """Go on with ``topic`` from where its subscription has been moved to.

        What was pulled is given back, unless it was yielded: it may be from after that.
        """
        subscriber, connection = self._subscriber, self._connection
        is_open = connection is not None and connection.is_open
        batch = self._batch
        if batch is not None and batch.topic == topic:
            self._batch = None
            self.messages = iter(())
            if connection is not None and is_open and batch.open_ranges:
                subscriber.give_back(connection, batch, batch.open_ranges)
        for id_ in [id_ for id_, of in self._pulls.items() if of == topic]:
            del self._pulls[id_]
            reply = self._replies.pop(id_, None)
            if connection is None or not is_open:
                continue
            if reply is None:
                subscriber.end_pull(connection, id_, topic)
            else:
                subscriber.give_back_reply(connection, topic, reply)
        self._wake(None)

    def leave(self) -> None:
        """Give back what was not yielded and end the pulls under way. It may be called again."""
        if self.is_ended:
            return
        self.is_ended = True
        subscriber, connection = self._subscriber, self._connection
        subscriber._follows.discard(self)
        batch, self._batch = self._batch, None
        self.messages = iter(())
        rest = [] if batch is None else subscriber._leave_rest(batch, self.yielded_next)
        pulls, self._pulls = self._pulls, {}
        if connection is not None and connection.is_open:
            if batch is not None and rest:
                subscriber.give_back(connection, batch, rest)
            for id_, topic in pulls.items():
                reply = self._replies.pop(id_, None)
                if reply is None:
                    subscriber.end_pull(connection, id_, topic)
                else:
                    subscriber.give_back_reply(connection, topic, reply)
        self._replies.clear()
        self._wake(subscriber._lost("the follow was ended"))
