"""Messages that cannot be read any more: passed over, told of, and counted."""

from core_world import World, offsets, woken

from mbctl.core.grant import Grant
from mbctl.model import Limits, Range


def world_with(count: int = 10, limits: Limits | None = None) -> World:
    """One reader, and batches of two messages."""
    world = World(limits)
    world.topic()
    world.reader()
    for _ in range(count // 2):
        world.send(2)
    world.core.take_changes()
    return world


def lose(world: World, grant: Grant | None, lost: Range, member: bytes = b"a") -> list[Range]:
    assert grant is not None
    passed, _ = world.core.lose(member, grant, lost, now_ns=world.now, wall_ns=world.wall)
    world.core.check()
    return passed


def test_what_is_lost_is_passed_over_and_the_rest_of_the_grant_goes_back_unseen() -> None:
    world = world_with()
    grant = world.pull(count=6)
    assert lose(world, grant, (2, 4)) == [(2, 4)]
    again = world.pull()
    assert again is not None
    assert offsets(again) == [0, 1, *range(4, 10)]
    assert {piece.deliveries for piece in again.pieces} == {1}
    subscription = world.core.subscription("orders", "billing")
    assert subscription.lost == 2


def test_a_loss_is_stored_like_an_ack() -> None:
    world = world_with()
    assert lose(world, world.pull(), (0, 2)) == [(0, 2)]
    changes = world.core.take_changes()
    assert [ranges for _, ranges in changes.acknowledged] == [[(0, 2)]]
    assert [trimmed.first_offset for trimmed in changes.trimmed] == [2]


def test_a_loss_reaches_beyond_what_was_granted() -> None:
    world = world_with()
    subscription = world.core.subscription("orders", "billing")
    assert lose(world, world.pull(count=1), (0, 6)) == [(0, 6)]
    assert (subscription.cursor, subscription.next) == (6, 6)
    assert world.pulled() == [6, 7, 8, 9]


def test_a_loss_counts_whoever_has_the_messages() -> None:
    world = world_with()
    world.register(b"b")
    grant = world.pull(b"a", 3)
    assert world.pulled(b"b", 3) == [3, 4, 5]
    assert lose(world, grant, (2, 6)) == [(2, 6)]
    assert world.ack((3, 6), member=b"b") == 0
    assert world.pulled(b"a", 2) == [0, 1]


def test_only_what_was_not_acknowledged_is_lost() -> None:
    world = world_with()
    grant = world.pull()
    world.ack((0, 1), (3, 4))
    assert lose(world, grant, (0, 6)) == [(1, 3), (4, 6)]
    assert lose(world, grant, (0, 6)) == []
    assert world.core.subscription("orders", "billing").lost == 4


def test_a_loss_wakes_who_waits_for_what_goes_back() -> None:
    world = world_with(4)
    world.register(b"b")
    grant = world.pull(b"a")
    token = world.wait(b"b")
    assert grant is not None
    _, wakes = world.core.lose(b"a", grant, (0, 2), now_ns=world.now, wall_ns=world.wall)
    assert woken(wakes) == {token: [2, 3]}


def test_what_was_skipped_is_told_again() -> None:
    world = world_with()
    world.reader(b"look", None, start="earliest")
    world.ack((0, 4))
    world.core.take_changes()
    grant = world.pull(b"look")
    assert grant is not None
    assert grant.skipped == 4
    assert lose(world, grant, (4, 6), b"look") == [(4, 6)]
    again = world.pull(b"look")
    assert again is not None
    assert (again.skipped, offsets(again)) == (4, [6, 7, 8, 9])


def test_a_loss_in_an_ephemeral_subscription_is_not_stored() -> None:
    world = world_with()
    world.reader(b"look", None, start="earliest")
    assert lose(world, world.pull(b"look"), (0, 2), b"look") == [(0, 2)]
    assert not world.core.has_changes


def test_nothing_is_lost_for_a_process_or_subscription_that_is_gone() -> None:
    world = world_with()
    grant = world.pull()
    world.close(b"a")
    assert lose(world, grant, (0, 2)) == []
    world.register(b"a")
    world.core.unsubscribe("orders", "billing")
    assert lose(world, grant, (0, 2)) == []
    world.core.delete_topic("orders")
    assert lose(world, grant, (0, 2)) == []


def test_at_the_bound_on_ranges_a_loss_waits_until_it_needs_no_cut() -> None:
    world = world_with(40, Limits(subscription_ranges=8))
    subscription = world.core.subscription("orders", "billing")
    grant = world.pull(count=12)
    world.ack((1, 2), (5, 6))
    world.nack((2, 3))
    world.close(b"a")
    world.register(b"a")
    for offset in (0, 2, 3):
        assert world.pulled(count=1) == [offset]
    assert subscription.ranges == 7
    assert lose(world, grant, (8, 10)) == []
    assert subscription.ranges == 7
    # What is a lease of its own needs no cut.
    assert lose(world, grant, (2, 3)) == [(2, 3)]
    assert subscription.ranges == 6
    world.ack((0, 1), (3, 5))
    assert lose(world, grant, (8, 10)) == [(8, 10)]
