"""Point 11: seek."""

from typing import Any

import pytest
from semantic_worlds import World, drain, offsets, texts

from mbctl import OffsetOutOfRange, SubscriptionNotFound
from mbctl.model import AtTime

pytestmark = pytest.mark.point(11)


@pytest.fixture
def letters(world: World, topic: str) -> str:
    """A topic that keeps what is read, with the messages a to e."""
    world.create(topic, retain_age=3600.0)
    world.send(topic, *"abcde")
    return topic


def test_seek_ends_all_leases_and_older_acks_change_nothing(world: World, letters: str) -> None:
    reader = world.reader(letters, "r")
    batch = reader.pull(letters, 3, auto_ack=False)
    sought = world.admin.seek(letters, "r", 0)
    assert (sought.offset, sought.skipped) == (0, 0)
    assert world.subscription(letters, "r").leased == 0
    assert (batch.extend(), batch.nack(), batch.ack()) == (0, 0, 0)
    assert drain(reader, letters) == list("abcde")


def test_older_acks_change_nothing_after_the_messages_were_granted_again(
    world: World, letters: str
) -> None:
    first, second = world.reader(letters, "r"), world.new_subscriber("r")
    batch = first.pull(letters, 3, auto_ack=False)
    world.admin.seek(letters, "r", 0)
    again = second.pull(letters, auto_ack=False)
    assert offsets(again) == [0, 1, 2, 3, 4]
    assert batch.ack() == 0
    assert world.subscription(letters, "r").unread == 5
    assert again.ack() == 5


def test_back_messages_count_as_unread_again(world: World, letters: str) -> None:
    reader = world.reader(letters, "r")
    assert drain(reader, letters) == list("abcde")
    sought = reader.seek(letters, 2)
    assert sought.offset == 2
    assert world.subscription(letters, "r").unread == 3
    batch = reader.pull(letters)
    assert (texts(batch), {m.deliveries for m in batch}) == (list("cde"), {1})


def test_forward_skipped_messages_count_as_acknowledged(world: World, topic: str) -> None:
    world.create(topic)
    reader = world.reader(topic, "r")
    world.send(topic, *"abcde")
    reader.seek(topic, 3)
    assert world.topic(topic).messages == 2
    assert drain(reader, topic) == ["d", "e"]


def test_below_the_first_kept_offset_it_goes_there_and_says_so(world: World, topic: str) -> None:
    world.create(topic)
    reader = world.reader(topic, "r")
    world.send(topic, *"abc")
    reader.pull(topic, 2, auto_ack=False).ack()
    sought = reader.seek(topic, 0)
    assert (sought.offset, sought.skipped) == (2, 2)
    assert drain(reader, topic) == ["c"]


def test_seek_knows_new_earliest_and_times(world: World, letters: str) -> None:
    reader = world.reader(letters, "r")
    times = [message.timestamp for message in world.admin.peek(letters)]
    places: list[tuple[Any, int]] = [
        ("new", 5),
        ("earliest", 0),
        (AtTime(times[3]), 3),
        (AtTime(times[0] - 1), 0),
        (AtTime(times[4] + 1), 5),
        (5, 5),
    ]
    for place, offset in places:
        assert reader.seek(letters, place).offset == offset
        assert world.subscription(letters, "r").cursor == offset


def test_a_place_that_is_none_is_refused_and_nothing_moves(world: World, letters: str) -> None:
    reader = world.reader(letters, "r")
    reader.pull(letters, 2, auto_ack=False).ack()
    with pytest.raises(OffsetOutOfRange):
        reader.seek(letters, 6)
    with pytest.raises(SubscriptionNotFound):
        world.admin.seek(letters, "nobody", 0)
    assert world.subscription(letters, "r").cursor == 2


def test_a_seek_survives_a_restart(durable: World, topic: str) -> None:
    durable.create(topic, retain_age=3600.0)
    reader = durable.reader(topic, "r")
    durable.send(topic, *"abcde")
    drain(reader, topic)
    durable.admin.seek(topic, "r", 1)
    durable.restart()
    assert durable.subscription(topic, "r").cursor == 1
    assert drain(reader, topic) == list("bcde")


def test_acks_from_before_a_seek_change_nothing_after_a_restart(durable: World, topic: str) -> None:
    durable.create(topic, retain_age=3600.0)
    reader = durable.reader(topic, "r")
    durable.send(topic, *"abc")
    drain(reader, topic)
    reader.seek(topic, 0)
    durable.restart()
    info = durable.subscription(topic, "r")
    assert (info.cursor, info.unread) == (0, 3)


def test_an_ephemeral_subscription_seeks_and_goes_on_from_there(world: World, letters: str) -> None:
    reader = world.reader(letters, start="earliest")
    assert texts(reader.pull(letters)) == list("abcde")
    reader.seek(letters, 1)
    assert texts(reader.pull(letters, 2)) == ["b", "c"]


def test_the_next_pull_acknowledges_nothing_from_before_the_seek(
    world: World, letters: str
) -> None:
    reader = world.reader(letters, "r")
    reader.pull(letters)
    reader.seek(letters, 0)
    assert texts(reader.pull(letters, 2, auto_ack=False)) == ["a", "b"]
    info = world.subscription(letters, "r")
    assert (info.cursor, info.unread) == (0, 5)


def test_leaving_the_block_acknowledges_nothing_from_before_the_seek(
    world: World, letters: str
) -> None:
    with world.new_subscriber("r") as reader:
        reader.subscribe(letters)
        reader.pull(letters)
        reader.seek(letters, 1)
    assert world.subscription(letters, "r").cursor == 1


def test_a_loop_over_follow_goes_on_from_the_new_place(world: World, letters: str) -> None:
    reader = world.reader(letters, "r")
    seen: list[str] = []
    for message in reader.follow(letters):
        seen.append(message.payload.decode())
        if seen == ["a", "b"]:
            reader.seek(letters, 3)
        elif len(seen) == 3:
            reader.seek(letters, "earliest")
        elif len(seen) == 8:
            break
    assert seen == ["a", "b", "d", "a", "b", "c", "d", "e"]


def test_a_loop_over_follow_that_has_seen_all_goes_back(world: World, letters: str) -> None:
    reader = world.reader(letters, "r")
    seen: list[int] = []
    for message in reader.follow(letters):
        seen.append(message.offset)
        if len(seen) == 5:
            reader.seek(letters, 4)
        elif len(seen) == 6:
            break
    assert seen == [0, 1, 2, 3, 4, 4]
