"""Point 9: limits."""

from collections.abc import Callable

import pytest
from broker_process import wait_until
from semantic_worlds import World, drain, texts

from mbctl import DiskFull, InvalidArgument, TopicExists, TopicFull

pytestmark = pytest.mark.point(9)

MIB = 1024 * 1024
FULL = 64 * MIB


@pytest.mark.parametrize("bound", [{"max_messages": 2}, {"max_bytes": 250}], ids=str)
def test_a_full_topic_refuses_the_send_and_nothing_changes(
    world: World, topic: str, bound: dict[str, int]
) -> None:
    world.create(topic, **bound)
    reader = world.reader(topic, "r")
    world.send(topic, "a" * 100, "b" * 100)
    before = world.topic(topic)
    with pytest.raises(TopicFull) as refused:
        world.send(topic, "c" * 100)
    assert refused.value.retryable
    assert world.topic(topic) == before
    reader.pull(topic, 1, auto_ack=False).ack()
    world.send(topic, "d" * 100)
    assert [text[0] for text in drain(reader, topic)] == ["b", "d"]


def test_drop_oldest_drops_whole_old_batches_and_counts_them(world: World, topic: str) -> None:
    world.create(topic, max_messages=4, when_full="drop_oldest")
    ahead, behind = world.reader(topic, "ahead"), world.reader(topic, "behind")
    world.publisher.send_many(topic, ["a", "b", "c"])
    ahead.pull(topic, 2, auto_ack=False).ack()
    world.publisher.send_many(topic, ["d", "e"])
    # One message too many, and the whole batch that it was in is gone.
    assert world.kept(topic) == ["d", "e"]
    assert world.subscription(topic, "ahead").dropped == 1
    assert world.subscription(topic, "behind").dropped == 3
    assert drain(behind, topic) == drain(ahead, topic) == ["d", "e"]


def test_a_batch_that_alone_exceeds_the_bound_is_refused(world: World, topic: str) -> None:
    world.create(topic, max_messages=2, when_full="drop_oldest")
    world.send(topic, "a")
    with pytest.raises(TopicFull):
        world.publisher.send_many(topic, ["b", "c", "d"])
    assert world.kept(topic) == ["a"]


def test_what_was_dropped_is_counted_over_a_restart(durable: World, topic: str) -> None:
    durable.create(topic, max_messages=2, when_full="drop_oldest")
    durable.reader(topic, "r")
    durable.send(topic, "a", "b", "c", "d")
    assert durable.subscription(topic, "r").dropped == 2
    durable.restart()
    info = durable.subscription(topic, "r")
    assert (info.dropped, info.cursor, info.unread) == (2, 2, 2)
    assert durable.kept(topic) == ["c", "d"]


def test_max_age_drops_old_messages_read_or_not_and_counts_them(world: World, topic: str) -> None:
    world.create(topic, max_age=0.3)
    reader = world.reader(topic, "r")
    world.send(topic, "a", "b")
    reader.pull(topic, 1, auto_ack=False).ack()
    wait_until(lambda: world.topic(topic).messages == 0)
    info = world.subscription(topic, "r")
    assert (info.expired, info.dropped, info.unread) == (1, 0, 0)
    world.send(topic, "c")
    assert texts(reader.pull(topic)) == ["c"]


def test_max_age_is_off_by_default(world: World, topic: str) -> None:
    world.create(topic)
    assert world.topic(topic).settings.max_age is None


def test_max_age_works_without_a_subscription(world: World, topic: str) -> None:
    world.create(topic, max_age=0.1)
    world.send(topic, "a")
    wait_until(lambda: world.topic(topic).messages == 0)


def test_settings_are_kept_over_a_restart_and_cannot_be_changed(durable: World, topic: str) -> None:
    settings = {"max_messages": 5, "max_age": 60.0, "retain_bytes": 100}
    durable.create(topic, **settings)
    durable.restart()
    shown = durable.topic(topic).settings
    assert (shown.max_messages, shown.max_age, shown.retain_bytes) == (5, 60.0, 100)
    assert not durable.admin.create_topic(topic, **settings)
    with pytest.raises(TopicExists):
        durable.admin.create_topic(topic, max_messages=6)


def test_settings_that_make_no_sense_are_refused(world: World, topic: str) -> None:
    for settings in (
        {"max_messages": 0},
        {"max_bytes": -1},
        {"max_age": 0.0},
        {"retain_age": -1.0},
        {"retain_bytes": 0},
        {"when_full": "drop_oldest"},
        {"when_full": "explode", "max_messages": 5},
    ):
        with pytest.raises(InvalidArgument):
            world.admin.create_topic(topic, **settings)
    assert topic not in [info.topic for info in world.admin.topics()]


def test_a_full_server_refuses_sends_and_nothing_else(
    own: Callable[..., World], topic: str
) -> None:
    world = own(max_bytes=FULL)
    assert world.admin.status().max_bytes == FULL
    world.create(topic)
    reader = world.reader(topic, "r")
    payload = bytes(MIB - 100)
    sent = 0
    while can_send(world, topic, payload):
        sent += 1
    before = world.topic(topic)
    assert (before.messages, before.next_offset) == (sent, sent)
    with pytest.raises(DiskFull) as refused:
        world.publisher.send(topic, payload)
    assert refused.value.retryable
    assert world.topic(topic) == before
    # What frees space goes on, and with it sends do.
    for _ in range(sent // 2):
        assert reader.pull(topic, 1, wait=0, auto_ack=False).ack() == 1
    wait_until(lambda: can_send(world, topic, payload))
    world.admin.seek(topic, "r", "new")
    wait_until(lambda: can_send(world, topic, payload))
    world.admin.purge_topic(topic)
    world.admin.delete_topic(topic)


def can_send(world: World, topic: str, payload: bytes) -> bool:
    try:
        world.publisher.send(topic, payload)
    except DiskFull:
        return False
    return True
