"""Pulling, acknowledging and giving back, at a real server."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from broker_process import BrokerProcess, wait_until
from cutting_proxy import CuttingProxy

from mbctl import (
    Admin,
    ConnectionLost,
    InvalidArgument,
    NotSubscribed,
    OffsetOutOfRange,
    Publisher,
    Subscriber,
    TopicNotFound,
)
from mbctl.model import Limits


@pytest.fixture
def filled(publisher: Publisher, topic: str) -> str:
    """A topic that holds the messages 0 to 9."""
    publisher.create_topic(topic)
    publisher.send_many(topic, [b"%d" % n for n in range(10)])
    return topic


def digits(*numbers: int) -> list[bytes]:
    """The payloads of these messages."""
    return [b"%d" % n for n in numbers]


def unread(server: str, topic: str, subscriber: str = "reader") -> int:
    """How many messages the subscription has not acknowledged."""
    with Admin(server) as admin:
        return admin.subscription(topic, subscriber).unread


# --- subscribing --------------------------------------------------------------------------------


def test_the_first_subscription_begins_at_the_earliest_and_the_next_at_new(
    server: str, filled: str
) -> None:
    with Subscriber(server, name="first") as first, Subscriber(server, name="second") as second:
        subscribed = first.subscribe(filled)
        assert (subscribed.offset, subscribed.skipped, subscribed.created) == (0, 0, True)
        subscribed = second.subscribe(filled)
        assert (subscribed.offset, subscribed.skipped, subscribed.created) == (10, 10, True)


def test_subscribing_again_keeps_the_place(reader: Subscriber, filled: str) -> None:
    reader.pull(filled, 4).ack()
    subscribed = reader.subscribe(filled, start="new")
    assert (subscribed.offset, subscribed.created) == (4, False)
    assert reader.pull(filled).payloads == digits(*range(4, 10))


@pytest.mark.parametrize(("start", "offset"), [("new", 10), ("earliest", 0), (7, 7), (10, 10)])
def test_a_subscription_begins_where_it_is_told(
    start: str | int, offset: int, server: str, filled: str
) -> None:
    with Subscriber(server, name="reader") as subscriber:
        assert subscriber.subscribe(filled, start=start).offset == offset


@pytest.mark.parametrize("start", [11, -1, 2**62])
def test_a_start_that_the_topic_does_not_have_is_refused(
    start: int, server: str, filled: str
) -> None:
    with Subscriber(server) as subscriber, pytest.raises(OffsetOutOfRange) as refusal:
        subscriber.subscribe(filled, start=start)
    assert refusal.value.next_offset == 10


@pytest.mark.parametrize("start", ["later", 2**70, 1.5, [1], "\ud800"])
def test_a_start_without_meaning_is_refused(start: object, server: str, filled: str) -> None:
    with Subscriber(server) as subscriber:
        with pytest.raises(InvalidArgument):
            subscriber.subscribe(filled, start=start)  # type: ignore[arg-type]
        assert subscriber.subscribe(filled).created


@pytest.mark.parametrize("ack_wait", [0, -1, float("nan"), float("inf"), 1e300, 86_401, None])
def test_an_ack_wait_without_meaning_is_refused(ack_wait: Any, server: str, filled: str) -> None:
    with Subscriber(server) as subscriber, pytest.raises(InvalidArgument):
        subscriber.subscribe(filled, ack_wait=ack_wait)


def test_a_subscriber_without_a_name_gets_one_that_shows_it_is_ephemeral(server: str) -> None:
    with Subscriber(server) as subscriber:
        assert subscriber.name is None
        assert subscriber.subscriber.startswith("~")


def test_unsubscribing_forgets_the_place(reader: Subscriber, filled: str) -> None:
    reader.pull(filled, 4)
    reader.unsubscribe(filled)
    with pytest.raises(NotSubscribed):
        reader.pull(filled)
    assert reader.subscribe(filled).created


# --- pulling ------------------------------------------------------------------------------------


def test_a_message_comes_as_it_was_sent(
    publisher: Publisher, reader: Subscriber, filled: str
) -> None:
    reader.pull(filled)
    before = time.time_ns()
    publisher.send(filled, b"\x00\xff", key="k", headers={"tür": "ä"})
    (message,) = reader.pull(filled)
    assert (message.topic, message.offset, message.payload) == (filled, 10, b"\x00\xff")
    assert (message.key, dict(message.headers), message.deliveries) == (b"k", {"tür": "ä"}, 1)
    assert before <= message.timestamp <= time.time_ns()


def test_a_batch_with_some_keys_and_headers_keeps_each_with_its_message(
    publisher: Publisher, reader: Subscriber, filled: str
) -> None:
    reader.pull(filled)
    publisher.send_many(
        filled, [b"a", b"b", b"c"], keys=[None, b"k", b""], headers=[{"h": "1"}, None, {}]
    )
    batch = reader.pull(filled)
    assert [message.key for message in batch] == [None, b"k", b""]
    assert [dict(message.headers) for message in batch] == [{"h": "1"}, {}, {}]


def test_a_pull_takes_at_most_what_it_asks_for(reader: Subscriber, filled: str) -> None:
    assert reader.pull(filled, 3).payloads == digits(0, 1, 2)
    assert reader.pull(filled, max_bytes=1).payloads == digits(3)
    assert reader.pull(filled, 1000).payloads == digits(4, 5, 6, 7, 8, 9)


@pytest.mark.parametrize(
    ("max_messages", "max_bytes"), [(0, None), (-1, None), (1, 0), (1, -5), (2**70, None)]
)
def test_a_pull_of_nothing_is_refused(
    max_messages: int, max_bytes: int | None, reader: Subscriber, filled: str
) -> None:
    with pytest.raises(InvalidArgument):
        reader.pull(filled, max_messages, max_bytes)


def test_a_pull_with_nothing_new_is_empty_after_its_wait(reader: Subscriber, filled: str) -> None:
    reader.pull(filled)
    begin = time.monotonic()
    batch = reader.pull(filled, wait=0.2)
    assert 0.2 <= time.monotonic() - begin < 2
    assert not batch
    assert (len(batch), batch.payloads, list(batch), batch.next_offset) == (0, [], [], 0)
    assert (batch.ack(), batch.nack(), batch.extend()) == (0, 0, 0)


@pytest.mark.parametrize("wait", [0, -1, float("-inf")])
def test_a_pull_that_does_not_wait_is_empty_at_once(
    wait: float, reader: Subscriber, filled: str
) -> None:
    reader.pull(filled)
    begin = time.monotonic()
    assert not reader.pull(filled, wait=wait)
    assert time.monotonic() - begin < 1


@pytest.mark.parametrize("wait", [float("nan"), None, "5", Decimal(5)])
def test_a_wait_that_is_no_number_is_refused(wait: Any, reader: Subscriber, filled: str) -> None:
    with pytest.raises(InvalidArgument, match="wait is a number of seconds"):
        reader.pull(filled, wait=wait)


def test_a_waiting_pull_is_answered_the_moment_something_comes(
    server: str, publisher: Publisher, reader: Subscriber, filled: str
) -> None:
    reader.pull(filled).ack()
    sent_at = 0.0

    def send_when_it_waits() -> None:
        nonlocal sent_at
        with Admin(server) as admin:
            wait_until(lambda: admin.subscription(filled, "reader").waiting_pulls)
        sent_at = time.monotonic()
        publisher.send(filled, b"here")

    sending = threading.Thread(target=send_when_it_waits)
    sending.start()
    assert reader.pull(filled, wait=20).payloads == [b"here"]
    assert time.monotonic() - sent_at < 1
    sending.join()


def test_a_waiting_pull_is_told_when_its_topic_is_deleted(
    server: str, publisher: Publisher, reader: Subscriber, filled: str
) -> None:
    reader.pull(filled)

    def delete_when_it_waits() -> None:
        with Admin(server) as admin:
            wait_until(lambda: admin.subscription(filled, "reader").waiting_pulls)
        publisher.delete_topic(filled)

    deleting = threading.Thread(target=delete_when_it_waits)
    deleting.start()
    with pytest.raises(TopicNotFound):
        reader.pull(filled, wait=20)
    deleting.join()


def test_a_large_message_comes_through_though_it_is_above_what_the_pull_asked(
    publisher: Publisher, reader: Subscriber, filled: str
) -> None:
    reader.pull(filled)
    publisher.send(filled, bytes(1 << 20))
    publisher.send(filled, b"small")
    assert [len(payload) for payload in reader.pull(filled, max_bytes=1000).payloads] == [1 << 20]
    assert reader.pull(filled).payloads == [b"small"]


# --- acknowledging ------------------------------------------------------------------------------


def test_the_next_pull_acknowledges_the_batch_before_it(
    server: str, reader: Subscriber, filled: str
) -> None:
    reader.pull(filled, 4)
    assert unread(server, filled) == 10
    reader.pull(filled, 4)
    assert unread(server, filled) == 6


def test_a_pull_of_another_topic_acknowledges_nothing(
    server: str, publisher: Publisher, reader: Subscriber, filled: str
) -> None:
    other = f"{filled}-other"
    publisher.create_topic(other)
    reader.subscribe(other)
    reader.pull(filled, 4)
    reader.pull(other, wait=0)
    assert unread(server, filled) == 10


def test_without_auto_ack_only_an_explicit_ack_counts(
    server: str, reader: Subscriber, filled: str
) -> None:
    first = reader.pull(filled, 4, auto_ack=False)
    reader.pull(filled, 4, auto_ack=False)
    assert unread(server, filled) == 10
    assert first.ack() == 4
    assert unread(server, filled) == 6


def test_an_ack_counts_once(reader: Subscriber, filled: str) -> None:
    batch = reader.pull(filled)
    assert batch.ack() == 10
    assert batch.ack() == 0
    assert next(iter(batch)).ack() == 0


def test_messages_are_acknowledged_and_given_back_one_by_one(
    server: str, reader: Subscriber, filled: str
) -> None:
    batch = reader.pull(filled)
    messages = list(batch)
    assert (messages[3].ack(), messages[0].ack(), messages[5].nack()) == (1, 1, 1)
    assert batch.open_ranges == [(1, 3), (4, 5), (6, 10)]
    assert unread(server, filled) == 8
    assert batch.ack() == 7
    (again,) = reader.pull(filled)
    assert (again.payload, again.deliveries) == (b"5", 2)


def test_what_is_given_back_comes_again_and_counts(reader: Subscriber, filled: str) -> None:
    assert reader.pull(filled, 2).nack() == 2
    assert [(m.payload, m.deliveries) for m in reader.pull(filled, 3)] == [
        (b"0", 2),
        (b"1", 2),
        (b"2", 1),
    ]


def test_what_is_given_back_with_a_delay_comes_after_it(reader: Subscriber, filled: str) -> None:
    reader.pull(filled, 9).ack()
    begin = time.monotonic()
    reader.pull(filled).nack(delay=0.3)
    assert not reader.pull(filled, wait=0)
    assert reader.pull(filled, wait=10).payloads == digits(9)
    assert 0.3 <= time.monotonic() - begin < 5


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), 1e300])
def test_a_delay_without_meaning_is_refused(
    delay: float, server: str, reader: Subscriber, filled: str
) -> None:
    batch = reader.pull(filled)
    with pytest.raises(InvalidArgument):
        batch.nack(delay)
    assert batch.ack() == 10


def test_a_lease_that_runs_out_is_granted_to_another_process(server: str, filled: str) -> None:
    with Subscriber(server, name="slow") as slow, Subscriber(server, name="slow") as quick:
        slow.subscribe(filled, ack_wait=0.2)
        batch = slow.pull(filled, auto_ack=False)
        again = quick.pull(filled, wait=10, auto_ack=False)
        assert [message.deliveries for message in again] == [2] * 10
        assert batch.ack() == 0
        assert again.ack() == 10


def test_an_ack_that_comes_late_counts_when_nobody_else_has_the_message(
    server: str, filled: str
) -> None:
    with Subscriber(server, name="reader") as subscriber, Admin(server) as admin:
        subscriber.subscribe(filled, ack_wait=0.1)
        batch = subscriber.pull(filled, auto_ack=False)
        wait_until(lambda: admin.subscription(filled, "reader").redeliver == 10)
        assert batch.ack() == 10


def test_an_extended_lease_does_not_run_out(server: str, filled: str) -> None:
    with Subscriber(server, name="slow") as slow, Subscriber(server, name="slow") as quick:
        slow.subscribe(filled, ack_wait=0.6)
        batch = slow.pull(filled, auto_ack=False)
        for _ in range(4):
            assert not quick.pull(filled, wait=0.25)
            assert batch.extend() == 10
        assert next(iter(batch)).extend() == 1
        assert batch.ack() == 10


def test_leaving_the_block_cleanly_acknowledges(server: str, filled: str) -> None:
    with Subscriber(server, name="reader") as subscriber:
        subscriber.subscribe(filled)
        subscriber.pull(filled)
    assert unread(server, filled) == 0


def test_leaving_the_block_by_an_exception_acknowledges_nothing_more(
    server: str, filled: str
) -> None:
    def read_and_fail() -> None:
        with Subscriber(server, name="reader") as subscriber:
            subscriber.subscribe(filled)
            subscriber.pull(filled, 4)
            subscriber.pull(filled, 4)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        read_and_fail()
    assert unread(server, filled) == 6


def test_closing_acknowledges_nothing_and_a_closed_subscriber_may_go_on(
    reader: Subscriber, filled: str
) -> None:
    reader.pull(filled, 4)
    reader.close()
    assert not reader.is_connected
    assert [message.deliveries for message in reader.pull(filled, 4)] == [2] * 4


def test_leaving_the_block_is_clean_when_the_topic_has_been_deleted(
    publisher: Publisher, server: str, filled: str
) -> None:
    with Subscriber(server, name="reader") as subscriber:
        subscriber.subscribe(filled)
        assert subscriber.pull(filled)
        publisher.delete_topic(filled)


def test_an_ack_does_not_touch_a_new_topic_of_the_same_name(
    publisher: Publisher, server: str, reader: Subscriber, filled: str
) -> None:
    batch = reader.pull(filled, auto_ack=False)
    publisher.delete_topic(filled)
    publisher.create_topic(filled)
    publisher.send_many(filled, digits(*range(10)))
    reader.subscribe(filled, start="earliest")
    with pytest.raises(TopicNotFound):
        batch.ack()
    assert unread(server, filled) == 10


@pytest.mark.parametrize("name", ["no-such-topic", "\ud800", 7, None, "", ["a"]])
def test_a_pull_from_what_is_no_topic_is_refused(name: object, reader: Subscriber) -> None:
    with pytest.raises((TopicNotFound, InvalidArgument)):
        reader.pull(name)  # type: ignore[arg-type]
    with pytest.raises((TopicNotFound, InvalidArgument)):
        next(reader.follow(name))  # type: ignore[arg-type]
    with pytest.raises((TopicNotFound, InvalidArgument)):
        reader.unsubscribe(name)  # type: ignore[arg-type]
    assert reader.is_connected


def test_two_threads_in_one_subscriber_are_told(
    server: str, reader: Subscriber, filled: str
) -> None:
    reader.pull(filled).ack()
    waiting = threading.Thread(target=lambda: reader.pull(filled, wait=20))
    waiting.start()
    with Admin(server) as admin, Publisher(server) as publisher:
        wait_until(lambda: admin.subscription(filled, "reader").waiting_pulls)
        with pytest.raises(InvalidArgument, match="another thread"):
            reader.pull(filled)
        publisher.send(filled, b"end")
    waiting.join()


# --- sharing a name -----------------------------------------------------------------------------

_WORKER = """
import sys
from mbctl import Subscriber
server, topic, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with Subscriber(server, name="shared") as subscriber:
    for line in sys.stdin:
        batch = subscriber.pull(topic, count, auto_ack=False)
        print(*[message.offset for message in batch], flush=True)
"""


class Worker:
    """A process that pulls when it is told to, and never acknowledges."""

    def __init__(self, server: str, topic: str, count: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _WORKER, server, topic, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def pull(self) -> list[int]:
        """Let it pull; the offsets that it got."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("pull\n")
        self.process.stdin.flush()
        return [int(offset) for offset in self.process.stdout.readline().split()]

    def kill(self) -> None:
        """End it as kill -9 does."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


def test_two_processes_share_the_work_and_one_gets_the_leases_of_the_other_that_is_killed(
    server: str, filled: str
) -> None:
    with Subscriber(server, name="shared") as subscriber:
        subscriber.subscribe(filled, ack_wait=600)
    one, two = Worker(server, filled, 4), Worker(server, filled, 4)
    first, second = one.pull(), two.pull()
    assert sorted(first + second) == list(range(8))
    with Subscriber(server, name="shared") as subscriber:
        assert subscriber.pull(filled).payloads == digits(8, 9)
        begin = time.monotonic()
        one.kill()
        again = subscriber.pull(filled, wait=60)
        assert time.monotonic() - begin < 2
        assert sorted(message.offset for message in again) == sorted(first)
        assert {message.deliveries for message in again} == {2}
        two.kill()
        assert sorted(m.offset for m in subscriber.pull(filled, wait=60)) == sorted(second)
    assert unread(server, filled, "shared") == 0


# --- Ctrl-C -------------------------------------------------------------------------------------

_INTERRUPTED = """
import sys
from mbctl import Subscriber
server, topic = sys.argv[1:]
with Subscriber(server, name="reader") as subscriber:
    before = subscriber.pull(topic)
    print("pulling", flush=True)
    try:
        subscriber.pull(topic, wait=600)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    after = subscriber.pull(topic, wait=20)
    print(len(before), *[m.payload.decode() for m in after], flush=True)
"""


def test_ctrl_c_in_a_pull_leaves_the_subscriber_usable_and_loses_nothing(
    server: str, publisher: Publisher, filled: str
) -> None:
    with Subscriber(server, name="reader") as subscriber:
        subscriber.subscribe(filled)
    process = subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTED, server, filled], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "pulling\n"
    with Admin(server) as admin:
        wait_until(lambda: admin.subscription(filled, "reader").waiting_pulls)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        publisher.send(filled, b"sent after it")
        # What was pulled before is acknowledged by the pull after the interrupted one.
        assert process.stdout.readline() == "10 sent after it\n"
        process.stdout.close()
        assert process.wait(20) == 0
        assert admin.subscription(filled, "reader").unread == 0


def test_what_an_interrupted_pull_was_to_acknowledge_the_next_one_does(
    server: str, reader: Subscriber, filled: str
) -> None:
    reader.pull(filled)

    def interrupt_when_it_waits() -> None:
        with Admin(server) as admin:
            wait_until(lambda: admin.subscription(filled, "reader").waiting_pulls)
        os.kill(os.getpid(), signal.SIGINT)

    interrupting = threading.Thread(target=interrupt_when_it_waits)
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        reader.pull(filled, wait=30)
    interrupting.join()
    assert not reader.is_connected
    assert not reader.pull(filled, wait=0)
    assert unread(server, filled) == 0


def test_what_a_pull_that_failed_was_to_acknowledge_the_next_one_does(
    server: str, proxy: CuttingProxy, filled: str
) -> None:
    with Subscriber(proxy.address, name="reader", timeout=0.2) as subscriber:
        subscriber.subscribe(filled)
        subscriber.pull(filled, 4)
        proxy.refuses = True
        proxy.cut_now()
        with pytest.raises(ConnectionLost):
            subscriber.pull(filled, wait=0)
        assert unread(server, filled) == 10
        proxy.refuses = False
        assert subscriber.pull(filled, wait=0).payloads == digits(*range(4, 10))
        assert unread(server, filled) == 6


# --- ephemeral subscribers ----------------------------------------------------------------------


def test_an_ephemeral_subscriber_keeps_its_place_through_a_lost_connection(
    proxy: CuttingProxy, filled: str
) -> None:
    with Subscriber(proxy.address) as subscriber:
        subscriber.subscribe(filled)
        assert subscriber.pull(filled, 4).payloads == digits(0, 1, 2, 3)
        name = subscriber.subscriber
        proxy.cut_now()
        batch = subscriber.pull(filled, 4)
        assert (batch.payloads, batch.skipped) == (digits(4, 5, 6, 7), 0)
        assert subscriber.subscriber == name


@pytest.fixture
def forgetful(start_broker: Callable[..., BrokerProcess]) -> Iterator[CuttingProxy]:
    """A proxy before a server that forgets ephemeral subscribers the moment they are gone."""
    proxy = CuttingProxy(start_broker(limits=Limits(ephemeral_idle_s=0)).address)
    yield proxy
    proxy.close()


def test_a_forgotten_ephemeral_subscriber_goes_on_at_its_next_offset(
    forgetful: CuttingProxy,
) -> None:
    with Publisher(forgetful.address) as publisher, Admin(forgetful.address) as admin:
        publisher.create_topic("t")
        publisher.send_many("t", digits(*range(10)))
        with Subscriber(forgetful.address) as subscriber:
            subscriber.subscribe("t")
            subscriber.pull("t", 4)
            forgetful.cut_now()
            wait_until(lambda: not admin.subscriptions("t"))
            batch = subscriber.pull("t", 4)
            assert (batch.payloads, batch.skipped) == (digits(4, 5, 6, 7), 0)


def test_a_forgotten_ephemeral_subscriber_reports_what_it_missed(forgetful: CuttingProxy) -> None:
    with Publisher(forgetful.address) as publisher, Admin(forgetful.address) as admin:
        publisher.create_topic("t")
        publisher.send_many("t", digits(*range(10)))
        with Subscriber(forgetful.address) as subscriber:
            subscriber.subscribe("t")
            subscriber.pull("t", 4)
            forgetful.cut_now()
            wait_until(lambda: not admin.subscriptions("t"))
            with Subscriber(forgetful.address, name="durable") as durable:
                durable.subscribe("t", start="earliest")
                durable.pull("t", 7).ack()
            batch = subscriber.pull("t", 2)
            assert (batch.payloads, batch.skipped) == (digits(7, 8), 3)
            assert subscriber.pull("t").skipped == 0


def test_what_was_reclaimed_during_a_short_absence_is_reported_once(
    proxy: CuttingProxy, server: str, filled: str
) -> None:
    with Subscriber(proxy.address) as subscriber:
        subscriber.subscribe(filled)
        subscriber.pull(filled, 4)
        proxy.cut_now()
        with Subscriber(server, name="durable") as durable:
            durable.subscribe(filled, start="earliest")
            durable.pull(filled, 7).ack()
        batch = subscriber.pull(filled)
        assert (batch.payloads, batch.skipped) == (digits(7, 8, 9), 3)


@pytest.mark.parametrize("count", [2, 20], ids=["shorter", "longer"])
def test_an_ephemeral_subscriber_does_not_go_on_in_another_topic_of_the_same_name(
    count: int, forgetful: CuttingProxy
) -> None:
    with Publisher(forgetful.address) as publisher, Admin(forgetful.address) as admin:
        publisher.create_topic("t")
        publisher.send_many("t", digits(*range(10)))
        with Subscriber(forgetful.address) as subscriber:
            subscriber.subscribe("t")
            subscriber.pull("t", 4)
            forgetful.cut_now()
            wait_until(lambda: not admin.subscriptions("t"))
            publisher.delete_topic("t")
            publisher.create_topic("t")
            publisher.send_many("t", digits(*range(count)))
            with pytest.raises(NotSubscribed):
                subscriber.pull("t")
            assert admin.subscriptions("t") == []


def test_a_pull_that_is_repeated_waits_only_for_what_is_left_of_its_time(
    proxy: CuttingProxy, filled: str
) -> None:
    with Subscriber(proxy.address, name="late", timeout=1.0) as subscriber:
        subscriber.subscribe(filled, start="new")
        cut = threading.Timer(0.8, proxy.cut_now)
        cut.start()
        begin = time.monotonic()
        assert not subscriber.pull(filled, wait=1.5)
        assert time.monotonic() - begin < 2.4
        cut.join()


def test_a_pull_that_could_not_be_asked_leaves_the_acknowledgement_to_be_made(
    server: str, reader: Subscriber, filled: str
) -> None:
    reader.pull(filled, 4)
    with pytest.raises(InvalidArgument):
        reader.pull(filled, max_bytes=2**70)
    reader.settle_all()
    with Admin(server) as admin:
        assert admin.subscription(filled, "reader").cursor == 4
