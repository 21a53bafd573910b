"""Every command against a real server: what it does, what it prints, how it exits."""

import json
import sys
from base64 import b64decode
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from broker_process import BrokerProcess
from cli_harness import Command, Ended, Run

from mbctl import Admin, Publisher, Subscriber

LINES = (
    b"first\n\n  indented\ttab\n\xff\x00binary\r\n"
    b"\x0bvertical\x1c\xe2\x80\xa8separator\nlast without newline"
)


@pytest.fixture
def orders(topic: str, server: str) -> str:
    """A topic that exists."""
    with Publisher(server) as publisher:
        publisher.create_topic(topic)
    return topic


@pytest.fixture
def billed(orders: str, server: str) -> str:
    """A topic that the subscriber billing reads from its beginning."""
    with Subscriber(server, "billing") as subscriber:
        subscriber.subscribe(orders)
    return orders


def send(server: str, topic: str, *payloads: bytes) -> None:
    with Publisher(server) as publisher:
        publisher.send_many(topic, payloads)


def unread(server: str, topic: str, subscriber: str = "billing") -> int:
    with Admin(server) as admin:
        return admin.subscription(topic, subscriber).unread


# --- topic ------------------------------------------------------------------------------------


def test_topic_create_says_whether_it_was_there(run: Run, server: str, topic: str) -> None:
    first, again = run("topic", "create", topic), run("topic", "create", topic, "-o", "json")
    assert (first.code, first.out.decode()) == (0, f"{topic}\ttrue\n")
    assert (again.code, again.json) == (0, {"topic": topic, "created": False})


def test_topic_create_with_other_settings_exits_3(run: Run, orders: str) -> None:
    ended = run("topic", "create", orders, "--max-messages", "5")
    assert (ended.code, ended.out) == (3, b"")
    assert "exists already with other settings" in ended.err


@pytest.mark.parametrize(
    ("bound", "told"),
    [
        (f"--max-messages={2**63}", f"must be 1 to {2**63 - 1}, not "),
        ("--retain-bytes=99999999P", "'99999999P' is not a size below 8 EiB"),
    ],
)
def test_topic_create_says_how_large_a_bound_may_be(
    run: Run, server: str, topic: str, bound: str, told: str
) -> None:
    ended = run("topic", "create", topic, bound)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert told in ended.err


def test_topic_create_bounds_are_those_of_topic_show(run: Run, server: str, topic: str) -> None:
    assert run("topic", "create", topic, "--max-messages", "5", "--max-bytes", "64M").code == 0
    shown = run("topic", "show", topic, "-o", "json").json
    assert (shown["max_messages"], shown["max_bytes"]) == (5, 64 * 1024**2)


@pytest.mark.parametrize(
    "name", ["..", ".hidden", "-x", "a b", "a/b", "", "x" * 201, "\udcff", "é"]
)
def test_a_name_that_is_none_exits_2(run: Run, server: str, name: str) -> None:
    ended = run("topic", "create", "--", name)
    assert ended.code == 2
    assert "is not a valid name" in ended.err


def test_topic_list_has_the_names_of_the_contract(run: Run, server: str, orders: str) -> None:
    send(server, orders, b"one", b"two")
    listed = {info["topic"]: info for info in run("topic", "list", "-o", "json").json}
    assert list(listed[orders]) == [
        "topic",
        "messages",
        "bytes",
        "first_offset",
        "next_offset",
        "subscriptions",
    ]
    assert listed[orders]["messages"] == 2
    assert listed[orders]["next_offset"] == listed[orders]["first_offset"] + 2


def test_topic_list_off_a_terminal_is_tab_separated(run: Run, orders: str) -> None:
    rows = [line.split("\t") for line in run("topic", "list").out.decode().splitlines()]
    assert [orders, "0", "0", "0", "0", "0"] in rows


def test_topic_show_tells_the_durability(run: Run, orders: str) -> None:
    shown = run("topic", "show", orders, "-o", "json").json
    assert shown["topic"] == orders
    assert shown["durability"] == "memory"
    assert shown["created"].endswith("Z")


def test_topic_why_names_who_keeps_messages(run: Run, server: str, billed: str) -> None:
    send(server, billed, b"one", b"two")
    ended = run("topic", "why", billed)
    assert ended.out.decode().split("\t")[0] == "billing"
    assert "because billing has not acknowledged 2 messages" in ended.err
    why = run("topic", "why", billed, "-o", "json").json
    assert (why["messages"], why["holds"][0]["subscriber"]) == (2, "billing")
    assert why["holds"][0]["since"].endswith("Z")


def test_topic_why_knows_that_nobody_reads(run: Run, server: str, orders: str) -> None:
    assert f"{orders} keeps nothing" in run("topic", "why", orders).err
    send(server, orders, b"one")
    assert "because it has no subscription" in run("topic", "why", orders).err


def test_topic_delete_off_a_terminal_does_not_ask(run: Run, orders: str) -> None:
    ended = run("topic", "delete", orders)
    assert (ended.code, ended.out.decode()) == (0, f"{orders}\ttrue\n")
    assert run("topic", "show", orders).code == 3


# --- send -------------------------------------------------------------------------------------


def test_send_answers_with_topic_offset_and_count(run: Run, billed: str) -> None:
    plain, as_json = run("send", billed, "one"), run("send", billed, "two", "-o", "json")
    assert (plain.code, plain.out.decode()) == (0, f"{billed}\t0\t1\n")
    assert (as_json.code, as_json.json) == (0, {"topic": billed, "offset": 1, "count": 1})


@pytest.mark.parametrize(
    ("argument", "payload"),
    [
        ("hello", b"hello"),
        ("", b""),
        ('{"id": 1, "note": "it\'s"}', b'{"id": 1, "note": "it\'s"}'),
        (" spaces  kept ", b" spaces  kept "),
        ("é 東", "é 東".encode()),
        ("\udcff\udc80", b"\xff\x80"),
        ("new\nline", b"new\nline"),
    ],
)
def test_send_stores_exactly_the_argument(
    run: Run, billed: str, argument: str, payload: bytes
) -> None:
    assert run("send", billed, argument).code == 0
    assert run("pull", billed, "--name", "billing", "-o", "raw").out == payload + b"\n"


def test_send_of_an_argument_leaves_stdin_alone(run: Run, billed: str) -> None:
    run("send", billed, "argument", stdin=b"not this\n")
    assert sys.stdin.buffer.read() == b"not this\n"


@pytest.mark.parametrize("payload", [b"", b"one\ntwo\n", bytes(range(256)), b"x" * 1024 * 1024])
def test_send_of_a_dash_sends_all_of_stdin_as_one_message(
    run: Run, billed: str, payload: bytes
) -> None:
    assert run("send", billed, "-", stdin=payload).code == 0
    assert run("pull", billed, "--name", "billing", "-o", "raw").out == payload + b"\n"


def test_send_above_the_limit_exits_2_and_stores_nothing(
    run: Run, server: str, billed: str
) -> None:
    ended = run("send", billed, "-", stdin=b"x" * (1024 * 1024 + 1))
    assert (ended.code, ended.out) == (2, b"")
    assert "the limit is 1048576" in ended.err
    assert unread(server, billed) == 0


def test_send_carries_key_and_headers(run: Run, billed: str) -> None:
    run("send", billed, "hi", "--key", "k\udcff", "-H", "type=new", "-H", "eq=a=b", "-H", "empty=")
    (message,) = run("pull", billed, "--name", "billing", "-o", "json").json
    assert b64decode(message["key"]) == b"k\xff"
    assert message["key_encoding"] == "base64"
    assert message["headers"] == {"type": "new", "eq": "a=b", "empty": ""}


def test_send_to_an_unknown_topic_exits_3_and_says_what_was_meant(run: Run, orders: str) -> None:
    ended = run("send", f"{orders}x", "hi")
    assert (ended.code, ended.out) == (3, b"")
    assert f"topic '{orders}x' does not exist" in ended.err
    assert "did you mean 'topic-" in ended.err


def test_send_to_a_topic_like_no_other_says_how_to_create_it(run: Run, server: str) -> None:
    ended = run("send", "Zzz", "hi", "-o", "json")
    assert ended.code == 3
    error = json.loads(ended.err.splitlines()[1])["error"]
    assert error["code"] == "TopicNotFound"
    assert error["hint"] == "create it with: mbctl topic create Zzz"


def test_send_create_creates_the_topic_or_takes_it_as_it_is(
    run: Run, server: str, topic: str
) -> None:
    assert run("send", topic, "hi", "--create").code == 0
    assert run("send", topic, "hi", "--create").code == 0
    other = f"{topic}-bounded"
    run("topic", "create", other, "--max-messages", "5")
    assert run("send", other, "hi", "--create").code == 0


def test_send_to_a_full_topic_exits_9(run: Run, server: str, topic: str) -> None:
    run("topic", "create", topic, "--max-messages", "1")
    run("subscribe", topic, "--name", "billing")
    assert run("send", topic, "one").code == 0
    ended = run("send", topic, "two", "-o", "json")
    assert ended.code == 9
    assert json.loads(ended.err.splitlines()[1])["error"]["code"] == "TopicFull"


def test_lines_are_messages_split_at_lf_only(run: Run, billed: str) -> None:
    ended = run("send", billed, "--lines", "-o", "json", stdin=LINES)
    assert (ended.code, ended.json) == (0, {"topic": billed, "offset": 0, "count": 6})
    pulled = run("pull", billed, "--name", "billing", "-o", "json").json
    assert len(pulled) == 6
    assert pulled[1]["payload"] == ""
    assert b64decode(pulled[3]["payload"]) == b"\xff\x00binary\r"


@pytest.mark.parametrize(
    ("stdin", "count"), [(b"\n", 1), (b"a", 1), (b"a\n", 1), (b"a\n\n", 2), (b"\n\n\n", 3)]
)
def test_lines_end_at_a_newline_or_the_end(run: Run, billed: str, stdin: bytes, count: int) -> None:
    assert run("send", billed, "--lines", "-o", "json", stdin=stdin).json["count"] == count
    raw = run("pull", billed, "--name", "billing", "-o", "raw").out
    assert raw == (stdin if stdin.endswith(b"\n") else stdin + b"\n")


def test_no_lines_are_nothing_to_send(run: Run, orders: str) -> None:
    ended = run("send", orders, "--lines")
    assert (ended.code, ended.out, ended.err) == (0, b"", "nothing to send\n")


def test_many_lines_come_back_byte_for_byte(run: Run, billed: str) -> None:
    # Lengths around the reads and batches, among them a line longer than one read.
    lines = [b"%d " % n + b"x" * (n * 37 % 900) for n in range(30_000)]
    lines[7] = b"long " * 100_000
    stdin = b"\n".join(lines) + b"\n"
    assert run("send", billed, "--lines", "-o", "json", stdin=stdin).json["count"] == 30_000
    ended = run("pull", billed, "--name", "billing", "-n", "10000000", "-o", "raw")
    assert ended.out == stdin


def test_a_line_above_the_limit_exits_2_and_keeps_those_before_it(
    run: Run, server: str, billed: str
) -> None:
    stdin = b"one\ntwo\n" + b"y" * 600_000 + b"\n" + b"x" * 1_200_000 + b"\nlast\n"
    ended = run("send", billed, "--lines", stdin=stdin)
    assert (ended.code, ended.out) == (2, b"")
    assert "the limit is 1048576" in ended.err
    assert f"acknowledged so far: {unread(server, billed)} messages" in ended.err
    assert unread(server, billed) == 3


def test_lines_to_an_unknown_topic_exit_3(run: Run, server: str, topic: str) -> None:
    ended = run("send", topic, "--lines", stdin=b"one\n" * 5000)
    assert (ended.code, ended.out) == (3, b"")


def test_lines_to_a_topic_that_fills_up_exit_9_and_say_what_is_stored(
    run: Run, server: str, topic: str
) -> None:
    run("topic", "create", topic, "--max-messages", "3000")
    run("subscribe", topic, "--name", "billing")
    ended = run("send", topic, "--lines", stdin=b"x\n" * 10_500)
    assert ended.code == 9
    assert f"acknowledged so far: {unread(server, topic):,} messages" in ended.err
    assert unread(server, topic) == 3000


# --- subscribe and pull -----------------------------------------------------------------------


def test_subscribe_says_where_it_stands(run: Run, server: str, orders: str) -> None:
    send(server, orders, b"one", b"two", b"three")
    first = run("subscribe", orders, "--name", "billing", "-o", "json").json
    later = run("subscribe", orders, "--name", "audit", "-o", "json").json
    again = run("subscribe", orders, "--name", "audit", "--from", "earliest", "-o", "json").json
    at = run("subscribe", orders, "--name", "at", "--from", "1", "-o", "json").json
    assert (first["offset"], first["skipped"], first["created"]) == (0, 0, True)
    assert (later["offset"], later["skipped"], later["created"]) == (3, 3, True)
    assert (again["offset"], again["created"]) == (3, False)
    assert (at["offset"], at["skipped"]) == (1, 1)


def test_subscribe_to_an_unknown_topic_exits_3(run: Run, server: str, topic: str) -> None:
    assert run("subscribe", topic, "--name", "billing").code == 3


def test_subscribe_beyond_the_end_exits_2(run: Run, orders: str) -> None:
    ended = run("subscribe", orders, "--name", "billing", "--from", "99")
    assert ended.code == 2
    assert "next offset is 0" in ended.err


def test_pull_without_a_subscription_exits_3_and_says_how_to_subscribe(
    run: Run, orders: str
) -> None:
    ended = run("pull", orders, "--name", "billing")
    assert ended.code == 3
    assert f"mbctl subscribe {orders} --name billing" in ended.err


def test_pull_takes_ten_unless_told_how_many(run: Run, server: str, billed: str) -> None:
    send(server, billed, *[b"%d" % n for n in range(25)])
    first = run("pull", billed, "--name", "billing", "-o", "raw")
    rest = run("pull", billed, "--name", "billing", "-o", "raw", "-n", "100")
    assert first.out.split() == [b"%d" % n for n in range(10)]
    assert rest.out.split() == [b"%d" % n for n in range(10, 25)]


def test_pull_goes_on_over_many_batches(run: Run, server: str, billed: str) -> None:
    for first in range(0, 300, 3):
        send(server, billed, *[b"%d" % n for n in range(first, first + 3)])
    ended = run("pull", billed, "--name", "billing", "-n", "299", "-o", "raw")
    assert ended.out.split() == [b"%d" % n for n in range(299)]
    assert unread(server, billed) == 1


def test_pull_of_nothing_is_empty_and_fine(run: Run, billed: str) -> None:
    assert run("pull", billed, "--name", "billing") == Ended(0, b"", "")
    assert run("pull", billed, "--name", "billing", "-o", "json").json == []


def test_pull_acknowledges_what_it_printed(run: Run, server: str, billed: str) -> None:
    send(server, billed, b"one", b"two")
    run("pull", billed, "--name", "billing", "-n", "1")
    assert unread(server, billed) == 1
    assert run("pull", billed, "--name", "billing", "-o", "raw").out == b"two\n"
    assert run("topic", "show", billed, "-o", "json").json["messages"] == 0


def test_pull_no_ack_only_looks(run: Run, server: str, billed: str) -> None:
    send(server, billed, b"one", b"two")
    for deliveries in (1, 2):
        looked = run("pull", billed, "--name", "billing", "--no-ack", "-o", "json").json
        assert [m["payload"] for m in looked] == ["one", "two"]
        assert looked[0]["deliveries"] == deliveries
    assert unread(server, billed) == 2


def test_pull_min_exits_6_with_what_came_printed_and_acknowledged(
    run: Run, server: str, billed: str
) -> None:
    send(server, billed, b"one")
    args = ("pull", billed, "--name", "billing", "--min", "2", "--wait", "0.05", "-o", "json")
    ended = run(*args)
    assert ended.code == 6
    assert [m["payload"] for m in ended.json] == ["one"]
    assert "2 messages" in ended.err
    assert "1 came" in ended.err
    assert json.loads(ended.err.splitlines()[1])["error"]["code"] == "Timeout"
    assert unread(server, billed) == 0


def test_pull_min_that_is_there_does_not_wait(run: Run, server: str, billed: str) -> None:
    send(server, billed, *[b"x"] * 20)
    ended = run("pull", billed, "--name", "billing", "--min", "15", "--wait", "3600")
    assert (ended.code, ended.out.count(b"\n")) == (0, 15)


def test_pull_min_without_wait_gives_up_after_the_timeout(run: Run, billed: str) -> None:
    ended = run("pull", billed, "--name", "billing", "--min", "1", "--timeout", "0.2")
    assert ended.code == 6
    assert "none came" in ended.err


def test_pulled_messages_are_tab_separated_off_a_terminal(
    run: Run, server: str, billed: str
) -> None:
    with Publisher(server) as publisher:
        publisher.send(billed, b"a\tb", key=b"k", headers={"x": "y"})
    cells = run("pull", billed, "--name", "billing").out.decode().rstrip("\n").split("\t")
    assert cells[:2] == [billed, "0"]
    assert cells[3:] == ["1", "k", '{"x":"y"}', "a\\tb"]


# --- subscription, status, ping ---------------------------------------------------------------


def test_subscription_list_shows_all_or_those_of_a_topic(
    run: Run, server: str, billed: str
) -> None:
    listed = run("subscription", "list", billed, "-o", "json").json
    assert [(s["topic"], s["subscriber"], s["durable"]) for s in listed] == [
        (billed, "billing", True)
    ]
    assert listed[0]["last_pull"] is None
    shown = run("subscription", "show", billed, "billing", "-o", "json").json
    assert listed[0] == shown
    in_shell = run("subscriber", "--name", "billing", "-c", "subscriptions", "-o", "jsonl")
    assert f'"created":"{shown["created"]}"' in in_shell.out.decode()
    assert listed[0] in run("subscription", "list", "-o", "json").json
    assert run("subscription", "list", f"{billed}-none").code == 3


def test_subscription_show_tells_cursor_and_unread(run: Run, server: str, billed: str) -> None:
    send(server, billed, b"one", b"two")
    run("pull", billed, "--name", "billing", "-n", "1")
    shown = run("subscription", "show", billed, "billing", "-o", "json").json
    assert (shown["cursor"], shown["unread"], shown["leased"]) == (1, 1, 0)
    assert shown["last_pull"].endswith("Z")


def test_subscription_of_nobody_exits_3(run: Run, orders: str) -> None:
    for verb in ("show", "delete"):
        assert run("subscription", verb, orders, "nobody").code == 3


def test_subscription_delete_gives_up_what_is_unread(run: Run, server: str, billed: str) -> None:
    ended = run("subscription", "delete", billed, "billing", "-o", "json")
    assert (ended.code, ended.json["deleted"]) == (0, True)
    assert run("pull", billed, "--name", "billing").code == 3


def test_status_tells_what_the_server_is(run: Run, server: str) -> None:
    status = run("status", "-o", "json").json
    assert (status["address"], status["engine"], status["durability"]) == (
        server,
        "local",
        "memory",
    )
    assert status["started"].endswith("Z")
    names = [line.split("\t")[0] for line in run("status").out.decode().splitlines()]
    assert set(names) == set(status)


def test_ping_tells_the_milliseconds(run: Run, server: str) -> None:
    answer = run("ping", "-o", "json").json
    assert answer["server"] == server
    assert 0 < answer["ms"] < 10_000


@pytest.mark.parametrize("form", ["HOST:PORT", "mb://HOST:PORT"])
def test_the_server_may_be_named_in_both_forms(
    run: Run, server: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MBCTL_SERVER")
    host, port = server.split(":")
    address = form.replace("HOST", host).replace("PORT", port)
    assert run("ping", "--server", address).code == 0
    assert run("ping", "-s", address).code == 0


def test_an_option_wins_over_its_variable(
    run: Run, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MBCTL_SERVER", "127.0.0.1:1")
    monkeypatch.setenv("MBCTL_OUTPUT", "json")
    assert run("ping", "-s", server).json["server"] == server
    assert run("ping", "-s", server, "-o", "auto").out.startswith(server.encode() + b"\t")


def test_a_variable_with_a_wrong_value_is_wrong_usage(
    run: Run, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MBCTL_TIMEOUT", "soon")
    ended = run("ping")
    assert ended.code == 2
    assert "MBCTL_TIMEOUT" in ended.err


def test_quiet_prints_data_and_no_confirmations(run: Run, server: str, billed: str) -> None:
    assert run("send", billed, "hi", "-q") == Ended(0, b"", "")
    assert run("topic", "why", billed, "-q").err == ""
    assert run("pull", billed, "--name", "billing", "-q", "-o", "raw").out == b"hi\n"


# --- shells and server ------------------------------------------------------------------------


def test_a_publisher_script_prints_results_and_exits_7_where_it_fails(
    run: Run, server: str, topic: str
) -> None:
    good, bad = f"createTopic {topic}", f"send {topic}-none hi"
    assert run("publisher", "-c", good).out.decode() == f"{topic}\ttrue\n"
    ended = run("publisher", "-c", bad, "-c", f"send {topic} hi")
    assert (ended.code, ended.out) == (7, b"")
    assert ended.err.startswith("-c:1: error: ")
    ended = run("publisher", "-c", bad, "-c", f"send {topic} hi", "--keep-going", "-o", "json")
    assert (ended.code, ended.json["offset"]) == (7, 0)


def test_a_script_may_be_a_file_or_stdin(run: Run, server: str, topic: str, tmp_path: Path) -> None:
    script = tmp_path / "run.mb"
    script.write_text(f'createTopic {topic}\nsend {topic} {{"note": "it\'s"}}\n')
    assert run("publisher", "-f", str(script)).code == 0
    ended = run(
        "subscriber", "--name", "billing", stdin=f"subscribe {topic}\npull {topic}".encode()
    )
    assert ended.code == 0
    assert b'{"note": "it\'s"}' in ended.out
    missing = run("publisher", "-f", str(tmp_path / "none.mb"))
    assert (missing.code, missing.err.count("\n")) == (1, 1)


def test_a_server_whose_port_is_taken_exits_1_and_says_so(server: str) -> None:
    with Command("server", "--memory", "--port", server.split(":")[1]) as command:
        ended = command.end()
    assert (ended.code, ended.out) == (1, b"")
    assert f"error: cannot listen on {server}" in ended.err


# --- without a server -------------------------------------------------------------------------

CLIENT_COMMANDS = [
    ("send", "orders", "hi"),
    ("send", "orders", "--lines"),
    ("subscribe", "orders", "--name", "billing"),
    ("pull", "orders", "--name", "billing"),
    ("follow", "orders"),
    ("topic", "create", "orders"),
    ("topic", "list"),
    ("topic", "show", "orders"),
    ("topic", "why", "orders"),
    ("topic", "delete", "orders"),
    ("subscription", "list"),
    ("subscription", "show", "orders", "billing"),
    ("subscription", "delete", "orders", "billing"),
    ("status",),
    ("ping",),
    ("ping", "--wait", "0.05"),
    ("publisher", "-c", "topics"),
    ("subscriber", "-c", "topics"),
]


@pytest.mark.parametrize("args", CLIENT_COMMANDS, ids=" ".join)
def test_without_a_server_every_command_exits_5(run: Run, args: tuple[str, ...]) -> None:
    # Nothing listens on the port that tcpmux has had since 1988.
    ended = run(*args, "-s", "127.0.0.1:1", "--timeout", "0.05")
    assert (ended.code, ended.out) == (5, b"")
    assert ended.err.count("\n") == 1
    assert ended.err.startswith("error: no connection to 127.0.0.1:1")
    assert "start one with: mbctl server" in ended.err


@pytest.mark.parametrize(
    ("args", "form"),
    list(
        product([("topic", "show", "orders-none"), ("send", "orders-none", "x")], ["json", "jsonl"])
    ),
)
def test_an_error_as_json_has_code_message_and_hint(
    run: Run, server: str, args: tuple[str, ...], form: str
) -> None:
    ended = run(*args, "-o", form)
    line, report = ended.err.splitlines()
    error = json.loads(report)["error"]
    assert ended.out == b""
    assert line == f"error: {error['message']}; {error['hint']}"
    assert list(error) == ["code", "message", "hint"]


def test_ping_wait_finds_a_server_that_starts_late(
    start_broker: Callable[..., BrokerProcess],
) -> None:
    gone = start_broker()
    gone.stop()
    with Command("ping", "-s", gone.address, "--wait", "20") as command:
        start_broker(port=gone.port)
        assert command.end().code == 0
