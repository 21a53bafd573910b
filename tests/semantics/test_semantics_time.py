"""Point 13: time."""

import time
from collections.abc import Callable, Iterator

import pytest
from semantic_worlds import World

from mbctl.server.runtime import AsyncioRuntime

pytestmark = pytest.mark.point(13)

HOUR_NS = 3600 * 10**9

SetClock = Callable[[int], None]


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[SetClock]:
    """Set the time of day of the broker, which runs in this process, by so many nanoseconds."""
    real = time.time_ns

    def shift(ns: int) -> None:
        monkeypatch.setattr(time, "time_ns", lambda: real() + ns)
        # The server's has the function itself.
        monkeypatch.setattr(AsyncioRuntime, "wall_ns", staticmethod(lambda: real() + ns))

    yield shift
    monkeypatch.undo()


def stamps(world: World, topic: str) -> list[int]:
    return [message.timestamp for message in world.admin.peek(topic)]


def test_a_batch_has_one_timestamp(world: World, topic: str) -> None:
    world.create(topic)
    before = time.time_ns()
    world.publisher.send_many(topic, ["a", "b", "c"])
    after = time.time_ns()
    (stamp,) = set(stamps(world, topic))
    assert before <= stamp <= after


def test_timestamps_never_decrease_in_a_topic_even_when_the_clock_is_set_back(
    world: World, topic: str, set_clock: SetClock
) -> None:
    world.create(topic)
    world.send(topic, "a")
    set_clock(-HOUR_NS)
    world.send(topic, "b", "c")
    set_clock(HOUR_NS)
    world.send(topic, "d")
    a, b, c, d = stamps(world, topic)
    assert a <= b <= c <= d
    assert b - a < 10**9
    assert d - c > 3500 * 10**9


def test_timestamps_never_decrease_over_a_restart(
    durable: World, topic: str, set_clock: SetClock
) -> None:
    durable.create(topic)
    set_clock(HOUR_NS)
    durable.send(topic, "a")
    set_clock(0)
    durable.restart()
    durable.send(topic, "b")
    a, b = stamps(durable, topic)
    assert a <= b


@pytest.mark.parametrize("shift_ns", [-HOUR_NS, 24 * HOUR_NS], ids=["back", "on"])
def test_setting_the_clock_changes_no_lease_and_no_delay(
    world: World, topic: str, set_clock: SetClock, shift_ns: int
) -> None:
    world.create(topic)
    reader = world.reader(topic, "r", ack_wait=60)
    world.send(topic, "a", "b")
    held = reader.pull(topic, 1, auto_ack=False)
    begin = time.monotonic()
    reader.pull(topic, 1, auto_ack=False).nack(delay=0.1)
    set_clock(shift_ns)
    (again,) = reader.pull(topic, wait=5, auto_ack=False)
    assert again.offset == 1
    assert 0.1 <= time.monotonic() - begin < 5
    assert not reader.pull(topic, wait=0)
    assert held.ack() == 1


def test_a_waiting_pull_ends_by_the_monotonic_clock(
    world: World, topic: str, set_clock: SetClock
) -> None:
    world.create(topic)
    reader = world.reader(topic, "r")
    set_clock(-HOUR_NS)
    begin = time.monotonic()
    assert not reader.pull(topic, wait=0.1)
    assert 0.09 <= time.monotonic() - begin < 5
