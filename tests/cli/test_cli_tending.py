"""The commands that bound, read, move and empty topics and subscriptions, on a real server."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from broker_process import BrokerProcess
from cli_harness import Run

from mbctl import Admin, Publisher, Subscriber
from mbctl.actions.text import rfc3339


@pytest.fixture
def orders(topic: str, server: str) -> str:
    """A topic of five messages, that billing has read two of."""
    with Publisher(server) as publisher, Subscriber(server, "billing") as subscriber:
        publisher.create_topic(topic)
        subscriber.subscribe(topic)
        for number in range(5):
            publisher.send(topic, f"m{number}")
        subscriber.pull(topic, 2).ack()
    return topic


def cursor(server: str, topic: str, subscriber: str = "billing") -> int:
    with Admin(server) as admin:
        return admin.subscription(topic, subscriber).cursor


# --- settings of a topic --------------------------------------------------------------------


def test_topic_create_takes_every_setting(run: Run, server: str, topic: str) -> None:
    settings = ("--max-messages", "9", "--max-bytes", "64KiB", "--max-age", "7d")
    more = ("--retain-age", "1.5h", "--retain-bytes", "1M", "--when-full", "drop-oldest")
    assert run("topic", "create", topic, *settings, *more).code == 0
    shown = run("topic", "show", topic, "-o", "json").json
    assert {name: shown[name] for name in list(shown)[6:12]} == {
        "max_messages": 9,
        "max_bytes": 65_536,
        "max_age": 604_800.0,
        "retain_age": 5400.0,
        "retain_bytes": 1_048_576,
        "when_full": "drop_oldest",
    }
    table = run("topic", "show", topic, "-o", "table").out.decode()
    assert "Age at most          7d\n" in table.replace(" \n", "\n")
    assert run("topic", "create", topic, *settings, *more).code == 0
    assert run("topic", "create", topic, *settings).code == 3


def test_topic_list_shows_settings_to_the_curious(run: Run, server: str, topic: str) -> None:
    run("topic", "create", topic, "--max-bytes", "64M", "--max-age", "90s")
    rows = [line.split("\t") for line in run("topic", "list", "-v").out.decode().splitlines()]
    (row,) = [row for row in rows if row[0] == topic]
    assert row[6] == "max-bytes=64.0MiB max-age=90s"
    assert "settings" not in run("topic", "list", "-v", "-o", "json").json[0]


def test_topic_why_knows_what_is_kept_for_replay(run: Run, server: str, topic: str) -> None:
    run("topic", "create", topic, "--retain-age", "1h")
    with Publisher(server) as publisher, Subscriber(server, "billing") as subscriber:
        subscriber.subscribe(topic)
        publisher.send(topic, "read")
        subscriber.pull(topic).ack()
    ended = run("topic", "why", topic)
    assert ended.code == 0
    assert "keeps 1 message" in ended.err
    assert "that all have read, because its retain_age or retain_bytes says so" in ended.err


# --- topic read ---------------------------------------------------------------------------------


def test_topic_read_shows_messages_and_changes_nothing(run: Run, server: str, orders: str) -> None:
    before = run("subscription", "show", orders, "billing", "-o", "json").json
    read = run("topic", "read", orders, "-o", "json").json
    assert [(m["offset"], m["payload"], m["deliveries"]) for m in read] == [
        (2, "m2", 0),
        (3, "m3", 0),
        (4, "m4", 0),
    ]
    assert list(read[0]) == [
        *("topic", "offset", "timestamp", "key", "key_encoding", "headers", "payload"),
        *("encoding", "deliveries"),
    ]
    assert run("subscription", "show", orders, "billing", "-o", "json").json == before


@pytest.mark.parametrize(
    ("options", "payloads"),
    [
        ((), b"m2\nm3\nm4\n"),
        (("-n", "1"), b"m2\n"),
        (("--from", "3"), b"m3\nm4\n"),
        (("--from", "5"), b""),
        (("--from", "new"), b""),
        (("--from", "1h"), b"m2\nm3\nm4\n"),
        (("--from", "0"), b"m2\nm3\nm4\n"),
    ],
)
def test_topic_read_begins_where_it_is_told(
    run: Run, orders: str, options: tuple[str, ...], payloads: bytes
) -> None:
    ended = run("topic", "read", orders, "-o", "raw", *options)
    assert (ended.code, ended.out) == (0, payloads)
    assert ("2 messages of" in ended.err) == (options == ("--from", "0"))


def test_topic_read_begins_at_a_time(run: Run, orders: str) -> None:
    *_, last = run("topic", "read", orders, "-o", "json").json
    read = run("topic", "read", orders, "--from", last["timestamp"], "-o", "raw")
    assert read.out == b"m4\n"
    later = rfc3339(time.time_ns() + 3600 * 10**9)
    assert run("topic", "read", orders, "--from", later, "-o", "raw").out == b""


def test_topic_read_goes_on_to_the_end(run: Run, server: str, topic: str) -> None:
    payloads = [b"%d" % number for number in range(1234)]
    with Publisher(server) as publisher:
        publisher.create_topic(topic)
        publisher.send_many(topic, payloads)
    assert run("topic", "read", topic, "-o", "raw").out.split() == payloads[:10]
    assert run("topic", "read", topic, "-n", "5000", "-o", "raw").out.split() == payloads


def test_topic_read_of_what_is_not_there(run: Run, server: str, orders: str) -> None:
    assert run("topic", "read", "nothing").code == 3
    ended = run("topic", "read", orders, "--from", "99")
    assert (ended.code, ended.out) == (2, b"")
    assert "offset 99 is not in topic" in ended.err


# --- topic purge --------------------------------------------------------------------------------


def test_topic_purge_gives_up_all_and_keeps_subscriptions(
    run: Run, server: str, orders: str
) -> None:
    ended = run("topic", "purge", orders, "-o", "json")
    assert (ended.code, ended.json) == (0, {"topic": orders, "purged": 3})
    assert run("topic", "show", orders, "-o", "json").json["messages"] == 0
    shown = run("subscription", "show", orders, "billing", "-o", "json").json
    assert (shown["cursor"], shown["unread"]) == (5, 0)
    assert run("topic", "purge", "nothing").code == 3


# --- subscriptions --------------------------------------------------------------------------------


def test_subscription_seek_moves_back_and_forward(run: Run, server: str, orders: str) -> None:
    ended = run("subscription", "seek", orders, "billing", "--to", "4", "-o", "json")
    assert ended.json == {"topic": orders, "subscriber": "billing", "offset": 4, "skipped": 0}
    assert cursor(server, orders) == 4
    back = run("subscription", "seek", orders, "billing", "--to", "0", "-o", "table")
    with Admin(server) as admin:
        first = admin.topic(orders).first_offset
    assert cursor(server, orders) == first > 0
    gone = f", {first} messages before that being gone"
    assert back.out.decode() == f"billing reads {orders} from #{first} on{gone}\n"
    assert run("subscription", "seek", orders, "billing", "--to", "new").code == 0
    assert cursor(server, orders) == 5
    assert run("subscription", "seek", orders, "billing", "--to", "6").code == 2
    assert run("subscription", "seek", orders, "nobody", "--to", "new").code == 3


def parked(server: str, topic: str) -> None:
    """Let billing have every message once too often."""
    with Subscriber(server, "billing") as subscriber:
        subscriber.subscribe(topic, max_deliveries=1)
        batch = subscriber.pull(topic)
        assert len(batch) == 3
        batch.nack()


def test_parked_messages_are_shown_in_words_with_what_to_do(
    run: Run, server: str, orders: str
) -> None:
    assert run("subscription", "show", orders, "billing").err == ""
    parked(server, orders)
    shown = run("subscription", "show", orders, "billing")
    assert "3 messages are parked, delivered as often as may be: #2 to #4" in shown.err
    assert f"mbctl subscription release {orders} billing" in shown.err
    assert f"mbctl subscription drop {orders} billing" in shown.err
    as_json = run("subscription", "show", orders, "billing", "-o", "json").json
    assert (as_json["parked"], as_json["parked_ranges"]) == (3, [[2, 5]])
    assert run("pull", orders, "--name", "billing", "-o", "raw").out == b""


def test_parked_messages_are_released_and_dropped(run: Run, server: str, orders: str) -> None:
    parked(server, orders)
    args = (orders, "billing", "--offset", "4", "--offset", "2", "-o", "json")
    assert run("subscription", "release", *args).json["released"] == 2
    dropped = run("subscription", "drop", orders, "billing", "-o", "json").json
    assert dropped == {"topic": orders, "subscriber": "billing", "dropped": 1}
    again = run("pull", orders, "--name", "billing", "-o", "jsonl").jsonl
    assert [message["offset"] for message in again] == [2, 4]
    assert cursor(server, orders) == 5
    assert run("subscription", "release", orders, "billing", "-o", "json").json["released"] == 0
    assert run("subscription", "drop", orders, "nobody").code == 3


def test_dead_letters_tell_where_they_come_from(run: Run, server: str, orders: str) -> None:
    dead = f"{orders}.dead"
    options = ("--name", "billing", "--max-deliveries", "1", "--dead-letter", dead)
    refused = run("subscribe", orders, *options)
    assert refused.code == 3
    run("topic", "create", dead)
    assert run("subscribe", orders, *options).code == 0
    with Subscriber(server, "billing") as subscriber:
        subscriber.pull(orders).nack()
        assert not subscriber.pull(orders, wait=0)
    letters = run("topic", "read", dead, "-o", "json").json
    assert [letter["payload"] for letter in letters] == ["m2", "m3", "m4"]
    assert letters[0]["headers"] == {
        "mbctl-topic": orders,
        "mbctl-offset": "2",
        "mbctl-subscriber": "billing",
        "mbctl-deliveries": "1",
    }


def test_dropped_and_expired_messages_are_told_in_words(run: Run, server: str, topic: str) -> None:
    run("topic", "create", topic, "--max-messages", "2", "--when-full", "drop-oldest")
    run("subscribe", topic, "--name", "billing")
    for number in range(5):
        assert run("send", topic, str(number)).code == 0
    shown = run("subscription", "show", topic, "billing")
    assert "3 unread messages fell to the bounds of the topic" in shown.err
    assert run("pull", topic, "--name", "billing", "-o", "raw").out == b"3\n4\n"


# --- places -----------------------------------------------------------------------------------


def test_subscribe_and_follow_begin_at_a_time(run: Run, server: str, orders: str) -> None:
    run("subscribe", orders, "--name", "late", "--from", "1h")
    assert cursor(server, orders, "late") == 2
    moment = json.loads(run("topic", "read", orders, "--from", "3", "-o", "jsonl").out.split()[0])
    run("subscribe", orders, "--name", "later", "--from", moment["timestamp"])
    assert cursor(server, orders, "later") == 3


# --- backup -------------------------------------------------------------------------------------


def test_backup_of_a_server_in_memory_exits_2(run: Run, server: str, tmp_path: Path) -> None:
    ended = run("backup", str(tmp_path / "b"))
    assert (ended.code, ended.out, list(tmp_path.iterdir())) == (2, b"", [])
    assert "in memory" in ended.err


def test_backup_goes_to_a_file_or_to_stdout(
    run: Run, start_broker: Callable[..., BrokerProcess], tmp_path: Path
) -> None:
    broker = start_broker(data=tmp_path / "data")
    with Publisher(broker.address) as publisher:
        publisher.create_topic("orders")
        publisher.send("orders", b"kept" * 1000)
    target = tmp_path / "broker.backup"
    ended = run("backup", str(target), "-s", broker.address, "-o", "json")
    assert (ended.code, ended.err) == (0, "")
    assert ended.json == {"file": str(target), "bytes": target.stat().st_size}
    assert b"kept" * 1000 in target.read_bytes()
    again = run("backup", str(target), "-s", broker.address)
    assert (again.code, again.out) == (2, b"")
    assert "is there already" in again.err
    assert run("backup", str(target), "--overwrite", "-s", broker.address).code == 0
    piped = run("backup", "-", "-s", broker.address)
    assert piped.code == 0
    assert b"kept" * 1000 in piped.out
    assert "wrote a backup of" in piped.err


def test_backup_where_nothing_can_be_written_exits_1(run: Run, server: str, tmp_path: Path) -> None:
    ended = run("backup", str(tmp_path / "none" / "b"))
    assert (ended.code, ended.out) == (1, b"")
    assert "no such file or directory" in ended.err


def test_a_backup_restored_is_served_as_it_was(
    run: Run, start_broker: Callable[..., BrokerProcess], tmp_path: Path
) -> None:
    broker = start_broker(data=tmp_path / "data")
    with Publisher(broker.address) as publisher, Subscriber(broker.address, "r") as reader:
        publisher.create_topic("orders", max_age=3600.0)
        reader.subscribe("orders", max_deliveries=7)
        publisher.send_many("orders", [b"a", b"b", b"c"])
        reader.pull("orders", 1, auto_ack=False).ack()
        backup, restored = tmp_path / "b", tmp_path / "restored"
        assert run("backup", str(backup), "-s", broker.address).code == 0
        publisher.send("orders", b"later")
    assert run("restore", str(backup), str(restored)).code == 0
    again = start_broker(data=restored)
    with Admin(again.address) as admin, Subscriber(again.address, "r") as reader:
        assert admin.topic("orders").settings.max_age == 3600.0
        info = admin.subscription("orders", "r")
        assert (info.cursor, info.unread, info.max_deliveries) == (1, 2, 7)
        assert reader.pull("orders").payloads == [b"b", b"c"]
