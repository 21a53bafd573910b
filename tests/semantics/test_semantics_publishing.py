"""Point 1: publishing."""

import os

import pytest
from semantic_worlds import World, texts

from mbctl import LimitExceeded, MessageTooLarge, OutcomeUnknown, SendFailed, TopicNotFound

pytestmark = pytest.mark.point(1)


def test_a_name_is_a_label_that_many_publishers_may_share(world: World, topic: str) -> None:
    world.create(topic)
    first, second = world.new_publisher("till"), world.new_publisher("till")
    first.send(topic, "a")
    second.send(topic, "b")
    first.send(topic, "c")
    assert world.kept(topic) == ["a", "b", "c"]


def test_sends_are_stored_in_the_order_of_the_calls(world: World, topic: str) -> None:
    world.create(topic)
    numbers = [str(number) for number in range(1000)]
    with world.publisher.pipeline() as pipe:
        for number in numbers[:500]:
            pipe.send(topic, number)
        # Batches of one, far more than may be in flight.
        for number in numbers[500:]:
            pipe.send_many(topic, [number])
    assert world.kept(topic) == numbers


def test_a_batch_is_stored_or_refused_as_a_unit(world: World, topic: str) -> None:
    world.create(topic, max_messages=3)
    receipt = world.publisher.send_many(topic, ["a", "b"])
    assert (receipt.offset, receipt.count) == (0, 2)
    with pytest.raises(SendFailed), world.publisher.pipeline() as pipe:
        pipe.send_many(topic, ["c", "d"])
    with pytest.raises(MessageTooLarge):
        world.publisher.send_many(topic, [b"c", bytes(1024 * 1024 + 1)])
    assert world.kept(topic) == ["a", "b"]


def test_offsets_rise_by_one_and_are_never_used_again(world: World, topic: str) -> None:
    world.create(topic)
    world.publisher.send_many(topic, ["a", "b"])
    world.admin.purge_topic(topic)
    assert world.publisher.send(topic, "c").offset == 2
    info = world.topic(topic)
    assert (info.first_offset, info.next_offset) == (2, 3)


def test_a_retry_is_answered_as_the_first_attempt_was(world: World, topic: str) -> None:
    world.create(topic)
    session = os.urandom(16)
    with world.raw(session) as raw:
        assert [raw.send(topic, 1, b"a"), raw.send(topic, 2, b"b")] == [0, 1]
    # The same after a reconnect.
    with world.raw(session) as raw:
        assert [raw.send(topic, n, b"?", age_ms=5) for n in (1, 2, 1, 2)] == [0, 1, 0, 1]
        assert raw.send(topic, 3, b"c") == 2
    assert world.kept(topic) == ["a", "b", "c"]


def test_a_retry_after_a_restart_is_stored_once(durable: World, topic: str) -> None:
    durable.create(topic)
    session = os.urandom(16)
    with durable.raw(session) as raw:
        assert raw.send(topic, 1, b"a") == 0
    durable.restart()
    with durable.raw(session) as raw:
        assert raw.send(topic, 1, b"a", age_ms=1000) == 0
        assert raw.send(topic, 2, b"b") == 1
    assert durable.kept(topic) == ["a", "b"]


def test_a_retry_after_reclaiming_is_stored_once(world: World, topic: str) -> None:
    world.create(topic)
    reader = world.reader(topic, "r")
    with world.raw(os.urandom(16)) as raw:
        assert raw.send(topic, 1, b"a") == 0
        reader.pull(topic).ack()
        assert world.topic(topic).messages == 0
        assert raw.send(topic, 1, b"a", age_ms=10) == 0
    assert (world.topic(topic).messages, world.topic(topic).next_offset) == (0, 1)


def test_a_refusal_is_remembered_as_well(world: World, topic: str) -> None:
    with world.raw(os.urandom(16)) as raw:
        assert raw.send(topic, 1, b"a") == "TopicNotFound"
        world.create(topic)
        assert raw.send(topic, 1, b"a", age_ms=10) == "TopicNotFound"
        assert raw.send(topic, 2, b"a") == 0
    assert world.kept(topic) == ["a"]


def test_a_retry_later_than_10_minutes_is_refused_and_never_stored_twice(
    world: World, topic: str
) -> None:
    world.create(topic)
    with world.raw(os.urandom(16)) as raw:
        assert raw.send(topic, 1, b"a") == 0
        assert raw.send(topic, 1, b"a", age_ms=600_000) == 0
        assert raw.send(topic, 1, b"a", age_ms=600_001) == "OutcomeUnknown"
        assert raw.send(topic, 2, b"b", age_ms=600_001) == "OutcomeUnknown"
    assert world.kept(topic) == ["a"]


def test_a_number_that_is_no_longer_in_the_window_is_refused(world: World, topic: str) -> None:
    world.create(topic)
    with world.raw(os.urandom(16)) as raw:
        assert [raw.send(topic, n, b"x") for n in range(1, 131)] == list(range(130))
        assert raw.send(topic, 3, b"x") == 2
        assert raw.send(topic, 2, b"x") == "OutcomeUnknown"
        # One that was left out, and has no answer, would break the order.
        assert raw.send(topic, 140, b"x") == 130
        assert raw.send(topic, 135, b"x") == "OutcomeUnknown"
    assert world.topic(topic).messages == 131


def test_bounds_of_sessions_are_those_promised(world: World) -> None:
    limits = world.publisher.limits
    assert limits.sends_in_flight == 128
    assert (limits.sessions, limits.session_idle_s) == (100_000, 600)


def test_a_send_that_is_refused_can_be_sent_again_when_the_reason_is_gone(
    world: World, topic: str
) -> None:
    with pytest.raises(TopicNotFound):
        world.publisher.send(topic, "a")
    world.create(topic)
    world.publisher.send(topic, "a")
    assert texts(world.reader(topic).pull(topic, wait=0)) == ["a"]
    assert not issubclass(TopicNotFound, OutcomeUnknown | LimitExceeded)
