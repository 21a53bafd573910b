"""Both ends of a topic in a broker that speaks Kafka's protocol, through confluent-kafka.

librdkafka gathers the messages of single calls into batches and keeps many under way, so that
there is nothing to do by hand: its own call for a whole batch is slower.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from mbctl.bench.systems.interface import Publishing, Reading, Settings
from mbctl.bench.systems.kafka_system import LINGER_MS
from mbctl.bench.systems.spawn import host_and_port

_GROUP_MESSAGES = 2000
_LINGER_FROM = 1000
"""Who may send fewer without an answer waits for answers, not for more messages."""
_ROOM_S = 0.001
_ANSWER_S = 60.0
_MESSAGE_BYTES_MAX = 8 << 20


def create(address: str, topic: str, subscribers: Sequence[str]) -> None:
    """Make a topic of one partition, and keep its beginning as the place of each subscriber."""
    admin = AdminClient({"bootstrap.servers": _servers(address)})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result()
    for subscriber in subscribers:
        consumer = Consumer({"bootstrap.servers": _servers(address), "group.id": subscriber})
        _, end = consumer.get_watermark_offsets(TopicPartition(topic, 0), _ANSWER_S)
        consumer.commit(offsets=[TopicPartition(topic, 0, end)], asynchronous=False)
        consumer.close()


def drop(address: str, topic: str) -> None:
    """Delete a topic."""
    admin = AdminClient({"bootstrap.servers": _servers(address)})
    admin.delete_topics([topic])[topic].result()


def _servers(address: str) -> str:
    """The address as the library wants it."""
    host, port = host_and_port(address)
    return f"{host}:{port}"


class PublishingEnd(Publishing):
    """A producer whose queue is as long as messages may be without an answer."""

    def __init__(self, address: str, topic: str, settings: Settings) -> None:
        self._topic = topic
        self._failures: list[str] = []
        window = max(1, settings.batch * settings.in_flight)
        self._producer = Producer(
            {
                "bootstrap.servers": _servers(address),
                "acks": "all",
                "linger.ms": LINGER_MS if window >= _LINGER_FROM else 0,
                "batch.num.messages": 10_000,
                "message.max.bytes": _MESSAGE_BYTES_MAX,
                "queue.buffering.max.messages": window,
                "queue.buffering.max.kbytes": 1 << 20,
            }
        )
        # The first message would wait for what is known about the topic.
        self._producer.list_topics(topic, _ANSWER_S)

    def _reported(self, error: Any, _: Any) -> None:
        if error is not None:
            self._failures.append(str(error))

    def publish(self, batches: Iterator[Sequence[bytes]]) -> int:
        """One call for each message, since the library makes batches of them by itself."""
        produce, topic, sent = self._producer.produce, self._topic, 0
        for batch in batches:
            for payload in batch[:-1]:
                try:
                    produce(topic, payload, None, 0)
                except BufferError:
                    self._insist(payload)
            # To be told of each would double what a message costs. What fails at all fails
            # together, the end of a batch too.
            self._insist(batch[-1], self._reported)
            sent += len(batch)
        self._wait()
        return sent

    def _insist(self, payload: bytes, report: Callable[[Any, Any], None] | None = None) -> None:
        """Send one when there is room for it."""
        while True:
            try:
                self._producer.produce(self._topic, payload, None, 0, report)
            except BufferError:
                self._producer.poll(_ROOM_S)
            else:
                self._producer.poll(0)
                return

    def publish_each(self, batches: Iterator[Sequence[bytes]]) -> int:
        """The same."""
        return self.publish(batches)

    def publish_one(self, payload: bytes) -> None:
        """One message, which ``flush`` sends at once."""
        self._producer.produce(self._topic, payload, None, 0, self._reported)
        self._wait()

    def _wait(self) -> None:
        """Wait until everything is acknowledged."""
        while self._producer.flush(_ANSWER_S):
            pass
        if self._failures:
            raise ConnectionError(f"the broker refused: {self._failures[0]}")

    def close(self) -> None:
        """Nothing is left to send, and a producer ends with its last reference."""
        del self._producer


_values: Callable[[Message], bytes] = Message.value
_error: Callable[[Message], Any] = Message.error


class ReadingEnd(Reading):
    """A consumer of the only partition, from where its group has got to."""

    def __init__(self, address: str, topic: str, subscriber: str, settings: Settings) -> None:
        self._count = max(_GROUP_MESSAGES, settings.batch)
        self._consumer = Consumer(
            {
                "bootstrap.servers": _servers(address),
                "group.id": subscriber,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.min.bytes": 1,
                "fetch.wait.max.ms": 10,
                "fetch.message.max.bytes": _MESSAGE_BYTES_MAX,
                "receive.message.max.bytes": 256 << 20,
                "fetch.max.bytes": 128 << 20,
                # It stops fetching when it has this much, by default for a whole second.
                "queued.min.messages": 1_000_000,
                "fetch.queue.backoff.ms": 1,
            }
        )
        self._topic = topic
        (place,) = self._consumer.committed([TopicPartition(topic, 0)], _ANSWER_S)
        self._consumer.assign([TopicPartition(topic, 0, max(0, place.offset))])
        self._next = 0

    def read(self, idle_s: float) -> Iterator[Sequence[bytes]]:
        """What the library has fetched ahead; it waits only when that is nothing."""
        consume, count = self._consumer.consume, self._count
        while True:
            self._acknowledge(asynchronous=True)
            messages = consume(count, 0)
            if not messages:
                first = self._consumer.poll(idle_s)
                if first is None:
                    return
                messages = [first, *consume(count - 1, 0)]
            if any(map(_error, messages)):
                raise ConnectionError(
                    f"the broker refused: {next(filter(None, map(_error, messages)))}"
                )
            self._next = messages[-1].offset() + 1
            yield list(map(_values, messages))

    def _acknowledge(self, *, asynchronous: bool) -> None:
        """Keep the place of what was given out."""
        if self._next:
            place = TopicPartition(self._topic, 0, self._next)
            self._consumer.commit(offsets=[place], asynchronous=asynchronous)
            self._next = 0

    def close(self) -> None:
        """Acknowledge and end the connection."""
        self._acknowledge(asynchronous=False)
        self._consumer.close()
