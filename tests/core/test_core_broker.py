"""The broker as a whole: what is due next, and what one verb does to several parts."""

import pytest
from core_world import World, offsets

from mbctl.core.broker import Broker
from mbctl.core.place import RANGES_MIN
from mbctl.errors import InvalidArgument, NotSubscribed, SubscriptionNotFound, TopicNotFound
from mbctl.model import NS_PER_S, Limits


def test_a_new_broker_has_nothing_to_do() -> None:
    broker = Broker()
    broker.check()
    assert broker.next_deadline_ns() is None
    assert broker.expire(10**18, 0) == []
    assert not broker.has_changes
    assert broker.take_changes().acknowledged == []
    assert broker.take_changes().trimmed == []
    assert broker.reveal(12345, 0, 0) == []


def test_the_next_deadline_is_the_nearest_of_all_kinds() -> None:
    world = World()
    world.topic()
    begun = world.now

    def due_in() -> float | None:
        when = world.core.next_deadline_ns()
        return None if when is None else (when - begun) / NS_PER_S

    world.reader(b"look", None)
    world.send(1)
    assert due_in() == 660
    world.close(b"look")
    assert due_in() == 30
    world.reader(b"a", ack_wait=20.0, start="earliest")
    world.pull(b"a")
    assert due_in() == 20
    world.wait(b"a", wait_s=5)
    assert due_in() == 5
    world.advance(5)
    assert due_in() == 20
    world.advance(15)
    assert due_in() == 30
    world.advance(10)
    assert due_in() == 660
    world.advance(1_000)
    assert due_in() is None


def test_time_that_jumps_over_many_deadlines_does_all_that_is_due() -> None:
    world = World()
    world.topic()
    world.reader(b"look", None)
    world.reader(b"a", start="earliest")
    world.send(3)
    world.pull(b"look")
    world.close(b"look")
    world.pull(b"a", 2)
    world.now += 10_000 * NS_PER_S
    world.core.expire(world.now, world.wall)
    world.core.check()
    assert world.core.session_count == 0
    assert world.core.subscription_count == 1
    assert world.pulled(b"a") == [0, 1, 2]


@pytest.mark.parametrize("ack_wait", [0, -1, 86_400.001, float("nan"), float("inf")])
def test_a_wait_that_makes_no_sense_is_refused(ack_wait) -> None:
    world = World()
    world.topic()
    world.register(b"a")
    with pytest.raises(InvalidArgument):
        world.subscribe(ack_wait=ack_wait)
    assert world.core.subscription_count == 0


def test_what_does_not_exist_is_refused() -> None:
    world = World()
    world.topic()
    world.register(b"a")
    with pytest.raises(TopicNotFound):
        world.subscribe(topic="nowhere")
    with pytest.raises(TopicNotFound):
        world.core.unsubscribe("nowhere", "billing")
    with pytest.raises(SubscriptionNotFound):
        world.core.unsubscribe("orders", "billing")
    with pytest.raises(NotSubscribed):
        world.nack((0, 1))


def test_deleting_a_topic_ends_everything_that_was_about_it() -> None:
    world = World()
    world.topic("others")
    world.reader(b"a", topic="others")
    world.send(1, "others")
    world.topic()
    for member, name in ((b"a", "billing"), (b"b", "audit"), (b"c", None)):
        world.reader(member, name)
    world.send(5)
    for member in (b"a", b"b", b"c"):
        world.pull(member, 2)
        world.ack((1, 2), member=member)
    world.nack((0, 1), delay_s=60)
    world.core.delete_topic("orders")
    world.core.check()
    assert world.core.subscription_count == 1
    changes = world.core.take_changes()
    assert (changes.acknowledged, changes.trimmed) == ([], [])
    world.close(b"c")
    world.advance(5_000)
    assert offsets(world.pull(b"a", topic="others")) == [0]


def test_a_topic_of_the_same_name_knows_nothing_of_the_old_one() -> None:
    world = World()
    world.topic()
    world.reader(b"a")
    world.send(5)
    world.pull(b"a")
    world.core.delete_topic("orders")
    world.topic()
    with pytest.raises(NotSubscribed):
        world.pull(b"a")
    world.subscribe(b"a")
    assert world.send(2) == 0
    assert world.pulled(b"a") == [0, 1]


def test_late_news_of_a_deleted_topic_changes_nothing() -> None:
    world = World()
    old = world.topic()
    world.accept(5)
    world.core.delete_topic("orders")
    world.topic()
    world.reader()
    assert world.core.reveal(old.topic_id, 5, world.now) == []
    world.core.check()
    assert world.pulled() == []


def test_the_smallest_bound_on_ranges_works() -> None:
    world = World(Limits(subscription_ranges=RANGES_MIN))
    world.topic()
    subscription = world.reader()
    world.send(100)
    for _ in range(100):
        world.pull(count=3)
        world.close(b"a")
        world.register(b"a")
        world.pull(count=1)
        world.ack((subscription.cursor, subscription.cursor + 1))
    assert subscription.cursor == 100


def test_batches_of_a_topic_are_live_until_it_is_deleted() -> None:
    world = World()
    topic_id = world.topic().topic_id
    for _ in range(3):
        world.send(2)
    assert world.core.live_batches(topic_id, [0, 2, 4], [1, 2, 9]) == [0, 1]
    assert world.core.move_batches(topic_id, [(0, 1, 11), (4, 9, 12)]) == [12]
    assert [piece.place for piece in world.peek(0)] == [11, 2, 3]
    world.core.delete_topic("orders")
    assert world.core.live_batches(topic_id, [0, 2], [11, 2]) == []
    assert world.core.move_batches(topic_id, [(0, 11, 13), (2, 2, 14)]) == [13, 14]
