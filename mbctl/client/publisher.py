"""The sync Publisher."""

from collections.abc import Iterable, Mapping, Sequence
from threading import RLock
from typing import Any

from mbctl.client import packing
from mbctl.client.base import settings_of
from mbctl.client.channel import Channel
from mbctl.client.deadline import Deadline
from mbctl.client.packing import Key, Payload
from mbctl.client.pipeline import Pipeline
from mbctl.client.publishing import PublisherBase, unknown
from mbctl.client.sync import SyncClient
from mbctl.client.window import PendingSend
from mbctl.errors import MbctlError, OutcomeUnknown
from mbctl.model import Receipt


class Publisher(PublisherBase, SyncClient):
    """Sends messages. Each object is a session of its own; ``name`` is only a label.

    A send is numbered, so one that is repeated after a lost connection is stored once.
    May be shared by threads.
    """

    def __init__(
        self, server: str = "127.0.0.1:5555", name: str | None = None, *, timeout: float = 30.0
    ) -> None:
        self._lock = RLock()
        super().__init__(server, name, timeout)

    # --- verbs --------------------------------------------------------------------------------

    def create_topic(self, topic: str, *, exist_ok: bool = True, **settings: Any) -> bool:
        """Create a topic; whether it was created now.

        ``settings`` are ``max_messages``, ``max_bytes``, ``max_age`` (s), ``retain_age`` (s),
        ``retain_bytes`` and ``when_full`` ("refuse" or "drop_oldest").

        Raises:
            TopicExists: it exists with other settings, or at all if not ``exist_ok``.
            InvalidName, LimitExceeded, NotSupported: the server refuses it.
        """
        with self._lock:
            return self._run(self._create_topic(topic, settings_of(**settings), exist_ok))

    def delete_topic(self, topic: str) -> None:
        """Delete a topic with its messages and subscriptions.

        Raises:
            TopicNotFound: there is none.
        """
        with self._lock:
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
        return self.send_many(
            topic,
            [packing.to_bytes(payload)],
            keys=None if key is None else [key],
            headers=None if headers is None else [headers],
        )

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
            listed, packing.to_keys(keys), packing.to_headers(headers), self.limits
        )
        deadline = Deadline(self.timeout)
        with self._lock:
            send = self._submit(topic, batch, len(listed), deadline)
            self._wait_for([send], deadline)
        if isinstance(send.answer, MbctlError):
            raise send.answer
        assert send.answer is not None
        return send.answer

    def pipeline(self) -> Pipeline:
        """Send many messages without waiting for each; leaving its block waits for all."""
        return Pipeline(self)

    def close(self) -> None:
        """Close the connection. Sends without an answer are not repeated any more."""
        with self._lock:
            super().close()
            self._give_up(list(self._window))

    # --- sending ------------------------------------------------------------------------------

    def _reopened(self, channel: Channel, deadline: Deadline) -> None:
        for sends, are_more in self._bursts():
            for send in sends:
                channel.write(self._frame_of(send), deadline)
            while are_more and sends and sends[0] in self._window:
                channel.read(deadline)
                self._note_answers(channel)

    def _forked(self) -> None:
        super()._forked()
        self._lock = RLock()

    def _drop_channel(self) -> None:
        if self._channel is not None:
            self._note_answers(self._channel)
        super()._drop_channel()

    def _submit(self, topic: str, batch: bytes, count: int, deadline: Deadline) -> PendingSend:
        """Number a send and write it; its answer comes later."""
        packing.to_text(topic, "topic")
        self._notice_fork()
        while self._window.is_full(self.limits):
            self._take_answers(deadline)
        send = self._window.add(topic, batch, count)
        try:
            self._surviving(lambda channel: self._write_once(send, channel, deadline), deadline)
        except BaseException as error:
            self._window.drop(send)
            if send.first_tried is not None and isinstance(error, MbctlError):
                raise OutcomeUnknown(what=f"the send to {topic!r}") from error
            raise
        return send

    def _write_once(self, send: PendingSend, channel: Channel, deadline: Deadline) -> None:
        # A new connection has written it already, if an earlier attempt had begun to.
        if send.first_tried is None:
            channel.write(self._frame_of(send), deadline)

    def _wait_for(self, sends: list[PendingSend], deadline: Deadline) -> None:
        """Wait until all of ``sends`` are answered.

        Raises:
            OutcomeUnknown: some are not; nothing will repeat them any more.
        """
        try:
            for send in sends:
                while send.answer is None and send in self._window:
                    self._take_answers(deadline)
        except BaseException as error:
            self._give_up(sends)
            if not isinstance(error, MbctlError):
                raise
            raise unknown(sends) from error
        if any(send.answer is None for send in sends):
            # The publisher was closed meanwhile.
            raise unknown(sends)

    def _take_answers(self, deadline: Deadline) -> None:
        """Take at least one answer, sending again on a new connection if need be."""

        def take(channel: Channel) -> None:
            if not channel.replies:
                channel.read(deadline)
            self._note_answers(channel)

        self._surviving(take, deadline)

    def _note_answers(self, channel: Channel) -> None:
        for id_, reply in channel.replies.items():
            self._note_answer(id_, reply)
        channel.replies.clear()
