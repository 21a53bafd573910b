"""Entries of the key-value bucket: what JetStream itself has no place for."""

from bisect import bisect_right
from collections.abc import Iterable

import msgspec

from mbctl.model import Range, SubscribeOptions
from mbctl.ranges import merged


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
    put_off_ns: int = 0
    """When it is to be delivered again, in nanoseconds since 1970; 0 for at once."""


class ConfirmedEntry(msgspec.Struct, frozen=True, array_like=True):
    """Which consumer a subscription has, and the batches acknowledged since it has that.

    The ranges are in order and apart. Each time it is created or moved begins a new ``epoch``,
    which is the mark of its consumer; empty if there is no subscription.
    """

    epoch: str = ""
    acknowledged: list[Range] = []
    parts: list[int] = []
    """Batches of which a part is acknowledged; which, entries of their own tell."""
    options: SubscribeOptions = SubscribeOptions()
    created: int = 0
    """When the subscription was created, in nanoseconds since 1970."""

    def has(self, sequence: int) -> bool:
        """Whether a batch is acknowledged."""
        at = bisect_right(self.acknowledged, sequence, key=lambda one: one[0])
        return at > 0 and sequence < self.acknowledged[at - 1][1]

    @property
    def highest(self) -> int:
        """The highest sequence that is acknowledged; 0 if none is."""
        return self.acknowledged[-1][1] - 1 if self.acknowledged else 0

    def with_more(self, ranges: list[Range], parts: Iterable[int] = ()) -> "ConfirmedEntry":
        """The entry when these are acknowledged too, and parts of those."""
        acknowledged = merged([*self.acknowledged, *ranges])
        whole = msgspec.structs.replace(self, acknowledged=acknowledged)
        left = sorted(part for part in {*self.parts, *parts} if not whole.has(part))
        return msgspec.structs.replace(whole, parts=left)


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
_confirmed = msgspec.msgpack.Decoder(ConfirmedEntry)
_topic = msgspec.msgpack.Decoder(TopicEntry)


def batch_entry(value: bytes) -> BatchEntry | None:
    """The entry of a batch, if there is one."""
    return _batch.decode(value) if value else None


def confirmed_entry(value: bytes) -> ConfirmedEntry:
    """What a subscription has acknowledged."""
    return _confirmed.decode(value) if value else ConfirmedEntry()


def topic_entry(value: bytes) -> TopicEntry:
    """The entry of a topic."""
    return _topic.decode(value) if value else TopicEntry()
