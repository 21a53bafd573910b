"""The loop behind ``follow`` and ``follow_batches``: always one pull under way for each topic."""

import time
from collections.abc import Generator
from functools import partial
from math import inf
from threading import get_ident
from typing import TYPE_CHECKING

from mbctl import forks
from mbctl.client.channel import Channel
from mbctl.client.deadline import Deadline
from mbctl.client.messages import Batch, Message
from mbctl.client.packing import to_frame
from mbctl.client.subscribing import ACK_AFTER_S, Portion
from mbctl.errors import MbctlError, from_wire
from mbctl.wire import messages as wire

if TYPE_CHECKING:
    from mbctl.client.subscriber import Subscriber

# How long leaving the loop may take to give back what was not yielded.
_LEAVE_S = 1.0


class Follow:
    """Pulls under way, by the ids they have on the present connection."""

    def __init__(self, subscriber: "Subscriber", portion: Portion) -> None:
        self._subscriber = subscriber
        self._portion = portion
        self._pulls: dict[int, str] = {}
        self._channel: Channel | None = None
        """The connection that ``_pulls`` were sent on."""
        self._batch: Batch | None = None
        """The batch that is yielded now."""
        self._thread = 0
        """Where the last batch was asked for."""
        forks.watch(self)

    def _in_child(self) -> None:
        # What was pulled is the parent's; the child's loop goes on with what it pulls itself.
        self._batch = None
        self._pulls = {}
        self._channel = None

    def messages(self) -> Generator[Message, None, None]:
        """Yield messages until the caller stops asking."""
        message: Message | None = None
        try:
            for batch in self._each():
                message = None
                for message in batch:
                    yield message
                    if self._batch is None:
                        break
        finally:
            if message is None:
                self._end(None, 0)
            else:
                self._end(message.batch, message.offset + 1)

    def batches(self) -> Generator[Batch, None, None]:
        """Yield batches until the caller stops asking."""
        batch: Batch | None = None
        try:
            for batch in self._each():
                yield batch
        finally:
            self._end(batch, 0 if batch is None else batch.next_offset)

    def _each(self) -> Generator[Batch, None, None]:
        """Batches, one after the other; to ask for the next is to be done with the last."""
        subscriber = self._subscriber
        # A follow is endless; each attempt and each reconnect has a time of its own.
        endless = Deadline(inf)
        while True:
            self._thread = get_ident()
            batch = self._batch = subscriber._in_turn(self._next_batch, endless)
            if batch is None:
                return
            yield batch
            if self._batch is not None:
                subscriber._in_turn(partial(self._finish, batch), endless)
            self._batch = None

    def _end(self, batch: Batch | None, yielded_next: int) -> None:
        """Leave the loop, where everything below this offset of ``batch`` was yielded."""
        at_hand = self._batch
        leaving = partial(self._leave, at_hand, yielded_next if batch is at_hand else 0)
        # A loop may end as garbage, in the middle of anything and in any thread.
        self._subscriber._leave_loop(leaving, now=self._thread == get_ident())

    def restart(self, topic: str) -> None:
        """Go on with ``topic`` from where its subscription has been moved to.

        What the pulls under way were granted is given back: it may be from after that.
        """
        if self._batch is not None and self._batch.topic == topic:
            self._batch = None
        channel = self._subscriber._channel
        if channel is None or channel is not self._channel:
            return
        pulls = {id_: of for id_, of in self._pulls.items() if of == topic}
        for id_ in pulls:
            del self._pulls[id_]
        try:
            self._end_pulls(channel, pulls)
        except BaseException as error:
            # As when leaving: what was pulled comes back with the connection.
            self._subscriber._drop_channel()
            if not isinstance(error, MbctlError):
                raise

    # --- pulls ------------------------------------------------------------------------------------

    def _next_batch(self) -> Batch | None:
        """The next batch that comes for any topic; its topic's next pull is under way then.

        None if nothing came for so long that this is the end.
        """
        self._portion.begin(time.monotonic())
        while True:
            batch = self._next_reply()
            if batch:
                return batch
            self._subscriber.leave_gap(batch)
            if self._portion.is_over(batch.topic, time.monotonic()):
                return None

    def _next_reply(self) -> Batch:
        subscriber = self._subscriber
        endless = Deadline(inf)
        topic, reply = subscriber._surviving(self._take, endless)
        if isinstance(reply, wire.Error):
            error = from_wire(reply.code, reply.details)
            subscriber._pull_refused(topic, error)
            raise error
        batch = subscriber.take_reply(topic, reply)
        try:
            subscriber._surviving(self._ask, endless)
        except BaseException:
            # The batch will not be yielded: it is given back with the connection.
            subscriber._drop_channel()
            raise
        return batch

    def _ask(self, channel: Channel, _: Deadline) -> None:
        """Send a pull for each topic that has none under way on this connection."""
        subscriber, portion = self._subscriber, self._portion
        if channel is not self._channel:
            self._channel = channel
            self._pulls.clear()
        frames = []
        for topic in portion.topics:
            if topic not in self._pulls.values():
                request = subscriber.pull_request(
                    topic, portion.max_messages, portion.max_bytes, portion.wait_s
                )
                request.id = next(subscriber._ids)
                frames.append(to_frame(request))
                self._pulls[request.id] = topic
        if frames:
            channel.write([b"".join(frames)], self._patience())

    def _take(self, channel: Channel, _: Deadline) -> tuple[str, wire.Message]:
        """Wait for the reply to one of the pulls; its topic and the reply."""
        self._ask(channel, _)
        deadline = self._patience()
        is_owed = any(topic in self._subscriber._unsettled for topic in self._portion.topics)
        while True:
            for id_ in channel.replies:
                if id_ in self._pulls:
                    return self._pulls.pop(id_), channel.replies.pop(id_)
            if is_owed and not channel.comes_within(ACK_AFTER_S):
                self._acknowledge(channel)
                is_owed = False
            channel.read(deadline)

    def _patience(self) -> Deadline:
        """For whatever is written and read in the loop: to change a socket's is a system call."""
        return Deadline(self._portion.wait_s + self._subscriber.timeout)

    # --- acknowledging ----------------------------------------------------------------------------

    def _finish(self, batch: Batch) -> None:
        """Let a batch that was yielded to its end be acknowledged by the pull after the next."""
        self._subscriber.remember_place(batch.topic, batch.next_offset)
        if batch.open_ranges:
            self._subscriber.leave_unsettled(batch)

    def _acknowledge(self, channel: Channel) -> None:
        """Acknowledge what no pull has carried so far, without waiting for the answer."""
        unsettled = self._subscriber._unsettled
        for topic in self._portion.topics:
            batch = unsettled.get(topic)
            if batch is not None and batch.open_ranges:
                ack = wire.Ack(0, topic, batch.topic_id, batch.open_ranges)
                self._write(channel, ack, self._patience())
            # If that failed, the next connection's pull carries it.
            unsettled.pop(topic, None)

    def _leave(self, batch: Batch | None, yielded_next: int) -> None:
        """Give back what was not yielded and end the pulls under way."""
        subscriber = self._subscriber
        rest = [] if batch is None else subscriber._leave_rest(batch, yielded_next)
        channel = subscriber._channel
        if channel is None or channel is not self._channel:
            return
        try:
            if batch is not None and rest:
                self._give_back(channel, batch.topic, batch.topic_id, rest)
            pulls, self._pulls = self._pulls, {}
            self._end_pulls(channel, pulls)
        except BaseException as error:
            # Closing gives everything back as well, it only counts as a delivery.
            subscriber._drop_channel()
            if not isinstance(error, MbctlError):
                raise

    def _end_pulls(self, channel: Channel, pulls: dict[int, str]) -> None:
        """End ``pulls``, and give back what they were answered with."""
        deadline = Deadline(_LEAVE_S)
        for id_ in pulls:
            self._write(channel, wire.Cancel(0, id_), deadline)
        for id_, topic in pulls.items():
            reply = channel.reply(id_, deadline)
            if isinstance(reply, wire.Pulled):
                batch = self._subscriber.take_reply(topic, reply)
                self._subscriber.leave_gap(batch)
                if batch:
                    self._give_back(channel, topic, batch.topic_id, batch.open_ranges)

    def _give_back(
        self, channel: Channel, topic: str, topic_id: int, ranges: list[tuple[int, int]]
    ) -> None:
        nack = wire.Nack(0, topic, topic_id, ranges, 0, counted=False)
        self._write(channel, nack, Deadline(_LEAVE_S))

    def _write(self, channel: Channel, request: wire.Message, deadline: Deadline) -> None:
        """Send a request whose answer says nothing that is needed."""
        request.id = next(self._subscriber._ids)
        channel.ignore(request.id)
        channel.write([wire.encode(request)], deadline)
