"""Giving up what all have read: a purge up to the lowest acknowledged place of a topic.

Any server may do it, and several at once. What makes that safe is an entry for each topic,
changed only by who knows its last revision:

    reclaim     read the entry; ask every consumer how far it is; put the floor into the entry,
                if nobody has changed it since; purge up to the floor
    subscribe,  say in the entry that one is busy; begin above the floor; say that it is done
    seek

So either the reclaimer has seen the new place, or it has lost, and asks again. While anybody is
busy nothing is reclaimed.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from mbctl.engine.jetstream import entries, names
from mbctl.engine.jetstream.api import STREAM_NOT_FOUND, ApiError, Json
from mbctl.engine.jetstream.entries import TopicEntry
from mbctl.engine.jetstream.topics import Topic
from mbctl.errors import LimitExceeded
from mbctl.model import NS_PER_S

if TYPE_CHECKING:
    from mbctl.engine.jetstream.parts import Parts

# How long after something was read it is looked whether that can be given up.
_DEBOUNCE_S = 0.05
# So often all topics are looked at, for what a server left that died: arbitrary.
_ROUND_S = 300.0
# So much later each of them is looked at than the one before.
_BETWEEN_S = 0.02
# For so long at most a server is busy with a subscription; longer than its patience.
_BUSY_NS = 120 * NS_PER_S
# How often an entry is tried to be changed that others are changing.
_ATTEMPTS = 50


class Reclaiming:
    """Reclaims the topics that this server has seen read."""

    def __init__(self, parts: "Parts") -> None:
        self._parts = parts
        self._due: dict[str, asyncio.TimerHandle] = {}
        self._round: asyncio.TimerHandle | None = None

    # --- when -----------------------------------------------------------------------------

    def start(self) -> None:
        """Look at all topics now and then."""
        # Several servers started together should not do that together.
        delay_s = _ROUND_S * (0.5 + secrets.randbelow(1000) / 1000)
        self._round = asyncio.get_running_loop().call_later(delay_s, self._look_at_all)

    def stop(self) -> None:
        """Reclaim nothing more."""
        for timer in self._due.values():
            timer.cancel()
        self._due.clear()
        if self._round is not None:
            self._round.cancel()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is to be reclaimed in the next moments."""
        until = asyncio.get_running_loop().time() + 4 * _DEBOUNCE_S
        return all(timer.when() > until for timer in self._due.values())

    def soon(self, topic: Topic) -> None:
        """Reclaim a topic in a while: something of it has been read."""
        if topic.name in self._due or self._parts.is_stopped:
            return
        delay_s = self._delay_s(topic) + _DEBOUNCE_S
        loop = asyncio.get_running_loop()
        self._due[topic.name] = loop.call_later(delay_s, self._begin, topic)

    def _delay_s(self, topic: Topic) -> float:
        return max(self._parts.options.purge_delay_s, topic.settings.retain_age or 0)

    def _begin(self, topic: Topic) -> None:
        self._due.pop(topic.name, None)
        self._parts.spawn(self.reclaim(topic))

    def _look_at_all(self) -> None:
        self.start()
        self._parts.spawn(self._reclaim_all())

    async def _reclaim_all(self) -> None:
        for topic, stream in await self._parts.registry.all():
            if stream["state"]["messages"] and stream["state"]["consumer_count"]:
                # One whose leader is gone is no reason to keep what the others have.
                self._parts.spawn(self.reclaim(topic))
                await asyncio.sleep(_BETWEEN_S)

    # --- what -----------------------------------------------------------------------------

    async def reclaim(self, topic: Topic, *, at_once: bool = False) -> None:
        """Give up what all have read, that is old enough; ``at_once`` whatever its age.

        What is to be kept by ``retain_age`` is kept in any case.
        """
        try:
            await self._reclaim(topic, at_once=at_once)
        except ApiError as error:
            if error.code != STREAM_NOT_FOUND:
                raise

    async def _reclaim(self, topic: Topic, *, at_once: bool) -> None:
        api, key = self._parts.api, names.topic_key(topic.topic_id)
        value, revision = await api.get(key, names.BUCKET)
        entry = entries.topic_entry(value)
        now_ns = self._parts.runtime.wall_ns()
        busy = {token: until for token, until in entry.busy.items() if until > now_ns}
        if busy:
            return
        read = await self._read_up_to(topic)
        delay_s = topic.settings.retain_age or 0 if at_once else self._delay_s(topic)
        if read is not None and delay_s:
            read = min(read, await self._older_than(topic, now_ns - round(delay_s * NS_PER_S)))
        if read is None or read <= entry.floor:
            return
        changed = await api.put(key, entries.encode(TopicEntry(read)), revision)
        if changed is None:
            # Somebody subscribes, or reclaims it better.
            self.soon(topic)
            return
        await api.call(f"STREAM.PURGE.{topic.stream}", {"seq": read + 1})

    async def _read_up_to(self, topic: Topic) -> int | None:
        """The last sequence that every durable subscription has acknowledged; None for no such."""
        api = self._parts.api
        stream = await api.stream(topic.stream)
        if stream is None or not stream["state"]["messages"]:
            return None
        consumers = [
            one async for one in api.pages(f"CONSUMER.LIST.{topic.stream}", "consumers", {})
        ]
        # With one missing, or one more than was counted, what it has read is not known.
        if len(consumers) < stream["state"]["consumer_count"]:
            return None
        durable = [one for one in consumers if not names.is_ephemeral(one["name"])]
        # Whatever is nobody's counts as long as somebody may be making it.
        for consumer in sorted(durable, key=_floor_of):
            if not await self._is_left(topic, consumer):
                return min(_floor_of(consumer), int(stream["state"]["last_seq"]))
        return None

    async def _is_left(self, topic: Topic, consumer: Json) -> bool:
        """Whether a consumer was nobody's, and is deleted."""
        marks = self._parts.consumers.marks
        is_owned = await marks.owned(topic, consumer) is not None
        return not is_owned and await marks.clear(topic, consumer)

    async def _older_than(self, topic: Topic, time_ns: int) -> int:
        """The last sequence that is older than that."""
        sequence = await sequence_at(self._parts, topic, time_ns)
        return topic.last_sequence if sequence is None else sequence - 1

    # --- while a subscription begins or moves ---------------------------------------------

    @asynccontextmanager
    async def held_off(self, topic: Topic) -> AsyncIterator[int]:
        """Keep everybody from reclaiming a topic; gives the first sequence that is not given up.

        Raises:
            LimitExceeded: too many are changing subscriptions of the topic.
        """
        token = secrets.token_hex(8)
        floor = await self._announce(topic, token)
        try:
            yield floor + 1
        finally:
            self._parts.spawn(self._retract(topic, token))

    async def _announce(self, topic: Topic, token: str) -> int:
        now_ns = self._parts.runtime.wall_ns()

        def change(entry: TopicEntry) -> TopicEntry:
            busy = {one: until for one, until in entry.busy.items() if until > now_ns}
            return TopicEntry(entry.floor, {**busy, token: now_ns + _BUSY_NS})

        return (await self._change(topic, change)).floor

    async def _retract(self, topic: Topic, token: str) -> None:
        def change(entry: TopicEntry) -> TopicEntry:
            if token not in entry.busy:
                # The topic is deleted, and its entry is not to come back.
                return entry
            busy = {one: until for one, until in entry.busy.items() if one != token}
            return TopicEntry(entry.floor, busy)

        await self._change(topic, change)
        self.soon(topic)

    async def _change(self, topic: Topic, change: Callable[[TopicEntry], TopicEntry]) -> TopicEntry:
        """Change a topic's entry, unless ``change`` gives it back as it is; what it is then."""
        api, key = self._parts.api, names.topic_key(topic.topic_id)
        for _ in range(_ATTEMPTS):
            value, revision = await api.get(key, names.BUCKET)
            before = entries.topic_entry(value)
            entry = change(before)
            if entry is before or await api.put(key, entries.encode(entry), revision) is not None:
                return entry
            await asyncio.sleep(secrets.randbelow(20) / 1000)
        raise LimitExceeded(what="changes at once to the subscriptions of a topic", limit=_ATTEMPTS)


def _floor_of(consumer: Json) -> int:
    return int(consumer["ack_floor"]["stream_seq"])


async def sequence_at(parts: "Parts", topic: Topic, time_ns: int) -> int | None:
    """The first sequence stored at that time or later; None if there is none."""
    at = datetime.fromtimestamp(time_ns // NS_PER_S, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    request: Json = {
        "start_time": f"{at}.{time_ns % NS_PER_S:09d}Z",
        "next_by_subj": topic.subject,
        "batch": 1,
    }
    reply = await parts.api.ask(f"$JS.API.DIRECT.GET.{topic.stream}", msgspec.json.encode(request))
    if reply.headers is None or "Nats-Sequence" not in reply.headers:
        return None
    return int(reply.headers["Nats-Sequence"])
