"""Where every error of a command ends."""

import io

import pytest

from mbctl.actions.output import Output
from mbctl.cli.command import guard
from mbctl.errors import (
    ConnectionLost,
    NotSubscribed,
    SendFailed,
    SubscriptionNotFound,
    TopicFull,
    TopicNotFound,
)


def ends(error: BaseException) -> tuple[int, str]:
    """The exit code for ``error`` and what was reported."""

    def fail() -> None:
        raise error

    err = io.StringIO()
    code = guard(fail, Output(stdout=io.StringIO(), stderr=err), names=lambda _error: ["orders"])
    return code, err.getvalue()


def test_an_unexpected_error_is_one_line_and_no_traceback() -> None:
    code, report = ends(ZeroDivisionError("by\n0"))
    assert code == 1
    assert report.startswith("error: unexpected ZeroDivisionError: by\\n0; this is a bug")
    assert report.count("\n") == 1


def test_a_traceback_is_shown_to_those_who_ask(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MBCTL_DEBUG", "1")
    assert ends(ZeroDivisionError("by 0"))[0] == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_error_of_the_system_names_the_file() -> None:
    assert ends(FileNotFoundError(2, "No such file or directory", "run.mb")) == (
        1,
        "error: run.mb: no such file or directory\n",
    )


def test_a_lost_connection_exits_5_with_its_hint() -> None:
    code, report = ends(ConnectionLost(address="a:1", reason="refused"))
    assert code == 5
    assert "is the server running?" in report


def test_an_unknown_topic_comes_with_the_one_that_was_meant() -> None:
    assert ends(TopicNotFound(topic="ordres"))[1] == (
        "error: topic 'ordres' does not exist; did you mean 'orders'?"
        " or create it with: mbctl topic create ordres\n"
    )


def test_an_unknown_subscriber_comes_with_the_one_that_was_meant() -> None:
    for kind in (SubscriptionNotFound, NotSubscribed):
        assert "; did you mean 'orders'? or " in ends(kind(topic="t", subscriber="ordres"))[1]


def test_a_refused_pipeline_exits_as_its_first_refusal() -> None:
    refusal = TopicFull(topic="orders", what="messages", limit=5)
    code, report = ends(SendFailed.of([("orders", [b"x"], refusal)]))
    assert code == 9
    assert "is full" in report


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (BrokenPipeError(), 141)], ids=repr
)
def test_ends_that_are_no_failures_say_nothing(error: BaseException, code: int) -> None:
    assert ends(error) == (code, "")


def test_what_a_command_returns_is_its_exit_code() -> None:
    output = Output(stdout=io.StringIO(), stderr=io.StringIO())
    assert guard(lambda: None, output) == 0
    assert guard(lambda: 7, output) == 7
