"""Which server a command asks, and what a context for production asks before it destroys."""

from pathlib import Path

import pytest
from cli_harness import Run

from mbctl import Admin, Publisher


@pytest.fixture(autouse=True)
def contexts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shared_broker: object, run: Run
) -> None:
    """Two contexts: here is the server that runs, nowhere is none."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    address = shared_broker.address  # type: ignore[attr-defined]
    assert run("context", "add", "here", "-s", address).code == 0
    assert run("context", "add", "nowhere", "-s", "127.0.0.1:1").code == 0
    assert run("context", "add", "production", "-s", address, "--confirm", "always").code == 0


def asks(run: Run, *args: str) -> str:
    """The server that a ping asks, or its error."""
    ended = run("ping", "--timeout", "0.2", "-o", "json", *args)
    return str(ended.json["server"]) if ended.code == 0 else ended.err


def test_command_asks_what_it_is_told_first(
    run: Run, shared_broker: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    address: str = shared_broker.address  # type: ignore[attr-defined]
    run("context", "use", "nowhere")
    assert "127.0.0.1:1" in asks(run)
    monkeypatch.setenv("MBCTL_CONTEXT", "here")
    assert asks(run) == address
    monkeypatch.setenv("MBCTL_SERVER", "127.0.0.1:2")
    assert "127.0.0.1:2" in asks(run)
    assert asks(run, "--context", "here") == address
    assert "127.0.0.1:1" in asks(run, "--context", "here", "--server", "127.0.0.1:1")


def test_contexts_are_listed_shown_and_forgotten(run: Run) -> None:
    run("context", "use", "here")
    listed = run("context", "list", "-o", "json").json
    assert [(row["context"], row["current"]) for row in listed] == [
        ("here", True),
        ("nowhere", False),
        ("production", False),
    ]
    assert run("context", "show", "-o", "json").json == listed[0]
    assert run("context", "use", "--none", "-o", "json").json == {"context": None, "server": None}
    assert run("context", "remove", "here").code == 0
    assert run("context", "show", "here").code == 2


def test_context_is_replaced_only_when_told_so(run: Run) -> None:
    ended = run("context", "add", "here", "-s", "127.0.0.1:3")
    assert (ended.code, "--overwrite" in ended.err) == (2, True)
    assert run("context", "add", "here", "-s", "127.0.0.1:3", "--overwrite").code == 0
    assert "127.0.0.1:3" in asks(run, "--context", "here")


@pytest.mark.parametrize("verb", ["delete", "purge"])
def test_production_destroys_nothing_unasked(run: Run, server: str, topic: str, verb: str) -> None:
    with Publisher(server) as publisher:
        publisher.create_topic(topic)
        publisher.send(topic, "kept")
    args = ("topic", verb, topic, "--context", "production")
    refused = run(*args)
    assert (refused.code, "say --yes" in refused.err) == (2, True)
    with Admin(server) as admin:
        assert admin.topic(topic).messages == 1
    assert run(*args, "--yes").code == 0


def test_script_for_production_destroys_nothing_unasked(run: Run, server: str, topic: str) -> None:
    args = ("publisher", "--context", "production", "-c", f"createTopic {topic}")
    refused = run(*args, "-c", f"deleteTopic {topic}")
    assert (refused.code, "-c:2: error: context production asks" in refused.err) == (7, True)
    with Admin(server) as admin:
        assert admin.topic(topic).messages == 0
    assert run(*args, "-c", f"deleteTopic {topic}", "--yes").code == 0


@pytest.mark.parametrize(
    ("words", "position", "offered"),
    [
        ("mbctl status --context h", 3, ["here"]),
        ("mbctl context use ", 3, ["here", "nowhere", "production"]),
        ("mbctl topic show --context nowhere or", 5, []),
    ],
)
def test_contexts_are_completed(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: str, position: int, offered: list[str]
) -> None:
    monkeypatch.setenv("_MBCTL_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(position))
    assert run().out.decode().split() == offered
