"""Both ends of a fanout exchange in RabbitMQ, as someone writes them who wants speed.

Publishers let the server confirm and wait only when much is unconfirmed; subscribers have much
sent ahead and acknowledge all of a group with one frame.
"""

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pika import BlockingConnection, ConnectionParameters, frame, spec

from mbctl.bench.systems.interface import Publishing, Reading, Settings
from mbctl.bench.systems.rabbitmq_connection import CHANNEL, END, RabbitConnection, refuse_close
from mbctl.bench.systems.sockets import LARGE_BYTES
from mbctl.bench.systems.spawn import host_and_port

_TAG = "r"
PREFETCH = 5000
"""Messages sent ahead of a subscriber's acknowledgement."""
# type, channel, size; class, method, delivery tag, whether all before are meant, end.
_CONFIRM = struct.Struct(">BHI HHQ?c")
_ACK = (60, 80)
# Of a content header as this module writes it: type, channel, size; class, weight, size of the
# body, flags, delivery mode, end.
_HEADER = struct.Struct(">BHI HHQHBc")
_BODY = struct.Struct(">BHI")
_HAS_DELIVERY_MODE = 1 << 12
_size = struct.Struct(">Q").unpack_from


def create(address: str, topic: str, subscribers: Sequence[str], queue: dict[str, Any]) -> None:
    """Make an exchange that copies to all its queues, and a durable queue for each subscriber.

    Without a queue it keeps nothing, so that there is one even if nobody will read it. Which
    queues there are nobody could tell afterwards, so that they are written down in another one.
    """
    with _pika(address) as channel:
        channel.exchange_declare(topic, "fanout", durable=True)
        channel.queue_declare(_names(topic))
        for subscriber in subscribers or ("nobody",):
            name = _queue(topic, subscriber)
            channel.queue_declare(name, durable=True, arguments=queue)
            channel.queue_bind(name, topic)
            channel.basic_publish("", _names(topic), name.encode())


def drop(address: str, topic: str) -> None:
    """Delete the exchange and its queues."""
    with _pika(address) as channel:
        channel.exchange_delete(topic)
        while (name := channel.basic_get(_names(topic), auto_ack=True)[2]) is not None:
            channel.queue_delete(name.decode())
        channel.queue_delete(_names(topic))


@contextmanager
def _pika(address: str) -> Iterator[Any]:
    """A channel of pika, whose publishing is confirmed."""
    host, port = host_and_port(address)
    with BlockingConnection(ConnectionParameters(host, port)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        yield channel


def _names(topic: str) -> str:
    """The queue that holds the names of a topic's queues."""
    return f"{topic}.queues of it"


def _queue(topic: str, subscriber: str) -> str:
    return f"{topic}.{subscriber}"


class PublishingEnd(Publishing):
    """A channel in confirm mode."""

    def __init__(self, address: str, topic: str, settings: Settings) -> None:
        self._connection = RabbitConnection(address)
        self._connection.call(spec.Confirm.Select())
        method = spec.Basic.Publish(exchange=topic, routing_key="")
        self._heads = _Heads(frame.Method(CHANNEL, method).marshal(), settings.durability)
        self._window = max(1, settings.in_flight * settings.batch)
        self._sent = 0
        # All up to this number are confirmed, and these above it.
        self._confirmed = 0
        self._above: set[int] = set()

    def publish(self, batches: Iterator[Sequence[bytes]]) -> int:
        """Write each batch at once."""
        before = self._sent
        for batch in batches:
            self._wait_for(self._sent + len(batch) - self._window)
            if len(batch[0]) < LARGE_BYTES:
                self._connection.send(b"".join([self._message(payload) for payload in batch]))
            else:
                self._send_large(batch)
            self._sent += len(batch)
        self._wait_for(self._sent)
        return self._sent - before

    def _send_large(self, batch: Sequence[bytes]) -> None:
        parts: list[bytes] = []
        for each in batch:
            parts += (self._heads[len(each)], each, END) if each else (self._message(each),)
        self._connection.send_parts(parts)

    def publish_each(self, batches: Iterator[Sequence[bytes]]) -> int:
        """The protocol knows no batches, so that this is the same."""
        return self.publish(batches)

    def publish_one(self, payload: bytes) -> None:
        """One message and its confirmation."""
        self._connection.send(self._message(payload))
        self._sent += 1
        self._wait_for(self._sent)

    def _message(self, payload: bytes) -> bytes:
        """The frames of a message."""
        if not payload:
            return self._heads.without_body(0)
        return b"%b%b\xce" % (self._heads[len(payload)], payload)

    def _wait_for(self, number: int) -> None:
        """Return once everything up to this number is confirmed."""
        connection = self._connection
        while self._confirmed < number:
            connection.fill()
            whole = len(connection.buffer) // _CONFIRM.size * _CONFIRM.size
            for words in _CONFIRM.iter_unpack(connection.buffer[:whole]):
                if words[3:5] != _ACK:
                    refuse_close(frame.decode_frame(connection.buffer)[1])
                    raise ConnectionError(f"RabbitMQ confirmed with {words}")
                self._confirm(words[5], everything=words[6])
            connection.buffer = connection.buffer[whole:]

    def _confirm(self, number: int, *, everything: bool) -> None:
        above = self._above
        if everything:
            self._confirmed = max(self._confirmed, number)
            self._above = {each for each in above if each > number} if above else above
        else:
            above.add(number)
        while self._confirmed + 1 in self._above:
            self._confirmed += 1
            self._above.remove(self._confirmed)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


class _Heads(dict[int, bytes]):
    """What stands before a payload, by the size of that."""

    def __init__(self, method: bytes, durability: str) -> None:
        super().__init__()
        self._method = method
        self._mode = 1 if durability == "memory" else 2

    def without_body(self, size: int) -> bytes:
        """The method and the header."""
        flags = _HAS_DELIVERY_MODE
        return self._method + _HEADER.pack(2, CHANNEL, 15, 60, 0, size, flags, self._mode, END)

    def __missing__(self, size: int) -> bytes:
        head = self.without_body(size) + _BODY.pack(3, CHANNEL, size)
        self[size] = head
        return head


class ReadingEnd(Reading):
    """A consumer of the subscriber's queue."""

    def __init__(self, address: str, topic: str, subscriber: str, settings: Settings) -> None:
        self._connection = RabbitConnection(address)
        self._connection.call(spec.Basic.Qos(prefetch_count=PREFETCH))
        deliver = spec.Basic.Deliver(_TAG, 0, False, topic, "")
        method = frame.Method(CHANNEL, deliver).marshal()
        self._method_bytes = len(method)
        # Up to where the number stands that differs from one delivery to the next.
        self._start = method[: 7 + 4 + 1 + len(_TAG)]
        self._number = 0
        # Bytes that the buffer lacks at least until it has a whole message.
        self._missing = 1
        queue = _queue(topic, subscriber)
        self._connection.call(spec.Basic.Consume(queue=queue, consumer_tag=_TAG))

    def read(self, idle_s: float) -> Iterator[Sequence[bytes]]:
        """Payloads as they came in one reading of the socket; one frame acknowledges all."""
        while True:
            self._acknowledge()
            while not (payloads := self._cut()):
                if not self._connection.fill(idle_s, self._missing):
                    return
            yield payloads

    def _cut(self) -> list[bytes]:
        """The whole messages in the buffer, and out of it."""
        buffer, start, position = self._connection.buffer, self._start, 0
        self._missing = 1
        found: list[bytes] = []
        # A header and the beginning of a body come after the method.
        size_at = self._method_bytes + 7 + 4
        body_at = self._method_bytes + _HEADER.size + 7
        last = len(buffer) - self._method_bytes - _HEADER.size
        number_at = -1
        while position <= last:
            if not buffer.startswith(start, position):
                refuse_close(frame.decode_frame(buffer[position:])[1])
            (size,) = _size(buffer, position + size_at)
            if size > self._connection.body_bytes_max:
                raise ConnectionError("a message came in more than one frame")
            body = position + body_at
            following = body + size + 1 if size else body - 7
            if following > len(buffer):
                self._missing = following - len(buffer)
                break
            found.append(buffer[body : body + size])
            number_at = position + len(start)
            position = following
        if found:
            (self._number,) = _size(buffer, number_at)
            self._connection.buffer = buffer[position:]
        return found

    def _acknowledge(self) -> None:
        """Acknowledge everything that was given out."""
        if self._number:
            ack = _CONFIRM.pack(1, CHANNEL, 13, *_ACK, self._number, True, END)
            self._connection.send(ack)
            self._number = 0

    def close(self) -> None:
        """Acknowledge and end the connection."""
        self._acknowledge()
        self._connection.close()
