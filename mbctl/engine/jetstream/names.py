"""What things are called in JetStream, and offsets as pairs of sequence and index.

A name of mbctl may have dots, which separate the parts of a subject and must not be in the
name of a stream. ``=`` stands in their place: no name of mbctl has one.
"""

from mbctl.model import Range

STREAM_PREFIX = "mbctl_"
SUBJECTS = "mbctl.t.>"
EVENTS = "mbctl.event"
BUCKET = "KV_mbctl"
BUCKET_SUBJECTS = "$KV.mbctl.>"

# A batch has at most 65,536 messages, so 16 bits tell one of them, and 47 are left.
INDEX_BITS = 16
SEQUENCE_MAX = 2 ** (63 - INDEX_BITS) - 1


def encode(name: str) -> str:
    """A name as part of a subject, or of a name in JetStream."""
    return name.replace(".", "=")


def decode(name: str) -> str:
    """The name that ``encode`` made that of."""
    return name.replace("=", ".")


def stream_of(topic: str, topic_id: int) -> str:
    """The stream of a topic: with its id, as no name of a stream can be used twice.

    nats-server answers that a stream is deleted before its files are. One made anew under the
    name may have the messages of the old one, or fail (seen in 2.15.1).
    """
    return f"{STREAM_PREFIX}{encode(topic)}~{topic_id}"


def topic_of(stream: str) -> str:
    """The topic of a stream."""
    return decode(stream.removeprefix(STREAM_PREFIX).rpartition("~")[0])


def subject_of(topic_id: int) -> str:
    """Where the batches of a topic are sent to: of its id, so that none reaches a later topic."""
    return f"mbctl.t.{topic_id}"


def consumer_of(subscriber: str, topic_id: int, mark: str = "") -> str:
    """A consumer of a subscription: with the topic's id, as its acknowledgements go by it.

    A durable one has a mark too, so that no name is used twice; what is ephemeral has none.
    """
    consumer = f"{encode(subscriber)}~{topic_id}"
    return f"{consumer}~{mark}" if mark else consumer


def subscriber_of(consumer: str) -> str:
    """The subscriber of a consumer."""
    parts = consumer.rpartition("~") if is_ephemeral(consumer) else consumer.partition("~")
    return decode(parts[0])


def mark_of(consumer: str) -> str:
    """The mark of a consumer; empty if it is ephemeral, or none of ours."""
    subscriber, *rest = consumer.split("~")
    return rest[1] if subscriber and len(rest) == 2 else ""


def is_ephemeral(subscriber: str) -> bool:
    """Whether that is the name of a subscriber that gave none."""
    return subscriber.startswith("~")


def acknowledge_of(stream: str, consumer: str, sequence: int, consumer_sequence: int) -> str:
    """Where a message is acknowledged that is not at hand.

    The sequence is what counts; that of the consumer only has to be one that it has used since
    everything before was acknowledged, such as its last.
    """
    return f"$JS.ACK.{stream}.{consumer}.1.{sequence}.{consumer_sequence}.0.0"


def name_key(topic: str) -> str:
    """The entry that tells which id a topic has now."""
    return f"$KV.mbctl.name.{encode(topic)}"


def topic_key(topic_id: int) -> str:
    """The entry that orders reclaiming a topic and subscribing to it."""
    return f"$KV.mbctl.topic.{topic_id}"


def batch_key(topic_id: int, subscriber: str, mark: str, sequence: int | str) -> str:
    """The entry of a batch that a consumer has read a part of; ``>`` for all of them."""
    # Keys allow no "~"; what is ephemeral has none, but for the names to differ.
    whose = f"{encode(subscriber).replace('~', '/')}.{mark or 0}"
    return f"$KV.mbctl.batch.{topic_id}.{whose}.{sequence}"


def confirmed_key(topic_id: int, subscriber: str) -> str:
    """The entry of which consumer a subscription has, and what it has acknowledged."""
    return f"$KV.mbctl.acked.{topic_id}.{encode(subscriber)}"


def topic_keys(topic_id: int) -> tuple[str, ...]:
    """All entries of a topic."""
    kinds = (f"batch.{topic_id}.>", f"acked.{topic_id}.>", f"topic.{topic_id}")
    return tuple(f"$KV.mbctl.{kind}" for kind in kinds)


def offset_of(sequence: int, index: int = 0) -> int:
    """The offset of a message by its batch and its index in it."""
    return (sequence << INDEX_BITS) + index


def sequence_of(offset: int) -> int:
    """The batch that an offset is in."""
    return offset >> INDEX_BITS


def index_of(offset: int) -> int:
    """The index of an offset in its batch."""
    return offset & ((1 << INDEX_BITS) - 1)


def within(ranges: list[Range], sequence: int, count: int) -> list[Range]:
    """What ranges of offsets have of a batch, as indexes."""
    first = offset_of(sequence)
    parts = ((max(low - first, 0), min(high - first, count)) for low, high in ranges)
    return [(low, high) for low, high in parts if low < high]
