"""The verbs that only look: topics, subscriptions, messages, the engine."""

import asyncio

import msgspec

from mbctl import batch as batches
from mbctl.core.grant import PIECE_BYTES, Piece
from mbctl.engine.interface import Backup, Done, EngineStatus, Pulled
from mbctl.engine.jetstream import names
from mbctl.engine.jetstream.api import Json
from mbctl.engine.jetstream.consumers import last_pull
from mbctl.engine.jetstream.link import Reply
from mbctl.engine.jetstream.marks import Found
from mbctl.engine.jetstream.subscribing import Subscribing
from mbctl.engine.jetstream.topics import Topic, time_ns
from mbctl.errors import InvalidArgument, NotSupported, SubscriptionNotFound, Timeout
from mbctl.model import Hold, Start, SubscriptionInfo, TopicHolds, TopicInfo

_ATTEMPT_S = 2.0
_ATTEMPTS = 20
_PAUSE_S = 0.1
_LOOKED_AT_MAX = 2_000


class Looking(Subscribing):
    """Tells what there is, and changes nothing."""

    name = "jetstream"

    def _topic_info(self, topic: Topic, stream: Json) -> TopicInfo:
        """One topic as it is now."""
        return self.registry.info(topic, stream, durability=self.durability, note=self.note)

    def topics(self, done: Done[list[TopicInfo]]) -> None:
        """All topics, by name."""

        async def verb() -> list[TopicInfo]:
            return [self._topic_info(topic, stream) for topic, stream in await self.registry.all()]

        self.answer(done, verb)

    def topic(self, topic: str, done: Done[TopicInfo]) -> None:
        """One topic."""

        async def verb() -> TopicInfo:
            return self._topic_info(*await self.registry.look(topic))

        self.answer(done, verb)

    def why(self, topic: str, done: Done[TopicHolds]) -> None:
        """Who keeps the messages of a topic alive."""

        async def verb() -> TopicHolds:
            found, stream = await self.registry.look(topic)
            state = stream["state"]
            holds = [
                await self._hold(found, one, state)
                for one in await self.consumers.marks.all(found)
                if not names.is_ephemeral(one.subscriber)
            ]
            behind = sorted((hold for hold in holds if hold.batches), key=lambda hold: hold.cursor)
            kept = state["messages"]
            return TopicHolds(topic, None if kept else 0, state["bytes"], behind, kept)

        self.answer(done, verb)

    async def _hold(self, topic: Topic, found: Found, state: Json) -> Hold:
        consumer = found.consumer
        moved = consumer["ack_floor"].get("last_active")
        return Hold(
            subscriber=found.subscriber,
            cursor=await self.consumers.place_of(topic, found, state),
            messages=None,
            bytes=None,
            since=found.created if moved is None else time_ns(moved),
            last_pull=last_pull(consumer, self.readers.get((topic.name, found.subscriber))),
            batches=int(consumer["num_pending"]) + int(consumer["num_ack_pending"]),
        )

    def subscriptions(self, topic: str | None, done: Done[list[SubscriptionInfo]]) -> None:
        """All subscriptions, or those of one topic."""

        async def verb() -> list[SubscriptionInfo]:
            found = (
                await self.registry.all() if topic is None else [await self.registry.look(topic)]
            )
            infos: list[SubscriptionInfo] = []
            for one, stream in found:
                if stream["state"]["consumer_count"]:
                    infos += await self._subscriptions_of(one, stream["state"])
            return infos

        self.answer(done, verb)

    async def _subscriptions_of(self, topic: Topic, state: Json) -> list[SubscriptionInfo]:
        found = await self.consumers.marks.all(topic)
        infos = [await self._subscription_info(topic, one, state) for one in found]
        return sorted(infos, key=lambda info: info.subscriber)

    async def _subscription_info(self, topic: Topic, found: Found, state: Json) -> SubscriptionInfo:
        reader = self.readers.get((topic.name, found.subscriber))
        return await self.consumers.info(topic, found, state, reader)

    def subscription(self, topic: str, subscriber: str, done: Done[SubscriptionInfo]) -> None:
        """One subscription."""

        async def verb() -> SubscriptionInfo:
            found, stream = await self.registry.look(topic)
            consumer = await self.consumers.find(found, subscriber)
            if consumer is None:
                raise SubscriptionNotFound(topic=topic, subscriber=subscriber)
            return await self._subscription_info(found, consumer, stream["state"])

        self.answer(done, verb)

    # --- messages -------------------------------------------------------------------------

    def peek(
        self, topic: str, start: Start, *, max_messages: int, max_bytes: int, done: Done[Pulled]
    ) -> None:
        """Show messages without a subscription, from ``start`` or the first kept after it on."""
        max_bytes = min(max_bytes, self.limits.pull_bytes)

        async def verb() -> Pulled:
            if max_messages < 1 or max_bytes < 1:
                raise InvalidArgument(reason="a peek asks for at least 1 message and 1 byte")
            found, stream = await self.registry.look(topic)
            place = await self.consumers.resolve(found, stream["state"], start)
            pieces, bodies = await self._look_at(
                found, place.sequence, place.index, max_messages, max_bytes
            )
            shown, _ = self.cuts.pieces(pieces, bodies, max_bytes)
            return Pulled(found.topic_id, 0, shown)

        self.answer(done, verb)

    async def _look_at(
        self, topic: Topic, sequence: int, index: int, messages: int, size: int
    ) -> tuple[list[Piece], list[bytes]]:
        """The batches from a place on that have so many messages and bytes, about."""
        pieces: list[Piece] = []
        bodies: list[bytes] = []
        while messages > 0 and size > 0 and sequence <= topic.last_sequence:
            got = await self._batches_from(topic, sequence, min(messages, _LOOKED_AT_MAX), size)
            if not got:
                break
            for number, timestamp, body in got:
                first = index if number == sequence else 0
                base, count = names.offset_of(number), batches.count_of(body)
                fitting = min(count - first, messages)
                room = size - PIECE_BYTES
                if len(body) * fitting // count > room:
                    if pieces:
                        return pieces, bodies
                    fitting = min(fitting, max(1, room * count // len(body)))
                if fitting <= 0:
                    continue
                ends = (base, base + count, base + first, base + first + fitting)
                pieces.append(Piece(self.new_place(), *ends, timestamp, 0))
                bodies.append(body)
                messages -= fitting
                size -= len(body) * fitting // count + PIECE_BYTES
                if first + fitting < count or messages <= 0:
                    return pieces, bodies
            sequence, index = got[-1][0] + 1, 0
        return pieces, bodies

    async def _batches_from(
        self, topic: Topic, sequence: int, count: int, size: int
    ) -> list[tuple[int, int, bytes]]:
        """Batches from a sequence on: sequence, timestamp, bytes."""
        for _ in range(_ATTEMPTS):
            request = {"seq": sequence, "batch": count, "max_bytes": max(size, 1)}
            got, is_whole = await self._direct(topic, {**request, "next_by_subj": topic.subject})
            if got or is_whole:
                return got
            await asyncio.sleep(_PAUSE_S)
        raise Timeout(what="the cluster's answer", seconds=f"{_ATTEMPTS * _PAUSE_S:g}")

    async def _direct(
        self, topic: Topic, request: Json
    ) -> tuple[list[tuple[int, int, bytes]], bool]:
        """What one node has; and whether that is known to be all it has there."""
        got: list[tuple[int, int, bytes]] = []
        over: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def answered(reply: Reply) -> None:
            headers = reply.headers or {}
            if reply.status == 0 and "Nats-Sequence" in headers:
                at = time_ns(headers["Nats-Time-Stamp"])
                got.append((int(headers["Nats-Sequence"]), at, reply.body))
            elif not over.done():
                over.set_result(not reply.is_lost)

        reply_to, name = self.link.open_stream(answered, _ATTEMPT_S)
        subject = f"$JS.API.DIRECT.GET.{topic.stream}"
        self.link.publish(subject, msgspec.json.encode(request), reply=reply_to)
        is_whole = await over
        self.link.close_stream(name)
        return got, is_whole

    def backup(self, done: Done[Backup]) -> None:
        """Nothing is kept here that could be backed up."""
        done(NotSupported(what="backup of a cluster (use: nats stream backup)"))

    # --- the engine -----------------------------------------------------------------------

    def status(self, done: Done[EngineStatus]) -> None:
        """Counters and sizes."""
        self.answer(done, self._status)

    async def _status(self) -> EngineStatus:
        found = [stream["state"] for _, stream in await self.registry.all()]
        now_ns = self.runtime.now_ns()
        counts = (self.messages_in, self.messages_out)
        in_per_s, out_per_s = self.rates.per_second(now_ns, *counts)
        kept = sum(state["messages"] for state in found)
        return EngineStatus(
            engine=self.name,
            durability=self.durability,
            topics=len(found),
            subscriptions=sum(state["consumer_count"] for state in found),
            publishers=len(self.sessions),
            messages=None if kept else 0,
            bytes=sum(state["bytes"] for state in found),
            max_bytes=None,
            messages_in=self.messages_in,
            messages_out=self.messages_out,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            messages_in_per_s=in_per_s,
            messages_out_per_s=out_per_s,
            syncs=None,
            batches=kept,
            retry_s=self.options.retry_s,
            note=self.note,
        )
