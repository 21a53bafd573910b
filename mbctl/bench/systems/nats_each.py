"""Publishing to JetStream with one call of nats-py for each message, in windows."""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from importlib.util import find_spec
from itertools import islice
from typing import Any
from uuid import uuid4

import nats

from mbctl.bench.systems.nats_connection import Received, answer, url_of

_ATOMIC_AHEAD = 16
"""Atomic batches that are under way; the server keeps 50 for a stream."""
_ANSWER_S = 60.0


def publish_each(
    address: str,
    topic: str,
    batches: Iterator[Sequence[bytes]],
    *,
    ahead: int = 0,
    flow: int = 0,
    atomic: int = 0,
) -> int:
    """Send every message by a call; the number of messages once all are acknowledged.

    With ``atomic`` in atomic batches of that many, else by fast ingest with at most ``ahead``
    messages and an acknowledgement for every ``flow``.
    """
    payloads = (payload for batch in batches for payload in batch)

    async def publish() -> int:
        connection = await nats.connect(url_of(address), pending_size=8 << 20)
        try:
            if atomic:
                return await _atomic(connection, topic, payloads, atomic)
            return await _fast(connection, topic, payloads, (ahead, flow))
        finally:
            await connection.close()

    return _run(publish())


async def _fast(
    connection: Any, topic: str, payloads: Iterator[bytes], window: tuple[int, int]
) -> int:
    """One fast-ingest batch. Nobody waits but for room in the window."""
    ahead, flow = window
    inbox = f"_INBOX.{uuid4().hex}"
    acknowledgements = await connection.subscribe(f"{inbox}.>")
    prefix = f"{inbox}.{flow}.fail."
    publish = connection.publish
    sent = acknowledged = 0
    for payload in payloads:
        if sent - acknowledged >= ahead + flow:
            acknowledged = await _acknowledged(acknowledgements)
        sent += 1
        await publish(topic, payload, f"{prefix}{sent}.{0 if sent == 1 else 1}.$FI")
    if sent:
        await publish(topic, b"", f"{prefix}{sent + 1}.3.$FI")
        while acknowledged < sent:
            acknowledged = await _acknowledged(acknowledgements)
    return sent


async def _acknowledged(subscription: Any) -> int:
    """The number of messages stored so far, once the server tells."""
    message = await subscription.next_msg(timeout=_ANSWER_S)
    said = answer(Received(b"", b"", message.data))
    return int(said["count"] if "count" in said else said["seq"])


async def _atomic(connection: Any, topic: str, payloads: Iterator[bytes], count: int) -> int:
    """Atomic batches of ``count`` messages, a few under way."""
    inbox = f"_INBOX.{uuid4().hex}"
    commits = await connection.subscribe(inbox)
    sent = waiting = 0
    while group := list(islice(payloads, count)):
        if waiting == _ATOMIC_AHEAD:
            await _committed(commits)
            waiting -= 1
        batch_id = uuid4().hex
        for number, payload in enumerate(group, 1):
            reply = inbox if number == len(group) else ""
            await _add(connection, topic, payload, (batch_id, number, reply))
        waiting += 1
        sent += len(group)
    for _ in range(waiting):
        await _committed(commits)
    return sent


async def _committed(commits: Any) -> None:
    """Wait until another batch is stored."""
    answer(Received(b"", b"", (await commits.next_msg(timeout=_ANSWER_S)).data))


async def _add(connection: Any, topic: str, payload: bytes, place: tuple[str, int, str]) -> None:
    """Put a message into an atomic batch; with somewhere to answer to, it commits the batch."""
    batch_id, number, inbox = place
    headers = {"Nats-Batch-Id": batch_id, "Nats-Batch-Sequence": str(number)}
    if inbox:
        headers["Nats-Batch-Commit"] = "1"
    await connection.publish(topic, payload, inbox, headers)


def _run(work: Coroutine[Any, Any, int]) -> int:
    """Run it on uvloop where that is installed, which suits nats-py better."""
    if find_spec("uvloop") is None:
        return asyncio.run(work)
    import uvloop

    done: int = uvloop.run(work)
    return done
