"""What the verbs of the jetstream engine share, and how a verb is answered."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from mbctl.engine.cuts import Cuts
from mbctl.engine.interface import Done, Runtime
from mbctl.engine.jetstream import names
from mbctl.engine.jetstream.api import MESSAGE_NOT_FOUND, Api, ApiError
from mbctl.engine.jetstream.consumers import Consumers
from mbctl.engine.jetstream.line import Lines
from mbctl.engine.jetstream.link import Link
from mbctl.engine.jetstream.options import EngineOptions, durability_of, note_on
from mbctl.engine.jetstream.reclaiming import Reclaiming
from mbctl.engine.jetstream.sessions import Sessions
from mbctl.engine.jetstream.topics import Topic, Topics
from mbctl.engine.rates import Rates
from mbctl.errors import (
    MbctlError,
    NotSubscribed,
    ServerError,
    ServerStopping,
    TopicNotFound,
)
from mbctl.model import Limits

if TYPE_CHECKING:
    from mbctl.engine.jetstream.reader import Reader
    from mbctl.engine.jetstream.serving import Pull
    from mbctl.engine.jetstream.subscribing import Member

T = TypeVar("T")

_log = logging.getLogger("mbctl.engine")


class Event(msgspec.Struct, frozen=True, array_like=True):
    """What one server tells the others: ``kind`` of change to a topic or a subscription."""

    server: str
    kind: str
    topic: str
    topic_id: int
    subscriber: str = ""
    below: int = 0
    """Where what was purged ends."""


_encode = msgspec.msgpack.Encoder().encode
decode_event = msgspec.msgpack.Decoder(Event).decode


class Parts:
    """The connection, what is known of topics, and the tasks under way."""

    def __init__(
        self, link: Link, runtime: Runtime, options: EngineOptions, limits: Limits, *, sync: str
    ) -> None:
        self.link = link
        self.api = Api(link)
        self.runtime = runtime
        self.options = options
        self.limits = limits
        self.durability = durability_of(sync, options.replicas)
        self.note = note_on(sync, options.replicas)
        self.is_stopped = False
        self.server_id = link.name
        self.registry = Topics(self.api, options, limits)
        self.lines = Lines(self)
        self.sessions = Sessions(limits)
        self.reclaiming = Reclaiming(self)
        self.messages_in = self.messages_out = 0
        self.bytes_in = self.bytes_out = 0
        self.rates = Rates(runtime.now_ns())
        self.tasks: set[asyncio.Task[None]] = set()
        self.consumers = Consumers(self)
        self.cuts = Cuts()
        self.readers: dict[tuple[str, str], Reader] = {}
        """The subscriptions that are served here, by topic and subscriber."""
        self.pulls: dict[int, Reader] = {}
        """The pulls that wait, by number."""
        self.resolving: dict[int, Pull] = {}
        """Those of which it is being found out whether they may."""
        self.members: dict[bytes, Member] = {}
        self.gone: dict[bytes, Member] = {}
        """Those whose connection is gone and that have ephemeral subscriptions."""
        self._places = itertools.count(1)

    def new_place(self) -> int:
        """A number that was never used."""
        return next(self._places)

    # --- answers --------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something done that nobody waits for; what it raises is a bug, and logged."""
        task = asyncio.get_running_loop().create_task(self._guarded(work))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except MbctlError as error:
            _log.warning("the cluster: %s", error)
        except ApiError as error:
            _log.warning("the cluster refused: %s (%d)", error, error.code)

    def answer(self, done: Done[T], verb: Callable[[], Awaitable[T]]) -> None:
        """Answer with what ``verb`` returns or refuses, when it does."""
        if self.is_stopped:
            done(ServerStopping())
        else:
            self.spawn(self._answer(done, verb))

    async def _answer(self, done: Done[T], verb: Callable[[], Awaitable[T]]) -> None:
        try:
            answer: T | MbctlError = await verb()
        except MbctlError as error:
            answer = error
        except ApiError as error:
            answer = error.translated()
        except BaseException as error:
            # The end, or a bug: who asked is told all the same.
            is_end = isinstance(error, asyncio.CancelledError)
            reason = f"unexpected {type(error).__name__}: {error}"
            done(ServerStopping() if is_end else ServerError(reason=reason))
            raise
        done(answer)

    # --- events ---------------------------------------------------------------------------

    def tell(
        self, kind: str, topic: str, topic_id: int, subscriber: str = "", *, below: int = 0
    ) -> None:
        """Let the other servers know of a change."""
        event = Event(self.server_id, kind, topic, topic_id, subscriber, below)
        self.link.publish(names.EVENTS, _encode(event))

    async def question(
        self, kind: str, topic: str, topic_id: int, subscriber: str, wait_s: float
    ) -> bool:
        """Ask the other servers; whether one of them says yes in time."""
        event = Event(self.server_id, kind, topic, topic_id, subscriber)
        return not (await self.link.ask(names.EVENTS, _encode(event), timeout=wait_s)).is_lost

    # --- batches --------------------------------------------------------------------------

    async def batch_at(self, topic: Topic, sequence: int) -> bytes | None:
        """The bytes of a batch; None if it is not kept any more."""
        verb = f"STREAM.MSG.GET.{topic.stream}"
        found = await self.api.maybe(verb, {"seq": sequence}, MESSAGE_NOT_FOUND)
        if found is None:
            return None
        return msgspec.convert(found["message"].get("data", ""), bytes, strict=False)

    # --- what ends ------------------------------------------------------------------------

    def forget_topic(self, topic: str, topic_id: int) -> None:
        """A topic is gone: nothing of it is served any more."""
        known = self.registry.known(topic)
        if known is not None and known.topic_id == topic_id:
            self.registry.forget(topic)
        for reader in self._readers_of(topic, topic_id):
            reader.end(TopicNotFound(topic=topic))

    def forget_below(self, topic: str, topic_id: int, sequence: int) -> None:
        """All messages of a topic are gone that come before a sequence."""
        for reader in self._readers_of(topic, topic_id):
            reader.forget_below(sequence)
            reader.wake()

    def _readers_of(self, topic: str, topic_id: int) -> list[Reader]:
        return [
            reader
            for reader in self.readers.values()
            if reader.topic.name == topic and reader.topic.topic_id == topic_id
        ]

    def end_reader(self, topic: str, subscriber: str) -> None:
        """A subscription is gone."""
        reader = self.readers.get((topic, subscriber))
        if reader is not None:
            reader.end(NotSubscribed(topic=topic, subscriber=subscriber))

    def forget_reader(self, reader: Reader) -> None:
        """Let a reader that has ended be nobody's."""
        key = reader.topic.name, reader.subscriber
        if self.readers.get(key) is reader:
            del self.readers[key]
        for member in (*self.members.values(), *self.gone.values()):
            member.readers.pop(reader, None)
