"""The same work on a cluster by two clients: mbctl's, and nats-py in the hands of a careful user.

Each load runs in a process of its own, and says what it did as numbers. A careful user of nats-py
gives every message an id, so that one that is sent again is stored once; publishes without
waiting for each, up to 1,000 under way; fetches 1,000 at a time with the ack policy "all", and
waits for the confirmation of the acknowledgement of the last; and has uvloop.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import uuid4

import msgspec

PAYLOAD = b"x" * 100
# So many messages of a flow may be on their way, whoever is slower.
AHEAD = 50_000
# With 4,000 a nats-server that syncs each message answers 429 to some, and nats-py waits for these
# for ever.
_UNDER_WAY = 1_000
_ANSWER_S = 20.0
_FETCH = 1_000
_ATOMIC = 500
# The server keeps 50 that are not committed yet.
_ATOMIC_AHEAD = 16
_LOOK_EVERY = 500
_PAUSE_S = 0.001

Done = dict[str, Any]


class Flow:
    """What the publisher and the readers of a flow tell each other, in processes of their own."""

    def __init__(self, context: Any, readers: int) -> None:
        self._sent = context.Value("q", -1)
        self._read = [context.Value("q", 0) for _ in range(readers)]
        self._ready = [context.Event() for _ in range(readers)]

    def wait_for_readers(self) -> None:
        """Wait until all have subscribed."""
        for ready in self._ready:
            ready.wait(60)

    def is_ready(self, reader: int) -> None:
        """Say that a reader has subscribed."""
        self._ready[reader].set()

    def has_room(self, sent: int) -> bool:
        """Whether not too much is on its way."""
        return sent - min(read.value for read in self._read) <= AHEAD

    def ended(self, sent: int) -> None:
        """Say how much there is in all."""
        self._sent.value = sent

    def note_read(self, reader: int, read: int) -> bool:
        """Say how much a reader has read; whether that is all."""
        self._read[reader].value = read
        return 0 <= self._sent.value <= read


# --- mbctl --------------------------------------------------------------------------------------


def mbctl_publish(server: str, topic: str, seconds: float, flow: Flow | None, pack: int) -> Done:
    """Send by a pipeline for so long, and wait until all is acknowledged."""
    from mbctl import Publisher

    sent = 0
    with Publisher(server, timeout=60) as publisher:
        began = time.monotonic()
        with publisher.pipeline() as pipe:
            while time.monotonic() - began < seconds:
                for _ in range(_LOOK_EVERY):
                    pipe.send(topic, PAYLOAD)
                sent += _LOOK_EVERY
                while flow is not None and not flow.has_room(sent):
                    time.sleep(_PAUSE_S)
        ended = time.monotonic()
    if flow is not None:
        flow.ended(sent)
    return {"count": sent, "began": began, "ended": ended}


def mbctl_read(server: str, topic: str, flow: Flow, reader: int, pack: int) -> Done:
    """Read all of a flow; each acknowledgement is confirmed before the next pull."""
    from mbctl import Subscriber

    count = 0
    with Subscriber(server, f"reader{reader}", timeout=60) as subscriber:
        subscriber.subscribe(topic, start="earliest")
        flow.is_ready(reader)
        while True:
            batch = subscriber.pull(topic, _FETCH, wait=0.1)
            count += len(batch.payloads)
            batch.ack()
            if flow.note_read(reader, count):
                return {"count": count, "ended": time.monotonic()}


def mbctl_lone(server: str, topic: str, seconds: float) -> Done:
    """Send one at a time; how long each took."""
    from mbctl import Publisher

    times = []
    with Publisher(server, timeout=60) as publisher:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            began = time.perf_counter()
            publisher.send(topic, PAYLOAD)
            times.append(time.perf_counter() - began)
    return {"times": times}


# --- nats-py ------------------------------------------------------------------------------------


def nats_publish(url: str, topic: str, seconds: float, flow: Flow | None, pack: int) -> Done:
    """The same by ``publish_async``; with ``pack``, so many messages packed by hand in each."""

    async def work(jetstream: Any) -> Done:
        sent, failures = 0, []
        session = uuid4().hex
        payload = msgspec.msgpack.encode([PAYLOAD] * pack) if pack > 1 else PAYLOAD

        def settled(future: Any) -> None:
            if future.exception() is not None:
                failures.append(future.exception())

        began = time.monotonic()
        while time.monotonic() - began < seconds:
            for _ in range(max(1, _LOOK_EVERY // pack)):
                headers = {"Nats-Msg-Id": f"{session}:{sent}"}
                stored = await jetstream.publish_async(topic, payload, headers=headers)
                stored.add_done_callback(settled)
                sent += pack
            while flow is not None and not flow.has_room(sent):
                await asyncio.sleep(_PAUSE_S)
        await asyncio.wait_for(jetstream.publish_async_completed(), _ANSWER_S)
        if failures:
            raise failures[0]
        return {"count": sent, "began": began, "ended": time.monotonic()}

    done = _with_jetstream(url, work)
    if flow is not None:
        flow.ended(done["count"])
    return done


def nats_atomic(url: str, topic: str, seconds: float, flow: Flow | None, pack: int) -> Done:
    """The same in atomic batches, of which the server stores and answers each as a whole."""

    async def work(jetstream: Any) -> Done:
        client = jetstream._nc
        inbox = client.new_inbox()
        answers = await client.subscribe(inbox)
        sent = waiting = 0
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            batch_id = uuid4().hex
            for number in range(1, _ATOMIC + 1):
                headers = {"Nats-Batch-Id": batch_id, "Nats-Batch-Sequence": str(number)}
                if number < _ATOMIC:
                    await client.publish(topic, PAYLOAD, headers=headers)
            headers["Nats-Batch-Commit"] = "1"
            await client.publish(topic, PAYLOAD, inbox, headers)
            sent, waiting = sent + _ATOMIC, waiting + 1
            if waiting == _ATOMIC_AHEAD:
                await _committed(answers)
                waiting -= 1
            while flow is not None and not flow.has_room(sent):
                await asyncio.sleep(_PAUSE_S)
        for _ in range(waiting):
            await _committed(answers)
        return {"count": sent, "began": began, "ended": time.monotonic()}

    done = _with_jetstream(url, work)
    if flow is not None:
        flow.ended(done["count"])
    return done


async def _committed(answers: Any) -> None:
    answer = msgspec.json.decode((await answers.next_msg(timeout=_ANSWER_S)).data)
    if "error" in answer:
        raise ConnectionError(f"JetStream refused a batch: {answer}")


def nats_read(url: str, topic: str, flow: Flow, reader: int, pack: int) -> Done:
    """Read all of a flow, as ``mbctl_read`` does."""
    from nats.js.api import AckPolicy, ConsumerConfig

    async def work(jetstream: Any) -> Done:
        config = ConsumerConfig(ack_policy=AckPolicy.ALL, max_ack_pending=-1)
        pulls = await jetstream.pull_subscribe(topic, f"reader{reader}", config=config)
        flow.is_ready(reader)
        count = 0
        while True:
            try:
                messages = await pulls.fetch(max(1, _FETCH // pack), timeout=0.1)
            except TimeoutError:
                messages = []
            if pack > 1:
                count += sum(len(msgspec.msgpack.decode(message.data)) for message in messages)
            else:
                count += len([message.data for message in messages])
            if messages:
                await messages[-1].ack_sync()
            if flow.note_read(reader, count):
                return {"count": count, "ended": time.monotonic()}

    return _with_jetstream(url, work)


def nats_lone(url: str, topic: str, seconds: float) -> Done:
    """The same as ``mbctl_lone``."""

    async def work(jetstream: Any) -> Done:
        times = []
        session = uuid4().hex
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            began = time.perf_counter()
            await jetstream.publish(
                topic, PAYLOAD, headers={"Nats-Msg-Id": f"{session}:{len(times)}"}
            )
            times.append(time.perf_counter() - began)
        return {"times": times}

    return _with_jetstream(url, work)


def nats_create(url: str, topic: str, replicas: int) -> None:
    """A stream as mbctl's: on disk, with as many replicas."""
    from nats.js.api import StorageType, StreamConfig

    async def work(jetstream: Any) -> Done:
        config = StreamConfig(
            name=topic,
            subjects=[topic],
            storage=StorageType.FILE,
            num_replicas=replicas,
            allow_atomic=True,
        )
        await jetstream.add_stream(config)
        return {}

    _with_jetstream(url, work)


def nats_delete(url: str, topic: str) -> None:
    """Make room."""

    async def work(jetstream: Any) -> Done:
        await jetstream.delete_stream(topic)
        return {}

    _with_jetstream(url, work)


def _with_jetstream(url: str, work: Callable[[Any], Awaitable[Done]]) -> Done:
    import nats
    import uvloop

    async def connected() -> Done:
        servers: Sequence[str] = url.split(",")
        client = await nats.connect(list(servers), pending_size=8 << 20)
        try:
            return await work(client.jetstream(timeout=30, publish_async_max_pending=_UNDER_WAY))
        finally:
            await client.close()

    return uvloop.run(connected())
