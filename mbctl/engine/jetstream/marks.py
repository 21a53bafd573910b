"""Which consumer is that of a durable subscription: its entry names it by a mark.

A request that is sent again may be executed late, when who asked has long gone on. So no name of a
consumer is used twice: whatever arrives late is about one that nobody has any more.

    subscribe, seek   make a consumer at its place, under a new mark; put the mark into the entry
    unsubscribe       take the mark out of the entry; delete the consumer

The entry is changed only by who knows its last revision. A consumer whose mark is not in it is
nobody's: it is being made, or somebody died over it, or it was made late.
"""

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec

from mbctl.engine.jetstream import entries, names
from mbctl.engine.jetstream.api import CONSUMER_NOT_FOUND, ApiError, Json
from mbctl.engine.jetstream.entries import ConfirmedEntry
from mbctl.engine.jetstream.topics import Topic, time_ns
from mbctl.errors import MbctlError, OutcomeUnknown
from mbctl.model import SubscribeOptions

if TYPE_CHECKING:
    from mbctl.engine.jetstream.parts import Parts

# A consumer is somebody's so soon after being made, or never; longer than making one may take.
LEFT_NS = 120 * 1_000_000_000
MAKING_S = 60.0
# How often an entry is tried to be changed that others are changing.
_ATTEMPTS = 50
# Where an ephemeral subscription, which has no entry, has its options, and when it was made.
OPTIONS = "mbctl.options"
CREATED = "mbctl.created"

_log = logging.getLogger("mbctl.engine")


class Found(msgspec.Struct, frozen=True):
    """A consumer that is a subscription's, as JetStream tells it, and what we know of that."""

    consumer: Json
    options: SubscribeOptions
    created: int

    @property
    def name(self) -> str:
        """The name of the consumer."""
        return str(self.consumer["name"])

    @property
    def mark(self) -> str:
        """The mark of the consumer; empty if it is ephemeral."""
        return names.mark_of(self.name)

    @property
    def subscriber(self) -> str:
        """Whose subscription it is."""
        return names.subscriber_of(self.name)


class Marks:
    """The marks of all subscriptions."""

    def __init__(self, parts: "Parts") -> None:
        self._parts = parts

    # --- finding --------------------------------------------------------------------------

    async def find(self, topic: Topic, subscriber: str) -> Found | None:
        """The consumer of a subscription; None if there is none."""
        return (await self.look(topic, subscriber))[1]

    async def look(self, topic: Topic, subscriber: str) -> tuple[str, Found | None]:
        """The mark of a subscription, and its consumer if that is there."""
        if names.is_ephemeral(subscriber):
            consumer = await self._consumer(topic, subscriber, "")
            return "", None if consumer is None else _ephemeral(consumer)
        api, key = self._parts.api, names.confirmed_key(topic.topic_id, subscriber)
        missed: tuple[str, int | None] | None = None
        for _ in range(_ATTEMPTS):
            value, revision = await api.get(key, names.BUCKET)
            entry = entries.confirmed_entry(value)
            if not entry.epoch:
                return "", None
            consumer = await self._consumer(topic, subscriber, entry.epoch)
            if consumer is not None:
                return entry.epoch, Found(consumer, entry.options, entry.created)
            if missed == (entry.epoch, revision):
                return entry.epoch, None
            # It may have been moved meanwhile; and a node that does not know yet that it leads
            # no more tells what is old, but it cannot change it.
            missed = entry.epoch, await api.put(key, value, revision)
        raise OutcomeUnknown(what="the search for the subscription")

    async def _consumer(self, topic: Topic, subscriber: str, mark: str) -> Json | None:
        name = names.consumer_of(subscriber, topic.topic_id, mark)
        return await self._parts.api.consumer(topic.stream, name)

    async def all(self, topic: Topic) -> list[Found]:
        """The consumers of all subscriptions to a topic."""
        verb = f"CONSUMER.LIST.{topic.stream}"
        consumers = [one async for one in self._parts.api.pages(verb, "consumers", {})]
        found = []
        for consumer in consumers:
            one = await self.owned(topic, consumer)
            if one is not None:
                found.append(one)
            else:
                await self.clear(topic, consumer)
        return found

    async def owned(self, topic: Topic, consumer: Json) -> Found | None:
        """A consumer as that of a subscription; None if it is nobody's."""
        subscriber = names.subscriber_of(consumer["name"])
        if names.is_ephemeral(subscriber):
            return _ephemeral(consumer)
        mark = names.mark_of(consumer["name"])
        if not mark:
            return None
        key = names.confirmed_key(topic.topic_id, subscriber)
        entry = entries.confirmed_entry((await self._parts.api.get(key, names.BUCKET))[0])
        return Found(consumer, entry.options, entry.created) if entry.epoch == mark else None

    # --- changing -------------------------------------------------------------------------

    async def switch(
        self, topic: Topic, subscriber: str, old: str, new: ConfirmedEntry, *, until: float
    ) -> bool:
        """Let a subscription have the mark of ``new`` if it has ``old``; whether it has it.

        It keeps its options if ``new`` was created at no time. After ``until`` nothing is begun.

        Raises:
            OutcomeUnknown: the cluster did not answer, or somebody was too slow.
        """
        api, key = self._parts.api, names.confirmed_key(topic.topic_id, subscriber)
        while asyncio.get_running_loop().time() < until:
            value, revision = await api.get(key, names.BUCKET)
            entry = entries.confirmed_entry(value)
            if entry.epoch == old:
                value = entries.encode(_with_what_is_kept(new, entry))
                if await api.put(key, value, revision) is not None:
                    return True
                continue
            # If an attempt was not answered it may have done it.
            entry = await self._certain(key)
            if entry.epoch != old:
                return entry.epoch == new.epoch
        raise OutcomeUnknown(what="the change of the subscription")

    async def _certain(self, key: str) -> ConfirmedEntry:
        """An entry as it is: written back, so that it is no old one.

        What was asked before of who knew the revision that it had changes nothing after this.
        """
        api = self._parts.api
        for _ in range(_ATTEMPTS):
            value, revision = await api.get(key, names.BUCKET)
            entry = entries.confirmed_entry(value)
            if await api.put(key, entries.encode(entry), revision) is not None:
                return entry
        raise OutcomeUnknown(what="the change of the subscription")

    async def change_options(self, topic: Topic, found: Found, options: SubscribeOptions) -> bool:
        """Let a subscription have other options; False if it has another mark by now."""
        api, key = self._parts.api, names.confirmed_key(topic.topic_id, found.subscriber)
        for _ in range(_ATTEMPTS):
            value, revision = await api.get(key, names.BUCKET)
            entry = entries.confirmed_entry(value)
            if entry.epoch != found.mark:
                return False
            changed = msgspec.structs.replace(entry, options=options)
            if await api.put(key, entries.encode(changed), revision) is not None:
                return True
        raise OutcomeUnknown(what="the change of the subscription")

    async def forget(self, topic: Topic, subscriber: str) -> None:
        """Remove the entry of a subscription that has ended, unless it has begun again."""
        api, key = self._parts.api, names.confirmed_key(topic.topic_id, subscriber)
        value, revision = await api.get(key, names.BUCKET)
        if value and not entries.confirmed_entry(value).epoch:
            await api.remove(names.BUCKET, key, revision)

    # --- what is nobody's -----------------------------------------------------------------

    async def discard(self, topic: Topic, subscriber: str, mark: str) -> None:
        """Delete a consumer that is nobody's, with its entries; as far as that can be done now."""
        try:
            await self.delete(topic, subscriber, mark)
        except (MbctlError, ApiError) as error:
            # It is deleted when it is in the way.
            _log.warning("a consumer was left at the cluster: %s", error)

    async def delete(self, topic: Topic, subscriber: str, mark: str) -> None:
        """Delete a consumer, with its entries."""
        api, name = self._parts.api, names.consumer_of(subscriber, topic.topic_id, mark)
        await api.remove(names.BUCKET, names.batch_key(topic.topic_id, subscriber, mark, ">"))
        await api.maybe(f"CONSUMER.DELETE.{topic.stream}.{name}", None, CONSUMER_NOT_FOUND)

    async def clear(self, topic: Topic, consumer: Json) -> bool:
        """Delete a consumer that seems to be nobody's, if nobody is making it; whether it was.

        One that is none of ours is left: somebody looks on.
        """
        subscriber, mark = names.subscriber_of(consumer["name"]), names.mark_of(consumer["name"])
        age_ns = time_ns(consumer["ts"]) - time_ns(consumer["created"])
        if not mark or age_ns < LEFT_NS:
            return False
        # From now on whoever was so slow to name it cannot: the entry has another revision.
        entry = await self._certain(names.confirmed_key(topic.topic_id, subscriber))
        if entry.epoch == mark:
            return False
        await self.discard(topic, subscriber, mark)
        return True


def _ephemeral(consumer: Json) -> Found:
    metadata = consumer["config"]["metadata"]
    options = msgspec.json.decode(metadata[OPTIONS], type=SubscribeOptions)
    return Found(consumer, options, int(metadata[CREATED]))


def _with_what_is_kept(new: ConfirmedEntry, entry: ConfirmedEntry) -> ConfirmedEntry:
    if not new.epoch or new.created:
        return new
    return msgspec.structs.replace(new, options=entry.options, created=entry.created)
