"""Point 10: deleting and purging."""

import threading

import pytest
from broker_process import wait_until
from semantic_worlds import World, drain, texts

from mbctl import MbctlError, NotSubscribed, TopicNotFound

pytestmark = pytest.mark.point(10)


def test_subscriptions_go_with_the_topic(world: World, topic: str) -> None:
    world.create(topic)
    reader = world.reader(topic, "r")
    world.send(topic, "a")
    world.admin.delete_topic(topic)
    with pytest.raises(TopicNotFound):
        reader.pull(topic, wait=0)
    world.create(topic)
    assert world.admin.subscriptions(topic) == []
    with pytest.raises(NotSubscribed):
        reader.pull(topic, wait=0)


def test_waiting_pulls_are_told(world: World, topic: str) -> None:
    world.create(topic)
    reader = world.reader(topic, "r")
    told: list[MbctlError] = []

    def wait() -> None:
        try:
            reader.pull(topic, wait=20)
        except MbctlError as error:
            told.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    wait_until(lambda: world.subscription(topic, "r").waiting_pulls == 1)
    world.admin.delete_topic(topic)
    waiting.join(10)
    assert [type(error) for error in told] == [TopicNotFound]


def test_nothing_of_an_old_topic_touches_a_new_one_of_the_same_name(
    world: World, topic: str
) -> None:
    world.create(topic)
    reader = world.reader(topic, "r")
    world.send(topic, "old")
    old = reader.pull(topic, auto_ack=False)
    first_id = world.topic(topic).topic_id
    world.admin.delete_topic(topic)
    world.create(topic)
    assert world.topic(topic).topic_id != first_id
    reader.subscribe(topic)
    world.send(topic, "new")
    with pytest.raises(TopicNotFound):
        old.ack()
    with pytest.raises(TopicNotFound):
        old.nack()
    assert drain(reader, topic) == ["new"]


def test_what_a_pull_carries_of_an_old_topic_is_passed_over(world: World, topic: str) -> None:
    world.create(topic)
    reader = world.reader(topic, "r")
    world.send(topic, "old")
    reader.pull(topic)
    world.admin.delete_topic(topic)
    world.create(topic)
    world.new_subscriber("r").subscribe(topic)
    world.send(topic, "new")
    assert texts(reader.pull(topic)) == ["new"]
    assert world.subscription(topic, "r").unread == 1


def test_a_deleted_topic_stays_deleted(durable: World, topic: str) -> None:
    durable.create(topic)
    durable.send(topic, "a")
    durable.admin.delete_topic(topic)
    durable.restart()
    with pytest.raises(TopicNotFound):
        durable.topic(topic)


def test_deleting_and_purging_answer_at_once_whatever_the_size(world: World, topic: str) -> None:
    other = f"{topic}.other"
    for each in (topic, other):
        world.create(each)
        with world.publisher.pipeline() as pipe:
            for _ in range(300):
                pipe.send_many(each, [b"x" * 50] * 100)
    small = world.create(f"{topic}.small")
    world.send(small, "a")
    assert world.admin.purge_topic(topic) == 30_000
    world.admin.delete_topic(other)
    # Others are served while the space comes back.
    assert world.kept(small) == ["a"]
    assert world.topic(topic).messages == 0


def test_purging_keeps_the_topic_and_its_subscriptions(world: World, topic: str) -> None:
    world.create(topic)
    reader = world.reader(topic, "r")
    world.send(topic, "a", "b")
    batch = reader.pull(topic, 1, auto_ack=False)
    assert world.admin.purge_topic(topic) == 2
    info = world.subscription(topic, "r")
    assert (info.cursor, info.unread, info.leased) == (2, 0, 0)
    assert (info.dropped, info.expired) == (0, 0)
    assert batch.ack() == 0
    world.send(topic, "c")
    assert drain(reader, topic) == ["c"]
    assert world.admin.purge_topic(topic) == 0


def test_what_was_purged_stays_so(durable: World, topic: str) -> None:
    durable.create(topic)
    reader = durable.reader(topic, "r")
    durable.send(topic, "a", "b")
    durable.admin.purge_topic(topic)
    durable.restart()
    assert durable.kept(topic) == []
    durable.send(topic, "c")
    assert drain(reader, topic) == ["c"]


def test_an_ended_subscription_tells_its_waiting_pull(world: World, topic: str) -> None:
    world.create(topic)
    reader = world.reader(topic, "r")
    world.admin.delete_subscription(topic, "r")
    with pytest.raises(NotSubscribed):
        reader.pull(topic, wait=0)
