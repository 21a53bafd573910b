"""A broker and a face: what a test of the semantics works with."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import blocking_aio
import msgspec

import mbctl
from mbctl import Admin, Batch, Publisher, Server, Subscriber
from mbctl import batch as batches
from mbctl.client.address import parse
from mbctl.client.channel import Channel
from mbctl.client.deadline import Deadline
from mbctl.model import SubscriptionInfo, TopicInfo
from mbctl.wire import messages as wire

PATIENCE_S = 10.0


class Broker:
    """``mbctl.Server`` in this process, in memory or in a directory, that may be restarted."""

    def __init__(self, data: Path | None, **options: Any) -> None:
        self.data = data
        self._options = options
        self._server = Server(memory=data is None, data=data, **options)
        self._server.start()

    @property
    def address(self) -> str:
        """Where it listens; the same after a restart."""
        return self._server.address

    def restart(self) -> None:
        """Stop it, and start another on the same directory and port."""
        assert self.data is not None
        port = parse(self.address).port
        self._server.stop()
        self._server = Server(port=port, data=self.data, **self._options)
        self._server.start()

    def stop(self) -> None:
        """End it."""
        self._server.stop()


class World:
    """A broker as one face shows it. Clients that it gives are closed with it."""

    def __init__(self, face: str, broker: Broker) -> None:
        self.face = face
        self.broker = broker
        self._kinds: Any = mbctl if face == "sync" else blocking_aio
        self._clients = ExitStack()
        self.publisher: Publisher = self.new_publisher()
        self.admin: Admin = self._clients.enter_context(self._kinds.Admin(broker.address))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all clients, as one that ends in the middle: nothing more is acknowledged."""
        self._clients.close()

    @property
    def address(self) -> str:
        """Where the broker listens."""
        return self.broker.address

    def restart(self) -> None:
        """Restart the broker, which is on disk; the clients find it again."""
        self.broker.restart()

    def new_publisher(self, name: str | None = None) -> Publisher:
        """A publisher with a session of its own."""
        publisher: Publisher = self._kinds.Publisher(self.broker.address, name)
        self._clients.callback(publisher.close)
        return publisher

    def new_subscriber(self, name: str | None = None) -> Subscriber:
        """A subscriber that is closed in the end, without acknowledging anything by that."""
        subscriber: Subscriber = self._kinds.Subscriber(self.broker.address, name)
        self._clients.callback(subscriber.close)
        return subscriber

    # --- short ways ---------------------------------------------------------------------------

    def create(self, topic: str, **settings: Any) -> str:
        """Create a topic; its name."""
        self.admin.create_topic(topic, **settings)
        return topic

    def send(self, topic: str, *payloads: str) -> None:
        """Send messages, each in a batch of its own."""
        for payload in payloads:
            self.publisher.send(topic, payload)

    def reader(self, topic: str, name: str | None = None, **options: Any) -> Subscriber:
        """A subscriber with a subscription."""
        subscriber = self.new_subscriber(name)
        subscriber.subscribe(topic, **options)
        return subscriber

    def topic(self, topic: str) -> TopicInfo:
        """The topic as it is."""
        return self.admin.topic(topic)

    def subscription(self, topic: str, name: str) -> SubscriptionInfo:
        """The subscription as it is."""
        return self.admin.subscription(topic, name)

    def kept(self, topic: str) -> list[str]:
        """What the topic keeps."""
        return texts(self.admin.peek(topic, "earliest", 10_000))

    @contextmanager
    def raw(self, session: bytes) -> Iterator["RawPublisher"]:
        """A publisher that numbers its sends as it likes."""
        publisher = RawPublisher(self.broker.address, session)
        try:
            yield publisher
        finally:
            publisher.close()


def texts(batch: Any) -> list[str]:
    """The payloads of a batch, as text."""
    return [payload.decode() for payload in batch.payloads]


def offsets(batch: Batch) -> list[int]:
    """The offsets of a batch."""
    return [message.offset for message in batch]


def drain(subscriber: Subscriber, topic: str) -> list[str]:
    """All that a subscription would be delivered now, acknowledged."""
    found: list[str] = []
    while batch := subscriber.pull(topic, wait=0, auto_ack=False):
        found += texts(batch)
        batch.ack()
    return found


class RawPublisher:
    """A connection with a publisher's session, for sends that the library would not make."""

    def __init__(self, address: str, session: bytes) -> None:
        self._channel = Channel.connect(parse(address), PATIENCE_S)
        self._id = 0
        self.ask(wire.Hello(0, wire.VERSION, wire.VERSION, "semantics"))
        self.ask(wire.RegisterPublisher(0, session))

    def ask(self, request: wire.Message) -> wire.Message:
        """The reply to ``request``."""
        self._id += 1
        request.id = self._id
        deadline = Deadline(PATIENCE_S)
        self._channel.write([wire.encode(request)], deadline)
        return self._channel.reply(self._id, deadline)

    def send(self, topic: str, sequence: int, payload: bytes, age_ms: int = 0) -> int | str:
        """The offset that a send was stored at, or the code of the error that refused it."""
        batch = msgspec.Raw(batches.encode([payload]))
        reply = self.ask(wire.Send(0, topic, sequence, age_ms, batch))
        if isinstance(reply, wire.Error):
            return reply.code
        assert isinstance(reply, wire.Sent)
        return reply.offset

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()
