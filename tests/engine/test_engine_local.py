"""The local engine and its journal: what is stored, and what waits for it to be durable.

The journal's commits are held back here, so that a test sees what happens before.
"""

import gc
import weakref
from functools import partial
from typing import Any

import pytest
from engine_bench import Bench
from engine_client import Messages, session_id
from engine_drivers import TestJournal, VirtualRuntime

from mbctl import batch as batches
from mbctl.engine.local import LocalEngine
from mbctl.errors import DiskFull, InvalidArgument, TopicFull, TopicNotFound
from mbctl.journal.records import (
    Acknowledged,
    SubscriptionDeleted,
    SubscriptionState,
    TopicCreated,
    TopicDeleted,
    TopicTrimmed,
)
from mbctl.model import MIB, NS_PER_S, SubscribeOptions, TopicSettings

# --- nothing is answered or shown before it is durable ------------------------------------------


def test_a_send_is_answered_when_it_is_durable(held: Bench) -> None:
    send = held.send(b"one")
    assert not send.done
    held.let_go()
    assert send.result().count == 1


def test_a_message_is_seen_when_it_is_durable(held: Bench) -> None:
    waiting = held.client.start_pull(wait_s=5)
    held.send(b"one")
    assert not waiting.done
    assert held.client.pull() == []
    held.let_go()
    assert Messages(waiting.result()).payloads == [b"one"]


def test_what_came_later_waits_for_its_own_commit(held: Bench) -> None:
    sends = [held.send(b"one"), held.send(b"two")]
    assert held.journal.waiting == 2
    held.let_go(1)
    assert [send.done for send in sends] == [True, False]
    assert held.client.pull().payloads == [b"one"]
    held.let_go()
    assert held.client.pull().payloads == [b"two"]


def test_a_retry_waits_for_the_commit_of_its_first_attempt(held: Bench) -> None:
    first = held.client.start_send(b"one", sequence=1)
    held.runtime.run_turns()
    again = held.client.start_send(b"one", sequence=1)
    held.runtime.run_turns()
    assert not again.done
    held.let_go()
    assert again.result() == first.result()
    assert len(held.journal.heads) == 1


def test_creating_subscribing_acknowledging_and_deleting_wait_too(held: Bench) -> None:
    verbs = [
        partial(held.start, "create_topic", "others", TopicSettings(), True),
        partial(held.start, "create_topic", "others", TopicSettings(), True),
        partial(held.start, "subscribe", b"a", "others", SubscribeOptions()),
        partial(held.start, "subscribe", b"a", "others", SubscribeOptions()),
        partial(held.start, "unsubscribe", "others", "billing"),
        partial(held.start, "delete_topic", "others"),
    ]
    for verb in verbs:
        pending = verb()
        assert not pending.done
        held.let_go()
        assert pending.done
        pending.result()


def test_an_ack_is_answered_when_it_is_durable_also_the_second_time(held: Bench) -> None:
    held.send(b"one")
    held.let_go()
    got = held.client.pull()
    topic_id = held.client.topic_ids["orders"]
    acks = [held.start("ack", b"a", "orders", topic_id, [(0, 1)]) for _ in range(2)]
    assert [ack.done for ack in acks] == [False, False]
    held.let_go()
    assert [ack.result() for ack in acks] == [1, 0]
    assert got.payloads == [b"one"]


def test_a_refusal_does_not_wait(held: Bench) -> None:
    with pytest.raises(TopicNotFound):
        held.start("delete_topic", "nowhere").result()
    with pytest.raises(InvalidArgument):
        held.client.start_send(batch=b"").result()


# --- reclaiming follows what is durable ---------------------------------------------------------


def test_an_ack_that_is_not_durable_releases_nothing(held: Bench) -> None:
    held.send(b"one")
    held.send(b"two")
    held.let_go()
    held.client.pull()
    topic_id = held.client.topic_ids["orders"]
    held.start("ack", b"a", "orders", topic_id, [(0, 1)])
    held.start("ack", b"a", "orders", topic_id, [(1, 2)])
    assert held.journal.released == []
    held.let_go(1)
    assert held.journal.released == [1]
    held.let_go()
    assert held.journal.released == [1, 2]


def test_a_deleted_subscription_releases_nothing_before_that_is_durable(held: Bench) -> None:
    held.client.driver.tell("close_member", b"b")
    held.start("register_subscriber", b"b", "audit")
    held.start("subscribe", b"b", "orders", SubscribeOptions(start="earliest"))
    held.send(b"one")
    held.let_go()
    held.start("ack", b"a", "orders", held.client.topic_ids["orders"], [(0, 1)])
    held.start("unsubscribe", "orders", "audit")
    held.let_go(1)
    assert held.journal.released == []
    held.let_go()
    assert held.journal.released == [1]


def test_a_deleted_topic_releases_nothing_before_that_is_durable(held: Bench) -> None:
    held.send(b"one")
    held.let_go()
    held.send(b"two")
    held.start("delete_topic", "orders")
    held.let_go(1)
    assert held.journal.released == []
    held.let_go()
    assert sorted(held.journal.released) == [1, 2]


def test_the_space_of_a_large_topic_is_released_over_several_turns(bench: Bench) -> None:
    for _ in range(500):
        for _ in range(100):
            bench.client.start_send(b"x")
        bench.runtime.run_turns()
    bench.start("create_topic", "others", TopicSettings(), True)
    deleted = bench.driver.start("delete_topic", "orders")
    bench.runtime.run_turn()
    assert deleted.done
    assert bench.journal.released == []
    bench.runtime.run_turn()
    assert len(bench.journal.released) == 20_000
    bench.runtime.run_turn()
    assert len(bench.journal.released) == 40_000
    bench.runtime.run_turns()
    assert len(bench.journal.released) == 50_000
    assert bench.journal.taken == 0


# --- the journal is told of every durable change ------------------------------------------------


def test_a_batch_is_stored_as_it_came_with_whose_and_where_it_is(bench: Bench) -> None:
    body = batches.encode([b"one", b"two"])
    bench.client.send(batch=body, session=b"s1", sequence=7)
    [head] = bench.journal.heads
    assert head.topic_id == bench.client.topic_ids["orders"]
    assert (head.first_offset, head.count) == (0, 2)
    assert (head.session, head.sequence) == (session_id(b"s1"), 7)
    assert head.timestamp == bench.client.pull()[0].timestamp
    read: list[Any] = []
    bench.journal.read([1], read.extend)
    assert read == [body]


def test_every_change_of_a_topic_is_stored(bench: Bench) -> None:
    del bench.journal.records[:]
    bench.client.create_topic("small", max_messages=5)
    topic_id = bench.client.topic_ids["small"]
    bench.client.create_topic("small", exist_ok=True, max_messages=5)
    bench.client.driver.call("delete_topic", "small")
    created, deleted = bench.journal.records
    assert isinstance(created, TopicCreated)
    assert (created.topic_id, created.name, created.settings.max_messages) == (topic_id, "small", 5)
    assert deleted == TopicDeleted(topic_id)


def test_every_change_of_a_durable_subscription_is_stored(bench: Bench) -> None:
    topic_id = bench.client.topic_ids["orders"]
    bench.client.send(*[b"x"] * 10)

    def taken() -> list[Any]:
        records = bench.journal.records[:]
        del bench.journal.records[:]
        return records

    [_, created] = taken()
    assert isinstance(created, SubscriptionState)
    assert (created.topic_id, created.subscriber, created.cursor) == (topic_id, "billing", 0)
    bench.client.subscribe()
    assert taken() == []
    bench.client.subscribe(ack_wait=5.0)
    assert [state.ack_wait_ns for state in taken()] == [5 * NS_PER_S]
    bench.client.pull()
    assert taken() == []
    bench.client.ack([(0, 2), (4, 6)])
    acknowledged = Acknowledged(topic_id, "billing", [(0, 2), (4, 6)])
    assert taken() == [acknowledged, TopicTrimmed(topic_id, 2)]
    bench.client.ack([(5, 7)])
    assert taken() == [Acknowledged(topic_id, "billing", [(6, 7)])]
    bench.client.nack([(2, 3)])
    bench.client.extend([(3, 4)])
    assert taken() == []
    bench.client.driver.call("unsubscribe", "orders", "billing")
    assert taken() == [SubscriptionDeleted(topic_id, "billing")]


def test_a_state_that_is_stored_has_what_was_acknowledged_in_the_same_turn(bench: Bench) -> None:
    bench.client.send(*[b"x"] * 10)
    bench.client.pull()
    del bench.journal.records[:]
    topic_id = bench.client.topic_ids["orders"]
    bench.driver.start("ack", b"a", "orders", topic_id, [(0, 2), (4, 6)])
    bench.driver.start("subscribe", b"a", "orders", SubscribeOptions(ack_wait=5.0))
    bench.runtime.run_turns()
    state, acknowledged, trimmed = bench.journal.records
    assert isinstance(state, SubscriptionState)
    assert (state.cursor, state.acknowledged) == (2, [(4, 6)])
    assert acknowledged == Acknowledged(topic_id, "billing", [(0, 2), (4, 6)])
    assert trimmed == TopicTrimmed(topic_id, 2)


def test_what_is_ephemeral_is_never_stored(bench: Bench) -> None:
    del bench.journal.records[:]
    bench.client.reader(b"look", None, start="earliest")
    bench.client.send(b"one")
    bench.client.ack(bench.client.pull(b"look"), b"look")
    bench.client.driver.call("unsubscribe", "orders", f"~{b'look'.hex()}")
    bench.client.reader(b"look", None)
    bench.client.driver.tell("close_member", b"look")
    bench.driver.advance(100)
    assert bench.journal.records == []


def test_everything_of_one_turn_is_committed_together(bench: Bench) -> None:
    bench.client.send(b"first")
    commits = bench.journal.commits
    sends = [bench.client.start_send(b"x") for _ in range(50)]
    bench.driver.start("create_topic", "others", TopicSettings(), True)
    assert not any(send.done for send in sends)
    bench.runtime.run_turns()
    assert all(send.done for send in sends)
    assert bench.journal.commits == commits + 1


def test_all_acks_of_one_turn_are_stored_as_one_record(bench: Bench) -> None:
    bench.client.send(*[b"x"] * 5)
    bench.client.pull()
    del bench.journal.records[:]
    topic_id = bench.client.topic_ids["orders"]
    for offset in range(5):
        bench.driver.start("ack", b"a", "orders", topic_id, [(offset, offset + 1)])
    bench.runtime.run_turns()
    assert bench.journal.records == [
        Acknowledged(topic_id, "billing", [(0, 5)]),
        TopicTrimmed(topic_id, 5),
    ]


# --- refusals change nothing --------------------------------------------------------------------


def test_a_refused_send_leaves_nothing_behind() -> None:
    bench = Bench(max_bytes=1_000)
    bench.client.create_topic("small", max_messages=1)
    bench.client.send(b"x", topic="small")
    heads, records = len(bench.journal.heads), len(bench.journal.records)
    for refusal, topic, payload in (
        (DiskFull, "orders", b"x" * 2_000),
        (TopicFull, "small", b"x"),
        (TopicNotFound, "nowhere", b"x"),
    ):
        with pytest.raises(refusal):
            bench.client.send(payload, topic=topic)
    assert (len(bench.journal.heads), len(bench.journal.records)) == (heads, records)
    assert bench.client.kept() == 0
    assert bench.client.send(b"x").offset == 0


def test_a_batch_that_fills_the_server_to_the_byte_is_taken() -> None:
    body = batches.encode([b"x" * 100])
    measured = Bench()
    measured.client.send(batch=body)
    room = measured.journal.taken + len(body)
    bench = Bench(max_bytes=room)
    bench.client.send(batch=body)
    bench.client.send(batch=body)
    tight = Bench(max_bytes=room - 1)
    tight.client.send(batch=body)
    with pytest.raises(DiskFull) as refusal:
        tight.client.send(batch=body)
    assert (refusal.value.size, refusal.value.limit) == (measured.journal.taken, room - 1)


def test_a_refused_batch_is_not_kept_in_memory() -> None:
    class Batch(bytearray):
        """A batch that tells when it is gone."""

    bench = Bench(max_bytes=1_000)
    batch = Batch(batches.encode([b"x" * 2_000]))
    alive = weakref.ref(batch)
    for _ in range(2):
        with pytest.raises(DiskFull):
            bench.client.send(batch=batch, sequence=1)
    bench.driver.pending.clear()
    del batch
    gc.collect()
    assert alive() is None


# --- time ---------------------------------------------------------------------------------------


def test_deadlines_are_kept_while_a_commit_takes_long(held: Bench) -> None:
    held.send(b"one")
    waits = [held.client.start_pull(wait_s=seconds) for seconds in (1, 2, 3)]
    for expected in (1, 2, 3):
        held.driver.advance(1)
        assert [wait.done for wait in waits] == [seconds <= expected for seconds in (1, 2, 3)]


def test_a_lease_that_a_wake_gave_expires_on_time(bench: Bench) -> None:
    bench.client.subscribe(ack_wait=1.0)
    first = bench.client.start_pull(wait_s=60)
    bench.client.send(b"one")
    assert Messages(first.result()).payloads == [b"one"]
    second = bench.client.start_pull(wait_s=60)
    bench.driver.advance(1.1)
    assert Messages(second.result())[0].deliveries == 2


def test_a_lease_that_a_reconnect_gave_to_another_expires_on_time(bench: Bench) -> None:
    bench.client.reader(b"b", ack_wait=1.0)
    bench.client.send(b"one")
    bench.client.pull(b"a")
    first = bench.client.start_pull(b"b", wait_s=60)
    bench.client.register(b"a")
    assert Messages(first.result()).payloads == [b"one"]
    second = bench.client.start_pull(b"a", wait_s=60)
    bench.driver.advance(1.1)
    assert Messages(second.result())[0].deliveries == 3


def test_sessions_that_are_idle_are_forgotten(bench: Bench) -> None:
    bench.client.send(b"one")
    assert bench.client.status().publishers == 1
    bench.driver.advance(700)
    assert bench.client.status().publishers == 0


def test_rates_are_those_of_the_last_seconds(bench: Bench) -> None:
    for _ in range(10):
        bench.client.send(*[b"x"] * 100)
        bench.client.ack(bench.client.pull())
        bench.driver.advance(1)
    status = bench.client.status()
    # Each round takes a little more than a second.
    assert 70 < status.messages_in_per_s < 110
    assert 70 < status.messages_out_per_s < 110
    bench.driver.advance(10)
    bench.client.status()
    bench.driver.advance(10)
    assert bench.client.status().messages_in_per_s == 0


def test_topic_ids_are_not_used_again_by_a_later_process() -> None:
    earlier = Bench()
    engine = LocalEngine(TestJournal(), VirtualRuntime(earlier.runtime.ns + NS_PER_S))
    assert engine.core.topics._next_id > earlier.client.topic_ids["orders"]


# --- the end ------------------------------------------------------------------------------------


def test_closing_waits_for_what_is_under_way(held: Bench) -> None:
    send, wait = held.send(b"one"), held.client.start_pull(wait_s=60)
    closed = held.driver.start("close")
    assert Messages(wait.result()) == []
    assert not send.done
    assert not closed.done
    held.let_go()
    assert send.done
    assert closed.done


def test_a_closed_engine_has_nothing_left_to_do(bench: Bench) -> None:
    for _ in range(50):
        bench.client.send(b"x")
    bench.client.pull()
    bench.driver.start("delete_topic", "orders")
    bench.driver.start("close")
    bench.driver.tell("close_member", b"a")
    bench.driver.tell("cancel_pull", 1)
    bench.driver.advance(1_000)
    assert bench.runtime.next_timer_ns() is None


def test_an_answer_may_ask_for_more_at_once(bench: Bench) -> None:
    """A callback that calls the engine, as an embedded user's may."""
    got: list[bytes] = []

    def again(answer: Any) -> None:
        messages = Messages(answer)
        got.extend(messages.payloads)
        if messages:
            pull()

    def pull() -> None:
        bench.engine.pull(b"a", "orders", max_messages=1, max_bytes=MIB, wait_ms=5_000, done=again)

    pull()
    bench.client.send(*[b"%d" % number for number in range(50)])
    bench.driver.settle()
    assert got == [b"%d" % number for number in range(50)]
