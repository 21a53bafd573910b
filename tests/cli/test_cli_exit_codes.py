"""How every command ends: exit codes, JSON, and what it leaves alone off a terminal.

One table has a call of each. What only one command does is tested where that command is.
"""

import io
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_harness import Run

from mbctl import Admin, Publisher, Server, Subscriber
from mbctl.cli import app as cli_app
from mbctl.cli import main
from mbctl.model import TopicSettings

TOPIC = "TOPIC"

# A call of every command that works, where TOPIC is one with a message that billing has not
# read. The same call with a topic that is not there exits with the code beside it.
CALLS: dict[str, tuple[tuple[str, ...], int]] = {
    "publisher": (("publisher", "-c", "topics"), 0),
    "subscriber": (("subscriber", "--name", "billing", "-c", f"pull {TOPIC}"), 7),
    "send": (("send", TOPIC, "hi"), 3),
    "subscribe": (("subscribe", TOPIC, "--name", "audit"), 3),
    "pull": (("pull", TOPIC, "--name", "billing"), 3),
    "topic create": (("topic", "create", TOPIC), 0),
    "topic list": (("topic", "list"), 0),
    "topic show": (("topic", "show", TOPIC), 3),
    "topic why": (("topic", "why", TOPIC), 3),
    "topic read": (("topic", "read", TOPIC), 3),
    "topic purge": (("topic", "purge", TOPIC), 3),
    "topic delete": (("topic", "delete", TOPIC), 3),
    "subscription list": (("subscription", "list", TOPIC), 3),
    "subscription show": (("subscription", "show", TOPIC, "billing"), 3),
    "subscription seek": (("subscription", "seek", TOPIC, "billing", "--to", "new"), 3),
    "subscription release": (("subscription", "release", TOPIC, "billing"), 3),
    "subscription drop": (("subscription", "drop", TOPIC, "billing"), 3),
    "subscription delete": (("subscription", "delete", TOPIC, "billing"), 3),
    "status": (("status",), 0),
    "ping": (("ping",), 0),
    "top": (("top", "--once", "-d", "0.01"), 0),
    "doctor": (("doctor",), 0),
    "context add": (("context", "add", "new", "-s", "127.0.0.1:1"), 0),
    "context use": (("context", "use", "known"), 0),
    "context list": (("context", "list"), 0),
    "context show": (("context", "show", "known"), 0),
    "context remove": (("context", "remove", "known"), 0),
}
# These run until they are stopped, or are about files or two servers: their calls need more
# than a topic. What they are refused is below, and the rest where each of them is tested.
ELSEWHERE = {
    "topic move",
    *("server", "bench", "demo", "follow", "backup", "restore", "verify", "repair"),
    *("cluster start", "cluster stop", "cluster status"),
}
OF_SERVERS = [name for name in CALLS if not name.startswith("context")]
# What it is about is on the disk of whoever asks, so a lost server is one finding of many.
DIAGNOSES = {"doctor": 8}


def names() -> Iterator[str]:
    """All commands there are."""
    for name in cli_app.COMMANDS:
        subcommands = getattr(cli_app.LazyCommands()[name], "commands", None)
        yield from (f"{name} {sub}" for sub in subcommands) if subcommands else (name,)


each = pytest.mark.parametrize("name", CALLS)
each_of_servers = pytest.mark.parametrize("name", OF_SERVERS)


@pytest.fixture
def call(
    topic: str, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> Callable[..., list[str]]:
    """The arguments of a command's call; what it is about is there."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    run("context", "add", "known", "-s", server)
    with Publisher(server) as publisher, Subscriber(server, "billing") as subscriber:
        publisher.create_topic(topic)
        subscriber.subscribe(topic)
        publisher.send(topic, b"\x1b[31mhi\xff")

    def call(name: str, about: str = topic) -> list[str]:
        if name == "doctor":
            _cure(server)
        return [word.replace(TOPIC, about) for word in CALLS[name][0]]

    return call


def _cure(server: str) -> None:
    """Delete the topics that other tests have left full, which is what doctor is for."""
    with Admin(server) as admin:
        for info in admin.topics():
            if info.settings != TopicSettings():
                admin.delete_topic(info.topic)


class Untouched(io.RawIOBase):
    """A stdin that nobody may read."""

    def readable(self) -> bool:
        return True

    def readinto(self, _buffer: object) -> int:
        raise AssertionError("stdin was read")


def test_every_command_has_a_call_here_or_tests_elsewhere() -> None:
    assert {*CALLS, *ELSEWHERE} == set(names())


@each
def test_command_that_works_exits_0_without_colour_prompt_or_stdin(
    name: str,
    call: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    args = call(name)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Untouched())))
    assert main(args) == 0
    out, err = capsysbinary.readouterr()
    assert b"\x1b" not in out + err
    assert b"[y/N]" not in err


@each
def test_command_that_works_prints_json(
    name: str, call: Callable[..., list[str]], run: Run
) -> None:
    ended = run(*call(name), "-o", "json")
    assert ended.code == 0, ended.err
    # A script of a shell prints a value for each of its verbs.
    json.loads(ended.out)


@each
def test_command_that_works_prints_json_lines(
    name: str, call: Callable[..., list[str]], run: Run
) -> None:
    ended = run(*call(name), "-o", "jsonl")
    assert ended.code == 0, ended.err
    assert all(isinstance(value, dict) for value in ended.jsonl)


@pytest.mark.parametrize("name", [*CALLS, *sorted(ELSEWHERE)])
def test_wrong_option_exits_2(name: str, run: Run) -> None:
    ended = run(*name.split(), "--no-such-option")
    assert (ended.code, ended.out) == (2, b"")
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("name", [name for name, (_, code) in CALLS.items() if code])
def test_topic_that_is_not_there_has_its_code(
    name: str, call: Callable[..., list[str]], run: Run
) -> None:
    ended = run(*call(name, "not-there"), "-o", "json")
    assert ended.code == CALLS[name][1], ended.err
    assert "not-there" in ended.err
    error = json.loads(ended.err.splitlines()[-1])["error"]
    assert error["code"] in ("TopicNotFound", "NotSubscribed")


@each_of_servers
def test_without_a_server_the_code_is_5(
    name: str, call: Callable[..., list[str]], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = call(name)
    monkeypatch.setenv("MBCTL_SERVER", "127.0.0.1:1")
    ended = run(*args, "--timeout", "0.05")
    assert ended.code == DIAGNOSES.get(name, 5), ended.err


@each
def test_closed_pipe_is_141_and_says_nothing(
    name: str,
    call: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    args = call(name)
    capsysbinary.readouterr()
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert main(args) == 141
    assert b"rror" not in capsysbinary.readouterr().err


@each_of_servers
def test_ctrl_c_is_130_and_says_nothing(
    name: str,
    call: Callable[..., list[str]],
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    args = call(name)
    # A server that takes a request and is asked to hurry.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("MBCTL_SERVER", f"127.0.0.1:{listener.getsockname()[1]}")

        def interrupt() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1)
                os.kill(os.getpid(), signal.SIGINT)
                connection.recv(1 << 16)
                connection.recv(1)

        thread = threading.Thread(target=interrupt)
        thread.start()
        ended = run(*args)
        thread.join()
    assert (ended.code, ended.out, ended.err) == (130, b"", "")


# How the others are refused, where TOPIC is a topic, FILE is a file that is there, NEW one that is
# not, and GONE is where no server listens. The server takes no -o and has tests of its own.
REFUSED: list[tuple[int, str, str]] = [
    (2, "follow TOPIC --from 999", "OffsetOutOfRange"),
    (3, "follow not-there", "TopicNotFound"),
    (5, "follow TOPIC --timeout 0.05 -s GONE", "ConnectionLost"),
    (1, "backup NEW/backup", "OSError"),
    (2, "backup NEW", "NotSupported"),
    (2, "backup FILE", "InvalidArgument"),
    (5, "backup NEW --timeout 0.05 -s GONE", "ConnectionLost"),
    (1, "restore NEW OTHER", "OSError"),
    (1, "restore FILE OTHER", "BackupDamaged"),
    (1, "verify NEW", "OSError"),
    (1, "repair NEW", "OSError"),
    (1, "bench raw --repeat 1 --seconds 0.01 --json NEW/results", "OSError"),
    (2, "bench not-there", "InvalidArgument"),
    (2, "demo --seconds 0", "Usage"),
    (1, "cluster start --nodes 1 --dir FILE", "OSError"),
    (2, "cluster start --nodes 8", "Usage"),
]


@pytest.mark.parametrize(("code", "words", "error"), REFUSED)
def test_refusal_has_its_code_and_is_json_where_that_was_asked_for(
    code: int, words: str, error: str, topic: str, server: str, tmp_path: Path, run: Run
) -> None:
    with Publisher(server) as publisher:
        publisher.create_topic(topic)
    (tmp_path / "file").write_text("no backup")
    places = {
        **{"TOPIC": topic, "GONE": "127.0.0.1:1", "FILE": str(tmp_path / "file")},
        **{"NEW": str(tmp_path / "new"), "OTHER": str(tmp_path / "other")},
    }
    for word, place in places.items():
        words = words.replace(word, place)
    ended = run(*words.split(), "-o", "json")
    assert ended.code == code, ended.err
    # What follows messages has begun an array when it is refused.
    assert ended.out in (b"", b"[]\n")
    told = json.loads(ended.err.splitlines()[-1])["error"]
    assert told["code"] == error
    assert not (tmp_path / "other").exists()


def test_backup_of_a_server_that_makes_as_many_as_it_may_exits_9(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mbctl.server.backups.BACKUPS_MAX", 0)
    with Server(port=0, data=tmp_path / "data") as server:
        ended = run("backup", str(tmp_path / "file"), "-s", server.address)
    assert (ended.code, "backups at a time" in ended.err) == (9, True)
    assert not (tmp_path / "file").exists()


def test_no_cluster_is_a_failed_check_and_nothing_to_stop(run: Run, tmp_path: Path) -> None:
    where = ("--dir", str(tmp_path), "-o", "json")
    shown, stopped = run("cluster", "status", *where), run("cluster", "stop", *where)
    assert "start one with: mbctl cluster start" in shown.err
    assert (shown.code, shown.json) == (8, [])
    assert (stopped.code, stopped.json) == (0, {"stopped": 0})


@pytest.mark.parametrize("name", ["verify", "repair", "restore", "cluster status", "backup -"])
def test_closed_pipe_is_141_for_those_of_files_too(
    name: str,
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    data, backup = str(tmp_path / "data"), str(tmp_path / "file")
    with Server(port=0, data=tmp_path / "data") as server:
        monkeypatch.setenv("MBCTL_SERVER", server.address)
        run("backup", backup)
        operands = {
            **{"restore": [backup, str(tmp_path / "new")], "backup -": []},
            "cluster status": ["--dir", str(tmp_path), "-o", "json"],
        }
        if name == "backup -":
            _closes_the_pipe(name.split(), monkeypatch)
    if name != "backup -":
        _closes_the_pipe([*name.split(), *operands.get(name, [data])], monkeypatch)
    assert b"rror" not in capsysbinary.readouterr().err


def _closes_the_pipe(args: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert main(args) == 141
