"""Threads that share a client: one window for all, an order for each, and misuse is told."""

import gc
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import get_ident
from typing import Any

import pytest
from broker_process import wait_until
from cutting_proxy import CuttingProxy, read_all
from fake_server import FakeServer, opening

from mbctl import (
    Admin,
    ConnectionLost,
    InvalidArgument,
    MbctlError,
    OutcomeUnknown,
    Publisher,
    Subscriber,
    Timeout,
)
from mbctl.client.bell import Bell
from mbctl.client.channel import Channel
from mbctl.client.deadline import Deadline
from mbctl.client.turns import OWNER, Turn
from mbctl.model import LIMITS
from mbctl.wire import messages as wire


def in_threads(count: int, act: Callable[[int], Any]) -> list[Any]:
    """What ``act`` returns in each of so many threads at once."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(act, range(count)))


def give_up(turn: Turn) -> None:
    """End the turn of whoever has it."""
    del turn.taken[OWNER]
    turn.wake_next()


def check_each_is_in_order(stored: list[bytes], threads: int, each: int) -> None:
    """Every thread's messages are there, once, in the order in which it sent them."""
    assert len(stored) == threads * each
    for thread in range(threads):
        own = [payload for payload in stored if payload.startswith(b"%d " % thread)]
        assert own == [b"%d %d" % (thread, number) for number in range(each)]


# --- publishers ---------------------------------------------------------------------------------


def test_threads_send_once_and_in_their_order_through_lost_connections(
    server: str, proxy: CuttingProxy, topic: str
) -> None:
    with Publisher(proxy.address) as publisher:
        publisher.create_topic(topic)

        def send(thread: int) -> list[int]:
            offsets = []
            for number in range(60):
                payload = b"%d %d" % (thread, number)
                if number % 10 == 9:
                    with publisher.pipeline() as pipe:
                        pipe.send(topic, payload)
                    assert pipe.last is not None
                    offsets.append(pipe.last.offset)
                else:
                    offsets.append(publisher.send(topic, payload).offset)
                if thread == 0 and number % 20 == 10:
                    proxy.cut_now()
            return offsets

        receipts = in_threads(8, send)
    stored = read_all(server, topic)
    check_each_is_in_order(stored, 8, 60)
    for thread, offsets in enumerate(receipts):
        assert [stored[offset] for offset in offsets] == [
            b"%d %d" % (thread, number) for number in range(60)
        ]


def is_receiving(thread: threading.Thread) -> bool:
    """Whether a thread waits for what the server says."""
    assert thread.ident is not None
    frame = sys._current_frames().get(thread.ident)
    return frame is not None and frame.f_code is Channel._receive.__code__


def test_what_threads_have_queued_goes_out_together_when_an_answer_comes() -> None:
    waiting: list[int] = []
    others_are_waiting = threading.Event()
    in_flight: list[int] = []

    def answer(request: wire.Message) -> bytes:
        if not isinstance(request, wire.Send):
            return opening(request)
        waiting.append(request.id)
        if request.sequence == 1:
            assert others_are_waiting.wait(20)
        elif len(waiting) < 7:
            return b""
        in_flight.append(len(waiting))
        answers = b"".join(wire.encode(wire.Sent(id_, 0, 1)) for id_ in waiting)
        waiting.clear()
        return answers

    with FakeServer(answer) as fake, Publisher(fake.address) as publisher:
        first = threading.Thread(target=publisher.send, args=("t", b"first"))
        first.start()
        # Until then it would write itself what the others queue.
        wait_until(lambda: waiting and is_receiving(first))
        with ThreadPoolExecutor(7) as pool:
            sends = [pool.submit(publisher.send, "t", b"%d" % number) for number in range(7)]
            wait_until(lambda: len(publisher._queue) == 7)
            others_are_waiting.set()
            assert [send.result().count for send in sends] == [1] * 7
        first.join()
    # None of the seven was answered before all of them were on their way.
    assert in_flight == [1, 7]


def test_threads_keep_within_the_window_of_the_session() -> None:
    unanswered: list[int] = []
    most: list[int] = []

    def answer(request: wire.Message) -> bytes:
        if not isinstance(request, wire.Send):
            return opening(request)
        unanswered.append(request.id)
        most.append(len(unanswered))
        if len(unanswered) < LIMITS.sends_in_flight and len(most) < 200:
            return b""
        answers = b"".join(wire.encode(wire.Sent(id_, 0, 1)) for id_ in unanswered)
        unanswered.clear()
        return answers

    with FakeServer(answer) as fake, Publisher(fake.address) as publisher:
        publisher._bell = Bell()

        def send(_: int) -> None:
            with publisher.pipeline() as pipe:
                for _ in range(100):
                    pipe.send_many("t", [b"x"])

        in_threads(2, send)
    assert (len(most), max(most)) == (200, LIMITS.sends_in_flight)


def test_a_thread_whose_time_is_up_before_its_turn_has_sent_nothing(
    server: str, topic: str
) -> None:
    is_over = threading.Event()
    with Publisher(server) as publisher, ThreadPoolExecutor(1) as pool:
        publisher.create_topic(topic)
        working = pool.submit(publisher._in_turn, lambda: is_over.wait(20), Deadline(20))
        wait_until(lambda: publisher._turn.owner is not None)
        publisher.timeout = 0.05
        with pytest.raises(Timeout, match="the calls of other threads"):
            publisher.send(topic, b"hurried")
        publisher.timeout = 20
        is_over.set()
        assert working.result()
        assert publisher.send(topic, b"later").offset == 0
    assert read_all(server, topic) == [b"later"]


def test_a_thread_that_gives_up_what_another_wrote_does_not_know_its_outcome() -> None:
    seen: list[int] = []

    def hold(request: wire.Message) -> bytes:
        if not isinstance(request, wire.Send):
            return opening(request)
        seen.append(request.sequence)
        if request.sequence in (2, 3) and seen.count(request.sequence) == 1:
            return b""
        return wire.encode(wire.Sent(request.id, request.sequence, 1))

    with FakeServer(hold) as fake, Publisher(fake.address, timeout=20) as publisher:
        turn, window = publisher._turn, publisher._window
        publisher.send("t", b"1")
        with ThreadPoolExecutor(2) as pool:
            assert turn.take_now()
            one = pool.submit(publisher.send, "t", b"2")
            wait_until(lambda: turn.waiting == 1)
            publisher.timeout = 1
            two = pool.submit(publisher.send, "t", b"3")
            wait_until(lambda: turn.waiting == 2)
            give_up(turn)
            # The one that has the turn has written both.
            with pytest.raises(OutcomeUnknown):
                two.result()
            assert seen == [1, 2, 3]
            assert not one.done()
            # On another connection only what somebody waits for is sent again.
            fake.cut()
            assert one.result().offset == 2
            assert seen == [1, 2, 3, 2]
            assert len(window) == 0


def test_threads_are_told_when_the_server_is_gone(server: str, proxy: CuttingProxy) -> None:
    with Publisher(proxy.address, timeout=0.3) as publisher:
        proxy.refuses = True
        proxy.cut_now()

        def send(_: int) -> type[BaseException] | None:
            try:
                publisher.send("nothing", b"x")
            except MbctlError as error:
                return type(error)
            return None

        assert set(in_threads(8, send)) <= {ConnectionLost, OutcomeUnknown, Timeout}
        assert (len(publisher._queue), publisher._turn.owner) == (0, None)


def test_threads_create_and_delete_topics_beside_the_sends_of_others(
    server: str, topic: str
) -> None:
    with Publisher(server) as publisher:
        publisher.create_topic(topic)

        def act(thread: int) -> None:
            for number in range(30):
                if thread % 2:
                    publisher.create_topic(f"{topic}-{thread}-{number}")
                    publisher.delete_topic(f"{topic}-{thread}-{number}")
                else:
                    publisher.send(topic, b"%d %d" % (thread // 2, number))

        in_threads(6, act)
    check_each_is_in_order(read_all(server, topic), 3, 30)


def test_closing_beside_the_sends_of_other_threads_leaves_none_of_them_waiting(
    server: str, topic: str
) -> None:
    with Publisher(server) as publisher:
        publisher.create_topic(topic)
        with ThreadPoolExecutor(4) as pool:
            sends = [pool.submit(publisher.send, topic, b"%d" % number) for number in range(200)]
            for _ in range(20):
                publisher.close()
            errors = [send.exception() for send in sends]
        # Of one that was on its way nobody knows; the others found the next connection.
        assert {type(error) for error in errors} <= {type(None), OutcomeUnknown}
        receipts = {
            number: send.result().offset
            for number, send in enumerate(sends)
            if send.exception() is None
        }
    stored = [int(payload) for payload in read_all(server, topic)]
    assert len(set(stored)) == len(stored)
    assert {number: stored.index(number) for number in receipts} == receipts


def test_a_call_from_inside_of_a_call_is_told(publisher: Publisher, topic: str) -> None:
    publisher.create_topic(topic)
    errors: list[MbctlError] = []

    def send_in_between(*_: object) -> None:
        try:
            publisher.send(topic, b"in between")
        except InvalidArgument as error:
            errors.append(error)
        signal.setitimer(signal.ITIMER_REAL, 0.001)

    before = signal.signal(signal.SIGALRM, send_in_between)
    try:
        with publisher.pipeline() as pipe:
            signal.setitimer(signal.ITIMER_REAL, 0.001)
            for number in range(3000):
                pipe.send_many(topic, [b"%d" % number])
                if errors and number > 100:
                    break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert str(errors[0]) == "this Publisher is at work in a call below this one"
    # Between two calls it may send.
    stored = [payload for payload in read_all(publisher.server, topic) if payload != b"in between"]
    assert stored == [b"%d" % number for number in range(pipe.sent)]


# --- the others ---------------------------------------------------------------------------------


def test_an_admin_serves_several_threads(server: str, topic: str) -> None:
    with Admin(server) as admin:

        def ask(thread: int) -> None:
            name = f"{topic}-{thread}"
            for _ in range(20):
                assert admin.create_topic(name)
                assert admin.topic(name).topic == name
                admin.delete_topic(name)

        in_threads(8, ask)


def test_threads_use_a_subscriber_one_after_the_other(server: str, topic: str) -> None:
    with Publisher(server) as publisher, Subscriber(server, "s") as subscriber:
        publisher.create_topic(topic)
        subscriber.subscribe(topic)
        publisher.send_many(topic, [b"%d" % number for number in range(40)])
        seen: list[bytes] = []
        for _ in range(4):
            thread = threading.Thread(
                target=lambda: seen.extend(subscriber.pull(topic, 10).payloads)
            )
            thread.start()
            thread.join()
        assert seen == [b"%d" % number for number in range(40)]
    with Admin(server) as admin:
        assert admin.subscription(topic, "s").cursor == 40


@pytest.mark.parametrize("act", ["pull", "subscribe", "ack", "close", "follow"])
def test_a_subscriber_at_work_in_another_thread_is_told_whatever_is_asked(
    act: str, server: str, topic: str
) -> None:
    with Publisher(server) as publisher, Subscriber(server, "s") as subscriber:
        publisher.create_topic(topic)
        subscriber.subscribe(topic)
        publisher.send(topic, b"0")
        held = subscriber.pull(topic, auto_ack=False)
        acts: dict[str, Callable[[], object]] = {
            "pull": lambda: subscriber.pull(topic),
            "subscribe": lambda: subscriber.subscribe(topic),
            "ack": held.ack,
            "close": subscriber.close,
            "follow": lambda: next(subscriber.follow(topic)),
        }
        pulled: list[bytes] = []
        pulling = threading.Thread(
            target=lambda: pulled.extend(subscriber.pull(topic, wait=20).payloads)
        )
        pulling.start()
        with Admin(server) as admin:
            wait_until(lambda: admin.subscription(topic, "s").waiting_pulls)
        with pytest.raises(InvalidArgument, match="at work in another thread; give each thread"):
            acts[act]()
        publisher.send(topic, b"1")
        pulling.join()
        # The one that was there first has noticed nothing.
        assert pulled == [b"1"]
        assert held.ack() == 1


def test_many_threads_in_one_subscriber_mix_nothing_up(server: str, topic: str) -> None:
    count = 100
    seen: list[int] = []
    come = threading.Event()
    with Publisher(server) as publisher, Subscriber(server, "s") as subscriber:
        publisher.create_topic(topic)
        subscriber.subscribe(topic)
        publisher.send_many(topic, [b"%d" % number for number in range(count)])

        def pull(_: int) -> None:
            while len(seen) < count:
                try:
                    batch = subscriber.pull(topic, 1, wait=0)
                except InvalidArgument:
                    # Rather asleep than in the way of the one that was first.
                    come.wait(0.0005)
                else:
                    seen.extend(message.offset for message in batch)

        in_threads(4, pull)
        assert subscriber.is_connected
    assert sorted(seen) == list(range(count))
    with Admin(server) as admin:
        assert admin.subscription(topic, "s").cursor == count


def test_a_loop_that_ends_in_another_thread_is_left_at_the_next_call(
    server: str, topic: str
) -> None:
    with Publisher(server) as publisher, Subscriber(server, "s") as subscriber:
        publisher.create_topic(topic)
        subscriber.subscribe(topic)
        publisher.send_many(topic, [b"0", b"1", b"2"])
        held = [subscriber.follow(topic)]
        assert next(held[0]).offset == 0
        thread = threading.Thread(target=held.clear)
        thread.start()
        thread.join()
        assert len(subscriber._leavings) == 1
        batch = subscriber.pull(topic, wait=20)
        assert [message.offset for message in batch] == [1, 2]
        assert {message.deliveries for message in batch} == {1}


def test_a_loop_that_is_garbage_in_the_middle_of_a_call_is_left_later(
    server: str, topic: str
) -> None:
    with Publisher(server) as publisher, Subscriber(server, "s") as subscriber:
        publisher.create_topic(topic)
        subscriber.subscribe(topic)
        publisher.send_many(topic, [b"0", b"1", b"2"])
        circle: list[object] = [subscriber.follow(topic)]
        circle.append(circle)
        assert next(circle[0]).offset == 0  # type: ignore[call-overload]
        subscriber._in_turn(lambda: (circle.clear(), gc.collect()), Deadline(1))
        batch = subscriber.pull(topic, wait=20)
        assert [message.offset for message in batch] == [1, 2]


# --- the turn itself ----------------------------------------------------------------------------


def test_turn_is_handed_to_who_has_waited_longest_and_is_not_done() -> None:
    turn = Turn()
    done: list[int] = []
    order: list[int] = []
    assert turn.take_now()

    def wait(number: int) -> bool:
        taken = turn.take(Deadline(20), lambda: number in done)
        if taken:
            order.append(number)
            give_up(turn)
        return taken

    with ThreadPoolExecutor(4) as pool:
        waits = []
        for number in range(4):
            waits.append(pool.submit(wait, number))
            wait_until(lambda expected=number + 1: turn.waiting == expected)
        done += [0, 2]
        turn.wake_done()
        assert not waits[2].result()
        give_up(turn)
        assert [taken.result() for taken in waits] == [False, True, False, True]
    assert order == [1, 3]
    assert (turn.owner, turn.waiting) == (None, 0)


def test_turn_that_nobody_handed_on_is_found_all_the_same() -> None:
    turn = Turn()
    assert turn.take_now()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(turn.take, Deadline(20), lambda: False)
        wait_until(lambda: turn.waiting)
        # As a Ctrl-C between these two steps would leave it.
        del turn.taken[OWNER]
        assert waiting.result()


def test_turn_is_waited_for_no_longer_than_the_deadline() -> None:
    turn = Turn()
    turn.taken[OWNER] = get_ident() + 1
    with pytest.raises(Timeout):
        turn.take(Deadline(0.01), lambda: False)
    assert not turn.waiting


def test_bell_is_heard_after_it_was_rung_while_it_was_silenced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bell = Bell()
    bell.ring()

    def read(descriptor: int, size: int) -> bytes:
        bell.ring()
        return real_read(descriptor, size)

    real_read = os.read
    monkeypatch.setattr(os, "read", read)
    bell.silence()
    monkeypatch.undo()
    bell.ring()
    assert select.select([bell], [], [], 0)[0] == [bell]
