"""What an engine is: the verbs, each answered through a callback.

A verb takes plain values and a ``done`` that is called exactly once, maybe before the
verb returns, with the answer or with the error that refuses it. Callbacks, because one
turn of the event loop may bring thousands of sends, and a task or future for each would
cost more than the send.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

import msgspec

from mbctl.batch import Buffer
from mbctl.errors import MbctlError
from mbctl.journal.records import Backup as Backup  # what a verb answers with
from mbctl.model import (
    Limits,
    Range,
    Receipt,
    Sought,
    Start,
    Subscribed,
    SubscribeOptions,
    SubscriptionInfo,
    TopicHolds,
    TopicInfo,
    TopicSettings,
)

T = TypeVar("T")
Done = Callable[[T | MbctlError], None]


class Pulled(msgspec.Struct, frozen=True):
    """The answer to a pull: ``pieces`` are ``(first, timestamp, deliveries, batch)``."""

    topic_id: int
    skipped: int
    pieces: list[tuple[int, int, int, Buffer]]


class Created(msgspec.Struct, frozen=True):
    """The answer to ``create_topic``: not ``created`` means that it existed, the same."""

    topic_id: int
    created: bool


class EngineStatus(msgspec.Struct, frozen=True):
    """An engine's part of the server's status. Counters run since its start."""

    engine: str
    durability: str
    topics: int
    subscriptions: int
    publishers: int
    messages: int | None
    bytes: int
    max_bytes: int | None
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    messages_in_per_s: float
    messages_out_per_s: float
    syncs: int | None
    batches: int | None = None
    retry_s: float = 600.0
    note: str = ""


class Timer(Protocol):
    """A call in the future that can be called off."""

    def cancel(self) -> None:
        """Do not call."""


class Runtime(Protocol):
    """The time and the turns that an engine lives in."""

    def now_ns(self) -> int:
        """Monotonic nanoseconds."""

    def wall_ns(self) -> int:
        """Nanoseconds since 1970, UTC."""

    def call_soon(self, call: Callable[[], None], /) -> object:
        """Call once what this turn of the loop brought in has been handled."""

    def call_soon_threadsafe(self, call: Callable[[], None], /) -> object:
        """As ``call_soon``, from any thread; it wakes the loop."""

    def call_at(self, when_ns: int, call: Callable[[], None]) -> Timer:
        """Call when ``now_ns()`` has reached ``when_ns``."""


class Engine(Protocol):
    """Serves the verbs. Errors named in docs/protocol.md come through ``done``."""

    name: str
    durability: str
    limits: Limits
    """The bounds in force, which clients are told; maybe less than were asked for."""
    on_failure: Callable[[MbctlError], None]
    """Called once when the engine has failed and can serve nothing any more."""

    def is_storing(self) -> bool:
        """Whether what was accepted is being stored, and answers will come from elsewhere."""

    def register_publisher(self, session: bytes, done: Done[None]) -> None:
        """Make a publisher session known."""

    def create_topic(
        self, topic: str, settings: TopicSettings, exist_ok: bool, done: Done[Created]
    ) -> None:
        """Create a topic, or find that it exists with equal settings."""

    def delete_topic(self, topic: str, done: Done[None]) -> None:
        """Delete a topic with its messages and subscriptions."""

    def send(
        self,
        session: bytes,
        sequence: int,
        topic: str,
        batch: Buffer,
        *,
        age_ms: int,
        done: Done[Receipt],
    ) -> None:
        """Validate and store a batch; answer when it is durable. A retry is stored once."""

    def register_subscriber(self, member: bytes, name: str | None, done: Done[str]) -> None:
        """Make a reading process known; the answer is its subscriber's name."""

    def close_member(self, member: bytes) -> None:
        """Release the leases of a process whose connection is gone.

        Its waiting pulls are answered, empty.
        """

    def subscribe(
        self, member: bytes, topic: str, options: SubscribeOptions, done: Done[Subscribed]
    ) -> None:
        """Create the subscription or keep its place."""

    def unsubscribe(self, topic: str, subscriber: str, done: Done[None]) -> None:
        """Delete a subscription."""

    def pull(
        self,
        member: bytes,
        topic: str,
        *,
        max_messages: int,
        max_bytes: int,
        wait_ms: int,
        done: Done[Pulled],
    ) -> int | None:
        """Answer with messages, at the latest empty after ``wait_ms``.

        Returns a number for ``cancel_pull`` if the pull is waiting.
        """

    def cancel_pull(self, pull: int) -> None:
        """Answer a waiting pull now, empty; nothing if it has been answered."""

    def ack(
        self, member: bytes, topic: str, topic_id: int, ranges: list[Range], done: Done[int]
    ) -> None:
        """Acknowledge; answer with how many messages that concerned, when it is durable."""

    def ack_with_pull(self, member: bytes, topic: str, topic_id: int, ranges: list[Range]) -> None:
        """Acknowledge as a pull carries it: nobody waits, and what is stale is passed over."""

    def nack(
        self,
        member: bytes,
        topic: str,
        topic_id: int,
        ranges: list[Range],
        *,
        delay_ms: int,
        counted: bool,
        done: Done[int],
    ) -> None:
        """Give leased messages back."""

    def extend(
        self, member: bytes, topic: str, topic_id: int, ranges: list[Range], done: Done[int]
    ) -> None:
        """Renew leases."""

    def seek(self, topic: str, subscriber: str, start: Start, done: Done[Sought]) -> None:
        """Move a subscription; its leases end and older acknowledgements change nothing."""

    def release_parked(
        self, topic: str, subscriber: str, ranges: list[Range] | None, done: Done[int]
    ) -> None:
        """Let parked messages, of these ranges or all, be delivered again; how many."""

    def drop_parked(
        self, topic: str, subscriber: str, ranges: list[Range] | None, done: Done[int]
    ) -> None:
        """Acknowledge parked messages, of these ranges or all, for the subscription; how many."""

    def purge_topic(self, topic: str, done: Done[int]) -> None:
        """Give up all messages of a topic, read or not; how many that were."""

    def peek(
        self, topic: str, start: Start, *, max_messages: int, max_bytes: int, done: Done[Pulled]
    ) -> None:
        """Show messages without a subscription: from ``start`` on, or the first kept after it."""

    def backup(self, done: Done[Backup]) -> None:
        """All that is durable now, to be read piece by piece."""

    def topics(self, done: Done[list[TopicInfo]]) -> None:
        """All topics, by name."""

    def topic(self, topic: str, done: Done[TopicInfo]) -> None:
        """One topic."""

    def why(self, topic: str, done: Done[TopicHolds]) -> None:
        """Who keeps the messages of a topic alive."""

    def subscriptions(self, topic: str | None, done: Done[list[SubscriptionInfo]]) -> None:
        """All subscriptions, or those of one topic."""

    def subscription(self, topic: str, subscriber: str, done: Done[SubscriptionInfo]) -> None:
        """One subscription."""

    def status(self, done: Done[EngineStatus]) -> None:
        """Counters and sizes."""

    def close(self, done: Callable[[], None]) -> None:
        """Answer waiting pulls, finish and answer what was accepted, then call ``done``.

        Takes no more verbs, but for ``close_member`` and ``cancel_pull``.
        """
