"""Reading processes: connecting, going, coming back."""

import pytest
from core_world import World, woken

from mbctl.errors import InvalidName, LimitExceeded, ProtocolError, SubscriptionNotFound
from mbctl.model import Limits


def reading_world(name: str | None, count: int = 3) -> World:
    """A topic with messages that one process was granted."""
    world = World()
    world.topic()
    world.reader(b"a", name)
    world.send(count)
    world.pull(b"a")
    return world


def test_a_named_subscriber_has_its_name_and_another_one_its_id() -> None:
    world = World()
    named, _ = world.core.register_subscriber(b"\x01\xff", "billing", world.now)
    unnamed, _ = world.core.register_subscriber(b"\x02\xff", None, world.now)
    assert (named.subscriber, named.durable) == ("billing", True)
    assert (unnamed.subscriber, unnamed.durable) == ("~02ff", False)


@pytest.mark.parametrize("name", ["", "~02ff", "a b", ".x"])
def test_a_name_that_breaks_the_rules_is_refused(name) -> None:
    world = World()
    with pytest.raises(InvalidName):
        world.register(b"a", name)
    with pytest.raises(ProtocolError):
        world.core.member(b"a")


def test_a_refused_name_does_not_end_what_the_process_was() -> None:
    world = reading_world("billing")
    with pytest.raises(InvalidName):
        world.register(b"a", "not a name")
    assert world.extend((0, 3)) == 3


def test_closing_releases_leases_at_once_and_counts_the_delivery() -> None:
    world = reading_world("billing")
    world.close(b"a")
    world.register(b"b")
    assert world.pull(b"b").pieces[0].deliveries == 2


def test_closing_twice_and_closing_a_stranger_do_nothing() -> None:
    world = reading_world("billing")
    world.close(b"a")
    assert world.close(b"a") == []
    assert world.close(b"nobody") == []


def test_closing_keeps_what_others_have() -> None:
    world = reading_world("billing")
    world.register(b"b")
    world.send(2)
    world.pull(b"b")
    world.close(b"a")
    assert world.extend((3, 5), member=b"b") == 2


def test_registering_again_releases_what_the_process_had() -> None:
    world = reading_world("billing")
    world.register(b"b")
    token = world.wait(b"b")
    assert woken(world.register(b"a")) == {token: [0, 1, 2]}
    assert world.extend((0, 3), member=b"a") == 0


def test_a_durable_subscription_outlives_all_its_processes() -> None:
    world = reading_world("billing")
    world.close(b"a")
    world.advance(100_000)
    world.register(b"b")
    assert world.pulled(b"b") == [0, 1, 2]


def test_an_ephemeral_subscription_ends_a_while_after_its_connection() -> None:
    world = reading_world(None)
    world.close(b"a")
    world.advance(29.999)
    assert world.core.subscription_count == 1
    world.advance(0.001)
    assert world.core.subscription_count == 0
    with pytest.raises(SubscriptionNotFound):
        world.core.subscription("orders", "~61")


def test_an_ephemeral_reader_that_comes_back_in_time_keeps_its_place() -> None:
    world = reading_world(None)
    world.ack((0, 1))
    world.close(b"a")
    world.advance(29)
    world.register(b"a", None)
    world.advance(100)
    assert world.pulled(b"a") == [1, 2]
    world.close(b"a")
    world.advance(30)
    assert world.core.subscription_count == 0


def test_an_ephemeral_subscription_ends_once_while_its_process_is_away() -> None:
    world = reading_world(None)
    world.close(b"a")
    world.core.unsubscribe("orders", "~61")
    world.core.check()
    world.advance(60)
    assert world.core.subscription_count == 0


def test_a_process_that_comes_back_by_a_name_leaves_its_ephemeral_place_to_end() -> None:
    world = reading_world(None)
    world.register(b"a", "billing")
    world.advance(100)
    assert world.core.subscription_count == 1
    world.close(b"a")
    world.advance(30)
    assert world.core.subscription_count == 0


def test_one_subscription_more_than_a_limit_is_refused() -> None:
    world = World(Limits(topic_subscriptions=2, subscriptions=3))
    for topic in ("one", "two"):
        world.topic(topic)
    for member in (b"a", b"b", b"c"):
        world.register(member, member.decode())
    world.subscribe(b"a", "one")
    world.subscribe(b"b", "one")
    with pytest.raises(LimitExceeded, match="topic 'one'"):
        world.subscribe(b"c", "one")
    assert not world.subscribe(b"a", "one").created
    world.subscribe(b"a", "two")
    with pytest.raises(LimitExceeded, match="3 subscriptions"):
        world.subscribe(b"b", "two")
    world.core.unsubscribe("one", "a")
    assert world.subscribe(b"b", "two").created
