"""The sync Publisher and its Pipeline."""

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from threading import RLock
from types import TracebackType
from typing import Any, Self

from mbctl import batch as batches
from mbctl.client import packing
from mbctl.client.base import settings_of
from mbctl.client.channel import Channel
from mbctl.client.deadline import Deadline
from mbctl.client.packing import Key, Payload
from mbctl.client.sync import SyncClient
from mbctl.client.window import PendingSend, SendWindow
from mbctl.errors import (
    BatchTooLarge,
    MbctlError,
    OutcomeUnknown,
    SendFailed,
    from_wire,
)
from mbctl.model import KIB, Receipt, check_name
from mbctl.wire import messages as wire

# A pipeline sends what it has gathered at either bound: enough that the cost of a send is
# shared by many messages, little enough that the server is never idle meanwhile.
_PIPELINE_MESSAGES = 2_000
_PIPELINE_BYTES = 256 * KIB


class Publisher(SyncClient):
    """Sends messages. Each object is a session of its own; ``name`` is only a label.

    A send is numbered, so one that is repeated after a lost connection is stored once.
    May be shared by threads.
    """

    def __init__(
        self, server: str = "127.0.0.1:5555", name: str | None = None, *, timeout: float = 30.0
    ) -> None:
        self.name = name if name is None else check_name(name)
        self._session = os.urandom(16)
        self._window = SendWindow()
        self._lock = RLock()
        super().__init__(server, timeout)

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
            self._settle(lambda: send.answer is not None, deadline, send)
        if isinstance(send.answer, MbctlError):
            raise send.answer
        assert send.answer is not None
        return send.answer

    def pipeline(self) -> "Pipeline":
        """Send many messages without waiting for each; leaving its block waits for all."""
        return Pipeline(self)

    def close(self) -> None:
        """Close the connection. Sends without an answer are not repeated any more."""
        with self._lock:
            for send in self._window:
                self._window.drop(send)
            super().close()

    # --- sending ------------------------------------------------------------------------------

    def opening(self) -> list[wire.Message]:
        """Say hello and name the session."""
        return [*super().opening(), wire.RegisterPublisher(0, self._session, self.name)]

    def opened(self, replies: list[wire.Message]) -> None:
        """Take the answers to the opening."""
        super().opened(replies)
        if isinstance(replies[1], wire.Error):
            raise from_wire(replies[1].code, replies[1].details)

    def _reopened(self, channel: Channel, deadline: Deadline) -> None:
        # What was written to a connection that is gone and has no answer goes out again,
        # in order, with its old numbers.
        for send in self._window:
            if send.first_tried is not None:
                self._write(send, channel, deadline)

    def _submit(self, topic: str, batch: bytes, count: int, deadline: Deadline) -> PendingSend:
        """Number a send and write it; its answer comes later."""
        self._settle(lambda: not self._window.is_full(self.limits), deadline, None)
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
            self._write(send, channel, deadline)

    def _write(self, send: PendingSend, channel: Channel, deadline: Deadline) -> None:
        now = time.monotonic()
        id_ = next(self._ids)
        age_ms = send.age_ms(now)
        self._window.written(send, id_, now)
        channel.write(
            wire.encode_send(id_, send.topic, send.sequence, age_ms, send.batch), deadline
        )

    def _settle(self, is_settled: Any, deadline: Deadline, send: PendingSend | None) -> None:
        """Take answers until ``is_settled``, sending again on a new connection if need be."""
        try:
            while not is_settled():
                self._surviving(lambda channel: self._take_answers(channel, deadline), deadline)
        except MbctlError as error:
            if send is None:
                raise
            self._window.drop(send)
            raise OutcomeUnknown(what=f"the send to {send.topic!r}") from error

    def _take_answers(self, channel: Channel, deadline: Deadline) -> None:
        if not channel.replies:
            channel.read(deadline)
        for id_, reply in channel.replies.items():
            if isinstance(reply, wire.Sent):
                self._window.sent(id_, reply.offset, reply.count)
            elif isinstance(reply, wire.Error):
                self._window.answer(id_, from_wire(reply.code, reply.details))
        channel.replies.clear()


class Pipeline:
    """Gathers messages into batches and keeps many of them in flight.

    Leaving the block sends what is gathered, waits for all answers, and raises SendFailed
    if something was refused. If the block raises, what was gathered is dropped and what
    was sent stands.
    """

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._gathered: dict[str, _Gathered] = {}
        self._sends: list[PendingSend] = []
        self._refused: list[PendingSend] = []
        self.sent = 0
        """Messages acknowledged so far."""
        self.last: Receipt | None = None
        """The receipt of the newest batch acknowledged."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.flush()
        else:
            self._gathered.clear()

    def send(
        self,
        topic: str,
        payload: Payload,
        key: Key | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Gather one message.

        Raises:
            MessageTooLarge: it is above the limit; the pipeline goes on without it.
        """
        if type(payload) is not bytes:
            payload = packing.to_bytes(payload)
        gathered = self._gathered.get(topic)
        if gathered is None:
            gathered = self._gathered[topic] = _Gathered()
        size = len(payload)
        limits = self._publisher.limits
        if size > limits.message_bytes:
            batches.check_size("payload", size, limits.message_bytes)
        if key is not None or headers is not None or gathered.extras:
            gathered.add_extras(key, headers, self._publisher.limits)
        gathered.payloads.append(payload)
        gathered.bytes += size
        if gathered.bytes >= _PIPELINE_BYTES or len(gathered.payloads) >= _PIPELINE_MESSAGES:
            self._send_gathered(topic)

    def send_many(self, topic: str, payloads: Iterable[Payload]) -> None:
        """Send messages as one batch, or as several where one would be above a limit."""
        self._send_gathered(topic)
        listed = packing.to_payloads(payloads)
        limits = self._publisher.limits
        if len(listed) > limits.batch_messages:
            # Refused as a whole, before a part of it is sent.
            batches.check_size("payload", max(map(len, listed)), limits.message_bytes)
        if listed:
            self._send_split(topic, listed)

    def flush(self) -> None:
        """Send what is gathered and wait for all answers.

        Raises:
            SendFailed: some were refused; it holds them, and the pipeline starts anew.
            OutcomeUnknown, ConnectionLost, Timeout: the answers did not come in time.
        """
        for topic in list(self._gathered):
            self._send_gathered(topic)
        publisher = self._publisher
        deadline = Deadline(publisher.timeout)
        with publisher._lock:
            try:
                for send in self._sends:
                    publisher._settle(lambda send=send: send.answer is not None, deadline, send)
            except BaseException:
                # Nobody will ask for these answers, so nothing may send them again later.
                for send in self._sends:
                    publisher._window.drop(send)
                self._sends.clear()
                raise
        self._collect()
        refused, self._refused = self._refused, []
        if refused:
            raise SendFailed.of(
                [
                    (send.topic, batches.decode(send.batch).payloads, send.answer)
                    for send in refused
                    if isinstance(send.answer, MbctlError)
                ]
            )

    def _send_gathered(self, topic: str) -> None:
        gathered = self._gathered.pop(topic, None)
        if gathered is not None:
            self._send_batch(topic, gathered.payloads, gathered.keys, gathered.headers)

    def _send_split(self, topic: str, payloads: list[bytes]) -> None:
        """Send ``payloads`` in as few batches as the limits allow."""
        try:
            self._send_batch(topic, payloads)
        except BatchTooLarge:
            half = len(payloads) // 2
            self._send_split(topic, payloads[:half])
            self._send_split(topic, payloads[half:])

    def _send_batch(
        self, topic: str, payloads: list[bytes], keys: Any = None, headers: Any = None
    ) -> None:
        publisher = self._publisher
        batch = packing.pack(payloads, keys, headers, publisher.limits)
        with publisher._lock:
            deadline = Deadline(publisher.timeout)
            self._sends.append(publisher._submit(topic, batch, len(payloads), deadline))
        # Answers are looked through now and then, not at every batch.
        if len(self._sends) > 2 * publisher.limits.sends_in_flight:
            self._collect()

    def _collect(self) -> None:
        """Sort the sends that are answered into stored and refused."""
        waiting = []
        for send in self._sends:
            if send.answer is None:
                waiting.append(send)
            elif isinstance(send.answer, MbctlError):
                self._refused.append(send)
            else:
                self.sent += send.answer.count
                self.last = send.answer
        self._sends = waiting


class _Gathered:
    """Messages for one topic that are not sent yet."""

    __slots__ = ("bytes", "extras", "headers", "keys", "payloads")

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.bytes = 0
        self.extras = False
        self.keys: list[bytes | None] | None = None
        self.headers: list[dict[str, str] | None] | None = None

    def add_extras(self, key: Key | None, headers: Mapping[str, str] | None, limits: Any) -> None:
        """Add a message's key and headers to the columns, which begin with the first of them."""
        packed_key = None if key is None else packing.to_bytes(key, "key")
        column = packing.to_headers([headers]) or [None]
        batches.check_size("key", len(packed_key or b""), limits.key_bytes)
        batches.check_headers(column[0] or {}, limits)
        if self.keys is None or self.headers is None:
            self.keys = [None] * len(self.payloads)
            self.headers = [None] * len(self.payloads)
        self.extras = True
        self.keys.append(packed_key)
        self.headers.append(column[0])
        self.bytes += len(packed_key or b"") + sum(
            len(name) + len(value) for name, value in (headers or {}).items()
        )
