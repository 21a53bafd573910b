"""Point 12: bounds on state."""

from collections.abc import Callable

import pytest
from semantic_worlds import World, offsets

from mbctl import LimitExceeded
from mbctl.model import Limits

pytestmark = pytest.mark.point(12)


def test_at_the_bound_of_ranges_a_pull_returns_only_redeliveries_and_it_is_shown(
    own: Callable[..., World], topic: str
) -> None:
    world = own(limits=Limits(subscription_ranges=20))
    world.create(topic)
    reader = world.reader(topic, "r")
    world.publisher.send_many(topic, [b"x"] * 200)
    pulled = []
    while batch := reader.pull(topic, 1, wait=0, auto_ack=False):
        # Every second message is acknowledged, so that each makes a gap.
        if batch.next_offset % 2:
            pulled.append(batch)
        else:
            batch.ack()
    info = world.subscription(topic, "r")
    assert info.at_limit
    assert info.ranges <= 20
    assert info.unread > 150
    # What was given back still comes, and nothing that is new.
    pulled[0].nack()
    assert offsets(reader.pull(topic, wait=0, auto_ack=False)) == [0]
    assert not reader.pull(topic, wait=0, auto_ack=False)
    # Gaps that close make room.
    for batch in pulled:
        batch.ack()
    assert not world.subscription(topic, "r").at_limit
    assert len(reader.pull(topic, wait=0)) > 10


def test_subscriptions_are_bounded_for_a_topic_and_in_all(
    own: Callable[..., World], topic: str
) -> None:
    world = own(limits=Limits(topic_subscriptions=2, subscriptions=3, topics=3))
    first, second = world.create(topic), world.create(f"{topic}.b")
    for name in ("a", "b"):
        world.reader(first, name)
    with pytest.raises(LimitExceeded):
        world.reader(first, "c")
    world.reader(second, "a")
    with pytest.raises(LimitExceeded):
        world.reader(second, "b")
    # Coming back to one that is there is always possible.
    assert not world.new_subscriber("a").subscribe(first).created
    world.admin.delete_subscription(first, "a")
    assert world.new_subscriber("b").subscribe(second).created


def test_topics_are_bounded(own: Callable[..., World], topic: str) -> None:
    world = own(limits=Limits(topics=2))
    world.create(topic)
    world.create(f"{topic}.b")
    with pytest.raises(LimitExceeded) as refused:
        world.create(f"{topic}.c")
    assert refused.value.retryable
    world.admin.delete_topic(topic)
    world.create(f"{topic}.c")


def test_bounds_are_those_promised(world: World) -> None:
    limits = world.publisher.limits
    assert limits.subscription_ranges == 10_000
    assert (limits.topics, limits.topic_subscriptions) == (10_000, 1_000)
    assert limits.subscriptions == 100_000
