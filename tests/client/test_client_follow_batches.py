"""Following by batches, and following until nothing comes any more."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from broker_process import wait_until
from cutting_proxy import CuttingProxy

from mbctl import Admin, InvalidArgument, Publisher, Subscriber

COUNT = 5000


@pytest.fixture
def filled(publisher: Publisher, topic: str) -> str:
    """A topic that holds the messages 0 to 4999, in batches of 200."""
    publisher.create_topic(topic)
    for first in range(0, COUNT, 200):
        publisher.send_many(topic, [b"%d" % n for n in range(first, first + 200)])
    return topic


@pytest.fixture
def admin(server: str) -> Iterator[Admin]:
    """Who looks on."""
    with Admin(server) as admin:
        yield admin


def test_batches_bring_every_message_once_and_in_order(
    reader: Subscriber, filled: str, admin: Admin
) -> None:
    payloads, sizes = [], []
    for batch in reader.follow_batches(filled, max_messages=600, idle=0.05):
        payloads += batch.payloads
        sizes.append(len(batch))
    assert payloads == [b"%d" % n for n in range(COUNT)]
    assert max(sizes) == 600
    reader.settle_all()
    assert admin.topic(filled).messages == 0


def test_bytes_bound_a_batch_too(reader: Subscriber, filled: str) -> None:
    batch = next(reader.follow_batches(filled, max_messages=COUNT, max_bytes=1000))
    assert 0 < sum(map(len, batch.payloads)) <= 1000


def test_a_batch_is_acknowledged_when_the_next_is_asked_for(
    reader: Subscriber, filled: str, admin: Admin
) -> None:
    batches = reader.follow_batches(filled, max_messages=1000)
    next(batches)
    wait_until(lambda: admin.subscription(filled, "reader").leased == 2000)
    assert admin.subscription(filled, "reader").cursor == 0
    next(batches)
    # By the pull for the batch after it, or by itself: nobody waits for it.
    next(batches)
    wait_until(lambda: admin.subscription(filled, "reader").cursor >= 1000)


def test_what_was_settled_in_the_loop_stays_as_it_was_settled(
    reader: Subscriber, filled: str
) -> None:
    seen: list[tuple[int, int]] = []
    for batch in reader.follow_batches(filled, max_messages=2500, idle=0.05):
        is_first = not seen
        seen += [(message.offset, message.deliveries) for message in batch]
        if is_first:
            batch.nack()
        else:
            batch.ack()
    first, rest = range(2500), range(2500, COUNT)
    assert sorted(seen) == sorted(
        [(n, 1) for n in first] + [(n, 2) for n in first] + [(n, 1) for n in rest]
    )


@pytest.mark.parametrize("count", [1, 2])
def test_leaving_the_loop_acknowledges_the_batch_at_hand_and_gives_back_the_next(
    count: int, server: str, filled: str, admin: Admin
) -> None:
    with Subscriber(server, name="reader") as subscriber:
        subscriber.subscribe(filled)
        for _, _batch in zip(
            range(count), subscriber.follow_batches(filled, max_messages=700), strict=False
        ):
            pass
    info = admin.subscription(filled, "reader")
    assert (info.cursor, info.leased) == (700 * count, 0)
    with Subscriber(server, name="reader") as subscriber:
        rest = subscriber.pull(filled, COUNT)
        assert rest.payloads[0] == b"%d" % (700 * count)
        assert {message.deliveries for message in rest} == {1}


def test_an_exception_in_the_loop_leaves_its_batch_unacknowledged(
    server: str, filled: str, admin: Admin
) -> None:
    def fail() -> None:
        with Subscriber(server, name="reader") as subscriber:
            subscriber.subscribe(filled)
            for batch in subscriber.follow_batches(filled, max_messages=1000):
                if batch.payloads[0] == b"1000":
                    raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    wait_until(lambda: admin.subscription(filled, "reader").leased == 0)
    assert admin.subscription(filled, "reader").cursor == 1000


def test_a_loop_goes_on_from_where_it_seeks(reader: Subscriber, filled: str) -> None:
    first = []
    for batch in reader.follow_batches(filled, max_messages=500, idle=0.05):
        first.append(int(batch.payloads[0]))
        if first == [0, 500]:
            reader.seek(filled, 4000)
    assert first == [0, 500, 4000, 4500]


def test_idle_ends_a_loop_over_messages_too(
    reader: Subscriber, filled: str, publisher: Publisher
) -> None:
    assert sum(1 for _ in reader.follow(filled, idle=0)) == COUNT
    publisher.send(filled, b"later")
    assert [message.payload for message in reader.follow(filled, idle=0.05)] == [b"later"]


def test_idle_is_counted_from_when_the_next_is_asked_for(
    server: str, publisher: Publisher, topic: str
) -> None:
    publisher.create_topic(topic)
    publisher.send(topic, b"first")
    with Subscriber(server, name="reader") as subscriber, Admin(server) as admin:
        subscriber.subscribe(topic)
        batches = subscriber.follow_batches(topic, idle=0.2)
        assert next(batches).payloads == [b"first"]
        # The pull that is under way comes to its end while this works.
        wait_until(lambda: admin.subscription(topic, "reader").waiting_pulls == 1)
        wait_until(lambda: admin.subscription(topic, "reader").waiting_pulls == 0)
        publisher.send(topic, b"second")
        assert [batch.payloads for batch in batches] == [[b"second"]]


def test_idle_waits_for_all_topics(server: str, publisher: Publisher, topic: str) -> None:
    names = [f"{topic}-{n}" for n in range(3)]
    with Subscriber(server, name="reader") as subscriber:
        for name in names:
            publisher.create_topic(name)
            subscriber.subscribe(name)
            publisher.send_many(name, [b"a", b"b"])
        got = [(batch.topic, batch.payloads) for batch in subscriber.follow_batches(*names, idle=0)]
    assert sorted(got) == [(name, [b"a", b"b"]) for name in names]


def test_idle_waits_for_as_long_as_it_says(server: str, publisher: Publisher, topic: str) -> None:
    publisher.create_topic(topic)
    with Subscriber(server) as subscriber:
        subscriber.subscribe(topic)
        began = time.monotonic()
        assert list(subscriber.follow(topic, idle=0.1)) == []
        assert time.monotonic() - began >= 0.1


@pytest.mark.parametrize("idle", [float("nan"), "soon", True])
def test_idle_is_a_number_of_seconds(idle: Any, reader: Subscriber, filled: str) -> None:
    for follow in (reader.follow, reader.follow_batches):
        with pytest.raises(InvalidArgument, match="idle"):
            follow(filled, idle=idle)


@pytest.mark.parametrize("bound", [0, -1, True, 1.5, "many", 2**63])
def test_a_bound_that_is_none_is_refused_and_nothing_else_is_touched(
    bound: Any, server: str, filled: str, admin: Admin
) -> None:
    with Subscriber(server, name="reader") as subscriber:
        subscriber.subscribe(filled)
        assert len(subscriber.pull(filled, 10)) == 10
        with pytest.raises(InvalidArgument, match="max_messages"):
            next(subscriber.follow_batches(filled, max_messages=bound))
        with pytest.raises(InvalidArgument, match="max_bytes"):
            next(subscriber.follow_batches(filled, max_bytes=bound))
    assert admin.subscription(filled, "reader").cursor == 10


def test_closing_inside_the_loop_ends_it(server: str, filled: str, admin: Admin) -> None:
    with Subscriber(server, name="reader") as subscriber:
        subscriber.subscribe(filled)
        for _batch in subscriber.follow_batches(filled, max_messages=10):
            subscriber.close()
            break
    wait_until(lambda: admin.subscription(filled, "reader").leased == 0)
    assert admin.subscription(filled, "reader").cursor == 0


def test_a_part_that_was_acknowledged_stays_so_when_the_rest_is_given_back(
    reader: Subscriber, filled: str, admin: Admin
) -> None:
    for batch in reader.follow_batches(filled, max_messages=10):
        for message in list(batch)[:3]:
            message.ack()
        batch.nack()
        break
    wait_until(lambda: admin.subscription(filled, "reader").leased == 0)
    assert admin.subscription(filled, "reader").cursor == 3
    rest = reader.pull(filled, 20)
    assert [message.offset for message in rest] == list(range(3, 23))
    assert [message.deliveries for message in rest] == [2] * 7 + [1] * 13


def test_the_connection_may_be_lost_while_a_batch_is_worked_on(
    proxy: CuttingProxy, server: str, filled: str, admin: Admin
) -> None:
    seen: set[int] = set()
    with Subscriber(proxy.address, name="reader") as subscriber:
        subscriber.subscribe(filled)
        for batch in subscriber.follow_batches(filled, max_messages=1000, idle=0.1):
            seen |= {message.offset for message in batch}
            if len(seen) in (1000, 3000):
                proxy.cut_now()
    assert seen == {*range(COUNT)}
    assert admin.topic(filled).messages == 0


def test_the_last_batch_is_acknowledged_while_nothing_comes(
    server: str, filled: str, admin: Admin
) -> None:
    def follow() -> None:
        with Subscriber(server, name="reader") as subscriber:
            subscriber.subscribe(filled)
            for batch in subscriber.follow_batches(filled, max_messages=1000):
                if batch.payloads == [b"end"]:
                    return

    thread = threading.Thread(target=follow)
    thread.start()
    # All but by a pull: that which is under way was sent before the batch came.
    wait_until(lambda: _cursor(admin, filled) == COUNT)
    with Publisher(server) as publisher:
        publisher.send(filled, b"end")
    thread.join()
    assert _cursor(admin, filled) == COUNT + 1


def _cursor(admin: Admin, topic: str) -> int:
    """How far the reader is; 0 before it is there."""
    return sum(info.cursor for info in admin.subscriptions(topic))
