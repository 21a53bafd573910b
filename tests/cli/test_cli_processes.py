"""Commands as processes: what they import, how they are interrupted, cut off and completed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from broker_process import wait_until
from cli_harness import Command

from mbctl import Admin, Publisher, Subscriber

# What a one-shot may import besides the standard library, and of that what it must not:
# each of these costs a tenth of the time that a one-shot may take.
ALLOWED_PACKAGES = {
    "annotated_doc",
    "mbctl",
    "msgspec",
    # The standard library's copy tries this one, for another Python.
    "org",
    "shellingham",
    "typer",
    "typing_extensions",
}
ALLOWED_PARTS = {
    *("__main__", "actions", "batch", "cli", "client", "errors", "forks", "model", "patience"),
    "wire",
}
FORBIDDEN = {
    "asyncio",
    "concurrent",
    "dataclasses",
    "http",
    "json",
    "logging",
    "multiprocessing",
    "prompt_toolkit",
    "rich",
    "ssl",
    "uvloop",
}


@pytest.fixture
def billed(topic: str, server: str) -> str:
    """A topic that the subscriber billing reads from its beginning."""
    with Publisher(server) as publisher, Subscriber(server, "billing") as subscriber:
        publisher.create_topic(topic)
        subscriber.subscribe(topic)
    return topic


def send(server: str, topic: str, *payloads: bytes) -> None:
    with Publisher(server) as publisher:
        publisher.send_many(topic, payloads)


def unread(server: str, topic: str) -> int:
    with Admin(server) as admin:
        return admin.subscription(topic, "billing").unread


def imports(*command: str) -> set[str]:
    """The modules that a run of Python imports, or tries to."""
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", *command], capture_output=True, text=True, check=True
    )
    lines = [line for line in ended.stderr.splitlines() if line.startswith("import time:")]
    # The first line is the head of the table.
    return {line.rpartition("|")[2].strip() for line in lines[1:]}


@pytest.mark.parametrize(
    "args",
    [
        ("send", "TOPIC", "hi"),
        ("pull", "TOPIC", "--name", "billing"),
        ("topic", "list", "-o", "json"),
        ("status",),
    ],
    ids=" ".join,
)
def test_a_one_shot_imports_only_what_it_needs(billed: str, args: tuple[str, ...]) -> None:
    command = [billed if arg == "TOPIC" else arg for arg in args]
    imported = imports("-m", "mbctl", *command)
    packages = {name.partition(".")[0] for name in imported - imports("-c", "pass")}
    assert "mbctl.client.sync" in imported
    assert not packages & FORBIDDEN
    assert packages - sys.stdlib_module_names <= ALLOWED_PACKAGES
    parts = {name.split(".")[1] for name in imported if name.startswith("mbctl.")}
    assert parts <= ALLOWED_PARTS


def test_the_console_script_is_the_module() -> None:
    script = Path(sys.executable).with_name("mbctl")
    module = [sys.executable, "-m", "mbctl"]
    for command in ([str(script)], module):
        ended = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
        assert ended.stdout.startswith("mbctl ")


# --- Ctrl-C -----------------------------------------------------------------------------------


def test_ctrl_c_ends_follow_with_130_and_what_was_printed_is_acknowledged(
    server: str, billed: str
) -> None:
    with Command("follow", billed, "--name", "billing", "-o", "raw") as command:
        send(server, billed, b"one", b"two")
        assert [command.read_line(), command.read_line()] == [b"one\n", b"two\n"]
        wait_until(lambda: unread(server, billed) == 0)
        command.interrupt()
        ended = command.end()
    assert (ended.code, ended.out, ended.err) == (130, b"", "")


def test_ctrl_c_ends_a_waiting_pull_with_130(server: str, billed: str) -> None:
    def is_waiting() -> bool:
        with Admin(server) as admin:
            return admin.subscription(billed, "billing").waiting_pulls == 1

    with Command("pull", billed, "--name", "billing", "--wait", "600", "-o", "json") as command:
        wait_until(is_waiting)
        command.interrupt()
        ended = command.end()
    # The array is whole all the same.
    assert (ended.code, ended.out, ended.err) == (130, b"[]\n", "")


def test_ctrl_c_ends_lines_with_130_and_says_what_is_acknowledged(server: str, billed: str) -> None:
    with Command("send", billed, "--lines", stdin=subprocess.PIPE) as command:
        assert command.process.stdin is not None
        command.process.stdin.write(b"one\ntwo\nunfinished")
        command.process.stdin.flush()
        wait_until(lambda: unread(server, billed) == 2)
        command.process.stdin.write(b" line\nfour\n")
        command.process.stdin.flush()
        wait_until(lambda: unread(server, billed) == 4)
        command.interrupt()
        ended = command.end()
    assert (ended.code, ended.out) == (130, b"")
    # The answer to the last two may not have come yet.
    assert ended.err in [f"acknowledged so far: {known} messages\n" for known in (2, 4)]


# --- closed pipes -----------------------------------------------------------------------------


def test_a_closed_pipe_ends_pull_with_141_and_acknowledges_nothing(
    server: str, billed: str
) -> None:
    send(server, billed, *[b"x" * 100] * 5000)
    with Command("pull", billed, "--name", "billing", "-n", "5000", "-o", "raw") as command:
        command.close_stdout()
        ended = command.end()
    assert (ended.code, ended.err) == (141, "")
    assert unread(server, billed) == 5000


@pytest.mark.parametrize("form", ["auto", "json", "jsonl", "raw"])
def test_a_pipe_closed_in_the_middle_loses_no_message(server: str, billed: str, form: str) -> None:
    # Far more than a pipe holds, in several batches.
    payloads = [b"%06d" % n + b"x" * 994 for n in range(10_000)]
    for first in range(0, len(payloads), 1000):
        send(server, billed, *payloads[first : first + 1000])
    with Command("pull", billed, "--name", "billing", "-n", "10000", "-o", form) as command:
        command.read_line()
        command.close_stdout()
        ended = command.end()
    assert (ended.code, ended.err) == (141, "")
    left = unread(server, billed)
    assert 0 < left <= len(payloads)
    with Subscriber(server, "billing") as subscriber:
        assert subscriber.pull(billed, 1).payloads == [payloads[len(payloads) - left]]


def test_a_closed_pipe_ends_follow_with_141_at_the_next_message(server: str, billed: str) -> None:
    with Command("follow", billed, "--name", "billing", "-o", "raw") as command:
        send(server, billed, b"one")
        assert command.read_line() == b"one\n"
        wait_until(lambda: unread(server, billed) == 0)
        command.close_stdout()
        send(server, billed, b"two")
        ended = command.end()
    assert (ended.code, ended.err) == (141, "")
    assert unread(server, billed) == 1


def test_a_closed_pipe_ends_a_list_with_141(server: str, billed: str) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        ended = subprocess.run(
            [sys.executable, "-m", "mbctl", "topic", "list"], stdout=closed, stderr=subprocess.PIPE
        )
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_a_closed_stdin_is_wrong_usage(server: str, billed: str) -> None:
    ended = subprocess.run(
        ["bash", "-c", '"$0" -m mbctl send "$1" - <&-', sys.executable, billed],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    assert "there is no stdin to read" in ended.stderr


# --- follow -----------------------------------------------------------------------------------


def test_follow_without_a_name_subscribes_itself_and_leaves_nothing_to_read(
    server: str, billed: str
) -> None:
    with Command("follow", billed, "--from", "new", "-o", "jsonl") as command:
        note = command.read_note()
        assert f"is subscribed to {billed} from #0" in note
        send(server, billed, b"one")
        assert b'"payload":"one"' in command.read_line()
        command.interrupt()
        assert command.end().code == 130


def test_follow_with_a_new_name_subscribes_it_for_good(server: str, billed: str) -> None:
    send(server, billed, b"one")
    with Command("follow", billed, "--name", "audit", "--from", "earliest", "-o", "raw") as command:
        assert "audit is subscribed to" in command.read_note()
        assert command.read_line() == b"one\n"
        command.interrupt()
        assert command.end().code == 130
    with Admin(server) as admin:
        assert admin.subscription(billed, "audit").durable


def test_follow_of_several_topics_prints_them_as_they_come(server: str, billed: str) -> None:
    other = f"{billed}-other"
    with Publisher(server) as publisher:
        publisher.create_topic(other)
    with Command("follow", billed, other, "--from", "new") as command:
        assert {command.read_note().split()[4] for _ in range(2)} == {billed, other}
        for name in (other, billed, other):
            send(server, name, b"hi")
            assert command.read_line().startswith(name.encode() + b"\t")
        command.interrupt()
        assert command.end().code == 130


def test_follow_keeps_the_settings_of_a_subscription_that_is_there(
    server: str, billed: str
) -> None:
    with Subscriber(server, "billing") as subscriber:
        subscriber.subscribe(billed, ack_wait=77.0)
    send(server, billed, b"one")
    with Command("follow", billed, "--name", "billing", "-o", "raw") as command:
        assert command.read_line() == b"one\n"
    with Admin(server) as admin:
        assert admin.subscription(billed, "billing").ack_wait == 77.0


def test_follow_of_a_topic_that_is_deleted_ends_with_3(server: str, billed: str) -> None:
    with Command("follow", billed, "--name", "billing", "-o", "raw") as command:
        send(server, billed, b"one")
        assert command.read_line() == b"one\n"
        with Admin(server) as admin:
            admin.delete_topic(billed)
        ended = command.end()
    assert ended.code == 3
    assert ended.err.startswith(f"error: topic '{billed}' does not exist")


# --- completion -------------------------------------------------------------------------------


def complete(words: str) -> list[str]:
    """What bash would offer after ``words``."""
    environment = {
        **os.environ,
        "_MBCTL_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    ended = subprocess.run(
        [sys.executable, "-m", "mbctl"], env=environment, capture_output=True, text=True
    )
    return ended.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("mbctl su", ["subscriber", "subscribe", "subscription"]),
        ("mbctl topic cr", ["create"]),
        ("mbctl pull orders --n", ["--name", "--no-ack"]),
        ("mbctl status --ti", ["--timeout"]),
    ],
)
def test_commands_and_options_complete(words: str, offered: list[str]) -> None:
    assert complete(words) == offered


def test_topics_complete_with_what_the_server_has(server: str, billed: str) -> None:
    assert complete(f"mbctl send {billed[:-1]}") == [
        name for name in complete("mbctl topic show ") if name.startswith(billed[:-1])
    ]
    assert billed in complete(f"mbctl pull {billed}")


def test_topics_complete_with_nothing_when_there_is_no_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MBCTL_SERVER", "127.0.0.1:1")
    assert complete("mbctl send or") == []


def test_subscribers_complete_with_what_the_server_has(server: str, billed: str) -> None:
    assert complete(f"mbctl subscription show {billed} ") == ["billing"]
    assert complete(f"mbctl pull {billed} --name bil") == ["billing"]


def test_server_that_is_half_typed_is_asked(
    server: str, billed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MBCTL_SERVER", "127.0.0.1:1")
    assert complete(f"mbctl send --server {server} {billed}") == [billed]


# The completion scripts in the shells themselves. What stands for mbctl is on the path.
IN_SHELLS = {
    "bash": "source <(_MBCTL_COMPLETE=source_bash mbctl); COMP_WORDS=(mbctl send NAME);"
    " COMP_CWORD=2; _mbctl_completion mbctl; echo ${COMPREPLY[@]}",
    "fish": "_MBCTL_COMPLETE=source_fish mbctl | source; complete -C 'mbctl send NAME'",
    # zsh completes at a prompt only; this is what it evaluates there.
    "zsh": "_TYPER_COMPLETE_ARGS='mbctl send NAME' _MBCTL_COMPLETE=complete_zsh mbctl",
}


@pytest.mark.slow
@pytest.mark.parametrize("shell", IN_SHELLS)
def test_completion_works_in_the_shell(
    shell: str, server: str, billed: str, tmp_path: Path
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    program = tmp_path / "mbctl"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mbctl "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ended = subprocess.run(
        [shell, "-c", IN_SHELLS[shell].replace("NAME", billed[:-1])],
        env={**environment, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert billed in re.split(r"[\s\":()]+", ended.stdout), ended


# --- streams that cannot be written -----------------------------------------------------------


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("redirection", "complaint"),
    [
        (">/dev/full", "no space left on device\n"),
        (">&-", "bad file descriptor\n"),
    ],
)
@pytest.mark.parametrize("command", ["topic list", "pull TOPIC --name billing -o raw", "-h"])
def test_a_stdout_that_cannot_be_written_is_an_error(
    server: str, billed: str, command: str, redirection: str, complaint: str, unbuffered: str
) -> None:
    send(server, billed, b"one")
    ended = subprocess.run(
        [
            "bash",
            "-c",
            f'"$0" -m mbctl {command.replace("TOPIC", billed)} {redirection}',
            sys.executable,
        ],
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        capture_output=True,
        text=True,
    )
    # The help is written by the parser, which does not say where to.
    prefix = "error: " if command == "-h" else "error: stdout: "
    assert (ended.returncode, ended.stderr) == (1, prefix + complaint)
    assert unread(server, billed) == 1


def test_a_closed_stderr_is_no_reason_to_fail(server: str, billed: str) -> None:
    ended = subprocess.run(
        ["bash", "-c", '"$0" -m mbctl ping 2>&-', sys.executable], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout[: len(server)]) == (0, server)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_pipe_ends_help_with_141(unbuffered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    with Command("--help") as command:
        command.close_stdout()
        ended = command.end()
    assert (ended.code, ended.err) == (141, "")
