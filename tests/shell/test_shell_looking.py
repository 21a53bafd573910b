"""The verbs for looking, from a script: use, last, watch, and how messages are shown."""

import json
import signal
import subprocess

import pytest
from shell_harness import MBCTL, PATIENCE_S, run_shell

from mbctl import Publisher


@pytest.fixture(autouse=True)
def _topic(server: str, topic: str) -> None:
    """A topic with three messages."""
    with Publisher(server) as publisher:
        publisher.create_topic(topic)
        publisher.send(topic, b"one", key=b"k", headers={"type": "new"})
        publisher.send(topic, b'{"two":2}')
        publisher.send(topic, b"\x00\xff")


def run(kind: str, *lines: str, form: str = "auto") -> tuple[int, str, str]:
    """Run lines; the exit code, what was printed, what was said."""
    options = [word for line in lines for word in ("-c", line)]
    ended = run_shell(kind, *options, "-o", form)
    return ended.code, ended.out.decode("utf-8", "backslashreplace"), ended.err


def test_dot_is_the_topic_in_use(topic: str) -> None:
    code, out, _ = run("publisher", f"use {topic}", "send . {four}", "peek . --from 3", form="raw")
    assert (code, out) == (0, f"{topic}\n{topic}\t3\t1\n{{four}}\n")


def test_pull_takes_the_topic_in_use(topic: str) -> None:
    lines = (f"subscribe {topic} --from 0", f"use {topic}", "pull -n 1", "use", "pull -n 1")
    code, out, _ = run("subscriber", *lines, form="jsonl")
    values = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [value.get("payload") for value in values] == [None, None, "one", None, '{"two":2}']
    assert values[3] == {"topic": None}


def test_topic_in_use_must_exist(topic: str) -> None:
    code, _, err = run("publisher", f"use {topic}x", "peek .")
    assert (code, f"did you mean {topic}?" in err) == (7, True)


def test_last_shows_the_last_messages_again_and_whole(topic: str) -> None:
    _, out, _ = run("subscriber", f"peek {topic} -n 1", "last", form="table")
    line, *full = out.splitlines()
    assert line.endswith(f" {topic} #0 key=k type=new one")
    assert full[0].startswith(f"{topic} #0  ")
    assert full[1:] == ["key  k", "type  new", "one", ""]


def test_last_takes_how_many(topic: str) -> None:
    _, out, _ = run("publisher", f"peek {topic}", "last 2", form="jsonl")
    offsets = [json.loads(line)["offset"] for line in out.splitlines()]
    assert offsets == [0, 1, 2, 1, 2]


def test_last_without_any_message_says_so() -> None:
    code, _, err = run("publisher", "last")
    assert (code, "no message has been shown yet" in err) == (7, True)


@pytest.mark.parametrize("verb", ["peek {}", "subscribe {} --from 0\npull"])
def test_messages_are_written_as_the_format_says(topic: str, verb: str) -> None:
    lines = f"{verb.format(topic)} --format '%o=%p{{hex}};'".split("\n")
    _, out, _ = run("subscriber", *lines)
    assert out.endswith("0=6f6e65;1=7b2274776f223a327d;2=00ff;")


def test_format_that_means_nothing_is_refused_where_it_stands(topic: str) -> None:
    code, _, err = run("publisher", f"peek {topic} --format %q")
    assert (code, "--format: '%q' (column 1) means nothing" in err) == (7, True)


def test_watch_repeats_until_interrupted(topic: str) -> None:
    command = [*MBCTL, "publisher", "-c", f"watch 0.1 peek {topic} -n 1", "-o", "raw"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(3)] == [b"one\n"] * 3
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130


@pytest.mark.parametrize(
    "line", ["follow", "watch 1 topics", "exit", "clear", "use", "# nothing", "drop x"]
)
def test_what_does_not_end_cannot_be_watched(line: str) -> None:
    code, _, err = run("subscriber", f"watch 1 {line}")
    assert (code, "cannot be watched" in err) == (7, True)


def test_follow_on_needs_somebody_who_types(topic: str) -> None:
    code, _, err = run("subscriber", f"subscribe {topic}", "follow on")
    assert (code, "follow on needs a terminal" in err) == (7, True)
