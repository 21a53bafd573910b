"""The sync Subscriber."""

from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from threading import get_ident
from types import TracebackType
from typing import Any, TypeVar
from weakref import WeakSet

from mbctl.client.channel import Channel
from mbctl.client.deadline import Deadline
from mbctl.client.follow import Follow
from mbctl.client.messages import Batch, Message
from mbctl.client.packing import StartLike
from mbctl.client.subscribing import FOLLOW_MESSAGES, Portion, SubscriberBase, bounded_wait
from mbctl.client.sync import SyncClient
from mbctl.errors import InvalidArgument, NotSubscribed, RequestRefused, TopicNotFound
from mbctl.model import Range, Sought, Subscribed
from mbctl.wire import messages as wire

T = TypeVar("T", Message, Batch)


class Subscriber(SubscriberBase[Batch], SyncClient):
    """Reads messages. With a ``name`` it is durable; without one it is ephemeral.

    Processes that share a name share its messages. Threads may use it one after the other; a
    call while another thread is inside one raises InvalidArgument.
    """

    def __init__(
        self, server: str = "127.0.0.1:5555", name: str | None = None, *, timeout: float = 30.0
    ) -> None:
        self._following: WeakSet[Generator[Any, None, None]] = WeakSet()
        self._follows: WeakSet[Follow] = WeakSet()
        self._leavings: deque[Callable[[], None]] = deque()
        """Ends of loops that the next call has to see to."""
        super().__init__(server, name, timeout)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._end_following()
                self.settle_all()
        finally:
            self.close()

    def close(self) -> None:
        """Close the connection. What is not acknowledged will be delivered again."""
        if self._turn.owner not in (None, get_ident()):
            raise self._is_elsewhere()
        self._end_following()
        self._unsettled.clear()
        self._carried.clear()
        super().close()

    # --- verbs --------------------------------------------------------------------------------

    def subscribe(
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
        return self._run(
            self._subscribe(
                topic,
                start,
                ack_wait=ack_wait,
                max_deliveries=max_deliveries,
                dead_letter=dead_letter,
            )
        )

    def unsubscribe(self, topic: str) -> None:
        """Delete the subscription; what only it had not read is reclaimed.

        Raises:
            TopicNotFound, SubscriptionNotFound: there is no such thing.
        """
        self._run(self._unsubscribe(topic))

    def seek(self, topic: str, start: StartLike) -> Sought:
        """Move the subscription to ``start``, back or forward; where it stands then.

        What was pulled before is not acknowledged any more, neither by the next pull nor by
        ``ack()``. A loop over what is followed goes on from the new place.

        Raises:
            TopicNotFound, SubscriptionNotFound: there is no such thing.
            OffsetOutOfRange, InvalidArgument: there is no such place.
        """
        deadline = Deadline(self.timeout)

        def move() -> Sought:
            sought = self._answer_of(self._seek(topic, start), deadline)
            for follow in list(self._follows):
                follow.restart(topic)
            return sought

        return self._in_turn(move, deadline)

    def pull(
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
        leaving the block cleanly. Without it that is left to you.

        Raises:
            TopicNotFound, NotSubscribed: there is nothing to pull from.
            ConnectionLost, Timeout: the server did not answer within ``wait`` and the timeout.
        """
        wait = bounded_wait(wait)
        deadline = Deadline(wait + self.timeout)

        def pull_now() -> Batch:
            request = self.pull_request(topic, max_messages, max_bytes, wait)
            try:
                batch = self.take_reply(topic, self._answer_of(self._pull(request), deadline))
            except RequestRefused as error:
                self._pull_refused(topic, error)
                raise
            except BaseException:
                # What the server may have granted is given back with the connection.
                self._drop_channel()
                raise
            self._take_pulled(batch, auto_ack)
            return batch

        return self._in_turn(pull_now, deadline)

    def follow(self, *topics: str, idle: float | None = None) -> Generator[Message, None, None]:
        """All messages of these topics as they come, acknowledging as you go.

        The next pull is under way while you work on the last one. Leaving the loop gives
        back what was not yielded, as if it had never been delivered; what was yielded is
        acknowledged by the next pull or by leaving the block cleanly.

        It is endless, or with ``idle`` ends when nothing came for so many seconds; to be sure
        may take twice as long.

        Raises: as ``pull``.
        """
        follow = Follow(self, Portion(topics, FOLLOW_MESSAGES, None, idle))
        return self._begin_following(follow, follow.messages())

    def follow_batches(
        self,
        *topics: str,
        max_messages: int = 1000,
        max_bytes: int | None = None,
        idle: float | None = None,
    ) -> Generator[Batch, None, None]:
        """As ``follow``, a batch at a time: what as many pulls would return, and faster.

        The next pull is under way while you work on the last one, so up to twice the bounds
        is granted to you at a time. A batch is acknowledged when you ask for the next one, as
        far as you have not settled it yourself; the one that you leave the loop with by the
        next pull or by leaving the block cleanly.

        Raises: as ``pull``.
        """
        follow = Follow(self, Portion(topics, max_messages, max_bytes, idle))
        return self._begin_following(follow, follow.batches())

    def _begin_following(
        self, follow: Follow, loop: Generator[T, None, None]
    ) -> Generator[T, None, None]:
        self._follows.add(follow)
        self._following.add(loop)
        return loop

    def _end_following(self) -> None:
        for loop in list(self._following):
            # Not the one that this is called from inside of.
            with suppress(ValueError):
                loop.close()

    def settle_all(self) -> None:
        """Acknowledge all that was pulled to be acknowledged by a later pull."""
        for batch in [*self._carried.values(), *self._unsettled.values()]:
            # Where there is no subscription any more, nothing will be delivered again.
            with suppress(TopicNotFound, NotSubscribed):
                batch.ack()
        self._carried.clear()
        self._unsettled.clear()

    # --- settling, for Batch and Message --------------------------------------------------------

    def settle_ack(self, batch: Batch, ranges: list[Range]) -> int:
        """Acknowledge, and wait until that is durable."""
        return self._run(self._settle_ack(batch, ranges))

    def settle_nack(self, batch: Batch, ranges: list[Range], delay: float) -> int:
        """Give back, to be delivered again after ``delay`` seconds."""
        return self._run(self._settle_nack(batch, ranges, delay))

    def settle_extend(self, batch: Batch, ranges: list[Range]) -> int:
        """Renew the lease."""
        return self._run(self._settle_extend(batch, ranges))

    # --- threads, and the end of loops ----------------------------------------------------------

    def _take_turn(self, deadline: Deadline, is_done: Callable[[], bool]) -> bool:
        if not self._turn.take_now():
            raise self._is_elsewhere()
        while self._leavings:
            self._leavings.popleft()()
        return True

    def _is_elsewhere(self) -> InvalidArgument:
        return InvalidArgument(
            reason="this Subscriber is at work in another thread; "
            "give each thread a Subscriber of its own, of the same name"
        )

    def _leave_loop(self, leaving: Callable[[], None], *, now: bool) -> None:
        """Let a loop be left: ``now`` if no call is under way, else at the next one."""
        self._leavings.append(leaving)
        if now and self._turn.owner is None:
            # Another thread has come first, and has done it.
            with suppress(InvalidArgument):
                self._in_turn(_nothing, Deadline(self.timeout))

    def _in_child(self) -> None:
        self._leavings.clear()
        super()._in_child()

    # --- the connection -------------------------------------------------------------------------

    def _new_batch(self, topic: str, reply: wire.Pulled, skipped: int) -> Batch:
        return Batch(self, topic, reply, skipped)

    def _reopened(self, channel: Channel, deadline: Deadline) -> None:
        # Nothing of the topic that was read touches the one that has its name now.
        while self._replaced:
            request = wire.Unsubscribe(next(self._ids), self._replaced[-1])
            channel.write([wire.encode(request)], deadline)
            channel.reply(request.id, deadline)
            self._replaced.pop()


def _nothing() -> None:
    """Do nothing more than what a turn begins with."""
