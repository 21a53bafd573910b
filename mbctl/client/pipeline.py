"""The sync Pipeline: many sends of a Publisher in flight at once."""

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mbctl import batch as batches
from mbctl.client import packing
from mbctl.client.deadline import Deadline
from mbctl.client.packing import Key, Payload
from mbctl.client.window import PendingSend
from mbctl.errors import BatchTooLarge, MbctlError, SendFailed
from mbctl.model import KIB, MIB, Limits, Receipt

if TYPE_CHECKING:
    from mbctl.client.publisher import Publisher

# A pipeline sends what it has gathered at either bound: enough that the cost of a send is
# shared by many messages, little enough that the server is never idle meanwhile.
_PIPELINE_MESSAGES = 2_000
_PIPELINE_BYTES = 256 * KIB
# A pipeline that was refused this much stops: it keeps what was refused, to hand it back.
_REFUSED_BYTES_MAX = 64 * MIB


class Pipeline:
    """Gathers messages into batches and keeps many of them in flight.

    Leaving the block sends what is gathered, waits for all answers, and raises SendFailed
    if something was refused. If the block raises, what was gathered is dropped and what
    was sent stands.
    """

    def __init__(self, publisher: "Publisher") -> None:
        self._publisher = publisher
        limits = publisher.limits
        self._messages_max = min(_PIPELINE_MESSAGES, limits.batch_messages)
        self._bytes_max = min(_PIPELINE_BYTES, limits.frame_bytes // 4)
        self._gathered: dict[str, _Gathered] = {}
        self._sends: list[PendingSend] = []
        self._refused: list[PendingSend] = []
        self._refused_bytes = 0
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
            return
        self._gathered.clear()
        if not self._publisher.is_connected:
            with self._publisher._lock:
                self._publisher._give_up(self._sends)

    def send(
        self,
        topic: str,
        payload: Payload,
        key: Key | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Gather one message.

        Raises:
            MessageTooLarge, InvalidArgument: this message cannot be sent; the pipeline goes
                on without it.
            SendFailed: very much has been refused; as from ``flush``.
            OutcomeUnknown, ConnectionLost, Timeout: what was gathered could not be sent.
        """
        if type(payload) is not bytes:
            payload = packing.to_bytes(payload)
        gathered = self._gathered.get(topic)
        if gathered is None:
            gathered = self._gathered[packing.to_text(topic, "topic")] = _Gathered()
        size = len(payload)
        limits = self._publisher.limits
        if size > limits.message_bytes:
            batches.check_size("payload", size, limits.message_bytes)
        if key is not None or headers is not None or gathered.extras:
            gathered.add_extras(key, headers, limits)
        gathered.payloads.append(payload)
        gathered.bytes += size
        if gathered.bytes >= self._bytes_max or len(gathered.payloads) >= self._messages_max:
            self._send_gathered(topic)

    def send_many(self, topic: str, payloads: Iterable[Payload]) -> None:
        """Send messages as one batch, or as several where one would be above a limit.

        Raises: as ``send``.
        """
        self._send_gathered(topic)
        listed = packing.to_payloads(payloads)
        limits = self._publisher.limits
        if listed:
            # Refused as a whole, before a part of it is sent.
            batches.check_size("payload", max(map(len, listed)), limits.message_bytes)
            self._send_split(topic, listed)

    def flush(self) -> None:
        """Send what is gathered and wait for all answers.

        Raises:
            SendFailed: some were refused; it holds them, and the pipeline starts anew.
            OutcomeUnknown: not all answers came in time.
            ConnectionLost, Timeout: what was gathered could not be sent.
        """
        for topic in list(self._gathered):
            self._send_gathered(topic)
        publisher = self._publisher
        try:
            with publisher._lock:
                publisher._wait_for(self._sends, Deadline(publisher.timeout))
        finally:
            self._collect()
            self._sends.clear()
        refused, self._refused, self._refused_bytes = self._refused, [], 0
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
        if gathered is not None and gathered.payloads:
            self._send_split(topic, gathered.payloads, gathered.keys, gathered.headers)

    def _send_split(
        self,
        topic: str,
        payloads: list[bytes],
        keys: list[bytes | None] | None = None,
        headers: list[dict[str, str] | None] | None = None,
    ) -> None:
        """Send messages in as few batches as the limits allow."""
        try:
            batch = packing.pack(payloads, keys, headers, self._publisher.limits)
        except BatchTooLarge:
            if len(payloads) == 1:
                raise
            half = len(payloads) // 2
            for part in (slice(half), slice(half, None)):
                self._send_split(
                    topic, payloads[part], keys and keys[part], headers and headers[part]
                )
        else:
            self._send_batch(topic, batch, len(payloads))

    def _send_batch(self, topic: str, batch: bytes, count: int) -> None:
        publisher = self._publisher
        with publisher._lock:
            self._sends.append(publisher._submit(topic, batch, count, Deadline(publisher.timeout)))
        # Answers are looked through now and then, not at every batch.
        if len(self._sends) > 2 * publisher.limits.sends_in_flight:
            self._collect()
            if self._refused_bytes > _REFUSED_BYTES_MAX:
                self.flush()

    def _collect(self) -> None:
        """Sort the sends that are answered into stored and refused."""
        waiting = []
        for send in self._sends:
            if send.answer is None:
                waiting.append(send)
            elif isinstance(send.answer, MbctlError):
                self._refused.append(send)
                self._refused_bytes += len(send.batch)
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

    def add_extras(
        self, key: Key | None, headers: Mapping[str, str] | None, limits: Limits
    ) -> None:
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
