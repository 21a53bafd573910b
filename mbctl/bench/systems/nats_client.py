"""Both ends of a JetStream stream, as someone writes them who wants speed.

Acknowledgements one by one cost a publisher more than the messages do, so both kinds of batch
that the server offers are used. They are groups on the wire only: each message is stored,
numbered and delivered by itself.

* Fast ingest, where an acknowledgement does not wait for the disk. The subject to answer to
  carries the place in the batch, and the server acknowledges every 500th message:
  ``PUB topic _INBOX.id.500.fail.SEQUENCE.OPERATION.$FI size``.
* Atomic batches, where it does: the server syncs each message by itself except in those.
"""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from uuid import uuid4

import nats
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StorageType, StreamConfig

from mbctl.bench.systems.interface import Publishing, Reading, Settings
from mbctl.bench.systems.nats_connection import NatsConnection, Received, answer, url_of
from mbctl.bench.systems.sockets import LARGE_BYTES
from mbctl.bench.systems.spawn import durability_of

_FLOW = 500
"""Messages for each acknowledgement of fast ingest; the server grants no more."""
_AHEAD = 4000
"""Messages without an acknowledgement: the server drops what exceeds its queue of 10,000."""
_AHEAD_BYTES = 32 << 20
_ATOMIC = 1000
"""Messages in an atomic batch at most."""
_ATOMIC_AHEAD = 16
"""Atomic batches that are under way; the server keeps 50 for a stream."""
_PULL = 2000
_START, _APPEND, _COMMIT = 0, 1, 3


def create(address: str, topic: str, subscribers: Sequence[str]) -> None:
    """Make a stream and its durable consumers, through nats-py."""
    asyncio.run(_create(address, topic, subscribers))


async def _create(address: str, topic: str, subscribers: Sequence[str]) -> None:
    in_memory = durability_of(address) == "memory"
    connection = await nats.connect(url_of(address))
    jetstream = connection.jetstream()
    await jetstream.add_stream(
        StreamConfig(
            name=topic,
            subjects=[topic],
            storage=StorageType.MEMORY if in_memory else StorageType.FILE,
            allow_atomic=True,
            allow_batched=True,
        )
    )
    for subscriber in subscribers:
        consumer = ConsumerConfig(
            durable_name=subscriber,
            ack_policy=AckPolicy.ALL,
            deliver_policy=DeliverPolicy.NEW,
            max_ack_pending=-1,
            ack_wait=300,
            mem_storage=in_memory,
        )
        await jetstream.add_consumer(topic, consumer)
    await connection.close()


def drop(address: str, topic: str) -> None:
    """Delete a stream, which ends its consumers."""
    asyncio.run(_drop(address, topic))


async def _drop(address: str, topic: str) -> None:
    connection = await nats.connect(url_of(address))
    await connection.jetstream().delete_stream(topic)
    await connection.close()


class PublishingEnd(Publishing):
    """A connection of our own for batches; nats-py for messages that come one by one."""

    def __init__(self, address: str, topic: str, settings: Settings) -> None:
        self._address = address
        self._connection = NatsConnection(address)
        self._topic = topic
        self._synced = settings.durability == "synced"
        self._in_flight = settings.in_flight
        self._ahead = max(1, min(_AHEAD, settings.in_flight * settings.batch))
        self._flow = min(_FLOW, self._ahead)
        self._inbox = f"_INBOX.{uuid4().hex}"
        self._connection.subscribe(self._inbox)

    def publish(self, batches: Iterator[Sequence[bytes]]) -> int:
        """Send batches, by the kind of batch that the durability asks for."""
        return self._publish_atomic(batches) if self._synced else self._publish_fast(batches)

    def _publish_fast(self, batches: Iterator[Sequence[bytes]]) -> int:
        """One fast-ingest batch of all messages, ended by an empty one that is not stored."""
        inbox = f"_INBOX.{uuid4().hex}"
        self._connection.subscribe(f"{inbox}.>")
        head = f"PUB {self._topic} {inbox}.{self._flow}.fail.%d.%d.$FI %d\r\n".encode()
        line = head + b"%b\r\n"
        sent = acknowledged = 0
        for batch in batches:
            for group in _groups(batch, self._ahead):
                while sent and sent + len(group) - acknowledged > self._ahead + self._flow:
                    acknowledged = self._acknowledged()
                operations = [_APPEND] * len(group)
                if not sent:
                    operations[0] = _START
                numbers = range(sent + 1, sent + 1 + len(group))
                words = zip(numbers, operations, map(len, group), strict=True)
                if len(group[0]) < LARGE_BYTES:
                    lines = zip(words, group, strict=True)
                    self._connection.send(b"".join([line % (*w, each) for w, each in lines]))
                else:
                    parts = zip([head % w for w in words], group, repeat(b"\r\n"))
                    self._connection.send_parts([*chain.from_iterable(parts)])
                sent += len(group)
        if sent:
            self._connection.send(line % (sent + 1, _COMMIT, 0, b""))
            while self._acknowledged() < sent:
                pass
        return sent

    def _acknowledged(self) -> int:
        """The number of messages stored so far, once the server tells."""
        said = [answer(message) for message in self._connection.messages()][-1]
        return int(said["count"] if "count" in said else said["seq"])

    def _publish_atomic(self, batches: Iterator[Sequence[bytes]]) -> int:
        """A batch of up to 1000 after the other, each committed and synced as a unit."""
        window = min(_ATOMIC_AHEAD, self._in_flight)
        sent = waiting = 0
        for batch in batches:
            for group in _groups(batch, _ATOMIC):
                while waiting >= window:
                    waiting -= self._commits()
                self._connection.send(self._atomic(group))
                waiting += 1
                sent += len(group)
        while waiting:
            waiting -= self._commits()
        return sent

    def _atomic(self, group: Sequence[bytes]) -> bytes:
        """The lines of an atomic batch. Only the last has an answer."""
        topic = self._topic.encode()
        head = b"NATS/1.0\r\nNats-Batch-Id:%s\r\nNats-Batch-Sequence:" % uuid4().hex.encode()
        parts = []
        for number, payload in enumerate(group[:-1], 1):
            headers = b"%b%d\r\n\r\n" % (head, number)
            size = len(headers)
            line = (topic, size, size + len(payload), headers, payload)
            parts.append(b"HPUB %b %d %d\r\n%b%b\r\n" % line)
        headers = b"%b%d\r\nNats-Batch-Commit:1\r\n\r\n" % (head, len(group))
        size, payload = len(headers), group[-1]
        last = (topic, self._inbox.encode(), size, size + len(payload), headers, payload)
        return b"".join([*parts, b"HPUB %b %b %d %d\r\n%b%b\r\n" % last])

    def _commits(self) -> int:
        """How many batches were committed meanwhile, at least one."""
        return len([answer(message) for message in self._connection.messages()])

    def publish_each(self, batches: Iterator[Sequence[bytes]]) -> int:
        """One call of nats-py for each message, acknowledged as batches are."""
        from mbctl.bench.systems.nats_each import publish_each

        if self._synced:
            return publish_each(self._address, self._topic, batches, atomic=_ATOMIC)
        return publish_each(self._address, self._topic, batches, ahead=self._ahead, flow=self._flow)

    def publish_one(self, payload: bytes) -> None:
        """One message and its acknowledgement."""
        line = (self._topic.encode(), self._inbox.encode(), len(payload), payload)
        self._connection.send(b"PUB %b %b %d\r\n%b\r\n" % line)
        answer(self._connection.messages()[0])

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


def _groups(batch: Sequence[bytes], count: int) -> Iterator[Sequence[bytes]]:
    """A batch in pieces of at most ``count`` messages, and of bytes that may be under way."""
    largest = max(map(len, batch))
    count = max(1, min(count, _AHEAD_BYTES // 4 // (largest + 1)))
    for first in range(0, len(batch), count):
        yield batch[first : first + count]


class ReadingEnd(Reading):
    """A pull consumer with the next pull outstanding before the last is used up."""

    def __init__(self, address: str, topic: str, subscriber: str, settings: Settings) -> None:
        self._connection = NatsConnection(address)
        inbox = f"_INBOX.{uuid4().hex}"
        self._connection.subscribe(inbox)
        ask = b'{"batch":%d,"expires":3600000000000}' % _PULL
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{topic}.{subscriber}".encode()
        self._ask = b"PUB %b %b %d\r\n%b\r\n" % (subject, inbox.encode(), len(ask), ask)
        self._asked = 0
        self._given: Received | None = None

    def read(self, idle_s: float) -> Iterator[Sequence[bytes]]:
        """Payloads as they came in one reading of the socket; the ack of the last covers all."""
        while True:
            lines = self._acknowledgement()
            while self._asked <= _PULL:
                lines += self._ask
                self._asked += _PULL
            if lines:
                self._connection.send(lines)
            messages = self._connection.messages(idle_s)
            if not messages:
                return
            for message in messages:
                # A message of an atomic batch has headers too, but no status before them.
                if message.headers.startswith(b"NATS/1.0 "):
                    raise ConnectionError(f"the pull ended: {message.headers!r}")
            self._asked -= len(messages)
            self._given = messages[-1]
            yield [message.payload for message in messages]

    def _acknowledgement(self) -> bytes:
        """The line that acknowledges what was given out; nothing if nothing was."""
        if self._given is None:
            return b""
        line = b"PUB %b 4\r\n+ACK\r\n" % self._given.reply
        self._given = None
        return line

    def close(self) -> None:
        """Acknowledge and end the connection."""
        self._connection.send(self._acknowledgement())
        self._connection.close()
