"""The loop is kept awake after an answer only as long as that finds the next request."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import cast

import pytest

from mbctl import patience
from mbctl.server.alert import Alert

SMALL = 100
LARGE = 100_000


class Rounds:
    """A loop that is gone round by hand, at a time that is set by hand."""

    def __init__(self) -> None:
        self.now_ns = 1
        self.due: deque[Callable[[], None]] = deque()

    def call_soon(self, call: Callable[[], None]) -> None:
        self.due.append(call)

    def go_round(self, ns: int) -> None:
        self.now_ns += ns
        for _ in range(len(self.due)):
            self.due.popleft()()


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> Rounds:
    rounds = Rounds()
    monkeypatch.setattr(time, "monotonic_ns", lambda: rounds.now_ns)
    monkeypatch.setattr(patience, "_cores", lambda: 2)
    return rounds


def alert_on(rounds: Rounds) -> Alert:
    return Alert(cast(asyncio.AbstractEventLoop, rounds))


def answers_until_awake(alert: Alert, rounds: Rounds) -> int:
    """How many answers pass until the loop is kept awake after one."""
    for count in range(1, 10_000):
        alert.expect(SMALL)
        if rounds.due:
            return count
    raise AssertionError("the loop always sleeps")


def test_loop_sleeps_after_most_answers_and_is_kept_awake_after_some(rounds: Rounds) -> None:
    alert = alert_on(rounds)
    assert answers_until_awake(alert, rounds) > 50
    rounds.go_round(patience._MOST_NS + 1)
    assert not rounds.due
    assert answers_until_awake(alert, rounds) > 50


def test_loop_is_kept_awake_while_requests_follow_on_answers(rounds: Rounds) -> None:
    alert = alert_on(rounds)
    answers_until_awake(alert, rounds)
    for _ in range(100):
        rounds.go_round(patience._MOST_NS // 2)
        assert len(rounds.due) == 1
        alert.came()
        alert.expect(SMALL)


def test_loop_sleeps_when_the_requests_end(rounds: Rounds) -> None:
    alert = alert_on(rounds)
    answers_until_awake(alert, rounds)
    alert.came()
    alert.expect(SMALL)
    for _ in range(3):
        rounds.go_round(patience._MOST_NS)
    assert not rounds.due


def test_a_request_during_long_work_does_not_end_the_looking(rounds: Rounds) -> None:
    alert = alert_on(rounds)
    answers_until_awake(alert, rounds)
    alert.came()
    rounds.go_round(10 * patience._MOST_NS)
    assert not rounds.due
    alert.expect(SMALL)
    assert len(rounds.due) == 1


def test_loop_sleeps_while_the_answers_come_from_a_thread(rounds: Rounds) -> None:
    is_storing = False
    alert = Alert(cast(asyncio.AbstractEventLoop, rounds), lambda: is_storing)
    answers_until_awake(alert, rounds)
    alert.came()
    alert.expect(SMALL)
    is_storing = True
    rounds.go_round(1)
    assert not rounds.due
    alert.expect(SMALL)
    assert not rounds.due
    # That was no look in vain.
    is_storing = False
    alert.expect(SMALL)
    assert len(rounds.due) == 1


def test_loop_sleeps_where_much_flows_until_a_while_after_that(rounds: Rounds) -> None:
    alert = alert_on(rounds)
    answers_until_awake(alert, rounds)
    alert.came()
    rounds.go_round(patience._MOST_NS)
    alert.expect(LARGE)
    for _ in range(3):
        alert.expect(SMALL)
        alert.expect(LARGE)
    assert not rounds.due
    assert 2 < answers_until_awake(alert, rounds) < 20
