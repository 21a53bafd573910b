"""The sync Publisher."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Unpack

from mbctl import batch as batches
from mbctl.client import packing
from mbctl.client.bell import Bell
from mbctl.client.buffers import Buffers
from mbctl.client.channel import Channel
from mbctl.client.deadline import Deadline
from mbctl.client.packing import Key, Packed, Payload, TopicKeywords
from mbctl.client.pipeline import Pipeline
from mbctl.client.publishing import PublisherBase, unknown
from mbctl.client.sync import SyncClient
from mbctl.client.window import PendingSend
from mbctl.errors import MbctlError
from mbctl.model import KIB, Receipt, TopicSettings

# How much of what threads have queued is written at once; arbitrary, measure.
_WRITE_BYTES = 256 * KIB


class Publisher(PublisherBase, SyncClient):
    """Sends messages. Each object is a session of its own; ``name`` is only a label.

    A send is numbered, so one that is repeated after a lost connection is stored once.
    May be shared by threads: their sends go out in the order of the calls and share the window.
    """

    def __init__(
        self, server: str = "127.0.0.1:5555", name: str | None = None, *, timeout: float = 30.0
    ) -> None:
        self._queue: deque[PendingSend] = deque()
        """What threads have to send; who has the turn sends it, in this order."""
        self._given_up: deque[PendingSend] = deque()
        """Sends that nobody waits for any more; who has the turn next forgets them."""
        self._bell: Bell | None = None
        """Rung by a pipeline's thread for who has the turn; made once threads have met."""
        self._buffers = Buffers()
        super().__init__(server, name, timeout)

    # --- verbs --------------------------------------------------------------------------------

    def create_topic(
        self, topic: str, *, exist_ok: bool = True, **settings: Unpack[TopicKeywords]
    ) -> bool:
        """Create a topic; whether it was created now.

        ``settings`` are ``max_messages``, ``max_bytes``, ``max_age`` (s), ``retain_age`` (s),
        ``retain_bytes`` and ``when_full`` ("refuse" or "drop_oldest").

        Raises:
            TopicExists: it exists with other settings, or at all if not ``exist_ok``.
            InvalidName, LimitExceeded, NotSupported: the server refuses it.
        """
        return self._run(self._create_topic(topic, TopicSettings(**settings), exist_ok))

    def delete_topic(self, topic: str) -> None:
        """Delete a topic with its messages and subscriptions.

        Raises:
            TopicNotFound: there is none.
        """
        self._run(self._delete_topic(topic))

    def send(
        self,
        topic: str,
        payload: Payload,
        *,
        key: Key | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Receipt:
        """Send one message and wait until it is stored; where.

        Text is encoded as UTF-8.

        Raises:
            TopicNotFound, TopicFull, DiskFull, MessageTooLarge: refused, nothing stored.
            OutcomeUnknown: the connection was lost and time ran out; it may be stored.
            ConnectionLost: it could not be sent at all.
        """
        payload = packing.to_bytes(payload)
        if key is None and headers is None and len(payload) < packing.LOOSE_BYTES:
            batch: Packed = batches.encode([payload])
        else:
            keys = None if key is None else packing.to_keys([key])
            pairs = None if headers is None else packing.to_headers([headers])
            batch = packing.pack([payload], keys, pairs, self.limits, self._buffers)
        return self._sent(topic, batch, 1)

    def send_many(
        self,
        topic: str,
        payloads: Iterable[Payload],
        *,
        keys: Sequence[Key | None] | None = None,
        headers: Sequence[Mapping[str, str] | None] | None = None,
    ) -> Receipt:
        """Send messages as one batch, stored and acknowledged as a unit; where it begins.

        Raises: as ``send``, and BatchTooLarge.
        """
        listed = packing.to_payloads(payloads)
        batch = packing.pack(
            listed, packing.to_keys(keys), packing.to_headers(headers), self.limits, self._buffers
        )
        return self._sent(topic, batch, len(listed))

    def pipeline(self) -> Pipeline:
        """Send many messages without waiting for each; leaving its block waits for all."""
        pipeline = Pipeline(self)
        self._pipelines.add(pipeline)
        return pipeline

    def close(self) -> None:
        """Close the connection. Sends without an answer are not repeated any more."""
        super().close()

    def _close(self) -> None:
        super()._close()
        self._give_up(list(self._window))
        self._bell = None

    # --- sending ------------------------------------------------------------------------------

    def _sent(self, topic: str, batch: Packed, count: int) -> Receipt:
        """Send a batch and wait for its answer."""
        send = self._queued(topic, batch, count)
        self._wait_for([send], Deadline(self.timeout))
        answer = send.answer
        if isinstance(answer, MbctlError):
            raise answer
        assert answer is not None
        return answer

    def _queued(self, topic: str, batch: Packed, count: int) -> PendingSend:
        """Queue a send, behind those of other threads. ``_work_until`` is to follow."""
        packing.to_text(topic, "topic")
        send = PendingSend(topic, batch, count)
        self._queue.append(send)
        return send

    def _submit(self, topic: str, batch: Packed, count: int, deadline: Deadline) -> PendingSend:
        """Number a send and write it; its answer comes later.

        Raises:
            OutcomeUnknown: it was written, maybe, and nothing will repeat it.
            ConnectionLost, Timeout: it was not.
        """
        send = self._queued(topic, batch, count)
        bell = self._bell
        if bell is not None and self._turn.owner is not None:
            # Single sends wait for the next answer to go out together, which is cheaper; a
            # pipeline has more to send than one batch for each answer.
            bell.ring()
        self._work_until(lambda: send.sequence > 0, [send], deadline)
        return send

    def _wait_for(self, sends: list[PendingSend], deadline: Deadline) -> None:
        """Wait until all of ``sends`` are answered.

        Raises: as ``_submit``; OutcomeUnknown also if it was closed meanwhile.
        """

        def are_settled() -> bool:
            # Answers come in order, mostly: the last one tells soonest that they are not.
            for send in reversed(sends):
                if send.answer is None and not self._is_forgotten(send):
                    return False
            return True

        self._work_until(are_settled, sends, deadline)
        if any(send.answer is None for send in sends):
            raise unknown(sends)

    def _is_forgotten(self, send: PendingSend) -> bool:
        """Whether nobody will ask for the answer to ``send`` any more."""
        return send.sequence > 0 and send not in self._window

    def _work_until(
        self, is_done: Callable[[], bool], sends: list[PendingSend], deadline: Deadline
    ) -> None:
        """Work at the connection until ``is_done``, or let the thread do so whose turn it is.

        Raises: what kept ``sends`` from that, which are given up then.
        """
        try:
            self._in_turn(lambda: self._work(is_done, deadline), deadline, is_done)
        except BaseException as error:
            if self._abandon(sends) and isinstance(error, MbctlError):
                raise unknown(sends) from error
            raise

    def _work(self, is_done: Callable[[], bool], deadline: Deadline) -> None:
        self._forget_given_up()
        while not is_done():
            if self._queue and not self._window.is_full(self.limits):
                self._surviving(self._write_queued, deadline)
            else:
                # Sending again on a new connection if need be.
                self._surviving(self._take_answers, deadline)
            if self._turn.waiting:
                self._turn.wake_done()
                self._bell = self._bell or Bell()

    def _write_queued(self, channel: Channel, deadline: Deadline) -> None:
        """Write what is queued, as far as the window has room, or enough of it."""
        frames: list[bytes | bytearray] = []
        size = 0
        while self._queue and size < _WRITE_BYTES and not self._window.is_full(self.limits):
            send = self._number_first()
            # A new connection has written it already, if an earlier attempt was interrupted.
            if send is not None and send.first_tried is None:
                frames += self._frame_of(send)
                size += send.size
        if frames:
            channel.write(frames, deadline)

    def _number_first(self) -> PendingSend | None:
        """Move the first send from the queue to the window; None if it was given up just now.

        Interrupted between any two steps it is in one of them, or in both.
        """
        try:
            send = self._queue[0]
        except IndexError:
            return None
        if send.sequence == 0:
            self._window.number(send)
        try:
            self._queue.remove(send)
        except ValueError:
            self._window.drop(send)
            return None
        return send

    def _take_answers(self, channel: Channel, deadline: Deadline) -> None:
        """Wait for answers, or for the bell."""
        if not channel.replies:
            bell = self._bell
            if bell is not None and not channel.is_there(bell, deadline):
                bell.silence()
                return
            channel.read(deadline)
        self._note_answers(channel)

    def _note_answers(self, channel: Channel) -> None:
        for id_, reply in channel.replies.items():
            self._note_answer(id_, reply)
        channel.replies.clear()

    # --- giving up ----------------------------------------------------------------------------

    def _abandon(self, sends: list[PendingSend]) -> bool:
        """Wait for ``sends`` no more, whoever has the turn; whether some have been numbered."""
        were_numbered = False
        for send in sends:
            if send.answer is None:
                try:
                    self._queue.remove(send)
                except ValueError:
                    # The window is changed only by who has the turn.
                    self._given_up.append(send)
                    were_numbered = True
        return were_numbered

    def _forget_given_up(self) -> None:
        while self._given_up:
            # In flight it stays, until there is an answer or another connection.
            self._window.abandon(self._given_up.popleft())

    # --- the connection -----------------------------------------------------------------------

    def _reopened(self, channel: Channel, deadline: Deadline) -> None:
        self._forget_given_up()
        for sends, are_more in self._bursts():
            for send in sends:
                channel.write(self._frame_of(send), deadline)
            while are_more and sends and sends[0] in self._window:
                channel.read(deadline)
                self._note_answers(channel)

    def _drop_channel(self) -> None:
        if self._channel is not None:
            self._note_answers(self._channel)
            self._window.disconnected()
        super()._drop_channel()

    def _in_child(self) -> None:
        self._queue.clear()
        self._given_up.clear()
        self._bell = None
        super()._in_child()
