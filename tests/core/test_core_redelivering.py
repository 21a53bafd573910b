"""Messages delivered as often as they may be: granted alone, moved, parked, decided about."""

from typing import Any

import pytest
from core_world import World, woken

from mbctl.core.grant import Grant
from mbctl.core.leases import READY
from mbctl.core.subscription import Subscription
from mbctl.errors import (
    InvalidArgument,
    InvalidName,
    LimitExceeded,
    SubscriptionNotFound,
    TopicFull,
    TopicNotFound,
)
from mbctl.model import DELIVERIES_MAX, Limits, Range, SubscribeOptions


def world_with(
    count: int = 6, *, limits: Limits | None = None, dead: dict[str, Any] | None = None, **options
) -> tuple[World, Subscription]:
    """A topic with batches of two messages, one who reads it, and a topic for dead letters."""
    world = World(limits)
    world.topic()
    world.topic("dead", **(dead or {}))
    subscription = world.reader(**options)
    for _ in range(count // 2):
        world.send(2)
    world.changes()
    return world, subscription


def deliveries(grant: Grant | None) -> list[tuple[int, int, int]]:
    assert grant is not None
    return [(piece.first, piece.next, piece.deliveries) for piece in grant.pieces]


def pieces_of(exhausted) -> list[tuple[int, int, int, int]]:
    """Place, first, next and deliveries of each piece."""
    pieces = [one.piece for one in exhausted]
    return [(piece.place, piece.first, piece.next, piece.deliveries) for piece in pieces]


def stored_counts(world: World) -> list[tuple[str, list[tuple[int, int, int, bool]]]]:
    return [(of.subscriber, counts) for of, counts in world.changes().redelivered]


# --- options ----------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [0, -1, DELIVERIES_MAX + 1])
def test_a_maximum_of_deliveries_that_makes_no_sense_is_refused(most) -> None:
    world, _ = world_with()
    with pytest.raises(InvalidArgument):
        world.subscribe(max_deliveries=most)


def test_a_dead_letter_topic_is_another_one_that_exists() -> None:
    world, subscription = world_with()
    with pytest.raises(TopicNotFound) as refusal:
        world.subscribe(max_deliveries=3, dead_letter="nowhere")
    assert refusal.value.topic == "nowhere"
    with pytest.raises(InvalidArgument):
        world.subscribe(max_deliveries=3, dead_letter="orders")
    with pytest.raises(InvalidArgument):
        world.subscribe(dead_letter="dead")
    with pytest.raises(InvalidName):
        world.subscribe(max_deliveries=3, dead_letter="-")
    assert (subscription.max_deliveries, subscription.dead_letter) == (None, None)


def test_a_refused_option_creates_no_subscription() -> None:
    world = World()
    topic = world.topic()
    world.register(b"a")
    with pytest.raises(TopicNotFound):
        world.subscribe(max_deliveries=3, dead_letter="dead")
    assert not topic.subscriptions


def test_subscribing_again_is_to_be_stored_if_it_changes_an_option() -> None:
    world, subscription = world_with()
    member = world.core.member(b"a")

    def changed(**options: Any) -> Subscription | None:
        asked = SubscribeOptions(**options)
        return world.core.subscribe(member, "orders", asked, wall_ns=0)[1]

    assert changed() is None
    assert changed(max_deliveries=3) is subscription
    assert changed(max_deliveries=3) is None
    assert changed(max_deliveries=3, dead_letter="dead") is subscription
    assert (subscription.max_deliveries, subscription.dead_letter) == (3, "dead")
    assert changed() is subscription
    assert (subscription.max_deliveries, subscription.dead_letter) == (None, None)


# --- granting alone ---------------------------------------------------------------------------


def test_with_a_maximum_what_was_delivered_before_is_granted_alone() -> None:
    world, _ = world_with(max_deliveries=5)
    world.pull(count=4)
    world.nack((0, 4))
    assert deliveries(world.pull()) == [(0, 1, 2)]
    assert deliveries(world.pull()) == [(1, 2, 2)]
    world.nack((0, 1))
    assert deliveries(world.pull()) == [(0, 1, 3)]
    assert deliveries(world.pull()) == [(2, 3, 2)]
    assert deliveries(world.pull()) == [(3, 4, 2)]
    assert deliveries(world.pull()) == [(4, 6, 1)]


def test_without_a_maximum_all_is_granted_together() -> None:
    world, _ = world_with()
    world.pull(count=4)
    world.nack((0, 4))
    assert deliveries(world.pull()) == [(0, 2, 2), (2, 4, 2), (4, 6, 1)]


def test_what_was_not_delivered_is_granted_without_what_was() -> None:
    world, _ = world_with(max_deliveries=5)
    world.pull(count=4)
    world.nack((0, 2), counted=False)
    world.nack((2, 4))
    assert deliveries(world.pull()) == [(0, 2, 1)]
    assert deliveries(world.pull()) == [(2, 3, 2)]


def test_waiting_pulls_get_one_suspect_each() -> None:
    world, _ = world_with(4, max_deliveries=5)
    world.pull()
    world.register(b"b")
    first, second = world.wait(b"a"), world.wait(b"b")
    _, wakes = world.nack_wakes([(0, 2)])
    assert woken(wakes) == {first: [0], second: [1]}


def test_a_poison_message_does_not_count_against_its_neighbours() -> None:
    world, subscription = world_with(6, max_deliveries=3, dead_letter="dead")
    read = []
    for round in range(40):
        member = b"m%d" % round
        world.register(member)
        got = world.pulled(member)
        if 2 not in got:
            read += got
            for offset in got:
                world.ack((offset, offset + 1), member=member)
        world.close(member)
        for one in world.exhausted():
            world.dead_letter(one)
    assert read == [0, 1, 3, 4, 5]
    assert [piece.next - piece.first for piece in world.peek("earliest", topic="dead")] == [1]
    assert subscription.unread == 0


# --- the maximum ------------------------------------------------------------------------------


def nacked(world: World) -> None:
    world.nack((0, 1))


def nacked_with_delay(world: World) -> None:
    world.nack((0, 1), delay_s=1_000)


def expired(world: World) -> None:
    world.advance(31)


def gone(world: World) -> None:
    world.close(b"a")


@pytest.mark.parametrize("end", [nacked, nacked_with_delay, expired, gone])
def test_at_the_maximum_a_message_is_to_be_moved_whatever_ends_its_lease(end) -> None:
    world, subscription = world_with(2, max_deliveries=2, dead_letter="dead")
    world.pull(count=1)
    end(world)
    if end is nacked_with_delay:
        assert not world.core.has_exhausted
        world.advance(1_000)
    assert not world.core.has_exhausted
    if end is gone:
        world.register(b"a")
    assert deliveries(world.pull()) == [(0, 1, 2)]
    end(world)
    assert world.core.has_exhausted
    [one] = world.exhausted()
    assert one.subscription is subscription
    assert pieces_of([one]) == [(1, 0, 1, 2)]
    assert not world.core.has_exhausted
    assert world.exhausted() == []
    if end is gone:
        world.register(b"a")
    assert world.pulled() == [1]


def test_what_is_given_back_uncounted_or_had_no_room_is_never_at_the_maximum() -> None:
    world, subscription = world_with(4, max_deliveries=1, dead_letter="dead")
    grant = world.pull()
    assert grant is not None
    world.nack((0, 1), counted=False)
    world.core.take_back(b"a", grant, [(2, 4)], world.now)
    world.core.check()
    assert not world.core.has_exhausted
    assert [lease.state for lease in subscription.leases] == [READY, "leased", READY]
    assert deliveries(world.pull()) == [(0, 1, 1), (2, 4, 1)]


def test_a_lease_of_several_messages_is_exhausted_as_a_whole_and_taken_by_batches() -> None:
    world, _ = world_with(6, max_deliveries=1, dead_letter="dead")
    world.pull(count=5)
    world.close(b"a")
    assert pieces_of(world.exhausted()) == [(1, 0, 2, 1), (2, 2, 4, 1), (3, 4, 5, 1)]


def test_no_more_pieces_are_taken_than_asked_for() -> None:
    world, _ = world_with(8, max_deliveries=1, dead_letter="dead")
    for _ in range(2):
        world.pull(count=4)
    world.close(b"a")
    assert pieces_of(world.exhausted(1)) == [(1, 0, 2, 1)]
    assert pieces_of(world.exhausted(2)) == [(2, 2, 4, 1), (3, 4, 6, 1)]
    assert world.core.has_exhausted
    assert pieces_of(world.exhausted(2)) == [(4, 6, 8, 1)]
    assert not world.core.has_exhausted


def test_without_a_dead_letter_topic_a_message_is_parked_at_once() -> None:
    world, subscription = world_with(4, max_deliveries=1)
    world.pull(count=3)
    world.nack((1, 3))
    assert not world.core.has_exhausted
    assert (subscription.parked_count, subscription.parked_ranges()) == (2, [(1, 3)])
    assert subscription.redeliver_count == 0
    assert subscription.unread == 4
    assert world.pulled() == [3]


def test_a_lower_maximum_holds_for_what_waits_to_be_granted_again() -> None:
    world, subscription = world_with(4, max_deliveries=9, dead_letter="dead")
    world.pull(count=2)
    world.nack((0, 2))
    world.pull()
    world.nack((0, 1))
    assert [lease.deliveries for lease in subscription.leases] == [2, 1]
    world.subscribe(max_deliveries=2, dead_letter="dead")
    assert pieces_of(world.exhausted()) == [(1, 0, 1, 2)]
    assert world.pulled() == [1]


def test_a_higher_maximum_lets_what_was_to_be_moved_be_granted_but_not_what_is_parked() -> None:
    world, subscription = world_with(4, max_deliveries=1, dead_letter="dead")
    world.pull(count=2)
    world.nack((0, 2))
    [one] = world.exhausted()
    world.core.park(one)
    world.pull()
    world.nack((2, 4))
    [one] = world.exhausted()
    world.wait()
    world.subscribe(max_deliveries=2, dead_letter="dead")
    assert subscription.parked_ranges() == [(0, 2)]
    assert woken(world.advance(0)) == {world.tokens: [2]}
    assert world.dead_letter(one) is None


def test_without_a_dead_letter_topic_any_more_what_was_to_be_moved_is_parked() -> None:
    world, subscription = world_with(2, max_deliveries=1, dead_letter="dead")
    world.pull()
    world.nack((0, 2))
    world.subscribe(max_deliveries=1)
    assert not world.core.has_exhausted
    assert subscription.parked_ranges() == [(0, 2)]


# --- moving -----------------------------------------------------------------------------------


def exhausted_world(count: int = 4, **options: Any) -> tuple[World, Subscription]:
    """All messages were delivered as often as they may be."""
    world, subscription = world_with(count, max_deliveries=1, dead_letter="dead", **options)
    world.pull()
    world.nack((0, count))
    world.changes()
    return world, subscription


def test_a_dead_letter_is_a_batch_there_and_an_ack_here() -> None:
    world, subscription = exhausted_world(4)
    first, second = world.exhausted()
    dead = world.core.topics.named("dead")
    stored = world.dead_letter(second, size=70)
    assert stored is not None
    assert (stored.topic_id, stored.first, stored.acknowledged) == (dead.topic_id, 0, [(2, 4)])
    assert stored.timestamp == world.wall
    assert (dead.messages, dead.index.size, dead.visible_next) == (2, 70, 2)
    assert (subscription.cursor, list(subscription.acknowledged)) == (0, [(2, 4)])
    assert world.dead_letter(first) is not None
    assert (subscription.cursor, subscription.unread, subscription.ranges) == (4, 0, 0)


def test_a_dead_letter_is_not_stored_as_an_ack_again_but_its_space_is_reclaimed() -> None:
    world, _ = exhausted_world(4)
    for one in world.exhausted():
        world.dead_letter(one)
    assert world.core.has_changes
    changes = world.changes()
    assert (changes.acknowledged, changes.redelivered) == ([], [])
    [trimmed] = changes.trimmed
    assert (trimmed.first_offset, list(trimmed.places), trimmed.reason) == (4, [1, 2], "read")


def test_a_dead_letter_is_not_visible_until_it_is_durable() -> None:
    world, _ = exhausted_world(2)
    [one] = world.exhausted()
    world.reader(b"d", "mortuary", topic="dead")
    token = world.wait(b"d", topic="dead")
    stored = world.core.dead_letter(one, count=2, size=20, now_ns=world.now, wall_ns=world.wall)
    assert stored is not None
    world.core.set_place(stored.topic_id, 99)
    world.core.check()
    assert world.core.topics.named("dead").visible_next == 0
    wakes = world.core.reveal(stored.topic_id, 2, world.now)
    assert woken(wakes) == {token: [0, 1]}


def test_an_ephemeral_subscription_has_dead_letters_too_and_stores_nothing() -> None:
    world, subscription = world_with(0)
    world.reader(b"e", None, max_deliveries=1, dead_letter="dead")
    world.send(2)
    world.pull(b"e")
    world.nack((0, 2), member=b"e")
    world.changes()
    [one] = world.exhausted()
    assert not one.subscription.durable
    assert world.dead_letter(one) is not None
    assert one.subscription.unread == 0
    assert subscription.unread == 2
    changes = world.changes()
    assert (changes.acknowledged, changes.redelivered) == ([], [])


@pytest.mark.parametrize("what", ["acked", "lost", "seek", "purge", "unsubscribed", "deleted"])
def test_what_has_become_of_a_piece_meanwhile_makes_it_void(what) -> None:
    world, _ = exhausted_world(2)
    [one] = world.exhausted()
    match what:
        case "acked":
            assert world.ack((0, 2)) == 2
        case "lost":
            grant = Grant("orders", one.subscription.topic.topic_id, "billing", 0, [])
            world.core.lose(b"a", grant, (0, 2), now_ns=world.now, wall_ns=world.wall)
        case "seek":
            world.seek("earliest")
        case "purge":
            assert world.purge() == 2
        case "unsubscribed":
            world.core.unsubscribe("orders", "billing")
            world.subscribe(start="earliest", max_deliveries=1, dead_letter="dead")
        case "deleted":
            world.core.delete_topic("orders")
            world.topic()
    assert world.dead_letter(one) is None
    world.park(one)
    assert world.core.topics.named("dead").messages == 0
    assert not world.exhausted()
    if what != "deleted":
        assert world.core.subscription("orders", "billing").parked_count == 0


def test_what_is_left_of_a_piece_that_was_acked_in_part_is_taken_anew() -> None:
    world, subscription = exhausted_world(2)
    [one] = world.exhausted()
    world.ack((0, 1))
    assert world.dead_letter(one) is None
    [again] = world.exhausted()
    assert pieces_of([again]) == [(1, 1, 2, 1)]
    assert world.dead_letter(again) is not None
    assert subscription.unread == 0


def test_a_dead_letter_topic_that_is_gone_or_full_refuses_and_nothing_changes() -> None:
    world, subscription = exhausted_world(4, dead={"max_messages": 2})
    first, second = world.exhausted()
    assert world.dead_letter(first) is not None
    with pytest.raises(TopicFull):
        world.dead_letter(second)
    assert subscription.cursor == 2
    world.core.delete_topic("dead")
    with pytest.raises(TopicNotFound):
        world.dead_letter(second)
    world.park(second)
    assert subscription.parked_ranges() == [(2, 4)]


def test_a_dead_letter_topic_may_drop_its_oldest() -> None:
    world, _ = exhausted_world(4, dead={"max_messages": 2, "when_full": "drop_oldest"})
    for one in world.exhausted():
        assert world.dead_letter(one) is not None
    dead = world.core.topics.named("dead")
    assert (dead.first_offset, dead.next_offset) == (2, 4)


def test_moving_makes_room_for_a_pull_that_waits_at_the_bound() -> None:
    limits = Limits(subscription_ranges=8)
    world, subscription = world_with(
        40, limits=limits, max_deliveries=1, dead_letter="dead", ack_wait=3_600.0
    )
    for _ in range(6):
        world.pull(count=1)
    assert subscription.at_limit
    world.nack((0, 1))
    token = world.wait()
    [one] = world.exhausted()
    assert world.core.next_deadline_ns() != 0
    world.dead_letter(one)
    assert not subscription.at_limit
    assert len(woken(world.advance(0))[token]) == 34


def test_at_the_bound_a_part_of_a_lease_is_not_moved_and_the_lease_is_parked_as_a_whole() -> None:
    world, subscription = world_with(
        40, limits=Limits(subscription_ranges=8), max_deliveries=1, dead_letter="dead"
    )
    world.ack((3, 4), (5, 6))
    world.pull(count=30)
    assert subscription.ranges == 5
    world.nack((0, 3), (6, 32))
    world.ack((4, 5))
    world.pull(count=4)
    pieces = world.exhausted()
    assert len(pieces) == 15
    world.subscribe(max_deliveries=2, dead_letter="dead")
    while subscription.ranges < 7:
        world.pull(count=1)
    world.subscribe(max_deliveries=1, dead_letter="dead")
    [middle] = [one for one in world.exhausted() if one.piece.first == 10]
    with pytest.raises(LimitExceeded):
        world.dead_letter(middle)
    world.park(middle)
    assert (10, 12) not in subscription.parked_ranges()
    assert any(first < 10 and next > 12 for first, next in subscription.parked_ranges())


# --- parked -----------------------------------------------------------------------------------


def parked_world(count: int = 6, parked: Range = (0, 4)) -> tuple[World, Subscription]:
    world, subscription = world_with(count, max_deliveries=2)
    world.pull()
    first, next = parked
    for offset in range(first, next):
        world.nack((offset, offset + 1))
        assert world.pulled() == [offset]
        world.nack((offset, offset + 1))
    world.changes()
    assert subscription.parked_ranges() == [parked]
    return world, subscription


def test_what_is_parked_stays_whatever_happens() -> None:
    world, subscription = parked_world()
    world.advance(10_000)
    world.close(b"a")
    world.register(b"a")
    world.subscribe(max_deliveries=100)
    assert world.pulled() == [4]
    assert subscription.parked_count == 4
    world.ack((4, 5))
    world.changes()
    assert subscription.topic.first_offset == 0


def test_what_is_parked_may_be_acknowledged_late() -> None:
    world, subscription = parked_world()
    assert world.ack((1, 3)) == 2
    assert subscription.parked_ranges() == [(0, 1), (3, 4)]
    world.register(b"b")
    assert world.ack((0, 1), member=b"b") == 0


def test_what_is_released_is_granted_as_if_it_never_had_been() -> None:
    world, subscription = parked_world()
    assert world.release((1, 2), (3, 9)) == 2
    assert subscription.parked_ranges() == [(0, 1), (2, 3)]
    assert deliveries(world.pull()) == [(1, 2, 1), (3, 4, 1)]
    assert world.release() == 2
    assert deliveries(world.pull()) == [(0, 1, 1), (2, 3, 1)]
    assert world.release() == 0


def test_what_is_released_wakes_who_waits() -> None:
    world, _ = parked_world()
    token = world.wait()
    _, wakes = world.core.release_parked("orders", "billing", None, now_ns=world.now)
    assert woken(wakes) == {token: [0, 1, 2, 3]}


def test_what_is_dropped_counts_as_acknowledged() -> None:
    world, subscription = parked_world()
    assert world.drop((0, 2)) == 2
    assert (subscription.cursor, subscription.moved_at) == (2, world.wall)
    [(_, ranges)] = world.changes().acknowledged
    assert ranges == [(0, 2)]
    assert world.drop() == 2
    assert (subscription.cursor, subscription.parked_count) == (4, 0)
    assert world.drop() == 0


def test_a_part_of_a_parked_lease_can_be_decided_about() -> None:
    world, subscription = world_with(10, max_deliveries=1)
    world.pull()
    world.nack((0, 10))
    assert world.drop((2, 4), (8, 20)) == 4
    assert world.release((5, 6)) == 1
    assert subscription.parked_ranges() == [(0, 2), (4, 5), (6, 8)]


def test_deciding_about_parts_keeps_to_the_bound_on_ranges() -> None:
    world, subscription = world_with(40, limits=Limits(subscription_ranges=8), max_deliveries=1)
    world.pull()
    world.nack((0, 40))
    with pytest.raises(LimitExceeded):
        world.drop(*[(offset, offset + 1) for offset in range(1, 9, 2)])
    assert subscription.parked_ranges() == [(0, 40)]
    assert world.drop((1, 2), (3, 4)) == 2


def test_nobody_is_told_of_a_subscription_that_does_not_exist() -> None:
    world, _ = parked_world()
    for verb in (world.release, world.drop):
        with pytest.raises(SubscriptionNotFound):
            verb(name="nobody")
        with pytest.raises(TopicNotFound):
            verb(topic="nothing")


def test_what_is_parked_and_given_up_is_parked_no_more() -> None:
    world, subscription = parked_world()
    world.purge()
    world.subscribe()
    assert (subscription.parked_count, subscription.ranges) == (0, 0)


# --- counts across a restart ------------------------------------------------------------------


def test_second_and_later_deliveries_are_to_be_stored() -> None:
    world, subscription = world_with(6)
    world.pull()
    assert not world.core.has_changes
    world.nack((1, 4))
    assert not world.core.has_changes
    world.pull()
    assert world.core.has_changes
    assert stored_counts(world) == [("billing", [(1, 4, 2, False)])]
    assert not world.core.has_changes
    world.nack((2, 6))
    world.pull()
    assert stored_counts(world) == [("billing", [(2, 4, 3, False), (4, 6, 2, False)])]
    assert subscription.counts() == [(1, 2, 2, False), (2, 4, 3, False), (4, 6, 2, False)]


def test_a_count_that_is_taken_back_is_to_be_forgotten() -> None:
    world, subscription = world_with(2)
    world.pull()
    world.nack((0, 2))
    world.pull()
    world.changes()
    world.nack((0, 1), counted=False)
    assert stored_counts(world) == [("billing", [(0, 1, 1, False)])]
    assert subscription.counts() == [(1, 2, 2, False)]


def test_counts_of_what_was_acknowledged_or_given_up_are_not_stored() -> None:
    world, subscription = world_with(6)
    world.pull()
    world.nack((0, 6))
    world.pull()
    world.ack((2, 3))
    assert stored_counts(world) == [("billing", [(0, 2, 2, False), (3, 6, 2, False)])]
    world.nack((0, 6))
    world.pull()
    world.purge()
    assert stored_counts(world) == []
    world.subscribe()
    assert subscription.counts() == []


def test_being_parked_and_being_released_is_to_be_stored() -> None:
    world, _ = world_with(2, max_deliveries=1)
    world.pull()
    world.nack((0, 2))
    assert stored_counts(world) == [("billing", [(0, 2, 1, True)])]
    world.release((0, 1))
    assert stored_counts(world) == [("billing", [(0, 1, 0, False)])]


def test_counts_of_an_ephemeral_subscription_are_not_stored() -> None:
    world, _ = world_with(0)
    world.reader(b"e", None, max_deliveries=2)
    world.send(2)
    for _ in range(2):
        world.pull(b"e")
        world.nack((0, 1), member=b"e")
    assert not world.core.has_changes
    assert world.core.subscription("orders", "~65").parked_count == 1


def test_a_subscription_that_ends_has_nothing_to_be_moved_or_stored() -> None:
    world, _ = world_with(4, max_deliveries=1, dead_letter="dead")
    world.pull()
    world.nack((0, 2))
    world.subscribe(max_deliveries=3)
    world.pull()
    world.core.unsubscribe("orders", "billing")
    world.core.check()
    assert not world.core.has_exhausted
    assert stored_counts(world) == []


# --- what is given up on the way --------------------------------------------------------------


def test_what_was_to_be_moved_and_is_given_up_is_not_taken() -> None:
    world = World()
    world.topic(max_messages=6, when_full="drop_oldest")
    world.topic("dead")
    subscription = world.reader(max_deliveries=1, dead_letter="dead")
    for _ in range(3):
        world.send(2)
    for _ in range(3):
        world.pull(count=2)
    world.nack((0, 6))
    world.send(3)
    assert world.core.has_exhausted
    assert pieces_of(world.exhausted()) == [(3, 4, 6, 1)]
    assert subscription.dropped == 4
    assert subscription.parked_ranges() == []
    world.send(4)
    assert not world.exhausted()


def test_one_lease_may_fill_what_was_asked_for_while_others_wait() -> None:
    world, _ = world_with(10, max_deliveries=1, dead_letter="dead")
    world.pull(count=6)
    world.pull(count=2)
    world.pull(count=2)
    world.close(b"a")
    assert pieces_of(world.exhausted(3)) == [(1, 0, 2, 1), (2, 2, 4, 1), (3, 4, 6, 1)]
    assert pieces_of(world.exhausted(3)) == [(4, 6, 8, 1), (5, 8, 10, 1)]


def test_a_part_of_a_lease_is_parked_alone() -> None:
    world, subscription = exhausted_world(6)
    _, middle, _ = world.exhausted()
    world.park(middle)
    assert subscription.parked_ranges() == [(2, 4)]
    assert not world.core.has_exhausted
    world.park(middle)
    assert subscription.parked_ranges() == [(2, 4)]


def test_pieces_are_taken_up_to_so_many_bytes_of_batches() -> None:
    world, _ = world_with(8, max_deliveries=1, dead_letter="dead")
    world.pull()
    world.nack((0, 8))
    size = world.core.topics.named("orders").index.size // 4
    taken = [world.core.take_exhausted(64, size + 1) for _ in range(3)]
    assert [[one.piece.first for one in some] for some in taken] == [[0, 2], [4, 6], []]
