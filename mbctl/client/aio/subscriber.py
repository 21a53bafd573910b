"""The asyncio Subscriber."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import TracebackType

from mbctl.client.aio.client import AioClient
from mbctl.client.aio.connection import Connection, Reply, until
from mbctl.client.aio.follow import Follow, Following, FollowingBatches
from mbctl.client.aio.messages import Batch
from mbctl.client.deadline import Deadline
from mbctl.client.packing import StartLike, to_text
from mbctl.client.subscribing import FOLLOW_MESSAGES, Portion, SubscriberBase, bounded_wait
from mbctl.errors import (
    InvalidArgument,
    MbctlError,
    NotSubscribed,
    RequestRefused,
    Timeout,
    TopicNotFound,
    from_wire,
)
from mbctl.model import Range, Sought, Subscribed
from mbctl.wire import messages as wire

# How long closing waits for pulls under way to end, so that what they were granted is given
# back as if it had never been delivered.
_LEAVE_S = 1.0


class Subscriber(SubscriberBase[Batch], AioClient):
    """Reads messages. With a ``name`` it is durable; without one it is ephemeral.

    Processes that share a name share its messages. Tasks may pull from several topics at
    once, each from its own.
    """

    def __init__(
        self, server: str = "127.0.0.1:5555", name: str | None = None, *, timeout: float = 30.0
    ) -> None:
        self._follows: set[Follow] = set()
        self._waited: set[str] = set()
        """Topics that a task waits for now."""
        self._endings: dict[asyncio.Future[None], str] = {}
        """Pulls that nobody waits for any more and that have no reply yet, with their topics."""
        super().__init__(server, name, timeout)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._end_following()
                await self.settle_all()
        finally:
            await self.close()

    async def close(self) -> None:
        """Close the connection. What is not acknowledged will be delivered again."""
        self._check_closable()
        try:
            self._end_following()
            self._unsettled.clear()
            self._carried.clear()
            with suppress(Timeout):
                await self._ended(list(self._endings.values()), Deadline(_LEAVE_S))
        finally:
            await super().close()

    # --- verbs --------------------------------------------------------------------------------

    async def subscribe(
        self,
        topic: str,
        start: StartLike | None = None,
        *,
        ack_wait: float = 30.0,
        max_deliveries: int | None = None,
        dead_letter: str | None = None,
    ) -> Subscribed:
        """Subscribe to a topic, or keep the place in it and apply the options.

        ``start`` is None (the first subscription begins at the earliest message, later
        ones at new), "new", "earliest", an offset, or a datetime (a local one if it has no
        zone). A message pulled and not acknowledged within ``ack_wait`` seconds is delivered
        again. One that was delivered ``max_deliveries`` times moves to the topic
        ``dead_letter``; without that it is parked.

        Raises:
            TopicNotFound, OffsetOutOfRange, InvalidArgument, LimitExceeded, NotSupported
        """
        return await self._run(
            self._subscribe(
                topic,
                start,
                ack_wait=ack_wait,
                max_deliveries=max_deliveries,
                dead_letter=dead_letter,
            )
        )

    async def unsubscribe(self, topic: str) -> None:
        """Delete the subscription; what only it had not read is reclaimed.

        Raises:
            TopicNotFound, SubscriptionNotFound: there is no such thing.
        """
        await self._run(self._unsubscribe(topic))

    async def seek(self, topic: str, start: StartLike) -> Sought:
        """Move the subscription to ``start``, back or forward; where it stands then.

        What was pulled before is not acknowledged any more, neither by the next pull nor by
        ``ack()``. A loop over what is followed goes on from the new place.

        Raises:
            TopicNotFound, SubscriptionNotFound: there is no such thing.
            OffsetOutOfRange, InvalidArgument: there is no such place.
        """
        sought = await self._run(self._seek(topic, start))
        for follow in list(self._follows):
            follow.restart(topic)
        return sought

    async def pull(
        self,
        topic: str,
        max_messages: int = 1000,
        max_bytes: int | None = None,
        wait: float = 5.0,
        *,
        auto_ack: bool = True,
    ) -> Batch:
        """Take new messages, waiting up to ``wait`` seconds for the first; empty if none came.

        With ``auto_ack`` the messages are acknowledged by the next pull of this topic, or by
        leaving the block cleanly. Without it that is left to you. A pull that is cancelled
        loses nothing: what it was granted is given back, as if it had never been delivered.

        Raises:
            TopicNotFound, NotSubscribed: there is nothing to pull from.
            ConnectionLost, Timeout: the server did not answer within ``wait`` and the timeout.
            InvalidArgument: another task is pulling from this topic.
        """
        wait = bounded_wait(wait)
        with self._waiting_for([topic]):
            deadline = Deadline(wait + self.timeout)
            await self._ended([topic], deadline)
            request = self.pull_request(topic, max_messages, max_bytes, wait)
            try:
                reply = await self._answer_of(self._pull(request), deadline)
            except RequestRefused as error:
                self._pull_refused(topic, error)
                raise
            batch = self._taken(topic, reply)
        self._take_pulled(batch, auto_ack)
        return batch

    def follow(self, *topics: str, idle: float | None = None) -> Following:
        """All messages of these topics as they come, acknowledging as you go.

        The next pull is under way while you work on the last one. Leaving the loop gives
        back what was not yielded, as if it had never been delivered; what was yielded is
        acknowledged by the next pull or by leaving the block cleanly.

        Waiting for the next message may be cancelled, and begun again, without losing any.

        It is endless, or with ``idle`` ends when nothing came for so many seconds; to be sure
        may take twice as long.

        Raises: as ``pull``.
        """
        portion = Portion(topics, FOLLOW_MESSAGES, None, idle)
        return Following(*self._begin_following(portion))

    def follow_batches(
        self,
        *topics: str,
        max_messages: int = 1000,
        max_bytes: int | None = None,
        idle: float | None = None,
    ) -> FollowingBatches:
        """As ``follow``, a batch at a time: what as many pulls would return, and faster.

        The next pull is under way while you work on the last one, so up to twice the bounds
        is granted to you at a time. A batch is acknowledged when you ask for the next one, as
        far as you have not settled it yourself; the one that you leave the loop with by the
        next pull or by leaving the block cleanly.

        Waiting for the next batch may be cancelled, and begun again, without losing any.

        Raises: as ``pull``.
        """
        portion = Portion(topics, max_messages, max_bytes, idle)
        return FollowingBatches(*self._begin_following(portion))

    def _begin_following(self, portion: Portion) -> tuple[Follow, asyncio.AbstractEventLoop]:
        loop = self._here()
        follow = Follow(self, portion)
        self._follows.add(follow)
        return follow, loop

    async def settle_all(self) -> None:
        """Acknowledge all that was pulled to be acknowledged by a later pull."""
        for batch in [*self._carried.values(), *self._unsettled.values()]:
            # Where there is no subscription any more, nothing will be delivered again.
            with suppress(TopicNotFound, NotSubscribed):
                await batch.ack()
        self._carried.clear()
        self._unsettled.clear()

    # --- settling, for Batch and Message --------------------------------------------------------

    async def settle_ack(self, batch: Batch, ranges: list[Range]) -> int:
        """Acknowledge, and wait until that is durable."""
        return await self._run(self._settle_ack(batch, ranges))

    async def settle_nack(self, batch: Batch, ranges: list[Range], delay: float) -> int:
        """Give back, to be delivered again after ``delay`` seconds."""
        return await self._run(self._settle_nack(batch, ranges, delay))

    async def settle_extend(self, batch: Batch, ranges: list[Range]) -> int:
        """Renew the lease."""
        return await self._run(self._settle_extend(batch, ranges))

    # --- pulls that nobody waits for any more ---------------------------------------------------

    @contextmanager
    def _waiting_for(self, topics: list[str]) -> Iterator[None]:
        """Let no other task wait for ``topics``: its next pull would acknowledge this one's.

        Raises:
            InvalidArgument: another task does, or a topic is no text.
        """
        self._here()
        for topic in topics:
            if to_text(topic, "topic") in self._waited:
                raise InvalidArgument(
                    reason=f"another task is pulling from {topic!r} with this Subscriber; "
                    "give each a Subscriber of its own, of the same name"
                )
        self._waited.update(topics)
        try:
            yield
        finally:
            self._waited.difference_update(topics)

    async def _ended(self, topics: list[str], deadline: Deadline) -> None:
        """Wait until no earlier pull of ``topics`` can be granted anything any more.

        What it was granted is given back then, and so comes first in the next pull.
        """
        for follow in [follow for follow in self._follows if follow.is_dropped]:
            follow.leave()
        while endings := [ending for ending, topic in self._endings.items() if topic in topics]:
            # Shielded, as the ending is not this call's own.
            await until(asyncio.shield(endings[0]), deadline, "the end of an earlier pull")

    def end_pull(self, connection: Connection, id_: int, topic: str) -> None:
        """Let the server end the pull of that id, and give back what it was answered with."""
        ending = asyncio.get_running_loop().create_future()
        self._endings[ending] = topic
        connection.retake(id_, partial(self._take_ending, connection, topic, ending))
        connection.tell(wire.Cancel(next(self._ids), id_))

    def _take_ending(
        self, connection: Connection, topic: str, ending: "asyncio.Future[None]", reply: Reply
    ) -> None:
        del self._endings[ending]
        ending.set_result(None)
        self.give_back_reply(connection, topic, reply)

    def give_back_reply(self, connection: Connection, topic: str, reply: Reply) -> None:
        """Give back what a pull was answered with, as nobody has looked at it."""
        if isinstance(reply, MbctlError):
            # The server has given it back itself, with the connection.
            return
        if isinstance(reply, wire.Error):
            self._pull_refused(topic, from_wire(reply.code, reply.details))
            return
        try:
            batch = self.take_reply(topic, reply)
        except MbctlError as error:
            connection.fail(error)
            return
        self.leave_gap(batch)
        if batch:
            self.give_back(connection, batch, batch.open_ranges)

    def give_back(self, connection: Connection, batch: Batch, ranges: list[Range]) -> None:
        """Give back messages that nobody has looked at; that does not count as a delivery."""
        id_ = next(self._ids)
        connection.tell(
            wire.Nack(id_, batch.topic, batch.topic_id, ranges, delay_ms=0, counted=False)
        )

    def _cancelled(
        self, connection: Connection, request: wire.Message, reply: Reply | None
    ) -> None:
        if not isinstance(request, wire.Pull):
            return
        if reply is None:
            self.end_pull(connection, request.id, request.topic)
        else:
            self.give_back_reply(connection, request.topic, reply)

    def _end_following(self) -> None:
        for follow in list(self._follows):
            follow.leave()

    # --- the connection -------------------------------------------------------------------------

    def _taken(self, topic: str, reply: wire.Message) -> Batch:
        """The batch of a pull's reply; the connection ends if it is none."""
        try:
            return self.take_reply(topic, reply)
        except MbctlError as error:
            if self._connection is not None:
                self._connection.fail(error)
            raise

    def _new_batch(self, topic: str, reply: wire.Pulled, skipped: int) -> Batch:
        return Batch(self, topic, reply, skipped)

    async def _reopened(self, connection: Connection, deadline: Deadline) -> None:
        # Nothing of the topic that was read touches the one that has its name now.
        while self._replaced:
            request = wire.Unsubscribe(next(self._ids), self._replaced[-1])
            await connection.ask(request).answer(deadline)
            self._replaced.pop()

    def _in_child(self) -> None:
        for follow in self._follows:
            follow.is_ended = True
        self._follows.clear()
        super()._in_child()

    def _rebound(self) -> None:
        super()._rebound()
        self._waited.clear()
        self._endings.clear()
