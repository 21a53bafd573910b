"""What a connection may do, and what it costs the server when it does not."""

import asyncio
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from broker_process import wait_until
from server_harness import HeldJournal, RawClient, ServerInside

from mbctl import Admin, Publisher, Subscriber
from mbctl import batch as batches
from mbctl.model import KIB, MIB, Limits
from mbctl.wire import messages as wire


@pytest.fixture(params=["uvloop", pytest.param("asyncio", marks=pytest.mark.slow)])
def inside(request: pytest.FixtureRequest) -> Iterator[ServerInside]:
    """A server in this process, on either event loop."""
    loop_factory: Any = asyncio.SelectorEventLoop
    if request.param == "uvloop":
        loop_factory = pytest.importorskip("uvloop").Loop
    with ServerInside(loop_factory=loop_factory) as inside:
        yield inside


# --- the opening --------------------------------------------------------------------------------


def test_a_client_is_welcomed_with_the_limits_in_force(inside: ServerInside) -> None:
    with inside.client() as client:
        welcome = client.ask(wire.Hello(0, 1, 5, "raw"))
        assert isinstance(welcome, wire.Welcome)
        assert (welcome.version, welcome.engine, welcome.durability) == (1, "local", "memory")
        assert welcome.limits == inside.limits


def test_answers_leave_at_once_however_small(inside: ServerInside) -> None:
    with inside.client() as client:
        client.hello()
        (connection,) = inside.server.connections
        assert connection._transport is not None
        sock = connection._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_a_client_that_shares_no_version_is_told(inside: ServerInside) -> None:
    with inside.client() as client:
        client.write(client.frame(wire.Hello(0, 7, 9, "raw")))
        assert client.rest() == []
        assert client.end == "VersionMismatch"


@pytest.mark.parametrize(
    "content",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\0",
        b"\0\0\x10\x01" + bytes(5000),
        b"\0\0\0\1\xc0",
        wire.encode(wire.Ping(1)),
        b"\0\0\0\4\x93\xa5",
        os.urandom(4096),
    ],
    ids=["http", "empty", "too large", "nil", "no hello", "truncated", "noise"],
)
def test_what_is_no_opening_ends_the_connection_with_a_reason(
    content: bytes, inside: ServerInside
) -> None:
    with inside.client() as client:
        client.write(content)
        if content.startswith(b"\0\0\0\4"):
            client.socket.shutdown(socket.SHUT_WR)
        client.rest()
        assert client.end in ("ProtocolError", None)
        if not content.startswith(b"\0\0\0\4"):
            assert client.end == "ProtocolError"
    with Admin(inside.address) as admin:
        assert admin.ping() > 0


def test_the_reason_reaches_a_client_that_goes_on_writing(inside: ServerInside) -> None:
    with inside.client() as client:
        client.hello()
        client.write(b"\xff\xff\xff\xff")
        writing = threading.Thread(
            target=_write_until_closed, args=(client.socket, bytes(64 * KIB))
        )
        writing.start()
        client.rest()
        assert client.end == "ProtocolError"
        client.socket.shutdown(socket.SHUT_RDWR)
        writing.join()


def test_requests_before_registration_end_the_connection(inside: ServerInside) -> None:
    for request in (
        wire.Subscribe(0, "t"),
        wire.Pull(0, "t", 1),
        wire.Ack(0, "t", 1, [(0, 1)]),
        wire.Nack(0, "t", 1, [(0, 1)]),
        wire.Extend(0, "t", 1, [(0, 1)]),
        wire.Unsubscribe(0, "t"),
    ):
        with inside.client() as client:
            client.hello().write(client.frame(request))
            client.rest()
            assert client.end == "ProtocolError"
    with inside.client() as client:
        client.hello().write(client.send_frame("t", 1, b"x"))
        client.rest()
        assert client.end == "ProtocolError"


@pytest.mark.parametrize(
    "request_",
    [
        wire.RegisterPublisher(0, b"short"),
        wire.RegisterSubscriber(0, b"short"),
        wire.RegisterSubscriber(0, b"x" * 17, "name"),
    ],
)
def test_an_id_that_is_none_ends_the_connection(
    request_: wire.Message, inside: ServerInside
) -> None:
    with inside.client() as client:
        client.hello().write(client.frame(request_))
        client.rest()
        assert client.end == "ProtocolError"


def test_a_connection_registers_one_publisher_session(inside: ServerInside) -> None:
    with inside.client() as client:
        client.publisher().write(client.frame(wire.RegisterPublisher(0, b"another session!")))
        client.rest()
        assert client.end == "ProtocolError"


def test_a_connection_registers_one_publisher(inside: ServerInside) -> None:
    with inside.client() as client:
        client.publisher().write(client.frame(wire.RegisterPublisher(0, b"x" * 16)))
        client.rest()
        assert client.end == "ProtocolError"
    with inside.client() as client:
        again = client.publisher().ask(wire.RegisterPublisher(0, b"p" * 16, "named"))
        assert isinstance(again, wire.Done)


@pytest.mark.parametrize(
    ("sequence", "age_ms", "code"),
    [
        (0, 0, "InvalidArgument"),
        (-1, 0, "InvalidArgument"),
        (1, -1, "InvalidArgument"),
        (1, 2**62, "InvalidArgument"),
        (1, 600_001, "OutcomeUnknown"),
        (1, 0, "TopicNotFound"),
    ],
)
def test_a_send_whose_numbers_make_no_sense_is_refused(
    sequence: int, age_ms: int, code: str, inside: ServerInside
) -> None:
    with inside.client() as client:
        client.publisher()
        frame = wire.encode_send(99, "t", sequence, age_ms, batches.encode([b"x"]))
        client.write(b"".join(frame))
        reply = client.reply(99)
        assert isinstance(reply, wire.Error)
        assert reply.code == code


def test_a_connection_registers_one_subscriber(inside: ServerInside) -> None:
    with inside.client() as client:
        client.subscriber("a").write(client.frame(wire.RegisterSubscriber(0, b"x" * 16, "b")))
        client.rest()
        assert client.end == "ProtocolError"


def test_a_frame_that_is_no_request_is_refused_and_the_connection_goes_on(
    inside: ServerInside,
) -> None:
    with inside.client() as client:
        client.subscriber("s")
        frames = {
            1001: (wire.encode(wire.Hello(1001, 1, 1, "again")), "InvalidArgument"),
            1002: (wire.encode(wire.Ping(1002)).replace(b"ping", b"pong"), "NotSupported"),
            1003: (wire.encode(wire.GetTopic(1003, 5)), "InvalidArgument"),  # type: ignore[arg-type]
            1004: (wire.encode(wire.RegisterSubscriber(1004, b"m" * 16, "-x")), "InvalidName"),
            1005: (wire.encode(wire.Pull(1005, "t", 1, wait_ms=-1)), "InvalidArgument"),
            1006: (wire.encode(wire.Pull(1006, "t", 1, wait_ms=2**62)), "InvalidArgument"),
            1007: (wire.encode(wire.Nack(1007, "t", 1, [], -1)), "InvalidArgument"),
            1008: (wire.encode(wire.Subscribe(1008, "t", "later")), "InvalidArgument"),
        }
        client.write(b"".join(frame for frame, _ in frames.values()))
        for id_, (_, code) in frames.items():
            reply = client.reply(id_)
            assert isinstance(reply, wire.Error)
            assert reply.code == code
        assert isinstance(client.ask(wire.Ping(0)), wire.Done)


def test_random_bytes_after_the_opening_end_at_most_their_own_connection(
    inside: ServerInside,
) -> None:
    rng = random.Random(11)
    valid = [
        wire.encode(wire.Subscribe(9, "t")),
        wire.encode(wire.Pull(9, "t", 5, None, 5)),
        wire.encode(wire.CreateTopic(9, "t")),
    ]
    for _ in range(60):
        with inside.client() as client:
            client.subscriber("s")
            frame = bytearray(rng.choice(valid))
            for _ in range(rng.randrange(1, 5)):
                frame[rng.randrange(4, len(frame))] = rng.randrange(256)
            client.write(bytes(frame))
            client.write(rng.randbytes(rng.randrange(200)))
            client.socket.shutdown(socket.SHUT_WR)
            client.rest()
    with Admin(inside.address) as admin:
        assert admin.ping() > 0


# --- time ---------------------------------------------------------------------------------------


def test_frames_that_take_too_long_end_the_connection_and_an_idle_one_stays() -> None:
    with (
        ServerInside(Limits(first_frame_s=1, frame_s=1)) as inside,
        inside.client() as idle,
        inside.client() as silent,
        inside.client() as begun,
        inside.client() as slow,
    ):
        idle.hello()
        begin = time.monotonic()
        begun.write(begun.frame(wire.Hello(0, 1, 1, "x"))[:-1])
        slow.hello().write(slow.frame(wire.Ping(0))[:-1])
        for client in (silent, begun, slow):
            client.rest()
            assert client.end == "ProtocolError"
            assert 0.9 < time.monotonic() - begin < 4
        assert isinstance(idle.ask(wire.Ping(0)), wire.Done)


def test_frames_may_come_byte_by_byte(inside: ServerInside) -> None:
    with inside.client() as client:
        for byte in client.frame(wire.Hello(0, 1, 1, "slow")):
            client.write(bytes([byte]))
        assert isinstance(client.reply(), wire.Welcome)
        for byte in client.frame(wire.Ping(0)) + client.frame(wire.Ping(0)):
            client.write(bytes([byte]))
        assert isinstance(client.reply(), wire.Done)


# --- limits -------------------------------------------------------------------------------------


def test_a_connection_above_their_number_is_told_and_the_next_finds_room() -> None:
    with ServerInside(Limits(connections=3)) as inside:
        held = [inside.client().hello() for _ in range(3)]
        for _ in range(50):
            with inside.client() as client:
                client.write(client.frame(wire.Hello(0, 1, 1, "x")))
                client.rest()
                assert client.end == "LimitExceeded"
        held.pop().socket.close()
        inside.wait_until(lambda: len(inside.server.connections) == 2)
        held.append(inside.client().hello())
        for client in held:
            client.socket.close()


def test_many_that_are_turned_away_at_once_do_not_pile_up() -> None:
    with ServerInside(Limits(connections=1)) as inside, inside.client() as held:
        held.hello()
        turned_away = [inside.client() for _ in range(100)]
        for client in turned_away:
            client.rest()
        assert inside.on_loop(lambda: len(inside.server._lingering)) <= 32
        assert isinstance(held.ask(wire.Ping(0)), wire.Done)
        for client in turned_away:
            client.socket.close()


def test_requests_in_flight_are_bounded() -> None:
    journal = HeldJournal()
    with (
        ServerInside(Limits(connection_requests=3), journal=journal) as inside,
        inside.client() as client,
    ):
        client.hello()
        frames = [client.frame(wire.CreateTopic(0, f"t{n}")) for n in range(5)]
        client.write(b"".join(frames))
        for id_ in (5, 6):
            reply = client.reply(id_)
            assert isinstance(reply, wire.Error)
            assert (reply.code, reply.details["limit"]) == ("LimitExceeded", 3)
        inside.on_loop(journal.let_go)
        for id_ in (2, 3, 4):
            assert isinstance(client.reply(id_), wire.Created)


def test_sends_in_flight_are_bounded() -> None:
    journal = HeldJournal()
    with (
        ServerInside(Limits(sends_in_flight=3), journal=journal) as inside,
        inside.client() as client,
    ):
        client.publisher()
        client.write(client.frame(wire.CreateTopic(0, "t")))
        frames = [client.send_frame("t", n, b"x") for n in range(1, 6)]
        client.write(b"".join(frames))
        for id_ in (7, 8):
            reply = client.reply(id_)
            assert isinstance(reply, wire.Error)
            assert reply.details == {"what": "sends in flight", "limit": 3}
        inside.on_loop(journal.let_go)
        assert [client.reply(id_).__class__ for id_ in (4, 5, 6)] == [wire.Sent] * 3
        # A number that was refused for want of room was not used up.
        client.write(client.send_frame("t", 4, b"x"))
        client.write(client.frame(wire.Ping(0)))
        client.reply()
        inside.on_loop(journal.let_go)
        assert isinstance(client.reply(9), wire.Sent)


def test_waiting_pulls_are_bounded(inside: ServerInside) -> None:
    with inside.client() as client:
        client.subscriber("s")
        client.ask(wire.CreateTopic(0, "t"))
        client.ask(wire.Subscribe(0, "t"))
        for _ in range(64):
            client.write(client.frame(wire.Pull(0, "t", 1, None, 60_000)))
        assert client.refusal(wire.Pull(0, "t", 1, None, 60_000)) == "LimitExceeded"
        client.ask(wire.Cancel(0, 5))
        client.reply(5)
        client.write(client.frame(wire.Pull(0, "t", 1, None, 60_000)))
        client.write(client.frame(wire.Ping(0)))
        assert isinstance(client.reply(), wire.Done)


def test_a_waiting_pulls_id_is_not_used_twice(inside: ServerInside) -> None:
    with inside.client() as client:
        client.subscriber("s")
        client.ask(wire.CreateTopic(0, "t"))
        client.ask(wire.Subscribe(0, "t"))
        pull = wire.encode(wire.Pull(77, "t", 1, None, 60_000))
        client.write(pull + pull)
        client.rest()
        assert client.end == "ProtocolError"


def test_bytes_in_flight_stop_the_reading_and_nothing_is_lost() -> None:
    limits = Limits(connection_bytes=256 * KIB)
    with ServerInside(limits, journal=HeldJournal()) as inside, inside.client() as client:
        client.publisher()
        client.write(client.frame(wire.CreateTopic(0, "t")))
        frames = [client.send_frame("t", n, bytes(64 * KIB)) for n in range(1, 101)]
        writing = threading.Thread(target=client.write, args=(b"".join(frames),))
        writing.start()
        inside.wait_until(lambda: inside.server.congested)
        assert inside.on_loop(lambda: inside.server.request_bytes) <= 6 * 64 * KIB
        done = threading.Event()
        letting_go = threading.Thread(target=_let_go_until, args=(inside, done))
        letting_go.start()
        offsets = [client.reply(id_).offset for id_ in range(4, 104)]  # type: ignore[attr-defined]
        assert offsets == list(range(100))
        writing.join()
        done.set()
        letting_go.join()
        assert inside.server.request_bytes == 0


def _let_go_until(inside: ServerInside, done: threading.Event) -> None:
    while not done.wait(0.002):
        inside.on_loop(inside.journal.let_go)  # type: ignore[attr-defined]


def test_the_time_in_which_a_connection_is_not_read_from_does_not_count() -> None:
    journal = HeldJournal()
    with (
        ServerInside(Limits(connection_bytes=100), journal=journal) as inside,
        inside.client() as client,
    ):
        client.publisher()
        client.write(client.frame(wire.CreateTopic(0, "t")))
        client.write(client.send_frame("t", 1, bytes(200)))
        (held,) = inside.wait_until(lambda: list(inside.server.congested))
        ping = client.frame(wire.Ping(0))
        client.write(ping[:5])

        def be_late() -> None:
            held.watch(0)
            inside.server._sweep_once()
            journal.let_go()

        inside.on_loop(be_late)
        assert isinstance(client.reply(4), wire.Sent)
        inside.on_loop(inside.server._sweep_once)
        client.write(ping[5:])
        assert isinstance(client.reply(), wire.Done)


def test_bytes_in_flight_of_all_connections_are_bounded_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Those that wait go on when there is room, not when the sweep comes by.
    monkeypatch.setattr("mbctl.server.server._SWEEP_S", 1000)
    limits = Limits(server_bytes=512 * KIB)
    with ServerInside(limits, journal=HeldJournal()) as inside:
        clients = [inside.client().publisher(bytes([n]) * 16) for n in range(8)]
        clients[0].write(clients[0].frame(wire.CreateTopic(0, "t")))
        for client in clients:
            frames = [client.send_frame("t", n, bytes(200 * KIB)) for n in range(1, 6)]
            threading.Thread(target=client.write, args=(b"".join(frames),)).start()
        inside.wait_until(lambda: len(inside.server.congested) >= 6)
        assert inside.on_loop(lambda: inside.server.request_bytes) <= 2 * 512 * KIB
        done = threading.Event()
        letting_go = threading.Thread(target=_let_go_until, args=(inside, done))
        letting_go.start()
        for client in clients:
            client.reply()
            client.socket.close()
        done.set()
        letting_go.join()


def test_frames_begun_and_not_completed_are_bounded_together_who_comes_is_refused() -> None:
    with ServerInside(Limits(partial_bytes=200 * KIB)) as inside:
        clients = [inside.client().hello() for _ in range(4)]
        head = (7 * MIB).to_bytes(4, "big")
        held = 60 * KIB + len(head)
        for number, client in enumerate(clients, 1):
            client.write(head + bytes(60 * KIB))
            inside.wait_until(lambda n=number: inside.server.partial.bytes == min(n, 3) * held)
        clients[3].rest()
        assert clients[3].end == "LimitExceeded"
        for client in clients[:3]:
            client.reset()
        inside.wait_until(lambda: inside.server.partial.bytes == 0)
        clients[3].socket.close()


# --- backpressure -------------------------------------------------------------------------------


def test_a_subscriber_that_does_not_read_costs_a_bounded_amount_and_nobody_else(
    inside: ServerInside,
) -> None:
    with (
        Publisher(inside.address) as publisher,
        Subscriber(inside.address, name="quick") as quick,
        inside.client() as deaf,
    ):
        publisher.create_topic("t")
        quick.subscribe("t", start="earliest")
        deaf.take_little()
        deaf.subscriber("deaf")
        deaf.ask(wire.Subscribe(0, "t", "earliest"))
        for _ in range(12):
            publisher.send_many("t", [bytes(MIB)] * 4)
        for _ in range(60):
            deaf.write(deaf.frame(wire.Pull(0, "t", 1000, None, 60_000)))
        (held,) = inside.wait_until(lambda: list(inside.server.stalled))
        got = 0
        while got < 48:
            got += len(quick.pull("t"))
        # A reply of 4 MiB for the first pull, and no more until that is read.
        assert inside.on_loop(lambda: held.unsent_bytes) < 9 * MIB
        with Admin(inside.address) as admin:
            assert admin.subscription("t", "deaf").leased <= 8
            assert admin.subscription("t", "quick").unread <= 4
        # When it reads, it gets what it asked for.
        for id_ in range(4, 64):
            reply = deaf.reply(id_)
            assert isinstance(reply, wire.Pulled)
            got -= len(reply.pieces) * 4
            if got == 0:
                break


def test_pulls_of_a_connection_that_stalls_are_answered_empty(inside: ServerInside) -> None:
    with Publisher(inside.address) as publisher, inside.client() as deaf:
        for topic in ("full", "empty"):
            publisher.create_topic(topic)
        for _ in range(4):
            publisher.send_many("full", [bytes(MIB)] * 3)
        deaf.take_little()
        deaf.subscriber("deaf")
        for topic in ("full", "empty"):
            deaf.ask(wire.Subscribe(0, topic, "earliest"))
        deaf.write(deaf.frame(wire.Pull(0, "empty", 10, None, 60_000)))
        # The kernel takes the first reply, of 3 MiB, and not much more.
        for _ in range(3):
            deaf.write(deaf.frame(wire.Pull(0, "full", 10, None, 60_000)))
        (held,) = inside.wait_until(lambda: list(inside.server.stalled))
        inside.wait_until(lambda: not held.pulls)
        full, empty = deaf.reply(6), deaf.reply(5)
        assert isinstance(full, wire.Pulled)
        assert isinstance(empty, wire.Pulled)
        assert full.pieces
        assert not empty.pieces
        # It goes on with what it asked since.
        assert isinstance(deaf.ask(wire.Ping(0)), wire.Done)
        assert isinstance(deaf.reply(8), wire.Pulled)


def test_a_client_that_never_reads_its_answers_is_not_read_from(inside: ServerInside) -> None:
    with inside.client() as client, Admin(inside.address) as admin:
        client.hello().take_little()
        questions = client.frame(wire.GetStatus(0)) * 10_000
        asking = threading.Thread(target=_write_until_closed, args=(client.socket, questions))
        asking.start()
        (held,) = inside.wait_until(lambda: list(inside.server.stalled))
        assert admin.ping() < 5
        assert inside.on_loop(lambda: held.unsent_bytes) < 3 * MIB
        client.socket.shutdown(socket.SHUT_RDWR)
        asking.join()


def _write_until_closed(sock: socket.socket, content: bytes) -> None:
    try:
        while True:
            sock.sendall(content)
    except OSError:
        return


def test_who_reads_nothing_for_long_is_dropped_when_there_is_little_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (
        ServerInside(Limits(server_bytes=4 * MIB)) as inside,
        Publisher(inside.address) as publisher,
        inside.client() as deaf,
    ):
        publisher.create_topic("t")
        for _ in range(4):
            publisher.send_many("t", [bytes(MIB - 64)] * 3)
        deaf.take_little()
        deaf.subscriber("deaf").ask(wire.Subscribe(0, "t"))
        for _ in range(12):
            deaf.write(deaf.frame(wire.Pull(0, "t", 1000)))
        (held,) = inside.wait_until(lambda: list(inside.server.stalled))
        inside.wait_until(lambda: inside.server.unread.bytes > MIB)
        # Not at once: it may be about to read.
        inside.on_loop(inside.server._sweep_once)
        assert inside.on_loop(lambda: held in inside.server.connections)
        monkeypatch.setattr("mbctl.server.unread._STALLED_NS", 0)
        monkeypatch.setattr("mbctl.server.unread._ROOM_SHARE", 1000)
        inside.on_loop(inside.server._sweep_once)
        inside.wait_until(lambda: held not in inside.server.connections)
        assert publisher.send("t", b"served").count == 1


def test_a_flood_of_sends_leaves_the_others_served(inside: ServerInside) -> None:
    with Publisher(inside.address) as publisher:
        publisher.create_topic("t")
        stop = threading.Event()

        def flood() -> None:
            with Publisher(inside.address) as flooder:
                flooder.create_topic("flood", max_messages=1)
                while not stop.is_set():
                    try:
                        with flooder.pipeline() as pipe:
                            for _ in range(50):
                                pipe.send_many("flood", [bytes(1000)] * 50)
                    except Exception:
                        continue

        flooding = threading.Thread(target=flood)
        flooding.start()
        for _ in range(50):
            begin = time.monotonic()
            publisher.send("t", b"x")
            assert time.monotonic() - begin < 2
        stop.set()
        flooding.join()


# --- clients that vanish ------------------------------------------------------------------------


@pytest.mark.parametrize("leave", [RawClient.reset, lambda client: client.socket.close()])
def test_a_client_that_vanishes_leaves_nothing_behind(
    leave: Callable[[RawClient], None], inside: ServerInside
) -> None:
    with Publisher(inside.address) as publisher, Admin(inside.address) as admin:
        publisher.create_topic("t")
        publisher.send_many("t", [b"%d" % n for n in range(10)])
        for _ in range(20):
            client = inside.client().subscriber("s")
            client.ask(wire.Subscribe(0, "t", "earliest"))
            client.ask(wire.Pull(0, "t", 100))
            for _ in range(5):
                client.write(client.frame(wire.Pull(0, "t", 100, None, 60_000)))
            client.write(client.frame(wire.Ping(0))[:-3])
            wait_until(lambda: admin.subscription("t", "s").waiting_pulls == 5)
            leave(client)
            wait_until(lambda: admin.subscription("t", "s").waiting_pulls == 0)
            assert admin.subscription("t", "s").leased == 0
    inside.wait_until(lambda: not inside.server.connections)
    assert inside.on_loop(lambda: len(inside.engine._deliveries._pulls)) == 0


def test_a_process_that_comes_back_replaces_its_older_connection(inside: ServerInside) -> None:
    with Publisher(inside.address) as publisher, Admin(inside.address) as admin:
        publisher.create_topic("t")
        older, newer = inside.client().subscriber("s"), inside.client()
        older.ask(wire.Subscribe(0, "t"))
        older.write(older.frame(wire.Pull(0, "t", 1, None, 60_000)))
        wait_until(lambda: admin.subscription("t", "s").waiting_pulls)
        newer.subscriber("s")
        older.rest()
        assert admin.subscription("t", "s").waiting_pulls == 0
        newer.write(newer.frame(wire.Pull(0, "t", 1, None, 60_000)))
        publisher.send("t", b"x")
        assert newer.reply().pieces  # type: ignore[attr-defined]
        for client in (older, newer):
            client.socket.close()


def test_a_reset_in_the_middle_of_a_frame_is_survived(inside: ServerInside) -> None:
    for _ in range(20):
        client = inside.client().publisher()
        client.write(client.send_frame("t", 1, bytes(100_000))[:70_000])
        client.reset()
    with Admin(inside.address) as admin:
        wait_until(lambda: admin.status().connections == 1)
    assert inside.on_loop(lambda: inside.server.partial.bytes) == 0


def test_an_ended_connection_releases_its_leases_at_once(inside: ServerInside) -> None:
    with Publisher(inside.address) as publisher, Admin(inside.address) as admin:
        publisher.create_topic("t")
        publisher.send("t", b"x")
        with inside.client() as client:
            client.subscriber("s").ask(wire.Subscribe(0, "t"))
            client.ask(wire.Pull(0, "t", 1))
            assert admin.subscription("t", "s").leased == 1
            client.write(b"\xff\xff\xff\xff")
            begin = time.monotonic()
            wait_until(lambda: admin.subscription("t", "s").leased == 0)
            assert time.monotonic() - begin < 0.8


def test_an_ended_connection_whose_peer_stays_is_closed_soon(inside: ServerInside) -> None:
    with inside.client() as client:
        client.hello().write(b"\xff\xff\xff\xff")
        begin = time.monotonic()
        inside.wait_until(lambda: not inside.server.connections)
        assert time.monotonic() - begin < 4


def test_hundreds_of_connections_leave_no_descriptor_behind(inside: ServerInside) -> None:
    with Admin(inside.address) as admin:
        before = len(os.listdir("/proc/self/fd"))
        for round_ in range(3):
            clients = [inside.client() for _ in range(100)]
            for client in clients[::2]:
                client.hello()
            for number, client in enumerate(clients):
                if (number + round_) % 3:
                    client.socket.close()
                else:
                    client.reset()
        wait_until(lambda: admin.status().connections == 1)
        wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_what_was_acted_on_in_turns_is_let_go_of() -> None:
    with ServerInside() as inside, RawClient(inside.address) as client:
        client.hello()
        # More than is acted on at once: the rest waits in the line.
        client.write(b"".join(client.frame(wire.Ping(0)) for _ in range(20_000)))
        for id_ in range(client._next_id - 19_999, client._next_id + 1):
            client.reply(id_)
        (connection,) = inside.server.connections
        assert len(connection._wire._frames._source) == 0  # type: ignore[attr-defined]


# --- stopping -----------------------------------------------------------------------------------


def test_a_stop_answers_waiting_pulls_and_says_so() -> None:
    with ServerInside() as inside:
        client = inside.client().subscriber("s")
        client.ask(wire.CreateTopic(0, "t"))
        client.ask(wire.Subscribe(0, "t"))
        client.write(client.frame(wire.Pull(0, "t", 1, None, 60_000)))
        client.write(client.frame(wire.Ping(0)))
        client.reply()
    assert client.rest() == [5]
    assert client.end == "ServerStopping"
    client.socket.close()


def test_a_connection_that_comes_during_the_stop_is_told() -> None:
    with ServerInside() as inside:
        inside.on_loop(lambda: setattr(inside.server, "is_stopping", True))
        with inside.client() as client:
            client.rest()
            assert client.end == "ServerStopping"


def test_a_stop_with_idle_clients_takes_a_moment() -> None:
    with ServerInside() as inside:
        clients = [inside.client().hello() for _ in range(20)]
        begin = time.monotonic()
    assert time.monotonic() - begin < 2
    for client in clients:
        client.rest()
        assert client.end == "ServerStopping"
        client.socket.close()


def test_a_stop_answers_what_was_accepted_and_nothing_later() -> None:
    with ServerInside(journal=HeldJournal()) as inside:
        client = inside.client().publisher()
        client.write(client.frame(wire.CreateTopic(0, "t")))
        client.write(client.send_frame("t", 1, b"accepted"))
        inside.wait_until(lambda: inside.server.request_bytes > 0)
        assert isinstance(inside.journal, HeldJournal)
    assert client.rest() == [3, 4]
    assert client.end == "ServerStopping"
    client.socket.close()


def test_a_stop_does_not_wait_forever_for_a_client_that_does_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mbctl.server.server._STOP_S", 0.3)
    with ServerInside() as inside:
        deaf = inside.client()
        deaf.take_little()
        deaf.subscriber("deaf")
        deaf.ask(wire.CreateTopic(0, "t"))
        deaf.ask(wire.Subscribe(0, "t"))
        with Publisher(inside.address) as publisher:
            for _ in range(3):
                publisher.send_many("t", [bytes(MIB)] * 4)
        for _ in range(3):
            deaf.write(deaf.frame(wire.Pull(0, "t", 1000)))
        inside.wait_until(lambda: inside.server.stalled)
        begin = time.monotonic()
    assert time.monotonic() - begin < 3
    deaf.socket.close()
