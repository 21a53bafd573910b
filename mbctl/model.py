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
        InvalidArgument: it is no text.
    """
    if not isinstance(name, str):
        raise InvalidArgument(reason=f"a name is str, not {type(name).__name__}")
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


# A bound on ages, in seconds, that keeps every deadline far from the end of 64 bits: 100 years.
AGE_MAX_S = 3_155_760_000.0


def check_settings(settings: TopicSettings) -> TopicSettings:
    """Return ``settings`` if they can be kept.

    Raises:
        InvalidArgument: a bound or an age makes no sense.
    """
    for name in ("max_messages", "max_bytes", "retain_bytes"):
        bound = getattr(settings, name)
        if bound is not None and not 1 <= bound < 2**63:
            raise InvalidArgument(reason=f"{name} must be 1 to {2**63 - 1}, not {bound}")
    for name in ("max_age", "retain_age"):
        age = getattr(settings, name)
        if age is not None and not 0 < age <= AGE_MAX_S:
            raise InvalidArgument(
                reason=f"{name} must be above 0 s and at most 100 years, not {age} s"
            )
    is_bounded = settings.max_messages is not None or settings.max_bytes is not None
    if settings.when_full != "refuse" and not is_bounded:
        raise InvalidArgument(reason="when_full needs max_messages or max_bytes to be given")
    return settings


class AtTime(msgspec.Struct, frozen=True, array_like=True):
    """The place in a topic where the messages of that time, or the first later ones, stand."""

    ns: int
    """Nanoseconds since 1970, UTC."""


Start = int | Literal["new", "earliest"] | AtTime
"""A place in a topic: an offset, its end, the earliest kept message, or a time."""


class SubscribeOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a subscription begins and redelivers. ``ack_wait`` is in seconds.

    ``start`` None lets the first subscription begin at the earliest kept message and later
    ones at new. After ``max_deliveries`` a message moves to the topic ``dead_letter``, or is
    parked if there is none; None for no maximum.
    """

    start: Start | None = None
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


# A count of deliveries is kept in four bytes.
DELIVERIES_MAX = 2**32 - 1


def check_options(options: SubscribeOptions) -> SubscribeOptions:
    """Return ``options`` if they make sense, whatever the topic.

    Raises:
        InvalidArgument: ``ack_wait`` or ``max_deliveries`` is out of bounds, or a dead-letter
            topic is given without a maximum of deliveries.
        InvalidName: the dead-letter topic's name breaks the rules.
    """
    check_ack_wait(options.ack_wait)
    most = options.max_deliveries
    if most is not None and not 1 <= most <= DELIVERIES_MAX:
        raise InvalidArgument(reason=f"max_deliveries must be 1 to {DELIVERIES_MAX}, not {most}")
    if options.dead_letter is not None:
        check_name(options.dead_letter)
        if most is None:
            raise InvalidArgument(reason="dead_letter needs max_deliveries to be given")
    return options


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


class Sought(msgspec.Struct, frozen=True):
    """The answer to ``seek``: the subscription stands at ``offset`` now.

    ``skipped`` counts messages that were asked for and are no longer kept.
    """

    topic: str
    subscriber: str
    offset: int
    skipped: int


class TopicInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """One topic as it is now. ``messages`` and ``bytes`` are what is kept.

    An engine that counts batches only has None for ``messages`` and tells ``batches``.
    ``note`` says what an acknowledgement means where that is not said by ``durability``.
    """

    topic: str
    messages: int | None
    bytes: int
    first_offset: int
    next_offset: int
    subscriptions: int
    topic_id: int
    created: int
    settings: TopicSettings
    durability: str
    batches: int | None = None
    note: str = ""


class SubscriptionInfo(msgspec.Struct, frozen=True):
    """One subscription as it is now.

    ``cursor`` is the offset below which all is acknowledged; ``unread`` counts messages
    not acknowledged, of them ``leased`` are with a subscriber and ``redeliver`` have been
    and wait to be granted again, and ``parked`` were delivered as often as they may be and
    wait for a decision; ``parked_ranges`` are the first of them. ``dropped`` and ``expired``
    count messages it had not acknowledged that fell to the topic's bounds and ``max_age``;
    ``lost`` those passed over since the server's start because they could not be read.
    ``at_limit`` tells that it has all the ranges it may: only redeliveries are granted until
    some are acknowledged. ``last_pull`` is None if there was none.

    An engine that counts batches only has None for ``unread``, ``dropped`` and ``expired``, and
    tells ``unread_batches``; ``leased`` and what follows is then what is with this one server.
    """

    topic: str
    subscriber: str
    durable: bool
    cursor: int
    unread: int | None
    leased: int
    redeliver: int
    lost: int
    ranges: int
    waiting_pulls: int
    ack_wait: float
    created: int
    last_pull: int | None
    max_deliveries: int | None = None
    dead_letter: str | None = None
    parked: int = 0
    parked_ranges: list[Range] = []
    dropped: int | None = 0
    expired: int | None = 0
    at_limit: bool = False
    unread_batches: int | None = None


class Hold(msgspec.Struct, frozen=True, omit_defaults=True):
    """One subscription that keeps messages of its topic alive, oldest first.

    ``messages`` and ``bytes`` are what it keeps: all from its cursor on;
    ``since`` is when its cursor last moved. An engine that counts batches only has None
    for ``messages`` and ``bytes`` and tells ``batches``.
    """

    subscriber: str
    cursor: int
    messages: int | None
    bytes: int | None
    since: int
    last_pull: int | None
    batches: int | None = None


class TopicHolds(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a topic keeps what it keeps: its holders, the one furthest behind first."""

    topic: str
    messages: int | None
    bytes: int
    holds: list[Hold]
    batches: int | None = None


class ServerStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the server says of itself. Counters run since its start.

    ``syncs`` counts how often it forced data to disk. For ``retry_s`` after its first attempt a
    send may be retried. An engine that counts batches only has None for ``messages`` and tells
    ``batches``; ``note`` says what an acknowledgement means where ``durability`` does not.
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
