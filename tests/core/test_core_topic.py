"""Topics: their names and bounds, where subscriptions begin, and what is reclaimed."""

import pytest
from core_world import World

from mbctl.errors import (
    InvalidName,
    LimitExceeded,
    OffsetOutOfRange,
    TopicExists,
    TopicFull,
    TopicNotFound,
)
from mbctl.model import Limits, SubscribeOptions, TopicSettings

SUBSCRIBE_NEW = SubscribeOptions(start="new")


def create(world: World, name: str, *, exist_ok: bool = False, **settings: int) -> bool:
    _, created = world.core.create_topic(
        name, TopicSettings(**settings), exist_ok=exist_ok, created=0
    )
    return created


# --- names and ids ----------------------------------------------------------------------------


def test_a_topic_that_exists_with_equal_settings_is_found() -> None:
    world = World()
    assert create(world, "orders", max_messages=5)
    assert not create(world, "orders", exist_ok=True, max_messages=5)
    with pytest.raises(TopicExists):
        create(world, "orders", exist_ok=True, max_messages=6)
    with pytest.raises(TopicExists):
        create(world, "orders", max_messages=5)


@pytest.mark.parametrize("name", ["", ".hidden", "-x", "a b", "a/b", "ü", "x" * 201, "a\n"])
def test_a_topic_needs_a_valid_name(name) -> None:
    with pytest.raises(InvalidName):
        create(World(), name)


def test_one_topic_more_than_the_limit_is_refused() -> None:
    world = World(Limits(topics=2))
    create(world, "one")
    create(world, "two")
    with pytest.raises(LimitExceeded):
        create(world, "three")
    assert not create(world, "two", exist_ok=True)
    world.core.delete_topic("one")
    assert create(world, "three")


def test_the_id_of_a_deleted_topic_is_never_used_again() -> None:
    world, seen = World(), set()
    for _ in range(5):
        topic = world.topic("orders")
        assert topic.topic_id not in seen
        seen.add(topic.topic_id)
        world.core.delete_topic("orders")
        world.core.check()
    with pytest.raises(TopicNotFound):
        world.core.delete_topic("orders")


# --- bounds -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "counts"),
    [({"max_messages": 6}, (3, 3)), ({"max_bytes": 60}, (3, 3)), ({"max_bytes": 65}, (1, 5))],
)
def test_a_send_above_a_bound_of_the_topic_is_refused_and_changes_nothing(settings, counts) -> None:
    world = World()
    topic = world.topic(**settings)
    world.reader()
    for count in counts:
        world.send(count)
    with pytest.raises(TopicFull):
        world.send(1)
    assert topic.messages == topic.next_offset == sum(counts)
    world.ack((0, sum(counts)))
    world.commit()
    assert world.send(1) == sum(counts)


def test_what_was_read_out_of_order_still_counts_against_the_bounds() -> None:
    world = World()
    world.topic(max_messages=6)
    world.reader()
    world.send(3)
    world.send(3)
    world.ack((3, 6))
    world.commit()
    with pytest.raises(TopicFull):
        world.send(1)


# --- where a subscription begins --------------------------------------------------------------


def test_the_first_subscription_begins_at_the_earliest_and_later_ones_at_new() -> None:
    world = World()
    world.topic()
    world.send(5)
    world.register(b"a", "billing")
    world.register(b"b", "audit")
    first, second = world.subscribe(b"a"), world.subscribe(b"b")
    assert (first.offset, first.skipped, first.created) == (0, 0, True)
    assert (second.offset, second.skipped, second.created) == (5, 5, True)


def test_a_look_by_an_ephemeral_reader_does_not_cost_a_durable_one_the_backlog() -> None:
    world = World()
    world.topic()
    world.send(5)
    world.register(b"look", None)
    world.register(b"look 2", None)
    world.register(b"a", "billing")
    assert world.subscribe(b"look").offset == 0
    assert world.subscribe(b"look 2").offset == 5
    assert world.subscribe(b"a").offset == 0


@pytest.mark.parametrize(
    ("start", "offset", "skipped"),
    [("earliest", 2, 0), ("new", 7, 5), (0, 2, 2), (2, 2, 0), (4, 4, 2), (7, 7, 5)],
)
def test_the_answer_tells_where_it_begins_and_what_is_skipped(start, offset, skipped) -> None:
    world = World()
    world.topic()
    world.reader()
    world.send(7)
    world.ack((0, 2))
    world.commit()
    world.register(b"b", "audit")
    subscribed = world.subscribe(b"b", start=start)
    assert (subscribed.offset, subscribed.skipped) == (offset, skipped)


@pytest.mark.parametrize("start", [-1, 6, 1_000])
def test_an_offset_that_the_topic_has_not_reached_is_refused(start) -> None:
    world = World()
    world.topic()
    world.send(5)
    world.register(b"a")
    with pytest.raises(OffsetOutOfRange) as refusal:
        world.subscribe(b"a", start=start)
    assert refusal.value.next_offset == 5
    assert world.core.subscription_count == 0


@pytest.mark.parametrize("start", [None, "new", 2])
def test_what_is_not_durable_yet_is_new_to_a_subscription(start) -> None:
    world = World()
    world.topic()
    world.reader(b"other", "other")
    world.send(2)
    world.accept(3)
    world.register(b"a")
    assert world.subscribe(b"a", start=start).offset == 2
    assert world.core.subscription("orders", "billing").unread == 0
    world.reveal()
    assert world.pulled() == [2, 3, 4]


# --- reclaiming -------------------------------------------------------------------------------


def test_messages_are_reclaimed_when_every_durable_subscription_has_read_them() -> None:
    world = World()
    topic = world.topic()
    world.reader(b"a", "billing")
    world.reader(b"b", "audit")
    for _ in range(3):
        world.send(2)
    world.ack((0, 6), member=b"a")
    assert world.commit() == []
    world.ack((0, 3), member=b"b")
    assert world.commit() == [1]
    assert topic.first_offset == 3
    world.ack((3, 6), member=b"b")
    assert world.commit() == [2, 3]
    assert topic.messages == 0


def test_nothing_is_reclaimed_without_a_subscription() -> None:
    world = World()
    topic = world.topic()
    world.send(2)
    assert world.commit() == []
    world.reader()
    world.commit()
    world.core.unsubscribe("orders", "billing")
    assert world.commit() == []
    assert topic.messages == 2


def test_an_ephemeral_subscription_holds_nothing() -> None:
    world = World()
    topic = world.topic()
    world.reader(b"look", None)
    world.reader(b"a")
    world.send(2)
    world.ack((0, 2))
    assert world.commit() == [1]
    assert topic.messages == 0


def test_what_is_trimmed_follows_from_the_cursors_taken_with_it() -> None:
    world = World()
    topic = world.topic()
    world.reader()
    world.send(2)
    world.send(2)
    world.commit()
    world.ack((0, 3))
    assert topic.first_offset == 0
    changes = world.core.take_changes()
    [(subscription, ranges)] = changes.acknowledged
    assert (subscription.subscriber, ranges) == ("billing", [(0, 3)])
    [trimmed] = changes.trimmed
    assert (trimmed.topic, trimmed.first_offset, list(trimmed.places)) == (topic, 3, [1])
    assert topic.first_offset == 3
    world.ack((3, 4))
    assert world.commit() == [2]


def test_a_subscription_cannot_begin_below_what_is_being_given_up() -> None:
    world = World()
    world.topic()
    world.reader(b"a")
    world.send(4)
    world.ack((0, 3))
    assert world.core.take_changes().trimmed[0].first_offset == 3
    world.register(b"b", "audit")
    subscribed = world.subscribe(b"b", start=1)
    assert (subscribed.offset, subscribed.skipped) == (3, 2)
    assert world.pulled(b"b") == [3]


def test_a_new_subscription_holds_messages_from_its_own_place_on() -> None:
    world = World()
    topic = world.topic()
    world.reader(b"a")
    world.send(4)
    world.ack((0, 4))
    world.register(b"b", "audit")
    world.subscribe(b"b", start=2)
    world.commit()
    assert topic.first_offset == 2


def test_the_first_subscription_gives_up_what_it_passes_over() -> None:
    world = World()
    topic = world.topic()
    world.send(4)
    world.reader(start="new")
    assert world.commit() == [1]
    assert topic.first_offset == 4


def test_a_deleted_subscription_lets_go_at_once() -> None:
    world = World()
    topic = world.topic()
    world.reader(b"a", "billing")
    world.reader(b"b", "audit")
    world.send(2)
    world.ack((0, 2))
    assert world.commit() == []
    world.core.unsubscribe("orders", "audit")
    assert world.commit() == [1]
    assert topic.messages == 0


def test_what_the_only_subscription_acknowledged_before_it_ended_is_kept() -> None:
    world = World()
    topic = world.topic()
    world.reader()
    world.send(2)
    world.ack((0, 2))
    world.core.unsubscribe("orders", "billing")
    changes = world.core.take_changes()
    assert (changes.acknowledged, changes.trimmed) == ([], [])
    assert topic.messages == 2


def test_a_subscriber_that_comes_back_holds_messages_for_itself() -> None:
    world = World()
    topic = world.topic()
    world.reader(b"a", "billing")
    world.reader(b"b", "audit")
    world.commit()
    world.send(2)
    world.ack((0, 2))
    world.ack((0, 1), member=b"b")
    world.core.unsubscribe("orders", "audit")
    world.subscribe(b"b", start="earliest")
    [(subscription, _)] = world.core.take_changes().acknowledged
    assert subscription.subscriber == "billing"
    assert topic.messages == 2


def test_deleting_a_topic_leaves_the_places_it_has_to_the_caller() -> None:
    world = World()
    world.topic()
    world.reader()
    for _ in range(3):
        world.send(2)
    world.ack((0, 2))
    assert world.commit() == [1]
    world.ack((2, 4))
    topic, _ = world.core.delete_topic("orders")
    assert list(topic.index.places()) == [2, 3]
    assert world.commit() == []


def test_subscribing_and_unsubscribing_for_ever_needs_no_memory() -> None:
    world = World()
    topic = world.topic()
    world.reader(b"slow", "slow")
    world.send(2)
    world.register(b"a")
    for _ in range(1_000):
        world.core.subscribe(world.core.member(b"a"), "orders", SUBSCRIBE_NEW, wall_ns=0)
        world.core.unsubscribe("orders", "billing")
        world.core.take_changes()
    assert len(topic._held.heap) < 200
    world.core.check()
