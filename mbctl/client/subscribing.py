"""What the Subscribers of both faces are without a connection: places, carried acks, flows."""

import math
import os
from abc import abstractmethod
from collections import Counter
from typing import Any, Generic, TypeVar

from mbctl.client.base import WAIT_MAX_S, ClientBase, Flow, expect
from mbctl.client.packing import StartLike, to_bound, to_ms, to_seconds, to_start, to_text
from mbctl.client.pulled import PulledBatch
from mbctl.errors import InvalidArgument, MbctlError, NotSubscribed, TopicNotFound, from_wire
from mbctl.model import Range, Sought, Subscribed, check_name
from mbctl.wire import messages as wire

B = TypeVar("B", bound=PulledBatch[Any])

# The batches of a pipeline come whole: to cut one costs the server more than to pass on ten.
FOLLOW_MESSAGES = 2000
"""What a follow that yields messages asks for at a time."""
ACK_AFTER_S = 0.05
"""How long a follow waits for what comes next before it acknowledges what it is done with by a
request of its own: mostly a pull carries that along."""
# How long one of a follow's pulls waits at the server, where it does not matter.
_FOLLOW_WAIT_S = 60.0


class Portion:
    """What a follow asks for at a time, and when it ends by itself."""

    __slots__ = ("_began_s", "_idle_s", "_quiet", "max_bytes", "max_messages", "topics", "wait_s")

    def __init__(
        self, topics: tuple[str, ...], max_messages: int, max_bytes: int | None, idle: float | None
    ) -> None:
        """Topics that are given twice are one.

        Raises:
            InvalidArgument: there is no topic, or one is no text, or a bound or ``idle`` is none.
        """
        if not topics:
            raise InvalidArgument(reason="follow needs at least one topic")
        for topic in topics:
            to_text(topic, "topic")
        self.topics = list(dict.fromkeys(topics))
        self.max_messages = to_bound(max_messages, "max_messages")
        self.max_bytes = None if max_bytes is None else to_bound(max_bytes, "max_bytes")
        self._idle_s = math.inf if idle is None else _to_wait(idle, "idle")
        self.wait_s = min(self._idle_s, _FOLLOW_WAIT_S)
        """How long a pull waits at the server."""
        self._began_s = 0.0
        self._quiet: Counter[str] = Counter()

    def begin(self, now_s: float) -> None:
        """The next batch is waited for from now on."""
        self._began_s = now_s
        self._quiet.clear()

    def is_over(self, topic: str, now_s: float) -> bool:
        """Whether the follow is at its end, now that a pull of this topic brought nothing.

        The first such pull of a topic may have been sent, and answered, long before the batch was
        waited for; any may have been answered early, as by a server that stops.
        """
        self._quiet[topic] += 1
        is_late = now_s - self._began_s >= self._idle_s
        return is_late and min(self._quiet[topic] for topic in self.topics) > 1


class _Place:
    """How far an ephemeral subscription has got, in case the server forgets it."""

    __slots__ = ("next_offset", "request", "topic_id")

    def __init__(self, topic_id: int, next_offset: int, request: wire.Subscribe) -> None:
        self.topic_id = topic_id
        self.next_offset = next_offset
        self.request = request

    def again(self) -> wire.Subscribe:
        """The request that goes on from here, with the options that it began with."""
        asked = self.request
        return wire.Subscribe(
            0,
            asked.topic,
            self.next_offset,
            asked.ack_wait_ms,
            asked.max_deliveries,
            asked.dead_letter,
        )


class SubscriberBase(ClientBase, Generic[B]):
    """A subscriber's state and flows. No I/O."""

    def __init__(self, server: str, name: str | None, timeout: float) -> None:
        self.name = name if name is None else check_name(name)
        self.subscriber = name or ""
        """The name that subscriptions are listed under; ``~`` and digits for an ephemeral one."""
        self._member = os.urandom(16)
        """The id that leases are granted to; another in the child of a fork."""
        # By topic: what the next pull will acknowledge, and what a pull acknowledges that
        # has no reply yet. The pull after one that failed does so again.
        self._unsettled: dict[str, B] = {}
        self._carried: dict[str, B] = {}
        self._places: dict[str, _Place] = {}
        # What an ephemeral subscription missed, and topics that are not those it had.
        self._gaps: dict[str, int] = {}
        self._replaced: list[str] = []
        self._reopening: list[str] = []
        """The topics that the opening subscribes to again."""
        super().__init__(server, timeout)

    @abstractmethod
    def _new_batch(self, topic: str, reply: wire.Pulled, skipped: int) -> B:
        """The face's batch of a pull's reply."""

    # --- flows ----------------------------------------------------------------------------------

    def _subscribe(
        self,
        topic: str,
        start: StartLike | None,
        *,
        ack_wait: float,
        max_deliveries: int | None,
        dead_letter: str | None,
    ) -> Flow[Subscribed]:
        ack_wait_ms = to_ms(ack_wait, "ack_wait")
        begin = None if start is None else to_start(start)
        request = wire.Subscribe(0, topic, begin, ack_wait_ms, max_deliveries, dead_letter)
        subscribed = expect(wire.SubscribedReply, (yield request)).subscribed
        if self.name is None:
            place = _Place(subscribed.topic_id, subscribed.offset, request)
            self._places[request.topic] = place
        return subscribed

    def _seek(self, topic: str, start: StartLike) -> Flow[Sought]:
        sought = expect(wire.SoughtReply, (yield wire.Seek(0, topic, to_start(start)))).sought
        # What was pulled before is not to be acknowledged: it may come again.
        for by_topic in (self._unsettled, self._carried, self._gaps):
            by_topic.pop(topic, None)
        place = self._places.get(topic)
        if place is not None:
            place.next_offset = sought.offset
        return sought

    def _unsubscribe(self, topic: str) -> Flow[None]:
        to_text(topic, "topic")
        for by_topic in (self._unsettled, self._carried, self._places):
            by_topic.pop(topic, None)
        yield from self._delete_subscription(topic, None)

    def _pull(self, request: wire.Pull) -> Flow[wire.Message]:
        return (yield request)

    def _settle_ack(self, batch: B, ranges: list[Range]) -> Flow[int]:
        self._check_own(batch)
        return self._counted(wire.Ack(0, batch.topic, batch.topic_id, ranges))

    def _settle_nack(self, batch: B, ranges: list[Range], delay: float) -> Flow[int]:
        self._check_own(batch)
        delay_ms = to_ms(delay, "delay")
        return self._counted(wire.Nack(0, batch.topic, batch.topic_id, ranges, delay_ms))

    def _settle_extend(self, batch: B, ranges: list[Range]) -> Flow[int]:
        self._check_own(batch)
        return self._counted(wire.Extend(0, batch.topic, batch.topic_id, ranges))

    def _counted(self, request: wire.Message) -> Flow[int]:
        return expect(wire.Counted, (yield request)).count

    # --- what pull and follow share ---------------------------------------------------------------

    def pull_request(
        self, topic: str, max_messages: int, max_bytes: int | None, wait: float
    ) -> wire.Pull:
        """A pull that carries the acknowledgement of the batch before it."""
        to_text(topic, "topic")
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

    def take_reply(self, topic: str, reply: wire.Message) -> B:
        """The batch that a pull's reply holds.

        Raises:
            MbctlError: the pull was refused.
        """
        self._carried.pop(topic, None)
        if isinstance(reply, wire.Error):
            raise from_wire(reply.code, reply.details)
        batch = self._new_batch(topic, expect(wire.Pulled, reply), self._gaps.pop(topic, 0))
        batch.member = self._member
        return batch

    def _pull_refused(self, topic: str, error: MbctlError) -> None:
        """Note that a pull was refused, and maybe what it would have acknowledged."""
        carried = self._carried.pop(topic, None)
        if carried is not None and not isinstance(error, TopicNotFound | NotSubscribed):
            # The acknowledgement that it carried is still to be made.
            self._unsettled[topic] = carried

    def _take_pulled(self, batch: B, auto_ack: bool) -> None:
        """Note what a pull returned, and that the next one acknowledges it."""
        if batch:
            self.remember_place(batch.topic, batch.next_offset)
            if auto_ack:
                self._unsettled[batch.topic] = batch

    def leave_unsettled(self, batch: B) -> None:
        """Let the next pull of the batch's topic acknowledge what is open of it."""
        self._unsettled[batch.topic] = batch

    def leave_gap(self, batch: B) -> None:
        """Let the next batch of this one's topic tell what this one missed."""
        if batch.skipped:
            self._gaps[batch.topic] = self._gaps.get(batch.topic, 0) + batch.skipped

    def _leave_rest(self, batch: B, yielded_next: int) -> list[Range]:
        """Leave what was yielded of ``batch`` to the next pull; the ranges to give back."""
        rest = [
            (max(first, yielded_next), next_offset)
            for first, next_offset in batch.open_ranges
            if next_offset > yielded_next
        ]
        batch.close_range(yielded_next, batch.next_offset)
        if batch.open_ranges:
            self.leave_unsettled(batch)
            self.remember_place(batch.topic, yielded_next)
        return rest

    def remember_place(self, topic: str, next_offset: int) -> None:
        """Note how far an ephemeral subscription has got."""
        place = self._places.get(topic)
        if place is not None:
            place.next_offset = max(place.next_offset, next_offset)

    # --- a new connection -------------------------------------------------------------------------

    def opening(self) -> list[wire.Message]:
        """Say hello, register, and go on with ephemeral subscriptions where they were."""
        self._reopening = list(self._places)
        again = [place.again() for place in self._places.values()]
        return [*super().opening(), wire.RegisterSubscriber(0, self._member, self.name), *again]

    def opened(self, replies: list[wire.Message]) -> None:
        """Take the answers to the opening."""
        super().opened(replies)
        if isinstance(replies[1], wire.Error):
            raise from_wire(replies[1].code, replies[1].details)
        self.subscriber = expect(wire.Registered, replies[1]).subscriber
        for topic, reply in zip(self._reopening, replies[2:], strict=True):
            # One that was given up meanwhile has no place to go on from.
            if topic in self._places:
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

    def _in_child(self) -> None:
        # What was pulled is the parent's; the places of an ephemeral subscriber are for both.
        self._member = os.urandom(16)
        for by_topic in (self._unsettled, self._carried, self._gaps):
            by_topic.clear()
        self._replaced.clear()
        super()._in_child()

    def _check_own(self, batch: B) -> None:
        """Raise InvalidArgument if ``batch`` was pulled before a fork, by the parent process."""
        if batch.member is not self._member:
            raise InvalidArgument(
                reason="this was pulled in the parent process; only there can it be settled"
            )


def bounded_wait(wait: float) -> float:
    """How long a pull really waits.

    Raises:
        InvalidArgument: it is no number.
    """
    return min(_to_wait(wait, "wait"), WAIT_MAX_S)


def _to_wait(seconds: float, what: str) -> float:
    number = to_seconds(seconds, what)
    if math.isnan(number):
        raise InvalidArgument(reason=f"{what} is a number of seconds, not nan")
    return max(number, 0.0)
