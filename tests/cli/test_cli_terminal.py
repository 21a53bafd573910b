"""Commands on a real terminal: tables, questions, escapes, colours."""

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pexpect  # type: ignore[import-untyped]
import pytest

from mbctl import Admin, Publisher, Subscriber

Spawn = Callable[..., Any]


@pytest.fixture
def spawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spawn]:
    """Start a command on a terminal of 80 columns."""
    monkeypatch.delenv("COLUMNS")
    monkeypatch.setenv("TERM", "xterm-256color")
    # A list may be longer than the screen, and nobody is there to leave the pager.
    monkeypatch.setenv("PAGER", "cat")
    children: list[Any] = []

    def spawn(*args: str, **environment: str) -> Any:
        child = pexpect.spawn(
            sys.executable,
            ["-m", "mbctl", *args],
            env={**os.environ, **environment},
            dimensions=(24, 80),
            encoding="utf-8",
            timeout=20,
        )
        children.append(child)
        return child

    yield spawn
    for child in children:
        child.close(force=True)


@pytest.fixture
def orders(topic: str, server: str) -> str:
    """A topic with two messages, of which billing has read none."""
    with Publisher(server) as publisher, Subscriber(server, "billing") as subscriber:
        publisher.create_topic(topic)
        subscriber.subscribe(topic)
        publisher.send_many(topic, [b"\x1b]0;pwn\x07[red]", b"two"])
    return topic


def finish(child: Any) -> tuple[int, str]:
    """The exit code and the rest of what was shown."""
    shown = child.read()
    child.close()
    return child.exitstatus, shown.replace("\r\n", "\n")


def topics(server: str) -> list[str]:
    with Admin(server) as admin:
        return [info.topic for info in admin.topics()]


def test_a_list_is_a_table_with_a_bold_head(spawn: Spawn, orders: str) -> None:
    code, shown = finish(spawn("topic", "list"))
    assert code == 0
    assert "\x1b[1m" in shown.splitlines()[0]
    assert "SUBSCRIPTIONS" in shown
    (row,) = [line for line in shown.splitlines() if line.startswith(f"{orders} ")]
    assert row.split()[1] == "2"


def test_no_color_is_respected(spawn: Spawn, orders: str) -> None:
    _, shown = finish(spawn("topic", "list", NO_COLOR="1"))
    assert orders in shown
    assert "\x1b" not in shown


def test_send_says_where_the_message_is(spawn: Spawn, orders: str) -> None:
    assert finish(spawn("send", orders, "hello world")) == (0, f"{orders} #2  11 B\n")


def test_pulled_messages_are_lines_that_cannot_act(spawn: Spawn, orders: str) -> None:
    _, shown = finish(spawn("pull", orders, "--name", "billing", "--color", "never"))
    first, second = shown.splitlines()
    assert first.endswith(f"{orders} #0 \\x1b]0;pwn\\x07[red]")
    assert second.endswith(f"{orders} #1 two")


def test_raw_is_exact_on_a_terminal_too(spawn: Spawn, orders: str) -> None:
    _, shown = finish(spawn("pull", orders, "--name", "billing", "-o", "raw"))
    assert shown == "\x1b]0;pwn\x07[red]\ntwo\n"


def test_delete_asks_and_takes_no_for_an_answer(spawn: Spawn, server: str, orders: str) -> None:
    child = spawn("topic", "delete", orders)
    child.expect_exact(f"delete topic {orders} with 2 messages and 1 subscription? [y/N]: ")
    child.sendline("n")
    code, shown = finish(child)
    assert (code, "nothing was changed" in shown) == (1, True)
    assert orders in topics(server)


def test_delete_does_it_when_told_so(spawn: Spawn, server: str, orders: str) -> None:
    child = spawn("topic", "delete", orders)
    child.expect_exact("? [y/N]: ")
    child.sendline("y")
    code, shown = finish(child)
    assert (code, f"deleted topic {orders}" in shown) == (0, True)
    assert orders not in topics(server)


def test_delete_with_yes_does_not_ask(spawn: Spawn, server: str, orders: str) -> None:
    assert finish(spawn("topic", "delete", orders, "-y")) == (0, f"deleted topic {orders}\n")
    assert orders not in topics(server)


def test_ctrl_c_at_the_question_deletes_nothing(spawn: Spawn, server: str, orders: str) -> None:
    child = spawn("subscription", "delete", orders, "billing")
    child.expect_exact("with 2 unread messages? [y/N]: ")
    child.sendintr()
    code, shown = finish(child)
    assert (code, "Traceback" in shown) == (130, False)
    with Admin(server) as admin:
        assert admin.subscription(orders, "billing").unread == 2


def test_delete_of_nothing_does_not_ask(spawn: Spawn, server: str, topic: str) -> None:
    code, shown = finish(spawn("topic", "delete", topic))
    assert (code, "[y/N]" in shown) == (3, False)


def test_follow_shows_lines_until_ctrl_c(spawn: Spawn, server: str, orders: str) -> None:
    child = spawn("follow", orders, "--name", "billing", "--color", "never")
    child.expect_exact(f"{orders} #1 two\r\n")
    with Publisher(server) as publisher:
        publisher.send(orders, b"three", key=b"k", headers={"type": "new"})
    child.expect_exact(f"{orders} #2 key=k type=new three\r\n")
    child.sendintr()
    code, shown = finish(child)
    assert (code, shown.strip()) == (130, "^C")
