"""After a fork the child is another client, and the parent has noticed nothing."""

import asyncio
import multiprocessing
import os
import socket
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import pytest
import uvloop
from broker_process import PATIENCE_S, wait_until
from cutting_proxy import CuttingProxy, read_all

from mbctl import Admin, InvalidArgument, Publisher, Subscriber, aio

# Newer Pythons warn of any fork beside threads; that is what is tested.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

# A child that hangs is a failure, and has no pytest that would end it.
FORK = multiprocessing.get_context("fork")


def in_child(act: Callable[[], object]) -> None:
    """Do ``act`` in the child of a fork, and wait for that child to end."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            act()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    try:
        wait_until(lambda: os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT))
    except AssertionError:
        os.kill(child, 9)
        raise
    finally:
        status = os.waitpid(child, 0)[1]
    assert os.waitstatus_to_exitcode(status) == 0, "see what the child wrote to stderr"


# --- publishers ---------------------------------------------------------------------------------


def test_a_publisher_sends_from_both_sides_of_a_fork(server: str, topic: str) -> None:
    with Publisher(server) as publisher:
        publisher.create_topic(topic)
        publisher.send(topic, b"parent 1")
        session, channel = publisher._session, publisher._channel

        def send() -> None:
            assert not publisher.is_connected
            publisher.send(topic, b"child 1")
            publisher.send(topic, b"child 2")
            assert publisher._session != session

        in_child(send)
        publisher.send(topic, b"parent 2")
        assert (publisher._session, publisher._channel) == (session, channel)
    assert read_all(server, topic) == [b"parent 1", b"child 1", b"child 2", b"parent 2"]


def test_sends_of_the_parent_that_have_no_answer_stay_the_parents(
    server: str, proxy: CuttingProxy, topic: str
) -> None:
    with Publisher(proxy.address) as publisher:
        publisher.create_topic(topic)
        pipe = publisher.pipeline()
        pipe.send_many(topic, [b"sent"])
        pipe.send(topic, b"gathered")

        def go_on() -> None:
            assert len(publisher._window) == 0
            # The pipeline of the child begins anew, with a session of its own.
            pipe.flush()
            pipe.send(topic, b"child")
            pipe.flush()
            assert pipe.sent == 1

        in_child(go_on)
        # All that the parent has in flight is sent again, and stored once.
        proxy.cut_now()
        pipe.flush()
        assert pipe.sent == 2
    assert sorted(read_all(server, topic)) == [b"child", b"gathered", b"sent"]


def test_leaving_blocks_in_the_child_does_nothing_to_what_is_the_parents(
    server: str, topic: str
) -> None:
    with Publisher(server) as publisher, Subscriber(server, "s") as subscriber:
        publisher.create_topic(topic)
        subscriber.subscribe(topic)
        publisher.send_many(topic, [b"0", b"1"])
        subscriber.pull(topic, 1)
        pipe = publisher.pipeline().__enter__()
        pipe.send(topic, b"2")

        def leave() -> None:
            for block in (pipe, subscriber, publisher):
                block.__exit__(None, None, None)

        in_child(leave)
        with Admin(server) as admin:
            # Neither acknowledged nor given back, and not sent.
            info = admin.subscription(topic, "s")
            assert (info.cursor, info.leased, info.unread) == (0, 1, 2)
        pipe.__exit__(None, None, None)
        assert subscriber.pull(topic).payloads == [b"1", b"2"]
    with Admin(server) as admin:
        assert admin.subscription(topic, "s").cursor == 3


def test_a_fork_in_the_middle_of_other_threads_calls_leaves_the_child_free(
    server: str, topic: str
) -> None:
    with Publisher(server) as publisher, Subscriber(server, "s") as subscriber:
        publisher.create_topic(topic)
        subscriber.subscribe(topic)
        is_over = threading.Event()
        sent: list[int] = []

        def send() -> None:
            while not is_over.is_set():
                publisher.send(topic, b"thread")
                sent.append(1)

        threads = [threading.Thread(target=send) for _ in range(4)]
        pulling = threading.Thread(target=subscriber.pull, args=(f"{topic}-quiet",))
        publisher.create_topic(f"{topic}-quiet")
        subscriber.subscribe(f"{topic}-quiet")
        for thread in (*threads, pulling):
            thread.start()

        def act() -> None:
            publisher.send(topic, b"child")
            batch = subscriber.pull(topic, 1, auto_ack=False)
            assert len(batch) == 1
            batch.nack()
            subscriber.close()

        for number in range(5):
            wait_until(lambda enough=20 * number: len(sent) > enough)
            in_child(act)
        is_over.set()
        for thread in threads:
            thread.join()
        publisher.send(f"{topic}-quiet", b"end")
        pulling.join()
    stored = read_all(server, topic)
    assert (stored.count(b"child"), stored.count(b"thread")) == (5, len(sent))


def send_in_pool(topic: str, first: int) -> int:
    """Send ten messages with the publisher of the parent's module."""
    assert inherited is not None
    for number in range(first, first + 10):
        inherited.send(topic, b"%d" % number)
    return os.getpid()


inherited: Publisher | None = None


def test_workers_of_a_process_pool_each_send_with_the_publisher_they_inherit(
    server: str, topic: str
) -> None:
    global inherited
    with Publisher(server) as inherited:
        inherited.create_topic(topic)
        with ProcessPoolExecutor(3, FORK) as pool:
            jobs = [pool.submit(send_in_pool, topic, 10 * number) for number in range(6)]
            assert os.getpid() not in {job.result(PATIENCE_S) for job in jobs}
        inherited.send(topic, b"60")
    stored = [int(payload) for payload in read_all(server, topic)]
    assert sorted(stored) == list(range(61))
    assert stored[-1] == 60


# --- subscribers --------------------------------------------------------------------------------


def test_processes_of_multiprocessing_share_the_work_of_a_durable_subscriber(
    server: str, topic: str
) -> None:
    with Publisher(server) as publisher, Subscriber(server, "s") as subscriber:
        publisher.create_topic(topic)
        subscriber.subscribe(topic)
        publisher.send_many(topic, [b"%d" % number for number in range(30)])
        seen = FORK.SimpleQueue()

        def work() -> None:
            batch = subscriber.pull(topic, 10, auto_ack=False)
            seen.put([message.offset for message in batch])
            batch.ack()

        workers = [FORK.Process(target=work) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(PATIENCE_S)
            assert worker.exitcode == 0
        own = [message.offset for message in subscriber.pull(topic)]
        assert sorted(own + seen.get() + seen.get()) == list(range(30))
        seen.close()
    with Admin(server) as admin:
        assert admin.subscription(topic, "s").cursor == 30


def test_an_ephemeral_subscriber_is_another_one_in_the_child(server: str, topic: str) -> None:
    with Publisher(server) as publisher, Subscriber(server) as subscriber:
        publisher.create_topic(topic)
        subscriber.subscribe(topic)
        publisher.send_many(topic, [b"0", b"1", b"2"])
        assert subscriber.pull(topic, 1).payloads == [b"0"]

        def pull() -> None:
            # It begins where the parent was, and takes nothing from it.
            name = subscriber.subscriber
            assert subscriber.pull(topic).payloads == [b"1", b"2"]
            assert subscriber.subscriber != name

        in_child(pull)
        assert subscriber.pull(topic).payloads == [b"1", b"2"]


@pytest.mark.parametrize("verb", ["ack", "nack", "extend"])
def test_what_the_parent_has_pulled_is_settled_by_the_parent_alone(
    verb: str, server: str, topic: str
) -> None:
    with Publisher(server) as publisher, Subscriber(server, "s") as subscriber:
        publisher.create_topic(topic)
        subscriber.subscribe(topic)
        publisher.send_many(topic, [b"0", b"1"])
        batch = subscriber.pull(topic, auto_ack=False)

        def settle() -> None:
            for what in (batch, next(iter(batch))):
                with pytest.raises(InvalidArgument, match="pulled in the parent process"):
                    getattr(what, verb)()

        in_child(settle)
        assert batch.ack() == 2


def test_a_loop_goes_on_in_the_child_with_what_the_child_pulls(server: str, topic: str) -> None:
    with Publisher(server) as publisher, Subscriber(server, "s") as subscriber:
        publisher.create_topic(topic)
        subscriber.subscribe(topic)
        publisher.send_many(topic, [b"%d" % number for number in range(10)])
        messages = subscriber.follow(topic)
        assert next(messages).payload == b"0"

        def go_on() -> None:
            assert next(messages).payload in {b"new", b"newer"}

        child = threading.Thread(target=in_child, args=(go_on,))
        child.start()
        with Admin(server) as admin:
            wait_until(lambda: admin.subscription(topic, "s").waiting_pulls == 2)
        # Both wait for what is new, and each gets one of them.
        publisher.send(topic, b"new")
        publisher.send(topic, b"newer")
        child.join()
        rest = [next(messages).payload for _ in range(10)]
        assert rest[:9] == [b"%d" % number for number in range(1, 10)]
        assert rest[9] in {b"new", b"newer"}
        messages.close()


# --- connections --------------------------------------------------------------------------------


def sockets_to(server: str) -> int:
    """How many connections to the server this process has."""
    port, count = int(server.rpartition(":")[2]), 0
    for descriptor in map(int, os.listdir("/dev/fd")):
        try:
            sock = socket.socket(fileno=descriptor)
        except OSError:
            continue
        try:
            count += sock.family == socket.AF_INET and sock.getpeername()[1] == port
        except OSError:
            pass
        finally:
            sock.detach()
    return count


def test_the_child_keeps_none_of_the_parents_connections_open(server: str) -> None:
    async def connected() -> aio.Admin:
        admin = aio.Admin(server)
        await admin.topics()
        return admin

    before = sockets_to(server)
    loop = asyncio.new_event_loop()
    with Publisher(server), Subscriber(server, "s"), Admin(server):
        other = loop.run_until_complete(connected())
        assert sockets_to(server) == before + 4

        def look() -> None:
            assert sockets_to(server) == 0

        in_child(look)
        assert sockets_to(server) == before + 4
        loop.run_until_complete(other.close())
    loop.close()


def test_a_parent_that_is_gone_is_seen_though_its_child_lives(server: str, topic: str) -> None:
    with Publisher(server) as publisher, Subscriber(server, "s") as subscriber:
        publisher.create_topic(topic)
        subscriber.subscribe(topic)
        publisher.send(topic, b"x")
    is_leased, is_seen = FORK.Event(), FORK.Event()

    def pull_and_die() -> None:
        subscriber = Subscriber(server, "s")
        assert subscriber.pull(topic).payloads == [b"x"]
        if os.fork() == 0:
            is_leased.set()
            is_seen.wait(PATIENCE_S)
        os._exit(0)

    process = FORK.Process(target=pull_and_die)
    process.start()
    assert is_leased.wait(PATIENCE_S)
    with Admin(server) as admin:
        # Its lease has ended with it, long before ``ack_wait``.
        wait_until(lambda: admin.subscription(topic, "s").leased == 0)
    is_seen.set()
    process.join(PATIENCE_S)


# --- asyncio ------------------------------------------------------------------------------------


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_asyncio_clients_that_are_connected_are_of_no_use_in_the_child(
    new_loop: Callable[[], asyncio.AbstractEventLoop], server: str, topic: str
) -> None:
    loop = new_loop()
    publisher, subscriber, admin = aio.Publisher(server), aio.Subscriber(server, "s"), None

    async def begin() -> "aio.Batch":
        nonlocal admin
        admin = aio.Admin(server)
        await admin.create_topic(topic)
        await subscriber.subscribe(topic)
        await publisher.send_many(topic, [b"0", b"1"])
        return await subscriber.pull(topic, auto_ack=False)

    batch = loop.run_until_complete(begin())

    async def use() -> None:
        assert admin is not None
        uses = (
            lambda: publisher.send(topic, b"child"),
            lambda: publisher.create_topic(topic),
            lambda: subscriber.pull(topic),
            lambda: admin.topics(),
        )
        for call in uses:
            with pytest.raises(InvalidArgument, match="does not survive a fork; make another one"):
                await call()
        with pytest.raises(InvalidArgument, match="pulled in the parent process"):
            await batch.ack()
        with pytest.raises(InvalidArgument, match="does not survive a fork"):
            subscriber.follow(topic)
        for client in (publisher, subscriber, admin):
            await client.close()
        async with aio.Publisher(server) as another:
            await another.send(topic, b"child")

    in_child(lambda: asyncio.run(use()))

    async def go_on() -> None:
        assert admin is not None
        connections = [publisher._connection, subscriber._connection, admin._connection]
        assert all(connection is not None and connection.is_open for connection in connections)
        await publisher.send(topic, b"parent")
        await batch.ack()
        assert (await subscriber.pull(topic)).payloads == [b"child", b"parent"]
        for client in (publisher, subscriber, admin):
            await client.close()

    loop.run_until_complete(go_on())
    loop.close()


@pytest.mark.parametrize("was_used", [False, True], ids=["unused", "closed"])
def test_asyncio_clients_that_are_not_connected_may_be_used_in_the_child(
    was_used: bool, server: str, topic: str
) -> None:
    publisher = aio.Publisher(server)

    async def send(payload: bytes) -> None:
        async with publisher:
            await publisher.create_topic(topic)
            await publisher.send(topic, payload)

    if was_used:
        asyncio.run(send(b"parent 1"))
    for _ in range(2):
        in_child(lambda: asyncio.run(send(b"child")))
    asyncio.run(send(b"parent 2"))
    # Each child has a session of its own: none of their sends is taken for another's.
    assert read_all(server, topic)[was_used:] == [b"child", b"child", b"parent 2"]


# --- what it costs ------------------------------------------------------------------------------


def test_nothing_is_asked_of_the_system_at_each_call(
    publisher: Publisher, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.create_topic(topic)

    def never() -> int:
        raise AssertionError("a call has asked which process this is")

    monkeypatch.setattr(os, "getpid", never)
    assert publisher.send(topic, b"x").count == 1
