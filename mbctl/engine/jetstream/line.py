"""The way of a topic's batches into its stream: one group at a time, in order.

    waiting ──group──▶ under way ──answered──▶ receipts
                            └── refused or lost ──▶ one by one, each until it is answered

What one turn of the loop brought in goes as one atomic publish of JetStream's, which the stream
stores, and syncs, together; what comes meanwhile is the next group. So a batch is never stored
before one that was sent before it, whatever node dies: JetStream alone does not promise that of
messages under way together. Source: ADR-50 of nats-io/nats-architecture-and-design.

A batch is never stored twice: JetStream knows its id for two minutes, and no attempt is made
later than one minute after the first.
"""

import asyncio
import itertools
import secrets
from collections import deque
from typing import TYPE_CHECKING

import msgspec

from mbctl.batch import Buffer
from mbctl.engine.interface import Done
from mbctl.engine.jetstream import api
from mbctl.engine.jetstream.attempts import Attempts
from mbctl.engine.jetstream.link import Reply
from mbctl.engine.jetstream.names import offset_of
from mbctl.engine.jetstream.topics import Topic
from mbctl.errors import MbctlError, OutcomeUnknown, ServerStopping, Timeout, TopicFull
from mbctl.model import MIB, NS_PER_S, Receipt

if TYPE_CHECKING:
    from mbctl.engine.jetstream.parts import Parts

# JetStream takes at most 1,000 messages in an atomic publish.
_GROUP_MAX = 500
_GROUP_BYTES = 4 * MIB
# How long a group may take to be stored; after that each of its batches is tried alone.
_GROUP_S = 1.0

_group_ids = itertools.count(1)
_group_prefix = secrets.token_hex(8)


class _Answer(msgspec.Struct):
    """What JetStream answers to a publish."""

    seq: int = 0
    error: api.Json | None = None


_decode = msgspec.json.Decoder(_Answer).decode


class Outgoing:
    """One batch on its way, and who waits for it."""

    __slots__ = ("body", "count", "done", "id", "until_ns", "was_tried")

    def __init__(
        self, id: str, body: bytes, count: int, until_ns: int, done: Done[Receipt]
    ) -> None:
        self.id = id
        self.body = body
        self.count = count
        self.until_ns = until_ns
        """When it is too late for another attempt."""
        self.done = done
        self.was_tried = False


class Line:
    """The batches of one topic, by name, that are not stored yet."""

    def __init__(self, name: str, parts: "Parts") -> None:
        self._name = name
        self._parts = parts
        self._waiting: deque[Outgoing] = deque()
        self._is_working = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._is_working

    def add(self, id: str, body: Buffer, count: int, *, until_ns: int, done: Done[Receipt]) -> None:
        """Have a batch stored after all that came before it."""
        self._waiting.append(Outgoing(id, bytes(body), count, until_ns, done))
        if not self._is_working:
            self._is_working = True
            self._parts.spawn(self._work())

    async def _work(self) -> None:
        try:
            while self._waiting:
                group = self._take_group()
                try:
                    topic = await self._parts.registry.get(self._name)
                except (MbctlError, api.ApiError) as error:
                    self._refuse(group, api.translated(error))
                else:
                    await self._store(topic, group)
        finally:
            self._is_working = False

    def _refuse(self, group: list[Outgoing], error: MbctlError) -> None:
        if isinstance(error, Timeout):
            # Nothing of it was sent, and the one who asks may ask again.
            error = OutcomeUnknown(what="the send, as the cluster does not answer,")
        for out in group:
            out.done(error)

    def _take_group(self) -> list[Outgoing]:
        group = [self._waiting.popleft()]
        size = len(group[0].body)
        while self._waiting and len(group) < _GROUP_MAX:
            size += len(self._waiting[0].body)
            if size > _GROUP_BYTES:
                break
            group.append(self._waiting.popleft())
        return group

    async def _store(self, topic: Topic, group: list[Outgoing]) -> None:
        if len(group) > 1 and await self._store_together(topic, group):
            return
        for out in group:
            try:
                answer: Receipt | MbctlError = await self._store_one(topic, out)
            except (MbctlError, api.ApiError) as error:
                answer = api.translated(error)
            out.done(answer)

    # --- together -------------------------------------------------------------------------

    async def _store_together(self, topic: Topic, group: list[Outgoing]) -> bool:
        """Whether the group was stored as a whole; if not, none of it was or it is unknown."""
        link = self._parts.link
        group_id = f"{_group_prefix}-{next(_group_ids)}"
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def answered(reply: Reply) -> None:
            if not future.done():
                future.set_result(reply)

        for number, out in enumerate(group, 1):
            out.was_tried = True
            headers = {
                "Nats-Msg-Id": out.id,
                "Nats-Batch-Id": group_id,
                "Nats-Batch-Sequence": str(number),
            }
            if number < len(group):
                link.publish(topic.subject, out.body, headers=headers)
            else:
                headers["Nats-Batch-Commit"] = "1"
                reply_to = link.expect(answered, _GROUP_S)
                link.publish(topic.subject, out.body, reply=reply_to, headers=headers)
        reply = await future
        if reply.is_lost:
            return False
        answer = _decode(reply.body)
        if answer.error is not None:
            return False
        first = answer.seq - len(group) + 1
        topic.saw(answer.seq)
        for sequence, out in enumerate(group, first):
            out.done(Receipt(self._name, offset_of(sequence), out.count))
        return True

    # --- one by one -----------------------------------------------------------------------

    async def _store_one(self, topic: Topic, out: Outgoing) -> Receipt:
        """Try until there is an answer.

        Raises:
            OutcomeUnknown: none came in time.
            MbctlError: it is refused.
        """
        parts = self._parts
        patience_s = (out.until_ns - parts.runtime.now_ns()) / NS_PER_S
        attempts, was_full = Attempts(parts.link, patience_s), False
        while True:
            if parts.is_stopped:
                raise OutcomeUnknown(what="the send") if out.was_tried else ServerStopping()
            if parts.runtime.now_ns() >= out.until_ns:
                raise OutcomeUnknown(what="the send, which the cluster did not answer in time,")
            headers = {"Nats-Msg-Id": out.id}
            reply = await attempts.ask(topic.subject, out.body, headers=headers)
            out.was_tried = True
            if not reply.is_lost:
                answer = _decode(reply.body)
                if answer.error is None:
                    topic.saw(answer.seq)
                    return Receipt(self._name, offset_of(answer.seq), out.count)
                code = answer.error.get("err_code", 0)
                if code == api.TOPIC_FULL and not was_full:
                    # What all have read may go before its time where it is in the way.
                    was_full = True
                    await parts.reclaiming.reclaim(topic, at_once=True)
                    continue
                if not api.is_temporary(code):
                    raise self._refusal(topic, code, answer.error.get("description", "?"))
            elif reply.has_no_taker:
                # Its stream has no leader now, or is gone.
                topic = await self._again(topic)
            await attempts.pause()

    async def _again(self, topic: Topic) -> Topic:
        """The topic as it is now; as it was if the cluster cannot tell.

        Raises:
            TopicNotFound: it is gone.
        """
        try:
            return (await self._parts.registry.look(self._name))[0]
        except Timeout:
            return topic

    def _refusal(self, topic: Topic, code: int, description: str) -> MbctlError:
        if code == api.TOPIC_FULL:
            limit = topic.settings.max_bytes
            if limit is not None:
                return TopicFull(topic=topic.name, what="bytes", limit=limit)
        return api.error_of(code, description)


class Lines:
    """The line of each topic that something is sent to."""

    def __init__(self, parts: "Parts") -> None:
        self._parts = parts
        self._lines: dict[str, Line] = {}

    def of(self, topic: str) -> Line:
        """The line of a topic, which may not exist."""
        line = self._lines.get(topic)
        if line is None:
            if len(self._lines) > _LINES_KEPT:
                self._lines = {n: one for n, one in self._lines.items() if not one.is_idle}
            line = self._lines[topic] = Line(topic, self._parts)
        return line

    @property
    def are_idle(self) -> bool:
        """Whether nothing is under way in any."""
        return all(line.is_idle for line in self._lines.values())


_LINES_KEPT = 1000
