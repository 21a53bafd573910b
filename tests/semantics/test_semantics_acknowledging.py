"""Point 6: acknowledging."""

from contextlib import suppress
from typing import Any

import pytest
from broker_process import wait_until
from semantic_worlds import World, drain, offsets, texts

pytestmark = pytest.mark.point(6)


def test_an_explicit_ack_is_never_undone(durable: World, topic: str) -> None:
    durable.create(topic)
    reader = durable.reader(topic, "r")
    durable.send(topic, "a", "b", "c")
    assert reader.pull(topic, 2, auto_ack=False).ack() == 2
    durable.restart()
    assert drain(reader, topic) == ["c"]


def test_acknowledged_ranges_above_the_cursor_survive_a_restart(durable: World, topic: str) -> None:
    durable.create(topic)
    reader = durable.reader(topic, "r")
    durable.send(topic, *"abcdef")
    batch = reader.pull(topic, auto_ack=False)
    assert batch.ack_range(1, 2) + batch.ack_range(3, 5) == 3
    durable.restart()
    assert durable.subscription(topic, "r").cursor == 0
    assert drain(reader, topic) == ["a", "c", "f"]


def test_leaving_the_block_cleanly_acknowledges_durably(durable: World, topic: str) -> None:
    durable.create(topic)
    durable.reader(topic, "r")
    durable.send(topic, "a", "b")
    with durable.new_subscriber("r") as subscriber:
        subscriber.pull(topic)
    durable.restart()
    assert drain(durable.new_subscriber("r"), topic) == []


def test_leaving_the_block_with_an_error_acknowledges_nothing(world: World, topic: str) -> None:
    world.create(topic)
    world.reader(topic, "r")
    world.send(topic, "a", "b")
    with suppress(ZeroDivisionError), world.new_subscriber("r") as subscriber:
        subscriber.pull(topic)
        raise ZeroDivisionError
    assert drain(world.new_subscriber("r"), topic) == ["a", "b"]


def test_the_next_pull_acknowledges_the_previous_batch(world: World, topic: str) -> None:
    world.create(topic)
    reader = world.reader(topic, "r")
    world.send(topic, "a", "b", "c")
    reader.pull(topic, 2)
    assert world.subscription(topic, "r").unread == 3
    reader.pull(topic, wait=0)
    assert world.subscription(topic, "r").unread == 1


def test_what_a_pull_acknowledged_is_durable_a_little_later_without_more_traffic(
    world: World, topic: str
) -> None:
    world.create(topic)
    reader = world.reader(topic, "r")
    world.send(topic, "a", "b")
    reader.pull(topic)
    reader.pull(topic, wait=0)
    # Reclaiming goes by durable cursors only.
    wait_until(lambda: world.topic(topic).messages == 0)


def test_the_next_pull_acknowledges_nothing_of_another_topic(world: World, topic: str) -> None:
    other = f"{topic}.other"
    reader = world.new_subscriber("r")
    for each in (topic, other):
        world.create(each)
        reader.subscribe(each)
        world.send(each, "a")
    reader.pull(topic)
    reader.pull(other)
    assert world.subscription(topic, "r").unread == 1
    assert world.subscription(other, "r").unread == 1


def test_the_next_pull_acknowledges_nothing_of_another_object(world: World, topic: str) -> None:
    world.create(topic)
    first, second = world.reader(topic, "r"), world.reader(topic, "r")
    world.send(topic, "a", "b")
    first.pull(topic, 1)
    second.pull(topic, 1)
    second.pull(topic, wait=0)
    info = world.subscription(topic, "r")
    assert (info.cursor, info.unread) == (0, 1)


def test_without_auto_ack_nothing_is_acknowledged_unasked(world: World, topic: str) -> None:
    world.create(topic)
    world.send(topic, "a", "b")
    with world.new_subscriber("r") as reader:
        reader.subscribe(topic)
        reader.pull(topic, 1, auto_ack=False)
        assert offsets(reader.pull(topic, auto_ack=False)) == [1]
    assert drain(world.new_subscriber("r"), topic) == ["a", "b"]


def test_single_messages_are_acknowledged_alone(world: World, topic: str) -> None:
    world.create(topic)
    reader = world.reader(topic, "r")
    world.publisher.send_many(topic, ["a", "b", "c"])
    batch = reader.pull(topic, auto_ack=False)
    a, b, _ = batch
    assert (a.ack(), b.nack(), a.ack()) == (1, 1, 0)
    assert texts(reader.pull(topic, auto_ack=False)) == ["b"]
    assert world.subscription(topic, "r").cursor == 1


def test_a_followed_batch_is_acknowledged_when_the_next_message_is_asked_for(
    world: World, topic: str
) -> None:
    world.create(topic)
    reader = world.reader(topic, "r")
    world.send(topic, "a")
    messages: Any = iter(reader.follow(topic))
    assert next(messages).payload == b"a"
    assert world.subscription(topic, "r").unread == 1
    world.send(topic, "b")
    assert next(messages).payload == b"b"
    wait_until(lambda: world.subscription(topic, "r").unread == 1)


def test_reclaiming_waits_until_an_acknowledgement_is_durable(world: World, topic: str) -> None:
    world.create(topic)
    reader = world.reader(topic, "r")
    world.send(topic, "a")
    batch = reader.pull(topic, auto_ack=False)
    assert world.topic(topic).messages == 1
    assert batch.ack() == 1
    # It was answered when it was durable, and so this has been reclaimed.
    assert world.topic(topic).messages == 0
