"""Whatever others have stored: no view lets it act on a terminal, and raw and JSON are exact."""

import base64
import io
import json
import re
import sys
from collections.abc import Callable

import pytest
from cli_harness import Run

from mbctl import Publisher, Subscriber
from mbctl.cli import main

PAYLOADS = [
    b"\x1b]0;owned\x07\x1b[2J",
    b"\x9b2J\x84\x9d",
    "\u202eright to left\u2066\u200b\u2028".encode(),
    b"[bold red]markup[/] :boom:",
    b"a\r\n\x00\x08\x7fb",
    b"\xff\xfe\x00\x01",
    b'{"a": "\\u001b[2J", "\xe2\x80\xae": [1, "\x1b[31m"]}',
    b"x" * 1_000_000,
]
KEY = b"\x1b[31mkey\x07\xff"
HEADERS = {"\x1b[2Jname": "\x1b]8;;http://a\x07value\u202e"}

# The colours that mbctl itself gives to what it shows.
_PAINT = re.compile(r"\x1b\[[0-9]{1,2}m")
_HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")


class Screen(io.TextIOWrapper):
    """A stdout that says it is a terminal, and keeps what is written."""

    def isatty(self) -> bool:
        return True


View = Callable[..., str]


@pytest.fixture
def view(monkeypatch: pytest.MonkeyPatch) -> View:
    """What a command shows on a terminal."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("PAGER", "cat")

    def view(*args: str) -> str:
        screen = Screen(io.BytesIO(), encoding="utf-8")
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", screen)
            assert main(args) == 0
        screen.flush()
        return screen.buffer.getvalue().decode()  # type: ignore[attr-defined]

    return view


@pytest.fixture
def hostile(topic: str, server: str) -> str:
    """A topic with messages that mean no good, which billing has not read."""
    with Publisher(server) as publisher, Subscriber(server, "billing") as subscriber:
        publisher.create_topic(topic)
        subscriber.subscribe(topic)
        for payload in PAYLOADS:
            publisher.send(topic, payload, key=KEY, headers=HEADERS)
    return topic


@pytest.mark.parametrize(
    "args",
    [
        ("pull", "TOPIC", "--name", "billing"),
        ("pull", "TOPIC", "--name", "billing", "--full"),
        ("topic", "read", "TOPIC"),
        ("topic", "read", "TOPIC", "--verbose"),
        ("topic", "read", "TOPIC", "--full"),
        ("topic", "read", "TOPIC", "--full", "--verbose"),
        ("topic", "read", "TOPIC", "--format", r"%t %k %h %p %p{str}\n"),
        ("topic", "read", "TOPIC", "-o", "table", "--color", "never"),
        ("subscriber", "-c", "peek TOPIC", "-c", "peek TOPIC --full", "-c", "last 8"),
    ],
    ids=" ".join,
)
def test_no_view_lets_a_message_act(view: View, hostile: str, args: tuple[str, ...]) -> None:
    shown = view(*[word.replace("TOPIC", hostile) for word in args])
    assert "owned" in shown
    assert _HARMFUL.search(_PAINT.sub("", shown)) is None


@pytest.mark.parametrize("args", [("--lines",), ("-",)], ids=repr)
def test_errors_about_what_others_wrote_are_harmless(
    run: Run, server: str, args: tuple[str, ...]
) -> None:
    ended = run("send", "no\x1b[2Jname", *args, stdin=b"x")
    assert (ended.code, "\\x1b[2J" in ended.err) == (2, True)
    assert _HARMFUL.search(ended.err) is None


def test_raw_is_exact(view: View, hostile: str) -> None:
    screen = Screen(io.BytesIO(), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", screen)
        assert main(("topic", "read", hostile, "-o", "raw")) == 0
    screen.flush()
    written = screen.buffer.getvalue()  # type: ignore[attr-defined]
    assert written == b"".join(payload + b"\n" for payload in PAYLOADS)


def test_json_is_exact(run: Run, hostile: str) -> None:
    for row, payload in zip(
        run("topic", "read", hostile, "-o", "json").json, PAYLOADS, strict=True
    ):
        decode = base64.b64decode if row["encoding"] == "base64" else str.encode
        assert decode(row["payload"]) == payload
        assert base64.b64decode(row["key"]) == KEY
        assert row["headers"] == HEADERS


def test_format_is_exact_off_a_terminal(run: Run, hostile: str) -> None:
    ended = run("topic", "read", hostile, "--format", r"%p\0%k\0")
    assert ended.out == b"".join(payload + b"\0" + KEY + b"\0" for payload in PAYLOADS)


def test_tab_separated_text_is_harmless_and_a_line_for_each(run: Run, hostile: str) -> None:
    out = run("topic", "read", hostile).out.decode()
    assert out.count("\n") == len(PAYLOADS)
    assert _HARMFUL.search(out) is None
    assert json.loads(run("topic", "read", hostile, "-n", "1", "-o", "jsonl").out)["offset"] == 0
