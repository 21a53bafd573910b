"""What the Pipelines of both faces are without a connection: messages on their way to batches."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import NamedTuple

from mbctl import batch as batches
from mbctl.client import packing
from mbctl.client.buffers import Buffers
from mbctl.client.packing import Key, Packed, Payload
from mbctl.client.window import PendingSend
from mbctl.errors import BatchTooLarge, MbctlError, SendFailed
from mbctl.model import KIB, MIB, Limits, Receipt

# A pipeline sends what it has gathered at either bound: enough that the cost of a send is
# shared by many messages, little enough that the server is never idle meanwhile.
_PIPELINE_MESSAGES = 2_000
_PIPELINE_BYTES = 256 * KIB
# A pipeline that was refused this much stops: it keeps what was refused, to hand it back.
_REFUSED_BYTES_MAX = 64 * MIB


class Part(NamedTuple):
    """A batch that is ready to be sent."""

    topic: str
    batch: Packed
    messages: int


class Gatherer:
    """Gathers messages into batches and sorts the answers to them. No I/O."""

    def __init__(self, limits: Limits, buffers: Buffers | None = None) -> None:
        self._buffers = buffers
        self._keep_to(limits)
        self._begin()

    def _begin(self) -> None:
        """Begin with nothing gathered and nothing sent."""
        self._gathered: dict[str, _Gathered] = {}
        self._sends: list[PendingSend] = []
        self._refused: list[PendingSend] = []
        self._refused_bytes = 0
        self.sent = 0
        """Messages acknowledged so far."""
        self.last: Receipt | None = None
        """The receipt of the newest batch acknowledged."""

    def _keep_to(self, limits: Limits) -> None:
        """Gather no more than the server takes."""
        self._limits = limits
        self._messages_max = min(_PIPELINE_MESSAGES, limits.batch_messages)
        self._bytes_max = min(_PIPELINE_BYTES, limits.frame_bytes // 4)

    def _gather(
        self, topic: str, payload: Payload, key: Key | None, headers: Mapping[str, str] | None
    ) -> bool:
        """Gather one message; whether there are enough of its topic to be sent.

        Raises:
            MessageTooLarge, InvalidArgument: it cannot be sent; nothing was gathered.
        """
        if type(payload) is not bytes:
            payload = packing.to_bytes(payload)
        try:
            gathered = self._gathered.get(topic)
        except TypeError:
            # What cannot be looked up is no text, and that is told below.
            gathered = None
        if gathered is None:
            gathered = self._gathered[packing.to_text(topic, "topic")] = _Gathered()
        size = len(payload)
        if size > self._limits.message_bytes:
            batches.check_size("payload", size, self._limits.message_bytes)
        if key is not None or headers or gathered.has_extras:
            size += gathered.add_extras(key, headers, self._limits)
        gathered.payloads.append(payload)
        gathered.bytes += size
        return gathered.bytes >= self._bytes_max or len(gathered.payloads) >= self._messages_max

    def _checked(self, payloads: Iterable[Payload]) -> list[bytes]:
        """``payloads``, refused as a whole before a part of them is sent."""
        listed = packing.to_payloads(payloads)
        if len(listed) > self._limits.batch_messages:
            batches.check_size("payload", max(map(len, listed)), self._limits.message_bytes)
        return listed

    def _parts_of(self, topic: str) -> Iterator[Part]:
        """What is gathered for ``topic``, which is gathered no more."""
        gathered = self._gathered.pop(topic, None)
        if gathered is not None and gathered.payloads:
            yield from self._split(topic, gathered.payloads, gathered.keys, gathered.headers)

    def _split(
        self,
        topic: str,
        payloads: list[bytes],
        keys: list[bytes | None] | None = None,
        headers: list[dict[str, str] | None] | None = None,
    ) -> Iterator[Part]:
        """Messages in as few batches as the limits allow."""
        try:
            batch = packing.pack(payloads, keys, headers, self._limits, self._buffers)
        except BatchTooLarge:
            if len(payloads) == 1:
                raise
            half = len(payloads) // 2
            for part in (slice(half), slice(half, None)):
                yield from self._split(
                    topic, payloads[part], keys and keys[part], headers and headers[part]
                )
        else:
            yield Part(topic, batch, len(payloads))

    def _is_to_flush(self) -> bool:
        """Look through the answers, now and then; whether very much has been refused."""
        if len(self._sends) > 2 * self._limits.sends_in_flight:
            self._collect()
        return self._refused_bytes > _REFUSED_BYTES_MAX

    def _collect(self) -> None:
        """Sort the sends that are answered into stored and refused."""
        waiting = []
        for send in self._sends:
            if send.answer is None:
                waiting.append(send)
            elif isinstance(send.answer, MbctlError):
                self._refused.append(send)
                self._refused_bytes += send.size
            else:
                self.sent += send.answer.count
                self.last = send.answer
        self._sends = waiting

    def _raise_refused(self) -> None:
        """Hand back what was refused, and begin anew.

        Raises:
            SendFailed: there is something.
        """
        refused, self._refused, self._refused_bytes = self._refused, [], 0
        if refused:
            raise SendFailed.of(
                [
                    (send.topic, packing.payloads_of(send.batch), send.answer)
                    for send in refused
                    if isinstance(send.answer, MbctlError)
                ]
            )


class _Gathered:
    """Messages for one topic that are not sent yet."""

    __slots__ = ("_set", "_set_bytes", "bytes", "has_extras", "headers", "keys", "payloads")

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.bytes = 0
        self.has_extras = False
        self.keys: list[bytes | None] | None = None
        self.headers: list[dict[str, str] | None] | None = None
        # The header set that came last, as it is sent, and its size.
        self._set: dict[str, str] | None = None
        self._set_bytes = 0

    def add_extras(self, key: Key | None, headers: Mapping[str, str] | None, limits: Limits) -> int:
        """Add a message's key and headers to the columns; how many bytes they are.

        Each column begins with the first message that has something for it.
        """
        # All is checked before anything is added.
        if headers and headers != self._set:
            self._keep_set(headers, limits)
        size = 0
        keys, sets = self.keys, self.headers
        if key is not None:
            if type(key) is not bytes:
                key = packing.to_bytes(key, "key")
            size = len(key)
            if size > limits.key_bytes:
                batches.check_size("key", size, limits.key_bytes)
            if keys is None:
                keys = self.keys = [None] * len(self.payloads)
                self.has_extras = True
        if keys is not None:
            keys.append(key)
        if headers:
            if sets is None:
                sets = self.headers = [None] * len(self.payloads)
                self.has_extras = True
            sets.append(self._set)
            size += self._set_bytes
        elif sets is not None:
            sets.append(None)
        return size

    def _keep_set(self, headers: Mapping[str, str], limits: Limits) -> None:
        """Keep a header set as it is sent: the next message may have the same."""
        (pairs,) = packing.to_headers([headers]) or [None]
        batches.check_headers(pairs or {}, limits)
        self._set = pairs
        self._set_bytes = sum(map(len, chain.from_iterable((pairs or {}).items())))
