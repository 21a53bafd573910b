"""Thousands of subscribers in one process, each waiting in a pull: one message reaches all."""

import asyncio
import os
import resource
import time
from collections.abc import Callable, Iterator

import pytest
from broker_process import BrokerProcess

from mbctl import aio
from mbctl.model import KIB, Limits

# Descriptors beside those of the subscribers.
_SPARE = 100
# An arbitrary bound, several times what is measured: it fails when a subscriber holds much.
_CLIENT_BYTES_MAX = 64 * KIB
# While they wait, the share of a core that all of them may take; measured well under 0.01.
_IDLE_SHARE_MAX = 0.05


@pytest.fixture
def many_descriptors() -> Iterator[Callable[[int], None]]:
    """Allow this process so many open files, for the time of the test."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    def allow(count: int) -> None:
        if before[0] < count:
            resource.setrlimit(resource.RLIMIT_NOFILE, (count, max(count, before[1])))

    yield allow
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def memory_bytes() -> int:
    """The resident memory of this process."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def crowd(server: str, count: int) -> str:
    """Let so many subscribers wait, look at what that costs, and send to them; the figures."""
    begin, memory = time.perf_counter(), memory_bytes()
    subscribers = [aio.Subscriber(server) for _ in range(count)]
    async with aio.Publisher(server) as publisher, aio.Admin(server) as admin:
        await publisher.create_topic("news")

        async def enter(subscriber: aio.Subscriber) -> None:
            await subscriber.subscribe("news", start="new")

        for first in range(0, count, 100):
            await asyncio.gather(*map(enter, subscribers[first : first + 100]))
        entered_s = time.perf_counter() - begin
        pulls = [asyncio.create_task(s.pull("news", wait=60)) for s in subscribers]

        async def waiting() -> int:
            return sum(info.waiting_pulls for info in await admin.subscriptions("news"))

        while await waiting() < count:
            await asyncio.sleep(0.05)
        client_bytes = (memory_bytes() - memory) // count
        busy, idle_from = time.process_time(), time.perf_counter()
        # Not to wait for something: it is this second that is measured.
        await asyncio.sleep(1.0)
        share = (time.process_time() - busy) / (time.perf_counter() - idle_from)
        begin = time.perf_counter()
        await publisher.send("news", b"to all")
        batches = await asyncio.gather(*pulls)
        reached_s = time.perf_counter() - begin
        assert [batch.payloads for batch in batches] == [[b"to all"]] * count
        await asyncio.gather(*(subscriber.close() for subscriber in subscribers))
    assert client_bytes < _CLIENT_BYTES_MAX
    assert share < _IDLE_SHARE_MAX
    return (
        f"{count} subscribers: connected in {entered_s:.2f} s, {client_bytes / KIB:.1f} KiB each, "
        f"{share:.2%} of a core while they wait, a message reached all in {reached_s:.3f} s"
    )


@pytest.mark.parametrize("count", [1000, pytest.param(5000, marks=pytest.mark.slow)])
def test_a_message_reaches_a_crowd_that_costs_little_while_it_waits(
    count: int,
    start_broker: Callable[..., BrokerProcess],
    many_descriptors: Callable[[int], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    broker = start_broker(limits=Limits(topic_subscriptions=count))
    many_descriptors(count + _SPARE)
    figures = asyncio.run(crowd(broker.address, count))
    with capsys.disabled():
        print(f"\n{figures}")
