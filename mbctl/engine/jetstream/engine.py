"""The jetstream engine: verbs in, requests to the cluster out, and what comes of time.

The verbs are in ``publishing``, ``subscribing`` and ``looking``; here is what begins and ends.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from mbctl.engine.interface import Runtime
from mbctl.engine.jetstream import names
from mbctl.engine.jetstream.api import STREAM_EXISTS, Api, ApiError, Json
from mbctl.engine.jetstream.link import Link, Reply
from mbctl.engine.jetstream.looking import Looking
from mbctl.engine.jetstream.options import EngineOptions, limits_within
from mbctl.engine.jetstream.parts import decode_event
from mbctl.engine.jetstream.reader import Reader
from mbctl.errors import InvalidArgument, MbctlError, NotSubscribed, NotSupported, ServerError
from mbctl.model import NS_PER_S, Limits

_TEND_S = 0.25
# How long a stop waits for what was accepted.
_CLOSE_S = 6.0
# The oldest nats-server whose API is enough: consumers can be moved since 2.15.
_OLDEST = (2, 15)


class JetStreamEngine(Looking):
    """JetStream behind the Engine interface."""

    def __init__(
        self, link: Link, runtime: Runtime, options: EngineOptions, limits: Limits, *, sync: str
    ) -> None:
        super().__init__(link, runtime, options, limits, sync=sync)
        self.on_failure: Callable[[MbctlError], None] = _nobody
        self._loop = asyncio.get_running_loop()
        self._closing: asyncio.Task[None] | None = None
        link.on_event = self._heard
        link.on_reconnect = self._reconnected
        link.on_closed = self._failed
        link.on_disconnect = self._disconnected
        self.reclaiming.start()
        self._tending = self._loop.call_later(_TEND_S, self._tend)

    def is_storing(self) -> bool:
        """Whether an answer of the cluster is awaited that a client may be waiting for."""
        return self.link.is_awaiting

    # --- time and events ------------------------------------------------------------------

    def _tend(self) -> None:
        now_ns = self.runtime.now_ns()
        self.rates.sample(now_ns, self.messages_in, self.messages_out)
        for reader in list(self.readers.values()):
            reader.tend(now_ns)
            if reader.is_idle and reader.is_durable:
                # Nobody waits for it, so nobody is told.
                reader.end(NotSubscribed(topic=reader.topic.name, subscriber=reader.subscriber))
        self._tending = self._loop.call_later(_TEND_S, self._tend)

    def _heard(self, body: bytes, reply: str) -> None:
        """Another server has changed something."""
        try:
            event = decode_event(body)
        except msgspec.DecodeError:
            return
        if event.server == self.server_id:
            return
        if event.kind == "deleted":
            self.forget_topic(event.topic, event.topic_id)
        elif event.kind == "purged":
            self.forget_below(event.topic, event.topic_id, event.below)
        reader = self.readers.get((event.topic, event.subscriber))
        if reader is None or reader.topic.topic_id != event.topic_id:
            return
        if event.kind == "reads":
            if reader.members or reader.held:
                self.link.publish(reply, b"yes")
        elif event.kind == "unsubscribed":
            self.spawn(self._look_whether_ended(reader))
        elif event.kind == "sought":
            reader.moved()
            reader.wake()
        elif event.kind == "options":
            self.spawn(self._relearn(event.topic, event.subscriber))

    async def _look_whether_ended(self, reader: Reader) -> None:
        """End a reader, unless it reads what was subscribed again: word of an end may be late."""
        found = await self.consumers.find(reader.topic, reader.subscriber)
        if found is None:
            reader.end(NotSubscribed(topic=reader.topic.name, subscriber=reader.subscriber))
        else:
            reader.reads(found.name)
            reader.mending.doubt()
            reader.wake()

    async def _relearn(self, topic: str, subscriber: str) -> None:
        reader = self.readers.get((topic, subscriber))
        if reader is not None:
            reader.options = await self.consumers.options(reader.topic, subscriber)

    def _reconnected(self) -> None:
        """What was told meanwhile was not heard: nothing that is remembered counts."""
        self.registry.forget_all()
        for reader in self.readers.values():
            reader.fetching.is_gone = True
            reader.mending.doubt()
            reader.wake()

    def _disconnected(self) -> None:
        for reader in self.readers.values():
            reader.fetching.lose()

    def _failed(self, reason: str) -> None:
        self.is_stopped = True
        self.on_failure(ServerError(reason=f"the connection to the cluster ended: {reason}"))

    # --- the end --------------------------------------------------------------------------

    def close(self, done: Callable[[], None]) -> None:
        """Answer waiting pulls, finish and answer what was accepted, then call ``done``."""
        for number in (*self.pulls, *self.resolving):
            self.cancel_pull(number)
        self._closing = self._loop.create_task(self._close(done))

    async def _close(self, done: Callable[[], None]) -> None:
        self.reclaiming.stop()
        self._tending.cancel()
        until = self._loop.time() + _CLOSE_S
        try:
            # What was accepted before has begun by then.
            await asyncio.sleep(0)
            while not self.lines.are_idle and self._loop.time() < until:
                await asyncio.sleep(0.005)
            self.is_stopped = True
            for member in list(self.members):
                self.close_member(member)
            for reader in list(self.readers.values()):
                reader.give_back_all()
            while self.tasks and self._loop.time() < until:
                await asyncio.wait(list(self.tasks), timeout=until - self._loop.time())
            for task in list(self.tasks):
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)
            await self.link.close()
        finally:
            done()


async def open_engine(runtime: Runtime, options: EngineOptions, limits: Limits) -> JetStreamEngine:
    """Connect to the cluster, and see that it can do what is asked of it.

    Raises:
        ServerError: it cannot be reached, or is too old.
        NotSupported: it has no JetStream for us.
        InvalidArgument: it has too few servers for so many replicas.
    """
    link = Link(options.address)
    await link.open(names.EVENTS)
    try:
        await _check(link, options)
        api = Api(link)
        await _make_bucket(api, options)
        sync = options.sync or await _ask_sync(link)
    except BaseException:
        await link.close()
        raise
    within = limits_within(limits, link.max_payload)
    return JetStreamEngine(link, runtime, options, within, sync=sync)


async def _check(link: Link, options: EngineOptions) -> None:
    if link.version < _OLDEST:
        found, oldest = (".".join(map(str, version)) for version in (link.version, _OLDEST))
        raise ServerError(reason=f"nats-server is {found} and has to be {oldest} or newer")
    try:
        await Api(link).call("INFO")
    except ApiError as error:
        raise NotSupported(what=f"JetStream ({error})") from error


async def _make_bucket(api: Api, options: EngineOptions) -> None:
    """Create the bucket of what JetStream has no place for, unless it is there."""
    config: Json = {
        "name": names.BUCKET,
        "subjects": [names.BUCKET_SUBJECTS],
        "storage": "file",
        "num_replicas": options.replicas,
        "max_msgs_per_subject": 1,
        "discard": "new",
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "allow_direct": True,
    }
    try:
        await api.create_stream(config)
    except ApiError as error:
        if error.code == STREAM_EXISTS:
            return
        if "replicas" in error.description or error.code in (10005, 10074):
            raise InvalidArgument(
                reason=f"the cluster cannot keep {options.replicas} replicas: "
                f"{error.description}; give --replicas as many as it has servers, or less"
            ) from error
        raise error.translated() from error


async def _ask_sync(link: Link) -> str:
    """The ``sync_interval`` of the servers; ``unknown`` if they do not all tell the same."""
    found: set[str] = set()
    over = asyncio.Event()

    def answered(reply: Reply) -> None:
        if reply.status != 0:
            over.set()
            return
        answer: Any = msgspec.json.decode(reply.body)
        config = (answer.get("data", answer).get("jetstream") or {}).get("config")
        if config:
            always = config.get("sync_always")
            interval = config.get("sync_interval", 0) // NS_PER_S
            found.add("always" if always else _seconds(interval))

    reply_to, name = link.open_stream(answered, 0.4)
    link.publish("$SYS.REQ.SERVER.PING.VARZ", b"{}", reply=reply_to)
    await over.wait()
    link.close_stream(name)
    if not found:
        return "unknown"
    # The weakest of them is what is promised.
    return max(found, key=lambda text: (text != "always", len(text), text))


def _seconds(interval: int) -> str:
    return f"{interval // 60}m" if interval and interval % 60 == 0 else f"{interval}s"


def _nobody(error: MbctlError) -> None:
    """Nobody is to be told."""
