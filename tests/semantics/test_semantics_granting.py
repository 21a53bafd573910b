"""Point 5: granting."""

import pytest
from broker_process import wait_until
from semantic_worlds import World, drain, offsets, texts

pytestmark = pytest.mark.point(5)

SOON = 0.05


def test_every_subscription_gets_every_message(world: World, topic: str) -> None:
    world.create(topic)
    readers = [world.reader(topic, name) for name in ("a", "b", "c")]
    world.send(topic, *map(str, range(20)))
    for reader in readers:
        assert drain(reader, topic) == [str(number) for number in range(20)]


def test_one_process_reads_in_the_order_of_offsets(world: World, topic: str) -> None:
    world.create(topic)
    reader = world.reader(topic, "r")
    world.publisher.send_many(topic, [str(n) for n in range(50)])
    world.send(topic, *map(str, range(50, 100)))
    seen: list[int] = []
    while batch := reader.pull(topic, 7, wait=0):
        seen += offsets(batch)
    assert seen == list(range(100))


def test_processes_that_share_a_name_share_the_work(world: World, topic: str) -> None:
    world.create(topic)
    first, second = world.reader(topic, "r"), world.reader(topic, "r")
    world.send(topic, *map(str, range(10)))
    taken = [offsets(reader.pull(topic, 3, wait=0)) for reader in (first, second, first, second)]
    assert sorted(offset for part in taken for offset in part) == list(range(10))


def test_a_lease_lasts_ack_wait(world: World, topic: str) -> None:
    world.create(topic)
    reader = world.reader(topic, "r", ack_wait=SOON)
    world.send(topic, "a")
    batch = reader.pull(topic, auto_ack=False)
    assert world.subscription(topic, "r").leased == 1
    (again,) = reader.pull(topic, auto_ack=False)
    (first,) = batch
    assert (again.offset, first.deliveries, again.deliveries) == (0, 1, 2)


def test_ack_wait_is_30_seconds_by_default(world: World, topic: str) -> None:
    world.create(topic)
    world.reader(topic, "r")
    assert world.subscription(topic, "r").ack_wait == 30.0


def test_a_late_acknowledgement_counts(world: World, topic: str) -> None:
    world.create(topic)
    reader = world.reader(topic, "r", ack_wait=SOON)
    world.send(topic, "a")
    batch = reader.pull(topic, auto_ack=False)
    wait_until(lambda: world.subscription(topic, "r").redeliver == 1)
    assert batch.ack() == 1
    assert world.subscription(topic, "r").unread == 0


def test_a_late_acknowledgement_of_what_another_has_does_not_count(
    world: World, topic: str
) -> None:
    world.create(topic)
    slow = world.reader(topic, "r", ack_wait=SOON)
    world.send(topic, "a", "b")
    late = slow.pull(topic, auto_ack=False)
    wait_until(lambda: world.subscription(topic, "r").redeliver == 2)
    other = world.reader(topic, "r", ack_wait=30.0)
    taken = other.pull(topic, 1, auto_ack=False)
    assert offsets(taken) == [0]
    assert late.ack() == 1
    assert world.subscription(topic, "r").unread == 1
    assert taken.ack() == 1
    assert world.subscription(topic, "r").unread == 0


def test_extending_renews_a_lease(world: World, topic: str) -> None:
    world.create(topic)
    reader = world.reader(topic, "r", ack_wait=0.2)
    world.send(topic, "a", "b")
    batch = reader.pull(topic, auto_ack=False)
    first, _ = batch
    for _ in range(4):
        assert first.extend() == 1
        # Half of its time each time: without it, the lease would have been over.
        assert 0 not in offsets(reader.pull(topic, wait=0.1, auto_ack=False))
    assert world.subscription(topic, "r").leased >= 1
    assert batch.ack_range(0, 1) == 1


def test_a_closed_connection_releases_its_leases_at_once(world: World, topic: str) -> None:
    world.create(topic)
    gone, other = world.reader(topic, "r"), world.reader(topic, "r")
    world.send(topic, "a", "b")
    gone.pull(topic, auto_ack=False)
    gone.close()
    # Far sooner than its 30 s.
    batch = other.pull(topic, wait=5)
    assert texts(batch) == ["a", "b"]
    assert [message.deliveries for message in batch] == [2, 2]


def test_breaking_out_of_follow_gives_back_what_was_not_yielded_without_counting(
    world: World, topic: str
) -> None:
    world.create(topic)
    reader, other = world.reader(topic, "r"), world.new_subscriber("r")
    world.publisher.send_many(topic, ["a", "b", "c"])
    messages = reader.follow(topic)
    assert next(iter(messages)).payload == b"a"  # type: ignore[call-overload]
    getattr(messages, "close", getattr(messages, "aclose", None))()
    batch = other.pull(topic, wait=5)
    assert [(m.payload, m.deliveries) for m in batch] == [(b"b", 1), (b"c", 1)]


def test_nothing_comes_that_nobody_asked_for(world: World, topic: str) -> None:
    world.create(topic)
    world.reader(topic, "r")
    world.send(topic, "a")
    info = world.subscription(topic, "r")
    assert (info.unread, info.leased) == (1, 0)
