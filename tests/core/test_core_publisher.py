"""Publisher sessions: what a retry gets, and what is forgotten when."""

import gc
import weakref

import pytest
from core_world import World

from mbctl.core.publisher import Publishers, PublisherSession
from mbctl.errors import (
    DiskFull,
    InvalidArgument,
    LimitExceeded,
    OutcomeUnknown,
    TopicFull,
    TopicNotFound,
)
from mbctl.model import NAME_LENGTH_MAX, NS_PER_S, Limits, Receipt


def world_with_window(window: int = 3) -> World:
    world = World(Limits(sends_in_flight=window, sessions=2))
    world.topic()
    return world


def test_a_retry_gets_the_first_answer_and_is_stored_once() -> None:
    world = world_with_window()
    first = world.accept(5, sequence=1)
    again = world.accept(5, sequence=1)
    assert first.is_new
    assert not again.is_new
    assert again.receipt == first.receipt == Receipt("orders", 0, 5)
    assert world.core.topics.named("orders").next_offset == 5


def test_a_retry_gets_the_first_answer_after_the_messages_were_reclaimed() -> None:
    world = world_with_window()
    world.reader()
    world.send(5, sequence=1)
    world.ack((0, 5))
    assert world.commit() == [1]
    assert world.accept(5, sequence=1).receipt == Receipt("orders", 0, 5)


def test_a_retry_gets_the_first_answer_after_the_topic_was_deleted() -> None:
    world = world_with_window()
    world.accept(5, sequence=1)
    world.core.delete_topic("orders")
    assert world.accept(5, sequence=1).receipt == Receipt("orders", 0, 5)


def test_a_refusal_is_the_answer_to_a_retry_too() -> None:
    world = world_with_window()
    with pytest.raises(TopicNotFound):
        world.accept(sequence=1, topic="nowhere")
    world.topic("nowhere")
    with pytest.raises(TopicNotFound, match="nowhere"):
        world.accept(sequence=1, topic="nowhere")
    assert world.accept(sequence=2, topic="nowhere").is_new


def test_a_refusal_by_the_caller_is_remembered_and_stores_nothing() -> None:
    world = world_with_window()
    with pytest.raises(DiskFull):
        world.accept(sequence=1, refusal=DiskFull(size=5, limit=5))
    with pytest.raises(DiskFull, match="at most 5"):
        world.accept(sequence=1)
    assert world.core.topics.named("orders").messages == 0


def test_a_refusal_of_the_caller_does_not_stop_a_retry_of_what_is_stored() -> None:
    world = world_with_window()
    world.accept(sequence=1)
    assert not world.accept(sequence=1, refusal=DiskFull(size=5, limit=5)).is_new


def test_the_window_holds_the_answers_of_the_last_sends() -> None:
    world = world_with_window(window=3)
    for _ in range(4):
        world.accept()
    for sequence in (2, 3, 4):
        assert world.accept(sequence=sequence).receipt.offset == sequence - 1
    with pytest.raises(OutcomeUnknown):
        world.accept(sequence=1)


def test_a_number_that_was_passed_over_is_refused() -> None:
    world = world_with_window()
    world.accept(sequence=1)
    world.accept(sequence=5)
    with pytest.raises(OutcomeUnknown):
        world.accept(sequence=3)
    assert world.core.topics.named("orders").messages == 2


def test_a_retry_is_too_old_ten_minutes_after_its_first_attempt() -> None:
    world = world_with_window()
    world.accept(sequence=1)
    assert world.accept(sequence=1, age_s=600).receipt.offset == 0
    with pytest.raises(OutcomeUnknown):
        world.accept(sequence=1, age_s=600.001)
    with pytest.raises(OutcomeUnknown):
        world.accept(sequence=2, age_s=601)
    assert world.accept(sequence=2).is_new


def test_sessions_are_apart() -> None:
    world = world_with_window()
    assert world.accept(session=b"one", sequence=7).is_new
    assert world.accept(session=b"two", sequence=7).is_new
    assert world.core.session_count == 2


def test_one_session_more_than_the_limit_is_refused() -> None:
    world = world_with_window()
    world.accept(session=b"one")
    world.core.register_publisher(b"two", world.now)
    world.core.register_publisher(b"two", world.now)
    world.accept(session=b"two")
    with pytest.raises(LimitExceeded):
        world.core.register_publisher(b"three", world.now)
    with pytest.raises(LimitExceeded):
        world.accept(session=b"three")
    assert world.core.session_count == 2


def test_a_session_that_sent_nothing_gives_way_to_a_new_one() -> None:
    world = world_with_window()
    world.core.register_publisher(b"one", world.now)
    for number in range(10):
        world.core.register_publisher(b"other %d" % number, world.now)
        assert world.core.session_count == 2
    world.accept(session=b"other 9", sequence=1)
    world.accept(session=b"one")
    with pytest.raises(LimitExceeded):
        world.accept(session=b"other 8")
    assert not world.accept(session=b"other 9", sequence=1).is_new


def test_a_session_is_forgotten_when_no_retry_can_be_young_enough_any_more() -> None:
    world = world_with_window()
    world.accept(sequence=1)
    world.advance(600)
    assert not world.accept(sequence=1, age_s=600).is_new
    world.advance(659)
    assert world.core.session_count == 1
    world.advance(1)
    assert world.core.session_count == 0
    assert world.accept(sequence=1).is_new


def test_a_session_in_use_is_never_forgotten() -> None:
    world = world_with_window()
    for _ in range(10):
        world.accept()
        world.advance(400)
    assert world.core.session_count == 1


def test_a_remembered_refusal_does_not_hold_what_was_refused() -> None:
    class Batch(bytearray):
        """Stands for a batch in the hands of the code that raises."""

    session = PublisherSession(b"s", window=2, now_ns=0)

    def refuse(batch: Batch) -> None:
        try:
            raise TopicFull(topic="orders", what="messages", limit=len(batch))
        except TopicFull as error:
            session.remember(1, error)

    batch = Batch(8)
    alive = weakref.ref(batch)
    refuse(batch)
    with pytest.raises(TopicFull, match="max_messages is 8"):
        session.earlier_answer(1)
    del batch
    gc.collect()
    assert alive() is None


def test_a_remembered_refusal_keeps_no_more_text_than_a_name_may_have() -> None:
    session = PublisherSession(b"s", window=2, now_ns=0)
    session.remember(1, TopicNotFound(topic="x" * 100_000))
    with pytest.raises(TopicNotFound) as refusal:
        session.earlier_answer(1)
    assert refusal.value.details == {"topic": "x" * NAME_LENGTH_MAX}


def test_refusals_of_one_number_are_not_the_same_object() -> None:
    session = PublisherSession(b"s", window=2, now_ns=0)
    session.remember(1, InvalidArgument(reason="the batch is empty"))
    caught = []
    for _ in range(2):
        with pytest.raises(InvalidArgument, match="the batch is empty") as refusal:
            session.earlier_answer(1)
        caught.append(refusal.value)
    assert caught[0] is not caught[1]


def test_sessions_cost_one_deadline_however_often_they_are_used() -> None:
    publishers = Publishers(Limits())
    for now_s in range(500):
        publishers.use(b"s", now_s * NS_PER_S)
    assert publishers.deadlines.lowest() == 660 * NS_PER_S
    publishers.expire(660 * NS_PER_S)
    assert publishers.deadlines.lowest() == (499 + 660) * NS_PER_S
    publishers.check()
