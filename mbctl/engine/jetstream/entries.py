"""Entries of the key-value bucket: what JetStream itself has no place for."""

import msgspec

from mbctl.model import Range


class BatchEntry(msgspec.Struct, frozen=True, array_like=True):
    """What a subscription has done with a batch that it has not read all of.

    Ranges are of indexes in the batch. ``delivered`` is how often JetStream had delivered the
    batch when this was written: the deliveries since then are not in ``counts``.
    """

    delivered: int
    acknowledged: list[Range] = []
    counts: list[tuple[int, int, int]] = []
    """``first, next, deliveries`` of what is not acknowledged, where that is not 0."""
    parked: list[Range] = []


class TopicEntry(msgspec.Struct, frozen=True, array_like=True):
    """What orders reclaiming a topic with subscribing to it.

    All up to the sequence ``floor`` is given up: it is purged or about to be. While somebody is
    ``busy`` creating or moving a subscription nothing more is given up; until a time in
    nanoseconds since 1970, as they may have died over it.
    """

    floor: int = 0
    busy: dict[str, int] = {}


encode = msgspec.msgpack.Encoder().encode
_batch = msgspec.msgpack.Decoder(BatchEntry)
_topic = msgspec.msgpack.Decoder(TopicEntry)


def batch_entry(value: bytes) -> BatchEntry | None:
    """The entry of a batch, if there is one."""
    return _batch.decode(value) if value else None


def topic_entry(value: bytes) -> TopicEntry:
    """The entry of a topic."""
    return _topic.decode(value) if value else TopicEntry()
