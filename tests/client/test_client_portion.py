"""When a follow is at its end, in virtual time."""

import pytest

from mbctl import InvalidArgument
from mbctl.client.subscribing import Portion


def portion(*topics: str, idle: float | None) -> Portion:
    """What a follow of these asks for."""
    return Portion(topics, 10, None, idle)


def test_the_first_empty_pull_of_a_topic_does_not_count() -> None:
    follow = portion("a", idle=5)
    follow.begin(100)
    assert not follow.is_over("a", 105)
    assert follow.is_over("a", 110)


def test_pulls_that_came_back_early_do_not_count() -> None:
    follow = portion("a", idle=5)
    follow.begin(100)
    assert [follow.is_over("a", now) for now in (100, 101, 102, 104.9, 105)] == [*[False] * 4, True]


def test_a_new_wait_begins_anew() -> None:
    follow = portion("a", idle=5)
    follow.begin(100)
    assert not follow.is_over("a", 105)
    follow.begin(105)
    assert not follow.is_over("a", 110)
    assert follow.is_over("a", 115)


def test_every_topic_has_to_be_quiet() -> None:
    follow = portion("a", "b", "a", idle=5)
    assert follow.topics == ["a", "b"]
    follow.begin(0)
    assert not any(follow.is_over("a", now) for now in (5, 10, 15))
    assert not follow.is_over("b", 16)
    assert follow.is_over("b", 20)


def test_without_idle_there_is_no_end() -> None:
    for idle in (None, float("inf")):
        follow = portion("a", idle=idle)
        follow.begin(0)
        assert not any(follow.is_over("a", 60.0 * n) for n in range(1, 1000))
        assert follow.wait_s == 60


@pytest.mark.parametrize(("idle", "wait_s"), [(0, 0), (0.5, 0.5), (3600, 60), (-1, 0)])
def test_a_pull_waits_for_no_longer_than_finds_a_server_that_is_gone(
    idle: float, wait_s: float
) -> None:
    assert portion("a", idle=idle).wait_s == wait_s


def test_bounds_may_be_numbers_of_any_class() -> None:
    class Number:
        def __index__(self) -> int:
            return 7

    assert Portion(("a",), Number(), Number(), None).max_messages == 7  # type: ignore[arg-type]


def test_there_is_at_least_one_topic() -> None:
    with pytest.raises(InvalidArgument, match="at least one topic"):
        portion(idle=None)
