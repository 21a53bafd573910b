"""How long a process looks before it sleeps: while that pays, and now and then to find out."""

import os

import pytest

from mbctl import patience
from mbctl.patience import Patience


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})


def looks(learning: Patience, count: int) -> list[bool]:
    """Whether each of the next ``count`` inputs is waited for by looking."""
    return [learning.ns() > 0 for _ in range(count)]


def test_it_looks_once_in_a_while_to_find_out() -> None:
    assert sum(looks(Patience(), 10 * patience._TRIED_EVERY)) == 10


def test_it_looks_every_time_while_that_pays() -> None:
    learning = Patience()
    learning.paid()
    for _ in range(1000):
        assert learning.ns() == patience._MOST_NS
        learning.paid()


def test_it_goes_on_looking_where_most_looks_pay() -> None:
    learning = Patience()
    learning.paid()
    for _ in range(100):
        for _ in range(3):
            assert learning.ns()
            learning.paid()
        for _ in range(2):
            assert learning.ns()
            learning.failed()


def test_it_ends_after_some_looks_in_vain() -> None:
    learning = Patience()
    for _ in range(100):
        learning.paid()
    for _ in range(patience._CREDIT_MAX):
        assert learning.ns()
        learning.failed()
    assert not any(looks(learning, patience._TRIED_EVERY - 1))


def test_a_try_in_vain_costs_one_look() -> None:
    learning = Patience()
    while not learning.ns():
        pass
    learning.failed()
    assert not any(looks(learning, patience._TRIED_EVERY - 1))


def test_half_of_what_is_usual_is_slept_through_where_that_is_long() -> None:
    learning = Patience()
    assert learning.nap_s == 0
    for _ in range(100):
        learning.took(300_000)
    assert learning.nap_s == pytest.approx(0.000_150, rel=0.01)
    # What was there when the nap ended: as good as at once.
    for _ in range(10):
        learning.took(0)
    assert learning.nap_s == 0
    for _ in range(100):
        learning.took(10**9)
    assert learning.nap_s == 0


def test_on_a_single_core_it_never_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    alone = Patience()
    alone.paid()
    assert not any(looks(alone, 3 * patience._TRIED_EVERY))
