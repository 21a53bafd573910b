"""Sends through connections that break anywhere: nothing is lost, doubled or reordered."""

import os
import random
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from broker_process import wait_until
from cutting_proxy import CuttingProxy, read_all

from mbctl import ConnectionLost, OutcomeUnknown, Publisher, Subscriber

Act = Callable[[Publisher, str, int], list[bytes]]


def send_one(publisher: Publisher, topic: str, number: int) -> list[bytes]:
    """One ``send``; what it sent."""
    payload = b"one %04d" % number
    receipt = publisher.send(topic, payload, key=b"k", headers={"n": "x"})
    assert receipt.count == 1
    return [payload]


def send_three(publisher: Publisher, topic: str, number: int) -> list[bytes]:
    """One ``send_many``; what it sent."""
    payloads = [b"%d of %04d" % (part, number) for part in range(3)]
    receipt = publisher.send_many(topic, payloads)
    assert receipt.count == 3
    return payloads


def send_window(publisher: Publisher, topic: str, number: int) -> list[bytes]:
    """Three batches in flight at once; what was sent."""
    payloads = [b"%d in window %04d" % (part, number) for part in range(9)]
    with publisher.pipeline() as pipe:
        for first in (0, 3, 6):
            pipe.send_many(topic, payloads[first : first + 3])
    assert pipe.sent == 9
    return payloads


@pytest.fixture
def ledger(server: str, topic: str) -> Iterator[list[bytes]]:
    """What was sent to ``topic``, in order; compared at the end with what it holds."""
    sent: list[bytes] = []
    yield sent
    assert read_all(server, topic) == sent


def traffic_of(act: Act, proxy: CuttingProxy, topic: str) -> tuple[list[bytes], int, int]:
    """Do it once without a cut: what was sent, and how many bytes went up and down."""
    with Publisher(proxy.address) as publisher:
        before = dict(proxy.passed)
        sent = act(publisher, topic, 1000)
        return sent, proxy.passed["up"] - before["up"], proxy.passed["down"] - before["down"]


@pytest.mark.parametrize(("resets", "step"), [(False, 1), (True, 4)], ids=["closed", "reset"])
@pytest.mark.parametrize("act", [send_one, send_three, send_window])
def test_a_send_is_stored_once_wherever_the_connection_is_cut(
    act: Act, resets: bool, step: int, proxy: CuttingProxy, topic: str, ledger: list[bytes]
) -> None:
    with Publisher(proxy.address) as publisher:
        publisher.create_topic(topic)
        sent, up, down = traffic_of(act, proxy, topic)
        ledger += sent
        assert up > 20
        assert down > 5
        cuts = [{"up": n} for n in range(up + 1)] + [{"down": n} for n in range(down + 1)]
        step = step if act is not send_window else 5 * step
        for number, cut in enumerate(cuts[::step]):
            proxy.cut_after(**cut, resets=resets)
            ledger += act(publisher, topic, number)
        # The last byte of an answer may be cut after the next send has begun: let it pass.
        proxy.cut_after()
        ledger += act(publisher, topic, 9999)
    assert proxy.cuts > len(cuts) // step * 0.9


def test_large_messages_are_stored_once_wherever_the_connection_is_cut(
    proxy: CuttingProxy, topic: str, ledger: list[bytes]
) -> None:
    with Publisher(proxy.address) as publisher:
        publisher.create_topic(topic)
        for cut in range(0, 40_000, 1_999):
            payloads = [b"%06d" % cut * 1_500 for _ in range(4)]
            proxy.cut_after(up=cut)
            with publisher.pipeline() as pipe:
                pipe.send_many(topic, payloads[:2])
                pipe.send_many(topic, payloads[2:])
            ledger += payloads
    assert proxy.cuts > 15


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_publisher_registers_wherever_the_connection_is_cut(
    direction: str, proxy: CuttingProxy, topic: str, ledger: list[bytes]
) -> None:
    with Publisher(proxy.address) as publisher:
        publisher.create_topic(topic)
        opening = dict(proxy.passed)
        ledger += send_one(publisher, topic, 0)
    step = 3 if direction == "up" else 11
    for size in range(0, opening[direction], step):
        proxy.cut_after(**{direction: size})
        with Publisher(proxy.address) as publisher:
            ledger += send_one(publisher, topic, size)
    assert proxy.cuts >= opening[direction] // step


def test_a_send_is_stored_once_when_the_reconnects_are_cut_as_well(
    proxy: CuttingProxy, topic: str, ledger: list[bytes]
) -> None:
    with Publisher(proxy.address) as publisher:
        publisher.create_topic(topic)
        rng = random.Random(7)
        for number in range(40):
            proxy.cut_after(down=rng.randrange(3))
            cutter = threading.Thread(target=_cut_again, args=(proxy, rng.randrange(400)))
            cutter.start()
            ledger += send_one(publisher, topic, number)
            cutter.join()
            proxy.cut_after()


def _cut_again(proxy: CuttingProxy, up: int) -> None:
    cuts = proxy.cuts
    while proxy.cuts == cuts:
        pass
    proxy.cut_after(up=up)


def _stays_exact(server: str, topic: str, seed: int, count: int) -> int:
    """Send and follow through breaking connections; how many broke."""
    rng = random.Random(seed)
    up, down = CuttingProxy(server), CuttingProxy(server)
    with Publisher(up.address) as publisher, Subscriber(down.address, name="all") as subscriber:
        publisher.create_topic(topic)
        subscriber.subscribe(topic)
        for proxy in (up, down):
            proxy.cut_always(lambda: rng.randrange(1, 40_000))
        sending = threading.Thread(target=_send_in_pipelines, args=(publisher, topic, count))
        sending.start()
        seen: dict[int, bytes] = {}
        for message in subscriber.follow(topic):
            assert seen.setdefault(message.offset, message.payload) == message.payload
            if len(seen) == count:
                break
        sending.join()
        down.cut_no_more()
    assert [seen[offset] for offset in range(count)] == [b"%d" % n for n in range(count)]
    with Subscriber(server, name="all") as rest:
        assert not rest.pull(topic, wait=0)
    up.close()
    down.close()
    return up.cuts + down.cuts


@pytest.mark.parametrize("seed", [1, 2])
def test_pipelines_and_a_follower_stay_exact_while_connections_break(
    seed: int, server: str, topic: str
) -> None:
    assert _stays_exact(server, topic, seed, 30_000) > 10


def test_a_window_larger_than_what_a_connection_lasts_for_gets_through(
    proxy: CuttingProxy, topic: str, ledger: list[bytes]
) -> None:
    payloads = [b"%03d" % number * 1000 for number in range(40)]
    with Publisher(proxy.address) as publisher:
        publisher.create_topic(topic)
        # Reset, so that answers on their way are lost with the connection.
        proxy.cut_always(lambda: 20_000, resets=True)
        with publisher.pipeline() as pipe:
            for payload in payloads:
                pipe.send_many(topic, [payload])
        assert proxy.cuts >= 4
        proxy.cut_no_more()
    ledger += payloads


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 104))
def test_pipelines_and_a_follower_stay_exact_for_long(
    seed: int, server: str, topic: str, face: str
) -> None:
    # The asyncio face, made to block, takes a turn of its loop for each message.
    assert _stays_exact(server, topic, seed, 200_000 if face == "sync" else 40_000) > 10


def _send_in_pipelines(publisher: Publisher, topic: str, count: int) -> None:
    for first in range(0, count, 5_000):
        with publisher.pipeline() as pipe:
            for number in range(first, first + 5_000, 50):
                pipe.send_many(topic, [b"%d" % n for n in range(number, number + 50)])
        assert pipe.sent == 5_000


def test_a_connection_cut_during_an_explicit_ack_loses_nothing(
    proxy: CuttingProxy, server: str, topic: str
) -> None:
    with Publisher(server) as publisher:
        publisher.create_topic(topic)
        with Subscriber(proxy.address, name="acker") as subscriber:
            subscriber.subscribe(topic)
            for size in range(60):
                publisher.send(topic, b"%d" % size)
                batch = subscriber.pull(topic)
                assert batch.payloads == [b"%d" % size]
                proxy.cut_after(**({"up": size} if size < 45 else {"down": size - 45}))
                assert batch.ack() in (0, 1)
                proxy.cut_after()
    assert proxy.cuts > 30
    with Subscriber(server, name="acker") as again:
        assert not again.pull(topic, wait=0)


def test_messages_of_a_cut_connection_are_delivered_again(
    proxy: CuttingProxy, server: str, topic: str
) -> None:
    with Publisher(server) as publisher:
        publisher.create_topic(topic)
        publisher.send_many(topic, [b"a", b"b", b"c"])
    with Subscriber(proxy.address, name="reader") as subscriber:
        subscriber.subscribe(topic)
        for size in range(0, 60, 7):
            # The reply is cut short: nobody has seen these messages.
            proxy.cut_after(down=size)
            assert subscriber.pull(topic, auto_ack=False).payloads == [b"a", b"b", b"c"]
            proxy.cut_now()


def test_a_pipeline_whose_server_is_gone_tells_that_the_outcome_is_unknown(
    server: str, topic: str
) -> None:
    proxy = CuttingProxy(server)
    with Publisher(server) as publisher:
        publisher.create_topic(topic)
    with Publisher(proxy.address, timeout=0.3) as publisher:
        proxy.cut_after(down=0)
        pipe = publisher.pipeline()
        pipe.send_many(topic, [b"stored, and its answer is lost"])
        wait_until(lambda: proxy.cuts)
        proxy.close()
        with pytest.raises(OutcomeUnknown, match=topic):
            pipe.flush()
        assert pipe.sent == 0
        with pytest.raises(ConnectionLost):
            # This one was never written, so it is known not to be stored.
            publisher.send(topic, b"never sent")
    assert read_all(server, topic) == [b"stored, and its answer is lost"]


def test_a_publisher_in_a_forked_child_is_another_session(server: str, topic: str) -> None:
    with Publisher(server) as publisher:
        publisher.create_topic(topic)
        publisher.send(topic, b"parent 1")
        child = os.fork()
        if child == 0:
            try:
                publisher.send(topic, b"child 1")
                publisher.send(topic, b"child 2")
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        publisher.send(topic, b"parent 2")
    assert read_all(server, topic) == [b"parent 1", b"child 1", b"child 2", b"parent 2"]


def test_the_proxy_itself_cuts_where_it_is_told(server: str) -> None:
    proxy = CuttingProxy(server)
    host, _, port = proxy.address.rpartition(":")
    proxy.cut_after(up=2)
    with socket.create_connection((host, int(port))) as sock:
        sock.sendall(b"abcd")
        assert sock.recv(10) == b""
    assert proxy.passed["up"] == 2
    proxy.close()
