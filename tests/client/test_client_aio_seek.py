"""A seek of one task while another follows the same topic with the same Subscriber."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from mbctl import aio

InLoop = Callable[[Coroutine[Any, Any, None]], None]


def test_a_follow_that_waits_goes_on_from_where_another_task_seeks(
    server: str, topic: str, in_loop: InLoop
) -> None:
    async def main() -> None:
        async with aio.Publisher(server) as publisher, aio.Subscriber(server, "r") as reader:
            await publisher.create_topic(topic, retain_age=3600.0)
            await reader.subscribe(topic)
            await publisher.send_many(topic, ["a", "b", "c"])
            seen: list[int] = []
            came = asyncio.Condition()

            async def follow() -> None:
                async for message in reader.follow(topic):
                    async with came:
                        seen.append(message.offset)
                        came.notify_all()

            async def until(count: int) -> None:
                async with asyncio.timeout(10), came:
                    await came.wait_for(lambda: len(seen) >= count)

            following = asyncio.create_task(follow())
            await until(3)
            for start, new in ((0, [0, 1, 2]), (2, [2]), ("earliest", [0, 1, 2])):
                before = len(seen)
                await reader.seek(topic, start)
                await until(before + len(new))
                assert seen[before:] == new
            await publisher.send(topic, "d")
            await until(11)
            assert seen[10:] == [3]
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    in_loop(main())


def test_what_was_prefetched_is_not_lost_when_another_task_seeks(
    server: str, topic: str, in_loop: InLoop
) -> None:
    async def main() -> None:
        async with aio.Publisher(server) as publisher, aio.Subscriber(server, "r") as reader:
            await publisher.create_topic(topic)
            await reader.subscribe(topic)
            await publisher.send_many(topic, [b"%d" % n for n in range(2500)])
            seen: list[int] = []
            async for message in reader.follow(topic):
                seen.append(message.offset)
                if message.offset == 100 and len(seen) == 101:
                    # The next thousand is on its way, or here already.
                    await asyncio.create_task(reader.seek(topic, 50))
                if message.offset == 2499:
                    break
            assert seen == [*range(101), *range(50, 2500)]
        async with aio.Admin(server) as admin:
            assert (await admin.subscription(topic, "r")).unread == 0

    in_loop(main())
