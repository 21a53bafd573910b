"""Points 3 and 4: where a subscription begins, and how long it lives."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from broker_process import wait_until
from semantic_worlds import World, drain, offsets, texts

from mbctl import InvalidArgument, OffsetOutOfRange, SubscriptionNotFound, TopicNotFound
from mbctl.model import AtTime, Limits

in_3 = pytest.mark.point(3)
in_4 = pytest.mark.point(4)


@in_3
def test_the_first_subscription_begins_at_the_earliest_and_later_ones_at_new(
    world: World, topic: str
) -> None:
    world.create(topic)
    world.send(topic, "a", "b")
    first = world.new_subscriber("first").subscribe(topic)
    second = world.new_subscriber("second").subscribe(topic)
    assert (first.offset, first.skipped, first.created) == (0, 0, True)
    assert (second.offset, second.skipped, second.created) == (2, 2, True)


@in_3
def test_ephemeral_subscriptions_are_not_the_first(world: World, topic: str) -> None:
    world.create(topic)
    world.send(topic, "a")
    assert world.new_subscriber().subscribe(topic).offset == 0
    assert world.new_subscriber("named").subscribe(topic).offset == 0


@in_3
@pytest.mark.parametrize(
    ("start", "offset"), [("new", 4), ("earliest", 0), (0, 0), (2, 2), (4, 4)], ids=str
)
def test_start_may_be_new_earliest_or_an_offset(
    world: World, topic: str, start: Any, offset: int
) -> None:
    world.create(topic)
    world.send(topic, "a", "b", "c", "d")
    answer = world.new_subscriber("r").subscribe(topic, start)
    assert (answer.offset, answer.skipped) == (offset, offset)


@in_3
def test_start_may_be_a_time(world: World, topic: str) -> None:
    world.create(topic)
    world.reader(topic, "holder")
    world.publisher.send_many(topic, ["a", "b"])
    first = world.admin.peek(topic)
    world.send(topic, "c")
    *_, last = world.admin.peek(topic)
    (a, _) = first
    moment = datetime.now(UTC)
    places = {
        "at the second": (AtTime(last.timestamp), 2),
        "before it": (AtTime(a.timestamp + 1), 2),
        "at the first": (AtTime(a.timestamp), 0),
        "long ago": (moment - timedelta(days=1), 0),
        "later": (moment + timedelta(days=1), 3),
        "long ago, local": (datetime.now() - timedelta(days=1), 0),
    }
    for name, (start, offset) in places.items():
        subscriber = world.new_subscriber(name.replace(" ", ".").replace(",", ""))
        assert subscriber.subscribe(topic, start).offset == offset, name  # type: ignore[arg-type]


@in_3
def test_a_place_that_is_none_is_refused(world: World, topic: str) -> None:
    world.create(topic)
    world.send(topic, "a")
    subscriber = world.new_subscriber("r")
    for offset in (-1, 2):
        with pytest.raises(OffsetOutOfRange):
            subscriber.subscribe(topic, offset)
    for start in ("old", 1.5, True):
        with pytest.raises(InvalidArgument):
            subscriber.subscribe(topic, start)  # type: ignore[arg-type]
    assert world.admin.subscriptions(topic) == []


@in_3
def test_the_answer_tells_the_real_offset_and_how_many_messages_were_skipped(
    world: World, topic: str
) -> None:
    world.create(topic)
    reader = world.reader(topic, "r")
    world.send(topic, "a", "b", "c")
    reader.pull(topic, 2).ack()
    # Two are reclaimed: asked for, and not kept any more.
    answer = world.new_subscriber("late").subscribe(topic, 1)
    assert (answer.offset, answer.skipped) == (2, 1)


@in_3
def test_subscribing_again_keeps_the_place_and_applies_the_options(
    world: World, topic: str
) -> None:
    world.create(topic)
    world.create(f"{topic}.dead")
    world.send(topic, "a", "b")
    reader = world.reader(topic, "r")
    reader.pull(topic, 1).ack()
    again = world.new_subscriber("r").subscribe(
        topic, "new", ack_wait=7.0, max_deliveries=3, dead_letter=f"{topic}.dead"
    )
    assert (again.created, again.offset, again.skipped) == (False, 1, 0)
    info = world.subscription(topic, "r")
    assert (info.ack_wait, info.max_deliveries, info.dead_letter) == (7.0, 3, f"{topic}.dead")
    world.new_subscriber("r").subscribe(topic)
    info = world.subscription(topic, "r")
    assert (info.ack_wait, info.max_deliveries, info.dead_letter) == (30.0, None, None)


@in_3
def test_options_survive_a_restart(durable: World, topic: str) -> None:
    durable.create(topic)
    durable.create(f"{topic}.dead")
    durable.reader(topic, "r", ack_wait=7.0, max_deliveries=3, dead_letter=f"{topic}.dead")
    durable.restart()
    info = durable.subscription(topic, "r")
    assert (info.ack_wait, info.max_deliveries, info.dead_letter) == (7.0, 3, f"{topic}.dead")


# --- durable and ephemeral ----------------------------------------------------------------------


@in_4
def test_a_subscriber_with_a_name_is_durable(durable: World, topic: str) -> None:
    durable.create(topic)
    reader = durable.reader(topic, "r")
    durable.send(topic, "a", "b")
    reader.pull(topic, 1).ack()
    reader.close()
    durable.restart()
    durable.send(topic, "c")
    assert durable.subscription(topic, "r").durable
    assert drain(durable.new_subscriber("r"), topic) == ["b", "c"]


@in_4
def test_a_subscriber_without_a_name_is_ephemeral_and_holds_nothing(
    world: World, topic: str
) -> None:
    world.create(topic)
    named, ephemeral = world.reader(topic, "r"), world.reader(topic)
    assert not world.subscription(topic, ephemeral.subscriber).durable
    world.send(topic, "a", "b", "c")
    assert offsets(ephemeral.pull(topic, 1)) == [0]
    assert drain(named, topic) == ["a", "b", "c"]
    assert world.topic(topic).messages == 0
    # It is told what it missed.
    batch = ephemeral.pull(topic, wait=0)
    assert (len(batch), batch.skipped) == (0, 2)


@in_4
def test_an_ephemeral_subscription_is_gone_some_time_after_its_connection(
    own: Callable[..., World], topic: str
) -> None:
    world = own(limits=Limits(ephemeral_idle_s=1))
    world.create(topic)
    ephemeral = world.reader(topic)
    name = ephemeral.subscriber
    ephemeral.close()
    assert world.subscription(topic, name).unread == 0
    wait_until(lambda: world.admin.subscriptions(topic) == [])
    with pytest.raises(SubscriptionNotFound):
        world.subscription(topic, name)
    assert Limits().ephemeral_idle_s == 30


@in_4
def test_an_ephemeral_subscription_is_not_stored_and_its_client_goes_on_where_it_was(
    durable: World, topic: str
) -> None:
    durable.create(topic)
    ephemeral = durable.reader(topic, start="earliest")
    durable.send(topic, "a", "b", "c")
    assert texts(ephemeral.pull(topic, 1)) == ["a"]
    durable.restart()
    assert durable.admin.subscriptions(topic) == []
    assert texts(ephemeral.pull(topic)) == ["b", "c"]


@in_4
def test_a_gap_after_a_restart_is_reported(durable: World, topic: str) -> None:
    durable.create(topic)
    named, ephemeral = durable.reader(topic, "r"), durable.reader(topic)
    durable.send(topic, "a", "b", "c", "d")
    assert texts(ephemeral.pull(topic, 1)) == ["a"]
    named.pull(topic, 3).ack()
    durable.restart()
    batch = ephemeral.pull(topic)
    assert (texts(batch), batch.skipped) == (["d"], 2)


@in_4
def test_the_list_shows_the_last_pull_of_each(world: World, topic: str) -> None:
    world.create(topic)
    world.reader(topic, "idle")
    world.reader(topic, "busy").pull(topic, wait=0)
    busy, idle = world.admin.subscriptions(topic)
    assert (idle.subscriber, idle.last_pull) == ("idle", None)
    assert busy.last_pull is not None
    assert busy.last_pull >= busy.created


@in_4
def test_subscribing_to_what_is_not_there_is_refused(world: World, topic: str) -> None:
    with pytest.raises(TopicNotFound):
        world.new_subscriber("r").subscribe(topic)
