"""Clients that ask too much, read too little, stop half way, or send what is no request.

How long others wait beside them is measured by scripts/hostile_figures.py; here is what must
hold whatever the machine does: bounds, counts, and that everybody else is served.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from broker_process import BrokerProcess, wait_until
from server_harness import RawClient, ServerInside

from mbctl import Admin, Publisher, Subscriber
from mbctl.model import KIB, MIB, Limits
from mbctl.wire import messages as wire

Start = Callable[..., BrokerProcess]


@pytest.fixture(params=["uvloop", pytest.param("asyncio", marks=pytest.mark.slow)])
def on_loop(request: pytest.FixtureRequest) -> Callable[[Limits], ServerInside]:
    """Makes a server in this process, on either event loop, with limits of one's own."""
    loop_factory: Any = asyncio.SelectorEventLoop
    if request.param == "uvloop":
        loop_factory = pytest.importorskip("uvloop").Loop
    return lambda limits: ServerInside(limits, loop_factory=loop_factory)


Inside = Callable[[Limits], ServerInside]


# --- who asks too much --------------------------------------------------------------------------


def test_a_thousand_requests_in_one_piece_do_not_go_before_one_of_another(on_loop: Inside) -> None:
    with on_loop(Limits()) as inside, inside.client() as flooder, inside.client() as other:
        flooder.hello()
        other.hello()
        content = b"".join(flooder.frame(wire.CreateTopic(0, f"t{n}")) for n in range(1000))
        with inside.held():
            # Both are there when the server looks, the flood first.
            flooder.write(content)
            other.write(other.frame(wire.GetStatus(0)))
        answer = other.reply()
        assert isinstance(answer, wire.StatusReply)
        assert answer.status.topics < 500
        assert isinstance(flooder.reply(), wire.Created)
        assert len(_topics(other)) == 1000


def _topics(client: RawClient) -> list[Any]:
    answer = client.ask(wire.GetTopics(0))
    assert isinstance(answer, wire.TopicsReply)
    return answer.topics


def test_requests_that_wait_for_their_turn_are_kept_as_they_came(on_loop: Inside) -> None:
    with on_loop(Limits()) as inside, inside.client() as client:
        client.hello()
        content = b"".join(client.frame(wire.Ping(0)) for _ in range(10_000))
        with inside.held():
            client.write(content)
        (connection,) = inside.server.connections
        # As bytes, of which there are as many as were sent; as messages they would be ten times.
        inside.wait_until(lambda: connection.buffered or connection._requests == 0)
        assert inside.on_loop(lambda: inside.server.partial.bytes) <= len(content)
        assert isinstance(client.reply(), wire.Done)
        assert len(client._replies) == 9_999


def test_sessions_that_were_never_used_give_way_to_new_ones() -> None:
    with ServerInside(Limits(sessions=10)) as inside, Publisher(inside.address) as publisher:
        publisher.create_topic("t")
        publisher.send("t", b"x")
        for number in range(100):
            with inside.client() as client:
                client.publisher(number.to_bytes(16, "big"))
        assert inside.on_loop(lambda: inside.engine.core.session_count) == 10
        assert publisher.send("t", b"y").offset == 1
        for number in range(9):
            with inside.client() as client:
                client.publisher(number.to_bytes(16, "big"))
                client.write(client.send_frame("t", 1, b"z"))
                assert isinstance(client.reply(), wire.Sent)
        # Now all are in use, and what they sent may have to be told again.
        with inside.client() as client:
            registered = client.hello().ask(wire.RegisterPublisher(0, b"one too many ..."))
            assert isinstance(registered, wire.Error)
            assert registered.code == "LimitExceeded"


# --- who reads too little -----------------------------------------------------------------------


def test_subscribers_that_never_read_take_up_a_bounded_amount_and_others_get_all(
    on_loop: Inside,
) -> None:
    limits = Limits(server_bytes=8 * MIB)
    with on_loop(limits) as inside, Publisher(inside.address) as publisher:
        publisher.create_topic("t")
        for _ in range(20):
            publisher.send_many("t", [bytes(64 * KIB)] * 40)
        deaf = [_deaf(inside, number) for number in range(20)]
        inside.wait_until(lambda: inside.server.unread.bytes > 4 * MIB)
        with Subscriber(inside.address, name="healthy") as healthy:
            healthy.subscribe("t", start="earliest")
            got = 0
            while got < 800:
                got += len(healthy.pull("t", wait=10).payloads)
                assert inside.on_loop(lambda: inside.server.unread.bytes) <= 12 * MIB
        for client in deaf:
            client.reset()


def _deaf(inside: ServerInside, number: int) -> RawClient:
    client = inside.client()
    client.take_little()
    client.subscriber(f"deaf-{number}", number.to_bytes(16, "big"))
    client.ask(wire.Subscribe(0, "t", "earliest"))
    client.write(b"".join(client.frame(wire.Pull(0, "t", 1000)) for _ in range(60)))
    return client


def test_who_has_taken_nothing_for_the_longest_time_is_dropped_above_the_bound() -> None:
    limits = Limits(server_bytes=3 * MIB)
    with ServerInside(limits) as inside, Publisher(inside.address) as publisher:
        publisher.create_topic("t")
        for _ in range(12):
            publisher.send("t", bytes(MIB))
        first = _deaf(inside, 0)
        (held,) = inside.wait_until(lambda: list(inside.server.stalled))
        # One message is always granted, whatever its size.
        others = [_deaf(inside, number) for number in range(1, 5)]
        inside.wait_until(lambda: held not in inside.server.connections)
        inside.wait_until(lambda: inside.server.unread.bytes <= 3 * MIB)
        # The last to come is the last to go.
        assert isinstance(others[-1].reply(4), wire.Pulled)
        for client in (first, *others):
            client.reset()


# --- who stops half way -------------------------------------------------------------------------


def test_many_large_frames_at_the_same_time_are_all_taken(on_loop: Inside) -> None:
    """Together they are more than twice what may be begun and not complete."""
    limits = Limits(partial_bytes=8 * MIB)
    with on_loop(limits) as inside, Publisher(inside.address) as publisher:
        publisher.create_topic("t")
        clients = [inside.client().publisher(number.to_bytes(16, "big")) for number in range(20)]
        frames = [client.send_frame("t", 1, bytes(MIB - 64)) for client in clients]
        writing = [
            threading.Thread(target=client.write, args=(frame,))
            for client, frame in zip(clients, frames, strict=True)
        ]
        for thread in writing:
            thread.start()
        for client, thread in zip(clients, writing, strict=True):
            thread.join()
            assert isinstance(client.reply(), wire.Sent)
            client.socket.close()


def test_who_stops_in_a_large_frame_gives_way_to_who_goes_on(on_loop: Inside) -> None:
    limits = Limits(partial_bytes=4 * MIB)
    with on_loop(limits) as inside, Publisher(inside.address) as publisher:
        publisher.create_topic("t")
        stopped = [inside.client().hello() for _ in range(20)]
        for client in stopped:
            client.write((7 * MIB).to_bytes(4, "big") + bytes(120 * KIB))
        inside.wait_until(lambda: inside.server.partial.bytes > 2 * MIB)
        with inside.client() as honest:
            honest.publisher()
            frame = honest.send_frame("t", 1, bytes(MIB - 64))
            writing = threading.Thread(target=honest.write, args=(frame,))
            writing.start()
            inside.wait_until(lambda: inside.server.partial._held)
            assert isinstance(honest.reply(), wire.Sent)
            writing.join()
        ends = Counter(_end_of(inside, client) for client in stopped)
        assert ends["LimitExceeded"] >= 1
        assert set(ends) <= {"LimitExceeded", None}


def _end_of(inside: ServerInside, client: RawClient) -> str | None:
    """Why the server ended the connection, if it did."""
    port = client.socket.getsockname()[1]
    (connection,) = inside.on_loop(
        lambda: [c for c in inside.server.connections if c.peer.endswith(f":{port}")]
    ) or (None,)
    if connection is None or connection._is_closing:
        client.rest()
    client.socket.close()
    return client.end


def test_a_client_that_is_stopped_loses_its_leases_and_not_its_messages(
    start_broker: Start,
) -> None:
    broker = start_broker()
    script = (
        "import sys\n"
        "from mbctl import Subscriber\n"
        "with Subscriber(sys.argv[1], name='shared') as subscriber:\n"
        "    subscriber.subscribe('t', start='earliest', ack_wait=1.0)\n"
        "    batch = subscriber.pull('t', wait=10, auto_ack=False)\n"
        "    print(len(batch.payloads), flush=True)\n"
        "    sys.stdin.readline()\n"
        "    batch.ack()\n"
    )
    with Publisher(broker.address) as publisher:
        publisher.create_topic("t")
        publisher.send_many("t", [b"one", b"two"])
    stopped = subprocess.Popen(
        [sys.executable, "-c", script, broker.address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert stopped.stdout is not None
    assert stopped.stdout.readline() == "2\n"
    stopped.send_signal(signal.SIGSTOP)
    with Subscriber(broker.address, name="shared") as other, Admin(broker.address) as admin:
        other.subscribe("t", ack_wait=1.0)
        batch = other.pull("t", wait=20)
        assert [message.deliveries for message in batch] == [2, 2]
        batch.ack()
        stopped.send_signal(signal.SIGCONT)
        stopped.communicate("\n", timeout=20)
        assert admin.subscription("t", "shared").unread == 0


# --- who sends what is no request ---------------------------------------------------------------


def test_conversations_with_bytes_changed_end_at_most_their_own_connection(
    on_loop: Inside,
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    with on_loop(Limits()) as inside, Publisher(inside.address) as publisher:
        publisher.create_topic("t")
        publisher.send_many("t", [b"x"] * 10)
        conversation = bytearray(_conversation(inside))
        for _ in range(300):
            changed = conversation[:]
            for _ in range(dice.randrange(1, 6)):
                at = dice.randrange(len(changed))
                if dice.random() < 0.3:
                    del changed[at : at + dice.randrange(40)]
                else:
                    changed[at] = dice.randrange(256)
            client = inside.client()
            client.write(bytes(changed))
            if dice.random() < 0.3:
                client.reset()
            else:
                client.socket.close()
        assert publisher.send("t", b"served").count == 1


def _conversation(inside: ServerInside) -> bytes:
    """One of each request, as bytes."""
    with inside.client() as client:
        requests = [
            wire.Hello(0, 1, 1, "raw"),
            wire.RegisterPublisher(0, os.urandom(16)),
            wire.RegisterSubscriber(0, os.urandom(16), "fuzz"),
            wire.CreateTopic(0, "u"),
            wire.Subscribe(0, "t", "earliest"),
            wire.Pull(0, "t", 5),
            wire.Pull(0, "t", 5, None, 60_000),
            wire.Ack(0, "t", 1, [(0, 2)]),
            wire.Nack(0, "t", 1, [(2, 3)]),
            wire.Extend(0, "t", 1, [(3, 4)]),
            wire.GetTopics(0),
            wire.GetTopic(0, "t"),
            wire.GetWhy(0, "t"),
            wire.GetSubscriptions(0),
            wire.GetSubscription(0, "t", "fuzz"),
            wire.GetStatus(0),
            wire.Cancel(0, 7),
            wire.Unsubscribe(0, "t"),
            wire.DeleteTopic(0, "u"),
            wire.Ping(0),
        ]
        frames = [client.frame(request) for request in requests]
        return b"".join([*frames[:4], client.send_frame("t", 1, b"a", b"b" * 500), *frames[4:]])


def test_a_storm_of_clients_that_misbehave_is_a_few_lines_a_second(start_broker: Start) -> None:
    broker = start_broker()
    hello = wire.encode(wire.Hello(1, 1, 1, "x"))
    contents = [b"GET / HTTP/1.1\r\n\r\n", hello + b"\xff" * 8, os.urandom(500), hello * 3]
    for number in range(600):
        client = RawClient(broker.address)
        client.write(contents[number % len(contents)])
        if number % 2:
            client.reset()
        else:
            client.socket.close()
    with Admin(broker.address) as admin:
        wait_until(lambda: admin.status().connections == 1)
    seconds = Counter(line[:19] for line in broker.log.splitlines())
    assert max(seconds.values()) < 10
