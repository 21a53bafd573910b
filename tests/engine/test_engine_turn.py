"""Turns: what ends one, what it stores, and what becomes of it when the journal fails."""

import pytest
from engine_bench import Bench
from engine_client import Client
from engine_drivers import LocalDriver, VolatileStore

from mbctl.errors import OutcomeUnknown, ServerStopping, StorageFailed
from mbctl.journal.memory import MemoryJournal
from mbctl.journal.records import Acknowledged, SubscriptionDeleted, TopicTrimmed
from mbctl.model import MIB, SubscribeOptions, TopicSettings

FAILURE = StorageFailed(path="0000000001.log", reason="input/output error")


# --- acks that a pull carries -------------------------------------------------------------------


def test_an_ack_carried_by_a_pull_forces_no_commit_of_its_own(bench: Bench) -> None:
    bench.client.send(*[b"x"] * 10)
    bench.client.pull()
    commits = bench.journal.commits
    del bench.journal.records[:]
    for offset in range(5):
        bench.ack_with_pull((offset, offset + 1))
    bench.driver.advance(0.09)
    assert (bench.journal.commits, bench.journal.records) == (commits, [])
    bench.driver.advance(0.02)
    topic_id = bench.client.topic_ids["orders"]
    assert bench.journal.commits == commits + 1
    assert bench.journal.records == [
        Acknowledged(topic_id, "billing", [(0, 5)]),
        TopicTrimmed(topic_id, 5),
    ]
    bench.driver.advance(1)
    assert bench.journal.commits == commits + 1


def test_an_ack_carried_by_a_pull_takes_effect_at_once_where_a_commit_costs_nothing() -> None:
    driver = LocalDriver(VolatileStore(lambda runtime: MemoryJournal(64 * MIB)))
    client = Client(driver)
    client.create_topic("orders")
    client.reader()
    client.send(*[b"x"] * 10)
    client.pull()
    topic_id = client.topic_ids["orders"]
    driver.tell("ack_with_pull", b"a", "orders", topic_id, [(0, 10)])
    driver.runtime.run_turns()
    assert driver.call("topic", "orders").messages == 0


def test_an_ack_carried_by_a_pull_rides_with_the_next_turn_that_ends(bench: Bench) -> None:
    bench.client.send(*[b"x"] * 10)
    bench.client.pull()
    commits = bench.journal.commits
    del bench.journal.records[:]
    bench.ack_with_pull((0, 3))
    bench.driver.advance(0.01)
    bench.send(b"more")
    assert bench.journal.commits == commits + 1
    assert len(bench.journal.records) == 2
    bench.driver.advance(1)
    assert bench.journal.commits == commits + 1


def test_a_pull_that_carries_an_ack_does_not_wait_for_it(held: Bench) -> None:
    held.send(b"one", b"two")
    held.let_go()
    held.client.pull(count=1)
    held.ack_with_pull((0, 1))
    pull = held.client.start_pull()
    assert held.pulled(pull) == [b"two"]
    assert held.journal.waiting == 0


def test_an_ack_that_changes_nothing_stores_nothing(bench: Bench) -> None:
    bench.client.send(b"one")
    bench.client.reader(b"look", None, start="earliest")
    bench.client.pull(b"look")
    records = list(bench.journal.records)
    topic_id = bench.client.topic_ids["orders"]
    bench.ack_with_pull((5, 9))
    bench.driver.tell("ack_with_pull", b"look", "orders", topic_id, [(0, 1)])
    bench.driver.advance(1)
    assert bench.journal.records == records


# --- trimming -----------------------------------------------------------------------------------


def test_what_is_trimmed_is_stored_after_what_allows_it(bench: Bench) -> None:
    bench.client.reader(b"b", "audit", start="earliest")
    bench.client.send(*[b"x"] * 4)
    bench.client.pull()
    bench.ack((0, 3))
    del bench.journal.records[:]
    topic_id = bench.client.topic_ids["orders"]
    bench.driver.start("unsubscribe", "orders", "audit")
    bench.ack((3, 4))
    assert bench.journal.records == [
        SubscriptionDeleted(topic_id, "audit"),
        Acknowledged(topic_id, "billing", [(3, 4)]),
        TopicTrimmed(topic_id, 4),
    ]
    assert bench.journal.released == [1]


def test_places_are_released_when_the_turn_that_gave_them_up_is_durable(held: Bench) -> None:
    held.send(b"one")
    held.send(b"two")
    held.let_go()
    held.client.pull()
    first, second = held.ack((0, 1)), held.ack((1, 2))
    assert held.journal.released == []
    held.let_go(1)
    assert (first.done, second.done, held.journal.released) == (True, False, [1])
    held.let_go()
    assert held.journal.released == [1, 2]


def test_millions_of_places_are_released_over_several_turns(bench: Bench) -> None:
    for _ in range(450):
        for _ in range(100):
            bench.client.start_send(b"x")
        bench.runtime.run_turns()
    bench.driver.start("ack", b"a", "orders", bench.client.topic_ids["orders"], [(0, 45_000)])
    seen = []
    for _ in range(4):
        bench.runtime.run_turn()
        seen.append(len(bench.journal.released))
    assert seen == [0, 20_000, 40_000, 45_000]
    assert bench.journal.released == list(range(1, 45_001))
    bench.client.send(b"x")
    bench.client.ack([(45_000, 45_001)])
    assert len(bench.journal.released) == 45_001


# --- a journal that fails -----------------------------------------------------------------------


def failed(bench: Bench) -> list[object]:
    """Let the journal of ``bench`` fail; whom the engine told."""
    told: list[object] = []
    bench.engine.on_failure = told.append
    bench.journal.on_failure(FAILURE)
    return told


def test_what_waits_for_a_commit_has_an_unknown_outcome_when_the_journal_fails(
    held: Bench,
) -> None:
    held.send(b"one")
    held.let_go()
    held.client.pull()
    under_way = [held.send(b"two"), held.ack((0, 1))]
    gathering = [held.client.start_send(b"three")]
    assert failed(held) == [FAILURE]
    for request in under_way + gathering:
        with pytest.raises(OutcomeUnknown):
            request.result()


def test_pulls_that_wait_or_are_read_end_when_the_journal_fails(bench: Bench) -> None:
    bench.client.send(b"one")
    bench.journal.hold_reads = True
    pulls = [bench.client.start_pull(), bench.client.start_pull(wait_s=60)]
    assert not any(pull.done for pull in pulls)
    failed(bench)
    for pull in pulls:
        with pytest.raises(ServerStopping):
            pull.result()
    bench.journal.let_reads_go()


def test_nothing_is_shown_or_released_after_the_journal_failed(held: Bench) -> None:
    held.send(b"one")
    held.let_go()
    held.client.pull()
    held.ack((0, 1))
    held.send(b"two")
    failed(held)
    held.let_go()
    held.driver.advance(100)
    assert held.journal.released == []
    assert held.engine.core.topics.named("orders").visible_next == 1
    assert held.runtime.next_timer_ns() is None


def test_every_later_verb_is_refused_after_the_journal_failed(bench: Bench) -> None:
    failed(bench)
    topic_id = bench.client.topic_ids["orders"]
    settle = (b"a", "orders", topic_id, [(0, 1)])
    commits = bench.journal.commits
    for verb, args, named in (
        ("register_publisher", (b"s",), {}),
        ("create_topic", ("others", TopicSettings(), True), {}),
        ("delete_topic", ("orders",), {}),
        ("send", (b"s", 1, "orders", b"\x91\x91\xc4\x01x"), {"age_ms": 0}),
        ("register_subscriber", (b"b", "audit"), {}),
        ("subscribe", (b"a", "orders", SubscribeOptions()), {}),
        ("unsubscribe", ("orders", "billing"), {}),
        ("pull", (b"a", "orders"), {"max_messages": 1, "max_bytes": 9, "wait_ms": 9}),
        ("ack", settle, {}),
        ("nack", settle, {"delay_ms": 0, "counted": True}),
        ("extend", settle, {}),
        ("topics", (), {}),
        ("topic", ("orders",), {}),
        ("why", ("orders",), {}),
        ("subscriptions", (None,), {}),
        ("subscription", ("orders", "billing"), {}),
        ("status", (), {}),
    ):
        with pytest.raises(ServerStopping):
            bench.start(verb, *args, **named).result()
    bench.ack_with_pull((0, 1))
    bench.driver.tell("close_member", b"a")
    bench.driver.tell("cancel_pull", 1)
    bench.driver.advance(10)
    assert bench.journal.commits == commits
    assert bench.journal.heads == []


def test_a_failed_engine_can_be_closed(held: Bench) -> None:
    held.send(b"one")
    failed(held)
    assert held.start("close").done


def test_an_engine_that_fails_while_it_closes_is_closed(held: Bench) -> None:
    send = held.send(b"one")
    closed = held.start("close")
    assert not closed.done
    failed(held)
    assert closed.done
    with pytest.raises(OutcomeUnknown):
        send.result()


def test_a_verb_during_which_the_journal_fails_has_an_unknown_outcome(bench: Bench) -> None:
    told: list[object] = []
    bench.engine.on_failure = told.append
    append_batch = bench.journal.append_batch

    def failing(*what: object) -> int:
        bench.journal.on_failure(FAILURE)
        return append_batch(*what)  # type: ignore[arg-type]

    bench.journal.append_batch = failing  # type: ignore[method-assign]
    send = bench.send(b"one")
    with pytest.raises(OutcomeUnknown):
        send.result()
    assert told == [FAILURE]


def test_a_turn_whose_end_fails_has_an_unknown_outcome(bench: Bench) -> None:
    bench.journal.commit = lambda done: bench.journal.on_failure(FAILURE)  # type: ignore[method-assign]
    send = bench.send(b"one")
    with pytest.raises(OutcomeUnknown):
        send.result()


def test_what_is_asked_from_within_an_answer_is_refused_after_a_failure(held: Bench) -> None:
    answers: list[object] = []

    def again(answer: object) -> None:
        answers.append(answer)
        if len(answers) < 3:
            held.engine.create_topic("more", TopicSettings(), True, again)

    held.engine.create_topic("others", TopicSettings(), True, again)
    failed(held)
    assert [type(answer) for answer in answers] == [OutcomeUnknown, ServerStopping, ServerStopping]
