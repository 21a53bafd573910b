"""The messages of the protocol: what a frame may say.

Each is a msgpack array ``[tag, id, fields...]``. A request's tag is its verb; a reply
carries the id of its request. A receiver ignores fields past the ones it knows, and a
sender may leave off trailing fields that have a default, so fields are only ever added
at the end. Source: docs/protocol.md, "Messages".
"""

from collections.abc import Sequence
from typing import Annotated

import msgspec

from mbctl.batch import Buffer, ReadColumns, array_head, plain
from mbctl.errors import Detail, MbctlError
from mbctl.model import (
    LIMITS,
    MIB,
    AtTime,
    Limits,
    Range,
    ServerStatus,
    Sought,
    Subscribed,
    SubscriptionInfo,
    TopicHolds,
    TopicInfo,
    TopicSettings,
)
from mbctl.wire.frames import HEAD

VERSION = 1

# A bound on texts that holds in every configuration, far above every rule for names: what
# a refusal repeats and a session remembers stays small, whatever a peer sends.
TEXT_LENGTH_MAX = 1024
Text = Annotated[str, msgspec.Meta(max_length=TEXT_LENGTH_MAX)]

# More could never be kept for one subscription. The count is compared with this before
# any range is read, because a range takes thirty times its bytes in memory.
RANGES_MAX = LIMITS.subscription_ranges
Ranges = Annotated[list[Range], msgspec.Meta(max_length=RANGES_MAX)]

# Bytes of a backup that one reply brings; arbitrary, far from what a frame may hold.
BACKUP_PART_BYTES = 1 * MIB

# Positive and within 63 bits, which every language has.
ID_MAX = 2**63 - 1
RequestId = Annotated[int, msgspec.Meta(ge=1, le=ID_MAX)]


class Message(msgspec.Struct, array_like=True):
    """What all messages have: the id that ties a reply to its request."""

    id: RequestId


# --- requests ---------------------------------------------------------------------------


class Hello(Message, tag="hello"):
    """The first frame of a connection; its form never changes between versions."""

    version_min: int
    version_max: int
    client: Text


class RegisterPublisher(Message, tag="registerPublisher"):
    """Names the session whose numbered sends follow; the same again after a reconnect."""

    session: bytes
    name: Text | None = None


class CreateTopic(Message, tag="createTopic"):
    """Creates a topic, or finds that it exists with equal settings if ``exist_ok``."""

    topic: Text
    settings: TopicSettings = TopicSettings()
    exist_ok: bool = True


class DeleteTopic(Message, tag="deleteTopic"):
    """Deletes a topic with its messages and subscriptions."""

    topic: Text


class Send(Message, tag="send"):
    """``age_ms`` is how long ago the first attempt was; 0 on the first."""

    topic: Text
    sequence: int
    age_ms: int
    batch: msgspec.Raw


class RegisterSubscriber(Message, tag="registerSubscriber"):
    """``member`` is this process's random id; without a ``name`` it is ephemeral."""

    member: bytes
    name: Text | None = None


class Subscribe(Message, tag="subscribe"):
    """Creates the subscription of this connection's subscriber, or keeps its place."""

    topic: Text
    start: int | Text | AtTime | None = None
    ack_wait_ms: int = 30_000
    max_deliveries: int | None = None
    dead_letter: Text | None = None


class Unsubscribe(Message, tag="unsubscribe"):
    """Without a ``subscriber``: the one registered on this connection."""

    topic: Text
    subscriber: Text | None = None


class Acknowledge(msgspec.Struct, array_like=True):
    """Offsets of one topic, carried by a pull."""

    topic_id: int
    ranges: Ranges


class Pull(Message, tag="pull"):
    """Asks for messages, and waits for some at most ``wait_ms``.

    ``acknowledge`` is carried out first; it neither delays nor refuses the pull.
    """

    topic: Text
    max_messages: int
    max_bytes: int | None = None
    wait_ms: int = 0
    acknowledge: Acknowledge | None = None


class Ack(Message, tag="ack"):
    """Acknowledges messages; answered when that is durable."""

    topic: Text
    topic_id: int
    ranges: Ranges


class Nack(Message, tag="nack"):
    """``counted`` False gives back messages that nobody looked at."""

    topic: Text
    topic_id: int
    ranges: Ranges
    delay_ms: int = 0
    counted: bool = True


class Extend(Message, tag="extend"):
    """Renews the leases of messages."""

    topic: Text
    topic_id: int
    ranges: Ranges


class Seek(Message, tag="seek"):
    """Moves a subscription; without a ``subscriber``, the one registered on this connection."""

    topic: Text
    start: int | Text | AtTime
    subscriber: Text | None = None


class Release(Message, tag="release"):
    """Lets parked messages be delivered again: those of the ranges, or all."""

    topic: Text
    subscriber: Text
    ranges: Ranges | None = None


class Drop(Message, tag="drop"):
    """Gives parked messages up for one subscription: those of the ranges, or all."""

    topic: Text
    subscriber: Text
    ranges: Ranges | None = None


class PurgeTopic(Message, tag="purgeTopic"):
    """Gives up all messages of a topic, read or not."""

    topic: Text


class Peek(Message, tag="peek"):
    """Asks to see messages, from ``start`` on, without a subscription."""

    topic: Text
    start: int | Text | AtTime
    max_messages: int
    max_bytes: int | None = None


class GetBackup(Message, tag="backup"):
    """Asks for a part of a backup. 0 begins one, and without a ``position`` it ends."""

    position: int | None = 0


class Cancel(Message, tag="cancel"):
    """Ends the waiting pull of that id, which is then answered, empty."""

    pull: int


class GetTopics(Message, tag="topics"):
    """Asks about all topics."""


class GetTopic(Message, tag="topic"):
    """Asks about one topic."""

    topic: Text


class GetWhy(Message, tag="why"):
    """Asks who keeps the messages of a topic alive."""

    topic: Text


class GetSubscriptions(Message, tag="subscriptions"):
    """Asks about the subscriptions of one topic, or of all."""

    topic: Text | None = None


class GetSubscription(Message, tag="subscription"):
    """Asks about one subscription."""

    topic: Text
    subscriber: Text


class GetStatus(Message, tag="status"):
    """Asks how the server is."""


class Ping(Message, tag="ping"):
    """Asks for an answer."""


OpenRequest = (
    RegisterPublisher
    | CreateTopic
    | DeleteTopic
    | Send
    | RegisterSubscriber
    | Subscribe
    | Unsubscribe
    | Pull
    | Ack
    | Nack
    | Extend
    | Seek
    | Release
    | Drop
    | PurgeTopic
    | Peek
    | GetBackup
    | Cancel
    | GetTopics
    | GetTopic
    | GetWhy
    | GetSubscriptions
    | GetSubscription
    | GetStatus
    | Ping
)
Request = Hello | OpenRequest


# --- replies ----------------------------------------------------------------------------


class Welcome(Message, tag="welcome"):
    """The answer to ``hello``: what both will speak, and the bounds in force."""

    version: int
    server: str
    engine: str
    durability: str
    limits: Limits


class Done(Message, tag="done"):
    """The request took effect and there is nothing more to say."""


class Created(Message, tag="created"):
    """The topic, and whether it was created just now."""

    topic_id: int
    created: bool


class Sent(Message, tag="sent"):
    """Where a send was stored."""

    offset: int
    count: int


class Registered(Message, tag="registered"):
    """What the subscriber is called."""

    subscriber: str


class SubscribedReply(Message, tag="subscribed"):
    """Where the subscription stands."""

    subscribed: Subscribed


class Piece(msgspec.Struct, array_like=True):
    """Messages from ``first`` on that share a timestamp and a count of deliveries."""

    first: int
    timestamp: int
    deliveries: int
    batch: ReadColumns


class Pulled(Message, tag="pulled"):
    """``skipped`` counts messages this subscription can no longer get."""

    topic_id: int
    skipped: int
    pieces: list[Piece]


class Counted(Message, tag="counted"):
    """How many messages the request concerned."""

    count: int


class SoughtReply(Message, tag="sought"):
    """Where a subscription stands after ``seek``."""

    sought: Sought


class BackupPart(Message, tag="backupPart"):
    """Bytes of a backup of ``size`` bytes, from ``position`` on. It ends with its last part."""

    size: int
    position: int
    content: bytes


class TopicsReply(Message, tag="topicsAre"):
    """The answer to ``topics``."""

    topics: list[TopicInfo]


class TopicReply(Message, tag="topicIs"):
    """The answer to ``topic``."""

    topic: TopicInfo


class WhyReply(Message, tag="whyIs"):
    """The answer to ``why``."""

    holds: TopicHolds


class SubscriptionsReply(Message, tag="subscriptionsAre"):
    """The answer to ``subscriptions``."""

    subscriptions: list[SubscriptionInfo]


class SubscriptionReply(Message, tag="subscriptionIs"):
    """The answer to ``subscription``."""

    subscription: SubscriptionInfo


class StatusReply(Message, tag="statusIs"):
    """The answer to ``status``."""

    status: ServerStatus


class Error(Message, tag="error"):
    """The request was refused. With id 0 it concerns the connection, which then closes."""

    id: Annotated[int, msgspec.Meta(ge=0, le=ID_MAX)]
    code: str
    details: dict[str, Detail]

    @classmethod
    def of(cls, id: int, error: MbctlError) -> "Error":
        """The reply that tells ``error``."""
        return cls(id, error.code, error.details)


Reply = (
    Welcome
    | Done
    | Created
    | Sent
    | Registered
    | SubscribedReply
    | Pulled
    | Counted
    | SoughtReply
    | BackupPart
    | TopicsReply
    | TopicReply
    | WhyReply
    | SubscriptionsReply
    | SubscriptionReply
    | StatusReply
    | Error
)

_encoder = msgspec.msgpack.Encoder(enc_hook=plain)
_NOTHING = msgspec.Raw(b"")


def encode(message: Message) -> bytes:
    """``message`` as one frame."""
    content = _encoder.encode(message)
    return HEAD.pack(len(content)) + content


def encode_send(
    id: int, topic: str, sequence: int, age_ms: int, batch: bytes | bytearray | list[bytes]
) -> list[bytes | bytearray]:
    """A ``send`` as one frame in several buffers: what is before ``batch``, and that, not copied.

    A batch may be in parts.
    """
    # An empty Raw packs to nothing, so this is the message up to where the batch begins.
    head = _encoder.encode(Send(id, topic, sequence, age_ms, _NOTHING))
    if isinstance(batch, list):
        return [HEAD.pack(len(head) + sum(map(len, batch))) + head, *batch]
    return [HEAD.pack(len(head) + len(batch)) + head, batch]


class _PieceHead(msgspec.Struct, array_like=True):
    first: int
    timestamp: int
    deliveries: int
    batch: msgspec.Raw


class _PulledHead(Message, tag="pulled"):
    topic_id: int
    skipped: int
    pieces: msgspec.Raw


def encode_pulled(
    id: int,
    topic_id: int,
    skipped: int,
    pieces: Sequence[tuple[int, int, int, Buffer]],
) -> list[Buffer]:
    """A ``pulled`` as one frame in several buffers; the batches are not copied.

    ``pieces`` are ``(first, timestamp, deliveries, batch)``.
    """
    head = _encoder.encode(_PulledHead(id, topic_id, skipped, _NOTHING)) + array_head(len(pieces))
    buffers: list[Buffer] = [b"", head]
    size = len(head)
    for first, timestamp, deliveries, batch in pieces:
        piece_head = _encoder.encode(_PieceHead(first, timestamp, deliveries, _NOTHING))
        buffers.append(piece_head)
        buffers.append(batch)
        size += len(piece_head) + memoryview(batch).nbytes
    buffers[0] = HEAD.pack(size)
    return buffers
