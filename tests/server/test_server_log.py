"""The lines of the server's log."""

import json
import logging
from collections.abc import Iterator

import pytest

from mbctl.server import log


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    handlers, level, propagate = log.logger.handlers[:], log.logger.level, log.logger.propagate
    yield
    log.logger.handlers[:] = handlers
    log.logger.setLevel(level)
    log.logger.propagate = propagate


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What was logged since the last call."""
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def test_an_event_is_one_line_with_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("text")
    log.event(logging.INFO, "server ready", address="127.0.0.1:1", connections=3, share=0.5)
    (line,) = lines(capsys)
    stamp, rest = line.split(" ", 1)
    assert stamp.endswith("Z")
    assert rest == 'info    server ready address="127.0.0.1:1" connections=3 share=0.5'


def test_an_event_may_be_a_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json")
    log.event(logging.WARNING, "connection dropped", peer="ä")
    (line,) = lines(capsys)
    event = json.loads(line)
    assert event.pop("time").endswith("Z")
    assert event == {"level": "warning", "event": "connection dropped", "peer": "ä"}


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_a_peer_sent_cannot_break_a_line_or_fill_it(
    log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure(log_format)
    log.event(logging.INFO, "connection ended", reason="a\nb\x1b[31m\u2028\u202e" + "x" * 5000)
    (line,) = lines(capsys)
    assert line.isprintable()
    assert len(line) < 1300


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_an_exception_is_part_of_its_line(
    log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure(log_format)
    try:
        raise ValueError("no\nway")
    except ValueError:
        log.logger.exception("internal error", extra={"fields": {"message": object()}})
    (line,) = lines(capsys)
    assert "ValueError: no" in line


def test_debug_events_are_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("text")
    log.event(logging.DEBUG, "detail")
    assert lines(capsys) == []


def test_many_of_one_event_are_held_back_and_others_are_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log.configure("text")
    monkeypatch.setattr("logging.time.time", lambda: 1_000_000.0)
    for number in range(50):
        log.event(logging.INFO, "connection ended", number=number)
    log.event(logging.INFO, "server stopping")
    logged = lines(capsys)
    assert len(logged) == 6
    assert "more of these in this second are not logged" in logged[4]
    assert "more of these" not in logged[3]
    assert logged[5].endswith("server stopping")
    monkeypatch.setattr("logging.time.time", lambda: 1_000_001.0)
    log.event(logging.INFO, "connection ended")
    (line,) = lines(capsys)
    assert line.endswith("connection ended held_back=45")


def test_configuring_again_does_not_log_twice(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("text")
    log.configure("text")
    log.event(logging.INFO, "once")
    assert len(lines(capsys)) == 1
