"""Deliveries: messages that cannot be read any more, and reads that take time."""

from collections.abc import Callable

import pytest
from engine_bench import Bench
from engine_client import Messages
from engine_drivers import Pending

from mbctl import batch as batches
from mbctl.errors import DataLoss, DiskFull, ServerStopping
from mbctl.journal.records import Acknowledged, TopicTrimmed
from mbctl.model import Limits, SubscriptionInfo


def loss_of(pull: Pending) -> tuple[object, object, object]:
    """What a pull was told is lost."""
    with pytest.raises(DataLoss) as loss:
        pull.result()
    return loss.value.topic, loss.value.first, loss.value.next


def lost_of(bench: Bench, subscriber: str = "billing") -> int:
    info = bench.driver.call("subscription", "orders", subscriber)
    assert isinstance(info, SubscriptionInfo)
    return info.lost


@pytest.fixture
def batches_of_two(bench: Bench) -> Bench:
    """Six batches of two messages, at places 1 to 6."""
    for number in range(6):
        bench.client.send(b"%d" % (2 * number), b"%d" % (2 * number + 1))
    return bench


def pull(bench: Bench, member: bytes = b"a", count: int = 10_000) -> Pending:
    pending = bench.client.start_pull(member, count)
    bench.runtime.run_turns()
    return pending


def payloads(*offsets: int) -> list[bytes]:
    return [b"%d" % offset for offset in offsets]


def test_a_pull_is_told_of_damage_and_the_next_one_gets_the_rest(batches_of_two: Bench) -> None:
    bench = batches_of_two
    bench.journal.damaged = {3}
    assert loss_of(pull(bench)) == ("orders", 4, 6)
    got = Messages(pull(bench).result())
    assert got.payloads == payloads(0, 1, 2, 3, 6, 7, 8, 9, 10, 11)
    assert {message.deliveries for message in got} == {1}
    assert lost_of(bench) == 2
    assert pull(bench).result().pieces == []


def test_damage_to_batches_that_follow_each_other_is_told_at_once(batches_of_two: Bench) -> None:
    bench = batches_of_two
    bench.journal.damaged = {2, 3, 4}
    assert loss_of(pull(bench)) == ("orders", 2, 8)
    assert Messages(pull(bench).result()).payloads == payloads(0, 1, 8, 9, 10, 11)


def test_damage_in_several_places_is_told_to_one_pull_after_another(batches_of_two: Bench) -> None:
    bench = batches_of_two
    bench.journal.damaged = {1, 3, 6}
    losses = [loss_of(pull(bench)) for _ in range(3)]
    assert losses == [("orders", 0, 2), ("orders", 4, 6), ("orders", 10, 12)]
    assert Messages(pull(bench).result()).payloads == payloads(2, 3, 6, 7, 8, 9)
    assert lost_of(bench) == 6


def test_a_whole_batch_is_lost_when_a_part_of_it_is_asked_for(batches_of_two: Bench) -> None:
    bench = batches_of_two
    bench.journal.damaged = {1}
    assert loss_of(pull(bench, count=1)) == ("orders", 0, 2)
    assert Messages(pull(bench, count=1).result()).payloads == [b"2"]


def test_messages_read_before_the_damage_are_not_counted_as_lost(batches_of_two: Bench) -> None:
    bench = batches_of_two
    assert Messages(pull(bench, count=1).result()).payloads == [b"0"]
    bench.ack((0, 1))
    bench.journal.damaged = {1}
    assert loss_of(pull(bench)) == ("orders", 1, 2)
    assert lost_of(bench) == 1


def test_each_subscription_is_told_once(batches_of_two: Bench) -> None:
    bench = batches_of_two
    bench.client.reader(b"b", "audit", start="earliest")
    bench.client.reader(b"c", "audit")
    bench.journal.damaged = {1}
    for member in (b"a", b"b"):
        assert loss_of(pull(bench, member)) == ("orders", 0, 2)
    for member in (b"a", b"c"):
        assert Messages(pull(bench, member).result()).payloads == payloads(*range(2, 12))
    assert (lost_of(bench), lost_of(bench, "audit")) == (2, 2)


def test_the_loss_is_told_when_passing_over_it_is_durable(batches_of_two: Bench) -> None:
    bench = batches_of_two
    bench.journal.damaged = {1}
    bench.journal.hold = True
    del bench.journal.records[:]
    told = pull(bench)
    assert not told.done
    topic_id = bench.client.topic_ids["orders"]
    assert bench.journal.records == [
        Acknowledged(topic_id, "billing", [(0, 2)]),
        TopicTrimmed(topic_id, 2),
    ]
    bench.let_go()
    assert loss_of(told) == ("orders", 0, 2)
    assert bench.journal.released == [1]


def test_what_is_given_back_goes_to_a_pull_that_waits(batches_of_two: Bench) -> None:
    bench = batches_of_two
    bench.client.reader(b"b")
    bench.journal.damaged = {2}
    bench.journal.hold_reads = True
    told = pull(bench)
    waits = bench.client.start_pull(b"b", wait_s=5)
    bench.journal.hold_reads = False
    bench.journal.let_reads_go()
    bench.runtime.run_turns()
    assert loss_of(told) == ("orders", 2, 4)
    assert Messages(waits.result()).payloads == payloads(0, 1, *range(4, 12))


def test_damage_that_an_ephemeral_reader_meets_is_told_and_not_stored(
    batches_of_two: Bench,
) -> None:
    bench = batches_of_two
    bench.client.reader(b"look", None, start="earliest")
    bench.journal.damaged = {1}
    del bench.journal.records[:]
    assert loss_of(pull(bench, b"look")) == ("orders", 0, 2)
    assert Messages(pull(bench, b"look").result()).payloads == payloads(*range(2, 12))
    assert bench.journal.records == []


def test_a_loss_is_not_passed_over_while_there_is_no_room_to_store_that(
    batches_of_two: Bench,
) -> None:
    bench = batches_of_two
    bench.journal.damaged = {2}
    bench.journal.is_full = True
    with pytest.raises(DiskFull):
        pull(bench).result()
    assert lost_of(bench) == 0
    bench.journal.is_full = False
    assert loss_of(pull(bench)) == ("orders", 2, 4)


@pytest.mark.parametrize(
    "leave",
    [
        lambda bench: bench.driver.tell("close_member", b"a"),
        lambda bench: bench.driver.start("unsubscribe", "orders", "billing"),
        lambda bench: bench.driver.start("delete_topic", "orders"),
    ],
    ids=["process", "subscription", "topic"],
)
def test_a_loss_found_after_its_reader_is_gone_changes_nothing(
    batches_of_two: Bench, leave: Callable[[Bench], object]
) -> None:
    bench = batches_of_two
    bench.journal.damaged = {1}
    bench.journal.hold_reads = True
    told = pull(bench)
    leave(bench)
    bench.runtime.run_turns()
    bench.journal.hold_reads = False
    del bench.journal.records[:]
    bench.journal.let_reads_go()
    bench.runtime.run_turns()
    assert told.result().pieces == []
    assert bench.journal.records == []


def test_every_other_batch_damaged_at_the_bound_on_ranges_gets_on() -> None:
    bench = Bench(Limits(subscription_ranges=8))
    for number in range(40):
        bench.client.send(b"%d" % number)
    bench.journal.damaged = set(range(2, 41, 2))
    got: list[bytes] = []
    losses = empty = 0
    while bench.client.kept() and empty < 5:
        pending = pull(bench, count=3)
        bench.engine.core.check()
        if isinstance(pending.answers[0], DataLoss):
            losses += 1
            continue
        messages = Messages(pending.result())
        empty += not messages
        got += messages.payloads
        if messages:
            bench.client.ack(messages)
    assert got == [b"%d" % number for number in range(0, 40, 2)]
    assert losses == 20
    assert lost_of(bench) == 20


# --- reads that take time, and the end ----------------------------------------------------------


def test_closing_waits_for_reads_under_way(batches_of_two: Bench) -> None:
    bench = batches_of_two
    bench.journal.hold_reads = True
    reading, waiting = pull(bench, count=2), bench.client.start_pull(count=100, wait_s=60)
    closed = bench.start("close")
    assert not closed.done
    bench.journal.let_reads_go()
    assert Messages(reading.result()).payloads == payloads(0, 1)
    assert closed.done
    assert waiting.done


def test_closing_waits_for_a_read_that_takes_longer_than_the_last_commit(
    batches_of_two: Bench,
) -> None:
    bench = batches_of_two
    bench.journal.hold_reads = bench.journal.hold = True
    reading, send = pull(bench), bench.send(b"x")
    closed = bench.start("close")
    bench.let_go()
    assert (send.done, reading.done, closed.done) == (True, False, False)
    bench.journal.let_reads_go()
    assert (reading.done, closed.done) == (True, True)


def test_damage_found_while_closing_is_left_to_the_next_process(batches_of_two: Bench) -> None:
    bench = batches_of_two
    bench.journal.hold_reads = True
    bench.journal.damaged = {1}
    reading = pull(bench)
    closed = bench.start("close")
    del bench.journal.records[:]
    bench.journal.let_reads_go()
    assert reading.result().pieces == []
    assert closed.done
    assert bench.journal.records == []


def test_a_closed_engine_refuses_what_comes_then(bench: Bench) -> None:
    assert bench.start("close").done
    with pytest.raises(ServerStopping):
        bench.start("send", b"s", 1, "orders", batches.encode([b"x"]), age_ms=0).result()
