"""Point 8: reclaiming."""

import pytest
from broker_process import wait_until
from semantic_worlds import World, drain

pytestmark = pytest.mark.point(8)


def test_a_message_is_reclaimed_when_every_durable_subscription_has_acknowledged_it(
    world: World, topic: str
) -> None:
    world.create(topic)
    first, second = world.reader(topic, "a"), world.reader(topic, "b")
    world.send(topic, "a", "b", "c")
    assert drain(first, topic) == ["a", "b", "c"]
    assert world.topic(topic).messages == 3
    second.pull(topic, 2, auto_ack=False).ack()
    assert world.topic(topic).first_offset == 2
    assert drain(second, topic) == ["c"]
    info = world.topic(topic)
    assert (info.messages, info.bytes) == (0, 0)


def test_ephemeral_subscriptions_keep_nothing(world: World, topic: str) -> None:
    world.create(topic)
    named = world.reader(topic, "r")
    world.reader(topic)
    world.send(topic, "a")
    drain(named, topic)
    assert world.topic(topic).messages == 0


def test_with_no_subscription_never_one_nothing_is_reclaimed(world: World, topic: str) -> None:
    world.create(topic)
    world.send(topic, "a", "b")
    ephemeral = world.reader(topic)
    assert drain(ephemeral, topic) == ["a", "b"]
    assert world.kept(topic) == ["a", "b"]


def test_with_no_subscription_any_more_nothing_is_reclaimed(world: World, topic: str) -> None:
    world.create(topic)
    reader = world.reader(topic, "r")
    world.send(topic, "a", "b")
    reader.pull(topic, 1, auto_ack=False).ack()
    reader.unsubscribe(topic)
    world.send(topic, "c")
    assert world.kept(topic) == ["b", "c"]


def test_a_subscription_that_ends_gives_up_what_only_it_had_not_read(
    world: World, topic: str
) -> None:
    world.create(topic)
    reader = world.reader(topic, "r")
    world.reader(topic, "slow")
    world.send(topic, "a", "b")
    drain(reader, topic)
    assert world.topic(topic).messages == 2
    world.admin.delete_subscription(topic, "slow")
    wait_until(lambda: world.topic(topic).messages == 0)


def test_retain_age_keeps_read_messages_for_replay(world: World, topic: str) -> None:
    world.create(topic, retain_age=3600.0)
    reader = world.reader(topic, "r")
    world.send(topic, "a", "b")
    drain(reader, topic)
    assert world.kept(topic) == ["a", "b"]
    reader.seek(topic, "earliest")
    assert drain(reader, topic) == ["a", "b"]


def test_retain_age_ends(world: World, topic: str) -> None:
    world.create(topic, retain_age=0.2)
    reader = world.reader(topic, "r")
    world.send(topic, "a")
    drain(reader, topic)
    assert world.kept(topic) == ["a"]
    wait_until(lambda: world.topic(topic).messages == 0)


def test_retain_bytes_keeps_the_newest_read_messages(world: World, topic: str) -> None:
    world.create(topic, retain_bytes=250)
    reader = world.reader(topic, "r")
    for letter in "abcde":
        world.send(topic, letter * 100)
    assert len(drain(reader, topic)) == 5
    assert [payload[0] for payload in world.kept(topic)] == ["d", "e"]


def test_unread_messages_are_kept_whatever_is_retained(world: World, topic: str) -> None:
    world.create(topic, retain_bytes=1, retain_age=0.05)
    world.reader(topic, "r")
    world.send(topic, "a", "b")
    other = world.reader(topic, "s", start="earliest")
    assert drain(other, topic) == ["a", "b"]
    assert world.kept(topic) == ["a", "b"]


def test_retained_messages_are_given_up_before_anything_is_refused(
    world: World, topic: str
) -> None:
    world.create(topic, retain_age=3600.0, max_messages=2)
    reader = world.reader(topic, "r")
    world.send(topic, "a", "b")
    drain(reader, topic)
    world.send(topic, "c")
    assert world.kept(topic) == ["b", "c"]
    assert world.subscription(topic, "r").dropped == 0


def test_retained_messages_survive_a_restart(durable: World, topic: str) -> None:
    durable.create(topic, retain_age=3600.0)
    reader = durable.reader(topic, "r")
    durable.send(topic, "a", "b")
    drain(reader, topic)
    durable.restart()
    assert durable.kept(topic) == ["a", "b"]
    assert durable.subscription(topic, "r").unread == 0


def test_what_was_reclaimed_never_comes_back(durable: World, topic: str) -> None:
    durable.create(topic)
    reader = durable.reader(topic, "r")
    durable.send(topic, "a", "b", "c")
    reader.pull(topic, 2, auto_ack=False).ack()
    durable.restart()
    info = durable.topic(topic)
    assert (info.first_offset, info.messages) == (2, 1)
    assert durable.new_subscriber("late").subscribe(topic, "earliest").offset == 2


def test_why_names_the_subscription_that_keeps_messages_how_many_bytes_and_since_when(
    world: World, topic: str
) -> None:
    world.create(topic)
    fast, slow = world.reader(topic, "fast"), world.reader(topic, "slow")
    world.send(topic, "a" * 100, "b" * 100)
    drain(fast, topic)
    slow.pull(topic, 1, auto_ack=False).ack()
    moved = world.admin.why(topic).holds[0].since
    world.send(topic, "c" * 100)
    why = world.admin.why(topic)
    assert [hold.subscriber for hold in why.holds] == ["slow", "fast"]
    assert [hold.messages for hold in why.holds] == [2, 1]
    assert why.holds[0].bytes == why.bytes > 200
    (last,) = world.admin.peek(topic, 2)
    assert why.holds[0].since == moved <= last.timestamp
