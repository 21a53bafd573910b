"""The eye on the server: names for the completer, and whether the server is there."""

import threading
from collections.abc import Callable, Iterator

import pytest
from shell_harness import PATIENCE_S, ServerProcess

from mbctl import Publisher, Subscriber
from mbctl.shell.watch import ServerWatch

Wait = Callable[[Callable[[ServerWatch], bool]], None]
Watch = Callable[..., tuple[ServerWatch, Wait]]


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Watch a server; with what comes a function that waits until a look has shown something."""
    watches = []

    def watch(
        server: str, tell: Callable[[str], object] = lambda sentence: None
    ) -> tuple[ServerWatch, Wait]:
        looked = threading.Condition()

        def changed() -> None:
            with looked:
                looked.notify_all()

        watch = ServerWatch(server, changed=changed, tell=lambda sentence: bool(tell(sentence)))
        watches.append(watch)

        def wait(shown: Callable[[ServerWatch], bool]) -> None:
            with looked:
                assert looked.wait_for(lambda: shown(watch), PATIENCE_S)

        return watch, wait

    yield watch
    for each in watches:
        each.stop()
    for thread in threading.enumerate():
        if thread.name == "server-watch":
            thread.join(PATIENCE_S)


def test_watch_knows_nothing_before_its_first_look(watch: Watch, server: str) -> None:
    seen, _ = watch(server)
    assert seen.reachable is None
    assert seen.names.topics == {}


def test_watch_sees_topics_and_own_subscriptions(watch: Watch, server: str, topic: str) -> None:
    with Publisher(server) as publisher, Subscriber(server, name=topic) as subscriber:
        publisher.create_topic(topic)
        publisher.create_topic(f"{topic}-b")
        publisher.send(topic, b"a")
        subscriber.subscribe(topic)
    seen, wait = watch(server)
    seen.subscriber = topic
    seen.start()
    wait(lambda seen: seen.reachable is True)
    assert seen.names.topics[topic] == "1 message, 1 subscription"
    assert seen.names.topics[f"{topic}-b"] == "0 messages, 0 subscriptions"
    assert seen.names.subscribed == {topic: "1 unread"}


def test_watch_sees_new_topics_when_asked(watch: Watch, server: str, topic: str) -> None:
    seen, wait = watch(server)
    seen.start()
    wait(lambda seen: seen.reachable is True)
    with Publisher(server) as publisher:
        publisher.create_topic(topic)
    seen.refresh()
    wait(lambda seen: topic in seen.names.topics)


def test_watch_sees_the_server_go_and_come_back(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mbctl.shell.watch.TIMEOUT_S", 1.0)
    first = ServerProcess()
    with Publisher(first.address) as publisher, Subscriber(first.address, "a") as subscriber:
        publisher.create_topic("orders")
        subscriber.subscribe("orders")
    told: list[str] = []
    seen, wait = watch(first.address, told.append)
    seen.subscriber = "a"
    seen.start()
    wait(lambda seen: seen.reachable is True)
    first.stop()
    seen.refresh()
    wait(lambda seen: seen.reachable is False)
    assert len(told) == 1
    assert told[0].startswith(f"lost {first.address} (")
    assert told[0].endswith("); commands wait until it is back")
    second = ServerProcess(int(first.address.rpartition(":")[2]))
    seen.refresh()
    seen.wait_until_back()
    assert seen.reachable
    assert len(told) == 2
    assert told[1].startswith(f"{first.address} is back after ")
    # It had all in memory.
    assert told[1].endswith(", 0 lost, 0 to come again; 1 subscription gone")
    second.stop()


def test_watch_knows_lag_and_rate(watch: Watch, server: str, topic: str) -> None:
    with Publisher(server) as publisher, Subscriber(server, name=topic) as subscriber:
        publisher.create_topic(topic)
        subscriber.subscribe(topic)
        seen, wait = watch(server)
        seen.subscriber = topic
        seen.start()
        wait(lambda seen: seen.lag == 0 and seen.rate is not None)

        def is_busy(seen: ServerWatch) -> bool:
            # More each time, so that no look can come too late to see it.
            publisher.send_many(topic, [b"a"] * 1000)
            seen.refresh()
            return (seen.rate or 0) > 100 and (seen.lag or 0) >= 1000

        wait(is_busy)


def test_stopped_watch_looks_no_more(watch: Watch, server: str) -> None:
    seen, wait = watch(server)
    seen.start()
    wait(lambda seen: seen.reachable is True)
    (thread,) = [each for each in threading.enumerate() if each.name == "server-watch"]
    seen.stop()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
