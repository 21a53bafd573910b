"""``mbctl topic move``: what it says and how it ends, and a move that is killed again and again."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
from broker_process import PATIENCE_S, BrokerProcess, wait_until
from cli_harness import Command, Run

from mbctl import Admin, Publisher

MESSAGES_MAX = 40_000
KILLED_MESSAGES = 24_000


@pytest.fixture(scope="module")
def other() -> Iterator[BrokerProcess]:
    """The server that topics are moved to."""
    broker = BrokerProcess()
    yield broker
    broker.check()


@pytest.fixture
def orders(server: str, topic: str) -> str:
    """A topic with a setting and three messages."""
    with Publisher(server) as publisher:
        publisher.create_topic(topic, max_messages=MESSAGES_MAX)
        publisher.send_many(topic, [b"a", b"b", b"c"], keys=[b"k", None, None])
    return topic


def test_topic_move_tells_what_it_did_and_what_is_next(
    run: Run, server: str, other: BrokerProcess, orders: str
) -> None:
    ended = run("topic", "move", orders, "--to", other.address, "-o", "json")
    assert ended.code == 0
    assert ended.json.pop("seconds") > 0
    assert ended.json | {"seconds": 0} == {
        "topic": orders,
        "from": server,
        "to": other.address,
        "messages": 3,
        "bytes": 3,
        "gone": 0,
        "lag": 0,
        "next_offset": 3,
        "seconds": 0,
    }
    assert f"mbctl topic delete {orders} -s {server}" in ended.err
    shown = run("topic", "show", orders, "-s", other.address, "-o", "json").json
    assert (shown["messages"], shown["max_messages"]) == (3, MESSAGES_MAX)
    again = run("topic", "move", orders, "--to", other.address, "-o", "table")
    assert again.out.decode() == (
        f"moved 0 messages (0 B) of {orders} to {other.address}; nothing is left to move\n"
    )


def test_topic_move_takes_the_name_of_a_context(
    run: Run, other: BrokerProcess, orders: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert run("context", "add", "new", "-s", other.address).code == 0
    ended = run("topic", "move", orders, "--to", "new", "-o", "json")
    assert (ended.code, ended.json["to"]) == (0, other.address)


def test_topic_move_leaves_settings_out(run: Run, other: BrokerProcess, orders: str) -> None:
    to = ("--to", other.address)
    assert run("topic", "move", orders, *to, "--without", "max-messages").code == 0
    shown = run("topic", "show", orders, "-s", other.address, "-o", "json").json
    assert shown["max_messages"] is None
    ended = run("topic", "move", orders, *to)
    assert ended.code == 3
    assert f"exists at {other.address} already with other settings" in ended.err
    assert run("topic", "move", orders, *to, "--without", "everything").code == 2


def test_topic_move_says_what_is_in_its_way(
    run: Run, server: str, other: BrokerProcess, orders: str
) -> None:
    assert run("topic", "move", "nothing", "--to", other.address).code == 3
    to_itself = run("topic", "move", orders, "--to", server)
    assert to_itself.code == 2
    assert "serve the same topics" in to_itself.err
    assert run("topic", "move", orders, "--to", "127.0.0.1:1", "--timeout", "0.3").code == 5
    assert run("topic", "move", orders, "--to", "no address").code == 2
    assert run("topic", "move", orders).code == 2
    with Publisher(other.address) as publisher:
        publisher.create_topic(orders, max_messages=MESSAGES_MAX)
        publisher.send(orders, b"mine")
    in_use = run("topic", "move", orders, "--to", other.address)
    assert in_use.code == 3
    assert f"mbctl topic delete {orders} -s {other.address}" in in_use.err


def test_topic_move_follows_until_nothing_comes(
    server: str, other: BrokerProcess, orders: str
) -> None:
    args = ("topic", "move", orders, "--to", other.address, "-s", server, "-o", "json")
    with Publisher(server) as publisher, Command(*args, "--idle", "0.5") as command:
        while "lag 0; now switch its publishers to" not in command.read_note():
            pass
        publisher.send(orders, b"d")
        ended = command.end()
    assert (ended.code, ended.json["messages"]) == (0, 4)


def test_topic_move_is_interrupted(server: str, other: BrokerProcess, orders: str) -> None:
    with Command("topic", "move", orders, "--to", other.address, "-s", server, "-f") as command:
        while "now switch" not in command.read_note():
            pass
        command.interrupt()
        ended = command.end()
    assert ended.code == 130
    assert ended.out == b""
    assert "stopped after 3 messages; run this again to go on" in ended.err


def test_topic_move_tells_on_a_terminal_in_one_line(
    server: str, other: BrokerProcess, orders: str
) -> None:
    command = ["-m", "mbctl", "topic", "move", orders, "--to", other.address, "-s", server]
    terminal = pexpect.spawn(
        sys.executable,
        [*command, "--idle", "0.2"],
        env={**os.environ, "TERM": "xterm"},
        dimensions=(24, 60),
        encoding="utf-8",
        timeout=PATIENCE_S,
    )
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    line, caught_up = terminal.before.split("\r\x1b[K")[1:3]
    assert line.startswith(f"3 messages of {orders} moved, ")
    assert len(line) < 60
    assert caught_up.startswith(f"{orders} has caught up: lag 0; now switch")


def test_topic_move_killed_again_and_again_loses_and_doubles_nothing(
    server: str, other: BrokerProcess, topic: str
) -> None:
    # A thousand of them are a batch.
    sent = [b"%01000d" % number for number in range(KILLED_MESSAGES)]
    move = [sys.executable, "-m", "mbctl", "topic", "move", topic, "--to", other.address]
    with Publisher(server) as publisher, Admin(other.address) as admin:
        publisher.create_topic(topic)
        for first in range(0, len(sent), 500):
            publisher.send_many(topic, sent[first : first + 500])
        ended = []
        # Up to four times: one that is done before it is seen to have begun cannot be killed.
        while len(ended) < 4 and 0 not in ended:
            before = _moved(admin, topic)
            with subprocess.Popen([*move, "-s", server, "-q"]) as process:
                is_ended = process.poll
                wait_until(
                    lambda before=before, is_ended=is_ended: (
                        _moved(admin, topic) > before or is_ended() is not None
                    )
                )
                process.kill()
            ended.append(process.returncode)
        assert ended[0] == -signal.SIGKILL
        assert set(ended) <= {0, -signal.SIGKILL}
        assert subprocess.run([*move, "-s", server, "-q"], check=False).returncode == 0
        shown = admin.peek(topic, "earliest", 2 * len(sent))
    assert shown.payloads == sent


@pytest.mark.slow
def test_topic_move_goes_on_when_servers_are_killed(tmp_path: Path, topic: str) -> None:
    sent = [b"%01000d" % number for number in range(KILLED_MESSAGES)]
    servers = [BrokerProcess(data=tmp_path / name) for name in ("source", "target")]
    source, target = (server.address for server in servers)
    move = [*(sys.executable, "-m", "mbctl", "topic", "move", topic), "-s", source, "--to", target]
    with Publisher(source) as publisher, Admin(target) as admin:
        publisher.create_topic(topic)
        for first in range(0, len(sent) // 2, 500):
            publisher.send_many(topic, sent[first : first + 500])
        with subprocess.Popen([*move, "-q", "--follow"]) as process:
            for at in (1, 0):
                before = _moved(admin, topic)
                for first in range((3 - at) * len(sent) // 4, (4 - at) * len(sent) // 4, 500):
                    publisher.send_many(topic, sent[first : first + 500])
                wait_until(lambda before=before: _moved(admin, topic) > before)
                port = servers[at].port
                servers[at].kill()
                servers[at].check()
                servers[at] = BrokerProcess(data=tmp_path / ("source", "target")[at], port=port)
            wait_until(lambda: _moved(admin, topic) == len(sent))
            assert process.poll() is None
            process.kill()
        assert subprocess.run([*move, "-q"], check=False).returncode == 0
        assert admin.peek(topic, "earliest", 2 * len(sent)).payloads == sent
    for server in servers:
        server.check()


def _moved(admin: Admin, topic: str) -> int:
    """How many messages of the topic are at the target."""
    return next((info.messages or 0 for info in admin.topics() if info.topic == topic), 0)
