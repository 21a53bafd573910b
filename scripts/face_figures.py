#!/usr/bin/env python3
"""Print how fast the two faces of the library are, in one run, against a server in memory.

    .venv/bin/python scripts/face_figures.py [--count 100000] [--loop asyncio|uvloop]

Each line is one way of sending or reading: messages a second by the face that blocks, by the
asyncio face, and the second as a share of the first. The best of three rounds counts.
"""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

import uvloop

from mbctl import Publisher, Subscriber, aio
from mbctl.bench.processes import ServerProcess

PAYLOAD = b"x" * 100
ROUNDS = 3
# Ways that take a round trip for each message get fewer of them.
SINGLE_SHARE = 20


def pulled(server: str, topic: str) -> Subscriber:
    """A durable subscriber at the beginning of the topic."""
    subscriber = Subscriber(server, name=f"{topic}-{time.monotonic_ns()}")
    subscriber.subscribe(topic, start="earliest")
    return subscriber


# --- the face that blocks -----------------------------------------------------------------------


def sync_single(server: str, topic: str, count: int) -> float:
    """Send one by one."""
    with Publisher(server) as publisher:
        begin = time.perf_counter()
        for _ in range(count):
            publisher.send(topic, PAYLOAD)
        return time.perf_counter() - begin


def sync_pipeline(server: str, topic: str, count: int) -> float:
    """Send through a pipeline."""
    with Publisher(server) as publisher:
        begin = time.perf_counter()
        with publisher.pipeline() as pipe:
            for _ in range(count):
                pipe.send(topic, PAYLOAD)
        return time.perf_counter() - begin


def sync_pull(server: str, topic: str, count: int) -> float:
    """Pull a thousand at a time, and take the payloads."""
    with pulled(server, topic) as subscriber:
        begin, left = time.perf_counter(), count
        while left > 0:
            left -= len(subscriber.pull(topic, wait=0).payloads)
        return time.perf_counter() - begin


def sync_follow(server: str, topic: str, count: int) -> float:
    """Follow, message by message."""
    with pulled(server, topic) as subscriber:
        begin, left = time.perf_counter(), count
        for _ in subscriber.follow(topic):
            left -= 1
            if not left:
                break
        return time.perf_counter() - begin


# --- the asyncio face ---------------------------------------------------------------------------


async def aio_single(server: str, topic: str, count: int) -> float:
    """Send one by one."""
    async with aio.Publisher(server) as publisher:
        begin = time.perf_counter()
        for _ in range(count):
            await publisher.send(topic, PAYLOAD)
        return time.perf_counter() - begin


async def aio_shared(server: str, topic: str, count: int) -> float:
    """Send from a hundred tasks that share a publisher."""

    async def send(times: int) -> None:
        for _ in range(times):
            await publisher.send(topic, PAYLOAD)

    async with aio.Publisher(server) as publisher:
        begin = time.perf_counter()
        await asyncio.gather(*(send(count // 100) for _ in range(100)))
        return time.perf_counter() - begin


async def aio_pipeline(server: str, topic: str, count: int) -> float:
    """Send through a pipeline."""
    async with aio.Publisher(server) as publisher:
        begin = time.perf_counter()
        async with publisher.pipeline() as pipe:
            for _ in range(count):
                await pipe.send(topic, PAYLOAD)
        return time.perf_counter() - begin


async def aio_pull(server: str, topic: str, count: int) -> float:
    """Pull a thousand at a time, and take the payloads."""
    name = f"{topic}-{time.monotonic_ns()}"
    async with aio.Subscriber(server, name) as subscriber:
        await subscriber.subscribe(topic, start="earliest")
        begin, left = time.perf_counter(), count
        while left > 0:
            left -= len((await subscriber.pull(topic, wait=0)).payloads)
        return time.perf_counter() - begin


async def aio_follow(server: str, topic: str, count: int) -> float:
    """Follow, message by message."""
    name = f"{topic}-{time.monotonic_ns()}"
    async with aio.Subscriber(server, name) as subscriber:
        await subscriber.subscribe(topic, start="earliest")
        begin, left = time.perf_counter(), count
        async for _ in subscriber.follow(topic):
            left -= 1
            if not left:
                break
        return time.perf_counter() - begin


# --- measuring ----------------------------------------------------------------------------------

Sync = Callable[[str, str, int], float]
Aio = Callable[[str, str, int], Awaitable[float]]
WAYS: list[tuple[str, Sync, Aio, bool]] = [
    ("send, one by one", sync_single, aio_single, True),
    ("send, 100 tasks on one publisher", sync_single, aio_shared, True),
    ("pipeline", sync_pipeline, aio_pipeline, False),
    ("pull, 1000 at a time", sync_pull, aio_pull, False),
    ("follow", sync_follow, aio_follow, False),
]


def measure(server: str, count: int, loop: str) -> None:
    """Print a line for each way."""
    factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
    with ExitStack() as stack:
        publisher = stack.enter_context(Publisher(server))
        runner = stack.enter_context(asyncio.Runner(loop_factory=factory))
        publisher.create_topic("in")
        publisher.create_topic("out")
        # It never reads, so the others find the same messages every time.
        stack.enter_context(Subscriber(server, name="keeper")).subscribe("out")
        with publisher.pipeline() as pipe:
            for _ in range(count):
                pipe.send("out", PAYLOAD)
        print(f"{'messages a second':34} {'blocking':>10} {loop:>10}")
        for title, sync, other, is_single in WAYS:
            some = max(100, count // SINGLE_SHARE) if is_single else count
            topic = "in" if sync in (sync_single, sync_pipeline) else "out"
            ours = min(sync(server, topic, some) for _ in range(ROUNDS))
            theirs = min(runner.run(_float(other(server, topic, some))) for _ in range(ROUNDS))
            print(f"{title:34} {some / ours:10,.0f} {some / theirs:10,.0f}  {ours / theirs:5.0%}")


async def _float(measured: Awaitable[float]) -> float:
    return await measured


def main() -> None:
    """Start a server, measure, and end it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    options = parser.parse_args()
    with ServerProcess() as server:
        measure(server.address, options.count, options.loop)


if __name__ == "__main__":
    main()
