"""The verbs of an engine as a test says them: messages in, messages out."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from engine_drivers import Driver, Pending

from mbctl import batch as batches
from mbctl.engine.interface import Pulled
from mbctl.model import (
    MIB,
    Range,
    Receipt,
    Sought,
    Start,
    Subscribed,
    SubscribeOptions,
    SubscriptionInfo,
    TopicSettings,
)


class Message(NamedTuple):
    """One message as it was pulled."""

    offset: int
    payload: bytes
    key: bytes | None
    headers: dict[str, str] | None
    timestamp: int
    deliveries: int


def session_id(name: bytes) -> bytes:
    """The id of a publisher session, which has 16 bytes."""
    return name.ljust(16, b".")


class Messages(list[Message]):
    """What one pull got, and what there is to know of it."""

    def __init__(self, pulled: Pulled) -> None:
        super().__init__()
        self.topic_id = pulled.topic_id
        self.skipped = pulled.skipped
        self.sizes = [len(bytes(batch)) for _, _, _, batch in pulled.pieces]
        for first, timestamp, deliveries, batch in pulled.pieces:
            columns = batches.decode(bytes(batch))
            for index, payload in enumerate(columns.payloads):
                key = columns.keys[index] if columns.keys else None
                headers = columns.headers[index] if columns.headers else None
                self.append(Message(first + index, payload, key, headers, timestamp, deliveries))

    @property
    def payloads(self) -> list[bytes]:
        return [message.payload for message in self]

    @property
    def offsets(self) -> list[int]:
        return [message.offset for message in self]


class Client:
    """One user of an engine, who remembers ids and numbers."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.sequences: dict[bytes, int] = {}
        self.topic_ids: dict[str, int] = {}

    # --- publishing -------------------------------------------------------------------------

    def create_topic(self, topic: str, *, exist_ok: bool = False, **settings: Any) -> bool:
        created = self.driver.call("create_topic", topic, TopicSettings(**settings), exist_ok)
        self.topic_ids[topic] = created.topic_id
        return created.created

    def start_send(
        self,
        *payloads: bytes,
        topic: str = "orders",
        session: bytes = b"session",
        sequence: int | None = None,
        age_ms: int = 0,
        batch: bytes | None = None,
    ) -> Pending:
        id_ = session_id(session)
        if session not in self.sequences:
            self.driver.call("register_publisher", id_)
        sequence = sequence or self.sequences.get(session, 0) + 1
        self.sequences[session] = max(sequence, self.sequences.get(session, 0))
        body = batches.encode(payloads) if batch is None else batch
        return self.driver.start("send", id_, sequence, topic, body, age_ms=age_ms)

    def send(self, *payloads: bytes, **what: Any) -> Receipt:
        pending = self.start_send(*payloads, **what)
        self.driver.settle()
        return pending.result()

    # --- reading ----------------------------------------------------------------------------

    def register(self, member: bytes = b"a", name: str | None = "billing") -> str:
        return self.driver.call("register_subscriber", member, name)

    def subscribe(self, member: bytes = b"a", topic: str = "orders", **options: Any) -> Subscribed:
        return self.driver.call("subscribe", member, topic, SubscribeOptions(**options))

    def reader(
        self,
        member: bytes = b"a",
        name: str | None = "billing",
        topic: str = "orders",
        **options: Any,
    ) -> Subscribed:
        self.register(member, name)
        return self.subscribe(member, topic, **options)

    def start_pull(
        self,
        member: bytes = b"a",
        count: int = 10_000,
        *,
        topic: str = "orders",
        max_bytes: int = MIB,
        wait_s: float = 0,
    ) -> Pending:
        return self.driver.start(
            "pull",
            member,
            topic,
            max_messages=count,
            max_bytes=max_bytes,
            wait_ms=round(wait_s * 1000),
        )

    def pull(self, member: bytes = b"a", count: int = 10_000, **what: Any) -> Messages:
        pending = self.start_pull(member, count, **what)
        self.driver.settle()
        return Messages(pending.result())

    # --- settling ---------------------------------------------------------------------------

    def settle(
        self, verb: str, what: Any, member: bytes = b"a", topic: str = "orders", **how: Any
    ) -> int:
        ranges = ranges_of(what) if isinstance(what, Messages) else what
        topic_id = what.topic_id if isinstance(what, Messages) else self.topic_ids[topic]
        return self.driver.call(verb, member, topic, topic_id, ranges, **how)

    def ack(self, what: Any, member: bytes = b"a", **where: Any) -> int:
        return self.settle("ack", what, member, **where)

    def extend(self, what: Any, member: bytes = b"a", **where: Any) -> int:
        return self.settle("extend", what, member, **where)

    def nack(
        self,
        what: Any,
        member: bytes = b"a",
        *,
        delay_s: float = 0,
        counted: bool = True,
        **where: Any,
    ) -> int:
        return self.settle(
            "nack", what, member, delay_ms=round(delay_s * 1000), counted=counted, **where
        )

    # --- subscriptions by name ----------------------------------------------------------------

    def seek(self, start: Start, subscriber: str = "billing", topic: str = "orders") -> Sought:
        return self.driver.call("seek", topic, subscriber, start)

    def release_parked(self, ranges: list[Range] | None = None, topic: str = "orders") -> int:
        return self.driver.call("release_parked", topic, "billing", ranges)

    def drop_parked(self, ranges: list[Range] | None = None, topic: str = "orders") -> int:
        return self.driver.call("drop_parked", topic, "billing", ranges)

    def purge(self, topic: str = "orders") -> int:
        return self.driver.call("purge_topic", topic)

    # --- looking ----------------------------------------------------------------------------

    def peek(
        self, start: Start, count: int = 10_000, *, topic: str = "orders", max_bytes: int = MIB
    ) -> Messages:
        self.driver.settle()
        bounds = {"max_messages": count, "max_bytes": max_bytes}
        return Messages(self.driver.call("peek", topic, start, **bounds))

    def info(self, subscriber: str = "billing", topic: str = "orders") -> SubscriptionInfo:
        self.driver.settle()
        return self.driver.call("subscription", topic, subscriber)

    def kept(self, topic: str = "orders") -> int:
        """How many messages the topic keeps; if that is not told, so many can be looked at."""
        self.driver.settle()
        info = self.driver.call("topic", topic)
        if "counts" in self.driver.capabilities:
            return info.messages
        assert info.messages == (None if info.batches else 0)
        return len(self.peek("earliest", topic=topic)) if info.batches else 0

    def check_unread(self, count: int, subscriber: str = "billing") -> None:
        """Assert that so many messages are unread, as far as they are counted."""
        info = self.info(subscriber)
        if "counts" in self.driver.capabilities:
            assert info.unread == count
        else:
            assert info.unread == (0 if count == 0 else None)
            assert min(count, 1) <= info.unread_batches <= count

    def status(self) -> Any:
        self.driver.settle()
        return self.driver.call("status")


class Restarting(Client):
    """A client of an engine that restarts when the test says so."""

    crash = False

    def restart(self) -> None:
        self.driver.settle()
        self.driver.restart(crash=self.crash)

    def comes_back(self, member: bytes = b"a", name: str | None = "billing") -> None:
        """Register again, as a client does that has lost its connection."""
        self.register(member, name)


def needs(client: Client, *capabilities: str) -> None:
    """Skip the rest of a test on an engine that does not promise these.

    What such an engine does instead is tested in ``test_engine_capabilities``.
    """
    missing = set(capabilities) - client.driver.capabilities
    if missing:
        pytest.skip(f"this engine does not promise {', '.join(sorted(missing))}")


Make = Callable[..., Restarting]


def ranges_of(messages: Messages) -> list[Range]:
    """The offsets of messages as ranges."""
    ranges: list[Range] = []
    for offset in messages.offsets:
        if ranges and ranges[-1][1] == offset:
            ranges[-1] = (ranges[-1][0], offset + 1)
        else:
            ranges.append((offset, offset + 1))
    return ranges


def part(messages: Messages, *indexes: int) -> Messages:
    """Some messages of a pull."""
    some = Messages(Pulled(messages.topic_id, 0, []))
    some += [messages[index] for index in indexes]
    return some
