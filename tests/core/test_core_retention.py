"""What topics give up: what all have read, what is too old, what there is no room for."""

import pytest
from core_world import World, offsets

from mbctl.core.subscription import Subscription
from mbctl.errors import InvalidArgument, TopicFull, TopicNotFound
from mbctl.model import AGE_MAX_S, NS_PER_S, Limits, TopicSettings


def trims(world: World) -> list[tuple[int, str, list[int]]]:
    """What is given up in this turn: below which offset, why, which places."""
    return [
        (trim.first_offset, trim.reason, sorted(trim.places)) for trim in world.changes().trimmed
    ]


def world_with(batches: int = 0, **settings) -> World:
    """A topic with batches of two messages of ten bytes, at places 1, 2, 3…"""
    world = World()
    world.topic(**settings)
    for _ in range(batches):
        world.send(2)
    return world


def looked_at(subscription: Subscription) -> Subscription:
    subscription.skip_reclaimed()
    return subscription


# --- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"max_messages": 0},
        {"max_bytes": -1},
        {"retain_bytes": 0},
        {"max_age": 0.0},
        {"max_age": float("nan")},
        {"retain_age": -1.0},
        {"retain_age": AGE_MAX_S + 1},
        {"when_full": "drop_oldest"},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings) -> None:
    world = World()
    with pytest.raises(InvalidArgument):
        world.core.create_topic("orders", TopicSettings(**settings), exist_ok=True, created=0)
    assert "orders" not in world.core.topics


# --- dropping the oldest ----------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"max_messages": 6}, {"max_bytes": 60}])
def test_a_topic_that_drops_its_oldest_drops_whole_batches_until_the_new_one_fits(settings) -> None:
    world = world_with(3, when_full="drop_oldest", **settings)
    subscription = world.reader()
    assert world.send(1) == 6
    topic = subscription.topic
    assert (topic.first_offset, topic.messages) == (2, 5)
    assert trims(world) == [(2, "dropped", [1])]
    assert looked_at(subscription).dropped == 2
    assert world.send(5) == 7
    assert (topic.first_offset, topic.messages) == (6, 6)
    assert trims(world) == [(6, "dropped", [2, 3])]
    assert world.pulled() == [6, *range(7, 12)]
    assert (subscription.dropped, subscription.expired) == (6, 0)


def test_a_batch_that_alone_is_above_a_bound_is_refused_and_drops_nothing() -> None:
    world = world_with(3, max_messages=6, max_bytes=100, when_full="drop_oldest")
    world.reader()
    with pytest.raises(TopicFull) as refusal:
        world.send(7)
    assert refusal.value.what == "messages"
    with pytest.raises(TopicFull) as refusal:
        world.send(1, size=101)
    assert refusal.value.what == "bytes"
    assert world.core.topics.named("orders").messages == 6
    assert world.send(6, size=100) == 6
    assert world.core.topics.named("orders").first_offset == 6


def test_only_what_was_not_acknowledged_counts_as_dropped() -> None:
    world = world_with(3, max_messages=6, when_full="drop_oldest")
    behind = world.reader(start="earliest")
    ahead = world.reader(b"b", "audit", start="earliest")
    world.ack((1, 2))
    world.ack((0, 5), member=b"b")
    world.send(3)
    assert looked_at(behind).dropped == 3
    assert looked_at(ahead).dropped == 0
    assert (behind.cursor, ahead.cursor) == (4, 5)


def test_an_ack_of_what_was_dropped_changes_nothing() -> None:
    world = world_with(3, max_messages=6, when_full="drop_oldest")
    subscription = world.reader()
    assert world.pulled() == [0, 1, 2, 3, 4, 5]
    world.send(4)
    assert world.ack((0, 4)) == 0
    assert world.nack((0, 4)) == 0
    assert (subscription.dropped, subscription.leases.leased_count) == (4, 2)
    [trim] = world.changes().trimmed
    assert trim.reason == "dropped"


def test_acks_that_came_before_are_stored_before_what_is_dropped() -> None:
    world = world_with(3, max_messages=6, when_full="drop_oldest")
    subscription = world.reader()
    world.ack((0, 1), (2, 3))
    world.send(4)
    world.ack((5, 6))
    changes = world.changes()
    assert [ranges for _, ranges in changes.acknowledged] == [[(0, 1), (2, 3), (5, 6)]]
    assert [(trim.first_offset, trim.reason) for trim in changes.trimmed] == [(4, "dropped")]
    assert subscription.dropped == 2


def test_a_lease_that_is_dropped_in_part_keeps_the_rest() -> None:
    world = world_with(3, max_messages=6, when_full="drop_oldest")
    subscription = world.reader()
    world.pull()
    world.send(2)
    assert world.advance(30) == []
    assert looked_at(subscription).redeliver_count == 4
    grant = world.pull()
    assert grant is not None
    assert [(piece.first, piece.deliveries) for piece in grant.pieces] == [(2, 2), (4, 2), (6, 1)]


def test_leases_that_are_dropped_end_with_their_process() -> None:
    world = world_with(3, max_messages=6, when_full="drop_oldest")
    world.reader()
    world.pull(count=3)
    world.pull()
    world.send(4)
    world.close(b"a")
    world.register(b"a")
    assert world.pulled() == [4, 5, 6, 7, 8, 9]


def test_batches_may_be_dropped_before_they_are_visible() -> None:
    world = world_with(max_messages=4, when_full="drop_oldest")
    subscription = world.reader()
    topic = subscription.topic
    for _ in range(4):
        world.accept(2)
    assert (topic.first_offset, topic.visible_next, topic.next_offset) == (4, 4, 8)
    assert trims(world) == [(4, "dropped", [1, 2])]
    assert world.core.reveal(topic.topic_id, 2, world.now) == []
    assert topic.visible_next == 4
    assert world.pulled() == []
    world.reveal()
    assert world.pulled() == [4, 5, 6, 7]
    assert subscription.dropped == 4


def test_what_was_never_delivered_and_is_given_up_is_told_to_the_next_pull() -> None:
    world = world_with(2, max_messages=4, when_full="drop_oldest")
    world.reader()
    world.pull(count=1)
    world.send(2)
    grant = world.pull()
    assert grant is not None
    assert (grant.skipped, offsets(grant)) == (1, [2, 3, 4, 5])


def test_an_ephemeral_subscription_counts_what_it_lost_too() -> None:
    world = world_with(2, max_messages=4, when_full="drop_oldest")
    ephemeral = world.reader(b"e", None, start="earliest")
    world.reader(b"a", "billing", start="earliest")
    world.ack((0, 1))
    world.commit()
    world.send(2)
    world.send(2)
    assert looked_at(ephemeral).dropped == 3
    assert ephemeral.skipped == 4


def test_the_same_holds_for_many_turns_of_different_reasons() -> None:
    world = world_with(max_messages=4, max_age=10.0, when_full="drop_oldest")
    idle = world.reader(b"i", "idle")
    for _ in range(200):
        world.send(2)
        world.send(2)
        world.send(2)
        world.advance(11)
    assert idle.topic.first_offset == idle.topic.next_offset == 1200
    assert idle.cursor > 0
    assert looked_at(idle).dropped == 400
    assert idle.expired == 800


def test_trims_of_one_turn_keep_their_order_and_reasons() -> None:
    world = world_with(max_messages=6, max_age=10.0, when_full="drop_oldest")
    world.reader()
    world.topic("others", max_messages=2, when_full="drop_oldest")
    world.send(2)
    world.advance(5)
    for _ in range(3):
        world.send(2)
        world.send(2, topic="others")
    world.advance(11)
    world.send(4)
    world.send(4)
    found = world.changes().trimmed
    assert [(t.topic.name, t.first_offset, t.reason, len(t.places)) for t in found] == [
        ("others", 4, "dropped", 2),
        ("orders", 2, "dropped", 1),
        ("orders", 8, "expired", 3),
        ("orders", 12, "dropped", 1),
    ]


# --- too old ----------------------------------------------------------------------------------


def test_messages_expire_batch_by_batch_read_or_not() -> None:
    world = world_with(max_age=10.0)
    subscription = world.reader()
    begun = world.now
    for _ in range(3):
        world.send(2)
        world.advance(2)
    world.ack((0, 1))
    assert world.core.next_deadline_ns() == begun + 10 * NS_PER_S
    world.advance(4)
    assert (subscription.topic.first_offset, looked_at(subscription).expired) == (2, 1)
    world.advance(2)
    assert (subscription.topic.first_offset, looked_at(subscription).expired) == (4, 3)
    world.advance(60)
    assert (subscription.topic.messages, looked_at(subscription).expired) == (0, 5)
    assert subscription.unread == 0
    assert world.changes().trimmed[-1].reason == "expired"


def test_a_topic_without_subscriptions_lets_messages_expire_too() -> None:
    world = world_with(3, max_age=10.0)
    world.advance(9)
    assert world.core.topics.named("orders").messages == 6
    world.advance(1)
    assert trims(world) == [(6, "expired", [1, 2, 3])]


def test_a_topic_is_looked_at_no_more_than_once_a_second_and_messages_are_a_second_late() -> None:
    world = world_with(max_age=5.0)
    topic, looks = world.core.topics.named("orders"), set()
    for _ in range(200):
        world.send(1)
        world.advance(0.05)
        looks.add(topic.looked_ns)
        oldest = topic.index.first_timestamp
        assert world.wall - oldest <= 6 * NS_PER_S
    assert 3 <= len(looks) <= 7
    world.advance(7)
    assert topic.messages == 0


def test_a_tiny_age_looks_no_more_than_once_a_second() -> None:
    world = world_with(max_age=0.001)
    topic, looks = world.core.topics.named("orders"), set()
    for _ in range(100):
        world.send(1)
        world.advance(0.05)
        looks.add(topic.looked_ns)
    assert len(looks) <= 6


def test_a_clock_that_is_put_forward_is_noticed_after_ten_minutes() -> None:
    world = world_with(1, max_age=86_400.0)
    world.wall += 90_000 * NS_PER_S
    world.advance(600)
    assert world.core.topics.named("orders").messages == 0


def test_a_clock_that_is_put_back_expires_nothing_early() -> None:
    world = world_with(1, max_age=100.0)
    world.wall -= 50 * NS_PER_S
    world.advance(149)
    assert world.core.topics.named("orders").messages == 2
    world.advance(2)
    assert world.core.topics.named("orders").messages == 0


def test_what_expires_makes_room_for_who_waits_at_the_bound_and_tells_the_gap() -> None:
    world = World(Limits(subscription_ranges=8))
    world.topic(max_age=10.0)
    subscription = world.reader(ack_wait=3_600.0)
    for _ in range(6):
        world.send(2)
        world.pull(count=2)
    world.advance(5)
    world.send(2)
    assert subscription.at_limit
    token = world.wait(wait_s=60)
    [wake] = world.advance(5)
    assert (wake.token, offsets(wake.result)) == (token, [12, 13])
    assert subscription.expired == 12


def test_a_waiting_pull_is_told_what_it_will_never_get() -> None:
    world = world_with(max_messages=2, max_age=10.0, when_full="drop_oldest")
    ephemeral = world.reader(b"e", None)
    world.accept(2)
    token = world.wait(b"e", wait_s=100)
    [wake] = world.advance(10)
    assert wake.token == token
    assert (wake.result.skipped, wake.result.pieces) == (2, [])
    assert ephemeral.expired == 2


def test_a_deleted_topic_is_looked_at_no_more() -> None:
    world = world_with(2, max_age=10.0, retain_age=5.0)
    world.core.delete_topic("orders")
    world.core.check()
    world.topic()
    assert world.advance(1_000) == []


def test_what_a_deleted_topic_gave_up_in_the_same_turn_is_still_released() -> None:
    world = world_with(2, max_messages=4, when_full="drop_oldest")
    world.send(2)
    topic, _ = world.core.delete_topic("orders")
    assert list(topic.index.places()) == [2, 3]
    assert trims(world) == [(2, "dropped", [1])]


# --- retained ---------------------------------------------------------------------------------


def read_all(world: World) -> None:
    while got := world.pulled():
        world.ack((got[0], got[-1] + 1))
    world.changes()


def test_what_was_read_is_retained_until_it_is_old() -> None:
    world = world_with(retain_age=10.0)
    topic = world.reader().topic
    for _ in range(3):
        world.send(2)
        world.advance(2)
    read_all(world)
    assert topic.first_offset == 0
    world.advance(4)
    assert trims(world) == [(2, "read", [1])]
    world.advance(2)
    assert trims(world) == [(4, "read", [2])]
    world.advance(60)
    assert trims(world) == [(6, "read", [3])]
    assert world.core.next_deadline_ns() is not None
    world.advance(1_000)
    assert world.core.next_deadline_ns() is None


def test_what_was_read_late_is_given_up_soon() -> None:
    world = world_with(3, retain_age=10.0)
    topic = world.reader().topic
    world.advance(100)
    assert topic.first_offset == 0
    read_all(world)
    world.advance(1)
    assert topic.first_offset == 6


def test_what_is_not_read_is_retained_whatever_its_age() -> None:
    world = world_with(3, retain_age=10.0, retain_bytes=1)
    topic = world.reader().topic
    world.reader(b"b", "audit", start="earliest")
    world.ack((0, 6))
    world.changes()
    world.advance(1_000)
    assert topic.first_offset == 0
    world.ack((0, 3), member=b"b")
    world.changes()
    world.advance(1)
    # The batch that is read in part stays whole.
    assert topic.first_offset == 2


def test_what_was_read_is_retained_newest_first_up_to_so_many_bytes() -> None:
    world = world_with(5, retain_bytes=45)
    topic = world.reader().topic
    world.ack((0, 7))
    assert trims(world) == [(2, "read", [1])]
    world.ack((7, 10))
    assert trims(world) == [(6, "read", [2, 3])]
    assert topic.messages == 4
    assert world.core.next_deadline_ns() is not None


def test_with_both_bounds_a_batch_stays_while_both_hold() -> None:
    world = world_with(retain_age=10.0, retain_bytes=40)
    topic = world.reader().topic
    for _ in range(4):
        world.send(2)
        world.advance(3)
    read_all(world)
    assert topic.first_offset == 4
    world.advance(4)
    assert topic.first_offset == 6
    world.advance(3)
    assert topic.first_offset == 8


def test_without_a_subscription_nothing_is_retained_or_reclaimed() -> None:
    world = world_with(3, retain_age=1.0, retain_bytes=1)
    world.reader(b"e", None, start="earliest")
    world.ack((0, 6), member=b"e")
    world.advance(100)
    assert trims(world) == []
    world.reader()
    read_all(world)
    world.core.unsubscribe("orders", "billing")
    world.advance(100)
    assert world.core.topics.named("orders").messages == 0


def test_a_new_subscription_can_begin_with_what_is_retained() -> None:
    world = world_with(3, retain_age=10.0)
    topic = world.reader().topic
    read_all(world)
    assert world.subscribe(b"a").offset == 6
    world.register(b"b", "audit")
    assert world.subscribe(b"b", start="earliest").offset == 0
    world.advance(100)
    assert topic.first_offset == 0
    assert world.pulled(b"b") == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("when_full", ["refuse", "drop_oldest"])
@pytest.mark.parametrize("bound", [{"max_messages": 6}, {"max_bytes": 60}])
def test_what_is_only_retained_makes_room_first(when_full, bound) -> None:
    world = world_with(3, retain_age=1e6, when_full=when_full, **bound)
    subscription = world.reader()
    world.ack((0, 4))
    world.changes()
    world.send(1)
    assert trims(world) == [(2, "read", [1]) if "max_bytes" in bound else (1, "read", [])]
    world.send(3)
    topic = subscription.topic
    assert topic.first_offset == 4
    if when_full == "refuse":
        with pytest.raises(TopicFull):
            world.send(1)
        assert topic.first_offset == 4
        assert trims(world)[-1][:2] == (4, "read")
    else:
        world.send(1)
        assert topic.first_offset == 6
        assert [trim[:2] for trim in trims(world)] == [(4, "read"), (6, "dropped")]
    assert looked_at(subscription).dropped == (0 if when_full == "refuse" else 2)


def test_a_refused_send_gives_up_nothing_that_is_retained() -> None:
    world = world_with(3, retain_age=1e6, max_messages=6)
    topic = world.reader().topic
    world.ack((0, 2))
    world.changes()
    with pytest.raises(TopicFull):
        world.send(3)
    assert topic.first_offset == 0
    assert not world.core.has_changes


def test_what_is_only_retained_is_given_up_when_the_disk_is_full() -> None:
    world = world_with(3, retain_age=1e6)
    world.reader()
    world.topic("kept", retain_bytes=1_000)
    world.send(2, topic="kept")
    assert not world.core.give_up_retained()
    world.ack((0, 3))
    world.changes()
    assert world.core.give_up_retained()
    world.core.check()
    assert trims(world) == [(3, "read", [1])]
    assert not world.core.give_up_retained()
    assert world.core.topics.named("kept").messages == 2


def test_a_cursor_that_is_not_stored_yet_gives_up_nothing() -> None:
    world = world_with(3, retain_age=1e6, max_messages=6)
    topic = world.reader().topic
    world.ack((0, 6))
    assert not world.core.give_up_retained()
    with pytest.raises(TopicFull):
        world.send(1)
    world.changes()
    assert world.send(1) == 6
    assert topic.first_offset == 1


# --- purging ----------------------------------------------------------------------------------


def test_purging_gives_up_everything_and_counts_for_nobody() -> None:
    world = world_with(3)
    subscription = world.reader()
    world.accept(2)
    world.pull(count=3)
    world.ack((0, 1))
    assert world.purge() == 8
    assert looked_at(subscription).unread == 0
    assert (subscription.dropped, subscription.expired, subscription.lost) == (0, 0, 0)
    assert trims(world) == [(8, "purged", [1, 2, 3, 4])]
    assert world.purge() == 0
    assert trims(world) == []
    assert world.ack((1, 3)) == 0
    world.reveal()
    assert world.send(1) == 8
    assert world.pulled() == [8]


def test_purging_needs_a_topic() -> None:
    with pytest.raises(TopicNotFound):
        World().purge()


def test_purging_wakes_who_waits_at_the_bound_for_what_comes() -> None:
    world = World(Limits(subscription_ranges=8))
    world.topic()
    subscription = world.reader(ack_wait=3_600.0)
    world.send(20)
    for _ in range(6):
        world.pull(count=1)
    token = world.wait()
    _, wakes = world.core.purge("orders", world.now)
    world.core.check()
    assert [(wake.token, wake.result.skipped) for wake in wakes] == [(token, 14)]
    assert not subscription.at_limit


# --- after a restart --------------------------------------------------------------------------


def test_a_restored_topic_is_looked_at_at_once() -> None:
    old = world_with(3, max_age=10.0)
    index = old.core.topics.named("orders").index
    world = World()
    world.core.topics._next_id = 8
    topic, _ = world.core.restore_topic(
        7,
        "orders",
        TopicSettings(max_age=10.0),
        created=0,
        runs=[(index._firsts, index._places, index._timestamps, index._sizes, 6)],
        first_offset=0,
        next_offset=6,
        timestamp=0,
    )
    world.core.check()
    world.wall += 60 * NS_PER_S
    assert world.core.next_deadline_ns() == 0
    world.advance(0)
    assert topic.messages == 0
    assert world.core.next_deadline_ns() is None


def test_what_was_acknowledged_above_what_is_given_up_is_reclaimed_when_it_is_looked_at() -> None:
    world = world_with(3, max_messages=6, when_full="drop_oldest")
    subscription = world.reader()
    world.ack((2, 6))
    world.changes()
    world.send(1)
    assert trims(world) == [(2, "dropped", [1])]
    assert world.pulled() == [6]
    assert subscription.cursor == 6
    assert trims(world) == [(6, "read", [2, 3])]
