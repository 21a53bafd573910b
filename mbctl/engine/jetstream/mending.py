"""Deliveries that were lost on their way: with a node, a connection, or another server.

JetStream has them as delivered, and would wait for its lease to end before it delivers them
again, after all that is newer. A single reader is promised its messages in their order, and soon.
So whenever something may be missing here it is found out what JetStream thinks is being read:

    what happened                             what may be missing
    this server begins to read, or again      all that was delivered before
    a request had no last word                all that it brought
    a delivery passes over a sequence         what is below that delivery

What of that nobody acknowledged and no server has in hand is taken from the stream itself.

Where several servers share a subscription the others are asked first, and if one of them reads
it too, it is left to the lease: then there is no order to be kept.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from mbctl import batch as batches
from mbctl.engine.jetstream import names
from mbctl.engine.jetstream.api import MESSAGE_NOT_FOUND, Json
from mbctl.engine.jetstream.entries import ConfirmedEntry
from mbctl.engine.jetstream.held import Held
from mbctl.engine.jetstream.topics import first_sequence, time_ns
from mbctl.model import MIB

if TYPE_CHECKING:
    from mbctl.engine.jetstream.reader import Reader

# How long the other servers have to say that they read it too.
_ANSWER_S = 0.3
# For so long they are not asked again.
_SHARED_S = 10.0
# So many batches are taken from the stream at once, and about so many bytes of all are kept: the
# rest is fetched when it is granted.
_AT_ONCE = 64
_BYTES_KEPT = 8 * MIB


class Mending:
    """Finds what one reader should have got."""

    def __init__(self, reader: "Reader") -> None:
        self._reader = reader
        self._is_in_doubt = reader.is_durable
        self._below: int | None = None
        """Where what may be missing ends, if it is known."""
        self._has_begun = False
        self._shared_until = 0.0
        self._lock = asyncio.Lock()

    @property
    def is_due(self) -> bool:
        """Whether something may be missing: then nothing newer is to be granted."""
        return self._is_in_doubt or self._lock.locked() or not self._reader.consumer

    def doubt(self, *, below: int | None = None) -> None:
        """Something may be missing: of what was delivered, or of that ``below`` a sequence."""
        if not self._reader.is_durable:
            return
        if below is not None and asyncio.get_running_loop().time() < self._shared_until:
            return
        if not self._is_in_doubt:
            self._is_in_doubt, self._below = True, below
        elif below is None or self._below is None:
            self._below = None
        else:
            self._below = max(self._below, below)

    async def mend(self) -> None:
        """Have in hand, on return, what was missing.

        Raises:
            Timeout: the cluster did not answer.
        """
        async with self._lock:
            is_known = not self._is_in_doubt and self._reader.consumer
            if is_known or self._reader.is_ended or self._reader.is_paused:
                return
            below, self._below = self._below, None
            self._is_in_doubt = is_mended = False
            try:
                await self._mend(below)
                is_mended = True
            finally:
                if not is_mended:
                    self.doubt(below=below)

    async def _mend(self, below: int | None) -> None:
        reader, times_moved = self._reader, self._reader.times_moved
        subscription = await reader.parts.consumers.find(reader.topic, reader.subscriber)
        if subscription is None:
            reader.fetching.is_gone = True
            return
        entry = await reader.confirmed.settle()
        if reader.times_moved != times_moved:
            # That was of a place that it has left: it is in doubt again.
            return
        if entry.epoch != subscription.mark or reader.consumer not in ("", subscription.name):
            reader.moved()
            return
        reader.consumer, found = subscription.name, subscription.consumer
        last = int(found["delivered"]["stream_seq"])
        has_begun, self._has_begun = self._has_begun, True
        if found["num_ack_pending"]:
            # What a server had that died may have been granted there.
            deliveries = 1 if has_begun else 2
            next = last + 1 if below is None else min(last + 1, below)
            await self._take_missing(found, entry, next, deliveries)
        if below is None and reader.times_moved == times_moved:
            # A node may have forgotten even that it has delivered what is acknowledged.
            reader.saw(max(last, entry.highest))

    async def _take_missing(
        self, found: Json, entry: ConfirmedEntry, next: int, deliveries: int
    ) -> None:
        reader, times_moved = self._reader, self._reader.times_moved
        _, stream = await reader.parts.registry.look(reader.topic.name)
        first = max(int(found["ack_floor"]["stream_seq"]) + 1, first_sequence(stream["state"]))
        missing = missing_of(first, next, entry, self._is_here)
        if missing and await self._is_shared():
            self._shared_until = asyncio.get_running_loop().time() + _SHARED_S
            return
        last = int(found["delivered"]["consumer_seq"])
        size = 0
        for at in range(0, len(missing), _AT_ONCE):
            if reader.times_moved != times_moved:
                return
            some = missing[at : at + _AT_ONCE]
            taken = await asyncio.gather(*(self._take(one, last, deliveries) for one in some))
            for held in filter(None, taken):
                size += held.size
                if size > _BYTES_KEPT:
                    held.body = None

    def _is_here(self, sequence: int) -> bool:
        reader = self._reader
        return (
            sequence in reader.held
            or sequence in reader.recalling.under_way
            or reader.keeping.has(sequence)
        )

    async def _is_shared(self) -> bool:
        """Whether another server reads the subscription too."""
        reader = self._reader
        return await reader.parts.question(
            "reads", reader.topic.name, reader.topic.topic_id, reader.subscriber, _ANSWER_S
        )

    async def _take(self, sequence: int, consumer_sequence: int, deliveries: int) -> Held | None:
        """Take a batch from the stream in hand, if it is still there and not here."""
        reader, topic = self._reader, self._reader.topic
        verb, times_moved = f"STREAM.MSG.GET.{topic.stream}", reader.times_moved
        got = await reader.parts.api.maybe(verb, {"seq": sequence}, MESSAGE_NOT_FOUND)
        if got is None or self._is_here(sequence) or reader.times_moved != times_moved:
            return None
        message = got["message"]
        body = msgspec.convert(message.get("data", ""), bytes, strict=False)
        reply = names.acknowledge_of(topic.stream, reader.consumer, sequence, consumer_sequence)
        # From now on it is lent to this server.
        reader.parts.link.publish(reply, b"+WPI")
        held = Held(
            sequence,
            count=batches.count_of(body),
            body=body,
            timestamp=time_ns(message["time"]),
            delivered=deliveries,
            reply=reply,
            place=reader.parts.new_place(),
            now_ns=reader.parts.runtime.now_ns(),
        )
        await reader.recalling.recall(held)
        return held


def missing_of(
    first: int, next: int, entry: ConfirmedEntry, is_here: Callable[[int], bool]
) -> list[int]:
    """The sequences ``first <= sequence < next`` that are neither acknowledged nor here."""
    missing, at = [], first
    for low, high in [*entry.acknowledged, (next, next)]:
        missing += [one for one in range(at, min(low, next)) if not is_here(one)]
        at = max(at, high)
    return missing
