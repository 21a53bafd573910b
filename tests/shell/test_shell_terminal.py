"""Shells at a real terminal of 80 by 24: what their users see."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from shell_harness import PATIENCE_S, ServerProcess, Terminal

from mbctl import Admin, Publisher

CTRL_C, CTRL_D, TAB = "\x03", "\x04", "\t"

Open = Callable[..., Terminal]


def _open(terminal: Open, kind: str, *options: str, **env: str) -> Terminal:
    """Open a shell and wait until it is connected and so ready for keys."""
    shell = terminal(kind, *options, **env)
    _wait_for_prompt(shell)
    return shell


def _wait_for_prompt(shell: Terminal) -> None:
    """Wait until keys go to the prompt: before that they go to what runs."""
    shell.wait(lambda lines: lines[-1].startswith(" connected "))


def _open_waiting(terminal: Open, server: str, topic: str) -> Terminal:
    """A subscriber's shell whose pull waits for the second message of the topic."""
    _send(server, topic, b"one")
    shell = _open(terminal, "subscriber")
    shell.enter(f"subscribe {topic} --from new")
    shell.wait(lambda lines: any(f"is subscribed to {topic} from #1" in line for line in lines))
    shell.enter("pull --wait 600")
    deadline = time.monotonic() + PATIENCE_S
    with Admin(server) as admin:
        while not admin.subscriptions(topic)[0].waiting_pulls:
            assert time.monotonic() < deadline
    return shell


def _send(server: str, topic: str, *payloads: bytes) -> None:
    with Publisher(server) as publisher:
        publisher.create_topic(topic)
        publisher.send_many(topic, payloads)


def test_publisher_and_subscriber_talk(terminal: Open, server: str, topic: str) -> None:
    message = """{"id": 1, "note": "it's  two  spaces"}"""
    publisher = _open(terminal, "publisher", "--name", "till-3")
    publisher.enter(f"createTopic {topic}")
    publisher.wait_for(f"created topic {topic}")
    publisher.enter(f"send {topic} {message}")
    publisher.wait_for(f"{topic} #0  {len(message)} B")
    subscriber = _open(terminal, "subscriber", "--name", topic)
    subscriber.enter(f"subscribe {topic}")
    subscriber.wait_for(f"{topic} is subscribed to {topic} from #0")
    subscriber.enter("pull")
    subscriber.wait(lambda lines: any(line.endswith(f" {topic} #0 {message}") for line in lines))
    publisher.enter(f"deleteTopic {topic}")
    publisher.wait_for(f"deleted topic {topic}")


def test_toolbar_shows_connection_name_and_syntax(terminal: Open, server: str) -> None:
    shell = _open(terminal, "publisher", "--name", "till-3")
    assert shell.lines[-1].startswith(f" connected {server}  publisher till-3")
    shell.type("deleteTopic ")
    shell.wait(lambda lines: lines[-1].endswith("  deleteTopic NAME"))


def test_subscriptions_are_a_table(terminal: Open, server: str, topic: str) -> None:
    _send(server, topic, b"a")
    shell = _open(terminal, "subscriber")
    shell.enter(f"subscribe {topic}")
    shell.enter("subscriptions")
    lines = shell.wait(lambda lines: any(line.startswith(f"{topic} ") for line in lines))
    assert any(line.startswith("TOPIC ") for line in lines)


def test_completion_offers_live_topics_in_colour(terminal: Open, server: str, topic: str) -> None:
    _send(server, f"live-{topic}", b"a")
    shell = _open(terminal, "publisher")
    shell.type("send live-")
    shell.wait(lambda lines: any(f"live-{topic}" in line for line in lines))
    assert shell.is_coloured
    shell.type(TAB)
    shell.wait_for(f"publisher> send live-{topic}")


def test_control_c_clears_the_line(terminal: Open, server: str, topic: str) -> None:
    shell = _open(terminal, "publisher")
    shell.type("createTopic half-typed")
    shell.wait_for("publisher> createTopic half-typed")
    shell.type(CTRL_C)
    shell.wait(lambda lines: "publisher>" in lines)
    shell.enter(f"createTopic {topic}")
    shell.wait_for(f"created topic {topic}")


def test_control_c_ends_follow_and_not_the_shell(terminal: Open, server: str, topic: str) -> None:
    _send(server, topic, b"one")
    shell = _open(terminal, "subscriber", "--name", topic)
    shell.enter(f"subscribe {topic}")
    shell.wait_for(f"{topic} is subscribed to {topic} from #0")
    shell.enter("follow")
    shell.wait(lambda lines: any(line.endswith(f"{topic} #0 one") for line in lines))
    _send(server, topic, b"two")
    shell.wait(lambda lines: any(line.endswith(f"{topic} #1 two") for line in lines))
    shell.type(CTRL_C)
    shell.wait_for("stopped following")
    _send(server, topic, b"three")
    shell.enter("pull")
    shell.wait(lambda lines: any(line.endswith(f"{topic} #2 three") for line in lines))


def test_control_c_ends_a_waiting_pull_and_not_the_shell(
    terminal: Open, server: str, topic: str
) -> None:
    shell = _open_waiting(terminal, server, topic)
    shell.type(CTRL_C)
    shell.wait_for("interrupted")
    _send(server, topic, b"two")
    shell.enter("pull")
    shell.wait(lambda lines: any(line.endswith(f"{topic} #1 two") for line in lines))


def test_control_d_leaves_and_says_what_stays(terminal: Open, server: str, topic: str) -> None:
    _send(server, topic, b"one", b"two")
    shell = _open(terminal, "subscriber", "--name", topic)
    shell.enter(f"subscribe {topic}")
    shell.wait_for(f"{topic} is subscribed to {topic} from #0")
    _wait_for_prompt(shell)
    shell.type(CTRL_D)
    shell.wait_for(f"subscriptions of {topic} stay: {topic} (2 unread)")
    assert shell.wait_for_end() == 0


def test_control_d_while_a_verb_runs_leaves_after_it(
    terminal: Open, server: str, topic: str
) -> None:
    shell = _open_waiting(terminal, server, topic)
    shell.type(CTRL_D)
    _send(server, topic, b"two")
    shell.wait(lambda lines: any(line.endswith(f"{topic} #1 two") for line in lines))
    assert shell.wait_for_end() == 0


def test_payload_of_control_characters_is_shown_and_not_obeyed(
    terminal: Open, server: str, topic: str
) -> None:
    _send(server, topic, b"\x1b]0;owned\x07\x1b[2Jx\xff[/bold]")
    shell = _open(terminal, "subscriber")
    shell.enter(f"subscribe {topic}")
    shell.enter("pull")
    shown = "\\x1b]0;owned\\x07\\x1b[2Jx\\xff[/bold]"
    shell.wait(lambda lines: any(line.endswith(f" {topic} #0 {shown}") for line in lines))


@pytest.fixture
def own_server() -> Iterator[ServerProcess]:
    """A server that the test may stop and treat badly."""
    process = ServerProcess()
    yield process
    process.kill()


def test_lost_server_is_one_line_and_the_next_verb_reconnects(
    terminal: Open, own_server: ServerProcess
) -> None:
    shell = _open(terminal, "publisher", "--server", own_server.address, "--timeout", "0.5")
    own_server.stop()
    shell.enter("topics")
    shell.wait(lambda lines: any(line.startswith("error: no connection to") for line in lines))
    shell.wait(lambda lines: lines[-1].startswith(" no connection "))
    again = ServerProcess(int(own_server.address.rpartition(":")[2]))
    shell.enter("createTopic back")
    shell.wait_for("created topic back")
    shell.wait(lambda lines: lines[-1].startswith(" connected "))
    again.stop()


def test_leaving_a_lost_server_tells_what_is_not_acknowledged(
    terminal: Open, own_server: ServerProcess
) -> None:
    _send(own_server.address, "orders", b"a")
    shell = _open(terminal, "subscriber", "--server", own_server.address, "--timeout", "0.5")
    shell.enter("subscribe orders")
    shell.enter("pull")
    shell.wait(lambda lines: any(line.endswith(" orders #0 a") for line in lines))
    own_server.stop()
    shell.enter("topics")
    shell.wait(lambda lines: lines[-1].startswith(" no connection "))
    shell.type(CTRL_D)
    shell.wait_for("1 message not acknowledged will come again")
    assert shell.wait_for_end() == 0


def test_verb_that_waits_says_so_and_control_c_ends_it(
    terminal: Open, own_server: ServerProcess
) -> None:
    shell = _open(terminal, "publisher", "--server", own_server.address)
    own_server.process.send_signal(signal.SIGSTOP)
    shell.enter("createTopic orders")
    shell.wait_for(f"waiting for {own_server.address}; Ctrl-C gives up")
    shell.type(CTRL_C)
    shell.wait_for("interrupted; whether it took effect is not known")
    own_server.process.send_signal(signal.SIGCONT)
    shell.enter("createTopic clicks")
    shell.wait_for("created topic clicks")


def test_shell_without_a_server_exits_5(terminal: Open) -> None:
    shell = terminal("publisher", "--server", "127.0.0.1:1", "--timeout", "0.2")
    assert shell.wait_for_end() == 5
    assert shell.lines[0].startswith("error: no connection to 127.0.0.1:1: connection refused")


def test_no_color_is_respected(terminal: Open, server: str) -> None:
    shell = _open(terminal, "publisher", NO_COLOR="1")
    shell.enter("createTopic .")
    shell.wait(lambda lines: any(line.startswith("error:") for line in lines))
    shell.type("top")
    shell.wait(lambda lines: any("list the topics" in line for line in lines))
    assert not shell.is_coloured


def test_dumb_terminal_has_a_plain_prompt(terminal: Open, server: str, topic: str) -> None:
    shell = terminal("publisher", TERM="dumb")
    shell.wait_for("help lists the verbs, Ctrl-D leaves")
    shell.enter(f"createTopic {topic}")
    lines = shell.wait_for(f"created topic {topic}")
    assert not any("connected 1" in line for line in lines[2:])
    shell.enter("exit")
    assert shell.wait_for_end() == 0


def test_prompt_goes_to_stderr_where_stdout_is_a_file(
    terminal: Open, server: str, topic: str, tmp_path: Path
) -> None:
    _send(server, topic, b"one")
    out = tmp_path / "out"
    shell = terminal("subscriber", "-o", "raw", "-q", out=out)
    _wait_for_prompt(shell)
    shell.enter(f"subscribe {topic}")
    shell.enter("pull")
    shell.wait(lambda lines: lines[-3:-1] == ["subscriber> pull", "subscriber>"])
    shell.type(CTRL_D)
    assert shell.wait_for_end() == 0
    assert out.read_bytes() == b"one\n"
