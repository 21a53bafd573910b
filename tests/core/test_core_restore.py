"""What comes back after a restart: topics by whole columns, places, windows."""

import time
import tracemalloc
from array import array
from collections.abc import Iterable
from typing import Any

import pytest
from core_world import World, offsets

from mbctl.core.broker import Broker
from mbctl.core.index import BatchColumns, BatchIndex
from mbctl.core.subscription import Subscription
from mbctl.core.topic import Topic
from mbctl.errors import OutcomeUnknown
from mbctl.model import NS_PER_S, Limits, Range, Receipt, TopicSettings


def run_of(first: int, count: int, *, messages: int = 2, place: int | None = None) -> BatchColumns:
    """Batches of ten bytes a message, at places from ``place`` on, and a second apart."""
    place = first + 100 if place is None else place
    return (
        array("Q", range(first, first + count * messages, messages)),
        array("Q", range(place, place + count)),
        array("q", range(1_000 + first, 1_000 + first + count)),
        array("I", [10 * messages] * count),
        first + count * messages,
    )


def restored(
    world: World,
    runs: Iterable[BatchColumns],
    first_offset: int = 0,
    next_offset: int = 20,
    timestamp: int = 0,
) -> tuple[Topic, list[int]]:
    topic, places = world.core.restore_topic(
        7,
        "orders",
        TopicSettings(),
        created=5,
        runs=runs,
        first_offset=first_offset,
        next_offset=next_offset,
        timestamp=timestamp,
    )
    world.core.check()
    return topic, list(places)


def place_of(
    world: World,
    topic: Topic,
    cursor: int,
    acknowledged: list[Range],
    name: str = "billing",
    **other: Any,
) -> tuple[Subscription, bool]:
    found = world.core.restore_subscription(
        topic,
        name,
        cursor=cursor,
        acknowledged=acknowledged,
        ack_wait_ns=9 * NS_PER_S,
        created=3,
        **other,
    )
    world.core.check()
    return found


def new_world(**limits: Any) -> World:
    world = World()
    world.core = Broker(Limits(**limits), first_topic_id=8)
    return world


# --- topics -----------------------------------------------------------------------------------


def test_a_restored_topic_has_all_its_messages_to_be_read() -> None:
    world = new_world()
    topic, places = restored(world, [run_of(0, 4), run_of(8, 6)])
    assert (topic.topic_id, topic.created, places) == (7, 5, [])
    assert (topic.first_offset, topic.visible_next, topic.next_offset) == (0, 20, 20)
    assert (topic.messages, topic.index.size) == (20, 200)
    world.reader()
    grant = world.pull(count=5)
    assert grant is not None
    assert [(p.place, p.first, p.next, p.timestamp) for p in grant.pieces] == [
        (100, 0, 2, 1_000),
        (101, 2, 4, 1_001),
        (102, 4, 5, 1_002),
    ]
    assert world.pulled() == list(range(5, 20))


def test_what_comes_after_a_restored_topic_follows_on_it() -> None:
    world = new_world()
    topic, _ = restored(world, [run_of(0, 10)], timestamp=2 * world.wall)
    stored = world.accept(3)
    assert (stored.topic_id, stored.receipt.offset) == (7, 20)
    assert stored.timestamp == 2 * world.wall
    assert topic.visible_next == 20
    world.reveal()
    world.reader()
    assert len(world.pulled()) == 23


def test_a_topic_of_which_nothing_is_kept_goes_on_where_it_was() -> None:
    world = new_world()
    topic, places = restored(world, [], first_offset=20, timestamp=2 * world.wall)
    assert (topic.messages, places) == (0, [])
    stored = world.accept(1)
    assert (stored.receipt.offset, stored.timestamp) == (20, 2 * world.wall)


def test_the_places_below_what_is_kept_are_told() -> None:
    world = new_world()
    topic, places = restored(world, [run_of(0, 3), run_of(6, 7)], first_offset=9)
    assert places == [100, 101, 102, 106]
    assert (topic.first_offset, topic.messages, topic.index.size) == (9, 11, 120)
    world.reader()
    assert world.pulled() == list(range(9, 20))


def test_offsets_may_be_missing_below_what_is_kept() -> None:
    world = new_world()
    topic, places = restored(world, [run_of(0, 2), run_of(8, 6)], first_offset=11)
    assert places == [100, 101, 108]
    assert topic.index.size == 100
    world.reader()
    assert world.pulled() == list(range(11, 20))


def test_batches_may_be_left_of_a_topic_that_keeps_nothing() -> None:
    world = new_world()
    topic, places = restored(world, [run_of(0, 2), run_of(8, 2)], first_offset=20)
    assert places == [100, 101, 108, 109]
    assert (topic.messages, topic.index.size) == (0, 0)
    assert world.send(1) == 20


def test_ids_of_topics_are_not_used_again() -> None:
    world = new_world()
    restored(world, [run_of(0, 10)])
    assert world.topic("others").topic_id == 8


def test_columns_of_other_types_are_taken_over_by_value() -> None:
    index = BatchIndex()
    index.extend(
        (array("L", [0, 2]), array("I", [7, 8]), array("l", [1, 2]), array("Q", [5, 6]), 3)
    )
    index.extend((array("Q"), array("Q"), array("q"), array("I"), 0))
    assert list(index.walk(0)) == [(0, 2, 7, 1, 5), (2, 3, 8, 2, 6)]
    assert index.append(1, 10, 0) == (3, 2)


def test_sizes_are_right_wherever_columns_and_single_batches_meet() -> None:
    index = BatchIndex()
    for count in (1, 1_000, 24, 1_024, 700, 3_000):
        index.extend(run_of(index.next_offset, count))
        index.append(2, 20, 0)
        index.check(0)
    sizes = [index.size_from(offset) for offset in range(0, index.next_offset, 2)]
    assert sizes == list(range(10 * index.next_offset, 0, -20))
    index.drop_below(7_000)
    index.check(7_000)
    assert index.size_from(9_000) == 10 * (index.next_offset - 9_000)


def test_an_index_is_restored_in_no_time_and_28_bytes_a_batch() -> None:
    count = 1_000_000
    runs = [run_of(first, count // 10) for first in range(0, 2 * count, count // 5)]
    index = BatchIndex()
    tracemalloc.start()
    try:
        for run in runs:
            index.extend(run)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(index) == count
    assert index.size == 20 * count
    # Arrays that grow keep a sixteenth in hand.
    assert taken < 28 * count * 17 / 16 + 100_000
    index = BatchIndex()
    begin = time.process_time()
    for run in runs:
        index.extend(run)
    # Measured at 0.04 s; batch by batch it takes 0.8 s.
    assert time.process_time() - begin < 0.3


# --- subscriptions ----------------------------------------------------------------------------


def test_a_restored_subscription_stands_where_it_stood() -> None:
    world = new_world()
    topic, _ = restored(world, [run_of(0, 10)])
    subscription, is_whole = place_of(world, topic, 4, [(6, 8), (11, 13)])
    assert is_whole
    assert (subscription.cursor, subscription.next) == (4, 13)
    assert list(subscription.acknowledged) == [(6, 8), (11, 13)]
    assert (subscription.unread, subscription.ranges, subscription.redeliver_count) == (12, 4, 5)
    assert (subscription.durable, subscription.created) == (True, 3)
    assert subscription.ack_wait_ns == 9 * NS_PER_S
    world.register(b"a")
    grant = world.pull()
    assert offsets(grant) == [4, 5, 8, 9, 10, *range(13, 20)]
    assert grant is not None
    assert {piece.deliveries for piece in grant.pieces} == {1}


def test_what_was_acknowledged_up_to_the_cursor_is_below_it() -> None:
    world = new_world()
    topic, _ = restored(world, [run_of(0, 10)])
    subscription, is_whole = place_of(world, topic, 4, [(9, 11), (2, 6), (10, 12)])
    assert (subscription.cursor, list(subscription.acknowledged), is_whole) == (6, [(9, 12)], True)


def test_what_is_restored_is_not_taken_to_be_stored_again() -> None:
    world = new_world()
    topic, _ = restored(world, [run_of(0, 10)])
    place_of(world, topic, 0, [(6, 8)])
    changes = world.core.take_changes()
    assert (changes.acknowledged, changes.trimmed) == ([], [])
    world.register(b"a")
    world.ack((5, 7))
    [(_, ranges)] = world.core.take_changes().acknowledged
    assert ranges == [(5, 6)]


def test_what_every_restored_subscription_has_read_is_trimmed() -> None:
    world = new_world()
    topic, _ = restored(world, [run_of(0, 10)], first_offset=3)
    place_of(world, topic, 9, [])
    place_of(world, topic, 7, [], "audit")
    assert world.commit() == [101, 102]
    assert topic.first_offset == 7


def test_a_hold_is_as_old_as_the_message_it_begins_with() -> None:
    world = new_world()
    topic, _ = restored(world, [run_of(0, 10)])
    assert place_of(world, topic, 6, [])[0].moved_at == 1_003
    assert place_of(world, topic, 20, [], "audit")[0].moved_at == 3


@pytest.mark.parametrize(
    ("cursor", "acknowledged", "kept"),
    [
        (25, [], (20, [])),
        (20, [(22, 24)], (20, [])),
        (14, [(18, 23)], (14, [(18, 20)])),
        (14, [(16, 17), (22, 24)], (14, [(16, 17)])),
        (2, [(12, 13)], (5, [(12, 13)])),
        (2, [(4, 8)], (8, [])),
    ],
)
def test_a_place_that_does_not_fit_the_topic_is_moved_and_told(
    cursor: int, acknowledged: list[Range], kept: object
) -> None:
    world = new_world()
    topic, _ = restored(world, [run_of(0, 10)], first_offset=5)
    subscription, is_whole = place_of(world, topic, cursor, acknowledged)
    assert not is_whole
    assert (subscription.cursor, list(subscription.acknowledged)) == kept
    world.register(b"a")
    read = set(world.pulled())
    first = world.send(5)
    assert world.pulled() == list(range(first, first + 5))
    assert read == set(range(subscription.cursor, 20)) - set(
        offset for first, next in subscription.acknowledged for offset in range(first, next)
    )


def test_counts_of_deliveries_are_restored() -> None:
    world = new_world()
    topic, _ = restored(world, [run_of(0, 10)])
    counts = [(2, 5, 2, False), (6, 7, 7, False), (9, 12, 3, False)]
    subscription, is_whole = place_of(world, topic, 4, [(6, 8)], counts=counts)
    assert is_whole
    assert subscription.counts() == [(4, 5, 2, False), (9, 12, 3, False)]
    world.register(b"a")
    grant = world.pull()
    assert grant is not None
    assert [(piece.first, piece.next, piece.deliveries) for piece in grant.pieces] == [
        (4, 5, 3),
        (5, 6, 1),
        (8, 9, 1),
        (9, 10, 4),
        (10, 12, 4),
        *[(first, first + 2, 1) for first in range(12, 20, 2)],
    ]


def test_options_and_counters_are_restored() -> None:
    world = new_world()
    topic, _ = restored(world, [run_of(0, 10)])
    options = {"max_deliveries": 4, "dead_letter": "dead", "dropped": 5, "expired": 6}
    subscription, _ = place_of(world, topic, 4, [], **options)
    assert {name: getattr(subscription, name) for name in options} == options
    world.topic("dead")
    world.register(b"a")
    world.subscribe(max_deliveries=4, dead_letter="dead", ack_wait=9.0)
    assert world.changes().acknowledged == []


def test_what_was_parked_is_parked_after_a_restart_and_not_stored_again() -> None:
    world = new_world()
    topic, _ = restored(world, [run_of(0, 10)])
    counts = [(2, 4, 3, True), (8, 9, 1, True)]
    subscription, _ = place_of(world, topic, 0, [], max_deliveries=3, counts=counts)
    assert subscription.parked_ranges() == [(2, 4), (8, 9)]
    assert subscription.counts() == counts
    assert world.changes().redelivered == []
    world.register(b"a")
    assert world.pulled() == [0, 1, *range(4, 8), *range(9, 20)]


def test_what_was_at_the_maximum_is_moved_or_parked_after_a_restart() -> None:
    world = new_world()
    topic, _ = restored(world, [run_of(0, 10)])
    counts = [(2, 4, 3, False), (6, 7, 2, False)]
    moving = {"max_deliveries": 3, "dead_letter": "dead", "counts": counts}
    place_of(world, topic, 0, [], "audit", **moving)
    assert [(one.piece.first, one.piece.next) for one in world.exhausted()] == [(2, 4)]
    assert world.changes().redelivered == []
    parking, _ = place_of(world, topic, 0, [], max_deliveries=3, counts=counts)
    assert parking.parked_ranges() == [(2, 4)]
    assert world.changes().redelivered == [(parking, [(2, 4, 3, True)])]


def test_counts_beyond_the_end_of_the_topic_count_nothing() -> None:
    world = new_world()
    topic, _ = restored(world, [run_of(0, 10)], first_offset=4)
    counts = [(0, 2, 5, True), (2, 6, 3, False), (18, 25, 2, False), (30, 31, 9, True)]
    subscription, _ = place_of(world, topic, 0, [], counts=counts)
    assert subscription.counts() == [(4, 6, 3, False), (18, 20, 2, False)]
    assert subscription.parked_count == 0


def test_at_most_as_many_ranges_are_restored_as_there_may_be() -> None:
    world = new_world(subscription_ranges=8)
    topic, _ = restored(world, [run_of(0, 10)])
    counts = [(offset, offset + 1, 2, False) for offset in range(0, 20, 2)]
    subscription, _ = place_of(world, topic, 0, [], counts=counts)
    assert (subscription.ranges, len(subscription.counts())) == (8, 4)
    world.register(b"a")
    assert world.pulled(count=1) == [0]


def test_an_ack_from_before_a_restart_counts_unless_it_was_moved_since() -> None:
    world = new_world()
    topic, _ = restored(world, [run_of(0, 10)])
    place_of(world, topic, 0, [], counts=[(0, 2, 2, False)])
    world.register(b"a")
    assert world.ack((1, 3)) == 2
    world.seek(0)
    assert world.ack((1, 3)) == 0


# --- sessions ---------------------------------------------------------------------------------


def test_a_restored_session_answers_retries() -> None:
    world = new_world(sends_in_flight=3)
    restored(world, [run_of(0, 10)])
    answers = [(2, 7, 0, 2), (4, 7, 2, 2), (5, 7, 4, 2), (9, 7, 6, 2)]
    world.core.restore_session(b"s", answers, world.now)
    world.core.check()
    for sequence, _, offset, count in answers[1:]:
        stored = world.accept(sequence=sequence)
        assert (stored.is_new, stored.receipt) == (False, Receipt("orders", offset, count))
    for sequence in (1, 2, 3, 8):
        with pytest.raises(OutcomeUnknown):
            world.accept(sequence=sequence)
    assert world.accept(sequence=10).receipt.offset == 20


def test_a_retry_into_a_topic_that_is_gone_is_answered_by_the_name_it_says() -> None:
    world = new_world()
    world.core.restore_session(b"s", [(1, 6, 40, 2)], world.now)
    assert world.accept(2, sequence=1, topic="gone").receipt == Receipt("gone", 40, 2)


def test_a_session_whose_numbers_begin_again_is_the_later_one() -> None:
    world = new_world()
    world.core.restore_session(b"s", [(5, 6, 40, 2), (1, 6, 50, 2)], world.now)
    world.core.check()
    assert world.accept(2, sequence=1, topic="gone").receipt.offset == 50
    world.topic()
    assert world.accept(sequence=2).is_new


def test_a_restored_session_is_in_use_from_then_on() -> None:
    world = new_world()
    world.core.restore_session(b"s", [(1, 6, 40, 2)], world.now)
    world.advance(659)
    assert world.core.session_count == 1
    world.advance(2)
    assert world.core.session_count == 0
