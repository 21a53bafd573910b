"""Following by batches, and following until nothing comes any more."""

import time
from collections.abc import Iterator

import pytest
from broker_process import wait_until

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
def reader(server: str, filled: str) -> Iterator[Subscriber]:
    """A subscriber named "reader" that is subscribed to the filled topic from its beginning."""
    with Subscriber(server, name="reader") as subscriber:
        subscriber.subscribe(filled)
        yield subscriber


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


@pytest.mark.parametrize("idle", [float("nan"), "soon", None])
def test_idle_is_a_number_of_seconds(idle: object, reader: Subscriber, filled: str) -> None:
    for follow in (reader.follow, reader.follow_batches):
        if idle is None:
            assert follow(filled, idle=idle) is not None
        else:
            with pytest.raises(InvalidArgument, match="idle"):
                follow(filled, idle=idle)  # type: ignore[arg-type]


@pytest.mark.parametrize("max_messages", [0, "many"])
def test_a_bound_that_is_none_is_refused(
    max_messages: object, reader: Subscriber, filled: str
) -> None:
    with pytest.raises(InvalidArgument):
        next(reader.follow_batches(filled, max_messages=max_messages))  # type: ignore[arg-type]
    # And the subscriber is as it was.
    assert len(reader.pull(filled, 10)) == 10
