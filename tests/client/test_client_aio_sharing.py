"""Many tasks on one client: order, pipelining, flow control, misuse, and how it all ends."""

import asyncio
import os
import socket
import threading
from typing import Any

import pytest
from conftest import InLoop
from cutting_proxy import CuttingProxy, read_all
from fake_server import FakeServer, opening

from mbctl import (
    Admin,
    ConnectionLost,
    InvalidArgument,
    LimitExceeded,
    OutcomeUnknown,
    Publisher,
    Subscriber,
    Timeout,
    TopicNotFound,
    aio,
)
from mbctl.model import KIB, LIMITS, MIB
from mbctl.wire import messages as wire


async def soon(condition: Any) -> None:
    """Wait until ``condition`` is true."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


def inode_of(descriptor: int) -> int | None:
    """Which file or socket is open there, if there is one."""
    try:
        return os.fstat(descriptor).st_ino
    except OSError:
        return None


# --- one publisher, many tasks ------------------------------------------------------------------


def test_sends_of_many_tasks_go_out_in_the_order_of_their_calls(
    in_loop: InLoop, server: str, topic: str
) -> None:
    async def main() -> None:
        async with aio.Publisher(server) as publisher:
            await publisher.create_topic(topic)
            receipts = await asyncio.gather(
                *(publisher.send(topic, b"%d" % number) for number in range(1000))
            )
        assert [receipt.offset for receipt in receipts] == list(range(1000))

    in_loop(main())
    assert read_all(server, topic) == [b"%d" % number for number in range(1000)]


def test_sends_do_not_wait_for_each_others_answers_and_keep_within_the_window(
    in_loop: InLoop,
) -> None:
    held: list[int] = []
    window = LIMITS.sends_in_flight

    def hold_sends(request: wire.Message) -> bytes:
        answers = b""
        if isinstance(request, wire.Send):
            held.append(request.id)
        else:
            answers = wire.encode(wire.Done(request.id))
        if len(held) == window or isinstance(request, wire.Ping):
            answers += b"".join(wire.encode(wire.Sent(id_, 0, 1)) for id_ in held)
            held.clear()
        return opening(request) or answers

    async def main() -> None:
        with FakeServer(hold_sends) as fake:
            async with aio.Publisher(fake.address) as publisher:
                sends = [asyncio.create_task(publisher.send("t", b"x")) for _ in range(300)]
                # All that the window has room for is on its way before any is answered.
                await soon(lambda: sum(send.done() for send in sends) == 2 * window)
                await soon(lambda: len(held) == 300 - 2 * window)
                await publisher._run(publisher._ping())
                await asyncio.gather(*sends)

    in_loop(main())


def test_cancelled_sends_count_as_in_flight_until_the_server_has_answered_them(
    in_loop: InLoop,
) -> None:
    held: list[int] = []

    def hold_sends(request: wire.Message) -> bytes:
        if isinstance(request, wire.Send):
            held.append(request.id)
            return b""
        if isinstance(request, wire.Ping):
            answers = b"".join(wire.encode(wire.Sent(id_, 0, 1)) for id_ in held)
            held.clear()
            return answers + wire.encode(wire.Done(request.id))
        return opening(request)

    async def main() -> None:
        window = LIMITS.sends_in_flight
        with FakeServer(hold_sends) as fake:
            async with aio.Publisher(fake.address) as publisher:
                sends = [asyncio.create_task(publisher.send("t", b"x")) for _ in range(window)]
                await soon(lambda: len(held) == window)
                for send in sends:
                    send.cancel()
                await asyncio.wait(sends)
                more = [asyncio.create_task(publisher.send("t", b"y")) for _ in range(9)]
                await asyncio.sleep(0)
                await publisher._run(publisher._ping())
                await soon(lambda: len(held) == 9)
                # Not one of them was sent before the window had room for it.
                kinds = [type(request) for request in fake.requests[2:]]
                assert kinds == [wire.Send] * window + [wire.Ping] + [wire.Send] * 9
                await publisher._run(publisher._ping())
                await asyncio.gather(*more)

    in_loop(main())


def test_requests_beside_the_sends_keep_within_what_the_server_takes(in_loop: InLoop) -> None:
    bound = LIMITS.connection_requests - LIMITS.connection_pulls - LIMITS.sends_in_flight
    held: list[int] = []

    def hold_until_the_bound(request: wire.Message) -> bytes:
        if not isinstance(request, wire.Ping):
            return opening(request)
        held.append(request.id)
        if len(held) < bound:
            return b""
        answers = b"".join(wire.encode(wire.Done(id_)) for id_ in held)
        held.clear()
        return answers

    async def main() -> None:
        with FakeServer(hold_until_the_bound) as fake:
            async with aio.Admin(fake.address) as admin:
                connection = admin._connection
                assert connection is not None
                pings = [asyncio.create_task(admin.ping()) for _ in range(2 * bound)]
                await asyncio.sleep(0)
                # The second half goes out only as the first is answered.
                assert len(connection._takers) == bound
                await asyncio.gather(*pings)
            assert len(fake.requests) == 1 + 2 * bound
        assert held == []

    in_loop(main())


def test_writing_waits_while_the_server_does_not_read(in_loop: InLoop) -> None:
    reading = threading.Event()

    def read_later(request: wire.Message) -> bytes:
        if isinstance(request, wire.Send):
            assert reading.wait(20)
            return wire.encode(wire.Sent(request.id, request.sequence, 1))
        return opening(request)

    async def main() -> None:
        with FakeServer(read_later, receive_bytes=64 * KIB) as fake:
            async with aio.Publisher(fake.address) as publisher:
                payload = bytes(MIB - 100)
                sends = [asyncio.create_task(publisher.send("t", payload)) for _ in range(30)]
                connection = publisher._connection
                assert connection is not None
                await soon(lambda: connection.is_congested and publisher._turn.locked())
                # The window's bound is a second one; what is unsent is a part of what is in it.
                assert len(publisher._window) <= 10
                reading.set()
                receipts = await asyncio.gather(*sends)
            assert [receipt.offset for receipt in receipts] == list(range(1, 31))

    in_loop(main())


def test_pipelines_of_several_tasks_go_side_by_side(
    in_loop: InLoop, server: str, topic: str
) -> None:
    async def main() -> None:
        async with aio.Publisher(server) as publisher:
            await publisher.create_topic(topic)

            async def send_all() -> int:
                async with publisher.pipeline() as pipe:
                    for number in range(5000):
                        await pipe.send(topic, b"%d" % number)
                return pipe.sent

            sent = await asyncio.gather(*(send_all() for _ in range(3)))
        assert sent == [5000] * 3

    in_loop(main())
    assert sorted(map(int, read_all(server, topic))) == sorted(list(range(5000)) * 3)


def test_one_pipeline_may_be_shared_by_tasks(in_loop: InLoop, server: str, topic: str) -> None:
    async def main() -> None:
        async with aio.Publisher(server) as publisher:
            await publisher.create_topic(topic)
            async with publisher.pipeline() as pipe:

                async def send_some(task: int) -> None:
                    for number in range(100):
                        await pipe.send_many(topic, [b"%d %d" % (task, number)])

                await asyncio.gather(*(send_some(task) for task in range(10)))
            assert pipe.sent == 1000

    in_loop(main())
    stored = read_all(server, topic)
    for task in range(10):
        own = [payload for payload in stored if payload.startswith(b"%d " % task)]
        assert own == [b"%d %d" % (task, number) for number in range(100)]


def test_sends_of_many_tasks_survive_lost_connections(
    in_loop: InLoop, server: str, proxy: CuttingProxy, topic: str
) -> None:
    async def main() -> None:
        async with aio.Publisher(proxy.address) as publisher:
            await publisher.create_topic(topic)
            sends = []
            for number in range(1000):
                sends.append(asyncio.create_task(publisher.send(topic, b"%d" % number)))
                if number % 200 == 150:
                    proxy.cut_now()
                if number % 10 == 0:
                    await asyncio.sleep(0)
            receipts = await asyncio.gather(*sends)
        assert [receipt.offset for receipt in receipts] == list(range(1000))

    in_loop(main())
    assert read_all(server, topic) == [b"%d" % number for number in range(1000)]


# --- one subscriber, several topics -------------------------------------------------------------


def test_tasks_pull_from_several_topics_at_once(in_loop: InLoop, server: str, topic: str) -> None:
    async def main() -> None:
        names = [f"{topic}-{number}" for number in range(20)]
        async with aio.Publisher(server) as publisher, aio.Subscriber(server, "s") as subscriber:
            for name in names:
                await publisher.create_topic(name)
                await subscriber.subscribe(name)
            pulls = [asyncio.create_task(subscriber.pull(name, wait=20)) for name in names]
            await asyncio.sleep(0)
            for name in reversed(names):
                await publisher.send(name, name)
            batches = await asyncio.gather(*pulls)
            assert [batch.payloads for batch in batches] == [[name.encode()] for name in names]
        with Admin(server) as admin:
            assert {admin.topic(name).messages for name in names} == {0}

    in_loop(main())


def test_two_pulls_from_one_topic_at_once_are_refused(
    in_loop: InLoop, server: str, topic: str
) -> None:
    async def main() -> None:
        async with aio.Publisher(server) as publisher, aio.Subscriber(server, "s") as subscriber:
            await publisher.create_topic(topic)
            await subscriber.subscribe(topic)
            pulling = asyncio.create_task(subscriber.pull(topic, wait=20))
            await asyncio.sleep(0)
            with pytest.raises(InvalidArgument, match="another task is pulling"):
                await subscriber.pull(topic)
            with pytest.raises(InvalidArgument, match="another task is pulling"):
                await anext(subscriber.follow(topic))
            await publisher.send(topic, b"x")
            assert (await pulling).payloads == [b"x"]
            following = subscriber.follow(topic)
            waiting = asyncio.ensure_future(anext(following))
            await asyncio.sleep(0)
            with pytest.raises(InvalidArgument, match="another task is pulling"):
                await subscriber.pull(topic)
            with pytest.raises(InvalidArgument, match="another task is pulling"):
                await anext(following)
            waiting.cancel()

    in_loop(main())


def test_a_pull_inside_a_follow_of_the_same_topic_goes_on_behind_it(
    in_loop: InLoop, server: str, topic: str
) -> None:
    async def main() -> None:
        async with aio.Publisher(server) as publisher, aio.Subscriber(server, "s") as subscriber:
            await publisher.create_topic(topic)
            await subscriber.subscribe(topic)
            await publisher.send(topic, b"0")
            async for message in subscriber.follow(topic):
                assert message.offset == 0
                assert not await subscriber.pull(topic, wait=0)
                break

    in_loop(main())


def test_more_pulls_than_the_server_takes_are_refused_and_the_others_go_on(
    in_loop: InLoop, server: str, topic: str
) -> None:
    async def main() -> None:
        count = LIMITS.connection_pulls + 1
        names = [f"{topic}-{number}" for number in range(count)]
        async with aio.Publisher(server) as publisher, aio.Subscriber(server, "s") as subscriber:
            for name in names:
                await publisher.create_topic(name)
                await subscriber.subscribe(name)
            pulls = [asyncio.create_task(subscriber.pull(name, wait=20)) for name in names]
            await soon(lambda: any(pull.done() for pull in pulls))
            for name in names:
                await publisher.send(name, b"x")
            results = await asyncio.gather(*pulls, return_exceptions=True)
        assert sum(isinstance(result, LimitExceeded) for result in results) == 1
        assert sum(isinstance(result, aio.Batch) for result in results) == count - 1

    in_loop(main())


# --- the end ------------------------------------------------------------------------------------


def test_closing_ends_what_other_tasks_wait_for(in_loop: InLoop, server: str, topic: str) -> None:
    async def main() -> None:
        subscriber = aio.Subscriber(server, "s")
        async with aio.Admin(server) as admin:
            await admin.create_topic(topic)
            await subscriber.subscribe(topic)
            pulling = asyncio.create_task(subscriber.pull(topic, wait=60))
            await asyncio.sleep(0.01)
            await subscriber.close()
            with pytest.raises(ConnectionLost, match="it was closed here"):
                await pulling

            async def follow() -> list[aio.Message]:
                return [message async for message in subscriber.follow(topic)]

            following = asyncio.create_task(follow())
            await asyncio.sleep(0.01)
            await subscriber.close()
            # Its loop ends as that of the sync face does.
            assert await following == []
            assert not subscriber.is_connected
            # And it may go on.
            assert not await subscriber.pull(topic, wait=0)
            await subscriber.close()

    in_loop(main())


def test_closing_leaves_the_outcome_of_unanswered_sends_unknown(in_loop: InLoop) -> None:
    async def main() -> None:
        with FakeServer() as fake:
            publisher = aio.Publisher(fake.address)
            pipe = publisher.pipeline()
            await pipe.send_many("t", [b"a"])
            await pipe.send_many("t", [b"b"])
            sending = asyncio.create_task(publisher.send("t", b"c"))
            await asyncio.sleep(0)
            await publisher.close()
            with pytest.raises(OutcomeUnknown, match="the send to 't'"):
                await sending
            with pytest.raises(OutcomeUnknown, match="and 1 more"):
                await pipe.flush()
            await publisher.close()

            def sent() -> list[int]:
                return [r.sequence for r in list(fake.requests) if isinstance(r, wire.Send)]

            # The server reads when it likes; closing has sent it all that was to be sent.
            await soon(lambda: len(sent()) == 3)
            assert sent() == [1, 2, 3]

    in_loop(main())


def test_closing_while_it_connects_leaves_no_connection(in_loop: InLoop) -> None:
    async def main() -> None:
        with FakeServer(lambda _: b"") as fake:
            admin = aio.Admin(fake.address, timeout=0.3)
            asking = [asyncio.create_task(admin.status()) for _ in range(5)]
            await soon(lambda: fake.requests)
            await admin.close()
            results = await asyncio.gather(*asking, return_exceptions=True)
            assert {type(result) for result in results} == {ConnectionLost}
            assert not admin.is_connected

    in_loop(main())


def test_who_waits_for_a_connection_makes_none_after_the_close(in_loop: InLoop) -> None:
    welcome = threading.Event()

    def welcome_later(request: wire.Message) -> bytes:
        assert welcome.wait(20)
        return opening(request)

    async def main() -> None:
        with FakeServer(welcome_later) as fake:
            admin = aio.Admin(fake.address)
            asking = [asyncio.create_task(admin.status()) for _ in range(5)]
            await soon(lambda: fake.requests)
            await admin.close()
            welcome.set()
            results = await asyncio.gather(*asking, return_exceptions=True)
            assert {str(result).partition(": ")[2] for result in results} == {"it was closed here"}
            assert fake.connections == 1

    in_loop(main())


def test_a_cancelled_close_lets_go_of_what_a_server_does_not_read(in_loop: InLoop) -> None:
    reading = threading.Event()

    def never_read(request: wire.Message) -> bytes:
        if isinstance(request, wire.Send):
            assert reading.wait(20)
        return opening(request)

    async def main() -> None:
        with FakeServer(never_read, receive_bytes=64 * KIB) as fake:
            async with aio.Publisher(fake.address) as publisher:
                sends = [
                    asyncio.create_task(publisher.send("t", bytes(MIB - 100))) for _ in range(30)
                ]
                connection = publisher._connection
                assert connection is not None
                await soon(lambda: connection.is_congested and publisher._turn.locked())
                assert connection._transport is not None
                descriptor = connection._transport.get_extra_info("socket").fileno()
                inode = os.fstat(descriptor).st_ino
                closing = asyncio.create_task(publisher.close())
                await asyncio.sleep(0)
                closing.cancel()
                await asyncio.wait([closing])
                await soon(lambda: inode_of(descriptor) != inode)
                results = await asyncio.gather(*sends, return_exceptions=True)
                assert {type(result) for result in results} <= {OutcomeUnknown, ConnectionLost}
            reading.set()

    in_loop(main())


def test_a_lost_connection_is_told_to_all_who_wait_once_time_is_up(in_loop: InLoop) -> None:
    async def main() -> None:
        with FakeServer() as fake:
            admin = aio.Admin(fake.address, timeout=0.4)
            asking = [asyncio.create_task(admin.status()) for _ in range(20)]
            await soon(lambda: len(fake.requests) > 15)
        errors = await asyncio.gather(*asking, return_exceptions=True)
        assert {type(error) for error in errors} <= {ConnectionLost, Timeout}
        # Each has an error of its own, with a traceback of its own.
        assert len({id(error) for error in errors}) == 20
        await admin.close()

    in_loop(main())


def test_a_server_that_does_not_answer_is_left_for_another_connection(in_loop: InLoop) -> None:
    async def main() -> None:
        answers = False

        def answer(request: wire.Message) -> bytes:
            if isinstance(request, wire.Ping) and answers:
                return wire.encode(wire.Done(request.id))
            return opening(request)

        with FakeServer(answer) as fake:
            async with aio.Admin(fake.address, timeout=0.1) as admin:
                with pytest.raises(Timeout):
                    await admin.ping()
                answers = True
                assert await admin.ping() < 0.1
            assert fake.connections == 2

    in_loop(main())


# --- other loops, threads, processes ------------------------------------------------------------


def test_a_client_that_was_closed_may_go_on_in_another_loop(server: str, topic: str) -> None:
    publisher = aio.Publisher(server)

    async def send() -> int:
        async with publisher:
            await publisher.create_topic(topic)
            results = await asyncio.gather(*(publisher.send(topic, b"x") for _ in range(200)))
            return results[-1].offset

    assert [asyncio.run(send()) for _ in range(3)] == [199, 399, 599]


def test_a_call_from_another_loop_is_refused(in_loop: InLoop, server: str, topic: str) -> None:
    async def main() -> None:
        async with (
            aio.Publisher(server) as publisher,
            aio.Subscriber(server, "s") as subscriber,
            aio.Admin(server) as admin,
        ):
            await publisher.create_topic(topic)
            await subscriber.subscribe(topic)
            calls = [
                admin.status,
                admin.close,
                publisher.close,
                subscriber.close,
                lambda: publisher.send(topic, b"x"),
                lambda: subscriber.pull(topic, wait=0),
            ]
            errors: list[str] = []

            def call_elsewhere() -> None:
                for call in calls:
                    try:
                        asyncio.run(call())
                    except InvalidArgument as error:
                        errors.append(str(error).partition(" is ")[2])

            await asyncio.to_thread(call_elsewhere)
            assert errors == ["at work in another event loop"] * len(calls)
            assert (await publisher.send(topic, b"x")).offset == 0
            assert (await subscriber.pull(topic)).payloads == [b"x"]
            assert await admin.topics()

    in_loop(main())


def test_a_follow_that_is_garbage_is_left_from_whatever_thread_finds_it(
    in_loop: InLoop, server: str, topic: str
) -> None:
    async def main() -> None:
        async with aio.Publisher(server) as publisher, aio.Subscriber(server, "s") as subscriber:
            await publisher.create_topic(topic)
            await subscriber.subscribe(topic)
            await publisher.send_many(topic, [b"0", b"1", b"2"])
            held = [subscriber.follow(topic)]
            assert (await anext(held[0])).offset == 0
            await asyncio.to_thread(held.clear)
            batch = await subscriber.pull(topic, wait=20)
            assert [message.offset for message in batch] == [1, 2]
            assert {message.deliveries for message in batch} == {1}

    in_loop(main())


# --- both faces at once -------------------------------------------------------------------------


def test_both_faces_share_a_subscriber_and_the_order_of_a_topic(
    in_loop: InLoop, server: str, topic: str
) -> None:
    async def main() -> None:
        async with aio.Publisher(server) as publisher, aio.Subscriber(server, "s") as subscriber:
            await publisher.create_topic(topic)
            await subscriber.subscribe(topic)
            await publisher.send_many(topic, [b"0", b"1"])
            with Publisher(server) as other:
                other.send_many(topic, [b"2", b"3"])
            assert (await subscriber.pull(topic, 3)).payloads == [b"0", b"1", b"2"]
            with Subscriber(server, "s") as other_reader:
                assert other_reader.pull(topic).payloads == [b"3"]
        with Admin(server) as admin:
            assert admin.subscription(topic, "s").cursor == 4

    in_loop(main())


def test_every_verb_of_a_lazily_connected_client_connects(
    in_loop: InLoop, server: str, topic: str
) -> None:
    async def main() -> None:
        publisher, subscriber = aio.Publisher(server), aio.Subscriber(server)
        with pytest.raises(TopicNotFound):
            await publisher.send(topic, b"x")
        await publisher.create_topic(topic)
        await subscriber.subscribe(topic)
        await publisher.close()
        assert (await publisher.send(topic, b"x")).offset == 0
        assert (await anext(subscriber.follow(topic))).payload == b"x"
        await publisher.close()
        await subscriber.close()

    in_loop(main())


def test_a_server_that_is_not_there_is_told_and_leaves_nothing(in_loop: InLoop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    async def main() -> None:
        with pytest.raises(ConnectionLost, match="connection refused"):
            async with aio.Publisher(f"127.0.0.1:{port}", timeout=0.2):
                pass
        with pytest.raises(ConnectionLost, match="no connection to localhost"):
            await aio.Admin(f"localhost:{port}", timeout=0.2).status()

    in_loop(main())
