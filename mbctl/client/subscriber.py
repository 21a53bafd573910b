"""The sync Subscriber."""

import os
from collections.abc import Generator
from contextlib import suppress
from types import TracebackType
from weakref import WeakSet

from mbctl.client.base import WAIT_MAX_S, Flow, expect
from mbctl.client.channel import Channel
from mbctl.client.deadline import Deadline
from mbctl.client.follow import Follow
from mbctl.client.messages import Batch, Message
from mbctl.client.packing import to_ms
from mbctl.client.sync import SyncClient
from mbctl.errors import (
    InvalidArgument,
    NotSubscribed,
    RequestRefused,
    TopicNotFound,
    from_wire,
)
from mbctl.model import Range, Subscribed, check_name
from mbctl.wire import messages as wire


class _Place:
    """How far an ephemeral subscription has got, in case the server forgets it."""

    __slots__ = ("ack_wait_ms", "next_offset", "topic_id")

    def __init__(self, topic_id: int, next_offset: int, ack_wait_ms: int) -> None:
        self.topic_id = topic_id
        self.next_offset = next_offset
        self.ack_wait_ms = ack_wait_ms


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
        # By topic: what the next pull will acknowledge, and what a pull acknowledges that
        # has no reply yet. The pull after one that failed does so again.
        self._unsettled: dict[str, Batch] = {}
        self._carried: dict[str, Batch] = {}
        self._places: dict[str, _Place] = {}
        # What an ephemeral subscription missed, and topics that are not those it had.
        self._gaps: dict[str, int] = {}
        self._replaced: list[str] = []
        self._following: WeakSet[Generator[Message, None, None]] = WeakSet()
        super().__init__(server, timeout)

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
        self._end_following()
        self._unsettled.clear()
        self._carried.clear()
        super().close()

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
        ack_wait_ms = to_ms(ack_wait, "ack_wait")
        request = wire.Subscribe(0, topic, start, ack_wait_ms, max_deliveries, dead_letter)
        return self._run(self._subscribe(request))

    def unsubscribe(self, topic: str) -> None:
        """Delete the subscription; what only it had not read is reclaimed.

        Raises:
            TopicNotFound, SubscriptionNotFound: there is no such thing.
        """
        for by_topic in (self._unsettled, self._carried, self._places):
            by_topic.pop(topic, None)
        self._run(self._delete_subscription(topic, None))

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
        wait = min(max(wait, 0.0), WAIT_MAX_S)
        request = self.pull_request(topic, max_messages, max_bytes, wait)
        try:
            batch = self.take_reply(topic, self._run(self._pull(request), wait + self.timeout))
        except (TopicNotFound, NotSubscribed):
            self._carried.pop(topic, None)
            raise
        except RequestRefused:
            # The acknowledgement that it carried is still to be made.
            if topic in self._carried:
                self._unsettled[topic] = self._carried.pop(topic)
            raise
        except BaseException:
            # What the server may have granted is given back with the connection.
            self._drop_channel()
            raise
        if batch:
            self.remember_place(topic, batch.next_offset)
            if auto_ack:
                self._unsettled[topic] = batch
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
        messages = Follow(self, list(dict.fromkeys(topics))).messages()
        self._following.add(messages)
        return messages

    def _end_following(self) -> None:
        for messages in list(self._following):
            # Not the one that this is called from inside of.
            with suppress(ValueError):
                messages.close()

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
        return self._run(self._counted(wire.Ack(0, batch.topic, batch.topic_id, ranges)))

    def settle_nack(self, batch: Batch, ranges: list[Range], delay: float) -> int:
        """Give back, to be delivered again after ``delay`` seconds."""
        delay_ms = to_ms(delay, "delay")
        return self._run(self._counted(wire.Nack(0, batch.topic, batch.topic_id, ranges, delay_ms)))

    def settle_extend(self, batch: Batch, ranges: list[Range]) -> int:
        """Renew the lease."""
        return self._run(self._counted(wire.Extend(0, batch.topic, batch.topic_id, ranges)))

    # --- flows ----------------------------------------------------------------------------------

    def _subscribe(self, request: wire.Subscribe) -> Flow[Subscribed]:
        subscribed = expect(wire.SubscribedReply, (yield request)).subscribed
        if self.name is None:
            place = _Place(subscribed.topic_id, subscribed.offset, request.ack_wait_ms)
            self._places[request.topic] = place
        return subscribed

    def _pull(self, request: wire.Pull) -> Flow[wire.Message]:
        return (yield request)

    def _counted(self, request: wire.Message) -> Flow[int]:
        return expect(wire.Counted, (yield request)).count

    # --- what pull and follow share ---------------------------------------------------------------

    def pull_request(
        self, topic: str, max_messages: int, max_bytes: int | None, wait: float
    ) -> wire.Pull:
        """A pull that carries the acknowledgement of the batch before it."""
        self._notice_fork()
        if topic in self._unsettled:
            batch = self._unsettled.pop(topic)
            if topic in self._carried:
                # The pull that carried it has no reply: this one carries both.
                batch.take_over(self._carried[topic])
            self._carried[topic] = batch
        acknowledge = None
        carried = self._carried.get(topic)
        if carried is not None and carried.open_ranges:
            acknowledge = wire.Acknowledge(carried.topic_id, carried.open_ranges)
        return wire.Pull(0, topic, max_messages, max_bytes, to_ms(wait, "wait"), acknowledge)

    def take_reply(self, topic: str, reply: wire.Message) -> Batch:
        """The batch that a pull's reply holds.

        Raises:
            MbctlError: the pull was refused.
        """
        self._carried.pop(topic, None)
        if isinstance(reply, wire.Error):
            raise from_wire(reply.code, reply.details)
        return Batch(self, topic, expect(wire.Pulled, reply), self._gaps.pop(topic, 0))

    def leave_unsettled(self, batch: Batch) -> None:
        """Let the next pull of the batch's topic acknowledge what is open of it."""
        self._unsettled[batch.topic] = batch

    def leave_gap(self, batch: Batch) -> None:
        """Let the next batch of this one's topic tell what this one missed."""
        if batch.skipped:
            self._gaps[batch.topic] = self._gaps.get(batch.topic, 0) + batch.skipped

    def remember_place(self, topic: str, next_offset: int) -> None:
        """Note how far an ephemeral subscription has got."""
        place = self._places.get(topic)
        if place is not None:
            place.next_offset = max(place.next_offset, next_offset)

    # --- a new connection -------------------------------------------------------------------------

    def opening(self) -> list[wire.Message]:
        """Say hello, register, and go on with ephemeral subscriptions where they were."""
        again = [
            wire.Subscribe(0, topic, place.next_offset, place.ack_wait_ms)
            for topic, place in self._places.items()
        ]
        return [*super().opening(), wire.RegisterSubscriber(0, self._member, self.name), *again]

    def opened(self, replies: list[wire.Message]) -> None:
        """Take the answers to the opening."""
        super().opened(replies)
        if isinstance(replies[1], wire.Error):
            raise from_wire(replies[1].code, replies[1].details)
        self.subscriber = expect(wire.Registered, replies[1]).subscriber
        for topic, reply in zip(list(self._places), replies[2:], strict=True):
            self._subscribed_again(topic, reply)

    def _subscribed_again(self, topic: str, reply: wire.Message) -> None:
        place = self._places[topic]
        subscribed = reply.subscribed if isinstance(reply, wire.SubscribedReply) else None
        if subscribed is None or subscribed.topic_id != place.topic_id:
            # The topic is gone, or another has its name: the next pull will say so.
            del self._places[topic]
            if subscribed is not None:
                self._replaced.append(topic)
        elif subscribed.created and subscribed.offset > place.next_offset:
            missed = subscribed.offset - place.next_offset
            self._gaps[topic] = self._gaps.get(topic, 0) + missed
            place.next_offset = subscribed.offset

    def _reopened(self, channel: Channel, deadline: Deadline) -> None:
        # Nothing of the topic that was read touches the one that has its name now.
        while self._replaced:
            request = wire.Unsubscribe(next(self._ids), self._replaced[-1])
            channel.write([wire.encode(request)], deadline)
            channel.reply(request.id, deadline)
            self._replaced.pop()

    def _forked(self) -> None:
        self._member = os.urandom(16)
        self._unsettled.clear()
        self._carried.clear()
