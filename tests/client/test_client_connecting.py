"""Connecting, reconnecting, and what is told when that does not work."""

import random
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from broker_process import BrokerProcess, wait_until
from cutting_proxy import CuttingProxy
from fake_server import FakeServer, opening

from mbctl import (
    Admin,
    ConnectionLost,
    InvalidArgument,
    LimitExceeded,
    NotSubscribed,
    OutcomeUnknown,
    ProtocolError,
    Publisher,
    ServerError,
    ServerStopping,
    Subscriber,
    Timeout,
    TopicNotFound,
    VersionMismatch,
)
from mbctl.model import Limits
from mbctl.wire import messages as wire

Start = Callable[..., BrokerProcess]
HANG_UP = FakeServer.HANG_UP


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


# --- the first connection -----------------------------------------------------------------------


def test_a_wrong_address_is_told_within_seconds() -> None:
    address = f"127.0.0.1:{free_port()}"
    begin = time.monotonic()
    with pytest.raises(ConnectionLost) as refusal:
        Publisher(address, timeout=30)
    assert 2 < time.monotonic() - begin < 4
    assert str(refusal.value) == f"no connection to {address}: connection refused"
    assert refusal.value.hint == "is the server running? start one with: mbctl server"


def test_a_shorter_timeout_tells_sooner() -> None:
    begin = time.monotonic()
    with pytest.raises(ConnectionLost):
        Admin(f"127.0.0.1:{free_port()}", timeout=0.2)
    assert time.monotonic() - begin < 1


def test_a_server_that_starts_a_moment_later_is_found(start_broker: Start) -> None:
    port = free_port()
    found: list[float] = []

    def ask() -> None:
        with Admin(f"127.0.0.1:{port}") as admin:
            found.append(admin.ping())

    asking = threading.Thread(target=ask)
    asking.start()
    start_broker(port=port)
    asking.join()
    assert found


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "a" * 64 + ".b", "\0"])
def test_a_host_that_cannot_be_found_is_told(host: str) -> None:
    with pytest.raises((ConnectionLost, InvalidArgument)):
        Admin(f"{host}:5555", timeout=0.1)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), 86_401, None, "5"])
def test_a_timeout_without_meaning_is_refused(timeout: Any, server: str) -> None:
    with pytest.raises(InvalidArgument, match="timeout"):
        Admin(server, timeout=timeout)


def test_a_server_of_another_version_is_told() -> None:
    mismatch = VersionMismatch(client="1", server="7 to 9")
    with FakeServer(lambda _: wire.encode(wire.Error.of(0, mismatch)) + HANG_UP) as fake:
        begin = time.monotonic()
        with pytest.raises(VersionMismatch) as refusal:
            Publisher(fake.address)
        assert time.monotonic() - begin < 1
    assert str(refusal.value) == "the client speaks protocol 1 and the server 7 to 9"
    assert refusal.value.hint == "install the same mbctl on both sides"


@pytest.mark.parametrize(
    "greet", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\0\0\0", b"\xff" * 8, b"\0\0\0\1\xc0"]
)
def test_something_that_is_no_mbctl_server_is_told(greet: bytes) -> None:
    with FakeServer(greet=greet) as fake:
        begin = time.monotonic()
        with pytest.raises(ProtocolError):
            Admin(fake.address)
        assert time.monotonic() - begin < 1


def test_a_server_that_never_answers_is_told() -> None:
    with FakeServer(lambda _: b"") as fake, pytest.raises(ConnectionLost, match="in time"):
        Admin(fake.address, timeout=0.2)


def test_a_server_without_room_for_another_connection_is_told(start_broker: Start) -> None:
    broker = start_broker(limits=Limits(connections=2))
    with Admin(broker.address) as one, Admin(broker.address):
        for _ in range(5):
            with pytest.raises(LimitExceeded, match="limit of 2 connections"):
                Admin(broker.address, timeout=0.1)
        assert one.status().connections == 2
    # There is room again.
    with Admin(broker.address) as another:
        assert another.ping() > 0


# --- a connection that is lost ------------------------------------------------------------------


def test_a_server_that_hangs_up_again_and_again_is_asked_at_a_measured_pace() -> None:
    def hang_up_when_asked(request: wire.Message) -> bytes:
        return HANG_UP if isinstance(request, wire.Ping) else opening(request)

    with FakeServer(hang_up_when_asked) as fake:
        with pytest.raises(ConnectionLost):
            Admin(fake.address, timeout=0.5).ping()
        assert 3 < fake.connections < 20


def test_a_restarted_server_is_found_within_the_timeout(start_broker: Start) -> None:
    broker = start_broker()
    with Publisher(broker.address) as publisher, Admin(broker.address) as admin:
        publisher.create_topic("t")
        publisher.send("t", b"a")
        assert broker.stop() == (0, "")
        start_broker(port=broker.port)
        # In memory, so the topic is gone; what is said is about the topic.
        with pytest.raises(TopicNotFound):
            publisher.send("t", b"b")
        assert admin.topics() == []
        publisher.create_topic("t")
        assert publisher.send("t", b"c").offset == 0


def test_a_killed_server_is_found_again(start_broker: Start) -> None:
    broker = start_broker()
    with Subscriber(broker.address, name="s") as subscriber, Admin(broker.address) as admin:
        admin.create_topic("t")
        subscriber.subscribe("t")
        batch = subscriber.pull("t", wait=0)
        broker.kill()
        start_broker(port=broker.port)
        with pytest.raises(TopicNotFound):
            subscriber.pull("t")
        admin.create_topic("t")
        with pytest.raises(NotSubscribed) as refusal:
            subscriber.pull("t")
        assert refusal.value.hint == "subscribe with: mbctl subscribe t --name s"
        assert not batch


def test_a_server_that_is_gone_for_longer_than_the_timeout_is_told(
    start_broker: Start, face: str
) -> None:
    broker = start_broker()
    with (
        Admin(broker.address, timeout=0.2) as admin,
        Publisher(broker.address, timeout=0.2) as publisher,
        Subscriber(broker.address, timeout=0.2) as subscriber,
    ):
        broker.stop()
        acts: list[Callable[[], object]] = [
            admin.status,
            # A long wait is for messages, not for a server.
            lambda: subscriber.pull("t", wait=600),
            lambda: next(subscriber.follow("t")),
        ]
        for act in acts:
            begin = time.monotonic()
            with pytest.raises(ConnectionLost):
                act()
            assert 0.1 < time.monotonic() - begin < 2
        # It was written to the connection that was not known to be lost; by the asyncio face
        # that is known.
        with pytest.raises(OutcomeUnknown if face == "sync" else ConnectionLost):
            publisher.send("t", b"")
        with pytest.raises(ConnectionLost):
            publisher.send("t", b"")


@pytest.mark.parametrize("ends", ["stop", "kill"])
def test_a_follow_that_waits_goes_on_at_the_server_that_comes_back(
    ends: str, start_broker: Start
) -> None:
    broker = start_broker()
    errors: list[BaseException] = []
    with Subscriber(broker.address, name="s") as subscriber, Admin(broker.address) as admin:
        admin.create_topic("t")
        subscriber.subscribe("t")

        def follow() -> None:
            try:
                next(subscriber.follow("t"))
            except TopicNotFound as error:
                # What the new server, which knows nothing, said of it.
                errors.append(error)

        following = threading.Thread(target=follow)
        following.start()
        wait_until(lambda: admin.subscription("t", "s").waiting_pulls)
        getattr(broker, ends)()
        start_broker(port=broker.port)
        following.join()
        assert errors


def test_a_pull_that_waits_at_a_stopping_server_is_answered(start_broker: Start) -> None:
    broker = start_broker()
    with Subscriber(broker.address, name="s", timeout=0.3) as subscriber:
        with Admin(broker.address) as admin:
            admin.create_topic("t")
            subscriber.subscribe("t")
            results: list[object] = []
            pulling = threading.Thread(target=lambda: results.append(subscriber.pull("t", wait=60)))
            pulling.start()
            wait_until(lambda: admin.subscription("t", "s").waiting_pulls)
        assert broker.stop() == (0, "")
        pulling.join()
    assert [len(result) for result in results] == [0]  # type: ignore[arg-type]


def test_a_stopping_server_is_told_when_no_other_comes(start_broker: Start) -> None:
    stopping = wire.encode(wire.Error.of(0, ServerStopping())) + HANG_UP
    with FakeServer(lambda _: stopping) as fake, pytest.raises(ServerStopping) as refusal:
        Admin(fake.address, timeout=0.2)
    assert refusal.value.hint == "try again when it is back"


def test_answers_that_come_together_with_the_end_of_a_connection_count() -> None:
    stopping = wire.encode(wire.Error.of(0, ServerStopping()))

    def stop_at_the_send(request: wire.Message) -> bytes:
        if isinstance(request, wire.Send):
            return wire.encode(wire.Sent(request.id, 41, 1)) + stopping + HANG_UP
        if isinstance(request, wire.Ping):
            return wire.encode(wire.Done(request.id)) + stopping + HANG_UP
        return opening(request)

    with FakeServer(stop_at_the_send) as fake:
        with Publisher(fake.address) as publisher:
            assert publisher.send("t", b"a").offset == 41
            assert publisher.send("t", b"b").offset == 41
        with Admin(fake.address) as admin:
            admin.ping()
            admin.ping()
        sends = [request for request in fake.requests if isinstance(request, wire.Send)]
        assert [send.sequence for send in sends] == [1, 2]


# --- a server that does not answer --------------------------------------------------------------


def test_an_answer_that_does_not_come_in_time_is_told() -> None:
    with FakeServer() as fake:
        with Admin(fake.address, timeout=0.2) as admin, pytest.raises(Timeout) as refusal:
            admin.topics()
        assert str(refusal.value) == "the answer took longer than 0.2 s"
        assert refusal.value.hint == "try again, or allow more time"
        with Subscriber(fake.address, timeout=0.2) as subscriber:
            begin = time.monotonic()
            with pytest.raises(Timeout, match=r"0\.5 s"):
                subscriber.pull("t", wait=0.3)
            assert 0.4 < time.monotonic() - begin < 2


def test_a_send_without_an_answer_has_an_unknown_outcome() -> None:
    with FakeServer() as fake, Publisher(fake.address, timeout=0.2) as publisher:
        with pytest.raises(OutcomeUnknown) as refusal:
            publisher.send("t", b"a")
        assert refusal.value.hint == "look before you send it again"
        pipe = publisher.pipeline()
        pipe.send_many("t", [b"b"])
        pipe.send_many("t", [b"c"])
        with pytest.raises(OutcomeUnknown, match="the send to 't' and 1 more"):
            pipe.flush()
        # What was given up is not sent again by what comes later.
        with pytest.raises(OutcomeUnknown):
            publisher.send("t", b"d")
        sequences = [r.sequence for r in fake.requests if isinstance(r, wire.Send)]
        assert sequences == [1, 2, 3, 4]


def test_a_pipeline_that_gets_no_answers_stops_when_its_window_is_full() -> None:
    with FakeServer() as fake, Publisher(fake.address, timeout=0.3) as publisher:
        pipe, sent = publisher.pipeline(), 0

        def send_endlessly() -> None:
            nonlocal sent
            while sent < 1000:
                pipe.send_many("t", [b"x"])
                sent += 1

        with pytest.raises(Timeout):
            send_endlessly()
        assert sent == publisher.limits.sends_in_flight


def test_a_peer_that_never_reads_ends_a_send_within_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf, FakeServer() as fake:
        del deaf
        with Publisher(fake.address, timeout=0.5) as publisher:
            begin = time.monotonic()
            with pytest.raises(OutcomeUnknown):
                publisher.send_many("t", [bytes(1 << 20)] * 7)
            assert time.monotonic() - begin < 3


def test_a_retry_tells_how_long_ago_the_first_attempt_was() -> None:
    answered = 0

    def answer_the_third(request: wire.Message) -> bytes:
        nonlocal answered
        if not isinstance(request, wire.Send):
            return opening(request)
        answered += 1
        return HANG_UP if answered < 3 else wire.encode(wire.Sent(request.id, 0, 1))

    with FakeServer(answer_the_third) as fake, Publisher(fake.address) as publisher:
        publisher.send("t", b"a")
        first, second, third = (r for r in fake.requests if isinstance(r, wire.Send))
        assert first.age_ms == 0 < second.age_ms <= third.age_ms
        assert first.sequence == second.sequence == third.sequence == 1


@pytest.mark.parametrize(
    "answer",
    [
        lambda id_: wire.encode(wire.Counted(id_, 5)),
        lambda id_: b"\0\0\0\1\xc0",
        lambda id_: b"\0\0\0\5hello",
        lambda id_: wire.encode(wire.Done(id_)).replace(b"done", b"dune"),
        lambda id_: b"\xff\xff\xff\xff",
    ],
)
def test_an_answer_that_makes_no_sense_is_told(answer: Callable[[int], bytes]) -> None:
    def nonsense(request: wire.Message) -> bytes:
        return answer(request.id) if isinstance(request, wire.GetTopics) else opening(request)

    with FakeServer(nonsense) as fake, Admin(fake.address) as admin, pytest.raises(ProtocolError):
        admin.topics()


def test_a_batch_that_cannot_be_read_is_told() -> None:
    def nonsense(request: wire.Message) -> bytes:
        if isinstance(request, wire.Pull):
            pieces = [(0, 0, 1, b"\x91\x91\xc0")]
            return b"".join(map(bytes, wire.encode_pulled(request.id, 1, 0, pieces)))
        return opening(request)

    with (
        FakeServer(nonsense) as fake,
        Subscriber(fake.address) as subscriber,
        pytest.raises(ProtocolError, match="unreadable reply 'pulled'"),
    ):
        subscriber.pull("t")


def test_an_error_that_this_version_does_not_know_is_told() -> None:
    def refuse(request: wire.Message) -> bytes:
        if isinstance(request, wire.Ping):
            return wire.encode(wire.Error(request.id, "Flood", {"self": 1, "args": "x"}))
        return opening(request)

    with (
        FakeServer(refuse) as fake,
        Admin(fake.address) as admin,
        pytest.raises(ServerError, match="unknown error 'Flood'"),
    ):
        admin.ping()


# --- requests that are repeated -----------------------------------------------------------------


def test_a_delete_whose_answer_is_lost_is_done(proxy: CuttingProxy, topic: str) -> None:
    with Admin(proxy.address) as admin:
        admin.create_topic(topic)
        proxy.cut_after(down=0)
        admin.delete_topic(topic)
        with pytest.raises(TopicNotFound):
            admin.delete_topic(topic)


def test_an_unsubscribe_whose_answer_is_lost_is_done(proxy: CuttingProxy, topic: str) -> None:
    with Subscriber(proxy.address, name="s") as subscriber, Admin(proxy.address) as admin:
        admin.create_topic(topic)
        subscriber.subscribe(topic)
        proxy.cut_after(down=0)
        subscriber.unsubscribe(topic)
        assert admin.subscriptions(topic) == []
        subscriber.subscribe(topic)
        proxy.cut_after(down=0)
        admin.delete_subscription(topic, "s")
        assert admin.subscriptions(topic) == []


def test_whether_a_topic_was_created_is_unknown_when_the_answer_is_lost(
    proxy: CuttingProxy, topic: str
) -> None:
    with Admin(proxy.address) as admin:
        proxy.cut_after(down=0)
        with pytest.raises(OutcomeUnknown, match="creating topic"):
            admin.create_topic(topic, exist_ok=False)
        assert not admin.create_topic(topic)


def test_every_verb_survives_a_connection_that_was_cut_before_it(
    proxy: CuttingProxy, topic: str
) -> None:
    with (
        Publisher(proxy.address) as publisher,
        Subscriber(proxy.address, name="s") as subscriber,
        Admin(proxy.address) as admin,
    ):
        acts: list[Callable[[], object]] = [
            lambda: publisher.create_topic(topic),
            lambda: subscriber.subscribe(topic),
            lambda: publisher.send(topic, b"a"),
            lambda: publisher.send_many(topic, [b"b"]),
            lambda: subscriber.pull(topic, 1),
            lambda: subscriber.pull(topic, 1).ack(),
            admin.topics,
            lambda: admin.topic(topic),
            lambda: admin.why(topic),
            admin.subscriptions,
            lambda: admin.subscription(topic, "s"),
            admin.status,
            admin.ping,
            lambda: subscriber.unsubscribe(topic),
            lambda: admin.delete_topic(topic),
        ]
        random.Random(3).shuffle(fillers := list(range(len(acts))))
        for act, filler in zip(acts, fillers, strict=True):
            if filler % 2:
                proxy.cut_now()
            else:
                proxy.cut_after(up=filler)
            act()
            proxy.cut_after()
