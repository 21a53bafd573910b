"""Following topics: prefetch, acknowledgements as it goes, and what leaving gives back."""

import threading

import pytest
from broker_process import wait_until
from cutting_proxy import CuttingProxy

from mbctl import Admin, InvalidArgument, Publisher, Subscriber, TopicNotFound


@pytest.fixture
def filled(publisher: Publisher, topic: str) -> str:
    """A topic that holds the messages 0 to 4999, in batches of 200."""
    publisher.create_topic(topic)
    for first in range(0, 5000, 200):
        publisher.send_many(topic, [b"%d" % n for n in range(first, first + 200)])
    return topic


def test_following_yields_every_message_in_order_and_acknowledges_it(
    server: str, reader: Subscriber, filled: str
) -> None:
    offsets = []
    for message in reader.follow(filled):
        assert (message.deliveries, message.payload) == (1, b"%d" % message.offset)
        offsets.append(message.offset)
        if len(offsets) == 5000:
            break
    assert offsets == list(range(5000))
    reader.settle_all()
    with Admin(server) as admin:
        assert admin.topic(filled).messages == 0


def test_a_batch_is_acknowledged_when_all_of_it_was_yielded(
    server: str, reader: Subscriber, filled: str
) -> None:
    messages = reader.follow(filled)
    for _ in range(2001):
        next(messages)
    with Admin(server) as admin:
        # The acknowledgement is under way, nobody waits for it.
        wait_until(lambda: admin.subscription(filled, "reader").cursor == 2000)


def test_the_next_pull_is_under_way_while_a_batch_is_worked_on(
    server: str, reader: Subscriber, filled: str
) -> None:
    messages = reader.follow(filled)
    next(messages)
    with Admin(server) as admin:
        wait_until(lambda: admin.subscription(filled, "reader").leased == 4000)


@pytest.mark.parametrize("count", [1, 500, 2000, 2001, 5000])
def test_breaking_out_gives_back_what_was_not_yielded_uncounted(
    count: int, server: str, reader: Subscriber, filled: str
) -> None:
    for message in reader.follow(filled):
        if message.offset == count - 1:
            break
    with Admin(server) as admin:
        wait_until(
            lambda: (
                admin.subscription(filled, "reader").leased <= count
                and admin.subscription(filled, "reader").waiting_pulls == 0
            )
        )
    rest = reader.pull(filled, 9000, wait=0)
    assert [message.offset for message in rest] == list(range(count, 5000))
    assert {message.deliveries for message in rest} <= {1}


def test_leaving_the_block_acknowledges_what_was_yielded_and_nothing_else(
    server: str, filled: str
) -> None:
    with Subscriber(server, name="reader") as subscriber:
        subscriber.subscribe(filled)
        for message in subscriber.follow(filled):
            if message.offset == 1233:
                break
    with Admin(server) as admin:
        info = admin.subscription(filled, "reader")
        assert (info.cursor, info.unread, info.leased) == (1234, 3766, 0)


def test_leaving_the_block_ends_a_follow_that_is_still_held(server: str, filled: str) -> None:
    with Subscriber(server, name="reader") as subscriber:
        subscriber.subscribe(filled)
        messages = subscriber.follow(filled)
        assert [next(messages).offset for _ in range(3)] == [0, 1, 2]
    assert list(messages) == []
    with Admin(server) as admin:
        assert admin.subscription(filled, "reader").cursor == 3


def test_an_exception_in_the_loop_leaves_its_message_unacknowledged(
    server: str, filled: str
) -> None:
    def fail_at(offset: int) -> None:
        with Subscriber(server, name="reader") as subscriber:
            subscriber.subscribe(filled)
            for message in subscriber.follow(filled):
                if message.offset == offset:
                    raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail_at(3000)
    with Admin(server) as admin:
        # The server sees the end of a connection when it has read what came before it.
        wait_until(lambda: admin.subscription(filled, "reader").leased == 0)
    with Subscriber(server, name="reader") as subscriber:
        batch = subscriber.pull(filled, 9000)
        # The first batch was done with; of the second, what was seen counts as delivered.
        assert [message.offset for message in batch] == list(range(2000, 5000))
        assert [message.deliveries for message in batch] == [2] * 1001 + [1] * 1999


def test_following_several_topics_yields_from_all_of_them(
    server: str, publisher: Publisher, topic: str
) -> None:
    names = [f"{topic}-{n}" for n in range(5)]
    with Subscriber(server) as subscriber:
        for name in names:
            publisher.create_topic(name)
            subscriber.subscribe(name)
        messages = subscriber.follow(*names, names[0])
        for turn in range(3):
            for name in names:
                publisher.send(name, b"%d" % turn)
            got = [next(messages) for _ in names]
            assert {(m.topic, m.payload) for m in got} == {(name, b"%d" % turn) for name in names}


def test_a_refused_topic_ends_the_follow_and_gives_back_the_others(
    server: str, publisher: Publisher, reader: Subscriber, filled: str
) -> None:
    other = f"{filled}-other"
    publisher.create_topic(other)
    reader.subscribe(other)
    messages = reader.follow(filled, other)
    assert next(messages).offset == 0
    publisher.delete_topic(other)
    with pytest.raises(TopicNotFound, match=other):
        for _ in messages:
            pass
    assert reader.is_connected
    # What was yielded to its end may wait for the next pull to acknowledge it.
    reader.settle_all()
    with Admin(server) as admin:
        wait_until(lambda: admin.subscription(filled, "reader").leased == 0)


def test_other_verbs_work_inside_the_loop(
    server: str, publisher: Publisher, reader: Subscriber, filled: str
) -> None:
    other = f"{filled}-other"
    publisher.create_topic(other)
    publisher.send(other, b"aside")
    reader.subscribe(other)
    for message in reader.follow(filled):
        if message.offset == 100:
            assert reader.pull(other).payloads == [b"aside"]
            assert message.nack() == 1
        if message.offset == 200:
            assert message.ack() == 1
            break
    reader.settle_all()
    with Admin(server) as admin:
        assert admin.subscription(filled, "reader").cursor == 100
    assert [m.offset for m in reader.pull(filled, 1)] == [100]


def test_two_follows_of_one_subscriber_go_side_by_side(
    publisher: Publisher, reader: Subscriber, filled: str
) -> None:
    other = f"{filled}-other"
    publisher.create_topic(other)
    publisher.send_many(other, [b"a", b"b"])
    reader.subscribe(other)
    one, two = reader.follow(filled), reader.follow(other)
    assert [next(one).payload, next(two).payload] == [b"0", b"a"]
    assert [next(one).payload, next(two).payload] == [b"1", b"b"]


def test_following_goes_on_through_lost_connections(
    proxy: CuttingProxy, publisher: Publisher, filled: str
) -> None:
    with Subscriber(proxy.address, name="reader") as subscriber:
        subscriber.subscribe(filled)
        seen = set()
        for message in subscriber.follow(filled):
            if message.offset % 700 == 0 and message.offset not in seen:
                proxy.cut_now()
            seen.add(message.offset)
            if len(seen) == 5000:
                break
    assert seen == set(range(5000))


def test_a_follow_that_waits_goes_on_when_its_connection_is_lost(
    proxy: CuttingProxy, server: str, publisher: Publisher, topic: str
) -> None:
    publisher.create_topic(topic)
    with Subscriber(proxy.address, name="reader") as subscriber, Admin(server) as admin:
        subscriber.subscribe(topic)

        def cut_and_send() -> None:
            wait_until(lambda: admin.subscription(topic, "reader").waiting_pulls)
            proxy.cut_now()
            publisher.send(topic, b"after the cut")

        cutting = threading.Thread(target=cut_and_send)
        cutting.start()
        assert next(subscriber.follow(topic)).payload == b"after the cut"
        cutting.join()


def test_following_reports_what_an_ephemeral_subscriber_missed(
    server: str, publisher: Publisher, filled: str
) -> None:
    with Subscriber(server) as subscriber, Subscriber(server, name="durable") as durable:
        subscriber.subscribe(filled, start="earliest")
        durable.subscribe(filled, start="earliest")
        durable.pull(filled, 300).ack()
        message = next(subscriber.follow(filled))
        assert (message.offset, message.batch.skipped) == (300, 300)


def test_following_reports_what_was_missed_with_the_next_message(
    server: str, publisher: Publisher, filled: str
) -> None:
    with Subscriber(server) as subscriber, Subscriber(server, name="durable") as durable:
        subscriber.subscribe(filled, start="earliest")
        durable.subscribe(filled, start="earliest")
        durable.pull(filled, 5000).ack()

        def send_when_it_waits() -> None:
            with Admin(server) as admin:
                name = subscriber.subscriber
                wait_until(lambda: admin.subscription(filled, name).waiting_pulls)
            publisher.send(filled, b"new")

        sending = threading.Thread(target=send_when_it_waits)
        sending.start()
        message = next(subscriber.follow(filled))
        assert (message.payload, message.batch.skipped) == (b"new", 5000)
        sending.join()


def test_leaving_many_follows_leaves_nothing_behind(
    server: str, publisher: Publisher, reader: Subscriber, filled: str
) -> None:
    for _ in range(50):
        for _ in reader.follow(filled):
            break
    reader.pull(filled, wait=0).ack()
    channel = reader._channel
    assert channel is not None
    assert (channel.replies, channel._unwanted) == ({}, set())


def test_following_no_topic_is_refused(reader: Subscriber) -> None:
    with pytest.raises(InvalidArgument, match="at least one topic"):
        reader.follow()
