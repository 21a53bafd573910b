"""Subscriptions as consumers: made, moved, changed, and what JetStream tells of them."""

import secrets
from typing import TYPE_CHECKING, Any

import msgspec

from mbctl import batch as batches
from mbctl.engine.jetstream import entries, names
from mbctl.engine.jetstream.api import CONSUMER_EXISTS, CONSUMER_NOT_FOUND, ApiError, Json
from mbctl.engine.jetstream.confirmed import begin_epoch
from mbctl.engine.jetstream.entries import BatchEntry
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

_OPTIONS = "mbctl.options"
_CREATED = "mbctl.created"
_MARK = "mbctl.mark"
# What a server that died leaves of an ephemeral subscription is gone after so long.
_INACTIVE_S = 300
_PARKED_RANGES = 20


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

    # --- finding --------------------------------------------------------------------------

    async def find(self, topic: Topic, subscriber: str) -> Json | None:
        """What JetStream tells of a subscription; None if there is none."""
        consumer = names.consumer_of(subscriber, topic.topic_id)
        return await self._parts.api.consumer(topic.stream, consumer)

    async def options(self, topic: Topic, subscriber: str) -> SubscribeOptions:
        """The options of a subscription.

        Raises:
            NotSubscribed: there is none.
        """
        found = await self.find(topic, subscriber)
        if found is None:
            raise NotSubscribed(topic=topic.name, subscriber=subscriber)
        return options_of(found)

    async def place_of(self, topic: Topic, subscriber: str, found: Json, state: Json) -> int:
        """The offset below which all is acknowledged."""
        sequence = max(int(found["ack_floor"]["stream_seq"]) + 1, first_sequence(state))
        index = 0
        if sequence <= state["last_seq"]:
            key = names.batch_key(topic.topic_id, subscriber, sequence)
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
        found = await self.find(topic, subscriber)
        if found is None:
            async with self._parts.reclaiming.held_off(topic) as first:
                made = await self._create(topic, subscriber, options, first)
            if made is not None:
                return Subscribed(
                    topic.name, subscriber, topic.topic_id, made.offset, made.skipped, True
                )
            found = await self.find(topic, subscriber)
            if found is None:
                raise LimitExceeded(what="changes of a subscription at once", limit=1)
        await self._apply(topic, subscriber, options, found)
        state = (await self._parts.registry.look(topic.name))[1]["state"]
        offset = await self.place_of(topic, subscriber, found, state)
        return Subscribed(topic.name, subscriber, topic.topic_id, offset, 0, False)

    async def _create(
        self, topic: Topic, subscriber: str, options: SubscribeOptions, first: int
    ) -> Place | None:
        """Create the consumer; None if somebody else just has."""
        parts = self._parts
        stream = (await parts.registry.look(topic.name))[1]
        others = await parts.api.consumer_names(topic.stream)
        if len(others) >= parts.limits.topic_subscriptions:
            limit = parts.limits.topic_subscriptions
            raise LimitExceeded(what=f"subscriptions of topic {topic.name!r}", limit=limit)
        is_durable = not names.is_ephemeral(subscriber)
        if is_durable:
            others = [one for one in others if not names.is_ephemeral(names.subscriber_of(one))]
        start = options.start
        if start is None:
            start = "new" if others else "earliest"
        place = await self.resolve(topic, stream["state"], start, first)
        await self._mark(topic, subscriber, place)
        config = self._config(topic, subscriber, options)
        consumer = names.consumer_of(subscriber, topic.topic_id)
        request = {"stream_name": topic.stream, "config": config, "action": "create"}
        try:
            verb = f"CONSUMER.CREATE.{topic.stream}.{consumer}"
            await parts.api.certain(verb, request, CONSUMER_NOT_FOUND)
        except ApiError as error:
            if error.code in CONSUMER_EXISTS:
                return None
            raise
        # A consumer can only be moved back to where it was made to begin: that is the very
        # beginning, and from there it is moved to its place.
        if place.sequence > first_sequence(stream["state"]):
            await self._reset(topic, consumer, place.sequence)
        return place

    def _config(self, topic: Topic, subscriber: str, options: SubscribeOptions) -> Json:
        parts = self._parts
        consumer = names.consumer_of(subscriber, topic.topic_id)
        config: dict[str, Any] = {
            "name": consumer,
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "ack_wait": round(parts.options.server_lease_s * NS_PER_S),
            "max_deliver": -1,
            "max_ack_pending": parts.limits.subscription_ranges,
            "max_waiting": 512,
            "metadata": {
                **_metadata(options),
                _CREATED: str(parts.runtime.wall_ns()),
                # Two that are made at once differ, so that only one of them is.
                _MARK: secrets.token_hex(8),
            },
        }
        if names.is_ephemeral(subscriber):
            config.update(
                mem_storage=True, num_replicas=1, inactive_threshold=_INACTIVE_S * NS_PER_S
            )
        else:
            config["durable_name"] = consumer
        return config

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

    async def _mark(self, topic: Topic, subscriber: str, place: Place) -> None:
        """Note that a subscription begins in the middle of a batch, and nothing else of it."""
        api, begun = self._parts.api, None
        if not names.is_ephemeral(subscriber):
            parts = [place.sequence] if place.index else []
            begun = await begin_epoch(api, topic.topic_id, subscriber, parts)
        # No more than that, so that a late attempt takes nothing that is stored from now on.
        await api.remove(names.BUCKET, names.batch_key(topic.topic_id, subscriber, ">"), begun)
        if place.index:
            key = names.batch_key(topic.topic_id, subscriber, place.sequence)
            await api.put(key, entries.encode(BatchEntry(0, [(0, place.index)])), 0)

    async def _apply(
        self, topic: Topic, subscriber: str, options: SubscribeOptions, found: Json
    ) -> None:
        """Let a subscription have these options from now on."""
        metadata = _metadata(options)
        config = found["config"]
        if config["metadata"].get(_OPTIONS) == metadata[_OPTIONS]:
            return
        kept = {n: v for n, v in config["metadata"].items() if not n.startswith("_nats.")}
        changed = {**config, "metadata": {**kept, **metadata}}
        request = {"stream_name": topic.stream, "config": changed, "action": "update"}
        consumer = names.consumer_of(subscriber, topic.topic_id)
        await self._parts.api.call(f"CONSUMER.CREATE.{topic.stream}.{consumer}", request)
        self._parts.tell("options", topic.name, topic.topic_id, subscriber)

    # --- moving and ending ----------------------------------------------------------------

    async def seek(self, topic: Topic, subscriber: str, start: Start) -> Sought:
        """Move a subscription.

        Raises:
            SubscriptionNotFound: there is none.
            OffsetOutOfRange: ``start`` is an offset the topic has not reached.
        """
        parts = self._parts
        if await self.find(topic, subscriber) is None:
            raise SubscriptionNotFound(topic=topic.name, subscriber=subscriber)
        async with parts.reclaiming.held_off(topic) as first:
            state = (await parts.registry.look(topic.name))[1]["state"]
            place = await self.resolve(topic, state, start, first)
            await self._mark(topic, subscriber, place)
            consumer = names.consumer_of(subscriber, topic.topic_id)
            try:
                await self._reset(topic, consumer, place.sequence)
            except ApiError as error:
                if error.code == CONSUMER_NOT_FOUND:
                    raise SubscriptionNotFound(topic=topic.name, subscriber=subscriber) from error
                raise
        parts.tell("sought", topic.name, topic.topic_id, subscriber)
        skipped = place.skipped if isinstance(start, int) and start < place.offset else 0
        return Sought(topic.name, subscriber, place.offset, skipped)

    async def _reset(self, topic: Topic, consumer: str, sequence: int) -> None:
        await self._parts.api.call(
            f"CONSUMER.RESET.{topic.stream}.{consumer}", {"seq": max(1, sequence)}
        )

    async def delete(self, topic: Topic, subscriber: str) -> None:
        """Delete a subscription.

        Raises:
            SubscriptionNotFound: there is none.
        """
        if await self.find(topic, subscriber) is None:
            raise SubscriptionNotFound(topic=topic.name, subscriber=subscriber)
        consumer = names.consumer_of(subscriber, topic.topic_id)
        bucket = await self._parts.api.call(f"STREAM.INFO.{names.BUCKET}")
        verb = f"CONSUMER.DELETE.{topic.stream}.{consumer}"
        # It was there: if it is no more, an attempt without an answer has deleted it.
        await self._parts.api.maybe(verb, None, CONSUMER_NOT_FOUND)
        for key in (
            names.batch_key(topic.topic_id, subscriber, ">"),
            names.confirmed_key(topic.topic_id, subscriber),
        ):
            # Nothing of one that is made again under the name, however late this arrives.
            await self._parts.api.remove(names.BUCKET, key, int(bucket["state"]["last_seq"]))

    async def revive(
        self, topic: Topic, subscriber: str, options: SubscribeOptions, at: int
    ) -> None:
        """Make an ephemeral subscription anew, whose node has died, at the sequence ``at``."""
        consumer = names.consumer_of(subscriber, topic.topic_id)
        config = self._config(topic, subscriber, options)
        request = {"stream_name": topic.stream, "config": config, "action": "create"}
        try:
            await self._parts.api.call(f"CONSUMER.CREATE.{topic.stream}.{consumer}", request)
        except ApiError as error:
            if error.code not in CONSUMER_EXISTS:
                raise
        await self._reset(topic, consumer, at)

    # --- what is parked -------------------------------------------------------------------

    async def parked(self, topic: Topic, subscriber: str) -> list[tuple[int, BatchEntry, int]]:
        """The batches that have something parked: sequence, entry, revision."""
        api = self._parts.api
        keys = names.batch_key(topic.topic_id, subscriber, ">")
        request = {"subjects_filter": keys}
        info = await api.call(f"STREAM.INFO.{names.BUCKET}", request)
        found = []
        for key in info["state"].get("subjects") or {}:
            value, revision = await api.get(key, names.BUCKET)
            entry = entries.batch_entry(value)
            if entry is not None and entry.parked:
                found.append((int(key.rpartition(".")[2]), entry, revision))
        return sorted(found)

    # --- describing -----------------------------------------------------------------------

    async def info(
        self, topic: Topic, found: Json, state: Json, reader: "Reader | None"
    ) -> SubscriptionInfo:
        """What there is to say of a subscription."""
        subscriber = names.subscriber_of(found["name"])
        options = options_of(found)
        parked = await self.parked(topic, subscriber)
        ranges = [
            (names.offset_of(sequence, low), names.offset_of(sequence, high))
            for sequence, entry, _ in parked
            for low, high in entry.parked
        ]
        unread = int(found["num_pending"]) + int(found["num_ack_pending"])
        return SubscriptionInfo(
            topic=topic.name,
            subscriber=subscriber,
            durable=not names.is_ephemeral(subscriber),
            cursor=await self.place_of(topic, subscriber, found, state),
            unread=None if unread else 0,
            leased=0 if reader is None else reader.leased(("leased",)),
            redeliver=0 if reader is None else reader.leased(("ready", "delayed")),
            lost=0,
            ranges=0 if reader is None else sum(held.ranges for held in reader.held.values()),
            waiting_pulls=0 if reader is None else len(reader.pulls),
            ack_wait=options.ack_wait,
            created=int(found["config"]["metadata"][_CREATED]),
            last_pull=last_pull(found, reader),
            max_deliveries=options.max_deliveries,
            dead_letter=options.dead_letter,
            parked=sum(high - low for low, high in ranges),
            parked_ranges=ranges[:_PARKED_RANGES],
            dropped=None,
            expired=None,
            at_limit=int(found["num_ack_pending"]) >= self._parts.limits.subscription_ranges,
            unread_batches=unread,
        )


def options_of(found: Json) -> SubscribeOptions:
    """The options that a consumer was given."""
    text = found["config"]["metadata"][_OPTIONS]
    return msgspec.json.decode(text, type=SubscribeOptions)


def last_pull(found: Json, reader: "Reader | None") -> int | None:
    """When the subscription was pulled from last, as far as is known."""
    known = None if reader is None else reader.serving.last_pull
    active = found["delivered"].get("last_active")
    if active is None:
        return known
    return max(time_ns(active), known or 0)


def created_at(found: Json) -> int:
    """When a subscription was made."""
    return int(found["config"]["metadata"][_CREATED])


def _metadata(options: SubscribeOptions) -> dict[str, str]:
    kept = msgspec.structs.replace(options, start=None)
    return {_OPTIONS: msgspec.json.encode(kept).decode()}
