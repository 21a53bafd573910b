"""What people go through at a terminal, from the first key to what is on the screen.

Each starts a shell, which takes half a second, so they run with the slow ones. What a shell
shows and does on its own is in the other files.
"""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from broker_process import wait_until
from shell_harness import ServerProcess, Terminal

from mbctl import Admin, Publisher, Subscriber
from mbctl.shell.follower import SHOWN_PER_S

pytestmark = pytest.mark.slow

CTRL_A, CTRL_C, CTRL_D, CTRL_R, UP, ESCAPE = "\x01", "\x03", "\x04", "\x12", "\x1b[A", "\x1b"

Open = Callable[..., Terminal]

HOSTILE = [
    b"\x1b]0;owned\x07title",
    b"\x1b[2J\x1b[Hcleared",
    b"\x1b[?1049hother screen",
    b"\x9b31mc1",
    "\u202eright to left\u2066".encode(),
    b"[bold red]markup[/]",
    b"\r\n\x08\x7fline",
    b"\xff\xfe\x00\x01",
]


def _open(terminal: Open, *args: str, columns: int = 100, **env: str) -> Terminal:
    """Open a shell and wait until it is connected and so ready for keys."""
    shell = terminal(*args, columns=columns, **env)
    _wait_for_prompt(shell)
    return shell


def _wait_for_prompt(shell: Terminal) -> None:
    shell.wait(lambda lines: lines[-1].startswith(" connected "))


def _has(text: str) -> Callable[[list[str]], bool]:
    return lambda lines: any(text in line for line in lines)


def _send(server: str, topic: str, *payloads: bytes, key: bytes | None = None) -> None:
    with Publisher(server) as publisher:
        publisher.create_topic(topic)
        for payload in payloads:
            publisher.send(topic, payload, key=key, headers={"h": "\x1b[31m"} if key else None)


def _unread(server: str, topic: str) -> int:
    with Admin(server) as admin:
        return admin.subscription(topic, topic).unread


@pytest.fixture
def own_server() -> Iterator[ServerProcess]:
    """A server that the test may stop and treat badly."""
    process = ServerProcess()
    yield process
    process.kill()


@pytest.fixture
def kept_servers(tmp_path: Path) -> Iterator[list[ServerProcess]]:
    """A server that keeps its messages, to be killed; what follows it goes into the list."""
    processes = [ServerProcess(data=tmp_path)]
    yield processes
    for process in processes:
        process.kill()


def _follower(terminal: Open, server: str, topic: str, **env: str) -> Terminal:
    """A durable subscriber that follows while lines are typed."""
    with Publisher(server) as publisher:
        publisher.create_topic(topic)
    shell = _open(terminal, "subscriber", "--name", topic, **env)
    shell.enter(f"subscribe {topic}")
    shell.wait(_has(f"is subscribed to {topic}"))
    shell.enter("follow on")
    shell.wait(_has(f"following {topic}; follow off ends it"))
    _wait_for_prompt(shell)
    return shell


# --- messages that arrive while a line is typed -----------------------------------------------


def test_messages_arrive_above_a_half_typed_line(terminal: Open, server: str, topic: str) -> None:
    shell = _follower(terminal, server, topic)
    shell.type("help unsub")
    shell.wait(_has("subscriber> help unsub"))
    _send(server, topic, b"one", b'{"two": 2}')
    shell.wait(_has('#1 {"two": 2}'))
    # While a message is drawn, the line is away for a moment.
    lines = shell.wait(_has("subscriber> help unsub"))
    assert [line for line in lines if "help unsub" in line] == ["subscriber> help unsub"]
    shell.type("scribe\r")
    shell.wait(_has("give up a subscription and its place"))
    wait_until(lambda: _unread(server, topic) == 0)


def test_flood_is_held_back_counted_and_not_lost(terminal: Open, server: str, topic: str) -> None:
    shell = _follower(terminal, server, topic)
    shell.type("help unsub")
    shell.wait(_has("subscriber> help unsub"))
    with Publisher(server) as publisher:
        publisher.send_many(topic, [b"message %d" % number for number in range(5000)])
    shell.wait(_has("messages held back"))
    lines = shell.wait(_has("subscriber> help unsub"))
    assert sum("help unsub" in line for line in lines) == 1
    shell.wait(lambda lines: " held " in lines[-1])
    shell.type(CTRL_C)
    shell.wait(lambda lines: "subscriber>" in lines)
    shell.enter("follow off")
    shell.wait(_has("stopped following"))
    left = _unread(server, topic)
    assert 5000 - 10 * SHOWN_PER_S < left < 5000
    with Subscriber(server, topic) as subscriber:
        batch = subscriber.pull(topic, 5000, wait=1)
        assert batch.payloads[0] == b"message %d" % (5000 - left)


def test_hostile_messages_harm_no_screen(terminal: Open, server: str, topic: str) -> None:
    shell = _follower(terminal, server, topic, PAGER="cat")
    shell.type("help unsub")
    _send(server, topic, *HOSTILE, b"x" * 1_000_000, b"last", key=b"\x1b[2J\x07")
    shell.wait(_has(f"{topic} #{len(HOSTILE) + 1} "))
    shell.wait(_has("subscriber> help unsub"))
    shell.type(CTRL_C)
    shell.wait(lambda lines: "subscriber>" in lines)
    for verb in ("peek . -n 8", "peek . --full -n 8", "last 10", "peek . --format '%k %h %p\\n'"):
        shell.enter(verb.replace(".", topic, 1))
        # What is typed next is answered only if the screen and the keyboard are as they were.
        shell.enter("help ack")
        shell.wait(_has("example: ack"))
        shell.enter("clear")
        shell.wait(lambda lines: lines[0] == "subscriber>" and lines[-1].startswith(" connected"))
    assert shell.title == ""
    assert shell.lines[-1].startswith(" connected ")


def test_follow_goes_on_through_control_c_and_ends_with_the_shell(
    terminal: Open, server: str, topic: str
) -> None:
    shell = _follower(terminal, server, topic)
    shell.type("half typed")
    shell.wait(_has("subscriber> half typed"))
    shell.type(CTRL_C)
    _send(server, topic, b"after the interrupt")
    shell.wait(_has("#0 after the interrupt"))
    _wait_for_prompt(shell)
    shell.type(CTRL_D)
    shell.wait(_has(f"subscriptions of {topic} stay: {topic} (0 unread)"))
    assert shell.wait_for_end() == 0


def test_verbs_work_beside_following(terminal: Open, server: str, topic: str) -> None:
    shell = _follower(terminal, server, topic)
    _send(server, topic, b"one")
    shell.wait(_has("#0 one"))
    shell.enter("subscriptions")
    shell.wait(_has(f"{topic}  {topic}"))
    shell.enter(f"unsubscribe {topic}")
    shell.wait(_has("is no longer subscribed"))
    shell.wait(_has("error: "))
    shell.enter("follow off")
    shell.wait(_has("nothing was followed"))


def test_dumb_terminal_cannot_follow_beside_the_prompt(
    terminal: Open, server: str, topic: str
) -> None:
    _send(server, topic, b"one")
    shell = terminal("subscriber", TERM="dumb")
    shell.wait_for("help lists the verbs, Ctrl-D leaves")
    shell.enter(f"subscribe {topic} --from earliest")
    shell.enter("follow on")
    shell.wait(_has("follow on needs a terminal to type at; say follow"))


# --- the server goes --------------------------------------------------------------------------


def test_line_up_tells_what_is_lost_and_what_comes_again(
    terminal: Open, tmp_path: Path, kept_servers: list[ServerProcess]
) -> None:
    (kept,) = kept_servers
    shell = _open(terminal, "subscriber", "--name", "billing", "--server", kept.address)
    _send(kept.address, "orders", b"one", b"two", b"three")
    shell.enter("subscribe orders --from earliest")
    shell.wait(_has("is subscribed to orders"))
    shell.enter("pull -n 2 --no-ack")
    shell.wait(_has("#1"))
    _wait_for_prompt(shell)
    kept.kill()
    shell.wait(_has(f"lost {kept.address} ("))
    port = int(kept.address.rpartition(":")[2])
    kept_servers.append(ServerProcess(port, data=tmp_path))
    shell.wait(_has(", 0 lost, 2 to come again unless acknowledged"))
    shell.enter("ack")
    shell.wait(_has("acknowledged 2 messages"))
    assert kept_servers[-1].stop() == 0


def test_lost_server_is_a_line_down_a_line_up_and_typed_verbs_wait(
    terminal: Open, own_server: ServerProcess
) -> None:
    shell = _open(terminal, "publisher", "--server", own_server.address)
    own_server.kill()
    shell.type("createTopic while-gone")
    shell.wait(_has(f"lost {own_server.address} ("))
    shell.wait(_has("publisher> createTopic while-gone"))
    shell.type("\r")
    shell.wait(_has(f"waiting for {own_server.address}; Ctrl-C gives up"))
    again = ServerProcess(int(own_server.address.rpartition(":")[2]))
    lines = shell.wait(_has("created topic while-gone"))
    assert sum(f"{own_server.address} is back after" in line for line in lines) == 1
    assert sum(f"lost {own_server.address}" in line for line in lines) == 1
    assert again.stop() == 0


def test_control_c_gives_up_a_verb_that_waits_for_the_server(
    terminal: Open, own_server: ServerProcess
) -> None:
    shell = _open(terminal, "publisher", "--server", own_server.address)
    own_server.kill()
    shell.wait(_has(f"lost {own_server.address} ("))
    shell.enter("createTopic while-gone")
    shell.wait(_has("waiting for"))
    shell.type(CTRL_C)
    shell.wait(_has("given up before it began"))
    shell.enter("help send")
    shell.wait(_has("send one message"))
    # A Ctrl-D would be lost if the prompt were not back yet.
    shell.enter("exit")
    assert shell.wait_for_end() == 0


def test_outcome_that_nobody_knows_is_called_unknown(
    terminal: Open, own_server: ServerProcess
) -> None:
    _send(own_server.address, "orders", b"one")
    shell = _open(terminal, "publisher", "--server", own_server.address, "--timeout", "0.5")
    own_server.process.send_signal(signal.SIGSTOP)
    shell.enter("send orders two")
    shell.wait(_has("it is unknown whether"))
    own_server.process.send_signal(signal.SIGCONT)


# --- Ctrl-C, Ctrl-D, paste, history -----------------------------------------------------------


def test_control_d_within_a_line_deletes_and_does_not_leave(terminal: Open, server: str) -> None:
    shell = _open(terminal, "publisher")
    shell.type(f"xtopics{CTRL_A}")
    shell.wait(_has("publisher> xtopics"))
    shell.type(CTRL_D)
    shell.wait(lambda lines: "publisher> topics" in lines)


def test_control_c_never_ends_the_shell(terminal: Open, server: str, topic: str) -> None:
    shell = _open(terminal, "publisher")
    for _ in range(5):
        shell.type(CTRL_C)
        shell.wait(_has("Ctrl-D leaves the shell"))
        _wait_for_prompt(shell)
    shell.enter(f"createTopic {topic}")
    shell.wait_for(f"created topic {topic}")


def test_pasted_block_says_what_enter_does_and_control_c_drops_it(
    terminal: Open, server: str, topic: str
) -> None:
    shell = _open(terminal, "publisher")
    block = f"createTopic {topic}\nsend {topic} a\nsend {topic} b"
    shell.paste(block)
    shell.wait(_has("3 lines: Enter runs them one by one, Ctrl-C drops them"))
    shell.type(CTRL_C)
    _wait_for_prompt(shell)
    with Admin(server) as admin:
        assert topic not in [info.topic for info in admin.topics()]
    shell.paste(block)
    shell.wait(_has("3 lines: Enter"))
    shell.type(UP)
    shell.wait(_has("[--file F | --hex HEX] TOPIC MESSAGE"))
    shell.type("\r")
    lines = shell.wait(_has(f"{topic} #1  1 B"))
    assert f"publisher> send {topic} b" in lines


def test_up_looks_for_lines_that_begin_as_the_one_typed(
    terminal: Open, server: str, topic: str
) -> None:
    shell = _open(terminal, "publisher")
    shell.enter(f"createTopic {topic}")
    shell.wait_for(f"created topic {topic}")
    shell.enter("status")
    shell.wait(_has("Uptime"))
    _wait_for_prompt(shell)
    shell.type("cre")
    shell.wait(_has("publisher> cre"))
    shell.type(ESCAPE)
    shell.type(UP)
    shell.wait(lambda lines: f"publisher> createTopic {topic}" in lines[-8:])


# --- what a line looks like -------------------------------------------------------------------


def test_wrong_line_is_marked_and_explained_before_enter(terminal: Open, server: str) -> None:
    shell = _open(terminal, "publisher")
    shell.type("crateTopic orders")
    shell.wait(_has("! unknown verb 'crateTopic'"))
    assert shell.is_coloured_at("crateTopic o") >= {"red"}
    shell.type(CTRL_C)
    shell.wait(lambda lines: "publisher>" in lines)
    shell.type("createTopic orders")
    shell.wait(_has("createTopic [OPTIONS] NAME"))
    assert "red" not in shell.is_coloured_at("createTopic orders")


def test_topic_in_use_stands_in_the_prompt_and_for_a_dot(
    terminal: Open, server: str, topic: str
) -> None:
    _send(server, topic, b"one")
    shell = _open(terminal, "publisher")
    shell.enter(f"use {topic}")
    shell.wait(_has(f". is {topic} now"))
    shell.enter("send . two")
    shell.wait(_has(f"{topic} #1  3 B"))
    shell.enter(f"{topic}")
    shell.wait(_has(f"{topic} is a topic: send {topic} ..."))
    shell.enter("use no-such-topic")
    shell.wait(_has("topic 'no-such-topic' does not exist"))
    shell.wait(_has(f"publisher:{topic}>"))


def test_toolbar_follows_the_size_of_the_terminal(terminal: Open, server: str) -> None:
    shell = _open(terminal, "publisher", "--name", "till-3")
    shell.type("deleteTopic ")
    shell.wait(lambda lines: lines[-1].endswith("  deleteTopic NAME"))
    shell.resize(60)
    shell.wait(lambda lines: len(lines[-1]) <= 60 and lines[-1].endswith("  deleteTopic NAME"))
    shell.resize(140, 30)
    shell.wait(lambda lines: len(lines[-1]) > 130 and "publisher till-3" in lines[-1])
    shell.wait(_has("publisher> deleteTopic"))


def test_watch_repeats_a_verb_until_control_c(terminal: Open, server: str, topic: str) -> None:
    _send(server, topic, b"one")
    shell = _open(terminal, "publisher")
    shell.enter(f"watch 0.1 peek {topic}")
    shell.wait(_has(f"every 0.1 s: peek {topic}"))
    shell.wait(_has(f"{topic} #0 one"))
    _send(server, topic, b"two")
    shell.wait(_has(f"{topic} #1 two"))
    shell.type(CTRL_C)
    shell.wait(_has("stopped watching"))
    shell.enter("watch 1 follow")
    shell.wait(_has("error: "))


# --- long answers -----------------------------------------------------------------------------


def test_long_answer_goes_through_the_pager_and_a_short_one_does_not(
    terminal: Open, server: str, topic: str, tmp_path: Path
) -> None:
    pager = tmp_path / "pager"
    pager.write_text('#!/bin/sh\nwc -l\necho "--- paged, Enter goes on"\nread line < /dev/tty\n')
    pager.chmod(0o755)
    _send(server, topic, b"short", b"\n".join(b"line %d" % n for n in range(100)))
    shell = _open(terminal, "publisher", PAGER=str(pager))
    shell.enter(f"peek {topic} -n 1")
    shell.wait(_has("#0 short"))
    shell.enter("last")
    shell.wait(_has("short"))
    assert not any("paged" in line for line in shell.lines)
    shell.enter(f"peek {topic} --from 1")
    shell.wait(_has("#1 line 0"))
    shell.enter("last")
    shell.wait(_has("--- paged"))
    shell.type(CTRL_C)
    shell.type("\r")
    shell.wait(_has("connected"))
    shell.enter("status")
    shell.wait(_has("Uptime"))


# --- contexts ---------------------------------------------------------------------------------


def test_production_is_red_and_asks_for_the_name(
    terminal: Open, server: str, topic: str, tmp_path: Path
) -> None:
    _send(server, topic, b"one")
    config = {"XDG_CONFIG_HOME": str(tmp_path)}
    added = terminal(
        *("context", "add", "production", "-s", server, "--prompt-color", "red"),
        *("--confirm", "always"),
        **config,
    )
    assert added.wait_for_end() == 0
    shell = _open(terminal, "publisher", "--context", "production", **config)
    shell.wait(_has("production publisher>"))
    assert shell.is_coloured_at("production") == {"red"}
    shell.enter(f"deleteTopic {topic}")
    shell.wait(_has(f"type {topic} to go on:"))
    shell.enter("yes")
    shell.wait(_has("nothing was changed"))
    _wait_for_prompt(shell)
    shell.enter(f"deleteTopic {topic}")
    shell.wait(lambda lines: sum(f"type {topic} to go on:" in line for line in lines) == 2)
    shell.type(CTRL_C)
    shell.wait(_has("given up before it began"))
    _wait_for_prompt(shell)
    shell.enter(f"deleteTopic {topic}")
    shell.wait(lambda lines: sum(f"type {topic} to go on:" in line for line in lines) == 3)
    shell.enter(topic)
    shell.wait_for(f"deleted topic {topic}")


# --- top and demo -----------------------------------------------------------------------------


def test_top_sorts_filters_pauses_and_gives_the_terminal_back(
    terminal: Open, server: str, topic: str
) -> None:
    _send(server, f"{topic}-first", b"one")
    _send(server, f"{topic}-second", b"one")
    top = terminal("top", "--interval", "0.2", columns=100)
    top.wait(_has("s sort: rate"))
    top.type("s")
    top.wait(_has("s sort: lag"))
    top.type("/")
    # Others may have left more topics than there is room for.
    top.type(topic)
    top.wait(_has(f" {topic}-second "))
    top.type("-f")
    top.wait(lambda lines: _has(f"filter: {topic}-f_")(lines) and not _has("-second")(lines))
    top.type("\r")
    top.wait(_has(f"/ filter: {topic}-f"))
    top.type("p")
    top.wait(_has("   paused"))
    top.resize(70, 20)
    top.wait(lambda lines: all(len(line) <= 70 for line in lines))
    top.type("q")
    assert top.wait_for_end() == 0


def test_top_says_that_the_server_is_gone_and_goes_on(
    terminal: Open, own_server: ServerProcess
) -> None:
    _send(own_server.address, "orders", b"one")
    options = ("--server", own_server.address, "--interval", "0.2", "--timeout", "0.3")
    top = terminal("top", *options, columns=100)
    top.wait(_has(" orders "))
    own_server.kill()
    top.wait(_has("trying again"))
    again = ServerProcess(int(own_server.address.rpartition(":")[2]))
    top.wait(lambda lines: not _has("trying again")(lines))
    top.type(CTRL_C)
    assert top.wait_for_end() == 130
    assert again.stop() == 0


def test_demo_is_one_picture_that_moves(terminal: Open) -> None:
    demo = terminal("demo", "--seconds", "1.5", columns=90)
    demo.wait(_has("reports is slow on purpose"))
    demo.wait(_has("All have read everything"))
    demo.wait(_has("Try it yourself"))
    assert demo.wait_for_end() == 0
    assert sum("╭─ mbctl demo" in line for line in demo.lines) <= 1
