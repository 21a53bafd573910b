"""The interactive shell, driven by keys against a real server."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from mbctl import Publisher, Subscriber
from mbctl.actions.output import Output
from mbctl.errors import ConnectionLost
from mbctl.shell import ShellOptions
from mbctl.shell.commands import Kind
from mbctl.shell.repl import run_repl

CTRL_C, CTRL_D, ENTER = "\x03", "\x04", "\r"

Shell = Callable[..., tuple[str, str]]
"""Type keys into a shell until it ends; what it wrote to stdout and to stderr."""


@pytest.fixture
def keys() -> Iterator[PipeInput]:
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        yield keys


@pytest.fixture
def shell(keys: PipeInput, server: str) -> Shell:
    def shell(
        kind: Kind,
        typed: str,
        *,
        name: str | None = None,
        server: str = server,
        timeout: float = 2.0,
    ) -> tuple[str, str]:
        out, err = io.StringIO(), io.StringIO()
        options = ShellOptions(server=server, name=name, timeout=timeout)
        keys.send_text(typed)
        code = run_repl(
            kind, options, Output(stdout=out, stderr=err), streams=(keys, DummyOutput())
        )
        assert code == 0
        return out.getvalue(), err.getvalue()

    return shell


def _lines(*lines: str) -> str:
    return "".join(line + ENTER for line in lines)


def test_shell_greets_with_server_and_name(shell: Shell, server: str) -> None:
    _, notes = shell("publisher", CTRL_D, name="till-3")
    assert (
        notes == f"connected to {server} as publisher till-3\nhelp lists the verbs, Ctrl-D leaves\n"
    )


def test_shell_without_a_name_says_that_it_is_ephemeral(shell: Shell) -> None:
    _, notes = shell("subscriber", CTRL_D)
    assert "as ephemeral subscriber" in notes
    assert "without a name its subscriptions end with this shell" in notes


def test_shell_creates_and_sends_what_was_typed(shell: Shell, topic: str, server: str) -> None:
    message = """{"id": 1, "note": "it's"}  """
    out, _ = shell("publisher", _lines(f"createTopic {topic}", f"send {topic} {message}") + CTRL_D)
    assert out == f"{topic}\ttrue\n{topic}\t0\t1\n"
    with Subscriber(server) as subscriber:
        subscriber.subscribe(topic, start="earliest")
        assert subscriber.pull(topic, wait=0).payloads == [message.encode()]


def test_error_is_one_line_and_the_shell_goes_on(shell: Shell, topic: str) -> None:
    typed = _lines("send nowhere x", "nonsense", f"createTopic {topic}")
    out, err = shell("publisher", typed + CTRL_D)
    assert err.splitlines()[2:] == [
        "error: topic 'nowhere' does not exist; create it with: createTopic nowhere",
        "error: unknown verb 'nonsense'; help lists the verbs",
    ]
    assert out == f"{topic}\ttrue\n"


def test_exit_leaves(shell: Shell) -> None:
    out, _ = shell("publisher", _lines("exit"))
    assert out == ""


def test_control_c_clears_the_line(shell: Shell, topic: str) -> None:
    out, err = shell("publisher", f"nonsense{CTRL_C}" + _lines(f"createTopic {topic}") + CTRL_D)
    assert out == f"{topic}\ttrue\n"
    assert "error" not in err
    assert "Ctrl-D leaves the shell" not in err


def test_control_c_on_an_empty_line_tells_how_to_leave(shell: Shell) -> None:
    _, err = shell("publisher", CTRL_C + CTRL_D)
    assert err.endswith("\nCtrl-D leaves the shell\n")


def test_pasted_block_runs_line_by_line(shell: Shell, topic: str) -> None:
    block = f"createTopic {topic}\n\nsend {topic} a\n# done\nsend {topic} b"
    out, err = shell("publisher", f"\x1b[200~{block}\x1b[201~{ENTER}{CTRL_D}")
    assert out == f"{topic}\ttrue\n{topic}\t0\t1\n{topic}\t1\t1\n"
    assert f"publisher> send {topic} b\n" in err


def test_pasted_block_stops_at_its_first_error(shell: Shell, topic: str) -> None:
    block = f"createTopic {topic}\nnonsense\n\nsend {topic} a\nsend {topic} b"
    out, err = shell("publisher", f"\x1b[200~{block}\x1b[201~{ENTER}{CTRL_D}")
    assert out == f"{topic}\ttrue\n"
    assert err.endswith("2 lines of the block did not run\n")


def test_history_lists_the_lines_of_this_and_earlier_runs(shell: Shell) -> None:
    shell("publisher", _lines("topics") + CTRL_D)
    out, _ = shell("publisher", _lines("help send", "history") + CTRL_D)
    assert out.endswith("1\ttopics\n2\thelp send\n3\thistory\n")


def test_each_kind_of_shell_has_its_own_history(shell: Shell, state: Path) -> None:
    shell("publisher", _lines("topics") + CTRL_D)
    shell("subscriber", _lines("status") + CTRL_D)
    kept = {path.name: path.read_text() for path in (state / "mbctl").iterdir()}
    assert kept == {"publisher_history": "topics\n", "subscriber_history": "status\n"}


def test_leaving_acknowledges_the_last_pull_and_says_what_stays(
    shell: Shell, topic: str, server: str
) -> None:
    with Publisher(server) as publisher:
        publisher.create_topic(topic)
        publisher.send_many(topic, [b"a", b"b"])
    typed = _lines(f"subscribe {topic}", "pull -n 1")
    _, err = shell("subscriber", typed + CTRL_D, name=topic)
    assert err.endswith(f"subscriptions of {topic} stay: {topic} (1 unread)\n")


def test_leaving_tells_of_messages_left_open(shell: Shell, topic: str, server: str) -> None:
    with Publisher(server) as publisher:
        publisher.create_topic(topic)
        publisher.send_many(topic, [b"a", b"b"])
    typed = _lines(f"subscribe {topic}", "pull --no-ack")
    _, err = shell("subscriber", typed + CTRL_D, name=topic)
    assert err.endswith(
        "2 messages not acknowledged will come again\n"
        f"subscriptions of {topic} stay: {topic} (2 unread)\n"
    )


def test_leaving_without_subscriptions_says_so(shell: Shell, topic: str) -> None:
    _, err = shell("subscriber", CTRL_D, name=topic)
    assert err.endswith(f"{topic} has no subscription\n")


def test_shell_without_a_server_ends_with_the_error(shell: Shell) -> None:
    with pytest.raises(ConnectionLost):
        shell("publisher", "", server="127.0.0.1:1", timeout=0.2)
