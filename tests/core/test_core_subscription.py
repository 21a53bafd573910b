"""One subscription: granting, acknowledging, giving back, and its bound on ranges."""

import pytest
from core_world import World, offsets, woken

from mbctl.core.subscription import Subscription
from mbctl.errors import LimitExceeded, NotSubscribed, OffsetOutOfRange, TopicNotFound
from mbctl.model import NS_PER_S, Limits


def world_with(count: int = 10, *, ranges: int = 10_000, **reader) -> tuple[World, Subscription]:
    """A topic with one batch, and one who reads it."""
    world = World(Limits(subscription_ranges=ranges))
    world.topic()
    subscription = world.reader(**reader)
    world.send(count)
    return world, subscription


# --- granting ---------------------------------------------------------------------------------


def test_messages_are_granted_in_order_and_only_once() -> None:
    world, _ = world_with(10)
    world.send(3)
    assert world.pulled(count=4) == [0, 1, 2, 3]
    assert world.pulled(count=7) == [4, 5, 6, 7, 8, 9, 10]
    assert world.pulled() == [11, 12]
    assert world.pulled() == []


def test_what_is_not_durable_is_not_granted() -> None:
    world, _ = world_with(2)
    world.accept(3)
    assert world.pulled() == [0, 1]
    world.reveal()
    assert world.pulled() == [2, 3, 4]


def test_processes_that_share_a_name_share_the_work() -> None:
    world, subscription = world_with(10)
    world.register(b"b")
    assert world.subscribe(b"b").created is False
    assert world.pulled(b"a", 3) == [0, 1, 2]
    assert world.pulled(b"b", 3) == [3, 4, 5]
    assert world.pulled(b"a", 3) == [6, 7, 8]
    assert subscription.leases.leased_count == 9


def test_every_subscriber_gets_every_message() -> None:
    world, _ = world_with(5)
    world.reader(b"b", "audit", start="earliest")
    world.reader(b"c", None, start="earliest")
    for member in (b"a", b"b", b"c"):
        assert world.pulled(member) == [0, 1, 2, 3, 4]


def test_pulled_messages_tell_how_often_they_were_delivered() -> None:
    world, _ = world_with(4)
    world.pull(count=2)
    world.nack((0, 1))
    grant = world.pull()
    assert [(piece.first, piece.next, piece.deliveries) for piece in grant.pieces] == [
        (0, 1, 2),
        (2, 4, 1),
    ]


# --- leases and their deadlines ---------------------------------------------------------------


def test_a_lease_expires_at_its_deadline() -> None:
    world, subscription = world_with(3, ack_wait=10.0)
    world.pull()
    world.advance(9.999)
    assert world.pulled() == []
    assert subscription.redeliver_count == 0
    world.advance(0.001)
    assert subscription.redeliver_count == 3
    assert world.pull().pieces[0].deliveries == 2


def test_extending_begins_the_wait_anew() -> None:
    world, _ = world_with(4, ack_wait=10.0)
    world.pull()
    world.advance(9)
    assert world.extend((1, 3)) == 2
    world.advance(9)
    assert world.pulled() == [0, 3]
    world.advance(1)
    assert world.pulled() == [1, 2]


def test_what_expired_cannot_be_extended() -> None:
    world, _ = world_with(3, ack_wait=10.0)
    world.pull()
    world.advance(10)
    assert world.extend((0, 3)) == 0


def test_subscribing_again_applies_a_new_wait_to_later_pulls() -> None:
    world, _ = world_with(3, ack_wait=10.0)
    world.pull(count=1)
    assert world.subscribe(ack_wait=100.0).created is False
    world.pull(count=1)
    world.advance(50)
    assert world.pulled() == [0, 2]


def test_subscribing_again_keeps_the_place() -> None:
    world, _ = world_with(5)
    world.ack((0, 2))
    again = world.subscribe(start="new")
    assert (again.offset, again.created, again.skipped) == (2, False, 0)


# --- acknowledging ----------------------------------------------------------------------------


def test_the_cursor_moves_over_what_is_acknowledged() -> None:
    world, subscription = world_with(10)
    world.pull()
    assert world.ack((2, 4)) == 2
    assert (subscription.cursor, subscription.unread) == (0, 8)
    assert world.ack((0, 2)) == 2
    assert (subscription.cursor, subscription.unread, subscription.ranges) == (4, 6, 1)
    assert world.ack((4, 10)) == 6
    assert (subscription.cursor, subscription.unread, subscription.ranges) == (10, 0, 0)


def test_acknowledging_twice_counts_once() -> None:
    world, _ = world_with(4)
    world.pull()
    assert world.ack((0, 2), (1, 3)) == 3
    assert world.ack((0, 4)) == 1
    assert world.ack((0, 4)) == 0


def test_what_is_acknowledged_is_never_granted_again() -> None:
    world, _ = world_with(6)
    world.pull()
    world.ack((1, 2), (4, 5))
    world.close(b"a")
    world.register(b"b")
    assert world.pulled(b"b") == [0, 2, 3, 5]


def test_a_late_ack_counts_while_nobody_else_was_granted_the_message() -> None:
    world, _ = world_with(3, ack_wait=10.0)
    world.register(b"b")
    world.pull(b"a")
    world.advance(10)
    assert world.ack((0, 1)) == 1
    assert world.pulled(b"b", 1) == [1]
    assert world.ack((1, 3)) == 1
    assert world.ack((1, 2), member=b"b") == 1


def test_an_ack_by_one_who_was_not_granted_the_message_changes_nothing() -> None:
    world, subscription = world_with(3)
    world.register(b"b")
    world.pull(b"a")
    assert world.ack((0, 3), member=b"b") == 0
    world.nack((0, 3), member=b"a")
    assert world.ack((0, 3), member=b"b") == 0
    assert subscription.cursor == 0


def test_an_ack_counts_after_a_reconnect() -> None:
    world, _ = world_with(3)
    world.pull()
    world.close(b"a")
    world.register(b"a")
    assert world.ack((0, 3)) == 3


def test_what_was_never_granted_can_be_acknowledged() -> None:
    world, subscription = world_with(6)
    assert world.ack((2, 4)) == 2
    assert subscription.cursor == 0
    grant = world.pull()
    assert offsets(grant) == [0, 1, 4, 5]
    assert {piece.deliveries for piece in grant.pieces} == {1}


@pytest.mark.parametrize("ranges", [[(0, 5)], [(2, 2)], [(3, 2)], [(-1, 2)], [(0, 1), (9, 10)]])
def test_ranges_that_cannot_be_are_refused_and_change_nothing(ranges) -> None:
    world, subscription = world_with(4)
    world.pull()
    for settle in (world.ack, world.nack, world.extend):
        with pytest.raises(OffsetOutOfRange):
            settle(*ranges)
    assert subscription.leases.leased_count == 4


def test_settling_is_of_one_topic_and_one_subscription() -> None:
    world, _ = world_with(4)
    old_id = world.core.topics.named("orders").topic_id
    member = world.core.member(b"a")
    world.core.unsubscribe("orders", "billing")
    with pytest.raises(NotSubscribed):
        world.ack((0, 1))
    world.core.delete_topic("orders")
    with pytest.raises(TopicNotFound):
        world.core.ack(member, "orders", old_id, [(0, 1)], now_ns=world.now, wall_ns=0)
    world.topic()
    world.subscribe()
    world.send(4)
    with pytest.raises(TopicNotFound):
        world.core.ack(member, "orders", old_id, [(0, 1)], now_ns=world.now, wall_ns=0)
    with pytest.raises(TopicNotFound):
        world.core.nack(member, "orders", old_id, [(0, 1)], now_ns=world.now)
    with pytest.raises(TopicNotFound):
        world.core.extend(member, "orders", old_id, [(0, 1)], world.now)


def test_only_what_was_acknowledged_since_is_taken_to_be_made_durable() -> None:
    world, subscription = world_with(9)

    def taken() -> list[object]:
        acknowledged = world.core.take_changes().acknowledged
        assert all(of is subscription for of, _ in acknowledged)
        return [ranges for _, ranges in acknowledged]

    assert taken() == []
    world.pull()
    assert taken() == []
    world.ack((0, 2))
    world.ack((6, 8))
    world.ack((2, 3))
    assert taken() == [[(0, 3), (6, 8)]]
    world.ack((0, 3))
    assert taken() == []
    world.ack((2, 7))
    assert taken() == [[(3, 6)]]


def test_what_an_ephemeral_subscription_acknowledged_is_never_made_durable() -> None:
    world, _ = world_with(4, name=None)
    world.ack((0, 2))
    assert not world.core.has_changes
    changes = world.core.take_changes()
    assert (changes.acknowledged, changes.trimmed) == ([], [])


# --- giving back ------------------------------------------------------------------------------


def test_what_is_given_back_is_granted_again_first() -> None:
    world, _ = world_with(6)
    world.pull(count=4)
    assert world.nack((1, 3)) == 2
    assert world.pulled() == [1, 2, 4, 5]


def test_what_is_given_back_with_a_delay_is_granted_after_it() -> None:
    world, subscription = world_with(3)
    world.pull()
    assert world.nack((0, 3), delay_s=5) == 3
    assert subscription.redeliver_count == 3
    world.advance(4.999)
    assert world.pulled() == []
    world.advance(0.001)
    assert world.pulled() == [0, 1, 2]


def test_what_is_given_back_uncounted_was_never_delivered() -> None:
    world, _ = world_with(3)
    world.pull()
    world.nack((1, 3), counted=False)
    assert world.pull().pieces[0].deliveries == 1


def test_only_what_one_has_leased_can_be_given_back() -> None:
    world, _ = world_with(4)
    world.register(b"b")
    world.pull(b"a", 2)
    world.pull(b"b", 2)
    assert world.nack((0, 4), member=b"a") == 2
    assert world.nack((0, 4), member=b"a") == 0
    assert world.extend((0, 4), member=b"b") == 2


def test_delayed_messages_can_be_acknowledged() -> None:
    world, subscription = world_with(3)
    world.pull()
    world.nack((0, 3), delay_s=5)
    assert world.ack((0, 3)) == 3
    assert subscription.ranges == 0
    assert world.advance(10) == []


def test_taking_back_undoes_a_grant_from_somewhere_on() -> None:
    world, _ = world_with(4)
    world.send(4)
    grant = world.pull()
    world.core.take_back(b"a", grant, [(2, 4), (4, 8)], world.now)
    world.core.check()
    again = world.pull()
    assert offsets(again) == [2, 3, 4, 5, 6, 7]
    assert {piece.deliveries for piece in again.pieces} == {1}
    assert world.ack((0, 2)) == 2


def test_what_is_taken_back_goes_to_the_next_pull_that_waits() -> None:
    world, _ = world_with(4)
    world.register(b"b")
    grant = world.pull(b"a")
    token = world.wait(b"b")
    wakes = world.core.take_back(b"a", grant, [(1, 4)], world.now)
    assert woken(wakes) == {token: [1, 2, 3]}


@pytest.mark.parametrize("ended", ["member", "subscription", "topic", "acknowledged"])
def test_taking_back_passes_over_what_has_ended(ended) -> None:
    world, subscription = world_with(4)
    grant = world.pull()
    match ended:
        case "member":
            world.close(b"a")
        case "subscription":
            world.core.unsubscribe("orders", "billing")
        case "topic":
            world.core.delete_topic("orders")
        case _:
            world.ack((0, 4))
    assert world.core.take_back(b"a", grant, [(1, 4)], world.now) == []
    world.core.check()
    assert subscription.leases.leased_count == 0


# --- the bound on ranges ----------------------------------------------------------------------


def scattered(ranges: int = 12, *, name: str | None = "billing") -> tuple[World, Subscription]:
    """A subscription at the bound for new messages: 9 of its 12 ranges are in use."""
    world, subscription = world_with(20, ranges=ranges, name=name)
    for offset in range(9):
        world.pull(count=1)
        if offset % 2:
            world.ack((offset, offset + 1))
    assert subscription.ranges == 9
    return world, subscription


def test_at_the_bound_nothing_new_is_granted() -> None:
    world, subscription = scattered()
    assert subscription.unread == 16
    assert world.pulled() == []


def test_at_the_bound_what_was_given_back_is_granted_again() -> None:
    world, _ = scattered()
    world.nack((0, 9))
    assert world.pulled() == [0, 2, 4, 6, 8]


def test_an_ack_at_the_bound_wakes_a_pull_that_waits_for_new_messages() -> None:
    world, _ = scattered()
    world.register(b"b")
    token = world.wait(b"b", 3)
    count, wakes = world.ack_wakes([(0, 1)])
    assert count == 1
    assert woken(wakes) == {token: [9, 10, 11]}


def test_one_lease_more_than_the_bound_is_not_cut_by_an_ack() -> None:
    world, subscription = world_with(40, ranges=12)
    world.pull()
    for offset in (1, 3, 5, 7):
        world.ack((offset, offset + 1))
    assert subscription.ranges == 9
    for settle in (world.ack, world.nack, world.extend):
        with pytest.raises(LimitExceeded) as refusal:
            settle((20, 21))
        assert refusal.value.limit == 12
    assert subscription.ranges == 9
    assert subscription.leases.leased_count == 36


def test_at_the_bound_what_needs_no_more_ranges_is_accepted() -> None:
    world, subscription = world_with(40, ranges=12)
    world.pull()
    for offset in (1, 3, 5, 7):
        world.ack((offset, offset + 1))
    assert world.extend((8, 40)) == 32
    assert world.ack((8, 9)) == 1
    assert world.ack((9, 20)) == 11
    assert world.ack((0, 1)) == 1
    assert subscription.cursor == 2
    assert world.nack((20, 40)) == 20
    assert world.ack((2, 40)) == 23
    assert subscription.ranges == 0


def test_repeating_a_range_does_not_buy_room_for_others() -> None:
    world, subscription = world_with(40, ranges=12)
    world.pull()
    for offset in (1, 3, 5, 7):
        world.ack((offset, offset + 1))
    with pytest.raises(LimitExceeded):
        world.ack(*[(2, 3)] * 20, (20, 21), (22, 23), (24, 25))
    assert subscription.ranges == 9


def test_an_ack_far_ahead_counts_the_gap_that_it_leaves() -> None:
    world, subscription = world_with(40, ranges=12)
    for offset in range(1, 9, 2):
        world.ack((offset, offset + 1))
    assert subscription.ranges == 8
    with pytest.raises(LimitExceeded):
        world.ack((20, 21))
    assert subscription.next == 8
    assert world.ack((8, 20)) == 12


def test_a_full_subscription_gets_on_however_small_the_pulls_become() -> None:
    world, subscription = world_with(200, ranges=12)
    for offset in range(100, 108, 2):
        world.ack((offset, offset + 1))
    world.register(b"b")
    for size in (60, 40, 20, 10, 5, 3, 2, 1):
        world.pull(b"a", size)
        world.close(b"a")
        world.register(b"a")
    assert subscription.ranges >= 11
    for _ in range(300):
        got = world.pulled(b"b", 1)
        world.ack(*[(offset, offset + 1) for offset in got], member=b"b")
    assert subscription.cursor == 200


def test_the_place_for_the_message_at_the_cursor_is_not_used_for_another() -> None:
    world, subscription = world_with(200, ranges=12)
    for offset in range(100, 108, 2):
        world.ack((offset, offset + 1))
    for size in (60, 40, 20, 10, 5, 3, 2, 1):
        world.pull(count=size)
        world.close(b"a")
        world.register(b"a")
    assert world.pulled(count=1) == [0]
    assert subscription.ranges == 12
    other = next(lease for lease in subscription.leases if lease.count >= 3)
    with pytest.raises(LimitExceeded):
        world.ack((0, 1), (other.first + 1, other.next))
    assert world.ack((0, 1), (other.first, other.next)) == 1 + other.count


def test_at_the_bound_what_cannot_be_cut_off_stays_leased() -> None:
    world, subscription = world_with(40, ranges=12)
    world.pull()
    for offset in (1, 3, 5, 7):
        world.ack((offset, offset + 1))
    world.close(b"a")
    world.register(b"a")
    world.register(b"b")
    grants = [world.pull(b"a", count) for count in (1, 1, 1, 1, 10)]
    assert offsets(grants[-1]) == list(range(8, 18))
    world.pull(b"b", 5)
    assert subscription.ranges == 11
    world.core.take_back(b"a", grants[-1], [(10, 18)], world.now)
    world.core.check()
    assert subscription.ranges == 11
    assert world.extend((8, 18)) == 10


# --- ephemeral subscriptions ------------------------------------------------------------------


def test_an_ephemeral_subscription_is_told_how_many_messages_it_missed() -> None:
    world, subscription = world_with(10)
    world.reader(b"look", None, start="earliest")
    assert world.pulled(b"look", 2) == [0, 1]
    world.ack((0, 8))
    world.commit()
    grant = world.pull(b"look")
    assert offsets(grant) == [8, 9]
    assert grant.skipped == 6
    assert world.pull(b"look").skipped == 0
    assert subscription.unread == 2


def test_what_it_missed_is_an_answer_even_without_messages() -> None:
    world, _ = world_with(4)
    world.reader(b"look", None, start="earliest")
    world.ack((0, 4))
    world.commit()
    grant = world.pull(b"look", wait_s=5)
    assert (offsets(grant), grant.skipped) == ([], 4)


def test_messages_given_back_unseen_and_then_reclaimed_count_as_missed() -> None:
    world, _ = world_with(4)
    world.reader(b"look", None, start="earliest")
    world.pull(b"look")
    world.nack((1, 2), member=b"look", counted=False)
    world.nack((2, 3), member=b"look", counted=False, delay_s=60)
    world.ack((0, 4))
    world.commit()
    assert world.pull(b"look").skipped == 2


def test_acks_of_what_is_reclaimed_change_nothing() -> None:
    world, _ = world_with(6)
    look = world.reader(b"look", None, start="earliest")
    world.pull(b"look")
    world.ack((0, 4))
    world.commit()
    assert world.ack((0, 5), member=b"look") == 1
    assert (look.cursor, look.unread) == (5, 1)


def test_moments_are_noted() -> None:
    world, subscription = world_with(3)
    begun = world.wall
    assert (subscription.created, subscription.moved_at, subscription.last_pull) == (
        begun,
        begun,
        None,
    )
    world.wall += NS_PER_S
    world.pull()
    world.wall += NS_PER_S
    world.ack((1, 2))
    assert subscription.last_pull == begun + NS_PER_S
    assert subscription.moved_at == begun
    world.ack((0, 1))
    assert subscription.moved_at == begun + 2 * NS_PER_S
