"""What the Admin sees and does."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mbctl import (
    Admin,
    InvalidArgument,
    Publisher,
    Subscriber,
    SubscriptionNotFound,
    TopicExists,
    TopicNotFound,
)


@pytest.fixture
def admin(server: str) -> Iterator[Admin]:
    """An admin at the shared server."""
    with Admin(server) as admin:
        yield admin


def test_a_topic_is_shown_as_it_is(admin: Admin, publisher: Publisher, topic: str) -> None:
    assert admin.create_topic(topic, max_messages=100)
    assert not admin.create_topic(topic, max_messages=100)
    publisher.send_many(topic, [b"one", b"two"])
    info = admin.topic(topic)
    assert info == next(each for each in admin.topics() if each.topic == topic)
    assert (info.messages, info.first_offset, info.next_offset) == (2, 0, 2)
    assert (info.subscriptions, info.durability, info.settings.max_messages) == (0, "memory", 100)
    assert info.bytes > 6
    admin.delete_topic(topic)
    assert topic not in {each.topic for each in admin.topics()}


def test_topics_are_listed_by_name(admin: Admin, topic: str) -> None:
    for letter in "bca":
        admin.create_topic(f"{topic}-{letter}")
    names = [info.topic for info in admin.topics()]
    assert names == sorted(names)
    assert {f"{topic}-{letter}" for letter in "abc"} <= set(names)


def test_subscriptions_are_shown_as_they_are(
    admin: Admin, publisher: Publisher, topic: str
) -> None:
    admin.create_topic(topic)
    publisher.send_many(topic, [b"%d" % n for n in range(10)])
    with Subscriber(admin.server, name="b") as named, Subscriber(admin.server) as ephemeral:
        named.subscribe(topic, ack_wait=7)
        ephemeral.subscribe(topic, start=4)
        named.pull(topic, 3).ack()
        named.pull(topic, 2, auto_ack=False)
        first, second = admin.subscriptions(topic)
        assert (first.subscriber, first.durable) == ("b", True)
        assert (first.cursor, first.unread, first.leased, first.ack_wait) == (3, 7, 2, 7)
        assert (second.subscriber, second.durable) == (ephemeral.subscriber, False)
        assert (second.cursor, second.unread, second.last_pull) == (4, 6, None)
        assert admin.subscription(topic, "b") == first
        assert first in admin.subscriptions()
        admin.delete_subscription(topic, "b")
        assert [info.subscriber for info in admin.subscriptions(topic)] == [ephemeral.subscriber]


def test_why_names_who_keeps_messages_the_one_furthest_behind_first(
    admin: Admin, publisher: Publisher, topic: str
) -> None:
    admin.create_topic(topic)
    publisher.send_many(topic, [b"%d" % n for n in range(10)])
    assert admin.why(topic).holds == []
    counts = {"ahead": 8, "behind": 2, "done": 10}
    for name in counts:
        with Subscriber(admin.server, name=name) as subscriber:
            subscriber.subscribe(topic, start="earliest")
    for name, count in counts.items():
        with Subscriber(admin.server, name=name) as subscriber:
            subscriber.pull(topic, count)
    why = admin.why(topic)
    assert (why.topic, why.messages) == (topic, 8)
    assert [(hold.subscriber, hold.messages) for hold in why.holds] == [("behind", 8), ("ahead", 2)]


def test_the_status_counts(admin: Admin, publisher: Publisher, topic: str) -> None:
    before = admin.status()
    admin.create_topic(topic)
    publisher.send_many(topic, [b"a", b"b"])
    after = admin.status()
    assert after.messages_in - before.messages_in == 2
    assert after.topics - before.topics == 1
    assert after.connections >= 2
    assert (after.engine, after.durability, after.address) == ("local", "memory", admin.server)
    assert after.uptime_s >= before.uptime_s > 0


def test_a_ping_takes_a_moment(admin: Admin) -> None:
    assert 0 < admin.ping() < 5


@pytest.mark.parametrize(
    "ask",
    [
        lambda admin: admin.topic("none"),
        lambda admin: admin.why("none"),
        lambda admin: admin.subscriptions("none"),
        lambda admin: admin.subscription("none", "nobody"),
        lambda admin: admin.delete_topic("none"),
        lambda admin: admin.delete_subscription("none", "nobody"),
    ],
)
def test_asking_for_a_topic_that_is_not_there_is_refused(
    ask: Callable[[Admin], Any], admin: Admin
) -> None:
    with pytest.raises(TopicNotFound, match="'none' does not exist") as refusal:
        ask(admin)
    assert refusal.value.hint == "create it with: mbctl topic create none"


def test_asking_for_a_subscription_that_is_not_there_is_refused(admin: Admin, topic: str) -> None:
    admin.create_topic(topic)
    for ask in (admin.subscription, admin.delete_subscription):
        with pytest.raises(SubscriptionNotFound) as refusal:
            ask(topic, "nobody")
        assert refusal.value.hint == f"see them with: mbctl subscription list {topic}"


def test_a_topic_that_must_be_new_is_refused_when_it_is_not(admin: Admin, topic: str) -> None:
    admin.create_topic(topic)
    with pytest.raises(TopicExists):
        admin.create_topic(topic, exist_ok=False)


def test_a_backup_to_what_is_no_file_is_refused(admin: Admin) -> None:
    for target in (None, 5, b"name"):
        with pytest.raises(InvalidArgument, match="a path or a binary file"):
            admin.backup(target)  # type: ignore[arg-type]


def test_a_name_that_is_no_text_is_refused(admin: Admin) -> None:
    with pytest.raises(InvalidArgument):
        admin.topic(5)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument):
        admin.topic("\ud800")
    assert admin.is_connected


def test_moving_the_subscription_of_nobody_is_refused(admin: Admin, topic: str) -> None:
    admin.create_topic(topic)
    with pytest.raises(InvalidArgument, match="a subscriber is str, not NoneType"):
        admin.seek(topic, None, 0)  # type: ignore[arg-type]
