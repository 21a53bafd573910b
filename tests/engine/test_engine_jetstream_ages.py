"""What a cluster keeps and gives up in its own time, and what a full topic does there."""

from collections.abc import Callable, Iterator

import pytest
from broker_process import wait_until
from engine_client import Client
from jetstream_driver import JetStreamDriver, driver_of

from mbctl.errors import TopicFull

pytestmark = pytest.mark.slow


@pytest.fixture
def client(clusters: Callable[[int], str]) -> Iterator[Client]:
    client = Client(driver_of(clusters(1), 1)())
    yield client
    client.driver.close()
    assert isinstance(client.driver, JetStreamDriver)
    client.driver.shut()


def test_what_is_too_old_goes_read_or_not(client: Client) -> None:
    client.create_topic("news", max_age=1.0)
    client.reader(topic="news")
    client.send(b"old", topic="news")
    assert client.kept("news") == 1
    wait_until(lambda: client.kept("news") == 0)
    client.send(b"new", topic="news")
    assert client.pull(topic="news").payloads == [b"new"]


def test_what_was_read_is_kept_for_its_age(client: Client) -> None:
    client.create_topic("replayed", retain_age=1.5)
    client.reader(topic="replayed")
    client.send(b"one", topic="replayed")
    client.ack(client.pull(topic="replayed"), topic="replayed")
    assert client.kept("replayed") == 1
    client.seek("earliest", topic="replayed")
    again = client.pull(topic="replayed")
    assert again.payloads == [b"one"]
    client.ack(again, topic="replayed")
    wait_until(lambda: client.kept("replayed") == 0)


def test_the_oldest_batches_make_room(client: Client) -> None:
    client.create_topic("ring", max_bytes=4000, when_full="drop_oldest")
    client.reader(topic="ring")
    for number in range(10):
        client.send(b"%d" % number * 1000, topic="ring")
    got = [payload[:1] for payload in client.pull(topic="ring").payloads]
    assert got == [b"7", b"8", b"9"]


def test_a_full_topic_gives_up_what_was_read_before_its_time(
    clusters: Callable[[int], str],
) -> None:
    driver = JetStreamDriver(clusters(1), 1, purge_delay_s=120)
    client = Client(driver)
    client.create_topic("small", max_bytes=2500)
    client.reader(topic="small")
    for _ in range(2):
        client.send(b"x" * 1000, topic="small")
    with pytest.raises(TopicFull):
        client.send(b"x" * 1000, topic="small")
    client.ack(client.pull(topic="small"), topic="small")
    assert client.kept("small") == 2
    client.send(b"y" * 1000, topic="small")
    assert client.kept("small") == 1
    driver.shut()


def test_what_was_read_stays_while_its_ids_are_needed(clusters: Callable[[int], str]) -> None:
    driver = JetStreamDriver(clusters(1), 1, purge_delay_s=120)
    client = Client(driver)
    client.create_topic("orders")
    client.reader()
    first = client.send(b"one", sequence=1)
    client.ack(client.pull())
    assert client.kept() == 1
    # Another server, which knows nothing of this session.
    driver.restart(crash=True)
    assert client.send(b"one", sequence=1, age_ms=1000) == first
    assert client.kept() == 1
    driver.shut()
