"""The sync Subscriber."""

import os
from collections.abc import Generator
from types import TracebackType

from mbctl.client.base import Flow, expect
from mbctl.client.follow import Follow
from mbctl.client.messages import Batch, Message
from mbctl.client.sync import SyncClient
from mbctl.errors import InvalidArgument, OffsetOutOfRange, from_wire
from mbctl.model import Range, Subscribed, check_name
from mbctl.wire import messages as wire

# A wait is told to the server in milliseconds and bounded there at a day.
_WAIT_MAX_S = 86_400.0


class Subscriber(SyncClient):
    """Reads messages. With a ``name`` it is durable; without one it is ephemeral.

    Processes that share a name share its messages. Not for several threads at once.
    """

    def __init__(
        self, server: str = "127.0.0.1:5555", name: str | None = None, *, timeout: float = 30.0
    ) -> None:
        self.name = name if name is None else check_name(name)
        self.subscriber = name or ""
        """The name that subscriptions are listed under; ``~`` and digits for an ephemeral one."""
        self._member = os.urandom(16)
        self._unsettled: dict[str, Batch] = {}
        # Where an ephemeral subscription goes on when the server has forgotten it, and how
        # many messages it then missed.
        self._places: dict[str, tuple[wire.Subscribe, int]] = {}
        self._gaps: dict[str, int] = {}
        super().__init__(server, timeout)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.settle_all()
        finally:
            self.close()

    # --- verbs --------------------------------------------------------------------------------

    def subscribe(
        self,
        topic: str,
        start: int | str | None = None,
        *,
        ack_wait: float = 30.0,
        max_deliveries: int | None = None,
        dead_letter: str | None = None,
    ) -> Subscribed:
        """Subscribe to a topic, or keep the place in it and apply the options.

        ``start`` is None (the first subscription begins at the earliest message, later
        ones at new), "new", "earliest" or an offset. A message pulled and not acknowledged
        within ``ack_wait`` seconds is delivered again.

        Raises:
            TopicNotFound, OffsetOutOfRange, InvalidArgument, LimitExceeded, NotSupported
        """
        request = wire.Subscribe(
            0, topic, start, round(ack_wait * 1000), max_deliveries, dead_letter
        )
        return self._run(self._subscribe(request))

    def unsubscribe(self, topic: str) -> None:
        """Delete the subscription; what only it had not read is reclaimed.

        Raises:
            TopicNotFound, SubscriptionNotFound: there is no such thing.
        """
        self._unsettled.pop(topic, None)
        self._places.pop(topic, None)
        self._run(self._unsubscribe(topic))

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
        wait = min(max(wait, 0.0), _WAIT_MAX_S)
        request = self.pull_request(topic, max_messages, max_bytes, wait)
        reply = self._run(self._pull(request), wait + self.timeout)
        batch = self.take_reply(topic, reply)
        if batch and auto_ack:
            self._unsettled[topic] = batch
        if batch:
            self.remember_place(topic, batch.next_offset)
        return batch

    def follow(self, *topics: str) -> Generator[Message, None, None]:
        """All messages of these topics as they come, endlessly, acknowledging as you go.

        The next pull is under way while you work on the last one. Leaving the loop gives
        back what was not yielded, as if it had never been delivered; what was yielded is
        acknowledged by the next pull or by leaving the block cleanly.

        Raises: as ``pull``.
        """
        if not topics:
            raise InvalidArgument(reason="follow needs at least one topic")
        return Follow(self, list(dict.fromkeys(topics))).messages()

    def settle_all(self) -> None:
        """Acknowledge all that was pulled to be acknowledged by a later pull."""
        while self._unsettled:
            _, batch = self._unsettled.popitem()
            batch.ack()

    # --- settling, for Batch and Message --------------------------------------------------------

    def settle_ack(self, batch: Batch, ranges: list[Range]) -> int:
        """Acknowledge, and wait until that is durable."""
        return self._run(self._counted(wire.Ack(0, batch.topic, batch.topic_id, ranges)))

    def settle_nack(self, batch: Batch, ranges: list[Range], delay: float) -> int:
        """Give back, to be delivered again after ``delay`` seconds."""
        delay_ms = round(delay * 1000)
        return self._run(self._counted(wire.Nack(0, batch.topic, batch.topic_id, ranges, delay_ms)))

    def settle_extend(self, batch: Batch, ranges: list[Range]) -> int:
        """Renew the lease."""
        return self._run(self._counted(wire.Extend(0, batch.topic, batch.topic_id, ranges)))

    # --- flows ----------------------------------------------------------------------------------

    def _subscribe(self, request: wire.Subscribe) -> Flow[Subscribed]:
        subscribed = expect(wire.SubscribedReply, (yield request)).subscribed
        if self.name is None:
            self._places[request.topic] = (request, subscribed.offset)
        return subscribed

    def _unsubscribe(self, topic: str) -> Flow[None]:
        yield wire.Unsubscribe(0, topic)

    def _pull(self, request: wire.Pull) -> Flow[wire.Pulled]:
        return expect(wire.Pulled, (yield request))

    def _counted(self, request: wire.Message) -> Flow[int]:
        return expect(wire.Counted, (yield request)).count

    # --- what pull and follow share ---------------------------------------------------------------

    def pull_request(
        self, topic: str, max_messages: int, max_bytes: int | None, wait: float
    ) -> wire.Pull:
        """A pull that carries the acknowledgement of the batch before it."""
        acknowledge = None
        batch = self._unsettled.pop(topic, None)
        if batch is not None and batch.open_ranges:
            acknowledge = wire.Acknowledge(batch.topic_id, batch.open_ranges)
        return wire.Pull(0, topic, max_messages, max_bytes, round(wait * 1000), acknowledge)

    def take_reply(self, topic: str, reply: wire.Pulled) -> Batch:
        """The batch that a pull's reply holds."""
        return Batch(self, topic, reply, self._gaps.pop(topic, 0))

    def leave_unsettled(self, batch: Batch) -> None:
        """Let the next pull of the batch's topic acknowledge what is open of it."""
        self._unsettled[batch.topic] = batch

    def remember_place(self, topic: str, next_offset: int) -> None:
        """Note how far an ephemeral subscription has got."""
        if topic in self._places:
            self._places[topic] = (self._places[topic][0], next_offset)

    # --- a new connection -------------------------------------------------------------------------

    def opening(self) -> list[wire.Message]:
        """Say hello, register, and go on with ephemeral subscriptions where they were."""
        again = [
            wire.Subscribe(0, topic, place, request.ack_wait_ms)
            for topic, (request, place) in self._places.items()
        ]
        return [*super().opening(), wire.RegisterSubscriber(0, self._member, self.name), *again]

    def opened(self, replies: list[wire.Message]) -> None:
        """Take the answers to the opening."""
        super().opened(replies)
        if isinstance(replies[1], wire.Error):
            raise from_wire(replies[1].code, replies[1].details)
        self.subscriber = expect(wire.Registered, replies[1]).subscriber
        for (topic, (request, place)), reply in zip(
            list(self._places.items()), replies[2:], strict=True
        ):
            if isinstance(reply, wire.SubscribedReply):
                self._gaps[topic] = max(0, reply.subscribed.offset - place)
            elif isinstance(reply, wire.Error) and reply.code == OffsetOutOfRange.code:
                # Another topic of the same name, shorter than the one that was read.
                request.start = "earliest"
                self._places[topic] = (request, 0)
            else:
                # The topic is gone: the next pull will say so.
                del self._places[topic]
