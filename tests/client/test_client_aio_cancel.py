"""Cancelled at every pause: nothing is lost, doubled, out of order or leased for ever."""

import asyncio
import os
import random
import select
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from conftest import InLoop
from cutting_proxy import CuttingProxy, read_all
from stepping import cancelled_everywhere

from mbctl import aio


def payloads(first: int, next: int) -> list[bytes]:
    """The messages of those numbers."""
    return [b"%d" % number for number in range(first, next)]


@asynccontextmanager
async def reading(server: str, topic: str, count: int) -> AsyncIterator[aio.Subscriber]:
    """A subscriber named "reader" of a new topic that holds so many messages."""
    async with aio.Publisher(server) as publisher, aio.Subscriber(server, "reader") as subscriber:
        await publisher.create_topic(topic)
        await subscriber.subscribe(topic, ack_wait=600)
        if count:
            await publisher.send_many(topic, payloads(0, count))
        yield subscriber


async def until(condition: Callable[[], Awaitable[Any]]) -> None:
    """Wait until ``condition`` is true, asking often."""
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.002)


async def check_all_is_free(server: str, topic: str, unread: int) -> None:
    """Wait until nothing is leased or waited for, and so many messages are not acknowledged."""
    async with aio.Admin(server) as admin:

        async def is_free() -> bool:
            info = await admin.subscription(topic, "reader")
            return (info.leased, info.waiting_pulls, info.unread) == (0, 0, unread)

        await until(is_free)


# --- pull ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [0.0, 5.0])
@pytest.mark.parametrize("begins", ["connected", "unconnected", "cut"])
def test_a_cancelled_pull_loses_nothing_and_keeps_the_order(
    begins: str, wait: float, in_loop: InLoop, server: str, proxy: CuttingProxy, topic: str
) -> None:
    async def main() -> None:
        seen: list[int] = []
        async with reading(server, topic, 200), aio.Subscriber(proxy.address, "reader") as reader:

            async def pull() -> list[tuple[int, int]]:
                if begins == "unconnected":
                    await reader.close()
                elif begins == "cut":
                    proxy.cut_now()
                batch = await reader.pull(topic, 3, wait=wait)
                return [(message.offset, message.deliveries) for message in batch]

            cancelled = 0
            async for ended in cancelled_everywhere(pull):
                cancelled += ended.is_cancelled
                if ended.is_cancelled:
                    continue
                assert len(ended.result) == 3
                seen += [offset for offset, _ in ended.result]
                if begins == "connected":
                    # What nobody has looked at does not count as delivered.
                    assert {deliveries for _, deliveries in ended.result} == {1}
                await reader.settle_all()
            assert cancelled >= 2
            seen += [message.offset for message in await reader.pull(topic, wait=0)]
            assert seen == list(range(200))
        await check_all_is_free(server, topic, 0)

    in_loop(main())


def test_pulls_that_are_cancelled_while_messages_come_lose_nothing(
    in_loop: InLoop, server: str, topic: str
) -> None:
    async def main() -> None:
        rng = random.Random(11)
        seen: list[int] = []
        cancelled = 0
        async with reading(server, topic, 0) as reader, aio.Publisher(server) as publisher:
            for number in range(300):
                pulling = asyncio.create_task(reader.pull(topic, wait=20))
                sending = asyncio.create_task(publisher.send(topic, b"%d" % number))
                for _ in range(rng.randrange(12)):
                    # Rather turns of the loop than time: the reply crosses the cancel.
                    await asyncio.sleep(0)
                pulling.cancel()
                await asyncio.wait([pulling, sending])
                cancelled += pulling.cancelled()
                if not pulling.cancelled():
                    assert {message.deliveries for message in pulling.result()} == {1}
                    seen += [message.offset for message in pulling.result()]
            seen += [message.offset for message in await reader.pull(topic, wait=0)]
        assert seen == list(range(300))
        assert cancelled > 30
        await check_all_is_free(server, topic, 0)

    in_loop(main())


def test_a_reply_that_comes_in_the_turn_of_the_cancel_is_given_back(
    in_loop: InLoop, server: str, topic: str
) -> None:
    async def main() -> None:
        async with reading(server, topic, 0) as reader, aio.Publisher(server) as publisher:
            pulling = asyncio.create_task(reader.pull(topic, wait=20))
            async with aio.Admin(server) as admin:

                async def waits() -> int:
                    return (await admin.subscription(topic, "reader")).waiting_pulls

                await until(waits)
            connection = reader._connection
            assert connection is not None
            assert connection._transport is not None
            # The reply stays in the socket until the pull is cancelled and has not noticed.
            connection._transport.pause_reading()
            await publisher.send(topic, b"x")
            descriptor = connection._transport.get_extra_info("socket").fileno()
            assert select.select([descriptor], [], [], 20)[0]
            pulling.cancel()
            connection.data_received(os.read(descriptor, 65_536))
            connection._transport.resume_reading()
            with pytest.raises(asyncio.CancelledError):
                await pulling
            (message,) = await reader.pull(topic, wait=20)
            assert (message.payload, message.deliveries) == (b"x", 1)

    in_loop(main())


def test_a_cancelled_pull_waits_at_the_server_no_more(
    in_loop: InLoop, server: str, topic: str
) -> None:
    async def main() -> None:
        async with reading(server, topic, 0) as reader:
            pulling = asyncio.create_task(reader.pull(topic, wait=600))
            await asyncio.sleep(0)
            pulling.cancel()
            await check_all_is_free(server, topic, 0)
            assert reader.is_connected
            assert reader._endings == {}

    in_loop(main())


def test_what_a_cancelled_pull_was_granted_goes_to_others_at_once(
    in_loop: InLoop, server: str, topic: str
) -> None:
    async def main() -> None:
        async with reading(server, topic, 10) as one, aio.Subscriber(server, "reader") as two:

            async def pull() -> aio.Batch:
                return await one.pull(topic, auto_ack=False)

            async for ended in cancelled_everywhere(pull):
                if not ended.is_cancelled:
                    await ended.result.nack()
                batch = await two.pull(topic, 100, wait=20, auto_ack=False)
                assert batch.payloads == payloads(0, 10)
                await batch.nack()

    in_loop(main())


def test_a_timeout_around_a_pull_leaves_the_subscriber_as_it_was(
    in_loop: InLoop, server: str, topic: str
) -> None:
    async def main() -> None:
        async with reading(server, topic, 0) as reader, aio.Publisher(server) as publisher:
            for number in range(20):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.005):
                        await reader.pull(topic, wait=60)
                await publisher.send(topic, b"%d" % number)
                assert (await reader.pull(topic, wait=20)).payloads == [b"%d" % number]
            assert reader.is_connected

    in_loop(main())


# --- follow -------------------------------------------------------------------------------------


@pytest.mark.parametrize("begins", ["connected", "cut"])
@pytest.mark.parametrize("verb", ["follow", "follow_batches"])
def test_waiting_for_what_comes_next_in_a_follow_may_be_cancelled_and_begun_again(
    verb: str, begins: str, in_loop: InLoop, server: str, proxy: CuttingProxy, topic: str
) -> None:
    async def main() -> None:
        seen: list[int] = []
        async with (
            reading(server, topic, 0),
            aio.Publisher(server) as publisher,
            aio.Subscriber(proxy.address, "reader") as reader,
        ):
            following = getattr(reader, verb)(topic)

            async def next_offsets() -> list[int]:
                came = await anext(following)
                messages = [came] if verb == "follow" else came
                return [message.offset for message in messages]

            async def next_sent() -> list[int]:
                if begins == "cut":
                    proxy.cut_now()
                await publisher.send(topic, b"x")
                return await next_offsets()

            async for ended in cancelled_everywhere(next_sent):
                if not ended.is_cancelled:
                    seen += ended.result
            last = (await publisher.send(topic, b"last")).offset
            while not seen or seen[-1] != last:
                seen += await next_offsets()
            # A lost connection may bring what was on its way twice, which is at least once.
            assert list(dict.fromkeys(seen)) == list(range(last + 1))
            if begins == "connected":
                assert len(seen) == last + 1
        await check_all_is_free(server, topic, 0)

    in_loop(main())


def test_a_task_that_is_cancelled_in_a_follow_gives_back_what_it_was_not_given(
    in_loop: InLoop, server: str, topic: str
) -> None:
    async def main() -> None:
        async with reading(server, topic, 2500) as reader:
            seen: list[int] = []

            async def follow(count: int) -> None:
                async for message in reader.follow(topic):
                    seen.append(message.offset)
                    if len(seen) == count:
                        await asyncio.Event().wait()

            for count in (1, 999, 1000, 1001, 2400):
                task = asyncio.create_task(follow(count))
                async with asyncio.timeout(20):
                    while len(seen) < count:
                        await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
            rest = await reader.pull(topic, 5000)
            assert [*seen, *(message.offset for message in rest)] == list(range(2500))
            assert {message.deliveries for message in rest} == {1}
        await check_all_is_free(server, topic, 0)

    in_loop(main())


def test_a_pull_right_after_leaving_a_follow_begins_with_what_was_not_yielded(
    in_loop: InLoop, server: str, topic: str
) -> None:
    async def main() -> None:
        async with reading(server, topic, 2500) as reader, aio.Admin(server) as admin:

            async def is_prefetched() -> bool:
                return (await admin.subscription(topic, "reader")).leased == 2500

            async for message in reader.follow(topic):
                assert message.offset == 0
                await until(is_prefetched)
                break
            rest = await reader.pull(topic, 5000)
            assert [message.offset for message in rest] == list(range(1, 2500))

    in_loop(main())


# --- settling -----------------------------------------------------------------------------------


@pytest.mark.parametrize("begins", ["connected", "cut"])
def test_a_cancelled_ack_may_be_made_again(
    begins: str, in_loop: InLoop, server: str, proxy: CuttingProxy, topic: str
) -> None:
    async def main() -> None:
        async with reading(server, topic, 300), aio.Subscriber(proxy.address, "reader") as reader:
            acknowledged = 0

            async def pull_and_ack() -> int:
                batch = await reader.pull(topic, 3, wait=0, auto_ack=False)
                if begins == "cut":
                    proxy.cut_now()
                try:
                    await batch.ack()
                except asyncio.CancelledError:
                    await batch.ack()
                    raise
                return len(batch)

            async for ended in cancelled_everywhere(pull_and_ack):
                acknowledged += ended.result or 0
            assert acknowledged
            while batch := await reader.pull(topic, wait=0):
                await batch.ack()
        await check_all_is_free(server, topic, 0)

    in_loop(main())


# --- send ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("begins", ["connected", "unconnected", "cut"])
def test_a_cancelled_send_is_stored_once_or_not_and_breaks_nothing(
    begins: str, in_loop: InLoop, server: str, proxy: CuttingProxy, topic: str
) -> None:
    async def main() -> None:
        receipts: dict[int, int] = {}
        async with aio.Publisher(proxy.address) as publisher:
            await publisher.create_topic(topic)
            number = 0

            async def send() -> tuple[int, int]:
                nonlocal number
                number += 1
                mine = number
                if begins == "unconnected":
                    await publisher.close()
                elif begins == "cut":
                    proxy.cut_now()
                return mine, (await publisher.send(topic, b"%d" % mine)).offset

            async for ended in cancelled_everywhere(send):
                if not ended.is_cancelled:
                    receipts[ended.result[0]] = ended.result[1]
                # Nothing that was given up keeps the next one from being stored.
                await publisher.send(topic, b"%d" % (number := number + 1))
            assert len(publisher._window) == 0
        stored = [int(payload) for payload in read_all(server, topic)]
        assert stored == sorted(set(stored))
        assert {number: stored.index(number) for number in receipts} == receipts
        assert len(receipts) >= 2

    in_loop(main())


@pytest.mark.parametrize("cuts", [False, True], ids=["lasting", "cut"])
def test_many_sends_cancelled_at_random_are_stored_once_or_not_in_order(
    cuts: bool, in_loop: InLoop, server: str, proxy: CuttingProxy, topic: str
) -> None:
    async def main() -> None:
        rng = random.Random(5)
        async with aio.Publisher(proxy.address) as publisher:
            await publisher.create_topic(topic)
            sends = [
                asyncio.create_task(publisher.send(topic, b"%d" % number)) for number in range(600)
            ]
            doomed = rng.sample(sends, 300)
            for turn, send in enumerate(doomed):
                send.cancel()
                if cuts and turn % 100 == 50:
                    proxy.cut_now()
                if rng.random() < 0.2:
                    await asyncio.sleep(0)
            await asyncio.wait(sends)
            assert (await publisher.send(topic, b"600")).count == 1
            assert len(publisher._window) == 0
        stored = [int(payload) for payload in read_all(server, topic)]
        assert stored == sorted(set(stored))
        for number, send in enumerate(sends):
            if not send.cancelled():
                assert stored[send.result().offset] == number
        assert sum(send.cancelled() for send in sends) > 100

    in_loop(main())


def test_a_cancelled_pipeline_sends_nothing_twice_and_keeps_what_is_gathered(
    in_loop: InLoop, server: str, topic: str
) -> None:
    async def main() -> None:
        async with aio.Publisher(server) as publisher:
            await publisher.create_topic(topic)
            pipe = publisher.pipeline()
            number = 0

            async def send() -> None:
                nonlocal number
                for _ in range(300):
                    await pipe.send_many(topic, payloads(number := number + 1, number + 1))
                    await pipe.send(topic, b"%d" % (number := number + 1))
                await pipe.flush()

            cancelled = 0
            async for ended in cancelled_everywhere(send):
                cancelled += ended.is_cancelled
            await pipe.flush()
            assert cancelled > 2
        # Whatever a call had taken was sent, by it or by the next one: only a cancelled call's
        # own waiting for answers is cut short.
        stored = [int(payload) for payload in read_all(server, topic)]
        assert stored == list(range(1, number + 1))

    in_loop(main())


# --- entering and leaving -----------------------------------------------------------------------


async def connections(admin: aio.Admin) -> int:
    """How many connections the server has beside the one that asks."""
    return (await admin.status()).connections - 1


@pytest.mark.parametrize("kind", [aio.Publisher, aio.Subscriber, aio.Admin])
def test_a_cancelled_entry_leaves_no_connection(
    kind: type[aio.Admin], in_loop: InLoop, server: str
) -> None:
    async def main() -> None:
        async with aio.Admin(server) as admin:
            before = await connections(admin)

            async def enter() -> None:
                async with kind(server):
                    pass

            cancelled = 0
            async for ended in cancelled_everywhere(enter):
                cancelled += ended.is_cancelled

                async def are_gone() -> bool:
                    return await connections(admin) == before

                await until(are_gone)
            assert cancelled > 3

    in_loop(main())


@pytest.mark.parametrize("does", ["pulls", "follows"])
def test_a_cancelled_exit_closes_and_leases_nothing(
    does: str, in_loop: InLoop, server: str, topic: str
) -> None:
    async def main() -> None:
        async with reading(server, topic, 3000), aio.Admin(server) as admin:
            before = await connections(admin)

            async def enter(subscriber: aio.Subscriber) -> Any:
                await subscriber.__aenter__()
                if does == "pulls":
                    return await subscriber.pull(topic, 5, wait=0)
                messages = subscriber.follow(topic)
                await anext(messages)
                return messages

            cancelled = 0
            held: list[Any] = []

            async def leave() -> None:
                await entered.__aexit__(None, None, None)

            for _ in range(1):
                entered = aio.Subscriber(server, "reader")
                held.append(await enter(entered))
                async for ended in cancelled_everywhere(leave):
                    cancelled += ended.is_cancelled
                    assert not entered.is_connected

                    async def are_gone() -> bool:
                        return await connections(admin) == before

                    await until(are_gone)
                    assert (await admin.subscription(topic, "reader")).leased == 0
                    held.append(await enter(entered))
                await entered.close()
            assert cancelled >= 2

    in_loop(main())


# --- the other verbs ----------------------------------------------------------------------------


@pytest.mark.parametrize("begins", ["connected", "unconnected"])
def test_every_other_verb_may_be_cancelled_and_made_again(
    begins: str, in_loop: InLoop, server: str, topic: str
) -> None:
    async def main() -> None:
        async with (
            aio.Publisher(server) as publisher,
            aio.Subscriber(server, "reader") as reader,
            aio.Admin(server) as admin,
        ):
            verbs: list[tuple[aio.Admin | aio.Publisher | aio.Subscriber, Callable[[], Any]]] = [
                (publisher, lambda: publisher.create_topic(topic)),
                (reader, lambda: reader.subscribe(topic)),
                (admin, lambda: admin.topics()),
                (admin, lambda: admin.why(topic)),
                (admin, lambda: admin.status()),
                (admin, lambda: admin.ping()),
                (reader, lambda: reader.settle_all()),
                (publisher, lambda: publisher.create_topic(topic)),
            ]
            for client, verb in verbs:

                async def act(client: Any = client, verb: Any = verb) -> None:
                    if begins == "unconnected":
                        await client.close()
                    await verb()

                async for _ in cancelled_everywhere(act):
                    pass
            assert not (await reader.subscribe(topic)).created

    in_loop(main())
