"""Pulls that wait: who wakes them, with what, and when they end."""

import pytest
from core_world import World, offsets, woken

from mbctl.errors import NotSubscribed, ProtocolError, TopicNotFound


def waiting_world(**reader) -> World:
    """A topic without messages, and one who reads it."""
    world = World()
    world.topic()
    world.reader(**reader)
    return world


def test_a_pull_without_a_wait_is_answered_at_once() -> None:
    world = waiting_world()
    grant = world.pull()
    assert (grant.topic, grant.subscriber, offsets(grant)) == ("orders", "billing", [])


def test_a_waiting_pull_is_answered_when_messages_become_durable() -> None:
    world = waiting_world()
    token = world.wait()
    world.accept(3)
    assert world.advance(1) == []
    assert woken(world.reveal()) == {token: [0, 1, 2]}
    assert world.advance(100) == []


def test_a_waiting_pull_is_answered_empty_when_its_time_is_up() -> None:
    world = waiting_world()
    token = world.wait(wait_s=5)
    assert world.advance(4.999) == []
    assert woken(world.advance(0.001)) == {token: []}
    world.send(1)
    assert world.pulled() == [0]


def test_waiting_pulls_are_answered_in_the_order_they_came() -> None:
    world = waiting_world()
    world.register(b"b")
    tokens = [world.wait(b"a", 2), world.wait(b"b", 2), world.wait(b"a", 2)]
    world.accept(3)
    assert woken(world.reveal()) == {tokens[0]: [0, 1], tokens[1]: [2]}
    world.accept(1)
    assert woken(world.reveal()) == {tokens[2]: [3]}


def test_every_subscription_that_waits_is_answered() -> None:
    world = waiting_world()
    world.reader(b"b", "audit")
    world.reader(b"c", None)
    tokens = [world.wait(member) for member in (b"a", b"b", b"c")]
    world.accept(1)
    assert woken(world.reveal()) == {token: [0] for token in tokens}


def test_a_cancelled_pull_is_answered_once() -> None:
    world = waiting_world()
    token = world.wait()
    assert woken(world.core.cancel_pull(token)) == {token: []}
    assert world.core.cancel_pull(token) == []
    world.core.check()
    world.send(1)
    assert world.pulled() == [0]


def test_what_is_given_back_wakes_a_pull() -> None:
    world = waiting_world()
    world.register(b"b")
    world.send(3)
    world.pull(b"a")
    token = world.wait(b"b")
    count, wakes = world.nack_wakes([(1, 2)])
    assert (count, woken(wakes)) == (1, {token: [1]})


def test_a_delay_that_ends_wakes_a_pull() -> None:
    world = waiting_world()
    world.send(1)
    world.pull()
    assert world.nack((0, 1), delay_s=2) == 1
    token = world.wait(wait_s=5)
    assert woken(world.advance(2)) == {token: [0]}


def test_a_lease_that_expires_wakes_a_pull() -> None:
    world = waiting_world(ack_wait=2.0)
    world.register(b"b")
    world.send(1)
    world.pull(b"a")
    token = world.wait(b"b", wait_s=5)
    assert woken(world.advance(2)) == {token: [0]}


def test_a_pull_gets_what_comes_free_in_its_last_moment() -> None:
    world = waiting_world(ack_wait=5.0)
    world.register(b"b")
    world.send(1)
    world.pull(b"a")
    token = world.wait(b"b", wait_s=5)
    assert woken(world.advance(5)) == {token: [0]}


def test_a_process_that_is_gone_wakes_the_pull_of_another() -> None:
    world = waiting_world()
    world.register(b"b")
    world.send(3)
    world.pull(b"a", 2)
    world.pull(b"b", 1)
    token = world.wait(b"b")
    assert woken(world.close(b"a")) == {token: [0, 1]}


def test_the_pulls_of_a_process_that_is_gone_end_empty() -> None:
    world = waiting_world()
    tokens = [world.wait(), world.wait()]
    assert woken(world.close(b"a")) == {tokens[0]: [], tokens[1]: []}
    assert world.core.next_deadline_ns() is None


def test_the_pulls_before_a_reconnect_end_empty() -> None:
    world = waiting_world()
    token = world.wait()
    assert woken(world.register(b"a")) == {token: []}


def test_the_end_of_a_subscription_refuses_its_waiting_pulls() -> None:
    world = waiting_world()
    world.register(b"b")
    tokens = {world.wait(b"a"), world.wait(b"b")}
    _, wakes = world.core.unsubscribe("orders", "billing")
    world.core.check()
    assert {wake.token for wake in wakes} == tokens
    assert all(isinstance(wake.result, NotSubscribed) for wake in wakes)


def test_the_end_of_a_topic_refuses_its_waiting_pulls() -> None:
    world = waiting_world()
    world.topic("others")
    world.reader(b"a", topic="others")
    world.reader(b"b", "audit")
    tokens = {world.wait(b"a"), world.wait(b"b")}
    other = world.wait(b"a", topic="others")
    _, wakes = world.core.delete_topic("orders")
    world.core.check()
    assert {wake.token for wake in wakes} == tokens
    assert all(isinstance(wake.result, TopicNotFound) for wake in wakes)
    world.accept(1, "others")
    assert woken(world.reveal("others")) == {other: [0]}


def test_pulling_needs_a_process_a_topic_and_a_subscription() -> None:
    world = waiting_world()
    world.topic("others")
    with pytest.raises(ProtocolError):
        world.pull(b"nobody")
    with pytest.raises(TopicNotFound):
        world.pull(topic="nowhere")
    with pytest.raises(NotSubscribed):
        world.pull(topic="others")


def test_a_reader_that_missed_messages_is_told_when_it_is_woken() -> None:
    world = waiting_world()
    world.reader(b"look", None)
    world.send(2)
    world.pull(b"look")
    world.nack((0, 1), member=b"look", counted=False, delay_s=3)
    token = world.wait(b"look", wait_s=60)
    world.ack((0, 2))
    world.commit()
    [wake] = world.advance(3)
    assert (wake.token, wake.result.skipped, offsets(wake.result)) == (token, 1, [])
