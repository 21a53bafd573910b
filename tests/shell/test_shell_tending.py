"""The verbs of the shells that bound, look, move, extend and tend what is parked."""

import json
import os
from typing import Any

import pytest
from broker_process import wait_until
from shell_harness import Ended, run_shell

from mbctl import Admin, Publisher, Subscriber
from mbctl.model import AtTime, TopicSettings
from mbctl.shell import commands as c
from mbctl.shell.completion import LiveNames, complete
from mbctl.shell.grammar import InvalidCommand, parse


@pytest.fixture(autouse=True)
def _server(server: str) -> None:
    """Every script here has the shared server to talk to."""


@pytest.fixture
def orders(topic: str) -> str:
    """A topic of three messages, to which desk is subscribed."""
    with (
        Publisher(os.environ["MBCTL_SERVER"]) as publisher,
        Subscriber(os.environ["MBCTL_SERVER"], "desk") as subscriber,
    ):
        publisher.create_topic(topic)
        subscriber.subscribe(topic)
        publisher.send_many(topic, [b"a", b"b", b"c"])
    return topic


def script(kind: str, *lines: str) -> Ended:
    """Run lines in a shell, with JSON as its answers."""
    name = ["--name", "desk"] if kind == "subscriber" else []
    commands = [option for line in lines for option in ("-c", line)]
    return run_shell(kind, *name, *commands, "-o", "jsonl")


def answers(ended: Ended) -> list[dict[str, Any]]:
    assert (ended.code, ended.err) == (0, ""), ended
    return [json.loads(line) for line in ended.out.splitlines()]


def admin() -> Admin:
    return Admin(os.environ["MBCTL_SERVER"])


# --- the grammar --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (
            "createTopic a --max-messages 5 --max-bytes 1K --max-age 7d --retain-age 2h"
            " --retain-bytes 3M --when-full drop-oldest",
            c.CreateTopic("a", 5, 1024, 604_800.0, 7200.0, 3 * 1024**2, "drop_oldest"),
        ),
        ("create-topic --when-full DROP_OLDEST a", c.CreateTopic("a", when_full="drop_oldest")),
        ("purgeTopic a", c.PurgeTopic("a")),
        ("PURGE_TOPIC a", c.PurgeTopic("a")),
        ("peek a", c.Peek("a")),
        ("peek a --from new -n 5", c.Peek("a", "new", 5)),
    ],
)
def test_line_of_the_publisher_shell_is_understood(line: str, command: c.Command) -> None:
    assert parse("publisher", line) == command


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (
            "subscribe a --from 1970-01-01T00:00:01Z --max-deliveries 3 --dead-letter b",
            c.Subscribe("a", AtTime(10**9), max_deliveries=3, dead_letter="b"),
        ),
        ("seek a earliest", c.Seek("a", "earliest")),
        ("seek a 42", c.Seek("a", 42)),
        ("extend", c.Extend()),
        ("release a", c.Release("a")),
        ("release a 3 7", c.Release("a", (3, 7))),
        ("drop a 0", c.Drop("a", (0,))),
        ("peek a --from 5", c.Peek("a", 5)),
    ],
)
def test_line_of_the_subscriber_shell_is_understood(line: str, command: c.Command) -> None:
    assert parse("subscriber", line) == command


@pytest.mark.parametrize(
    ("kind", "line", "reason"),
    [
        ("publisher", "createTopic a --max-age 7", "is not an age"),
        ("publisher", "createTopic a --when-full later", "is not refuse or drop-oldest"),
        ("publisher", "seek a new", "seek is a verb of the subscriber shell"),
        ("subscriber", "purgeTopic a", "purgeTopic is a verb of the publisher shell"),
        ("subscriber", "seek a", "seek needs new|earliest|OFFSET|TIME"),
        ("subscriber", "seek a -5", "seek has no option"),
        ("subscriber", "seek a soon", "is not new, earliest, an offset"),
        ("subscriber", "release a x", "is not an offset"),
        ("subscriber", "drop", "drop needs TOPIC"),
        ("subscriber", "subscribe a --max-deliveries 0", "whole number from 1 on"),
        ("subscriber", "subscribe a --max-deliveries 4294967296", "is more than 4294967295"),
    ],
)
def test_line_that_makes_no_sense_is_refused(kind: c.Kind, line: str, reason: str) -> None:
    with pytest.raises(InvalidCommand) as refused:
        parse(kind, line)
    assert reason in refused.value.message


@pytest.mark.parametrize(
    ("kind", "before", "texts"),
    [
        ("subscriber", "seek ", ["mine"]),
        ("subscriber", "seek mine e", ["earliest"]),
        ("subscriber", "subscribe mine --dead-letter m", ["mine"]),
        ("subscriber", "release ", ["mine"]),
        ("publisher", "createTopic x --when-full ", ["refuse", "drop-oldest"]),
        ("publisher", "createTopic x --ret", ["--retain-age", "--retain-bytes"]),
        ("publisher", "peek mine --from n", ["new"]),
        ("publisher", "purge", ["purgeTopic"]),
    ],
)
def test_completion_offers_what_may_come(kind: c.Kind, before: str, texts: list[str]) -> None:
    live = LiveNames(topics={"mine": ""}, subscribed={"mine": ""})
    offered = [candidate.text for candidate in complete(kind, before, live)]
    assert offered[: len(texts)] == texts


# --- the verbs ------------------------------------------------------------------------------------


def test_topic_is_created_with_its_settings(topic: str) -> None:
    line = f"createTopic {topic} --max-messages 5 --when-full drop-oldest --max-age 7d"
    assert answers(script("publisher", line)) == [{"topic": topic, "created": True}]
    with admin() as looking:
        assert looking.topic(topic).settings == TopicSettings(
            max_messages=5, when_full="drop_oldest", max_age=604_800.0
        )


def test_purge_and_peek_in_the_publisher_shell(orders: str) -> None:
    said = answers(script("publisher", f"peek {orders} -n 2", f"purgeTopic {orders}"))
    assert [message["payload"] for message in said[:2]] == ["a", "b"]
    assert said[2] == {"topic": orders, "purged": 3}
    assert answers(script("publisher", f"peek {orders}")) == []


def test_seek_goes_back_and_what_was_pulled_is_not_acknowledged(orders: str) -> None:
    said = answers(
        script("subscriber", f"pull {orders}", f"seek {orders} 1", f"pull {orders} --no-ack")
    )
    assert [message["offset"] for message in said if "payload" in message] == [0, 1, 2, 1, 2]
    assert said[3] == {"topic": orders, "subscriber": "desk", "offset": 1, "skipped": 0}
    with admin() as looking:
        assert looking.subscription(orders, "desk").cursor == 1


def test_ack_after_a_seek_has_nothing_to_acknowledge(orders: str) -> None:
    ended = script("subscriber", f"pull {orders}", f"seek {orders} earliest", "ack")
    assert ended.code == 7
    assert "there is nothing to acknowledge" in ended.err


def test_extend_keeps_what_was_pulled(orders: str) -> None:
    said = answers(script("subscriber", f"pull {orders} -n 2", "extend"))
    assert said[-1] == {"extended": 2}
    ended = script("subscriber", "extend")
    assert (ended.code, "there is nothing to extend" in ended.err) == (7, True)


def test_parked_messages_are_released_and_dropped(orders: str) -> None:
    said = answers(
        script(
            "subscriber",
            f"subscribe {orders} --max-deliveries 1",
            f"pull {orders}",
            "nack",
            f"release {orders} 1",
            f"drop {orders}",
            f"pull {orders}",
        )
    )
    assert said[-3:-1] == [
        {"topic": orders, "subscriber": "desk", "released": 1},
        {"topic": orders, "subscriber": "desk", "dropped": 2},
    ]
    assert (said[-1]["offset"], said[-1]["deliveries"]) == (1, 1)


def test_dead_letters_go_where_subscribe_says(orders: str) -> None:
    dead = f"{orders}.dead"
    assert script("publisher", f"createTopic {dead}").code == 0
    subscribe = f"subscribe {orders} --max-deliveries 1 --dead-letter {dead}"
    assert script("subscriber", subscribe, f"pull {orders}", "nack").code == 0
    with admin() as looking:
        wait_until(lambda: looking.topic(dead).messages == 3)
    said = answers(script("subscriber", f"peek {dead}"))
    assert [(message["topic"], message["payload"]) for message in said] == [
        (dead, "a"),
        (dead, "b"),
        (dead, "c"),
    ]
