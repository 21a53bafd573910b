"""Seeking, starting at a place or a time, and looking without a subscription."""

import pytest
from core_world import World, offsets, woken

from mbctl.core.subscription import Subscription
from mbctl.errors import OffsetOutOfRange, SubscriptionNotFound, TopicNotFound
from mbctl.model import NS_PER_S, AtTime, Sought


def world_with(batches: int = 5, **reader) -> tuple[World, Subscription]:
    """Batches of two messages, ten seconds apart, and one who reads them."""
    world = World()
    world.topic()
    subscription = world.reader(**reader)
    for _ in range(batches):
        world.send(2)
        world.advance(10)
    world.changes()
    return world, subscription


# --- where to -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "offset"), [(0, 0), (3, 3), (10, 10), ("new", 10)])
def test_a_subscription_goes_on_where_it_was_sent(start, offset) -> None:
    world, subscription = world_with()
    world.pull(count=7)
    world.ack((0, 5))
    assert world.seek(start) == Sought("orders", "billing", offset, 0)
    assert (subscription.cursor, subscription.unread) == (offset, 10 - offset)
    assert world.pulled() == list(range(offset, 10))


def test_seeking_to_the_earliest_goes_to_what_is_kept() -> None:
    world, _ = world_with()
    world.ack((0, 3))
    world.changes()
    assert world.seek("earliest") == Sought("orders", "billing", 3, 0)
    assert world.pulled() == list(range(3, 10))


def test_seeking_below_what_is_kept_goes_there_and_says_so() -> None:
    world, _ = world_with()
    world.ack((0, 5))
    world.changes()
    assert world.seek(1) == Sought("orders", "billing", 5, 4)
    assert world.pulled() == list(range(5, 10))


@pytest.mark.parametrize("start", [11, -1])
def test_seeking_to_what_the_topic_has_not_reached_is_refused(start) -> None:
    world, subscription = world_with()
    world.pull()
    with pytest.raises(OffsetOutOfRange):
        world.seek(start)
    assert subscription.leases.leased_count == 10


def test_seeking_needs_a_subscription() -> None:
    world, _ = world_with()
    with pytest.raises(SubscriptionNotFound):
        world.seek(0, name="nobody")
    with pytest.raises(TopicNotFound):
        world.seek(0, topic="nothing")


@pytest.mark.parametrize(
    ("seconds", "offset"),
    [(-1_000, 0), (0, 0), (1, 2), (10, 2), (10.1, 4), (39.9, 8), (40, 8), (40.1, 10), (99, 10)],
)
def test_a_time_means_the_first_batch_of_that_time_or_later(seconds, offset) -> None:
    world, _ = world_with()
    begun = world.wall - 50 * NS_PER_S
    start = AtTime(begun + round(seconds * NS_PER_S))
    assert world.seek(start) == Sought("orders", "billing", offset, 0)
    world.register(b"b", "audit")
    subscribed = world.subscribe(b"b", start=start)
    assert (subscribed.offset, subscribed.skipped) == (offset, offset)
    assert [piece.first for piece in world.peek(start, 1)] == ([offset] if offset < 10 else [])


def test_a_time_before_what_is_kept_means_the_earliest() -> None:
    world, _ = world_with()
    world.ack((0, 5))
    world.changes()
    assert world.seek(AtTime(0)) == Sought("orders", "billing", 5, 0)
    assert world.seek(AtTime(world.wall - 50 * NS_PER_S)) == Sought("orders", "billing", 5, 0)


def test_a_time_does_not_mean_what_is_not_visible() -> None:
    world, _ = world_with()
    world.accept(2)
    assert world.seek(AtTime(world.wall)).offset == 10
    assert world.seek("new").offset == 10
    world.reveal()
    assert world.pulled() == [10, 11]


# --- what it ends -------------------------------------------------------------------------------


def test_seeking_ends_all_leases_and_forgets_what_was_acknowledged_above() -> None:
    world, subscription = world_with()
    world.pull(count=4)
    world.nack((0, 1))
    world.ack((2, 3), (6, 7))
    world.seek(1)
    assert (subscription.ranges, subscription.leases.leased_count) == (0, 0)
    grant = world.pull()
    assert offsets(grant) == list(range(1, 10))
    assert grant is not None
    assert {piece.deliveries for piece in grant.pieces} == {1}
    assert world.advance(29.9) == []
    assert subscription.redeliver_count == 0


@pytest.mark.parametrize("start", [0, 2, "new"])
def test_acks_and_nacks_of_what_was_granted_before_change_nothing(start) -> None:
    world, subscription = world_with()
    world.register(b"b")
    world.pull(b"a", 4)
    world.pull(b"b", 4)
    world.seek(start)
    cursor = subscription.cursor
    for member in (b"a", b"b"):
        assert world.ack((0, 10), member=member) == 0
        assert world.nack((0, 10), member=member) == 0
        assert world.extend((0, 10), member=member) == 0
    assert (subscription.cursor, subscription.ranges, subscription.unread) == (
        cursor,
        0,
        10 - cursor,
    )


def test_what_is_granted_afterwards_is_settled_as_ever() -> None:
    world, subscription = world_with()
    world.pull()
    world.seek("earliest")
    assert world.pulled(count=3) == [0, 1, 2]
    assert world.ack((1, 8)) == 2
    assert world.nack((0, 8)) == 1
    assert world.ack((0, 1)) == 1
    assert (subscription.cursor, subscription.next) == (3, 3)


def test_what_was_taken_back_after_a_seek_is_not_acked_by_another() -> None:
    world, subscription = world_with()
    world.register(b"b")
    world.pull(b"b")
    world.seek(0)
    world.pull(b"a")
    world.nack((0, 10), counted=False)
    assert world.ack((0, 10), member=b"b") == 0
    assert subscription.cursor == 0


def test_a_loss_after_a_seek_leaves_nothing_that_an_old_ack_may_settle() -> None:
    world, _ = world_with()
    world.pull()
    world.seek(0)
    grant = world.pull(count=2)
    assert grant is not None
    world.core.lose(b"a", grant, (6, 8), now_ns=world.now, wall_ns=world.wall)
    world.core.check()
    assert world.ack((2, 6)) == 0
    assert world.pulled() == [0, 1, 2, 3, 4, 5, 8, 9]


def test_parked_messages_are_unread_again() -> None:
    world, subscription = world_with(max_deliveries=1)
    world.pull()
    world.nack((0, 10))
    assert subscription.parked_count == 10
    world.seek("earliest")
    assert subscription.parked_count == 0
    assert len(world.pulled()) == 10


def test_seeking_wakes_who_waits() -> None:
    world, _ = world_with()
    world.ack((0, 10))
    token = world.wait()
    _, subscription, wakes = world.core.seek(
        "orders", "billing", 8, now_ns=world.now, wall_ns=world.wall
    )
    assert woken(wakes) == {token: [8, 9]}
    assert subscription.moved_at == world.wall


def test_what_was_to_be_told_as_skipped_is_told_no_more() -> None:
    world, _ = world_with()
    world.reader(b"e", None, start="earliest")
    world.ack((0, 10))
    world.changes()
    world.seek("new", name="~65")
    grant = world.pull(b"e")
    assert grant is not None
    assert (grant.skipped, grant.pieces) == (0, [])


def test_an_ephemeral_subscription_can_be_moved_too() -> None:
    world, _ = world_with()
    subscription = world.reader(b"e", None, start="new")
    assert world.seek(4, name="~65").offset == 4
    assert not world.core.has_changes
    assert world.pulled(b"e") == list(range(4, 10))
    assert subscription.owner_id == b"e"


# --- what is stored and given up ----------------------------------------------------------------


def test_what_was_acknowledged_and_is_not_stored_is_forgotten() -> None:
    world, _ = world_with()
    world.pull()
    world.nack((4, 6))
    world.pull()
    world.ack((0, 3))
    world.seek(1)
    changes = world.changes()
    assert (changes.acknowledged, changes.redelivered, changes.trimmed[0].first_offset) == (
        [],
        [],
        1,
    )


def test_seeking_back_holds_what_is_there_at_once() -> None:
    world, subscription = world_with()
    world.reader(b"b", "audit", start="earliest")
    world.ack((0, 8))
    world.changes()
    world.seek(2)
    world.ack((0, 10), member=b"b")
    assert not world.core.give_up_retained()
    world.commit()
    assert subscription.topic.first_offset == 2
    assert world.pulled() == list(range(2, 10))


def test_seeking_forward_gives_up_what_it_passes_over_when_that_is_stored() -> None:
    world, subscription = world_with()
    world.seek(6)
    assert subscription.topic.first_offset == 0
    assert world.commit() == [1, 2, 3]
    assert subscription.topic.first_offset == 6


def test_there_and_back_in_one_turn_gives_up_nothing() -> None:
    world, subscription = world_with()
    world.seek("new")
    world.seek(0)
    assert world.commit() == []
    assert subscription.unread == 10


# --- looking ------------------------------------------------------------------------------------


def test_peeking_shows_messages_and_changes_nothing() -> None:
    world, subscription = world_with()
    pieces = world.peek(3, 4)
    assert [(p.place, p.batch_first, p.first, p.next, p.deliveries) for p in pieces] == [
        (2, 2, 3, 4, 0),
        (3, 4, 4, 6, 0),
        (4, 6, 6, 7, 0),
    ]
    assert (subscription.ranges, subscription.last_pull) == (0, None)
    assert not world.core.has_changes
    assert world.pulled() == list(range(10))


def test_peeking_goes_to_what_is_kept_and_no_further_than_what_is_visible() -> None:
    world, _ = world_with()
    world.ack((0, 5))
    world.changes()
    world.accept(2)
    assert [(piece.first, piece.next) for piece in world.peek(1)] == [(5, 6), (6, 8), (8, 10)]
    assert world.peek("earliest")[0].first == 5
    assert world.peek("new") == []
    assert world.peek(10) == []
    with pytest.raises(OffsetOutOfRange):
        world.peek(11)
    with pytest.raises(TopicNotFound):
        world.peek(0, topic="nothing")
