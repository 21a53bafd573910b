"""Point 7: redelivery."""

import time

import pytest
from broker_process import wait_until
from semantic_worlds import World, drain, offsets, texts

from mbctl import InvalidArgument, TopicNotFound

pytestmark = pytest.mark.point(7)

SOON = 0.05


def test_a_nack_grants_again_and_counts(world: World, topic: str) -> None:
    world.create(topic)
    reader = world.reader(topic, "r")
    world.send(topic, "a")
    for count in range(1, 5):
        (message,) = reader.pull(topic, auto_ack=False)
        assert message.deliveries == count
        assert message.nack() == 1


def test_a_nack_with_a_delay_grants_again_after_it(world: World, topic: str) -> None:
    world.create(topic)
    reader = world.reader(topic, "r")
    world.send(topic, "a")
    begin = time.monotonic()
    reader.pull(topic, auto_ack=False).nack(delay=0.2)
    assert not reader.pull(topic, wait=0)
    (message,) = reader.pull(topic, auto_ack=False)
    assert time.monotonic() - begin >= 0.2
    assert message.deliveries == 2


def test_an_expired_lease_grants_again_and_counts(world: World, topic: str) -> None:
    world.create(topic)
    reader = world.reader(topic, "r", ack_wait=SOON)
    world.send(topic, "a")
    counts = []
    for _ in range(3):
        (message,) = reader.pull(topic, auto_ack=False)
        counts.append(message.deliveries)
    assert counts == [1, 2, 3]


def test_there_is_no_maximum_by_default(world: World, topic: str) -> None:
    world.create(topic)
    reader = world.reader(topic, "r")
    world.send(topic, "a", "b")
    for _ in range(50):
        batch = reader.pull(topic, auto_ack=False)
        assert len(batch) == 2
        batch.nack()
    assert world.subscription(topic, "r").max_deliveries is None


def test_with_a_maximum_a_message_delivered_before_is_granted_alone(
    world: World, topic: str
) -> None:
    world.create(topic)
    reader = world.reader(topic, "r", max_deliveries=3)
    world.send(topic, "a", "b", "c")
    reader.pull(topic, auto_ack=False).nack()
    world.send(topic, "d")
    pulls = [reader.pull(topic, wait=0, auto_ack=False) for _ in range(4)]
    assert [texts(batch) for batch in pulls] == [["a"], ["b"], ["c"], ["d"]]


def test_counts_survive_a_restart(durable: World, topic: str) -> None:
    durable.create(topic)
    reader = durable.reader(topic, "r", max_deliveries=4)
    durable.send(topic, "a")
    for _ in range(2):
        reader.pull(topic, auto_ack=False).nack()
    (third,) = reader.pull(topic, auto_ack=False)
    assert third.deliveries == 3
    durable.restart()
    # An orderly end stores it; a crash may make it short by one.
    (fourth,) = reader.pull(topic, auto_ack=False)
    assert fourth.deliveries == 4
    fourth.nack()
    wait_until(lambda: durable.subscription(topic, "r").parked == 1)


@pytest.fixture
def letters(world: World, topic: str) -> str:
    """A topic, read by r, whose messages move to the topic that is returned after 2 deliveries."""
    world.create(topic)
    return world.create(f"{topic}.dead")


def test_at_the_maximum_a_message_moves_to_the_dead_letter_topic(
    world: World, topic: str, letters: str
) -> None:
    reader = world.reader(topic, "r", max_deliveries=2, dead_letter=letters)
    world.publisher.send(topic, "poison", key=b"k", headers={"type": "new"})
    world.send(topic, "good")
    assert len(reader.pull(topic, auto_ack=False)) == 2
    wait_until(lambda: _refuse_poison(world, topic, reader) or world.topic(letters).messages)
    (letter,) = world.admin.peek(letters)
    assert (letter.payload, letter.key) == (b"poison", b"k")
    assert dict(letter.headers) == {
        "type": "new",
        "mbctl-topic": topic,
        "mbctl-offset": "0",
        "mbctl-subscriber": "r",
        "mbctl-deliveries": "2",
    }
    info = world.subscription(topic, "r")
    assert (info.unread, info.parked) == (0, 0)


def _refuse_poison(world: World, topic: str, reader: object) -> None:
    """Give everything back, and acknowledge all but poison."""
    again = world.new_subscriber("r")
    for batch in iter(lambda: again.pull(topic, wait=0, auto_ack=False), None):
        if not batch:
            break
        batch.nack() if texts(batch) == ["poison"] else batch.ack()
    reader.close()  # type: ignore[attr-defined]


def test_an_expired_last_lease_moves_the_message_too(
    world: World, topic: str, letters: str
) -> None:
    reader = world.reader(topic, "r", max_deliveries=1, dead_letter=letters, ack_wait=SOON)
    world.send(topic, "a", "b")
    reader.pull(topic, auto_ack=False)
    wait_until(lambda: world.kept(letters) == ["a", "b"])
    assert world.subscription(topic, "r").unread == 0


def test_a_move_frees_the_message_at_its_source(world: World, topic: str, letters: str) -> None:
    reader = world.reader(topic, "r", max_deliveries=1, dead_letter=letters)
    world.send(topic, "a")
    reader.pull(topic, auto_ack=False).nack()
    # It is seen there once it is durable.
    wait_until(lambda: world.kept(letters) == ["a"])
    wait_until(lambda: world.topic(topic).messages == 0)


def test_a_move_survives_a_restart_and_happens_once(durable: World, topic: str) -> None:
    durable.create(topic)
    letters = durable.create(f"{topic}.dead")
    reader = durable.reader(topic, "r", max_deliveries=1, dead_letter=letters)
    durable.send(topic, "a", "b")
    reader.pull(topic, 1, auto_ack=False).nack()
    wait_until(lambda: durable.topic(letters).messages == 1)
    durable.restart()
    assert durable.kept(letters) == ["a"]
    assert drain(reader, topic) == ["b"]


def test_the_dead_letter_topic_must_exist_and_be_another(world: World, topic: str) -> None:
    world.create(topic)
    reader = world.new_subscriber("r")
    with pytest.raises(TopicNotFound):
        reader.subscribe(topic, max_deliveries=2, dead_letter="nowhere")
    with pytest.raises(InvalidArgument):
        reader.subscribe(topic, max_deliveries=2, dead_letter=topic)
    with pytest.raises(InvalidArgument):
        reader.subscribe(topic, dead_letter="nowhere")
    assert world.admin.subscriptions(topic) == []


def test_without_a_dead_letter_topic_a_message_is_parked(world: World, topic: str) -> None:
    world.create(topic)
    reader = world.reader(topic, "r", max_deliveries=1)
    world.send(topic, "a", "b", "c")
    batch = reader.pull(topic, 2, auto_ack=False)
    batch.nack()
    # Not delivered, shown, and in nobody's way.
    assert texts(reader.pull(topic, wait=0)) == ["c"]
    info = world.subscription(topic, "r")
    assert (info.parked, info.parked_ranges, info.unread) == (2, [(0, 2)], 3)
    assert world.topic(topic).messages == 3


@pytest.mark.parametrize("trouble", ["full", "deleted", "headers"])
def test_what_cannot_be_moved_is_parked(world: World, topic: str, trouble: str) -> None:
    world.create(topic)
    letters = world.create(f"{topic}.dead", max_messages=1)
    reader = world.reader(topic, "r", max_deliveries=1, dead_letter=letters)
    headers = {f"h{n}": "v" for n in range(32)} if trouble == "headers" else None
    world.publisher.send(topic, "a", headers=headers)
    if trouble == "full":
        world.send(letters, "x")
    elif trouble == "deleted":
        world.admin.delete_topic(letters)
    reader.pull(topic, auto_ack=False).nack()
    wait_until(lambda: world.subscription(topic, "r").parked == 1)
    assert not reader.pull(topic, wait=0)


def test_parked_messages_are_released_by_hand_and_count_anew(world: World, topic: str) -> None:
    world.create(topic)
    reader = world.reader(topic, "r", max_deliveries=1)
    world.send(topic, "a", "b", "c")
    reader.pull(topic, auto_ack=False).nack()
    assert world.admin.release(topic, "r", [2]) == 1
    assert [(m.offset, m.deliveries) for m in reader.pull(topic)] == [(2, 1)]
    assert world.admin.release(topic, "r") == 2
    assert offsets(reader.pull(topic)) == [0, 1]
    assert world.subscription(topic, "r").parked == 0


def test_parked_messages_are_dropped_by_hand(world: World, topic: str) -> None:
    world.create(topic)
    reader = world.reader(topic, "r", max_deliveries=1)
    world.send(topic, "a", "b", "c")
    reader.pull(topic, auto_ack=False).nack()
    assert world.admin.drop(topic, "r", [0, 99]) == 1
    assert world.subscription(topic, "r").cursor == 1
    assert world.admin.drop(topic, "r") == 2
    info = world.subscription(topic, "r")
    assert (info.unread, info.parked) == (0, 0)
    assert world.topic(topic).messages == 0


def test_parked_messages_stay_parked_over_a_restart(durable: World, topic: str) -> None:
    durable.create(topic)
    reader = durable.reader(topic, "r", max_deliveries=1)
    durable.send(topic, "a", "b")
    reader.pull(topic, 1, auto_ack=False).nack()
    wait_until(lambda: durable.subscription(topic, "r").parked == 1)
    durable.restart()
    assert durable.subscription(topic, "r").parked_ranges == [(0, 1)]
    assert texts(reader.pull(topic)) == ["b"]
    assert durable.admin.release(topic, "r") == 1
    assert texts(reader.pull(topic)) == ["a"]


def test_what_nobody_looked_at_does_not_count(world: World, topic: str) -> None:
    world.create(topic)
    reader = world.reader(topic, "r", max_deliveries=1)
    world.publisher.send_many(topic, ["a", "b"])
    for message in reader.follow(topic):
        assert message.payload == b"a"
        break
    # Breaking out gave b back; leaving it to the garbage collector would as well.
    again = world.new_subscriber("r")
    reader.close()
    batch = again.pull(topic, wait=5)
    assert [(m.payload, m.deliveries) for m in batch] == [(b"b", 1)]
