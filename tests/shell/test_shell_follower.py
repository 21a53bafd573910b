"""Following beside the prompt: what is shown, what is held back, and what ends it."""

import io
import threading
from collections.abc import Callable, Iterator

import pytest
from broker_process import wait_until

from mbctl import Admin, Publisher, Subscriber
from mbctl.actions.messages import PLAIN
from mbctl.actions.output import Output
from mbctl.shell.follower import SHOWN_PER_S, Beside, Follower

Start = Callable[..., tuple[Follower, io.StringIO, io.StringIO]]


@pytest.fixture
def start(server: str, topic: str) -> Iterator[Start]:
    """Follow a topic; what is shown, and what is said."""
    with Publisher(server) as publisher, Subscriber(server, topic) as subscriber:
        publisher.create_topic(topic)
        subscriber.subscribe(topic)
        started: list[Follower] = []

        def unread(topics: list[str]) -> int:
            with Admin(server) as admin:
                return sum(admin.subscription(each, topic).unread for each in topics)

        def start(
            is_busy: Callable[[], bool] = lambda: False,
        ) -> tuple[Follower, io.StringIO, io.StringIO]:
            out, err = io.StringIO(), io.StringIO()
            beside = Beside(Output("raw", stdout=out, stderr=err), is_busy)
            lock = threading.Lock()
            follower = Follower(subscriber, lock, beside, topics=[topic], look=PLAIN, unread=unread)
            started.append(follower)
            return follower, out, err

        yield start
        for follower in started:
            assert follower.stop()


def send(server: str, topic: str, count: int) -> None:
    with Publisher(server) as publisher:
        publisher.send_many(topic, [b"%d" % number for number in range(count)])


def test_messages_are_shown_as_they_come(start: Start, server: str, topic: str) -> None:
    follower, out, err = start()
    send(server, topic, 3)
    wait_until(lambda: out.getvalue() == "0\n1\n2\n")
    assert follower.is_running
    assert (follower.held, err.getvalue()) == (0, "")


def test_flood_is_held_back_on_the_server_and_counted(
    start: Start, server: str, topic: str
) -> None:
    send(server, topic, 50 * SHOWN_PER_S)
    follower, out, err = start()
    wait_until(lambda: "messages held back" in err.getvalue())
    assert follower.stop()
    shown = out.getvalue().splitlines()
    assert shown == [str(number) for number in range(len(shown))]
    assert 0 < len(shown) <= 5 * SHOWN_PER_S
    with Admin(server) as admin:
        assert admin.subscription(topic, topic).unread >= 50 * SHOWN_PER_S - len(shown)


def test_what_is_shown_within_a_second_is_not_called_held_back(
    start: Start, server: str, topic: str
) -> None:
    send(server, topic, SHOWN_PER_S // 2)
    _, out, err = start()
    wait_until(lambda: out.getvalue().count("\n") == SHOWN_PER_S // 2)
    assert err.getvalue() == ""


def test_nothing_is_shown_at_a_bad_moment(start: Start, server: str, topic: str) -> None:
    busy, asked = threading.Event(), threading.Event()
    busy.set()

    def is_busy() -> bool:
        asked.set()
        return busy.is_set()

    _, out, _ = start(is_busy)
    send(server, topic, 1)
    asked.clear()
    assert asked.wait(10)
    assert out.getvalue() == ""
    busy.clear()
    wait_until(lambda: out.getvalue() == "0\n")


def test_topic_that_is_gone_is_said_and_ends_it(start: Start, server: str, topic: str) -> None:
    follower, _, err = start()
    with Publisher(server) as publisher:
        publisher.delete_topic(topic)
    wait_until(lambda: not follower.is_running)
    assert err.getvalue().startswith(f"error: topic {topic!r} does not exist")
    with Publisher(server) as publisher:
        publisher.create_topic(topic)
