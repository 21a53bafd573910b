"""The loop behind ``Subscriber.follow``: always one pull under way for each topic."""

from collections.abc import Generator
from math import inf
from typing import TYPE_CHECKING

from mbctl.client.channel import Channel
from mbctl.client.deadline import Deadline
from mbctl.client.messages import Batch, Message
from mbctl.client.packing import to_frame
from mbctl.client.subscribing import FOLLOW_MESSAGES, FOLLOW_WAIT_S
from mbctl.errors import MbctlError
from mbctl.wire import messages as wire

if TYPE_CHECKING:
    from mbctl.client.subscriber import Subscriber

# How long leaving the loop may take to give back what was not yielded.
_LEAVE_S = 1.0


class Follow:
    """Pulls under way, by the ids they have on the present connection."""

    def __init__(self, subscriber: "Subscriber", topics: list[str]) -> None:
        self._subscriber = subscriber
        self._topics = topics
        self._pulls: dict[int, str] = {}
        self._channel: Channel | None = None
        """The connection that ``_pulls`` were sent on."""

    def messages(self) -> Generator[Message, None, None]:
        """Yield messages until the caller stops asking."""
        batch: Batch | None = None
        yielded_next = 0
        try:
            while True:
                batch = self._next_batch()
                yielded_next = 0
                for message in batch:
                    yielded_next = message.offset + 1
                    yield message
                self._finish(batch)
                batch = None
        finally:
            self._leave(batch, yielded_next)

    # --- pulls ------------------------------------------------------------------------------------

    def _next_batch(self) -> Batch:
        """The next batch that comes for any topic; its topic's next pull is under way then."""
        while True:
            batch = self._next_reply()
            if batch:
                return batch
            self._subscriber.leave_gap(batch)

    def _next_reply(self) -> Batch:
        subscriber = self._subscriber
        # A follow is endless; each attempt and each reconnect has a time of its own.
        endless = Deadline(inf)
        topic, reply = subscriber._surviving(self._take, endless)
        batch = subscriber.take_reply(topic, reply)
        try:
            subscriber._surviving(self._ask, endless)
        except BaseException:
            # The batch will not be yielded: it is given back with the connection.
            subscriber._drop_channel()
            raise
        return batch

    def _ask(self, channel: Channel) -> None:
        """Send a pull for each topic that has none under way on this connection."""
        subscriber = self._subscriber
        if channel is not self._channel:
            self._channel = channel
            self._pulls.clear()
        frames = []
        for topic in self._topics:
            if topic not in self._pulls.values():
                request = subscriber.pull_request(topic, FOLLOW_MESSAGES, None, FOLLOW_WAIT_S)
                request.id = next(subscriber._ids)
                frames.append(to_frame(request))
                self._pulls[request.id] = topic
        if frames:
            channel.write([b"".join(frames)], Deadline(subscriber.timeout))

    def _take(self, channel: Channel) -> tuple[str, wire.Message]:
        """Wait for the reply to one of the pulls; its topic and the reply."""
        self._ask(channel)
        deadline = Deadline(FOLLOW_WAIT_S + self._subscriber.timeout)
        while True:
            for id_ in channel.replies:
                if id_ in self._pulls:
                    return self._pulls.pop(id_), channel.replies.pop(id_)
            channel.read(deadline)

    # --- acknowledging ----------------------------------------------------------------------------

    def _finish(self, batch: Batch) -> None:
        """Acknowledge a batch that was yielded to its end, without waiting for the answer.

        If the topic's next reply is here already, the pull after that carries the
        acknowledgement; otherwise it goes out by itself, since that may take long.
        """
        subscriber = self._subscriber
        subscriber.remember_place(batch.topic, batch.next_offset)
        channel = subscriber._channel
        ranges = batch.open_ranges
        if not ranges:
            return
        if channel is None or channel is not self._channel:
            subscriber.leave_unsettled(batch)
            return
        try:
            channel.poll()
            if any(self._pulls.get(id_) == batch.topic for id_ in channel.replies):
                subscriber.leave_unsettled(batch)
            else:
                self._write(channel, wire.Ack(0, batch.topic, batch.topic_id, ranges))
        except MbctlError:
            # The connection is gone: the next pull will find out, and carry this along.
            subscriber._drop_channel()
            subscriber.leave_unsettled(batch)

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
            self._end_pulls(channel)
        except BaseException as error:
            # Closing gives everything back as well, it only counts as a delivery.
            subscriber._drop_channel()
            if not isinstance(error, MbctlError):
                raise

    def _end_pulls(self, channel: Channel) -> None:
        deadline = Deadline(_LEAVE_S)
        pulls, self._pulls = self._pulls, {}
        for id_ in pulls:
            self._write(channel, wire.Cancel(0, id_))
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
        self._write(channel, wire.Nack(0, topic, topic_id, ranges, 0, counted=False))

    def _write(self, channel: Channel, request: wire.Message) -> None:
        """Send a request whose answer says nothing that is needed."""
        request.id = next(self._subscriber._ids)
        channel.ignore(request.id)
        channel.write([wire.encode(request)], Deadline(_LEAVE_S))
