"""The values that all layers share: limits, settings, and what read-only verbs answer.

Everything here is frozen and plain. Sizes are bytes, times are nanoseconds since
1970 (UTC) unless the name says otherwise, ranges are half-open: first <= offset < next.
"""

import re
from typing import Literal

import msgspec

from mbctl.errors import InvalidArgument, InvalidName

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 5555

KIB = 1024
MIB = 1024 * KIB
NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000

Offset = int
Range = tuple[int, int]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Every bound of the broker; the handshake tells clients the ones in force."""

    message_bytes: int = MIB
    key_bytes: int = KIB
    headers: int = 32
    headers_bytes: int = 8 * KIB
    batch_messages: int = 65_536
    frame_bytes: int = 8 * MIB
    pull_bytes: int = 4 * MIB
    """A pull's reply, unless one message alone is larger."""
    topics: int = 10_000
    topic_subscriptions: int = 1_000
    subscriptions: int = 100_000
    subscription_ranges: int = 10_000
    """Acknowledged ranges plus leases of one subscription."""
    sessions: int = 100_000
    session_idle_s: int = 600
    """How long after its first attempt a send may be retried."""
    ephemeral_idle_s: int = 30
    """How long an ephemeral subscription outlives its connection."""
    sends_in_flight: int = 128
    """Sends of one publisher session without an answer yet."""
    connections: int = 10_000
    connection_bytes: int = 16 * MIB
    connection_requests: int = 1_024
    connection_pulls: int = 64
    """Waiting pulls of one connection."""
    server_bytes: int = 256 * MIB
    """Requests in flight on all connections together."""
    partial_bytes: int = 64 * MIB
    """Frames begun and not complete, on all connections together."""
    first_frame_bytes: int = 4 * KIB
    first_frame_s: int = 5
    frame_s: int = 30
    """From the first byte of a frame to its last."""


LIMITS = Limits()

NAME_LENGTH_MAX = 200
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}", re.ASCII)


def check_name(name: str) -> str:
    """Return the name of a topic, subscriber or publisher, if it is one.

    Raises:
        InvalidName: it is not 1 to 200 of ``A-Za-z0-9._-``, or begins with ``.`` or ``-``.
    """
    if _NAME.fullmatch(name) is None:
        raise InvalidName(name=name[: NAME_LENGTH_MAX + 1])
    return name


WhenFull = Literal["refuse", "drop_oldest"]


class TopicSettings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What ``createTopic`` may ask for; None means no bound. Ages are seconds."""

    max_messages: int | None = None
    max_bytes: int | None = None
    max_age: float | None = None
    retain_age: float | None = None
    retain_bytes: int | None = None
    when_full: WhenFull = "refuse"


class SubscribeOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a subscription begins and redelivers. ``ack_wait`` is in seconds.

    ``start`` is None (the first subscription begins at the earliest kept message,
    later ones at new), ``"new"``, ``"earliest"`` or an offset.
    """

    start: int | Literal["new", "earliest"] | None = None
    ack_wait: float = 30.0
    max_deliveries: int | None = None
    dead_letter: str | None = None


# A subscription may be asked to wait no longer than a day for an acknowledgement:
# arbitrary, it keeps every deadline far from the end of 64 bits.
ACK_WAIT_MAX_S = 86_400.0


def check_ack_wait(seconds: float) -> float:
    """Return ``seconds`` if a lease may last that long.

    Raises:
        InvalidArgument: it is not above 0 and at most a day.
    """
    if not 0 < seconds <= ACK_WAIT_MAX_S:
        raise InvalidArgument(reason=f"ack_wait must be above 0 and at most 86400 s, not {seconds}")
    return seconds


class Receipt(msgspec.Struct, frozen=True):
    """Where a send was stored: ``count`` messages from ``offset`` on."""

    topic: str
    offset: int
    count: int


class Subscribed(msgspec.Struct, frozen=True):
    """The answer to ``subscribe``.

    ``offset`` is where the subscription stands. ``skipped`` counts the messages before
    it that a new subscription passes over, or asked for and came too late for.
    ``created`` is False if the subscription existed and kept its place.
    """

    topic: str
    subscriber: str
    topic_id: int
    offset: int
    skipped: int
    created: bool


class TopicInfo(msgspec.Struct, frozen=True):
    """One topic as it is now. ``messages`` and ``bytes`` are what is kept."""

    topic: str
    messages: int
    bytes: int
    first_offset: int
    next_offset: int
    subscriptions: int
    topic_id: int
    created: int
    settings: TopicSettings
    durability: str


class SubscriptionInfo(msgspec.Struct, frozen=True):
    """One subscription as it is now.

    ``cursor`` is the offset below which all is acknowledged; ``unread`` counts messages
    not acknowledged, of them ``leased`` are with a subscriber and ``redeliver`` have been
    and wait to be granted again. ``lost`` counts those passed over since the server's start
    because they could not be read. ``last_pull`` is None if there was none.
    """

    topic: str
    subscriber: str
    durable: bool
    cursor: int
    unread: int
    leased: int
    redeliver: int
    lost: int
    ranges: int
    waiting_pulls: int
    ack_wait: float
    created: int
    last_pull: int | None


class Hold(msgspec.Struct, frozen=True):
    """One subscription that keeps messages of its topic alive, oldest first.

    ``messages`` and ``bytes`` are what it keeps: all from its cursor on;
    ``since`` is when its cursor last moved.
    """

    subscriber: str
    cursor: int
    messages: int
    bytes: int
    since: int
    last_pull: int | None


class TopicHolds(msgspec.Struct, frozen=True):
    """Why a topic keeps what it keeps: its holders, the one furthest behind first."""

    topic: str
    messages: int
    bytes: int
    holds: list[Hold]


class ServerStatus(msgspec.Struct, frozen=True):
    """What the server says of itself. Counters run since its start.

    ``syncs`` counts how often it forced data to disk.
    """

    version: str
    engine: str
    durability: str
    address: str
    pid: int
    started: int
    uptime_s: float
    connections: int
    topics: int
    subscriptions: int
    publishers: int
    messages: int
    bytes: int
    max_bytes: int
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    messages_in_per_s: float
    messages_out_per_s: float
    syncs: int
