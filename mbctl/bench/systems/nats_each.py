"""Publishing to JetStream with one call of nats-py for each message, in windows."""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from importlib.util import find_spec
from typing import Any
from uuid import uuid4

import nats

from mbctl.bench.systems.nats_connection import Received, answer


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
        connection = await nats.connect(f"nats://{address}", pending_size=8 << 20)
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
    message = await subscription.next_msg(timeout=60)
    said = answer(Received(b"", b"", message.data))
    return int(said["count"] if "count" in said else said["seq"])


async def _atomic(connection: Any, topic: str, payloads: Iterator[bytes], count: int) -> int:
    """Atomic batches, a few under way."""
    inbox = f"_INBOX.{uuid4().hex}"
    commits = await connection.subscribe(inbox)
    sent = waiting = 0
    number = 0
    batch_id = ""
    held: bytes | None = None
    for payload in payloads:
        if held is not None:
            number, batch_id = (number % count) + 1, batch_id if number % count else uuid4().hex
            commit = number == count
            await _add(connection, topic, held, (batch_id, number, inbox if commit else ""))
            waiting += commit
            sent += 1
            if waiting == 16:
                answer(Received(b"", b"", (await commits.next_msg(timeout=60)).data))
                waiting -= 1
        held = payload
    if held is not None:
        number, batch_id = (number % count) + 1, batch_id if number % count else uuid4().hex
        await _add(connection, topic, held, (batch_id, number, inbox))
        waiting += 1
        sent += 1
    for _ in range(waiting):
        answer(Received(b"", b"", (await commits.next_msg(timeout=60)).data))
    return sent


async def _add(
    connection: Any, topic: str, payload: bytes, place: tuple[str, int, str]
) -> None:
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
