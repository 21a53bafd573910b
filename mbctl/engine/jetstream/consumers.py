"""Subscriptions as consumers: made, moved, changed, and what JetStream tells of them."""

import asyncio
import secrets
from typing import TYPE_CHECKING, Any

import msgspec

from mbctl import batch as batches
from mbctl.engine.jetstream import entries, names
from mbctl.engine.jetstream.api import CONSUMER_EXISTS, CONSUMER_NOT_FOUND, ApiError, Json
from mbctl.engine.jetstream.entries import BatchEntry, ConfirmedEntry
from mbctl.engine.jetstream.marks import CREATED, MAKING_S, OPTIONS, Found, Marks
from mbctl.engine.jetstream.reclaiming import sequence_at
from mbctl.engine.jetstream.topics import Topic, first_sequence, time_ns
from mbctl.errors import LimitExceeded, NotSubscribed, OffsetOutOfRange, SubscriptionNotFound
from mbctl.model import (
    NS_PER_S,
    AtTime,
    Sought,
    Start,
    Subscribed,
    SubscribeOptions,
    SubscriptionInfo,
)

if TYPE_CHECKING:
    from mbctl.engine.jetstream.parts import Parts
    from mbctl.engine.jetstream.reader import Reader

_MARK = "mbctl.mark"
# What a server that died leaves of an ephemeral subscription is gone after so long.
_INACTIVE_S = 300
_PARKED_RANGES = 20
# How often a subscription is looked at again that others are changing.
_ATTEMPTS = 10


class Place(msgspec.Struct, frozen=True):
    """A place in a topic, and how many batches and messages are passed over to get there."""

    sequence: int
    index: int
    skipped: int

    @property
    def offset(self) -> int:
        """The place as an offset."""
        return names.offset_of(self.sequence, self.index)


class Consumers:
    """Makes, moves and looks at the consumers of all topics."""

    def __init__(self, parts: "Parts") -> None:
        self._parts = parts
        self.marks = Marks(parts)

    # --- finding --------------------------------------------------------------------------

    async def find(self, topic: Topic, subscriber: str) -> Found | None:
        """The consumer and the options of a subscription; None if there is none."""
        return await self.marks.find(topic, subscriber)

    async def options(self, topic: Topic, subscriber: str) -> SubscribeOptions:
        """The options of a subscription.

        Raises:
            NotSubscribed: there is none.
        """
        found = await self.find(topic, subscriber)
        if found is None:
            raise NotSubscribed(topic=topic.name, subscriber=subscriber)
        return found.options

    async def place_of(self, topic: Topic, found: Found, state: Json) -> int:
        """The offset below which all is acknowledged."""
        sequence = max(int(found.consumer["ack_floor"]["stream_seq"]) + 1, first_sequence(state))
        index = 0
        if sequence <= state["last_seq"]:
            key = names.batch_key(topic.topic_id, found.subscriber, found.mark, sequence)
            entry = entries.batch_entry((await self._parts.api.get(key, names.BUCKET))[0])
            if entry is not None and entry.acknowledged and entry.acknowledged[0][0] == 0:
                index = entry.acknowledged[0][1]
        return names.offset_of(sequence, index)

    # --- beginning ------------------------------------------------------------------------

    async def subscribe(
        self, topic: Topic, subscriber: str, options: SubscribeOptions
    ) -> Subscribed:
        """Create a subscription, or keep its place and apply the options given.

        Raises:
            OffsetOutOfRange: ``options.start`` is an offset the topic has not reached.
            LimitExceeded: the topic has all the subscriptions it may.
        """
        for _ in range(_ATTEMPTS):
            mark, found = await self.marks.look(topic, subscriber)
            if found is None:
                async with self._parts.reclaiming.held_off(topic) as first:
                    made = await self._create(topic, subscriber, options, first, mark)
                if made is not None:
                    return Subscribed(
                        topic.name, subscriber, topic.topic_id, made.offset, made.skipped, True
                    )
            elif await self._apply(topic, found, options):
                state = (await self._parts.registry.look(topic.name))[1]["state"]
                offset = await self.place_of(topic, found, state)
                return Subscribed(topic.name, subscriber, topic.topic_id, offset, 0, False)
        raise LimitExceeded(what="changes of a subscription at once", limit=1)

    async def _create(
        self, topic: Topic, subscriber: str, options: SubscribeOptions, first: int, old: str
    ) -> Place | None:
        """Create a subscription that had the mark ``old``; None if somebody else just has."""
        parts = self._parts
        others = await self._others(topic, subscriber)
        start = options.start
        if start is None:
            start = "new" if await self._has_one(topic, subscriber, others) else "earliest"
        state = (await parts.registry.look(topic.name))[1]["state"]
        place = await self.resolve(topic, state, start, first)
        options = msgspec.structs.replace(options, start=None)
        if names.is_ephemeral(subscriber):
            config = self._ephemeral_config(topic, subscriber, options)
            return place if await self._make(topic, config, place, state) else None
        begun = ConfirmedEntry("", options=options, created=parts.runtime.wall_ns())
        is_begun = await self._begin(topic, subscriber, old, begun, at=place, state=state)
        return place if is_begun else None

    async def _others(self, topic: Topic, subscriber: str) -> set[str]:
        """Who else has a consumer of a topic.

        Raises:
            LimitExceeded: the topic has all the subscriptions it may.
        """
        limit = self._parts.limits.topic_subscriptions
        consumers = await self._parts.api.consumer_names(topic.stream)
        others = {names.subscriber_of(one) for one in consumers} - {subscriber}
        if len(others) >= limit:
            others = {one.subscriber for one in await self.marks.all(topic)} - {subscriber}
        if len(others) >= limit:
            raise LimitExceeded(what=f"subscriptions of topic {topic.name!r}", limit=limit)
        return others

    async def _has_one(self, topic: Topic, subscriber: str, others: set[str]) -> bool:
        """Whether others have a subscription, of durable ones if this is one.

        There may be consumers that are nobody's.
        """
        for one in others:
            if names.is_ephemeral(one):
                if names.is_ephemeral(subscriber):
                    return True
            elif await self.find(topic, one) is not None:
                return True
        return False

    async def _begin(
        self,
        topic: Topic,
        subscriber: str,
        old: str,
        begun: ConfirmedEntry,
        *,
        at: Place,
        state: Json,
    ) -> bool:
        """Let a durable subscription begin at a place, if its mark is ``old``; whether it does."""
        until = asyncio.get_running_loop().time() + MAKING_S
        mark = secrets.token_hex(8)
        await self._make(topic, self._config(topic, subscriber, mark), at, state)
        begun = msgspec.structs.replace(begun, epoch=mark, parts=[at.sequence] if at.index else [])
        has_begun = await self.marks.switch(topic, subscriber, old, begun, until=until)
        if not has_begun:
            await self.marks.discard(topic, subscriber, mark)
        return has_begun

    async def _make(self, topic: Topic, config: Json, place: Place, state: Json) -> bool:
        """Make a consumer, which is at that place on return; False if it was there."""
        api, consumer = self._parts.api, config["name"]
        await self._note_index(topic, consumer, place)
        request = {"stream_name": topic.stream, "config": config, "action": "create"}
        try:
            verb = f"CONSUMER.CREATE.{topic.stream}.{consumer}"
            await api.certain(verb, request, CONSUMER_NOT_FOUND)
        except ApiError as error:
            if error.code in CONSUMER_EXISTS:
                return False
            raise
        # A consumer can only be moved back to where it was made to begin: that is the very
        # beginning, and from there it is moved to its place.
        if place.sequence > first_sequence(state):
            await self._reset(topic, consumer, place.sequence)
        return True

    async def _note_index(self, topic: Topic, consumer: str, place: Place) -> None:
        """Note that a subscription begins in the middle of a batch."""
        if place.index:
            subscriber, mark = names.subscriber_of(consumer), names.mark_of(consumer)
            key = names.batch_key(topic.topic_id, subscriber, mark, place.sequence)
            await self._parts.api.put(key, entries.encode(BatchEntry(0, [(0, place.index)])), 0)

    def _config(self, topic: Topic, subscriber: str, mark: str) -> Json:
        parts = self._parts
        consumer = names.consumer_of(subscriber, topic.topic_id, mark)
        config: dict[str, Any] = {
            "name": consumer,
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "ack_wait": round(parts.options.server_lease_s * NS_PER_S),
            "max_deliver": -1,
            "max_ack_pending": parts.limits.subscription_ranges,
            "max_waiting": 512,
        }
        return {**config, "durable_name": consumer} if mark else config

    def _ephemeral_config(self, topic: Topic, subscriber: str, options: SubscribeOptions) -> Json:
        return {
            **self._config(topic, subscriber, ""),
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": _INACTIVE_S * NS_PER_S,
            "metadata": {
                OPTIONS: _text_of(options),
                CREATED: str(self._parts.runtime.wall_ns()),
                # Two that are made at once differ, so that only one of them is.
                _MARK: secrets.token_hex(8),
            },
        }

    async def resolve(self, topic: Topic, state: Json, start: Start, first: int = 0) -> Place:
        """Where ``start`` is, not below the sequence ``first``."""
        kept, new = max(first_sequence(state), first), int(state["last_seq"]) + 1
        if start == "new":
            return Place(new, 0, new - kept)
        if start == "earliest":
            return Place(kept, 0, 0)
        if isinstance(start, AtTime):
            at = await sequence_at(self._parts, topic, start.ns)
            sequence = new if at is None else max(at, kept)
            return Place(sequence, 0, sequence - kept)
        assert isinstance(start, int)
        return await self._resolve_offset(topic, start, kept, new)

    async def _resolve_offset(self, topic: Topic, offset: int, kept: int, new: int) -> Place:
        sequence, index = names.sequence_of(offset), names.index_of(offset)
        out_of_range = OffsetOutOfRange(
            topic=topic.name, offset=offset, next_offset=names.offset_of(new)
        )
        if offset < 0 or sequence > new or (sequence == new and index):
            raise out_of_range
        if sequence < kept:
            return Place(kept, 0, kept - max(sequence, 1))
        if index:
            body = await self._parts.batch_at(topic, sequence)
            count = 0 if body is None else batches.count_of(body)
            if index > count and body is not None:
                raise out_of_range
            if index >= count:
                sequence, index = sequence + 1, 0
        return Place(sequence, index, sequence - kept + index)

    async def _apply(self, topic: Topic, found: Found, options: SubscribeOptions) -> bool:
        """Let a subscription have these options from now on; False if it has been moved."""
        options = msgspec.structs.replace(options, start=None)
        if found.options == options:
            return True
        if found.mark:
            if not await self.marks.change_options(topic, found, options):
                return False
        else:
            config = found.consumer["config"]
            kept = {n: v for n, v in config["metadata"].items() if not n.startswith("_nats.")}
            changed = {**config, "metadata": {**kept, OPTIONS: _text_of(options)}}
            request = {"stream_name": topic.stream, "config": changed, "action": "update"}
            await self._parts.api.call(f"CONSUMER.CREATE.{topic.stream}.{found.name}", request)
        self._parts.tell("options", topic.name, topic.topic_id, found.subscriber)
        return True

    # --- moving and ending ----------------------------------------------------------------

    async def seek(self, topic: Topic, subscriber: str, start: Start) -> Sought:
        """Move a subscription.

        Raises:
            SubscriptionNotFound: there is none.
            OffsetOutOfRange: ``start`` is an offset the topic has not reached.
        """
        parts = self._parts
        for _ in range(_ATTEMPTS):
            found = await self.find(topic, subscriber)
            if found is None:
                raise SubscriptionNotFound(topic=topic.name, subscriber=subscriber)
            async with parts.reclaiming.held_off(topic) as first:
                state = (await parts.registry.look(topic.name))[1]["state"]
                place = await self.resolve(topic, state, start, first)
                is_moved = await self._move(topic, found, place, state)
            if is_moved:
                parts.tell("sought", topic.name, topic.topic_id, subscriber)
                if found.mark:
                    await self.marks.discard(topic, subscriber, found.mark)
                skipped = place.skipped if isinstance(start, int) and start < place.offset else 0
                return Sought(topic.name, subscriber, place.offset, skipped)
        raise LimitExceeded(what="changes of a subscription at once", limit=1)

    async def _move(self, topic: Topic, found: Found, place: Place, state: Json) -> bool:
        """Let a subscription be at another place; False if it has changed meanwhile."""
        if found.mark:
            of, kept = found.subscriber, ConfirmedEntry()
            return await self._begin(topic, of, found.mark, kept, at=place, state=state)
        keys = names.batch_key(topic.topic_id, found.subscriber, "", ">")
        await self._parts.api.remove(names.BUCKET, keys)
        await self._note_index(topic, found.name, place)
        try:
            await self._reset(topic, found.name, place.sequence)
        except ApiError as error:
            if error.code == CONSUMER_NOT_FOUND:
                return False
            raise
        return True

    async def _reset(self, topic: Topic, consumer: str, sequence: int) -> None:
        await self._parts.api.call(
            f"CONSUMER.RESET.{topic.stream}.{consumer}", {"seq": max(1, sequence)}
        )

    async def delete(self, topic: Topic, subscriber: str) -> None:
        """Delete a subscription.

        Raises:
            SubscriptionNotFound: there is none.
        """
        first = found = await self.find(topic, subscriber)
        if first is None:
            raise SubscriptionNotFound(topic=topic.name, subscriber=subscriber)
        # One that was made at another time is none that was to be deleted.
        while found is not None and found.created == first.created:
            if not found.mark:
                await self.marks.delete(topic, subscriber, "")
                return
            until = asyncio.get_running_loop().time() + MAKING_S
            none = ConfirmedEntry()
            is_over = await self.marks.switch(topic, subscriber, found.mark, none, until=until)
            await self.marks.discard(topic, subscriber, found.mark)
            found = None if is_over else await self.find(topic, subscriber)
        await self.marks.forget(topic, subscriber)

    async def revive(
        self, topic: Topic, subscriber: str, options: SubscribeOptions, at: int
    ) -> None:
        """Make an ephemeral subscription anew, whose node has died, at the sequence ``at``."""
        config = self._ephemeral_config(topic, subscriber, options)
        consumer = config["name"]
        request = {"stream_name": topic.stream, "config": config, "action": "create"}
        try:
            await self._parts.api.call(f"CONSUMER.CREATE.{topic.stream}.{consumer}", request)
        except ApiError as error:
            if error.code not in CONSUMER_EXISTS:
                raise
        await self._reset(topic, consumer, at)

    # --- what is parked -------------------------------------------------------------------

    async def parked(self, topic: Topic, of: Found) -> list[tuple[int, BatchEntry, int]]:
        """The batches that have something parked: sequence, entry, revision."""
        api = self._parts.api
        keys = names.batch_key(topic.topic_id, of.subscriber, of.mark, ">")
        info = await api.call(f"STREAM.INFO.{names.BUCKET}", {"subjects_filter": keys})
        found = []
        # One that is acknowledged may have been stored again, late.
        floor = int(of.consumer["ack_floor"]["stream_seq"])
        for key in info["state"].get("subjects") or {}:
            sequence = int(key.rpartition(".")[2])
            if sequence <= floor:
                continue
            value, revision = await api.get(key, names.BUCKET)
            entry = entries.batch_entry(value)
            if entry is not None and entry.parked:
                found.append((sequence, entry, revision))
        return sorted(found)

    # --- describing -----------------------------------------------------------------------

    async def info(
        self, topic: Topic, found: Found, state: Json, reader: "Reader | None"
    ) -> SubscriptionInfo:
        """What there is to say of a subscription."""
        consumer, options = found.consumer, found.options
        parked = await self.parked(topic, found)
        ranges = [
            (names.offset_of(sequence, low), names.offset_of(sequence, high))
            for sequence, entry, _ in parked
            for low, high in entry.parked
        ]
        unread = int(consumer["num_pending"]) + int(consumer["num_ack_pending"])
        return SubscriptionInfo(
            topic=topic.name,
            subscriber=found.subscriber,
            durable=not names.is_ephemeral(found.subscriber),
            cursor=await self.place_of(topic, found, state),
            unread=None if unread else 0,
            leased=0 if reader is None else reader.leased(("leased",)),
            redeliver=0 if reader is None else reader.leased(("ready", "delayed")),
            lost=0,
            ranges=0 if reader is None else sum(held.ranges for held in reader.held.values()),
            waiting_pulls=0 if reader is None else len(reader.pulls),
            ack_wait=options.ack_wait,
            created=found.created,
            last_pull=last_pull(consumer, reader),
            max_deliveries=options.max_deliveries,
            dead_letter=options.dead_letter,
            parked=sum(high - low for low, high in ranges),
            parked_ranges=ranges[:_PARKED_RANGES],
            dropped=None,
            expired=None,
            at_limit=int(consumer["num_ack_pending"]) >= self._parts.limits.subscription_ranges,
            unread_batches=unread,
        )


def last_pull(consumer: Json, reader: "Reader | None") -> int | None:
    """When the subscription was pulled from last, as far as is known."""
    known = None if reader is None else reader.serving.last_pull
    active = consumer["delivered"].get("last_active")
    if active is None:
        return known
    return max(time_ns(active), known or 0)


def _text_of(options: SubscribeOptions) -> str:
    return msgspec.json.encode(options).decode()
